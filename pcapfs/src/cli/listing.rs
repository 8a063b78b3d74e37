//! `pcapfs list` and `pcapfs status`: tables for people, JSON for programs.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use serde_json::Value;

use super::client::{self, Client, DaemonSocket};
use super::complete;
use super::order;
use crate::control::messages::{Capture, ListRequest, StatusRequest};
use crate::failure::Failure;
use crate::output;

/// The interval of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Clears a terminal and moves to its first line (ECMA-48 ED and CUP).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Captures to be listed.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Names or numbers of captures [default: all that you may read]
    #[arg(value_name = "[REMOTE:][ALIAS]", add = ArgValueCompleter::new(complete::captures_of))]
    pub(super) captures: Vec<String>,

    #[command(flatten)]
    pub(super) shown: ShowOptions,
}

/// A status to be shown.
#[derive(Debug, Args)]
pub(super) struct StatusRequested {
    /// Name or number of a capture [default: the daemon]
    #[arg(value_name = "[REMOTE:][ALIAS]", add = ArgValueCompleter::new(complete::captures_of))]
    pub(super) capture: Option<String>,

    #[command(flatten)]
    pub(super) shown: ShowOptions,
}

/// How something is shown.
#[derive(Debug, Args)]
pub(super) struct ShowOptions {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    /// Show it once a second, until interrupted
    #[arg(long)]
    pub(super) watch: bool,
}

/// `pcapfs list`.
pub(super) fn list(list: &List, daemon: &DaemonSocket) -> Result<(), Failure> {
    let shown = &list.shown;
    let mut wanted = order::by_daemon(&list.captures, daemon)?;
    if wanted.is_empty() {
        wanted.push((daemon.clone(), vec![String::new()]));
    }
    client::run(async {
        let mut failed = None;
        let mut clients = Vec::new();
        for (daemon, names) in &wanted {
            match client::open(daemon).await {
                Ok(client) => clients.push((daemon, client, names)),
                Err(failure) => report_last(&mut failed, failure),
            }
        }
        let mut page = ShownPage::new(shown);
        loop {
            let mut found = ListedCaptures { failed: failed.take(), ..Default::default() };
            for (daemon, client, names) in &mut clients {
                found.add(daemon, client, names).await;
            }
            let ListedCaptures { captures, note, failed } = found;
            if captures.is_empty()
                && let Some(failure) = failed
            {
                return Err(failure);
            }
            let text = if shown.json { array(&captures) } else { table(&captures)? };
            if !page.show(&text)? || !shown.watch || failed.is_some() {
                if captures.is_empty() && !note.is_empty() && !shown.json {
                    output::say(format_args!("none that you may read: {note}"));
                }
                return failed.map_or(Ok(()), Err);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    })
}

/// Keeps a failure for the caller, who reports the last one, and prints the one before.
fn report_last(failed: &mut Option<Failure>, failure: Failure) {
    if let Some(before) = failed.replace(failure) {
        output::say(before);
    }
}

/// `pcapfs status`.
pub(super) fn status(status: &StatusRequested, daemon: &DaemonSocket) -> Result<(), Failure> {
    let (daemon, capture) = &daemon.of(status.capture.as_deref().unwrap_or_default())?;
    let capture = (*capture).to_owned();
    let shown = &status.shown;
    client::with(daemon, |mut client| async move {
        let mut page = ShownPage::new(shown);
        let interval =
            if shown.watch { u32::try_from(INTERVAL.as_millis()).unwrap_or(0) } else { 0 };
        let request = StatusRequest { capture, interval };
        let answer = client.status(request).await.map_err(client::failure)?;
        let mut answers = answer.into_inner();
        while let Some(answer) = answers.message().await.map_err(client::failure)? {
            let text = if shown.json {
                answer.status + "\n"
            } else if page.is_repeated() {
                paragraphs(&parsed(&answer.status)?)
            } else {
                lines(&parsed(&answer.status)?)
            };
            if !page.show(&text)? {
                return Ok(());
            }
        }
        Ok(())
    })
}

/// The result of a request for the list.
#[derive(Default)]
struct ListedCaptures {
    captures: Vec<Capture>,
    /// About captures that the caller may not read.
    note: String,
    /// The last failure, if some captures cannot be listed; the earlier ones were printed.
    failed: Option<Failure>,
}

impl ListedCaptures {
    /// Adds these captures of a daemon; an empty name means all that the caller may read.
    async fn add(&mut self, daemon: &DaemonSocket, client: &mut Client, names: &[String]) {
        for name in names {
            let request = ListRequest { capture: name.clone() };
            match client.list(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    self.captures.extend(answer.captures.into_iter().map(|mut capture| {
                        capture.alias = daemon.shown(&capture.alias);
                        capture
                    }));
                    self.note = answer.note;
                }
                Err(status) => {
                    let failure = client::explained(daemon, client::failure(status)).await;
                    report_last(&mut self.failed, failure);
                }
            }
        }
    }
}

fn parsed(status: &str) -> Result<Value, Failure> {
    serde_json::from_str(status).map_err(|error| Failure::System(error.into()))
}

/// A JSON array of the captures' `status.json`.
fn array(captures: &[Capture]) -> String {
    let all: Vec<&str> = captures.iter().map(|capture| capture.status.trim_end()).collect();
    format!("[{}]\n", all.join(",\n"))
}

/// A text that is shown once, or repeatedly.
struct ShownPage {
    watch: bool,
    is_terminal: bool,
    shown: usize,
}

impl ShownPage {
    fn new(shown: &ShowOptions) -> Self {
        Self { watch: shown.watch, is_terminal: io::stdout().is_terminal(), shown: 0 }
    }

    /// True if each text replaces the one before, on a screen that may be short.
    const fn is_repeated(&self) -> bool {
        self.watch && self.is_terminal
    }

    /// Shows the text, and returns whether the reader is still there.
    fn show(&mut self, text: &str) -> Result<bool, Failure> {
        let before = if self.is_repeated() {
            CLEAR
        } else if self.shown > 0 && !text.starts_with(['{', '[']) {
            "\n"
        } else {
            ""
        };
        self.shown += 1;
        output::print_on(format!("{before}{text}").as_bytes()).map_err(Failure::Output)
    }
}

/// The captures as a table.
fn table(captures: &[Capture]) -> Result<String, Failure> {
    let (mut rows, mut errors) = (Vec::new(), String::new());
    for capture in captures {
        let status = parsed(&capture.status)?;
        let text = |pointer| match status.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let size = |pointer| bytes(status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0));
        let source = match capture.filter.as_str() {
            "" => capture.source.clone(),
            filter => format!("{} {filter}", capture.source),
        };
        let names = std::iter::once(&capture.alias).chain(&capture.aliases);
        let names = names.map(String::as_str).collect::<Vec<_>>().join(",");
        let count = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let dropped = ["dropped_kernel", "dropped_interface", "dropped_oversize", "lost_remote"]
            .into_iter()
            .map(|name| count(&format!("/packets/{name}")))
            .fold(0_u64, u64::saturating_add);
        if !capture.error.is_empty() {
            errors.push_str(&format!("{}: {}\n", capture.alias, capture.error));
        }
        rows.push([
            capture.id.to_string(),
            names,
            text("/state"),
            text("/packets/retained"),
            size("/bytes/retained"),
            text("/rate/packets_per_second"),
            dropped.to_string(),
            text("/readers/open"),
            text("/readers/lost"),
            format!("{}:{} {}", text("/owner"), text("/group"), text("/mode")),
            source,
        ]);
    }
    let heading = [
        "ID", "ALIAS", "STATE", "PACKETS", "BYTES", "PER S", "DROPPED", "READERS", "LOST",
        "ACCESS", "SOURCE",
    ];
    // Packets decide some of the text of an error, and terminals obey control characters.
    let errors = errors.replace(|c: char| c.is_control() && c != '\n', "?");
    Ok(output::table(heading, &rows) + &errors)
}

