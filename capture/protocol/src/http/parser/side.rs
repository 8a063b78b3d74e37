//! One direction: the state of its framing, and its undecided bytes.
//!
//! Between calls, `carry` ends at `next` and begins with the first byte that no step consumed.

use std::ops::Range;

use super::StreamEnd;
use super::doubt::Hidden;
use crate::http::head::{Head, Scan};
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum MessagePhase {
    /// Between messages.
    #[default]
    Start,
    Head(Scan),
    /// A body announced as chunked whose first line must prove it.
    Probe(FramingPlan),
    /// A body, perhaps chunked, that may not come: the response may answer `HEAD`, or the request
    /// waits for permission to send its body.
    Unsure(FramingPlan, bool),
    Length(u64),
    Close,
    Size,
    Data(u64),
    /// Stream offset of the first trailer line, and of the current one.
    Trailer(u64, u64),
    /// The start of the next message is unknown.
    Lost,
    Opaque,
}

/// The expected framing of a body before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FramingPlan {
    None,
    Length(u64),
    Close,
}

/// Headers announced a body that the status forbids. It is believed if it comes.
#[derive(Debug)]
pub(super) struct Forbidden {
    pub(super) head: Head,
    pub(super) range: Range<u64>,
    pub(super) first: Timestamp,
    /// It belongs to a response 1xx, which then was the final one.
    pub(super) interim: bool,
}

#[derive(Debug, Default)]
pub(super) struct ParserSide {
    /// Stream offset after the last byte or hole.
    pub(super) next: u64,
    /// Undecided bytes before `next`.
    pub(super) carry: Vec<u8>,
    /// Times at which they came, each with the stream offset it applies from; at most [`MARKS`].
    pub(super) marks: Vec<(u64, Timestamp)>,
    pub(super) phase: MessagePhase,
    /// Index of the transaction whose message is under way.
    pub(super) current: u64,
    pub(super) ended: Option<StreamEnd>,
    /// A gap occurred.
    pub(super) gapped: bool,
    /// A message began.
    pub(super) began: bool,
    /// Stream offset of the gap that may have swallowed heads.
    pub(super) lost_from: Option<u64>,
    /// Messages that began in that gap, and in later gaps.
    pub(super) lost: Hidden,
    /// For requests: the response bytes that the client had seen when that gap began, as a stream
    /// offset.
    pub(super) lost_floor: u64,
    pub(super) forbidden: Option<Box<Forbidden>>,
    /// Captured bytes before the next message belong to no message.
    pub(super) passed_over: bool,
}

/// Maximum number of times kept for undecided bytes. Most such bytes begin a head and need only
/// one.
pub(super) const MARKS: usize = 8;

impl ParserSide {
    /// The start of the next message is unknown.
    pub(super) const fn is_lost(&self) -> bool {
        matches!(self.phase, MessagePhase::Lost)
    }

    pub(super) fn carry_time(&self) -> Timestamp {
        self.marks.first().map(|(_, time)| *time).unwrap_or_default()
    }
}
