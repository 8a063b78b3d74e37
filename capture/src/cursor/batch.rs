//! Packets of a store in batches with their numbers, for a reader that keeps them in a store of its
//! own.
//!
//! A batch is a run of whole records of one chunk, without a gap in their numbers, and of the link
//! type of the store's header. All packets that the reader should have got and did not get are
//! counted in [`PacketBatch::lost`] of the batch after them. So the numbers of a batch follow from
//! its first one, and `delivered + lost` is the number of packets passed since the beginning.

use std::io;

use super::{
    CursorProgress, CursorReadError, CursorStep, Holding, NextRecord, ReadOutcome, SavefileFormat,
    cut_record, next_chunk, storage,
};
use crate::record::PacketRecords;
use crate::store::{Chunk, NoteRef, Position, RecordInterface, SearchTarget, Store};

/// A run of packets of a store.
#[derive(Debug)]
pub struct PacketBatch<'a> {
    /// Number of the first packet.
    pub first: u64,
    /// Packets right before the first one that the reader does not get: they are no longer
    /// retained, or of another link type.
    pub lost: u64,
    /// Number of packets, at least one.
    pub count: u64,
    /// The records of the packets, back to back.
    pub records: &'a [u8],
    chunk: &'a Chunk<'a>,
    /// Index of the first packet in the chunk.
    index: usize,
}

impl PacketBatch<'_> {
    /// The interface and the note of each packet that has more than interface 0, with the packet's
    /// index in the batch.
    pub fn beside(&self) -> impl Iterator<Item = (usize, RecordInterface, NoteRef<'_>)> {
        let count = usize::try_from(self.count).unwrap_or(0);
        (0..count).filter_map(|index| {
            let in_chunk = self.index.saturating_add(index);
            let note = self.chunk.note(in_chunk);
            let interface = self.chunk.interface(in_chunk);
            if interface.is_none() && note.is_empty() {
                return None;
            }
            Some((index, interface.unwrap_or(RecordInterface { id: 0, known: 1 }), note))
        })
    }
}

/// A reader's place in a store, for batches.
#[derive(Debug)]
pub struct BatchCursor {
    place: NextRecord,
    /// Number of the first packet that it was to deliver.
    origin: u64,
    lost: u64,
    /// Packets of `lost` that no batch has reported yet.
    untold: u64,
    delivered_bytes: u64,
}

impl BatchCursor {
    /// A cursor whose next packet is the oldest retained one with a number of at least `number`;
    /// those in between count as lost. All later calls must use the same store.
    pub fn at(store: &dyn Store, number: u64) -> Self {
        let bounds = store.bounds();
        let number = number.min(bounds.next.number);
        let mut cursor = Self {
            place: NextRecord { chunk: bounds.oldest_chunk, position: bounds.oldest },
            origin: number,
            lost: bounds.oldest.number.saturating_sub(number),
            untold: bounds.oldest.number.saturating_sub(number),
            delivered_bytes: 0,
        };
        if number >= bounds.next.number {
            cursor.place = NextRecord { chunk: bounds.newest_chunk, position: bounds.next };
        } else if let Ok(chunk) =
            store.find(SearchTarget::Number(number)).and_then(|id| store.pin(id))
        {
            cursor.place = NextRecord { chunk: chunk.id, position: position_of(&chunk, number) };
        }
        // Packets that are overwritten from here on are found to be lost when they are read.
        cursor
    }

