//! Finds out whether the client pipelines, and which messages a gap may have swallowed if it does.
//!
//! If a client waits for each answer, it is always clear which request a response answers. If it
//! does not wait, a gap that may have swallowed whole messages leads to [`PairingDoubt`]. A client
//! is assumed to wait until it is seen not to.

use super::HttpParser;
use super::doubt::{Decision, Hidden, PairingDoubt};
use super::pairing::OpenTransaction;
use super::side::MessagePhase;
use crate::http::direction::MessageRole;
use crate::http::transaction::{HttpTransaction, TransactionState};

/// Bytes of the shortest response that another one can follow: a status line, `HTTP/1.1 204`, and
/// an empty line (RFC 9112, sections 4 and 6.3).
const SHORTEST_RESPONSE: u64 = 16;

/// Bytes of the shortest request that another one can follow: `GET / HTTP/1.1` with an empty
/// `Host`, which is mandatory (RFC 9112, section 3.2). A line may end with LF alone.
const SHORTEST_REQUEST: u64 = 22;

/// Maximum expected length of an interim response in bytes: one line, and hints for a dozen links.
const LONGEST_INTERIM: u64 = 2048;

const UNKNOWN_RESPONSE: &str =
    "messages are missing, and which response answers this request is not known";
const UNKNOWN_REQUEST: &str = "messages are missing, and which request this answers is not known";

/// The state of both directions when a gap of the requests began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestGap {
    /// A request begins in the gap, or in the bytes just before it.
    pub(super) begins_request: bool,
    /// Number of requests without a response.
    pub(super) waiting: u64,
    /// Number of responses that had begun, and of gaps among them.
    pub(super) responses: u64,
    pub(super) response_gaps: u64,
}

/// Maximum number of messages that begin in this many missing bytes. Captured bytes after them
/// begin none.
pub(super) fn lost_messages(direction: MessageRole, bytes: u64) -> u64 {
    bytes.div_ceil(match direction {
        MessageRole::Request => SHORTEST_REQUEST,
        MessageRole::Response => SHORTEST_RESPONSE,
    })
}

impl HttpParser {
    /// Requests that may be missing before the one that begins now, and had no answer when it was
    /// sent. Notes whether the client pipelines.
    pub(super) fn hidden_requests(&mut self, floor: u64) -> Hidden {
        if !self.pipelines && self.asks_before_the_answer(floor) {
            self.contradict();
            self.pipelines = true;
            if self.trusted {
                // It is no longer known how many messages were missing then.
                self.lose_hope();
            }
        }
        self.confirm();
        if self.request.lost_from.take().is_none() {
            return Hidden::default();
        }
        self.pipelines |= self.has_skipped_an_answer();
        if self.pipelines || floor <= self.request.lost_floor {
            self.request.lost.without(std::mem::take(&mut self.lost_answers))
        } else {
            self.trusted = true;
            self.is_unproven = true;
            Hidden::default()
        }
    }

    /// Holds a transaction back if its response is the first one after missing requests.
    pub(super) fn hold(&mut self, index: u64) {
        if std::mem::take(&mut self.is_unproven)
            && let Some(open) = self.open.iter_mut().find(|open| open.transaction.index == index)
        {
            open.is_held = true;
        }
    }

    /// The client has asked again, or no more bytes come: transactions that were held back are
    /// right.
    pub(super) fn confirm(&mut self) {
        for open in &mut self.open {
            open.is_held = false;
        }
        self.emit();
    }

    /// More responses than requests came, or a request came before its time: the client
    /// pipelines. A transaction that was held back may have the answer to a missing request.
    pub(super) fn contradict(&mut self) {
        let mut is_wrong = false;
        for open in self.open.iter_mut().filter(|open| open.is_held) {
            is_wrong = true;
            open.is_held = false;
            let why =
                "requests are missing before this one, and the response may answer one of them";
            open.transaction.worsen(TransactionState::Gap, why);
        }
        if is_wrong {
            self.pipelines = true;
            self.lose_hope();
        }
    }

    /// Returns `true` if the client cannot have all earlier answers yet when it sends a request,
    /// having seen the responses up to `floor`.
    fn asks_before_the_answer(&self, floor: u64) -> bool {
        match self.response.phase {
            MessagePhase::Head(_)
            | MessagePhase::Length(_)
            | MessagePhase::Data(_)
            | MessagePhase::Size => true,
            // All responses up to here were captured.
            MessagePhase::Start
                if self.response.lost_from.is_none() && floor <= self.response.next =>
            {
                self.waiting().next().is_some()
            }
            _ => self.waiting().any(|open| open.floor == floor),
        }
    }

    /// Returns `true` if requests are missing, and fewer responses came since then than a client
    /// that waits for each must have seen.
    fn has_skipped_an_answer(&self) -> bool {
        let then = &self.request_gap;
        then.begins_request
            && then.response_gaps == self.response_gaps
            && self.responses.saturating_sub(then.responses) <= then.waiting
    }

