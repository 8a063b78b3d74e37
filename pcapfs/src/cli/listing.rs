//! `pcapfs list` and `pcapfs status`: tables for people, JSON for programs.

use std::io::{self, IsTerminal};
use std::time::Duration;

use capture::json::escaped;
use serde_json::{Map, Value, json};

use super::args::{Daemon, Shown};
use super::client::{self, Client};
use super::output;
use crate::control::messages::{Capture, ListRequest, StatusRequest};
use crate::daemon::Failure;

/// How often `--watch` looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Clears a terminal and goes to its first line (ECMA-48 ED and CUP).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// `pcapfs list`.
pub(super) fn list(shown: &Shown, daemon: &Daemon) -> Result<(), Failure> {
    let capture = named(shown)?;
    client::with(daemon, |mut client| async move {
        let mut page = Page::new(shown);
        loop {
            let (captures, note) = captures(&mut client, &capture).await?;
            let text = if shown.json {
                let list = captures.iter().map(object).collect::<Result<Vec<_>, _>>()?;
                page.json(&Value::Array(list))?
            } else {
                table(&captures)?
            };
            if !page.show(&text)? || !shown.watch {
                if captures.is_empty() && !note.is_empty() && !shown.json {
                    output::say(format_args!("none that you may read: {note}"));
                }
                return Ok(());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    })
}

/// `pcapfs status`.
pub(super) fn status(shown: &Shown, daemon: &Daemon) -> Result<(), Failure> {
    let capture = named(shown)?;
    client::with(daemon, |mut client| async move {
        let mut page = Page::new(shown);
        let interval =
            if shown.watch { u32::try_from(INTERVAL.as_millis()).unwrap_or(0) } else { 0 };
        let request = StatusRequest { capture, interval };
        let answer = client.status(request).await.map_err(client::failure)?;
        let mut answers = answer.into_inner();
        while let Some(answer) = answers.message().await.map_err(client::failure)? {
            let status = parsed(&answer.status)?;
            let text = if shown.json { page.json(&status)? } else { lines(&status) };
            if !page.show(&text)? {
                return Ok(());
            }
        }
        Ok(())
    })
}

fn named(shown: &Shown) -> Result<String, Failure> {
    let capture = shown.capture.clone().unwrap_or_default();
    client::check_local(&capture)?;
    Ok(capture)
}

/// The captures that the caller may read, and what is said of the others.
async fn captures(client: &mut Client, capture: &str) -> Result<(Vec<Capture>, String), Failure> {
    let request = ListRequest { capture: capture.to_owned() };
    let answer = client.list(request).await.map_err(client::failure)?.into_inner();
    Ok((answer.captures, answer.note))
}

fn parsed(status: &str) -> Result<Value, Failure> {
    serde_json::from_str(status).map_err(|error| Failure::System(error.into()))
}

/// A capture as an object: number, aliases, and its `status.json`.
fn object(capture: &Capture) -> Result<Value, Failure> {
    let mut object = Map::new();
    object.insert("id".to_owned(), json!(capture.id));
    object.insert("aliases".to_owned(), json!(capture.aliases));
    if let Value::Object(status) = parsed(&capture.status)? {
        object.extend(status);
    }
    Ok(Value::Object(object))
}

/// What is shown once, or again and again.
struct Page {
    watch: bool,
    is_terminal: bool,
    shown: usize,
}

impl Page {
    fn new(shown: &Shown) -> Self {
        Self { watch: shown.watch, is_terminal: io::stdout().is_terminal(), shown: 0 }
    }

    /// As a document, or as one line of many.
    fn json(&self, value: &Value) -> Result<String, Failure> {
        let text = if self.watch {
            serde_json::to_string(value)
        } else {
            serde_json::to_string_pretty(value)
        };
        Ok(escaped(text.map_err(|error| Failure::System(error.into()))? + "\n"))
    }

    /// Shows it, and says whether there is somebody to look at the next one.
    fn show(&mut self, text: &str) -> Result<bool, Failure> {
        let before = if self.watch && self.is_terminal {
            CLEAR
        } else if self.shown > 0 && !text.starts_with(['{', '[']) {
            "\n"
        } else {
            ""
        };
        self.shown += 1;
        output::print_on(format!("{before}{text}").as_bytes()).map_err(Failure::System)
    }
}

/// The captures as a table.
fn table(captures: &[Capture]) -> Result<String, Failure> {
    let mut rows = Vec::new();
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
        rows.push([
            capture.id.to_string(),
            names,
            text("/state"),
            text("/packets/retained"),
            size("/bytes/retained"),
            text("/rate/packets_per_second"),
            text("/readers/open"),
            format!("{}:{} {}", text("/owner"), text("/group"), text("/mode")),
            source,
        ]);
    }
    let heading =
        ["ID", "ALIAS", "STATE", "PACKETS", "BYTES", "PER S", "READERS", "ACCESS", "SOURCE"];
    Ok(output::table(heading, &rows))
}

/// A number of bytes as people read it, with binary units.
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

/// A document as lines of a name and a value; what is not known is left out.
fn lines(value: &Value) -> String {
    let mut found = Vec::new();
    collect(String::new(), value, &mut found);
    let width = found.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    found.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
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
    fn a_status_is_lines_without_what_is_not_known() {
        let status = json!({"alias": "web", "error": null, "packets": {"seen": 7}, "list": [1]});
        assert_eq!(lines(&status), "alias         web\nlist.1        1\npackets.seen  7\n");
    }

    #[test]
    fn an_object_is_the_status_and_more() {
        let status = r#"{"alias":"web","state":"running"}"#.to_owned();
        let aliases = vec!["www".to_owned()];
        let capture = Capture { id: 3, aliases, status, ..Capture::default() };
        let expected = json!({"id": 3, "aliases": ["www"], "alias": "web", "state": "running"});
        assert_eq!(object(&capture).unwrap(), expected);
    }
}
