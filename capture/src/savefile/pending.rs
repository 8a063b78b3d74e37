//! The blocks and comments of a pcapng file before its next packet, until that packet comes.

use std::sync::Arc;

use super::walk::WalkPlace;

/// Maximum bytes of the file that a chunk spans, unless a single record has more. These bytes are
/// walked again even if a filter has left only a few packets of the chunk.
pub(super) const SPAN_LEN: usize = 1 << 20;

/// Blocks, and comments on sections, that are kept for the next served packet.
#[derive(Debug)]
pub(super) struct Pending {
    /// Place of the first of them.
    pub(super) place: WalkPlace,
    /// Bytes of all blocks, as they are served.
    pub(super) len: usize,
    /// Number of blocks, and of sections with comments.
    pub(super) count: u64,
    /// Bytes of the comments.
    pub(super) comments: usize,
    /// Packets left out since the first of them.
    pub(super) skipped: u64,
    sections: u64,
    /// The blocks themselves, complete only while they have at most [`SPAN_LEN`] bytes.
    bytes: Vec<u8>,
    /// Whether readers have them already, as the blocks after the last packet.
    is_shown: bool,
}

impl Pending {
    /// No blocks and comments yet; the first will be at this place.
    pub(super) const fn new(place: WalkPlace) -> Self {
        Self {
            place,
            len: 0,
            count: 0,
            comments: 0,
            skipped: 0,
            sections: 0,
            bytes: Vec::new(),
            is_shown: false,
        }
    }

    /// Adds a block.
    pub(super) fn add(&mut self, block: &[u8]) {
        self.len = self.len.saturating_add(block.len());
        self.count = self.count.saturating_add(1);
        if self.len <= SPAN_LEN {
            self.bytes.extend_from_slice(block);
        }
    }

    /// Adds the comments on a section.
    pub(super) const fn add_comments(&mut self, comments: &[u8]) {
        self.comments = self.comments.saturating_add(comments.len());
        self.sections = self.sections.saturating_add(1);
        self.count = self.count.saturating_add(1);
    }

    /// Returns `true` if they can belong to a packet at this place. If they are far before it, all
    /// bytes in between would be walked each time. Blocks that readers have seen stay in any case.
    pub(super) const fn is_near(&self, packet: WalkPlace) -> bool {
        self.is_shown || packet.offset.saturating_sub(self.place.offset) <= SPAN_LEN
    }

    /// To be called if no packet follows. Returns the blocks for readers, unless there are none or
    /// too many, and the number of blocks and comments that readers do not get.
    pub(super) fn show(&mut self) -> (Option<Arc<[u8]>>, u64) {
        if self.bytes.len() < self.len {
            return (None, self.count);
        }
        self.is_shown |= self.len > 0;
        ((self.len > 0).then(|| self.bytes.as_slice().into()), self.sections)
    }
}
