//! Parses heads: the strict parser, and the lax one that accepts what browsers accept.
//!
//! A head that the strict parser accepts is never parsed by the lax one.

use super::scan::{begins_header, is_blank, is_token};
use super::{Head, StartLine, text};
use crate::http::probe::METHODS;

/// Number of headers that the strict parser has room for on its stack. Heads with more go to the
/// lax parser.
const STRICT_HEADERS: usize = 64;

pub(super) fn strict(response: bool, bytes: &[u8], max_headers: usize) -> Option<Head> {
    let mut room = [httparse::EMPTY_HEADER; STRICT_HEADERS];
    let (start, fields) = if response {
        let mut parsed = httparse::Response::new(&mut room);
        let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
        let version = if parsed.version == Some(0) { "HTTP/1.0" } else { "HTTP/1.1" };
        let reason = match parsed.reason {
            // httparse also returns none if it contains bytes beyond ASCII, RFC 9112 section 4.
            None | Some("") => match status_line(bytes.split(|byte| *byte == b'\n').next()?) {
                Some(StartLine::Response { reason, .. }) => reason,
                _ => None,
            },
            Some(reason) => Some(reason.to_owned()),
        };
        if length != bytes.len() {
            return None;
        }
        (
            StartLine::Response { version: version.to_owned(), status: parsed.code, reason },
            parsed.headers,
        )
    } else {
        let mut parsed = httparse::Request::new(&mut room);
        let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
        let version = if parsed.version == Some(0) { "HTTP/1.0" } else { "HTTP/1.1" };
        if length != bytes.len() {
            return None;
        }
        let (method, target) = (parsed.method?.to_owned(), parsed.path?.to_owned());
        (StartLine::Request { method, target, version: Some(version.to_owned()) }, parsed.headers)
    };
    if fields.len() > max_headers {
        return None;
    }
    let headers = fields.iter().map(|one| (one.name.to_owned(), text(one.value))).collect();
    Some(Head { start, headers, lax: false, headers_dropped: 0, hints: Vec::new() })
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

/// Lines of a head without their ends: LF, CRLF, and CR if a header follows. Browsers accept such a
/// CR in responses; no server accepts it in requests, RFC 9112 section 2.2.
fn lines(response: bool, bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut rest = line;
        let mut from = 0_usize;
        while response && let Some(at) = rest.iter().skip(from).position(|byte| *byte == b'\r') {
            let at = at.saturating_add(from);
            let (before, after) = rest.split_at(at);
            let after = after.get(1..).unwrap_or_default();
            if begins_header(after) == Some(true) {
                lines.push(before);
                rest = after;
                from = 0;
            } else {
                from = at.saturating_add(1);
            }
        }
        lines.push(rest);
    }
    lines
}

fn split_header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (trim(line.get(..colon)?), trim(line.get(colon.saturating_add(1)..)?));
    (!name.is_empty()).then_some((name, value))
}

pub(super) fn lax(response: bool, bytes: &[u8], max_headers: usize) -> Option<Head> {
    let mut start: Vec<u8> = Vec::new();
    let mut fields: Vec<Vec<u8>> = Vec::new();
    let mut hints = Vec::new();
    let mut dropped = 0_usize;
    for (number, line) in lines(response, bytes).into_iter().enumerate() {
        let body = trim(line);
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        if number == 0 {
            start = body.to_vec();
        } else if body.is_empty() || folded && !response && fields.is_empty() {
            // In a request, a folded line after the start line is discarded, RFC 9112 section 2.2.
        } else if folded {
            let like = begins_header(body) == Some(true);
            if like && let Some((name, value)) = split_header(body) {
                if fields.is_empty() {
                    fields.push(body.to_vec());
                    continue;
                }
                if response && hints.len() < max_headers {
                    hints.push((text(name), text(value)));
                }
            }
            let before = fields.last_mut().unwrap_or(&mut start);
            before.push(b' ');
            before.extend_from_slice(body);
        } else if fields.len() < max_headers {
            fields.push(line.to_vec());
        } else {
            dropped = dropped.saturating_add(1);
        }
    }
    let start = if response { status_line(&start)? } else { request_line(&start)? };
    let headers = fields
        .iter()
        .filter_map(|line| split_header(line))
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    Some(Head { start, headers, lax: true, headers_dropped: dropped, hints })
}

