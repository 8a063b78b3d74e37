//! HTTP in flows: transactions, bodies, transcripts and `http.har`, over every framing and coding.

use std::fs;

use pcapfs_tests::coding::{brotli, chunked, deflate, gzip, raw_deflate, zstd};
use pcapfs_tests::conversation::{EPOCH, noise, savefile_of};
use pcapfs_tests::flows::{everything, flow, json, lines, listed, names, parsed};
use pcapfs_tests::{Client, Conversation, Filed, Server, Side, run, skip_unless, tool};
use serde_json::{Value, json};

/// A conversation and what is to be found in it.
struct Case {
    name: &'static str,
    talk: Conversation,
    wanted: Vec<Wanted>,
}

/// A transaction as it is to be; bodies are decoded.
#[derive(Debug)]
struct Wanted {
    method: Option<&'static str>,
    status: Option<u16>,
    state: &'static str,
    framing: [&'static str; 2],
    encoding: [Option<&'static str>; 2],
    bodies: [Vec<u8>; 2],
}

impl Wanted {
    fn new(method: &'static str, status: u16) -> Self {
        Self {
            method: Some(method),
            status: Some(status),
            state: "complete",
            framing: ["none"; 2],
            encoding: [None; 2],
            bodies: [Vec::new(), Vec::new()],
        }
    }

    fn state(mut self, state: &'static str) -> Self {
        self.state = state;
        self
    }

    /// A body of the response.
    fn gives(mut self, framing: &'static str, body: impl AsRef<[u8]>) -> Self {
        self.framing[1] = framing;
        self.bodies[1] = body.as_ref().to_vec();
        self
    }

    /// A body of the request.
    fn takes(mut self, framing: &'static str, body: impl AsRef<[u8]>) -> Self {
        self.framing[0] = framing;
        self.bodies[0] = body.as_ref().to_vec();
        self
    }

    fn encoded(mut self, encoding: &'static str) -> Self {
        self.encoding[1] = Some(encoding);
        self
    }
}

impl Case {
    /// An open connection.
    fn new(name: &'static str) -> Self {
        let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:7777");
        talk.open();
        Self { name, talk, wanted: Vec::new() }
    }

    fn says(mut self, side: Side, bytes: impl AsRef<[u8]>) -> Self {
        self.talk.says(side, bytes);
        self
    }

    fn request(self, head: &str) -> Self {
        self.says(Client, format!("{}\r\n\r\n", head.trim_end().replace('\n', "\r\n")))
    }

    fn response(self, head: &str, body: impl AsRef<[u8]>) -> Self {
        let head = format!("{}\r\n\r\n", head.trim_end().replace('\n', "\r\n"));
        self.says(Server, [head.as_bytes(), body.as_ref()].concat())
    }

    /// A response of that length, with these headers.
    fn ok(self, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let length = body.as_ref().len();
        self.response(&format!("HTTP/1.1 200 OK\nContent-Length: {length}\n{headers}"), body)
    }

    fn close(mut self, by: Side) -> Self {
        self.talk.close(by);
        self
    }

    fn reset(mut self, by: Side) -> Self {
        self.talk.reset(by);
        self
    }

    fn wants(mut self, wanted: Wanted) -> Self {
        self.wanted.push(wanted);
        self
    }

    /// The same talk, cut into segments elsewhere.
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
    fn check(&self, filed: &Filed, id: u64) {
        let name = self.name;
        let transactions = filed.http(id);
        assert_eq!(transactions.len(), self.wanted.len(), "{name}: {transactions:#?}");
        for ((index, got), wanted) in (1..).zip(&transactions).zip(&self.wanted) {
            is_record(got);
            assert_eq!((&got["flow"], &got["index"]), (&json!(id), &json!(index)), "{name}");
            assert_eq!(got["method"], json!(wanted.method), "{name}: {got:#}");
            assert_eq!(got["status"], json!(wanted.status), "{name}: {got:#}");
            assert_eq!(got["state"], wanted.state, "{name}: {got:#}");
            assert_eq!(got["why"].is_null(), wanted.state == "complete", "{name}: {got:#}");
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
        let http = json!({"transactions": self.wanted.len(), "incomplete": incomplete});
        assert_eq!((&meta["application"], &meta["http"]), (&json!("http"), &http), "{name}");
        let files = self.wanted.iter().flat_map(|one| &one.bodies).filter(|body| !body.is_empty());
        assert_eq!(listed(&filed.file(id, "bodies")).len(), files.count(), "{name}");
    }
}

/// Checks every case by itself, and again cut into segments of 7 bytes and of one byte.
#[track_caller]
fn check(cases: &[Case]) {
    for case in cases {
        for talk in [case.talk.clone(), case.cut(7), case.cut(1)] {
            let filed = Filed::of([talk]);
            case.check(&filed, 1);
            har_is_valid(&json(&filed.file(1, "http.har")), case.wanted.len());
        }
    }
}

/// Whether a record has the fields of the contract, and only these.
#[track_caller]
fn is_record(record: &Value) {
    let keys = |value: &Value| {
        let mut keys: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort();
        keys
    };
    let mut fields = vec![
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

// ---- The published format of HAR 1.2, as far as it is about structure.

#[track_caller]
fn field<'v>(value: &'v Value, name: &str, is: fn(&Value) -> bool) -> &'v Value {
    let found = value.get(name).unwrap_or_else(|| panic!("no {name} in {value:#}"));
    assert!(is(found), "{name} is {found}");
    found
}

#[track_caller]
fn optional(value: &Value, name: &str, is: fn(&Value) -> bool) {
    if let Some(found) = value.get(name) {
        assert!(is(found), "{name} is {found}");
    }
}

#[track_caller]
fn known(value: &Value, names: &[&str]) {
    for name in value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys() {
        assert!(
            name.starts_with('_') || names.contains(&name.as_str()),
            "{name} is not of HAR 1.2"
        );
    }
}

#[track_caller]
fn items<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    field(value, name, Value::is_array).as_array().expect("a list")
}

fn is_size(value: &Value) -> bool {
    value.as_i64().is_some_and(|size| size >= -1)
}

fn is_iso_8601(value: &Value) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd";
    let Some(text) = value.as_str() else { return false };
    let fits = |(got, wanted): (char, char)| match wanted {
        'd' => got.is_ascii_digit(),
        wanted => got == wanted,
    };
    text.len() > pattern.len() && text.chars().zip(pattern.chars()).all(fits) && text.ends_with('Z')
}

/// Checks a whole `http.har` against HAR 1.2.
#[track_caller]
fn har_is_valid(har: &Value, entries: usize) {
    known(har, &["log"]);
    let log = field(har, "log", Value::is_object);
    known(log, &["version", "creator", "browser", "pages", "entries", "comment"]);
    assert_eq!(log["version"], "1.2");
    let creator = field(log, "creator", Value::is_object);
    for name in ["name", "version"] {
        let _ = field(creator, name, Value::is_string);
    }
    let all = items(log, "entries");
    assert_eq!(all.len(), entries, "{har:#}");
    all.iter().for_each(har_entry);
}

#[track_caller]
fn har_entry(entry: &Value) {
    known(
        entry,
        &[
            "pageref",
            "startedDateTime",
            "time",
            "request",
            "response",
            "cache",
            "timings",
            "serverIPAddress",
            "connection",
            "comment",
        ],
    );
    let _ = field(entry, "startedDateTime", is_iso_8601);
    let time = field(entry, "time", Value::is_number).as_f64().unwrap();
    let _ = field(entry, "cache", Value::is_object);
    for name in ["serverIPAddress", "connection", "comment", "pageref"] {
        optional(entry, name, Value::is_string);
    }
    let timings = field(entry, "timings", Value::is_object);
    known(timings, &["blocked", "dns", "connect", "send", "wait", "receive", "ssl", "comment"]);
    // These three must not be negative; the others are -1 if they do not apply.
    let sum: f64 = ["send", "wait", "receive"]
        .map(|name| field(timings, name, |value| value.as_f64().is_some_and(|time| time >= 0.0)))
        .iter()
        .filter_map(|value| value.as_f64())
        .sum();
    let others: f64 = ["blocked", "dns", "connect"]
        .iter()
        .filter_map(|name| timings.get(name)?.as_f64())
        .filter(|time| *time >= 0.0)
        .sum();
    assert!((time - sum - others).abs() < 1e-6, "time is not the sum of timings: {entry:#}");

    let request = field(entry, "request", Value::is_object);
    known(
        request,
        &[
            "method",
            "url",
            "httpVersion",
            "cookies",
            "headers",
            "queryString",
            "postData",
            "headersSize",
            "bodySize",
            "comment",
        ],
    );
    for name in ["method", "url", "httpVersion"] {
        let _ = field(request, name, Value::is_string);
    }
    har_message(request);
    har_pairs(items(request, "queryString"));
    if let Some(post) = request.get("postData") {
        known(post, &["mimeType", "params", "text", "comment"]);
        let _ = field(post, "mimeType", Value::is_string);
        let _ = field(post, "text", Value::is_string);
        let _ = items(post, "params");
    }

    let response = field(entry, "response", Value::is_object);
    known(
        response,
        &[
            "status",
            "statusText",
            "httpVersion",
            "cookies",
            "headers",
            "content",
            "redirectURL",
            "headersSize",
            "bodySize",
            "comment",
        ],
    );
    let _ = field(response, "status", Value::is_u64);
    for name in ["statusText", "httpVersion", "redirectURL"] {
        let _ = field(response, name, Value::is_string);
    }
    har_message(response);
    let content = field(response, "content", Value::is_object);
    known(content, &["size", "compression", "mimeType", "text", "encoding", "comment"]);
    let _ = field(content, "size", is_size);
    let _ = field(content, "mimeType", Value::is_string);
    optional(content, "compression", Value::is_i64);
    for name in ["text", "encoding", "comment"] {
        optional(content, name, Value::is_string);
    }
}

#[track_caller]
fn har_message(message: &Value) {
    for name in ["headersSize", "bodySize"] {
        let _ = field(message, name, is_size);
    }
    har_pairs(items(message, "headers"));
    for cookie in items(message, "cookies") {
        let names = ["name", "value", "path", "domain", "expires", "httpOnly", "secure", "comment"];
        known(cookie, &names);
        for name in ["name", "value"] {
            let _ = field(cookie, name, Value::is_string);
        }
        optional(cookie, "expires", is_iso_8601);
        optional(cookie, "httpOnly", Value::is_boolean);
        optional(cookie, "secure", Value::is_boolean);
    }
}

#[track_caller]
fn har_pairs(pairs: &[Value]) {
    for pair in pairs {
        known(pair, &["name", "value", "comment"]);
        for name in ["name", "value"] {
            let _ = field(pair, name, Value::is_string);
        }
    }
}

// ---- Framing.

/// Text of 2,000 bytes.
fn text() -> Vec<u8> {
    b"All work and no play makes Jack a dull boy.\n".iter().copied().cycle().take(2_000).collect()
}

fn framings() -> Vec<Case> {
    let text = text();
    let get = "GET /page HTTP/1.1\nHost: a.example";
    vec![
        Case::new("Content-Length")
            .request(get)
            .ok("", &text)
            .wants(Wanted::new("GET", 200).gives("length", &text))
            .close(Client),
        Case::new("a body in each direction")
            .request("POST /form HTTP/1.1\nHost: a.example\nContent-Length: 5")
            .says(Client, "a=b&c")
            .ok("", &text)
            .wants(Wanted::new("POST", 200).takes("length", "a=b&c").gives("length", &text))
            .close(Client),
        Case::new("chunked, with extensions and trailers")
            .request(get)
            .response(
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: X-Sum",
                chunked(&text, 300, ";name=\"va;lue\"", "X-Sum: 42\r\nX-More: 1\r\n"),
            )
            .wants(Wanted::new("GET", 200).gives("chunked", &text))
            .request(get)
            .ok("", "after")
            .wants(Wanted::new("GET", 200).gives("length", "after"))
            .close(Client),
        Case::new("chunked request")
            .request("PUT /up HTTP/1.1\nHost: a.example\nTransfer-Encoding: Chunked")
            .says(Client, chunked(&text, 77, "", ""))
            .response("HTTP/1.1 201 Created\nContent-Length: 0", "")
            .wants(Wanted::new("PUT", 201).takes("chunked", &text).gives("length", ""))
            .close(Client),
        Case::new("until the end of the stream")
            .request(get)
            .response("HTTP/1.0 200 OK\nContent-Type: text/plain", &text)
            .wants(Wanted::new("GET", 200).gives("close", &text))
            .close(Server),
        Case::new("HEAD, 204 and 304 have no body, whatever they say")
            .request("HEAD /page HTTP/1.1\nHost: a.example")
            .response("HTTP/1.1 200 OK\nContent-Length: 5000", "")
            .wants(Wanted::new("HEAD", 200))
            .request("DELETE /page HTTP/1.1\nHost: a.example")
            .response("HTTP/1.1 204 No Content", "")
            .wants(Wanted::new("DELETE", 204))
            .request(get)
            .response("HTTP/1.1 304 Not Modified\nContent-Length: 2000", "")
            .wants(Wanted::new("GET", 304))
            .request("HEAD /page HTTP/1.1\nHost: a.example")
            .response("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", "")
            .wants(Wanted::new("HEAD", 200))
            .request(get)
            .ok("", "x")
            .wants(Wanted::new("GET", 200).gives("length", "x"))
            .close(Client),
        Case::new("1xx before the response")
            .request("POST / HTTP/1.1\nHost: a.example\nExpect: 100-continue\nContent-Length: 4")
            .response("HTTP/1.1 100 Continue", "")
            .says(Client, "data")
            .response("HTTP/1.1 103 Early Hints\nLink: </s.css>", "")
            .ok("", "done")
            .wants(Wanted::new("POST", 200).takes("length", "data").gives("length", "done"))
            .close(Client),
        Case::new("pipelining")
            .request(
                "GET /1 HTTP/1.1\nHost: a.example\n\nGET /2 HTTP/1.1\nHost: a.example\n\n\
                HEAD /3 HTTP/1.1\nHost: a.example\n\nGET /4 HTTP/1.1\nHost: a.example",
            )
            .ok("", "one")
            .response("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", chunked(b"two", 1, "", ""))
            .response("HTTP/1.1 200 OK\nContent-Length: 9", "")
            .ok("", "four")
            .wants(Wanted::new("GET", 200).gives("length", "one"))
            .wants(Wanted::new("GET", 200).gives("chunked", "two"))
            .wants(Wanted::new("HEAD", 200))
            .wants(Wanted::new("GET", 200).gives("length", "four"))
            .close(Client),
        Case::new("lines folded, blanks, bare line feeds and lower case")
            .says(Client, "GET /f HTTP/1.1\nhost:a.example\nX-Long: one\n two\n\tthree\n\n")
            .says(Server, "HTTP/1.1 200\ncontent-length :  4 \nX-Fold: a\n b\n\nbody")
            .wants(Wanted::new("GET", 200).gives("length", "body"))
            .close(Client),
        Case::new("Content-Length twice, the same")
            .request(get)
            .response("HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 3", "abc")
            .wants(Wanted::new("GET", 200).gives("length", "abc"))
            .close(Client),
    ]
}

#[test]
fn every_framing() {
    skip_unless!(mount);
    check(&framings());
}

#[test]
fn folded_lines_are_one_value() {
    skip_unless!(mount);
    let case = framings().remove(8);
    let filed = Filed::of([case.talk]);
    let record = filed.http(1).remove(0);
    assert_eq!(record["host"], "a.example");
    let value = |headers: &str, wanted: &str| {
        let headers = record[headers].as_array().unwrap().clone();
        let found = headers.into_iter().find(|pair| pair[0].as_str().unwrap().trim() == wanted);
        found.unwrap_or_else(|| panic!("no {wanted} in {record:#}"))[1].clone()
    };
    assert_eq!(value("request_headers", "X-Long"), "one two three");
    assert_eq!(value("response_headers", "X-Fold"), "a b");
}

#[test]
fn what_follows_an_upgrade_is_not_http() {
    skip_unless!(mount);
    let opaque = "GET /inside HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    check(&[
        Case::new("CONNECT")
            .request("CONNECT b.example:443 HTTP/1.1\nHost: b.example:443")
            .response("HTTP/1.1 200 Connection established", "")
            .says(Client, opaque)
            .says(Server, answer)
            .wants(Wanted::new("CONNECT", 200))
            .close(Client),
        Case::new("a CONNECT that is refused")
            .request("CONNECT b.example:443 HTTP/1.1\nHost: b.example")
            .response("HTTP/1.1 403 Forbidden\nContent-Length: 2", "no")
            .wants(Wanted::new("CONNECT", 403).gives("length", "no"))
            .request("GET / HTTP/1.1\nHost: a.example")
            .ok("", "yes")
            .wants(Wanted::new("GET", 200).gives("length", "yes"))
            .close(Client),
        Case::new("Upgrade")
            .request("GET /chat HTTP/1.1\nHost: a.example\nConnection: Upgrade\nUpgrade: websocket")
            .response(
                "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade",
                "",
            )
            .says(Client, opaque)
            .says(Server, answer)
            .wants(Wanted::new("GET", 101))
            .close(Client),
        Case::new("an Upgrade that is declined")
            .request("GET /1 HTTP/1.1\nHost: a.example\nConnection: Upgrade\nUpgrade: h2c")
            .ok("", "one")
            .wants(Wanted::new("GET", 200).gives("length", "one"))
            .request("GET /2 HTTP/1.1\nHost: a.example")
            .ok("", "two")
            .wants(Wanted::new("GET", 200).gives("length", "two"))
            .close(Client),
    ]);
}

