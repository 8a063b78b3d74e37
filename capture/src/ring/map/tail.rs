//! The writing end of a ring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Resume, SegmentOpening, Segments};
use crate::prefetch;
use crate::record::HEADER_LEN;
use crate::ring::layout::{Committed, opening_checksum};
use crate::ring::notes::NoteEntry;
use crate::store::Position;

/// Bytes to gather before they are hashed: few enough that they are still in the first-level cache.
const HASH_EVERY: usize = 8 << 10;

/// The writing end of a ring: the open segment, and the list of retained segments.
#[derive(Debug)]
pub(in crate::ring) struct RingTail {
    segments: Arc<Segments>,
    /// Sequence and slot, oldest first; the last segment is open.
    retained: VecDeque<(u64, u32)>,
    /// Retired slots, longest retired first; some may still be pinned.
    free: VecDeque<u32>,
    slot: u32,
    /// Bytes of the open body that hold records, committed or not.
    used: usize,
    /// Bytes of it that `hasher` has seen; `hashed <= used`.
    hashed: usize,
    hasher: crc32fast::Hasher,
    /// Offset in the open body at which the notes begin, committed or not; the body's size without
    /// notes.
    end: usize,
    /// The hash of the notes, in the order in which they came.
    notes_hasher: crc32fast::Hasher,
}

impl RingTail {
    /// The tail of a mapping that is taken over, see [`Segments::new`].
    pub(super) fn new(
        segments: &Arc<Segments>,
        retained: &[(u64, u32)],
        free: VecDeque<u32>,
        resume: Resume,
    ) -> Self {
        let mut tail = Self {
            segments: Arc::clone(segments),
            retained: retained.iter().copied().collect(),
            free,
            slot: 0,
            used: 0,
            hashed: 0,
            hasher: crc32fast::Hasher::new(),
            end: 0,
            notes_hasher: crc32fast::Hasher::new(),
        };
        match (resume, retained.last()) {
            (Resume::Continue { records, notes }, Some(&(_, slot))) => {
                tail.slot = slot;
                tail.used = records.len as usize;
                tail.hashed = tail.used;
                tail.hasher = crc32fast::Hasher::new_with_initial(records.checksum);
                tail.end = tail.size() - notes.len as usize;
                tail.notes_hasher = crc32fast::Hasher::new_with_initial(notes.checksum);
                // Notes of records that are missing must not become notes of other records.
                segments.map.segment(slot).notes.store(notes.pack(), Ordering::Release);
            }
            (Resume::Continue { .. }, None) => {
                unreachable!("a caller's bug: nothing to continue")
            }
            (Resume::Open(opening), _) => tail.open(opening),
        }
        tail
    }

