//! The counters of a capture, all of one moment, so that they add up.

use crate::store::Store;

/// Numbers of packets of a capture, at one moment.
///
/// `seen = stored + excluded + dropped_kernel + dropped_oversize + lost_remote` and `stored =
/// retained + overwritten`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PacketCounters {
    /// Packets that passed the filter.
    pub seen: u64,
    /// Packets that were put into the store.
    pub stored: u64,
    /// Packets of our own transport ([`own_transport`](crate::own_transport)), which are not put
    /// into the store.
    pub excluded: u64,
    /// Packets dropped because the kernel's buffer was full.
    pub dropped_kernel: u64,
    /// Packets dropped by the interface or its driver before the kernel saw them; not part of
    /// `seen`.
    pub dropped_interface: u64,
    /// Packets longer than a segment.
    pub dropped_oversize: u64,
    /// Packets of another machine's capture that were gone before they could be fetched.
    pub lost_remote: u64,
    /// Packets still in the store.
    pub retained: u64,
    /// Packets no longer in the store, overwritten or cleared.
    pub overwritten: u64,
}

/// Bytes of a capture, record headers included, at the same moment as [`PacketCounters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ByteCounters {
    /// Bytes that were put into the store.
    pub stored: u64,
    /// Bytes still in the store.
    pub retained: u64,
}

/// Counters of a store at one moment.
pub fn counters(store: &dyn Store) -> (PacketCounters, ByteCounters) {
    let losses = store.losses();
    let excluded = store.excluded();
    let bounds = store.bounds();
    let stored = bounds.next.number.saturating_sub(1);
    let overwritten = bounds.oldest.number.saturating_sub(1);
    let packets = PacketCounters {
        seen: [excluded, losses.kernel, losses.oversize, losses.remote]
            .into_iter()
            .fold(stored, u64::saturating_add),
        stored,
        excluded,
        dropped_kernel: losses.kernel,
        dropped_interface: losses.interface,
        dropped_oversize: losses.oversize,
        lost_remote: losses.remote,
        retained: stored.saturating_sub(overwritten),
        overwritten,
    };
    let stored = bounds.next.pcap.saturating_add(bounds.foreign_bytes);
    let bytes = ByteCounters { stored, retained: stored.saturating_sub(bounds.oldest.pcap) };
    (packets, bytes)
}
