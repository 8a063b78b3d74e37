//! The configuration as it is written. The module above decides its meaning.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::values::{
    BackendWord, Mode, OverlapWord, PrecisionWord, Size, SpeedWord, UrgentWord, UserOrGroup,
    WorkersWord,
};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigurationFile {
    /// The path of the control socket.
    pub(super) socket: Option<Spanned<PathBuf>>,
    /// The directory of ring files.
    pub(super) ring_dir: Option<Spanned<PathBuf>>,
    /// The file that keeps captures made by `init`.
    pub(super) state: Option<Spanned<PathBuf>>,
    /// Values for captures that do not set their own.
    #[serde(default)]
    pub(super) defaults: DefaultsTable,
    /// The service for other machines.
    pub(super) remote: Option<Spanned<RemoteTable>>,
    /// The captures.
    #[serde(default)]
    pub(super) capture: Vec<Spanned<CaptureTable>>,
}

/// `[remote]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoteTable {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) identity: Option<Spanned<PathBuf>>,
    pub(super) certificate: Option<Spanned<PathBuf>>,
    pub(super) key: Option<Spanned<PathBuf>>,
    pub(super) authority: Option<Spanned<PathBuf>>,
    pub(super) revoked: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) client: Vec<Spanned<RemoteClientTable>>,
}

/// One `[[remote.client]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoteClientTable {
    pub(super) name: Option<Spanned<String>>,
    pub(super) sha256: Option<Spanned<String>>,
    pub(super) user: Option<Spanned<UserOrGroup>>,
}

/// `[defaults]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DefaultsTable {
    pub(super) snaplen: Option<Spanned<Size>>,
    pub(super) promiscuous: Option<Spanned<bool>>,
    pub(super) ring: Option<Spanned<Size>>,
    pub(super) kernel_buffer: Option<Spanned<Size>>,
    pub(super) backend: Option<Spanned<BackendWord>>,
    pub(super) workers: Option<Spanned<WorkersWord>>,
    pub(super) inject_speed: Option<Spanned<SpeedWord>>,
    pub(super) export_keys: Option<Spanned<bool>>,
    pub(super) precision: Option<Spanned<PrecisionWord>>,
    pub(super) owner: Option<Spanned<UserOrGroup>>,
    pub(super) group: Option<Spanned<UserOrGroup>>,
    pub(super) mode: Option<Spanned<Mode>>,
    pub(super) flow_memory: Option<Spanned<Size>>,
    pub(super) max_flows: Option<Spanned<Size>>,
    pub(super) tunnels: Option<Spanned<bool>>,
    pub(super) vlan_flows: Option<Spanned<bool>>,
    pub(super) overlap: Option<Spanned<OverlapWord>>,
    pub(super) urgent: Option<Spanned<UrgentWord>>,
}

/// One `[[capture]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaptureTable {
    pub(super) alias: Option<Spanned<String>>,
    pub(super) source: Option<Spanned<String>>,
    pub(super) filter: Option<Spanned<String>>,
    /// Of a capture of another machine.
    pub(super) from: Option<Spanned<String>>,
    pub(super) compression: Option<Spanned<String>>,
    pub(super) rate: Option<Spanned<Size>>,
    // The fields of `DefaultsTable`; serde's flatten does not go with deny_unknown_fields.
    snaplen: Option<Spanned<Size>>,
    promiscuous: Option<Spanned<bool>>,
    ring: Option<Spanned<Size>>,
    kernel_buffer: Option<Spanned<Size>>,
    backend: Option<Spanned<BackendWord>>,
    workers: Option<Spanned<WorkersWord>>,
    inject_speed: Option<Spanned<SpeedWord>>,
    export_keys: Option<Spanned<bool>>,
    precision: Option<Spanned<PrecisionWord>>,
    owner: Option<Spanned<UserOrGroup>>,
    group: Option<Spanned<UserOrGroup>>,
    mode: Option<Spanned<Mode>>,
    flow_memory: Option<Spanned<Size>>,
    max_flows: Option<Spanned<Size>>,
    tunnels: Option<Spanned<bool>>,
    vlan_flows: Option<Spanned<bool>>,
    overlap: Option<Spanned<OverlapWord>>,
    urgent: Option<Spanned<UrgentWord>>,
}

impl CaptureTable {
    /// The settings that this capture sets itself.
    pub(super) fn settings(&self) -> DefaultsTable {
        let one = self.clone();
        DefaultsTable {
            snaplen: one.snaplen,
            promiscuous: one.promiscuous,
            ring: one.ring,
            kernel_buffer: one.kernel_buffer,
            backend: one.backend,
            workers: one.workers,
            inject_speed: one.inject_speed,
            export_keys: one.export_keys,
            precision: one.precision,
            owner: one.owner,
            group: one.group,
            mode: one.mode,
            flow_memory: one.flow_memory,
            max_flows: one.max_flows,
            tunnels: one.tunnels,
            vlan_flows: one.vlan_flows,
            overlap: one.overlap,
            urgent: one.urgent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_can_set_all_that_has_a_default() {
        // Here a key of `DefaultsTable` that `CaptureTable` lacks would be an unknown key.
        let text = "snaplen = 1\nring = 2\nprecision = \"nano\"\nowner = 3\ngroup = 4\nmode = 5\n\
                    promiscuous = false\nexport_keys = true\nflow_memory = 6\nkernel_buffer = 8\nbackend = \"libpcap\"\nworkers = 2\ninject_speed = 0.5\nmax_flows = 7\ntunnels = true\nvlan_flows = true\noverlap = \"last\"\nurgent = \"inline\"\n";
        let plain: DefaultsTable = toml::from_str(text).unwrap();
        let capture: CaptureTable = toml::from_str(text).unwrap();
        let described = format!("{:?}", capture.settings());
        assert_eq!(described, format!("{plain:?}"));
        assert!(!described.contains("None"), "{described}");
    }
}
