//! The bounds of a ring, as one consistent set of numbers.
//!
//! A sequence lock: the writer makes the version odd, writes the numbers, and makes the version
//! even. A reader that saw an odd or a changed version reads again. The writer never waits. It
//! publishes once per batch, so a reader hardly ever reads twice. The fields are atomics, so the
//! race only concerns which values belong together, never their validity.

#[cfg(loom)]
use loom::{
    sync::atomic::{AtomicU64, Ordering, fence},
    thread::yield_now,
};
#[cfg(not(loom))]
use std::{
    sync::atomic::{AtomicU64, Ordering, fence},
    thread::yield_now,
};

use crate::store::Position;

/// The bounds of a ring at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) oldest_chunk: u64,
    pub(super) newest_chunk: u64,
    pub(super) oldest: Position,
    pub(super) next: Position,
    /// Nanoseconds since the Unix epoch; 0 before the first packet.
    pub(super) newest_time: u64,
}

const FIELDS: usize = 9;

impl Moment {
    const fn to_words(self) -> [u64; FIELDS] {
        [
            self.oldest_chunk,
            self.newest_chunk,
            self.oldest.number,
            self.oldest.pcap,
            self.oldest.pcapng,
            self.next.number,
            self.next.pcap,
            self.next.pcapng,
            self.newest_time,
        ]
    }

    const fn from_words(words: [u64; FIELDS]) -> Self {
        let [oldest_chunk, newest_chunk, n1, p1, g1, n2, p2, g2, newest_time] = words;
        Self {
            oldest_chunk,
            newest_chunk,
            oldest: Position { number: n1, pcap: p1, pcapng: g1 },
            next: Position { number: n2, pcap: p2, pcapng: g2 },
            newest_time,
        }
    }
}

/// The current [`Moment`], written by one thread and read by any.
#[derive(Debug)]
pub(super) struct Published {
    version: AtomicU64,
    words: [AtomicU64; FIELDS],
}

impl Published {
    pub(super) fn new(moment: Moment) -> Self {
        Self { version: AtomicU64::new(0), words: moment.to_words().map(AtomicU64::new) }
    }

    /// To be called by the writer only, and there is one writer.
    pub(super) fn write(&self, moment: Moment) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // The odd version is visible before any of the new words.
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(moment.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }

    pub(super) fn read(&self) -> Moment {
        loop {
            let before = self.version.load(Ordering::Acquire);
            let words = std::array::from_fn(|index| {
                self.words.get(index).map_or(0, |word| word.load(Ordering::Relaxed))
            });
            // The words are read before the version is read again.
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.version.load(Ordering::Relaxed) {
                return Moment::from_words(words);
            }
            yield_now();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn moment(value: u64) -> Moment {
        Moment::from_words([value; FIELDS])
    }

    #[test]
    fn readers_never_see_half_a_moment() {
        let published = Published::new(moment(0));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let seen = published.read();
                    let value = seen.newest_time;
                    assert_eq!(seen, moment(value));
                    assert!(value >= last, "never goes back");
                    last = value;
                }
            });
            for value in 1..=200_000 {
                published.write(moment(value));
            }
            stop.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
        assert_eq!(published.read(), moment(200_000));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn a_snapshot_is_consistent_or_read_again() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let moment = |value| Moment::from_words([value; FIELDS]);
            let published = Arc::new(Published::new(moment(0)));
            let writer = Arc::clone(&published);
            let thread = thread::spawn(move || {
                writer.write(moment(1));
            });
            let seen = published.read();
            assert_eq!(seen, moment(seen.newest_time));
            thread.join().unwrap();
            assert_eq!(published.read(), moment(1));
        });
    }
}