/// Splits off the first word. Any kind of blanks separates words.
fn word(bytes: &[u8]) -> (&[u8], &[u8]) {
    let bytes = trim(bytes);
    let end = bytes.iter().position(|byte| is_blank(*byte)).unwrap_or(bytes.len());
    let (word, rest) = bytes.split_at(end);
    (word, trim(rest))
}

fn status_line(line: &[u8]) -> Option<StartLine> {
    // Browsers skip anything before the version.
    let at = line.windows(4).position(|four| four.eq_ignore_ascii_case(b"http"));
    let line = match at {
        Some(at) => line.get(at..)?,
        None if line.starts_with(b"ICY") => line,
        None => return None,
    };
    let (version, rest) = word(line);
    let (number, reason) = word(rest);
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).take(5);
    let status = digits
        .fold(None, |sum: Option<u16>, digit| {
            let digit = u16::from(digit.wrapping_sub(b'0'));
            Some(sum.unwrap_or(0).saturating_mul(10).saturating_add(digit))
        })
        .filter(|_| !number.is_empty());
    let reason = if status.is_some() { reason } else { rest };
    let reason = (!reason.is_empty()).then(|| text(reason));
    Some(StartLine::Response { version: text(version), status, reason })
}

fn request_line(line: &[u8]) -> Option<StartLine> {
    let (method, rest) = word(line);
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return None;
    }
    // The version is the last word. A target may contain blanks, which browsers once sent.
    let last = rest.iter().rposition(|byte| is_blank(*byte));
    let version = last.and_then(|at| rest.get(at.saturating_add(1)..));
    let version = version
        .filter(|word| word.get(..5).is_some_and(|five| five.eq_ignore_ascii_case(b"http/")));
    let target = match (version, last) {
        (Some(_), Some(at)) => trim(rest.get(..at)?),
        _ => rest,
    };
    // A request without a version needs a known method: otherwise any text of two words would be a
    // request. The word after it may be the version of a request without a target.
    let is_request = version.is_some()
        || METHODS.contains(&method)
            && !target.get(..5).is_some_and(|five| five.eq_ignore_ascii_case(b"http/"));
    (is_request && !target.is_empty()).then(|| StartLine::Request {
        method: text(method),
        target: text(target),
        version: version.map(text),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Scan;
    use super::*;

    fn response(bytes: &[u8]) -> Head {
        Head::parse(true, bytes, 100).unwrap()
    }

    fn status(bytes: &[u8]) -> (String, Option<u16>, Option<String>) {
        match response(bytes).start {
            StartLine::Response { version, status, reason } => (version, status, reason),
            StartLine::Request { .. } => panic!("a request"),
        }
    }

    #[test]
    fn strict_rules_are_not_relaxed() {
        let head = response(b"HTTP/1.1 200 OK\r\nA: b\r\nA: c \r\n\r\n");
        assert!(!head.lax);
        let pairs = [("A", "b"), ("A", "c")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(head.headers, pairs);
        assert_eq!(head.values("a").collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn status_lines_of_all_kinds() {
        let ok = Some("ok".to_owned());
        for (line, version, code, reason) in [
            ("HTTP/1.1 200", "HTTP/1.1", Some(200), None),
            ("http/1.1 200 ok", "http/1.1", Some(200), ok.clone()),
            ("HTTP/2.0 200 ok", "HTTP/2.0", Some(200), ok.clone()),
            ("HTTP/1.1\t 200 ok", "HTTP/1.1", Some(200), ok.clone()),
            ("HTTP/1.1\u{b}200\u{b}ok", "HTTP/1.1", Some(200), ok.clone()),
            ("HTTP/1.1 200\0 ok", "HTTP/1.1", Some(200), ok.clone()),
            ("HTTP/1.1\n 200 ok", "HTTP/1.1", Some(200), ok.clone()),
            ("\0HTTP/1.1 0200 ok", "HTTP/1.1", Some(200), ok.clone()),
            ("HTTP/1.1 20x ok", "HTTP/1.1", Some(20), ok.clone()),
            ("HTTP/1.1 2040 ok", "HTTP/1.1", Some(2040), ok.clone()),
            ("HTTP/1.1", "HTTP/1.1", None, None),
            ("HTTP/1.1 ok", "HTTP/1.1", None, ok),
        ] {
            let bytes = format!("{line}\r\nA: b\r\n\r\n");
            let expected = (version.to_owned(), code, reason);
            assert_eq!(status(bytes.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn header_lines_of_all_kinds() {
        for lines in [
            "X-Name: a value\n",
            "X-Name : a value\r\n",
            "X-Name\t:a value  \r\n",
            "X-Name\u{b}: a value\r\n",
            "X-Name\r\n : a\r\n value\r\n",
            "X-Name:\r\n \r\n a value\r\n",
            "no colon here\r\nX-Name: a value\r\n",
            "Other: x\rX-Name: a value\r\n",
            "\r\r\nX-Name: a value\r\n",
            "\0X-Name: a value\0\r\n",
        ] {
            let bytes = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
            assert_eq!(Scan::default().end(bytes.as_bytes()), Some(bytes.len()), "{lines:?}");
            let head = response(bytes.as_bytes());
            let values: Vec<_> = head.values("x-name").collect();
            assert_eq!(values.len(), 1, "{lines:?}");
            let words: Vec<_> = values[0].split_whitespace().collect();
            assert_eq!(words, ["a", "value"], "{lines:?}");
        }
    }

    #[test]
    fn requests_have_no_headers_that_servers_do_not_see() {
        for lines in [
            "X: a\rContent-Length: 28\r\n",
            " Content-Length: 28\r\nX: a\r\n",
            "X: a\r\n Transfer-Encoding: chunked\r\n",
        ] {
            let bytes = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            let head = Head::parse(false, bytes.as_bytes(), 9).unwrap();
            assert_eq!((head.target(), head.version()), (Some("/"), Some("HTTP/1.1")), "{lines:?}");
            assert_eq!(head.announced(), Default::default(), "{lines:?}");
            assert!(head.has("x"), "{lines:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_shown_as_latin_1() {
        let head = response(b"HTTP/1.1 200 OK\r\nA: caf\xe9\r\nB: caf\xc3\xa9\r\n\r\n");
        assert_eq!((head.value("a"), head.value("b")), (Some("café"), Some("café")));
        for reason in [&b"non trouv\xe9"[..], "non trouvé".as_bytes()] {
            let bytes = [b"HTTP/1.1 404 ", reason, b"\r\nA: b\r\n\r\n"].concat();
            assert_eq!(status(&bytes).2.as_deref(), Some("non trouvé"));
        }
    }

    #[test]
    fn request_lines_of_all_kinds() {
        for (line, method, target, version) in [
            ("GET / HTTP/1.1", "GET", "/", Some("HTTP/1.1")),
            ("GET  /a b  http/1.1", "GET", "/a b", Some("http/1.1")),
            ("GET /", "GET", "/", None),
            ("M-SEARCH * HTTP/1.1", "M-SEARCH", "*", Some("HTTP/1.1")),
        ] {
            let head = Head::parse(false, format!("{line}\r\n\r\n").as_bytes(), 9).unwrap();
            let found = (head.method(), head.target(), head.version());
            assert_eq!(found, (Some(method), Some(target), version), "{line}");
        }
        for line in ["GET", "GET HTTP/1.1", "GET/ HTTP/1.1", "PROXY TCP4 a b 1 2", "hello there"] {
            let bytes = format!("{line}\r\n\r\n");
            assert!(Head::parse(false, bytes.as_bytes(), 9).is_none(), "{line}");
        }
    }

    #[test]
    fn headers_beyond_the_limit_are_counted() {
        let head = Head::parse(true, b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n", 2);
        let head = head.unwrap();
        assert_eq!((head.headers.len(), head.headers_dropped), (2, 1));
    }
}
