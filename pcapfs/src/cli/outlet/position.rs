//! The place of a reader in the logs of a capture.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event_kind::EventKind;

/// The place after the lines that have reached their reader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct CapturePosition {
    /// Of the daemon; empty for a place that is not set.
    generation: String,
    /// Number of the capture.
    capture: u64,
    /// Numbers of the last lines, by the name of the kind.
    lines: BTreeMap<String, u64>,
    /// The state that was reported last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) state: Option<String>,
    /// The place in the packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) packets: Option<PacketPlace>,
    /// The place in the segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) segments: Option<SegmentPlace>,
}

/// The place in the packets of a capture; it outlives the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct PacketPlace {
    /// Identity of the ring that numbers the packets.
    pub(in crate::cli) ring: u64,
    /// Rises when the ring may give numbers a second time.
    pub(in crate::cli) epoch: u64,
    /// Number of the next packet.
    pub(in crate::cli) next: u64,
}

impl PacketPlace {
    /// True if both are places among the same numbers.
    pub(in crate::cli) const fn is_in_ring_of(&self, other: &Self) -> bool {
        self.ring == other.ring && self.epoch == other.epoch
    }
}

/// The place in the segments of a capture: a place in its packets, and the first packet that counts for
/// the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct SegmentPlace {
    #[serde(flatten)]
    pub(in crate::cli) packets: PacketPlace,
    /// Number of the packet at which streams begin that were under way before.
    pub(in crate::cli) since: u64,
}

impl CapturePosition {
    /// True if it is a place in the logs of this capture of this daemon.
    pub(super) fn is_in(&self, generation: &str, capture: u64) -> bool {
        self.generation == generation && self.capture == capture
    }

    /// True if both are places in the same logs, or one is not set.
    pub(in crate::cli) fn is_in_logs_of(&self, other: &Self) -> bool {
        !self.is_set() || !other.is_set() || self.is_in(&other.generation, other.capture)
    }

    /// True if it is a place in the logs of some daemon.
    pub(super) const fn is_set(&self) -> bool {
        !self.generation.is_empty()
    }

    /// Moves before the first line of other logs.
    pub(super) fn begin(&mut self, generation: &str, capture: u64) {
        let is_other = self.is_set();
        generation.clone_into(&mut self.generation);
        self.capture = capture;
        // A daemon that has just been found may have lines before the first wanted one.
        self.lines.values_mut().for_each(|line| *line = 0);
        if !is_other {
            self.lines.clear();
        }
    }

    /// The number of the last line of a log; `None` before one was looked at.
    pub(in crate::cli) fn line(&self, kind: EventKind) -> Option<u64> {
        self.lines.get(kind.name()).copied()
    }

    pub(in crate::cli) fn set_line(&mut self, kind: EventKind, number: u64) {
        if let Some(line) = self.lines.get_mut(kind.name()) {
            *line = number;
        } else {
            self.lines.insert(kind.name().to_owned(), number);
        }
    }

    /// The place of a line, unique to it: `GENERATION.CAPTURE.KIND.NUMBER`.
    pub(in crate::cli) fn of_line(&self, kind: EventKind, number: u64) -> String {
        format!("{}.{}.{kind}.{number}", self.generation, self.capture)
    }
}
