//! How a capture is made where nothing else is said about it.

use std::path::Path;

use capture::flow;
use capture::pipeline::Spec;
use capture::ring::Permissions;
use capture::source::SourceName;
use capture::time::Precision;
use nix::unistd::{getegid, geteuid};

use crate::fs::group_id;

/// Group that may read captures if there is one of this name.
const GROUP: &str = "pcapfs";

/// Permissions of a capture's directory if nothing else is said.
const MODE: u32 = 0o750;

/// Permissions of the root of the tree if nothing else is said.
const ROOT_MODE: u32 = 0o755;

/// Least memory for flows: with less, a few connections at a time would be all there is.
pub(crate) const LEAST_FLOW_MEMORY: u64 = 1 << 20;

/// Bounds on flows, in the proportion of the defaults.
pub(crate) fn flow_limits(flows: usize, memory: usize) -> flow::Limits {
    let open = flow::Limits::default().open.min(flows);
    flow::Limits { flows, open, memory, log: memory / 4 }
}

/// How a capture is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) snaplen: u32,
    pub(crate) promiscuous: bool,
    pub(crate) precision: Precision,
    /// Bytes.
    pub(crate) ring: u64,
    pub(crate) flows: flow::Options,
    pub(crate) permissions: Permissions,
}

/// Bytes of a ring if nothing else is said.
pub(crate) const DEFAULT_RING: u64 = 64 << 20;

impl Default for Settings {
    /// As with no option given.
    fn default() -> Self {
        Self {
            snaplen: capture::pipeline::DEFAULT_SNAPLEN,
            promiscuous: true,
            precision: Precision::Nano,
            ring: DEFAULT_RING,
            flows: flow::Options::default(),
            permissions: default_permissions(),
        }
    }
}

impl Settings {
    /// What to make of a source; ring files go to `ring_dir`.
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
            ring_size: self.ring,
            ring_dir: ring_dir.to_owned(),
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

/// The permissions the root of the tree starts with: everybody may look.
pub(crate) fn root_permissions() -> Permissions {
    Permissions { uid: geteuid().as_raw(), gid: getegid().as_raw(), mode: ROOT_MODE }
}
