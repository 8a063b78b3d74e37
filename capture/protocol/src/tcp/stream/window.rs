//! How far a receiver lets its sender go.
//!
//! Captures lose packets, so what was seen of a window is the least there may have been: an update
//! may be missing, or the acknowledgment that moved it. So it begins at whichever is further, what
//! was acknowledged or what was seen. Where the scale is not known, nothing is known.
//!
//! What is far out of the window is a stray: nobody but the receiver's acknowledgment, or others that
//! follow on it, makes it a part of the stream. It is kept until then, because after an outage of the
//! capture the sender is there. It is nothing if new bytes come where they are expected.

use super::{Announce, Stream};
use crate::extent::Extent;
use crate::tcp::assembler::Bytes;
use crate::tcp::segment::{Scale, Segment, Settings};
use crate::tcp::seq::Sequence;

/// More than 14 counts as 14 (RFC 7323 2.3).
const MAX_SHIFT: u8 = 14;

/// A window of which the scale is not known: larger than any.
const UNKNOWN: u32 = u32::MAX;

/// The largest window without a scale (RFC 9293 3.1). Windows open as data is read, so one that was
/// only seen small tells little.
const LEAST: u32 = 65_535;

/// What one side has advertised, in bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Window {
    last: u32,
    largest: u32,
}

/// A segment out of the window, or further off than sequence numbers tell.
#[derive(Clone, Debug)]
pub(super) struct Stray {
    /// `None` if it is that far off.
    pub(super) offset: Option<i64>,
    segment: Segment<'static>,
    payload: Vec<Extent>,
}

impl Stray {
    pub(super) fn new(offset: Option<i64>, segment: &Segment<'_>) -> Self {
        let Segment { time, packet, direction, sequence, acknowledgment, flags, .. } = *segment;
        let Segment { window, scale, wire_len, is_padded, urgent, .. } = *segment;
        let payload = &[];
        #[rustfmt::skip]
        let alone = Segment {
            time, packet, direction, sequence, acknowledgment, flags, window, scale, payload,
            wire_len, is_padded, urgent,
        };
        Self { offset, segment: alone, payload: segment.payload.to_vec() }
    }

    /// Number of its first byte.
    pub(super) fn sequence(&self) -> Sequence {
        self.segment.sequence.plus(self.segment.flags.syn.into())
    }
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
        let largest = self.window.map_or(last, |window| window.largest.max(last));
        self.window = Some(Window { last, largest });
    }

    /// The last stream offset at which a reset is in the window of the receiver, which said `window`
    /// last. The window's very end is in it, as is the place behind a FIN: a sender with all of it in
    /// flight is there.
    pub(super) fn reset_limit(&self, window: Option<Window>) -> u64 {
        match window {
            Some(Window { last, .. }) if last != UNKNOWN => {
                self.known_end().saturating_add(last.into())
            }
            _ => u64::MAX,
        }
    }

    /// Whether a segment at `offset` is so far out of the window that it is none of its sender's:
    /// by more than twice the largest window that its receiver has ever advertised.
    pub(in crate::tcp) fn is_far_out(&self, offset: i64, window: Option<Window>) -> bool {
        let Some(Window { largest, .. }) = window.filter(|window| window.largest != UNKNOWN) else {
            return false;
        };
        let most = u64::from(largest.max(LEAST)).saturating_mul(2);
        u64::try_from(offset).is_ok_and(|offset| offset > self.anchor().saturating_add(most))
    }

    /// A segment that is far out. Whether it is believed, as enough others were there before it;
    /// these are taken first.
    pub(super) fn stray(
        &mut self,
        offset: i64,
        segment: &Segment<'_>,
        settings: &Settings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) -> bool {
        if self.agrees(segment.sequence, segment.wire_len, false) {
            self.take_strays(u64::MAX, settings, bytes, announce);
            return true;
        }
        self.keep_stray(Some(offset), segment);
        false
    }

    /// Strays that begin before `end` are part of the stream.
    pub(super) fn take_strays(
        &mut self,
        end: u64,
        settings: &Settings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) {
        let part = |stray: &Stray| {
            stray.offset.filter(|offset| u64::try_from(*offset).is_ok_and(|start| start < end))
        };
        if !self
            .votes
            .as_ref()
            .is_some_and(|votes| votes.strays.iter().any(|one| part(one).is_some()))
        {
            return;
        }
        for stray in self.votes.take().map(|votes| votes.strays).unwrap_or_default() {
            if let Some(offset) = part(&stray) {
                self.take_stray(offset, &stray, settings, bytes, announce);
            }
        }
    }

    /// A stray is a part of the stream after all.
    pub(super) fn take_stray(
        &mut self,
        offset: i64,
        stray: &Stray,
        settings: &Settings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) {
        let segment = Segment { payload: &stray.payload, ..stray.segment };
        let counters = &mut self.counters;
        counters.rejected = counters.rejected.saturating_sub(1);
        counters.rejected_bytes = counters.rejected_bytes.saturating_sub(segment.captured());
        let _ = self.put(offset, &segment, settings, bytes, announce);
    }
}
