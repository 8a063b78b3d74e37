//! TCP from the view of a listener: two endpoints and two streams, without their bytes.
//!
//! A [`Connection`] takes [`Segment`]s and the time, and reports their meaning as
//! [`ConnectionEvent`]s. Streams are lists of [`Extent`](crate::extent::Extent)s that the caller
//! pulls by range from the two [`Assembler`]s. Nothing here does I/O, reads a clock, or looks at
//! the payload. The one exception is [`Bytes`], to see whether two copies of a byte agree.
//!
//! Read RFC 9293 3.5 to 3.10 first, then RFC 7413 (data in a SYN), RFC 1122 4.2.3.6 (keep-alives)
//! and RFC 5961 (resets from others). A listener needs more rules than those. They are described
//! where they are applied: gaps in [`stream`], opening and ending in [`connection`].
//!
//! A listener sees less than an endpoint. Some packets come in another order than at either side,
//! some are not captured at all, sometimes only one direction is, and receivers throw away segments
//! that the listener sees. So nothing here depends on a single packet: a guess can be corrected
//! until it was announced.

pub mod assembler;
pub mod connection;
pub mod segment;
pub mod seq;
pub mod stream;
mod urgent;

pub use assembler::{Absence, Assembler, Bytes, Difference, NoBytes, Policy};
pub use connection::{Connection, Ports};
pub use segment::{
    ConnectionEvent, ConnectionSettings, ConnectionState, Direction, Scale, Segment, SegmentFlags,
    SegmentOrigin, SegmentVerdict, StreamCounters, Urgent,
};
