//! How packets are grouped into flows, and the limits on what flows take.

use protocol::tcp::{Policy, Urgent};

use super::file::Log;
use super::memory;

/// Limits on everything that strangers can make grow, per capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Maximum number of flows in the tree. Above it, the flows that have been silent for longest
    /// leave.
    pub flows: usize,
    /// Maximum number of flows under way at a time. Above it, the flows that have been silent for
    /// longest end as `evicted`, but stay readable.
    pub open: usize,
    /// Maximum bytes of memory for flows, logs, and the structures that find packets. Above it, the
    /// flows that have been silent for longest leave.
    pub memory: usize,
    /// Maximum bytes of this memory for each log. Above it, its oldest lines go.
    pub log: usize,
}

impl Default for FlowLimits {
    /// An eighth of the memory that this process can have, which is the machine's or its control
    /// group's. A flow takes at least 300 bytes, and one or two kilobytes while it is under way. A
    /// busy host without connection tracking sees two million flows in an hour; more than a million
    /// at a time is a flood.
    fn default() -> Self {
        let memory = usize::try_from(memory::all() / 8).unwrap_or(usize::MAX);
        let memory = memory.clamp(LEAST_MEMORY, MOST_MEMORY);
        Self { flows: 1 << 21, open: 1 << 20, memory, log: Self::for_each_log(memory) }
    }
}

impl FlowLimits {
    /// The part of the memory for flows that each log may take: all logs together have half of it.
    #[must_use]
    pub const fn for_each_log(memory: usize) -> usize {
        memory / 2 / Log::COUNT
    }

    /// Maximum bytes of decoded bodies, `http.har` and `meta.json` that may be open at a time: as
    /// much as flows have, and at least enough for a few of the largest bodies.
    pub(super) fn room(&self) -> u64 {
        (self.memory as u64).max(LEAST_ROOM.min(memory::all() / 4))
    }
}

/// Four bodies of 64 MiB, the size at which decoding ends.
const LEAST_ROOM: u64 = 256 << 20;

/// Minimum and maximum bytes of memory for flows by default. The maximum also counts where the
/// amount of memory is not known.
const LEAST_MEMORY: usize = 4 << 20;
const MOST_MEMORY: usize = 1 << 40;

/// How packets are grouped into flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowOptions {
    /// Limits on what flows take.
    pub limits: FlowLimits,
    /// Do not look into tunnels: the outermost packet is the packet.
    pub outer: bool,
    /// Whether packets with different VLAN ids may be of the same flow, since the two directions
    /// may have different ids. If not, the same addresses in two VLANs are two flows.
    pub any_vlan: bool,
    /// The copy of a byte that counts when segments overlap.
    pub policy: Policy,
    /// Whether urgent data is in the streams.
    pub urgent: Urgent,
}
