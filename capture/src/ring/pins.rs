//! Which segments may be overwritten: the protocol between replying threads and the writer.
//!
//! A thread *pins* a segment for the time of one reply; the writer *retires* the oldest segment
//! and later *assigns* a retired, unpinned one to a new sequence number. Neither ever waits for a
//! lock. It is nearly the same argument as for hazard pointers:
//!
//! * a reader adds its pin, then looks whether the slot still belongs to the sequence it wants;
//! * the writer takes the slot from its sequence, then looks whether it is pinned.
//!
//! Both touch the count of pins with a read-modify-write, and these have one order. If the
//! reader's comes first, the writer finds the pin and leaves the slot alone. If the writer's comes
//! first, the reader's synchronises with it, and so finds the slot retired and goes away. The same
//! order makes what a reader did before it gave up its pin happen before the writer overwrites it.
//! The loom test below walks the interleavings.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Owner of a slot that belongs to nobody; sequence numbers count from 1.
const NOBODY: u64 = 0;

#[derive(Debug)]
struct Slot {
    owner: AtomicU64,
    pins: AtomicU32,
}

/// The state of every slot of a ring.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    /// Pins in all slots; never above `limit` but for the moment in which one is refused.
    outstanding: AtomicU32,
    limit: u32,
}

/// What became of an attempt to pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The slot stays as it is until [`Slots::unpin`].
    Pinned,
    /// The slot belongs to another sequence by now, or to none.
    Gone,
    /// As many pins as there are spares are held by others; try again in a moment.
    Busy,
}

impl Slots {
    /// `count` slots that belong to nobody; at most `limit` pins at one time.
    pub(super) fn new(count: u32, limit: u32) -> Self {
        let slot = |_| Slot { owner: AtomicU64::new(NOBODY), pins: AtomicU32::new(0) };
        Self { slots: (0..count).map(slot).collect(), outstanding: AtomicU32::new(0), limit }
    }

    fn slot(&self, slot: u32) -> &Slot {
        #[expect(clippy::indexing_slicing, reason = "slot numbers come from this ring only")]
        &self.slots[slot as usize]
    }

    /// Reader: keeps `slot` if it still holds `sequence`.
    pub(super) fn pin(&self, slot: u32, sequence: u64) -> Attempt {
        if sequence == NOBODY {
            // Would match a slot that belongs to nobody.
            return Attempt::Gone;
        }
        if self.outstanding.fetch_add(1, Ordering::AcqRel) >= self.limit {
            self.outstanding.fetch_sub(1, Ordering::AcqRel);
            return Attempt::Busy;
        }
        let state = self.slot(slot);
        // Acquire: what the writer retired before it looked is seen by the load below.
        state.pins.fetch_add(1, Ordering::AcqRel);
        // Acquire: pairs with assign, the segment is seen as it was made ready.
        if state.owner.load(Ordering::Acquire) == sequence {
            Attempt::Pinned
        } else {
            self.unpin(slot);
            Attempt::Gone
        }
    }

    /// Reader: gives up a pin it has.
    pub(super) fn unpin(&self, slot: u32) {
        // Release: what the reader did with the segment comes before.
        self.slot(slot).pins.fetch_sub(1, Ordering::AcqRel);
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }

    /// Writer: from now on no reader can pin `slot`.
    pub(super) fn retire(&self, slot: u32) {
        self.slot(slot).owner.store(NOBODY, Ordering::Release);
    }

    /// Writer: whether a retired slot may be overwritten.
    pub(super) fn is_free(&self, slot: u32) -> bool {
        // Adds nothing, but as a read-modify-write has its place among those of the readers: a
        // plain load could miss a pin whose reader has missed the retirement.
        self.slot(slot).pins.fetch_add(0, Ordering::AcqRel) == 0
    }

    /// Writer: `slot`, which is free and has been made ready, holds `sequence`.
    pub(super) fn assign(&self, slot: u32, sequence: u64) {
        self.slot(slot).owner.store(sequence, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// A segment whose content is its sequence number; loom reports any access that overlaps
    /// a write.
    struct Body(UnsafeCell<u64>);
    // SAFETY: that all access is ordered by Slots is what the test proves.
    #[expect(unsafe_code, reason = "the cell under test")]
    unsafe impl Sync for Body {}

    #[test]
    fn a_pinned_segment_is_never_overwritten() {
        // All interleavings with at most three preemptions: every protocol error known needs two
        // at most, and without a bound three threads take hours.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let slots = Arc::new(Slots::new(1, 2));
            let body = Arc::new(Body(UnsafeCell::new(1)));
            slots.assign(0, 1);
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let (slots, body) = (Arc::clone(&slots), Arc::clone(&body));
                    thread::spawn(move || {
                        for sequence in 1..=2 {
                            if slots.pin(0, sequence) == Attempt::Pinned {
                                #[expect(unsafe_code, reason = "the cell under test")]
                                // SAFETY: pinned.
                                body.0.with(|value| assert_eq!(unsafe { *value }, sequence));
                                slots.unpin(0);
                            }
                        }
                    })
                })
                .collect();
            slots.retire(0);
            if slots.is_free(0) {
                #[expect(unsafe_code, reason = "the cell under test")]
                // SAFETY: retired and not pinned.
                body.0.with_mut(|value| unsafe { *value = 2 });
                slots.assign(0, 2);
            }
            for reader in readers {
                reader.join().unwrap();
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pins_are_bounded_and_keep_a_slot_from_being_free() {
        let slots = Slots::new(2, 2);
        slots.assign(0, 1);
        assert_eq!(slots.pin(0, 1), Attempt::Pinned);
        assert_eq!(slots.pin(0, 2), Attempt::Gone);
        assert_eq!(slots.pin(0, 1), Attempt::Pinned);
        assert_eq!(slots.pin(0, 1), Attempt::Busy);
        slots.retire(0);
        assert!(!slots.is_free(0));
        slots.unpin(0);
        assert_eq!(slots.pin(0, 1), Attempt::Gone, "retired");
        slots.unpin(0);
        assert!(slots.is_free(0));
        assert_eq!(slots.pin(0, NOBODY), Attempt::Gone, "nobody's slot is not a segment");
        assert!(slots.is_free(0));
    }
}
