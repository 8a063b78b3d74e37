//! The messages of `receive`: connections and sums, as text for people or as JSON for programs.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::connection::{ConnectionEnd, ConnectionReport};
use super::ports::ReceivingPort;
use crate::cli::event_line;
use crate::cli::listing::{bytes, rate};
use crate::output::{self, counted};

/// The sums of a run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct ReceiveSums {
    pub(super) connections: u64,
    pub(super) refused: u64,
    pub(super) files: u64,
    /// Bytes that were received and written.
    pub(super) bytes: u64,
    /// Bytes that were received and could not be written.
    pub(super) unwritten: u64,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum ReceiveEvent<'a> {
    Listening {
        address: String,
        first_port: u16,
        last_port: u16,
        directory: &'a str,
    },
    Opened {
        port: u16,
        peer: SocketAddr,
        file: &'a str,
    },
    Closed {
        port: u16,
        peer: SocketAddr,
        bytes: u64,
        duration_us: u64,
        state: &'static str,
        why: Option<&'a str>,
    },
    Refused {
        port: u16,
        peer: SocketAddr,
        why: &'a str,
    },
    Ended {
        #[serde(flatten)]
        sums: ReceiveSums,
        duration_us: u64,
    },
}

/// Reports connections as they begin and end.
#[derive(Debug)]
pub(super) struct ReceiveReport {
    json: bool,
    began: Instant,
    progress: Option<ProgressLine>,
}

/// The line on a terminal that says how much has come.
#[derive(Debug)]
struct ProgressLine {
    shown: bool,
    /// The time and the sum of the line before.
    before: (Instant, u64),
}

impl ReceiveReport {
    pub(super) fn new(json: bool) -> Self {
        let began = Instant::now();
        let line = || ProgressLine { shown: false, before: (began, 0) };
        Self { json, began, progress: io::stderr().is_terminal().then(line) }
    }

    pub(super) const fn shows_progress(&self) -> bool {
        self.progress.is_some()
    }

    /// Shows how many connections are open, and how much has come from all so far.
    pub(super) fn progress(&mut self, connections: usize, received: u64) {
        let Some(line) = &mut self.progress else { return };
        let (time, sum) = line.before;
        line.before = (Instant::now(), received);
        // Without connections the last line of the log says it all.
        if connections == 0 {
            self.clear();
            return;
        }
        line.shown = true;
        let rate = rate(received.saturating_sub(sum), time.elapsed());
        let connections = counted(connections as u64, "connection");
        output::progress(&format!("{connections}, {} received, {rate}", bytes(received)));
    }

    fn clear(&mut self) {
        if let Some(line) = &mut self.progress
            && std::mem::take(&mut line.shown)
        {
            output::progress("");
        }
    }

    /// The ports answer.
    pub(super) fn listening(&self, ports: &[ReceivingPort], folder: &Path) {
        let (Some(first), Some(last)) = (ports.first(), ports.last()) else { return };
        let (first, last) = (first.local, last.local.port());
        let folder = folder.to_string_lossy();
        self.print(
            &ReceiveEvent::Listening {
                address: first.ip().to_string(),
                first_port: first.port(),
                last_port: last,
                directory: &folder,
            },
            || match ports.len() {
                1 => format!("receiving at {first} into {folder}"),
                _ => format!("receiving at {first} to {last} into {folder}"),
            },
        );
    }

    pub(super) fn opened(&mut self, port: u16, peer: SocketAddr, file: &Path) {
        self.clear();
        let file = file.to_string_lossy();
        self.print(&ReceiveEvent::Opened { port, peer, file: &file }, || {
            format!("{peer}: connected to port {port}, into {file}")
        });
    }

    pub(super) fn closed(&mut self, report: &ConnectionReport) {
        self.clear();
        let ConnectionReport { peer, port, bytes: received, time, ref end } = *report;
        let (state, why) = match end {
            ConnectionEnd::Complete => ("complete", None),
            ConnectionEnd::Stopped => ("stopped", None),
            ConnectionEnd::Enough => ("enough", None),
            ConnectionEnd::Broken(why) => ("broken", Some(why.as_str())),
            ConnectionEnd::Unwritten(_, why) => ("unwritten", Some(why.as_str())),
        };
        let duration_us = microseconds(time);
        let event = ReceiveEvent::Closed { port, peer, bytes: received, duration_us, state, why };
        self.print(&event, || {
            let end = match end {
                ConnectionEnd::Complete => "has sent all".to_owned(),
                ConnectionEnd::Stopped => "closed".to_owned(),
                ConnectionEnd::Enough => "closed, --max-bytes is reached".to_owned(),
                ConnectionEnd::Broken(why) => why.clone(),
                ConnectionEnd::Unwritten(bytes, why) => {
                    format!("closed, {bytes} bytes of it could not be written: {why}")
                }
            };
            let seconds = time.as_secs_f64();
            let rate = rate(received, time);
            format!("{peer}: {end}; {received} bytes at port {port} in {seconds:.3} s, {rate}")
        });
    }

    pub(super) fn refused(&mut self, port: u16, peer: SocketAddr, why: &str) {
        self.clear();
        self.print(&ReceiveEvent::Refused { port, peer, why }, || {
            format!("{peer}: refused at port {port}: {why}")
        });
    }

    /// The last line.
    pub(super) fn ended(&mut self, sums: &ReceiveSums) {
        self.clear();
        let time = self.began.elapsed();
        let event = ReceiveEvent::Ended { sums: *sums, duration_us: microseconds(time) };
        self.print(&event, || {
            let ReceiveSums { connections, refused, files, bytes, unwritten } = *sums;
            let connections = counted(connections, "connection");
            let refused = if refused > 0 { format!(", {refused} refused") } else { String::new() };
            let unwritten =
                if unwritten > 0 { format!(", {unwritten} not written") } else { String::new() };
            let (bytes, files) = (counted(bytes, "byte"), counted(files, "file"));
            format!("{connections}{refused}: {bytes} in {files}{unwritten}")
        });
    }

    fn print(&self, event: &ReceiveEvent<'_>, text: impl FnOnce() -> String) {
        event_line::print(self.json, event, text);
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
