//! The flows of a capture, read as a test needs them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::conversation::{Conversation, savefile_of};
use crate::daemon::{Daemon, Mount};
use crate::fixture::ALIAS;
use crate::schema;
use crate::wait::{wait_for, wait_until};

/// A daemon over a savefile that is completely in the tree.
#[derive(Debug)]
pub struct Filed {
    /// The daemon; its capture has ended.
    pub daemon: Daemon,
    _folder: TempDir,
}

impl Filed {
    /// A daemon over a savefile of these bytes.
    #[must_use]
    #[track_caller]
    pub fn new(savefile: &[u8]) -> Self {
        Self::with(Mount::new(), savefile)
    }

    /// With further arguments.
    #[must_use]
    #[track_caller]
    pub fn with(mount: Mount, savefile: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test can be made");
        let file = folder.path().join("talk.pcap");
        fs::write(&file, savefile).expect("room in the folder for temporary files");
        let daemon = mount.capture(ALIAS, &format!("file:{}", file.display())).start();
        wait_until("the capture has ended", 60, || daemon.status(ALIAS)["state"] == "ended");
        Self { daemon, _folder: folder }
    }

    /// A daemon over a savefile of these conversations, in the order of their times.
    #[must_use]
    #[track_caller]
    pub fn of(conversations: impl IntoIterator<Item = Conversation>) -> Self {
        Self::new(&savefile_of(conversations))
    }

    /// Path of a file of a flow.
    #[must_use]
    #[track_caller]
    pub fn file(&self, id: u64, name: &str) -> PathBuf {
        flow(&self.daemon, id).join(name)
    }

    /// Bytes of a file of a flow.
    #[must_use]
    #[track_caller]
    pub fn read(&self, id: u64, name: &str) -> Vec<u8> {
        let path = self.file(id, name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// `meta.json` of a flow.
    #[must_use]
    #[track_caller]
    pub fn meta(&self, id: u64) -> Value {
        meta(&self.daemon, id)
    }

    /// `http.jsonl` of a flow.
    #[must_use]
    #[track_caller]
    pub fn http(&self, id: u64) -> Vec<Value> {
        lines(&self.file(id, "http.jsonl"))
    }
}

/// Names of the flows in the tree, as listed.
#[must_use]
#[track_caller]
pub fn names(daemon: &Daemon) -> Vec<String> {
    listed(&daemon.path(ALIAS).join("flows"))
}

/// Names in a folder, in order.
#[must_use]
#[track_caller]
pub fn listed(folder: &Path) -> Vec<String> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a text"))
        .collect();
    names.sort();
    names
}

/// Directory of a flow, by its number.
#[must_use]
#[track_caller]
pub fn flow(daemon: &Daemon, id: u64) -> PathBuf {
    let folder = daemon.path(ALIAS).join("flows");
    let begin = format!("{id:06}-");
    wait_for(&format!("flow {id} is in the tree"), 10, || {
        let name = listed(&folder).into_iter().find(|name| name.starts_with(&begin));
        name.map(|name| folder.join(name))
    })
}

/// `meta.json` of a flow.
#[must_use]
#[track_caller]
pub fn meta(daemon: &Daemon, id: u64) -> Value {
    json(&flow(daemon, id).join("meta.json"))
}

/// Waits until a flow is in this state, and returns its `meta.json`.
#[track_caller]
pub fn wait_flow(daemon: &Daemon, id: u64, state: &str) -> Value {
    wait_for(&format!("flow {id} is {state}"), 15, || {
        Some(meta(daemon, id)).filter(|meta| meta["state"] == state)
    })
}

/// Waits until a file has this many bytes, and reads it.
#[track_caller]
pub fn wait_bytes(path: &Path, length: usize) -> Vec<u8> {
    wait_for(&format!("{} has {length} bytes", path.display()), 10, || {
        fs::read(path).ok().filter(|bytes| bytes.len() >= length)
    })
}

/// A file with one JSON text.
#[must_use]
#[track_caller]
pub fn json(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    schema::check_file(path, &value);
    value
}

/// A file of lines of JSON, each with its line feed.
#[must_use]
#[track_caller]
pub fn lines(path: &Path) -> Vec<Value> {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = parsed(&text);
    lines.iter().for_each(|line| schema::check_file(path, line));
    lines
}

/// Lines of JSON.
#[must_use]
#[track_caller]
pub fn parsed(text: &str) -> Vec<Value> {
    assert!(text.is_empty() || text.ends_with('\n'), "half a line at the end of {text}");
    let line =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(line).collect()
}

/// Everything below a folder as (path, bytes), in order of the paths; directories have no bytes.
#[must_use]
#[track_caller]
pub fn everything(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(at) = left.pop() {
        for name in listed(&at) {
            let path = at.join(name);
            let short = path.strip_prefix(folder).expect("below it").to_owned();
            if path.is_dir() {
                found.push((short, None));
                left.push(path);
            } else {
                let bytes = fs::read(&path);
                let bytes = bytes.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((short, Some(bytes)));
            }
        }
    }
    found.sort();
    found
}
