//! Puts one direction of a connection in order without touching its bytes.
//!
//! Invariants:
//!
//! ```text
//!   0            front          end                    limit
//!   | expired    | settled      | pending, with holes  |
//!   |            | or missing   | between              |
//! ```
//!
//! * Below `end` everything is decided: bytes are there, `missing`, or `expired`. Once announced,
//!   they never change, except that bytes expire.
//! * `settled` and `pending` are sorted by offset and have no overlaps. `pending` begins at or
//!   after `end`.
//! * Bytes settle only up to `limit`, so that a caller can keep them open for replacement.

mod bounds;
mod chunks;
mod copies;
mod disputed;
mod pieces;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

pub use bounds::{AssemblerLimitHits, AssemblerLimits};
pub use chunks::{Absence, ChunksIter, StreamChunk};
pub use copies::{Bytes, Difference, Inserted, NoBytes};
use disputed::Disputed;
use pieces::Pieces;

use crate::extent::Extent;
use crate::footprint;

/// The copy of a byte that counts if a sender sends different ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The copy that was captured first, as in Linux, BSD and Windows for data in order.
    #[default]
    First,
    /// The copy that was captured last before the byte settled.
    Last,
}

/// A place in the stream and the extent that fills it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct StreamPiece {
    start: u64,
    extent: Extent,
}

impl StreamPiece {
    fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.extent.len))
    }

    fn part(&self, range: Range<u64>) -> Extent {
        let skip = range.start.saturating_sub(self.start);
        self.extent.part(skip, range.end.saturating_sub(range.start))
    }
}

/// Keeps one direction in order; the module's text explains it.
#[derive(Debug)]
pub struct Assembler {
    settled: Pieces,
    end: u64,
    /// `end` when [`Assembler::take`] was last called.
    taken: u64,
    limit: u64,
    /// Packets below this number are no longer retained.
    oldest: u64,
    /// Highest packet number in `settled`, and the end of the last piece with a lower number than
    /// an earlier piece. After that offset, packet numbers ascend.
    newest: u64,
    disorder: u64,
    rare: Option<Box<RareStreamState>>,
}

/// Fields that a connection without trouble does not need.
#[derive(Debug, Default)]
struct RareStreamState {
    pending: BTreeMap<u64, Extent>,
    /// Runs of `pending` without a hole in them.
    islands: usize,
    /// Sorted, neither touching nor overlapping.
    missing: VecDeque<Range<u64>>,
    disputed: Disputed,
    bites: AssemblerLimitHits,
}

impl Default for Assembler {
    /// An empty stream in which everything settles at once.
    fn default() -> Self {
        Self {
            settled: Pieces::default(),
            end: 0,
            taken: 0,
            limit: u64::MAX,
            oldest: 0,
            newest: 0,
            disorder: 0,
            rare: None,
        }
    }
}