    /// Bytes of a body.
    fn size(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "a segment is below 4 GiB")]
        let size = self.segments.map.geometry.segment_size as usize;
        size
    }

    /// Bytes free in the open segment.
    pub(in crate::ring) fn room(&self) -> usize {
        self.end - self.used
    }

    /// Adds the entry for the next record. It is not visible yet.
    ///
    /// # Panics
    /// If the entry does not fit [`RingTail::room`].
    pub(in crate::ring) fn note(&mut self, entry: &NoteEntry<'_>) {
        assert!(entry.len() <= self.room(), "the caller looked");
        let fixed = entry.fixed();
        let start = self.end - entry.len();
        let mut at = start;
        for bytes in [entry.note.blocks, entry.note.options, &fixed] {
            // SAFETY: all three together fit between `used` and `end`. Bytes there are neither
            // committed records nor committed notes, so no reader reads them; `&mut self` as in
            // append. `bytes` is not part of the mapping: no slice of it is handed out there.
            unsafe {
                let place = self.segments.map.body(self.slot).add(at);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
            }
            self.notes_hasher.update(bytes);
            at += bytes.len();
        }
        self.end = start;
    }

    /// Adds a record after the others. Its data are the two parts, one after the other. It is not
    /// visible yet.
    ///
    /// # Panics
    /// If the record does not fit [`RingTail::room`].
    pub(in crate::ring) fn append(&mut self, header: [u8; HEADER_LEN], parts: [&[u8]; 2]) {
        let [front, data] = parts;
        let len = front.len().saturating_add(data.len());
        assert!(len <= self.room().saturating_sub(HEADER_LEN), "the caller looked");
        // SAFETY: header and parts fit between `used` and the end of the open body. Bytes there are
        // beyond the committed length, so no reader reads them; there is one RingTail, and
        // `&mut self` makes this its only access. The parts are not part of the mapping: no slice of
        // it is handed out beyond the committed length.
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

    fn hash(&mut self) {
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

    /// Makes all records visible. The arguments describe the open segment.
    pub(in crate::ring) fn commit(&mut self, count: u64, first_time: u64, last_time: u64) {
        self.hash();
        let segment = self.segments.map.segment(self.slot);
        segment.count.store(count, Ordering::Relaxed);
        segment.first_time.store(first_time, Ordering::Relaxed);
        segment.last_time.store(last_time, Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "a segment is below 4 GiB")]
        let committed =
            Committed { len: self.used as u32, checksum: self.hasher.clone().finalize() };
        if self.end < self.size() {
            #[expect(clippy::cast_possible_truncation, reason = "a segment is below 4 GiB")]
            let len = (self.size() - self.end) as u32;
            let notes = Committed { len, checksum: self.notes_hasher.clone().finalize() };
            // Before their records: a record without its note would be a different packet.
            segment.notes.store(notes.pack(), Ordering::Release);
        }
        // Pairs with the Acquire load in Segments::pin.
        segment.committed.store(committed.pack(), Ordering::Release);
    }

    /// Drops the oldest segment if the ring is full, opens another, and seals the one before it.
    ///
    /// In this order, a process killed at any point leaves an unsealed segment. Recovery can tell
    /// from it that no segment is missing at the end.
    pub(in crate::ring) fn roll(&mut self, opening: SegmentOpening) {
        if self.retained.len() >= self.segments.map.geometry.segments as usize {
            self.retire_oldest();
        }
        let full = self.slot;
        self.open(opening);
        self.segments.map.segment(full).sealed.store(1, Ordering::Release);
    }

    /// Opens another segment and drops all before it. The new one is opened first: otherwise a
    /// process killed in between would leave a ring without any packet numbers.
    pub(in crate::ring) fn clear(&mut self, opening: SegmentOpening) {
        self.roll(opening);
        while self.retained.len() > 1 {
            self.retire_oldest();
        }
    }

    fn retire_oldest(&mut self) {
        let Some((sequence, slot)) = self.retained.pop_front() else { return };
        // First store the number below which no segment is expected, so that recovery does not take
        // the retired segment for a damaged one if the process is killed here.
        let header = self.segments.map.header();
        header.oldest_sequence.store(sequence + 1, Ordering::Release);
        self.segments.slots.retire(slot);
        self.segments.map.segment(slot).sequence.store(0, Ordering::Release);
        self.free.push_back(slot);
    }

    /// A retired slot that is not pinned. One always exists, see
    /// [`MAX_PINS`](crate::ring::geometry::MAX_PINS). Pins may move while the slots are checked one
    /// by one, so on rare occasions a second pass is needed.
    fn claim(&mut self) -> u32 {
        loop {
            if let Some(index) =
                self.free.iter().position(|&slot| self.segments.slots.is_free(slot))
                && let Some(slot) = self.free.remove(index)
            {
                return slot;
            }
            std::thread::yield_now();
        }
    }

    fn open(&mut self, opening: SegmentOpening) {
        let slot = self.claim();
        self.segments.populate(slot, usize::MAX);
        let segment = self.segments.map.segment(slot);
        let SegmentOpening { sequence, position, loss_before } = opening;
        let fields = [sequence, position.number, position.pcap, position.pcapng, loss_before];
        segment.committed.store(Committed::default().pack(), Ordering::Relaxed);
        segment.notes.store(Committed::default().pack(), Ordering::Relaxed);
        segment.sealed.store(0, Ordering::Relaxed);
        segment.opening_checksum.store(opening_checksum(fields), Ordering::Relaxed);
        for (field, value) in [
            (&segment.first_number, position.number),
            (&segment.pcap_base, position.pcap),
            (&segment.pcapng_base, position.pcapng),
            (&segment.loss_before, loss_before),
            (&segment.first_time, 0),
            (&segment.last_time, 0),
            (&segment.count, 0),
            // Last: a process killed before this leaves an empty segment.
            (&segment.sequence, sequence),
        ] {
            field.store(value, Ordering::Release);
        }
        self.slot = slot;
        self.used = 0;
        self.hashed = 0;
        self.hasher = crc32fast::Hasher::new();
        self.end = self.size();
        self.notes_hasher = crc32fast::Hasher::new();
        self.retained.push_back((opening.sequence, slot));
        self.segments.place(opening.sequence, slot);
    }

    /// Sequence number of the oldest retained segment.
    pub(in crate::ring) fn oldest(&self) -> u64 {
        self.retained.front().map_or(0, |(sequence, _)| *sequence)
    }

    /// Number of retained segments, including the open one.
    pub(in crate::ring) fn retained(&self) -> usize {
        self.retained.len()
    }

    /// Position at which the oldest retained segment begins.
    pub(in crate::ring) fn oldest_position(&self) -> Position {
        let slot = self.retained.front().map_or(self.slot, |(_, slot)| *slot);
        self.segments.map.segment(slot).first()
    }
}
