//! Finds the request that a response answers, and keeps the transactions under way.
//!
//! Transactions are kept in the order of their index. Each is handed out as soon as both of its
//! directions are done.

use std::ops::Range;

use super::doubt::Hidden;
use super::side::MessagePhase;
use super::{HttpParser, ParserEvent};
use crate::http::body::framed::{Body, Framing};
use crate::http::head::Head;
use crate::http::transaction::{HttpMessage, HttpTransaction, TransactionState};
use crate::time::Timestamp;

/// A transaction under way.
#[derive(Debug)]
pub(super) struct OpenTransaction {
    /// Boxed because it is handed out. Between messages a connection keeps room for some of these.
    pub(super) transaction: Box<HttpTransaction>,
    /// Stream offset up to which the client had seen the responses when it sent the request.
    pub(super) floor: u64,
    /// Requests that may be missing just before it, and had no answer when it was sent.
    pub(super) hidden: Hidden,
    /// Its other half is not known yet, see [`PairingDoubt`](super::doubt::PairingDoubt).
    pub(super) is_in_doubt: bool,
    /// Until the client asks again, its response may turn out to belong to another request, see
    /// [`HttpParser::confirm`].
    pub(super) is_held: bool,
    pub(super) head_bytes: usize,
    /// Heap memory of both heads, in bytes.
    pub(super) heads: usize,
    /// Number of ranges and holes of both bodies.
    pub(super) ranges: usize,
    pub(super) request_done: bool,
    pub(super) response_done: bool,
}

const MAY_BE_BODY: &str =
    "bytes are missing before the response, and what looks like it may be a part of another";

impl OpenTransaction {
    pub(super) fn new(transaction: HttpTransaction) -> Self {
        Self {
            transaction: Box::new(transaction),
            floor: 0,
            hidden: Hidden::default(),
            is_in_doubt: false,
            is_held: false,
            head_bytes: 0,
            heads: 0,
            ranges: 0,
            request_done: false,
            response_done: false,
        }
    }

    /// Returns `true` if the next response may answer this request.
    pub(super) fn is_waiting(&self) -> bool {
        !self.response_done && !self.is_in_doubt && self.transaction.response.is_none()
    }

    /// Returns `true` if a server may send an interim response to this request first.
    pub(super) fn may_have_interim(&self) -> bool {
        self.transaction.response.is_none()
            && self.transaction.request.as_ref().is_some_and(|request| {
                request.body.framing != Framing::None
                    || request.head.as_ref().is_none_or(Head::asks_first)
            })
    }
}

impl HttpParser {
    /// Opens the transaction of a request. Gives up the oldest ones if there are too many. `head`
    /// is `None` if the bytes make no sense as a head.
    pub(super) fn open_request(
        &mut self,
        head: Option<Head>,
        range: Range<u64>,
        first: Timestamp,
        now: Timestamp,
    ) {
        let head_bytes =
            usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        self.pending_bytes = self.pending_bytes.saturating_add(head_bytes);
        self.end_doubt();
        let is_full = |this: &Self| {
            this.open.len() >= this.limits.pending
                || this.pending_bytes > this.limits.pending_bytes
                || this.pending_ranges > this.limits.pending_ranges
        };
        if is_full(self) {
            self.give_up();
        }
        while is_full(self) {
            let oldest = self.open.iter().position(|open| !open.response_done);
            let Some(mut shed) = oldest.and_then(|at| self.open.remove(at)) else { break };
            self.left(&shed);
            if shed.transaction.response.is_none() {
                self.shed = self.shed.saturating_add(1);
            } else {
                self.response.current = 0;
            }
            self.counters.shed_requests = self.counters.shed_requests.saturating_add(1);
            shed.transaction
                .worsen(TransactionState::Truncated, "too many requests were under way");
            self.events.push_back(ParserEvent::Transaction(shed.transaction));
        }
        self.last_index = self.last_index.saturating_add(1);
        let codings = head.as_ref().map(|head| head.codings(self.limits.codings));
        let heads = head.as_ref().map_or(0, Head::memory);
        self.pending_heads = self.pending_heads.saturating_add(heads);
        let body = Body { codings: codings.unwrap_or_default(), ..Body::default() };
        let request =
            HttpMessage { head, head_range: range, body, trailer: None, first, last: now };
        self.request.current = self.last_index;
        self.request.began = true;
        // Response bytes that wait for more bytes count: they were sent before.
        let floor = self.acknowledged.max(self.response.next);
        let hidden = self.hidden_requests(floor);
        let mut transaction = HttpTransaction {
            index: self.last_index,
            request: Some(request),
            ..HttpTransaction::default()
        };
        if std::mem::take(&mut self.request.passed_over) {
            transaction.remark("bytes in front of the request belong to no message");
        }
        self.open.push_back(OpenTransaction {
            floor,
            hidden,
            head_bytes,
            heads,
            ..OpenTransaction::new(transaction)
        });
        self.doubt_request();
    }

