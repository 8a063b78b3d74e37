//! The way of one direction through a message: each step takes the bytes that its phase can use.
//!
//! Before the end of a stream, a step that asks for more bytes changes nothing except where it has
//! searched already. The same bytes come again, with more bytes after them.

use super::Parser;
use super::side::{Phase, Plan};
use crate::http::body::framed::Framing;
use crate::http::chunked::{self, Line};
use crate::http::direction::Direction;
use crate::http::head::Scan;
use crate::http::resync::{self, Found};
use crate::http::transaction::State;
use crate::time::Timestamp;

/// The result of a step.
pub(super) enum Step {
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
    pub(super) direction: Direction,
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

impl Parser {
    pub(super) fn step(&mut self, input: Input<'_>) -> Step {
        let Input { direction, rest, at, now, .. } = input;
        match self.side(direction).phase {
            Phase::Opaque => Step::Consumed(rest.len()),
            Phase::Start => self.step_start(input),
            Phase::Lost => self.step_lost(input),
            Phase::Head(scan) => self.step_head(input, scan),
            Phase::Length(left) => self.step_length(input, left),
            Phase::Close => {
                self.data(direction, at, rest.len(), now);
                Step::Consumed(rest.len())
            }
            Phase::Data(left) => self.step_data(input, left),
            Phase::Probe(plan) => self.step_probe(input, plan),
            Phase::Unsure(plan, chunked) => self.step_unsure(input, plan, chunked),
            Phase::Size => self.step_size(input),
            Phase::Trailer(start, line) => self.step_trailer(input, start, line),
        }
    }

    fn step_start(&mut self, input: Input<'_>) -> Step {
        let Input { direction, rest, at, first, eof, .. } = input;
        let blanks = rest.iter().take_while(|byte| chunked::is_blank(**byte)).count();
        match direction {
            _ if blanks > 0 => Step::Consumed(blanks),
            Direction::Request => self.start_request(rest, at, eof),
            Direction::Response => self.start_response(rest, at, first, eof),
        }
    }

    fn step_lost(&mut self, input: Input<'_>) -> Step {
        match resync::find(input.direction, input.rest) {
            Found::At(0) => {
                self.side_mut(input.direction).phase = Phase::Head(Scan::default());
                Step::Again
            }
            Found::Keep(0) => Step::More,
            Found::At(length) | Found::Keep(length) => {
                self.stray(length);
                Step::Consumed(length)
            }
        }
    }

    fn step_head(&mut self, input: Input<'_>, mut scan: Scan) -> Step {
        let Input { direction, rest, at, first, now, .. } = input;
        let limit = self.limits.head_bytes;
        let bytes = rest.get(..limit.min(rest.len())).unwrap_or_default();
        let length = match direction {
            Direction::Request => simple_request(bytes, &mut scan).or_else(|| scan.end(bytes)),
            Direction::Response => scan.end(bytes),
        };
        self.side_mut(direction).phase = Phase::Head(scan);
        match length {
            Some(length) => {
                let head = bytes.get(..length).unwrap_or_default();
                self.head(direction, head, at, first, now);
                Step::Consumed(length)
            }
            None if bytes.len() >= limit => {
                self.counters.long_heads = self.counters.long_heads.saturating_add(1);
                let why = "the head is longer than allowed";
                self.part_of_head(direction, bytes, at, first, State::Malformed, why);
                self.lose(direction);
                Step::Consumed(bytes.len())
            }
            None => Step::More,
        }
    }

    fn step_length(&mut self, input: Input<'_>, left: u64) -> Step {
        let Input { direction, rest, at, now, .. } = input;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left.saturating_sub(length as u64);
        self.side_mut(direction).phase = Phase::Length(left);
        self.data(direction, at, length, now);
        if left == 0 {
            self.finish(direction);
        }
        Step::Consumed(length)
    }

    fn step_data(&mut self, input: Input<'_>, left: u64) -> Step {
        let Input { direction, rest, at, now, .. } = input;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left.saturating_sub(length as u64);
        self.side_mut(direction).phase = if left == 0 { Phase::Size } else { Phase::Data(left) };
        self.data(direction, at, length, now);
        Step::Consumed(length)
    }

