//! Captures of other machines as captures of this one.
//!
//! ```text
//!   far daemon ── Follow ──▶ source ──▶ capture::source::Following ──▶ a local ring
//! ```
//!
//! [`written`] is the source as a user writes it, [`connect`] reaches the far daemon, [`source`]
//! receives its packets, [`status`] is the far side's part of `status.json`, and
//! [`watch`] looks for all captures of a remote. All that makes
//! numbers and losses exact is in the crate `capture`: a packet of another machine is a packet in
//! a local ring.

mod connect;
mod source;
mod status;
mod watch;
mod written;

pub(crate) use source::parse;
pub(crate) use watch::{MirrorPattern, Watch};
pub(crate) use written::MirrorWords;
