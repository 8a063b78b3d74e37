//! Bodies that are compressed or claim to be.

use pcapfs_tests::coding::{brotli, chunked, deflate, gzip, raw_deflate, zstd};
use pcapfs_tests::conversation::noise;
use pcapfs_tests::flows::{json, lines};
use pcapfs_tests::{Client, Filed, Server, skip_unless};

use crate::case::{Case, Wanted, check, text};

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
            .wants(
                Wanted::new("GET", 200)
                    .gives("length", "as plain as can be")
                    .encoded(encoding)
                    .marked(),
            )
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
        let record = filed.http(1).remove(0);
        let why = record["why"].as_str().unwrap_or_default();
        assert!(why.starts_with("response body: the "), "{record:#}");
        assert_eq!(lines(&filed.daemon.path("web/http.jsonl")), [record]);
    }
}

#[test]
fn more_encodings_than_are_undone_leave_the_body_as_it_was_sent() {
    skip_unless!(mount, "python3");
    let packed = (0..8).fold(vec![0; 1 << 20], |bytes, _| gzip(&bytes));
    let encoding = ["gzip"; 8].join(", ");
    let case = Case::new("eight")
        .request("GET /x HTTP/1.1\nHost: a.example")
        .ok(&format!("Content-Encoding: {encoding}"), &packed[..])
        .close(Client);
    let filed = Filed::of([case.talk]);
    let record = filed.http(1).remove(0);
    assert_eq!(
        (&record["state"], record["response_body"]["bytes"].as_u64()),
        (&"complete".into(), Some(packed.len() as u64))
    );
    let why = record["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("response body: it has more encodings"), "{why:?}");
    let body = filed.read(1, record["response_body"]["file"].as_str().unwrap());
    assert!(body == packed, "it differs from the body that was sent");
    let har = json(&filed.file(1, "http.har"));
    let comment = &har["log"]["entries"][0]["response"]["content"]["comment"];
    assert!(comment.as_str().unwrap_or_default().contains("more encodings"), "{comment}");
}

#[test]
fn an_incomplete_body_is_marked() {
    skip_unless!(mount, "python3");
    let text = text();
    let mut unchecked = gzip(&text);
    let checksum = unchecked.len() - 8;
    unchecked[checksum] ^= 1;
    let short = unchecked[..checksum / 2].to_vec();
    for (body, wanted) in [(unchecked, "checksum"), (short, "breaks off")] {
        let case = Case::new(wanted)
            .request("GET /x HTTP/1.1\nHost: a.example")
            .ok("Content-Encoding: gzip", body)
            .close(Client);
        let filed = Filed::of([case.talk]);
        let record = filed.http(1).remove(0);
        assert_eq!(record["state"], "complete", "{record:#}");
        let why = record["why"].as_str().unwrap_or_default();
        assert!(why.starts_with("response body: ") && why.contains(wanted), "{why:?}, {wanted}");
        assert_eq!(lines(&filed.daemon.path("web/http.jsonl")), [record]);
    }
}

#[test]
fn truncated_compressed_data_is_decoded_up_to_its_end() {
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
