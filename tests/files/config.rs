//! The configuration file: how it is read at the start and reloaded on SIGHUP.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use frames::pcapng::block;
use nix::sys::signal::Signal;
use pcapfs_tests::savefile::{
    Format, Interface, NgPacket, check_prefix, numbered, pcapng, timestamp,
};
use pcapfs_tests::{
    Daemon, Fifo, Mount, Net, Running, binary, frame, run, skip_unless, tool, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a configuration and a savefile.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: TempDir::new().unwrap() };
        fs::write(place.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("pcapfs.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// A `[[capture]]` of the savefile.
    fn trace(&self) -> String {
        let path = self.path("trace.pcap");
        format!("[[capture]]\nalias = \"trace\"\nsource = \"file:{}\"\n", path.display())
    }

    fn mount(&self) -> Mount {
        Mount::new().arg("--config").arg(self.config())
    }

    /// The output of `check-config` for the configuration.
    #[track_caller]
    fn checked(&self, code: i32) -> String {
        let mut command = tool(binary("pcapfs").to_str().unwrap());
        let finished = run(command.arg("check-config").arg(self.config()), 5);
        assert_eq!(finished.status.code(), Some(code), "{finished:?}");
        if code == 0 { finished.text().to_owned() } else { finished.stderr }
    }
}

fn capture(alias: &str, source: &str, more: &str) -> String {
    format!("[[capture]]\nalias = \"{alias}\"\nsource = \"{source}\"\n{more}\n")
}

/// Makes the daemon reload the configuration. Returns what it prints about that.
#[track_caller]
fn reload(daemon: &Daemon) -> String {
    let before = daemon.stderr().len();
    daemon.signal(Signal::SIGHUP);
    wait_until("the configuration is read again", 10, || {
        let said = daemon.stderr();
        said[before..].contains("read again: ") || said[before..].contains("nothing has changed\n")
    });
    daemon.stderr()[before..].to_owned()
}

/// Several captures are opened at the same time; the order must not depend on that.
#[test]
fn captures_have_the_order_of_the_file_and_the_first_that_fails_is_named() {
    let place = Place::new();
    let rings = TempDir::new().unwrap();
    let fifos: Vec<Fifo> = (0..12).map(|_| Fifo::new()).collect();
    let all: Vec<String> = (0..24).map(|number| format!("c{}", (number * 7) % 24)).collect();
    let good = |(alias, number): (&String, usize)| match fifos.get(number / 2) {
        Some(fifo) if number % 2 == 0 => capture(alias, &fifo.source(), "ring = \"512K\""),
        _ => place.trace().replace("trace\"", &format!("{alias}\"")),
    };
    let mut texts: Vec<String> = all.iter().zip(0..).map(good).collect();
    place.write(&texts.concat());
    let daemon = place.mount().start();
    let listed = daemon.json(["list", "--json"]);
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 24);
    for (number, (entry, alias)) in (1..).zip(listed.iter().zip(&all)) {
        assert_eq!((&entry["id"], &entry["alias"]), (&Value::from(number), &alias[..].into()));
    }
    drop(daemon);

    for (index, name) in [(9, "second.pcap"), (6, "first.pcap"), (20, "third.pcap")] {
        fs::write(place.path(name), "no savefile").unwrap();
        texts.insert(index, capture(name, &format!("file:{}", place.path(name).display()), ""));
    }
    place.write(&texts.concat());
    let line = texts[..6].concat().lines().count() + 1;
    let refused = place.mount().ring_dir(rings.path()).try_start().unwrap_err();
    says(&refused.stderr, &[&format!("pcapfs.toml:{line}: "), "first.pcap"]);
    assert!(!refused.stderr.contains("second.pcap") && !refused.stderr.contains("third.pcap"));
    let left: Vec<_> = fs::read_dir(rings.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[track_caller]
fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn captures_are_made_as_configured() {
    skip_unless!(root);
    let (net, place) = (Net::new(), Place::new());
    place.write(&format!(
        "[defaults]\nring = \"4M\"\nmode = \"0700\"\n{}{}{}",
        capture(
            "web",
            Net::DEVICE,
            "filter = \"udp port 9\"\nprecision = \"micro\"\nsnaplen = 100\nmode = \"0770\""
        ),
        capture("all", "", "group = 65432\nowner = 54321\nring = \"2M\""),
        place.trace()
    ));
    assert!(place.checked(0).contains("good, 3 captures"));
    let daemon = place.mount().inside(&net.a).start();
    let status = daemon.status("web");
    assert_eq!((&status["filter"], &status["precision"]), (&"udp port 9".into(), &"micro".into()));
    assert_eq!((&status["snaplen"], &status["ring"]["size"]), (&100.into(), &(4 << 20).into()));
    assert_eq!((mode(&daemon.path("web")), mode(&daemon.path("all"))), (0o770, 0o700));
    let status = daemon.status("all");
    assert_eq!((&status["source"], &status["owner"]), (&"any".into(), &"54321".into()));
    assert_eq!((&status["group"], &status["ring"]["size"]), (&"65432".into(), &(2 << 20).into()));
    assert_eq!(daemon.status("trace")["mode"], "0700");
    net.sender_to(200, 9).send(5);
    daemon.wait_stored("web", 5);
    let replay = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(replay[..4], 0xa1b2_c3d4_u32.to_ne_bytes(), "microseconds");
    assert_eq!(replay.len(), 24 + 5 * (16 + 100), "cut to the snaplen");
    // Captures made by `init` get the defaults too.
    daemon.verb(["init", "lo"]);
    let status = daemon.status("lo");
    assert_eq!((&status["mode"], &status["ring"]["size"]), (&"0700".into(), &(4 << 20).into()));
}

#[test]
fn a_mistake_is_named_with_file_line_and_remedy() {
    skip_unless!(mount);
    let place = Place::new();
    let file = place.config().display().to_string();
    for (text, line, parts) in [
        ("colour = 1\n".to_owned(), 1, &["colour", "expected one of", "ring_dir"][..]),
        (format!("{}flavour = 1\n", place.trace()), 4, &["flavour", "snaplen"]),
        (format!("{}ring = \"64X\"\n", place.trace()), 4, &["'64X'", "64M"]),
        (
            format!("{}group = \"no-such-group\"\n", place.trace()),
            4,
            &["no-such-group", "groupadd"],
        ),
        (format!("{}mode = 750\n", place.trace()), 4, &["750", "0o750"]),
        (format!("{}{}", place.trace(), place.trace()), 4, &["'trace' is taken", "line 1"]),
        ("[[capture]]\nsource = \"lo\"\nring = 1\n".to_owned(), 3, &["a ring of 1"]),
        ("this is no configuration\n".to_owned(), 1, &[]),
    ] {
        place.write(&text);
        let said = place.checked(1);
        assert_eq!(said.lines().count(), 1, "{said}");
        says(&said, &[&format!("pcapfs: {file}:{line}: ")]);
        says(&said, parts);
        let refused = place.mount().try_start().expect_err("it is wrong");
        assert_eq!((refused.status.code(), refused.left_mounted), (Some(1), false));
        assert_eq!(refused.stderr, said);
    }
    fs::remove_file(place.config()).unwrap();
    says(&place.checked(1), &[&file, "No such file"]);
    // A mistake that shows only when the source is opened has its line number as well.
    place.write(&format!("\n\n{}", capture("x", "file:/no/such.pcap", "")));
    let refused = place.mount().try_start().expect_err("there is no such file");
    says(&refused.stderr, &[&format!("{file}:3: "), "/no/such.pcap"]);
}

#[test]
fn reloading_changes_only_the_differences() {
    skip_unless!(root);
    let (net, place) = (Net::new(), Place::new());
    let web = capture("web", Net::DEVICE, "filter = \"udp\"\nring = \"4M\"");
    let old = capture("old", "lo", "filter = \"tcp\"\nring = \"1M\"");
    let bits = capture("bits", Net::DEVICE, "ring = \"1M\"\nmode = \"0700\"");
    place.write(&format!("{web}{old}{bits}"));
    let daemon = place.mount().inside(&net.a).start();
    daemon.verb(["init", "lo", "icmp", "--alias", "mine"]);
    let mut sender = net.sender(200);
    sender.send(10);
    daemon.wait_stored("web", 10);
    let mut live = Running::spawn(tool("cat").arg(daemon.path("web/live.pcap")));
    daemon.wait_blocked("web", "live.pcap", live.pid());
    let started = |alias: &str| daemon.status(alias)["started"].clone();
    let (web_started, bits_started) = (started("web"), started("bits"));

    let bits = capture("bits", Net::DEVICE, "ring = \"1M\"\nmode = \"0750\"");
    place.write(&format!("{web}{bits}{}", place.trace()));
    says(&reload(&daemon), &["pcapfs.toml: read again: 1 added, 1 removed, 1 changed\n"]);
    daemon.wait_state("trace", "ended");
    wait_until("old is gone", 5, || !daemon.path("old").exists());
    wait_until("the bits are changed", 5, || mode(&daemon.path("bits")) == 0o750);
    assert_eq!((started("web"), started("bits")), (web_started.clone(), bits_started));
    assert_eq!(daemon.status("mine")["state"], "running", "not of the configuration");
    sender.send(10);
    live.wait_stdout("packet 20, as if nothing had happened", 5, |bytes| {
        check_prefix(bytes).is_ok_and(|prefix| prefix.whole() == Vec::from_iter(11..=20))
    });

    // Another size means a new ring. It gets the same packets, because no reader has the old ring
    // open.
    live.end_with(Signal::SIGTERM);
    wait_until("nobody reads", 5, || daemon.readers("web").is_empty());
    place.write(&format!(
        "{}{bits}",
        capture("web", Net::DEVICE, "filter = \"udp\"\nring = \"8M\"")
    ));
    says(&reload(&daemon), &["0 added, 1 removed, 1 changed\n"]);
    daemon.wait_state("web", "running");
    let status = daemon.status("web");
    assert_eq!(
        (&status["ring"]["size"], &status["packets"]["retained"]),
        (&(8 << 20).into(), &20.into())
    );
    assert_ne!(started("web"), web_started);
    sender.send(5);
    daemon.wait_stored("web", 25);
    let replay = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&replay).unwrap().whole(), Vec::from_iter(1..=25));

    // Without a difference, nothing changes.
    says(&reload(&daemon), &["0 added, 0 removed, 0 changed\n"]);
}

