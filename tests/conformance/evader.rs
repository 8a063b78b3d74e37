//! Hostile framing: counts the responses in which the test virus is found.

use std::fs;
use std::path::{Path, PathBuf};

use pcapfs_tests::{require, run, tool};

use crate::data::{self, in_parallel};
use crate::outcome::{Outcome, Reach};
use crate::tree::{Capture, Tree};

/// A part of every response in the set.
const VIRUS: &[u8] = b"EICAR-STANDARD-ANTIVIRUS";

pub(crate) fn check(root: &Path) -> Vec<Outcome> {
    let folder = root.join("OISF+suricata-verify/tests/http-evader");
    let files = data::captures_below(&folder);
    let about = "http-evader: EICAR in a decoded body";
    let mut outcome = Outcome::new("http-evader", about, Reach::AtLeast(245));
    let tree = Tree::mount(&files);
    for capture in tree.captures() {
        let case = capture.file.parent().and_then(Path::file_name).unwrap_or_default();
        outcome.case(case.to_string_lossy(), found(capture));
    }
    outcome.close(tree);
    for (name, takes) in [("tshark", tshark as fn(&Path, &Path)), ("tcpflow", tcpflow)] {
        if let Err(lack) = require::tool(name) {
            outcome.note(format!("Not compared with {name}: needs {lack}."));
            continue;
        }
        let passed = in_parallel(&files, |file| {
            let folder = tempfile::tempdir_in("/dev/shm").expect("a folder on tmpfs");
            takes(file, folder.path());
            data::files_below(folder.path()).iter().any(|file| holds_virus(file))
        });
        outcome.other(name, passed.into_iter().filter(|&passed| passed).count());
    }
    outcome.note(
        "tshark is `--export-objects http`, tcpflow is `-e http`; any file either of them writes \
         counts that holds the text."
            .to_owned(),
    );
    vec![outcome]
}

fn found(capture: &Capture) -> Result<(), String> {
    let mut seen = Vec::new();
    for flow in capture.flows()? {
        for body in flow.bodies()? {
            if holds_virus(&body) {
                return Ok(());
            }
            let size = fs::metadata(&body).map_or(0, |meta| meta.len());
            let name = body.file_name().unwrap_or_default().to_string_lossy().into_owned();
            seen.push(format!("{name} ({size} bytes)"));
        }
        for transaction in flow.transactions()? {
            let why = &transaction["why"];
            seen.push(format!("{} {why}", transaction["state"]));
        }
    }
    Err(if seen.is_empty() { "no bodies".to_owned() } else { seen.join(", ") })
}

fn holds_virus(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.windows(VIRUS.len()).any(|window| window == VIRUS))
}

fn tshark(file: &Path, folder: &Path) {
    let mut command = tool("tshark");
    command.arg("-Q").arg("--export-objects").arg(format!("http,{}", folder.display()));
    let _ = run(command.arg("-r").arg(file), 60);
}

fn tcpflow(file: &Path, folder: &Path) {
    let mut command = tool("tcpflow");
    command.args(["-e", "http"]).arg("-o").arg(folder).arg("-r").arg(file);
    let _ = run(&mut command, 60);
    // It also writes streams with their headers, which are not decoded bodies.
    for file in data::files_below(folder) {
        let name: PathBuf = file.file_name().unwrap_or_default().into();
        if !name.to_string_lossy().contains("HTTPBODY") {
            let _ = fs::remove_file(file);
        }
    }
}