// ---- Codings.

#[test]
fn every_encoding() {
    skip_unless!(mount, "python3");
    let text = text();
    let one = |encoding: &'static str, bytes: Vec<u8>| {
        Case::new(encoding)
            .request("GET /x.txt HTTP/1.1\nHost: a.example")
            .ok(&format!("Content-Type: text/plain\nContent-Encoding: {encoding}"), bytes)
            .wants(Wanted::new("GET", 200).gives("length", &text).encoded(encoding))
            .close(Client)
    };
    let transfer = Case::new("Transfer-Encoding: gzip, chunked")
        .request("GET /x.txt HTTP/1.1\nHost: a.example\nTE: gzip")
        .response(
            "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked",
            chunked(&gzip(&text), 99, "", ""),
        )
        .wants(Wanted::new("GET", 200).gives("chunked", &text).encoded("gzip"))
        .close(Client);
    let until_close = Case::new("gzip until the end of the stream")
        .request("GET /x.txt HTTP/1.0")
        .response("HTTP/1.0 200 OK\nContent-Encoding: gzip", gzip(&text))
        .wants(Wanted::new("GET", 200).gives("close", &text).encoded("gzip"))
        .close(Server);
    check(&[
        one("gzip", gzip(&text)),
        one("x-gzip", gzip(&text)),
        one("gzip", [gzip(&text[..500]), gzip(&text[500..])].concat()),
        one("deflate", deflate(&text)),
        one("deflate", raw_deflate(&text)),
        one("br", brotli(&text)),
        one("zstd", zstd(&text)),
        one("identity", text.clone()),
        one("gzip, gzip", gzip(&gzip(&text))),
        one("deflate, gzip", gzip(&deflate(&text))),
        one("zstd, br", brotli(&zstd(&text))),
        transfer,
        until_close,
    ]);
}

