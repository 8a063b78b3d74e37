//! Applications: what speaks over a TCP flow, found out from its bytes.
//!
//! [`probing`] looks at the first bytes of both streams until it knows. Then [`messages`] brings HTTP
//! to its parser. [`spoken`] takes a flow from one to the other. [`exchange`] is a transaction as the
//! flow keeps it.

pub(in crate::flow) mod exchange;
pub(in crate::flow) mod messages;
pub(in crate::flow) mod probing;
pub(in crate::flow) mod spoken;

use messages::Messages;
use probing::Probing;

/// What a flow speaks.
#[derive(Debug)]
pub(in crate::flow) enum App {
    /// Not known yet.
    Probing(Probing),
    /// HTTP/1.x
    Http(Box<Messages>),
    /// TLS, of which nothing more is looked at.
    Tls,
    /// Not known, and not looked for any more.
    Unknown,
}