    /// The transaction of the response at `at`, if it may not be the oldest one without a response.
    /// `gap` is the offset of a gap that may have swallowed heads.
    pub(super) fn pair_in_doubt(&mut self, gap: Option<u64>, at: u64) -> Option<u64> {
        self.end_doubt();
        let swallowed = self.swallowed(gap, at);
        if self.doubt.is_none() {
            if self.is_torn(swallowed, at) {
                self.leave_unanswered();
                let index = self.alone();
                self.part(index, UNKNOWN_REQUEST);
                return Some(index);
            }
            self.begin_doubt(swallowed, at)?;
        }
        let unseen = self.unseen_requests();
        let index = self.alone();
        if let Some(open) = self.open.back_mut() {
            open.is_in_doubt = true;
        }
        if let Some(doubt) = &mut self.doubt {
            doubt.response(index, at, swallowed, unseen);
        }
        Some(self.decide().filter(|(response, _)| *response == index).map_or(index, |pair| pair.1))
    }

    /// Notes a response without a request, and others before it that may have been swallowed: they
    /// answer requests in the open gap of the requests.
    pub(super) fn answer_lost(&mut self, gap: Option<u64>, at: u64) {
        if self.request.lost_from.is_some() {
            self.lost_answers = self.lost_answers.and(self.swallowed(gap, at)).and(Hidden::ONE);
        }
    }

    /// Returns `true` if a waiting client has asked just once since requests were missing, and the
    /// answer may be missing too. Then the response at `at` may answer another request.
    fn is_torn(&self, swallowed: Hidden, at: u64) -> bool {
        let mut waiting = self.waiting();
        let first = waiting.next().filter(|open| open.floor < at && !open.hidden.is_possible());
        let is_alone = first.is_some() && waiting.next().is_none();
        is_alone && swallowed.is_possible() && self.request.gapped && !self.pipelines
    }

    /// Begins to doubt if a response at `at` may answer one of several requests.
    fn begin_doubt(&mut self, swallowed: Hidden, at: u64) -> Option<()> {
        let is_hidden = self.waiting().next()?.hidden.is_possible();
        if !is_hidden && !swallowed.is_possible() {
            return None;
        }
        let possible = self.waiting().filter(|open| open.floor <= at).take(2).count();
        let may_be_unseen = self.pipelines && self.request.lost_from.is_some();
        let is_doubtful = is_hidden || possible == 2 || possible == 1 && may_be_unseen;
        if !is_doubtful {
            return None;
        }
        let mut doubt = PairingDoubt::begin();
        for open in self.open.iter_mut().filter(|open| open.is_waiting()) {
            doubt.request(open.transaction.index, open.floor, open.hidden);
            open.is_in_doubt = true;
        }
        self.doubt = Some(Box::new(doubt));
        Some(())
    }

    /// Adds a request that was opened while others are in doubt.
    pub(super) fn doubt_request(&mut self) {
        let (Some(doubt), Some(open)) = (&mut self.doubt, self.open.back_mut()) else { return };
        open.is_in_doubt = true;
        doubt.request(open.transaction.index, open.floor, open.hidden);
        self.decide();
    }

    /// Responses that a gap from `gap` to `at` may have swallowed.
    fn swallowed(&self, gap: Option<u64>, at: u64) -> Hidden {
        if gap.is_none() {
            return Hidden::default();
        }
        let lost = self.response.lost;
        Hidden { least: if self.may_be_interim(gap, at) { 0 } else { lost.least }, ..lost }
    }

    /// Returns `true` if the missing bytes between `gap` and `at` are so few that they may have
    /// been only an interim response, or part of one.
    pub(super) fn may_be_interim(&self, gap: Option<u64>, at: u64) -> bool {
        gap.is_some_and(|gap| at.saturating_sub(gap) <= LONGEST_INTERIM)
            && (self.has_interim || self.open.iter().any(OpenTransaction::may_have_interim))
    }

    /// Maximum number of requests that the server may have, but not the parser.
    fn unseen_requests(&self) -> u64 {
        let side = &self.request;
        let lost = if side.lost_from.is_some() { side.lost.most } else { 0 };
        let is_partial = matches!(side.phase, MessagePhase::Head(_) | MessagePhase::Lost)
            || !side.carry.is_empty();
        lost.saturating_add(u64::from(is_partial))
    }

    /// The response that begins may answer no request, so its number proves nothing.
    pub(super) fn answers_nothing(&mut self) {
        let is_torn = self.pipelines && self.response.lost_from.is_some();
        if self.doubt.is_some() || is_torn {
            self.lose_hope();
        }
    }

