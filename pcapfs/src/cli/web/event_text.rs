//! Events as text, and the place of a stream in the logs, which is the id of each event.

use std::fmt;
use std::io;

use serde::Serialize;
use serde_json::Value;

use super::answer::Problem;
use super::log::{FollowedLog, LinesAt};
use super::records::CaptureRecords;
use crate::cli::outlet::daemon::CaptureView;

/// Bytes of events that are made at once.
const BATCH: usize = 64 << 10;

/// The kinds of events, for messages.
const KINDS: &str = "flows, http, counters";

/// The kinds of events that a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    flows: bool,
    transactions: bool,
    pub(super) counters: bool,
}

impl Wanted {
    const NONE: Self = Self { flows: false, transactions: false, counters: false };

    /// Counters alone.
    pub(super) const COUNTERS: Self = Self { counters: true, ..Self::NONE };

    /// Reads a list such as `flows,http`; all without one.
    ///
    /// # Errors
    /// The first word that is no kind.
    pub(super) fn read(list: Option<&str>) -> Result<Self, Problem> {
        let mut wanted = Self::NONE;
        for word in list.unwrap_or("flows,http,counters").split(',') {
            match word.trim() {
                "flows" => wanted.flows = true,
                "http" => wanted.transactions = true,
                "counters" => wanted.counters = true,
                other => {
                    let why = format!("what={other}: no kind of event (there are: {KINDS})");
                    return Err(Problem::wrong(why));
                }
            }
        }
        Ok(wanted)
    }

    /// True if lines of logs are wanted.
    pub(super) const fn has_lines(self) -> bool {
        self.flows || self.transactions
    }
}

/// The place of a stream in the logs of a capture. Written as `GENERATION.CAPTURE.FLOWS.HTTP`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamPosition {
    /// Of the daemon.
    generation: String,
    /// Number of the capture.
    capture: u64,
    /// Numbers of the last lines that were sent.
    flows: u64,
    transactions: u64,
}

impl fmt::Display for StreamPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, capture, flows, transactions } = self;
        write!(formatter, "{generation}.{capture}.{flows}.{transactions}")
    }
}

impl StreamPosition {
    /// Reads an id; `None` if it is none of ours.
    pub(super) fn read(id: &str) -> Option<Self> {
        let mut parts = id.split('.');
        let generation = parts.next()?;
        let is_plain =
            generation.len() <= 32 && generation.bytes().all(|one| one.is_ascii_hexdigit());
        let mut number = || parts.next()?.parse().ok();
        let (capture, flows, transactions) = (number()?, number()?, number()?);
        let is_ours = is_plain && parts.next().is_none();
        is_ours.then(|| Self { generation: generation.to_owned(), capture, flows, transactions })
    }

    /// Before the first line of a capture.
    pub(super) fn of(generation: &str, view: &CaptureView) -> Self {
        let capture = view.status.get("id").and_then(Value::as_u64).unwrap_or(0);
        Self { generation: generation.to_owned(), capture, ..Self::default() }
    }

    /// True if both are in the logs of the same capture of the same daemon.
    pub(super) fn is_in(&self, other: &Self) -> bool {
        self.generation == other.generation && self.capture == other.capture
    }

    /// True for a stream that has not found its capture yet.
    pub(super) const fn is_unset(&self) -> bool {
        self.generation.is_empty()
    }

    /// Moves to the lines that come from now on.
    pub(super) fn skip_to_end(&mut self, records: &CaptureRecords) {
        self.flows = records.flows.next_line().saturating_sub(1);
        self.transactions = records.transactions.next_line().saturating_sub(1);
    }
}

/// Adds an event.
pub(super) fn add(
    text: &mut Vec<u8>,
    event: &str,
    position: &StreamPosition,
    data: &impl Serialize,
) {
    // Values of this program have text keys only, so they can be written.
    let data = serde_json::to_vec(data).unwrap_or_default();
    add_text(text, event, position, &data);
}

