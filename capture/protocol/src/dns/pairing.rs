//! Pairs the queries of a flow with their responses.
//!
//! A response belongs to the oldest query of the other side that has the same identification,
//! operation and question and waits. A query that is sent again while it waits is the same
//! transaction. Every message is in a transaction, except those without a header.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::MDNS;
use super::message::{DnsMessage, Question, RecordSummary};
use super::raw::RawMessage;
use super::recent::{EndedQuery, RecentQueries};
use super::transaction::{DnsTransaction, QueryState};
use super::transfer::is_transfer;
use super::waiting::{Query, WaitingQueries};
use crate::tcp::Direction;
use crate::time::Timestamp;

/// How long a query waits for its response. No resolver waits longer: this is the maximum of
/// `resolver-query-timeout` of BIND 9.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Maximum number of queries of a flow that wait. Above it, the oldest is given up. Programs that
/// measure servers have some hundred on one port.
pub(super) const MAX_WAITING: usize = 1024;

/// Maximum number of queries of one side that wait with the same identification. A response is
/// compared with all of them. Clients choose it at random, and a message has up to 32 questions.
pub(super) const MAX_ALIKE: usize = 64;

/// Numbers of a flow's messages and transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsCounts {
    /// Messages with a header.
    pub messages: u64,
    /// Messages too short for a header. They are in no transaction.
    pub malformed: u64,
    /// Transactions that have ended.
    pub transactions: u64,
    /// Those without a response.
    pub unanswered: u64,
    /// Those without a query.
    pub unasked: u64,
}

/// The queries and responses of a flow; see the module's text.
#[derive(Debug)]
pub struct Pairing {
    /// The endpoint that sends [`Direction::Forward`], and the other one.
    ends: [SocketAddr; 2],
    waiting: WaitingQueries,
    recent: RecentQueries,
    finished: VecDeque<DnsTransaction>,
    /// Heap bytes of the transactions in `finished`.
    finished_bytes: usize,
    /// The index of the latest transaction.
    index: u64,
    counts: DnsCounts,
}

impl Pairing {
    /// For a flow between these endpoints, the sender of [`Direction::Forward`] first.
    #[must_use]
    pub fn new(ends: [SocketAddr; 2]) -> Self {
        Self {
            ends,
            waiting: WaitingQueries::default(),
            recent: RecentQueries::default(),
            finished: VecDeque::new(),
            finished_bytes: 0,
            index: 0,
            counts: DnsCounts::default(),
        }
    }

    /// Takes a message that was sent in `direction`. Queries that waited too long by its time are
    /// given up first.
    pub fn push(&mut self, direction: Direction, raw: RawMessage<'_>) {
        self.poll(raw.first);
        let Some(message) = DnsMessage::read(&raw, self.is_mdns()) else {
            self.counts.malformed = self.counts.malformed.saturating_add(1);
            return;
        };
        self.counts.messages = self.counts.messages.saturating_add(1);
        if message.header.is_response {
            self.response(direction, &message, &raw);
        } else {
            self.query(direction, &message, &raw);
        }
    }

    /// Gives up the queries that have waited too long.
    pub fn poll(&mut self, now: Timestamp) {
        while self.deadline().is_some_and(|deadline| deadline <= now)
            && let Some(query) = self.waiting.take_oldest()
        {
            self.give_up(query, format_args!("no response within {} s", PATIENCE.as_secs()));
        }
    }

