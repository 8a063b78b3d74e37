//! The message under way: the ranges of its bytes, and its end.
//!
//! Ranges of a body are in order, do not touch, and contain every hole.

use std::ops::Range;

use super::pairing::OpenTransaction;
use super::side::MessagePhase;
use super::{HttpParser, StreamEnd};
use crate::http::body::framed::Body;
use crate::http::direction::MessageRole;
use crate::http::transaction::{HttpMessage, TransactionState};
use crate::time::Timestamp;

impl HttpParser {
    pub(super) fn current(&mut self, direction: MessageRole) -> Option<&mut OpenTransaction> {
        let index = self.side(direction).current;
        self.open.iter_mut().find(|open| open.transaction.index == index)
    }

    pub(super) fn message(
        &mut self,
        direction: MessageRole,
        change: impl FnOnce(&mut HttpMessage),
    ) {
        let message = self.current(direction).and_then(|open| match direction {
            MessageRole::Request => open.transaction.request.as_mut(),
            MessageRole::Response => open.transaction.response.as_mut(),
        });
        if let Some(message) = message {
            change(message);
        }
    }

    pub(super) fn worsen(
        &mut self,
        direction: MessageRole,
        state: TransactionState,
        why: &'static str,
    ) {
        if let Some(open) = self.current(direction) {
            open.transaction.worsen(state, why);
        }
    }

    /// Notes something odd and harmless about the current transaction.
    pub(super) fn remark(&mut self, direction: MessageRole, what: &'static str) {
        if let Some(open) = self.current(direction) {
            open.transaction.remark(what);
        }
    }

    pub(super) fn touch(&mut self, direction: MessageRole, now: Timestamp) {
        self.message(direction, |message| message.last = message.last.max(now));
    }

    /// Adds bytes of the body.
    pub(super) fn data(&mut self, direction: MessageRole, at: u64, length: usize, now: Timestamp) {
        let range = at..at.saturating_add(length as u64);
        self.add(direction, &range, false);
        self.touch(direction, now);
    }

    /// Adds missing bytes of the body.
    pub(super) fn hole(&mut self, direction: MessageRole, range: Range<u64>) {
        self.add(direction, &range, true);
        self.worsen(direction, TransactionState::Gap, "bytes of the body are missing");
    }

    pub(super) fn add(&mut self, direction: MessageRole, range: &Range<u64>, hole: bool) {
        let limit = self.limits.body_ranges;
        let (mut full, mut added) = (false, 0_usize);
        self.message(direction, |message| {
            let Body { ranges, holes, .. } = &mut message.body;
            let before = ranges.len().saturating_add(holes.len());
            full = !push(ranges, range, limit) || hole && !push(holes, range, limit);
            added = ranges.len().saturating_add(holes.len()).saturating_sub(before);
        });
        if added > 0 {
            self.pending_ranges = self.pending_ranges.saturating_add(added);
            if let Some(open) = self.current(direction) {
                open.ranges = open.ranges.saturating_add(added);
            }
        }
        if full {
            let length = range.end.saturating_sub(range.start);
            self.counters.unlisted_bytes = self.counters.unlisted_bytes.saturating_add(length);
            self.worsen(direction, TransactionState::Truncated, "the body has too many pieces");
        }
    }

    /// The current message is complete.
    pub(super) fn finish(&mut self, direction: MessageRole) {
        self.message(direction, |message| message.body.ended = true);
        self.close(direction);
    }

    /// The current message breaks off.
    pub(super) fn cut(
        &mut self,
        direction: MessageRole,
        state: TransactionState,
        why: &'static str,
    ) {
        self.worsen(direction, state, why);
        self.close(direction);
    }

    pub(super) fn close(&mut self, direction: MessageRole) {
        if let Some(open) = self.current(direction) {
            match direction {
                MessageRole::Request => open.request_done = true,
                MessageRole::Response => open.response_done = true,
            }
            if direction == MessageRole::Request && self.response.ended.is_some() {
                let how = self.response.ended;
                if let Some(open) = self.current(direction)
                    && open.transaction.response.is_none()
                {
                    open.response_done = true;
                    let (state, why) = match how {
                        Some(StreamEnd::Reset) => (
                            TransactionState::Aborted,
                            "the connection was reset before the response",
                        ),
                        _ => (TransactionState::Truncated, "there is no response"),
                    };
                    open.transaction.worsen(state, why);
                }
            }
        }
        let side = self.side_mut(direction);
        side.current = 0;
        side.phase = MessagePhase::Start;
        self.emit();
    }
}

/// Appends a range, and merges it with the last one if they touch. `false` if there is no room.
fn push(ranges: &mut Vec<Range<u64>>, range: &Range<u64>, limit: usize) -> bool {
    if range.is_empty() {
        return true;
    }
    if let Some(last) = ranges.last_mut().filter(|last| last.end == range.start) {
        last.end = range.end;
        return true;
    }
    let room = ranges.len() < limit;
    if room {
        ranges.push(range.clone());
    }
    room
}
