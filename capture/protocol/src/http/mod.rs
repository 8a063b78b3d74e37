//! HTTP/1.x out of two byte streams: bytes, stream offsets and times in, transactions out.
//!
//! ```text
//!   probe ─▶ parser ──transactions──▶ record, transcript, har
//!             │ head   (start lines and headers, strict first, then as browsers read them)
//!             └ framing (length, chunked, until the end)      body ─ decodes when somebody reads
//! ```
//!
//! Nothing here does I/O, reads a clock or keeps a payload. A [`Parser`](parser::Parser) sees
//! every byte of both directions once and remembers *where* things are: heads and bodies are
//! ranges of stream offsets, with the framing of chunked bodies already taken out. Whoever wants
//! the bytes fetches them from the stream ([`body::Streams`]) and decodes them then.
//!
//! What browsers accept is recovered. Where headers contradict the bytes, the bytes decide: a
//! body announced as chunked that does not begin with a chunk is read by its length, a body that
//! lies about its encoding is served as it came.

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
