//! Conversations and the transactions expected in them.

use std::fs;

use pcapfs_tests::flows::{json, listed};
use pcapfs_tests::{Client, Conversation, Filed, Server, Side};
use serde_json::{Value, json};

use crate::har::har_is_valid;

/// A conversation and the transactions expected in it.
pub(crate) struct Case {
    name: &'static str,
    pub(crate) talk: Conversation,
    pub(crate) wanted: Vec<Wanted>,
}

/// An expected transaction. Its bodies are decoded.
#[derive(Debug)]
pub(crate) struct Wanted {
    method: Option<&'static str>,
    pub(crate) status: Option<u16>,
    state: &'static str,
    /// True if `why` is set although the transaction is complete.
    is_marked: bool,
    framing: [&'static str; 2],
    pub(crate) encoding: [Option<&'static str>; 2],
    bodies: [Vec<u8>; 2],
}

impl Wanted {
    pub(crate) fn new(method: &'static str, status: u16) -> Self {
        Self {
            method: Some(method),
            status: Some(status),
            state: "complete",
            is_marked: false,
            framing: ["none"; 2],
            encoding: [None; 2],
            bodies: [Vec::new(), Vec::new()],
        }
    }

    pub(crate) fn state(mut self, state: &'static str) -> Self {
        self.state = state;
        self
    }

    pub(crate) fn marked(mut self) -> Self {
        self.is_marked = true;
        self
    }

    /// Expects a response body.
    pub(crate) fn gives(mut self, framing: &'static str, body: impl AsRef<[u8]>) -> Self {
        self.framing[1] = framing;
        self.bodies[1] = body.as_ref().to_vec();
        self
    }

    /// Expects a request body.
    pub(crate) fn takes(mut self, framing: &'static str, body: impl AsRef<[u8]>) -> Self {
        self.framing[0] = framing;
        self.bodies[0] = body.as_ref().to_vec();
        self
    }

    pub(crate) fn encoded(mut self, encoding: &'static str) -> Self {
        self.encoding[1] = Some(encoding);
        self
    }
}

impl Case {
    /// A case with an open connection.
    pub(crate) fn new(name: &'static str) -> Self {
        let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:7777");
        talk.open();
        Self { name, talk, wanted: Vec::new() }
    }

    pub(crate) fn says(mut self, side: Side, bytes: impl AsRef<[u8]>) -> Self {
        self.talk.says(side, bytes);
        self
    }

    pub(crate) fn request(self, head: &str) -> Self {
        self.says(Client, format!("{}\r\n\r\n", head.trim_end().replace('\n', "\r\n")))
    }

    pub(crate) fn response(self, head: &str, body: impl AsRef<[u8]>) -> Self {
        let head = format!("{}\r\n\r\n", head.trim_end().replace('\n', "\r\n"));
        self.says(Server, [head.as_bytes(), body.as_ref()].concat())
    }

    /// A response with these headers and a Content-Length for `body`.
    pub(crate) fn ok(self, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let length = body.as_ref().len();
        self.response(&format!("HTTP/1.1 200 OK\nContent-Length: {length}\n{headers}"), body)
    }

    pub(crate) fn close(mut self, by: Side) -> Self {
        self.talk.close(by);
        self
    }

    pub(crate) fn reset(mut self, by: Side) -> Self {
        self.talk.reset(by);
        self
    }

    pub(crate) fn wants(mut self, wanted: Wanted) -> Self {
        self.wanted.push(wanted);
        self
    }

    /// The same conversation, cut into segments of at most `most` bytes.
    fn cut(&self, most: usize) -> Conversation {
        let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:7777").segments_of(most);
        talk.open();
        for packet in &self.talk.packets[3..] {
            let segment = &packet.data[14 + 20..];
            let (flags, payload) = (segment[13], &segment[20..]);
            match payload {
                [] if flags & 1 != 0 => talk.fin(packet.from),
                [] if flags & 4 != 0 => talk.reset(packet.from),
                [] => talk.ack(packet.from),
                _ => talk.says(packet.from, payload),
            };
        }
        talk
    }

    #[track_caller]
    pub(crate) fn check(&self, filed: &Filed, id: u64) {
        let name = self.name;
        let transactions = filed.http(id);
        assert_eq!(transactions.len(), self.wanted.len(), "{name}: {transactions:#?}");
        for ((index, got), wanted) in (1..).zip(&transactions).zip(&self.wanted) {
            is_record(got);
            assert_eq!((&got["flow"], &got["index"]), (&json!(id), &json!(index)), "{name}");
            assert_eq!(got["method"], json!(wanted.method), "{name}: {got:#}");
            assert_eq!(got["status"], json!(wanted.status), "{name}: {got:#}");
            assert_eq!(got["state"], wanted.state, "{name}: {got:#}");
            let is_plain = wanted.state == "complete" && !wanted.is_marked;
            assert_eq!(got["why"].is_null(), is_plain, "{name}: {got:#}");
            for (at, side) in ["request_body", "response_body"].into_iter().enumerate() {
                let (body, bytes) = (&got[side], &wanted.bodies[at]);
                assert_eq!(body["framing"], wanted.framing[at], "{name}, {side}: {got:#}");
                assert_eq!(body["encoding"], json!(wanted.encoding[at]), "{name}, {side}: {got:#}");
                assert_eq!(body["bytes"], bytes.len(), "{name}, {side}: {got:#}");
                assert_eq!(body["file"].is_null(), body["wire_bytes"] == 0, "{name}: {got:#}");
                let Some(file) = body["file"].as_str() else {
                    assert!(bytes.is_empty(), "{name}: no file for {side}: {got:#}");
                    continue;
                };
                let path = filed.file(id, file);
                assert_eq!(
                    fs::metadata(&path).unwrap().len(),
                    bytes.len() as u64,
                    "{name}, {file}"
                );
                assert!(fs::read(&path).unwrap() == *bytes, "{name}, {file}");
            }
        }
        let meta = filed.meta(id);
        let incomplete = self.wanted.iter().filter(|one| one.state != "complete").count();
        let http = json!({"transactions": self.wanted.len(), "incomplete": incomplete, "open": 0});
        assert_eq!((&meta["application"], &meta["http"]), (&json!("http"), &http), "{name}");
        let files = self.wanted.iter().flat_map(|one| &one.bodies).filter(|body| !body.is_empty());
        assert_eq!(listed(&filed.file(id, "bodies")).len(), files.count(), "{name}");
    }
}

/// Checks each case as it is, and again in segments of 7 bytes and of one byte.
#[track_caller]
pub(crate) fn check(cases: &[Case]) {
    for case in cases {
        for talk in [case.talk.clone(), case.cut(7), case.cut(1)] {
            let filed = Filed::of([talk]);
            case.check(&filed, 1);
            har_is_valid(&json(&filed.file(1, "http.har")), case.wanted.len());
        }
    }
}

/// Checks that a record has exactly the fields of the contract.
#[track_caller]
pub(crate) fn is_record(record: &Value) {
    let keys = |value: &Value| {
        let mut keys: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort();
        keys
    };
    let mut fields = vec![
        "capture",
        "client",
        "server",
        "duration_us",
        "flow",
        "index",
        "method",
        "target",
        "host",
        "version",
        "status",
        "reason",
        "request_headers",
        "response_headers",
        "request_body",
        "response_body",
        "times",
        "state",
        "why",
    ];
    fields.sort_unstable();
    assert_eq!(keys(record), fields, "{record:#}");
    for end in ["client", "server"] {
        assert_eq!(keys(&record[end]), ["address", "port"]);
    }
    for body in ["request_body", "response_body"] {
        assert_eq!(keys(&record[body]), ["bytes", "encoding", "file", "framing", "wire_bytes"]);
    }
    assert_eq!(
        keys(&record["times"]),
        ["request_first", "request_last", "response_first", "response_last"]
    );
    let states = ["complete", "truncated", "gap", "aborted", "malformed"];
    assert!(states.iter().any(|state| record["state"] == *state), "{record:#}");
    for headers in ["request_headers", "response_headers"] {
        for pair in record[headers].as_array().expect("a list") {
            let pair = pair.as_array().expect("a pair");
            assert!(pair.len() == 2 && pair.iter().all(Value::is_string), "{record:#}");
        }
    }
}

/// A text of 2,000 bytes.
pub(crate) fn text() -> Vec<u8> {
    b"All work and no play makes Jack a dull boy.\n".iter().copied().cycle().take(2_000).collect()
}
