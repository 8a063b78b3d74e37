//! The kinds of events that outlets follow, and the logs that have them.

use std::fmt;

/// A kind of event of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum EventKind {
    /// Lines of `flows.jsonl`.
    Flows,
    /// Lines of `http.jsonl`.
    Http,
    /// Lines of `dns.jsonl`.
    Dns,
    /// Changes of the state of a capture.
    State,
    /// The counters of a capture, at a moment.
    Status,
}

impl EventKind {
    /// All of them.
    pub(in crate::cli) const ALL: [Self; 5] =
        [Self::Flows, Self::Http, Self::Dns, Self::State, Self::Status];

    /// The word for it in options.
    pub(in crate::cli) const fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Http => "http",
            Self::Dns => "dns",
            Self::State => "state",
            Self::Status => "status",
        }
    }

    /// The word for one event of it.
    pub(in crate::cli) const fn singular(self) -> &'static str {
        match self {
            Self::Flows => "flow",
            Self::Http => "http",
            Self::Dns => "dns",
            Self::State => "state",
            Self::Status => "status",
        }
    }

    /// The name of the log that has its lines.
    pub(in crate::cli) const fn log(self) -> Option<&'static str> {
        match self {
            Self::Flows => Some("flows.jsonl"),
            Self::Http => Some("http.jsonl"),
            Self::Dns => Some("dns.jsonl"),
            Self::State | Self::Status => None,
        }
    }

    /// Reads a list such as `flows,http`, each kind once, of those that there are in `known`.
    ///
    /// # Errors
    /// The first word that is none of them.
    pub(in crate::cli) fn list(text: &str, known: &[Self]) -> Result<Vec<Self>, String> {
        let mut kinds = Vec::new();
        for word in text.split(',') {
            let kind = known.iter().find(|kind| kind.name() == word.trim()).ok_or_else(|| {
                let names: Vec<&str> = known.iter().map(|kind| kind.name()).collect();
                format!("'{}': no kind of event (there are: {})", word.trim(), names.join(", "))
            })?;
            if !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        Ok(kinds)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
