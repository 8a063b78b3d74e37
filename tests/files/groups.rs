//! Groups as teams use them: three users, two groups and three captures.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{Daemon, Feed, Fifo, Mount, Running, User, binary, run, skip_unless, tool};
use serde_json::Value;

/// Ids that no account has.
const WEB_TEAM: u32 = 65_440;
const DNS_TEAM: u32 = 65_441;
const ALICE: User = User { id: 54_331, group: 65_450, groups: &[WEB_TEAM] };
const BOB: User = User { id: 54_332, group: DNS_TEAM, groups: &[] };
const CAROL: User = User { id: 54_333, group: 65_452, groups: &[] };

/// Aliases of the captures that `list` shows a user.
fn list(user: User, daemon: &Daemon) -> Vec<String> {
    let listed = user.verb(daemon, &["list", "--json"]).success();
    let listed: Value = serde_json::from_str(listed.text()).unwrap();
    let aliases = listed.as_array().unwrap().iter().map(|one| one["alias"].as_str().unwrap());
    aliases.map(str::to_owned).collect()
}

/// The error message of a command of a user that must be refused.
#[track_caller]
fn refused(user: User, daemon: &Daemon, words: &[&str]) -> String {
    let finished = user.verb(daemon, words);
    assert_eq!(finished.status.code(), Some(1), "{words:?}: {finished:?}");
    assert_eq!(finished.stdout, b"", "{words:?}");
    assert!(finished.stderr.contains("permission denied"), "{words:?}: {}", finished.stderr);
    finished.stderr
}

/// A daemon with three captures: `web` for one team, `dns` for the other, and `all` for root alone.
struct Scene {
    daemon: Daemon,
    feeds: Vec<Feed>,
    _fifos: Vec<Fifo>,
}

impl Scene {
    fn new() -> Self {
        let fifos: Vec<Fifo> = (0..3).map(|_| Fifo::new()).collect();
        let mut mount = Mount::new().ring("4M");
        for (alias, fifo) in ["web", "dns", "all"].iter().zip(&fifos) {
            mount = mount.capture(alias, &fifo.source());
        }
        let daemon = mount.start();
        let mut feeds: Vec<Feed> = fifos.iter().map(Fifo::connect).collect();
        for (alias, group, mode) in
            [("web", WEB_TEAM, 0o750), ("dns", DNS_TEAM, 0o770), ("all", 0, 0o700)]
        {
            chown(daemon.path(alias), Some(0), Some(group)).unwrap();
            fs::set_permissions(daemon.path(alias), fs::Permissions::from_mode(mode)).unwrap();
        }
        // Clients reach the socket through its folder, so every user must be able to search it.
        let folder = daemon.socket().parent().unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        for (feed, alias) in feeds.iter_mut().zip(["web", "dns", "all"]) {
            feed.send(10, 200);
            daemon.wait_stored(alias, 10);
        }
        Self { daemon, feeds, _fifos: fifos }
    }
}

/// Each user's rights on each capture: to read it, and to control it.
const RIGHTS: [(User, &str, bool, bool); 9] = [
    (ALICE, "web", true, false),
    (ALICE, "dns", false, false),
    (ALICE, "all", false, false),
    (BOB, "web", false, false),
    (BOB, "dns", true, true),
    (BOB, "all", false, false),
    (CAROL, "web", false, false),
    (CAROL, "dns", false, false),
    (CAROL, "all", false, false),
];

