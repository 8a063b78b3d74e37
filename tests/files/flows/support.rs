//! Conversations and expected contents of flows, shared by the tests of flows.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pcapfs_tests::conversation::{EPOCH, Packet, SECOND, noise, records};
use pcapfs_tests::flows::lines;
use pcapfs_tests::schema;
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Fed, Filed, Server, run, tool, wait_until,
};
use serde_json::Value;

/// A conversation from port 40,000 to port 9,000. Each `number` gives other hosts.
pub(crate) fn talk(number: u8) -> Conversation {
    Conversation::tcp(&format!("10.1.0.{number}:40000"), &format!("10.2.0.{number}:9000"))
}

/// A request, and a response with a body.
pub(crate) fn exchange(talk: &mut Conversation, target: &str, body: &[u8]) {
    let length = body.len();
    talk.says(Client, format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    talk.says(Server, [head.as_bytes(), body].concat());
}

/// Feeds packets into the capture and waits until the engine has processed them.
#[track_caller]
pub(crate) fn feed(fed: &mut Fed, packets: &[Packet]) {
    let stored = fed.daemon.count(ALIAS, "/packets/stored");
    fed.feed.write(&records(packets));
    fed.daemon.wait_stored(ALIAS, stored + packets.len() as u64);
    wait_settled(&fed.daemon);
}

#[track_caller]
pub(crate) fn wait_settled(daemon: &Daemon) {
    wait_until("the flow engine has had all packets", 20, || {
        daemon.count(ALIAS, "/flows/engine_lag_packets") == 0
    });
}

pub(crate) fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).size()
}

/// Time of the last modification, in nanoseconds since the Unix epoch.
pub(crate) fn modified(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    u64::try_from(metadata.mtime()).unwrap() * SECOND
        + u64::try_from(metadata.mtime_nsec()).unwrap()
}

/// A time of RFC 3339 with nanoseconds, formatted by date(1).
pub(crate) fn rfc3339(nanoseconds: u64) -> String {
    let time = format!("@{}.{:09}", nanoseconds / SECOND, nanoseconds % SECOND);
    let output = run(tool("date").args(["-u", "-d", &time, "+%Y-%m-%dT%H:%M:%S.%NZ"]), 5);
    output.success().text().trim().to_owned()
}

/// One conversation of each kind: closed with HTTP, reset, IPv6, UDP, with a hole.
pub(crate) fn sundry() -> Vec<Conversation> {
    let mut http = talk(1);
    http.open();
    exchange(&mut http, "/first.txt", b"one\n");
    exchange(&mut http, "/second.bin", &noise(1, 70_000));
    http.close(Server);
    let mut reset = talk(2).at(EPOCH + 333);
    reset.open().says(Client, noise(2, 20_000)).says(Server, noise(3, 5)).reset(Server);
    let mut six = Conversation::tcp("[fd00::1]:40000", "[fd00::2]:9000").at(EPOCH + 555);
    six.open().says(Server, noise(4, 9_999)).close(Client);
    let mut udp = Conversation::udp("10.1.0.1:5353", "10.2.0.1:53").at(EPOCH + 777);
    udp.says(Client, b"question").says(Server, b"answer").says(Client, b"another");
    vec![http, reset, six, udp, holed(5).at_the_end()]
}

/// A conversation in which `server.bin` has a hole from 3,000 to 8,000.
pub(crate) struct Holed(Conversation);

pub(crate) fn holed(number: u8) -> Holed {
    let mut talk = talk(number).at(EPOCH + 999);
    talk.open().says(Server, noise(7, 3_000)).unseen(Server, noise(8, 5_000)).ack(Client);
    for part in noise(9, 60_000).chunks(1_000) {
        talk.says(Server, part).ack(Client);
    }
    Holed(talk)
}

impl Holed {
    pub(crate) fn at_the_end(mut self) -> Conversation {
        self.0.close(Server);
        self.0
    }

    /// The expected content of `server.bin`, with zeros in the hole.
    pub(crate) fn served(&self) -> Vec<u8> {
        let mut bytes = self.0.stream(Server).to_vec();
        bytes[3_000..8_000].fill(0);
        bytes
    }
}

/// A later conversation between the same endpoints.
pub(crate) fn talk_again(before: &Conversation) -> Conversation {
    talk(1).at(before.times().1 + SECOND).numbered_from(77, 88)
}

