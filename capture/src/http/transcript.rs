//! `http`: what a connection said, to be read by people.

use std::borrow::Cow;
use std::fmt::Write;

use super::body::{self, Limits, Piece, Streams};
use super::names;
use super::transaction::{Direction, Message, Transaction};

/// Bytes of a decoded text body that are shown; the file of the body has all of it.
pub const TEXT_MAX: usize = 64 << 10;

/// The transcript of one transaction.
///
/// Heads come as they were sent; text bodies decoded, others as a pointer to their file. Lines
/// that begin with `---` are ours. Control characters other than tabs and line ends are replaced,
/// so that nothing captured can talk to a terminal.
#[must_use]
pub fn transcript(transaction: &Transaction, streams: &dyn Streams, limits: &Limits) -> String {
    let mut out = String::new();
    let number = transaction.index;
    for direction in [Direction::Request, Direction::Response] {
        let name = match direction {
            Direction::Request => "request",
            Direction::Response => "response",
        };
        let Some(message) = transaction.message(direction) else {
            let _ = writeln!(out, "--- {number} no {name}");
            continue;
        };
        let _ = writeln!(out, "--- {number} {name} {}", message.first.to_rfc3339());
        if direction == Direction::Response {
            for range in &transaction.interim {
                head(&mut out, streams, direction, range.clone());
            }
        }
        head(&mut out, streams, direction, message.head_range.clone());
        body(&mut out, transaction, direction, message, streams, limits);
    }
    if let Some(why) = transaction.told() {
        let state = format!("{:?}", transaction.state).to_ascii_lowercase();
        let _ = writeln!(out, "--- {number} {state}: {why}");
    }
    out.push('\n');
    out
}

fn head(
    out: &mut String,
    streams: &dyn Streams,
    direction: Direction,
    range: std::ops::Range<u64>,
) {
    if range.is_empty() {
        return;
    }
    let mut bytes = Vec::new();
    streams.read(direction, range, &mut |piece| match piece {
        Piece::Bytes(part) => bytes.extend_from_slice(part),
        Piece::Hole(length) => bytes.extend_from_slice(format!("[{length} bytes gone]").as_bytes()),
    });
    out.push_str(&printable(&super::head::text(&bytes)));
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

fn body(
    out: &mut String,
    transaction: &Transaction,
    direction: Direction,
    message: &Message,
    streams: &dyn Streams,
    limits: &Limits,
) {
    let wire = message.body.wire_bytes();
    if wire == 0 {
        return;
    }
    let file = names::body_file(transaction, direction);
    let media = message.head.as_ref().and_then(|head| head.media_type());
    let may_be_text = media.as_deref().is_none_or(is_text);
    let decoded = (may_be_text || !message.body.codings.is_empty())
        .then(|| body::read(streams, direction, &message.body, limits));
    // What is shown, and how many bytes more there are.
    let text = decoded.as_ref().filter(|_| may_be_text).and_then(|decoded| {
        let bytes = &decoded.bytes;
        match std::str::from_utf8(bytes) {
            Ok(text) if media.is_none() && text.contains('\0') => None,
            Ok(text) => {
                let mut shown = text.len().min(TEXT_MAX);
                while !text.is_char_boundary(shown) {
                    shown -= 1;
                }
                let (shown, rest) = text.split_at(shown);
                Some((Cow::Borrowed(shown), rest.len()))
            }
            // A cut or a hole may fall into a character; Latin-1 is only for what says it is text.
            Err(_) if media.is_some() => {
                let (shown, rest) = bytes.split_at(bytes.len().min(TEXT_MAX));
                Some((Cow::Owned(super::head::text(shown)), rest.len()))
            }
            Err(_) => None,
        }
    });
    match text {
        Some((shown, rest)) => {
            out.push_str(&printable(&shown));
            if !out.ends_with('\n') {
                out.push('\n');
            }
            if rest > 0 {
                let _ = writeln!(out, "--- {rest} more bytes in bodies/{file}");
            }
        }
        None => {
            let _ = writeln!(out, "--- body: {wire} bytes on the wire, see bodies/{file}");
        }
    }
    for note in decoded.into_iter().flat_map(|decoded| decoded.notes) {
        let _ = writeln!(out, "--- {}", note.text());
    }
}

/// Whether bodies of that type are meant to be read.
fn is_text(media: &str) -> bool {
    media.starts_with("text/")
        || media.ends_with("json")
        || media.ends_with("xml")
        || matches!(
            media,
            "application/javascript"
                | "application/x-javascript"
                | "application/x-www-form-urlencoded"
                | "application/x-ndjson"
                | "application/graphql"
                | "application/yaml"
        )
}

fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' | '\t' => out.push(character),
            // The pictures of control characters, in their order.
            '\0'..='\x1f' => {
                out.push(char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}'));
            }
            other if other.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}
