//! Malformed requests: the captured part of each is listed, and nothing else is taken for a
//! request.

mod http_support;

use http_support::{Memory, exchange, transactions};
use protocol::http::body::framed::Framing;
use protocol::http::body::{self, DecodingLimits};
use protocol::http::direction::MessageRole;
use protocol::http::parser::{HttpParser, ParserLimits, StreamEnd};
use protocol::http::transaction::{HttpTransaction, TransactionState};
use protocol::time::Timestamp;

const BAD: &str = "HTTP/1.1 400 X\r\nContent-Length: 3\r\n\r\nbad";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const JUNK: &str = "bytes in front of the request belong to no message";

fn target(one: &HttpTransaction) -> Option<&str> {
    one.request.as_ref()?.head.as_ref()?.target()
}

fn method(one: &HttpTransaction) -> Option<&str> {
    one.request.as_ref()?.head.as_ref()?.method()
}

fn status(one: &HttpTransaction) -> Option<u16> {
    one.response.as_ref()?.head.as_ref()?.status()
}

/// The transactions of an exchange, which do not depend on where the request is cut in two.
fn exchanges(request: &str, response: &str) -> Vec<HttpTransaction> {
    let whole = exchange(request.as_bytes(), response.as_bytes(), StreamEnd::Fin);
    for cut in 1..request.len() {
        let time = Timestamp::from_nanoseconds;
        let mut parser = HttpParser::new(ParserLimits::default());
        let (first, rest) = request.as_bytes().split_at(cut);
        parser.feed(MessageRole::Request, 0, first, time(1));
        parser.feed(MessageRole::Request, cut as u64, rest, time(1));
        parser.feed(MessageRole::Response, 0, response.as_bytes(), time(2));
        parser.end(MessageRole::Response, StreamEnd::Fin);
        parser.end(MessageRole::Request, StreamEnd::Fin);
        assert_eq!(transactions(&mut parser), whole, "{request:?} cut at {cut}");
    }
    whole
}

