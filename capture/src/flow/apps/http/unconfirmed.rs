//! Transactions that have ended, and whose last bytes their receivers have not acknowledged yet.
//!
//! Until then a copy of these bytes with another content may come, and it is not known which of the
//! two the receiver will take. So a transaction that looks complete waits here before it is
//! recorded. Transactions leave in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use protocol::http::direction::MessageRole;
use protocol::http::head::Head;
use protocol::http::transaction::{HttpMessage, HttpTransaction, TransactionState};
use protocol::tcp::Direction;
use protocol::time::Timestamp;

use crate::flow::apps::dissector::ByteStreams;

/// How long to wait for an acknowledgment after the last byte. A receiver delays it by less than
/// this (RFC 9293 3.8.6.3), so its packet was probably not captured.
const PATIENCE: Duration = Duration::from_millis(500);

/// Maximum number of transactions that wait. Above it, the first one leaves.
const MAX_WAITING: usize = 512;

/// The transactions of one flow that wait.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    waiting: VecDeque<Arc<HttpTransaction>>,
    /// Heap memory of their heads, in bytes.
    heads: usize,
    /// The latest time that is known.
    now: Timestamp,
    /// No acknowledgment will come any more.
    is_over: bool,
}

impl Unconfirmed {
    /// Adds a transaction that has ended.
    pub(super) fn push(&mut self, transaction: Arc<HttpTransaction>) {
        self.heads = self.heads.saturating_add(heads(&transaction));
        self.waiting.push_back(transaction);
    }

    /// The next transaction that need not wait any more. Its request went in direction `request`.
    pub(super) fn pop(
        &mut self,
        request: Direction,
        streams: &dyn ByteStreams,
    ) -> Option<Arc<HttpTransaction>> {
        let first = self.waiting.front()?;
        let may_leave = self.is_over
            || self.waiting.len() > MAX_WAITING
            || due(first) <= self.now
            || is_confirmed(first, request, streams);
        let left = if may_leave { self.waiting.pop_front() } else { None }?;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        self.heads = self.heads.saturating_sub(heads(&left));
        Some(left)
    }

    /// Returns `true` if no transaction waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets time pass.
    pub(super) fn poll(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Lets all transactions leave, those to come as well.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// The time at which the next transaction leaves without an acknowledgment.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.waiting.front().map(|first| due(first))
    }

    /// Bytes of memory on the heap; an estimate.
    pub(super) fn memory(&self) -> usize {
        let places = self.waiting.capacity().saturating_mul(size_of::<Arc<HttpTransaction>>());
        let transactions = self.waiting.len().saturating_mul(size_of::<HttpTransaction>());
        places.saturating_add(transactions).saturating_add(self.heads)
    }
}

/// Bytes of heap memory that the heads of a transaction take; an estimate.
fn heads(transaction: &HttpTransaction) -> usize {
    let messages = [&transaction.request, &transaction.response].into_iter().flatten();
    messages.filter_map(|message| message.head.as_ref()).map(Head::memory).sum()
}

/// The time at which a transaction leaves without an acknowledgment.
fn due(transaction: &HttpTransaction) -> Timestamp {
    let messages = [&transaction.request, &transaction.response].into_iter().flatten();
    messages.map(|message| message.last).max().unwrap_or_default().plus(PATIENCE)
}

/// Returns `true` if both receivers have acknowledged all of a transaction, or if no acknowledgment
/// could improve what is said of it.
fn is_confirmed(
    transaction: &HttpTransaction,
    request: Direction,
    streams: &dyn ByteStreams,
) -> bool {
    transaction.state != TransactionState::Complete
        || [(MessageRole::Request, request), (MessageRole::Response, request.other())]
            .into_iter()
            .all(|(side, direction)| {
                let end = transaction.message(side).map(HttpMessage::span).map(|span| span.end);
                let received = streams.received(direction);
                end.is_none_or(|end| received.is_none_or(|received| end <= received))
            })
}
