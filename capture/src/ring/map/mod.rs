//! The mapped ring: the one place where shared memory is touched.
//!
//! Why this is not safe code: readers must see records where the writer puts them, without a lock
//! and without a copy of ours, in memory that a file backs. The argument for all of it:
//!
//! * A body byte at or beyond the committed length of a segment, and before its committed notes, is
//!   touched only by the [`BodyArea`] that it belongs to. The [`RingTail`] makes these, and no two
//!   that overlap; each mapping has one tail.
//! * A body byte below the committed length, or in the committed notes, is not written while its
//!   segment belongs to its sequence or is pinned. It became visible by a Release store of the
//!   committed length, and a reader reaches it through an Acquire load of the same word ([`Pin`]).
//! * A segment is opened again only when it is retired and unpinned ([`Slots`]).
//! * No other process has the file mapped: it is locked, and its mode is 0600.
#![expect(unsafe_code, reason = "shared memory, see above")]

mod body;
mod tail;

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use memmap2::MmapRaw;

use super::geometry::{Geometry, PAGE};
use super::layout::{Committed, RingHeader, SegmentHeader};
use super::notes::NoteWalk;
use super::pins::{Attempt, Slots};
use crate::sigbus::{Guard, Use};
use crate::store::{HeldRecords, NoteRef, Position, RecordInterface};

pub(super) use body::BodyArea;
pub(super) use tail::RingTail;

/// Bytes of a segment's body that are populated in one system call, ahead of the writer. The
/// address space of the process is locked for that long.
const POPULATE_EVERY: usize = 128 << 10;

/// A ring file in memory.
#[derive(Debug)]
pub(super) struct RingMap {
    // Dropped in this order: addresses must not stay guarded after they are unmapped.
    guard: Option<Guard>,
    map: MmapRaw,
    geometry: Geometry,
}

impl RingMap {
    /// Maps `file`, which this process has locked and which has the size that `geometry` requires.
    ///
    /// # Errors
    /// The errors of mmap(2), and `InvalidInput` for a file of another size.
    pub(super) fn new(file: &File, geometry: Geometry) -> io::Result<Self> {
        let size = geometry.file_size();
        if file.metadata()?.len() != size {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let len = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let map = memmap2::MmapOptions::new().len(len).map_raw(file)?;
        // If a thousand guards exist already, there is none for this map. Then cutting the ring
        // file ends the process, as it would end any other program.
        let start = map.as_ptr();
        let guard = Guard::new(&(start..start.wrapping_add(len)), Use::Write)?;
        Ok(Self { guard, map, geometry })
    }

    /// Returns `true` if someone has cut the file, so that the memory is no longer that of the
    /// file.
    pub(super) fn is_torn(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_torn)
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(super) fn header(&self) -> &RingHeader {
        // SAFETY: the mapping is at least a page long, page aligned, lives as long as self, and
        // any bytes are a valid FileHeader, which consists of atomics.
        unsafe { &*self.map.as_ptr().cast::<RingHeader>() }
    }

    pub(super) fn segment(&self, slot: u32) -> &SegmentHeader {
        assert!(slot < self.geometry.slots(), "slot numbers come from this ring");
        // SAFETY: body_offset() leaves room for slots() headers after the first page; a page is a
        // multiple of their alignment; any bytes are a valid SegmentHeader, all atomics.
        #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
        unsafe {
            &*self.map.as_ptr().add(PAGE as usize).cast::<SegmentHeader>().add(slot as usize)
        }
    }

    /// Start of a body; `segment_size` bytes from here belong to `slot`.
    fn body(&self, slot: u32) -> *mut u8 {
        assert!(slot < self.geometry.slots(), "slot numbers come from this ring");
        let offset = self.geometry.body_offset() + u64::from(slot) * self.geometry.segment_size;
        // SAFETY: file_size(), the length of the mapping, is body_offset() and slots() bodies;
        // it fits usize, so the offset does.
        #[expect(clippy::cast_possible_truncation, reason = "below the length of the mapping")]
        unsafe {
            self.map.as_mut_ptr().add(offset as usize)
        }
    }

    /// The first `len` bytes of a body, before anything else uses the mapping.
    pub(super) fn body_alone(&mut self, slot: u32, len: u32) -> Option<&[u8]> {
        if u64::from(len) > self.geometry.segment_size {
            return None;
        }
        // SAFETY: inside the body; `&mut self` says that no RingTail or Pin exists for the mapping,
        // and other processes are kept away by the lock on the file.
        Some(unsafe { std::slice::from_raw_parts(self.body(slot), len as usize) })
    }

    /// The last `len` bytes of a body, before anything else uses the mapping.
    pub(super) fn notes_alone(&mut self, slot: u32, len: u32) -> Option<&[u8]> {
        let before = usize::try_from(self.geometry.segment_size.checked_sub(len.into())?).ok()?;
        // SAFETY: as above.
        Some(unsafe { std::slice::from_raw_parts(self.body(slot).add(before), len as usize) })
    }

    /// Makes the pages of `range` of a body present and writable now, in one call instead of one
    /// fault for each page.
    fn populate(&self, slot: u32, range: &Range<usize>) {
        #[expect(clippy::cast_possible_truncation, reason = "a segment is below 4 GiB")]
        let size = self.geometry.segment_size as usize;
        assert!(range.start <= range.end && range.end <= size, "inside the body");
        // A failure only means faults later, one by one: before Linux 5.14 this advice does not
        // exist.
        // SAFETY: the range is in one body inside the mapping; the advice changes no content, so
        // that the writer and readers may use the body at the same time.
        unsafe {
            libc::madvise(
                self.body(slot).add(range.start).cast(),
                range.len(),
                libc::MADV_POPULATE_WRITE,
            );
        }
    }
}

/// Looks at the first page of a ring file without trusting its content.
pub(super) fn with_header<T>(page: &MmapRaw, look: impl FnOnce(&RingHeader) -> T) -> Option<T> {
    if (page.len() as u64) < PAGE {
        return None;
    }
    // SAFETY: the mapping holds a page, is page aligned and outlives the call; any bytes are a
    // valid FileHeader. It may be mapped read-only: `look` gets no way to the mapping that would
    // write but the atomics' own stores, and the caller only loads.
    Some(look(unsafe { &*page.as_ptr().cast::<RingHeader>() }))
}

/// The state that readers and the writer share.
#[derive(Debug)]
pub(super) struct Segments {
    map: RingMap,
    slots: Slots,
    /// Slot that holds sequence `s`, at index `s % segments`; a hint, checked by [`Slots::pin`].
    directory: Box<[AtomicU32]>,
    ahead: Ahead,
}

/// How far the bodies have been populated with pages.
#[derive(Debug)]
struct Ahead {
    /// For each slot.
    populated: Box<[AtomicBool]>,
    /// All slots, in the order in which the writer reaches them on its first lap.
    order: Box<[u32]>,
    /// Number of these that [`Segments::populate_next`] has visited.
    next: AtomicUsize,
}

/// A segment that does not change until this is dropped.
#[derive(Debug)]
pub(super) struct Pin<'a> {
    segments: &'a Segments,
    slot: u32,
    /// At most the geometry's segment size, together with `notes`.
    len: u32,
    /// Bytes of notes.
    notes: u32,
    /// Position of the last lookup of an entry.
    walk: Cell<NoteWalk>,
    complete: bool,
}