#[test]
fn a_request_whose_first_line_is_malformed_was_captured() {
    for line in [
        "GET/ HTTP/1.1",
        "G(T / HTTP/1.1",
        ": / HTTP/1.0",
        "GET HTTP/1.1",
        "(GET) /a b HTTP/1.1",
        "G\u{c9}T / HTTP/1.1",
    ] {
        let request = format!("{line}\r\nHost: example.org\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
        let found = exchanges(&request, &format!("{BAD}{OK}"));
        assert_eq!(found.len(), 2, "{line}: {found:#?}");
        let message = found[0].request.as_ref().unwrap();
        let len = request.find("GET /2").unwrap() as u64;
        assert_eq!((&message.head, &message.head_range), (&None, &(0..len)), "{line}");
        assert_eq!(message.body.framing, Framing::None);
        assert_eq!(found[0].why.as_deref(), Some("the request line is malformed"), "{line}");
        assert_eq!(
            (found[0].state, status(&found[0])),
            (TransactionState::Malformed, Some(400)),
            "{line}"
        );
        assert_eq!((target(&found[1]), status(&found[1])), (Some("/2"), Some(200)), "{line}");
        assert_eq!(found[1].why_or_remark(), None, "{line}");
    }
}

#[test]
fn a_malformed_request_that_breaks_off_was_captured() {
    let mut parser = HttpParser::new(ParserLimits::default());
    parser.feed(MessageRole::Request, 0, b"GET/ HTTP/1.1\r\nHost: exa", Timestamp::default());
    parser.gap(MessageRole::Request, 24, 40);
    parser.feed(MessageRole::Response, 0, BAD.as_bytes(), Timestamp::default());
    parser.end(MessageRole::Response, StreamEnd::Fin);
    parser.end(MessageRole::Request, StreamEnd::Fin);
    let found = transactions(&mut parser);
    assert_eq!(
        (found.len(), found[0].state, status(&found[0])),
        (1, TransactionState::Malformed, Some(400))
    );
    assert!(found[0].request.is_some());
}

#[test]
fn the_rest_of_a_body_before_a_request_is_not_a_request() {
    let request = "POST /1 HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi{1}GET /2 HTTP/1.1\r\n\r\n";
    let found = exchanges(request, &OK.repeat(2));
    assert_eq!(found.iter().map(target).collect::<Vec<_>>(), [Some("/1"), Some("/2")]);
    assert_eq!(found[1].remark, Some(JUNK));
}

#[test]
fn a_proxy_line_is_not_a_request() {
    for line in [
        "PROXY TCP4 198.51.100.7 192.0.2.80 5555 80",
        "PROXY TCP6 2001:db8::1 2001:db8::2 5555 80",
        "PROXY UNKNOWN",
        "PROXY UNKNOWN and what a receiver passes over",
    ] {
        let request = format!("{line}\r\nGET /a HTTP/1.1\r\nHost: p\r\n\r\n");
        let found = exchanges(&request, OK);
        assert_eq!(found.len(), 1, "{line}: {found:#?}");
        let one = &found[0];
        assert_eq!((method(one), target(one), one.host()), (Some("GET"), Some("/a"), Some("p")));
        assert_eq!(
            (one.state, status(one), one.remark),
            (TransactionState::Complete, Some(200), Some(JUNK))
        );
    }
    // Two proxies, each with its own line.
    let request = "PROXY UNKNOWN\r\nPROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\nGET /a HTTP/1.1\r\n\r\n";
    assert_eq!(exchanges(request, OK).iter().map(target).collect::<Vec<_>>(), [Some("/a")]);
    // It is none after the first request, and a line of 108 bytes is none anywhere.
    let request = "GET /1 HTTP/1.1\r\n\r\nPROXY UNKNOWN\r\nHost: p\r\n\r\n".to_owned();
    let long = format!("PROXY UNKNOWN{}\r\nHost: p\r\n\r\n", " ".repeat(93));
    for request in [request, long] {
        let found = exchanges(&request, &OK.repeat(2));
        assert!(found.iter().any(|one| one.state == TransactionState::Malformed), "{request:?}");
    }
}

#[test]
fn without_a_version_only_a_known_method_makes_a_request() {
    for (line, is_request) in [("GET /a", true), ("POST /a", true), ("HELLO there", false)] {
        let found = exchanges(&format!("{line}\r\n\r\n"), OK);
        assert_eq!(found.len(), 1, "{line}: {found:#?}");
        assert_eq!(method(&found[0]).is_some(), is_request, "{line}");
        let state =
            if is_request { TransactionState::Complete } else { TransactionState::Malformed };
        assert_eq!((found[0].state, status(&found[0])), (state, Some(200)), "{line}");
    }
}

#[test]
fn a_request_line_that_breaks_off_is_listed_as_far_as_it_goes() {
    let request = "GET /images/pic.gif HTTP/1.1\r\nHost: h\r\n\r\n";
    for (cut, expected, version) in [
        (5, "/", None),
        (11, "/images", None),
        (19, "/images/pic.gif", None),
        (20, "/images/pic.gif", None),
        (22, "/images/pic.gif", None),
        (26, "/images/pic.gif", None),
        (28, "/images/pic.gif", Some("HTTP/1.1")),
        (30, "/images/pic.gif", Some("HTTP/1.1")),
    ] {
        let mut parser = HttpParser::new(ParserLimits::default());
        let time = Timestamp::default();
        parser.feed(MessageRole::Request, 0, &request.as_bytes()[..cut], time);
        parser.gap(MessageRole::Request, cut as u64, request.len() as u64);
        parser.feed(MessageRole::Response, 0, OK.as_bytes(), time);
        parser.end(MessageRole::Response, StreamEnd::Fin);
        parser.end(MessageRole::Request, StreamEnd::Fin);
        let found = transactions(&mut parser);
        assert_eq!(found.len(), 1, "{cut}: {found:#?}");
        let head = found[0].request.as_ref().unwrap().head.as_ref().unwrap();
        let line = (head.method(), head.target(), head.version());
        assert_eq!(line, (Some("GET"), Some(expected), version), "{cut}");
        assert_eq!(
            (found[0].state, status(&found[0])),
            (TransactionState::Gap, Some(200)),
            "{cut}"
        );
        assert_eq!(found[0].why.as_deref(), Some("bytes are missing in a head"), "{cut}");
        // Reading the range again later gives the same bytes.
        let range = found[0].request.as_ref().unwrap().head_range.clone();
        let end = usize::try_from(range.end).unwrap();
        assert!(request[..end].contains(expected) && end <= cut, "{cut}");
    }
    for line in ["GET ", "GET", "HELLO /there", "GET HTTP/1"] {
        let mut parser = HttpParser::new(ParserLimits::default());
        parser.feed(MessageRole::Request, 0, line.as_bytes(), Timestamp::default());
        parser.gap(MessageRole::Request, line.len() as u64, 100);
        parser.end(MessageRole::Request, StreamEnd::Fin);
        parser.end(MessageRole::Response, StreamEnd::Fin);
        assert_eq!(transactions(&mut parser), [], "{line:?}");
    }
}

#[test]
fn sizes_of_chunks_are_read_as_browsers_read_them() {
    use Framing::{Chunked, Close};
    for (body, framing, expected) in [
        ("5x\r\nhello\r\n6x\r\n world\r\n0\r\n\r\n", Chunked, "hello world"),
        ("5x\r\nhello\r\n6(a)\r\n world\r\n0x\r\n\r\n", Chunked, "hello world"),
        ("5\u{e9}\nhello\n0\n\n", Chunked, "hello"),
        ("5x\r\nhello!\r\n0\r\n\r\n", Close, "5x\r\nhello!\r\n0\r\n\r\n"),
        ("5x\r\nhello", Close, "5x\r\nhello"),
        ("a body", Close, "a body"),
    ] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (request, response) = ("GET / HTTP/1.1\r\n\r\n", format!("{head}{body}"));
        for cut in 1..response.len() {
            let mut parser = HttpParser::new(ParserLimits::default());
            let (first, rest) = response.as_bytes().split_at(cut);
            let time = Timestamp::default();
            parser.feed(MessageRole::Request, 0, request.as_bytes(), time);
            parser.feed(MessageRole::Response, 0, first, time);
            parser.feed(MessageRole::Response, cut as u64, rest, time);
            parser.end(MessageRole::Response, StreamEnd::Fin);
            parser.end(MessageRole::Request, StreamEnd::Fin);
            let found = transactions(&mut parser);
            assert_eq!(
                (found.len(), found[0].state),
                (1, TransactionState::Complete),
                "{body:?} {cut}"
            );
            let answer = &found[0].response.as_ref().unwrap().body;
            assert_eq!(answer.framing, framing, "{body:?} cut at {cut}");
            let memory = Memory { request: request.into(), response: response.clone().into() };
            let read =
                body::read(&memory, MessageRole::Response, answer, &DecodingLimits::default());
            assert_eq!(String::from_utf8_lossy(&read.bytes), expected, "cut at {cut}");
        }
    }
}
