//! HTTP/1.x from two byte streams: takes bytes, stream offsets and times, and returns transactions.
//!
//! ```text
//!   probe ─▶ parser ──transactions──▶ record, transcript, har
//!             │ head   (start lines and headers, strict first, then as browsers read them)
//!             └ framing (length, chunked, until the end)      body ─ decodes when read
//! ```
//!
//! Nothing here does I/O, reads a clock or keeps a payload. A [`HttpParser`](parser::HttpParser)
//! sees every byte of both directions once and remembers *where* things are: heads and bodies are
//! ranges of stream offsets, with the framing of chunked bodies already removed. A reader of a body
//! fetches its bytes from the stream ([`body::Streams`]) and decodes them then.
//!
//! Everything that browsers accept is read. Where headers contradict the bytes, the bytes decide. A
//! body announced as chunked that does not begin with a chunk is read by its length. A body that is
//! not in its announced encoding is returned as it was sent.

pub mod body;
mod chunked;
pub mod direction;
pub mod har;
pub mod head;
pub mod names;
pub mod parser;
pub mod probe;
pub mod record;
mod resync;
pub mod transaction;
pub mod transcript;
