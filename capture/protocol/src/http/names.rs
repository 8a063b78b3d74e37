//! Names of body files: `0001-request.json`, `0001-response-index.html`.

use super::direction::MessageRole;
use super::transaction::HttpTransaction;
use crate::marks::reverses;

/// Maximum length of a file name on Linux, in bytes.
pub const MAX: usize = 255;

/// The name of the file for the body that went in `direction`, without its folder.
///
/// After the number come the direction and, for responses, the last segment of the URL. A request,
/// or a URL without a last segment, gets an extension that follows the content type. No name leads
/// out of a folder or disturbs a terminal: names have no `/`, no control characters, no `..`.
#[must_use]
pub fn body_file(transaction: &HttpTransaction, direction: MessageRole) -> String {
    let kind = match direction {
        MessageRole::Request => "request",
        MessageRole::Response => "response",
    };
    let mut name = format!("{:04}-{kind}", transaction.index);
    let message = transaction.message(direction);
    let media = message.and_then(|one| one.head.as_ref()).and_then(|head| head.media_type());
    let extension = media.as_deref().and_then(extension);
    let target = transaction.request.as_ref().and_then(|one| one.head.as_ref()?.target());
    let segment = match direction {
        MessageRole::Request => None,
        MessageRole::Response => target.and_then(last_segment),
    };
    // Leaves room for the longest known extension.
    let room = MAX.saturating_sub(name.len()).saturating_sub(8);
    if let Some(segment) = &segment {
        name.push('-');
        name.push_str(shorten(segment, room));
    }
    let has_extension = segment.is_some_and(|one| one.trim_start_matches('.').contains('.'));
    if let Some(extension) = extension.filter(|_| !has_extension) {
        name.push('.');
        name.push_str(extension);
    }
    name
}

/// The last segment of a path, unescaped and made safe.
fn last_segment(target: &str) -> Option<String> {
    let path = target.split(['?', '#']).next()?;
    let path = match path.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => path,
    };
    let segment = path.rsplit('/').next()?;
    let safe = safe(&String::from_utf8_lossy(&unescaped(segment)));
    (!safe.is_empty()).then_some(safe)
}

fn unescaped(segment: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [high, low, ..] if *first == b'%' => {
                char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16))
            }
            _ => None,
        };
        match escaped.and_then(|(high, low)| u8::try_from(high << 4 | low).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

fn safe(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for character in name.chars() {
        let character = match character {
            '/' | '\\' | '\u{fffd}' => '_',
            // Marks that have a direction and no width.
            '\u{200e}' | '\u{200f}' => '_',
            other if other.is_control() || reverses(other) => '_',
            '.' if safe.ends_with('.') => '_',
            other => other,
        };
        safe.push(character);
    }
    safe
}

/// The last `max` bytes of `name`, or a few less. The end is kept because it has the extension.
fn shorten(name: &str, max: usize) -> &str {
    let mut start = name.len().saturating_sub(max);
    while !name.is_char_boundary(start) {
        start = start.saturating_add(1);
    }
    name.get(start..).unwrap_or_default()
}

fn extension(media: &str) -> Option<&'static str> {
    Some(match media {
        "text/html" | "application/xhtml+xml" => "html",
        "text/plain" => "txt",
        "text/css" => "css",
        "text/csv" => "csv",
        "text/javascript" | "application/javascript" | "application/x-javascript" => "js",
        "text/xml" | "application/xml" => "xml",
        "application/json" | "text/json" => "json",
        "application/x-ndjson" | "application/jsonl" => "jsonl",
        "application/x-www-form-urlencoded" => "form",
        "application/octet-stream" => "bin",
        "application/pdf" => "pdf",
        "application/zip" => "zip",
        "application/gzip" | "application/x-gzip" => "gz",
        "application/wasm" => "wasm",
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        "image/svg+xml" => "svg",
        "image/x-icon" | "image/vnd.microsoft.icon" => "ico",
        "audio/mpeg" => "mp3",
        "video/mp4" => "mp4",
        "font/woff2" => "woff2",
        other if other.starts_with("multipart/") => "mime",
        other if other.ends_with("+json") => "json",
        other if other.ends_with("+xml") => "xml",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parser::{HttpParser, ParserEvent, ParserLimits, StreamEnd};
    use crate::time::Timestamp;

    fn name(target: &str, media: &str) -> String {
        let mut parser = HttpParser::new(ParserLimits::default());
        let time = Timestamp::default();
        let request = format!("GET {target} HTTP/1.1\r\n\r\n");
        let response = format!("HTTP/1.1 200 OK\r\nContent-Type: {media}\r\n\r\nx");
        parser.feed(MessageRole::Request, 0, request.as_bytes(), time);
        parser.feed(MessageRole::Response, 0, response.as_bytes(), time);
        parser.end(MessageRole::Response, StreamEnd::Fin);
        let Some(ParserEvent::Transaction(one)) = parser.event() else { panic!("no transaction") };
        body_file(&one, MessageRole::Response)
    }

    #[test]
    fn names_follow_the_url_and_the_type() {
        for (target, media, expected) in [
            ("/a/index.html?x=/y", "text/plain", "0001-response-index.html"),
            ("/", "text/html; charset=utf-8", "0001-response.html"),
            ("/api", "application/problem+json", "0001-response-api.json"),
            ("/api", "made/up", "0001-response-api"),
            ("http://host", "text/css", "0001-response.css"),
            ("http://host/a.b", "text/css", "0001-response-a.b"),
            ("/%E2%82%AC", "text/css", "0001-response-€.css"),
        ] {
            assert_eq!(name(target, media), expected, "{target}");
        }
    }

    #[test]
    fn names_are_safe() {
        let long = format!("/{}.html", "€".repeat(300));
        for target in [
            "/..",
            "/../../etc/passwd%00",
            "/%2e%2e%2fetc%2fpasswd",
            "/a%0ab%1b[2J",
            "/%ff%fe%zz%",
            "/...",
            "/%5c..%5c",
            "/%e2%80%aetxt.exe",
            &long,
        ] {
            let name = name(target, "text/html");
            assert!(name.len() <= MAX, "{name}");
            assert!(!name.contains(['/', '\\', '\u{202e}']) && !name.contains(".."), "{name}");
            assert!(!name.chars().any(char::is_control), "{name}");
            assert!(name.starts_with("0001-response"), "{name}");
        }
    }
}