/// True if a value has one of the types in `kinds`: `int`, `text`, `null`, `time`, ... joined by
/// `|`.
fn is_of(value: &Value, kinds: &str) -> bool {
    kinds.split('|').any(|kind| match kind {
        "int" => value.is_u64(),
        "text" => value.is_string(),
        "null" => value.is_null(),
        "list" => value.is_array(),
        "object" => value.is_object(),
        "time" => value.as_str().is_some_and(|text| {
            text.len() == "2023-11-14T22:13:20.000000000Z".len() && text.ends_with('Z')
        }),
        word => value == word,
    })
}

#[track_caller]
fn has_fields(value: &Value, fields: &[(&str, &str)]) {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for (name, kinds) in fields {
        let field = object.get(*name).unwrap_or_else(|| panic!("no {name} in {value:#}"));
        assert!(is_of(field, kinds), "{name} is no {kinds} but {field}");
    }
    let known = |name: &str| fields.iter().any(|(field, _)| *field == name);
    let extra: Vec<_> = object.keys().filter(|name| !known(name)).collect();
    assert!(extra.is_empty(), "{extra:?} is not documented");
}

#[track_caller]
pub(crate) fn is_meta(meta: &Value) {
    schema::check("meta", meta);
    // The schema says what the fields of protocols are.
    let mut fields = meta.as_object().unwrap().clone();
    schema::of_protocols().iter().filter(|name| *name != "http").for_each(|name| {
        fields.remove(name);
    });
    has_fields(
        &fields.into(),
        &[
            ("flow", "int"),
            ("id", "int"),
            ("event", "opened|ended"),
            ("capture", "text"),
            ("name", "text"),
            ("protocol", "tcp|udp"),
            ("application", "text|null"),
            ("state", "opening|open|closing|closed|reset|timed_out|evicted|midstream"),
            ("closed_by", "client|server|null"),
            ("client", "object"),
            ("server", "object"),
            ("vlan", "list"),
            ("tunnel", "object|null"),
            ("first", "time"),
            ("last", "time"),
            ("duration_us", "int"),
            ("handshake_us", "int|null"),
            ("tls", "object|null"),
            ("http", "object|null"),
        ],
    );
    assert_eq!((&meta["flow"], &meta["capture"]), (&meta["id"], &ALIAS.into()));
    let has_ended =
        matches!(meta["state"].as_str(), Some("closed" | "reset" | "timed_out" | "evicted"));
    assert!(!has_ended || meta["event"] == "ended", "{meta:#}");
    for side in ["client", "server"] {
        has_fields(
            &meta[side],
            &[
                ("address", "text"),
                ("port", "int"),
                ("packets", "int"),
                ("bytes", "int"),
                ("stream_bytes", "int"),
                ("captured_bytes", "int"),
                ("repeated_bytes", "int"),
                ("late_bytes", "int"),
                ("rejected_bytes", "int"),
                ("urgent_bytes", "int"),
                ("retransmitted", "int"),
                ("out_of_order", "int"),
                ("overlapping", "int"),
                ("gaps", "list"),
            ],
        );
        for gap in meta[side]["gaps"].as_array().unwrap() {
            assert!(gap[0].is_u64() && gap[1].as_u64() > gap[0].as_u64(), "{gap}");
            assert!(is_of(&gap[2], "missing|expired"), "{gap}");
        }
    }
    if !meta["tls"].is_null() {
        let fields = [
            ("sni", "text|null"),
            ("alpn_offered", "list|null"),
            ("alpn", "text|null"),
            ("version", "text|null"),
        ];
        has_fields(&meta["tls"], &fields);
    }
    if !meta["http"].is_null() {
        let fields = [("transactions", "int"), ("incomplete", "int"), ("open", "int")];
        has_fields(&meta["http"], &fields);
    }
}

#[track_caller]
pub(crate) fn one(talk: &Conversation) -> Value {
    let filed = Filed::of([talk.clone()]);
    let meta = filed.meta(1);
    is_meta(&meta);
    assert_eq!(meta["name"], talk.name(1));
    assert_eq!(meta["id"], 1);
    for (side, role) in [(Client, "client"), (Server, "server")] {
        assert_eq!(meta[role]["packets"], talk.count(side), "{role} in {meta:#}");
        assert_eq!(meta[role]["bytes"], talk.bytes(side), "{role} in {meta:#}");
    }
    let log = lines(&filed.daemon.path("web/flows.jsonl"));
    assert_eq!(log.len(), 2, "{log:#?}");
    is_meta(&log[0]);
    assert_eq!((&log[0]["event"], &log[0]["duration_us"]), (&"opened".into(), &0.into()));
    assert_eq!(meta["event"], "ended");
    let (first, last) = talk.times();
    assert_eq!(meta["duration_us"], (last - first) / 1_000);
    assert_eq!(log[1], meta, "the line of the end is meta.json");
    meta
}
