//! Continues a direction after missing bytes, and ends it when no more bytes come.
//!
//! Afterwards no bytes are carried, and the phase needs no earlier byte.

use std::ops::Range;

use super::doubt::Hidden;
use super::pipeline::{RequestGap, lost_messages};
use super::side::MessagePhase;
use super::step::{Input, ParserStep};
use super::{HttpParser, StreamEnd};
use crate::http::body::framed::Body;
use crate::http::direction::MessageRole;
use crate::http::head::Head;
use crate::http::probe;
use crate::http::transaction::{HttpMessage, TransactionState};
use crate::time::Timestamp;

impl HttpParser {
    /// The bytes from `start` to `end` of a stream will never come.
    pub fn gap(&mut self, direction: MessageRole, start: u64, end: u64) {
        let side = self.side_mut(direction);
        let start = start.max(side.next);
        if end <= start || side.ended.is_some() {
            return;
        }
        if start > side.next {
            let next = side.next;
            self.gap(direction, next, start);
        }
        if let MessagePhase::Unsure(plan, chunked) = self.side(direction).phase
            && self.side(direction).carry.is_empty()
        {
            if self.has_no_body(direction) {
                self.finish(direction);
            } else {
                self.begin_sure(direction, plan, chunked);
            }
        }
        let side = self.side_mut(direction);
        let time = side.carry_time();
        side.marks = Vec::new();
        let carry = std::mem::take(&mut side.carry);
        let base = start.saturating_sub(carry.len() as u64);
        side.next = end;
        side.gapped = true;
        side.passed_over = false;
        let phase = std::mem::take(&mut side.phase);
        if direction == MessageRole::Response {
            self.response_gaps = self.response_gaps.saturating_add(1);
        }
        let begun = |this: &Self| match direction {
            MessageRole::Request => this.last_index,
            MessageRole::Response => this.responses,
        };
        let before = begun(self);
        let bytes = match phase {
            MessagePhase::Length(left) | MessagePhase::Data(left) => {
                (end.saturating_sub(start)).saturating_sub(left)
            }
            _ => end.saturating_sub(start),
        };
        let is_partial = !carry.is_empty();
        if self.miss(direction, phase, start..end, &carry, time) {
            // A head that was cut, and read up to there, is not lost.
            let is_read = begun(self) > before;
            let begins_message = match phase {
                MessagePhase::Start | MessagePhase::Length(_) => true,
                MessagePhase::Head(_) => !is_read,
                _ => false,
            };
            self.lose(direction);
            self.heads_lost(direction, if is_read { start } else { base }, begins_message);
            self.count_lost(direction, begins_message, bytes, is_partial && !is_read);
        }
    }

    /// Returns `true` if a response whose request is unknown had no body, as one to `HEAD`: a
    /// client that waits for its answers has asked again before any of the body came.
    fn has_no_body(&mut self, direction: MessageRole) -> bool {
        let end = self.response.next;
        let has_asked = self.waiting().any(|open| open.floor >= end);
        let has_none = direction == MessageRole::Response && has_asked && !self.pipelines;
        self.trusted |= has_none;
        has_none
    }

    /// Notes the beginning of a gap that may have swallowed heads.
    fn heads_lost(&mut self, direction: MessageRole, from: u64, begins_message: bool) {
        let floor = self.acknowledged.max(self.response.next);
        if self.side(direction).lost_from.is_some() {
            return;
        }
        if direction == MessageRole::Request {
            // An answer that is missing too would not be counted.
            let is_whole = self.response.lost_from.is_none() && !self.response.is_lost();
            self.lost_answers = Hidden::default();
            self.request_gap = RequestGap {
                begins_request: begins_message && is_whole,
                waiting: self.waiting().count() as u64,
                responses: self.responses,
                response_gaps: self.response_gaps,
            };
        }
        let side = self.side_mut(direction);
        (side.lost_from, side.lost_floor) = (Some(from), floor);
        side.lost = Hidden::default();
    }