#[test]
fn two_encodings_in_two_headers_are_both_undone() {
    skip_unless!(mount, "python3");
    let case = Case::new("two headers")
        .request("GET / HTTP/1.1\nHost: a.example")
        .ok("Content-Encoding: deflate\nContent-Encoding: gzip", gzip(&deflate(&text())))
        .wants(Wanted::new("GET", 200).gives("length", text()).encoded("deflate, gzip"))
        .close(Client);
    check(&[case]);
}

#[test]
fn encoded_requests_are_decoded_too() {
    skip_unless!(mount, "python3");
    let packed = gzip(&text());
    let length = packed.len();
    let head = format!(
        "POST / HTTP/1.1\nHost: a.example\nContent-Encoding: gzip\nContent-Length: {length}"
    );
    let mut wanted = Wanted::new("POST", 200).takes("length", text()).gives("length", "ok");
    wanted.encoding[0] = Some("gzip");
    check(&[Case::new("request")
        .request(&head)
        .says(Client, packed)
        .ok("", "ok")
        .wants(wanted)
        .close(Client)]);
}

#[test]
fn a_body_that_lies_about_its_encoding_is_served_as_it_is_and_marked() {
    skip_unless!(mount);
    let lie = |encoding: &'static str| {
        Case::new(encoding)
            .request("GET /x HTTP/1.1\nHost: a.example")
            .ok(
                &format!("Content-Type: text/plain\nContent-Encoding: {encoding}"),
                "as plain as can be",
            )
            .wants(Wanted::new("GET", 200).gives("length", "as plain as can be").encoded(encoding))
            .close(Client)
    };
    for encoding in ["gzip", "deflate", "zstd", "x-unheard-of"] {
        let case = lie(encoding);
        check(std::slice::from_ref(&case));
        let filed = Filed::of([case.talk]);
        let transcript = String::from_utf8(filed.read(1, "http")).unwrap();
        assert!(transcript.contains("as plain as can be\n"), "{transcript}");
        let marks = transcript.lines().filter(|line| line.starts_with("---")).count();
        assert_eq!(marks, 3, "two heads and the mark: {transcript}");
        let har = json(&filed.file(1, "http.har"));
        let content = &har["log"]["entries"][0]["response"]["content"];
        assert_eq!(content["text"], "as plain as can be");
        assert!(content["comment"].is_string(), "{content:#}");
    }
}

