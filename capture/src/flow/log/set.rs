//! All logs of a capture, or their writers.

use std::sync::Arc;

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
