//! The queries of a flow that wait for their response.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{MessageHeader, Question};
use super::transaction::DnsTransaction;
use super::transfer::Transfer;
use crate::footprint::of_tree;
use crate::tcp::Direction;
use crate::time::Timestamp;

/// A query that waits.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) transaction: DnsTransaction,
    /// When it was last asked, or its last response came.
    pub(super) since: Timestamp,
    pub(super) asked_times: u32,
    pub(super) transfer: Transfer,
}

impl Query {
    pub(super) fn new(transaction: DnsTransaction, since: Timestamp) -> Self {
        Self { transaction, since, asked_times: 1, transfer: Transfer::default() }
    }

    fn id(&self) -> QueryId {
        QueryId {
            is_forward: self.transaction.asked == Direction::Forward,
            id: self.transaction.id,
        }
    }
}

/// The identification of a query, and who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct QueryId {
    is_forward: bool,
    id: u16,
}

/// The queries that wait, each with a number that grows with its time.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingQueries {
    queries: BTreeMap<u64, Query>,
    by_id: BTreeSet<(QueryId, u64)>,
    last: u64,
    /// Heap bytes of the transactions.
    bytes: usize,
}

impl WaitingQueries {
    pub(super) fn len(&self) -> usize {
        self.queries.len()
    }

    /// Adds a query as the latest one.
    pub(super) fn add(&mut self, query: Query) {
        self.last = self.last.saturating_add(1);
        self.bytes = self.bytes.saturating_add(query.transaction.memory());
        self.by_id.insert((query.id(), self.last));
        self.queries.insert(self.last, query);
    }

    /// Notes that a query was sent again. Returns `false` if it does not wait.
    pub(super) fn repeat(
        &mut self,
        asked: Direction,
        header: &MessageHeader,
        question: Option<&Question>,
        now: Timestamp,
    ) -> bool {
        let Some(mut query) = self.take(asked, header, question) else { return false };
        query.asked_times = query.asked_times.saturating_add(1);
        query.since = query.since.max(now);
        self.add(query);
        true
    }

    /// Takes out the oldest query with this identification, operation and question.
    pub(super) fn take(
        &mut self,
        asked: Direction,
        header: &MessageHeader,
        question: Option<&Question>,
    ) -> Option<Query> {
        let mut numbers = self.numbers(asked, header.id);
        let number = numbers.find(|number| {
            let query = self.queries.get(number).map(|query| &query.transaction);
            query
                .is_some_and(|one| one.opcode == header.opcode && one.question.as_ref() == question)
        });
        drop(numbers);
        self.take_number(number?)
    }

    /// Takes out the oldest query with this identification.
    pub(super) fn take_any(&mut self, asked: Direction, id: u16) -> Option<Query> {
        let number = self.numbers(asked, id).next();
        self.take_number(number?)
    }

    /// Number of queries with this identification.
    pub(super) fn alike(&self, asked: Direction, id: u16) -> usize {
        self.numbers(asked, id).count()
    }

    /// The index of the oldest transaction with this identification.
    pub(super) fn with_id(&self, asked: Direction, id: u16) -> Option<u64> {
        let number = self.numbers(asked, id).next()?;
        Some(self.queries.get(&number)?.transaction.index)
    }

    /// Takes out the query that has waited longest.
    pub(super) fn take_oldest(&mut self) -> Option<Query> {
        let number = *self.queries.first_key_value()?.0;
        self.take_number(number)
    }

    /// Since when the oldest query has waited.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.queries.first_key_value().map(|(_, query)| query.since)
    }

    /// Heap bytes; an estimate.
    pub(super) fn memory(&self) -> usize {
        of_tree::<u64, Query>(self.queries.len())
            .saturating_add(of_tree::<(QueryId, u64), ()>(self.by_id.len()))
            .saturating_add(self.bytes)
    }

    /// Heap bytes of the transactions.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn numbers(&self, asked: Direction, id: u16) -> impl Iterator<Item = u64> {
        let id = QueryId { is_forward: asked == Direction::Forward, id };
        self.by_id.range((id, 0)..=(id, u64::MAX)).map(|(_, number)| *number)
    }

    fn take_number(&mut self, number: u64) -> Option<Query> {
        let query = self.queries.remove(&number)?;
        self.by_id.remove(&(query.id(), number));
        self.bytes = self.bytes.saturating_sub(query.transaction.memory());
        Some(query)
    }
}
