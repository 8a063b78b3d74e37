//! Savefiles to send, and the receiver of most tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcapfs_tests::conversation::savefile_of;
use pcapfs_tests::{Conversation, Finished, Receiving, binary, run, schema, tool};
use serde_json::Value;
use tempfile::TempDir;

/// A savefile in a folder of its own.
pub(crate) struct Savefile {
    folder: TempDir,
    pub(crate) path: PathBuf,
}

impl Savefile {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let folder = TempDir::new().expect("a folder for the test");
        let path = folder.path().join("trace.pcap");
        fs::write(&path, bytes).expect("our own folder");
        Self { folder, path }
    }

    pub(crate) fn of(conversations: impl IntoIterator<Item = Conversation>) -> Self {
        Self::new(&savefile_of(conversations))
    }

    /// Another file beside it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// `pcapfs send INPUT HOST 5000 --speed max OPTIONS`.
pub(crate) fn send_command(input: &Path, receiving: &Receiving, options: &[&str]) -> Command {
    let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
    command.arg("send").arg(input).arg(receiving.first.ip().to_string());
    command.arg(receiving.first.port().to_string());
    if !options.contains(&"--speed") {
        command.args(["--speed", "max"]);
    }
    command.args(options);
    command
}

/// Runs it to its end.
#[track_caller]
pub(crate) fn send(input: &Path, receiving: &Receiving, options: &[&str]) -> Finished {
    run(&mut send_command(input, receiving, options), 60)
}

/// What each port of a new receiver gets of a savefile, and what `send` said.
#[track_caller]
pub(crate) fn received(
    savefile: &Savefile,
    ports: u16,
    options: &[&str],
) -> (BTreeMap<u16, Vec<u8>>, String) {
    let mut receiving = Receiving::start(ports, &[]);
    let said = send(&savefile.path, &receiving, options).success().stderr;
    receiving.end();
    (receiving.contents(), said)
}

/// The contents of ports from the first one on.
pub(crate) fn ports<const N: usize>(contents: [&[u8]; N]) -> BTreeMap<u16, Vec<u8>> {
    (Receiving::PORT..).zip(contents.map(<[u8]>::to_vec)).collect()
}

/// The lines of `--json`.
#[track_caller]
pub(crate) fn json(finished: &Finished) -> Vec<Value> {
    let lines = finished.text().lines();
    let lines: Vec<Value> =
        lines.map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    lines.iter().for_each(|line| schema::check("send", line));
    lines
}
