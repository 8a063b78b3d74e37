//! Maps the number of a packet to the place of its record in the store.
//!
//! A store finds the chunk of a packet, but inside a chunk only a walk over all records leads to
//! one. The locator keeps the place of every second record, two bytes for each packet that the
//! store retains, so that a walk passes one header at most. When the packets of a flow are read,
//! each header on the way misses all caches: with every 8th record, reading all bodies of a
//! gigabyte took a twentieth longer. A store of 64 GiB holds 900 million packets if it holds
//! nothing but empty TCP segments; the locator then has 1.7 GB.

use std::collections::VecDeque;

use crate::record::{PacketRecord, len_at};

/// A place is kept of every record in so many.
const STEP: usize = 2;

/// The place of a packet's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordPlace {
    /// Id of the chunk.
    pub chunk: u64,
    /// Offset in the chunk's bytes at which a record begins.
    pub offset: u32,
    /// Number of records from that one to the packet's: below [`STEP`].
    pub skip: u32,
}

/// The places of all records from some chunk on, except the records that were left out.
///
/// One thread adds and expires; to share it with others, put it behind a lock.
#[derive(Debug, Default)]
pub(super) struct Locator {
    /// In rising order of both ids and numbers. A chunk has several runs if records were left out
    /// in its middle.
    runs: VecDeque<RecordRun>,
    /// Bytes on the heap in `runs`.
    packed: usize,
}

/// Records in a row, of one chunk and with consecutive numbers.
#[derive(Debug)]
struct RecordRun {
    chunk: u64,
    first_number: u64,
    len: u64,
    /// Of every second record, beginning with the first.
    offsets: Vec<u32>,
}

impl RecordRun {
    /// Number of the first packet after the run.
    fn end(&self) -> u64 {
        self.first_number.saturating_add(self.len)
    }

    fn memory(&self) -> usize {
        self.offsets.capacity() * size_of::<u32>()
    }
}

impl Locator {
    #[cfg(test)]
    /// A locator without places.
    #[must_use]
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Announces that the next [`Locator::record`] is packet `first_number`, in chunk `id`.
    ///
    /// Numbers may jump, when chunks or the rest of one are left out. Neither the numbers nor the
    /// ids ever go back. If they do, as in a ring that another process has written to, the runs
    /// that are not before this place are forgotten. Calling it again in the middle of a chunk does
    /// no harm.
    pub(super) fn begin_chunk(&mut self, id: u64, first_number: u64) {
        while let Some(last) = self.runs.back()
            && (last.chunk > id || last.end() > first_number)
        {
            self.packed -= last.memory();
            self.runs.pop_back();
        }
        if let Some(last) = self.runs.back_mut() {
            if last.chunk == id && last.end() == first_number {
                return;
            }
            self.packed -= last.memory();
            last.offsets.shrink_to_fit();
            self.packed += last.memory();
        }
        self.runs.push_back(RecordRun { chunk: id, first_number, len: 0, offsets: Vec::new() });
    }

    /// Adds the next packet, whose record begins at `offset` in the bytes of the current chunk.
    /// Does nothing if no chunk has begun.
    pub(super) fn record(&mut self, offset: u32) {
        let Some(run) = self.runs.back_mut() else {
            return;
        };
        if run.len.is_multiple_of(STEP as u64) {
            let before = run.memory();
            run.offsets.push(offset);
            self.packed += run.memory() - before;
        }
        run.len += 1;
    }

    /// The place of a packet's record; `None` if it has expired, was left out, or has not come yet.
    /// Costs O(log n) of the number of chunks.
    #[must_use]
    pub(super) fn place(&self, number: u64) -> Option<RecordPlace> {
        let behind = self.runs.partition_point(|run| run.first_number <= number);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        let index = number.checked_sub(run.first_number).filter(|index| *index < run.len)?;
        let index = usize::try_from(index).ok()?;
        let offset = *run.offsets.get(index / STEP)?;
        Some(RecordPlace { chunk: run.chunk, offset, skip: u32::try_from(index % STEP).ok()? })
    }

    /// Forgets the chunks before `oldest_chunk`. Costs nothing if there are none.
    pub(super) fn expire(&mut self, oldest_chunk: u64) {
        while self.runs.front().is_some_and(|run| run.chunk < oldest_chunk)
            && let Some(run) = self.runs.pop_front()
        {
            self.packed -= run.memory();
        }
        if self.runs.len() < self.runs.capacity() / 4 {
            self.runs.shrink_to(self.runs.len() * 2);
        }
    }

    /// Bytes of memory on the heap.
    #[must_use]
    pub(super) fn memory(&self) -> usize {
        self.runs.capacity() * size_of::<RecordRun>() + self.packed
    }
}

