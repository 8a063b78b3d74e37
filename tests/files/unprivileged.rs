//! Without root: a user mounts savefiles through fusermount3, for that user alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use pcapfs_tests::savefile::{Format, check_prefix, numbered};
use pcapfs_tests::{Finished, Net, Running, binary, run, skip_unless, tool, wait_until};
use tempfile::TempDir;

/// Id of the user nobody and the group nogroup.
const USER: u32 = 65_534;
/// An id that no account has.
const STRANGER: u32 = 54_321;

/// A folder of the user's own with the program, a savefile and the mount point `captures`.
///
/// It lives in a mount namespace where everybody may open /dev/fuse, as udev sets it up, and
/// /etc/fuse.conf has its default content, so that the configuration of the test machine does not
/// matter. All mounts in it go with the namespace.
struct Home {
    namespace: Running,
    folder: TempDir,
}

const NAMESPACE: &str = "
set -e
mknod -m 666 \"$1/device\" c 10 229
mount --bind \"$1/device\" /dev/fuse
: > \"$1/fuse.conf\"
if [ -e /etc/fuse.conf ]; then mount --bind \"$1/fuse.conf\" /etc/fuse.conf; fi
echo made
exec sleep 120
";

/// Copies a program in another process. A file that is open for writing cannot be executed, and a
/// process started by another test at that moment would inherit the open file.
fn copy(from: &Path, to: &Path) {
    let _ = run(tool("install").args(["-m", "755"]).arg(from).arg(to), 20).success();
}

impl Home {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let namespace = Running::spawn(
            tool("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-c", NAMESPACE, "sh"])
                .arg(folder.path()),
        );
        namespace.wait_stdout("the namespace is made", 5, |said| said == b"made\n");
        let home = Self { namespace, folder };
        fs::set_permissions(home.path(""), Permissions::from_mode(0o755)).unwrap();
        chown(home.path(""), Some(USER), Some(USER)).unwrap();
        copy(&binary("pcapfs"), &home.program());
        fs::write(home.path("trace.pcap"), numbered(Format::default(), 500, 200)).unwrap();
        fs::create_dir(home.captures()).unwrap();
        chown(home.captures(), Some(USER), Some(USER)).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self) -> PathBuf {
        self.path("pcapfs")
    }

    fn captures(&self) -> PathBuf {
        self.path("captures")
    }

    /// A command run in this folder as this user, with no other group and no capability.
    fn as_user(&self, user: u32, program: &Path) -> Command {
        let mut command = tool("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.namespace.pid()))
            .args(["env", "-C"])
            .arg(self.folder.path())
            .arg("setpriv")
            .args([format!("--reuid={user}"), format!("--regid={user}")])
            .args(["--clear-groups", "--inh-caps=-all", "--"])
            .arg(program);
        command
    }

    /// The program, run by the user.
    fn pcapfs(&self, arguments: &[&str]) -> Command {
        let mut command = self.as_user(USER, &self.program());
        command.args(arguments);
        command
    }

    /// `pcapfs mount ./captures` with these arguments. Returns once it is ready.
    #[track_caller]
    fn mount(&self, arguments: &[&str]) -> Running {
        let mut running = Running::spawn(self.pcapfs(&["mount", "./captures"]).args(arguments));
        let ready = format!("pcapfs: ready at {}\n", self.captures().display());
        wait_until("the user's daemon is ready", 10, || {
            assert!(running.try_wait().is_none(), "refused: {}", running.stderr());
            running.stderr().ends_with(&ready)
        });
        assert!(self.is_mounted(&self.captures()));
        running
    }

    /// Runs a tool as the user on a file of the tree.
    #[track_caller]
    fn tool(&self, words: &[&str], file: &str) -> Finished {
        let mut command = self.as_user(USER, Path::new(words[0]));
        run(command.args(&words[1..]).arg(self.captures().join(file)), 10)
    }

    fn is_mounted(&self, path: &Path) -> bool {
        let table = format!("/proc/{}/mountinfo", self.namespace.pid());
        let table = fs::read(table).expect("the namespace is there");
        let table = String::from_utf8_lossy(&table);
        table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
    }
}

