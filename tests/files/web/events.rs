//! Event streams.

use std::fs;

use pcapfs_tests::conversation::records;
use pcapfs_tests::{
    ALIAS, Client, Conversation, Fed, Fifo, Mount, Running, Server, schema, skip_unless, wait_for,
    wait_until,
};
use serde_json::Value;

use crate::support::Web;

/// An event.
#[derive(Clone, Debug)]
struct Event {
    kind: String,
    id: String,
    data: Value,
}

/// The events that have come so far.
fn events(curl: &Running) -> Vec<Event> {
    let text = String::from_utf8(curl.stdout()).expect("events are text");
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    let blocks = whole.split("\n\n").filter(|block| block.starts_with("event: "));
    blocks
        .map(|block| {
            let field = |name: &str| {
                let found = block.lines().find_map(|line| line.strip_prefix(name));
                found.unwrap_or_else(|| panic!("no {name} in {block}")).to_owned()
            };
            let data = serde_json::from_str(&field("data: ")).expect("data is JSON");
            Event { kind: field("event: "), id: field("id: "), data }
        })
        .collect()
}

/// Waits for an event of this kind that is as wanted.
#[track_caller]
fn wait_event(curl: &Running, kind: &str, wanted: impl Fn(&Value) -> bool) -> Event {
    wait_for(&format!("an event {kind}"), 30, || {
        events(curl).into_iter().find(|event| event.kind == kind && wanted(&event.data))
    })
}

fn follow(web: &Web, query: &str, last: Option<&str>) -> Running {
    let header = format!("Last-Event-ID: {}", last.unwrap_or_default());
    let words = ["-H", &header];
    let words = if last.is_some() { &words[..] } else { &[] };
    let curl = web.follow(words, &format!("api/v1/captures/{ALIAS}/events{query}"));
    wait_event(&curl, "counters", |_| true);
    curl
}

/// An HTTP exchange, from this port.
fn exchange(port: u16) -> Conversation {
    let mut talk = Conversation::tcp(&format!("10.0.0.1:{port}"), "10.0.0.2:80");
    talk.open()
        .says(Client, format!("GET /{port} HTTP/1.1\r\nHost: a.example\r\n\r\n").as_bytes())
        .says(Server, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .close(Client);
    talk
}

#[test]
fn flows_transactions_and_counters_come_as_they_are() {
    skip_unless!(mount, "curl");
    let mut fed = Fed::start();
    fed.feed.write(&records(&exchange(1).packets));
    let web = Web::start(&fed.daemon, &[]);
    wait_until("the first exchange is there", 10, || {
        web.json("api/v1/captures/web/http")["http"].as_array().unwrap().len() == 1
    });
    let curl = follow(&web, "", None);
    fed.feed.write(&records(&exchange(2).packets));
    let flow = wait_event(&curl, "flow", |flow| flow["client"]["port"] == 2);
    schema::check("flows", &flow.data);
    let line = wait_event(&curl, "http", |line| line["target"] == "/2");
    schema::check("http", &line.data);
    let counters = wait_event(&curl, "counters", |capture| {
        capture["status"]["packets"]["stored"].as_u64() > Some(10)
    });
    schema::check("status", &counters.data["status"]);
    let old = events(&curl).into_iter().find(|event| event.data["target"] == "/1");
    assert!(old.is_none(), "events begin now");
    // After an interruption, the stream goes on after the last event.
    drop(curl);
    fed.feed.write(&records(&exchange(3).packets));
    let curl = follow(&web, "?what=http,counters", Some(&line.id));
    wait_event(&curl, "http", |line| line["target"] == "/3");
    let kinds: Vec<String> = events(&curl).into_iter().map(|event| event.kind).collect();
    assert!(
        !kinds.contains(&"flow".to_owned()) && !kinds.contains(&"lost".to_owned()),
        "{kinds:?}"
    );
    let again = events(&curl).into_iter().find(|event| event.data["target"] == "/2");
    assert!(again.is_none(), "each once");
    // The numbers are the daemon's: another server knows them too.
    let other = Web::start(&fed.daemon, &[]);
    let curl = follow(&other, "", Some(&line.id));
    wait_event(&curl, "http", |line| line["target"] == "/3");
    web.get("api/v1/captures/web/events?what=dns").is_error(400, &["what=dns", "flows, http"]);
    web.get("api/v1/captures/lan/events").is_error(404, &["lan"]);
}

#[test]
fn lines_that_were_dropped_are_counted() {
    skip_unless!(mount, "curl");
    let mut fed = Fed::with(Mount::new().args(["--flow-memory", "1M"]));
    fed.feed.write(&records(&exchange(1).packets));
    let web = Web::start(&fed.daemon, &[]);
    wait_until("the first exchange is there", 10, || {
        web.json("api/v1/captures/web/http")["http"].as_array().unwrap().len() == 1
    });
    let curl = follow(&web, "?what=http,counters", None);
    let id = events(&curl).pop().unwrap().id;
    drop(curl);
    let dropped = || {
        fed.daemon.status(ALIAS)["flows"]["log_lines_dropped_by"]["http.jsonl"].as_u64().unwrap()
    };
    let mut sent = 1_u64;
    while dropped() < 100 {
        let mut packets = Vec::new();
        for _ in 0..500 {
            sent += 1;
            let port = u16::try_from(sent % 60_000 + 2).unwrap();
            packets.extend(records(&exchange(port).packets));
        }
        fed.feed.write(&packets);
        wait_until("they are looked at", 30, || {
            fed.daemon.status(ALIAS)["flows"]["engine_lag_packets"] == 0
        });
    }
    let curl = follow(&web, "?what=http,counters", Some(&id));
    let lost = wait_event(&curl, "lost", |_| true);
    assert_eq!(lost.data["what"], "http");
    // More may leave the log while the first ones are on their way.
    curl.wait_stdout("every line came or is counted", 60, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let counts = text.split("\"what\":\"http\",\"lines\":").skip(1);
        let counts = counts.filter_map(|rest| rest.split('}').next()?.parse::<u64>().ok());
        text.matches("event: http\n").count() as u64 + counts.sum::<u64>() + 1 == sent
    });
}

