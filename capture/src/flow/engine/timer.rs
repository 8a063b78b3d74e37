//! When the engine must look at which flow, for any number of flows.
//!
//! Keys lie in buckets by time, so that scheduling a key costs the same with a million others. A
//! single key cannot be removed: when an owner's time has moved on, the owner schedules itself
//! again once it is looked at. Keys of owners that are gone, or that have another key, stay until
//! their time, which may be hours away. A caller with many such keys clears the timers, and
//! schedules again the keys that matter.
//!
//! This module has no clock: callers pass the time.

use std::collections::BTreeMap;

use protocol::time::Timestamp;

/// Nanoseconds of a tick, 64 ms: the width of a bucket.
const TICK: u64 = 64_000_000;

/// Ticks of a bucket of the far future, 1.024 s.
const COARSE: u64 = 16;

/// Ticks from now that have buckets of their own: one minute. After them there are 7,000 coarse
/// buckets, up to the longest timeout of two hours.
const NEAR: u64 = 60_000_000_000 / TICK;

/// Bytes that a bucket takes in the map: its number, its list, and its share of a node two thirds
/// full.
const BUCKET: usize = 48;

/// Keys in the order of their times, to within the width of a bucket.
///
/// A key comes out when its time has come, never before, and at most 64 ms late; at most 1.024 s
/// late if it was scheduled for a time more than a minute after the latest [`Timers::due`].
#[derive(Debug)]
pub(in crate::flow) struct Timers<K> {
    /// By the first tick at which all keys of a bucket are due.
    buckets: BTreeMap<u64, Vec<K>>,
    /// The latest tick that has passed.
    now: u64,
    /// Keys in all buckets, and the number that the buckets have room for.
    len: usize,
    capacity: usize,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { buckets: BTreeMap::new(), now: 0, len: 0, capacity: 0 }
    }
}

impl<K: Copy> Timers<K> {
    /// Timers with nothing scheduled.
    #[must_use]
    pub(in crate::flow) fn new() -> Self {
        Self::default()
    }

    /// Schedules `key` for the time `at`, or for now if that has passed. The same key may be
    /// scheduled several times.
    pub(in crate::flow) fn schedule(&mut self, at: Timestamp, key: K) {
        let mut tick = at.nanoseconds().div_ceil(TICK);
        if tick.saturating_sub(self.now) > NEAR {
            tick = tick.next_multiple_of(COARSE);
        }
        let bucket = self.buckets.entry(tick).or_default();
        self.capacity -= bucket.capacity();
        bucket.push(key);
        self.capacity += bucket.capacity();
        self.len += 1;
    }

    /// Takes the keys whose time has come at `now`, the earliest bucket first.
    ///
    /// `now` may go back; no key is due then. Costs O(1) for each key, O(log n) of the number of
    /// buckets for each bucket, and next to nothing if no key is due.
    #[must_use]
    pub(in crate::flow) fn due(&mut self, now: Timestamp) -> Vec<K> {
        let now = now.nanoseconds() / TICK;
        self.now = self.now.max(now);
        let mut due = Vec::new();
        while let Some(bucket) = self.buckets.first_entry().filter(|bucket| *bucket.key() <= now) {
            let mut keys = bucket.remove();
            self.len -= keys.len();
            self.capacity -= keys.capacity();
            if due.is_empty() {
                due = keys;
            } else {
                due.append(&mut keys);
            }
        }
        due
    }

    #[cfg(test)]
    /// The time at which [`Timers::due`] next returns a key; `None` if nothing is scheduled.
    #[must_use]
    pub(in crate::flow) fn next(&self) -> Option<Timestamp> {
        let (tick, _) = self.buckets.first_key_value()?;
        Some(Timestamp::from_nanoseconds(tick.saturating_mul(TICK)))
    }

    /// Number of scheduled keys.
    #[must_use]
    pub(in crate::flow) const fn len(&self) -> usize {
        self.len
    }

    /// Returns `true` if nothing is scheduled.
    #[must_use]
    pub(in crate::flow) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes all keys.
    pub(in crate::flow) fn clear(&mut self) {
        *self = Self { now: self.now, ..Self::default() };
    }

    /// Bytes of memory on the heap, to within a few per cent.
    #[must_use]
    pub(in crate::flow) fn memory(&self) -> usize {
        self.buckets.len() * BUCKET + self.capacity * size_of::<K>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanoseconds: u64) -> Timestamp {
        Timestamp::from_nanoseconds(nanoseconds)
    }

    #[test]
    fn the_past_is_due_at_once_and_the_end_of_time_never() {
        let mut timers = Timers::new();
        assert_eq!((timers.next(), timers.due(at(u64::MAX / 2))), (None, vec![]));
        timers.schedule(at(u64::MAX), 1_u8);
        timers.schedule(at(5), 2);
        assert_eq!(timers.due(at(3 * TICK)), [2]);
        assert!(timers.due(at(u64::MAX)).is_empty());
        assert_eq!((timers.len(), timers.next()), (1, Some(at(u64::MAX))));
    }

    #[test]
    fn a_million_flows_need_few_buckets() {
        let mut timers = Timers::new();
        let start = 1_700_000_000 * SECOND;
        assert!(timers.due(at(start)).is_empty());
        for key in 0..1_000_000_u64 {
            timers.schedule(at(start + key * 7_301_009), (1_u32, 2_u32));
        }
        assert!(timers.buckets.len() < 8_200, "{}", timers.buckets.len());
        assert!(timers.memory() < 17_000_000, "{}", timers.memory());
        assert_eq!(timers.due(at(start + 7_400 * SECOND)).len(), 1_000_000);
        assert_eq!((timers.memory(), timers.capacity, timers.is_empty()), (0, 0, true));
    }

    #[derive(Clone, Debug)]
    enum Operation {
        /// Nanoseconds from now.
        Schedule(i64),
        Pass(u64),
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let one = prop_oneof![
            (-3_000_000_000..8_000_000_000_000_i64).prop_map(Operation::Schedule),
            (0..200_000_000_i64).prop_map(Operation::Schedule),
            (0..100_000_000_u64).prop_map(Operation::Pass),
            (0..400 * SECOND).prop_map(Operation::Pass),
        ];
        prop::collection::vec(one, 1..300)
    }

    proptest! {
        #[test]
        fn never_early_and_hardly_late(operations in operations()) {
            let mut timers = Timers::new();
            let mut now = 1_700_000_000 * SECOND;
            let _ = timers.due(at(now));
            // By key: the earliest and the latest time at which it may come out.
            let mut waiting = BTreeMap::new();
            for (key, operation) in operations.into_iter().enumerate() {
                match operation {
                    Operation::Schedule(from_now) => {
                        let when = now.saturating_add_signed(from_now);
                        let is_near = from_now <= 60_000_000_000;
                        let late = if is_near { TICK } else { COARSE * TICK };
                        waiting.insert(key, (when, when.max(now) + late));
                        timers.schedule(at(when), key);
                    }
                    Operation::Pass(time) => now += time,
                }
                let next = timers.next();
                let due = timers.due(at(now));
                prop_assert_eq!(next.is_some_and(|next| next <= at(now)), !due.is_empty());
                for key in due {
                    let (when, _) = waiting.remove(&key).expect("once each");
                    prop_assert!(when <= now);
                }
                prop_assert!(waiting.values().all(|(_, latest)| now < *latest));
                prop_assert_eq!(timers.len(), waiting.len());
            }
        }
    }
}