impl Drop for Home {
    /// Unmounts, which ends a daemon in the background, also after a panic.
    fn drop(&mut self) {
        let mount = format!("--mount=/proc/{}/ns/mnt", self.namespace.pid());
        let mut umount = tool("nsenter");
        umount.arg(mount).args(["umount", "-l"]).arg(self.captures());
        let _ = umount.stderr(std::process::Stdio::null()).status();
    }
}

/// As in containers that do not run udev.
#[test]
fn a_device_that_is_closed_is_named_with_the_remedy() {
    skip_unless!(root, "fusermount3", "setpriv");
    let home = Home::new();
    fs::set_permissions(home.path("device"), Permissions::from_mode(0o600)).unwrap();
    let refused = run(&mut home.pcapfs(&["mount", "./captures", "-r", "./trace.pcap"]), 10);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let line = one_line(&refused);
    for part in ["/dev/fuse: closed to user", "(as root: chmod 0666 /dev/fuse)"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn a_savefile_is_mounted_and_read_by_its_user() {
    skip_unless!(root, "fusermount3", "setpriv", "tcpdump");
    let home = Home::new();
    let mut daemon = home.mount(&["-r", "trace.pcap"]);
    let trace = fs::read(home.path("trace.pcap")).unwrap();
    wait_until("all of the savefile is there", 5, || {
        home.tool(&["cat"], "trace/replay.pcap").success().stdout == trace
    });
    assert_eq!(home.tool(&["cat"], "trace/follow.pcap").success().stdout, trace);
    let replay = home.tool(&["tcpdump", "-nn", "-r"], "trace/replay.pcap").success();
    assert_eq!(replay.text().lines().count(), 500);
    let listed = home.tool(&["ls", "-ldn"], "trace").success();
    let words: Vec<&str> = listed.text().split_whitespace().collect();
    let id = USER.to_string();
    assert_eq!((words[0], words[2], words[3]), ("drwxr-x---", &*id, &*id), "{listed:?}");
    let status = home.tool(&["cat"], "trace/status.json").success();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["state"], &status["packets"]["stored"]), (&"ended".into(), &500.into()));

    let finished = run(&mut home.pcapfs(&["umount", "./captures"]), 5).success();
    assert_eq!(finished.stderr, "");
    assert!(daemon.wait(5).success(), "{}", daemon.stderr());
    assert!(!home.is_mounted(&home.captures()));
}

#[test]
fn no_other_user_sees_it() {
    skip_unless!(root, "fusermount3", "setpriv");
    let home = Home::new();
    let _daemon = home.mount(&["-r", "trace.pcap"]);
    let _ = home.tool(&["cat"], "trace/replay.pcap").success();
    for file in ["trace/replay.pcap", "trace/live.pcap", "trace/status.json", "trace/ctl"] {
        let mut cat = home.as_user(STRANGER, Path::new("cat"));
        let finished = run(cat.arg(home.captures().join(file)), 5);
        assert!(!finished.status.success(), "{file} is read by a stranger");
        assert_eq!(finished.stdout, b"", "{file}");
        assert!(finished.stderr.contains("Permission denied"), "{file}: {finished:?}");
    }
    let mut ls = home.as_user(STRANGER, Path::new("ls"));
    let finished = run(ls.arg(home.captures().join("trace")), 5);
    assert_eq!((finished.status.success(), finished.text()), (false, ""));
}

#[test]
fn signals_end_it_and_unmount() {
    skip_unless!(root, "fusermount3", "setpriv");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let home = Home::new();
        let mut daemon = home.mount(&["-r", "trace.pcap"]);
        let _ = home.tool(&["cat"], "trace/replay.pcap").success();
        daemon.signal(signal);
        assert!(daemon.wait(5).success(), "{signal}: {}", daemon.stderr());
        assert!(!home.is_mounted(&home.captures()), "{signal}");
        assert!(!daemon.stderr().contains("panicked"), "{}", daemon.stderr());
    }
}

