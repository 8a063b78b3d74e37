//! DNS over UDP and TCP, with mDNS and LLMNR: takes messages and times, and returns transactions.
//!
//! ```text
//!   probe ─▶ framer (TCP) ─▶ message ─▶ pairing ──transactions──▶ record
//!                               └ name, rdata, service, place, mnemonic
//! ```
//!
//! Nothing here does I/O, reads a clock or keeps a message. The parts of a message (RFC 1035,
//! section 4) are read one by one, so whatever precedes a malformed record is kept. The crate
//! `domain` has the layout of headers, the mnemonics, and Base32 and Base64. Names and the text of
//! record data are written here, because a line of `dns.jsonl` has a limit: [`MAX_LINE`].
//!
//! A query and its response are one [`DnsTransaction`]. A query without a response, and a response
//! without a query, are one too.

mod answers;
mod data;
mod framer;
mod message;
mod mnemonic;
mod name;
mod notes;
mod pairing;
mod place;
pub mod probe;
mod raw;
mod rdata;
mod recent;
pub mod record;
mod service;
#[cfg(test)]
mod tests;
mod transaction;
mod transfer;
mod waiting;

pub use answers::DnsAnswer;
pub use framer::Framer;
pub use message::DnsFlags;
pub use pairing::{DnsCounts, Pairing};
pub use raw::RawMessage;
pub use record::DnsRecord;
pub use transaction::{DnsTransaction, QueryState};

/// Maximum length of a line of `dns.jsonl` in bytes, including its line feed. A message of a few
/// bytes can name a long name many times, so its text must not grow with it.
pub const MAX_LINE: usize = 4096;

/// The ports of DNS (RFC 1035, section 4.2), mDNS (RFC 6762, section 3) and LLMNR (RFC 4795,
/// section 2).
const PORTS: [u16; 3] = [53, MDNS, 5355];

/// The port of mDNS.
const MDNS: u16 = 5353;
