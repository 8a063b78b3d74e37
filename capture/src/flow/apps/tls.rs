//! TLS in flows: the two hellos, for the names that they have in the clear.

use protocol::http::probe::{self, ProxyLine};
use protocol::tls::{self, HelloOutcome};

use super::Application;
use super::dissector::{
    Boundary, Dissector, DissectorStart, ProbeAnswer, ProbedBytes, StreamProtocol,
};
use super::kept::{FlowRecords, TlsHellos};

/// TLS.
#[derive(Debug)]
pub(in crate::flow) struct Tls;

impl StreamProtocol for Tls {
    fn application(&self) -> Application {
        Application::Tls
    }

    /// Collects hellos. They may follow another protocol, as with STARTTLS.
    fn probe(&self, opening: &ProbedBytes<'_>, kept: &mut FlowRecords) -> ProbeAnswer {
        if opening.boundary == Boundary::Segment {
            return ProbeAnswer::No;
        }
        let bytes = match probe::proxy_line(opening.bytes) {
            ProxyLine::Whole(len) => opening.bytes.get(len..).unwrap_or_default(),
            ProxyLine::Begun | ProxyLine::No => opening.bytes,
        };
        let (answer, is_client) = match tls::hello(bytes) {
            HelloOutcome::Client(hello) => {
                kept.tls.get_or_insert_default().client.get_or_insert(hello);
                (ProbeAnswer::No, true)
            }
            HelloOutcome::Server(hello) => {
                kept.tls.get_or_insert_default().server.get_or_insert(hello);
                (ProbeAnswer::No, false)
            }
            HelloOutcome::NotYet => (ProbeAnswer::NotYet, false),
            HelloOutcome::No => (ProbeAnswer::No, false),
        };
        match kept.tls.as_deref() {
            Some(TlsHellos { client: Some(_), server: Some(_) }) => ProbeAnswer::Yes { is_client },
            _ => answer,
        }
    }

    /// Nothing after the hellos is in the clear.
    fn begin(&self, _start: DissectorStart, _kept: &mut FlowRecords) -> Option<Box<dyn Dissector>> {
        None
    }
}
