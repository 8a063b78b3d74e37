//! Urgent data: bytes that the receiver's program does not read in the stream.
//!
//! A segment with the URG flag states where the last byte of urgent data is. In RFC 793, that byte
//! is part of the stream. All systems take it out, and give it to a program separately, unless the
//! program asks for it with `SO_OOBINLINE` (RFC 6093 2.2 and 3.1). The urgent pointer names the
//! byte after it, as on all systems but Solaris (RFC 6093 3.1).
//!
//! The numbers change with the bytes: sequence numbers after an urgent byte are lowered by one, as
//! if the byte had never been sent. So no other module needs to know about it.

use std::collections::VecDeque;

use super::segment::Segment;
use super::seq::Sequence;
use crate::extent::Extent;

/// Number of urgent bytes per direction that are remembered one by one. Older ones are only
/// counted, because segments before them no longer come.
const MAX_REMEMBERED: usize = 16;

/// Maximum distance before the newest byte at which a segment may be repeated, in bytes.
const REACH: u64 = 1 << 27;

/// The urgent bytes of one direction.
#[derive(Debug, Default)]
pub(super) struct UrgentBytes {
    /// Urgent bytes before those in `at`.
    earlier: u32,
    /// Their sequence numbers, ascending, each with the stream offset of the byte after it.
    at: VecDeque<(Sequence, u64)>,
    /// Captured bytes that were taken out; repeated ones count again.
    bytes: u64,
}

impl UrgentBytes {
    /// Without any urgent byte.
    pub(super) const fn new() -> Self {
        Self { earlier: 0, bytes: 0, at: VecDeque::new() }
    }

    /// The sequence number the same byte would have if no urgent byte had been sent.
    pub(super) fn renumber(&self, number: Sequence) -> Sequence {
        let before = self.at.iter().filter(|(at, _)| number.since(*at) > 0).count();
        let before = self.earlier.wrapping_add(u32::try_from(before).unwrap_or(u32::MAX));
        Sequence(number.0.wrapping_sub(before))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn count(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Approximate memory in bytes.
    pub(super) fn memory(&self) -> usize {
        let numbers = self.at.capacity().saturating_mul(size_of::<(Sequence, u64)>());
        size_of::<Self>().saturating_add(numbers)
    }

    pub(super) fn has(&self, number: Sequence) -> bool {
        self.at.iter().any(|(at, _)| *at == number)
    }

    /// Takes out the byte with this number, which is after all others. `offset` is the stream
    /// offset of the byte after it.
    pub(super) fn add(&mut self, number: Sequence, offset: u64) {
        self.at.push_back((number, offset));
        if self.at.len() > MAX_REMEMBERED {
            self.forget_oldest();
        }
    }

    /// Returns `true` if this number is after all others.
    pub(super) fn is_after(&self, number: Sequence) -> bool {
        self.at.back().is_none_or(|(at, _)| number.since(*at) > 0)
    }

    /// The stream has reached `offset`: forgets urgent bytes too far before it.
    pub(super) fn come_to(&mut self, offset: u64) {
        while self.at.front().is_some_and(|(_, at)| offset.saturating_sub(*at) > REACH) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if self.at.pop_front().is_some() {
            self.earlier = self.earlier.wrapping_add(1);
        }
    }

    /// The payload of a segment without its urgent bytes, how many of these were on the wire, and
    /// how many of them were captured.
    pub(super) fn strip(&self, segment: &Segment<'_>) -> (Vec<Extent>, u32, u64) {
        let places = self.at.iter().map(|(at, _)| at.since(segment.sequence));
        let places = places.filter_map(|place| u32::try_from(place).ok());
        let places: Vec<u32> = places.filter(|place| *place < segment.wire_len).collect();
        let (mut rest, mut at, mut captured) = (Vec::new(), 0_u32, 0_u64);
        for extent in segment.payload {
            let end = at.saturating_add(extent.len);
            let mut from = at;
            for place in places.iter().copied().filter(|place| (at..end).contains(place)) {
                push(&mut rest, extent, at, from..place);
                captured = captured.saturating_add((extent.packet != 0).into());
                from = place.saturating_add(1);
            }
            push(&mut rest, extent, at, from..end);
            at = end;
        }
        (rest, u32::try_from(places.len()).unwrap_or(u32::MAX), captured)
    }
}

/// Adds a part of an extent that begins at offset `at` of a payload.
fn push(rest: &mut Vec<Extent>, extent: &Extent, at: u32, range: std::ops::Range<u32>) {
    let skip = u64::from(range.start.saturating_sub(at));
    let part = extent.part(skip, u64::from(range.end.saturating_sub(range.start)));
    if part.len > 0 {
        rest.push(part);
    }
}
