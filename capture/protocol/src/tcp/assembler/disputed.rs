//! Ranges of bytes whose copies differed, to judge how reliable a message is.

use std::ops::Range;

/// Number of ranges that are remembered one by one, 16 bytes each. Beyond that, the two closest are
/// joined: if a sender contradicts itself so often, too much of its stream is in doubt rather than
/// too little.
const RANGES: usize = 64;

/// Ranges of stream offsets: sorted, neither touching nor overlapping.
#[derive(Clone, Debug, Default)]
pub(super) struct Disputed(Vec<Range<u64>>);

impl Disputed {
    /// Adds a range.
    pub(super) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|one| one.end < range.start);
        let to = self.0.partition_point(|one| one.start <= range.end);
        let touching = self.0.get(from..to).unwrap_or_default();
        let start = touching.first().map_or(range.start, |one| one.start.min(range.start));
        let end = touching.last().map_or(range.end, |one| one.end.max(range.end));
        let joined = start..end;
        self.0.splice(from..to.max(from), std::iter::once(joined));
        if self.0.len() > RANGES {
            self.join_closest();
        }
    }

    /// Returns `true` if a disputed range overlaps `range`.
    pub(super) fn touches(&self, range: &Range<u64>) -> bool {
        let from = self.0.partition_point(|one| one.end <= range.start);
        self.0.get(from).is_some_and(|one| one.start < range.end)
    }

    /// Moves all ranges by `distance` bytes.
    pub(super) fn shift(&mut self, distance: i64) {
        let old = std::mem::take(&mut self.0);
        for range in old {
            let moved = |offset: u64| offset.saturating_add_signed(distance);
            self.add(moved(range.start)..moved(range.end));
        }
    }

    /// All ranges.
    pub(super) fn into_ranges(self) -> impl Iterator<Item = Range<u64>> {
        self.0.into_iter()
    }

    /// Heap memory in bytes.
    pub(super) fn memory(&self) -> usize {
        self.0.capacity().saturating_mul(size_of::<Range<u64>>())
    }

    fn join_closest(&mut self) {
        let pairs = self.0.iter().zip(self.0.iter().skip(1)).enumerate();
        let closest = pairs.min_by_key(|(_, (one, next))| next.start.saturating_sub(one.end));
        let Some((at, (one, next))) = closest else { return };
        let both = one.start..next.end;
        self.0.splice(at..at.saturating_add(2), [both]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with a simple model: a flag for each byte.
    #[test]
    fn it_is_a_set_of_bytes() {
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        for _ in 0..200 {
            let (mut disputed, mut bytes) = (Disputed::default(), [false; 300]);
            for _ in 0..20 {
                let start = next(280);
                let range = start..start + next(20);
                disputed.add(range.clone());
                (start..range.end).for_each(|at| bytes[usize::try_from(at).unwrap()] = true);
                let start = next(280);
                let range = start..start + 1 + next(19);
                let part =
                    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                assert_eq!(disputed.touches(&range), bytes[part].contains(&true));
            }
        }
    }

    #[test]
    fn it_is_bounded_and_forgets_nothing() {
        let mut disputed = Disputed::default();
        let ranges: Vec<_> = (0..10_000_u64).map(|one| one * one..one * one + 1).collect();
        for range in &ranges {
            disputed.add(range.clone());
            assert!(disputed.0.len() <= RANGES && disputed.memory() <= 4 * RANGES * 16);
        }
        assert!(ranges.iter().all(|range| disputed.touches(range)));
        assert!(!disputed.touches(&(100_000_000..200_000_000)));
    }

    #[test]
    fn it_moves_with_the_stream() {
        let mut disputed = Disputed::default();
        disputed.add(5..7);
        disputed.shift(3);
        assert!(disputed.touches(&(8..9)) && !disputed.touches(&(5..8)));
    }
}
