//! Files with facts about the tree itself: `status.json`, `readers.jsonl` and `README`.

use std::path::Path;

use capture::clock;
use capture::flow;
use capture::injection::InjectionStatus;
use capture::own_transport::{OwnTransport, OwnTuple};
use capture::pipeline::{self, ByteCounters, CaptureState, PacketCounters, Rate};
use capture::source::SourceName;
use protocol::json;
use protocol::time::{Precision, Timestamp};
use serde::Serialize;

use super::captures::{CaptureEntry, Captures};
use super::names;
use super::open_file::OpenFile;
use crate::process::ProcessStatus;
use crate::settings::DEFAULT_RING;

/// README of the root.
pub(crate) const README: &str = include_str!("README.txt");

/// `status.json` of a capture. The order of the fields is that of the file.
#[derive(Debug, Serialize)]
struct CaptureStatus<'a> {
    /// Number of the capture, from 1.
    id: u32,
    alias: &'a str,
    /// Its other names.
    aliases: Vec<String>,
    source: String,
    interface: Option<String>,
    backend: Option<&'static str>,
    /// Number of threads that take the packets of its interface.
    workers: Option<u32>,
    filter: Option<&'a str>,
    state: CaptureState,
    error: Option<String>,
    linktype: Option<String>,
    snaplen: u32,
    precision: Precision,
    started: String,
    owner: String,
    group: String,
    mode: String,
    packets: PacketCounters,
    bytes: ByteCounters,
    rate: Rate,
    ring: RingStatus,
    readers: ReadersStatus,
    flows: flow::FlowCounters,
    /// Connections of pcapfs whose packets this capture leaves out.
    excluded: Vec<OwnTuple>,
    interruptions: Vec<InterruptionStatus>,
    /// The far side of a capture of another machine.
    remote: Option<serde_json::Value>,
    /// What programs inject into the device of the capture.
    injection: Option<InjectionStatus>,
}

#[derive(Debug, Serialize)]
struct InterruptionStatus {
    began: String,
    ended: Option<String>,
    why: String,
}

#[derive(Debug, Serialize)]
struct RingStatus {
    size: u64,
    /// The same, under a name with the unit.
    size_bytes: u64,
    /// The size that was asked for, or the default. It is larger if there was no room for it.
    wanted_bytes: u64,
    segments: u64,
    used: u64,
    oldest: Option<String>,
    newest: Option<String>,
    first_number: u64,
    next_number: u64,
}

#[derive(Debug, Serialize)]
struct ReadersStatus {
    open: u64,
    delivered: u64,
    lost: u64,
    /// The same, under the names of `readers.jsonl`.
    delivered_packets: u64,
    lost_packets: u64,
}

/// `status.json` of the root.
#[derive(Debug, Serialize)]
struct DaemonStatus {
    version: &'static str,
    pid: u32,
    started: String,
    uptime: u64,
    /// The same, under names with units.
    uptime_seconds: u64,
    memory: u64,
    memory_bytes: u64,
    /// The path of the control socket; null without one.
    socket: Option<String>,
    /// Connections of pcapfs whose packets are left out of captures.
    excluded: Vec<OwnTuple>,
    /// The service for other machines; null without one.
    remote: Option<RemoteStatus>,
    captures: Vec<CaptureSummary>,
}

/// The service for other machines.
#[derive(Debug, Serialize)]
pub(crate) struct RemoteStatus {
    /// Address and port.
    pub(crate) listen: String,
    /// Of this machine.
    pub(crate) certificate: CertificateStatus,
    /// Connections now.
    pub(crate) open: u64,
    /// Connections since the start: let in; refused for their certificate or their bytes; closed
    /// since there were too many.
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) too_many: u64,
}

/// A certificate.
#[derive(Debug, Serialize)]
pub(crate) struct CertificateStatus {
    pub(crate) names: Vec<String>,
    pub(crate) sha256: String,
    /// RFC 3339.
    pub(crate) expires: String,
    pub(crate) expires_days: u64,
    /// Set if it expires soon, or has expired.
    pub(crate) warning: Option<String>,
}

/// Reports on the service for other machines.
pub(crate) trait RemoteReporter: Send + Sync + std::fmt::Debug {
    fn status(&self) -> RemoteStatus;
}

#[derive(Debug, Serialize)]
struct CaptureSummary {
    alias: String,
    aliases: Vec<String>,
    source: String,
    state: CaptureState,
}

/// One line of `readers.jsonl`.
#[derive(Debug, Serialize)]
struct ReaderLine<'a> {
    file: &'a str,
    pid: u32,
    uid: u32,
    comm: &'a str,
    opened: String,
    delivered_packets: u64,
    delivered_bytes: u64,
    lost_packets: u64,
    lag_packets: u64,
    blocked: bool,
}

