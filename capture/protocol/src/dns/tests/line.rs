//! The fields of a line.

use super::*;
use crate::dns::MAX_LINE;

#[test]
fn a_line_has_all_fields() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 10, &Builder::query(4660, "Example.com"));
    let response = Builder::new(4660, RESPONSE)
        .question("Example.com", A, IN)
        .record(1, "Example.com", CNAME, IN, 60, &wire_name("a.example"))
        .record_of(1, &[0xc0, 12], A, IN, 300, &[198, 51, 100, 7])
        .record(3, "", OPT, 1232, 0, &[]);
    flow.sent(Direction::Backward, 11, &response);
    let expected = serde_json::json!({
        "capture": "web",
        "flow": 7,
        "index": 1,
        "client": {"address": "192.0.2.1", "port": 40000},
        "server": {"address": "192.0.2.53", "port": 53},
        "duration_us": 1_000_000,
        "id": 4660,
        "opcode": "QUERY",
        "name": "Example.com",
        "type": "A",
        "class": "IN",
        "rcode": "NOERROR",
        "flags": {"aa": false, "tc": false, "rd": true, "ra": true},
        "answers": [
            {"name": "Example.com", "type": "CNAME", "ttl": 60, "data": "a.example"},
            {"name": "Example.com", "type": "A", "ttl": 300, "data": "198.51.100.7"},
        ],
        "answers_total": 2,
        "queried": "1970-01-01T00:00:10.000000000Z",
        "answered": "1970-01-01T00:00:11.000000000Z",
        "state": "answered",
        "why": null,
    });
    assert_eq!(flow.lines(), [expected]);
}

#[test]
fn what_is_not_known_is_null() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 10, &Builder::query(1, "a"));
    flow.sent(Direction::Backward, 11, &Builder::new(2, RESPONSE));
    let lines = flow.lines();
    let (unasked, unanswered) = (&lines[0], &lines[1]);
    for field in ["duration_us", "rcode", "answered"] {
        assert!(unanswered.get(field).unwrap().is_null(), "{unanswered}");
    }
    for field in ["duration_us", "name", "type", "class", "queried"] {
        assert!(unasked.get(field).unwrap().is_null(), "{unasked}");
    }
}

#[test]
fn the_client_is_who_asks() {
    let mut flow = Flow::between(ends([53, 53]));
    flow.sent(Direction::Backward, 1, &Builder::query(1, "a"));
    flow.sent(Direction::Forward, 2, &Builder::response(1, "a", [1; 4]));
    flow.sent(Direction::Forward, 3, &Builder::query(1, "b"));
    flow.sent(Direction::Backward, 4, &Builder::response(1, "b", [2; 4]));
    let lines = flow.lines();
    assert_eq!(lines[0]["client"]["address"], "192.0.2.53");
    assert_eq!(lines[0]["state"], "answered");
    assert_eq!(lines[1]["client"]["address"], "192.0.2.1");
    assert_eq!(lines[1]["answers"][0]["data"], "2.2.2.2");
}

#[test]
fn the_response_code_has_the_bits_of_edns() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::query(1, "a"));
    let response = Builder::new(1, RESPONSE | 7).question("a", A, IN);
    flow.sent(Direction::Backward, 2, &response.record(3, "", OPT, 1232, 0x0100_0000, &[]));
    assert_eq!(flow.lines()[0]["rcode"], "BADCOOKIE");
}

/// A name of full length that takes most room as text.
fn longest_name() -> Vec<u8> {
    let mut wire = Vec::new();
    for len in [63_u8, 63, 63, 61] {
        wire.push(len);
        wire.extend(std::iter::repeat_n(1, len.into()));
    }
    wire.push(0);
    assert_eq!(wire.len(), 255);
    wire
}

/// The longest line that a name and records of this owner and these data can cause.
fn longest_line(owner: &[u8], data: &[u8]) -> Vec<u8> {
    let end = |port| SocketAddr::from(([0xfdff; 8], port));
    let ends = [end(65_535), end(65_534)];
    let mut flow = Flow::between(ends);
    let name = longest_name();
    let query = Builder::new(65_535, 0x0000).question_of(&name, 65_280, 65_280);
    for _ in 0..3 {
        flow.sent(Direction::Forward, u64::from(u32::MAX) - 20, &query);
    }
    let mut response = Builder::new(65_535, 0x8000).question_of(&name, 65_280, 65_280);
    for _ in 0..500 {
        response = response.record_of(1, owner, 65_281, IN, u32::MAX, data);
    }
    flow.sent(Direction::Backward, u64::from(u32::MAX), &response);
    let capture = "c".repeat(64);
    let transactions = flow.finished();
    let context = FlowContext::new(&capture, u64::MAX, ends, transactions[0].asked);
    crate::json::line(&DnsRecord::new(&context, &transactions[0]))
}

#[test]
fn the_longest_line_stays_within_its_limit() {
    for (owner, data, least) in [(&[0][..], &[7; 16][..], 3000), (&[0xc0, 12], &[7; 400], 1800)] {
        let line = longest_line(owner, data);
        assert!((least..=MAX_LINE).contains(&line.len()), "{}", String::from_utf8_lossy(&line));
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["answers_total"], 500);
        let omitted = 500 - line["answers"].as_array().unwrap().len();
        let why = line["why"].as_str().unwrap();
        let expected = format!("a line has no room for the last {omitted} answers");
        assert!(why.contains(&expected), "{why}");
    }
}

#[test]
fn an_answer_without_room_for_its_data_is_listed_without_it() {
    let mut flow = Flow::new();
    flow.sent(Direction::Forward, 1, &Builder::query(1, "a"));
    let text: Vec<u8> = [&[250_u8], &[b'x'; 250][..]].concat().repeat(20);
    let response = Builder::new(1, RESPONSE)
        .question("a", A, IN)
        .record(1, "a", TXT, IN, 1, &text)
        .record(1, "a", A, IN, 1, &[1, 2, 3, 4]);
    flow.sent(Direction::Backward, 2, &response);
    let expected = "1 answered a [null, 1.2.3.4] a line has no room for the data of 1 answers";
    assert_eq!(briefs(&mut flow), [expected]);
}