impl Assembler {
    /// An empty stream in which everything settles at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stream offset up to which everything is decided; the stream's length so far.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Lets bytes settle up to `limit`, and no further until the next call. Bytes that have settled
    /// stay settled.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
        self.settle();
    }

    /// Lets bytes settle at least up to `limit`.
    pub fn raise_limit(&mut self, limit: u64) {
        self.set_limit(self.limit.max(limit));
    }

    /// The range of bytes that settled since the last call.
    ///
    /// Call it before [`Assembler::skip`], whose gap would otherwise be part of the range.
    pub fn take(&mut self) -> Option<Range<u64>> {
        let range = self.taken..self.end;
        self.taken = self.end;
        (!range.is_empty()).then_some(range)
    }

    /// Puts the bytes of `extent` at `start`.
    ///
    /// Costs O(log n), and for overlaps O(log n) for each overlapped piece. There are at most as
    /// many of these as bytes in `extent`.
    pub fn insert(
        &mut self,
        start: u64,
        extent: Extent,
        policy: Policy,
        bytes: &dyn Bytes,
    ) -> Inserted {
        let new = StreamPiece { start, extent };
        let end = new.end();
        if extent.len == 0 {
            return Inserted::default();
        }
        if start == self.end && end <= self.limit && !self.is_waiting() {
            self.push(new);
            let new = u64::from(extent.len);
            return Inserted { new, first_new: Some(start), ..Inserted::default() };
        }
        let mut inserted = Inserted::default();
        if start < self.end {
            self.compare_settled(&new, &mut inserted, bytes);
        }
        if end > self.end {
            self.insert_pending(&new, policy, &mut inserted, bytes);
            self.settle();
        }
        inserted
    }

    /// Gives up the hole at the end, up to `to` at most. Returns the range that is missing now.
    /// Data that waited after it has settled.
    pub fn skip(&mut self, to: u64) -> Option<Range<u64>> {
        let to = self.first_pending().map_or(to, |first| first.min(to));
        let gap = self.end..to;
        if gap.is_empty() {
            return None;
        }
        let rare = self.rare.get_or_insert_default();
        match rare.missing.back_mut() {
            Some(last) if last.end == gap.start => last.end = gap.end,
            _ => rare.missing.push_back(gap.clone()),
        }
        self.end = gap.end;
        self.taken = gap.end;
        self.settle();
        Some(gap)
    }

    /// Drops waiting data at and after `offset`: it cannot belong to the stream. Returns the number
    /// of bytes dropped.
    pub fn cut_pending(&mut self, offset: u64) -> u64 {
        let Some(rare) = &mut self.rare else {
            return 0;
        };
        let mut dropped = 0_u64;
        let behind = rare.pending.split_off(&offset);
        for extent in behind.values() {
            dropped = dropped.saturating_add(u64::from(extent.len));
        }
        if let Some(mut last) = rare.pending.last_entry() {
            let piece = StreamPiece { start: *last.key(), extent: *last.get() };
            let over = piece.end().saturating_sub(offset);
            dropped = dropped.saturating_add(over);
            *last.get_mut() = piece.part(piece.start..piece.end().min(offset));
        }
        if rare.pending.is_empty() {
            rare.pending.clear();
        }
        rare.count_islands();
        dropped
    }

    /// Moves all waiting data by `distance` bytes. Only for streams in which nothing has settled
    /// and whose beginning was guessed wrong.
    pub(super) fn shift(&mut self, distance: i64) {
        if let Some(rare) = &mut self.rare {
            let old = std::mem::take(&mut rare.pending);
            rare.pending = old
                .into_iter()
                .filter_map(|(start, extent)| Some((start.checked_add_signed(distance)?, extent)))
                .collect();
            rare.disputed.shift(distance);
            rare.count_islands();
        }
    }

    /// Returns `true` if copies of bytes in `range` differed. This stays known for bytes that have
    /// expired.
    #[must_use]
    pub fn is_disputed(&self, range: &Range<u64>) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.disputed.touches(range))
    }

    /// Packets below number `packet` are gone: their extents expire.
    pub fn expire(&mut self, packet: u64) {
        self.oldest = self.oldest.max(packet);
        let oldest = self.oldest;
        let _ = self.settled.drop_front(|piece| piece.extent.packet < oldest);
    }

    /// Frees memory kept for growth, when no more data will come.
    pub fn shrink(&mut self) {
        self.settled.shrink();
    }

    /// Returns `true` if data waits after the end.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.pending.is_empty())
    }

    /// Number of extents that wait after the end.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.pending.len())
    }

    /// Number of holes before waiting data.
    #[must_use]
    pub fn holes_waiting(&self) -> usize {
        let Some(rare) = &self.rare else {
            return 0;
        };
        let touches = rare.pending.contains_key(&self.end);
        rare.islands.saturating_sub(usize::from(touches))
    }

    /// Stream offset of the first waiting byte.
    #[must_use]
    pub fn first_pending(&self) -> Option<u64> {
        self.rare.as_ref()?.pending.first_key_value().map(|(start, _)| *start)
    }

    /// Number of retained extents in the settled part.
    #[must_use]
    pub fn extents(&self) -> usize {
        self.settled.len()
    }

    /// Heap memory in bytes, to a few per cent.
    #[must_use]
    pub fn memory(&self) -> usize {
        let settled = self.settled.memory();
        let Some(rare) = &self.rare else {
            return settled;
        };
        let pending = footprint::of_tree::<u64, Extent>(rare.pending.len());
        let missing = rare.missing.capacity().saturating_mul(16);
        let disputed = rare.disputed.memory();
        settled
            .saturating_add(pending)
            .saturating_add(missing)
            .saturating_add(disputed)
            .saturating_add(size_of::<RareStreamState>())
    }

    fn missing_ranges(&self) -> Option<&VecDeque<Range<u64>>> {
        self.rare.as_ref().map(|rare| &rare.missing)
    }

    /// Appends a piece to the settled part. `piece.start` must be `end`.
    fn push(&mut self, piece: StreamPiece) {
        self.end = piece.end();
        if piece.extent.packet < self.newest.max(self.oldest) {
            self.disorder = self.end;
        }
        self.newest = self.newest.max(piece.extent.packet);
        if !self.settled.extend(&piece) {
            self.settled.push(piece);
        }
    }

    /// Moves pieces from `pending` to `settled`, as long as they are next and below the limit.
    fn settle(&mut self) {
        while let Some(rare) = &mut self.rare
            && let Some(first) = rare.pending.first_entry()
            && *first.key() == self.end
            && *first.key() < self.limit
        {
            let piece = StreamPiece { start: *first.key(), extent: first.remove() };
            let cut = piece.end().min(self.limit);
            if cut < piece.end() {
                rare.pending.insert(cut, piece.part(cut..piece.end()));
            } else if !rare.pending.contains_key(&cut) {
                rare.islands = rare.islands.saturating_sub(1);
            }
            self.push(StreamPiece { start: piece.start, extent: piece.part(piece.start..cut) });
        }
        if let Some(rare) = &mut self.rare
            && rare.pending.is_empty()
        {
            // Otherwise the map keeps a node, which is larger than the rest of a short connection.
            rare.pending.clear();
        }
    }

    /// Compares the part of `new` below `end` with the earlier copy.
    fn compare_settled(&mut self, new: &StreamPiece, inserted: &mut Inserted, bytes: &dyn Bytes) {
        let mut disputed = Disputed::default();
        for chunk in self.chunks(new.start..new.end()) {
            let len = chunk.range.end.saturating_sub(chunk.range.start);
            match chunk.content {
                Ok(old) => {
                    let is = new.part(chunk.range.clone());
                    let range = inserted.overlap(chunk.range.start, old, is, bytes);
                    range.into_iter().for_each(|range| disputed.add(range));
                }
                Err(Absence::Missing) => inserted.late = inserted.late.saturating_add(len),
                Err(Absence::Expired) => inserted.unverifiable(len),
            }
        }
        for range in disputed.into_ranges() {
            self.rare.get_or_insert_default().disputed.add(range);
        }
    }

    /// Puts the part of `new` at and after `end` into `pending`.
    fn insert_pending(
        &mut self,
        new: &StreamPiece,
        policy: Policy,
        inserted: &mut Inserted,
        bytes: &dyn Bytes,
    ) {
        let rare = self.rare.get_or_insert_default();
        let end = new.end();
        let mut at = new.start.max(self.end);
        while at < end {
            if let Some(old) = rare.covering(at) {
                let range = at..old.end().min(end);
                let (was, is) = (old.part(range.clone()), new.part(range.clone()));
                if let Some(range) = inserted.overlap(at, was, is, bytes) {
                    rare.disputed.add(range);
                }
                if policy == Policy::Last {
                    rare.replace(&old, range.clone(), is);
                }
                at = range.end;
            } else {
                let next = rare.pending.range(at..).next().map_or(end, |(start, _)| *start);
                let range = at..next.min(end);
                inserted.first_new = inserted.first_new.or(Some(at));
                inserted.new = inserted.new.saturating_add(range.end.saturating_sub(at));
                rare.fill(range.clone(), new.part(range.clone()));
                at = range.end;
            }
        }
    }
}

