//! One request and its response, as places in the two streams.

use std::borrow::Cow;
use std::ops::Range;

use serde::Serialize;

use super::body::framed::{Body, Framing};
use super::direction::MessageRole;
use super::head::Head;
use crate::time::Timestamp;

/// How a transaction ended, from good to bad. The worst event counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransactionState {
    /// Request and response were captured from the first to the last byte.
    #[default]
    Complete,
    /// The stream, or its capture, ended first.
    Truncated,
    /// The connection was reset first.
    Aborted,
    /// Bytes of it are missing in the capture, or were captured with different values.
    Gap,
    /// The bytes are there, but make no sense as HTTP.
    Malformed,
}

impl TransactionState {
    /// The name in `http.jsonl`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Aborted => "aborted",
            Self::Gap => "gap",
            Self::Malformed => "malformed",
        }
    }
}

/// Bytes of the last chunk: `0` with a line end, and an empty line (RFC 9112, 7.1).
const LAST_CHUNK: u64 = 5;

/// Bytes of the line end after the data of a chunk.
const LINE_END: u64 = 2;

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMessage {
    /// Start line and headers; `None` for a response without a head, as in HTTP/0.9.
    pub head: Option<Head>,
    /// Range of the head in its stream, as sent; empty without a head.
    pub head_range: Range<u64>,
    /// The body.
    pub body: Body,
    /// Range of the trailer fields after the last chunk, as sent, including the empty line.
    pub trailer: Option<Range<u64>>,
    /// Time of its first byte.
    pub first: Timestamp,
    /// Time of its last byte so far.
    pub last: Timestamp,
}

impl HttpMessage {
    /// The range of the whole message in its stream, from the first byte of its head on.
    #[must_use]
    pub fn span(&self) -> Range<u64> {
        let body = &self.body.ranges;
        let start = if self.head_range.is_empty() {
            body.first().map_or(self.head_range.start, |range| range.start)
        } else {
            self.head_range.start
        };
        let mut end = self.head_range.end.max(body.last().map_or(start, |range| range.end));
        if self.body.framing == Framing::Chunked && self.body.ended {
            // The last chunk is in no range, nor is the line end of the one before it.
            let line_end = if body.is_empty() { 0 } else { LINE_END };
            end = end.saturating_add(line_end).saturating_add(LAST_CHUNK);
        }
        start..end.max(self.trailer.as_ref().map_or(start, |trailer| trailer.end))
    }
}

/// A request and its response, and the outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpTransaction {
    /// From 1, in the order in which transactions began.
    pub index: u64,
    /// `None` if the request was not captured.
    pub request: Option<HttpMessage>,
    /// `None` if there was no response, or it was not captured.
    pub response: Option<HttpMessage>,
    /// Ranges of the heads of responses 1xx that came before the final one, in the response's
    /// stream.
    pub interim: Vec<Range<u64>>,
    /// The outcome.
    pub state: TransactionState,
    /// The reason for the state, for people; `None` exactly if the state is complete.
    pub why: Option<Cow<'static, str>>,
    /// How it was read differently from what it says, as browsers do, although no byte is missing.
    pub remark: Option<&'static str>,
    /// The connection stopped speaking HTTP after it (`CONNECT`, `Upgrade`).
    pub switched: bool,
}

impl HttpTransaction {
    /// The message that went in `direction`.
    #[must_use]
    pub fn message(&self, direction: MessageRole) -> Option<&HttpMessage> {
        match direction {
            MessageRole::Request => self.request.as_ref(),
            MessageRole::Response => self.response.as_ref(),
        }
    }

    /// The host of the request: from the `Host` header, or from an absolute target.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        let head = self.request.as_ref()?.head.as_ref()?;
        if let Some(host) = head.value("host") {
            return Some(host);
        }
        let (_, rest) = head.target()?.split_once("://")?;
        rest.split(['/', '?', '#']).next()
    }

    /// The reason or the remark, for people; `None` if there is nothing to report.
    #[must_use]
    pub fn why_or_remark(&self) -> Option<&str> {
        self.why.as_deref().or(self.remark)
    }

    /// Notes that something was read differently from what it says. Only the first remark is kept,
    /// because others follow from it.
    pub(super) fn remark(&mut self, what: &'static str) {
        self.remark.get_or_insert(what);
    }

    /// Notes that captured copies of its message in `direction` differ, so that it is unknown which
    /// copy was received.
    pub fn dispute(&mut self, direction: MessageRole) {
        let why = match direction {
            MessageRole::Request => "captured copies of the request differ",
            MessageRole::Response => "captured copies of the response differ",
        };
        self.worsen(TransactionState::Gap, why);
    }

    /// Notes `state` and its reason, if it is worse than the present state.
    pub(super) fn worsen(&mut self, state: TransactionState, why: impl Into<Cow<'static, str>>) {
        if state > self.state {
            self.state = state;
            self.why = Some(why.into());
        }
    }
}
