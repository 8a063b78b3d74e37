//! `pcapfs watch`: each event at least once, whatever ends in between, and none that was not asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use pcapfs_tests::conversation::records;
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Fed, Mount, Replaceable, Running, Server, User, run,
    saved_places, schema, skip_unless, wait_for, wait_for_place, wait_until,
};
use serde_json::Value;

/// A user without rights.
const OTHER: User = User { id: 54_321, group: 54_321, groups: &[] };

/// An HTTP exchange from this port, with this status.
fn exchange(port: u16, status: &str) -> Vec<u8> {
    let mut talk = Conversation::tcp(&format!("10.0.0.1:{port}"), "10.0.0.2:80");
    let request = format!("GET /{port} HTTP/1.1\r\nHost: $(touch a).example\r\n\r\n");
    let response = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
    talk.open().says(Client, request.as_bytes()).says(Server, response.as_bytes()).close(Client);
    records(&talk.packets)
}

/// A running watch with a state file of its own.
struct Watch {
    process: Running,
}

impl Watch {
    #[track_caller]
    fn start(daemon: &Daemon, state: &Path, options: &[&str]) -> Self {
        Self::of(command(daemon, state).args(options))
    }

    #[track_caller]
    fn of(command: &mut Command) -> Self {
        Self { process: Running::spawn(command) }
    }

    /// The lines that have come.
    fn events(&self) -> Vec<Value> {
        let text = String::from_utf8(self.process.stdout()).expect("events are text");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// The targets of the transactions that have come.
    fn targets(&self) -> Vec<String> {
        let events = self.events();
        let http = events.iter().filter(|event| event["what"] == "http");
        http.map(|event| event["target"].as_str().expect("a target").to_owned()).collect()
    }

    #[track_caller]
    fn wait_event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("an event {what}; {}", self.process.stderr()), 30, || {
            self.events().into_iter().find(|event| event["what"] == what && wanted(event))
        })
    }

    /// Waits for the transaction of this port.
    #[track_caller]
    fn wait_target(&self, port: u16) -> Value {
        self.wait_event("http", |event| event["target"] == format!("/{port}").as_str())
    }

    /// Ends it, and returns its last words.
    #[track_caller]
    fn end(&mut self) -> String {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait(10);
        assert!(status.success(), "{status}: {}", self.process.stderr());
        self.process.stderr()
    }
}

fn command(daemon: &Daemon, state: &Path) -> Command {
    let mut command = daemon.command(["watch", "--state"]);
    command.arg(state);
    command
}

#[test]
fn events_are_printed_once_and_in_order() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    fed.feed.write(&exchange(1, "200 OK"));
    wait_until("the first exchange is there", 10, || {
        fs::read_to_string(fed.daemon.path("web/http.jsonl")).is_ok_and(|text| text.contains("/1"))
    });
    let (_folder, state) = saved_places();
    let mut watch = Watch::start(&fed.daemon, &state, &[ALIAS, "--json"]);
    wait_for_place(&state, "/lines/http");
    for port in 2..20 {
        fed.feed.write(&exchange(port, "200 OK"));
    }
    let line = watch.wait_target(19);
    watch.wait_event("flow", |flow| flow["client"]["port"] == 19);
    fed.daemon.verb(["stop", ALIAS]);
    let stopped = watch.wait_event("state", |event| event["state"] == "stopped");
    assert_eq!((&stopped["capture"], &stopped["previous"]), (&ALIAS.into(), &"running".into()));
    let expected: Vec<String> = (2..20).map(|port| format!("/{port}")).collect();
    assert_eq!(watch.targets(), expected, "those from now on, each once");
    // The first one may have been reported as ended before.
    let events = watch.events();
    let flows = events.iter().filter(|event| event["what"] == "flow");
    let flows: Vec<&Value> = flows.filter(|flow| flow["client"]["port"] != 1).collect();
    assert_eq!(flows.len(), 18);
    assert!(flows.iter().all(|flow| flow["event"] == "ended"));
    for (kind, event) in [("http", &line), ("flows", flows[0])] {
        let mut line = event.as_object().expect("an object").clone();
        assert!(line.remove("what").is_some());
        let position = line.remove("position").expect("a place");
        assert!(position.as_str().unwrap().contains(&format!(".{kind}.")), "{position}");
        schema::check(kind, &Value::Object(line));
    }
    let said = watch.end();
    assert!(said.contains(&format!("{} events, 0 lines lost", events.len())), "{said}");
    // The run after begins where this one ended, and the one after that where it is told.
    let mut again = Watch::start(&fed.daemon, &state, &[ALIAS, "--json"]);
    fed.daemon.verb(["start", ALIAS]);
    again.wait_event("state", |event| event["previous"] == "stopped");
    assert!(again.targets().is_empty());
    again.end();
    let oldest = Watch::start(&fed.daemon, &state, &[ALIAS, "--json", "--from", "oldest"]);
    oldest.wait_target(1);
    oldest.wait_target(19);
}