/// A number of bytes for people, with binary units.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["", "K", "M", "G", "T", "P"];
    let (mut whole, mut tenths, mut unit) = (count, 0, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit > 0 && whole < 10 {
        format!("{whole}.{tenths}{name}")
    } else {
        format!("{whole}{name}")
    }
}

/// The rate at which this many bytes came in this time, for people: in a second.
pub(super) fn rate(count: u64, time: Duration) -> String {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    format!("{}/s", bytes(count.saturating_mul(1000) / milliseconds))
}

/// A document as lines of a name and a value, without unknown values.
fn lines(value: &Value) -> String {
    let mut found = Vec::new();
    collect(String::new(), value, &mut found);
    let width = found.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    found.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Fields with a line of their own on a screen; other fields that are no objects share one.
const OF_ITS_OWN: [&str; 5] = ["alias", "source", "filter", "state", "error"];

/// A document as lines of a name and its contents, for one screen of 80 columns and 24 lines. It
/// leaves out zero counts of reasons, and fields that are repeated with a unit.
fn paragraphs(value: &Value) -> String {
    let Value::Object(fields) = value else { return lines(value) };
    let (mut rows, mut also) = (Vec::new(), Vec::new());
    for (name, value) in fields {
        let mut found = Vec::new();
        collect(String::new(), &brief(value), &mut found);
        let parts = found.into_iter().map(|(name, value)| format!("{name} {value}"));
        let parts = parts.map(|part| part.trim_start().to_owned());
        if value.is_object() || value.is_array() || OF_ITS_OWN.contains(&name.as_str()) {
            rows.push((name.as_str(), parts.collect::<Vec<_>>()));
        } else {
            also.extend(parts.map(|part| format!("{name} {part}")));
        }
    }
    rows.push(("also", also));
    rows.sort_by_key(|(name, _)| *name != "alias");
    rows.retain(|(_, parts)| !parts.is_empty());
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, parts)| format!("{name:width$}  {}\n", parts.join(", "))).collect()
}

