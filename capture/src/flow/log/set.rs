//! All logs of a capture, or their writers.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{LineLog, LogWriter};
use crate::flow::apps::Application;
use crate::flow::file::Log;

/// One value for each log.
#[derive(Debug)]
pub(in crate::flow) struct Logs<T> {
    flows: T,
    /// In the order of [`Application::ALL`]. A protocol without lines has one that stays empty.
    lines: [T; Application::ALL.len()],
}

impl Logs<LogWriter> {
    /// Empty logs with a limit of `limit` bytes each, and their writers.
    pub(in crate::flow) fn new(limit: usize) -> Self {
        let writer = || LogWriter::new(limit);
        Self { flows: writer(), lines: Application::ALL.map(|_| writer()) }
    }

    /// The logs, for their readers.
    pub(in crate::flow) fn logs(&self) -> Logs<Arc<LineLog>> {
        let log = |writer: &LogWriter| Arc::clone(writer.log());
        Logs { flows: log(&self.flows), lines: self.lines.each_ref().map(log) }
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "an application's discriminant is its place in `Application::ALL`, and lines must not \
              get into another log"
)]
impl<T> Logs<T> {
    /// The value for a log.
    pub(in crate::flow) fn get(&self, log: Log) -> &T {
        match log {
            Log::Flows => &self.flows,
            Log::Lines(application) => &self.lines[application as usize],
        }
    }

    /// The value for a log, to change.
    pub(in crate::flow) fn get_mut(&mut self, log: Log) -> &mut T {
        match log {
            Log::Flows => &mut self.flows,
            Log::Lines(application) => &mut self.lines[application as usize],
        }
    }

    /// The values for all logs.
    pub(in crate::flow) fn all(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().chain([&self.flows])
    }
}

/// The lines that each log has dropped. It is written as an object with the names of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DroppedLines {
    flows: u64,
    /// In the order of [`Application::ALL`].
    lines: [u64; Application::ALL.len()],
}

impl DroppedLines {
    /// Those of these logs, now.
    pub(in crate::flow) fn of(logs: &Logs<Arc<LineLog>>) -> Self {
        Self {
            flows: logs.flows.dropped_lines(),
            lines: logs.lines.each_ref().map(|log| log.dropped_lines()),
        }
    }

    /// The sum over all logs.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lines.iter().fold(self.flows, |sum, lines| sum.saturating_add(*lines))
    }
}

impl Serialize for DroppedLines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("flows.jsonl", &self.flows)?;
        for (application, lines) in Application::ALL.iter().zip(&self.lines) {
            if let Some(name) = application.line_file_name() {
                map.serialize_entry(name, lines)?;
            }
        }
        map.end()
    }
}
