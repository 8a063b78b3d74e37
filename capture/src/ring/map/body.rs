//! A part of a segment's body that is filled with records, from front to back.

use std::sync::Arc;

use super::Segments;
use crate::prefetch;
use crate::record::HEADER_LEN;

/// Bytes to gather before they are hashed: few enough that they are still in the first-level cache.
const HASH_EVERY: usize = 8 << 10;

/// Bytes of one body that nothing but this value touches, until they are committed.
///
/// Only [`RingTail`](super::RingTail) makes them, and it makes no two that overlap.
#[derive(Debug)]
pub(in crate::ring) struct BodyArea {
    segments: Arc<Segments>,
    pub(super) slot: u32,
    /// Offset in the body at which the next record begins. Bytes before it hold records, committed
    /// or not.
    pub(super) used: usize,
    /// Offset at which the area ends.
    pub(super) end: usize,
    /// Bytes before this offset are in `hasher`; `hashed <= used`.
    pub(super) hashed: usize,
    pub(super) hasher: crc32fast::Hasher,
}

impl BodyArea {
    /// The bytes from `start` to `end` of a body, without a record.
    ///
    /// # Panics
    /// If the body has no such bytes.
    pub(super) fn new(segments: &Arc<Segments>, slot: u32, start: usize, end: usize) -> Self {
        assert!(start <= end && end <= segments.segment_size(), "inside the body");
        let hasher = crc32fast::Hasher::new();
        Self { segments: Arc::clone(segments), slot, used: start, end, hashed: start, hasher }
    }

    /// Bytes without a record.
    pub(in crate::ring) fn room(&self) -> usize {
        self.end - self.used
    }

    /// Adds a record after the others. Its data are the two parts, one after the other. It is not
    /// visible yet.
    ///
    /// # Panics
    /// If the record does not fit [`BodyArea::room`].
    pub(in crate::ring) fn append(&mut self, header: [u8; HEADER_LEN], parts: [&[u8]; 2]) {
        let [front, data] = parts;
        let len = front.len().saturating_add(data.len());
        assert!(len <= self.room().saturating_sub(HEADER_LEN), "the caller looked");
        // SAFETY: header and parts fit between `used` and `end`, which are inside the body. Bytes
        // there are beyond the committed length, so no reader reads them. They belong to this area
        // alone, and `&mut self` makes this its only access. The parts are not part of the mapping:
        // no slice of it is handed out beyond the committed length.
        unsafe {
            let place = self.segments.map.body(self.slot).add(self.used);
            // The next record is assumed to be as long as this one.
            prefetch::for_writing(place.wrapping_add(HEADER_LEN + len), len);
            std::ptr::copy_nonoverlapping(header.as_ptr(), place, HEADER_LEN);
            let place = place.add(HEADER_LEN);
            std::ptr::copy_nonoverlapping(front.as_ptr(), place, front.len());
            std::ptr::copy_nonoverlapping(data.as_ptr(), place.add(front.len()), data.len());
        }
        self.used += HEADER_LEN + len;
        if self.used - self.hashed >= HASH_EVERY {
            self.hash();
        }
    }

    /// Hashes all records.
    pub(in crate::ring) fn hash(&mut self) {
        // SAFETY: append wrote the bytes below `used`. Readers may read the committed ones at the
        // same time, and nothing writes them.
        let new = unsafe {
            std::slice::from_raw_parts(
                self.segments.map.body(self.slot).add(self.hashed),
                self.used - self.hashed,
            )
        };
        self.hasher.update(new);
        self.hashed = self.used;
    }

    /// Puts `bytes` at the end of the area, which gets shorter by them: notes, which readers find
    /// from the end of the body.
    ///
    /// # Panics
    /// If they do not fit [`BodyArea::room`].
    pub(super) fn put_at_end(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "the caller looked");
        self.end -= bytes.len();
        // SAFETY: the bytes fit between `used` and the end of the area before. Bytes there are
        // neither committed records nor committed notes, so no reader reads them; `&mut self` as in
        // append. `bytes` is not part of the mapping: no slice of it is handed out there.
        unsafe {
            let place = self.segments.map.body(self.slot).add(self.end);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
        }
    }
}
