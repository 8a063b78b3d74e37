//! TLS in flows: the two hellos, for the names that they have in the clear.

use protocol::http::probe::{self, ProxyLine};
use protocol::tls::{self, Outcome};

use super::dissector::{Answer, Boundary, Dissector, Opening, Protocol, Start};
use super::kept::{Kept, TlsHellos};

/// TLS.
#[derive(Debug)]
pub(in crate::flow) struct Tls;

impl Protocol for Tls {
    /// Collects hellos. They may follow another protocol, as with STARTTLS.
    fn probe(&self, opening: &Opening<'_>, kept: &mut Kept) -> Answer {
        if opening.boundary == Boundary::Segment {
            return Answer::No;
        }
        let bytes = match probe::proxy_line(opening.bytes) {
            ProxyLine::Whole(len) => opening.bytes.get(len..).unwrap_or_default(),
            ProxyLine::Begun | ProxyLine::No => opening.bytes,
        };
        let (answer, is_client) = match tls::hello(bytes) {
            Outcome::Client(hello) => {
                kept.tls.get_or_insert_default().client.get_or_insert(hello);
                (Answer::No, true)
            }
            Outcome::Server(hello) => {
                kept.tls.get_or_insert_default().server.get_or_insert(hello);
                (Answer::No, false)
            }
            Outcome::NotYet => (Answer::NotYet, false),
            Outcome::No => (Answer::No, false),
        };
        match kept.tls.as_deref() {
            Some(TlsHellos { client: Some(_), server: Some(_) }) => Answer::Yes { is_client },
            _ => answer,
        }
    }

    /// Nothing after the hellos is in the clear.
    fn begin(&self, _start: Start, _kept: &mut Kept) -> Option<Box<dyn Dissector>> {
        None
    }
}
