//! Captures as interfaces of Wireshark: real tshark, run by users with and without the rights.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use pcapfs_tests::{
    Daemon, Fed, Feed, Fifo, Mount, Running, User, binary, run, skip_unless, tool, wait_until,
};
use tempfile::TempDir;

/// A group that may read the captures, and no account has.
const TEAM: u32 = 65_460;
const MEMBER: User = User { id: 54_341, group: 65_461, groups: &[TEAM] };
const STRANGER: User = User { id: 54_342, group: 65_462, groups: &[] };

/// A user's home, in which Wireshark finds the link to pcapfs.
struct Home {
    user: User,
    folder: TempDir,
}

impl Home {
    fn new(user: User) -> Self {
        let folder = TempDir::new().unwrap();
        chown(folder.path(), Some(user.id), Some(user.group)).unwrap();
        let home = Self { user, folder };
        let program = binary("pcapfs");
        let installed =
            run(home.command(program.to_str().unwrap()).args(["extcap", "--install"]), 20);
        let link = home.link();
        assert!(installed.success().text().contains(link.to_str().unwrap()));
        assert_eq!(fs::read_link(link).unwrap(), program);
        home
    }

    /// The link of Wireshark 4.0; later versions have another folder.
    fn link(&self) -> PathBuf {
        let folder = |path: &str| self.folder.path().join(path).join("wireshark/extcap/pcapfs");
        [".config", ".local/lib"].map(folder).into_iter().find(|link| link.is_symlink()).unwrap()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.user.command(program);
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME");
        command
    }

    fn tshark(&self, socket: &Path) -> Command {
        let mut command = self.command("tshark");
        command.env("PCAPFS_SOCKET", socket);
        command
    }

    /// The interfaces of pcapfs in `tshark -D`.
    fn interfaces(&self, socket: &Path) -> Vec<String> {
        let listed = run(self.tshark(socket).arg("-D"), 20).success();
        assert!(!listed.stderr.contains("xtcap"), "{}", listed.stderr);
        // `12. pcapfs:web (pcapfs capture web: ...)`
        let names = listed.text().lines().filter_map(|line| line.split(' ').nth(1));
        let names = names.filter(|name| name.starts_with("pcapfs:"));
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        // The order of tshark differs between versions.
        names.sort_unstable();
        names
    }

    /// `tshark -i INTERFACE` that prints the payload of each packet.
    fn capture(&self, socket: &Path, interface: &str, more: &[&str]) -> Running {
        let mut command = self.tshark(socket);
        command.args(["-l", "-n", "-i", interface, "-T", "fields"]);
        command.args(["-e", "udp.payload"]).args(more);
        Running::spawn(&mut command)
    }
}

/// The numbers of the packets in the output of [`Home::capture`].
fn numbers(output: &[u8]) -> Vec<u64> {
    let text = str::from_utf8(output).unwrap();
    let whole = text.lines().filter_map(|line| line.get(16..32));
    whole.map(|number| u64::from_str_radix(number, 16).unwrap()).collect()
}

