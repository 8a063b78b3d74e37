//! Other machines: who they are, and how connections to and from them are secured.
//!
//! ```text
//!                        connect ──▶ remotes
//!                           │ └────▶ error
//!   identity ──▶ secret_file│        ▲
//!      └──────▶ certificate ▼        │
//!                     ▲    tls ──▶ credentials, revocation
//!                     └─────┘
//! ```
//!
//! [`identity`] makes a certificate authority, the certificate of this machine and those of its
//! clients. [`credentials`] are a certificate and its key, from a directory of these, from one file
//! or from another authority. [`tls`] makes of them what a connection needs, blocking or
//! asynchronous. [`remotes`] are the names that other machines have here, [`connect`] makes a
//! connection to one, and [`error`] says why there is none. [`over_ip`] is the same for connections
//! that carry savefiles. No connection is without a certificate on both sides, and none is resumed,
//! so that each handshake asks the [`revocation`] list.

pub(crate) mod certificate;
pub(crate) mod connect;
pub(crate) mod credentials;
pub(crate) mod error;
pub(crate) mod identity;
pub(crate) mod over_ip;
pub(crate) mod remotes;
pub(crate) mod revocation;
mod secret_file;
pub(crate) mod tls;

/// The port of the control service over TLS.
pub(crate) const DEFAULT_PORT: u16 = 2020;

pub(crate) use secret_file::{read_secret, write_secret};
