//! Several threads that fill one ring.
//!
//! ```text
//!   reserve (short lock) ──▶ fill, beside the others ──▶ finish (short lock): visible in order
//! ```
//!
//! A thread reserves room for a run of records, copies them without a lock, and hands the run back.
//! A run becomes visible when all runs that were reserved before it are. So a thread that the system
//! stops while it copies delays what is visible, not what is captured: the others go on until half of
//! the ring waits for it.
//!
//! Packets of two threads are in the order of their runs, and not of their times.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use protocol::time::Timestamp;

use super::Ring;
use super::flight::{Flight, Ticket};
use super::writer::{FilledRun, Writer};
use crate::record;
use crate::savefile::pcapng_writer::enhanced_packet_len;

/// Lengths of records that are to be stored one after the other.
#[derive(Clone, Debug, Default)]
pub struct RecordLengths {
    /// For each record, the bytes of all records up to its end: in a ring, and in a pcapng file.
    ends: Vec<[u64; 2]>,
}

impl RecordLengths {
    /// Adds a record with as many captured bytes.
    pub fn push(&mut self, captured_len: u32) {
        let [pcap, pcapng] = self.ends.last().copied().unwrap_or_default();
        let len = record::HEADER_LEN as u64 + u64::from(captured_len);
        self.ends.push([pcap + len, pcapng + enhanced_packet_len(captured_len)]);
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns true if there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets all records.
    pub fn clear(&mut self) {
        self.ends.clear();
    }

    /// Bytes of all records before the one with index `at`.
    fn before(&self, at: usize) -> [u64; 2] {
        at.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or_default()
    }

    /// Index of the first record from `from` on that does not end within the first `room` bytes.
    fn fitting(&self, from: usize, room: usize) -> usize {
        let [start, _] = self.before(from);
        let rest = self.ends.get(from..).unwrap_or_default();
        from + rest.partition_point(|[end, _]| end - start <= room as u64)
    }
}

/// A writer for several threads; see the [module](self).
#[derive(Debug)]
pub struct SharedWriter<'w> {
    state: Mutex<SharedState<'w>>,
    /// Signalled when runs have become visible, or a thread has failed.
    moved: Condvar,
    ring: Arc<Ring>,
}

#[derive(Debug)]
struct SharedState<'w> {
    writer: &'w mut Writer,
    flight: Flight<FilledRun>,
    /// A thread has panicked while it filled a run, which never becomes visible.
    is_broken: bool,
}

impl<'w> SharedWriter<'w> {
    /// Shares a writer. All its packets are published first.
    pub fn new(writer: &'w mut Writer) -> Self {
        writer.publish();
        let ring = Arc::clone(writer.ring());
        let state = SharedState { writer, flight: Flight::new(), is_broken: false };
        Self { state: Mutex::new(state), moved: Condvar::new(), ring }
    }

    /// The ring that is filled.
    #[must_use]
    pub const fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Maximum number of captured bytes of a packet. Longer ones must not be reserved; count them
    /// with [`Writer::add_oversize`].
    #[must_use]
    pub fn max_captured_len(&self) -> u64 {
        self.ring.geometry().segment_size - record::HEADER_LEN as u64
    }

    /// Returns true if records need an entry that says more than their bytes, such as their interface.
    /// They cannot be reserved: append them [alone](Self::alone).
    #[must_use]
    pub fn needs_entries(&self) -> bool {
        self.state.lock().writer.needs_entries()
    }