impl RareStreamState {
    fn covering(&self, at: u64) -> Option<StreamPiece> {
        let (start, extent) = self.pending.range(..=at).next_back()?;
        let piece = StreamPiece { start: *start, extent: *extent };
        (piece.end() > at).then_some(piece)
    }

    /// Inserts `extent` into an empty range.
    fn fill(&mut self, range: Range<u64>, extent: Extent) {
        let before = range.start.checked_sub(1).and_then(|at| self.covering(at)).is_some();
        let behind = self.pending.contains_key(&range.end);
        self.pending.insert(range.start, extent);
        let islands = self.islands.saturating_add(1);
        self.islands = islands.saturating_sub(usize::from(before)).saturating_sub(behind.into());
    }

    /// Replaces a part of `old` by `extent`.
    fn replace(&mut self, old: &StreamPiece, range: Range<u64>, extent: Extent) {
        if old.start < range.start {
            self.pending.insert(old.start, old.part(old.start..range.start));
        }
        if range.end < old.end() {
            self.pending.insert(range.end, old.part(range.end..old.end()));
        }
        self.pending.insert(range.start, extent);
    }

    fn count_islands(&mut self) {
        let mut end = None;
        self.islands = 0;
        for (start, extent) in &self.pending {
            self.islands = self.islands.saturating_add(usize::from(end != Some(*start)));
            end = Some(start.saturating_add(u64::from(extent.len)));
        }
    }
}
