//! Pure protocol code: it takes bytes and times, and returns values.
//!
//! ```text
//!   packet ─▶ decode ─▶ tcp ─▶ http, dns
//!                 │        └─▶ tls, socks
//!                 └─▶ dns
//! ```
//!
//! [`decode`] finds the addresses, ports and payload of a packet. [`tcp`] puts the payloads of a
//! connection together into two streams. A stream is a list of [extents](extent::Extent): no byte
//! is copied. [`http`] finds the transactions in the two streams. [`dns`] finds those in datagrams
//! and in streams. [`tls`] reads the parts of the hellos that are not encrypted. [`socks`] reads a
//! client's request to a proxy.
//!
//! Nothing here does I/O, reads a clock or holds a lock, and the compiler forbids `unsafe`. All
//! input comes from strangers. It never causes a panic, never decides the size of an allocation
//! unchecked, and never makes a loop endless. Every parser has limits, and reports when one was
//! hit.

#![forbid(unsafe_code)]
#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod decode;
pub mod dns;
pub mod extent;
pub mod flow_context;
pub mod footprint;
pub mod http;
pub mod json;
pub mod linktype;
mod marks;
pub mod socks;
pub mod tcp;
pub mod time;
pub mod tls;
pub mod varint;
pub mod verdict;
