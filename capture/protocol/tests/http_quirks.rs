//! One exchange per quirk, and the contents of the resulting files.

mod http_support;

use http_support::{Memory, exchange, transactions};
use protocol::flow_context::{Endpoint, FlowContext};
use protocol::http::body::framed::Framing;
use protocol::http::body::{self, DecodingLimits, Workspace};
use protocol::http::direction::MessageRole;
use protocol::http::har::{self, Har, Server};
use protocol::http::parser::{HttpParser, ParserCounters, ParserEvent, ParserLimits, StreamEnd};
use protocol::http::record::{BodyRecord, HttpRecord};
use protocol::http::transaction::{HttpTransaction, TransactionState};
use protocol::http::transcript::transcript;
use protocol::time::Timestamp;

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

fn bodies(request: &str, response: &str, found: &[HttpTransaction]) -> Vec<String> {
    let memory = Memory { request: request.into(), response: response.into() };
    let responses = found.iter().filter_map(|one| one.response.as_ref());
    responses
        .map(|one| {
            body::read(&memory, MessageRole::Response, &one.body, &DecodingLimits::default())
        })
        .map(|decoded| String::from_utf8_lossy(&decoded.bytes).into_owned())
        .collect()
}

/// State, framing and body of the only response to `GET`.
fn one(response: &str, how: StreamEnd) -> (TransactionState, Framing, String) {
    let found = exchange(GET.as_bytes(), response.as_bytes(), how);
    let bodies = bodies(GET, response, &found);
    assert_eq!(found.len(), 1, "{response:?}: {found:#?}");
    assert_eq!(found[0].state == TransactionState::Complete, found[0].why.is_none());
    (found[0].state, found[0].response.as_ref().unwrap().body.framing, bodies[0].clone())
}

fn connection(flow: u64) -> FlowContext<'static> {
    let client = Endpoint { address: "10.0.0.1".parse().unwrap(), port: 40_000 };
    let server = Endpoint { address: "2001:db8::1".parse().unwrap(), port: 80 };
    FlowContext { capture: "web", flow, client, server }
}

#[test]
fn framings_and_their_ends() {
    use Framing::{Chunked, Close, Length, None};
    use TransactionState::{Aborted, Complete, Malformed, Truncated};
    for (head, body, how, state, framing, expected) in [
        ("Content-Length: 3", "abc", StreamEnd::Fin, Complete, Length, "abc"),
        ("Content-Length: 0", "", StreamEnd::Reset, Complete, Length, ""),
        ("Content-Length: 5", "abc", StreamEnd::Fin, Truncated, Length, "abc"),
        ("Content-Length: 5", "abc", StreamEnd::Reset, Aborted, Length, "abc"),
        ("Content-Length: 5", "abc", StreamEnd::Timeout, Truncated, Length, "abc"),
        (
            "Content-Length: 2\r\nContent-Length: 3\r\nConnection: close",
            "abc",
            StreamEnd::Fin,
            Malformed,
            Close,
            "abc",
        ),
        ("A: b", "abc", StreamEnd::Fin, Complete, Close, "abc"),
        ("A: b", "abc", StreamEnd::Reset, Aborted, Close, "abc"),
        ("A: b", "abc", StreamEnd::Evicted, Truncated, Close, "abc"),
        (
            "Transfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
            StreamEnd::Fin,
            Complete,
            Chunked,
            "abc",
        ),
        (
            "Transfer-Encoding: chunked",
            "3\nabc\n0\nA: b\n\n",
            StreamEnd::Fin,
            Complete,
            Chunked,
            "abc",
        ),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n0", StreamEnd::Fin, Truncated, Chunked, "abc"),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n", StreamEnd::Fin, Truncated, Chunked, "abc"),
        ("Transfer-Encoding: chunked", "3\r\nab", StreamEnd::Fin, Truncated, Chunked, "ab"),
        (
            "Transfer-Encoding: chunked",
            "3\r\nabc\r\n-\r\n",
            StreamEnd::Fin,
            Malformed,
            Chunked,
            "abc",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 9",
            "3\r\nabc\r\n0\r\n\r\n",
            StreamEnd::Fin,
            Complete,
            Chunked,
            "abc",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 4",
            "x yz",
            StreamEnd::Fin,
            Complete,
            Length,
            "x yz",
        ),
        ("Transfer-Encoding: chunked", "x yz", StreamEnd::Fin, Complete, Close, "x yz"),
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
        assert_eq!(one(&response, how), (state, framing, expected.to_owned()), "{head} {body}");
    }
    let response = "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(one(response, StreamEnd::Fin), (Complete, None, String::new()));
}

