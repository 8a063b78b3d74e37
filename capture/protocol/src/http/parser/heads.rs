//! Decides from a head, or from bytes in place of one, which body follows.
//!
//! After a head was read, the direction is in the phase for the byte after it.

use std::ops::Range;

use super::HttpParser;
use super::side::{Forbidden, FramingPlan, MessagePhase};
use crate::http::body::framed::{Body, Framing};
use crate::http::direction::MessageRole;
use crate::http::head::{Announced, Head, Length};
use crate::http::transaction::{HttpMessage, TransactionState};
use crate::time::Timestamp;

/// Remark about a `Content-Length` that is ignored.
const NO_LENGTH: &str = "Content-Length is no length, and passed over";

/// A server may send this status on an idle connection, without a request (RFC 9110, section
/// 15.5.9).
const REQUEST_TIMEOUT: u16 = 408;

impl HttpParser {
    pub(super) fn head(
        &mut self,
        direction: MessageRole,
        bytes: &[u8],
        at: u64,
        first: Timestamp,
        now: Timestamp,
    ) {
        let response = direction == MessageRole::Response;
        let range = at..at.saturating_add(bytes.len() as u64);
        let Some(head) = Head::parse(response, bytes, self.limits.headers) else {
            if response {
                self.stray(bytes.len());
                self.lose(direction);
            } else {
                self.odd_request(range, first, now);
                self.begin(direction, FramingPlan::None, false);
            }
            return;
        };
        self.note_head(&head);
        if response {
            self.response_head(head, range, first, now);
        } else {
            self.request_head(head, range, first, now);
        }
    }

    /// Opens a transaction for a request with a malformed request line.
    pub(super) fn odd_request(&mut self, range: Range<u64>, first: Timestamp, now: Timestamp) {
        self.open_request(None, range, first, now);
        self.worsen(
            MessageRole::Request,
            TransactionState::Malformed,
            "the request line is malformed",
        );
    }

    pub(super) fn note_head(&mut self, head: &Head) {
        let counters = &mut self.counters;
        counters.lax_heads = counters.lax_heads.saturating_add(u64::from(head.lax));
        counters.dropped_headers =
            counters.dropped_headers.saturating_add(head.headers_dropped as u64);
    }

    pub(super) fn request_head(
        &mut self,
        head: Head,
        range: Range<u64>,
        first: Timestamp,
        now: Timestamp,
    ) {
        let direction = MessageRole::Request;
        let plan = self.plan(&head, direction);
        let (announced, asks) = (head.announced(), head.asks_first());
        let is_odd = !announced.chunked && head.has_no_length();
        let oddity = if is_odd { Some(NO_LENGTH) } else { head.oddity() };
        self.open_request(Some(head), range, first, now);
        if let Some(oddity) = oddity {
            self.remark(direction, oddity);
        }
        if let Length::Doubtful(_) = announced.length {
            self.worsen(direction, TransactionState::Malformed, "Content-Length is ambiguous");
        }
        if asks
            && (announced.chunked || !matches!(plan, FramingPlan::None | FramingPlan::Length(0)))
        {
            self.request.phase = MessagePhase::Unsure(plan, announced.chunked);
        } else {
            self.begin(direction, plan, announced.chunked);
        }
    }

    pub(super) fn response_head(
        &mut self,
        head: Head,
        range: Range<u64>,
        first: Timestamp,
        now: Timestamp,
    ) {
        let direction = MessageRole::Response;
        if head.status() == Some(REQUEST_TIMEOUT) {
            self.answers_nothing();
        }
        let index = self.pair(range.start);
        let method = self.transaction(index).and_then(|one| one.request.as_ref());
        let method = method.and_then(|request| request.head.as_ref()).and_then(Head::method);
        let (is_head, is_connect) = (method == Some("HEAD"), method == Some("CONNECT"));
        let status = head.status().unwrap_or(200);
        let announced = head.announced();
        let is_announced = announced != Announced::default();
        let switches = status == 101 && head.has("upgrade");
        let interim = (100..200).contains(&status) && !switches;
        let bodiless = is_head || interim || matches!(status, 204 | 304);
        self.response.began = true;
        if bodiless && is_announced {
            let (head, range) = (head.clone(), range.clone());
            self.response.forbidden = Some(Box::new(Forbidden { head, range, first, interim }));
        }
        if interim {
            if let Some(open) = self.open.iter_mut().find(|open| open.transaction.index == index)
                && open.transaction.interim.len() < self.limits.pending
            {
                open.transaction.interim.push(range);
            }
            self.expect_again(index);
            if self.transaction(index).is_some_and(|one| one.request.is_none()) {
                // It gets no transaction of its own, because the final response is still to come.
                self.open.retain(|open| open.transaction.index != index);
                self.last_index = self.last_index.saturating_sub(1);
            }
            self.response.phase = MessagePhase::Start;
            return;
        }
        let plan =
            if bodiless || switches { FramingPlan::None } else { self.plan(&head, direction) };
        let body = Body { codings: head.codings(self.limits.codings), ..Body::default() };
        let after = range.end;
        let is_odd = !bodiless && !announced.chunked && head.has_no_length();
        let oddity = if is_odd { Some(NO_LENGTH) } else { head.oddity().filter(|_| !bodiless) };
        let message = HttpMessage {
            head: Some(head),
            head_range: range,
            body,
            trailer: None,
            first,
            last: now,
        };
        self.respond(index, message);
        if let Some(oddity) = oddity {
            self.remark(direction, oddity);
        }
        if switches || is_connect && (200..300).contains(&status) {
            if let Some(open) = self.open.iter_mut().find(|open| open.transaction.index == index) {
                open.transaction.switched = true;
                open.request_done = true;
                if let Some(request) = &mut open.transaction.request {
                    request.body.ended = true;
                }
            }
            self.finish(direction);
            let request = self.request.next.saturating_sub(self.request.carry.len() as u64);
            self.switch(request, after);
            return;
        }
        if let (Length::Doubtful(_), false) = (announced.length, bodiless) {
            self.worsen(direction, TransactionState::Malformed, "Content-Length is ambiguous");
        }
        self.begin(direction, plan, announced.chunked && !bodiless);
    }