    /// When [`Pairing::poll`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.waiting.oldest().map(|since| since.plus(PATIENCE))
    }

    /// The flow has ended: no more responses will come.
    pub fn close(&mut self) {
        while let Some(query) = self.waiting.take_oldest() {
            self.give_up(query, format_args!("no response before the flow ended"));
        }
    }

    /// The next transaction that has ended, in order of ending.
    pub fn finished(&mut self) -> Option<DnsTransaction> {
        let transaction = self.finished.pop_front()?;
        self.finished_bytes = self.finished_bytes.saturating_sub(transaction.memory());
        Some(transaction)
    }

    /// Number of queries that wait for their response.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.waiting.len()
    }

    /// Numbers of messages and transactions so far.
    #[must_use]
    pub fn counts(&self) -> DnsCounts {
        self.counts
    }

    /// Heap bytes, including the transactions that were not fetched; an estimate.
    #[must_use]
    pub fn memory(&self) -> usize {
        let finished = self.finished.capacity().saturating_mul(size_of::<DnsTransaction>());
        finished
            .saturating_add(self.finished_bytes)
            .saturating_add(self.waiting.memory())
            .saturating_add(self.recent.memory())
    }

    /// Heap bytes of the transactions that wait, and of those that have ended.
    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> (usize, usize) {
        (self.waiting.bytes(), self.finished_bytes)
    }

    fn is_mdns(&self) -> bool {
        self.ends.iter().any(|end| end.port() == MDNS)
    }

    /// Returns `true` if a response with this identification is one of mDNS, where zero is the only
    /// one and responses need no query: RFC 6762, section 18.1.
    fn is_by_mdns(&self, id: u16) -> bool {
        self.is_mdns() && id == 0
    }

    /// Returns `true` if messages in this direction go to a group.
    fn is_to_group(&self, direction: Direction) -> bool {
        let [forward, backward] = &self.ends;
        let to = match direction {
            Direction::Forward => backward,
            Direction::Backward => forward,
        };
        to.ip().is_multicast() || to.ip() == IpAddr::from([255; 4])
    }

    fn next_index(&mut self) -> u64 {
        self.index = self.index.saturating_add(1);
        self.index
    }

    /// Begins a transaction for each question. A reason that concerns the whole message is in the
    /// last of them.
    fn query(&mut self, direction: Direction, message: &DnsMessage<'_>, raw: &RawMessage<'_>) {
        let records = message.records(None);
        let mut questions = message.questions.iter().cloned().map(Some).collect::<Vec<_>>();
        if questions.is_empty() {
            questions.push(None);
        }
        let last = questions.len().saturating_sub(1);
        for (number, question) in questions.into_iter().enumerate() {
            let is_last = number == last;
            self.ask(direction, message, raw, question, is_last.then_some(&records));
        }
    }

    fn ask(
        &mut self,
        direction: Direction,
        message: &DnsMessage<'_>,
        raw: &RawMessage<'_>,
        question: Option<Question>,
        records: Option<&RecordSummary>,
    ) {
        let header = &message.header;
        let is_to_group = self.is_to_group(direction);
        if !is_to_group && self.waiting.repeat(direction, header, question.as_ref(), raw.last) {
            return;
        }
        let index = self.next_index();
        let mut transaction =
            DnsTransaction::new(index, direction, QueryState::Unanswered, header, question);
        transaction.queried = Some(raw.first);
        if let Some(records) = records {
            message.explain(records, raw, &mut transaction.why);
            let [questions, known, ..] = header.counts;
            if known > 0 && header.opcode == 0 && self.is_mdns() {
                // RFC 6762, section 7.1.
                transaction.why.add(format_args!("{known} answers are known to the client"));
            }
            if questions == 0 && header.opcode == 0 {
                transaction.why.add(format_args!("no question"));
            }
        }
        if is_to_group {
            transaction.why.add(format_args!("asked a group; responses are in other flows"));
            return self.finish(transaction);
        }
        if let Some(ended) = self.recent.unasked(&transaction) {
            let reason = format_args!("transaction {} is an earlier response to it", ended.index);
            transaction.why.add(reason);
        }
        if self.waiting.alike(direction, header.id) >= MAX_ALIKE
            && let Some(query) = self.waiting.take_any(direction, header.id)
        {
            self.give_up(query, format_args!("{MAX_ALIKE} later queries with its id wait"));
        }
        if self.waiting.len() >= MAX_WAITING
            && let Some(query) = self.waiting.take_oldest()
        {
            self.give_up(query, format_args!("{MAX_WAITING} later queries wait"));
        }
        self.waiting.add(Query::new(transaction, raw.last));
    }

    fn response(&mut self, direction: Direction, message: &DnsMessage<'_>, raw: &RawMessage<'_>) {
        let asked = direction.other();
        let header = &message.header;
        let mut paired = None;
        for question in &message.questions {
            let query = self.waiting.take(asked, header, Some(question));
            let Some(mut query) = query else { continue };
            match paired {
                None => {
                    let first = query.transaction.index;
                    paired = Some((first, self.answer(query, message, raw)));
                }
                Some((first, rcode)) => {
                    let answered = format_args!("the answers are those of transaction {first}");
                    query.transaction.why.add(answered);
                    self.answer_too(query, message, raw, rcode);
                }
            }
        }
        if paired.is_some() {
            return;
        }
        // Some errors repeat no question, and later messages of a transfer need not (RFC 5936,
        // section 2.2.2). In mDNS nothing else tells to which query they belong.
        let by_id = match message.questions.first() {
            None if !self.is_by_mdns(header.id) => self.waiting.take_any(asked, header.id),
            Some(_) => self.waiting.take(asked, header, None),
            None => None,
        };
        if let Some(query) = by_id {
            self.answer(query, message, raw);
        } else {
            self.unasked(asked, message, raw);
        }
    }

    /// Gives a query its response. Returns the response code.
    fn answer(
        &mut self,
        mut query: Query,
        message: &DnsMessage<'_>,
        raw: &RawMessage<'_>,
    ) -> Option<u16> {
        let transaction = &mut query.transaction;
        let is_first = transaction.state != QueryState::Answered;
        take_response(transaction, message, raw);
        let is_alike = message.questions.is_empty() == transaction.question.is_none();
        if is_first && !is_alike {
            let side = if message.questions.is_empty() { "response" } else { "query" };
            transaction.why.add(format_args!("paired by id; the {side} shows no question"));
        }
        let question = transaction.question.as_ref();
        if question.is_some_and(|question| is_transfer(question.record_type)) {
            let transfer = &mut query.transfer;
            if !transfer.response(message) {
                let rcode = transaction.rcode;
                query.since = raw.last;
                self.waiting.add(query);
                return rcode;
            }
        }
        let rcode = transaction.rcode;
        self.end(query, Some(crc32fast::hash(raw.bytes)), raw.last);
        rcode
    }

    /// Ends another query that the same response answers. The answers are not repeated.
    fn answer_too(
        &mut self,
        mut query: Query,
        message: &DnsMessage<'_>,
        raw: &RawMessage<'_>,
        rcode: Option<u16>,
    ) {
        let transaction = &mut query.transaction;
        transaction.rcode = rcode;
        transaction.flags = message.header.flags;
        transaction.answered = Some(raw.last);
        transaction.state = QueryState::Answered;
        transaction.answers.total = message.answers_total();
        self.end(query, Some(crc32fast::hash(raw.bytes)), raw.last);
    }

    fn unasked(&mut self, asked: Direction, message: &DnsMessage<'_>, raw: &RawMessage<'_>) {
        let index = self.next_index();
        let question = message.questions.first().cloned();
        let mut transaction =
            DnsTransaction::new(index, asked, QueryState::Unasked, &message.header, question);
        take_response(&mut transaction, message, raw);
        transaction.state = QueryState::Unasked;
        self.explain_unasked(&mut transaction, raw);
        if message.questions.len() > 1 {
            let more = message.questions.len().saturating_sub(1);
            transaction.why.add(format_args!("{more} more questions"));
        }
        transaction.answers.explain(&mut transaction.why);
        // Its repetitions are compared with it, unless they have a query to be compared with.
        let has_ended = self.ended(&transaction, raw.first).is_some();
        if !has_ended && !self.is_by_mdns(transaction.id) {
            self.remember(&transaction, Some(crc32fast::hash(raw.bytes)), raw.last);
        }
        self.finish(transaction);
    }

    /// The transaction that a response without a query repeats or is too late for.
    fn ended(&self, unasked: &DnsTransaction, now: Timestamp) -> Option<&EndedQuery> {
        let ended = self.recent.find(unasked.asked, unasked.id, unasked.question.as_ref());
        ended.filter(|ended| ended.at.plus(PATIENCE) >= now)
    }

    fn explain_unasked(&self, transaction: &mut DnsTransaction, raw: &RawMessage<'_>) {
        let (asked, id) = (transaction.asked, transaction.id);
        let ended = self.ended(transaction, raw.first);
        let why = &mut transaction.why;
        match ended {
            _ if self.is_by_mdns(id) => {}
            Some(EndedQuery { index, response: Some(checksum), .. }) => {
                if *checksum == crc32fast::hash(raw.bytes) {
                    why.add(format_args!("the response of transaction {index} again"));
                } else {
                    why.add(format_args!("a second, different response to transaction {index}"));
                }
            }
            Some(EndedQuery { index, .. }) => {
                why.add(format_args!("too late for transaction {index}"));
            }
            None => match self.waiting.with_id(asked, id) {
                Some(index) => {
                    why.add(format_args!("transaction {index} has its id and asks something else"));
                }
                None => why.add(format_args!("no query was captured before it")),
            },
        }
    }

    /// Ends a query that gets no response, or no further one.
    fn give_up(&mut self, mut query: Query, reason: std::fmt::Arguments<'_>) {
        let transaction = &mut query.transaction;
        let at = query.since.plus(PATIENCE);
        if transaction.state == QueryState::Answered {
            transaction.why.add(format_args!("the transfer did not end"));
            self.end(query, Some(0), at);
        } else {
            transaction.why.add(reason);
            self.end(query, None, at);
        }
    }

    /// Ends a query. `response` is the checksum of its response.
    fn end(&mut self, query: Query, response: Option<u32>, at: Timestamp) {
        let Query { mut transaction, asked_times, transfer, .. } = query;
        if asked_times > 1 {
            transaction.why.add(format_args!("asked {asked_times} times"));
        }
        if transfer.responses > 1 {
            transaction.why.add(format_args!("{} response messages", transfer.responses));
        }
        transaction.answers.explain(&mut transaction.why);
        self.remember(&transaction, response, at);
        self.finish(transaction);
    }

    fn remember(&mut self, transaction: &DnsTransaction, response: Option<u32>, at: Timestamp) {
        self.recent.add(EndedQuery {
            asked: transaction.asked,
            id: transaction.id,
            question: transaction.question.clone(),
            index: transaction.index,
            at,
            response,
            is_unasked: transaction.state == QueryState::Unasked,
        });
    }

    fn finish(&mut self, transaction: DnsTransaction) {
        let counts = &mut self.counts;
        counts.transactions = counts.transactions.saturating_add(1);
        match transaction.state {
            QueryState::Answered => {}
            QueryState::Unanswered => counts.unanswered = counts.unanswered.saturating_add(1),
            QueryState::Unasked => counts.unasked = counts.unasked.saturating_add(1),
        }
        self.finished_bytes = self.finished_bytes.saturating_add(transaction.memory());
        self.finished.push_back(transaction);
    }
}

/// Puts a response into a transaction. Further responses of a transfer add to it.
fn take_response(transaction: &mut DnsTransaction, message: &DnsMessage<'_>, raw: &RawMessage<'_>) {
    let records = message.records(Some(&mut transaction.answers));
    let total = transaction.answers.total;
    transaction.answers.total = total.saturating_add(message.answers_total());
    transaction.rcode = Some(rcode(message, &records));
    transaction.flags = message.header.flags;
    transaction.answered = Some(raw.last);
    transaction.state = QueryState::Answered;
    message.explain(&records, raw, &mut transaction.why);
}

/// The response code with the bits of EDNS.
fn rcode(message: &DnsMessage<'_>, records: &RecordSummary) -> u16 {
    let extended = u16::from(records.extended_rcode.unwrap_or(0));
    extended.wrapping_shl(4) | u16::from(message.header.rcode)
}
