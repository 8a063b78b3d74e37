//! How far apart runs of messages may lie when messages between them are missing.
//!
//! A run is a row of messages of one direction with nothing missing among them. The position of a
//! message is its number among all messages that its sender sent, so a response answers the request
//! of the same position. Bytes that are missing between two runs hold from so many to so many
//! messages, and a response cannot come before its request: each such fact bounds the difference
//! between the positions of two runs. [`Positions`] keeps what follows from all of them.

/// Runs that are kept, of both directions together. Each fact costs the square of this.
pub(super) const RUNS: usize = 16;

/// No bound is known.
const NONE: i64 = i64::MAX / 4;

/// Differences between the positions of the first messages of runs, which have numbers below [`RUNS`].
#[derive(Clone, Debug)]
pub(super) struct Positions {
    /// `most[a][b]`: `b` lies at most so much after `a`. All that follows from other bounds is in it.
    most: [[i64; RUNS]; RUNS],
    is_used: [bool; RUNS],
}

impl Default for Positions {
    fn default() -> Self {
        Self { most: [[NONE; RUNS]; RUNS], is_used: [false; RUNS] }
    }
}

impl Positions {
    /// Adds a run, without any bound; `None` if there is no room.
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

    /// Forgets a run. What followed from it for others stays.
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

    /// `to` lies at most so much after `from`; before it, if negative.
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

    /// How much `to` lies after `from`, at least and at most.
    pub(super) fn between(&self, from: usize, to: usize) -> (i64, i64) {
        (self.most(to, from).saturating_neg(), self.most(from, to))
    }

    /// How much `to` lies after `from`, if that is certain.
    pub(super) fn exactly(&self, from: usize, to: usize) -> Option<i64> {
        let (least, most) = self.between(from, to);
        (least == most).then_some(most)
    }

    /// True if the facts contradict each other: one of them is none.
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
    fn what_follows_from_bounds_is_known() {
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
