//! Applications: the protocol spoken over a TCP flow, recognized by its bytes.
//!
//! [`probing`] looks at the first bytes of both streams until it recognizes the protocol. Then
//! [`messages`] brings HTTP to its parser. [`spoken`] takes a flow from one to the other.
//! [`exchange`] is a transaction as the flow keeps it.

pub(in crate::flow) mod exchange;
pub(in crate::flow) mod messages;
pub(in crate::flow) mod probing;
pub(in crate::flow) mod spoken;

use messages::Messages;
use probing::Probing;

/// The application protocol of a flow.
#[derive(Debug)]
pub(in crate::flow) enum App {
    /// Not known yet.
    Probing(Probing),
    /// HTTP/1.x
    Http(Box<Messages>),
    /// TLS; nothing after its hellos is looked at.
    Tls,
    /// Not recognized, and no longer looked for.
    Unknown,
}
