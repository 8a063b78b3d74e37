//! One line of `http.jsonl` or `http-open.jsonl`.

use std::borrow::Cow;

use serde::Serialize;

use super::body::framed::Framing;
use super::body::{self, DecodingLimits, DecodingNote, Streams};
use super::direction::MessageRole;
use super::names;
use super::transaction::{HttpMessage, HttpTransaction};
use crate::flow_context::{Endpoint, FlowContext};
use crate::time::Timestamp;

/// A transaction as a line of `http.jsonl`. Indexes count from 1. Unknown values are null, never
/// absent.
#[derive(Debug, Serialize)]
pub struct HttpRecord<'a> {
    capture: &'a str,
    flow: u64,
    index: u64,
    client: Endpoint,
    server: Endpoint,
    duration_us: Option<u64>,
    method: Option<&'a str>,
    target: Option<&'a str>,
    host: Option<&'a str>,
    version: Option<&'a str>,
    status: Option<u16>,
    reason: Option<&'a str>,
    request_headers: &'a [(String, String)],
    response_headers: &'a [(String, String)],
    request_body: &'a BodyRecord,
    response_body: &'a BodyRecord,
    times: Times,
    state: &'static str,
    why: Option<Cow<'a, str>>,
}

/// A body in a [`HttpRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BodyRecord {
    /// Number of bytes on the wire without framing, holes included.
    pub wire_bytes: u64,
    /// Number of bytes after decoding: the size of `file`. `None` if that is not known yet.
    pub bytes: Option<u64>,
    /// Codings as announced, in the order in which they were applied.
    pub encoding: Option<String>,
    /// How its end was determined.
    pub framing: Framing,
    /// Path in the flow's directory; `None` for an empty body.
    pub file: Option<String>,
    /// Note for `why` of the transaction, used if there is nothing graver to report.
    #[serde(skip)]
    pub note: Option<DecodingNote>,
}

#[derive(Debug, Serialize)]
struct Times {
    request_first: Option<String>,
    request_last: Option<String>,
    response_first: Option<String>,
    response_last: Option<String>,
}

impl Default for BodyRecord {
    /// No body.
    fn default() -> Self {
        let framing = Framing::None;
        Self { wire_bytes: 0, bytes: Some(0), encoding: None, framing, file: None, note: None }
    }
}

impl BodyRecord {
    /// The body sent in `direction`, which has `bytes` bytes when decoded.
    #[must_use]
    pub fn new(transaction: &HttpTransaction, direction: MessageRole, bytes: u64) -> Self {
        let Some(message) = transaction.message(direction) else {
            return Self::default();
        };
        let wire_bytes = message.body.wire_bytes();
        Self {
            wire_bytes,
            bytes: Some(bytes),
            encoding: message.body.encoding(),
            framing: message.body.framing,
            file: (wire_bytes > 0)
                .then(|| format!("bodies/{}", names::body_file(transaction, direction))),
            note: None,
        }
    }

    /// The body so far of an unfinished message. Its file is called `file`.
    #[must_use]
    pub fn under_way(
        transaction: &HttpTransaction,
        direction: MessageRole,
        file: Option<&str>,
    ) -> Self {
        let message = transaction.message(direction);
        let bytes = message.map_or(0, |message| message.body.wire_bytes());
        let is_known = message.is_none_or(|message| !message.body.is_decoded());
        Self {
            bytes: is_known.then_some(bytes),
            file: file.map(|file| format!("bodies/{file}")),
            ..Self::new(transaction, direction, bytes)
        }
    }

    /// Like [`BodyRecord::new`], but decodes the body if its size is not known otherwise.
    #[must_use]
    pub fn measured(
        transaction: &HttpTransaction,
        direction: MessageRole,
        streams: &dyn Streams,
        limits: &DecodingLimits,
        workspace: &mut body::Workspace,
    ) -> Self {
        let Some(HttpMessage { body, .. }) = transaction.message(direction) else {
            return Self::default();
        };
        let (bytes, note) = if body.is_decoded() {
            let decoded = body::read_with(streams, direction, body, limits, workspace);
            let len = decoded.bytes.len() as u64;
            workspace.give_back(decoded.bytes);
            (len, decoded.notes.last().copied().filter(|note| note.must_be_reported()))
        } else {
            let wire_bytes = body.wire_bytes();
            let is_encoded = wire_bytes > 0 && body::has_foreign(&body.codings);
            let note = if body.as_sent { Some(DecodingNote::Busy) } else { None };
            (wire_bytes, note.or_else(|| is_encoded.then_some(DecodingNote::Unknown)))
        };
        Self { note, ..Self::new(transaction, direction, bytes) }
    }
}

impl<'a> HttpRecord<'a> {
    /// The record of a transaction of `connection`.
    #[must_use]
    pub fn new(
        connection: &FlowContext<'a>,
        transaction: &'a HttpTransaction,
        request_body: &'a BodyRecord,
        response_body: &'a BodyRecord,
    ) -> Self {
        let request = transaction.request.as_ref().and_then(|message| message.head.as_ref());
        let response = transaction.response.as_ref().and_then(|message| message.head.as_ref());
        let reason = response.and_then(|head| match &head.start {
            super::head::StartLine::Response { reason, .. } => reason.as_deref(),
            super::head::StartLine::Request { .. } => None,
        });
        let time = |message: &Option<HttpMessage>, pick: fn(&HttpMessage) -> Timestamp| {
            message.as_ref().map(|message| pick(message).to_rfc3339())
        };
        let noted = [("request", request_body.note), ("response", response_body.note)];
        let mut noted =
            noted.into_iter().filter_map(|(of, note)| Some(format!("{of} body: {}", note?.text())));
        let why = transaction.why_or_remark().map(Cow::Borrowed);
        Self {
            capture: connection.capture,
            flow: connection.flow,
            index: transaction.index,
            client: connection.client,
            server: connection.server,
            duration_us: duration(transaction),
            method: request.and_then(|head| head.method()),
            target: request.and_then(|head| head.target()),
            host: transaction.host(),
            version: response.or(request).and_then(|head| head.version()),
            status: response.and_then(|head| head.status()),
            reason,
            request_headers: request.map_or(&[], |head| &head.headers),
            response_headers: response.map_or(&[], |head| &head.headers),
            request_body,
            response_body,
            times: Times {
                request_first: time(&transaction.request, |message| message.first),
                request_last: time(&transaction.request, |message| message.last),
                response_first: time(&transaction.response, |message| message.first),
                response_last: time(&transaction.response, |message| message.last),
            },
            state: transaction.state.name(),
            why: why.or_else(|| noted.next().map(Cow::Owned)),
        }
    }
}

impl HttpRecord<'_> {
    /// The same record for an unfinished transaction, for `http-open.jsonl`.
    #[must_use]
    pub fn under_way(self) -> Self {
        Self { state: "open", duration_us: None, ..self }
    }
}

/// Microseconds from the first byte of the request to the last of the response. `None` if one of
/// them was not seen, or the response was over before the request began.
fn duration(transaction: &HttpTransaction) -> Option<u64> {
    let (request, response) = (transaction.request.as_ref()?, transaction.response.as_ref()?);
    response.last.microseconds_since(request.first)
}
