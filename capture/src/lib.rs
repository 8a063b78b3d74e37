//! Packets in, files out: the engine below pcapfs.
//!
//! ```text
//!   source ──packets──▶ ring ◀──cursor── every reader, each at its own place
//!                      savefile ◀──┘
//! ```
//!
//! One writer, many cursors. A [source] hands packets to the only [writer](ring::Writer) of a
//! [ring], whose segments hold pcap records exactly as a savefile does. A mounted
//! [savefile](savefile::Savefile) is treated as a finished ring. Both are a [`store::Store`], and
//! every reader is a [`cursor::Cursor`] over a store.
//!
//! The protocols are a separate crate, [`protocol`], without I/O and without a clock. [`flow`] runs
//! them over a store, as one more cursor. It shows flows with their packets, streams and
//! transactions, as views of what the store retains.
//!
//! Promises, each with a test:
//!
//! * A slow cursor never slows the writer or another cursor. The writer laps it; it continues at a
//!   record boundary, and knows exactly how many packets it lost.
//! * At any moment, the bytes that a cursor has handed out are a prefix of a well-formed savefile.
//! * Counters add up, whenever they are read ([`pipeline::PacketCounters`]).
//! * Flows never hold up the capture, and stay within their limits ([`flow::FlowLimits`]).
//! * Bytes from the wire or from a foreign file never cause a panic, and never size an allocation
//!   unchecked.
//!
//! `unsafe` occurs in [`ring`]'s map, in [`savefile`]'s map, in the signal handler that guards
//! both, and below [`source`] and [`filter`] in the blocks of a packet socket, the memory of AF_XDP and
//! the calls into libpcap, and in the prefetches; nowhere else.

pub mod bell;
pub mod clock;
pub mod cursor;
pub mod filter;
pub mod flow;
pub mod hole;
pub mod injection;
mod libpcap;
pub mod own_transport;
pub mod pipeline;
mod prefetch;
mod priority;
mod random;
pub mod record;
pub mod ring;
pub mod savefile;
mod sigbus;
pub mod source;
pub mod store;
