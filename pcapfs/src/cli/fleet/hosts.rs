//! The machines and captures that have lines in a stream, and how the captures are.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::FleetError;
use super::lines::no_stream;
use crate::cli::nats::connection::Connection;
use crate::cli::nats::protocol::{StreamError, name_of};
use crate::cli::nats::{STREAM, SUBJECTS};
use crate::cli::outlet::event_kind::EventKind;
use crate::failure::Failure;
use crate::output;

/// Maximum number of subjects whose last line is asked for, to show its time.
const MAX_ASKED: usize = 1_000;

/// The answer to the question for the stream.
#[derive(Debug, Deserialize)]
struct StreamInfo {
    error: Option<StreamError>,
    #[serde(default)]
    state: StreamState,
    /// Number of subjects, of which an answer has at most 100,000.
    #[serde(default)]
    total: u64,
}

#[derive(Debug, Default, Deserialize)]
struct StreamState {
    /// Lines for each subject.
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

/// The answer with a stored message.
#[derive(Debug, Deserialize)]
struct StoredMessage {
    message: Option<MessageContent>,
}

#[derive(Debug, Deserialize)]
struct MessageContent {
    time: String,
    /// In base64 (RFC 4648).
    #[serde(default)]
    data: String,
}

/// Lines of a capture.
#[derive(Debug, Default)]
struct CaptureLines {
    flows: u64,
    http: u64,
    dns: u64,
    /// The last line of its counters.
    status: Option<CaptureStatus>,
    /// When the server took the last one, RFC 3339.
    last: Option<String>,
}

/// The counters of a capture when it published them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CaptureStatus {
    /// RFC 3339, by the clock of its machine.
    time: String,
    state: String,
    error: Option<String>,
    stored: u64,
    /// Packets that were dropped on the way into the capture.
    dropped: u64,
}

impl CaptureStatus {
    /// Reads a published line; `None` if it is none of counters.
    fn of_line(line: &[u8]) -> Option<Self> {
        /// The counters of packets that are not stored, in `packets`.
        const DROPS: [&str; 4] =
            ["dropped_kernel", "dropped_interface", "dropped_oversize", "lost_remote"];
        let line: Value = serde_json::from_slice(line).ok()?;
        let text = |name: &str| line.get(name).and_then(Value::as_str).map(str::to_owned);
        let packets = line.get("packets")?;
        let number = |name: &str| packets.get(name).and_then(Value::as_u64).unwrap_or(0);
        let dropped = DROPS.iter().map(|name| number(name)).fold(0, u64::saturating_add);
        Some(Self {
            time: text("time")?,
            state: text("state")?,
            error: text("error"),
            stored: number("stored"),
            dropped,
        })
    }
}

/// Prints a row for each capture of each machine.
pub(super) async fn print(connection: &mut Connection, is_json: bool) -> Result<(), FleetError> {
    let question = json!({ "subjects_filter": SUBJECTS });
    let info = connection.ask(&format!("STREAM.INFO.{STREAM}"), &question).await;
    let info: StreamInfo = info.map_err(FleetError::Server)?;
    if let Some(error) = info.error {
        return Err(FleetError::Server(no_stream(&error)));
    }
    let shown = info.state.subjects.len();
    let mut captures: BTreeMap<(String, String), CaptureLines> = BTreeMap::new();
    for (index, (subject, count)) in info.state.subjects.iter().enumerate() {
        let mut tokens = subject.split('.').skip(1).map(name_of);
        let (Some(host), Some(capture)) = (tokens.next(), tokens.next()) else { continue };
        let lines = captures.entry((host, capture)).or_default();
        let kind = tokens.next();
        let counter = match kind.as_deref() {
            Some("flows") => Some(&mut lines.flows),
            Some("http") => Some(&mut lines.http),
            Some("dns") => Some(&mut lines.dns),
            _ => None,
        };
        if let Some(counter) = counter {
            *counter = counter.saturating_add(*count);
        }
        if index < MAX_ASKED {
            // The line may have left the stream in the meantime.
            let Some(message) = last_of(connection, subject).await? else { continue };
            lines.last = lines.last.take().max(Some(message.time));
            if kind.as_deref() == Some(EventKind::Status.name()) {
                let line = BASE64.decode(message.data.as_bytes()).unwrap_or_default();
                lines.status = CaptureStatus::of_line(&line);
            }
        }
    }
    show(&captures, is_json).map_err(FleetError::Output)?;
    if (shown as u64) < info.total {
        output::say(format_args!(
            "{} of {} subjects are shown: the server lists no more",
            shown, info.total
        ));
    }
    Ok(())
}

/// The last message of a subject.
async fn last_of(
    connection: &mut Connection,
    subject: &str,
) -> Result<Option<MessageContent>, FleetError> {
    let question = json!({ "last_by_subj": subject });
    let stored = connection.ask(&format!("STREAM.MSG.GET.{STREAM}"), &question).await;
    let stored: StoredMessage = stored.map_err(FleetError::Server)?;
    Ok(stored.message)
}

fn show(captures: &BTreeMap<(String, String), CaptureLines>, is_json: bool) -> Result<(), Failure> {
    let text = if is_json {
        captures.iter().map(|(place, lines)| json_row(place, lines)).collect()
    } else {
        let head =
            ["HOST", "CAPTURE", "STATE", "PACKETS", "DROPPED", "FLOWS", "HTTP", "DNS", "LAST"];
        let rows: Vec<_> = captures.iter().map(|(place, lines)| row(place, lines)).collect();
        output::table(head, &rows)
    };
    output::print(&text).map_err(Failure::Output)
}

fn json_row((host, capture): &(String, String), lines: &CaptureLines) -> String {
    let CaptureLines { flows, http, dns, status, last } = lines;
    let status = status.as_ref().map(|status| {
        let CaptureStatus { time, state, error, stored, dropped } = status;
        json!({ "time": time, "state": state, "error": error, "stored": stored, "dropped": dropped })
    });
    let line = json!({
        "host": host, "capture": capture, "status": status, "flows": flows, "http": http,
        "dns": dns, "last": last,
    });
    format!("{line}\n")
}

fn row((host, capture): &(String, String), lines: &CaptureLines) -> [String; 9] {
    let shown = |text: &str| text.replace(char::is_control, "?");
    let status = lines.status.as_ref();
    let counter = |of: fn(&CaptureStatus) -> u64| {
        status.map_or_else(|| "-".to_owned(), |status| of(status).to_string())
    };
    [
        shown(host),
        shown(capture),
        status.map_or_else(|| "-".to_owned(), |status| shown(&status.state)),
        counter(|status| status.stored),
        counter(|status| status.dropped),
        lines.flows.to_string(),
        lines.http.to_string(),
        lines.dns.to_string(),
        lines.last.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_line_are_read() {
        let line = json!({
            "time": "2026-01-02T03:04:05.000000000Z", "state": "failed", "error": "x",
            "packets": {"stored": 7, "dropped_kernel": 1, "dropped_oversize": 2, "lost_remote": null},
        });
        let status = CaptureStatus::of_line(line.to_string().as_bytes()).unwrap();
        assert_eq!((status.stored, status.dropped, &*status.state), (7, 3, "failed"));
        assert_eq!(status.error.as_deref(), Some("x"));
        for wrong in [&b"{}"[..], b"7", b"", br#"{"packets":{}}"#] {
            assert_eq!(CaptureStatus::of_line(wrong), None);
        }
    }
}
