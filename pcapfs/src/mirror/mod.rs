//! Captures of other machines as captures of this one.
//!
//! ```text
//!   far daemon ── Follow ──▶ source ──▶ capture::source::Following ──▶ a local ring
//! ```
//!
//! [`written`] is the source as a user writes it, [`connect`] reaches the far daemon, [`source`]
//! receives its packets, and [`status`] is the far side's part of `status.json`. All that makes
//! numbers and losses exact is in the crate `capture`: a packet of another machine is a packet in
//! a local ring.

mod connect;
mod source;
mod status;
mod written;

pub(crate) use source::parse;
