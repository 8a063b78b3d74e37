//! Limits of what a stranger can make the parser keep, and counters of how often they were hit.
//!
//! Counters belong to one connection and only grow.

/// Limits of what one connection can make the parser keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParserLimits {
    /// Bytes of a head, and of the trailer of a chunked body. Browsers allow 256 KiB, servers
    /// rarely more than 64 KiB.
    pub head_bytes: usize,
    /// Number of headers of a message. Servers allow about 100.
    pub headers: usize,
    /// Number of requests without a response yet. Clients that pipeline have a few dozen under way.
    pub pending: usize,
    /// Bytes of all heads of such requests.
    pub pending_bytes: usize,
    /// Bytes of the line before a chunk, including extensions and blanks. Servers allow 4 to 16
    /// KiB.
    pub chunk_line: usize,
    /// Ranges of a body, 16 bytes each. A body of one-byte chunks has one range per byte.
    pub body_ranges: usize,
    /// Ranges of all bodies of transactions under way: as many as those of four bodies.
    pub pending_ranges: usize,
    /// Number of codings remembered of a body.
    pub codings: usize,
    /// Bytes of a line before the status line that is skipped.
    pub junk_line: usize,
}

impl Default for ParserLimits {
    fn default() -> Self {
        Self {
            head_bytes: 256 << 10,
            headers: 1000,
            pending: 256,
            pending_bytes: 1 << 20,
            chunk_line: 16 << 10,
            body_ranges: 1 << 16,
            pending_ranges: 1 << 18,
            codings: 16,
            junk_line: 256,
        }
    }
}

/// How often a limit was hit, and other useful counts, since the parser was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ParserCounters {
    /// Heads and trailers longer than [`ParserLimits::head_bytes`].
    pub long_heads: u64,
    /// Headers left out because of [`ParserLimits::headers`].
    pub dropped_headers: u64,
    /// Requests given up because of [`ParserLimits::pending`], [`ParserLimits::pending_bytes`], and
    /// [`ParserLimits::pending_ranges`].
    pub shed_requests: u64,
    /// Chunk lines longer than [`ParserLimits::chunk_line`].
    pub long_chunk_lines: u64,
    /// Bytes of bodies left out because of [`ParserLimits::body_ranges`].
    pub unlisted_bytes: u64,
    /// Heads that only the lax parser could read.
    pub lax_heads: u64,
    /// How often the next message had to be searched for.
    pub resyncs: u64,
    /// Bytes that belong to no message.
    pub stray_bytes: u64,
}
