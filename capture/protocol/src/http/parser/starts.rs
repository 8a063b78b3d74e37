//! Decides between messages, after skipping blanks, whether a message begins.
//!
//! Only junk before a status line is consumed here. The next step reads the message from its first
//! byte.

use super::HttpParser;
use super::side::MessagePhase;
use super::step::ParserStep;
use crate::http::direction::MessageRole;
use crate::http::head::Scan;
use crate::http::probe::{self, ProxyLine};
use crate::http::resync::{self, ResyncResult};
use crate::time::Timestamp;
use crate::verdict::ProbeVerdict;

impl HttpParser {
    pub(super) fn start_request(&mut self, rest: &[u8], at: u64, eof: bool) -> ParserStep {
        const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";
        if !self.request.began {
            match probe::proxy_line(rest) {
                ProxyLine::Whole(length) => {
                    self.stray(length);
                    self.request.passed_over = true;
                    return ParserStep::Consumed(length);
                }
                ProxyLine::Begun if !eof => return ParserStep::More,
                ProxyLine::Begun | ProxyLine::No => {}
            }
        }
        if HTTP2.starts_with(rest.get(..HTTP2.len()).unwrap_or(rest)) {
            if rest.len() >= HTTP2.len() {
                self.switch(at, self.response.next);
                return ParserStep::Again;
            }
            if !eof {
                return ParserStep::More;
            }
        }
        let begins = if self.joined && !self.request.began {
            begins_joined(MessageRole::Request, rest)
        } else {
            match probe::begins_request(rest) {
                ProbeVerdict::No => claims_http(rest, eof),
                verdict => verdict,
            }
        };
        match begins {
            ProbeVerdict::Yes => self.request.phase = MessagePhase::Head(Scan::default()),
            ProbeVerdict::NotYet => return ParserStep::More,
            ProbeVerdict::No => {
                self.request.passed_over = self.request.began || !self.joined;
                self.lose(MessageRole::Request);
            }
        }
        ParserStep::Again
    }

    pub(super) fn start_response(
        &mut self,
        rest: &[u8],
        at: u64,
        first: Timestamp,
        eof: bool,
    ) -> ParserStep {
        let begins = if self.joined && !self.response.began {
            match begins_joined(MessageRole::Response, rest) {
                ProbeVerdict::Yes => Begins::Here(0),
                ProbeVerdict::NotYet if !eof => Begins::NotYet,
                ProbeVerdict::NotYet | ProbeVerdict::No => Begins::Not,
            }
        } else {
            begins_response(rest, self.limits.junk_line, eof)
        };
        match begins {
            Begins::Here(0) => {
                self.response.forbidden = None;
                self.response.phase = MessagePhase::Head(Scan::default());
                ParserStep::Again
            }
            Begins::Here(junk) => {
                self.stray(junk);
                self.response.passed_over = true;
                self.response.forbidden = None;
                self.response.phase = MessagePhase::Head(Scan::default());
                ParserStep::Consumed(junk)
            }
            Begins::NotYet => ParserStep::More,
            Begins::Not => {
                self.headless(at, first);
                ParserStep::Again
            }
        }
    }
}

/// Whether the first message begins here, in a stream that may begin with the rest of another one.
///
/// Such a rest may look like a start line to lenient servers and clients. So it is no message if a
/// regular start line begins within it.
fn begins_joined(direction: MessageRole, bytes: &[u8]) -> ProbeVerdict {
    match resync::find(direction, bytes) {
        ResyncResult::At(0) => ProbeVerdict::Yes,
        ResyncResult::At(_) => ProbeVerdict::No,
        ResyncResult::Keep(_) => probe::probe_joined(direction, bytes),
    }
}

/// Whether the first line ends like a request line, although it does not begin like one. The client
/// meant a request, and a server answers it even if it cannot read it. Not if a request begins
/// within the line, as after a body that is longer than announced.
fn claims_http(bytes: &[u8], eof: bool) -> ProbeVerdict {
    let is_text = |byte: &u8| *byte >= b' ' && *byte != 0x7f || *byte == b'\t';
    let Some(end) = bytes.iter().take(resync::LINE).position(|byte| !is_text(byte)) else {
        return if bytes.len() < resync::LINE { ProbeVerdict::NotYet } else { ProbeVerdict::No };
    };
    let (line, rest) = bytes.split_at(end);
    let claims = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    match rest {
        [b'\r'] if claims && !eof => return ProbeVerdict::NotYet,
        [b'\n', ..] | [b'\r', b'\n', ..] if claims => {}
        _ => return ProbeVerdict::No,
    }
    match resync::find(MessageRole::Request, bytes) {
        ResyncResult::At(at) if at < end => ProbeVerdict::No,
        ResyncResult::Keep(at) if at < end && !eof => ProbeVerdict::NotYet,
        ResyncResult::At(_) | ResyncResult::Keep(_) => ProbeVerdict::Yes,
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
            _ if !begins => ProbeVerdict::No,
            None => ProbeVerdict::NotYet,
            Some(b'/' | b' ' | b'\t') => ProbeVerdict::Yes,
            Some(_) => ProbeVerdict::No,
        }
    };
    if bytes.starts_with(b"ICY ") {
        return Begins::Here(0);
    }
    for at in 0..=JUNK {
        match is(at) {
            ProbeVerdict::Yes => return Begins::Here(at),
            ProbeVerdict::NotYet if !eof => return Begins::NotYet,
            ProbeVerdict::NotYet | ProbeVerdict::No => {}
        }
    }
    match bytes.iter().take(junk_line).position(|byte| *byte == b'\n') {
        Some(end) => match is(end.saturating_add(1)) {
            ProbeVerdict::Yes => Begins::Here(end.saturating_add(1)),
            ProbeVerdict::NotYet if !eof => Begins::NotYet,
            ProbeVerdict::NotYet | ProbeVerdict::No => Begins::Not,
        },
        None if bytes.len() >= junk_line || eof => Begins::Not,
        None => Begins::NotYet,
    }
}
