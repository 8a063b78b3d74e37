//! Requests that ask before they send their body: `Expect: 100-continue` (RFC 9110, 10.1.1).

mod http_support;

use http_support::{Memory, transactions};
use protocol::http::body::{self, Limits as BodyLimits};
use protocol::http::direction::Direction;
use protocol::http::parser::{End, Limits, Parser};
use protocol::http::transaction::{State, Transaction};
use protocol::time::Timestamp;

use Direction::{Request, Response};

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: h\r\n\r\n";
const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
const NO: &str = "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn asks(framing: &str) -> String {
    format!("PUT /up HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n{framing}\r\n\r\n")
}

/// Feeds the messages of both sides in turn, byte by byte or at once.
fn run(said: &[(Direction, &str)], bytewise: bool, how: End) -> (Memory, Vec<Transaction>) {
    let mut parser = Parser::new(Limits::default());
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
    said: &[(Direction, &str)],
    bytewise: bool,
    how: End,
) -> Vec<(String, Option<u16>, State, String)> {
    let (memory, mut found) = run(said, bytewise, how);
    found.sort_by_key(|one| one.index);
    let one = |one: &Transaction| {
        let request = one.request.as_ref().unwrap();
        let status = one.response.as_ref().and_then(|message| message.head.as_ref()?.status());
        let body = body::read(&memory, Request, &request.body, &BodyLimits::default());
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
            let next = ("/next".to_owned(), Some(200), State::Complete, String::new());
            let wanted =
                [("/up".to_owned(), Some(417), State::Complete, String::new()), next.clone(), next];
            assert_eq!(shown(&said, bytewise, End::Fin), wanted, "{framing} {bytewise}");
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
                ("/up".to_owned(), Some(status), State::Complete, text.to_owned()),
                ("/next".to_owned(), Some(200), State::Complete, String::new()),
            ];
            assert_eq!(shown(&said, bytewise, End::Fin), wanted, "{before:?} {bytewise}");
        }
    }
}

#[test]
fn a_body_that_reads_like_a_request_is_a_body_unless_it_was_answered() {
    let asks = asks(&format!("Content-Length: {}", NEXT.len()));
    let said = [(Request, &asks[..]), (Response, CONTINUE), (Request, NEXT), (Response, DONE)];
    let wanted = [("/up".to_owned(), Some(200), State::Complete, NEXT.to_owned())];
    assert_eq!(shown(&said, true, End::Fin), wanted);
    // Sent at once, without a wait.
    let said = [(Request, &asks[..]), (Request, NEXT), (Response, DONE)];
    assert_eq!(shown(&said, true, End::Fin), wanted);
    // The client did not ask.
    let plain = asks.replace("Expect", "Accept");
    let said = [(Request, &plain[..]), (Response, DONE), (Request, NEXT)];
    assert_eq!(shown(&said, true, End::Fin), wanted);
}

#[test]
fn a_connection_may_end_instead_of_the_body() {
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let asks = asks(framing);
        let said = [(Request, &asks[..]), (Response, NO)];
        let up = |state| [("/up".to_owned(), Some(417), state, String::new())];
        assert_eq!(shown(&said, false, End::Fin), up(State::Complete));
        assert_eq!(shown(&[(Request, &asks[..])], false, End::Fin)[0].2, State::Truncated);
    }
    let said = [(Request, &asks("Content-Length: 1000")[..]), (Response, NO)];
    assert_eq!(shown(&said, false, End::Reset)[0].2, State::Aborted);
}