    /// Handles bytes from the server that are not a head.
    pub(super) fn headless(&mut self, offset: u64, first: Timestamp) {
        let direction = MessageRole::Response;
        if let Some(forbidden) = self.response.forbidden.take() {
            let plan = self.plan(&forbidden.head, direction);
            let body =
                Body { codings: forbidden.head.codings(self.limits.codings), ..Body::default() };
            let chunked = forbidden.head.announced().chunked;
            let mut message = HttpMessage {
                head: None,
                head_range: forbidden.range,
                body,
                trailer: None,
                first,
                last: first,
            };
            let index = if forbidden.interim {
                message.head = Some(forbidden.head);
                message.first = forbidden.first;
                self.pair(offset)
            } else {
                message.head_range.start = message.head_range.end;
                self.orphan()
            };
            self.respond(index, message);
            let why = "a body follows a status that has none";
            self.worsen(direction, TransactionState::Malformed, why);
            self.begin(direction, plan, chunked);
        } else if !self.response.began && !self.response.gapped && self.may_lack_head(offset) {
            let start = offset;
            let body = Body::default();
            let message = HttpMessage {
                head: None,
                head_range: start..start,
                body,
                trailer: None,
                first,
                last: first,
            };
            let index = self.pair(offset);
            self.respond(index, message);
            self.begin_body(direction, FramingPlan::Close);
        } else {
            // In a stream joined in the middle, these bytes are the rest of a message.
            self.response.passed_over = self.response.began || !self.joined;
            self.lose(direction);
        }
    }

    /// Returns `true` if bytes at `offset` may be a response without a head. The first response of
    /// a connection may have none. But if earlier bytes may be missing, these bytes may be the rest
    /// of another response. Then the request must be HTTP/0.9, the only version with such
    /// responses, and must have been sent before them.
    fn may_lack_head(&self, offset: u64) -> bool {
        let Some(open) = self.waiting().next() else { return false };
        let request = open.transaction.request.as_ref();
        let version = request.and_then(|request| request.head.as_ref()?.version());
        let torn = self.joined || self.request.gapped;
        !torn || version.is_none() && open.floor <= offset
    }

    pub(super) fn plan(&self, head: &Head, direction: MessageRole) -> FramingPlan {
        match (head.announced().length, direction) {
            (Length::Exact(length), _) => FramingPlan::Length(length),
            (Length::Doubtful(_), MessageRole::Response) if head.closes() => FramingPlan::Close,
            (Length::Doubtful(length), _) => FramingPlan::Length(length),
            (Length::None, MessageRole::Request) => FramingPlan::None,
            (Length::None, MessageRole::Response) => FramingPlan::Close,
        }
    }

    /// Returns `true` if the current request was answered before any of its body came. A client
    /// that asked with `Expect: 100-continue` does not send the body then (RFC 9110, 10.1.1).
    pub(super) fn may_withhold(&self) -> bool {
        matches!(self.request.phase, MessagePhase::Unsure(..))
            && self
                .transaction(self.request.current)
                .is_some_and(|transaction| transaction.response.is_some())
    }

    /// Starts the body of the current message.
    pub(super) fn begin(&mut self, direction: MessageRole, plan: FramingPlan, chunked: bool) {
        let gapped = self.request.gapped;
        let alone = direction == MessageRole::Response
            && self
                .current(direction)
                .is_some_and(|open| gapped || open.transaction.request.is_none());
        if alone && (plan != FramingPlan::None || chunked) {
            self.response.phase = MessagePhase::Unsure(plan, chunked);
        } else {
            self.begin_sure(direction, plan, chunked);
        }
    }

    pub(super) fn begin_sure(&mut self, direction: MessageRole, plan: FramingPlan, chunked: bool) {
        if chunked {
            self.message(direction, |message| message.body.framing = Framing::Chunked);
            self.side_mut(direction).phase = MessagePhase::Probe(plan);
        } else {
            self.begin_body(direction, plan);
        }
    }

    pub(super) fn begin_body(&mut self, direction: MessageRole, plan: FramingPlan) {
        let (framing, phase) = match plan {
            FramingPlan::None => (Framing::None, MessagePhase::Start),
            FramingPlan::Length(length) => (Framing::Length, MessagePhase::Length(length)),
            FramingPlan::Close => (Framing::Close, MessagePhase::Close),
        };
        self.message(direction, |message| message.body.framing = framing);
        self.side_mut(direction).phase = phase;
        if matches!(plan, FramingPlan::None | FramingPlan::Length(0)) {
            self.finish(direction);
        }
    }
}
