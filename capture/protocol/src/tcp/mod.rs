//! TCP as seen by somebody who listens: two endpoints, two streams, no bytes.
//!
//! A [`Connection`] takes [`Segment`]s and the time, and says what they mean as [`Event`]s. Streams
//! are lists of [`Extent`](crate::extent::Extent)s that the caller pulls by range from the two
//! [`Assembler`]s. Nothing here does I/O, reads a clock, or looks at a byte of payload, except
//! through [`Bytes`] to see whether two copies of a byte agree.
//!
//! Read RFC 9293 first, 3.5 to 3.10, then RFC 7413 (data in a SYN), RFC 1122 4.2.3.6 (keep-alives)
//! and RFC 5961 (resets from others). The rules that a listener needs beside them stand where they
//! are applied: gaps in [`stream`], opening and ending in [`connection`].
//!
//! A listener sees less than an endpoint: packets in another order than either side, some not at
//! all, one direction only, and segments that the receiver throws away. So that nothing here
//! depends on a single packet: what is guessed can be corrected until it was announced.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod assembler;
pub mod connection;
pub mod segment;
pub mod seq;
pub mod stream;
mod urgent;

pub use assembler::{Absence, Assembler, Bytes, Difference, NoBytes, Policy};
pub use connection::{Connection, Ports};
pub use segment::{
    Counters, Direction, Event, Flags, Scale, Segment, Settings, State, Urgent, Verdict,
};