#[test]
fn a_capture_that_is_made_anew_ends_its_readers() {
    skip_unless!(mount);
    let (fifo, place) = (Fifo::new(), Place::new());
    place.write(&capture("web", &fifo.source(), "ring = \"4M\""));
    let daemon = place.mount().start();
    let mut feed = fifo.connect();
    daemon.wait_state("web", "running");
    feed.send(10, 200);
    daemon.wait_stored("web", 10);
    let mut cat = Running::spawn(tool("cat").arg(daemon.path("web/follow.pcap")));
    daemon.wait_blocked("web", "follow.pcap", cat.pid());
    // A file that stays open keeps the old ring.
    let open = fs::File::open(daemon.path("web/replay.pcap")).unwrap();
    place.write(&capture("web", &fifo.source(), "ring = \"2M\"\nfilter = \"udp\""));
    says(&reload(&daemon), &["web: begins afresh", "0 removed, 1 changed\n"]);
    assert!(cat.wait(5).success());
    assert_eq!(check_prefix(&cat.stdout()).unwrap().whole(), Vec::from_iter(1..=10));
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut &open, &mut bytes).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=10));
    assert_eq!(daemon.count("web", "/packets/stored"), 0);
}

#[test]
fn a_broken_file_changes_nothing() {
    skip_unless!(mount);
    let (fifo, place) = (Fifo::new(), Place::new());
    let web = capture("web", &fifo.source(), "ring = \"4M\"");
    place.write(&web);
    let daemon = place.mount().start();
    let started = daemon.status("web")["started"].clone();
    for (text, parts) in [
        (format!("{}mode = \"rwx\"\n", place.trace()), &["toml:4: ", "'rwx'"][..]),
        (format!("{web}[[capture]]\nsource = 5\n"), &["toml:6: ", "integer `5`"]),
        ("[[capture]\n".to_owned(), &["toml:1: "]),
    ] {
        place.write(&text);
        let said = reload(&daemon);
        says(&said, parts);
        says(&said, &["; nothing has changed\n"]);
        let listed = daemon.json(["list", "--json"]);
        let aliases: Vec<&Value> =
            listed.as_array().unwrap().iter().map(|one| &one["alias"]).collect();
        assert_eq!(aliases, ["web"]);
        assert_eq!(daemon.status("web")["started"], started);
    }
    // A second capture, whose source the next version of the file replaces.
    let second = Fifo::new();
    place.write(&format!("{web}{}", capture("other", &second.source(), "ring = \"1M\"")));
    says(&reload(&daemon), &["1 added, 0 removed, 0 changed\n"]);
    // A source that cannot be opened is reported. The other changes are made, and the existing
    // captures go on.
    place.write(&format!("{}{web}", capture("other", "stream:/no/such/fifo", "ring = \"1M\"")));
    says(&reload(&daemon), &["toml:1: ", "/no/such/fifo", "1 failed"]);
    assert_eq!(daemon.status("other")["source"], second.source());
    assert_eq!(daemon.status("web")["started"], started);
}

