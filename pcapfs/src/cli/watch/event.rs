//! Events as they are given out: a line of JSON, a text for people, and variables of a command.

use protocol::json::escaped;
use serde_json::{Map, Value};

use crate::cli::outlet::event_kind::EventKind;

/// Maximum number of bytes of a variable: an environment takes 128 KiB for one, and 2 MiB for all
/// (execve(2)).
const MAX_VARIABLE: usize = 4096;

/// Maximum number of variables: no line has half as many fields.
const MAX_VARIABLES: usize = 256;

/// An event.
#[derive(Clone, Debug)]
pub(in crate::cli) struct WatchEvent {
    pub(super) kind: EventKind,
    /// Its place, unique to it; none for a state.
    position: Option<String>,
    /// Its fields, as in the line of the log.
    fields: Value,
    /// The line itself.
    line: Vec<u8>,
}

impl WatchEvent {
    /// The event of a line; `None` if the line is no object.
    pub(in crate::cli) fn of_line(
        kind: EventKind,
        position: String,
        line: Vec<u8>,
    ) -> Option<Self> {
        let fields: Value = serde_json::from_slice(&line).ok()?;
        fields.is_object().then_some(Self { kind, position: Some(position), fields, line })
    }

    /// The event that a capture has another state.
    pub(super) fn of_state(fields: &Map<String, Value>) -> Self {
        let fields = Value::Object(fields.clone());
        let line = protocol::json::line(&fields);
        Self { kind: EventKind::State, position: None, fields, line }
    }

    /// Its fields.
    pub(in crate::cli) const fn fields(&self) -> &Value {
        &self.fields
    }

    /// The line of JSON, with a newline: what it is, its place, and its fields.
    pub(super) fn json(&self) -> Vec<u8> {
        let mut text = format!("{{\"what\":\"{}\",", self.kind.singular()).into_bytes();
        if let Some(position) = &self.position {
            text.extend_from_slice(format!("\"position\":\"{position}\",").as_bytes());
        }
        let rest = self.line.trim_ascii_end();
        text.extend_from_slice(rest.get(1..).unwrap_or_default());
        text.push(b'\n');
        text
    }

    /// The variables of a command, each with its name.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let mut variables = vec![("PCAPFS_WHAT".to_owned(), self.kind.singular().to_owned())];
        if let Some(position) = &self.position {
            variables.push(("PCAPFS_POSITION".to_owned(), position.clone()));
        }
        add_variables(&mut variables, "PCAPFS", &self.fields);
        variables
    }

    /// A line for people, without a newline.
    pub(super) fn text(&self) -> String {
        let capture = self.fields.get("capture").and_then(Value::as_str);
        self.text_at(capture.unwrap_or("-"))
    }

    /// The same, beginning with this place instead of the capture.
    pub(in crate::cli) fn text_at(&self, place: &str) -> String {
        let text = |pointer: &str| match self.fields.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "-".to_owned(),
            Some(other) => other.to_string(),
        };
        let end = |side: &str| {
            let (address, port) =
                (text(&format!("/{side}/address")), text(&format!("/{side}/port")));
            if address.contains(':') {
                format!("[{address}]:{port}")
            } else {
                format!("{address}:{port}")
            }
        };
        let line = match self.kind {
            EventKind::State => {
                let error = self.fields.get("error").and_then(Value::as_str);
                let error = error.map_or_else(String::new, |error| format!(" ({error})"));
                format!("{place} {} -> {}{error}", text("/previous"), text("/state"))
            }
            EventKind::Status => format!(
                "{place} status {}: {} packets, {} dropped by the kernel",
                text("/state"),
                text("/packets/stored"),
                text("/packets/dropped_kernel"),
            ),
            EventKind::Http => format!(
                "{place} http {} {} {}{} {} us, {} -> {}",
                text("/status"),
                text("/method"),
                text("/host"),
                text("/target"),
                text("/duration_us"),
                end("client"),
                end("server"),
            ),
            EventKind::Dns => format!(
                "{place} dns {} {} {} {} us, {} -> {}",
                text("/rcode"),
                text("/name"),
                text("/type"),
                text("/duration_us"),
                end("client"),
                end("server"),
            ),
            EventKind::Flows => format!(
                "{place} {} {} {} {} us, {} -> {}, {} + {} bytes",
                text("/protocol"),
                text("/state"),
                self.fields
                    .pointer("/tls/sni")
                    .map_or_else(|| text("/application"), |_| text("/tls/sni")),
                text("/duration_us"),
                end("client"),
                end("server"),
                text("/client/stream_bytes"),
                text("/server/stream_bytes"),
            ),
        };
        // Most of it is a stranger's text, and terminals obey control characters.
        escaped(line).replace(char::is_control, "?")
    }
}

