//! Read access: the permission bits of the tree, as `chmod`, `chgrp` and `chown` set them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::unistd::Group;
use pcapfs_tests::daemon::mount_entry;
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{ALIAS, Fed, Fifo, Mount, Running, run, skip_unless, tool};
use tempfile::TempDir;

/// Ids that no account has.
const USER: u32 = 54_321;
const OTHER_USER: u32 = 54_322;
const GROUP: u32 = 65_432;
const OTHER_GROUP: u32 = 65_433;

const READABLE: [&str; 8] = [
    "live.pcap",
    "follow.pcap",
    "replay.pcap",
    "live.pcapng",
    "follow.pcapng",
    "replay.pcapng",
    "status.json",
    "readers.jsonl",
];

/// A command run as this user, in this group and no other.
fn as_user(user: u32, group: u32, program: &str) -> Command {
    let mut command = tool("setpriv");
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={group}"))
        .arg("--clear-groups")
        .arg(program);
    command
}

fn may_read(user: u32, group: u32, path: &Path) -> bool {
    let output = run(as_user(user, group, "head").args(["-c", "10"]).arg(path), 5);
    if output.status.success() {
        assert_eq!(output.stdout.len(), 10);
        return true;
    }
    assert!(output.stderr.contains("Permission denied"), "{}", output.stderr);
    false
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

fn default_group() -> u32 {
    Group::from_name("pcapfs").unwrap().map_or(0, |group| group.gid.as_raw())
}

#[test]
fn a_capture_is_closed_to_others_before_its_first_packet() {
    skip_unless!(root);
    let fifo = Fifo::new();
    let daemon = Mount::new().capture(ALIAS, &fifo.source()).start();
    let group = default_group();
    assert_eq!(owner_and_mode(&daemon.path(ALIAS)), (0, group, 0o750));
    for file in READABLE {
        assert_eq!(owner_and_mode(&daemon.path(ALIAS).join(file)), (0, group, 0o640), "{file}");
    }
    assert_eq!(owner_and_mode(&daemon.path("web/ctl")), (0, group, 0o200));
    let status = daemon.status(ALIAS);
    assert_eq!((&status["owner"], &status["mode"]), (&"root".into(), &"0750".into()));
    let name = if group == 0 { "root" } else { "pcapfs" };
    assert_eq!(status["group"], name);
}

#[test]
fn the_kernel_checks_the_bits_for_everyone() {
    skip_unless!(root);
    let fed = Fed::start();
    let entry = mount_entry(fed.daemon.mountpoint()).expect("it is mounted");
    for option in ["default_permissions", "allow_other"] {
        assert!(entry.split([' ', ',']).any(|word| word == option), "no {option}: {entry}");
    }
}

#[test]
fn changes_of_a_capture_show_on_its_files() {
    skip_unless!(root);
    let fed = Fed::start();
    let folder = fed.daemon.path(ALIAS);
    for (mode, files, ctl) in
        [(0o700, 0o600, 0o200), (0o755, 0o644, 0o200), (0o770, 0o640, 0o220), (0o750, 0o640, 0o200)]
    {
        let _ = run(tool("chmod").arg(format!("{mode:o}")).arg(&folder), 5).success();
        assert_eq!(owner_and_mode(&folder).2, mode);
        for file in READABLE {
            // Write permission on the folder allows controlling the capture, not writing its
            // packets.
            let shown = owner_and_mode(&folder.join(file)).2;
            assert_eq!(shown & 0o555, files & 0o555, "{file} of {mode:o} is {shown:o}");
            assert_eq!(shown & 0o111, 0, "{file} of {mode:o} is {shown:o}");
        }
        assert_eq!(owner_and_mode(&folder.join("ctl")).2, ctl, "ctl of {mode:o}");
        assert_eq!(fed.daemon.status(ALIAS)["mode"], format!("{mode:04o}"));
    }
    let _ = run(tool("chgrp").arg(GROUP.to_string()).arg(&folder), 5).success();
    let _ = run(tool("chown").arg(USER.to_string()).arg(&folder), 5).success();
    assert_eq!(owner_and_mode(&folder), (USER, GROUP, 0o750));
    for file in READABLE {
        assert_eq!(owner_and_mode(&folder.join(file)), (USER, GROUP, 0o640), "{file}");
    }
    let status = fed.daemon.status(ALIAS);
    // Ids without a name are shown as numbers, as in ls.
    assert_eq!(status["owner"], USER.to_string());
    assert_eq!(status["group"], GROUP.to_string());
}

#[test]
fn members_of_the_group_read_and_others_do_not() {
    skip_unless!(root, "setpriv");
    let fed = Fed::holding(10);
    let folder = fed.daemon.path(ALIAS);
    std::os::unix::fs::chown(&folder, None, Some(GROUP)).unwrap();
    for file in ["live.pcap", "follow.pcapng", "replay.pcap", "status.json"] {
        let path = folder.join(file);
        assert!(may_read(USER, GROUP, &path), "a member may not read {file}");
        assert!(!may_read(USER, OTHER_GROUP, &path), "another may read {file}");
    }
    assert!(may_read(USER, OTHER_GROUP, &fed.daemon.path("README")));
    let output = run(as_user(USER, OTHER_GROUP, "ls").arg(&folder), 5);
    assert!(output.stderr.contains("Permission denied"), "{output:?}");

    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    assert!(may_read(OTHER_USER, OTHER_GROUP, &folder.join("replay.pcap")), "0755 is for all");
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    assert!(!may_read(USER, GROUP, &folder.join("replay.pcap")), "0700 is for the owner");
    std::os::unix::fs::chown(&folder, Some(USER), None).unwrap();
    assert!(may_read(USER, OTHER_GROUP, &folder.join("replay.pcap")), "the owner may not read");
}

#[test]
fn only_the_owner_or_root_changes_the_bits() {
    skip_unless!(root, "setpriv");
    let fed = Fed::start();
    let folder = fed.daemon.path(ALIAS);
    std::os::unix::fs::chown(&folder, Some(USER), Some(GROUP)).unwrap();
    let chmod = |user, mode: &str| run(as_user(user, GROUP, "chmod").arg(mode).arg(&folder), 5);
    assert!(!chmod(OTHER_USER, "0777").status.success());
    assert_eq!(owner_and_mode(&folder), (USER, GROUP, 0o750));
    assert!(chmod(USER, "0700").status.success());
    assert_eq!(owner_and_mode(&folder), (USER, GROUP, 0o700));
    // Only root can give a file to another user, as everywhere.
    let chown = run(as_user(USER, GROUP, "chown").arg(OTHER_USER.to_string()).arg(&folder), 5);
    assert!(!chown.status.success());
    assert_eq!(owner_and_mode(&folder).0, USER);
}

#[test]
fn steering_needs_the_right_to_write() {
    skip_unless!(root, "setpriv");
    let fed = Fed::holding(3);
    let folder = fed.daemon.path(ALIAS);
    std::os::unix::fs::chown(&folder, None, Some(GROUP)).unwrap();
    let steer = |verb: &str| {
        let line = format!("echo {verb} > {}", folder.join("ctl").display());
        run(as_user(USER, GROUP, "sh").arg("-c").arg(line), 5)
    };
    let refused = steer("stop");
    assert!(!refused.status.success() && refused.stderr.contains("Permission denied"));
    assert_eq!(fed.daemon.status(ALIAS)["state"], "running");

    fs::set_permissions(&folder, Permissions::from_mode(0o770)).unwrap();
    let _ = steer("stop").success();
    fed.daemon.wait_state(ALIAS, "stopped");
    let read = run(as_user(USER, GROUP, "cat").arg(folder.join("ctl")), 5);
    assert!(read.stderr.contains("Permission denied"), "ctl can be read: {read:?}");
}

#[test]
fn who_has_opened_goes_on() {
    skip_unless!(root, "setpriv");
    let mut fed = Fed::holding(10);
    let folder = fed.daemon.path(ALIAS);
    std::os::unix::fs::chown(&folder, None, Some(GROUP)).unwrap();
    let cat = Running::spawn(as_user(USER, GROUP, "cat").arg(folder.join("live.pcap")));
    fed.daemon.wait_blocked(ALIAS, "live.pcap", cat.pid());
    assert_eq!(fed.daemon.reader(ALIAS, "live.pcap", 0)["uid"], USER);
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    assert!(!may_read(USER, GROUP, &folder.join("live.pcap")));
    fed.send(5);
    cat.wait_stdout("packet 15", 5, |bytes| check_prefix(bytes).unwrap().seen.last == 15);
    assert_eq!(check_prefix(&cat.stdout()).unwrap().whole(), Vec::from_iter(11..=15));
}

#[test]
fn the_bits_outlive_the_daemon() {
    skip_unless!(root);
    let rings = TempDir::new_in("/dev/shm").unwrap();
    let fifo = Fifo::new();
    let mount = || Mount::new().ring_dir(rings.path()).capture(ALIAS, &fifo.source()).start();
    let mut daemon = mount();
    let folder = daemon.path(ALIAS);
    std::os::unix::fs::chown(&folder, Some(USER), Some(GROUP)).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    daemon.kill9();
    assert_eq!(owner_and_mode(&mount().path(ALIAS)), (USER, GROUP, 0o700));
}

#[test]
fn who_may_not_read_a_capture_learns_nothing_of_its_traffic() {
    skip_unless!(root, "setpriv");
    let mut fed = Fed::start();
    let capture = fed.daemon.path(ALIAS);
    let look = |names: &[&str]| {
        let mut command = as_user(OTHER_USER, OTHER_GROUP, "stat");
        // All that stat(2) reports, and all that statfs(2) reports about the file system.
        command.arg("--format=%n %s %b %h %i %x %y %z %w");
        command.args(names.iter().map(|name| capture.join(name)));
        let mut file_system = as_user(OTHER_USER, OTHER_GROUP, "stat");
        file_system.arg("--file-system").arg(&capture);
        [
            run(&mut command, 5).success().text().to_owned(),
            run(&mut file_system, 5).text().to_owned(),
        ]
    };
    let before = look(&[""]);
    fed.send(10);
    assert_eq!(look(&[""]), before);
    // A user who may search but not read the folder can name files.
    fs::set_permissions(&capture, Permissions::from_mode(0o751)).unwrap();
    let names = ["replay.pcap", "live.pcap", "flows", "flows.jsonl"];
    let before = look(&names);
    fed.send(10);
    assert_eq!(look(&names), before);
    assert!(capture.join("replay.pcap").metadata().unwrap().len() > 20 * Fed::RECORD);
    // Nor do the daemon's arguments name its sources.
    let words = fs::read(format!("/proc/{}/cmdline", fed.daemon.pid())).unwrap();
    let words = String::from_utf8(words).unwrap();
    assert!(
        words.contains(&format!("mount\0{}\0", fed.daemon.mountpoint().display())),
        "{words:?}"
    );
    let source = fed.fifo.source();
    assert!(!words.contains(&source) && !words.contains("stream:"), "{words:?}");
}
