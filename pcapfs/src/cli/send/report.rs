//! The messages of `send`: connections and sums, as text for people or as JSON for programs.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use capture::source::HostAndPort;
use serde::Serialize;

use super::extraction::{LeftOut, SenderKey};
use super::plan::PlannedContent;
use crate::cli::event_line;
use crate::cli::listing::bytes;
use crate::output::{self, counted};

/// The content that a connection was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct SenderCounts {
    /// Times that it was given something: packets, or parts of a stream.
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Bytes that belong between them and that the capture does not have.
    pub(super) missing: u64,
}

impl SenderCounts {
    /// Adds what a packet brings.
    pub(super) const fn add(&mut self, bytes: u64, missing: u64) {
        self.packets += 1;
        self.bytes += bytes;
        self.missing += missing;
    }
}

/// The sums of a run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct SendSums {
    /// Packets with content to send.
    pub(super) packets: u64,
    /// Bytes that the kernel has taken, over all connections.
    pub(super) bytes: u64,
    /// Bytes that could not be sent, since their receivers had gone away.
    pub(super) unsent: u64,
    /// Bytes that the capture does not have.
    pub(super) missing: u64,
    /// Packets that the daemon had and this process lost, since it was too slow.
    pub(super) lost: u64,
    /// Packets for which there was no port.
    pub(super) without_port: u64,
    /// By how many microseconds a packet was late at most, and the last one.
    pub(super) max_late_us: u64,
    pub(super) last_late_us: u64,
    pub(super) left_out: LeftOut,
}

impl SendSums {
    /// Adds a packet that was sent so long after it was due.
    pub(super) fn late(&mut self, late: Duration) {
        self.last_late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.max_late_us = self.max_late_us.max(self.last_late_us);
    }

    /// Adds a round: what was left out of it, and what was lost.
    pub(super) const fn add(&mut self, left_out: &LeftOut, lost: u64) {
        self.left_out.add(left_out);
        self.lost += lost;
    }