#[test]
fn compressed_data_that_breaks_off_gives_what_there_is() {
    skip_unless!(mount, "python3");
    let text = noise(1, 50_000);
    let packed = gzip(&text);
    let case = Case::new("cut")
        .request("GET /x HTTP/1.1\nHost: a.example")
        .response(
            "HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 50100",
            &packed[..30_000],
        )
        .close(Server);
    let filed = Filed::of([case.talk]);
    let record = filed.http(1).remove(0);
    assert_eq!(record["state"], "truncated", "{record:#}");
    assert_eq!(record["response_body"]["wire_bytes"], 30_000);
    let body = filed.read(1, record["response_body"]["file"].as_str().unwrap());
    assert!(body.len() > 20_000 && body == text[..body.len()], "{} bytes", body.len());
    assert_eq!(record["response_body"]["bytes"], body.len());
}

// ---- What is not as it should be.

#[test]
fn transactions_that_break_off() {
    skip_unless!(mount);
    let text = text();
    let get = "GET /page HTTP/1.1\nHost: a.example";
    let nothing = |state| {
        let mut wanted = Wanted::new("GET", 0).state(state);
        wanted.status = None;
        wanted
    };
    check(&[
        Case::new("a reset in the body")
            .request(get)
            .response("HTTP/1.1 200 OK\nContent-Length: 9000", &text)
            .wants(Wanted::new("GET", 200).gives("length", &text).state("aborted"))
            .reset(Server),
        Case::new("a FIN in the body")
            .request(get)
            .response("HTTP/1.1 200 OK\nContent-Length: 9000", &text)
            .wants(Wanted::new("GET", 200).gives("length", &text).state("truncated"))
            .close(Server),
        Case::new("the capture ends in the body")
            .request(get)
            .response("HTTP/1.1 200 OK\nContent-Length: 9000", &text)
            .wants(Wanted::new("GET", 200).gives("length", &text).state("truncated")),
        Case::new("a FIN between chunks")
            .request(get)
            .response("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", "5\r\nhello\r\n")
            .wants(Wanted::new("GET", 200).gives("chunked", "hello").state("truncated"))
            .close(Server),
        Case::new("no response").request(get).wants(nothing("truncated")).close(Client),
        Case::new("a reset instead of a response")
            .request(get)
            .wants(nothing("aborted"))
            .reset(Server),
        Case::new("one response to two requests")
            .request(get)
            .request(get)
            .ok("", "one")
            .wants(Wanted::new("GET", 200).gives("length", "one"))
            .wants(nothing("truncated"))
            .close(Server),
        Case::new("a chunk of no size")
            .request(get)
            .response(
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
                "5\r\nhello\r\nxyz\r\nmore\r\n0\r\n\r\n",
            )
            .wants(Wanted::new("GET", 200).gives("chunked", "hello").state("malformed"))
            .close(Server),
    ]);
}

