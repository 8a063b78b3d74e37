//! Recognizing HTTP, and the boundaries of its messages.

use pcapfs_tests::coding::chunked;
use pcapfs_tests::conversation::EPOCH;
use pcapfs_tests::{Client, Conversation, Filed, Server, skip_unless};
use serde_json::{Value, json};

use crate::case::{Case, Wanted, check, text};

pub(crate) fn framings() -> Vec<Case> {
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
fn bytes_after_an_upgrade_are_not_http_and_bytes_after_connect_may_be() {
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
            .wants(Wanted::new("GET", 200).gives("length", "hi"))
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
        let wanted = if id <= 6 { json!("http") } else { Value::Null };
        assert_eq!(filed.meta(id)["application"], wanted, "flow {id}");
        assert_eq!(filed.file(id, "http").exists(), id <= 6, "flow {id}");
    }
}