    /// Gives up hope: no pair will be known from here on.
    fn lose_hope(&mut self) {
        if let Some(mut doubt) = self.doubt.take() {
            let mut decisions = Vec::new();
            doubt.give_up(&mut decisions);
            self.carry_out(decisions);
        }
        self.leave_unanswered();
        self.doubt = Some(Box::new(PairingDoubt::without_hope()));
    }

    /// Ends all waiting, because no more bytes come or because it takes too much room.
    pub(super) fn give_up(&mut self) {
        self.decide();
        if let Some(doubt) = &mut self.doubt {
            let mut decisions = Vec::new();
            doubt.give_up(&mut decisions);
            self.carry_out(decisions);
        }
    }

    /// Carries out the certain decisions. Returns the last response that was paired, and its
    /// transaction.
    fn decide(&mut self) -> Option<(u64, u64)> {
        let doubt = self.doubt.as_mut()?;
        let decisions = doubt.decide();
        self.carry_out(decisions)
    }

    /// Ends the doubt if everything is certain. This waits until the next message begins: until
    /// then the last response may turn out to be an interim one.
    pub(super) fn end_doubt(&mut self) {
        if self.doubt.as_ref().is_some_and(|doubt| doubt.is_over()) {
            self.doubt = None;
            for open in &mut self.open {
                open.is_in_doubt = false;
                open.hidden = Hidden::default();
            }
        }
    }

    fn carry_out(&mut self, decisions: Vec<Decision>) -> Option<(u64, u64)> {
        let mut last = None;
        for decision in decisions {
            match decision {
                Decision::Pair { request, response } => {
                    self.join(request, response);
                    last = Some((response, request));
                }
                Decision::Unanswered(index) => {
                    self.leave(index, "the response is missing");
                }
                Decision::UnknownRequest(index) => self.leave(index, UNKNOWN_RESPONSE),
                Decision::Orphan(index) => self.part(index, "the request is missing"),
                Decision::UnknownResponse(index) => self.part(index, UNKNOWN_REQUEST),
            }
        }
        self.emit();
        last
    }

    /// A request stays without a response.
    fn leave(&mut self, index: u64, why: &'static str) {
        if let Some(open) = self.open.iter_mut().find(|open| open.transaction.index == index) {
            open.is_in_doubt = false;
            open.response_done = true;
            open.transaction.worsen(TransactionState::Gap, why);
        }
    }

    /// A response stays without a request.
    fn part(&mut self, index: u64, why: &'static str) {
        if let Some(open) = self.open.iter_mut().find(|open| open.transaction.index == index) {
            open.is_in_doubt = false;
            open.transaction.worsen(TransactionState::Gap, why);
        }
    }

    /// All requests stay without a response.
    fn leave_unanswered(&mut self) {
        for open in self.open.iter_mut().filter(|open| open.is_waiting()) {
            open.response_done = true;
            open.transaction.worsen(TransactionState::Gap, UNKNOWN_RESPONSE);
        }
        self.emit();
    }

    /// Joins a response that waited, begun or not, to its request.
    fn join(&mut self, request: u64, response: u64) {
        let at = self.open.iter().position(|open| open.transaction.index == response);
        let Some(alone) = at.and_then(|at| self.open.remove(at)) else { return };
        if response == self.last_index {
            self.last_index = self.last_index.saturating_sub(1);
        }
        if self.response.current == response {
            self.response.current = request;
        }
        let Some(open) = self.open.iter_mut().find(|open| open.transaction.index == request) else {
            // It was given up since then.
            self.last_index = self.last_index.max(response);
            self.open.push_back(OpenTransaction { is_in_doubt: false, ..alone });
            return;
        };
        open.is_in_doubt = false;
        open.response_done = alone.response_done;
        open.head_bytes = open.head_bytes.saturating_add(alone.head_bytes);
        open.heads = open.heads.saturating_add(alone.heads);
        open.ranges = open.ranges.saturating_add(alone.ranges);
        let HttpTransaction { response, interim, state, why, remark, .. } = *alone.transaction;
        open.transaction.response = response;
        open.transaction.interim.extend(interim);
        if let Some(why) = why {
            open.transaction.worsen(state, why);
        }
        if let Some(remark) = remark {
            open.transaction.remark(remark);
        }
    }

    /// The response of transaction `index` was an interim one: another one will take its place.
    pub(super) fn expect_again(&mut self, index: u64) {
        self.has_interim = true;
        let Some(doubt) = &mut self.doubt else {
            if self.transaction(index).is_some_and(|one| one.request.is_none()) {
                self.lost_answers = self.lost_answers.without(Hidden::ONE);
            }
            return;
        };
        let request = self.open.iter_mut().find(|open| open.transaction.index == index);
        let request = request.filter(|open| open.transaction.request.is_some());
        doubt.take_back(request.map(|open| {
            open.is_in_doubt = true;
            (index, open.floor)
        }));
    }
}
