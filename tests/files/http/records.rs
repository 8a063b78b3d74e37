//! The records of transactions, the transcript and `http.har`.

use std::fs;

use pcapfs_tests::coding::gzip;
use pcapfs_tests::conversation::{EPOCH, noise, savefile_of};
use pcapfs_tests::flows::{flow, json, lines, names, parsed};
use pcapfs_tests::{ALIAS, Client, Conversation, Filed, Server, run, skip_unless, tool};
use serde_json::json;

use crate::case::Case;
use crate::framing::framings;
use crate::har::har_is_valid;

#[test]
fn terminals_have_nothing_to_obey() {
    skip_unless!(mount);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").at(EPOCH);
    talk.open();
    // C1 controls, which take two bytes in UTF-8, and delete.
    talk.says(Client, "GET /\u{9b}2J HTTP/1.1\r\nHost: \u{9d}0;x\u{9c}\r\nA: \u{90}\u{7f}\r\n\r\n");
    talk.says(Server, "HTTP/1.1 200 O\u{85}K\r\nContent-Length: 0\r\nB: \u{9b}31m\r\n\r\n")
        .close(Client);
    let filed = Filed::of([talk]);
    assert_eq!(filed.http(1).len(), 1);
    let files = ["http", "http.jsonl", "http.har", "meta.json"].map(|name| filed.read(1, name));
    let logs = ["http.jsonl", "flows.jsonl"]
        .map(|name| fs::read(filed.daemon.path("web").join(name)).unwrap());
    for text in files.into_iter().chain(logs) {
        let text = String::from_utf8(text).unwrap();
        let obeyed = text.chars().find(|one| one.is_control() && !"\r\n\t".contains(*one));
        assert_eq!(obeyed, None, "{text:?}");
    }
}

#[test]
fn a_record_has_every_field() {
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
        "capture": ALIAS, "flow": 1, "index": 1,
        "client": {"address": "10.0.0.1", "port": 40_000},
        "server": {"address": "10.0.0.2", "port": 80},
        // Four steps from the first segment of the request to the last of the response.
        "duration_us": 4 * 1_000_001 / 1_000, "method": "POST", "target": "/api/items?x=1",
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

    // The `http.har` of the capture has the entries of all flows, in the order of the flows.
    let path = filed.daemon.path("web/http.har");
    let size = fs::metadata(&path).unwrap().len();
    let har = json(&path);
    assert_eq!(fs::read(&path).unwrap().len() as u64, size);
    har_is_valid(&har, all.len());
    let entries = |har: &serde_json::Value| har["log"]["entries"].as_array().unwrap().clone();
    let of_flows = (1..=cases.len() as u64).flat_map(|id| {
        let path = flow(&filed.daemon, id).join("http.har");
        entries(&json(&path))
    });
    assert_eq!(entries(&har), of_flows.collect::<Vec<_>>());
    let copy = tempfile::tempdir().unwrap();
    let copied = copy.path().join("copy.har");
    drop(run(tool("cp").arg(&path).arg(&copied), 10).success());
    assert_eq!(fs::read(&copied).unwrap(), fs::read(&path).unwrap());
}
