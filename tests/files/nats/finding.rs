//! `pcapfs fleet hosts|find|tail`: the lines of all machines.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use pcapfs_tests::{
    ALIAS, Fed, Running, binary, loopback_address, run, saved_places, skip_unless, tool, wait_for,
    wait_for_place, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Nats, end, exchange, expected, fleet, fleet_json, found};

#[test]
fn lines_of_all_machines_are_found() {
    /// More than two batches of lines.
    const COUNT: u16 = 600;
    skip_unless!(mount, "nats-server", "python3");
    let mut machines = [Fed::start(), Fed::start()];
    let server = Nats::start(&[]);
    let mut missing = tool(binary("pcapfs").to_str().expect("test paths are text"));
    let missing = run(missing.args(["fleet", "find", "--nats", &server.url()]), 10);
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stderr.contains("it has no stream 'pcapfs' (make it"), "{}", missing.stderr);
    let places = [saved_places(), saved_places()];
    let mut publishers = [("hall.example", 0), ("cellar", 1)].map(|(host, number)| {
        let (fed, place): (&Fed, &(TempDir, PathBuf)) = (&machines[number], &places[number]);
        let mut command = fed.daemon.command(["publish", ALIAS, &server.url(), "--json"]);
        command.args(["--host", host, "--what", "http,flows", "--create-stream"]);
        let process = Running::spawn(command.arg("--state").arg(&place.1));
        wait_for_place(&place.1, "/lines/http");
        process
    });
    for port in 1..=COUNT {
        machines.iter_mut().for_each(|fed| fed.feed.write(&exchange(port, "")));
    }
    let hosts = wait_for("all lines are there", 30, || {
        let hosts = fleet_json(&server, &["hosts"]);
        let is_whole = |host: &Value| host["http"] == COUNT && host["flows"] == 2 * COUNT;
        (hosts.len() == 2 && hosts.iter().all(is_whole)).then_some(hosts)
    });
    assert_eq!((&hosts[0]["host"], &hosts[1]["host"]), (&"cellar".into(), &"hall.example".into()));
    assert!(hosts[0]["capture"] == ALIAS && hosts[0]["last"].is_string(), "{hosts:?}");

    assert_eq!(found(&server, &["--host", "hall.example"]), expected(1..=COUNT));
    assert_eq!(found(&server, &[]).len(), 2 * usize::from(COUNT));
    assert_eq!(found(&server, &["--host", "attic"]), [""; 0]);
    assert_eq!(found(&server, &["--capture", "other"]), [""; 0]);
    assert_eq!(found(&server, &["--status", "404"]), [""; 0]);
    assert_eq!(found(&server, &["--server", "10.0.0.1"]), [""; 0]);
    let cellar = |words: &[&str]| found(&server, &[words, &["--host", "cellar"]].concat());
    assert_eq!(cellar(&["--status", "2xx", "--client", "10.0.0.1"]), expected(1..=COUNT));
    assert_eq!(cellar(&["--match", "client.port=7"]), ["/7"]);
    assert_eq!(cellar(&["--since", "1h"]), expected(1..=COUNT));
    let lines = fleet_json(&server, &["find", "--host", "cellar", "--match", "client.port=7"]);
    let kinds: Vec<_> = lines.iter().map(|line| line["fleet"]["what"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "flow").count(), 2, "{kinds:?}");
    assert_eq!(lines[0]["fleet"]["host"], "cellar");
    let shown = fleet(&server, &["find", "--host", "cellar", "--match", "target=/7"]);
    assert_eq!(shown.len(), 1);
    let place = lines[0]["fleet"]["ref"].as_str().expect("a reference");
    assert_eq!(place, "cellar/web/7-10.0.0.1.7-10.0.0.2.80");
    assert!(shown[0].starts_with(&format!("{place} http 200 GET ")), "{shown:?}");

    // Lines to come, and only those.
    let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
    command.args(["fleet", "tail", "--what", "http", "--host", "cellar", "--json"]);
    let mut tail = Running::spawn(command.args(["--nats", &server.url()]));
    let mut next = COUNT;
    wait_until("a line has come", 30, || {
        // Until the server has made the consumer, a line is one of those before.
        next += 1;
        machines[1].feed.write(&exchange(next, ""));
        tail.stdout().ends_with(b"\n")
    });
    tail.signal(Signal::SIGINT);
    assert!(tail.wait(10).success(), "{}", tail.stderr());
    let first = tail.stdout();
    let first: Value =
        serde_json::from_slice(first.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    let port = first["target"].as_str().unwrap().trim_start_matches('/').parse::<u16>().unwrap();
    assert!(port > COUNT, "{first}");
    for publisher in &mut publishers {
        end(publisher);
    }
}

#[test]
fn what_a_fleet_cannot_be_asked_is_said() {
    for (words, part) in [
        (&["find", "--nats", "nats://hall"][..], "--insecure"),
        (&["find", "--status", "tea"], "'tea' is no status"),
        (&["find", "--what", "state"], "'state': no kind of event"),
        (&["find", "--match", "status>>4"], "character 8"),
        (&["tail", "--since", "7"], "'7' is no age"),
        (&["hosts", "--nats", "nats://127.0.0.1:x"], "nats://127.0.0.1:x"),
    ] {
        let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
        let finished = run(command.arg("fleet").args(words), 10);
        assert_eq!(finished.status.code(), Some(2), "{words:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
    }
    let address = loopback_address().to_string();
    let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
    let finished = run(command.args(["fleet", "hosts", "--nats", &address]), 10);
    assert_eq!(finished.status.code(), Some(1));
    let wanted = format!("nats://{address}:4222: Connection refused");
    assert!(finished.stderr.contains(&wanted), "{}", finished.stderr);
}
