//! The files of flows by name, and their attributes for stat(2) and readdir(3).

use protocol::http::direction::Direction;
use protocol::time::Timestamp;

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
    /// `http.jsonl`
    HttpJsonl,
    /// `http-open.jsonl`
    HttpOpen,
    /// `http.har`
    Har,
    /// A file in `bodies/`.
    Body {
        /// Number of the transaction, from 1.
        index: u64,
        /// Whether it is the body of the request or of the response.
        direction: Direction,
    },
}

/// An operation on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To ask for its size (stat(2)), or for its data and holes (lseek(2)).
    Look,
    /// To open it.
    Open,
    /// To read from it.
    Read,
}

/// The properties of a kind of file that do not depend on the flow.
struct Properties {
    /// Whether only flows with HTTP have it.
    is_of_http: bool,
    /// Whether it may later begin elsewhere, see [`Stat::beginning`].
    begins_anew: bool,
    /// The operations for which text must be made or a body decoded.
    is_made_to: &'static [Operation],
}

const PLAIN: Properties = Properties { is_of_http: false, begins_anew: false, is_made_to: &[] };
const OF_HTTP: Properties = Properties { is_of_http: true, ..PLAIN };

impl File {
    /// Every file of a flow's own directory with its name, sorted by name.
    pub const NAMED: [(&'static str, Self); 8] = [
        ("client.bin", Self::Client),
        ("http", Self::Transcript),
        ("http-open.jsonl", Self::HttpOpen),
        ("http.har", Self::Har),
        ("http.jsonl", Self::HttpJsonl),
        ("meta.json", Self::Meta),
        ("packets.pcap", Self::Packets),
        ("server.bin", Self::Server),
    ];

    const fn properties(self) -> Properties {
        use Operation::{Look, Open, Read};
        match self {
            Self::Meta | Self::Client | Self::Server => PLAIN,
            Self::Packets => Properties { begins_anew: true, ..PLAIN },
            Self::HttpJsonl => OF_HTTP,
            // It is made piece by piece.
            Self::Transcript => Properties { is_made_to: &[Look, Open, Read], ..OF_HTTP },
            Self::HttpOpen | Self::Har => Properties { is_made_to: &[Look, Open], ..OF_HTTP },
            // The length of a decoded body is kept.
            Self::Body { .. } => Properties { is_made_to: &[Open], ..OF_HTTP },
        }
    }

    /// Returns true if only flows with HTTP have it.
    pub(super) const fn is_of_http(self) -> bool {
        self.properties().is_of_http
    }

    /// Returns true if there are flows that do not have it, see [`FlowEntry::has`].
    #[must_use]
    pub const fn is_optional(self) -> bool {
        self.is_of_http()
    }

    /// Returns true if it may later begin elsewhere, and is another file then.
    #[must_use]
    pub const fn begins_anew(self) -> bool {
        self.properties().begins_anew
    }

    /// Returns true if text must be made or a body decoded for this operation.
    #[must_use]
    pub fn is_made_to(self, operation: Operation) -> bool {
        self.properties().is_made_to.contains(&operation)
    }
}

/// A growing list of lines of a whole capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Log {
    /// `flows.jsonl`
    Flows,
    /// `http.jsonl`
    Http,
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
    /// Whether there are `http`, `http.jsonl`, `http.har` and `bodies`.
    pub has_http: bool,
    /// Whether it has ended, and all of its transactions are recorded.
    pub is_over: bool,
}

impl FlowEntry {
    /// Returns true if its directory has files of this kind.
    #[must_use]
    pub const fn has(&self, file: File) -> bool {
        self.has_http || !file.is_of_http()
    }
}

/// A body in a flow's `bodies`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyEntry {
    /// Number of the transaction, from 1.
    pub index: u64,
    /// Whether it is the body of the request or of the response.
    pub direction: Direction,
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
    /// Time of the last packet that changed it.
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
    fn files_are_sorted_by_name() {
        assert!(File::NAMED.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn a_file_that_is_made_when_it_is_read_is_made_for_all_operations() {
        let body = File::Body { index: 1, direction: Direction::Response };
        for file in File::NAMED.map(|(_, file)| file).into_iter().chain([body]) {
            let is_made = [Operation::Read, Operation::Look, Operation::Open]
                .map(|operation| file.is_made_to(operation));
            assert!(is_made.is_sorted(), "{file:?}: {is_made:?}");
        }
    }
}
