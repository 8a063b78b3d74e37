//! Times in which nothing was captured, between two packets of a store.
//!
//! A ring's writer knows of them and pcapng streams tell of them: nothing in the packets themselves
//! does. Only as long as the process lives; they are not kept with the ring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use protocol::time::Timestamp;

/// Most holes that are remembered of a store, the newest: an interface that comes and goes four
/// times a second, as often as it is looked for, has as many in a minute. A reader that is further
/// behind is not told of the older ones.
const REMEMBERED: usize = 256;

/// A time in which nothing was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Number of the packet before which it lies, and behind the one before that.
    pub before: u64,
    /// From when on nothing was captured.
    pub began: Timestamp,
    /// From when on packets may have come again.
    pub ended: Timestamp,
    /// What happened, for people.
    pub why: Arc<str>,
    /// The source was lost, and not only at rest because the capture was.
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
/// Who finds a packet in the store finds each hole before it here, if he asks for the packet first:
/// a hole is added before what follows it is published.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    /// How many there were. Beside the list, so that asking costs one load.
    count: AtomicU64,
    /// The newest [`REMEMBERED`].
    list: Mutex<VecDeque<Hole>>,
}

impl Holes {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The hole of this index, or if that is forgotten, the oldest one remembered; with its index.
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
    fn a_hole_says_from_when_to_when() {
        assert_eq!(
            hole(1).to_string(),
            "nothing was captured from 1970-01-01T00:00:01.000000000Z \
             to 1970-01-01T00:00:02.500000000Z: eth0 went away"
        );
    }

    #[test]
    fn the_newest_are_remembered_and_all_are_counted() {
        let holes = Holes::default();
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