/// Lets the group read a capture, and everybody reach the socket.
fn open_for_team(daemon: &Daemon, aliases: &[&str]) {
    for alias in aliases {
        chown(daemon.path(alias), Some(0), Some(TEAM)).unwrap();
    }
    let folder = daemon.socket().parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A daemon with captures of these names, each with a FIFO of its own; the group may read them.
fn captures(aliases: &[&str]) -> (Daemon, Vec<Feed>, Vec<Fifo>) {
    let fifos: Vec<Fifo> = aliases.iter().map(|_| Fifo::new()).collect();
    let captured = aliases.iter().zip(&fifos);
    let mount = captured
        .fold(Mount::new().ring("4M"), |mount, (alias, fifo)| mount.capture(alias, &fifo.source()));
    let daemon = mount.start();
    let feeds = fifos.iter().map(Fifo::connect).collect();
    for alias in aliases {
        daemon.wait_state(alias, "running");
    }
    open_for_team(&daemon, aliases);
    (daemon, feeds, fifos)
}

/// What the program itself answers Wireshark.
fn answer(daemon: &Daemon, words: &[&str]) -> (String, String, Option<i32>) {
    let finished = run(&mut daemon.command(words), 10);
    (finished.text().to_owned(), finished.stderr, finished.status.code())
}

#[test]
fn each_user_finds_the_captures_that_it_may_read() {
    skip_unless!(root, "setpriv", "tshark");
    let (mut daemon, _feeds, _fifos) = captures(&["web", "a.b-c"]);
    daemon.verb(["init", "lo", "udp port 9", "--alias", "own", "--mode", "700"]);
    let (member, stranger) = (Home::new(MEMBER), Home::new(STRANGER));
    assert_eq!(member.interfaces(daemon.socket()), ["pcapfs:a.b-c", "pcapfs:web"]);
    assert_eq!(stranger.interfaces(daemon.socket()), [""; 0]);
    let refused = run(stranger.tshark(daemon.socket()).args(["-i", "pcapfs:web", "-c", "1"]), 20);
    assert!(!refused.status.success(), "{refused:?}");
    // Nobody is to be told anything of captures that they may not read.
    let forced = ["--capture", "--extcap-interface", "pcapfs:web", "--fifo", "/dev/null"];
    let forced = stranger.user.verb(&daemon, &forced);
    assert!(forced.stderr.contains("permission denied"), "{}", forced.stderr);
    assert_eq!(forced.status.code(), Some(1));
    let socket = daemon.socket().to_owned();
    assert!(daemon.terminate().success());
    assert_eq!(member.interfaces(&socket), [""; 0], "without a daemon there are none");
}

#[test]
fn tshark_captures_from_now_from_the_oldest_packet_and_to_the_newest() {
    skip_unless!(root, "setpriv", "tshark");
    let (daemon, mut feeds, _fifos) = captures(&["web"]);
    let home = Home::new(MEMBER);
    feeds[0].send(20, 200);
    daemon.wait_stored("web", 20);
    let from = |word: &str| home.capture(daemon.socket(), "pcapfs:web", &["-o", word]);
    let mut live = from("extcap.pcapfs_web.from:live");
    let mut follow = from("extcap.pcapfs_web.from:follow");
    let mut replay = from("extcap.pcapfs_web.from:replay");
    assert!(replay.wait(20).success(), "{}", replay.stderr());
    assert_eq!(numbers(&replay.stdout()), Vec::from_iter(1..=20));
    follow.wait_stdout("the packets so far", 20, |bytes| numbers(bytes).len() == 20);
    wait_until("both read", 20, || daemon.readers("web").len() == 2);
    feeds[0].send(10, 200);
    live.wait_stdout("new packets", 10, |bytes| numbers(bytes) == Vec::from_iter(21..=30));
    follow.wait_stdout("all packets", 10, |bytes| numbers(bytes) == Vec::from_iter(1..=30));
    // The end of the capture is the end of tshark.
    let _ = daemon.verb(["stop", "web"]);
    for tshark in [&mut live, &mut follow] {
        assert!(tshark.wait(20).success(), "{}", tshark.stderr());
        assert!(!tshark.stderr().contains("xtcap"), "{}", tshark.stderr());
    }
}

#[test]
fn filters_are_checked_and_obeyed() {
    skip_unless!(root, "setpriv", "tshark");
    let (daemon, mut feeds, _fifos) = captures(&["web"]);
    let home = Home::new(MEMBER);
    for length in [200, 400, 200, 600] {
        feeds[0].send(5, length);
    }
    daemon.wait_stored("web", 20);
    for format in ["pcap", "pcapng"] {
        let format = format!("extcap.pcapfs_web.format:{format}");
        let more = ["-o", "extcap.pcapfs_web.from:replay", "-o", &format, "-f", "greater 300"];
        let mut tshark = home.capture(daemon.socket(), "pcapfs:web", &more);
        assert!(tshark.wait(20).success(), "{}", tshark.stderr());
        assert_eq!(numbers(&tshark.stdout()), Vec::from_iter((6..=10).chain(16..=20)));
    }
    // tshark itself checks no filter of such an interface.
    let mut wrong = home.capture(daemon.socket(), "pcapfs:web", &["-f", "udp prt 53"]);
    let _ = wrong.wait(20);
    let said = wrong.stderr();
    assert!(said.contains("filter 'udp prt 53' does not compile"), "{said}");
    // Wireshark does, while it is typed; the first line is the mistake.
    for (filter, part) in [
        ("udp port 53", ""),
        ("", ""),
        ("udp prt 53", "filter 'udp prt 53' does not compile: "),
        ("inbound", "is for interfaces only"),
    ] {
        let words = ["--extcap-capture-filter", filter, "--extcap-interface", "pcapfs:web"];
        let (text, stderr, code) = answer(&daemon, &words);
        assert!(text.contains(part) && text.is_empty() == part.is_empty(), "{filter}: {text}");
        assert_eq!((stderr.as_str(), code), ("", Some(0)));
    }
}

#[test]
fn the_end_of_the_reader_is_noticed_on_an_idle_link() {
    skip_unless!(root, "setpriv", "tshark");
    let (daemon, _feeds, _fifos) = captures(&["web"]);
    let home = Home::new(MEMBER);
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut tshark = home.capture(daemon.socket(), "pcapfs:web", &[]);
        wait_until("it reads", 20, || daemon.readers("web").len() == 1);
        tshark.signal(signal);
        // Its exit status is its own affair: a signal at the wrong moment is an error of select.
        let _ = tshark.wait(10);
        // No packet comes that would show that nobody reads.
        wait_until("nobody reads any more", 5, || daemon.readers("web").is_empty());
        assert!(!tshark.stderr().contains("xtcap"), "{}", tshark.stderr());
    }
}

