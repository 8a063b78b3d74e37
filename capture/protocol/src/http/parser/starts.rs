//! Decides between messages, after skipping blanks, whether a message begins.
//!
//! Only junk before a status line is consumed here. The next step reads the message from its first
//! byte.

use super::Parser;
use super::side::Phase;
use super::step::Step;
use crate::http::direction::Direction;
use crate::http::head::Scan;
use crate::http::probe::{self, ProxyLine, Verdict};
use crate::http::resync::{self, Found};
use crate::time::Timestamp;

impl Parser {
    pub(super) fn start_request(&mut self, rest: &[u8], at: u64, eof: bool) -> Step {
        const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";
        if !self.request.began {
            match probe::proxy_line(rest) {
                ProxyLine::Whole(length) => {
                    self.stray(length);
                    self.request.passed_over = true;
                    return Step::Consumed(length);
                }
                ProxyLine::Begun if !eof => return Step::More,
                ProxyLine::Begun | ProxyLine::No => {}
            }
        }
        if HTTP2.starts_with(rest.get(..HTTP2.len()).unwrap_or(rest)) {
            if rest.len() >= HTTP2.len() {
                self.switch(at, self.response.next);
                return Step::Again;
            }
            if !eof {
                return Step::More;
            }
        }
        let begins = if self.joined && !self.request.began {
            begins_joined(Direction::Request, rest)
        } else {
            match probe::begins_request(rest) {
                Verdict::No => claims_http(rest, eof),
                verdict => verdict,
            }
        };
        match begins {
            Verdict::Yes => self.request.phase = Phase::Head(Scan::default()),
            Verdict::NotYet => return Step::More,
            Verdict::No => {
                self.request.passed_over = self.request.began || !self.joined;
                self.lose(Direction::Request);
            }
        }
        Step::Again
    }

    pub(super) fn start_response(
        &mut self,
        rest: &[u8],
        at: u64,
        first: Timestamp,
        eof: bool,
    ) -> Step {
        let begins = if self.joined && !self.response.began {
            match begins_joined(Direction::Response, rest) {
                Verdict::Yes => Begins::Here(0),
                Verdict::NotYet if !eof => Begins::NotYet,
                Verdict::NotYet | Verdict::No => Begins::Not,
            }
        } else {
            begins_response(rest, self.limits.junk_line, eof)
        };
        match begins {
            Begins::Here(0) => {
                self.response.forbidden = None;
                self.response.phase = Phase::Head(Scan::default());
                Step::Again
            }
            Begins::Here(junk) => {
                self.stray(junk);
                self.response.passed_over = true;
                self.response.forbidden = None;
                self.response.phase = Phase::Head(Scan::default());
                Step::Consumed(junk)
            }
            Begins::NotYet => Step::More,
            Begins::Not => {
                self.headless(at, first);
                Step::Again
            }
        }
    }
}

/// Whether the first message begins here, in a stream that may begin with the rest of another one.
///
/// Such a rest may look like a start line to lenient servers and clients. So it is no message if a
/// regular start line begins within it.
fn begins_joined(direction: Direction, bytes: &[u8]) -> Verdict {
    match resync::find(direction, bytes) {
        Found::At(0) => Verdict::Yes,
        Found::At(_) => Verdict::No,
        Found::Keep(_) => probe::probe_joined(direction, bytes),
    }
}

/// Whether the first line ends like a request line, although it does not begin like one. The client
/// meant a request, and a server answers it even if it cannot read it. Not if a request begins
/// within the line, as after a body that is longer than announced.
fn claims_http(bytes: &[u8], eof: bool) -> Verdict {
    let is_text = |byte: &u8| *byte >= b' ' && *byte != 0x7f || *byte == b'\t';
    let Some(end) = bytes.iter().take(resync::LINE).position(|byte| !is_text(byte)) else {
        return if bytes.len() < resync::LINE { Verdict::NotYet } else { Verdict::No };
    };
    let (line, rest) = bytes.split_at(end);
    let claims = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    match rest {
        [b'\r'] if claims && !eof => return Verdict::NotYet,
        [b'\n', ..] | [b'\r', b'\n', ..] if claims => {}
        _ => return Verdict::No,
    }
    match resync::find(Direction::Request, bytes) {
        Found::At(at) if at < end => Verdict::No,
        Found::Keep(at) if at < end && !eof => Verdict::NotYet,
        Found::At(_) | Found::Keep(_) => Verdict::Yes,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    /// It begins after this many bytes of junk.
    Here(usize),
    Not,
    NotYet,
}

/// Whether a response begins: `HTTP`, after up to four bytes or one line of junk.
fn begins_response(bytes: &[u8], junk_line: usize, eof: bool) -> Begins {
    const WORD: &[u8] = b"HTTP";
    const JUNK: usize = 4;
    let is = |at: usize| {
        let rest = bytes.get(at..).unwrap_or_default();
        let part = rest.get(..WORD.len()).unwrap_or(rest);
        let begins = WORD.get(..part.len()).is_some_and(|word| word.eq_ignore_ascii_case(part));
        match rest.get(WORD.len()) {
            _ if !begins => Verdict::No,
            None => Verdict::NotYet,
            Some(b'/' | b' ' | b'\t') => Verdict::Yes,
            Some(_) => Verdict::No,
        }
    };
    if bytes.starts_with(b"ICY ") {
        return Begins::Here(0);
    }
    for at in 0..=JUNK {
        match is(at) {
            Verdict::Yes => return Begins::Here(at),
            Verdict::NotYet if !eof => return Begins::NotYet,
            Verdict::NotYet | Verdict::No => {}
        }
    }
    match bytes.iter().take(junk_line).position(|byte| *byte == b'\n') {
        Some(end) => match is(end.saturating_add(1)) {
            Verdict::Yes => Begins::Here(end.saturating_add(1)),
            Verdict::NotYet if !eof => Begins::NotYet,
            Verdict::NotYet | Verdict::No => Begins::Not,
        },
        None if bytes.len() >= junk_line || eof => Begins::Not,
        None => Begins::NotYet,
    }
}
