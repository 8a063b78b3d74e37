//! The message under way: the ranges of its bytes, and its end.
//!
//! Ranges of a body are in order, do not touch, and contain every hole.

use std::ops::Range;

use super::pairing::Open;
use super::side::Phase;
use super::{End, Parser};
use crate::http::body::framed::Body;
use crate::http::direction::Direction;
use crate::http::transaction::{Message, State};
use crate::time::Timestamp;

impl Parser {
    pub(super) fn current(&mut self, direction: Direction) -> Option<&mut Open> {
        let index = self.side(direction).current;
        self.open.iter_mut().find(|open| open.transaction.index == index)
    }

    pub(super) fn message(&mut self, direction: Direction, change: impl FnOnce(&mut Message)) {
        let message = self.current(direction).and_then(|open| match direction {
            Direction::Request => open.transaction.request.as_mut(),
            Direction::Response => open.transaction.response.as_mut(),
        });
        if let Some(message) = message {
            change(message);
        }
    }

    pub(super) fn worsen(&mut self, direction: Direction, state: State, why: &'static str) {
        if let Some(open) = self.current(direction) {
            open.transaction.worsen(state, why);
        }
    }

    /// Notes something odd and harmless about the current transaction.
    pub(super) fn remark(&mut self, direction: Direction, what: &'static str) {
        if let Some(open) = self.current(direction) {
            open.transaction.remark(what);
        }
    }

    pub(super) fn touch(&mut self, direction: Direction, now: Timestamp) {
        self.message(direction, |message| message.last = message.last.max(now));
    }

    /// Adds bytes of the body.
    pub(super) fn data(&mut self, direction: Direction, at: u64, length: usize, now: Timestamp) {
        let range = at..at.saturating_add(length as u64);
        self.add(direction, &range, false);
        self.touch(direction, now);
    }

    /// Adds missing bytes of the body.
    pub(super) fn hole(&mut self, direction: Direction, range: Range<u64>) {
        self.add(direction, &range, true);
        self.worsen(direction, State::Gap, "bytes of the body are missing");
    }

    pub(super) fn add(&mut self, direction: Direction, range: &Range<u64>, hole: bool) {
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
            self.worsen(direction, State::Truncated, "the body has too many pieces");
        }
    }

    /// The current message is complete.
    pub(super) fn finish(&mut self, direction: Direction) {
        self.message(direction, |message| message.body.ended = true);
        self.close(direction);
    }

    /// The current message breaks off.
    pub(super) fn cut(&mut self, direction: Direction, state: State, why: &'static str) {
        self.worsen(direction, state, why);
        self.close(direction);
    }

    pub(super) fn close(&mut self, direction: Direction) {
        if let Some(open) = self.current(direction) {
            match direction {
                Direction::Request => open.request_done = true,
                Direction::Response => open.response_done = true,
            }
            if direction == Direction::Request && self.response.ended.is_some() {
                let how = self.response.ended;
                if let Some(open) = self.current(direction)
                    && open.transaction.response.is_none()
                {
                    open.response_done = true;
                    let (state, why) = match how {
                        Some(End::Reset) => {
                            (State::Aborted, "the connection was reset before the response")
                        }
                        _ => (State::Truncated, "there is no response"),
                    };
                    open.transaction.worsen(state, why);
                }
            }
        }
        let side = self.side_mut(direction);
        side.current = 0;
        side.phase = Phase::Start;
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