    /// Finds the transaction of a response that begins at `at`.
    pub(super) fn pair(&mut self, at: u64) -> u64 {
        let gap = self.response.lost_from.take();
        if let Some(gap) = gap.filter(|_| !self.pipelines) {
            self.trusted = true;
            loop {
                let second = self.waiting().nth(1).map(|open| open.floor);
                if second.is_none_or(|second| second > at || second <= gap) {
                    break;
                }
                let Some(first) = self.waiting_mut() else { break };
                first.response_done = true;
                first.transaction.worsen(TransactionState::Gap, "the response is missing");
            }
            self.emit();
        }
        if self.shed > 0 {
            self.shed = self.shed.saturating_sub(1);
            return self.orphan();
        }
        if let Some(index) = self.pair_in_doubt(gap, at) {
            return index;
        }
        let gapped = self.request.gapped;
        let torn = gapped || self.joined;
        let is_first = self.is_first_answer(gap, at);
        match self.waiting_mut().filter(|open| !torn || open.floor <= at) {
            Some(open) => {
                let index = open.transaction.index;
                if !is_first {
                    open.transaction.worsen(TransactionState::Gap, MAY_BE_BODY);
                }
                self.hold(index);
                index
            }
            None => {
                // Unless the request was lost since then.
                if self.request.lost_from.is_none() {
                    self.contradict();
                }
                self.answer_lost(gap, at);
                self.orphan()
            }
        }
    }

    /// Returns `true` if the head at `at` is the first thing sent after the oldest unanswered
    /// request, if the client waits for answers. Otherwise the answer began in the bytes missing
    /// from `gap` on, and the head may be a part of its body, unless the missing bytes were an
    /// interim response.
    fn is_first_answer(&self, gap: Option<u64>, at: u64) -> bool {
        let oldest = self.waiting().next();
        let is_after = oldest.is_none_or(|open| open.floor >= at);
        gap.is_none() || is_after || self.pipelines || self.may_be_interim(gap, at)
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &OpenTransaction> {
        self.open.iter().filter(|open| open.is_waiting())
    }

    pub(super) fn waiting_mut(&mut self) -> Option<&mut OpenTransaction> {
        self.open.iter_mut().find(|open| open.is_waiting())
    }

    /// Opens a transaction without a request.
    pub(super) fn orphan(&mut self) -> u64 {
        let index = self.alone();
        if let Some(open) = self.open.back_mut() {
            let (state, why) = if self.request.gapped {
                (TransactionState::Gap, "the request is missing")
            } else {
                (TransactionState::Truncated, "the request was not captured")
            };
            open.transaction.worsen(state, why);
        }
        index
    }

    /// Opens a transaction for a response whose request is not known yet.
    pub(super) fn alone(&mut self) -> u64 {
        self.last_index = self.last_index.saturating_add(1);
        let transaction = HttpTransaction { index: self.last_index, ..HttpTransaction::default() };
        self.open
            .push_back(OpenTransaction { request_done: true, ..OpenTransaction::new(transaction) });
        self.last_index
    }

    pub(super) fn respond(&mut self, index: u64, message: HttpMessage) {
        self.responses = self.responses.saturating_add(1);
        self.response.current = index;
        self.response.began = true;
        let passed_over = std::mem::take(&mut self.response.passed_over);
        if let Some(open) = self.open.iter_mut().find(|open| open.transaction.index == index) {
            if open.is_in_doubt {
                // It may wait for long, together with others.
                let range = &message.head_range;
                let bytes = range.end.saturating_sub(range.start);
                open.head_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                self.pending_bytes = self.pending_bytes.saturating_add(open.head_bytes);
            }
            let heads = message.head.as_ref().map_or(0, Head::memory);
            open.heads = open.heads.saturating_add(heads);
            self.pending_heads = self.pending_heads.saturating_add(heads);
            open.transaction.response = Some(message);
            if passed_over {
                open.transaction.remark("bytes in front of the response belong to no message");
            }
        }
    }

    pub(super) fn transaction(&self, index: u64) -> Option<&HttpTransaction> {
        self.open.iter().map(|open| &*open.transaction).find(|one| one.index == index)
    }

    /// Both directions are opaque from here on. Requests without a response never get one.
    pub(super) fn switch(&mut self, request: u64, response: u64) {
        for side in [&mut self.request, &mut self.response] {
            side.phase = MessagePhase::Opaque;
            side.carry = Vec::new();
            side.marks = Vec::new();
            side.current = 0;
        }
        self.give_up();
        for open in &mut self.open {
            open.request_done = true;
            open.response_done = true;
            open.transaction
                .worsen(TransactionState::Truncated, "the connection changed its protocol");
        }
        self.emit();
        self.events.push_back(ParserEvent::Switched { request, response });
    }

    /// Updates the totals for a transaction that is no longer under way.
    fn left(&mut self, open: &OpenTransaction) {
        self.pending_bytes = self.pending_bytes.saturating_sub(open.head_bytes);
        self.pending_heads = self.pending_heads.saturating_sub(open.heads);
        self.pending_ranges = self.pending_ranges.saturating_sub(open.ranges);
    }

    /// Hands out the transactions that ended.
    pub(super) fn emit(&mut self) {
        let mut at = 0_usize;
        while let Some(open) = self.open.get(at) {
            if !(open.request_done && open.response_done) || open.is_held || open.is_in_doubt {
                at = at.saturating_add(1);
                continue;
            }
            if let Some(open) = self.open.remove(at) {
                self.left(&open);
                self.events.push_back(ParserEvent::Transaction(open.transaction));
            }
        }
    }
}
