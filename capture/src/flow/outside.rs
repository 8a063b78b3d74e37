//! Packets that are in no flow, and why.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::decode::Reason;

/// Why a packet is in no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// It could not be decoded.
    Undecoded(Reason),
    /// It is a fragment, and the first fragment of its datagram is missing.
    Fragment,
    /// It is neither TCP nor UDP.
    Protocol,
    /// It came after the end of its connection.
    Late,
}

/// `flows.undecodable_by` of `status.json`: packets that are in no flow, by reason. The fields are
/// in the order of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Undecodable {
    /// The link type is not known.
    pub link_type: u64,
    /// Not an IP packet.
    pub not_ip: u64,
    /// Cut inside a header when they were captured.
    pub truncated: u64,
    /// A header contradicts itself or the length of the packet.
    pub malformed: u64,
    /// Nested too deep.
    pub too_deep: u64,
    /// Fragments that fit no datagram.
    pub bad_fragment: u64,
    /// Fragments without ports: the first fragment of their datagram, which has them, is missing,
    /// or came after later packets of its flow had been listed. A fragment that is placed later is
    /// no longer counted.
    pub fragment: u64,
    /// IP, but neither TCP nor UDP.
    pub protocol: u64,
    /// Segments that came after the end of their connection.
    pub late: u64,
}

impl Undecodable {
    /// The sum of all.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { link_type, not_ip, truncated, malformed, too_deep, .. } = *self;
        let Self { bad_fragment, fragment, protocol, late, .. } = *self;
        [link_type, not_ip, truncated, malformed, too_deep, bad_fragment, fragment, protocol, late]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// The same counters while they are counted, by one thread.
#[derive(Debug, Default)]
pub(super) struct OutsideCounts {
    undecoded: [AtomicU64; Reason::ALL.len()],
    fragment: AtomicU64,
    protocol: AtomicU64,
    late: AtomicU64,
}

impl OutsideCounts {
    pub(super) fn add(&self, why: Outside, count: u64) {
        if let Some(counter) = self.counter(why) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Subtracts packets that are in flows after all.
    pub(super) fn remove(&self, why: Outside, count: u64) {
        if let Some(counter) = self.counter(why) {
            // No other thread changes it.
            let left = counter.load(Ordering::Relaxed).saturating_sub(count);
            counter.store(left, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> Undecodable {
        let load = |why| self.counter(why).map_or(0, |counter| counter.load(Ordering::Relaxed));
        let undecoded = |reason| load(Outside::Undecoded(reason));
        Undecodable {
            link_type: undecoded(Reason::LinkType),
            not_ip: undecoded(Reason::NotIp),
            truncated: undecoded(Reason::Truncated),
            malformed: undecoded(Reason::Malformed),
            too_deep: undecoded(Reason::TooDeep),
            bad_fragment: undecoded(Reason::BadFragment),
            fragment: load(Outside::Fragment),
            protocol: load(Outside::Protocol),
            late: load(Outside::Late),
        }
    }

    fn counter(&self, why: Outside) -> Option<&AtomicU64> {
        match why {
            Outside::Undecoded(reason) => self.undecoded.get(reason as usize),
            Outside::Fragment => Some(&self.fragment),
            Outside::Protocol => Some(&self.protocol),
            Outside::Late => Some(&self.late),
        }
    }
}
