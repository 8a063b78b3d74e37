//! ZMTP 3.1 (ZeroMQ RFC 37) for a sender: the greeting, the NULL mechanism, and frames. Bytes in,
//! values out, without I/O.
//!
//! ```text
//!   greeting (64 bytes)  ──▶  READY command  ──▶  messages: frames, all but the last with MORE
//! ```
//!
//! A peer may be anyone. Only commands and subscriptions of a bounded length are taken from it.

pub(super) mod command;
pub(super) mod frame;
pub(super) mod greeting;
pub(super) mod subscriptions;

use std::fmt;

/// The kinds of sockets that send here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SenderType {
    /// Each message goes to one peer.
    Push,
    /// Each message goes to each peer that has subscribed to it.
    Pub,
}

impl SenderType {
    /// Its name on the wire.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Push => "PUSH",
            Self::Pub => "PUB",
        }
    }

    /// The kinds of sockets that receive from it (RFC 28, RFC 29).
    pub(super) const fn receivers(self) -> &'static [&'static str] {
        match self {
            Self::Push => &["PULL"],
            Self::Pub => &["SUB", "XSUB"],
        }
    }
}

impl fmt::Display for SenderType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
