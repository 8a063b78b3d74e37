//! Finds where HTTP goes on after bytes that are missing or make no sense.

use super::direction::MessageRole;
use super::head::begins_header;
use super::probe::METHODS;

/// Maximum length of a start line, in bytes.
pub(super) const LINE: usize = 8192;

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResyncResult {
    /// A message begins here.
    At(usize),
    /// No message begins before this offset. From there on more bytes are needed, if there are any.
    Keep(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Fits {
    Yes,
    No,
    NotYet,
}

/// Searches for the next plausible start of a message: a complete start line of version 1.x,
/// followed by a header or an empty line. It may begin anywhere, since bodies need not end with a
/// line.
pub(super) fn find(direction: MessageRole, bytes: &[u8]) -> ResyncResult {
    let mut end = 0_usize;
    for at in 0..bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let begins = match direction {
            MessageRole::Request => request(rest),
            MessageRole::Response => response(rest),
        };
        if begins == Fits::No {
            continue;
        }
        if begins == Fits::NotYet {
            return ResyncResult::Keep(at);
        }
        // The line's end is searched only once, even if the line seems to have many starts.
        if end < at.saturating_add(1) {
            let next = rest.iter().position(|byte| *byte < b' ' && *byte != b'\t');
            end = next.map_or(bytes.len(), |next| at.saturating_add(next));
        }
        let fits = line(direction, rest, end.saturating_sub(at));
        match fits {
            Fits::Yes => return ResyncResult::At(at),
            Fits::NotYet => return ResyncResult::Keep(at),
            Fits::No => {}
        }
    }
    ResyncResult::Keep(bytes.len())
}

/// Whether `bytes` begin with `word`. `NotYet` if they end within it.
fn begins(bytes: &[u8], word: &[u8]) -> Fits {
    match bytes.get(..word.len()) {
        Some(whole) if whole == word => Fits::Yes,
        Some(_) => Fits::No,
        None if word.starts_with(bytes) => Fits::NotYet,
        None => Fits::No,
    }
}

fn response(bytes: &[u8]) -> Fits {
    if bytes.first() != Some(&b'H') {
        return Fits::No;
    }
    for (at, byte) in bytes.iter().enumerate().take(13) {
        let fits = match at {
            0..=6 => b"HTTP/1.".get(at) == Some(byte),
            7 => matches!(byte, b'0' | b'1'),
            8 => *byte == b' ',
            9 => matches!(byte, b'1'..=b'5'),
            10 | 11 => byte.is_ascii_digit(),
            _ => matches!(byte, b' ' | b'\r' | b'\n'),
        };
        if !fits {
            return Fits::No;
        }
    }
    if bytes.len() < 13 { Fits::NotYet } else { Fits::Yes }
}

fn request(bytes: &[u8]) -> Fits {
    if !bytes.first().is_some_and(u8::is_ascii_uppercase) {
        return Fits::No;
    }
    let mut method = Fits::No;
    for name in METHODS {
        match begins(bytes, name) {
            Fits::Yes => match bytes.get(name.len()) {
                Some(b' ') => method = Fits::Yes,
                Some(_) => {}
                None => return Fits::NotYet,
            },
            Fits::NotYet => return Fits::NotYet,
            Fits::No => {}
        }
    }
    method
}

/// Whether the first `end` bytes are a start line, followed by a header or an empty line.
fn line(direction: MessageRole, bytes: &[u8], end: usize) -> Fits {
    if end > LINE {
        return Fits::No;
    }
    let (start, rest) = bytes.split_at(end);
    let after = match rest {
        [b'\n', after @ ..] | [b'\r', b'\n', after @ ..] => after,
        [] | [b'\r'] => return Fits::NotYet,
        _ => return Fits::No,
    };
    let versioned = start.ends_with(b" HTTP/1.1") || start.ends_with(b" HTTP/1.0");
    if direction == MessageRole::Request && !versioned {
        return Fits::No;
    }
    match after {
        [b'\n', ..] | [b'\r', b'\n', ..] => Fits::Yes,
        [] | [b'\r'] => Fits::NotYet,
        _ => match begins_header(after) {
            Some(true) => Fits::Yes,
            Some(false) => Fits::No,
            None => Fits::NotYet,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_anywhere_and_whatever_the_cut() {
        let cases = [
            (MessageRole::Response, "HTTP HTTP/1.1 xHTTP/1.1 200 OK\r\nA: b\r\n\r\n", 15),
            (MessageRole::Response, "HTTP/1.1 200 OK\r\nno header\r\n HTTP/1.0 404 \r\n\r\n", 29),
            (MessageRole::Request, "GET nothing\r\nbodyPOST /a HTTP/1.1\r\nHost: x\r\n", 17),
            (MessageRole::Request, "GEGET / HTTP/1.0\r\n\r\n", 2),
        ];
        for (direction, text, expected) in cases {
            let bytes = text.as_bytes();
            assert_eq!(find(direction, bytes), ResyncResult::At(expected), "{text}");
            for cut in 0..bytes.len() {
                match find(direction, &bytes[..cut]) {
                    ResyncResult::At(at) => assert_eq!(at, expected, "{text} up to {cut}"),
                    ResyncResult::Keep(at) => {
                        assert!(at <= expected || at == cut && cut <= expected)
                    }
                }
            }
        }
    }
}
