//! The way of one direction through a message: each step takes the bytes that its phase can use.
//!
//! Before the end of a stream, a step that asks for more bytes changes nothing except where it has
//! searched already. The same bytes come again, with more bytes after them.

use super::HttpParser;
use super::side::{FramingPlan, MessagePhase};
use crate::http::body::framed::Framing;
use crate::http::chunked::{self, Line};
use crate::http::direction::MessageRole;
use crate::http::head::Scan;
use crate::http::resync::{self, ResyncResult};
use crate::http::transaction::TransactionState;
use crate::time::Timestamp;

/// The result of a step.
pub(super) enum ParserStep {
    /// This many bytes are done.
    Consumed(usize),
    /// The phase changed, nothing was consumed.
    Again,
    /// More bytes are needed.
    More,
}

/// The bytes a step may use.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) direction: MessageRole,
    pub(super) rest: &'a [u8],
    /// Stream offset of the first byte.
    pub(super) at: u64,
    /// Time of the first byte.
    pub(super) first: Timestamp,
    /// Time of the last byte.
    pub(super) now: Timestamp,
    /// Whether the stream ends after them.
    pub(super) eof: bool,
}

impl HttpParser {
    pub(super) fn step(&mut self, input: Input<'_>) -> ParserStep {
        let Input { direction, rest, at, now, .. } = input;
        match self.side(direction).phase {
            MessagePhase::Opaque => ParserStep::Consumed(rest.len()),
            MessagePhase::Start => self.step_start(input),
            MessagePhase::Lost => self.step_lost(input),
            MessagePhase::Head(scan) => self.step_head(input, scan),
            MessagePhase::Length(left) => self.step_length(input, left),
            MessagePhase::Close => {
                self.data(direction, at, rest.len(), now);
                ParserStep::Consumed(rest.len())
            }
            MessagePhase::Data(left) => self.step_data(input, left),
            MessagePhase::Probe(plan) => self.step_probe(input, plan),
            MessagePhase::Unsure(plan, chunked) => self.step_unsure(input, plan, chunked),
            MessagePhase::Size => self.step_size(input),
            MessagePhase::Trailer(start, line) => self.step_trailer(input, start, line),
        }
    }

    fn step_start(&mut self, input: Input<'_>) -> ParserStep {
        let Input { direction, rest, at, first, eof, .. } = input;
        let blanks = rest.iter().take_while(|byte| chunked::is_blank(**byte)).count();
        match direction {
            _ if blanks > 0 => ParserStep::Consumed(blanks),
            MessageRole::Request => self.start_request(rest, at, eof),
            MessageRole::Response => self.start_response(rest, at, first, eof),
        }
    }

    fn step_lost(&mut self, input: Input<'_>) -> ParserStep {
        match resync::find(input.direction, input.rest) {
            ResyncResult::At(0) => {
                self.side_mut(input.direction).phase = MessagePhase::Head(Scan::default());
                ParserStep::Again
            }
            ResyncResult::Keep(0) => ParserStep::More,
            ResyncResult::At(length) | ResyncResult::Keep(length) => {
                self.stray(length);
                ParserStep::Consumed(length)
            }
        }
    }

    fn step_head(&mut self, input: Input<'_>, mut scan: Scan) -> ParserStep {
        let Input { direction, rest, at, first, now, .. } = input;
        let limit = self.limits.head_bytes;
        let bytes = rest.get(..limit.min(rest.len())).unwrap_or_default();
        let length = match direction {
            MessageRole::Request => simple_request(bytes, &mut scan).or_else(|| scan.end(bytes)),
            MessageRole::Response => scan.end(bytes),
        };
        self.side_mut(direction).phase = MessagePhase::Head(scan);
        match length {
            Some(length) => {
                let head = bytes.get(..length).unwrap_or_default();
                self.head(direction, head, at, first, now);
                ParserStep::Consumed(length)
            }
            None if bytes.len() >= limit => {
                self.counters.long_heads = self.counters.long_heads.saturating_add(1);
                let why = "the head is longer than allowed";
                self.part_of_head(direction, bytes, at, first, TransactionState::Malformed, why);
                self.lose(direction);
                ParserStep::Consumed(bytes.len())
            }
            None => ParserStep::More,
        }
    }

    fn step_length(&mut self, input: Input<'_>, left: u64) -> ParserStep {
        let Input { direction, rest, at, now, .. } = input;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left.saturating_sub(length as u64);
        self.side_mut(direction).phase = MessagePhase::Length(left);
        self.data(direction, at, length, now);
        if left == 0 {
            self.finish(direction);
        }
        ParserStep::Consumed(length)
    }

    fn step_data(&mut self, input: Input<'_>, left: u64) -> ParserStep {
        let Input { direction, rest, at, now, .. } = input;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left.saturating_sub(length as u64);
        self.side_mut(direction).phase =
            if left == 0 { MessagePhase::Size } else { MessagePhase::Data(left) };
        self.data(direction, at, length, now);
        ParserStep::Consumed(length)
    }

