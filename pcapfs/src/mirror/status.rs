//! The far side of a mirrored capture, for `status.json`.

use parking_lot::Mutex;
use protocol::time::Timestamp;
use serde::Serialize;

use super::written::MirrorName;
use crate::control::messages::FollowState;
use crate::control::state_name;

/// The far side as last reported, and counts of this side.
#[derive(Debug, Default)]
pub(super) struct MirrorStatus(Mutex<Reported>);

#[derive(Debug, Default)]
struct Reported {
    connected: bool,
    version: Option<String>,
    state: Option<FollowState>,
    /// Far clock minus near clock when the state came, nanoseconds.
    clock_difference: i64,
    connections: u64,
    ring: Option<u64>,
    next_number: Option<u64>,
    bytes: u64,
    received: u64,
}

/// `remote` in `status.json`. The order of the fields is that of the file.
#[derive(Debug, Serialize)]
struct RemoteStatus {
    name: String,
    capture: String,
    from: &'static str,
    compression: Option<&'static str>,
    rate: Option<u64>,
    connected: bool,
    connections: u64,
    version: Option<String>,
    ring: Option<String>,
    next_number: Option<u64>,
    bytes: u64,
    received_bytes: u64,
    compression_ratio: Option<f64>,
    clock_difference_seconds: Option<f64>,
    state: Option<&'static str>,
    error: Option<String>,
    packets: Option<FarPackets>,
}

/// The counters of the far capture, as its own status.json has them.
#[derive(Debug, Serialize)]
struct FarPackets {
    seen: u64,
    stored: u64,
    excluded: u64,
    dropped_kernel: u64,
    dropped_interface: u64,
    dropped_oversize: u64,
    lost_remote: u64,
    retained: u64,
    overwritten: u64,
}

impl MirrorStatus {
    /// Notes a connection.
    pub(super) fn connected(&self) {
        let mut reported = self.0.lock();
        reported.connected = true;
        reported.connections += 1;
    }

    /// Notes that there is no connection.
    pub(super) fn disconnected(&self) {
        self.0.lock().connected = false;
    }

    /// Notes the version and the ring of the far side.
    pub(super) fn begun(&self, version: String, ring: u64) {
        let mut reported = self.0.lock();
        reported.version = Some(version).filter(|version| !version.is_empty());
        reported.ring = Some(ring);
    }

    /// Notes the state of the far capture, which came at `now`.
    pub(super) fn state(&self, state: FollowState, now: Timestamp) {
        let mut reported = self.0.lock();
        let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        reported.clock_difference = signed(state.time).saturating_sub(signed(now.nanoseconds()));
        reported.state = Some(state);
    }

    /// Counts packets of `bytes` bytes that came as `received` bytes; the packet after them is
    /// number `next`.
    pub(super) fn received(&self, bytes: usize, received: usize, next: u64) {
        let mut reported = self.0.lock();
        reported.bytes = reported.bytes.saturating_add(bytes as u64);
        reported.received = reported.received.saturating_add(received as u64);
        reported.next_number = Some(next);
    }

    /// All of it, as it is in `status.json`.
    pub(super) fn to_json(&self, name: &MirrorName) -> Option<serde_json::Value> {
        let reported = self.0.lock();
        let state = reported.state.as_ref();
        #[expect(clippy::cast_precision_loss, reason = "numbers for people")]
        let (ratio, difference) = (
            (name.zstd && reported.received > 0)
                .then(|| reported.bytes as f64 / reported.received as f64),
            state.map(|_| reported.clock_difference as f64 / 1e9),
        );
        // Without a negative zero.
        let hundredths = |number: f64| (number * 100.0).round() / 100.0 + 0.0;
        let status = RemoteStatus {
            name: name.remote.clone(),
            capture: name.capture.clone(),
            from: if name.from_now { "now" } else { "oldest" },
            compression: name.zstd.then_some("zstd"),
            rate: Some(name.rate).filter(|rate| *rate > 0),
            connected: reported.connected,
            connections: reported.connections,
            version: reported.version.clone(),
            ring: reported.ring.map(|ring| format!("{ring:016x}")),
            next_number: reported.next_number,
            bytes: reported.bytes,
            received_bytes: reported.received,
            compression_ratio: ratio.map(hundredths),
            clock_difference_seconds: difference.map(hundredths),
            state: state.and_then(|state| state_name(state.state())),
            error: state.map(|state| state.error.clone()).filter(|error| !error.is_empty()),
            packets: state.map(|state| FarPackets {
                seen: state.seen,
                stored: state.stored,
                excluded: state.excluded,
                dropped_kernel: state.dropped_kernel,
                dropped_interface: state.dropped_interface,
                dropped_oversize: state.dropped_oversize,
                lost_remote: state.lost_remote,
                retained: state.retained,
                overwritten: state.overwritten,
            }),
        };
        // It has only texts and numbers.
        serde_json::to_value(&status).ok()
    }
}
