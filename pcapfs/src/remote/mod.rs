//! Other machines: who they are, and how connections to and from them are secured.
//!
//! ```text
//!   identity ──▶ secret_file        tls ──▶ credentials ──▶ secret_file
//!      └──────▶ certificate ◀────────┴────▶ revocation
//! ```
//!
//! [`identity`] makes a certificate authority, the certificate of this machine and those of its
//! clients. [`credentials`] are a certificate and its key, from a directory of these, from one file
//! or from another authority. [`tls`] makes of them what a connection needs, blocking or
//! asynchronous. No connection is without a certificate on both sides, and none is resumed, so that
//! each handshake asks the [`revocation`] list.

pub(crate) mod certificate;
#[allow(dead_code, reason = "the service and the connections to other machines come next")]
pub(crate) mod credentials;
pub(crate) mod identity;
#[allow(dead_code, reason = "the service and the connections to other machines come next")]
pub(crate) mod revocation;
mod secret_file;
#[allow(dead_code, reason = "the service and the connections to other machines come next")]
pub(crate) mod tls;

pub(crate) use secret_file::write_secret;