    /// Adds a connection that has ended after so many bytes.
    pub(super) const fn sent(&mut self, written: u64, counts: &SenderCounts) {
        self.bytes += written;
        self.missing += counts.missing;
        self.unsent += counts.bytes.saturating_sub(written);
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum SendEvent<'a> {
    /// The content, as far as it is known.
    Planned {
        host: &'a str,
        base_port: u16,
        connections: Option<usize>,
        packets: Option<u64>,
        bytes: Option<u64>,
        duration_us: Option<u64>,
    },
    Connected {
        port: u16,
        sender: String,
    },
    /// A receiver has gone away before the end, or could not be reached.
    Gone {
        port: u16,
        sender: String,
        why: &'a str,
    },
    Closed {
        port: u16,
        sender: String,
        written: u64,
        #[serde(flatten)]
        counts: SenderCounts,
        why: Option<&'a str>,
    },
    Ended {
        connections: usize,
        #[serde(flatten)]
        sums: SendSums,
        duration_us: u64,
    },
}

/// Reports connections as they begin and end.
#[derive(Debug)]
pub(super) struct SendReport {
    json: bool,
    is_terminal: bool,
    is_progress_shown: bool,
    began: Instant,
    planned: Option<PlannedContent>,
    has_said_ports: bool,
}

impl SendReport {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            is_terminal: io::stderr().is_terminal(),
            is_progress_shown: false,
            began: Instant::now(),
            planned: None,
            has_said_ports: false,
        }
    }

    /// Reports the content of all rounds, as far as it is known.
    pub(super) fn begins(
        &mut self,
        place: &HostAndPort,
        planned: Option<PlannedContent>,
        connections: usize,
    ) {
        self.began = Instant::now();
        self.planned = planned;
        let event = SendEvent::Planned {
            host: &place.host,
            base_port: place.port,
            connections: planned.map(|_| connections),
            packets: planned.map(|planned| planned.packets),
            bytes: planned.map(|planned| planned.bytes),
            duration_us: planned.map(|planned| planned.nanoseconds() / 1_000),
        };
        self.print(&event, || match planned {
            Some(planned) => {
                let seconds = Duration::from_nanos(planned.nanoseconds()).as_secs_f64();
                let (packets, connections) =
                    (counted(planned.packets, "packet"), counted(connections as u64, "connection"));
                format!(
                    "sending {} in {packets} of {seconds:.3} s on {connections} to {place}",
                    counted(planned.bytes, "byte")
                )
            }
            None => format!("sending to {place}"),
        });
    }

    pub(super) fn connected(&mut self, key: &SenderKey, port: u16) {
        self.clear();
        let sender = key.to_string();
        self.print(&SendEvent::Connected { port, sender }, || format!("port {port} gets {key}"));
    }

    /// A receiver has gone away, or cannot be reached.
    pub(super) fn gone(&mut self, key: &SenderKey, port: u16, why: &str) {
        self.clear();
        let sender = key.to_string();
        self.print(&SendEvent::Gone { port, sender, why }, || {
            format!("port {port}, which gets {key}: {why}; the others go on")
        });
    }

    /// There is no port for a connection; said once.
    pub(super) fn without_port(&mut self, key: &SenderKey, needed: usize) {
        if !std::mem::replace(&mut self.has_said_ports, true) {
            self.clear();
            output::say(format_args!(
                "no port is left for {key}, nor for others that follow: {needed} are needed so far"
            ));
        }
    }

    /// The savefile ends inside a packet.
    pub(super) fn cut_off(&mut self, name: &str, bytes: u64) {
        self.clear();
        let bytes = counted(bytes, "byte");
        output::say(format_args!("{name}: ends inside a packet; its {bytes} are not sent"));
    }

    /// How a connection ended.
    pub(super) fn closed(
        &mut self,
        key: &SenderKey,
        port: u16,
        written: u64,
        counts: &SenderCounts,
        why: Option<&str>,
    ) {
        self.clear();
        let (sender, counts) = (key.to_string(), *counts);
        self.print(&SendEvent::Closed { port, sender, written, counts, why }, || {
            let missing = match counts.missing {
                0 => String::new(),
                missing => format!(", without {} that were not captured", counted(missing, "byte")),
            };
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            let (packets, written) = (counted(counts.packets, "packet"), counted(written, "byte"));
            format!("port {port} got {written} of {key} in {packets}{missing}{why}")
        });
    }

    /// The last line.
    pub(super) fn ended(&mut self, connections: usize, sums: &SendSums) {
        self.clear();
        let duration_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.print(&SendEvent::Ended { connections, sums: *sums, duration_us }, || {
            let mut text = format!(
                "{} sent in {} on {}",
                counted(sums.bytes, "byte"),
                counted(sums.packets, "packet"),
                counted(connections as u64, "connection"),
            );
            if sums.max_late_us > 0 {
                text.push_str(&format!(
                    ", at most {} ms late and at the end {} ms",
                    milliseconds(sums.max_late_us),
                    milliseconds(sums.last_late_us)
                ));
            }
            for (count, what) in [
                (sums.unsent, "bytes for receivers that had gone"),
                (sums.missing, "bytes that were not captured"),
                (sums.lost, "packets lost because receivers were too slow"),
                (sums.without_port, "packets without a port"),
                (sums.left_out.no_ip, "packets that are not IP, or malformed"),
                (sums.left_out.fragments, "fragments of incomplete datagrams"),
                (sums.left_out.protocol, "packets of other protocols (see --protocol)"),
                (sums.left_out.own, "packets of these connections"),
                (sums.left_out.link_type, "packets of another link type"),
            ] {
                if count > 0 {
                    text.push_str(&format!("; not sent: {count} {what}"));
                }
            }
            text
        });
    }

    /// Shows how far it is, on a terminal.
    pub(super) fn progress(&mut self, open: usize, written: u64, sums: &SendSums) {
        if !self.is_terminal {
            return;
        }
        self.is_progress_shown = true;
        let of = self
            .planned
            .map_or_else(String::new, |planned| format!(" of {}", bytes(planned.bytes)));
        let seconds = self.began.elapsed().as_secs();
        let late = milliseconds(sums.last_late_us);
        output::progress(&format!(
            "{}{of} sent on {}, {seconds} s, {late} ms late",
            bytes(written),
            counted(open as u64, "connection"),
        ));
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_progress_shown) {
            output::progress("");
        }
    }

    fn print(&self, event: &SendEvent<'_>, text: impl FnOnce() -> String) {
        event_line::print(self.json, event, text);
    }
}

/// Microseconds as milliseconds with three digits after the point.
fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:03}", microseconds / 1_000, microseconds % 1_000)
}
