//! `pcapfs publish nats://`: each line once in the stream, whatever ends in between.

use std::fs;

use nix::sys::signal::Signal;
use pcapfs_tests::{
    ALIAS, Fed, Running, run, saved_places, schema, skip_unless, wait_for, wait_for_place,
    wait_until,
};
use serde_json::Value;

use crate::support::{Nats, end, exchange, expected, fleet, fleet_json, publish, wait_report};

#[test]
fn each_line_is_once_in_the_stream_whatever_is_killed() {
    skip_unless!(mount, "nats-server", "python3");
    let mut fed = Fed::start();
    let mut server = Nats::start(&[]);
    let (_folder, state) = saved_places();
    let options =
        ["--what", "http,flows", "--create-stream", "--max-bytes", "64M", "--max-age", "1h"];
    let start = || Running::spawn(&mut publish(&fed.daemon, &state, &server.url(), &options));
    let mut publisher = start();
    wait_for_place(&state, "/lines/http");
    for port in 1..=30 {
        fed.feed.write(&exchange(port, ""));
    }
    wait_until("the first part is there", 30, || server.targets("").len() == 30);
    // The publisher is killed: what it sends again has an id that the server knows.
    publisher.signal(Signal::SIGKILL);
    publisher.wait(10);
    for port in 31..=60 {
        fed.feed.write(&exchange(port, ""));
    }
    let mut publisher = start();
    wait_until("the second part is there", 30, || server.targets("").len() >= 60);
    // The server is killed.
    server.kill();
    wait_report(&publisher, "waiting", "");
    for port in 61..=90 {
        fed.feed.write(&exchange(port, ""));
    }
    server.run();
    wait_until("the third part is there", 30, || server.targets("").len() >= 90);
    assert_eq!(server.targets(""), expected(1..=90), "each once and in order");
    let lines = server.lines("");
    assert!(lines.iter().any(|(subject, _)| subject == "pcapfs.hall%2Eexample.web.flows"));
    let (subject, line) = lines.iter().find(|(subject, _)| subject.ends_with("http")).unwrap();
    assert_eq!(subject, "pcapfs.hall%2Eexample.web.http");
    let mut line = line.as_object().expect("an object").clone();
    assert_eq!(
        line.remove("published").expect("what is published")["bodies"],
        Value::Array(vec![])
    );
    schema::check("http", &Value::Object(line));
    let sums = end(&mut publisher);
    assert_eq!(sums["lost"], 0, "{sums}");
    // The run after goes on, and sends nothing again.
    let mut publisher = Running::spawn(&mut publish(&fed.daemon, &state, &server.url(), &options));
    fed.feed.write(&exchange(91, ""));
    wait_until("the next one is there", 30, || server.targets("").len() > 90);
    assert_eq!(server.targets(""), expected(1..=91));
    let sums = end(&mut publisher);
    assert!(sums["messages"].as_u64().unwrap() <= 8, "{sums}");
}

#[test]
fn lines_wait_for_a_stream_and_long_ones_are_counted() {
    skip_unless!(mount, "nats-server", "python3");
    let mut fed = Fed::start();
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("nats.conf");
    fs::write(&configuration, "max_payload: 8192\n").unwrap();
    let server = Nats::start(&["-c", configuration.to_str().unwrap()]);
    let (_folder, state) = saved_places();
    let mut waiting = Running::spawn(&mut publish(&fed.daemon, &state, &server.url(), &[]));
    wait_for_place(&state, "/lines/http");
    fed.feed.write(&exchange(1, ""));
    wait_report(&waiting, "waiting", "no stream takes the lines");
    // Once there is a stream, the line that was refused is sent again.
    let (_other_folder, other) = saved_places();
    let options = ["--create-stream", "--from", "now"];
    let mut maker = Running::spawn(&mut publish(&fed.daemon, &other, &server.url(), &options));
    wait_until("the line that waited is there", 30, || server.targets("").len() == 1);
    end(&mut maker);
    end(&mut waiting);
    let mut publisher =
        Running::spawn(&mut publish(&fed.daemon, &state, &server.url(), &["--create-stream"]));
    fed.feed.write(&exchange(2, &"x".repeat(8192)));
    fed.feed.write(&exchange(3, ""));
    wait_until("all are there", 30, || server.targets("").len() >= 2);
    assert_eq!(server.targets(""), ["/1", "/3"]);
    wait_report(&publisher, "lost", "max_payload");
    let sums = end(&mut publisher);
    assert_eq!((&sums["messages"], &sums["lost"]), (&1.into(), &1.into()), "{sums}");
}

