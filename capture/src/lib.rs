//! Packets in, files out: the engine below pcapfs.
//!
//! ```text
//!   source ──packets──▶ ring ◀──cursor── every reader, each at its own place
//!                      savefile ◀──┘
//! ```
//!
//! One writer, many cursors. A [source] hands packets to the one [writer](ring::Writer) of
//! a [ring], whose segments hold pcap records exactly as a savefile does; a
//! [savefile](savefile::Savefile) that is mounted is its own, finished ring. Both are a
//! [`store::Store`], and everything that reads is a [`cursor::Cursor`] over a store.
//!
//! The protocols are a crate of their own, [`protocol`], without I/O and without a clock. [`flow`]
//! runs them over a store, as one more cursor: flows with their packets, streams and transactions,
//! as views of what the store retains.
//!
//! Promises, each with a test:
//!
//! * A slow cursor never slows the writer or another cursor. It is lapped, continues at a record
//!   boundary, and knows exactly how many packets it lost.
//! * What a cursor has handed out at any moment is a prefix of a well-formed savefile.
//! * Counters add up, whenever they are read ([`pipeline::Counters`]).
//! * Flows never hold up the capture, and stay within their bounds ([`flow::Limits`]).
//! * Bytes from the wire or from a foreign file never panic and never size an allocation unchecked.
//!
//! `unsafe` lives in [`ring`]'s map, [`savefile`]'s map, the signal handler that guards both, and
//! the calls into libpcap below [`source`] and [`filter`], nowhere else.

pub mod bell;
pub mod clock;
pub mod cursor;
pub mod filter;
pub mod flow;
pub mod hole;
mod libpcap;
pub mod pipeline;
mod priority;
pub mod record;
pub mod ring;
pub mod savefile;
mod sigbus;
pub mod source;
pub mod store;