    /// Number of the next packet.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.place.position.number
    }

    /// The current counters, as of [`Cursor::progress`](super::Cursor::progress).
    pub fn progress(&self, store: &dyn Store) -> CursorProgress {
        let bounds = store.bounds();
        let number = self.place.position.number;
        let passed = number.saturating_sub(self.origin);
        CursorProgress {
            delivered: passed.saturating_sub(self.lost),
            delivered_bytes: self.delivered_bytes,
            lost: self.lost,
            lag: bounds.next.number.saturating_sub(number),
            gone: bounds.oldest.number.saturating_sub(number),
        }
    }

    /// Returns true if there are packets to read.
    pub fn is_ready(&self, store: &dyn Store) -> bool {
        store.header().is_some() && store.bounds().next.number > self.place.position.number
    }

    /// Hands the next packets to `send`: whole records of at most `want` bytes, or a single record.
    /// The cursor moves only if `send` succeeds. Returns the bytes of the records, or
    /// [`ReadOutcome::Empty`]; the end of a store is its reader's business.
    ///
    /// # Errors
    /// [`CursorReadError::Storage`] and [`CursorReadError::Send`]; the cursor does not move.
    pub fn read(
        &mut self,
        store: &dyn Store,
        want: usize,
        send: &mut dyn FnMut(&PacketBatch<'_>) -> io::Result<()>,
    ) -> Result<ReadOutcome, CursorReadError> {
        if store.header().is_none() {
            return Ok(ReadOutcome::Empty);
        }
        let mut step = CursorStep { place: self.place, lost: 0, foreign: 0, plain: 0 };
        let found = next_chunk(store, SavefileFormat::Pcapng, &mut step, true, Holding::Nothing)?;
        let passed = step.lost.saturating_add(step.foreign);
        let Some((chunk, offset)) = found else {
            self.pass(&step, passed);
            return Ok(ReadOutcome::Empty);
        };
        step.place.chunk = chunk.id;
        let position = step.place.position;
        let index = position.number.saturating_sub(chunk.first.number);
        let mut index = usize::try_from(index).unwrap_or(usize::MAX);
        let rest = chunk.bytes().get(offset..).unwrap_or_default();
        let (mut begin, mut end, mut skipped, mut count) = (0_usize, 0_usize, 0_u64, 0_u64);
        for (nth, record) in PacketRecords::new(rest).enumerate() {
            let is_wanted = chunk.is_in_pcap(index.saturating_add(nth));
            if count == 0 && !is_wanted {
                skipped = skipped.saturating_add(1);
                begin = begin.saturating_add(record.len());
                end = begin;
                continue;
            }
            let after = end.saturating_add(record.len());
            if count > 0 && (!is_wanted || after.saturating_sub(begin) > want) {
                break;
            }
            count = count.saturating_add(1);
            end = after;
        }
        index = index.saturating_add(usize::try_from(skipped).unwrap_or(usize::MAX));
        if count == 0 && skipped == 0 {
            return Err(cut_record());
        }
        let lost = passed.saturating_add(skipped);
        let first = position.number.saturating_add(skipped);
        step.place.position = Position {
            number: first.saturating_add(count),
            pcap: position.pcap.saturating_add(end.saturating_sub(begin) as u64),
            ..position
        };
        if count == 0 {
            self.pass(&step, lost);
            return Ok(ReadOutcome::Empty);
        }
        let records = rest.get(begin..end).unwrap_or_default();
        let lost_before = self.untold.saturating_add(lost);
        send(&PacketBatch { first, lost: lost_before, count, records, chunk: &chunk, index })
            .map_err(CursorReadError::Send)?;
        // Before the bytes are used: a mapped file may have been truncated while it was copied.
        store.intact().map_err(storage)?;
        self.pass(&step, lost);
        self.untold = 0;
        self.delivered_bytes = self.delivered_bytes.saturating_add(records.len() as u64);
        Ok(ReadOutcome::Sent(records.len()))
    }

    fn pass(&mut self, step: &CursorStep, lost: u64) {
        self.place = step.place;
        self.lost = self.lost.saturating_add(lost);
        self.untold = self.untold.saturating_add(lost);
    }
}

/// The position of the packet with this number, which is in the chunk or right after it.
fn position_of(chunk: &Chunk<'_>, number: u64) -> Position {
    let mut position = chunk.first;
    let records = PacketRecords::new(chunk.bytes()).enumerate();
    for (index, record) in records {
        if position.number >= number {
            break;
        }
        position.number = position.number.saturating_add(1);
        if chunk.is_in_pcap(index) {
            position.pcap = position.pcap.saturating_add(record.len() as u64);
        }
    }
    position
}
