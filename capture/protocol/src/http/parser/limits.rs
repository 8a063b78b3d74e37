//! What a stranger can make the parser keep, and the count of how often that bit.
//!
//! Counters belong to one connection and only grow.

/// Bounds of what one connection can make the parser keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, and of the trailer of a chunked body. Browsers allow 256 KiB, servers
    /// rarely more than 64.
    pub head_bytes: usize,
    /// Headers of a message; servers allow about 100.
    pub headers: usize,
    /// Requests without a response yet. Clients that pipeline have a few dozen under way.
    pub pending: usize,
    /// Bytes of the heads of such requests, together.
    pub pending_bytes: usize,
    /// Bytes of the line before a chunk, extensions and blanks included; servers allow 4 to 16 KiB.
    pub chunk_line: usize,
    /// Ranges of a body, each of 16 bytes here; a body of one-byte chunks has one per byte.
    pub body_ranges: usize,
    /// Ranges of the bodies of transactions under way, together: those of four bodies.
    pub pending_ranges: usize,
    /// Codings remembered of a body.
    pub codings: usize,
    /// Bytes of a line before the status line that is skipped.
    pub junk_line: usize,
}

impl Default for Limits {
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

/// How often a bound bit, and other things worth knowing, since the parser was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Heads and trailers longer than [`Limits::head_bytes`].
    pub long_heads: u64,
    /// Headers left out for [`Limits::headers`].
    pub dropped_headers: u64,
    /// Requests given up for [`Limits::pending`], [`Limits::pending_bytes`], and
    /// [`Limits::pending_ranges`].
    pub shed_requests: u64,
    /// Chunk lines longer than [`Limits::chunk_line`].
    pub long_chunk_lines: u64,
    /// Bytes of bodies left out for [`Limits::body_ranges`].
    pub unlisted_bytes: u64,
    /// Heads that only the lax parser could read.
    pub lax_heads: u64,
    /// Times that the next message had to be looked for.
    pub resyncs: u64,
    /// Bytes that belong to no message.
    pub stray_bytes: u64,
}
