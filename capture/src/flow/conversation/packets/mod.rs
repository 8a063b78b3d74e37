//! The packets of a flow, as numbers in a few bytes each.
//!
//! ```text
//!   | expired | block of 64 | block of 64 | ... | open block |
//!             begin                                          record_bytes()
//! ```
//!
//! A block has the number of its first packet and the bytes of records before it, so that reading
//! can start there; inside, numbers are stored as differences. In a long flow that has one packet
//! in a hundred of a capture, a packet takes four bytes in all. A flow of one packet takes nothing
//! on the heap.
//!
//! The lengths of records are kept beside the numbers, so that offsets in a flow's `packets.pcap`
//! are known without a look at the store, even for packets that the store has dropped since.

mod block;

use std::collections::{VecDeque, vec_deque};

pub(in crate::flow) use block::PacketEntry;
use block::{PacketListBlock, PacketWalk};

/// Packets in a full block.
const BLOCK: usize = 64;

/// Bytes that an allocation takes besides its content.
const ALLOCATION: usize = 16;

/// The packets of a flow in rising order of their numbers. The oldest expire.
///
/// Offsets count the bytes of pcap records, without a file header, since the flow's first packet
/// ever. They stay the same when packets expire.
#[derive(Debug)]
pub(in crate::flow) struct Packets(KeptPackets);

#[derive(Debug)]
enum KeptPackets {
    /// No packet; `last` is the highest number there was, `end` the bytes of all records.
    None {
        last: u64,
        end: u64,
    },
    One(PacketEntry),
    Many(Box<Many>),
}

/// Two packets or more, though all but one may have expired since.
#[derive(Debug)]
struct Many {
    /// Full blocks; packets may have expired from the front of the first.
    full: VecDeque<PacketListBlock<Box<[u8]>>>,
    /// Never empty: it holds the newest packet.
    open: PacketListBlock<Vec<u8>>,
    open_len: usize,
    /// Packets in all blocks.
    len: usize,
    last: u64,
    end: u64,
    /// Bytes on the heap in `full`.
    packed: usize,
}

impl Default for Packets {
    fn default() -> Self {
        Self(KeptPackets::None { last: 0, end: 0 })
    }
}

impl Packets {
    #[cfg(test)]
    /// An empty list.
    #[must_use]
    pub(in crate::flow) fn new() -> Self {
        Self::default()
    }

    /// Adds a packet whose pcap record has `record_len` bytes, header included. Numbers begin at 1.
    ///
    /// Returns `true` if the packet was added: only if its number is above all earlier ones.
    pub(in crate::flow) fn push(&mut self, number: u64, record_len: u32) -> bool {
        match &mut self.0 {
            KeptPackets::None { last, end } if number > *last => {
                self.0 = KeptPackets::One(PacketEntry { number, offset: *end, len: record_len });
            }
            KeptPackets::One(first) if number > first.number => {
                let mut many = Many::new(*first);
                many.push(number, record_len);
                self.0 = KeptPackets::Many(Box::new(many));
            }
            KeptPackets::Many(many) if number > many.last => many.push(number, record_len),
            _ => return false,
        }
        true
    }

    /// Number of packets retained.
    #[must_use]
    pub(in crate::flow) fn len(&self) -> usize {
        match &self.0 {
            KeptPackets::None { .. } => 0,
            KeptPackets::One(_) => 1,
            KeptPackets::Many(many) => many.len,
        }
    }

    #[cfg(test)]
    /// Returns `true` if no packet is retained.
    #[must_use]
    pub(in crate::flow) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the pcap records of all packets there ever were: the offset after the last one.
    #[must_use]
    pub(in crate::flow) fn record_bytes(&self) -> u64 {
        match &self.0 {
            KeptPackets::None { end, .. } => *end,
            KeptPackets::One(entry) => entry.end(),
            KeptPackets::Many(many) => many.end,
        }
    }