#[test]
fn every_way_in_admits_the_same_users() {
    skip_unless!(root, "setpriv");
    let scene = Scene::new();
    let daemon = &scene.daemon;
    for (user, alias, may_read, may_steer) in RIGHTS {
        let who = format!("user {} and {alias}", user.id);
        let path = daemon.path(alias).join("replay.pcap");
        let cat = run(user.command("cat").arg(&path), 5);
        assert_eq!(cat.status.success(), may_read, "{who}: {}", cat.stderr);
        if may_read {
            assert_eq!(check_prefix(&cat.stdout).unwrap().whole().len(), 10, "{who}");
            let replay = user.verb(daemon, &["replay", alias]).success();
            assert!(replay.stdout == cat.stdout, "{who}");
            let status = user.verb(daemon, &["status", alias, "--json"]).success();
            assert!(status.text().contains("\"stored\":10"), "{who}: {}", status.text());
        } else {
            assert!(cat.stderr.contains("Permission denied"), "{who}: {}", cat.stderr);
            for verb in ["replay", "listen", "status", "list"] {
                let said = refused(user, daemon, &[verb, alias]);
                assert!(said.contains(&format!(" r on {alias} is missing")), "{who}: {said}");
            }
        }
        let stop = format!("echo stop > {}", daemon.path(alias).join("ctl").display());
        let by_file = run(user.command("sh").arg("-c").arg(stop), 5);
        assert_eq!(by_file.status.success(), may_steer, "{who}: {}", by_file.stderr);
        for verb in ["stop", "start"] {
            if may_steer {
                let _ = user.verb(daemon, &[verb, alias]).success();
                let state = if verb == "stop" { "stopped" } else { "running" };
                assert_eq!(daemon.status(alias)["state"], state, "{who}");
            } else {
                let said = refused(user, daemon, &[verb, alias]);
                assert!(said.contains(&format!(" w on {alias} is missing")), "{who}: {said}");
                assert_eq!(daemon.status(alias)["state"], "running", "{who}");
            }
        }
    }
    assert_eq!(list(ALICE, daemon), ["web"]);
    assert_eq!(list(BOB, daemon), ["dns"]);
    assert_eq!(list(CAROL, daemon), [""; 0]);
    // `--all` includes the captures the user can see.
    let said = refused(ALICE, daemon, &["stop", "--all"]);
    assert!(said.contains("the group's w on web"), "{said}");
    let _ = BOB.verb(daemon, &["stop", "--all"]).success();
    assert_eq!(daemon.status("dns")["state"], "stopped");
    assert_eq!(daemon.status("web")["state"], "running");
}

#[test]
fn making_and_removing_needs_the_root_of_the_tree() {
    skip_unless!(root, "setpriv");
    let scene = Scene::new();
    let daemon = &scene.daemon;
    for user in [ALICE, BOB, CAROL] {
        for words in [&["init", "lo", "tcp port 4711"][..], &["remove", "dns"], &["remove", "1"]] {
            let said = refused(user, daemon, words);
            assert!(said.contains("the others' w on the root of the tree is missing"), "{said}");
        }
    }
    chown(daemon.mountpoint(), None, Some(WEB_TEAM)).unwrap();
    fs::set_permissions(daemon.mountpoint(), fs::Permissions::from_mode(0o775)).unwrap();
    let made = ALICE.verb(daemon, &["init", "lo", "tcp port 4711", "--alias", "mine"]).success();
    assert_eq!(made.text(), "4 mine\n");
    // The user who made a capture owns it, as with a directory.
    assert_eq!(daemon.status("mine")["owner"], ALICE.id.to_string());
    let _ = ALICE.verb(daemon, &["stop", "mine"]).success();
    let _ = ALICE.verb(daemon, &["remove", "mine"]).success();
    let said = refused(BOB, daemon, &["init", "lo", "tcp port 4711"]);
    assert!(said.contains("the others' w on the root of the tree"), "{said}");
    // A user without x on the root of the tree can do nothing.
    fs::set_permissions(daemon.mountpoint(), fs::Permissions::from_mode(0o770)).unwrap();
    let said = refused(BOB, daemon, &["status", "dns"]);
    assert!(said.contains("the others' x on the root of the tree"), "{said}");
    assert_eq!(list(BOB, daemon), [""; 0]);
}

#[test]
fn packets_of_an_earlier_capture_are_not_for_the_next_user_of_its_name() {
    skip_unless!(root, "setpriv");
    let rings = tempfile::TempDir::new_in("/dev/shm").unwrap();
    let fifo = Fifo::new();
    let mount = || Mount::new().ring("4M").ring_dir(rings.path());
    let mut daemon = mount().capture("secret", &fifo.source()).start();
    fifo.connect().send(10, 200);
    daemon.wait_stored("secret", 10);
    assert!(daemon.terminate().success());
    let daemon = mount().start();
    fs::set_permissions(daemon.mountpoint(), fs::Permissions::from_mode(0o777)).unwrap();
    let folder = daemon.socket().parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let _ = CAROL.verb(&daemon, &["init", "lo", "tcp port 4711", "--alias", "secret"]).success();
    assert_eq!(daemon.count("secret", "/packets/stored"), 0);
}

#[test]
fn changes_hold_from_the_next_request_on() {
    skip_unless!(root, "setpriv");
    let mut scene = Scene::new();
    let daemon = &scene.daemon;
    let listen = |user: User| {
        let mut command = user.command(binary("pcapfs").to_str().unwrap());
        command.args(["listen", "web"]).env("PCAPFS_SOCKET", daemon.socket());
        Running::spawn(&mut command)
    };
    let early = listen(ALICE);
    daemon.wait_blocked("web", "live.pcap", early.pid());
    chown(daemon.path("web"), None, Some(DNS_TEAM)).unwrap();
    let said = refused(ALICE, daemon, &["listen", "web"]);
    assert!(said.contains("the others' r on web is missing"), "{said}");
    let remedy = format!("usermod -aG {DNS_TEAM} {}", ALICE.id);
    assert!(said.contains(&remedy), "{remedy:?} is not in {said:?}");
    let late = listen(BOB);
    daemon.wait_blocked("web", "live.pcap", late.pid());
    scene.feeds[0].send(5, 200);
    for running in [&early, &late] {
        running.wait_stdout("packet 15", 5, |bytes| {
            check_prefix(bytes).is_ok_and(|prefix| prefix.seen.last == 15)
        });
    }
}