#[test]
fn a_command_is_run_with_the_event() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let (folder, state) = saved_places();
    let out = folder.path().join("out");
    // A stranger's host is data, and not a part of the command.
    let script = format!(
        "cat >>{out}; echo \"$PCAPFS_WHAT $PCAPFS_STATUS $PCAPFS_CLIENT_PORT $PCAPFS_HOST\" \
         \"$PCAPFS_LOST$PCAPFS_REASON\" >>{out}; test -f \"$PCAPFS_CAPTURE_DIRECTORY/status.json\" && \
         test \"$PCAPFS_STATUS\" != 500",
        out = out.display()
    );
    let options = ["--exec", &script, "--what", "http", "--match", "status>=400"];
    let mut watching = command(&fed.daemon, &state);
    watching.args(options).current_dir(folder.path()).env("PCAPFS_REASON", "of another event");
    let mut watch = Watch::of(&mut watching);
    wait_for_place(&state, "/lines/http");
    for (port, status) in [(1, "404 No"), (2, "200 OK"), (3, "500 Oops"), (4, "403 ")] {
        fed.feed.write(&exchange(port, status));
    }
    wait_until("the last command has run", 20, || {
        fs::read_to_string(&out).is_ok_and(|text| text.contains("403 4"))
    });
    let said = watch.end();
    assert!(said.contains("the command failed: exit status: 1"), "{said}");
    assert!(said.contains("3 events, 0 lines lost; the command failed 1 time"), "{said}");
    let text = fs::read_to_string(&out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "http 404 1 $(touch a).example 0No", "{text}");
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[5], "http 403 4 $(touch a).example 0");
    let event: Value = serde_json::from_str(lines[2]).unwrap();
    assert_eq!(event["status"], 500);
    assert!(!folder.path().join("a").exists(), "the stranger's command was run");
}

#[test]
fn mistakes_are_named() {
    skip_unless!(mount);
    let fed = Fed::start();
    let (_folder, state) = saved_places();
    for (options, code, parts) in [
        (&["--match", "staus>=500"][..], 2, &["--match: character 1: 'staus'", "status"][..]),
        (&["--match", "sni=a", "--what", "http"], 2, &["'sni' is a field of flows"]),
        (&["--what", "http,tls"], 2, &["--what: 'tls'", "flows, http, dns, state"]),
        (&["hall:web"], 2, &["hall:web", "run it on hall"]),
        (&["lan"], 1, &["lan"]),
        (&["--exec", "true", "--json"], 2, &["--exec", "--json"]),
    ] {
        let finished = run(command(&fed.daemon, &state).args(options), 10);
        assert_eq!(finished.status.code(), Some(code), "{options:?}: {}", finished.stderr);
        for part in parts {
            assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
        }
    }
    // A state file has one user; by default it is one for these arguments.
    let mut first = fed.daemon.command(["watch", ALIAS]);
    let home = state.parent().unwrap();
    let _first = Watch::of(first.env("XDG_STATE_HOME", home));
    let file = wait_for("the file of places", 20, || {
        let entries = fs::read_dir(home.join("pcapfs")).ok()?.flatten().map(|entry| entry.path());
        entries.into_iter().find(|path| path.extension().is_some_and(|end| end == "json"))
    });
    let mut second = fed.daemon.command(["watch", ALIAS]);
    let refused = run(second.env("XDG_STATE_HOME", home), 10);
    assert!(refused.stderr.contains("--state"), "{}", refused.stderr);
    assert!(refused.stderr.contains(file.to_str().unwrap()), "{}", refused.stderr);
}

