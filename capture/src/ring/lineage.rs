//! The identity of a ring's packet numbers, and the place of a ring that follows another one.
//!
//! A reader on another machine remembers the next number that it wants, for days and across
//! restarts of both sides. So a ring has an identity of its own, and an *epoch* within it. Numbers
//! of one epoch are never given twice. A machine that loses its power may lose the last packets of
//! a ring on its disk, and the ring then gives their numbers to other packets: that begins an
//! epoch, and the first numbers of the last epochs are kept.
//!
//! A ring that is filled from another ring keeps its place there, the *far place*. It is stored
//! before the packets up to that place are committed, in one of two slots. So whatever kills the
//! process, one slot belongs to exactly the packets that are in the ring.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::layout::RingHeader;
use crate::random::random;
use crate::store::{StoreIdentity, StorePlace};

/// Number of epochs whose first numbers are kept. A reader that was away for more of them is
/// treated as if it had read the packets up to the oldest one kept.
const EPOCHS: usize = 8;

/// The part of the ring's header page for all this.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct LineageHeader {
    /// 0 in a file that is older than this field.
    identity: AtomicU64,
    /// From 1.
    epoch: AtomicU64,
    /// A digest of the boot id of the machine (random(4)) that filled the ring last.
    boot: AtomicU64,
    /// The first number of each of the last epochs, at its number modulo [`EPOCHS`].
    starts: [AtomicU64; EPOCHS],
    far: [FarSlot; 2],
}

/// A far place, together with the local packets that it belongs to.
#[repr(C)]
#[derive(Debug, Default)]
struct FarSlot {
    /// Rises with each place that is stored; 0 while the slot is being written.
    order: AtomicU64,
    /// Number of the next packet of this ring.
    local: AtomicU64,
    identity: AtomicU64,
    epoch: AtomicU64,
    next: AtomicU64,
    lost: AtomicU64,
}

/// The place of a ring in the ring that it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FarPlace {
    /// The next packet wanted.
    pub place: StorePlace,
    /// Packets that were gone before they could be fetched, since this ring was made.
    pub lost: u64,
}

impl LineageHeader {
    /// Gives a new ring its identity.
    pub(super) fn begin(&self, first: u64) {
        // 0 means that there is none.
        self.identity.store(random().max(1), Ordering::Relaxed);
        self.boot.store(boot(), Ordering::Relaxed);
        self.epoch.store(0, Ordering::Relaxed);
        self.begin_epoch(first);
    }

    /// Goes on with a ring that an earlier process has left, and whose next packet is `next`.
    /// `damaged` says whether packets may be lost.
    pub(super) fn resume(&self, next: u64, damaged: bool) {
        if self.identity.load(Ordering::Relaxed) == 0 {
            return self.begin(next);
        }
        let boot = boot();
        let last = self.boot.swap(boot, Ordering::Relaxed);
        if damaged || boot == 0 || last != boot {
            self.begin_epoch(next);
        }
    }

    fn begin_epoch(&self, first: u64) {
        let epoch = self.epoch.load(Ordering::Relaxed).saturating_add(1);
        if let Some(start) = self.start(epoch) {
            start.store(first, Ordering::Relaxed);
        }
        self.epoch.store(epoch, Ordering::Release);
    }

    fn start(&self, epoch: u64) -> Option<&AtomicU64> {
        self.starts.get(usize::try_from(epoch).ok()? % EPOCHS)
    }

    /// The identity of the numbers that the ring gives now.
    pub(super) fn identity(&self) -> StoreIdentity {
        let epoch = self.epoch.load(Ordering::Acquire);
        StoreIdentity { store: self.identity.load(Ordering::Relaxed), epoch }
    }

    /// The number at which a reader goes on that was at `place`; `None` if that is a place in
    /// another ring.
    pub(super) fn continued(&self, place: StorePlace) -> Option<u64> {
        let own = self.identity();
        if place.identity.store != own.store || place.identity.epoch > own.epoch {
            return None;
        }
        let oldest = own.epoch.saturating_sub(EPOCHS as u64 - 1).max(place.identity.epoch + 1);
        let starts = (oldest..=own.epoch).filter_map(|epoch| self.start(epoch));
        let starts = starts.map(|start| start.load(Ordering::Relaxed));
        Some(starts.fold(place.next, u64::min))
    }

