//! A run of packets in a few bytes each.

use protocol::varint::{put, take};

/// One packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PacketEntry {
    /// Its number in the capture.
    pub number: u64,
    /// Offset of its pcap record: bytes of the records of the flow's packets before it, since the
    /// first ever.
    pub offset: u64,
    /// Bytes of its pcap record, with header.
    pub len: u32,
}

impl PacketEntry {
    /// The offset after its record.
    #[must_use]
    pub(crate) const fn end(&self) -> u64 {
        self.offset.saturating_add(self.len as u64)
    }
}

/// Consecutive packets of a flow: the number and offset of the first one, and a list of integers of
/// variable length. The list has the length of the first record, then for each further packet the
/// difference of numbers and the length.
///
/// A block stays valid when the integers of its first packets are cut off, if number and offset
/// change too.
#[derive(Debug)]
pub(super) struct PacketListBlock<Bytes> {
    pub(super) number: u64,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

impl<Bytes: AsRef<[u8]>> PacketListBlock<Bytes> {
    /// Iterates over its packets.
    pub(super) fn walk(&self) -> PacketWalk<'_> {
        PacketWalk { number: self.number, offset: self.offset, rest: self.bytes.as_ref() }
    }

    /// Number of its packets.
    pub(super) fn count(&self) -> usize {
        // Only the last byte of an integer is below 128. Each packet has two integers, the first
        // packet one.
        self.bytes.as_ref().iter().filter(|byte| **byte < 0x80).count().div_ceil(2)
    }
}

impl PacketListBlock<Vec<u8>> {
    /// A block of one packet.
    pub(super) fn new(first: PacketEntry) -> Self {
        let mut block = Self { number: 0, offset: 0, bytes: Vec::new() };
        block.restart(first);
        block
    }

    /// Turns it into a block of one packet.
    pub(super) fn restart(&mut self, first: PacketEntry) {
        (self.number, self.offset) = (first.number, first.offset);
        self.bytes.clear();
        put(&mut self.bytes, first.len.into());
    }

    /// Adds the packet whose number is the last packet's plus `difference`.
    pub(super) fn push(&mut self, difference: u64, len: u32) {
        put(&mut self.bytes, difference);
        put(&mut self.bytes, len.into());
    }

    /// The block in its compact, read-only form.
    pub(super) fn packed(&self) -> PacketListBlock<Box<[u8]>> {
        PacketListBlock {
            number: self.number,
            offset: self.offset,
            bytes: self.bytes.as_slice().into(),
        }
    }
}

/// The packets of a block from some place on; `number` and `offset` are those of the next packet.
#[derive(Clone, Debug, Default)]
pub(super) struct PacketWalk<'a> {
    pub(super) number: u64,
    pub(super) offset: u64,
    pub(super) rest: &'a [u8],
}

impl Iterator for PacketWalk<'_> {
    type Item = PacketEntry;

    fn next(&mut self) -> Option<PacketEntry> {
        let len = u32::try_from(take(&mut self.rest)?).ok()?;
        let entry = PacketEntry { number: self.number, offset: self.offset, len };
        self.offset = entry.end();
        if let Some(difference) = take(&mut self.rest) {
            self.number = self.number.saturating_add(difference);
        }
        Some(entry)
    }
}