    /// Reserves room for records, from the one with index `from` on: for one at least, and for as
    /// many as the segment takes.
    ///
    /// # Panics
    /// If there is no such record, if it is longer than a segment, if it [needs an
    /// entry](Self::needs_entries), or if another thread has panicked while it filled a run.
    ///
    /// # Blocking
    /// Waits while half of the ring is not visible yet. So a thread must finish its run before it
    /// reserves the next one.
    pub fn reserve(&self, lengths: &RecordLengths, from: usize) -> RecordRun<'_, 'w> {
        let mut state = self.state.lock();
        assert!(!state.writer.needs_entries(), "records with entries are appended alone");
        let segment_size = usize::try_from(self.ring.geometry().segment_size).unwrap_or(usize::MAX);
        assert!(
            lengths.fitting(from, segment_size) > from,
            "no record, or a longer one than a segment"
        );
        let end = loop {
            assert!(!state.is_broken, "another thread of this capture has panicked");
            let end = lengths.fitting(from, state.writer.reservable());
            if end > from {
                break end;
            }
            if !state.writer.reserve_segment() {
                self.moved.wait(&mut state);
            }
        };
        let [[pcap_start, pcapng_start], [pcap_end, pcapng_end]] =
            [lengths.before(from), lengths.before(end)];
        let len = usize::try_from(pcap_end - pcap_start).unwrap_or(usize::MAX);
        let (area, segments_after) = state.writer.reserve(len);
        let filled = FilledRun {
            sequence: state.writer.sequence() + segments_after as u64,
            area,
            count: (end - from) as u64,
            pcap: pcap_end - pcap_start,
            pcapng: pcapng_end - pcapng_start,
            first_time: 0,
            last_time: 0,
        };
        let ticket = state.flight.add();
        RecordRun { shared: self, ticket, filled: Some(filled), left: end - from }
    }

    /// Calls `look` with the writer, while other threads fill their runs.
    pub fn with<R>(&self, look: impl FnOnce(&Writer) -> R) -> R {
        look(self.state.lock().writer)
    }

    /// Calls `change` with the writer when all runs are visible. No run is reserved until it returns.
    ///
    /// # Panics
    /// If another thread has panicked while it filled a run.
    ///
    /// # Blocking
    /// Waits for the other threads to finish their runs, and would wait for a run of this thread
    /// forever.
    pub fn alone<R>(&self, change: impl FnOnce(&mut Writer) -> R) -> R {
        let mut state = self.state.lock();
        while !state.flight.is_empty() {
            assert!(!state.is_broken, "another thread of this capture has panicked");
            self.moved.wait(&mut state);
        }
        change(state.writer)
    }
}

/// Room for some records, which one thread fills.
#[derive(Debug)]
pub struct RecordRun<'s, 'w> {
    shared: &'s SharedWriter<'w>,
    ticket: Ticket,
    /// `None` once it is finished.
    filled: Option<FilledRun>,
    /// Records that have not been appended.
    left: usize,
}

impl RecordRun<'_, '_> {
    /// Number of records that are to be appended.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Adds the next packet; see [`Writer::append_joined`]. It has as many captured bytes as were
    /// reserved for it.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn append(&mut self, time: Timestamp, original_len: u32, parts: [&[u8]; 2]) {
        let Some(run) = &mut self.filled else { return };
        let captured_len: usize = parts.iter().map(|part| part.len()).sum();
        let captured_len = u32::try_from(captured_len).unwrap_or(u32::MAX);
        let precision = self.shared.ring.precision();
        run.area.append(record::header(time, precision, captured_len, original_len), parts);
        if run.last_time == 0 {
            run.first_time = time.nanoseconds();
        }
        run.last_time = run.last_time.max(time.nanoseconds());
        self.left = self.left.saturating_sub(1);
    }

    /// Hands the run back. It becomes visible now, or when those before it are finished.
    ///
    /// # Panics
    /// If not all of its records were appended.
    pub fn finish(mut self) {
        assert!(self.left == 0, "all reserved records are appended");
        let Some(mut run) = self.filled.take() else { return };
        run.area.hash();
        let mut state = self.shared.state.lock();
        state.flight.finish(self.ticket, run);
        let SharedState { writer, flight, .. } = &mut *state;
        let mut has_moved = false;
        while let Some(run) = flight.take() {
            writer.accept(&run);
            has_moved = true;
        }
        if has_moved {
            writer.commit_accepted();
        }
        drop(state);
        if has_moved {
            self.shared.moved.notify_all();
            self.shared.ring.bells.strike();
        }
    }
}

impl Drop for RecordRun<'_, '_> {
    fn drop(&mut self) {
        if self.filled.is_some() {
            // Its thread panics, and the runs after it would wait forever.
            self.shared.state.lock().is_broken = true;
            self.shared.moved.notify_all();
        }
    }
}
