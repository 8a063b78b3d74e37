//! How far a receiver lets its sender go.
//!
//! Captures lose packets, so what was seen of a window is the least there may have been: an update
//! may be missing, or the acknowledgment that moved it. So it begins at whichever is further, what
//! was acknowledged or what was seen. Where the scale is not known, nothing is known.

use super::Stream;
use crate::tcp::segment::{Scale, Segment};

/// More than 14 counts as 14 (RFC 7323 2.3).
const MAX_SHIFT: u8 = 14;

/// A window of which the scale is not known: larger than any.
const UNKNOWN: u32 = u32::MAX;

/// What one side has advertised, in bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Window {
    last: u32,
}

impl Window {
    pub(in crate::tcp) fn is_zero(self) -> bool {
        self.last == 0
    }
}

impl Stream {
    /// What a SYN of this direction says of scaling. One that does not offer it takes back nothing:
    /// a SYN is repeated without options if nobody answers.
    pub(in crate::tcp) fn note_scale(&mut self, scale: Scale) {
        if !matches!(self.scale, Scale::By(_)) {
            self.scale = scale;
        }
    }

    pub(in crate::tcp) fn scale(&self) -> Scale {
        self.scale
    }

    /// The window of a segment of this direction, whose other side said `other` of scaling.
    pub(in crate::tcp) fn note_window(&mut self, segment: &Segment<'_>, other: Scale) {
        let raw = u32::from(segment.window);
        let last = match (self.scale, other) {
            // Never scaled in a SYN (RFC 7323 2.2).
            _ if segment.flags.syn || raw == 0 => raw,
            (Scale::Unknown, _) | (_, Scale::Unknown) => UNKNOWN,
            // At most 2^16 and 2^14.
            (Scale::By(shift), Scale::By(_)) => raw << shift.min(MAX_SHIFT),
            _ => raw,
        };
        self.window = Some(Window { last });
    }

    /// The last stream offset at which a reset is in the window of the receiver, which said `window`
    /// last. The window's very end is in it, as is the place behind a FIN: a sender with all of it in
    /// flight is there.
    pub(super) fn reset_limit(&self, window: Option<Window>) -> u64 {
        match window {
            Some(Window { last }) if last != UNKNOWN => {
                self.known_end().saturating_add(last.into())
            }
            _ => u64::MAX,
        }
    }
}
