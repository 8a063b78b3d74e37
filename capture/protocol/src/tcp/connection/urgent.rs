//! Urgent data is taken out of segments before any other processing.

use super::Connection;
use crate::tcp::segment::{ConnectionSettings, Direction, Segment, Urgent};
use crate::tcp::stream::SegmentPlace;
use crate::tcp::urgent::UrgentBytes;

/// Maximum distance of an urgent byte after the newest byte seen: the range of the pointer.
const AHEAD: i64 = 65_536;

static NOTHING: UrgentBytes = UrgentBytes::new();

impl Connection {
    /// Processes the urgent pointer of a segment. An urgent byte stays in the stream if later bytes
    /// were seen before its pointer.
    pub(super) fn note_urgent(&mut self, segment: &Segment<'_>, settings: &ConnectionSettings) {
        let direction = segment.direction;
        if settings.urgent == Urgent::OutOfBand
            && let Some(pointer) = segment.urgent
            && !segment.flags.syn
            && !segment.flags.rst
        {
            let index = u32::from(pointer).saturating_sub(1);
            let number = segment.sequence.plus(index);
            let taken = self.taken(direction);
            let stream = self.half(direction);
            let offset = if !stream.is_known() {
                (index < segment.wire_len).then_some(0)
            } else if taken.has(number) || !taken.is_after(number) {
                None
            } else {
                match stream.place(taken.renumber(number), 1, settings) {
                    SegmentPlace::Near(offset) => {
                        let seen = i64::try_from(stream.seen_end()).unwrap_or(i64::MAX);
                        let ahead = offset.saturating_sub(seen);
                        u64::try_from(offset).ok().filter(|_| (0..=AHEAD).contains(&ahead))
                    }
                    SegmentPlace::Far => None,
                }
            };
            if let Some(offset) = offset {
                self.taken_mut(direction).add(number, offset);
            }
        }
        if self.urgent.is_some() {
            let seen = self.half(direction).seen_end();
            self.taken_mut(direction).come_to(seen);
        }
    }

    /// The urgent bytes of the stream sent in `direction`.
    pub(super) fn taken(&self, direction: Direction) -> &UrgentBytes {
        let Some([forward, backward]) = self.urgent.as_deref() else { return &NOTHING };
        match direction {
            Direction::Forward => forward,
            Direction::Backward => backward,
        }
    }

    /// Captured bytes of urgent data that were taken out of the stream sent in `direction`. They
    /// are counted in [`Counters::captured_bytes`](crate::tcp::StreamCounters::captured_bytes) too.
    #[must_use]
    pub fn urgent_bytes(&self, direction: Direction) -> u64 {
        self.taken(direction).bytes()
    }

    pub(super) fn urgent_memory(&self) -> usize {
        let urgent = self.urgent.as_deref();
        urgent.map_or(0, |urgent| urgent.iter().map(UrgentBytes::memory).sum())
    }

    pub(super) fn taken_mut(&mut self, direction: Direction) -> &mut UrgentBytes {
        let [forward, backward] = &mut **self.urgent.get_or_insert_default();
        match direction {
            Direction::Forward => forward,
            Direction::Backward => backward,
        }
    }

    /// The segment with the numbers it would have if no urgent byte had been sent.
    pub(super) fn renumbered<'a>(&self, segment: &Segment<'a>) -> Segment<'a> {
        let (own, other) = (self.taken(segment.direction), self.taken(segment.direction.other()));
        Segment {
            sequence: own.renumber(segment.sequence),
            acknowledgment: segment.acknowledgment.map(|number| other.renumber(number)),
            ..*segment
        }
    }
}
