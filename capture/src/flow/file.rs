//! The files of flows, by name, and what stat(2) and readdir(3) say of them.

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
        /// Of the transaction, from 1.
        index: u64,
        /// Of the request or of the response.
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
    /// It has ended, and all of its transactions are there.
    pub is_over: bool,
}

/// A body in a flow's `bodies`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyEntry {
    /// Of the transaction, from 1.
    pub index: u64,
    /// Of the request or of the response.
    pub direction: Direction,
    /// Name of the file.
    pub name: String,
}

/// What stat(2) needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// Bytes that are not in holes.
    pub present: u64,
    /// Time of the last packet that changed it.
    pub modified: Timestamp,
    /// Tells files of the same name apart that begin at different places: another value is another
    /// file, with another inode. 0 for files that always have the same beginning.
    pub beginning: u64,
    /// It does not change any more, but for what the store drops.
    pub is_final: bool,
}

/// Where to go from an offset (lseek(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is there.
    Data,
    /// The next hole; the end is one.
    Hole,
}
