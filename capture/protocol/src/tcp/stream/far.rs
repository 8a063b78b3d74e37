//! Segments at an unexpected place, and when they are believed.
//!
//! A sender that goes on far from its last place is followed, because the capture may have had an
//! outage. But anybody may have sent a single segment. So it is kept aside, and accepted once two
//! more follow it, or once the receiver acknowledges bytes there. New bytes at the expected place
//! show that it was nothing.

use super::window::Stray;
use super::{Announce, Stream};
use crate::tcp::assembler::Bytes;
use crate::tcp::segment::{ConnectionSettings, Segment};
use crate::tcp::seq::Sequence;

/// Number of segments that must agree on a far place before the stream goes on there.
const VOTES: u8 = 3;

/// Maximum distance from one such segment to the next, in bytes. A capture that still loses most
/// packets sees few segments of each window, and windows of 16 MiB are common on fast links. Two
/// random numbers in a row are this close once in 65,000 times.
const STRIDE: i64 = 16 << 20;

/// Maximum number of strays kept. Three that follow each other are believed, and each may come
/// twice.
const MAX_STRAYS: usize = 6;

/// Maximum number of payload extents of a stray. A segment has one, or one per fragment.
const MAX_PIECES: usize = 64;

/// Segments at an unexpected place that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Votes {
    next: Sequence,
    count: u8,
    /// They include segments of the sender.
    is_said: bool,
    /// They include acknowledgments of the receiver.
    is_heard: bool,
    pub(super) strays: Vec<Stray>,
}

impl Stream {
    /// Counts a segment or an acknowledgment at an unexpected place. Returns `true` if [`VOTES`] of
    /// them agree, or one of each side.
    pub(super) fn agrees(&mut self, sequence: Sequence, len: u32, is_heard: bool) -> bool {
        let next = sequence.plus(len);
        match self.votes.as_deref_mut() {
            // Captured twice.
            Some(votes) if len > 0 && votes.next == next && votes.is_said => {}
            Some(votes) if (0..=STRIDE).contains(&sequence.since(votes.next)) => {
                votes.count = votes.count.saturating_add(1);
                votes.next = next;
                votes.is_heard |= is_heard;
                votes.is_said |= !is_heard;
            }
            _ => {
                let (is_said, strays) = (!is_heard, Vec::new());
                self.votes = Some(Box::new(Votes { next, count: 1, is_said, is_heard, strays }));
            }
        }
        let votes = self.votes.as_ref();
        votes.is_some_and(|votes| votes.count >= VOTES || (votes.is_said && votes.is_heard))
    }

    /// A segment too far away for sequence numbers to place it. Returns its stream offset if it is
    /// believed; the strays before it are added to the stream first.
    pub(super) fn sent_from_afar(
        &mut self,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) -> Option<i64> {
        let sequence = segment.sequence.plus(segment.flags.syn.into());
        if !self.agrees(sequence, segment.wire_len, false) {
            self.keep_stray(None, segment);
            return None;
        }
        Some(self.go_on_at(sequence, settings, bytes, announce))
    }

    /// An acknowledgment too far away for sequence numbers to place it. Returns its stream offset
    /// if it is believed.
    pub(super) fn heard_from_afar(
        &mut self,
        number: Sequence,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) -> Option<u64> {
        if !self.agrees(number, 0, true) {
            return None;
        }
        u64::try_from(self.go_on_at(number, settings, bytes, announce)).ok()
    }

    /// Continues the stream at a far place. Returns the stream offset of `number`, which is there.
    fn go_on_at(
        &mut self,
        number: Sequence,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) -> i64 {
        let strays = self.votes.take().map(|votes| votes.strays).unwrap_or_default();
        // Strays near the expected place are someone else's.
        let far = || strays.iter().filter(|stray| stray.offset.is_none());
        let first = far().map(Stray::sequence).min_by_key(|stray| stray.since(number));
        let first = first.filter(|first| first.since(number) < 0).unwrap_or(number);
        // Forward, since a sender does not go back that far.
        let anchor = self.anchor();
        let forward = first.0.wrapping_sub(self.origin.at(anchor).0);
        let start = anchor.saturating_add(forward.into());
        self.give_up(start, announce);
        let start = i64::try_from(start).unwrap_or(i64::MAX);
        for stray in far() {
            let offset = start.saturating_add(stray.sequence().since(first));
            self.take_stray(offset, stray, settings, bytes, announce);
        }
        start.saturating_add(number.since(first))
    }

    /// Keeps a segment aside, with its stream offset if that is known.
    pub(super) fn keep_stray(&mut self, offset: Option<i64>, segment: &Segment<'_>) {
        if let Some(votes) = &mut self.votes
            && votes.strays.len() < MAX_STRAYS
            && segment.payload.len() <= MAX_PIECES
        {
            votes.strays.push(Stray::new(offset, segment));
        }
    }
}
