//! `http`: the conversation of a connection, for people to read.

use std::borrow::Cow;
use std::fmt::Write;

use super::body::framed::Body;
use super::body::{self, DecodingLimits, Streams};
use super::direction::MessageRole;
use super::names;
use super::transaction::{HttpMessage, HttpTransaction};
use crate::marks::reverses;

/// Maximum number of bytes of a text body in the transcript. The body's file has all of it.
pub const TEXT_MAX: usize = 64 << 10;

/// A part of a transaction's transcript. Parts come in this order, the request's before the
/// response's. Joined, they are the transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranscriptPart {
    /// The line before a message, and its head; or a line that says that the message is missing.
    Head(MessageRole),
    /// Bytes of a text body without codings, shown as they come: offset and length.
    Text(MessageRole, u32, u32),
    /// The end of a body, with the number of bytes already shown. A body that was not shown as it
    /// came is here.
    Rest(MessageRole, u32),
    /// The end of the transaction, with its remarks.
    End,
}

/// Progress of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionProgress {
    /// Unfinished. The flags say whether a message is finished.
    UnderWay {
        /// The request is finished.
        request: bool,
        /// The response is finished.
        response: bool,
    },
    /// Finished: nothing changes any more.
    Ended,
}

impl TransactionProgress {
    fn is_done(self, direction: MessageRole) -> bool {
        match (self, direction) {
            (Self::Ended, _) => true,
            (Self::UnderWay { request, .. }, MessageRole::Request) => request,
            (Self::UnderWay { response, .. }, MessageRole::Response) => response,
        }
    }
}

/// The transcript of one finished transaction.
///
/// Heads are shown as they were sent. Text bodies are shown decoded, others as a reference to their
/// file. Lines that begin with `---` are the program's own. Control characters other than tabs and
/// line ends are replaced, so that captured bytes never control a terminal.
#[must_use]
pub fn transcript(
    transaction: &HttpTransaction,
    streams: &dyn Streams,
    limits: &DecodingLimits,
) -> String {
    let mut out = String::new();
    let mut last = None;
    while let Some(part) = next(transaction, TransactionProgress::Ended, last, streams) {
        out.push_str(&text(transaction, part, streams, limits));
        last = Some(part);
    }
    out
}

/// The part after `last`, or the first one without `last`, if its text is final: later bytes do not
/// change it. `None` otherwise, and at the end.
#[must_use]
pub fn next(
    transaction: &HttpTransaction,
    progress: TransactionProgress,
    last: Option<TranscriptPart>,
    streams: &dyn Streams,
) -> Option<TranscriptPart> {
    let is_ended = progress == TransactionProgress::Ended;
    let (direction, shown) = match last {
        None => return Some(TranscriptPart::Head(MessageRole::Request)),
        Some(TranscriptPart::Head(direction)) if transaction.message(direction).is_none() => {
            return behind(transaction, direction, is_ended);
        }
        Some(TranscriptPart::Head(direction)) => (direction, 0),
        Some(TranscriptPart::Text(direction, from, len)) => (direction, from.saturating_add(len)),
        Some(TranscriptPart::Rest(direction, _)) => {
            return behind(transaction, direction, is_ended);
        }
        Some(TranscriptPart::End) => return None,
    };
    let is_done = progress.is_done(direction);
    let message = transaction.message(direction)?;
    if is_shown_early(message, shown) {
        let len = more_text(&message.body, direction, shown, is_done, streams);
        if len > 0 {
            return Some(TranscriptPart::Text(direction, shown, len));
        }
    }
    is_done.then_some(TranscriptPart::Rest(direction, shown))
}

/// The part after a whole message.
fn behind(
    transaction: &HttpTransaction,
    direction: MessageRole,
    is_ended: bool,
) -> Option<TranscriptPart> {
    match direction {
        MessageRole::Request => (is_ended || transaction.response.is_some())
            .then_some(TranscriptPart::Head(MessageRole::Response)),
        MessageRole::Response => is_ended.then_some(TranscriptPart::End),
    }
}

/// The text of a part.
#[must_use]
pub fn text(
    transaction: &HttpTransaction,
    part: TranscriptPart,
    streams: &dyn Streams,
    limits: &DecodingLimits,
) -> String {
    let mut out = String::new();
    let number = transaction.index;
    match part {
        TranscriptPart::Head(direction) => {
            let name = match direction {
                MessageRole::Request => "request",
                MessageRole::Response => "response",
            };
            let Some(message) = transaction.message(direction) else {
                return format!("--- {number} no {name}\n");
            };
            let _ = writeln!(out, "--- {number} {name} {}", message.first.to_rfc3339());
            if direction == MessageRole::Response {
                for range in &transaction.interim {
                    head(&mut out, streams, direction, range.clone());
                }
            }
            head(&mut out, streams, direction, message.head_range.clone());
        }
        TranscriptPart::Text(direction, from, len) => {
            let body = transaction.message(direction).map(|message| &message.body);
            let bytes = body.map(|body| body.part(direction, from.into(), len.into(), streams));
            out = printable(&lossy(&bytes.unwrap_or_default()));
        }
        TranscriptPart::Rest(direction, shown) => {
            if let Some(message) = transaction.message(direction) {
                rest(&mut out, transaction, (direction, message), shown, streams, limits);
            }
        }
        TranscriptPart::End => {
            if let Some(why) = transaction.why_or_remark() {
                let _ = writeln!(out, "--- {number} {}: {why}", transaction.state.name());
            }
            out.push('\n');
        }
    }
    out
}

