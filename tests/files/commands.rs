//! The command line: every mistake gives one clear line and leaves no mount, ring or process.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid, mkfifo};
use pcapfs_tests::net::ip;
use pcapfs_tests::savefile::{Format, numbered};
use pcapfs_tests::{
    Daemon, Fifo, Finished, Mount, Namespace, Running, binary, is_mounted, run, skip_unless, tool,
    wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a mount point, a folder for rings, a savefile and a FIFO.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["mount", "rings"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let place = Self { folder };
        fs::set_permissions(place.rings(), Permissions::from_mode(0o700)).unwrap();
        fs::write(place.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
        mkfifo(&place.path("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn mountpoint(&self) -> PathBuf {
        self.path("mount")
    }

    fn rings(&self) -> PathBuf {
        self.path("rings")
    }

    /// `pcapfs mount` of this place, followed by these arguments. It has a socket of its own, since
    /// the default one may belong to the daemon of another test or of the user who runs the tests.
    fn mount(&self, arguments: &[&str]) -> Command {
        let mut command = pcapfs();
        command.env("PCAPFS_SOCKET", self.path("socket"));
        command.arg("mount").arg(self.mountpoint()).arg("--ring-dir").arg(self.rings());
        command.args(arguments);
        command
    }

    /// Runs a `mount` that must be refused with this exit code. Returns the one line it prints.
    #[track_caller]
    fn refused(&self, command: &mut Command, code: i32) -> String {
        let finished = run(command, 10);
        let line = complaint(&finished, code);
        self.is_untouched();
        line
    }

    /// Nothing is mounted, no ring was made and no process is left.
    #[track_caller]
    fn is_untouched(&self) {
        assert!(!is_mounted(&self.mountpoint()), "left mounted");
        let rings: Vec<_> =
            fs::read_dir(self.rings()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(rings.is_empty(), "ring files are left: {rings:?}");
        assert_eq!(processes(&self.mountpoint()), [] as [Pid; 0], "processes are left");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in processes(&self.mountpoint()) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        if is_mounted(&self.mountpoint()) {
            let _ = tool("umount").arg("-l").arg(self.mountpoint()).status();
        }
    }
}

fn pcapfs() -> Command {
    tool(binary("pcapfs").to_str().unwrap())
}

/// Processes with `argument` on their command line.
fn processes(argument: &Path) -> Vec<Pid> {
    let argument = argument.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let words = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if words.split('\0').any(|word| word == argument) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

/// The one line printed by a command that failed with `code`, without the program's name.
#[track_caller]
fn complaint(finished: &Finished, code: i32) -> String {
    assert_eq!(finished.status.code(), Some(code), "{finished:?}");
    assert_eq!(finished.text(), "", "nothing was asked for on standard output");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    let [line] = lines[..] else {
        panic!("not one line: {:?}", finished.stderr);
    };
    let text = line.strip_prefix("pcapfs: ");
    text.unwrap_or_else(|| panic!("does not begin with the program's name: {line}")).to_owned()
}

#[track_caller]
fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn an_unknown_interface_is_named_with_those_there_are() {
    skip_unless!(root);
    let place = Place::new();
    let namespace = Namespace::new();
    pair(&namespace);
    for arguments in [["-i", "eth9"], ["-c", "web=eth9 tcp port 80"]] {
        let line = namespace.run(|| place.refused(&mut place.mount(&arguments), 1));
        says(&line, &["eth9: no such interface", "have: ", "lo", "first0", "second0"]);
    }
}

#[test]
fn a_filter_that_does_not_compile_is_quoted_with_the_reason() {
    skip_unless!(root);
    let place = Place::new();
    let (fifo, file) = (place.text("fifo"), place.text("trace.pcap"));
    for capture in [
        "web=lo tcp prot 80".into(),
        format!("web=stream:{fifo} tcp prot 80"),
        format!("web=file:{file} tcp prot 80"),
    ] {
        let line = place.refused(&mut place.mount(&["-c", &capture]), 1);
        says(&line, &["tcp prot 80", "syntax error"]);
    }
    for from in [["-i", "lo"], ["-r", &file]] {
        let [flag, source] = from;
        let line = place.refused(&mut place.mount(&[flag, source, "-f", "hots 1.2.3.4"]), 1);
        says(&line, &["hots 1.2.3.4"]);
    }
}

#[test]
fn a_file_that_is_not_a_savefile_is_refused_with_its_kind() {
    skip_unless!(mount);
    let place = Place::new();
    fs::write(place.path("empty.pcap"), b"").unwrap();
    fs::write(place.path("text.pcap"), b"these are words and no packets at all").unwrap();
    fs::write(place.path("short.pcap"), &Format::default().header()[..13]).unwrap();
    for (name, parts) in [
        ("empty.pcap", &["empty.pcap", "empty"][..]),
        ("text.pcap", &["text.pcap", "no savefile"]),
        ("short.pcap", &["short.pcap", "cut short"]),
        ("missing.pcap", &["missing.pcap", "no such file"]),
        ("mount", &["mount", "directory"]),
        ("fifo", &["fifo"]),
    ] {
        let path = place.text(name);
        let line = place.refused(&mut place.mount(&["-r", &path]), 1);
        says(&line, parts);
        let line = place.refused(&mut place.mount(&["-c", &format!("web=file:{path}")]), 1);
        says(&line, parts);
        // One bad savefile makes the whole mount fail.
        let good = place.text("trace.pcap");
        let line = place.refused(&mut place.mount(&["-r", &good, "-r", &path]), 1);
        says(&line, parts);
    }
}

#[test]
fn a_file_that_is_not_a_fifo_is_refused() {
    skip_unless!(mount);
    let place = Place::new();
    for (name, part) in [
        ("trace.pcap", "not a FIFO"),
        ("rings", "not a FIFO"),
        ("missing", "no such FIFO (make one with: mkfifo"),
    ] {
        let capture = format!("web=stream:{}", place.text(name));
        let line = place.refused(&mut place.mount(&["-c", &capture]), 1);
        says(&line, &[&place.text(name), part]);
    }
}

#[test]
fn an_alias_that_is_taken_is_a_usage_error() {
    skip_unless!(mount);
    let place = Place::new();
    let file = place.text("trace.pcap");
    let (other, web) = (format!("web=stream:{}", place.text("fifo")), format!("web=file:{file}"));
    let line = place.refused(&mut place.mount(&["-c", &web, "-c", &other]), 2);
    says(&line, &["alias 'web' is taken", &file]);
    let line = place.refused(&mut place.mount(&["-c", &other, "-r", &file, "--alias", "web"]), 2);
    says(&line, &["alias 'web' is taken"]);
}

#[test]
fn names_made_up_give_way() {
    skip_unless!(mount);
    let place = Place::new();
    fs::create_dir(place.path("other")).unwrap();
    fs::write(place.path("other/trace.pcap"), numbered(Format::default(), 3, 100)).unwrap();
    let (first, second) = (place.text("trace.pcap"), place.text("other/trace.pcap"));
    let daemon = Daemon::mount(["-r", &first, "-r", &second]);
    for (alias, count) in [("trace", 10), ("trace-2", 3)] {
        daemon.wait_state(alias, "ended");
        assert_eq!(daemon.count(alias, "/packets/retained"), count, "{alias}");
    }
}

#[test]
fn contradictory_arguments_are_a_usage_error() {
    skip_unless!(mount);
    let place = Place::new();
    let file = place.text("trace.pcap");
    let illegal = format!("a b=file:{file}");
    for (arguments, parts) in [
        (&["-c", "web"][..], &["-c web", "ALIAS="][..]),
        (&["-c", &illegal], &["'a b'", "alias"]),
        (&["-r", &file, "--alias", ".x"], &["'.x'", "alias"]),
        (&["-r", &file, "--alias", "README"], &["'README'", "alias"]),
        (&[], &["nothing to capture"]),
        (&["-f", "tcp"], &["-f"]),
        (&["-c", "a=-", "-c", "b=- tcp"], &["standard input"]),
        (&["-i", "lo", "--ring", "64X"], &["64X", "--ring"]),
        (&["-i", "lo", "--ring", ""], &["--ring"]),
        (&["-i", "lo", "--ring", "-5M"], &["-5"]),
        (&["-i", "lo", "--snaplen", "many"], &["many", "--snaplen"]),
        (&["-i", "lo", "--snaplen", "0"], &["0", "--snaplen"]),
        (&["--no-such-option"], &["--no-such-option"]),
        (&["-r", &file, "-o", "no_such_word"], &["no_such_word", "-o"]),
    ] {
        // With a socket, a tree without captures is allowed.
        let mut mount = place.mount(arguments);
        let line = place.refused(mount.env_remove("PCAPFS_SOCKET"), 2);
        says(&line, parts);
    }
}

#[test]
fn a_ring_that_cannot_be_is_refused() {
    skip_unless!(mount);
    let place = Place::new();
    let capture = format!("web=stream:{}", place.text("fifo"));
    for (size, code) in [("1", 2), ("0", 2), ("100K", 2), ("16385G", 2)] {
        let line = place.refused(&mut place.mount(&["-c", &capture, "--ring", size]), code);
        says(&line, &["ring", "512K"]);
    }
    // A valid size, but more than the file system of the rings has.
    let line = place.refused(&mut place.mount(&["-c", &capture, "--ring", "15T"]), 1);
    says(&line, &["web.ring", "--ring"]);
}

#[test]
fn mistakes_outside_of_mount_are_usage_errors_too() {
    for (arguments, part) in [
        (&["fly"][..], "fly"),
        (&[][..], "command"),
        (&["umount"], "MOUNTPOINT"),
        (&["mount"], "MOUNTPOINT"),
        (&["interfaces", "--xml"], "--xml"),
    ] {
        let finished = run(pcapfs().args(arguments), 5);
        says(&complaint(&finished, 2).to_lowercase(), &[&part.to_lowercase()]);
    }
}

#[test]
fn a_mount_point_that_cannot_be_one_is_refused() {
    skip_unless!(mount);
    let place = Place::new();
    let (file, fifo) = (place.text("trace.pcap"), format!("web=stream:{}", place.text("fifo")));
    for (name, parts) in [
        ("missing", &["missing", "no such directory", "mkdir"][..]),
        ("missing/below", &["missing/below", "no such directory"]),
        ("trace.pcap", &["trace.pcap", "not a directory"]),
        ("trace.pcap/below", &["trace.pcap/below", "ot a directory"]),
    ] {
        for source in [["-r", &file], ["-c", &fifo]] {
            let mut command = pcapfs();
            command.arg("mount").arg(place.path(name)).arg("--ring-dir").arg(place.rings());
            let line = place.refused(command.args(source), 1);
            says(&line, parts);
        }
    }
}

#[test]
fn a_mount_point_that_is_busy_is_refused_and_goes_on() {
    skip_unless!(mount);
    let place = Place::new();
    let file = place.text("trace.pcap");
    let mut daemon = Mount::new().mountpoint(&place.mountpoint()).args(["-r", &file]).start();
    let fifo = format!("web=stream:{}", place.text("fifo"));
    for source in [["-r", &file], ["-c", &fifo]] {
        let finished = run(&mut place.mount(&source), 10);
        says(&complaint(&finished, 1), &["busy", place.mountpoint().to_str().unwrap(), "umount"]);
        assert_eq!(fs::read_dir(place.rings()).unwrap().count(), 0, "a ring is left");
    }
    assert_eq!(processes(&place.mountpoint()), [daemon.pid()]);
    daemon.wait_state("trace", "ended");
    assert!(daemon.terminate().success());
    place.is_untouched();
}

#[test]
fn a_ring_that_another_daemon_fills_is_refused_and_goes_on() {
    skip_unless!(mount);
    let place = Place::new();
    let fifo = Fifo::new();
    let daemon = Mount::new().ring_dir(&place.rings()).capture("web", &fifo.source()).start();
    let other = format!("web=stream:{}", place.text("fifo"));
    let finished = run(&mut place.mount(&["-c", &other]), 10);
    says(&complaint(&finished, 1), &["web.ring", "in use"]);
    assert!(!is_mounted(&place.mountpoint()));
    assert_eq!(processes(&place.mountpoint()), [] as [Pid; 0]);
    let mut feed = fifo.connect();
    feed.send(100, 200);
    daemon.wait_stored("web", 100);
    // Another alias has a ring of its own.
    let other = format!("other=stream:{}", place.text("fifo"));
    let _second = Mount::new().ring_dir(&place.rings()).args(["-c", &other]).start();
}

#[test]
fn a_ring_folder_that_is_not_safe_or_no_folder_is_refused() {
    skip_unless!(mount);
    let place = Place::new();
    let capture = format!("web=stream:{}", place.text("fifo"));
    for mode in [0o777, 0o1777, 0o770, 0o722] {
        fs::set_permissions(place.rings(), Permissions::from_mode(mode)).unwrap();
        let line = place.refused(&mut place.mount(&["-c", &capture]), 1);
        says(&line, &["rings", "others may write"]);
    }
    fs::set_permissions(place.rings(), Permissions::from_mode(0o700)).unwrap();
    for (name, part) in [
        ("trace.pcap", "not a directory"),
        ("missing/below", "cannot be made"),
        ("trace.pcap/x", "cannot be made"),
    ] {
        let mut command = pcapfs();
        command.arg("mount").arg(place.mountpoint()).arg("--ring-dir").arg(place.path(name));
        let line = place.refused(command.args(["-c", &capture]), 1);
        says(&line, &[name, part]);
    }
}

#[test]
fn a_ring_folder_that_cannot_be_written_is_refused() {
    skip_unless!(root);
    let place = Place::new();
    let capture = format!("web=stream:{}", place.text("fifo"));
    // Even root cannot create files in /proc.
    let mut command = pcapfs();
    command.arg("mount").arg(place.mountpoint()).args(["--ring-dir", "/proc/sys"]);
    let line = place.refused(command.args(["-c", &capture]), 1);
    says(&line, &["/proc/sys"]);
}

#[test]
fn a_ring_folder_is_made_for_its_owner_only() {
    skip_unless!(mount);
    let place = Place::new();
    let rings = place.path("made");
    let fifo = Fifo::new();
    let _daemon = Mount::new().ring_dir(&rings).capture("web", &fifo.source()).start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&rings), 0o700);
    assert_eq!(mode(&rings.join("web.ring")), 0o600);
}

#[test]
fn savefiles_need_no_ring_folder() {
    skip_unless!(mount);
    let place = Place::new();
    let rings = place.path("never-made");
    let daemon = Mount::new().ring_dir(&rings).args(["-r", &place.text("trace.pcap")]).start();
    daemon.wait_state("trace", "ended");
    assert!(!rings.exists());
}

/// Makes two interfaces, `first0` and `second0`, both down.
fn pair(namespace: &Namespace) {
    let name = namespace.name();
    ip(&["-n", name, "link", "add", "first0", "type", "veth", "peer", "name", "second0"]);
}

/// Interface names as `ip link`, the system's own tool, lists them.
fn interfaces_of(namespace: &Namespace) -> Vec<String> {
    let links = run(tool("ip").args(["-n", namespace.name(), "-j", "link"]), 5).success();
    let links: Value = serde_json::from_str(links.text()).unwrap();
    let mut names: Vec<String> = links
        .as_array()
        .unwrap()
        .iter()
        .map(|link| link["ifname"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn interfaces_lists_the_existing_ones() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    pair(&namespace);
    ip(&["-n", namespace.name(), "address", "add", "10.88.0.1/24", "dev", "first0"]);
    ip(&["-n", namespace.name(), "link", "set", "first0", "up"]);
    let wanted = interfaces_of(&namespace);
    assert!(wanted.contains(&"second0".to_owned()));

    let listed = namespace.run(|| run(pcapfs().args(["interfaces", "--json"]), 5)).success();
    assert_eq!(listed.stderr, "");
    let listed: Vec<Value> = serde_json::from_str(listed.text()).unwrap();
    let mut names: Vec<_> = listed.iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, wanted);
    let of = |name: &str| listed.iter().find(|one| one["name"] == name).unwrap();
    assert_eq!((&of("lo")["loopback"], &of("lo")["up"]), (&true.into(), &true.into()));
    assert_eq!(of("first0")["up"], true);
    assert_eq!(of("first0")["loopback"], false);
    assert_eq!(of("first0")["addresses"], serde_json::json!(["10.88.0.1"]));
    assert_eq!(of("second0")["up"], false);
    assert_eq!(of("second0")["addresses"], serde_json::json!([]));

    let table = namespace.run(|| run(pcapfs().arg("interfaces"), 5)).success();
    for name in &wanted {
        let line = table.text().lines().find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {}", table.text()));
        assert_eq!(line.contains("10.88.0.1"), name == "first0", "{line}");
        assert_eq!(line.contains("down"), !of(name)["up"].as_bool().unwrap(), "{line}");
    }
    // A reader that closes the pipe early is no error.
    let line = format!("{} interfaces | true; echo ${{PIPESTATUS[0]}}", binary("pcapfs").display());
    assert_eq!(run(tool("bash").args(["-c", &line]), 5).success().text(), "0\n");
}

#[test]
fn umount_ends_the_daemon() {
    skip_unless!(mount);
    let place = Place::new();
    let mount = || {
        let file = place.text("trace.pcap");
        Mount::new().mountpoint(&place.mountpoint()).args(["-r", &file]).start()
    };
    let below = place.path("below");
    std::os::unix::fs::symlink(place.mountpoint(), &below).unwrap();
    for name in [place.mountpoint(), below, place.path("rings/../mount/")] {
        let mut daemon = mount();
        let finished = run(pcapfs().arg("umount").arg(&name), 5).success();
        assert_eq!((finished.text(), finished.stderr.as_str()), ("", ""));
        assert!(!is_mounted(&place.mountpoint()), "{}", name.display());
        let status = daemon.wait_exit(Duration::from_secs(3)).expect("its end");
        assert!(status.success(), "{status}: {}", daemon.stderr());
    }
    place.is_untouched();
}

/// Unmounts every pcapfs tree in a new mount namespace except `$1`: the other trees belong to other
/// tests.
const NAMESPACE_WITH: &str = "
while read -r _ place kind _; do
    case $kind in fuse.pcapfs) [ \"$place\" = \"$1\" ] || umount -l \"$place\" ;; esac
done < /proc/mounts
echo made
exec sleep 60
";

/// A mount namespace that does not receive unmount events keeps the tree mounted, and so keeps the
/// daemon alive.
#[test]
fn umount_reports_a_daemon_that_goes_on() {
    skip_unless!(root, "unshare");
    let place = Place::new();
    let file = place.text("trace.pcap");
    let mut daemon = Mount::new().mountpoint(&place.mountpoint()).args(["-r", &file]).start();
    let mut other = tool("unshare");
    other.args(["--mount", "--propagation", "private", "sh", "-c", NAMESPACE_WITH, "sh"]);
    let _ = other.arg(place.mountpoint());
    let other = Running::spawn(&mut other);
    other.wait_stdout("the namespace is made", 5, |said| said == b"made\n");
    let pid = daemon.pid().to_string();
    let finished = run(pcapfs().arg("umount").arg(place.mountpoint()), 20);
    let said = complaint(&finished, 1);
    says(&said, &["unmounted, but its daemon", &format!("kill {pid}"), "mount namespace"]);
    assert!(!is_mounted(&place.mountpoint()));
    assert!(daemon.terminate().success(), "{}", daemon.stderr());
}

#[test]
fn umount_of_another_file_system_is_refused() {
    skip_unless!(mount);
    let place = Place::new();
    for (path, parts) in [
        (place.mountpoint(), &["nothing is mounted"][..]),
        (place.path("missing"), &["missing"]),
        (place.path("trace.pcap"), &["trace.pcap"]),
        // Mounted, but not by pcapfs.
        ("/proc".into(), &["/proc"]),
    ] {
        let finished = run(pcapfs().arg("umount").arg(&path), 5);
        says(&complaint(&finished, 1), parts);
    }
    assert!(is_mounted(Path::new("/proc")));
}

#[test]
fn background_returns_when_the_tree_answers() {
    skip_unless!(mount);
    let place = Place::new();
    let capture = format!("web=stream:{}", place.text("fifo"));
    let mut command = place.mount(&["-c", &capture, "--background"]);
    // Relative paths are relative to the directory of the command, not to the daemon's.
    command.current_dir(place.folder.path());
    command.args(["-r", "trace.pcap"]);
    let finished = run(&mut command, 10).success();
    assert_eq!(finished.text(), "");
    let ready = format!("pcapfs: ready at {}\n", place.mountpoint().display());
    assert_eq!(finished.stderr, ready);
    // The tree answers as soon as the command returns.
    let status = run(tool("cat").arg(place.mountpoint().join("status.json")), 5).success();
    let status: Value = serde_json::from_str(status.text()).unwrap();
    let daemon = Pid::from_raw(i32::try_from(status["pid"].as_i64().unwrap()).unwrap());
    assert_eq!(processes(&place.mountpoint()), [daemon]);

    assert_ne!(getsid(Some(daemon)).unwrap(), getsid(None).unwrap(), "a session of its own");
    let proc = |name: &str| fs::read_link(format!("/proc/{daemon}/{name}")).unwrap();
    assert_eq!(proc("cwd"), Path::new("/"), "keeps no directory busy");
    let stat = fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap();
    let parent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().to_owned();
    assert_ne!(parent, std::process::id().to_string(), "no process here waits for it");
    // A separate process reads the file. If this one did, a child started by another test at that
    // moment would inherit the open file, and the tree would be busy.
    wait_until("the savefile is read", 5, || {
        run(tool("cat").arg(place.mountpoint().join("trace/replay.pcap")), 5).stdout
            == numbered(Format::default(), 10, 100)
    });

    let _ = run(pcapfs().arg("umount").arg(place.mountpoint()), 5).success();
    wait_until("the daemon has ended", 5, || processes(&place.mountpoint()).is_empty());
    assert!(!is_mounted(&place.mountpoint()));
}

#[test]
fn background_passes_the_reason_and_the_code_on() {
    skip_unless!(mount);
    let place = Place::new();
    for (arguments, code, part) in [
        (["-r", &place.text("missing.pcap")], 1, "no such file"),
        (["-c", "web"], 2, "ALIAS="),
        (["-c", "web=stream:/dev/null"], 1, "not a FIFO"),
    ] {
        let mut command = place.mount(&arguments);
        let line = place.refused(command.arg("--background"), code);
        says(&line, &[part]);
    }
}

#[test]
fn background_handles_signals_as_the_foreground_does() {
    skip_unless!(mount);
    let place = Place::new();
    let _ = run(place.mount(&["-r", &place.text("trace.pcap")]).arg("--background"), 10).success();
    let [daemon] = processes(&place.mountpoint())[..] else { panic!("not one daemon") };
    kill(daemon, Signal::SIGTERM).unwrap();
    wait_until("the daemon has ended", 5, || processes(&place.mountpoint()).is_empty());
    place.is_untouched();
}

#[test]
fn version_and_help_go_to_standard_output() {
    let version = run(pcapfs().arg("--version"), 5).success();
    let words: Vec<&str> = version.text().split_whitespace().collect();
    assert!(matches!(words[..], ["pcapfs", number] if number.split('.').count() == 3));
    for (arguments, parts) in [
        (&["--help"][..], &["mount", "umount", "interfaces"][..]),
        (&["mount", "--help"], &["--ring", "--ring-dir", "--snaplen", "--background", "--alias"]),
        (&["interfaces", "--help"], &["--json"]),
        (&["umount", "--help"], &["MOUNTPOINT"]),
    ] {
        let help = run(pcapfs().args(arguments), 5).success();
        assert_eq!(help.stderr, "");
        says(help.text(), parts);
        assert!(help.text().lines().all(|line| line.chars().count() <= 100), "{}", help.text());
    }
}

#[test]
fn mounting_again_right_after_unmounting_works() {
    skip_unless!(mount);
    let place = Place::new();
    let capture = format!("web=stream:{}", place.text("fifo"));
    for round in 0..5 {
        let mounted = run(place.mount(&["-c", &capture]).arg("--background"), 10);
        assert_eq!(mounted.status.code(), Some(0), "round {round}: {mounted:?}");
        let gone = run(pcapfs().arg("umount").arg(place.mountpoint()), 10);
        assert_eq!(gone.status.code(), Some(0), "round {round}: {gone:?}");
    }
}

#[test]
fn mount_points_elsewhere_may_have_any_bytes_in_their_names() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    skip_unless!(mount);
    let place = Place::new();
    let odd = place.path("x").with_file_name(OsStr::from_bytes(b"odd \xff\\ name"));
    fs::create_dir(&odd).unwrap();
    let file = place.text("trace.pcap");
    let mount =
        |at: &Path| run(pcapfs().arg("mount").arg(at).args(["-r", &file, "--background"]), 10);
    for at in [odd.clone(), place.mountpoint()] {
        let mounted = mount(&at);
        assert_eq!(mounted.status.code(), Some(0), "{}: {mounted:?}", at.display());
        assert_eq!(mount(&at).status.code(), Some(1), "{}: busy", at.display());
    }
    for at in [place.mountpoint(), odd.clone()] {
        let gone = run(pcapfs().arg("umount").arg(&at), 10);
        assert_eq!(gone.status.code(), Some(0), "{}: {gone:?}", at.display());
    }
}

#[test]
fn a_daemon_in_the_background_keeps_nothing_of_its_starter() {
    skip_unless!(mount);
    let place = Place::new();
    let file = place.text("trace.pcap");
    // The pipe to cat is descriptor 3 of pcapfs. cat ends when no process has the pipe open any
    // more.
    let script = r#"{ "$0" mount "$1" -r "$2" --background 3>&1 >/dev/null 2>&1; } | cat"#;
    let mut shell = tool("sh");
    shell.args(["-c", script]).arg(pcapfs().get_program()).arg(place.mountpoint()).arg(&file);
    let finished = run(&mut shell, 10);
    assert!(finished.status.success(), "{finished:?}");
    let gone = run(pcapfs().arg("umount").arg(place.mountpoint()), 10);
    assert_eq!(gone.status.code(), Some(0), "{gone:?}");
}

#[test]
fn a_start_that_takes_long_can_be_interrupted() {
    skip_unless!(mount);
    let place = Place::new();
    // libpcap takes many seconds to compile this filter.
    let ports: Vec<String> = (1..=600).map(|port| format!("port {port}")).collect();
    let file = place.text("trace.pcap");
    let filter = ports.join(" or ");
    let mut command = place.mount(&["-r", &file, "-f", &filter]);
    let mut running = Running::spawn(&mut command);
    let pid = running.pid();
    wait_until("its signals are watched", 5, || {
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).is_ok()
            && fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1)
    });
    let begun = Instant::now();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(5).code(), Some(1), "{}", running.stderr());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(running.stderr().contains("interrupted"), "{}", running.stderr());
}
