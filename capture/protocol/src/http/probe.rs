//! Recognizes HTTP/1 by the first bytes of a stream, on any port.

use super::chunked::is_blank;
use super::direction::MessageRole;
use crate::verdict::ProbeVerdict;

/// Methods whose name alone is a good sign: RFC 9110, RFC 5789 and WebDAV.
pub(super) const METHODS: [&[u8]; 18] = [
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"CONNECT",
    b"PATCH",
    b"TRACE",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"SEARCH",
];

/// Maximum number of blanks before the first message of a stream.
const BLANKS: usize = 16;

/// Maximum length of a method. The longest registered one has 16 characters.
const METHOD: usize = 24;

/// Maximum length of a request line that is read if its beginning does not decide.
const LINE: usize = 4096;

/// Whether the stream that begins with `bytes` is one side of an HTTP/1 connection.
///
/// A connection is HTTP as soon as one side says yes. A no only decides if both sides say it, since
/// a response may begin with anything (HTTP/0.9, junk that browsers skip).
#[must_use]
pub fn probe(direction: MessageRole, bytes: &[u8]) -> ProbeVerdict {
    let blanks = bytes.iter().take_while(|byte| is_blank(**byte)).count();
    if blanks > BLANKS {
        return ProbeVerdict::No;
    }
    let bytes = bytes.get(blanks..).unwrap_or_default();
    match direction {
        MessageRole::Request => request(bytes),
        MessageRole::Response => response(bytes),
    }
}

/// The same for a stream that may begin within a message. The end of a request line looks like a
/// status line without a status, so a status is required.
#[must_use]
pub fn probe_joined(direction: MessageRole, bytes: &[u8]) -> ProbeVerdict {
    match (direction, probe(direction, bytes)) {
        (MessageRole::Response, ProbeVerdict::Yes) => status(bytes.trim_ascii_start()),
        (_, verdict) => verdict,
    }
}

/// Whether a number follows the first word of a line.
fn status(line: &[u8]) -> ProbeVerdict {
    let mut words = line.splitn(2, |byte| is_blank(*byte) || *byte == b'\n');
    match (words.next(), words.next().and_then(|rest| rest.trim_ascii_start().first())) {
        (Some(version), None) if version.len() >= LINE => ProbeVerdict::No,
        (_, None) => ProbeVerdict::NotYet,
        (_, Some(byte)) if byte.is_ascii_digit() => ProbeVerdict::Yes,
        _ => ProbeVerdict::No,
    }
}

fn response(bytes: &[u8]) -> ProbeVerdict {
    let begins = |word: &[u8]| {
        let length = word.len().min(bytes.len());
        bytes.get(..length).zip(word.get(..length)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    match bytes.get(5) {
        None if begins(b"HTTP/") || begins(b"ICY ") => ProbeVerdict::NotYet,
        Some(digit) if begins(b"HTTP/") && digit.is_ascii_digit() => ProbeVerdict::Yes,
        Some(_) if begins(b"ICY ") => ProbeVerdict::Yes,
        _ => ProbeVerdict::No,
    }
}

fn request(bytes: &[u8]) -> ProbeVerdict {
    let bytes = match proxy_line(bytes) {
        ProxyLine::Whole(len) => bytes.get(len..).unwrap_or_default(),
        ProxyLine::Begun => return ProbeVerdict::NotYet,
        ProxyLine::No => bytes,
    };
    let length = bytes.iter().take(METHOD).take_while(|byte| is_method(**byte)).count();
    let (method, rest) = bytes.split_at(length);
    match rest {
        [] if length < METHOD => return ProbeVerdict::NotYet,
        [b' ' | b'\t', ..] if length > 0 => {}
        _ => return ProbeVerdict::No,
    }
    let target = rest.get(1..).unwrap_or_default();
    let known = METHODS.contains(&method);
    match target {
        [] => return ProbeVerdict::NotYet,
        [b'/', ..] if known => return ProbeVerdict::Yes,
        _ if known && target.starts_with(b"http") => return ProbeVerdict::Yes,
        _ => {}
    }
    match target.iter().take(LINE).position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = target.get(..end).unwrap_or_default().trim_ascii_end();
            let version = line.iter().rposition(|byte| *byte == b' ');
            let version = version.and_then(|at| line.get(at.saturating_add(1)..));
            match version {
                Some([b'H', b'T', b'T', b'P', b'/', digit, ..]) if digit.is_ascii_digit() => {
                    ProbeVerdict::Yes
                }
                _ => ProbeVerdict::No,
            }
        }
        None if target.len() >= LINE || target.iter().any(|byte| *byte < b'\t') => ProbeVerdict::No,
        None => ProbeVerdict::NotYet,
    }
}

