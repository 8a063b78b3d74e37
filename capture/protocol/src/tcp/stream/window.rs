//! Windows: how far a receiver lets its sender go.
//!
//! Captures lose packets, so the window seen is only a minimum of the real one: an update may be
//! missing, or the acknowledgment that moved it. So a window is counted from the highest byte
//! acknowledged or seen, whichever is further. If the scale is unknown, the window is unknown.
//!
//! A segment far out of the window is a stray. It becomes part of the stream only if the receiver
//! acknowledges it, or if other segments follow it. Until then it is kept, because the sender may
//! really be there after an outage of the capture. New bytes at the expected place show that it was
//! nothing.

use super::{Announce, Stream};
use crate::extent::Extent;
use crate::tcp::assembler::Bytes;
use crate::tcp::segment::{ConnectionSettings, Scale, Segment};
use crate::tcp::seq::Sequence;

/// A shift of more than 14 counts as 14 (RFC 7323 2.3).
const MAX_SHIFT: u8 = 14;

/// A window of unknown scale: larger than any other.
const UNKNOWN: u32 = u32::MAX;

/// The largest window without a scale (RFC 9293 3.1). Windows grow as data is read, so a small one
/// that was seen says little.
const LEAST: u32 = 65_535;

/// Windows that one side has advertised, in bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct ReceiveWindow {
    last: u32,
    largest: u32,
}

/// A segment out of the window, or too far away for sequence numbers to place it.
#[derive(Clone, Debug)]
pub(super) struct Stray {
    /// Its stream offset; `None` if sequence numbers cannot place it.
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

    /// Sequence number of its first byte.
    pub(super) fn sequence(&self) -> Sequence {
        self.segment.sequence.plus(self.segment.flags.syn.into())
    }
}

impl ReceiveWindow {
    pub(in crate::tcp) fn is_zero(self) -> bool {
        self.last == 0
    }
}

impl Stream {
    /// Notes the window scale of a SYN of this direction. A SYN without a scale does not take back
    /// an earlier one: SYNs are repeated without options if no answer comes.
    pub(in crate::tcp) fn note_scale(&mut self, scale: Scale) {
        if !matches!(self.scale, Scale::By(_)) {
            self.scale = scale;
        }
    }

    pub(in crate::tcp) fn scale(&self) -> Scale {
        self.scale
    }

    /// Notes the window of a segment of this direction. `other` is the scale that the other side
    /// offered.
    pub(in crate::tcp) fn note_window(&mut self, segment: &Segment<'_>, other: Scale) {
        let raw = u32::from(segment.window);
        let last = match (self.scale, other) {
            // The window of a SYN is never scaled (RFC 7323 2.2).
            _ if segment.flags.syn || raw == 0 => raw,
            (Scale::Unknown, _) | (_, Scale::Unknown) => UNKNOWN,
            // At most 2^16 times 2^14.
            (Scale::By(shift), Scale::By(_)) => raw << shift.min(MAX_SHIFT),
            _ => raw,
        };
        let largest = self.window.map_or(last, |window| window.largest.max(last));
        self.window = Some(ReceiveWindow { last, largest });
    }

    /// The last stream offset at which a reset is in the receiver's window `window`. It includes
    /// the very end of the window and the place after a FIN: a sender whose whole window is in
    /// flight is there.
    pub(super) fn reset_limit(&self, window: Option<ReceiveWindow>) -> u64 {
        match window {
            Some(ReceiveWindow { last, .. }) if last != UNKNOWN => {
                self.known_end().saturating_add(last.into())
            }
            _ => u64::MAX,
        }
    }

    /// Returns `true` if a segment at `offset` is so far out of the window that its sender cannot
    /// have sent it: by more than twice the largest window that its receiver has ever advertised.
    pub(in crate::tcp) fn is_far_out(&self, offset: i64, window: Option<ReceiveWindow>) -> bool {
        let Some(ReceiveWindow { largest, .. }) = window.filter(|window| window.largest != UNKNOWN)
        else {
            return false;
        };
        let most = u64::from(largest.max(LEAST)).saturating_mul(2);
        u64::try_from(offset).is_ok_and(|offset| offset > self.anchor().saturating_add(most))
    }

    /// Processes a segment that is far out. Returns whether enough others at that place confirm it.
    /// If so, those are added to the stream first.
    pub(super) fn stray(
        &mut self,
        offset: i64,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
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

    /// Adds strays that begin before `end` to the stream.
    pub(super) fn take_strays(
        &mut self,
        end: u64,
        settings: &ConnectionSettings,
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

    /// Adds a stray to the stream after all.
    pub(super) fn take_stray(
        &mut self,
        offset: i64,
        stray: &Stray,
        settings: &ConnectionSettings,
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
