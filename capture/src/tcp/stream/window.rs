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

/// More than 14 counts as 14 (RFC 7323 2.3).
const MAX_SHIFT: u8 = 14;

/// A window of which the scale is not known: larger than any.
const UNKNOWN: u32 = u32::MAX;

/// The largest window without a scale (RFC 9293 3.1). Windows open as data is read, so one that was
/// only seen small tells little.
const LEAST: u32 = 65_535;

/// Strays that are kept. Three that follow on each other are believed, and each may come twice.
const MAX_STRAYS: usize = 6;

/// Pieces of payload that are kept of a stray: a segment is in one, or in fragments.
const MAX_PIECES: usize = 64;

/// What one side has advertised, in bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Window {
    last: u32,
    largest: u32,
}

/// A segment out of the window.
#[derive(Clone, Debug)]
pub(super) struct Stray {
    offset: i64,
    segment: Segment<'static>,
    payload: Vec<Extent>,
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
        if self.agrees(segment.sequence, segment.wire_len) {
            self.take_strays(u64::MAX, settings, bytes, announce);
            return true;
        }
        if let Some(votes) = &mut self.votes
            && votes.strays.len() < MAX_STRAYS
        {
            let Segment { time, packet, direction, sequence, acknowledgment, flags, .. } = *segment;
            let Segment { window, scale, wire_len, .. } = *segment;
            let payload = &[];
            #[rustfmt::skip]
            let alone = Segment {
                time, packet, direction, sequence, acknowledgment, flags, window, scale, payload,
                wire_len,
            };
            let payload = segment.payload.iter().copied().take(MAX_PIECES).collect();
            votes.strays.push(Stray { offset, segment: alone, payload });
        }
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
        let is_part = |stray: &Stray| u64::try_from(stray.offset).is_ok_and(|start| start < end);
        if !self.votes.as_ref().is_some_and(|votes| votes.strays.iter().any(is_part)) {
            return;
        }
        for stray in self.votes.take().map(|votes| votes.strays).unwrap_or_default() {
            if is_part(&stray) {
                let segment = Segment { payload: &stray.payload, ..stray.segment };
                self.counters.rejected = self.counters.rejected.saturating_sub(1);
                let _ = self.put(stray.offset, &segment, settings, bytes, announce);
            }
        }
    }
}
