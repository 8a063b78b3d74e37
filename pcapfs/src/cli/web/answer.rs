//! Answers over HTTP: their bodies, and errors as a status with a text for people.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

use super::slots::Slot;
use crate::cli::outlet::trouble::{Trouble, TroubleKind};

/// An answer over HTTP.
pub(super) type Answer = Response<AnswerBody>;

/// The result of a handler.
pub(super) type Handled = Result<Answer, Problem>;

/// The media type of JSON (RFC 8259).
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The media type of plain text.
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Chunks of a stream that wait for the client in this process; more wait in the daemon.
const WAITING_CHUNKS: usize = 2;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// All of it; `None` once it is sent.
    Whole(Option<Bytes>),
    /// As it comes. An error cuts the connection, so that the client does not take what it has for
    /// all there is.
    Stream {
        parts: mpsc::Receiver<Result<Bytes, io::Error>>,
        /// Free again once all is sent, or the client has left.
        _slot: Slot,
    },
}

/// The sending side of [`AnswerBody::Stream`]. It is closed once the client has left.
pub(super) type BodySender = mpsc::Sender<Result<Bytes, io::Error>>;

impl AnswerBody {
    /// A body that comes later, in pieces. It holds its slot until it is sent, or the client has
    /// left.
    pub(super) fn stream(slot: Slot) -> (BodySender, Self) {
        let (sender, parts) = mpsc::channel(WAITING_CHUNKS);
        (sender, Self::Stream { parts, _slot: slot })
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream { parts, .. } => {
                parts.poll_recv(context).map(|part| part.map(|part| part.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}

/// Why a request cannot be answered as it was meant: a status, and a text that names the culprit and
/// says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) text: String,
    /// A header that the status demands.
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), header: None }
    }

    /// The same with a header.
    pub(super) fn with(self, name: HeaderName, value: &str) -> Self {
        let value = HeaderValue::from_str(value).ok();
        Self { header: value.map(|value| (name, value)), ..self }
    }

    /// The request is wrong.
    pub(super) fn wrong(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// There is no such thing.
    pub(super) fn missing(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// It cannot be had now, and may be had later.
    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// The answer that reports it.
    pub(super) fn answer(self) -> Answer {
        #[derive(Serialize)]
        struct Report {
            error: String,
        }
        let mut answer = json(&Report { error: self.text });
        *answer.status_mut() = self.status;
        if let Some((name, value)) = self.header {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

impl From<Trouble> for Problem {
    fn from(trouble: Trouble) -> Self {
        let status = match trouble.kind {
            TroubleKind::Missing => StatusCode::NOT_FOUND,
            TroubleKind::Denied => StatusCode::FORBIDDEN,
            TroubleKind::Invalid => StatusCode::BAD_REQUEST,
            TroubleKind::Conflicting => StatusCode::CONFLICT,
            TroubleKind::Gone => StatusCode::GONE,
            TroubleKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, trouble.text)
    }
}

/// An answer of these bytes.
pub(super) fn whole(kind: HeaderValue, bytes: impl Into<Bytes>) -> Answer {
    with_body(kind, AnswerBody::Whole(Some(bytes.into())))
}

/// An answer with this body, which no cache keeps.
pub(super) fn with_body(kind: HeaderValue, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An answer of JSON.
pub(super) fn json(value: &impl Serialize) -> Answer {
    // Values of this program have text keys only, so they can be written.
    whole(JSON, serde_json::to_vec(value).unwrap_or_default())
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(None));
    *answer.status_mut() = status;
    answer
}
