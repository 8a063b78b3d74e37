//! How flows are made of packets, and the bounds on what they take.

use protocol::tcp::{Policy, Urgent};

use super::memory;

/// Bounds on what strangers can make grow, per capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows in the tree. Beyond, those leave of which nothing was heard for longest.
    pub flows: usize,
    /// Flows that are under way at a time. Beyond, the oldest end as `evicted`, but stay readable.
    pub open: usize,
    /// Bytes of memory for flows, logs, and what finds packets. Beyond, flows leave of which
    /// nothing was heard for longest.
    pub memory: usize,
    /// Bytes of memory, of these, for each of the two logs. Beyond, their oldest lines go.
    pub log: usize,
}

impl Default for Limits {
    /// An eighth of the memory that this process can have, the machine's or its control group's. A
    /// flow takes 300 bytes at least, and one kilobyte or two while it is under way. Two million
    /// flows are what a busy host without connection tracking sees in an hour; more than a million
    /// at a time is a flood.
    fn default() -> Self {
        let memory = usize::try_from(memory::all() / 8).unwrap_or(usize::MAX);
        let memory = memory.clamp(LEAST_MEMORY, MOST_MEMORY);
        Self { flows: 1 << 21, open: 1 << 20, memory, log: memory / 4 }
    }
}

impl Limits {
    /// Bytes of decoded bodies, `http.har` and `meta.json` that may be open at a time: as much again
    /// as flows have, and room for a few of the largest there are.
    pub(super) fn room(&self) -> u64 {
        (self.memory as u64).max(LEAST_ROOM.min(memory::all() / 4))
    }
}

/// Four bodies of the 64 MiB at which decoding ends.
const LEAST_ROOM: u64 = 256 << 20;

/// Bytes of memory for flows if nothing else is said, at least, and where it is not known how much
/// there is.
const LEAST_MEMORY: usize = 4 << 20;
const MOST_MEMORY: usize = 1 << 40;

/// How flows are made of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// Do not look into tunnels: the outer packet is the packet.
    pub outer: bool,
    /// Packets with other VLAN ids may be of the same flow: the two directions may have different
    /// ones. If not, the same addresses in two VLANs are two flows.
    pub any_vlan: bool,
    /// Which copy of a byte counts where segments overlap.
    pub policy: Policy,
    /// Whether urgent data is in the streams.
    pub urgent: Urgent,
}