    #[cfg(test)]
    /// Number of the oldest packet retained.
    #[must_use]
    pub(in crate::flow) fn first(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.begin().0)
    }

    /// Number of the newest packet retained.
    #[must_use]
    pub(in crate::flow) fn last(&self) -> Option<u64> {
        match &self.0 {
            KeptPackets::None { .. } => None,
            KeptPackets::One(entry) => Some(entry.number),
            KeptPackets::Many(many) => Some(many.last),
        }
    }

    /// Number and offset of the oldest packet retained. If no packet is retained: the lowest number
    /// that the next packet may have, and the offset it will have.
    #[must_use]
    pub(in crate::flow) fn begin(&self) -> (u64, u64) {
        match &self.0 {
            KeptPackets::None { last, end } => (last.saturating_add(1), *end),
            KeptPackets::One(entry) => (entry.number, entry.offset),
            KeptPackets::Many(many) => {
                let front = many.walk(0);
                (front.number, front.offset)
            }
        }
    }

    #[cfg(test)]
    /// The packet whose record has the byte at `offset`; `None` for offsets before that of
    /// [`Packets::begin`] or after the end. Costs O(log n).
    #[must_use]
    pub(in crate::flow) fn find(&self, offset: u64) -> Option<PacketEntry> {
        self.iter_at(offset).next()
    }

    /// The packets from the one whose record has the byte at `offset`; none for offsets before that
    /// of [`Packets::begin`]. Costs O(log n) for the first packet and O(1) for each other.
    #[must_use]
    pub(in crate::flow) fn iter_at(&self, offset: u64) -> PacketsIter<'_> {
        if offset < self.begin().1 {
            return PacketsIter::default();
        }
        self.iter_where(|_, start| start <= offset, |entry| entry.end() > offset)
    }

    #[cfg(test)]
    /// The packets with number `number` or above. Costs O(log n) for the first packet and O(1) for
    /// each other.
    #[must_use]
    pub(in crate::flow) fn iter_from(&self, number: u64) -> PacketsIter<'_> {
        self.iter_where(|first, _| first <= number, |entry| entry.number >= number)
    }

    /// Drops the packets below number `oldest`. Costs O(dropped), and nothing if there are none.
    pub(in crate::flow) fn expire(&mut self, oldest: u64) {
        let last = match &mut self.0 {
            KeptPackets::None { .. } => return,
            KeptPackets::One(entry) => entry.number,
            KeptPackets::Many(many) if many.last >= oldest => return many.expire(oldest),
            KeptPackets::Many(many) => many.last,
        };
        if last < oldest {
            self.0 = KeptPackets::None { last, end: self.record_bytes() };
        }
    }

    /// Releases memory reserved for further packets, because the flow has ended.
    pub(in crate::flow) fn shrink(&mut self) {
        if let KeptPackets::Many(many) = &mut self.0 {
            many.full.shrink_to_fit();
            many.open.bytes.shrink_to_fit();
        }
    }

    /// Bytes of memory on the heap, to within a few per cent.
    #[must_use]
    pub(in crate::flow) fn memory(&self) -> usize {
        let KeptPackets::Many(many) = &self.0 else {
            return 0;
        };
        let blocks = many.full.capacity() * size_of::<PacketListBlock<Box<[u8]>>>();
        size_of::<Many>() + 2 * ALLOCATION + blocks + many.packed + many.open.bytes.capacity()
    }

    /// Iterates from the last block whose number and offset are `before` the wanted entry, and
    /// skips entries that are not `reached` yet.
    fn iter_where(
        &self,
        before: impl Fn(u64, u64) -> bool,
        reached: impl Fn(&PacketEntry) -> bool,
    ) -> PacketsIter<'_> {
        let mut iter = match &self.0 {
            KeptPackets::None { .. } => PacketsIter::default(),
            KeptPackets::One(entry) => PacketsIter { one: Some(*entry), ..PacketsIter::default() },
            KeptPackets::Many(many) => many.iter_where(before),
        };
        let mut at = iter.clone();
        while at.next().is_some_and(|entry| !reached(&entry)) {
            iter.clone_from(&at);
        }
        iter
    }
}

