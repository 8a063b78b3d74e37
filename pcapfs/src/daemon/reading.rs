//! Waits for savefiles at the start: the tree is ready when it shows all of their packets and
//! flows.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crate::fs::Tree;
use crate::output::{progress, say};

/// The line that reports the progress of reading begins with this.
pub(crate) const READING: &str = "reading, ";

/// How often to check whether all is read: a small savefile takes some milliseconds.
pub(super) const STEP: Duration = Duration::from_millis(2);

/// How often to report the progress.
const REPORT: Duration = Duration::from_secs(1);

/// Waits for the savefiles that were mounted at the start.
pub(super) struct SavefilesWait {
    last_report: Instant,
    /// True if a text on the terminal has to be removed.
    is_shown: bool,
    /// Another process shows the reports, line by line.
    is_detached: bool,
}

impl SavefilesWait {
    pub(super) fn new(is_detached: bool) -> Self {
        Self { last_report: Instant::now(), is_shown: false, is_detached }
    }

    /// Returns `true` if every packet of every savefile is in its files and its flow, or cannot be.
    /// Reports the progress each second.
    pub(super) fn is_over(&mut self, tree: &Tree) -> bool {
        let mut packets = 0_u64;
        let mut is_over = true;
        for entry in tree.captures.all() {
            let one = &entry.capture;
            if one.spec().source.savefile_path().is_some() {
                let counters = capture::pipeline::counters(&**one.store()).0;
                packets = packets.saturating_add(counters.stored);
                is_over &= one.is_read();
            }
        }
        if !is_over && self.last_report.elapsed() >= REPORT {
            self.last_report = Instant::now();
            let line = format!("{READING}{packets} packets so far (--no-wait mounts at once)");
            if self.is_detached {
                say(line);
            } else if io::stderr().is_terminal() {
                progress(&format!("pcapfs: {line}"));
                self.is_shown = true;
            }
        }
        if is_over && std::mem::take(&mut self.is_shown) {
            progress("");
        }
        is_over
    }
}
