//! Times in which nothing was captured, between two packets of a store.
//!
//! A ring's writer records them and pcapng streams report them, because the packets themselves do
//! not show them. They last only as long as the process; the ring file does not keep them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use protocol::time::Timestamp;

/// Maximum number of holes kept for a store, the newest. An interface that comes and goes four
/// times a second, as often as it is looked for, causes as many in a minute. A reader that is
/// further back gets no report of the older ones.
const REMEMBERED: usize = 256;

/// A time in which nothing was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Number of the packet right after the hole.
    pub before: u64,
    /// The time from which nothing was captured.
    pub began: Timestamp,
    /// The time from which packets may have come again.
    pub ended: Timestamp,
    /// The cause, for people.
    pub why: Arc<str>,
    /// Whether the source was lost. If not, it only paused because the capture did.
    pub lost: bool,
}

impl std::fmt::Display for Hole {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (began, ended) = (self.began.to_rfc3339(), self.ended.to_rfc3339());
        write!(formatter, "nothing was captured from {began} to {ended}: {}", self.why)
    }
}

/// The holes of a store, in order, counted from 0.
///
/// A reader that finds a packet in the store, and then asks here, finds each hole before that
/// packet: a hole is added before the packets after it are published.
#[derive(Debug, Default)]
pub(crate) struct StoreHoles {
    /// Number of holes so far. It is kept beside the list, so that asking for it costs one load.
    count: AtomicU64,
    /// The newest holes, at most [`REMEMBERED`].
    list: Mutex<VecDeque<Hole>>,
}

impl StoreHoles {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The hole with this index, and the index. If that hole is forgotten, the oldest one kept.
    pub(crate) fn get(&self, index: u64) -> Option<(u64, Hole)> {
        let list = self.list.lock();
        let oldest = self.count() - list.len() as u64;
        let index = index.max(oldest);
        let hole = list.get(usize::try_from(index - oldest).ok()?)?;
        Some((index, hole.clone()))
    }

    pub(crate) fn add(&self, hole: Hole) {
        let mut list = self.list.lock();
        if list.len() >= REMEMBERED {
            list.pop_front();
        }
        list.push_back(hole);
        self.count.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hole(before: u64) -> Hole {
        let [began, ended] = [1_000_000_000, 2_500_000_000].map(Timestamp::from_nanoseconds);
        Hole { before, began, ended, why: "eth0 went away".into(), lost: true }
    }

    #[test]
    fn a_hole_has_its_beginning_and_end() {
        assert_eq!(
            hole(1).to_string(),
            "nothing was captured from 1970-01-01T00:00:01.000000000Z \
             to 1970-01-01T00:00:02.500000000Z: eth0 went away"
        );
    }

    #[test]
    fn the_newest_holes_are_kept_and_all_are_counted() {
        let holes = StoreHoles::default();
        assert_eq!((holes.count(), holes.get(0)), (0, None));
        let all = REMEMBERED as u64 + 10;
        for number in 0..all {
            holes.add(hole(number));
        }
        assert_eq!(holes.count(), all);
        assert_eq!(holes.get(0), Some((10, hole(10))));
        assert_eq!(holes.get(11), Some((11, hole(11))));
        assert_eq!(holes.get(all - 1), Some((all - 1, hole(all - 1))));
        assert_eq!(holes.get(all), None);
    }
}
