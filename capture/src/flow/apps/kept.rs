//! What a flow keeps of its application protocols for readers, also after its end.

use protocol::tls::{ClientHello, ServerHello};

use super::http::exchange::Http;

/// The records of one flow.
#[derive(Debug, Default)]
pub(in crate::flow) struct Kept {
    /// Transactions of HTTP, once it was recognized.
    pub(in crate::flow) http: Option<Box<Http>>,
    /// The TLS hellos seen so far.
    pub(in crate::flow) tls: Option<Box<TlsHellos>>,
}

impl Kept {
    /// Returns true if transactions of the flow are recorded.
    pub(in crate::flow) fn has_transactions(&self) -> bool {
        self.http.is_some()
    }

    /// Frees memory kept for growth, when no more records will come.
    pub(in crate::flow) fn shrink(&mut self) {
        if let Some(http) = &mut self.http {
            http.exchanges.shrink_to_fit();
        }
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let http = self.http.as_ref().map_or(0, |http| http.memory());
        http.saturating_add(if self.tls.is_some() { 256 } else { 0 })
    }
}

/// The hellos, which TLS sends in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::flow) struct TlsHellos {
    pub(in crate::flow) client: Option<ClientHello>,
    pub(in crate::flow) server: Option<ServerHello>,
}