#[test]
fn a_capture_of_a_filter_goes_on_past_a_full_ring() {
    skip_unless!(root, "setpriv", "tshark");
    let mut fed = Fed::with(Mount::new().ring("512K"));
    open_for_team(&fed.daemon, &["web"]);
    let home = Home::new(MEMBER);
    fed.send(3000);
    // All packets that match come after the loss, which the first one left out would have told.
    let more = ["-o", "extcap.pcapfs_web.from:follow", "-c", "1", "-f", "greater 400"];
    let mut tshark = home.capture(fed.daemon.socket(), "pcapfs:web", &more);
    wait_until("it reads", 20, || fed.daemon.readers("web").len() == 1);
    fed.feed.send(1, 500);
    assert!(tshark.wait(20).success(), "{}", tshark.stderr());
    assert_eq!(numbers(&tshark.stdout()), [3001]);
}

#[test]
fn names_that_tshark_cannot_tell_apart_in_preferences_are_captures_of_their_own() {
    skip_unless!(root, "setpriv", "tshark");
    let (daemon, mut feeds, _fifos) = captures(&["a-b", "a_b"]);
    let home = Home::new(MEMBER);
    feeds[0].send(3, 200);
    feeds[1].send(7, 200);
    for (alias, count) in [("a-b", 3), ("a_b", 7)] {
        daemon.wait_stored(alias, count);
        let more = ["-o", "extcap.pcapfs_a_b.from:replay"];
        let mut tshark = home.capture(daemon.socket(), &format!("pcapfs:{alias}"), &more);
        assert!(tshark.wait(20).success(), "{}", tshark.stderr());
        assert_eq!(numbers(&tshark.stdout()).len() as u64, count, "{alias}");
    }
}

#[test]
fn answers_are_as_the_protocol_wants_them() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    fed.send(1);
    let (text, stderr, code) =
        answer(&fed.daemon, &["--extcap-interfaces", "--extcap-version=4.0"]);
    let source = fed.fifo.source();
    let version = env!("CARGO_PKG_VERSION");
    let wanted = format!(
        "extcap {{version={version}}}\n\
         interface {{value=pcapfs:web}}{{display=pcapfs capture web: {source}}}\n"
    );
    assert_eq!((text, stderr.as_str(), code), (wanted, "", Some(0)));
    let dlts = ["--extcap-dlts", "--extcap-interface", "pcapfs:web"];
    let wanted = "dlt {number=1}{name=EN10MB}{display=EN10MB}\n";
    assert_eq!(answer(&fed.daemon, &dlts), (wanted.to_owned(), String::new(), Some(0)));
    let config = ["--extcap-config", "--extcap-interface", "pcapfs:web"];
    let (options, ..) = answer(&fed.daemon, &config);
    let no_capture = ["--capture", "--extcap-interface", "pcapfs:none", "--fifo", "/dev/null"];
    let (_, stderr, code) = answer(&fed.daemon, &no_capture);
    assert_eq!((stderr.lines().count(), code), (1, Some(1)), "{stderr}");
    assert!(stderr.starts_with("pcapfs: none: no such capture"), "{stderr}");
    assert!(fed.daemon.terminate().success());
    assert_eq!(answer(&fed.daemon, &config), (options.clone(), String::new(), Some(0)));
    for part in ["{call=--from}", "{call=--format}", "{value=follow}", "{value=pcapng}"] {
        assert_eq!(options.matches(part).count(), 1, "{part}: {options}");
    }
    let alone = format!("extcap {{version={version}}}\n");
    let interfaces = answer(&fed.daemon, &["--extcap-interfaces"]);
    assert_eq!(interfaces, (alone, String::new(), Some(0)));
    assert_eq!(answer(&fed.daemon, &dlts), (String::new(), String::new(), Some(0)));
}