/// Adds a variable for each text, number and truth value of an object, and of the objects in it.
fn add_variables(variables: &mut Vec<(String, String)>, prefix: &str, value: &Value) {
    let value = match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                add_variables(variables, &format!("{prefix}_{}", name.to_ascii_uppercase()), value);
            }
            return;
        }
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(is_true) => is_true.to_string(),
        Value::Null | Value::Array(_) => return,
    };
    let is_name = prefix.bytes().all(|one| one.is_ascii_alphanumeric() || one == b'_');
    if is_name && variables.len() < MAX_VARIABLES {
        variables.push((prefix.to_owned(), variable(value)));
    }
}

/// A text as a variable can have it.
fn variable(mut text: String) -> String {
    let end = (0..=MAX_VARIABLE).rev().find(|end| text.is_char_boundary(*end));
    if text.len() > MAX_VARIABLE {
        text.truncate(end.unwrap_or(0));
    }
    // A variable ends with the first such character.
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(line: &Value) -> WatchEvent {
        let line = serde_json::to_vec(line).unwrap();
        WatchEvent::of_line(EventKind::Http, "0a.1.http.7".to_owned(), line).unwrap()
    }

    #[test]
    fn an_event_has_variables_and_a_line() {
        let event = event(&json!({
            "capture": "web", "flow": 7, "client": {"address": "fd00::1", "port": 4},
            "server": {"address": "10.0.0.2", "port": 80}, "duration_us": null, "method": "GET",
            "target": "/\u{1b}[2J", "host": "a\u{0}b", "status": 500, "request_headers": [["a", "b"]],
            "odd-name": 1, "state": "x".repeat(5000),
        }));
        let variables = event.variables();
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("PCAPFS_WHAT"), Some("http"));
        assert_eq!(value("PCAPFS_POSITION"), Some("0a.1.http.7"));
        assert_eq!(value("PCAPFS_CLIENT_ADDRESS"), Some("fd00::1"));
        assert_eq!(value("PCAPFS_STATUS"), Some("500"));
        assert_eq!(value("PCAPFS_HOST"), Some("a\u{fffd}b"));
        assert_eq!(value("PCAPFS_STATE").map(str::len), Some(MAX_VARIABLE));
        for name in ["PCAPFS_DURATION_US", "PCAPFS_REQUEST_HEADERS", "PCAPFS_ODD-NAME"] {
            assert_eq!(value(name), None, "{name}");
        }
        let json: Value = serde_json::from_slice(&event.json()).unwrap();
        assert_eq!((&json["what"], &json["position"]), (&json!("http"), &json!("0a.1.http.7")));
        assert_eq!(json["status"], 500);
        assert!(event.json().ends_with(b"\n"));
        let text = event.text();
        assert!(text.starts_with("web http 500 GET a"), "{text}");
        assert!(text.contains("[fd00::1]:4 -> 10.0.0.2:80") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_line_that_is_no_object_is_none() {
        for line in ["", "[1]", "7", "{"] {
            let line = line.as_bytes().to_vec();
            assert!(WatchEvent::of_line(EventKind::Http, String::new(), line).is_none());
        }
    }
}