#[test]
fn one_after_the_other_and_interim_responses() {
    let request = "GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nPOST /3 HTTP/1.1\r\n\
                   Content-Length: 2\r\n\r\nhiGET /4 HTTP/1.1\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na\
                    HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\
                    HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n\
                    HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb\
                    HTTP/1.1 204 No\r\n\r\n";
    let found = exchange(request.as_bytes(), response.as_bytes(), StreamEnd::Fin);
    assert!(found.iter().all(|one| one.state == TransactionState::Complete), "{found:#?}");
    assert_eq!(bodies(request, response, &found), ["a", "", "b", ""]);
    assert_eq!(found[2].interim.len(), 2);
    assert_eq!(found.iter().map(|one| one.index).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn requests_without_response_and_responses_without_request() {
    let found = exchange(GET.as_bytes(), b"", StreamEnd::Fin);
    assert_eq!((found.len(), found[0].state), (1, TransactionState::Truncated));
    let found = exchange(GET.as_bytes(), b"", StreamEnd::Reset);
    assert_eq!((found.len(), found[0].state), (1, TransactionState::Aborted));
    let found = exchange(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", StreamEnd::Fin);
    assert_eq!((found.len(), found[0].state), (1, TransactionState::Truncated));
    assert!(found[0].request.is_none());
    assert!(found[0].response.as_ref().unwrap().body.is_whole());
}

#[test]
fn without_a_head_and_with_a_body_where_none_belongs() {
    let (state, framing, body) = one("just text", StreamEnd::Fin);
    assert_eq!(
        (state, framing, body.as_str()),
        (TransactionState::Complete, Framing::Close, "just text")
    );
    let (state, _, body) = one("SIP/2.0 200 ok\r\nHTTP/1.1 200 ok\r\n\r\nbody", StreamEnd::Fin);
    assert_eq!((state, body.as_str()), (TransactionState::Complete, "body"));

    let response = "HTTP/1.1 204 ok\r\nContent-Length: 4\r\n\r\nbody";
    let found = exchange(GET.as_bytes(), response.as_bytes(), StreamEnd::Fin);
    assert_eq!(bodies(GET, response, &found), ["", "body"]);
    assert_eq!(
        (found[0].state, found[1].state),
        (TransactionState::Complete, TransactionState::Malformed)
    );

    let (state, framing, body) =
        one("HTTP/1.1 101 ok\r\nContent-Length: 4\r\n\r\nbody", StreamEnd::Fin);
    assert_eq!(
        (state, framing, body.as_str()),
        (TransactionState::Malformed, Framing::Length, "body")
    );
}

#[test]
fn tunnels_and_upgrades_are_opaque() {
    for (request, response) in [
        ("CONNECT h:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n"),
    ] {
        let mut parser = HttpParser::new(ParserLimits::default());
        let time = Timestamp::default();
        parser.feed(MessageRole::Request, 0, request.as_bytes(), time);
        parser.feed(MessageRole::Response, 0, format!("{response}opaque").as_bytes(), time);
        let at = request.len() as u64;
        parser.feed(MessageRole::Request, at, b"GET / HTTP/1.1\r\n\r\n", time);
        parser.end(MessageRole::Request, StreamEnd::Fin);
        parser.end(MessageRole::Response, StreamEnd::Fin);
        let Some(ParserEvent::Transaction(one)) = parser.event() else { panic!("no transaction") };
        assert!(one.switched && one.state == TransactionState::Complete, "{one:#?}");
        let switched = ParserEvent::Switched { request: at, response: response.len() as u64 };
        assert_eq!(parser.event(), Some(switched));
        assert_eq!(parser.event(), None);
    }
}

/// The transactions of a response with a hole at this range.
fn holed(response: &str, hole: std::ops::Range<usize>) -> Vec<HttpTransaction> {
    let mut parser = HttpParser::new(ParserLimits::default());
    let time = Timestamp::default();
    parser.feed(MessageRole::Request, 0, GET.as_bytes(), time);
    parser.feed(MessageRole::Response, 0, &response.as_bytes()[..hole.start], time);
    // Skipped bytes are a gap, even if `gap` was not called.
    parser.feed(MessageRole::Response, hole.end as u64, &response.as_bytes()[hole.end..], time);
    parser.acknowledged(response.len() as u64);
    parser.feed(MessageRole::Request, GET.len() as u64, GET.as_bytes(), time);
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!";
    parser.feed(MessageRole::Response, response.len() as u64, second.as_bytes(), time);
    parser.end(MessageRole::Response, StreamEnd::Fin);
    parser.end(MessageRole::Request, StreamEnd::Fin);
    transactions(&mut parser)
}

#[test]
fn gaps_affect_only_the_transactions_they_touch() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n";
    for (response, hole, ended) in [
        (length, 40..42, true),
        (length, 3..20, false),
        (length, 0..44, false),
        (chunked, 53..55, true),
        (chunked, 49..52, false),
        (chunked, 54..60, false),
    ] {
        let found = holed(response, hole.clone());
        assert_eq!(found.len(), 2, "{hole:?} {found:#?}");
        assert_eq!(found[0].state, TransactionState::Gap, "{hole:?}");
        let body = found[0].response.as_ref().map(|response| &response.body);
        assert_eq!(body.is_some_and(|body| body.ended), ended, "{hole:?} {found:#?}");
        if ended {
            assert_eq!(body.unwrap().missing(), 2);
            assert_eq!(body.unwrap().wire_bytes(), 6);
        }
        assert_eq!(
            (found[1].state, &found[1].why),
            (TransactionState::Complete, &None),
            "{hole:?}"
        );
    }
}

#[test]
fn bounds_bite_and_are_counted() {
    let limits = ParserLimits {
        head_bytes: 100,
        headers: 2,
        pending: 3,
        chunk_line: 20,
        body_ranges: 2,
        ..ParserLimits::default()
    };
    let run = |request: &str, response: &str| -> (Vec<HttpTransaction>, ParserCounters) {
        let mut parser = HttpParser::new(limits);
        for byte in 0..request.len() {
            let bytes = &request.as_bytes()[byte..=byte];
            parser.feed(MessageRole::Request, byte as u64, bytes, Timestamp::default());
            assert!(parser.memory() < 20_000);
        }
        for byte in 0..response.len() {
            let bytes = &response.as_bytes()[byte..=byte];
            parser.feed(MessageRole::Response, byte as u64, bytes, Timestamp::default());
            assert!(parser.memory() < 20_000);
        }
        parser.end(MessageRole::Response, StreamEnd::Fin);
        parser.end(MessageRole::Request, StreamEnd::Fin);
        (transactions(&mut parser), *parser.counters())
    };
    let (found, counters) = run(&format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(50_000)), "");
    assert_eq!((found[0].state, counters.long_heads), (TransactionState::Malformed, 1));
    let (_, counters) = run("GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n", "");
    assert_eq!(counters.dropped_headers, 1);
    let (found, counters) = run(&"GET / HTTP/1.1\r\n\r\n".repeat(10), "");
    assert_eq!((found.len(), counters.shed_requests), (10, 7));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
    let (found, counters) = run(GET, &format!("{chunked}1;{}", "x".repeat(1000)));
    assert_eq!((found[0].state, counters.long_chunk_lines), (TransactionState::Malformed, 1));
    let (found, counters) = run(GET, &format!("{chunked}1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"));
    assert_eq!((found[0].state, counters.unlisted_bytes), (TransactionState::Truncated, 1));
    let (found, counters) = run(GET, &format!("{chunked}0\r\n{}", "T: x\r\n".repeat(100)));
    assert_eq!((found[0].state, counters.long_heads), (TransactionState::Malformed, 1));
}

#[test]
fn pieces_of_bodies_under_way_are_counted_and_bounded() {
    const PIECES: usize = 1_000;
    let chunks = "1\r\na\r\n".repeat(PIECES);
    let request = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    let limits = ParserLimits { pending_ranges: 5 * PIECES, ..ParserLimits::default() };
    let mut parser = HttpParser::new(limits);
    let mut at = 0;
    for number in 1..=20 {
        parser.feed(MessageRole::Request, at, request.as_bytes(), Timestamp::default());
        at += request.len() as u64;
        let pieces = parser.pending() * PIECES;
        assert!(parser.memory() >= pieces * 16, "{} with {pieces}", parser.memory());
        // Six, since the last one is still within the limit when it begins.
        assert_eq!(parser.pending(), number.min(6));
    }
    assert_eq!(parser.counters().shed_requests, 14);
    let shed = transactions(&mut parser);
    assert!(shed.iter().all(|one| one.state == TransactionState::Truncated) && shed.len() == 14);
    parser.end(MessageRole::Request, StreamEnd::Fin);
    parser.end(MessageRole::Response, StreamEnd::Fin);
    assert_eq!(transactions(&mut parser).len(), 6);
    assert!(parser.memory() < 10_000, "{}", parser.memory());
}

#[test]
fn records_transcripts_and_har() {
    let request = "POST /a.txt?q=1&r HTTP/1.1\r\nHost: h\r\nCookie: a=b; c=d\r\n\
                   Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let response = "HTTP/1.1 200 Fine\r\nA: 1\r\nA: 2\r\nContent-Type: text/plain\r\n\
                    Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\nd\x1bf\r\n0\r\n\r\n";
    let found = exchange(request.as_bytes(), response.as_bytes(), StreamEnd::Fin);
    let memory = Memory { request: request.into(), response: response.into() };
    let limits = DecodingLimits::default();
    let [one] = &found[..] else { panic!("{found:#?}") };
    let body = |direction| {
        BodyRecord::measured(one, direction, &memory, &limits, &mut Workspace::default())
    };
    let (of_request, of_response) = (body(MessageRole::Request), body(MessageRole::Response));
    let record = HttpRecord::new(&connection(42), one, &of_request, &of_response);
    let json = serde_json::to_value(&record).unwrap();
    let expected = serde_json::json!({
        "capture": "web", "flow": 42, "index": 1, "duration_us": 0,
        "client": {"address": "10.0.0.1", "port": 40_000},
        "server": {"address": "2001:db8::1", "port": 80}, "method": "POST", "target": "/a.txt?q=1&r", "host": "h",
        "version": "HTTP/1.1", "status": 200, "reason": "Fine",
        "request_headers": [["Host", "h"], ["Cookie", "a=b; c=d"],
            ["Content-Type", "application/json"], ["Content-Length", "2"]],
        "response_headers": [["A", "1"], ["A", "2"], ["Content-Type", "text/plain"],
            ["Transfer-Encoding", "chunked"]],
        "request_body": {"wire_bytes": 2, "bytes": 2, "encoding": null, "framing": "length",
            "file": "bodies/0001-request.json"},
        "response_body": {"wire_bytes": 6, "bytes": 6, "encoding": null, "framing": "chunked",
            "file": "bodies/0001-response-a.txt"},
        "times": {"request_first": "1970-01-01T00:00:00.000000001Z",
            "request_last": "1970-01-01T00:00:00.000000001Z",
            "response_first": "1970-01-01T00:00:00.000000002Z",
            "response_last": "1970-01-01T00:00:00.000000002Z"},
        "state": "complete", "why": null,
    });
    assert_eq!(json, expected);

    let text = transcript(one, &memory, &limits);
    assert!(text.contains("POST /a.txt?q=1&r HTTP/1.1\nHost: h\n"), "{text}");
    assert!(text.contains("\n\n{}\n--- 1 response"), "{text}");
    assert!(text.ends_with("\n\nabcd\u{241b}f\n\n"), "{text}");

    let mut har = Har::new();
    har.push(&har::entry(one, &Server::default(), &memory, &limits));
    let har: serde_json::Value = serde_json::from_slice(&har.into_text()).unwrap();
    let entry = &har["log"]["entries"][0];
    assert_eq!(har["log"]["version"], "1.2");
    assert_eq!(entry["request"]["url"], "http://h/a.txt?q=1&r");
    assert_eq!(entry["request"]["queryString"][1]["name"], "r");
    assert_eq!(entry["request"]["cookies"][1]["value"], "d");
    assert_eq!(entry["request"]["postData"]["text"], "{}");
    // A control character makes it base64.
    assert_eq!(entry["response"]["content"]["text"], "YWJjZBtm");
    assert_eq!(entry["response"]["content"]["encoding"], "base64");
    assert_eq!(entry["response"]["content"]["mimeType"], "text/plain");
    assert_eq!(entry["response"]["bodySize"], 6);
}

#[test]
fn targets_of_every_form_have_a_url() {
    for (line, url) in [
        ("GET /a", "http://h/a"),
        ("GET http://other/b", "http://other/b"),
        ("OPTIONS *", "http://h"),
        ("CONNECT far:443", "http://far:443"),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
        let response = "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
        let found = exchange(request.as_bytes(), response.as_bytes(), StreamEnd::Fin);
        let memory = Memory { request: request.into(), response: response.into() };
        let entry = har::entry(&found[0], &Server::default(), &memory, &DecodingLimits::default());
        let entry = serde_json::to_value(&entry).unwrap();
        assert_eq!(entry["request"]["url"], url, "{line}");
    }
}

#[test]
fn tolerated_deviations_are_noted() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(20_000));
    let no_chunk = "a body announced as chunked does not begin with a chunk";
    let long_line = "a chunk's first line is too long, and the body read as not chunked";
    let no_number = "Content-Length is no length, and passed over";
    let junk = "bytes in front of the response belong to no message";
    let (chunked, ok) = ("Transfer-Encoding: chunked", "200 OK");
    let chunk = "5\r\nhello\r\n0\r\n\r\n";
    let no_length = "Content-Length has characters that belong in no length";
    let both = "both Transfer-Encoding and Content-Length say where the body ends";
    let not_quite = "Transfer-Encoding is read as chunked, which it does not quite say";
    for (status, head, body, remark) in [
        (ok, chunked, "+5\r\nhello\r\n0\r\n\r\n", Some(no_chunk)),
        (ok, chunked, "-5\r\nhello\r\n0\r\n\r\n", Some(no_chunk)),
        (ok, chunked, "fffffffffffffffff\r\nhello\r\n0\r\n\r\n", Some(no_chunk)),
        (ok, chunked, "FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", Some(no_chunk)),
        (ok, chunked, "\r\nhello\r\n0\r\n\r\n", Some(no_chunk)),
        (ok, chunked, &long, Some(long_line)),
        (ok, chunked, "5;x\r\nhello\r\n0\r\n\r\n", None),
        (ok, "Content-Length: +5", "hello", Some(no_number)),
        (ok, "Content-Length: -5", "hello", Some(no_number)),
        (ok, "Content-Length: 99999999999999999999999999", "hello", Some(no_number)),
        (ok, "Content-Length:", "hello", Some(no_number)),
        (ok, "Content-Length: 5", "hello", None),
        (ok, "Content-Length: 5, 5", "hello", None),
        (ok, "Content-Length: 5\u{1}", "hello", Some(no_length)),
        (ok, "Transfer-Encoding: chunked\r\nContent-Length: 5", chunk, Some(both)),
        (ok, "Content-Length: 5\r\nTransfer-Encoding: gzip", "hello", Some(both)),
        (ok, "Transfer-Encoding: Chunked ,", chunk, None),
        (ok, "Transfer-Encoding: xchunked", chunk, Some(not_quite)),
        (ok, "Transfer-Encoding: chunked, identity", chunk, Some(not_quite)),
        (ok, "Transfer-Encoding: chunked, chunked", chunk, Some(not_quite)),
        (ok, "Transfer-Encoding: chunked\r\nTransfer-Encoding: x", chunk, Some(not_quite)),
        (ok, "Transfer-Encoding: \"chunked\"", chunk, Some(not_quite)),
        (ok, "Transfer-Encoding: chunked;q=1", chunk, Some(not_quite)),
        (ok, "A: b\r\n Transfer-Encoding: chunked", chunk, Some(not_quite)),
        ("304 Not Modified", "Content-Length:", "", None),
        ("204 No Content", "A: b", "", None),
        (ok, "A: b", "until the end", None),
    ] {
        let response = format!("HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}");
        let found = exchange(GET.as_bytes(), response.as_bytes(), StreamEnd::Fin);
        assert_eq!(found.len(), 1, "{response}");
        assert_eq!(
            (found[0].state, &found[0].why),
            (TransactionState::Complete, &None),
            "{response}"
        );
        assert_eq!((found[0].remark, found[0].why_or_remark()), (remark, remark), "{response}");
        let record = BodyRecord::default();
        let record = HttpRecord::new(&connection(1), &found[0], &record, &record);
        assert_eq!(serde_json::to_value(&record).unwrap()["why"].as_str(), remark, "{response}");
    }
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!";
    for (first, remark) in [
        ("HTTP/1.1 204 X\r\n\r\ngarb", Some(junk)),
        ("HTTP/1.1 204 X\r\n\r\nmore garbage", Some(junk)),
        ("HTTP/1.1 200 X\r\nContent-Length: 1\r\n\r\naX", Some(junk)),
        ("HTTP/1.1 200 X\r\nContent-Length: 1\r\n\r\na\r\n", None),
        ("HTTP/1.1 204 X\r\n\r\n", None),
    ] {
        let found = exchange(
            GET.repeat(2).as_bytes(),
            format!("{first}{second}").as_bytes(),
            StreamEnd::Fin,
        );
        let remarks: Vec<_> = found.iter().map(|one| (one.state, one.remark)).collect();
        assert_eq!(
            remarks,
            [(TransactionState::Complete, None), (TransactionState::Complete, remark)],
            "{first}"
        );
    }
}

#[test]
fn a_long_line_of_the_first_chunk_is_counted() {
    let mut parser = HttpParser::new(ParserLimits { chunk_line: 20, ..ParserLimits::default() });
    let response =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=aaaaaaaaaaaaaaaaaaaaaa\r\n";
    parser.feed(MessageRole::Request, 0, GET.as_bytes(), Timestamp::default());
    parser.feed(MessageRole::Response, 0, response.as_bytes(), Timestamp::default());
    assert_eq!(parser.counters().long_chunk_lines, 1);
}
