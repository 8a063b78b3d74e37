//! Transactions that ended a short time ago, so that a late or second response can be explained.

use std::collections::VecDeque;
use std::time::Duration;

use super::message::Question;
use super::transaction::DnsTransaction;
use crate::tcp::Direction;
use crate::time::Timestamp;

/// Maximum time after a response at which its query is still recognized.
const PATIENCE: Duration = Duration::from_millis(250);

/// Maximum number of transactions that are remembered of a flow. A second response follows the
/// first at once.
const MAX_RECENT: usize = 32;

/// A transaction that has ended.
#[derive(Clone, Debug)]
pub(super) struct EndedQuery {
    pub(super) asked: Direction,
    pub(super) id: u16,
    pub(super) question: Option<Question>,
    pub(super) index: u64,
    pub(super) at: Timestamp,
    /// Checksum of its response; `None` if it had none.
    pub(super) response: Option<u32>,
    /// It is a response without a query.
    pub(super) is_unasked: bool,
}

/// The latest transactions that have ended.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentQueries {
    ended: VecDeque<EndedQuery>,
}

impl RecentQueries {
    /// Remembers a transaction.
    pub(super) fn add(&mut self, ended: EndedQuery) {
        if self.ended.len() >= MAX_RECENT {
            self.ended.pop_front();
        }
        self.ended.push_back(ended);
    }

    /// The latest transaction that this response may belong to.
    pub(super) fn find(
        &self,
        asked: Direction,
        id: u16,
        question: Option<&Question>,
    ) -> Option<&EndedQuery> {
        let is_same = |ended: &&EndedQuery| {
            ended.asked == asked && ended.id == id && ended.question.as_ref() == question
        };
        self.ended.iter().rev().find(is_same)
    }

    /// The latest response without a query that has the identification and question of this query.
    /// A capture of several queues may have the two in the wrong order.
    pub(super) fn unasked(&self, query: &DnsTransaction) -> Option<&EndedQuery> {
        let ended = self.find(query.asked, query.id, query.question.as_ref());
        let is_near = |at: Timestamp| query.queried.is_some_and(|time| time <= at.plus(PATIENCE));
        ended.filter(|ended| ended.is_unasked && is_near(ended.at))
    }

    /// Heap bytes; an estimate.
    pub(super) fn memory(&self) -> usize {
        let name = |ended: &EndedQuery| ended.question.as_ref().map_or(0, |one| one.name.len());
        let list = self.ended.capacity().saturating_mul(size_of::<EndedQuery>());
        self.ended.iter().map(name).fold(list, usize::saturating_add)
    }
}
