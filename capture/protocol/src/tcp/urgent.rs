//! Urgent data: bytes that the receiver's program does not read in the stream.
//!
//! A segment with the URG flag says where the last byte of urgent data is. RFC 793 has that byte in the
//! stream. All systems take it out, and give it to a program apart from the rest, unless the program
//! asks for it with `SO_OOBINLINE` (RFC 6093 2.2 and 3.1). The urgent pointer names the byte after it,
//! as on all systems but Solaris (RFC 6093 3.1).
//!
//! The numbers change with the bytes: sequence numbers after an urgent byte count one less, as if the
//! byte had never been sent. So nothing else has to know of it.

use std::collections::VecDeque;

use super::segment::Segment;
use super::seq::Sequence;
use crate::extent::Extent;

/// Urgent bytes of one direction that are remembered one by one. Older ones only count: segments before
/// them do not come any more.
const MAX_REMEMBERED: usize = 16;

/// How far before the newest byte a segment may come again, in bytes.
const REACH: u64 = 1 << 27;

/// The urgent bytes of one direction.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Urgent bytes before those in `at`.
    earlier: u32,
    /// Their numbers, rising, and for each the stream offset of the byte after it.
    at: VecDeque<(Sequence, u64)>,
    /// Captured bytes that were taken out, repeated ones counted again.
    bytes: u64,
}

impl Taken {
    /// Nothing was.
    pub(super) const fn new() -> Self {
        Self { earlier: 0, bytes: 0, at: VecDeque::new() }
    }

    /// The number of the same byte if no urgent byte had been sent.
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

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        let numbers = self.at.capacity().saturating_mul(size_of::<(Sequence, u64)>());
        size_of::<Self>().saturating_add(numbers)
    }

    pub(super) fn has(&self, number: Sequence) -> bool {
        self.at.iter().any(|(at, _)| *at == number)
    }

    /// Takes out the byte with this number, which is after all others. The byte after it is at `offset`
    /// in the stream.
    pub(super) fn add(&mut self, number: Sequence, offset: u64) {
        self.at.push_back((number, offset));
        if self.at.len() > MAX_REMEMBERED {
            self.forget_oldest();
        }
    }

    /// Whether this number is after all others.
    pub(super) fn is_after(&self, number: Sequence) -> bool {
        self.at.back().is_none_or(|(at, _)| number.since(*at) > 0)
    }

    /// The stream has come to `offset`.
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

    /// The payload of a segment without its urgent bytes; the number of these on the wire; and the
    /// number of these that were captured.
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

/// Adds the part of an extent that begins at `at` in a payload.
fn push(rest: &mut Vec<Extent>, extent: &Extent, at: u32, range: std::ops::Range<u32>) {
    let skip = u64::from(range.start.saturating_sub(at));
    let part = extent.part(skip, u64::from(range.end.saturating_sub(range.start)));
    if part.len > 0 {
        rest.push(part);
    }
}
