//! The files of flows by name, and their attributes for stat(2) and readdir(3).

use protocol::http::direction::MessageRole;
use protocol::time::Timestamp;

use super::apps::{Application, ApplicationSet};

/// A file of a flow's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum File {
    /// `meta.json`
    Meta,
    /// `packets.pcap`
    Packets,
    /// `client.bin`
    Client,
    /// `server.bin`
    Server,
    /// `http`
    Transcript,
    /// The file of lines of a protocol, such as `http.jsonl`; see [`Application::line_file_name`].
    Lines(Application),
    /// `http-open.jsonl`
    HttpOpen,
    /// `http.har`
    Har,
    /// A file in `bodies/`.
    Body {
        /// Number of the transaction, from 1.
        index: u64,
        /// Whether it is the body of the request or of the response.
        direction: MessageRole,
    },
}

/// An operation on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentOperation {
    /// To ask for its size (stat(2)), or for its data and holes (lseek(2)).
    Look,
    /// To open it.
    Open,
    /// To read from it.
    Read,
}

/// The properties of a kind of file that do not depend on the flow.
struct Properties {
    /// The protocol whose flows have it; `None` if every flow has it.
    application: Option<Application>,
    /// Whether it may later begin elsewhere, see [`Stat::beginning`].
    begins_anew: bool,
    /// The operations for which text must be made or a body decoded.
    is_made_to: &'static [ContentOperation],
}

const PLAIN: Properties = Properties { application: None, begins_anew: false, is_made_to: &[] };
const OF_HTTP: Properties = Properties { application: Some(Application::Http), ..PLAIN };

impl File {
    /// Every file of a flow's own directory with its name, sorted by name.
    #[must_use]
    pub fn named() -> Vec<(&'static str, Self)> {
        let lines = Application::with_lines().map(|(one, name)| (name, Self::Lines(one)));
        let mut named = vec![
            ("client.bin", Self::Client),
            ("http", Self::Transcript),
            ("http-open.jsonl", Self::HttpOpen),
            ("http.har", Self::Har),
            ("meta.json", Self::Meta),
            ("packets.pcap", Self::Packets),
            ("server.bin", Self::Server),
        ];
        named.extend(lines);
        named.sort_by_key(|(name, _)| *name);
        named
    }

    const fn properties(self) -> Properties {
        use ContentOperation::{Look, Open, Read};
        match self {
            Self::Meta | Self::Client | Self::Server => PLAIN,
            Self::Packets => Properties { begins_anew: true, ..PLAIN },
            Self::Lines(Application::Http) => OF_HTTP,
            // The log of the capture has the lines, and drops the oldest ones.
            Self::Lines(application) => {
                Properties { application: Some(application), begins_anew: true, ..PLAIN }
            }
            // It is made piece by piece.
            Self::Transcript => Properties { is_made_to: &[Look, Open, Read], ..OF_HTTP },
            Self::HttpOpen | Self::Har => Properties { is_made_to: &[Look, Open], ..OF_HTTP },
            // The length of a decoded body is kept.
            Self::Body { .. } => Properties { is_made_to: &[Open], ..OF_HTTP },
        }
    }

    /// The protocol whose flows have it; `None` if every flow has it.
    #[must_use]
    pub const fn application(self) -> Option<Application> {
        self.properties().application
    }

    /// Returns `true` if there are flows that do not have it, see [`FlowEntry::has`].
    #[must_use]
    pub const fn is_optional(self) -> bool {
        self.application().is_some()
    }

    /// Returns `true` if it may later begin elsewhere, and is another file then.
    #[must_use]
    pub const fn begins_anew(self) -> bool {
        self.properties().begins_anew
    }

    /// Returns `true` if text must be made or a body decoded for this operation.
    #[must_use]
    pub fn is_made_to(self, operation: ContentOperation) -> bool {
        self.properties().is_made_to.contains(&operation)
    }
}

/// A growing list of lines of a whole capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Log {
    /// `flows.jsonl`
    Flows,
    /// The file of lines of a protocol, such as `http.jsonl`; see [`Application::line_file_name`].
    Lines(Application),
}

impl Log {
    /// Number of logs of a capture.
    pub const COUNT: usize = {
        let (mut count, mut rest) = (1, Application::ALL.as_slice());
        while let [application, others @ ..] = rest {
            if application.line_file_name().is_some() {
                count += 1;
            }
            rest = others;
        }
        count
    };

    /// The protocol that its lines are of; `None` for the log of flows.
    #[must_use]
    pub const fn application(self) -> Option<Application> {
        match self {
            Self::Flows => None,
            Self::Lines(application) => Some(application),
        }
    }
}

/// A flow in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEntry {
    /// From 1, in order of appearance.
    pub id: u64,
    /// Name of its directory.
    pub name: String,
    /// Time of its last packet.
    pub modified: Timestamp,
    /// The protocols that it has files of: `http`, `http.har` and `bodies` of HTTP, and the lines
    /// of each.
    pub applications: ApplicationSet,
    /// Whether it has ended, and all of its transactions are recorded.
    pub is_over: bool,
}

impl FlowEntry {
    /// Returns `true` if its directory has files of this kind.
    #[must_use]
    pub const fn has(&self, file: File) -> bool {
        match file.application() {
            Some(application) => self.applications.has(application),
            None => true,
        }
    }
}

/// A body in a flow's `bodies`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyEntry {
    /// Number of the transaction, from 1.
    pub index: u64,
    /// Whether it is the body of the request or of the response.
    pub direction: MessageRole,
    /// Name of the file.
    pub name: String,
}

/// A file's attributes for stat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// Bytes that are not in holes.
    pub present: u64,
    /// Time of the newest packet that may have changed it.
    pub modified: Timestamp,
    /// Where the file begins. Two files of the same name with different beginnings are different
    /// files, with different inodes. 0 for files that always begin at the same place.
    pub beginning: u64,
    /// Whether it changes no more, except that the store may drop its bytes.
    pub is_final: bool,
}

/// The target of a seek (lseek(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is not in a hole.
    Data,
    /// The next hole; the end of the file counts as a hole.
    Hole,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_made_when_it_is_read_is_made_for_all_operations() {
        let body = File::Body { index: 1, direction: MessageRole::Response };
        for file in File::named().into_iter().map(|(_, file)| file).chain([body]) {
            let is_made = [ContentOperation::Read, ContentOperation::Look, ContentOperation::Open]
                .map(|operation| file.is_made_to(operation));
            assert!(is_made.is_sorted(), "{file:?}: {is_made:?}");
        }
    }
}