#[test]
fn the_link_is_made_shown_and_never_made_over_a_file() {
    skip_unless!("tshark");
    let folder = TempDir::new().unwrap();
    let extcap = |words: &[&str]| {
        let mut command = tool(binary("pcapfs").to_str().unwrap());
        command.arg("extcap").args(words).env("HOME", folder.path());
        run(command.env_remove("XDG_CONFIG_HOME"), 20)
    };
    let shown = extcap(&[]).success();
    assert!(shown.text().lines().last().unwrap().ends_with("wireshark/extcap/pcapfs: no link"));
    for _ in 0..2 {
        let _ = extcap(&["--install"]).success();
    }
    let shown = extcap(&[]).success();
    let wanted = format!("wireshark/extcap/pcapfs -> {}", binary("pcapfs").display());
    assert!(shown.text().lines().last().unwrap().ends_with(&wanted), "{}", shown.text());
    let other = folder.path().join("other");
    let _ = extcap(&["--install", "--dir", other.to_str().unwrap()]).success();
    assert!(other.join("pcapfs").is_symlink());
    fs::remove_file(other.join("pcapfs")).unwrap();
    fs::write(other.join("pcapfs"), "mine").unwrap();
    let refused = extcap(&["--install", "--dir", other.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("is there and no link"), "{}", refused.stderr);
    // A link whose program is gone is said to be one, and is replaced.
    fs::remove_file(other.join("pcapfs")).unwrap();
    symlink("/nonexistent/pcapfs", other.join("pcapfs")).unwrap();
    let _ = extcap(&["--install", "--dir", other.to_str().unwrap()]).success();
    assert_eq!(fs::read_link(other.join("pcapfs")).unwrap(), binary("pcapfs"));
    let mut nothing = tool(binary("pcapfs").to_str().unwrap());
    nothing.arg("extcap").env("PATH", "/nonexistent");
    let nothing = run(&mut nothing, 10);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(nothing.stderr.contains("no tshark and no wireshark"), "{}", nothing.stderr);
}

#[test]
fn captures_of_remotes_are_interfaces_too_while_they_answer() {
    skip_unless!(root, "setpriv", "tshark");
    let (near, mut near_feeds, _near_fifos) = captures(&["web"]);
    let (mut far, mut feeds, _fifos) = captures(&["web", "dns"]);
    let home = Home::new(MEMBER);
    let far_socket = far.socket().to_owned();
    for (name, path) in [("far", far_socket.to_str().unwrap()), ("gone", "/nonexistent/s")] {
        let mut add = home.command(binary("pcapfs").to_str().unwrap());
        let _ =
            run(add.args(["remote", "add", name, &format!("pcap+unix://{path}")]), 10).success();
    }
    let all = ["pcapfs:far:dns", "pcapfs:far:web", "pcapfs:web"];
    assert_eq!(home.interfaces(near.socket()), all);
    near_feeds[0].send(3, 200);
    feeds[0].send(7, 200);
    for (daemon, count, interface) in [(&near, 3, "pcapfs:web"), (&far, 7, "pcapfs:far:web")] {
        daemon.wait_stored("web", count);
        let preference = format!("extcap.{}.from:replay", interface.replace(':', "_"));
        let more = ["-o", &preference, "-f", "udp port 40001"];
        let mut tshark = home.capture(near.socket(), interface, &more);
        assert!(tshark.wait(20).success(), "{}", tshark.stderr());
        assert_eq!(numbers(&tshark.stdout()).len() as u64, count, "{interface}");
    }
    assert!(far.terminate().success());
    assert_eq!(home.interfaces(near.socket()), ["pcapfs:web"]);
}
