//! The pieces of a stream, stored in a few bytes each.
//!
//! ```text
//!   | block of 64 | block of 64 | ... | open block |
//!   front                                     last
//! ```
//!
//! A block states the place of its first piece. The other pieces are stored as differences. Usually
//! a piece begins where the one before ends, begins at the same byte of its packet, and has the
//! same length; then two or three bytes are enough. The length of a piece is stored with the place
//! of the next piece, so that the last piece can grow.

use std::collections::{VecDeque, vec_deque};

use super::StreamPiece;
use crate::extent::Extent;
use crate::varint::{fold, put, take, unfold};

/// Number of pieces in a full block.
const BLOCK: u32 = 64;

/// Cost of an allocation in addition to its bytes.
const ALLOCATION: usize = 16;

/// Flag bits of the byte before each difference: they mark the unusual values that are stored. The
/// other bits contain the difference of packet numbers, or [`FAR`].
const HAS_LEN: u8 = 1;
const HAS_GAP: u8 = 2;
const HAS_OFFSET: u8 = 4;
const PACKET: u32 = 3;
/// The difference of packet numbers is this plus a stored number.
const FAR: u64 = 31;

/// Pieces of a stream, sorted and without overlaps.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// All blocks but the last; `None` until the first block is full.
    full: Option<Box<PiecesFull>>,
    /// Empty only if there are no pieces.
    open: PieceBlock<Vec<u8>>,
    /// The last piece, unless there are no pieces.
    last: StreamPiece,
    /// Length of the piece before the last one, if both are in the same block.
    before: u32,
}

#[derive(Debug, Default)]
struct PiecesFull {
    blocks: VecDeque<PieceBlock<Box<[u8]>>>,
    /// Number of pieces in the blocks.
    len: usize,
    /// Memory in the blocks, in bytes.
    packed: usize,
}

/// A run of pieces.
#[derive(Debug, Default)]
struct PieceBlock<Bytes> {
    /// Start, packet and offset of the first piece.
    start: u64,
    packet: u64,
    offset: u32,
    /// Length of the last piece.
    len: u32,
    count: u32,
    bytes: Bytes,
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        let full = self.full.as_ref().map_or(0, |full| full.len);
        full.saturating_add(usize::try_from(self.open.count).unwrap_or(usize::MAX))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.open.count == 0
    }

    /// Stream offset at which the first piece begins.
    pub(super) fn front(&self) -> Option<u64> {
        let block = self.full.as_ref().and_then(|full| full.blocks.front());
        let open = (!self.is_empty()).then_some(self.open.start);
        block.map(|block| block.start).or(open)
    }

    /// Adds a piece that comes after all others.
    pub(super) fn push(&mut self, piece: StreamPiece) {
        if self.open.count == 0 || self.open.count == BLOCK {
            if self.open.count == BLOCK {
                self.full.get_or_insert_default().push(self.open.packed());
            }
            self.open.restart(&piece);
            self.before = 0;
        } else {
            self.open.push(&self.last, self.before, &piece);
            self.before = self.last.extent.len;
        }
        self.last = piece;
    }

    /// Extends the last piece by `next`, if that continues it in the same packet. Returns whether
    /// it did.
    pub(super) fn extend(&mut self, next: &StreamPiece) -> bool {
        let extent = self.last.extent;
        if !self.is_empty()
            && self.last.end() == next.start
            && extent.continues_in(next.extent)
            && let Some(len) = extent.len.checked_add(next.extent.len)
        {
            self.last.extent.len = len;
            self.open.len = len;
            return true;
        }
        false
    }

    /// Drops pieces from the front, up to the first that is not `gone`. Returns their number.
    pub(super) fn drop_front(&mut self, mut gone: impl FnMut(&StreamPiece) -> bool) -> usize {
        let mut dropped = 0_usize;
        while let Some(full) = &mut self.full {
            let (count, is_all) = full.drop_front(&mut gone);
            dropped = dropped.saturating_add(count);
            if full.blocks.is_empty() {
                self.full = None;
            }
            if !is_all {
                return dropped;
            }
        }
        let mut rest = self.open.walk();
        let count = rest.pass(&mut gone);
        if count > 0 {
            (self.open, self.before) = PieceBlock::of(rest);
        }
        dropped.saturating_add(count)
    }

    /// The pieces that end after `offset`. Costs O(log n) for the first and O(1) for each other.
    pub(super) fn behind(&self, offset: u64) -> PiecesIter<'_> {
        if !self.is_empty() && self.last.start <= offset {
            // The newest piece, or none.
            let is_behind = self.last.end() > offset;
            return if is_behind { PiecesIter::one(&self.last) } else { PiecesIter::default() };
        }
        let open = self.open.walk();
        let mut iter = match &self.full {
            Some(full) if self.open.start > offset => {
                let behind = full.blocks.partition_point(|block| block.start <= offset);
                let mut blocks = full.blocks.range(behind.saturating_sub(1)..);
                let walk = blocks.next().map(PieceBlock::walk).unwrap_or_default();
                PiecesIter { walk, full: blocks, open: Some(open) }
            }
            _ => PiecesIter { walk: open, ..PiecesIter::default() },
        };
        // The next block begins after `offset`.
        let _ = iter.walk.pass(|piece| piece.end() <= offset);
        iter
    }

    /// Frees memory kept for growth.
    pub(super) fn shrink(&mut self) {
        self.open.bytes.shrink_to_fit();
        if let Some(full) = &mut self.full {
            full.blocks.shrink_to_fit();
        }
    }

    /// Heap memory in bytes, to a few per cent.
    pub(super) fn memory(&self) -> usize {
        let full = self.full.as_ref().map_or(0, |full| full.memory());
        let open = self.open.bytes.capacity();
        full.saturating_add(open).saturating_add(if open > 0 { ALLOCATION } else { 0 })
    }
}

