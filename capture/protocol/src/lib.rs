//! Protocols, pure: bytes and time in, values out.
//!
//! ```text
//!   packet ─▶ decode ─▶ tcp ─▶ http
//!                          └─▶ tls, socks
//! ```
//!
//! [`decode`] finds addresses, ports and payload in a packet. [`tcp`] puts the payloads of a
//! connection together to two streams, as [extents](extent::Extent), without a copy of a byte.
//! [`http`] finds the transactions in such a pair of streams; [`tls`] reads what the hellos say in
//! the clear, and [`socks`] what a client asks of a proxy.
//!
//! Nothing here does I/O, reads a clock or holds a lock, and the compiler forbids `unsafe`. All bytes
//! are a stranger's: they never panic, never size an allocation unchecked, never make a loop endless.
//! Every parser has bounds, and says when one was hit.

#![forbid(unsafe_code)]

pub mod decode;
pub mod extent;
pub mod footprint;
pub mod http;
pub mod json;
pub mod linktype;
pub mod socks;
pub mod tcp;
pub mod time;
pub mod tls;
pub mod varint;
