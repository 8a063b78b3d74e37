//! Responses that cannot be given to a request.
//!
//! Responses come in the order of requests. If the client pipelines, a gap in either stream may have
//! swallowed whole messages, and nothing that is left says how many. Then no response that may
//! answer one of several requests is given to any of them: those requests stay without, and those
//! responses without a request, until so many responses have come that the count is certain again.

use super::Parser;
use super::side::Phase;
use crate::http::transaction::State;

/// Bytes of the shortest response: `HTTP/1.1 200` and two empty lines.
const SHORTEST_RESPONSE: u64 = 16;

/// Bytes of the shortest request with a version: `GET / HTTP/1.0` and two line ends.
const SHORTEST_REQUEST: u64 = 16;

/// How things stood when a gap of the requests began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestGap {
    /// The gap, or bytes just before it, begin a request.
    pub(super) begins_request: bool,
    /// Requests without a response.
    pub(super) waiting: u64,
    /// Responses that had begun, and gaps among them.
    pub(super) responses: u64,
    pub(super) response_gaps: u64,
}

/// Responses to come that answer requests which are not known, or not known to be theirs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doubt {
    /// As many will come at least, and at most, from where it began. `least <= most`
    least: u64,
    most: u64,
    /// As many have come.
    seen: u64,
}

impl Parser {
    /// Requests that may be missing before the one that begins at `begin`, and that were not
    /// answered when it was sent. Notes whether the client pipelines.
    pub(super) fn hidden_requests(&mut self, begin: u64, floor: u64) -> u64 {
        if !self.pipelines && self.asks_before_the_answer(floor) {
            self.contradict();
            self.pipelines = true;
            if self.trusted {
                // How many messages were missing then is not known any more.
                self.doubt = Some(Doubt { least: 0, most: u64::MAX, seen: 0 });
            }
        }
        self.confirm();
        let Some(from) = self.request.lost_from.take() else { return 0 };
        self.pipelines |= self.has_skipped_an_answer();
        if self.pipelines || floor <= self.request.lost_floor {
            begin.saturating_sub(from) / SHORTEST_REQUEST
        } else {
            self.trusted = true;
            self.is_unproven = true;
            0
        }
    }

    /// Keeps a transaction back whose response is the first one after requests were missing.
    pub(super) fn hold(&mut self, index: u64) {
        if std::mem::take(&mut self.is_unproven)
            && let Some(open) = self.open.iter_mut().find(|open| open.transaction.index == index)
        {
            open.is_held = true;
        }
    }

    /// The client has asked again, or nothing more comes: what was kept back holds.
    pub(super) fn confirm(&mut self) {
        for open in &mut self.open {
            open.is_held = false;
        }
        self.emit();
    }

    /// A response more than requests, or a request before its time: the client pipelines, and what
    /// was kept back may have the answer to a request that is missing.
    pub(super) fn contradict(&mut self) {
        for open in self.open.iter_mut().filter(|open| open.is_held) {
            open.is_held = false;
            let why =
                "requests are missing before this one, and the response may answer one of them";
            open.transaction.worsen(State::Gap, why);
            self.pipelines = true;
            self.doubt = Some(Doubt { least: 0, most: u64::MAX, seen: 0 });
        }
    }

    /// True if the client cannot have the answer to all it asked before, as it sends a request after
    /// the responses up to `floor`.
    fn asks_before_the_answer(&self, floor: u64) -> bool {
        match self.response.phase {
            Phase::Head(_) | Phase::Length(_) | Phase::Data(_) | Phase::Size => true,
            // All responses up to here were captured.
            Phase::Start if self.response.lost_from.is_none() && floor <= self.response.next => {
                self.waiting().next().is_some()
            }
            _ => self.waiting().any(|open| open.floor == floor),
        }
    }

    /// True if requests are missing, and fewer responses came since than there must be if the
    /// client had waited for each.
    fn has_skipped_an_answer(&self) -> bool {
        let then = &self.request_gap;
        then.begins_request
            && then.response_gaps == self.response_gaps
            && self.responses.saturating_sub(then.responses) <= then.waiting
    }

    /// True if the response that begins at `at` may answer one of several requests, after a gap
    /// that began at `gap` and may have swallowed heads.
    pub(super) fn is_doubtful(&mut self, gap: Option<u64>, at: u64) -> bool {
        let swallowed = gap.map_or(0, |gap| at.saturating_sub(gap) / SHORTEST_RESPONSE);
        let waiting: Vec<_> =
            self.waiting().filter(|open| open.floor <= at).map(|open| open.hidden).collect();
        let count = waiting.len() as u64;
        let mut doubt = self.doubt.take().filter(|doubt| doubt.seen < doubt.most);
        let hidden = waiting.iter().fold(0_u64, |sum, hidden| sum.saturating_add(*hidden));
        let begins_hidden = waiting.first().is_some_and(|hidden| *hidden > 0);
        let is_ambiguous = match &doubt {
            Some(doubt) => swallowed > 0 || begins_hidden || doubt.seen >= doubt.least,
            None => {
                let first = self.waiting().next().map_or(0, |open| open.floor);
                let is_torn = self.request.gapped && first < at;
                begins_hidden || swallowed > 0 && (count > 1 || count == 1 && is_torn)
            }
        };
        if is_ambiguous {
            let mut all = doubt.unwrap_or_default();
            all.most = all.most.saturating_add(count).saturating_add(hidden);
            // This response is one of them.
            all.least = all.least.saturating_add(count).saturating_sub(swallowed);
            all.least = all.least.max(all.seen.saturating_add(1)).min(all.most);
            doubt = Some(all);
            self.leave_unanswered(at);
        }
        self.doubt = doubt;
        doubt.is_some()
    }

    /// The requests that a response at `at` may answer stay without one.
    fn leave_unanswered(&mut self, at: u64) {
        let why = "messages are missing, and which response answers this request is not known";
        for open in &mut self.open {
            let is_waiting = !open.response_done && open.transaction.response.is_none();
            if is_waiting && open.floor <= at {
                open.response_done = true;
                open.transaction.worsen(State::Gap, why);
            }
        }
        self.emit();
    }

    /// Makes a transaction for a response whose request is not known.
    pub(super) fn doubtful(&mut self) -> u64 {
        if let Some(doubt) = &mut self.doubt {
            doubt.seen = doubt.seen.saturating_add(1);
        }
        self.alone(State::Gap, "messages are missing, and which request this answers is not known")
    }

    /// The response was an interim one: another one is to come in its place.
    pub(super) fn expect_again(&mut self) {
        if let Some(doubt) = &mut self.doubt {
            doubt.seen = doubt.seen.saturating_sub(1);
        }
    }
}