impl Many {
    fn new(first: PacketEntry) -> Self {
        Self {
            full: VecDeque::new(),
            open: PacketListBlock::new(first),
            open_len: 1,
            len: 1,
            last: first.number,
            end: first.end(),
            packed: 0,
        }
    }

    fn push(&mut self, number: u64, len: u32) {
        if self.open_len == BLOCK {
            let full = self.open.packed();
            self.packed += full.bytes.len() + ALLOCATION;
            self.full.push_back(full);
            self.open.restart(PacketEntry { number, offset: self.end, len });
            self.open_len = 1;
        } else {
            self.open.push(number.saturating_sub(self.last), len);
            self.open_len += 1;
        }
        self.len += 1;
        self.last = number;
        self.end = self.end.saturating_add(len.into());
    }

    /// The packets of the block at `index`; the open block comes after the full ones.
    fn walk(&self, index: usize) -> PacketWalk<'_> {
        self.full.get(index).map_or_else(|| self.open.walk(), PacketListBlock::walk)
    }

    /// Iterates from the last block that begins `before` the wanted entry, or else from the first.
    fn iter_where(&self, before: impl Fn(u64, u64) -> bool) -> PacketsIter<'_> {
        let behind = self.full.partition_point(|block| before(block.number, block.offset));
        let index = if before(self.open.number, self.open.offset) {
            self.full.len()
        } else {
            behind.saturating_sub(1)
        };
        if index >= self.full.len() {
            return PacketsIter { walk: self.open.walk(), ..PacketsIter::default() };
        }
        let full = self.full.range(index + 1..);
        PacketsIter { walk: self.walk(index), full, open: Some(self.open.walk()), one: None }
    }

    /// Drops packets below number `oldest`. The newest packet stays: its number is at least
    /// `oldest`.
    fn expire(&mut self, oldest: u64) {
        while !self.full.is_empty() && self.walk(1).number <= oldest {
            self.drop_front();
        }
        self.cut_front(oldest);
        if self.full.len() < self.full.capacity() / 4 {
            self.full.shrink_to(self.full.len() * 2);
        }
    }

    fn drop_front(&mut self) {
        if let Some(block) = self.full.pop_front() {
            self.packed -= block.bytes.len() + ALLOCATION;
            self.len -= block.count();
        }
    }

    fn cut_front(&mut self, oldest: u64) {
        let mut front = self.walk(0);
        let (before, mut gone) = (front.rest.len(), 0);
        while front.number < oldest && front.next().is_some() {
            gone += 1;
        }
        if gone == 0 {
            return;
        }
        if front.rest.is_empty() {
            // The next block begins above `oldest`, but none of this block's packets does.
            return self.drop_front();
        }
        let (number, offset, cut) = (front.number, front.offset, before - front.rest.len());
        if let Some(block) = self.full.front_mut() {
            let bytes = block.bytes.get(cut..).unwrap_or_default().into();
            *block = PacketListBlock { number, offset, bytes };
            self.packed -= cut;
        } else {
            (self.open.number, self.open.offset) = (number, offset);
            self.open.bytes.drain(..cut);
            self.open_len -= gone;
        }
        self.len -= gone;
    }
}

/// Packets in rising order; see `Packets::iter_from` and `Packets::iter_at`.
#[derive(Clone, Debug, Default)]
pub(in crate::flow) struct PacketsIter<'a> {
    one: Option<PacketEntry>,
    walk: PacketWalk<'a>,
    full: vec_deque::Iter<'a, PacketListBlock<Box<[u8]>>>,
    open: Option<PacketWalk<'a>>,
}

impl Iterator for PacketsIter<'_> {
    type Item = PacketEntry;

    fn next(&mut self) -> Option<PacketEntry> {
        loop {
            if let Some(entry) = self.one.take().or_else(|| self.walk.next()) {
                return Some(entry);
            }
            self.walk = self.full.next().map(PacketListBlock::walk).or_else(|| self.open.take())?;
        }
    }
}

#[cfg(test)]
mod tests;