    /// Counts messages that may have begun in a gap, or in the bytes just before it if
    /// `is_partial`. At least one did if `begins_message`.
    fn count_lost(
        &mut self,
        direction: MessageRole,
        begins_message: bool,
        bytes: u64,
        is_partial: bool,
    ) {
        let most = lost_messages(direction, bytes).saturating_add(u64::from(is_partial));
        let lost = Hidden { least: u64::from(begins_message).min(most), most };
        let side = self.side_mut(direction);
        side.lost = side.lost.and(lost);
    }

    /// Handles the gap after the bytes in `carry`, in which bytes for `phase` are missing. Returns
    /// whether the start of the next message must be searched for.
    fn miss(
        &mut self,
        direction: MessageRole,
        phase: MessagePhase,
        Range { start, end }: Range<u64>,
        carry: &[u8],
        time: Timestamp,
    ) -> bool {
        let length = end.saturating_sub(start);
        // If the phase stays `Start` here, the stream is between two messages, and nothing is lost.
        match phase {
            MessagePhase::Opaque => {
                self.side_mut(direction).phase = MessagePhase::Opaque;
                return false;
            }
            MessagePhase::Close => {
                self.side_mut(direction).phase = MessagePhase::Close;
                self.hole(direction, start..end);
                return false;
            }
            MessagePhase::Length(left) if length <= left => {
                self.side_mut(direction).phase = MessagePhase::Length(left.saturating_sub(length));
                self.hole(direction, start..end);
                if length == left {
                    self.finish(direction);
                }
                return false;
            }
            MessagePhase::Length(left) => {
                self.hole(direction, start..start.saturating_add(left));
                self.finish(direction);
            }
            MessagePhase::Data(left) if length <= left => {
                let left = left.saturating_sub(length);
                self.side_mut(direction).phase =
                    if left == 0 { MessagePhase::Size } else { MessagePhase::Data(left) };
                self.hole(direction, start..end);
                return false;
            }
            MessagePhase::Data(left) => {
                self.hole(direction, start..start.saturating_add(left));
                self.cut(direction, TransactionState::Gap, "bytes are missing between chunks");
            }
            MessagePhase::Probe(_)
            | MessagePhase::Unsure(..)
            | MessagePhase::Size
            | MessagePhase::Trailer(..) => {
                self.cut(direction, TransactionState::Gap, "bytes are missing between chunks");
            }
            MessagePhase::Head(_) => {
                self.part_of_head(
                    direction,
                    carry,
                    start.saturating_sub(carry.len() as u64),
                    time,
                    TransactionState::Gap,
                    "bytes are missing in a head",
                );
            }
            MessagePhase::Start => self.stray(carry.len()),
            MessagePhase::Lost => {
                self.stray(carry.len());
                self.side_mut(direction).phase = MessagePhase::Lost;
                self.heads_lost(direction, start, false);
                self.count_lost(direction, false, length, !carry.is_empty());
                return false;
            }
        }
        true
    }

