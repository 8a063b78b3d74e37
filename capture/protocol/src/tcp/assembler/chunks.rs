//! The stream read by ranges, and which of them cannot be read.

use std::collections::VecDeque;
use std::ops::Range;

use super::pieces::Iter;
use super::{Assembler, Piece};
use crate::extent::Extent;

/// Why bytes of a stream cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absence {
    /// They are in no captured packet.
    Missing,
    /// Their packet is not retained any more.
    Expired,
}

/// A range of a stream that is in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Stream offsets.
    pub range: Range<u64>,
    /// Where the bytes are, `range.end - range.start` of them; or why there are none.
    pub content: Result<Extent, Absence>,
}

impl Assembler {
    /// The stream between two offsets, in order and without anything left out. Ends where nothing
    /// is decided yet. Costs O(log n) for the first chunk and O(1) for each other.
    #[must_use]
    pub fn chunks(&self, range: Range<u64>) -> Chunks<'_> {
        let mut pieces = self.settled.behind(range.start);
        let piece = pieces.next();
        let missing = &self.missing_ranges();
        let gap = missing.map_or(0, |all| all.partition_point(|gap| gap.end <= range.start));
        Chunks {
            assembler: self,
            at: range.start,
            end: range.end.min(self.end),
            pieces,
            piece,
            gap,
        }
    }

    /// The ranges of the stream that cannot be read, sorted and not touching if of one kind.
    ///
    /// Costs the number of ranges, and for streams with reordering in them up to the number of
    /// extents.
    #[must_use]
    pub fn holes(&self) -> Vec<(Range<u64>, Absence)> {
        let mut holes: Vec<(Range<u64>, Absence)> = Vec::new();
        let mut add = |range: Range<u64>, kind| match holes.last_mut() {
            Some((last, last_kind)) if last.end == range.start && *last_kind == kind => {
                last.end = range.end;
            }
            _ => holes.push((range, kind)),
        };
        // Behind this there is no expired piece, only missing ranges.
        let mixed = self.front().max(if self.oldest == 0 { 0 } else { self.disorder });
        for chunk in self.chunks(0..mixed) {
            if let Err(kind) = chunk.content {
                add(chunk.range, kind);
            }
        }
        for gap in self.missing_ranges().into_iter().flatten() {
            let rest = gap.start.max(mixed)..gap.end;
            if !rest.is_empty() {
                add(rest, Absence::Missing);
            }
        }
        holes
    }

    /// Ranges of missing bytes below [`Assembler::end`].
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.missing_ranges().map_or(0, VecDeque::len)
    }

    /// Whether a range of missing bytes begins at `offset`, so that a gap announced there does not go
    /// on with the one before. Costs O(log n).
    #[must_use]
    pub fn has_gap_from(&self, offset: u64) -> bool {
        let missing = self.missing_ranges();
        missing.is_some_and(|all| all.binary_search_by_key(&offset, |gap| gap.start).is_ok())
    }

    /// Bytes that are missing below [`Assembler::end`]. Costs the number of gaps.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        let gaps = self.missing_ranges().into_iter().flatten();
        gaps.map(|gap| gap.end.saturating_sub(gap.start)).sum()
    }

    /// Where retained pieces begin.
    fn front(&self) -> u64 {
        self.settled.front().unwrap_or(self.end)
    }
}

/// The chunks of a range; see [`Assembler::chunks`].
#[derive(Debug)]
pub struct Chunks<'a> {
    assembler: &'a Assembler,
    at: u64,
    end: u64,
    /// The first settled piece that ends behind `at`, and those behind it.
    piece: Option<Piece>,
    pieces: Iter<'a>,
    /// The first missing range that ends behind `at`.
    gap: usize,
}

impl Iterator for Chunks<'_> {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        if self.at >= self.end {
            return None;
        }
        let at = self.at;
        if let Some(piece) = self.piece.filter(|piece| piece.start <= at) {
            let range = at..piece.end().min(self.end);
            self.at = range.end;
            self.piece = self.pieces.next();
            let is_there = piece.extent.packet >= self.assembler.oldest;
            let extent = piece.part(range.clone());
            return Some(Chunk {
                range,
                content: if is_there { Ok(extent) } else { Err(Absence::Expired) },
            });
        }
        let limit = self.piece.map_or(self.end, |piece| piece.start.min(self.end));
        let missing = self.assembler.missing_ranges();
        let mut gap = missing.and_then(|all| all.get(self.gap));
        if gap.is_some_and(|gap| gap.end <= at) {
            self.gap = self.gap.saturating_add(1);
            gap = missing.and_then(|all| all.get(self.gap));
        }
        let (end, kind) = match gap {
            Some(gap) if gap.start <= at => (gap.end.min(limit), Absence::Missing),
            Some(gap) => (gap.start.min(limit), Absence::Expired),
            None => (limit, Absence::Expired),
        };
        self.at = end;
        Some(Chunk { range: at..end, content: Err(kind) })
    }
}