#[test]
fn background_works_too() {
    skip_unless!(root, "fusermount3", "setpriv");
    let home = Home::new();
    let arguments = ["mount", "captures", "-r", "trace.pcap", "--background"];
    let finished = run(&mut home.pcapfs(&arguments), 10).success();
    let ready = format!("pcapfs: ready at {}\n", home.captures().display());
    assert!(finished.stderr.ends_with(&ready), "{}", finished.stderr);
    assert!(!home.tool(&["cat"], "trace/replay.pcap").success().stdout.is_empty());
    let _ = run(&mut home.pcapfs(&["umount", "captures"]), 5).success();
    assert!(!home.is_mounted(&home.captures()));
}

#[test]
fn the_mount_helper_mounts_for_its_user() {
    skip_unless!(root, "fusermount3", "setpriv");
    let home = Home::new();
    let helper = home.path("mount.pcapfs");
    copy(&binary("mount-pcapfs"), &helper);
    let mut mount = home.as_user(USER, &helper);
    mount.args(["file:trace.pcap", "captures", "-o", "ro,user,noauto"]);
    let finished = run(&mut mount, 10).success();
    let ready = format!("pcapfs: ready at {}\n", home.captures().display());
    assert!(finished.stderr.ends_with(&ready), "{}", finished.stderr);
    let replay = home.tool(&["cat"], "trace/replay.pcap").success().stdout;
    assert!(check_prefix(&replay).is_ok());
    let _ = run(&mut home.pcapfs(&["umount", "captures"]), 5).success();
    assert!(!home.is_mounted(&home.captures()));
}

#[test]
fn a_tree_whose_daemon_died_is_cleared_away() {
    skip_unless!(root, "fusermount3", "setpriv");
    let home = Home::new();
    let mut daemon = home.mount(&["-r", "trace.pcap"]);
    daemon.signal(Signal::SIGKILL);
    daemon.wait(5);
    assert!(home.is_mounted(&home.captures()), "what this test is about");
    let mut daemon = home.mount(&["-r", "trace.pcap"]);
    let _ = home.tool(&["cat"], "trace/replay.pcap").success();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait(5).success(), "{}", daemon.stderr());
    assert!(!home.is_mounted(&home.captures()));
}

#[test]
fn a_stream_has_a_ring_of_the_users_own() {
    skip_unless!(root, "fusermount3", "setpriv");
    let home = Home::new();
    let trace = fs::read(home.path("trace.pcap")).unwrap();
    let capture = "web=-";
    let mut command = home.pcapfs(&["mount", "captures", "-c", capture, "--ring-dir", "rings"]);
    let input = fs::File::open(home.path("trace.pcap")).unwrap();
    let mut daemon = Running::spawn(command.stdin(input));
    wait_until("the tree answers", 10, || {
        assert!(daemon.try_wait().is_none(), "refused: {}", daemon.stderr());
        daemon.stderr().contains("ready at")
    });
    wait_until("all packets are there", 5, || {
        home.tool(&["cat"], "web/replay.pcap").stdout.len() == trace.len()
    });
    let replay = home.tool(&["cat"], "web/replay.pcap").success().stdout;
    assert_eq!(check_prefix(&replay).unwrap().whole(), Vec::from_iter(1..=500));
    for (name, mode) in [("rings", 0o700), ("rings/web.ring", 0o600)] {
        let metadata = fs::metadata(home.path(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (USER, mode), "{name}");
    }
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait(5).success(), "{}", daemon.stderr());
}

#[track_caller]
fn one_line(finished: &Finished) -> &str {
    let line = finished.stderr.strip_suffix('\n').unwrap_or(&finished.stderr);
    assert!(line.starts_with("pcapfs: ") && !line.contains('\n'), "{finished:?}");
    line
}

#[test]
fn capturing_without_rights_names_the_missing_rights() {
    skip_unless!(root, "fusermount3", "setpriv");
    let (home, net) = (Home::new(), Net::new());
    for source in ["wire-a", "any"] {
        let arguments = ["mount", "captures", "--ring-dir", "rings", "-i", source];
        let finished = net.a.run(|| run(&mut home.pcapfs(&arguments), 10));
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        let line = one_line(&finished);
        for part in [source, "permission", "root", "CAP_NET_RAW"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!home.is_mounted(&home.captures()));
        let rings = fs::read_dir(home.path("rings")).map_or(0, Iterator::count);
        assert_eq!(rings, 0, "a ring is left");
    }
}

