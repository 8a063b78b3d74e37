//! The HTTP transactions of a flow, under way and ended, for its files.

use protocol::http::transaction::HttpTransaction;
use protocol::http::transcript::TransactionProgress;
use protocol::time::Timestamp;

use super::Flow;
use crate::flow::apps::dissector::Dissector;
use crate::flow::apps::http::exchange::{Exchange, TransactionView};
use crate::flow::apps::http::messages::HttpDissector;

impl Flow {
    /// The HTTP transactions under way.
    fn under_way(&self) -> impl Iterator<Item = (&HttpTransaction, TransactionProgress)> {
        self.messages().into_iter().flat_map(HttpDissector::under_way)
    }

    fn messages(&self) -> Option<&HttpDissector> {
        self.app()?.dissector()
    }

    /// Number of HTTP transactions that have begun and have no line in `http.jsonl` yet.
    pub(in crate::flow) fn open_transactions(&self) -> usize {
        let ended = self.kept.http.as_ref().map_or(0, |http| http.transit.len());
        ended.saturating_add(self.messages().map_or(0, HttpDissector::pending))
    }

    /// All HTTP transactions from an index on, in the order in which they began.
    pub(in crate::flow) fn transactions(
        &self,
        from: u64,
    ) -> impl Iterator<Item = TransactionView<'_>> {
        self.kept.http.iter().flat_map(move |http| http.from(from, self.under_way()))
    }

    /// The time of the last HTTP byte; `None` if there was no HTTP.
    pub(in crate::flow) fn http_modified(&self) -> Option<Timestamp> {
        let ended = self.kept.http.as_ref()?.exchanges.last().and_then(Exchange::last);
        let messages = |one: &HttpTransaction| {
            one.request.iter().chain(&one.response).map(|message| message.last).max()
        };
        let under_way = self.under_way().filter_map(|(one, _)| messages(one)).max();
        ended.max(under_way)
    }

    /// The HTTP transaction with this index.
    pub(in crate::flow) fn transaction(&self, index: u64) -> Option<TransactionView<'_>> {
        let http = self.kept.http.as_ref()?;
        if let Some(exchange) = http.exchange(index) {
            return Some(TransactionView::Ended(exchange));
        }
        self.transactions(index).next().filter(|view| view.index() == index)
    }
}