#[test]
fn the_daemon_may_go_and_come_back() {
    skip_unless!(mount, "curl");
    let folder = tempfile::tempdir().unwrap();
    let (socket, mountpoint) = (folder.path().join("control.sock"), folder.path().join("tree"));
    fs::create_dir(&mountpoint).unwrap();
    let fifo = Fifo::new();
    let mount = || {
        let mount = Mount::new().socket(&socket).mountpoint(&mountpoint);
        mount.capture(ALIAS, &fifo.source()).start()
    };
    let daemon = mount();
    let mut feed = fifo.connect();
    daemon.wait_state(ALIAS, "running");
    let web = Web::start(&daemon, &[]);
    feed.write(&records(&exchange(1).packets));
    let curl = follow(&web, "", None);
    let all = web.follow(&[], "api/v1/events");
    wait_event(&all, "counters", |capture| capture["name"] == ALIAS);
    daemon.crash();
    let down = wait_event(&curl, "daemon", |daemon| daemon["state"] == "down");
    assert!(down.data["error"].is_string(), "{down:?}");
    wait_event(&all, "daemon", |daemon| daemon["state"] == "down");
    web.get("api/v1/captures").is_error(503, &[]);
    web.get("api/v1/captures/web/events").is_error(503, &[]);
    drop(feed);
    let daemon = mount();
    let mut feed = fifo.connect();
    daemon.wait_state(ALIAS, "running");
    wait_event(&curl, "daemon", |daemon| daemon["restarted"] == true);
    feed.write(&records(&exchange(7).packets));
    wait_event(&curl, "http", |line| line["target"] == "/7");
    wait_event(&all, "daemon", |daemon| daemon["state"] == "up");
    // An id of the daemon before begins with the first line of this one.
    let curl = follow(&web, "", Some(&down.id));
    wait_event(&curl, "daemon", |daemon| daemon["restarted"] == true);
    wait_event(&curl, "http", |line| line["target"] == "/7");
    drop(daemon);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    skip_unless!(mount, "curl");
    let mut fed = Fed::start();
    let web = Web::start(&fed.daemon, &[]);
    let mut slow = std::net::TcpStream::connect(web.place()).unwrap();
    let request =
        format!("GET /api/v1/captures/web/events HTTP/1.1\r\nHost: {}\r\n\r\n", web.place());
    std::io::Write::write_all(&mut slow, request.as_bytes()).unwrap();
    let quick = follow(&web, "?what=http,counters", None);
    for port in 1..3000 {
        fed.feed.write(&records(&exchange(port).packets));
    }
    // Lines are in the order in which the exchanges ended.
    quick.wait_stdout("the last line", 60, |bytes| {
        let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4096)..]).into_owned();
        end.contains("\"target\":\"/2999\"")
    });
    web.end();
}
