//! Acknowledgments of segments that came before the bytes that precede them.

use std::collections::BTreeMap;

use protocol::footprint;

/// Maximum number of early segments whose acknowledgment is kept until their bytes are in order.
const MAX_MARKS: usize = 4_096;

/// Acknowledgments of early segments, by the stream offset after the segment.
#[derive(Debug, Default)]
pub(in crate::flow) struct Marks(BTreeMap<u64, u64>);

impl Marks {
    /// Records that a segment whose payload ends at `end` came too early, and acknowledges the
    /// other stream up to `acknowledged`.
    pub(in crate::flow) fn set(&mut self, end: u64, acknowledged: u64) {
        if self.0.len() < MAX_MARKS {
            let mark = self.0.entry(end).or_insert(acknowledged);
            *mark = acknowledged.min(*mark);
        }
    }

    /// Removes the marks up to `end` and returns them, in order.
    pub(in crate::flow) fn take(&mut self, end: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let mut behind = self.0.split_off(&end.saturating_add(1));
        if behind.is_empty() {
            // An empty map that was split off has a node.
            behind.clear();
        }
        std::mem::replace(&mut self.0, behind).into_iter()
    }

    /// Returns `true` if there are no marks.
    pub(in crate::flow) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        footprint::of_tree::<u64, u64>(self.0.len())
    }
}
