//! Read access to flows.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use pcapfs_tests::flows::everything;
use pcapfs_tests::{Client, Filed, run, skip_unless, tool};

use crate::support::{exchange, talk};

#[test]
fn files_of_flows_have_the_permissions_of_their_capture() {
    skip_unless!(root, "setpriv");
    const USER: u32 = 54_321;
    const GROUP: u32 = 65_432;
    let mut talk = talk(1);
    talk.open();
    exchange(&mut talk, "/a.txt", b"secret");
    talk.close(Client);
    let filed = Filed::of([talk]);
    let capture = filed.daemon.path("web");
    let flows = capture.join("flows");
    let all: Vec<_> = everything(&capture.join("flows"))
        .into_iter()
        .map(|(path, bytes)| (flows.join(path), bytes.is_none()))
        .chain([(flows.clone(), true)])
        .chain(["http.jsonl", "flows.jsonl"].map(|name| (capture.join(name), false)))
        .collect();
    let reads = |group: u32, path: &Path| {
        let mut command = tool("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={group}")]);
        let program = if path.is_dir() { "ls" } else { "cat" };
        let output = run(command.args(["--clear-groups", program]).arg(path), 5);
        let denied = output.stderr.contains("Permission denied");
        assert!(output.status.success() != denied, "{}: {}", path.display(), output.stderr);
        !denied
    };
    let check = |directories: u32, files: u32, group: u32| {
        for (path, is_directory) in &all {
            let metadata = fs::metadata(path).unwrap();
            let mode = if *is_directory { directories } else { files };
            assert_eq!(metadata.mode() & 0o7777, mode, "{}", path.display());
            assert_eq!((metadata.uid(), metadata.gid()), (0, group), "{}", path.display());
        }
    };
    let group = fs::metadata(&capture).unwrap().gid();
    check(0o750, 0o640, group);
    for (path, _) in &all {
        assert!(!reads(GROUP, path), "{} is open to others", path.display());
    }
    std::os::unix::fs::chown(&capture, None, Some(GROUP)).unwrap();
    check(0o750, 0o640, GROUP);
    for (path, _) in &all {
        assert!(reads(GROUP, path), "{} is closed to the group", path.display());
        assert!(!reads(GROUP + 1, path), "{} is open to others", path.display());
    }
    fs::set_permissions(&capture, fs::Permissions::from_mode(0o755)).unwrap();
    check(0o755, 0o644, GROUP);
    for (path, _) in &all {
        assert!(reads(GROUP + 1, path), "{} is closed to others", path.display());
    }
    // No user can change or remove a file of a flow.
    for (path, is_directory) in &all {
        assert!(fs::remove_file(path).is_err() && fs::remove_dir(path).is_err());
        let written = fs::OpenOptions::new().write(true).open(path);
        assert!(*is_directory || written.is_err(), "{} can be written", path.display());
    }
}