impl PiecesFull {
    fn push(&mut self, block: PieceBlock<Box<[u8]>>) {
        self.len = self.len.saturating_add(usize::try_from(block.count).unwrap_or(usize::MAX));
        self.packed = self.packed.saturating_add(block.memory());
        self.blocks.push_back(block);
    }

    /// Drops pieces from the front block, up to the first that is not `gone`. Returns their number,
    /// and whether the block is empty now.
    fn drop_front(&mut self, gone: impl FnMut(&StreamPiece) -> bool) -> (usize, bool) {
        let Some(front) = self.blocks.front() else { return (0, true) };
        let mut rest = front.walk();
        let count = rest.pass(gone);
        let is_all = rest.left == 0;
        if count > 0 {
            let kept = (!is_all).then(|| PieceBlock::of(rest).0.packed());
            self.packed = self.packed.saturating_sub(front.memory());
            let _ = self.blocks.pop_front();
            if let Some(kept) = kept {
                self.packed = self.packed.saturating_add(kept.memory());
                self.blocks.push_front(kept);
            }
            self.len = self.len.saturating_sub(count);
            if self.blocks.len() < self.blocks.capacity() / 4 {
                self.blocks.shrink_to(self.blocks.len().saturating_mul(2));
            }
        }
        (count, is_all)
    }

    fn memory(&self) -> usize {
        let blocks = self.blocks.capacity().saturating_mul(size_of::<PieceBlock<Box<[u8]>>>());
        size_of::<Self>().saturating_add(blocks).saturating_add(self.packed)
    }
}

impl<Bytes: AsRef<[u8]>> PieceBlock<Bytes> {
    fn walk(&self) -> PieceWalk<'_> {
        PieceWalk {
            start: self.start,
            packet: self.packet,
            offset: self.offset,
            before: 0,
            len: self.len,
            left: self.count,
            rest: self.bytes.as_ref(),
        }
    }
}

impl PieceBlock<Vec<u8>> {
    /// Makes it a block of one piece.
    fn restart(&mut self, first: &StreamPiece) {
        self.start = first.start;
        self.packet = first.extent.packet;
        self.offset = first.extent.offset;
        self.len = first.extent.len;
        self.count = 1;
        self.bytes.clear();
    }

    /// Adds the piece `next` after `last`. The piece before `last` has `before` bytes.
    fn push(&mut self, last: &StreamPiece, before: u32, next: &StreamPiece) {
        let (from, to) = (last.extent, next.extent);
        let packets = fold(to.packet.wrapping_sub(from.packet).cast_signed());
        let gap = next.start.wrapping_sub(last.end());
        let offset = fold(i64::from(to.offset).wrapping_sub(from.offset.into()));
        let near = u8::try_from(packets.min(FAR)).unwrap_or(u8::MAX);
        let has = |flag: u8, is: bool| if is { flag } else { 0 };
        self.bytes.push(
            near << PACKET
                | has(HAS_LEN, from.len != before)
                | has(HAS_GAP, gap != 0)
                | has(HAS_OFFSET, offset != 0),
        );
        if let Some(more) = packets.checked_sub(FAR) {
            put(&mut self.bytes, more);
        }
        if from.len != before {
            put(&mut self.bytes, from.len.into());
        }
        if gap != 0 {
            put(&mut self.bytes, gap);
        }
        if offset != 0 {
            put(&mut self.bytes, offset);
        }
        self.len = to.len;
        self.count = self.count.saturating_add(1);
    }