    /// Takes over the identity of a ring whose packets were moved here with their numbers.
    pub(super) fn inherit(&self, from: &Self) {
        let pairs = [(&self.identity, &from.identity), (&self.boot, &from.boot)];
        let starts = self.starts.iter().zip(&from.starts);
        for (into, from) in pairs.into_iter().chain(starts) {
            into.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.epoch.store(from.epoch.load(Ordering::Relaxed), Ordering::Release);
    }

    /// Stores the far place that belongs to the packets before number `local`. Call it before these
    /// packets are committed.
    pub(super) fn set_far(&self, local: u64, far: FarPlace) {
        let order = self.far.iter().map(|slot| slot.order.load(Ordering::Relaxed)).max();
        let order = order.unwrap_or(0).saturating_add(1);
        let Some(slot) = self.far.get(usize::from(order % 2 == 1)) else { return };
        slot.order.store(0, Ordering::Relaxed);
        // The slot is void before any field changes, and valid after all have.
        fence(Ordering::Release);
        slot.local.store(local, Ordering::Relaxed);
        slot.identity.store(far.place.identity.store, Ordering::Relaxed);
        slot.epoch.store(far.place.identity.epoch, Ordering::Relaxed);
        slot.next.store(far.place.next, Ordering::Relaxed);
        slot.lost.store(far.lost, Ordering::Relaxed);
        slot.order.store(order, Ordering::Release);
    }

    /// The far place that belongs to the packets before number `local`, which are in the ring;
    /// `None` if the ring follows no other.
    ///
    /// If the machine has lost packets of this ring, no slot belongs to the rest. They do not come
    /// again: packets after the newest place may be in the ring already, and the missing ones count
    /// as lost.
    pub(super) fn far(&self, local: u64) -> Option<FarPlace> {
        let slots = self.far.iter().filter(|slot| slot.order.load(Ordering::Acquire) != 0);
        let newest = slots.max_by_key(|slot| {
            let is_exact = slot.local.load(Ordering::Relaxed) == local;
            (is_exact, slot.order.load(Ordering::Relaxed))
        })?;
        let missing = newest.local.load(Ordering::Relaxed).saturating_sub(local);
        let identity = StoreIdentity {
            store: newest.identity.load(Ordering::Relaxed),
            epoch: newest.epoch.load(Ordering::Relaxed),
        };
        let place = StorePlace { identity, next: newest.next.load(Ordering::Relaxed) };
        Some(FarPlace { place, lost: newest.lost.load(Ordering::Relaxed).saturating_add(missing) })
    }
}

impl RingHeader {
    /// Takes over the identity, and the far place, of a ring whose packets were moved here.
    /// `next` are the numbers of the next packet, there and here: if they differ, packets did not
    /// fit, numbers have changed, and this is another ring.
    pub(super) fn inherit_lineage(&self, from: &Self, next: (u64, u64)) {
        let (old, new) = next;
        if old == new {
            self.lineage.inherit(&from.lineage);
        }
        if let Some(far) = from.lineage.far(old) {
            self.lineage.set_far(new, far);
        }
    }
}

/// A digest of the boot id; 0 if the system does not say.
fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(header: &LineageHeader, next: u64) -> StorePlace {
        StorePlace { identity: header.identity(), next }
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let header = LineageHeader::default();
        header.begin(1);
        let before = place(&header, 50);
        header.resume(40, false);
        assert_eq!(header.continued(before), Some(50), "the same boot loses nothing");
        let other = LineageHeader::default();
        other.begin(1);
        assert_eq!(other.continued(before), None);
    }

    #[test]
    fn numbers_that_are_given_again_are_read_again() {
        let header = LineageHeader::default();
        header.begin(1);
        let before = place(&header, 50);
        header.boot.store(7, Ordering::Relaxed);
        header.resume(40, false);
        assert_eq!(header.continued(before), Some(40), "40 to 49 are other packets now");
        assert_eq!(header.continued(place(&header, 50)), Some(50));
        header.resume(90, true);
        assert_eq!(header.continued(before), Some(40));
        let later =
            StorePlace { identity: StoreIdentity { epoch: 99, ..before.identity }, next: 1 };
        assert_eq!(header.continued(later), None);
        for start in 100..120 {
            header.resume(start, true);
        }
        assert_eq!(header.continued(before), Some(50), "too long ago to know better");
        assert_eq!(header.continued(StorePlace { next: 200, ..before }), Some(112));
    }

    #[test]
    fn the_far_place_is_that_of_the_committed_packets() {
        let header = LineageHeader::default();
        assert_eq!(header.far(1), None);
        let identity = StoreIdentity { store: 9, epoch: 2 };
        let far = |next, lost| FarPlace { place: StorePlace { identity, next }, lost };
        header.set_far(11, far(100, 0));
        assert_eq!(header.far(11), Some(far(100, 0)));
        // Killed after the place was stored, and before the packets were.
        header.set_far(21, far(130, 20));
        assert_eq!(header.far(11), Some(far(100, 0)));
        assert_eq!(header.far(21), Some(far(130, 20)));
        // Packets that were all left out.
        header.set_far(21, far(140, 20));
        assert_eq!(header.far(21), Some(far(140, 20)));
        // Killed while the next place was being stored.
        header.set_far(31, far(150, 20));
        header.far[0].order.store(0, Ordering::Relaxed);
        header.far[1].order.store(0, Ordering::Relaxed);
        assert_eq!(header.far(31), None);
        header.set_far(31, far(150, 20));
        assert_eq!(header.far(26), Some(far(150, 25)), "5 packets are missing here");
    }
}
