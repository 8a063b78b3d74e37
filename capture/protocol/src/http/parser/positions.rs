//! Limits how far apart runs of messages lie when messages between them are missing.
//!
//! A run is a sequence of messages of one direction with nothing missing between them. The position
//! of a message is its number among all messages of its sender, so a response answers the request
//! at the same position. Two facts limit the difference between the positions of two runs: missing
//! bytes between them contain a minimum and a maximum number of messages, and a response cannot
//! come before its request. [`Positions`] keeps all consequences of these facts.

/// Maximum number of runs, of both directions together. Each fact costs the square of it.
pub(super) const RUNS: usize = 16;

/// The limit is unknown.
const NONE: i64 = i64::MAX / 4;

/// Differences between the positions of the first messages of runs. Runs have numbers below
/// [`RUNS`].
#[derive(Clone, Debug)]
pub(super) struct Positions {
    /// `most[a][b]`: maximum distance of `b` after `a`. Includes all consequences of other limits.
    most: [[i64; RUNS]; RUNS],
    is_used: [bool; RUNS],
}

impl Default for Positions {
    fn default() -> Self {
        Self { most: [[NONE; RUNS]; RUNS], is_used: [false; RUNS] }
    }
}

impl Positions {
    /// Adds a run without any limit; `None` if there is no room.
    pub(super) fn add(&mut self) -> Option<usize> {
        let run = self.is_used.iter().position(|is_used| !is_used)?;
        for (at, row) in self.most.iter_mut().enumerate() {
            if at == run {
                *row = [NONE; RUNS];
            }
            if let Some(bound) = row.get_mut(run) {
                *bound = if at == run { 0 } else { NONE };
            }
        }
        *self.is_used.get_mut(run)? = true;
        Some(run)
    }

    /// Removes a run. Its consequences for other runs stay.
    pub(super) fn remove(&mut self, run: usize) {
        if let Some(is_used) = self.is_used.get_mut(run) {
            *is_used = false;
        }
        for (at, row) in self.most.iter_mut().enumerate() {
            if at == run {
                *row = [NONE; RUNS];
            } else if let Some(bound) = row.get_mut(run) {
                *bound = NONE;
            }
        }
    }

    /// `to` lies at most `most` after `from`; before it, if `most` is negative.
    pub(super) fn limit(&mut self, from: usize, to: usize, most: i64) {
        if self.most(from, to) <= most {
            return;
        }
        let Some(after) = self.most.get(to).copied() else { return };
        for row in &mut self.most {
            let Some(before) = row.get(from).copied().filter(|before| *before < NONE) else {
                continue;
            };
            let way = before.saturating_add(most);
            for (bound, after) in row.iter_mut().zip(after).filter(|(_, after)| *after < NONE) {
                *bound = way.saturating_add(after).min(*bound);
            }
        }
    }

    /// `to` lies between `least` and `most` after `from`.
    pub(super) fn set(&mut self, from: usize, to: usize, least: i64, most: i64) {
        self.limit(from, to, most);
        self.limit(to, from, least.saturating_neg());
    }

    /// Minimum and maximum distance of `to` after `from`.
    pub(super) fn between(&self, from: usize, to: usize) -> (i64, i64) {
        (self.most(to, from).saturating_neg(), self.most(from, to))
    }

    /// The distance of `to` after `from`, if it is certain.
    pub(super) fn exactly(&self, from: usize, to: usize) -> Option<i64> {
        let (least, most) = self.between(from, to);
        (least == most).then_some(most)
    }

    /// Returns `true` if the facts contradict each other, so that one of them is false.
    pub(super) fn is_contradictory(&self) -> bool {
        (0..RUNS).any(|run| self.most(run, run) < 0)
    }

    fn most(&self, from: usize, to: usize) -> i64 {
        self.most.get(from).and_then(|row| row.get(to)).copied().unwrap_or(NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consequences_of_bounds_are_known() {
        let mut positions = Positions::default();
        let [one, two, three] = [0; 3].map(|_| positions.add().unwrap());
        assert_eq!(positions.between(one, two), (-NONE, NONE));
        positions.set(one, two, 1, 4);
        positions.set(two, three, 2, 2);
        assert_eq!(positions.between(one, three), (3, 6));
        positions.limit(one, three, 3);
        assert_eq!(positions.exactly(one, two), Some(1));
        assert_eq!(positions.between(three, one), (-3, -3));
        assert!(!positions.is_contradictory());
        positions.remove(two);
        assert_eq!(positions.exactly(one, three), Some(3));
        assert_eq!(positions.add(), Some(two));
        assert_eq!(positions.between(one, two), (-NONE, NONE));
        positions.limit(three, one, -4);
        assert!(positions.is_contradictory());
    }

    #[test]
    fn there_is_room_for_so_many_runs() {
        let mut positions = Positions::default();
        for run in 0..RUNS {
            assert_eq!(positions.add(), Some(run));
        }
        assert_eq!(positions.add(), None);
    }
}
