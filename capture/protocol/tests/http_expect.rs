//! Requests that ask before they send their body: `Expect: 100-continue` (RFC 9110, 10.1.1).

mod http_support;

use http_support::{Memory, transactions};
use protocol::http::body::{self, DecodingLimits};
use protocol::http::direction::MessageRole;
use protocol::http::parser::{HttpParser, ParserLimits, StreamEnd};
use protocol::http::transaction::{HttpTransaction, TransactionState};
use protocol::time::Timestamp;

use MessageRole::{Request, Response};

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: h\r\n\r\n";
const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
const NO: &str = "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn asks(framing: &str) -> String {
    format!("PUT /up HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n{framing}\r\n\r\n")
}

/// Feeds the messages of both sides in turn, byte by byte or at once.
fn run(
    said: &[(MessageRole, &str)],
    bytewise: bool,
    how: StreamEnd,
) -> (Memory, Vec<HttpTransaction>) {
    let mut parser = HttpParser::new(ParserLimits::default());
    let mut memory = Memory::default();
    for (direction, text) in said {
        let stream = match direction {
            Request => &mut memory.request,
            Response => &mut memory.response,
        };
        for part in text.as_bytes().chunks(if bytewise { 1 } else { text.len() }) {
            parser.feed(*direction, stream.len() as u64, part, Timestamp::default());
            stream.extend(part);
        }
    }
    parser.end(Request, how);
    parser.end(Response, how);
    let found = transactions(&mut parser);
    (memory, found)
}

/// Target, status, state and body of each request.
fn shown(
    said: &[(MessageRole, &str)],
    bytewise: bool,
    how: StreamEnd,
) -> Vec<(String, Option<u16>, TransactionState, String)> {
    let (memory, mut found) = run(said, bytewise, how);
    found.sort_by_key(|one| one.index);
    let one = |one: &HttpTransaction| {
        let request = one.request.as_ref().unwrap();
        let status = one.response.as_ref().and_then(|message| message.head.as_ref()?.status());
        let body = body::read(&memory, Request, &request.body, &DecodingLimits::default());
        let target = request.head.as_ref().unwrap().target().unwrap().to_owned();
        (target, status, one.state, String::from_utf8(body.bytes).unwrap())
    };
    found.iter().map(one).collect()
}

#[test]
fn a_withheld_body_is_not_taken_from_the_next_message() {
    for framing in ["Content-Length: 1000", "Content-Length: 10", "Transfer-Encoding: chunked"] {
        for bytewise in [false, true] {
            let said = [(Request, &asks(framing)[..]), (Response, NO), (Request, NEXT)];
            let said = [&said[..], &[(Response, DONE), (Request, NEXT), (Response, DONE)]].concat();
            let next = ("/next".to_owned(), Some(200), TransactionState::Complete, String::new());
            let wanted = [
                ("/up".to_owned(), Some(417), TransactionState::Complete, String::new()),
                next.clone(),
                next,
            ];
            assert_eq!(shown(&said, bytewise, StreamEnd::Fin), wanted, "{framing} {bytewise}");
        }
    }
}

#[test]
fn a_body_that_is_sent_anyway_is_a_body() {
    let text = "0123456789";
    for bytewise in [false, true] {
        for before in [&[(Response, NO)][..], &[(Response, CONTINUE)], &[]] {
            let asks = asks("Content-Length: 10");
            let mut said = vec![(Request, &asks[..])];
            said.extend(before);
            said.push((Request, text));
            let status = if before == [(Response, NO)] { 417 } else { 200 };
            if status == 200 {
                said.push((Response, DONE));
            }
            said.extend([(Request, NEXT), (Response, DONE)]);
            let wanted = [
                ("/up".to_owned(), Some(status), TransactionState::Complete, text.to_owned()),
                ("/next".to_owned(), Some(200), TransactionState::Complete, String::new()),
            ];
            assert_eq!(shown(&said, bytewise, StreamEnd::Fin), wanted, "{before:?} {bytewise}");
        }
    }
}

#[test]
fn a_body_that_reads_like_a_request_is_a_body_unless_it_was_answered() {
    let asks = asks(&format!("Content-Length: {}", NEXT.len()));
    let said = [(Request, &asks[..]), (Response, CONTINUE), (Request, NEXT), (Response, DONE)];
    let wanted = [("/up".to_owned(), Some(200), TransactionState::Complete, NEXT.to_owned())];
    assert_eq!(shown(&said, true, StreamEnd::Fin), wanted);
    // Sent at once, without a wait.
    let said = [(Request, &asks[..]), (Request, NEXT), (Response, DONE)];
    assert_eq!(shown(&said, true, StreamEnd::Fin), wanted);
    // The client did not ask.
    let plain = asks.replace("Expect", "Accept");
    let said = [(Request, &plain[..]), (Response, DONE), (Request, NEXT)];
    assert_eq!(shown(&said, true, StreamEnd::Fin), wanted);
}

#[test]
fn a_connection_may_end_instead_of_the_body() {
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let asks = asks(framing);
        let said = [(Request, &asks[..]), (Response, NO)];
        let up = |state| [("/up".to_owned(), Some(417), state, String::new())];
        assert_eq!(shown(&said, false, StreamEnd::Fin), up(TransactionState::Complete));
        assert_eq!(
            shown(&[(Request, &asks[..])], false, StreamEnd::Fin)[0].2,
            TransactionState::Truncated
        );
    }
    let said = [(Request, &asks("Content-Length: 1000")[..]), (Response, NO)];
    assert_eq!(shown(&said, false, StreamEnd::Reset)[0].2, TransactionState::Aborted);
}