    /// No more bytes will come in a direction.
    pub fn end(&mut self, direction: MessageRole, how: StreamEnd) {
        let side = self.side_mut(direction);
        if side.ended.is_some() {
            return;
        }
        let carry = std::mem::take(&mut side.carry);
        let base = side.next.saturating_sub(carry.len() as u64);
        let time = side.carry_time();
        if (direction, how) == (MessageRole::Request, StreamEnd::Fin)
            && carry.is_empty()
            && self.may_withhold()
        {
            self.finish(direction);
        }
        let mut at = 0_usize;
        loop {
            let rest = carry.get(at..).unwrap_or_default();
            if rest.is_empty()
                && !matches!(
                    self.side(direction).phase,
                    MessagePhase::Probe(_) | MessagePhase::Unsure(..)
                )
            {
                break;
            }
            let offset = base.saturating_add(at as u64);
            let input = Input { direction, rest, at: offset, first: time, now: time, eof: true };
            match self.step(input) {
                ParserStep::Consumed(length) => at = at.saturating_add(length),
                ParserStep::Again => {}
                ParserStep::More => break,
            }
        }
        let rest = carry.get(at..).unwrap_or_default();
        let offset = base.saturating_add(at as u64);
        let (state, why) = match how {
            StreamEnd::Fin => (TransactionState::Truncated, "the stream ended first"),
            StreamEnd::Reset => (TransactionState::Aborted, "the connection was reset"),
            StreamEnd::Timeout => (TransactionState::Truncated, "nothing more was captured"),
            StreamEnd::Evicted => {
                (TransactionState::Truncated, "the capture of the flow ended first")
            }
        };
        match std::mem::take(&mut self.side_mut(direction).phase) {
            MessagePhase::Start | MessagePhase::Lost => self.stray(rest.len()),
            MessagePhase::Opaque => self.side_mut(direction).phase = MessagePhase::Opaque,
            MessagePhase::Head(_) => self.part_of_head(direction, rest, offset, time, state, why),
            MessagePhase::Close if how == StreamEnd::Fin => self.finish(direction),
            MessagePhase::Trailer(..) if how == StreamEnd::Fin => {
                self.cut(
                    direction,
                    TransactionState::Truncated,
                    "the empty line after the last chunk is missing",
                );
            }
            MessagePhase::Size if how == StreamEnd::Fin => {
                self.cut(direction, TransactionState::Truncated, "the last chunk is missing");
            }
            _ => self.cut(direction, state, why),
        }
        self.side_mut(direction).ended = Some(how);
        if direction == MessageRole::Response {
            self.give_up();
            self.confirm();
            let gapped = self.response.gapped || self.response.lost_from.is_some();
            let (state, why) = match how {
                StreamEnd::Reset => {
                    (TransactionState::Aborted, "the connection was reset before the response")
                }
                _ if gapped => (TransactionState::Gap, "the response is missing"),
                _ => (TransactionState::Truncated, "there is no response"),
            };
            for open in self.open.iter_mut().filter(|open| open.transaction.response.is_none()) {
                open.response_done = true;
                open.transaction.worsen(state, why);
            }
        }
        self.emit();
    }

    pub(super) fn lose(&mut self, direction: MessageRole) {
        self.counters.resyncs = self.counters.resyncs.saturating_add(1);
        let side = self.side_mut(direction);
        side.phase = MessagePhase::Lost;
        side.forbidden = None;
        side.current = 0;
    }

    /// Handles a head that breaks off.
    pub(super) fn part_of_head(
        &mut self,
        direction: MessageRole,
        bytes: &[u8],
        at: u64,
        time: Timestamp,
        state: TransactionState,
        why: &'static str,
    ) {
        let response = direction == MessageRole::Response;
        let has_line = bytes.contains(&b'\n');
        let read = match (response, has_line) {
            (_, true) => bytes,
            (false, false) if probe::names_target(bytes) => without_part_of_version(bytes),
            _ => &[],
        };
        let range = at..at.saturating_add(read.len() as u64);
        let head = Head::parse(response, read, self.limits.headers);
        self.stray(bytes.len().saturating_sub(read.len()));
        let Some(head) = head else {
            if response || !has_line {
                self.stray(read.len());
            } else {
                self.odd_request(range, time, time);
                self.cut(direction, state, why);
            }
            return;
        };
        self.note_head(&head);
        if response {
            let index = self.pair(at);
            let body = Body::default();
            let message = HttpMessage {
                head: Some(head),
                head_range: range,
                body,
                trailer: None,
                first: time,
                last: time,
            };
            self.respond(index, message);
        } else {
            self.open_request(Some(head), range, time, time);
        }
        self.cut(direction, state, why);
    }
}

/// An incomplete request line without its last word, if that is the beginning of a version: it
/// would be read as part of the target.
fn without_part_of_version(line: &[u8]) -> &[u8] {
    let Some(at) = line.iter().rposition(|byte| matches!(byte, b' ' | b'\t')) else { return line };
    let (before, word) = line.split_at(at.saturating_add(1));
    let is_part = ["HTTP/1.0", "HTTP/1.1"].iter().any(|version| {
        let version = version.as_bytes();
        word.len() < version.len() && version.starts_with(word)
    });
    if is_part && probe::names_target(before) { before } else { line }
}