impl Pin<'_> {
    /// The notes committed when the segment was pinned.
    fn notes(&self) -> &[u8] {
        #[expect(clippy::cast_possible_truncation, reason = "a segment is below 4 GiB")]
        let before = self.segments.map.geometry.segment_size as usize - self.notes as usize;
        // SAFETY: `notes` is at most the size of a segment, so the range is inside the body, at its
        // end. The rest is as for the records.
        unsafe {
            std::slice::from_raw_parts(
                self.segments.map.body(self.slot).add(before),
                self.notes as usize,
            )
        }
    }

    /// Returns `true` if no record will be added to the segment.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Position of the first record of the segment.
    pub(super) fn first(&self) -> Position {
        self.segments.map.segment(self.slot).first()
    }
}

impl HeldRecords for Pin<'_> {
    /// The records committed when the segment was pinned.
    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` is at most the size of a segment, so the range is inside the body. It was
        // the committed length, loaded with Acquire after the segment was pinned; bytes below it
        // are initialised and not written until the pin is gone, which the borrow of self
        // outlives.
        unsafe { std::slice::from_raw_parts(self.segments.map.body(self.slot), self.len as usize) }
    }

    /// Costs O(1) for one record after the other.
    fn beside(&self, index: usize) -> Option<(RecordInterface, NoteRef<'_>)> {
        if self.notes == 0 {
            return None;
        }
        let mut walk = self.walk.get();
        let found = walk.find(self.notes(), u32::try_from(index).ok()?);
        self.walk.set(walk);
        found.map(|entry| (entry.interface, entry.note))
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.segments.slots.unpin(self.slot);
    }
}

/// The initial values of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentOpening {
    pub(super) sequence: u64,
    pub(super) position: Position,
    pub(super) loss_before: u64,
}

/// How the writer continues in a mapping that it takes over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Resume {
    /// In a new segment.
    Open(SegmentOpening),
    /// After the committed records of the newest retained segment, which is not sealed, and before
    /// its committed notes.
    Continue { records: Committed, notes: Committed },
}

impl Segments {
    /// Takes over a mapping. `retained` are the segments that recovery accepted, oldest first,
    /// their sequence numbers without holes. They are fewer than the geometry's segments if a new
    /// segment is to be opened, and at least one if the newest is to be continued. Everything else
    /// in the file is discarded.
    pub(super) fn new(
        map: RingMap,
        retained: &[(u64, u32)],
        resume: Resume,
    ) -> (Arc<Self>, RingTail) {
        let geometry = map.geometry();
        let slots = Slots::new(geometry.slots(), geometry.spares);
        let directory = (0..geometry.segments).map(|_| AtomicU32::new(0)).collect();
        let free: VecDeque<u32> = (0..geometry.slots())
            .filter(|slot| retained.iter().all(|(_, used)| used != slot))
            .collect();
        let ahead = Ahead {
            populated: (0..geometry.slots()).map(|_| AtomicBool::new(false)).collect(),
            order: free.iter().copied().chain(retained.iter().map(|(_, slot)| *slot)).collect(),
            next: AtomicUsize::new(0),
        };
        let segments = Arc::new(Self { map, slots, directory, ahead });
        for &(sequence, slot) in retained {
            segments.place(sequence, slot);
            let open = matches!(resume, Resume::Continue { .. })
                && retained.last().is_some_and(|(newest, _)| *newest == sequence);
            // The process may have been killed between opening a segment and sealing the one before
            // it.
            segments.map.segment(slot).sealed.store(u32::from(!open), Ordering::Release);
        }
        for &slot in &free {
            segments.map.segment(slot).sequence.store(0, Ordering::Release);
        }
        let tail = RingTail::new(&segments, retained, free, resume);
        (segments, tail)
    }

    pub(super) fn map(&self) -> &RingMap {
        &self.map
    }

    /// Bytes of a body.
    fn segment_size(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "a segment is below 4 GiB")]
        let size = self.map.geometry.segment_size as usize;
        size
    }

    fn directory(&self, sequence: u64) -> &AtomicU32 {
        #[expect(
            clippy::indexing_slicing,
            clippy::cast_possible_truncation,
            reason = "a remainder by the length"
        )]
        &self.directory[(sequence % self.directory.len() as u64) as usize]
    }

    fn place(&self, sequence: u64, slot: u32) {
        self.slots.assign(slot, sequence);
        self.directory(sequence).store(slot, Ordering::Release);
    }

    /// Ensures that a body has its pages, `piece` bytes at a time. Two threads may do it at the
    /// same time without harm.
    fn populate(&self, slot: u32, piece: usize) {
        let Some(populated) = self.ahead.populated.get(slot as usize) else { return };
        if populated.load(Ordering::Relaxed) {
            return;
        }
        let size = usize::try_from(self.map.geometry.segment_size).unwrap_or(0);
        let mut done = 0;
        while done < size {
            let end = done.saturating_add(piece).min(size);
            self.map.populate(slot, &(done..end));
            done = end;
        }
        populated.store(true, Ordering::Relaxed);
    }

    /// Gives the next body on the writer's path its pages; false if all have been visited.
    pub(super) fn populate_next(&self) -> bool {
        let next = self.ahead.next.fetch_add(1, Ordering::Relaxed);
        let Some(&slot) = self.ahead.order.get(next) else { return false };
        self.populate(slot, POPULATE_EVERY);
        true
    }

    /// Pins the segment with this sequence number; `None` if it is not there, or no longer. While
    /// others hold as many pins as the ring has spares, it waits, without disturbing the writer.
    ///
    /// A thread that holds a pin already must not call it: threads that wait for each other's pins
    /// would wait forever. See [`Segments::try_pin`].
    pub(super) fn pin(&self, sequence: u64) -> Option<Pin<'_>> {
        loop {
            match self.try_pin(sequence) {
                Ok(pin) => return Some(pin),
                Err(Attempt::Busy) => std::thread::yield_now(),
                Err(_) => return None,
            }
        }
    }

    /// Pins the segment with this sequence number without waiting, or returns the reason why it
    /// cannot.
    pub(super) fn try_pin(&self, sequence: u64) -> Result<Pin<'_>, Attempt> {
        let slot = self.directory(sequence).load(Ordering::Acquire);
        match self.slots.pin(slot, sequence) {
            Attempt::Pinned => {
                let segment = self.map.segment(slot);
                // In this order: a length read after the seal was seen is the final one.
                let complete = segment.sealed.load(Ordering::Acquire) == 1;
                let word = segment.committed.load(Ordering::Acquire);
                // The header is in the file, which another process may have written to.
                let size = u32::try_from(self.map.geometry.segment_size).unwrap_or(u32::MAX);
                let len = Committed::unpack(word).len.min(size);
                // After the length: the notes of all these records are present.
                let word = segment.notes.load(Ordering::Acquire);
                let notes = Committed::unpack(word).len.min(size - len);
                let walk = Cell::new(NoteWalk::new(notes as usize));
                Ok(Pin { segments: self, slot, len, notes, walk, complete })
            }
            refused => Err(refused),
        }
    }
}
