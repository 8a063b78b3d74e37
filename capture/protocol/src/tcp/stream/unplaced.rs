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

    /// Counts the bytes of a segment that were not offered to the assembler; `placed` captured
    /// bytes were. The segment began `before` bytes before the stream. The other bytes lie after
    /// the stream's end.
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
        let behind = captured.saturating_sub(early).saturating_sub(placed);
        let mut rejected = behind;
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
