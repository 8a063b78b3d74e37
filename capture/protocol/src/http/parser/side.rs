//! One direction: where its framing stands, and the bytes that are not decided yet.
//!
//! Between calls `carry` ends at `next`, and begins with the first byte no step consumed.

use std::ops::Range;

use super::End;
use super::doubt::Hidden;
use crate::http::head::{Head, Scan};
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Phase {
    /// Between messages.
    #[default]
    Start,
    Head(Scan),
    /// A body announced as chunked whose first line is to prove it.
    Probe(Plan),
    /// A body, perhaps chunked, that may not come: of a response that may have been one to `HEAD`,
    /// or of a request that waits for leave to send it.
    Unsure(Plan, bool),
    Length(u64),
    Close,
    Size,
    Data(u64),
    /// Offset of the first trailer line, and of the current one.
    Trailer(u64, u64),
    /// Nothing is known until the next start of a message.
    Lost,
    Opaque,
}

/// What is known of a body before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    None,
    Length(u64),
    Close,
}

/// Headers announce a body that the status forbids; it is believed if it comes.
#[derive(Debug)]
pub(super) struct Forbidden {
    pub(super) head: Head,
    pub(super) range: Range<u64>,
    pub(super) first: Timestamp,
    /// Of a response 1xx, which then was the final one.
    pub(super) interim: bool,
}

#[derive(Debug, Default)]
pub(super) struct Side {
    /// Stream offset after the last byte or hole.
    pub(super) next: u64,
    /// Undecided bytes before `next`.
    pub(super) carry: Vec<u8>,
    /// When they came: from which stream offset on, at most [`MARKS`].
    pub(super) marks: Vec<(u64, Timestamp)>,
    pub(super) phase: Phase,
    /// Index of the transaction whose message is under way.
    pub(super) current: u64,
    pub(super) ended: Option<End>,
    /// Whether there was a gap.
    pub(super) gapped: bool,
    /// Whether a message began.
    pub(super) began: bool,
    /// Where the gap began that may have swallowed heads.
    pub(super) lost_from: Option<u64>,
    /// Messages that began in it, and in further gaps since.
    pub(super) lost: Hidden,
    /// For requests: the response bytes that the client had seen when that gap began.
    pub(super) lost_floor: u64,
    pub(super) forbidden: Option<Box<Forbidden>>,
    /// Bytes in front of the next message, all captured, are of no message.
    pub(super) passed_over: bool,
}

/// Times remembered of undecided bytes. All but a few of them begin a head and need one.
pub(super) const MARKS: usize = 8;

impl Side {
    /// Nothing is known until the next start of a message.
    pub(super) const fn is_lost(&self) -> bool {
        matches!(self.phase, Phase::Lost)
    }

    pub(super) fn carry_time(&self) -> Timestamp {
        self.marks.first().map(|(_, time)| *time).unwrap_or_default()
    }
}