#[test]
fn an_outsider_learns_nothing() {
    skip_unless!(root, "setpriv");
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let mut cat = Running::spawn(ALICE.command("cat").arg(daemon.path("web/live.pcap")));
    daemon.wait_blocked("web", "live.pcap", cat.pid());
    for file in [
        "readers.jsonl",
        "status.json",
        "flows.jsonl",
        "http.jsonl",
        "http-open.jsonl",
        "flows",
        "ctl",
    ] {
        let path = daemon.path("web").join(file);
        for program in ["cat", "ls", "stat"] {
            let finished = run(CAROL.command(program).arg(&path), 5);
            assert!(!finished.status.success() && finished.stdout.is_empty(), "{program} {file}");
            assert!(finished.stderr.contains("Permission denied"), "{}", finished.stderr);
        }
    }
    // Refusals reveal nothing about the capture's content and do not depend on it.
    let refusals = |alias: &str| {
        let words = [["status", alias], ["replay", alias], ["list", alias]];
        words.map(|words| refused(CAROL, daemon, &words).replace(alias, "*"))
    };
    let web = refusals("web");
    for said in &web {
        assert!(!said.contains("10") && !said.contains("stream:"), "{said}");
    }
    let group = |said: &str| said.replace(&DNS_TEAM.to_string(), &WEB_TEAM.to_string());
    let dns = refusals("dns").map(|said| group(&said).replace("0770", "0750"));
    assert_eq!(web, dns);
    let listed = CAROL.verb(daemon, &["list"]).success();
    for part in ["none that you may read", &format!("usermod -aG {WEB_TEAM} "), "and 2 more"] {
        assert!(listed.stderr.contains(part), "{part:?} is not in {:?}", listed.stderr);
    }
    let daemon_status = CAROL.verb(daemon, &["status", "--json"]).success();
    let daemon_status: Value = serde_json::from_str(daemon_status.text()).unwrap();
    assert_eq!(daemon_status["captures"], Value::Array(Vec::new()));
    // The tree's own `status.json` shows each opener the same captures.
    let root_status = |user: User| {
        let shown = run(user.command("cat").arg(daemon.path("status.json")), 5).success();
        let status: Value = serde_json::from_str(shown.text()).unwrap();
        let captures = status["captures"].as_array().unwrap();
        assert_eq!(shown.text().matches("stream:").count(), captures.len());
        // The file has the size that stat reports to this opener.
        let folder = tempfile::TempDir::new().unwrap();
        let archive = folder.path().join("status.tar");
        let mut tar = user.command("tar");
        tar.args(["-cf", "-", "-C"]).arg(daemon.mountpoint()).arg("status.json");
        fs::write(&archive, run(&mut tar, 5).success().stdout).unwrap();
        let packed = run(tool("tar").arg("-xOf").arg(&archive), 5).success();
        let packed: Value = serde_json::from_str(packed.text()).unwrap();
        assert_eq!(packed["captures"], status["captures"]);
        let alias = |one: &Value| one["alias"].as_str().unwrap().to_owned();
        captures.iter().map(alias).collect::<Vec<_>>()
    };
    const ROOT: User = User { id: 0, group: 0, groups: &[] };
    assert_eq!(root_status(ROOT), ["web", "dns", "all"]);
    for user in [ALICE, BOB, CAROL] {
        assert_eq!(root_status(user), list(user, daemon), "user {}", user.id);
    }
    fs::set_permissions(daemon.path("all"), fs::Permissions::from_mode(0o705)).unwrap();
    assert_eq!(root_status(CAROL), ["all"]);
    let ring = run(CAROL.command("cat").arg(daemon.ring_dir().join("web.ring")), 5);
    assert!(ring.stderr.contains("Permission denied"), "{}", ring.stderr);
    cat.end_with(nix::sys::signal::Signal::SIGTERM);
    let place = daemon.mountpoint().to_str().unwrap();
    let umount = CAROL.verb(daemon, &["umount", place]);
    let said = format!(
        "pcapfs: {place}: mounted by root, who alone may unmount it (sudo pcapfs umount {place})\n"
    );
    assert_eq!((umount.status.code(), umount.stderr), (Some(1), said));
}