fn head(
    out: &mut String,
    streams: &dyn Streams,
    direction: MessageRole,
    range: std::ops::Range<u64>,
) {
    if range.is_empty() {
        return;
    }
    let mut bytes = Vec::new();
    streams.read(direction, range, &mut |piece| match piece {
        body::BodyPiece::Bytes(part) => bytes.extend_from_slice(part),
        body::BodyPiece::Hole(length) => {
            bytes.extend_from_slice(format!("[{length} bytes gone]").as_bytes());
        }
    });
    out.push_str(&printable(&super::head::text(&bytes)));
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

/// Returns `true` if a body is shown as it comes, because nothing that follows changes its text.
/// This is also so if some of it was shown and its head has expired.
fn is_shown_early(message: &HttpMessage, shown: u32) -> bool {
    if shown > 0 {
        return true;
    }
    let media = message.head.as_ref().and_then(|head| head.media_type());
    message.body.codings.is_empty() && media.as_deref().is_some_and(is_text)
}

/// Number of text bytes after `shown` that can be shown now. Bytes whose text depends on the next
/// ones are not included.
fn more_text(
    body: &Body,
    direction: MessageRole,
    shown: u32,
    is_done: bool,
    streams: &dyn Streams,
) -> u32 {
    let max = body.wire_bytes().min(TEXT_MAX as u64);
    let len = max.saturating_sub(shown.into());
    if len == 0 {
        return 0;
    }
    let whole = is_done && max == body.wire_bytes();
    let bytes = body.part(direction, shown.into(), len, streams);
    let held = if whole { 0 } else { undecided(&bytes) };
    u32::try_from(bytes.len().saturating_sub(held)).unwrap_or(0)
}

/// Number of bytes at the end that may be part of a longer character or line end.
fn undecided(bytes: &[u8]) -> usize {
    if bytes.last() == Some(&b'\r') {
        return 1;
    }
    let tail = bytes.get(bytes.len().saturating_sub(3)..).unwrap_or_default();
    let begin = tail.iter().rposition(|byte| *byte >= 0xc0);
    let part = begin.and_then(|begin| tail.get(begin..)).unwrap_or_default();
    match std::str::from_utf8(part) {
        Err(error) if error.error_len().is_none() => part.len(),
        _ => 0,
    }
}

/// Reads UTF-8 where it is valid and Latin-1 elsewhere, so that every byte is visible.
fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().copied().map(char::from));
    }
    text
}

/// Writes the text after a body of which `shown` bytes were shown as they came.
fn rest(
    out: &mut String,
    transaction: &HttpTransaction,
    (direction, message): (MessageRole, &HttpMessage),
    shown: u32,
    streams: &dyn Streams,
    limits: &DecodingLimits,
) {
    let wire = message.body.wire_bytes();
    if wire == 0 {
        return;
    }
    let file = names::body_file(transaction, direction);
    if is_shown_early(message, shown) {
        let before = u64::from(shown).saturating_sub(1);
        let last = message.body.part(direction, before, u64::from(shown.min(1)), streams);
        if last.last().is_some_and(|byte| *byte != b'\n') {
            out.push('\n');
        }
        if let Some(left) = wire.checked_sub(shown.into()).filter(|left| *left > 0) {
            let _ = writeln!(out, "--- {left} more bytes in bodies/{file}");
        }
        if message.body.missing() > 0 {
            let _ = writeln!(out, "--- {}", body::DecodingNote::Hole.text());
        }
        return;
    }
    let media = message.head.as_ref().and_then(|head| head.media_type());
    let may_be_text = media.as_deref().is_none_or(is_text);
    let decoded = (may_be_text || !message.body.codings.is_empty())
        .then(|| body::read(streams, direction, &message.body, limits));
    // The text to show, and the number of bytes after it.
    let text = decoded.as_ref().filter(|_| may_be_text).and_then(|decoded| {
        let bytes = &decoded.bytes;
        match std::str::from_utf8(bytes) {
            Ok(text) if media.is_none() && text.contains('\0') => None,
            Ok(text) => {
                let mut shown = text.len().min(TEXT_MAX);
                while !text.is_char_boundary(shown) {
                    shown = shown.saturating_sub(1);
                }
                let (shown, rest) = text.split_at(shown);
                Some((Cow::Borrowed(shown), rest.len()))
            }
            // A cut or a hole may split a character. Other bytes are only shown if the content type
            // says that they are text.
            Err(_) if media.is_some() => {
                let (shown, rest) = bytes.split_at(bytes.len().min(TEXT_MAX));
                Some((Cow::Owned(lossy(shown)), rest.len()))
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

/// Returns `true` if bodies of this type are text for people.
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
            // The symbols for control characters, in the same order.
            '\0'..='\x1f' => {
                let symbol = 0x2400_u32.saturating_add(character.into());
                out.push(char::from_u32(symbol).unwrap_or('\u{fffd}'));
            }
            other if other.is_control() || reverses(other) => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn terminals_have_nothing_to_obey() {
        let text = "a\u{202e}b\u{2066}c\u{1b}[2J\u{9b}2J\r\n\u{5d0}\u{200f}";
        let shown = "a\u{fffd}b\u{fffd}c\u{241b}[2J\u{fffd}2J\n\u{5d0}\u{200f}";
        assert_eq!(printable(text), shown);
    }
}