#[test]
fn a_gap_in_a_body_reads_zeros_and_is_marked() {
    skip_unless!(mount);
    let body = noise(1, 60_000);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").segments_of(1_000);
    talk.open().says(Client, "GET /big.bin HTTP/1.1\r\nHost: a.example\r\n\r\n");
    talk.says(Server, "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n");
    talk.says(Server, &body[..10_000]).unseen(Server, &body[10_000..13_000]).ack(Client);
    for part in body[13_000..].chunks(1_000) {
        talk.says(Server, part).ack(Client);
    }
    talk.says(Client, "GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n");
    talk.says(Server, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext").close(Client);
    let filed = Filed::of([talk]);
    let records = filed.http(1);
    let states: Vec<_> = records.iter().map(|record| record["state"].clone()).collect();
    assert_eq!(states, ["gap", "complete"], "{records:#?}");
    assert!(records[0]["why"].is_string());
    assert_eq!(records[0]["response_body"]["wire_bytes"], 60_000);
    assert_eq!(records[0]["response_body"]["bytes"], 60_000);
    let mut wanted = body;
    wanted[10_000..13_000].fill(0);
    assert!(filed.read(1, "bodies/0001-response-big.bin") == wanted);
    assert_eq!(filed.read(1, "bodies/0002-response-next"), b"next");
    let transcript = String::from_utf8(filed.read(1, "http")).unwrap();
    assert!(transcript.contains("--- 1 gap: "), "{transcript}");
    let har = json(&filed.file(1, "http.har"));
    har_is_valid(&har, 2);
    assert_eq!(har["log"]["entries"][0]["_state"], "gap");
}

#[test]
fn a_connection_joined_in_the_middle() {
    skip_unless!(mount);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let ok =
        |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // From the response of a request that was not captured.
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open().says(Client, get("/early")).says(Server, ok("early"));
    talk.says(Client, get("/late")).says(Server, ok("late")).close(Client);
    talk.packets.drain(..4);
    let filed = Filed::of([talk]);
    let records = filed.http(1);
    assert_eq!(records.len(), 2, "{records:#?}");
    assert_eq!(records[0]["method"], Value::Null);
    assert_eq!(records[0]["status"], 200);
    assert_ne!(records[0]["state"], "complete");
    assert_eq!(records[1]["target"], "/late");
    assert_eq!(records[1]["state"], "complete");
    let name = records[0]["response_body"]["file"].as_str().unwrap();
    assert_eq!(filed.read(1, name), b"early");
    assert_eq!(filed.read(1, "bodies/0002-response-late"), b"late");
    har_is_valid(&json(&filed.file(1, "http.har")), 2);
}

#[test]
fn a_message_that_was_not_captured() {
    skip_unless!(mount);
    let get = |path: u32| format!("GET /{path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let ok = |body: u32| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.to_string().len())
    };
    // Of 60 transactions, the request of number 10 and the response of number 20 are missing.
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open();
    for turn in 1..=60 {
        if turn == 10 {
            talk.unseen(Client, get(turn));
        } else {
            talk.says(Client, get(turn));
        }
        if turn == 20 {
            talk.unseen(Server, ok(turn)).ack(Client);
        } else {
            talk.says(Server, ok(turn));
        }
    }
    talk.close(Client);
    let filed = Filed::of([talk]);
    let records = filed.http(1);
    assert_eq!(records.len(), 60, "{records:#?}");
    for (turn, record) in (1..).zip(&records) {
        is_record(record);
        let body = || {
            let file =
                record["response_body"]["file"].as_str().unwrap_or_else(|| panic!("{record:#}"));
            String::from_utf8(filed.read(1, file)).unwrap()
        };
        match turn {
            10 => {
                assert_eq!(
                    (&record["method"], &record["state"]),
                    (&Value::Null, &json!("gap")),
                    "{record:#}"
                );
                assert_eq!(body(), "10");
            }
            20 => {
                assert_eq!(
                    (&record["status"], &record["state"]),
                    (&Value::Null, &json!("gap")),
                    "{record:#}"
                );
                assert_eq!(record["target"], "/20");
            }
            _ => {
                assert_eq!(record["target"], format!("/{turn}"), "{record:#}");
                assert_eq!(body(), turn.to_string(), "{record:#}");
            }
        }
    }
    har_is_valid(&json(&filed.file(1, "http.har")), 60);
}

#[test]
fn a_response_captured_before_its_request_is_its_response() {
    skip_unless!(mount);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open();
    for turn in 0..20 {
        talk.says(Client, format!("GET /{turn} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        let body = turn.to_string();
        talk.says(
            Server,
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        );
        talk.swap();
    }
    talk.close(Client);
    let filed = Filed::of([talk]);
    let records = filed.http(1);
    assert_eq!(records.len(), 20);
    for (turn, record) in records.iter().enumerate() {
        assert_eq!(
            (&record["target"], &record["state"]),
            (&json!(format!("/{turn}")), &json!("complete"))
        );
        let file = record["response_body"]["file"].as_str().unwrap();
        assert_eq!(filed.read(1, file), turn.to_string().as_bytes());
    }
}

#[test]
fn one_direction_alone_has_transactions() {
    skip_unless!(mount);
    for side in [Client, Server] {
        let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
        talk.open();
        for turn in 0..3 {
            talk.says(Client, format!("GET /{turn} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
            talk.says(Server, format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{turn}"));
        }
        talk.close(Client).only(side);
        let filed = Filed::of([talk]);
        let records = filed.http(1);
        assert_eq!(records.len(), 3, "{side:?}: {records:#?}");
        for (turn, record) in records.iter().enumerate() {
            is_record(record);
            assert_ne!(record["state"], "complete", "{record:#}");
            if side == Client {
                assert_eq!(record["target"], format!("/{turn}"));
                assert_eq!(record["status"], Value::Null);
            } else {
                assert_eq!((&record["method"], &record["status"]), (&Value::Null, &json!(200)));
                let file = record["response_body"]["file"].as_str().unwrap();
                assert_eq!(filed.read(1, file), turn.to_string().as_bytes());
            }
        }
        har_is_valid(&json(&filed.file(1, "http.har")), 3);
    }
}

#[test]
fn http_is_found_on_any_port_and_nothing_else_is_taken_for_it() {
    skip_unless!(mount);
    let mut talks = Vec::new();
    for (at, port) in (0..).zip([22, 53, 80, 443, 8080, 65_000]) {
        let mut talk =
            Conversation::tcp("10.0.0.1:40000", &format!("10.0.0.2:{port}")).at(EPOCH + at);
        talk.open().says(Client, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
        talk.says(Server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").close(Client);
        talks.push(talk);
    }
    let others: [(&[u8], &[u8]); 4] = [
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"),
        (b"EHLO a.example\r\n", b"220 b.example ESMTP\r\n"),
        (b"GETAWAY now\r\n", b"no\r\n"),
        (b"\0\x01\x02\x03", b"\x16\x03"),
    ];
    for (at, (client, server)) in (100..).zip(others) {
        let mut talk =
            Conversation::tcp("10.0.0.1:40001", &format!("10.0.0.3:{at}")).at(EPOCH + at);
        talk.open().says(Client, client).says(Server, server).close(Client);
        talks.push(talk);
    }
    let filed = Filed::of(talks);
    for id in 1..=10 {
        let wanted = if id <= 6 { "http" } else { "unknown" };
        assert_eq!(filed.meta(id)["application"], wanted, "flow {id}");
        assert_eq!(filed.file(id, "http").exists(), id <= 6, "flow {id}");
    }
}

// ---- Names.

#[test]
fn names_of_bodies_cannot_do_harm() {
    skip_unless!(mount);
    let long = "n".repeat(300) + ".html";
    let targets = [
        "/..",
        "/../../etc/passwd",
        "/%2e%2e",
        "/..%2f..%2fpasswd",
        "/a%2Fb",
        "/%00%01%1b%5b31m",
        "/a%0ab%0d",
        "/%ff%fe",
        "/%E2%80%AEgnp.exe",
        "/.hidden",
        "/-rf",
        "/",
        "*",
        "/a?b=/../c",
        "/a#b/c",
        "//",
        "/%",
        "/%2",
        "/a%5cb",
        "/~",
        "http://h.example",
        "http://h.example/x/y.txt",
        "/name with blanks",
        "/\u{fc}ber",
        "/index.html",
    ];
    let targets: Vec<String> = targets
        .into_iter()
        .map(str::to_owned)
        .chain([format!("/{long}"), "/".repeat(900)])
        .collect();
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open();
    for target in &targets {
        talk.says(
            Client,
            format!("POST {target} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\nq"),
        );
        talk.says(
            Server,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1\r\n\r\na",
        );
    }
    talk.close(Client);
    let filed = Filed::of([talk]);
    let records = filed.http(1);
    assert_eq!(records.len(), targets.len());
    let names = listed(&filed.file(1, "bodies"));
    assert_eq!(names.len(), 2 * targets.len());
    for name in &names {
        assert!(name.len() <= 255, "{name}");
        assert!(!name.contains("..") && !name.contains(['/', '\\']), "{name}");
        assert!(name.chars().all(|one| !one.is_control() && one != '\u{202e}'), "{name:?}");
        let (number, kind) = name.split_at(5);
        assert!(number[..4].bytes().all(|digit| digit.is_ascii_digit()), "{name}");
        assert!(kind.starts_with("request") || kind.starts_with("response"), "{name}");
    }
    for (record, target) in records.iter().zip(&targets) {
        assert_eq!(record["target"], **target);
        for (body, wanted) in [("request_body", b"q"), ("response_body", b"a")] {
            let file = record[body]["file"].as_str().unwrap();
            assert_eq!(filed.read(1, file), wanted, "{target}");
        }
    }
    assert!(names.contains(&"0025-response-index.html".to_owned()), "{names:?}");
    let copy = tempfile::tempdir().unwrap();
    let mut cp = tool("cp");
    drop(run(cp.arg("-r").arg(filed.file(1, "bodies")).arg(copy.path()), 10).success());
    assert!(everything(&copy.path().join("bodies")) == everything(&filed.file(1, "bodies")));
}

// ---- The records and the transcript.

#[test]
fn a_record_says_it_all() {
    skip_unless!(mount);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").at(1_700_000_000_000_000_001);
    talk.open();
    talk.says(
        Client,
        "POST /api/items?x=1 HTTP/1.1\r\nHost: shop.example:8080\r\nA: 1\r\nA: 2\r\n",
    );
    talk.says(Client, "Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"a\":");
    talk.says(Client, "1}\n");
    talk.says(
        Server,
        "HTTP/1.1 201 Made it\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n",
    );
    talk.says(Server, "{}\r\n").close(Client);
    let filed = Filed::of([talk]);
    let time = |packet: u32| json!(format!("2023-11-14T22:13:20.{:09}Z", 1 + packet * 1_000_001));
    let wanted = json!({
        "flow": 1, "index": 1, "method": "POST", "target": "/api/items?x=1",
        "host": "shop.example:8080", "version": "HTTP/1.1", "status": 201, "reason": "Made it",
        "request_headers": [["Host", "shop.example:8080"], ["A", "1"], ["A", "2"],
            ["Content-Type", "application/json"], ["Content-Length", "8"]],
        "response_headers": [["Content-Type", "application/json"], ["Content-Length", "4"]],
        "request_body": {"wire_bytes": 8, "bytes": 8, "encoding": null, "framing": "length",
            "file": "bodies/0001-request.json"},
        "response_body": {"wire_bytes": 4, "bytes": 4, "encoding": null, "framing": "length",
            "file": "bodies/0001-response-items.json"},
        "times": {"request_first": time(3), "request_last": time(5),
            "response_first": time(6), "response_last": time(7)},
        "state": "complete", "why": null,
    });
    assert_eq!(filed.http(1), std::slice::from_ref(&wanted));
    assert_eq!(lines(&filed.daemon.path("web/http.jsonl")), [wanted]);
    assert_eq!(filed.read(1, "bodies/0001-request.json"), b"{\"a\":1}\n");
    let transcript = String::from_utf8(filed.read(1, "http")).unwrap();
    for part in [
        "POST /api/items?x=1 HTTP/1.1\nHost: shop.example:8080\nA: 1\nA: 2\n",
        "{\"a\":1}\n",
        "HTTP/1.1 201 Made it\nContent-Type: application/json\n",
    ] {
        assert!(transcript.contains(part), "no {part:?} in {transcript}");
    }
    let har = json(&filed.file(1, "http.har"));
    let entry = &har["log"]["entries"][0];
    assert_eq!(entry["request"]["url"], "http://shop.example:8080/api/items?x=1");
    assert_eq!(entry["request"]["queryString"], json!([{"name": "x", "value": "1"}]));
    assert_eq!(entry["request"]["postData"]["text"], "{\"a\":1}\n");
    assert_eq!(entry["response"]["status"], 201);
    assert_eq!(entry["response"]["content"]["text"], "{}\r\n");
    assert_eq!(entry["serverIPAddress"], "10.0.0.2");
}

#[test]
fn the_transcript_shows_text_and_points_at_the_rest() {
    skip_unless!(mount, "python3");
    let case = Case::new("mixed")
        .request("GET /t HTTP/1.1\nHost: a.example")
        .ok("Content-Type: text/plain\nContent-Encoding: gzip", gzip(b"decoded text\n"))
        .request("GET /p.png HTTP/1.1\nHost: a.example")
        .ok("Content-Type: image/png", noise(1, 500))
        .request("GET /e HTTP/1.1\nHost: a.example")
        .ok("Content-Type: text/plain", "\x1b[31mred\x07")
        .close(Client);
    let filed = Filed::of([case.talk]);
    let bytes = filed.read(1, "http");
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains("\ndecoded text\n"), "{text}");
    assert!(text.contains("bodies/0002-response-p.png"), "{text}");
    assert!(text.contains("red"), "{text}");
    let harmless = |byte: &u8| *byte >= b' ' || b"\n\t".contains(byte);
    assert!(bytes.iter().all(harmless), "control characters: {text:?}");
    assert!(filed.read(1, "bodies/0002-response-p.png") == noise(1, 500));
    assert_eq!(filed.read(1, "bodies/0003-response-e.txt"), b"\x1b[31mred\x07");
}

#[test]
fn every_flow_of_a_capture_has_a_valid_har_and_the_log_has_all_transactions() {
    skip_unless!(mount, "jq");
    let cases = framings();
    let talks = (1_u64..).zip(&cases).map(|(number, case)| {
        let mut talk = Conversation::tcp(&format!("10.0.{number}.1:40000"), "10.9.0.1:80")
            .at(EPOCH + number * 10_000_000_000);
        talk.open();
        for packet in &case.talk.packets[3..] {
            let segment = &packet.data[14 + 20..];
            match &segment[20..] {
                [] if segment[13] & 1 != 0 => talk.fin(packet.from),
                [] => talk.ack(packet.from),
                payload => talk.says(packet.from, payload),
            };
        }
        talk
    });
    let filed = Filed::new(&savefile_of(talks.collect::<Vec<_>>()));
    let mut all = Vec::new();
    assert_eq!(names(&filed.daemon).len(), cases.len());
    for (id, case) in (1..).zip(&cases) {
        case.check(&filed, id);
        let path = flow(&filed.daemon, id).join("http.har");
        har_is_valid(&json(&path), case.wanted.len());
        all.extend(filed.http(id));
        drop(run(tool("jq").arg("-e").arg(".log.entries | length > 0").arg(&path), 5).success());
    }
    let log = fs::read_to_string(filed.daemon.path("web/http.jsonl")).unwrap();
    let mut told = parsed(&log);
    told.sort_by_key(|line| (line["flow"].as_u64(), line["index"].as_u64()));
    assert_eq!(told, all);
}
