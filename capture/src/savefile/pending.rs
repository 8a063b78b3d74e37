//! What a pcapng file says before its next packet, until that comes.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::Arc;

use super::index::SPAN_LEN;
use super::walk::Place;

/// Blocks, and comments on sections, that are kept for the next packet that is served.
#[derive(Debug)]
pub(super) struct Pending {
    /// The first of them.
    pub(super) place: Place,
    /// Bytes of all blocks, as they are served.
    pub(super) len: usize,
    /// How many blocks there are, with the sections that have comments.
    pub(super) count: u64,
    /// Bytes of the comments.
    pub(super) comments: usize,
    /// Packets since the first that are left out.
    pub(super) skipped: u64,
    sections: u64,
    /// The blocks themselves, as long as they are no more than [`SPAN_LEN`].
    bytes: Vec<u8>,
    /// Readers have them already, as what comes after the last packet.
    is_shown: bool,
}

impl Pending {
    /// Nothing yet, of what begins at this place.
    pub(super) const fn new(place: Place) -> Self {
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

    /// One more block.
    pub(super) fn add(&mut self, block: &[u8]) {
        self.len = self.len.saturating_add(block.len());
        self.count = self.count.saturating_add(1);
        if self.len <= SPAN_LEN {
            self.bytes.extend_from_slice(block);
        }
    }

    /// The comments on one more section.
    pub(super) const fn add_comments(&mut self, comments: &[u8]) {
        self.comments = self.comments.saturating_add(comments.len());
        self.sections = self.sections.saturating_add(1);
        self.count = self.count.saturating_add(1);
    }

    /// Whether they can go with a packet at this place: if they are far before it, all between would
    /// be walked over each time. What readers have seen stays where it is all the same.
    pub(super) const fn is_near(&self, packet: Place) -> bool {
        self.is_shown || packet.offset.saturating_sub(self.place.offset) <= SPAN_LEN
    }

    /// No packet follows: the blocks that readers get, if there are any and not too many, and how
    /// many blocks and comments they do not get.
    pub(super) fn show(&mut self) -> (Option<Arc<[u8]>>, u64) {
        if self.bytes.len() < self.len {
            return (None, self.count);
        }
        self.is_shown |= self.len > 0;
        ((self.len > 0).then(|| self.bytes.as_slice().into()), self.sections)
    }
}