    /// A block of these pieces, and the length of the last piece but one.
    fn of(pieces: impl Iterator<Item = StreamPiece>) -> (Self, u32) {
        let mut block = Self::default();
        let (mut last, mut before) = (StreamPiece::default(), 0);
        for piece in pieces {
            if block.count == 0 {
                block.restart(&piece);
            } else {
                block.push(&last, before, &piece);
                before = last.extent.len;
            }
            last = piece;
        }
        (block, before)
    }

    /// The same block in its read-only form.
    fn packed(&self) -> PieceBlock<Box<[u8]>> {
        let Self { start, packet, offset, len, count, .. } = *self;
        PieceBlock { start, packet, offset, len, count, bytes: self.bytes.as_slice().into() }
    }
}

impl PieceBlock<Box<[u8]>> {
    fn memory(&self) -> usize {
        self.bytes.len().saturating_add(ALLOCATION)
    }
}

/// The pieces of a block from some piece on.
#[derive(Clone, Copy, Debug, Default)]
struct PieceWalk<'a> {
    /// Start, packet and offset of the next piece.
    start: u64,
    packet: u64,
    offset: u32,
    /// Length of the piece before.
    before: u32,
    /// Length of the last piece.
    len: u32,
    left: u32,
    rest: &'a [u8],
}

impl PieceWalk<'_> {
    /// Advances to the first piece that is not `gone`. Returns the number of pieces before it.
    fn pass(&mut self, mut gone: impl FnMut(&StreamPiece) -> bool) -> usize {
        let mut count = 0_usize;
        let mut at = *self;
        while at.next().is_some_and(|piece| gone(&piece)) {
            *self = at;
            count = count.saturating_add(1);
        }
        count
    }

    /// Advances to the next piece and returns the length of this one. `None` at the end of the
    /// bytes.
    fn advance(&mut self) -> Option<u32> {
        let (head, rest) = self.rest.split_first()?;
        self.rest = rest;
        let mut packets = u64::from(head >> PACKET);
        if packets == FAR {
            packets = packets.wrapping_add(take(&mut self.rest)?);
        }
        let mut optional = |flag| if head & flag != 0 { take(&mut self.rest) } else { Some(0) };
        let len = optional(HAS_LEN)?;
        let gap = optional(HAS_GAP)?;
        let offset = unfold(optional(HAS_OFFSET)?);
        let len = if head & HAS_LEN != 0 { u32::try_from(len).ok()? } else { self.before };
        self.before = len;
        self.start = self.start.saturating_add(len.into()).wrapping_add(gap);
        self.packet = self.packet.wrapping_add(unfold(packets).cast_unsigned());
        self.offset = u32::try_from(i64::from(self.offset).wrapping_add(offset)).ok()?;
        Some(len)
    }
}

impl Iterator for PieceWalk<'_> {
    type Item = StreamPiece;

    fn next(&mut self) -> Option<StreamPiece> {
        self.left = self.left.checked_sub(1)?;
        let Self { start, packet, offset, .. } = *self;
        let len = if self.left == 0 { self.len } else { self.advance()? };
        Some(StreamPiece { start, extent: Extent { packet, offset, len } })
    }
}

/// Pieces in order; see [`Pieces::behind`].
#[derive(Clone, Debug, Default)]
pub(super) struct PiecesIter<'a> {
    walk: PieceWalk<'a>,
    full: vec_deque::Iter<'a, PieceBlock<Box<[u8]>>>,
    open: Option<PieceWalk<'a>>,
}

impl PiecesIter<'_> {
    /// Only this piece.
    fn one(piece: &StreamPiece) -> Self {
        let Extent { packet, offset, len } = piece.extent;
        let walk =
            PieceWalk { start: piece.start, packet, offset, before: 0, len, left: 1, rest: &[] };
        Self { walk, ..Self::default() }
    }
}

impl Iterator for PiecesIter<'_> {
    type Item = StreamPiece;

    fn next(&mut self) -> Option<StreamPiece> {
        loop {
            if let Some(piece) = self.walk.next() {
                return Some(piece);
            }
            self.walk = self.full.next().map(PieceBlock::walk).or_else(|| self.open.take())?;
        }
    }
}

#[cfg(test)]
mod tests;