#[test]
fn each_event_comes_although_the_watch_is_killed() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let (_folder, state) = saved_places();
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut port = 0;
    for round in 0..4 {
        let mut watch = Watch::start(&fed.daemon, &state, &["--json", "--what", "http"]);
        if round == 0 {
            wait_for_place(&state, "/lines/http");
        }
        // The kill hits it somewhere in the middle.
        let middle = port + 20;
        for _ in 0..40 {
            port += 1;
            fed.feed.write(&exchange(port, "200 OK"));
        }
        watch.wait_target(middle);
        if round == 3 {
            watch.wait_target(port);
            watch.end();
        } else {
            watch.process.signal(Signal::SIGKILL);
            watch.process.wait(10);
        }
        for target in watch.targets() {
            *seen.entry(target).or_default() += 1;
        }
        // Events while nobody watches wait in the log.
        port += 1;
        fed.feed.write(&exchange(port, "200 OK"));
    }
    let mut watch = Watch::start(&fed.daemon, &state, &["--json", "--what", "http"]);
    watch.wait_target(port);
    assert_eq!(watch.targets(), [format!("/{port}")], "after a regular end, each comes once");
    watch.end();
    let missing: Vec<u16> =
        (1..port).filter(|port| !seen.contains_key(&format!("/{port}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn each_event_comes_once_although_the_daemon_is_killed() {
    skip_unless!(mount);
    let place_of_daemon = Replaceable::new();
    let (daemon, mut feed) = place_of_daemon.start();
    let (_folder, state) = saved_places();
    let mut watch = Watch::start(&daemon, &state, &["--json"]);
    wait_for_place(&state, "/lines/http");
    for port in 1..=30 {
        feed.write(&exchange(port, "200 OK"));
    }
    watch.wait_target(30);
    watch.wait_event("flow", |flow| flow["client"]["port"] == 30);
    drop(feed);
    daemon.crash();
    watch.wait_event("daemon", |event| event["state"] == "away");
    let (daemon, mut feed) = place_of_daemon.start();
    watch.wait_event("daemon", |event| event["state"] == "back");
    watch.wait_event("restarted", |event| event["capture"] == ALIAS);
    feed.write(&exchange(31, "200 OK"));
    watch.wait_target(31);
    watch.wait_event("flow", |flow| flow["client"]["port"] == 31);
    let expected: Vec<String> = (1..=31).map(|port| format!("/{port}")).collect();
    assert_eq!(watch.targets(), expected, "each once");
    let flows = watch.events().iter().filter(|event| event["what"] == "flow").count();
    assert_eq!(flows, 31, "each once");
    watch.end();
    // If both have ended, some may come again and none is missing.
    drop(feed);
    daemon.crash();
    let (daemon, mut feed) = place_of_daemon.start();
    feed.write(&exchange(32, "200 OK"));
    let again = Watch::start(&daemon, &state, &["--json"]);
    again.wait_target(32);
}

#[test]
fn lines_that_had_left_the_log_are_counted() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().args(["--flow-memory", "1M"]));
    let (_folder, state) = saved_places();
    let mut watch = Watch::start(&fed.daemon, &state, &["--json", "--what", "http"]);
    wait_for_place(&state, "/lines/http");
    fed.feed.write(&exchange(1, "200 OK"));
    watch.wait_target(1);
    watch.end();
    let dropped = || {
        let status = fed.daemon.status(ALIAS);
        status["flows"]["log_lines_dropped_by"]["http.jsonl"].as_u64().unwrap()
    };
    let mut sent = 1_u64;
    while dropped() < 100 {
        let mut packets = Vec::new();
        for _ in 0..500 {
            sent += 1;
            packets.extend(exchange(u16::try_from(sent % 60_000 + 2).unwrap(), "200 OK"));
        }
        fed.feed.write(&packets);
        wait_until("they are looked at", 30, || {
            fed.daemon.status(ALIAS)["flows"]["engine_lag_packets"] == 0
        });
    }
    let watch = Watch::start(&fed.daemon, &state, &["--json", "--what", "http"]);
    wait_until("every line came or is counted", 60, || {
        let events = watch.events();
        let lost = events.iter().filter(|event| event["what"] == "lost");
        let lost: u64 = lost.map(|event| event["lines"].as_u64().unwrap()).sum();
        lost >= 100 && 1 + lost + watch.targets().len() as u64 == sent
    });
}

#[test]
fn all_captures_that_the_user_may_read_are_watched() {
    skip_unless!(root, "setpriv");
    let mut fed = Fed::start();
    let (_folder, state) = saved_places();
    let watch = Watch::start(&fed.daemon, &state, &["--json"]);
    wait_for_place(&state, "/lines/http");
    fed.daemon.verb(["init", "lo", "port 9", "--alias", "later"]);
    let later = watch.wait_event("state", |event| event["capture"] == "later");
    assert_eq!((&later["previous"], &later["source"]), (&Value::Null, &"lo".into()));
    fed.daemon.verb(["remove", "later"]);
    watch.wait_event("state", |event| event["capture"] == "later" && event["state"] == "removed");
    // Without a right, there is nothing to see.
    let mut command = OTHER.command(pcapfs_tests::binary("pcapfs").to_str().unwrap());
    command.args(["watch", "--json", "--from", "oldest", "--state", "/dev/shm/pcapfs-watch-54321"]);
    let mut stranger = Watch::of(command.env("PCAPFS_SOCKET", fed.daemon.socket()));
    fed.feed.write(&exchange(7, "200 OK"));
    watch.wait_target(7);
    let named = run(
        OTHER
            .command(pcapfs_tests::binary("pcapfs").to_str().unwrap())
            .args(["watch", ALIAS, "--state", "/dev/shm/pcapfs-watch-54321-2"])
            .env("PCAPFS_SOCKET", fed.daemon.socket()),
        10,
    );
    for end in ["54321", "54321.lock", "54321-2", "54321-2.lock"] {
        let _ = fs::remove_file(format!("/dev/shm/pcapfs-watch-{end}"));
    }
    assert_eq!(named.status.code(), Some(1), "{}", named.stderr);
    assert!(named.stderr.contains("permission denied"), "{}", named.stderr);
    assert!(stranger.process.stdout().is_empty());
    stranger.end();
}
