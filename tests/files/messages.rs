//! What is said of mistakes: what was wrong, with what, and what to do.

use std::fs::{self, File};

use pcapfs_tests::conversation::savefile_of;
use pcapfs_tests::{Filed, Mount, binary, run, skip_unless, tool};
use tempfile::TempDir;

/// What `pcapfs` says in its one line, when it ends with this code.
#[track_caller]
fn said(words: &[&str], code: i32) -> String {
    let mut pcapfs = tool(binary("pcapfs").to_str().unwrap());
    let finished = run(pcapfs.args(words).env("PCAPFS_SOCKET", "/nonexist/socket"), 10);
    assert_eq!(finished.status.code(), Some(code), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    let line = finished.stderr.trim_end().strip_prefix("pcapfs: ").map(str::to_owned);
    line.unwrap_or_else(|| panic!("does not begin with the program's name: {}", finished.stderr))
}

#[test]
fn mistakes_are_said_with_a_remedy() {
    let folder = TempDir::new().unwrap();
    let place = folder.path().to_str().unwrap();
    let mount = |words: &[&str], code| said(&[&["mount", place], words].concat(), code);
    for (line, parts) in [
        (mount(&["-i", "lo", "--max-flows", "-1"], 2), &["'-1'", "--max-flows", "from 1 to"][..]),
        (mount(&["-i", "lo", "--max-flows", "x"], 2), &["'x' is no number from 1 to 4294967295"]),
        (mount(&["-i", "lo", "--snaplen", "-5"], 2), &["'-5' is no number from 1 to 262144"]),
        (mount(&["-i", "lo", "--ring", "99999999999T"], 2), &["99999999999T", "too large"]),
        (mount(&["--config", "/nonexist"], 1), &["/nonexist: the configuration", "pcapfs.toml(5)"]),
        (said(&["check-config", "/nonexist"], 1), &["/nonexist: the config", "pcapfs.toml(5)"]),
        (
            said(&["replay", "w", "-w", "/nonexist/x"], 1),
            &["/nonexist/x: no such directory: /nonexist (make it with: mkdir -p /nonexist)"],
        ),
        (said(&["umount", "/"], 1), &["/: what is mounted there is no pcapfs", "umount /"]),
    ] {
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
        assert!(!line.contains("invalid digit"), "{line}");
    }
}

#[test]
fn a_folder_that_can_have_no_rings_is_named_with_a_remedy() {
    skip_unless!(root);
    let folder = TempDir::new().unwrap();
    let place = folder.path().to_str().unwrap();
    let line = said(&["mount", place, "--ring-dir", "/proc", "-i", "lo"], 1);
    for part in ["/proc/lo.ring: no ring can be made there", "another --ring-dir"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn what_is_in_the_directory_is_hidden_as_long_as_a_tree_is_mounted_on_it() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    File::create(folder.path().join("letter")).unwrap();
    let filed = Filed::with(Mount::new().mountpoint(folder.path()), &savefile_of([]));
    assert!(!folder.path().join("letter").exists(), "it shows through");
    assert!(folder.path().join("status.json").exists());
    drop(filed);
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["letter"]);
    let mut pcapfs = tool(binary("pcapfs").to_str().unwrap());
    let help = run(pcapfs.args(["mount", "--help"]), 5).success();
    assert!(help.text().contains("what is in it is hidden meanwhile"), "{}", help.text());
}
