//! The machines and captures that have lines in a stream.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::FleetError;
use super::lines::no_stream;
use crate::cli::nats::connection::Connection;
use crate::cli::nats::protocol::{StreamError, name_of};
use crate::cli::nats::{STREAM, SUBJECTS};
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
    message: Option<MessageTime>,
}

#[derive(Debug, Deserialize)]
struct MessageTime {
    time: String,
}

/// Lines of a capture.
#[derive(Debug, Default)]
struct CaptureLines {
    flows: u64,
    http: u64,
    dns: u64,
    other: u64,
    /// When the server took the last one, RFC 3339.
    last: Option<String>,
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
        let counter = match tokens.next().as_deref() {
            Some("flows") => &mut lines.flows,
            Some("http") => &mut lines.http,
            Some("dns") => &mut lines.dns,
            _ => &mut lines.other,
        };
        *counter = counter.saturating_add(*count);
        if index < MAX_ASKED {
            let question = json!({ "last_by_subj": subject });
            let stored = connection.ask(&format!("STREAM.MSG.GET.{STREAM}"), &question).await;
            let stored: StoredMessage = stored.map_err(FleetError::Server)?;
            // The line may have left the stream in the meantime.
            let time = stored.message.map(|message| message.time);
            lines.last = lines.last.take().max(time);
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

fn show(captures: &BTreeMap<(String, String), CaptureLines>, is_json: bool) -> Result<(), Failure> {
    let mut text = String::new();
    if is_json {
        for ((host, capture), lines) in captures {
            let CaptureLines { flows, http, dns, other, last } = lines;
            let line = json!({
                "host": host, "capture": capture, "flows": flows, "http": http, "dns": dns,
                "other": other, "last": last,
            });
            text.push_str(&format!("{line}\n"));
        }
    } else {
        let rows: Vec<[String; 6]> = captures
            .iter()
            .map(|((host, capture), lines)| {
                [
                    host.replace(char::is_control, "?"),
                    capture.replace(char::is_control, "?"),
                    lines.flows.to_string(),
                    lines.http.to_string(),
                    lines.dns.to_string(),
                    lines.last.clone().unwrap_or_else(|| "-".to_owned()),
                ]
            })
            .collect();
        text = output::table(["HOST", "CAPTURE", "FLOWS", "HTTP", "DNS", "LAST"], &rows);
    }
    output::print(&text).map_err(Failure::Output)
}