    fn step_probe(&mut self, input: Input<'_>, plan: Plan) -> Step {
        let Input { direction, rest, eof, .. } = input;
        let max = self.limits.chunk_line;
        let line = chunked::size_line(rest, true, max);
        let is_odd = matches!(line, Line::Bad(_)).then(|| chunked::odd_first(rest, max));
        match line {
            Line::Bad(_) if is_odd == Some(None) && !eof => return Step::More,
            Line::Size { .. } => self.begin_chunks(direction),
            Line::Bad(_) if is_odd == Some(Some(true)) => self.begin_chunks(direction),
            Line::More(_) if !eof => return Step::More,
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
                    return Step::More;
                }
            }
        }
        Step::Again
    }

    fn begin_chunks(&mut self, direction: Direction) {
        self.side_mut(direction).phase = Phase::Size;
        self.message(direction, |message| message.body.framing = Framing::Chunked);
    }

    fn step_unsure(&mut self, input: Input<'_>, plan: Plan, chunked: bool) -> Step {
        let Input { direction, rest, eof, .. } = input;
        if direction == Direction::Request && !self.may_withhold() {
            self.begin_sure(direction, plan, chunked);
            return Step::Again;
        }
        match resync::find(direction, rest) {
            Found::At(0) if !rest.is_empty() => self.finish(direction),
            Found::Keep(0) if !eof => return Step::More,
            _ => self.begin_sure(direction, plan, chunked),
        }
        Step::Again
    }

    fn step_size(&mut self, input: Input<'_>) -> Step {
        let Input { direction, rest, at, now, eof, .. } = input;
        match chunked::size_line(rest, false, self.limits.chunk_line) {
            Line::Size { size, length } => {
                let after = at.saturating_add(length as u64);
                self.side_mut(direction).phase =
                    if size == 0 { Phase::Trailer(after, after) } else { Phase::Data(size) };
                self.touch(direction, now);
                Step::Consumed(length)
            }
            Line::More(blanks) if blanks > 0 => Step::Consumed(blanks),
            Line::More(_) if eof => {
                // A last chunk without a line end.
                if rest.iter().all(|byte| *byte == b'0') {
                    let after = at.saturating_add(rest.len() as u64);
                    self.side_mut(direction).phase = Phase::Trailer(after, after);
                    return Step::Consumed(rest.len());
                }
                Step::More
            }
            Line::More(_) => Step::More,
            Line::Bad(why) => {
                self.cut(direction, State::Malformed, why);
                self.lose(direction);
                Step::Again
            }
            Line::TooLong => {
                self.counters.long_chunk_lines = self.counters.long_chunk_lines.saturating_add(1);
                self.cut(direction, State::Malformed, "a chunk's first line is too long");
                self.lose(direction);
                Step::Again
            }
        }
    }

    fn step_trailer(&mut self, input: Input<'_>, start: u64, line: u64) -> Step {
        let Input { direction, rest, at, now, .. } = input;
        let (chunk_line, limit) = (self.limits.chunk_line, self.limits.head_bytes as u64);
        // The next message, without the empty line that should come before it.
        let next: &[u8] = b"HTTP/";
        if direction == Direction::Response
            && line == at
            && next.starts_with(rest.get(..5).unwrap_or(rest))
        {
            if rest.len() >= next.len() {
                self.finish(direction);
                return Step::Again;
            }
            return Step::More;
        }
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            let used = at.saturating_add(rest.len() as u64).saturating_sub(start);
            if used > limit || rest.len() > chunk_line {
                return self.long_trailer(direction);
            }
            return Step::More;
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
            self.side_mut(direction).phase = Phase::Trailer(start, after);
        }
        Step::Consumed(length)
    }

    fn long_trailer(&mut self, direction: Direction) -> Step {
        self.counters.long_heads = self.counters.long_heads.saturating_add(1);
        self.cut(direction, State::Malformed, "the trailer is longer than allowed");
        self.lose(direction);
        Step::Again
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
