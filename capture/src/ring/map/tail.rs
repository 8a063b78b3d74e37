//! The writing end of a ring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{BodyArea, Resume, SegmentOpening, Segments};
use crate::record::HEADER_LEN;
use crate::ring::layout::{Committed, opening_checksum};
use crate::ring::notes::NoteEntry;
use crate::store::Position;

/// The writing end of a ring: the open segment, and the list of retained segments.
///
/// Records come in one of two ways. [`append`](Self::append) adds one. [`reserve`](Self::reserve)
/// hands out an area that another thread fills, and [`accept`](Self::accept) takes it back. Areas
/// are accepted in the order in which they were handed out.
#[derive(Debug)]
pub(in crate::ring) struct RingTail {
    segments: Arc<Segments>,
    /// Sequence and slot, oldest first; the last segment is open.
    retained: VecDeque<(u64, u32)>,
    /// Retired slots, longest retired first; some may still be pinned.
    free: VecDeque<u32>,
    /// Slots of the segments after the open one in which areas are handed out, in their order.
    ahead: VecDeque<u32>,
    /// Areas that have been handed out and not accepted.
    outstanding: usize,
    /// Offset at which the next area begins, in the last slot of `ahead`. In the open body it is so
    /// only while areas are outstanding.
    reserved: usize,
    /// The open body. It ends where the notes begin, committed or not.
    body: BodyArea,
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
            ahead: VecDeque::new(),
            outstanding: 0,
            reserved: 0,
            body: BodyArea::new(segments, 0, 0, 0),
            notes_hasher: crc32fast::Hasher::new(),
        };
        match (resume, retained.last()) {
            (Resume::Continue { records, notes }, Some(&(_, slot))) => {
                let end = tail.size() - notes.len as usize;
                tail.body = BodyArea::new(segments, slot, records.len as usize, end);
                tail.body.hasher = crc32fast::Hasher::new_with_initial(records.checksum);
                tail.notes_hasher = crc32fast::Hasher::new_with_initial(notes.checksum);
                // Notes of records that are missing must not become notes of other records.
                segments.map.segment(slot).notes.store(notes.pack(), Ordering::Release);
            }
            (Resume::Continue { .. }, None) => {
                unreachable!("a caller's bug: nothing to continue")
            }
            (Resume::Open(opening), _) => {
                let slot = tail.claim();
                tail.open(slot, opening);
            }
        }
        tail
    }

    /// Bytes of a body.
    fn size(&self) -> usize {
        self.segments.segment_size()
    }

    /// Segments that a ring retains.
    fn capacity(&self) -> usize {
        self.segments.map.geometry.segments as usize
    }

    /// Bytes free in the open segment.
    pub(in crate::ring) fn room(&self) -> usize {
        self.body.room()
    }

    /// Adds the entry for the next record. It is not visible yet.
    ///
    /// # Panics
    /// If the entry does not fit [`RingTail::room`], or an area is outstanding.
    pub(in crate::ring) fn note(&mut self, entry: &NoteEntry<'_>) {
        assert!(self.outstanding == 0, "areas are outstanding");
        assert!(entry.len() <= self.room(), "the caller looked");
        let parts = [entry.note.blocks, entry.note.options, &entry.fixed()];
        for bytes in parts {
            self.notes_hasher.update(bytes);
        }
        for bytes in parts.into_iter().rev() {
            self.body.put_at_end(bytes);
        }
    }

    /// Adds a record after the others. Its data are the two parts, one after the other. It is not
    /// visible yet.
    ///
    /// # Panics
    /// If the record does not fit [`RingTail::room`], or an area is outstanding.
    pub(in crate::ring) fn append(&mut self, header: [u8; HEADER_LEN], parts: [&[u8]; 2]) {
        assert!(self.outstanding == 0, "areas are outstanding");
        self.body.append(header, parts);
    }

    /// The slot of the next area, the offset at which it begins, and the offset before which it ends.
    fn next_area(&self) -> (u32, usize, usize) {
        match (self.ahead.back(), self.outstanding) {
            (Some(&slot), _) => (slot, self.reserved, self.size()),
            (None, 0) => (self.body.slot, self.body.used, self.body.end),
            (None, _) => (self.body.slot, self.reserved, self.body.end),
        }
    }

    /// Bytes that can be [reserved](RingTail::reserve) before the next segment.
    pub(in crate::ring) fn reservable(&self) -> usize {
        let (_, start, end) = self.next_area();
        end - start
    }

    /// Hands out an area of `len` bytes, and the number of segments by which it is after the open
    /// one. It holds no record yet, and the caller fills it before it returns it.
    ///
    /// # Panics
    /// If it does not fit [`RingTail::reservable`].
    pub(in crate::ring) fn reserve(&mut self, len: usize) -> (BodyArea, usize) {
        let (slot, start, end) = self.next_area();
        assert!(len <= end - start, "the caller looked");
        self.reserved = start + len;
        self.outstanding += 1;
        (BodyArea::new(&self.segments, slot, start, self.reserved), self.ahead.len())
    }

    /// Lets the next area begin in another segment, and drops the oldest one if the ring is full.
    /// Returns false if half of the ring is waiting for areas to be accepted: then nothing changes.
    ///
    /// [`RingTail::reserve`] must be called next.
    pub(in crate::ring) fn reserve_segment(&mut self) -> bool {
        if self.ahead.len() >= self.capacity() / 2 {
            return false;
        }
        if self.retained.len() + self.ahead.len() >= self.capacity() {
            self.retire_oldest();
        }
        let slot = self.claim();
        self.ahead.push_back(slot);
        self.reserved = 0;
        true
    }

    /// Takes back the area that was handed out first. It is in the open segment, and full.
    pub(in crate::ring) fn accept(&mut self, area: &BodyArea) {
        let BodyArea { slot, used, end, .. } = *area;
        assert!(slot == self.body.slot && used == end && area.hashed == end, "full and hashed");
        self.body.hasher.combine(&area.hasher);
        self.body.used = end;
        self.body.hashed = end;
        self.outstanding -= 1;
    }

    /// Makes all records visible. The arguments describe the open segment.
    pub(in crate::ring) fn commit(&mut self, count: u64, first_time: u64, last_time: u64) {
        self.body.hash();
        let segment = self.segments.map.segment(self.body.slot);
        segment.count.store(count, Ordering::Relaxed);
        segment.first_time.store(first_time, Ordering::Relaxed);
        segment.last_time.store(last_time, Ordering::Relaxed);
        let committed = committed(self.body.used, &self.body.hasher);
        let notes_len = self.size() - self.body.end;
        if notes_len > 0 {
            let notes = self::committed(notes_len, &self.notes_hasher);
            // Before their records: a record without its note would be a different packet.
            segment.notes.store(notes.pack(), Ordering::Release);
        }
        // Pairs with the Acquire load in Segments::pin.
        segment.committed.store(committed.pack(), Ordering::Release);
    }

    /// Opens another segment, and seals the one before it: the next one that has areas, or else a
    /// new one, for which the oldest segment is dropped if the ring is full.
    ///
    /// In this order, a process killed at any point leaves an unsealed segment. Recovery can tell
    /// from it that no segment is missing at the end.
    pub(in crate::ring) fn roll(&mut self, opening: SegmentOpening) {
        let slot = if let Some(slot) = self.ahead.pop_front() {
            slot
        } else {
            assert!(self.outstanding == 0, "areas are outstanding");
            if self.retained.len() >= self.capacity() {
                self.retire_oldest();
            }
            self.claim()
        };
        let full = self.body.slot;
        self.open(slot, opening);
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

    /// Takes a retired slot that is not pinned, and gives it its pages. One always exists, see
    /// [`MAX_PINS`](crate::ring::geometry::MAX_PINS). Pins may move while the slots are checked one
    /// by one, so on rare occasions a second pass is needed.
    fn claim(&mut self) -> u32 {
        loop {
            if let Some(index) =
                self.free.iter().position(|&slot| self.segments.slots.is_free(slot))
                && let Some(slot) = self.free.remove(index)
            {
                self.segments.populate(slot, usize::MAX);
                return slot;
            }
            std::thread::yield_now();
        }
    }

    /// Opens a segment in a slot that was [claimed](Self::claim).
    fn open(&mut self, slot: u32, opening: SegmentOpening) {
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
        self.body = BodyArea::new(&self.segments, slot, 0, self.size());
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
        let slot = self.retained.front().map_or(self.body.slot, |(_, slot)| *slot);
        self.segments.map.segment(slot).first()
    }
}

/// The word for `len` bytes with this hash.
fn committed(len: usize, hasher: &crc32fast::Hasher) -> Committed {
    #[expect(clippy::cast_possible_truncation, reason = "a segment is below 4 GiB")]
    let len = len as u32;
    Committed { len, checksum: hasher.clone().finalize() }
}
