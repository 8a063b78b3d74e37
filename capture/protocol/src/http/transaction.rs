//! One request and its response, as places in the two streams.

use std::borrow::Cow;
use std::ops::Range;

use serde::Serialize;

use super::body;
use super::head::Head;
use crate::time::Timestamp;

/// Which of the two streams of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// What the client sent.
    Request,
    /// What the server sent.
    Response,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Request, Self::Response];

    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Request => Self::Response,
            Self::Response => Self::Request,
        }
    }
}

/// What says where a body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// `Content-Length`.
    Length,
    /// Chunks; the ranges of the body leave out sizes, extensions and trailers.
    Chunked,
    /// The end of the stream.
    Close,
}

/// How a transaction ended, from good to bad; the worst thing that happened stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Request and response are there from the first to the last byte.
    #[default]
    Complete,
    /// The stream, or what was captured of it, ended first.
    Truncated,
    /// The connection was reset first.
    Aborted,
    /// Bytes of it are missing in the capture.
    Gap,
    /// The bytes are there and make no sense as HTTP.
    Malformed,
}

impl State {
    /// As `http.jsonl` has it.
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

/// A body, as ranges of stream offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// What said where it ends.
    pub framing: Framing,
    /// The body in order, framing taken out; ascending, not empty, and neighbours merged. Holes
    /// are included.
    pub ranges: Vec<Range<u64>>,
    /// The parts of `ranges` that are missing in the capture; ascending.
    pub holes: Vec<Range<u64>>,
    /// Whether the body was seen up to its end, holes aside.
    pub ended: bool,
    /// Content codings in the order they were applied, then transfer codings; lower case, as
    /// sent otherwise. Whether they are true is found out by [decoding](super::body::decode).
    pub codings: Vec<String>,
    /// It is not decoded, whatever its codings: there was no time for it when it was seen.
    pub as_sent: bool,
}

impl Body {
    /// Bytes on the wire without framing, holes included.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        length(&self.ranges)
    }

    /// Bytes that are missing.
    #[must_use]
    pub fn missing(&self) -> u64 {
        length(&self.holes)
    }

    /// Whether every byte of it was captured.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ended && self.holes.is_empty()
    }

    /// Whether what is read of it is something else than its bytes on the wire.
    #[must_use]
    pub fn is_decoded(&self) -> bool {
        self.wire_bytes() > 0 && !self.as_sent && body::known(&self.codings).next().is_some()
    }

    /// At most `len` of its bytes on the wire after the first `from`; zeros for missing ones.
    pub(super) fn part(
        &self,
        direction: Direction,
        from: u64,
        len: u64,
        streams: &dyn body::Streams,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        for range in parts(&self.ranges, from, len) {
            streams.read(direction, range, &mut |piece| match piece {
                body::Piece::Bytes(part) => bytes.extend_from_slice(part),
                body::Piece::Hole(hole) => {
                    let hole = usize::try_from(hole.min(len)).unwrap_or(usize::MAX);
                    bytes.resize(bytes.len().saturating_add(hole), 0);
                }
            });
        }
        bytes
    }

    /// `Content-Encoding` as `http.jsonl` has it: the codings, joined; `None` if there are none.
    #[must_use]
    pub fn encoding(&self) -> Option<String> {
        (!self.codings.is_empty()).then(|| self.codings.join(", "))
    }
}

/// The parts of `ranges`, put together, from `offset` on, `len` bytes at most.
pub fn parts(ranges: &[Range<u64>], offset: u64, len: u64) -> Vec<Range<u64>> {
    let (mut before, mut left) = (0_u64, len);
    let mut parts = Vec::new();
    for range in ranges {
        if left == 0 {
            break;
        }
        let len = range.end.saturating_sub(range.start);
        let skip = offset.saturating_sub(before).min(len);
        before = before.saturating_add(len);
        let take = len.saturating_sub(skip).min(left);
        if take > 0 {
            let start = range.start.saturating_add(skip);
            parts.push(start..start.saturating_add(take));
            left = left.saturating_sub(take);
        }
    }
    parts
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().fold(0, |sum: u64, one| sum.saturating_add(one.end.saturating_sub(one.start)))
}

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Start line and headers; `None` for a response without a head, as HTTP/0.9 has it.
    pub head: Option<Head>,
    /// Where the head, as sent, lies in its stream; empty without a head.
    pub head_range: Range<u64>,
    /// The body.
    pub body: Body,
    /// Trailer fields after the last chunk, as sent, the empty line included.
    pub trailer: Option<Range<u64>>,
    /// When its first byte was seen.
    pub first: Timestamp,
    /// When its last byte so far was seen.
    pub last: Timestamp,
}

/// A request, its response, and how it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// From 1, in the order in which transactions began.
    pub index: u64,
    /// `None` if the request was not captured.
    pub request: Option<Message>,
    /// `None` if there was no response, or it was not captured.
    pub response: Option<Message>,
    /// Heads of responses 1xx that came before the final one, in the response's stream.
    pub interim: Vec<Range<u64>>,
    /// How it ended.
    pub state: State,
    /// What was wrong, for people; `None` exactly if the state is complete.
    pub why: Option<Cow<'static, str>>,
    /// What was read otherwise than it says, as browsers do, although nothing of it is missing.
    pub remark: Option<&'static str>,
    /// Whether the connection stopped speaking HTTP after it (`CONNECT`, `Upgrade`).
    pub switched: bool,
}

impl Transaction {
    /// The message that went in `direction`.
    #[must_use]
    pub fn message(&self, direction: Direction) -> Option<&Message> {
        match direction {
            Direction::Request => self.request.as_ref(),
            Direction::Response => self.response.as_ref(),
        }
    }

    /// The host the request was for: the `Host` header, or that of an absolute target.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        let head = self.request.as_ref()?.head.as_ref()?;
        if let Some(host) = head.value("host") {
            return Some(host);
        }
        let (_, rest) = head.target()?.split_once("://")?;
        rest.split(['/', '?', '#']).next()
    }

    /// What there is to say of it, for people; `None` if all is as it should be.
    #[must_use]
    pub fn told(&self) -> Option<&str> {
        self.why.as_deref().or(self.remark)
    }

    /// Notes what was read otherwise than it says. The first such thing stands: others follow from it.
    pub(super) fn remark(&mut self, what: &'static str) {
        self.remark.get_or_insert(what);
    }

    /// Notes the worse of what is known and `state`.
    pub(super) fn worsen(&mut self, state: State, why: impl Into<Cow<'static, str>>) {
        if state > self.state {
            self.state = state;
            self.why = Some(why.into());
        }
    }
}