#[test]
fn an_interface_that_is_not_there_yet_is_waited_for() {
    skip_unless!(root);
    let (net, place) = (Net::new(), Place::new());
    place.write(&capture("late", "late0", "ring = \"1M\""));
    let daemon = place.mount().inside(&net.a).start();
    says(&daemon.stderr(), &["late: waits for its interface", "late0: no such interface"]);
    assert_eq!(daemon.status("late")["state"], "retrying");
    let ip = |words: &[&str]| pcapfs_tests::net::ip(&[&["-n", net.a.name()], words].concat());
    ip(&["link", "add", "late0", "type", "veth", "peer", "name", "late1"]);
    ip(&["link", "set", "late0", "up"]);
    daemon.wait_state("late", "running");
}

#[test]
fn changes_by_hand_stay_until_the_file_changes_them() {
    skip_unless!(root);
    let (fifo, place) = (Fifo::new(), Place::new());
    let rings = TempDir::new_in("/dev/shm").unwrap();
    let write = |mode: &str| {
        let more = format!("ring = \"1M\"\nmode = \"{mode}\"");
        place.write(&capture("web", &fifo.source(), &more));
    };
    let mount = || place.mount().ring_dir(rings.path()).start();
    write("0750");
    let mut daemon = mount();
    fs::set_permissions(daemon.path("web"), fs::Permissions::from_mode(0o770)).unwrap();
    says(&reload(&daemon), &["0 changed\n"]);
    assert_eq!(mode(&daemon.path("web")), 0o770);
    daemon.kill9();
    let mut daemon = mount();
    assert_eq!(mode(&daemon.path("web")), 0o770, "it outlives the daemon");
    assert!(daemon.terminate().success());
    write("0700");
    let daemon = mount();
    assert_eq!(mode(&daemon.path("web")), 0o700, "the file was changed later");
}