const fn is_method(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Whether a request may begin here: a method and a blank.
pub(super) fn begins_request(bytes: &[u8]) -> ProbeVerdict {
    let length = bytes.iter().take(METHOD).take_while(|byte| is_method(**byte)).count();
    match bytes.get(length) {
        Some(b' ' | b'\t') if length > 0 => ProbeVerdict::Yes,
        None if length < METHOD => ProbeVerdict::NotYet,
        _ => ProbeVerdict::No,
    }
}

/// Returns `true` if an incomplete request line contains a known method and at least the first byte
/// of the target.
pub(super) fn names_target(bytes: &[u8]) -> bool {
    let length = bytes.iter().take(METHOD).take_while(|byte| is_method(**byte)).count();
    let (method, rest) = bytes.split_at(length);
    METHODS.contains(&method)
        && rest.first().is_some_and(|byte| is_blank(*byte))
        && rest.iter().any(|byte| !is_blank(*byte))
}

/// The line that a proxy sends first in a connection, to name the client: version 1 of the PROXY
/// protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyLine {
    /// It has this many bytes, including its line end.
    Whole(usize),
    /// It may be one, but is incomplete.
    Begun,
    /// It is not a PROXY line.
    No,
}

/// Maximum length of such a line including its line end, by the specification.
const PROXY_LINE: usize = 107;

/// Reads a PROXY line at the beginning of `bytes`.
pub fn proxy_line(bytes: &[u8]) -> ProxyLine {
    const BEGINNINGS: [&[u8]; 3] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"];
    let fits = |word: &&[u8]| {
        let length = word.len().min(bytes.len());
        word.get(..length) == bytes.get(..length)
    };
    let Some(beginning) = BEGINNINGS.iter().find(|word| fits(word)) else { return ProxyLine::No };
    let is_text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let end = bytes.iter().take(PROXY_LINE).position(|byte| !is_text(byte));
    match end.map(|end| (end, bytes.get(end..).unwrap_or_default())) {
        Some((end, [b'\r', b'\n', ..])) if end >= beginning.len() && end < PROXY_LINE - 1 => {
            ProxyLine::Whole(end.saturating_add(2))
        }
        Some((end, [b'\r'])) if end < PROXY_LINE - 1 => ProxyLine::Begun,
        None if bytes.len() < PROXY_LINE => ProxyLine::Begun,
        _ => ProxyLine::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_request_line_is_not_a_response() {
        use ProbeVerdict::{No, NotYet, Yes};
        for (bytes, expected) in [
            ("HTTP/1.1 200 OK\r\n", Yes),
            ("\r\nHTTP/1.1  404", Yes),
            ("ICY 200 OK", Yes),
            ("HTTP/1.1", NotYet),
            ("HTTP/1.1 ", NotYet),
            ("HTTP/1.1\r\n", NotYet),
            (" HTTP/1.1\r\nHost: a\r\n", No),
            ("HTTP/1.1\r\n\r\nGET / HTTP/1.1", No),
            ("HTTP is spoken", No),
        ] {
            assert_eq!(
                probe_joined(MessageRole::Response, bytes.as_bytes()),
                expected,
                "{bytes:?}"
            );
        }
        let long = format!("HTTP/1{}", "x".repeat(LINE));
        assert_eq!(probe_joined(MessageRole::Response, long.as_bytes()), No);
    }

    #[test]
    fn few_bytes_decide() {
        use MessageRole::{Request, Response};
        use ProbeVerdict::{No, NotYet, Yes};
        for (direction, bytes, expected) in [
            (Request, "GET /", Yes),
            (Request, "\r\nPOST http", Yes),
            (Request, "GE", NotYet),
            (Request, "GET ", NotYet),
            (Request, "CONNECT a:443", NotYet),
            (Request, "CONNECT a:443 HTTP/1.1\r\n", Yes),
            (Request, "FROBNICATE / HTTP/1.1\r\n", Yes),
            (Request, "OPTIONS rtsp://a RTSP/1.0\r\n", No),
            (Request, "PROXY TCP4 198.51.100.7 192.0.2.80 5555 80\r\n", NotYet),
            (Request, "PROXY TCP4 198.51.100.7 192.0.2.80 5555 80\r\nGET /", Yes),
            (Request, "PROXY UNKNOWN\r\nSSH-2.0-OpenSSH", No),
            (Request, "INVITE sip:a SIP/2.0\r\n", No),
            (Request, "\x16\x03\x01", No),
            (Request, "SSH-2.0-OpenSSH", No),
            (Request, "EHLO there\r\n", No),
            (Response, "HTTP/1.1 200 OK", Yes),
            (Response, "http/1", Yes),
            (Response, "HTT", NotYet),
            (Response, "ICY 200", Yes),
            (Response, "220 mail", No),
            (Response, "", NotYet),
        ] {
            assert_eq!(probe(direction, bytes.as_bytes()), expected, "{bytes:?}");
        }
    }
}