    fn step_probe(&mut self, input: Input<'_>, plan: FramingPlan) -> ParserStep {
        let Input { direction, rest, eof, .. } = input;
        let max = self.limits.chunk_line;
        let line = chunked::size_line(rest, true, max);
        let is_odd = matches!(line, Line::Bad(_)).then(|| chunked::odd_first(rest, max));
        match line {
            Line::Bad(_) if is_odd == Some(None) && !eof => return ParserStep::More,
            Line::Size { .. } => self.begin_chunks(direction),
            Line::Bad(_) if is_odd == Some(Some(true)) => self.begin_chunks(direction),
            Line::More(_) if !eof => return ParserStep::More,
            line @ (Line::More(_) | Line::Bad(_) | Line::TooLong) => {
                let mut why = "a body announced as chunked does not begin with a chunk";
                if line == Line::TooLong {
                    self.counters.long_chunk_lines =
                        self.counters.long_chunk_lines.saturating_add(1);
                    why = "a chunk's first line is too long, and the body read as not chunked";
                }
                self.remark(direction, why);
                self.begin_body(direction, plan);
                // The stream has ended, so `end` must not see `Probe` again.
                if rest.is_empty() {
                    return ParserStep::More;
                }
            }
        }
        ParserStep::Again
    }

    fn begin_chunks(&mut self, direction: MessageRole) {
        self.side_mut(direction).phase = MessagePhase::Size;
        self.message(direction, |message| message.body.framing = Framing::Chunked);
    }

    fn step_unsure(&mut self, input: Input<'_>, plan: FramingPlan, chunked: bool) -> ParserStep {
        let Input { direction, rest, eof, .. } = input;
        if direction == MessageRole::Request && !self.may_withhold() {
            self.begin_sure(direction, plan, chunked);
            return ParserStep::Again;
        }
        match resync::find(direction, rest) {
            ResyncResult::At(0) if !rest.is_empty() => self.finish(direction),
            ResyncResult::Keep(0) if !eof => return ParserStep::More,
            _ => self.begin_sure(direction, plan, chunked),
        }
        ParserStep::Again
    }

    fn step_size(&mut self, input: Input<'_>) -> ParserStep {
        let Input { direction, rest, at, now, eof, .. } = input;
        match chunked::size_line(rest, false, self.limits.chunk_line) {
            Line::Size { size, length } => {
                let after = at.saturating_add(length as u64);
                self.side_mut(direction).phase = if size == 0 {
                    MessagePhase::Trailer(after, after)
                } else {
                    MessagePhase::Data(size)
                };
                self.touch(direction, now);
                ParserStep::Consumed(length)
            }
            Line::More(blanks) if blanks > 0 => ParserStep::Consumed(blanks),
            Line::More(_) if eof => {
                // A last chunk without a line end.
                if rest.iter().all(|byte| *byte == b'0') {
                    let after = at.saturating_add(rest.len() as u64);
                    self.side_mut(direction).phase = MessagePhase::Trailer(after, after);
                    return ParserStep::Consumed(rest.len());
                }
                ParserStep::More
            }
            Line::More(_) => ParserStep::More,
            Line::Bad(why) => {
                self.cut(direction, TransactionState::Malformed, why);
                self.lose(direction);
                ParserStep::Again
            }
            Line::TooLong => {
                self.counters.long_chunk_lines = self.counters.long_chunk_lines.saturating_add(1);
                self.cut(
                    direction,
                    TransactionState::Malformed,
                    "a chunk's first line is too long",
                );
                self.lose(direction);
                ParserStep::Again
            }
        }
    }

    fn step_trailer(&mut self, input: Input<'_>, start: u64, line: u64) -> ParserStep {
        let Input { direction, rest, at, now, .. } = input;
        let (chunk_line, limit) = (self.limits.chunk_line, self.limits.head_bytes as u64);
        // The next message, without the empty line that should come before it.
        let next: &[u8] = b"HTTP/";
        if direction == MessageRole::Response
            && line == at
            && next.starts_with(rest.get(..5).unwrap_or(rest))
        {
            if rest.len() >= next.len() {
                self.finish(direction);
                return ParserStep::Again;
            }
            return ParserStep::More;
        }
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            let used = at.saturating_add(rest.len() as u64).saturating_sub(start);
            if used > limit || rest.len() > chunk_line {
                return self.long_trailer(direction);
            }
            return ParserStep::More;
        };
        let length = end.saturating_add(1);
        let after = at.saturating_add(length as u64);
        if after.saturating_sub(start) > limit || end > chunk_line {
            return self.long_trailer(direction);
        }
        self.touch(direction, now);
        let empty = rest.iter().take(end).all(|byte| chunked::is_blank(*byte));
        if empty {
            if at > start {
                self.message(direction, |message| message.trailer = Some(start..after));
            }
            self.finish(direction);
        } else {
            self.side_mut(direction).phase = MessagePhase::Trailer(start, after);
        }
        ParserStep::Consumed(length)
    }

    fn long_trailer(&mut self, direction: MessageRole) -> ParserStep {
        self.counters.long_heads = self.counters.long_heads.saturating_add(1);
        self.cut(direction, TransactionState::Malformed, "the trailer is longer than allowed");
        self.lose(direction);
        ParserStep::Again
    }
}

/// Length of a request line without a version, which is a complete request in HTTP/0.9.
fn simple_request(bytes: &[u8], scan: &mut Scan) -> Option<usize> {
    let end = scan.first_line(bytes)?;
    let line = bytes.get(..end)?;
    let versioned = line.windows(5).any(|five| five.eq_ignore_ascii_case(b"http/"));
    // A bare CR may end the line, and a continuation line may contain the version.
    (!versioned && line.starts_with(b"GET")).then(|| end.saturating_add(1))
}