#[test]
fn the_socket_can_be_configured() {
    skip_unless!(mount);
    let place = Place::new();
    let socket = place.path("control.sock");
    place.write(&format!("socket = \"{}\"\n{}", socket.display(), place.trace()));
    // The test harness sets the socket in the environment, which takes precedence over the file.
    let daemon = place.mount().start();
    assert!(!socket.exists());
    let listed = daemon.json(["list", "--json"]);
    assert_eq!(listed[0]["alias"], "trace");
}

#[test]
fn a_configuration_that_others_may_write_is_refused() {
    skip_unless!(root);
    let place = Place::new();
    place.write(&place.trace());
    let mode =
        |mode| fs::set_permissions(place.config(), fs::Permissions::from_mode(mode)).unwrap();
    for bits in [0o666, 0o664, 0o646] {
        mode(bits);
        assert!(place.checked(1).contains("other users may write to it"));
        let refused = place.mount().try_start().unwrap_err();
        assert!(refused.stderr.contains("other users may write to it"), "{}", refused.stderr);
        assert!(!refused.left_mounted);
    }
    mode(0o644);
    chown(place.config(), Some(54_321), None).unwrap();
    assert!(place.checked(1).contains("it belongs to user 54321"));
    chown(place.config(), Some(0), None).unwrap();
    assert!(place.checked(0).contains("good, 1 capture"));
}

#[test]
fn secrets_of_a_pcapng_are_served_unless_export_keys_is_false() {
    skip_unless!(mount);
    let place = Place::new();
    let interface = [Interface { link_type: 1, per_second: 1_000_000_000, ..Interface::default() }];
    let data = frame::ethernet(1, 50);
    let packet = [NgPacket { interface: 0, timestamp: timestamp(1), data }];
    let (mut bytes, whole) = (pcapng(&interface, &[]), pcapng(&interface, &packet));
    let before = bytes.len();
    bytes.extend(block(10, b"KSLT\x04\0\0\0CLIE"));
    bytes.extend(&whole[before..]);
    let path = place.path("keys.pcapng");
    fs::write(&path, bytes).unwrap();
    let source = format!("file:{}", path.display());
    place.write(
        &[capture("yes", &source, ""), capture("no", &source, "export_keys = false")].concat(),
    );
    let daemon = place.mount().start();
    for (alias, wanted) in [("yes", true), ("no", false)] {
        let served = fs::read(daemon.path(&format!("{alias}/replay.pcapng"))).unwrap();
        assert!(served.ends_with(&whole[before..]), "{alias} has the packet");
        assert_eq!(served.windows(4).any(|part| part == b"CLIE"), wanted, "{alias}");
    }
}
