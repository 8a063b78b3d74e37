//! The holes in streams, and in the bodies that lie in streams.

use std::ops::Range;

use protocol::tcp::Direction;

use crate::flow::shared::SharedFlows;

/// The merged holes of a stream, or of a body made of pieces of it.
#[derive(Debug, Default)]
pub(in crate::flow) struct StreamHoles {
    /// The state of the stream in which it has these holes; `None` before the first look.
    as_of: Option<HolesState>,
    pub(in crate::flow) ranges: Vec<Range<u64>>,
}

impl StreamHoles {
    /// These holes, which the next look replaces.
    pub(in crate::flow) const fn until_next_look(ranges: Vec<Range<u64>>) -> Self {
        Self { as_of: None, ranges }
    }
}

/// As long as nothing of this changes, a stream has the same holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HolesState {
    /// The end of the stream.
    end: u64,
    /// Number of its gaps.
    gaps: usize,
    /// Number of the oldest packet retained.
    oldest: u64,
}

impl SharedFlows {
    /// Bytes of a stream that cannot be read.
    pub(in crate::flow) fn bytes_in_holes(&self, id: u64, direction: Direction) -> u64 {
        let table = self.table.read();
        let stream = table.flow(id).and_then(|flow| flow.stream(direction));
        let holes = stream.map(|stream| stream.holes()).unwrap_or_default();
        holes.iter().map(|(hole, _)| hole.end.saturating_sub(hole.start)).sum()
    }

    /// Updates the holes of a stream, or of the body that lies in `pieces` of it. Returns false if
    /// the flow has left the tree.
    pub(in crate::flow) fn holes(
        &self,
        id: u64,
        direction: Direction,
        pieces: Option<&[Range<u64>]>,
        known: &mut StreamHoles,
    ) -> bool {
        self.expire(id);
        let table = self.table.read();
        let Some(flow) = table.flow(id) else { return false };
        // A stream without any packet has no holes.
        let Some(stream) = flow.stream(direction) else { return true };
        let oldest = self.store.bounds().oldest.number;
        let state = HolesState { end: stream.end(), gaps: stream.gaps(), oldest };
        if known.as_of.replace(state) == Some(state) {
            return true;
        }
        let holes = merged(stream.holes().into_iter().map(|(hole, _)| hole));
        drop(table);
        known.ranges = match pieces {
            Some(pieces) => merged(holes_in(pieces, &holes)),
            None => holes,
        };
        true
    }
}

/// Merges ascending ranges that touch.
fn merged(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => all.push(range),
        }
    }
    all
}

/// The parts of `holes` that lie in `pieces`, as offsets in the joined pieces. All ranges ascend.
fn holes_in(pieces: &[Range<u64>], holes: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> {
    let mut before = 0_u64;
    pieces.iter().flat_map(move |piece| {
        let begin = before;
        before = before.saturating_add(piece.end.saturating_sub(piece.start));
        let first = holes.partition_point(|hole| hole.end <= piece.start);
        let inside = holes.iter().skip(first).take_while(|hole| hole.start < piece.end);
        inside.map(move |hole| {
            let at = |offset: u64| {
                let offset = offset.clamp(piece.start, piece.end);
                begin.saturating_add(offset.saturating_sub(piece.start))
            };
            at(hole.start)..at(hole.end)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_of_a_body_are_counted_in_its_own_bytes() {
        let holes = [5..10, 18..22, 30..60, 70..80];
        let found = |pieces: &[(u64, u64)]| {
            let pieces: Vec<_> = pieces.iter().map(|(start, end)| *start..*end).collect();
            let found = merged(holes_in(&pieces, &holes)).into_iter();
            found.map(|hole| (hole.start, hole.end)).collect::<Vec<_>>()
        };
        assert_eq!(found(&[(0, 100)]), [(5, 10), (18, 22), (30, 60), (70, 80)]);
        assert_eq!(found(&[(10, 18), (22, 30)]), []);
        assert_eq!(found(&[(6, 9)]), [(0, 3)]);
        // Pieces that consist of holes only are one hole, whatever lies between them.
        let pieces = [(0, 6), (8, 12), (31, 40), (50, 75)];
        assert_eq!(found(&pieces), [(5, 8), (10, 29), (39, 44)]);
    }
}