#[test]
fn credentials_are_shown_to_the_server_and_to_nobody_else() {
    skip_unless!(mount, "nats-server", "python3");
    let mut fed = Fed::start();
    let server = Nats::start(&["--auth", "s3cret"]);
    let (_folder, state) = saved_places();
    let url = |token: &str| format!("nats://{token}@{}:4222", server.address);
    let mut refused = Running::spawn(&mut publish(&fed.daemon, &state, &url("wrong"), &[]));
    let report = wait_report(&refused, "waiting", "uthorization");
    assert!(!report.to_string().contains("wrong"), "{report}");
    end(&mut refused);
    let mut publisher =
        Running::spawn(&mut publish(&fed.daemon, &state, &url("s3cret"), &["--create-stream"]));
    wait_for_place(&state, "/lines/http");
    fed.feed.write(&exchange(1, ""));
    wait_until("it is there", 30, || server.targets("s3cret").len() == 1);
    let seen = fs::read(format!("/proc/{}/cmdline", publisher.pid())).unwrap();
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.contains("publish") && !seen.contains("s3cret"), "{seen:?}");
    end(&mut publisher);
    let said = String::from_utf8(publisher.stdout()).unwrap();
    assert!(!said.contains("s3cret"), "{said}");
    for (words, parts) in [
        (&["web", "nats://hall"][..], &["--insecure", "TLS"][..]),
        (&["web", "nats://127.0.0.1", "--what", "packets"], &["packets"]),
        (&["web", "nats://127.0.0.1:x"], &["nats://127.0.0.1:x"]),
        (&["web", "ipc:///x", "--create-stream"], &["nats://"]),
        (&["web", "nats://127.0.0.1", "--create-stream", "--max-age", "7"], &["'7' is no age"]),
    ] {
        let finished = run(fed.daemon.command(["publish"]).args(words), 10);
        assert_eq!(finished.status.code(), Some(2), "{words:?}: {}", finished.stderr);
        for part in parts {
            assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
        }
    }
}

#[test]
fn counters_come_with_a_change_and_at_an_interval() {
    skip_unless!(mount, "nats-server", "python3");
    let mut fed = Fed::start();
    let server = Nats::start(&[]);
    let (_folder, state) = saved_places();
    let options = ["--what", "status,http", "--create-stream", "--status-interval", "1s"];
    let mut publisher = Running::spawn(&mut publish(&fed.daemon, &state, &server.url(), &options));
    let statuses = |event: &str| {
        let lines = server.lines("").into_iter();
        let subject = "pcapfs.hall%2Eexample.web.status";
        let lines = lines.filter(|(known, line)| known == subject && line["event"] == event);
        lines.map(|(_, line)| line).collect::<Vec<_>>()
    };
    wait_until("the first line is there", 20, || statuses("begin").len() == 1);
    fed.feed.write(&exchange(1, ""));
    wait_until("the packets are counted", 20, || {
        statuses("interval").iter().any(|line| line["packets"]["stored"] == 8)
    });
    let _ = run(&mut fed.daemon.command(["stop", ALIAS]), 10).success();
    let line = wait_for("the change is there", 20, || statuses("change").pop());
    assert_eq!((&line["state"], &line["capture"]), (&"stopped".into(), &ALIAS.into()));
    let mut status = line.as_object().expect("an object").clone();
    for name in ["published", "capture", "event", "time"] {
        assert!(status.remove(name).is_some(), "{name}");
    }
    schema::check("status", &Value::Object(status));

    let row = wait_for("the last counters are there", 20, || {
        let row = fleet_json(&server, &["hosts"]).remove(0);
        (row["status"]["state"] == "stopped").then_some(row)
    });
    assert_eq!((&row["status"]["stored"], &row["status"]["dropped"]), (&8.into(), &0.into()));
    assert_eq!((&row["http"], &row["flows"]), (&1.into(), &0.into()), "counters are no lines");
    let table = fleet(&server, &["hosts"]).join("\n");
    assert!(table.contains("STATE") && table.contains("stopped"), "{table}");
    let words = ["find", "--what", "status", "--match", "state=stopped"];
    let shown = fleet(&server, &words);
    assert!(shown[0].starts_with("hall.example/web status stopped: 8 packets"), "{shown:?}");
    end(&mut publisher);
}
