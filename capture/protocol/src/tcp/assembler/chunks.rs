//! Reads the stream by ranges, and lists the ranges that cannot be read.

use std::collections::VecDeque;
use std::ops::Range;

use super::pieces::PiecesIter;
use super::{Assembler, StreamPiece};
use crate::extent::Extent;

/// The reason why bytes of a stream cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absence {
    /// No captured packet contains them.
    Missing,
    /// Their packet is no longer retained.
    Expired,
}

/// A contiguous range of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamChunk {
    /// Stream offsets.
    pub range: Range<u64>,
    /// The place of the `range.end - range.start` bytes, or the reason why they cannot be read.
    pub content: Result<Extent, Absence>,
}

impl Assembler {
    /// The stream between two offsets, in order and complete, up to [`Assembler::end`]. Costs O(log
    /// n) for the first chunk and O(1) for each other.
    #[must_use]
    pub fn chunks(&self, range: Range<u64>) -> ChunksIter<'_> {
        let mut pieces = self.settled.behind(range.start);
        let piece = pieces.next();
        let missing = &self.missing_ranges();
        let gap = missing.map_or(0, |all| all.partition_point(|gap| gap.end <= range.start));
        ChunksIter {
            assembler: self,
            at: range.start,
            end: range.end.min(self.end),
            pieces,
            piece,
            gap,
        }
    }

    /// The ranges of the stream that cannot be read, sorted. Ranges of one kind do not touch.
    ///
    /// Costs O(ranges); for streams with reordering, up to O(extents).
    #[must_use]
    pub fn holes(&self) -> Vec<(Range<u64>, Absence)> {
        let mut holes: Vec<(Range<u64>, Absence)> = Vec::new();
        let mut add = |range: Range<u64>, kind| match holes.last_mut() {
            Some((last, last_kind)) if last.end == range.start && *last_kind == kind => {
                last.end = range.end;
            }
            _ => holes.push((range, kind)),
        };
        // After this offset there are no expired pieces, only missing ranges.
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

    /// Number of ranges of missing bytes below [`Assembler::end`].
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.missing_ranges().map_or(0, VecDeque::len)
    }

    /// Returns `true` if a range of missing bytes begins at `offset`. If not, a gap announced there
    /// continues the one before. Costs O(log n).
    #[must_use]
    pub fn has_gap_from(&self, offset: u64) -> bool {
        let missing = self.missing_ranges();
        missing.is_some_and(|all| all.binary_search_by_key(&offset, |gap| gap.start).is_ok())
    }

    /// Number of missing bytes below [`Assembler::end`]. Costs O(gaps).
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        let gaps = self.missing_ranges().into_iter().flatten();
        gaps.map(|gap| gap.end.saturating_sub(gap.start)).sum()
    }

    /// Stream offset of the first retained piece.
    fn front(&self) -> u64 {
        self.settled.front().unwrap_or(self.end)
    }
}

/// The chunks of a range; see [`Assembler::chunks`].
#[derive(Debug)]
pub struct ChunksIter<'a> {
    assembler: &'a Assembler,
    at: u64,
    end: u64,
    /// The first settled piece that ends after `at`, and the pieces after it.
    piece: Option<StreamPiece>,
    pieces: PiecesIter<'a>,
    /// Index of the first missing range that ends after `at`.
    gap: usize,
}

impl Iterator for ChunksIter<'_> {
    type Item = StreamChunk;

    fn next(&mut self) -> Option<StreamChunk> {
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
            return Some(StreamChunk {
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
        Some(StreamChunk { range: at..end, content: Err(kind) })
    }
}