#[test]
fn files_of_other_users_are_refused() {
    skip_unless!(root, "fusermount3", "setpriv");
    let home = Home::new();
    // A savefile that the user must not read.
    fs::write(home.path("secret.pcap"), numbered(Format::default(), 1, 20)).unwrap();
    fs::set_permissions(home.path("secret.pcap"), Permissions::from_mode(0o600)).unwrap();
    let finished = run(&mut home.pcapfs(&["mount", "captures", "-r", "secret.pcap"]), 10);
    assert_eq!(finished.status.code(), Some(1));
    assert!(one_line(&finished).contains("secret.pcap: permission denied"), "{finished:?}");
    assert!(!home.is_mounted(&home.captures()));
    // A mount point that the user must not write.
    fs::create_dir(home.path("theirs")).unwrap();
    let finished = run(&mut home.pcapfs(&["mount", "theirs", "-r", "trace.pcap"]), 10);
    assert_eq!(finished.status.code(), Some(1));
    assert!(one_line(&finished).contains("theirs"), "{finished:?}");
    assert!(!home.is_mounted(&home.path("theirs")));
}

#[test]
fn daemons_that_are_not_found_say_so_and_where_they_are() {
    skip_unless!(root, "fusermount3", "setpriv");
    let home = Home::new();
    for name in ["run", "other", "third"] {
        fs::create_dir(home.path(name)).unwrap();
        chown(home.path(name), Some(USER), Some(USER)).unwrap();
    }
    let runtime = home.path("run");
    let start = |place: &str, has_runtime: bool| {
        let mut command = home.pcapfs(&["mount", place, "-r", "trace.pcap"]);
        // A variable set to the empty text counts as unset.
        command.env("PCAPFS_SOCKET", "").env_remove("XDG_RUNTIME_DIR");
        if has_runtime {
            command.env("XDG_RUNTIME_DIR", &runtime);
        }
        let mut running = Running::spawn(&mut command);
        wait_until("it is ready", 10, || {
            assert!(running.try_wait().is_none(), "refused: {}", running.stderr());
            running.stderr().contains("ready at")
        });
        running
    };
    let (first, second, third) =
        (start("captures", true), start("other", true), start("third", false));
    assert!(!first.stderr().contains("no control socket"), "{}", first.stderr());
    let line = second.stderr();
    for part in ["no control socket", "another pcapfs listens there", "--socket"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    let line = third.stderr();
    assert!(line.contains("no control socket, as XDG_RUNTIME_DIR is not set"), "{line}");
    // The message lists the trees with their sockets, both when no daemon answers and when the
    // wrong one does.
    let socket = runtime.join("pcapfs/control.sock");
    let trees = [
        format!("{} (--socket {})", home.captures().display(), socket.display()),
        format!("{} (no socket)", home.path("other").display()),
        format!("{} (no socket)", home.path("third").display()),
    ];
    let list = |words: &[&str]| {
        let mut command = home.pcapfs(words);
        run(command.env("PCAPFS_SOCKET", "").env("XDG_RUNTIME_DIR", &runtime), 10)
    };
    let nobody = list(&["list", "--socket", "/nonexistent/control.sock"]);
    let wrong = list(&["status", "web"]);
    for finished in [&nobody, &wrong] {
        assert_eq!(finished.status.code(), Some(1));
        let line = one_line(finished);
        for tree in &trees {
            assert!(line.contains(tree), "{tree:?} is not in {line:?}");
        }
    }
    assert!(list(&["list"]).success().text().contains("trace"));
    for (place, mut daemon) in [("captures", first), ("other", second), ("third", third)] {
        let _ = run(&mut home.pcapfs(&["umount", place]), 5).success();
        assert!(daemon.wait(5).success(), "{}", daemon.stderr());
    }
}
