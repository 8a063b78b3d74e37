//! Transactions that break off, and transactions that were not captured completely.

use pcapfs_tests::conversation::noise;
use pcapfs_tests::flows::json;
use pcapfs_tests::{Client, Conversation, Filed, Server, skip_unless};
use serde_json::{Value, json};

use crate::case::{Case, Wanted, check, is_record, text};
use crate::har::har_is_valid;

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
    // The capture begins with the response to a request that was not captured.
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
