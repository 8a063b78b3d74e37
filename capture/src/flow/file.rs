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
