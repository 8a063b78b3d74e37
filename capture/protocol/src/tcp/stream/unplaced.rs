//! Captured bytes that are not in the stream: each is counted with its reason.

use super::{Inserted, Stream};
use crate::tcp::segment::Segment;

impl Stream {
    /// Counts the payload of this segment as rejected.
    pub(in crate::tcp) fn reject(&mut self, segment: &Segment<'_>) {
        let rejected = &mut self.counters.rejected_bytes;
        *rejected = rejected.saturating_add(segment.captured());
    }

    /// Counts bytes that have another copy in the stream.
    pub(super) fn repeat(&mut self, bytes: u64) {
        self.counters.repeated_bytes = self.counters.repeated_bytes.saturating_add(bytes);
    }

    /// Counts the captured bytes of a segment that are not in the stream. The assembler got
    /// `placed` of them. The first `before` bytes of the segment lie before the beginning of the
    /// stream, and all others after its end.
    pub(super) fn count_unplaced(
        &mut self,
        segment: &Segment<'_>,
        before: u64,
        placed: u64,
        inserted: &Inserted,
    ) {
        let before = before.min(segment.wire_len.into());
        // `inserted.seen` includes the bytes before the stream, for the counters of segments.
        self.repeat(inserted.seen.saturating_sub(before));
        let captured = segment.captured();
        let early = Segment { wire_len: narrow(before), ..*segment }.captured();
        let beyond = captured.saturating_sub(early).saturating_sub(placed);
        let mut rejected = beyond;
        if self.is_exact() {
            rejected = rejected.saturating_add(early);
        } else {
            self.counters.late_bytes = self.counters.late_bytes.saturating_add(early);
        }
        self.counters.rejected_bytes = self.counters.rejected_bytes.saturating_add(rejected);
    }
}

fn narrow(len: u64) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