impl RecordPlace {
    /// The bytes of its chunk from the record at this place on; `None` if they end before it.
    #[must_use]
    pub(super) fn bytes(self, chunk: &[u8]) -> Option<&[u8]> {
        let mut rest = chunk.get(usize::try_from(self.offset).ok()?..)?;
        for _ in 0..self.skip {
            rest = rest.get(len_at(rest)?..)?;
        }
        Some(rest)
    }

    /// The record at this place in the bytes of its chunk; `None` if they end before it does.
    #[must_use]
    pub(super) fn record(self, chunk: &[u8]) -> Option<PacketRecord<'_>> {
        PacketRecord::parse(self.bytes(chunk)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::header;
    use protocol::time::{Precision, Timestamp};

    /// Records whose original length is the packet's number.
    fn chunk(first_number: u64, lens: &[usize]) -> (Vec<u8>, Vec<u32>) {
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        for (number, len) in (first_number..).zip(lens) {
            offsets.push(u32::try_from(bytes.len()).unwrap());
            let (len, number) = (u32::try_from(*len).unwrap(), u32::try_from(number).unwrap());
            bytes.extend(header(Timestamp::default(), Precision::Nano, len, number));
            bytes.resize(bytes.len() + len as usize, 0);
        }
        (bytes, offsets)
    }

    fn chunks() -> impl Strategy<Value = Vec<(u64, u64, Vec<usize>)>> {
        let gap = prop_oneof![3 => Just(0_u64), 1 => 1..40_u64];
        let lens = prop::collection::vec(0..60_usize, 0..40);
        prop::collection::vec((gap.clone(), gap, lens), 1..12)
    }

    proptest! {
        #[test]
        fn every_record_is_found(chunks in chunks(), oldest in 0..30_u64) {
            let mut locator = Locator::new();
            let mut stored = Vec::new();
            let (mut id, mut number) = (0, 1);
            for (skipped_chunks, skipped_packets, lens) in chunks {
                id += skipped_chunks;
                number += skipped_packets;
                let (bytes, offsets) = chunk(number, &lens);
                for (index, offset) in (0_u64..).zip(offsets) {
                    if index == 0 || index % 5 == 0 {
                        locator.begin_chunk(id, number + index);
                    }
                    locator.record(offset);
                }
                let end = number + lens.len() as u64;
                stored.push((id, number..end, bytes));
                id += 1;
                number = end;
            }
            locator.expire(oldest);
            for number in 0..number + 3 {
                let found = stored.iter().find(|(_, numbers, _)| numbers.contains(&number));
                let place = locator.place(number);
                let expected = found.filter(|(id, _, _)| *id >= oldest);
                prop_assert_eq!(place.map(|place| place.chunk), expected.map(|(id, _, _)| *id));
                if let (Some(place), Some((_, _, bytes))) = (place, expected) {
                    prop_assert!((place.skip as usize) < STEP);
                    let record = place.record(bytes).unwrap();
                    prop_assert_eq!(u64::from(record.original_len), number);
                    prop_assert!(place.record(&bytes[..place.offset as usize]).is_none());
                }
            }
        }
    }

    #[test]
    fn a_chunk_that_is_left_and_come_back_to_has_two_runs() {
        let mut locator = Locator::new();
        locator.begin_chunk(4, 10);
        locator.record(0);
        locator.begin_chunk(4, 13);
        locator.record(300);
        assert_eq!(locator.place(10), Some(RecordPlace { chunk: 4, offset: 0, skip: 0 }));
        assert_eq!((locator.place(11), locator.place(12), locator.place(14)), (None, None, None));
        assert_eq!(locator.place(13), Some(RecordPlace { chunk: 4, offset: 300, skip: 0 }));
    }

    #[test]
    fn numbers_that_go_back_take_the_place_of_those_before() {
        let mut locator = Locator::new();
        for (id, first_number) in [(4, 10), (5, 20), (6, 30)] {
            locator.begin_chunk(id, first_number);
            (0..10).for_each(|index| locator.record(index * 100));
        }
        locator.begin_chunk(5, 25);
        locator.record(700);
        assert_eq!(locator.place(25), Some(RecordPlace { chunk: 5, offset: 700, skip: 0 }));
        assert_eq!((locator.place(20), locator.place(30)), (None, None));
        assert_eq!(locator.place(10), Some(RecordPlace { chunk: 4, offset: 0, skip: 0 }));
        locator.expire(10);
        assert_eq!((locator.packed, locator.runs.len()), (0, 0));
    }

    #[test]
    fn a_packet_costs_two_bytes_and_nothing_when_it_is_gone() {
        let mut locator = Locator::new();
        for id in 0..100 {
            locator.begin_chunk(id, 1 + id * 10_000);
            (0..10_000).for_each(|index| locator.record(index * 100));
        }
        let memory = locator.memory();
        assert!((2_000_000..2_030_000).contains(&memory), "{memory}");
        locator.expire(100);
        assert!(locator.memory() < 1_000 && locator.place(999_999).is_none());
    }
}