/// `status.json` of a capture as of now; `readers` are its open files, `aliases` its other
/// names.
pub(crate) fn of_capture(
    entry: &CaptureEntry,
    aliases: Vec<String>,
    readers: &[std::sync::Arc<OpenFile>],
) -> Vec<u8> {
    let capture = &entry.capture;
    let store = &**capture.store();
    let spec = capture.spec();
    let condition = capture.condition();
    let header = store.header();
    let (packets, bytes) = pipeline::counters(store);
    let bounds = store.bounds();
    let capacity = store.capacity();
    let permissions = entry.permissions();
    let closed = entry.closed();
    let (mut open, mut delivered, mut lost) = (0, closed.delivered, closed.lost);
    for progress in readers.iter().filter_map(|file| file.progress()) {
        open += 1;
        // Counts from a ring that another process has overwritten can have any value.
        delivered = progress.delivered.saturating_add(delivered);
        lost = progress.lost.saturating_add(lost);
    }
    let totals =
        ReadersStatus { open, delivered, lost, delivered_packets: delivered, lost_packets: lost };
    let has_interface = spec.source.is_interface()
        || spec.source.savefile_path().is_some()
        || spec.source.external().is_some_and(|source| source.interface().is_some());
    let interface = store.interface(0).filter(|_| has_interface);
    let reception = capture.reception();
    let status = CaptureStatus {
        id: entry.id.saturating_add(1),
        alias: &spec.alias,
        aliases,
        source: spec.source.to_string(),
        interface: match &spec.source {
            SourceName::Several(_) => Some(spec.source.to_string()),
            _ => interface.and_then(|interface| interface.name),
        },
        backend: reception.map(|reception| reception.backend.word()),
        workers: reception.map(|reception| reception.workers),
        filter: spec.filter.as_deref(),
        state: condition.state,
        error: condition.error,
        linktype: header.map(|header| header.link_type.name()),
        snaplen: header.map_or(spec.snaplen, |header| header.snaplen),
        precision: header.map_or(Precision::Nano, |header| header.precision),
        started: capture.started().to_rfc3339(),
        owner: names::user(permissions.uid),
        group: names::group(permissions.gid),
        mode: format!("{:04o}", permissions.mode),
        packets,
        bytes,
        rate: capture.rate(),
        ring: RingStatus {
            size: capacity.size,
            size_bytes: capacity.size,
            wanted_bytes: match spec.source.savefile_path() {
                Some(_) => capacity.size,
                None if spec.is_default_ring => DEFAULT_RING,
                None => spec.ring_size,
            },
            segments: capacity.segments,
            used: capacity.used,
            oldest: store.oldest_time().map(Timestamp::to_rfc3339),
            newest: bounds.newest_time.filter(|_| packets.retained > 0).map(Timestamp::to_rfc3339),
            first_number: packets.overwritten.saturating_add(1),
            next_number: packets.stored.saturating_add(1),
        },
        readers: totals,
        flows: capture.flows().counters(),
        excluded: capture.excluded(),
        interruptions: capture
            .interruptions()
            .into_iter()
            .map(|one| InterruptionStatus {
                began: one.began.to_rfc3339(),
                ended: one.ended.map(Timestamp::to_rfc3339),
                why: one.why,
            })
            .collect(),
        remote: spec.source.external().and_then(|source| source.status()),
        injection: capture.injection().map(|injection| injection.status()),
    };
    json::line(&status)
}

/// `readers.jsonl` of a capture, oldest opener first.
pub(crate) fn of_readers(readers: &[std::sync::Arc<OpenFile>]) -> Vec<u8> {
    let mut readers: Vec<_> = readers.iter().collect();
    readers.sort_by_key(|file| file.opened);
    let mut lines = Vec::new();
    for file in readers {
        let Some(progress) = file.progress() else { continue };
        lines.extend(json::line(&ReaderLine {
            file: file.name,
            pid: file.opener.process().pid,
            uid: file.opener.asker.uid,
            comm: &file.opener.process().comm,
            opened: file.opened.to_rfc3339(),
            delivered_packets: progress.delivered,
            delivered_bytes: progress.delivered_bytes,
            lost_packets: progress.lost,
            lag_packets: progress.lag,
            blocked: file.blocked.load(std::sync::atomic::Ordering::Relaxed),
        }));
    }
    lines
}

/// `status.json` of the root, as of now.
pub(crate) fn of_daemon(
    tree: &Captures,
    captures: &[std::sync::Arc<CaptureEntry>],
    started: Timestamp,
    socket: Option<&Path>,
    remote: Option<RemoteStatus>,
) -> Vec<u8> {
    let memory = resident_memory();
    let uptime = clock::now().nanoseconds().saturating_sub(started.nanoseconds());
    json::line(&DaemonStatus {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        started: started.to_rfc3339(),
        uptime: uptime / 1_000_000_000,
        uptime_seconds: uptime / 1_000_000_000,
        memory,
        memory_bytes: memory,
        socket: socket.map(|path| path.display().to_string()),
        excluded: OwnTransport::of_process().tuples(None),
        remote,
        captures: captures
            .iter()
            .map(|entry| CaptureSummary {
                alias: entry.alias().to_owned(),
                aliases: tree.links_to(entry.alias()),
                source: entry.capture.spec().source.to_string(),
                state: entry.capture.condition().state,
            })
            .collect(),
    })
}

/// Bytes of memory that only the daemon has, without rings and mapped files: the anonymous part of
/// its resident memory (`RssAnon`, proc_pid_status(5)).
fn resident_memory() -> u64 {
    ProcessStatus::of("self").bytes("RssAnon").unwrap_or(0)
}
