//! The needs of daemons in containers: little shared memory, and no tree.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::sys::signal::Signal;
use pcapfs_tests::savefile::{Format, check_prefix, numbered};
use pcapfs_tests::{
    Mount, Net, Running, User, binary, is_mounted, run, skip_unless, tool, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

const USER: User = User { id: 54_361, group: 65_481, groups: &[] };

/// A directory with as much room as the shared memory of a container; unmounted on drop.
struct LittleRoom {
    folder: TempDir,
}

impl LittleRoom {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut mount = tool("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m,mode=755", "pcapfs-test"]).arg(folder.path());
        let _ = run(&mut mount, 5).success();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for LittleRoom {
    fn drop(&mut self) {
        let _ = tool("umount").arg("-l").arg(self.path()).status();
    }
}

/// The ring's size and the wanted one, in MiB.
fn sizes(status: &Value) -> (u64, u64) {
    let size = |name: &str| status["ring"][name].as_u64().unwrap() >> 20;
    (size("size_bytes"), size("wanted_bytes"))
}

#[test]
fn rings_of_the_default_size_share_the_room_there_is() {
    skip_unless!(root);
    let room = LittleRoom::new();
    let mount = |count: u32| {
        (0..count).fold(Mount::new().ring_dir(room.path()), |mount, number| {
            mount.capture(&format!("c{number}"), &format!("lo udp port {}", 9 + number))
        })
    };
    let mut daemon = mount(1).start();
    assert_eq!(sizes(&daemon.status("c0")), (27, 64));
    let said = daemon.stderr();
    let folder = room.path().display();
    let part = format!(
        "pcapfs: c0: a ring of 27 MiB instead of 64 MiB: {folder} has room for 64 MiB only (--ring \
         SIZE chooses)\n"
    );
    assert!(said.contains(&part), "{said}");
    // Later captures get their share, and what was chosen is not touched.
    let _ = daemon.verb(["init", "lo", "udp port 80", "--alias", "later"]);
    let (size, wanted) = sizes(&daemon.status("later"));
    assert!((8..16).contains(&size) && wanted == 64, "{size}");
    let _ = daemon.verb(["init", "lo", "udp port 81", "--alias", "chosen", "--ring", "2M"]);
    assert_eq!(sizes(&daemon.status("chosen")), (2, 2));
    let before = sizes(&daemon.status("c0"));
    assert!(daemon.terminate().success());
    // The rings that are there are used again.
    let mut daemon = mount(1).start();
    assert_eq!(sizes(&daemon.status("chosen")), (2, 2));
    let after = ["c0", "later"].map(|alias| sizes(&daemon.status(alias)).0);
    assert!(after[0] <= before.0 && after.iter().all(|size| *size >= 4), "{after:?}");
    for alias in ["later", "chosen"] {
        let _ = daemon.verb(["remove", alias]);
    }
    assert!(daemon.terminate().success());
    let daemon = mount(4).start();
    for number in 0..4 {
        let (size, wanted) = sizes(&daemon.status(&format!("c{number}")));
        assert!((3..=8).contains(&size) && wanted == 64, "{size}");
    }
}

#[test]
fn a_ring_of_a_chosen_size_is_never_made_smaller() {
    skip_unless!(root);
    let room = LittleRoom::new();
    let mount = || Mount::new().ring_dir(room.path()).capture("c", "lo udp port 9");
    let refused = mount().ring("64M").try_start().expect_err("there is no room");
    assert!(refused.stderr.contains("no room for a ring of"), "{}", refused.stderr);
    let daemon = mount().ring("40M").start();
    assert_eq!(sizes(&daemon.status("c")), (40, 40));
    assert!(!daemon.stderr().contains("instead of"), "{}", daemon.stderr());
}

#[test]
fn without_a_tree_all_goes_over_the_socket() {
    skip_unless!(root, "setpriv");
    let folder = TempDir::new().unwrap();
    chown(folder.path(), Some(USER.id), Some(USER.group)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (socket, trace) = (folder.path().join("s"), folder.path().join("trace.pcap"));
    let bytes = numbered(Format::default(), 10, 100);
    fs::write(&trace, &bytes).unwrap();
    // A user without any right.
    let program = binary("pcapfs");
    let mut command = USER.command(program.to_str().unwrap());
    command.args(["mount", "none", "-r"]).arg(&trace).arg("--socket").arg(&socket);
    command.current_dir(folder.path());
    let mut daemon = Running::spawn(command.env("HOME", folder.path()));
    let ready = format!("pcapfs: ready at {}, without a tree\n", socket.display());
    wait_until("it is ready", 20, || daemon.stderr().contains(&ready));
    let verb = |user: User, words: &[&str]| {
        let mut command = user.command(program.to_str().unwrap());
        run(command.args(words).env("PCAPFS_SOCKET", &socket), 10)
    };
    assert!(verb(USER, &["replay", "trace"]).success().stdout == bytes);
    let listed = verb(USER, &["list", "--json"]).success();
    assert!(listed.text().contains("\"alias\":\"trace\""), "{}", listed.text());
    let other = verb(User { id: 54_362, group: 65_482, ..USER }, &["status", "trace"]);
    assert!(other.stderr.contains("permission denied"), "{}", other.stderr);
    assert!(!is_mounted(folder.path()) && !folder.path().join("none").exists());
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait(10).success(), "{}", daemon.stderr());
    assert!(!socket.exists());
    // Without a socket there would be nothing.
    let mut command = USER.command(program.to_str().unwrap());
    command.args(["mount", "none", "-r"]).arg(&trace).env_remove("XDG_RUNTIME_DIR");
    let refused = run(command.env("PCAPFS_SOCKET", ""), 20);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.contains("none: no control socket"), "{}", refused.stderr);
}

#[test]
fn without_a_tree_an_interface_is_captured() {
    skip_unless!(root, "ip");
    let (net, folder) = (Net::new(), TempDir::new().unwrap());
    let socket = folder.path().join("s");
    let source = format!("web=netns:{}/{} udp port 40001", net.a.name(), Net::DEVICE);
    let mut command = tool(binary("pcapfs").to_str().unwrap());
    command.args(["mount", "none", "--ring", "2M", "-c", &source, "--ring-dir"]);
    command.arg(folder.path().join("rings")).arg("--socket").arg(&socket);
    let mut daemon = Running::spawn(&mut command);
    wait_until("it is ready", 20, || daemon.stderr().contains("ready at"));
    let mut listen = tool(binary("pcapfs").to_str().unwrap());
    let mut listen = Running::spawn(listen.args(["listen", "web", "--socket"]).arg(&socket));
    listen.wait_stdout("the header", 10, |bytes| bytes.len() >= 24);
    net.sender(200).send(20);
    listen.wait_stdout("all packets", 10, |bytes| {
        check_prefix(bytes).is_ok_and(|prefix| prefix.seen.last == 20)
    });
    daemon.signal(Signal::SIGINT);
    assert!(daemon.wait(10).success(), "{}", daemon.stderr());
    assert!(listen.wait(5).success(), "{}", listen.stderr());
}
