//! Decides which segments may be overwritten: the protocol between replying threads and the writer.
//!
//! A thread *pins* a segment for the time of one reply. The writer *retires* the oldest segment,
//! and later *assigns* a retired, unpinned segment to a new sequence number. Neither ever waits for
//! a lock. The argument is nearly the same as for hazard pointers:
//!
//! * a reader adds its pin, then checks that the slot still belongs to the sequence it wants;
//! * the writer takes the slot from its sequence, then checks whether it is pinned.
//!
//! Both change the count of pins with a read-modify-write, and all these operations have one order.
//! If the reader's comes first, the writer finds the pin and leaves the slot alone. If the writer's
//! comes first, the reader's synchronises with it, so the reader finds the slot retired and gives
//! up. By the same order, everything a reader did before it released its pin happens before the
//! writer overwrites the segment. The loom test below walks the interleavings.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Owner of a slot without a sequence; sequence numbers count from 1.
const NOBODY: u64 = 0;

#[derive(Debug)]
struct PinSlot {
    owner: AtomicU64,
    pins: AtomicU32,
}

/// The state of every slot of a ring.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[PinSlot]>,
    /// Pins in all slots; never above `limit`, except for the moment in which a pin is refused.
    outstanding: AtomicU32,
    limit: u32,
}

/// The result of an attempt to pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The slot is not overwritten until [`Slots::unpin`].
    Pinned,
    /// The slot belongs to another sequence by now, or to none.
    Gone,
    /// Others hold as many pins as there are spares; try again in a moment.
    Busy,
}

impl Slots {
    /// `count` slots without a sequence, with a maximum of `limit` pins at one time.
    pub(super) fn new(count: u32, limit: u32) -> Self {
        let slot = |_| PinSlot { owner: AtomicU64::new(NOBODY), pins: AtomicU32::new(0) };
        Self { slots: (0..count).map(slot).collect(), outstanding: AtomicU32::new(0), limit }
    }

    fn slot(&self, slot: u32) -> &PinSlot {
        #[expect(clippy::indexing_slicing, reason = "slot numbers come from this ring only")]
        &self.slots[slot as usize]
    }

    /// Reader: keeps `slot` if it still holds `sequence`.
    pub(super) fn pin(&self, slot: u32, sequence: u64) -> Attempt {
        if sequence == NOBODY {
            // It would match a slot without a sequence.
            return Attempt::Gone;
        }
        if self.outstanding.fetch_add(1, Ordering::AcqRel) >= self.limit {
            self.outstanding.fetch_sub(1, Ordering::AcqRel);
            return Attempt::Busy;
        }
        let state = self.slot(slot);
        // Acquire: if the writer has checked the pins before, the load below sees its retirement.
        state.pins.fetch_add(1, Ordering::AcqRel);
        // Acquire: pairs with `assign`, so that the reader sees the segment as it was prepared.
        if state.owner.load(Ordering::Acquire) == sequence {
            Attempt::Pinned
        } else {
            self.unpin(slot);
            Attempt::Gone
        }
    }

    /// Reader: releases one of its pins.
    pub(super) fn unpin(&self, slot: u32) {
        // Release: everything the reader did with the segment comes before this.
        self.slot(slot).pins.fetch_sub(1, Ordering::AcqRel);
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }

    /// Writer: from now on no reader can pin `slot`.
    pub(super) fn retire(&self, slot: u32) {
        self.slot(slot).owner.store(NOBODY, Ordering::Release);
    }

    /// Writer: returns true if a retired slot may be overwritten.
    pub(super) fn is_free(&self, slot: u32) -> bool {
        // It adds nothing, but as a read-modify-write it has its place in the order of the readers'
        // operations. A plain load could miss a pin whose reader has missed the retirement.
        self.slot(slot).pins.fetch_add(0, Ordering::AcqRel) == 0
    }

    /// Writer: assigns `slot`, which is free and has been prepared, to `sequence`.
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
        // All interleavings with at most three preemptions. Every protocol error known needs at
        // most two, and without a limit three threads take hours.
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
