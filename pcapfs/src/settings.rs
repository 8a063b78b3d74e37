//! Default settings of captures.

use std::ops::RangeInclusive;
use std::path::Path;

use capture::flow;
use capture::injection::InjectSpeed;
use capture::pipeline::{
    LARGEST_KERNEL_BUFFER, SMALLEST_KERNEL_BUFFER, Spec, default_kernel_buffer,
};
use capture::ring::Permissions;
use capture::source::{InterfaceBackend, SourceName, Workers};
use nix::unistd::{getegid, geteuid};
use protocol::time::Precision;

use crate::fs::group_id;

/// Group that may read captures, if it exists.
const GROUP: &str = "pcapfs";

/// Default permissions of a capture's directory.
const MODE: u32 = 0o750;

/// Default permissions of the root of the tree.
const ROOT_MODE: u32 = 0o755;

/// The minimum memory for flows: with less, only a few connections at a time would fit.
pub(crate) const LEAST_FLOW_MEMORY: u64 = 1 << 20;

/// Limits of flows, in the proportions of the defaults.
pub(crate) fn flow_limits(flows: usize, memory: usize) -> flow::FlowLimits {
    let open = flow::FlowLimits::default().open.min(flows);
    flow::FlowLimits { flows, open, memory, log: flow::FlowLimits::for_each_log(memory) }
}

/// How a capture is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaptureSettings {
    pub(crate) snaplen: u32,
    pub(crate) promiscuous: bool,
    pub(crate) precision: Precision,
    /// Bytes; `None` for [`DEFAULT_RING`], or less where there is no room for it.
    pub(crate) ring: Option<u64>,
    /// Bytes; `None` for a share of [`ALL_KERNEL_BUFFERS`].
    pub(crate) kernel_buffer: Option<u64>,
    /// How packets of interfaces are received.
    pub(crate) backend: InterfaceBackend,
    /// The threads that take the packets of one interface.
    pub(crate) workers: Workers,
    /// How fast the gaps between injected frames pass.
    pub(crate) inject_speed: InjectSpeed,
    /// Serve the decryption secrets of pcapng sources.
    pub(crate) export_keys: bool,
    pub(crate) flows: flow::FlowOptions,
    pub(crate) permissions: Permissions,
}

/// Bytes of kernel buffer for all captures together that do not set their own size: sixteen of the
/// largest.
pub(crate) const ALL_KERNEL_BUFFERS: u64 = 16 * LARGEST_KERNEL_BUFFER;

/// The valid range of `--kernel-buffer`, in bytes: at least two blocks, and less than an `int`
/// holds.
pub(crate) const KERNEL_BUFFERS: RangeInclusive<u64> = 512 << 10..=2047 << 20;

/// Bytes of kernel buffer for each of `captures` that are made together, with a ring of `ring`
/// bytes, beside others that already have `held` bytes. The first captures may have all of the
/// common buffer, later ones half of the rest.
pub(crate) fn kernel_buffer(ring: u64, captures: usize, held: u64) -> u64 {
    let left = ALL_KERNEL_BUFFERS.saturating_sub(held) / if held == 0 { 1 } else { 2 };
    let share = left / u64::try_from(captures.max(1)).unwrap_or(u64::MAX);
    default_kernel_buffer(ring).min(share.max(SMALLEST_KERNEL_BUFFER))
}

/// The default bytes of a ring.
pub(crate) const DEFAULT_RING: u64 = 64 << 20;

impl Default for CaptureSettings {
    /// The settings without any option.
    fn default() -> Self {
        Self {
            snaplen: capture::pipeline::DEFAULT_SNAPLEN,
            promiscuous: true,
            precision: Precision::Nano,
            ring: None,
            kernel_buffer: None,
            backend: InterfaceBackend::default(),
            workers: Workers::ONE,
            inject_speed: InjectSpeed::default(),
            export_keys: true,
            flows: flow::FlowOptions::default(),
            permissions: default_permissions(),
        }
    }
}

impl CaptureSettings {
    /// Bytes of a ring, where there is room for it.
    pub(crate) fn ring_size(&self) -> u64 {
        self.ring.unwrap_or(DEFAULT_RING)
    }

    /// The specification of a capture of a source; ring files go to `ring_dir`.
    pub(crate) fn spec(
        &self,
        alias: &str,
        source: SourceName,
        filter: Option<&str>,
        ring_dir: &Path,
    ) -> Spec {
        Spec {
            alias: alias.to_owned(),
            source,
            filter: filter.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned),
            snaplen: self.snaplen,
            promiscuous: self.promiscuous,
            precision: self.precision,
            ring_size: self.ring_size(),
            is_default_ring: self.ring.is_none(),
            ring_dir: ring_dir.to_owned(),
            kernel_buffer: self.kernel_buffer,
            backend: self.backend,
            workers: self.workers,
            inject_speed: self.inject_speed,
            export_keys: self.export_keys,
            flows: self.flows,
        }
    }
}

/// The permissions a capture starts with: `root:pcapfs 0750`, or the invoking user's own.
pub(crate) fn default_permissions() -> Permissions {
    let gid = if geteuid().is_root() { group_id(GROUP) } else { None };
    Permissions {
        uid: geteuid().as_raw(),
        gid: gid.unwrap_or_else(|| getegid().as_raw()),
        mode: MODE,
    }
}

/// The initial permissions of the root of the tree: everyone may list and search it.
pub(crate) fn root_permissions() -> Permissions {
    Permissions { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: ROOT_MODE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_buffers_go_by_ring_and_number() {
        for (ring, captures, held, wanted) in [
            (64 << 20, 1, 0, 22 << 20),
            (64 << 20, 16, 0, 22 << 20),
            (8 << 20, 1, 0, 4 << 20),
            (512 << 10, 100, 0, 1 << 20),
            (1 << 30, 1, 352 << 20, 1 << 20),
            (1 << 30, 2, 22 << 20, 22 << 20),
        ] {
            assert_eq!(kernel_buffer(ring, captures, held), wanted, "{ring} {captures} {held}");
        }
        for captures in [17, 100, 352] {
            let all = kernel_buffer(64 << 20, captures, 0) * captures as u64;
            assert!(all <= ALL_KERNEL_BUFFERS && all > ALL_KERNEL_BUFFERS - (1 << 20), "{all}");
        }
        // One after the other, as `init` does.
        let mut held = 0;
        for _ in 0..100 {
            held += kernel_buffer(64 << 20, 1, held);
        }
        assert!(held <= ALL_KERNEL_BUFFERS + (100 << 20), "{held}");
    }
}