/// An object without the fields that are repeated with a unit in their name, and without zeros in
/// the objects below it.
fn brief(value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let has_unit = |name: &str| {
        ["_bytes", "_packets", "_seconds"]
            .iter()
            .any(|unit| fields.contains_key(&format!("{name}{unit}")))
    };
    let fields = fields.iter().filter(|(name, _)| !has_unit(name));
    let fields = fields.map(|(name, value)| {
        let mut value = value.clone();
        if let Value::Object(below) = &mut value {
            below.retain(|_, value| value.as_u64() != Some(0));
        }
        (name.clone(), value)
    });
    Value::Object(fields.collect())
}

fn collect(name: String, value: &Value, found: &mut Vec<(String, String)>) {
    let below =
        |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(part, value)| collect(below(part), value, found));
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                collect(below(&(index + 1).to_string()), value, found);
            }
        }
        Value::String(text) => found.push((name, text.clone())),
        Value::Bool(_) | Value::Number(_) => found.push((name, value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_are_rounded_down() {
        for (count, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (10 << 10, "10K"),
            ((64 << 20) - 1, "63M"),
            (u64::MAX, "16383P"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_status_leaves_out_unknown_values() {
        let status = json!({"alias": "web", "error": null, "packets": {"seen": 7}, "list": [1]});
        assert_eq!(lines(&status), "alias         web\nlist.1        1\npackets.seen  7\n");
    }

    #[test]
    fn a_status_on_a_screen_has_a_line_for_each_object() {
        let status = json!({"alias": "web", "error": null, "packets": {"seen": 7, "stored": 6}});
        assert_eq!(paragraphs(&status), "alias    web\npackets  seen 7, stored 6\n");
    }

    #[test]
    fn a_status_fits_a_small_screen() {
        let time = "2026-11-29T17:56:54.571778217Z";
        let number = 1_234_567_u64;
        let flows = json!({"open": number, "closed": number, "evicted": number,
                "engine_lag_packets": number, "engine_lost_packets": number,
                "undecodable": number, "gaps": number, "overlap_conflicts": number,
                "dropped": number, "late": number,
                "undecodable_by": {"link_type": 0, "not_ip": number, "truncated": 0,
                    "malformed": 0, "too_deep": 0, "bad_fragment": 0, "fragment": 0,
                    "protocol": number, "late": 0},
                "log_lines_dropped": number,
                "log_lines_dropped_by": {"flows.jsonl": number, "http.jsonl": number,
                    "dns.jsonl": 0},
                "memory": number, "memory_bytes": number});
        let status = json!({
            "id": 1, "alias": "web", "aliases": ["www"], "source": "eth0", "interface": "eth0",
            "filter": "tcp port 80", "state": "running", "error": null, "linktype": "EN10MB",
            "snaplen": 262_144, "precision": "nano", "started": time, "owner": "root",
            "group": "pcapfs", "mode": "0750",
            "packets": {"seen": number, "stored": number, "excluded": number,
                "dropped_kernel": number, "dropped_interface": number,
                "dropped_oversize": number, "lost_remote": number, "retained": number,
                "overwritten": number},
            "bytes": {"stored": number, "retained": number},
            "rate": {"packets_per_second": number, "bits_per_second": number},
            "ring": {"size": number, "size_bytes": number, "segments": 128, "used": 128,
                "oldest": time, "newest": time, "first_number": number, "next_number": number},
            "readers": {"open": 3, "delivered": number, "lost": number,
                "delivered_packets": number, "lost_packets": number},
            "flows": flows,
            "excluded": [{"local": "[::]:2020", "remote": null, "state": "listening"}],
            "interruptions": [],
        });
        let text = paragraphs(&status);
        let rows: usize = text.lines().map(|line| line.len().div_ceil(80)).sum();
        assert!(rows < 24, "{rows} rows:\n{text}");
        assert!(text.starts_with("alias"), "{text}");
        for part in ["undecodable_by.protocol 1234567", "memory_bytes 1234567", "mode 0750"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(!text.contains("memory 1") && !text.contains("too_deep"), "{text}");
    }

    #[test]
    fn losses_and_errors_are_in_the_list() {
        let status = r#"{"state":"running","rate":{"packets_per_second":9},
            "readers":{"open":1,"lost":5},
            "packets":{"retained":7,"dropped_kernel":1,"dropped_interface":2,"dropped_oversize":3}}"#;
        let web = Capture {
            alias: "web".to_owned(),
            error: "gone\x1b".to_owned(),
            status: status.to_owned(),
            ..Capture::default()
        };
        let table = table(std::slice::from_ref(&web)).unwrap();
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        let [heading, row, error] = &rows[..] else { panic!("{table}") };
        // A heading has a blank in it.
        let place = |name| heading.iter().position(|word| *word == name).unwrap() - 1;
        assert_eq!((row[place("DROPPED")], row[place("LOST")]), ("6", "5"), "{table}");
        assert_eq!(error[..], ["web:", "gone?"]);
        assert_eq!(array(&[web.clone(), web]), format!("[{status},\n{status}]\n"));
    }
}