/// Adds an event whose data is one line of text.
fn add_text(text: &mut Vec<u8>, event: &str, position: &StreamPosition, data: &[u8]) {
    text.extend_from_slice(format!("event: {event}\nid: {position}\ndata: ").as_bytes());
    text.extend_from_slice(data);
    text.extend_from_slice(b"\n\n");
}

/// A log of a capture, and the events it gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EventLog {
    Flows,
    Transactions,
}

impl EventLog {
    /// The name of its events, and the name in the event of a loss.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Flows => ("flow", "flows"),
            Self::Transactions => ("http", "http"),
        }
    }

    fn of(self, records: &mut CaptureRecords) -> &mut FollowedLog {
        match self {
            Self::Flows => &mut records.flows,
            Self::Transactions => &mut records.transactions,
        }
    }

    const fn last(self, position: &mut StreamPosition) -> &mut u64 {
        match self {
            Self::Flows => &mut position.flows,
            Self::Transactions => &mut position.transactions,
        }
    }
}

/// Adds events of the lines after `position`, and moves it after them. Returns whether those are all
/// there are.
///
/// # Errors
/// Those of reading lines.
pub(super) fn add_lines(
    text: &mut Vec<u8>,
    position: &mut StreamPosition,
    wanted: Wanted,
    records: &mut CaptureRecords,
) -> io::Result<bool> {
    let logs = [(EventLog::Flows, wanted.flows), (EventLog::Transactions, wanted.transactions)];
    for (log, is_wanted) in logs {
        if is_wanted && !add_lines_of(text, position, log, records)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn add_lines_of(
    text: &mut Vec<u8>,
    position: &mut StreamPosition,
    log: EventLog,
    records: &mut CaptureRecords,
) -> io::Result<bool> {
    #[derive(Serialize)]
    struct Lost {
        what: &'static str,
        lines: u64,
    }
    let (event, what) = log.names();
    loop {
        let next = log.last(position).saturating_add(1);
        match log.of(records).at(next)? {
            LinesAt::End => {
                // A client may send any number back.
                let end = log.of(records).next_line().saturating_sub(1);
                let last = log.last(position);
                *last = end.min(*last);
                return Ok(true);
            }
            LinesAt::Dropped(first) => {
                let lines = first.saturating_sub(next);
                *log.last(position) = first.saturating_sub(1);
                add(text, "lost", position, &Lost { what, lines });
            }
            LinesAt::Lines(block) => {
                for (number, line) in block.from(next) {
                    if text.len() >= BATCH {
                        return Ok(false);
                    }
                    *log.last(position) = number;
                    add_text(text, event, position, line);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        let position =
            StreamPosition { generation: "0a1b".to_owned(), capture: 3, flows: 7, transactions: 9 };
        assert_eq!(position.to_string(), "0a1b.3.7.9");
        assert_eq!(StreamPosition::read("0a1b.3.7.9"), Some(position));
        for id in ["", "0a1b", "0a1b.3.7", "0a1b.3.7.9.1", "x.3.7.9", "0a.-1.7.9", "0a.1.7.z"] {
            assert_eq!(StreamPosition::read(id), None, "{id}");
        }
    }

    #[test]
    fn kinds_of_events_are_read() {
        assert_eq!(Wanted::read(Some("counters")).unwrap(), Wanted::COUNTERS);
        let all = Wanted::read(None).unwrap();
        assert!(all.flows && all.transactions && all.counters && all.has_lines());
        assert!(!Wanted::COUNTERS.has_lines());
        assert!(Wanted::read(Some("flows,dns")).unwrap_err().text.contains("what=dns"));
    }

    #[test]
    fn an_event_is_lines_of_text() {
        let mut text = Vec::new();
        add(&mut text, "lost", &StreamPosition::default(), &[1, 2]);
        assert_eq!(text, b"event: lost\nid: .0.0.0\ndata: [1,2]\n\n");
    }
}
