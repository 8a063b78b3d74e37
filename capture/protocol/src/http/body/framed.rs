//! The place of a body in its stream, without framing.

use std::ops::Range;

use serde::Serialize;

use super::{BodyPiece, Streams, known};
use crate::http::direction::MessageRole;

/// The thing that determines where a body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// `Content-Length`.
    Length,
    /// Chunks. The ranges of the body exclude sizes, extensions and trailers.
    Chunked,
    /// The end of the stream.
    Close,
}

/// A body, as ranges of stream offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// How its end was determined.
    pub framing: Framing,
    /// The body's bytes in order, without framing. Ranges ascend, are not empty, and do not touch.
    /// Holes are included.
    pub ranges: Vec<Range<u64>>,
    /// The parts of `ranges` that are missing in the capture; ascending.
    pub holes: Vec<Range<u64>>,
    /// The body was seen up to its end, apart from holes.
    pub ended: bool,
    /// Content codings in the order they were applied, then transfer codings, as sent but in lower
    /// case. [Decoding](super::decode) shows whether they are true.
    pub codings: Vec<String>,
    /// It is not decoded, whatever its codings, because there was no time for it when it was
    /// captured.
    pub as_sent: bool,
}

impl Body {
    /// Number of bytes on the wire without framing, holes included.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        length(&self.ranges)
    }

    /// Number of missing bytes.
    #[must_use]
    pub fn missing(&self) -> u64 {
        length(&self.holes)
    }

    /// Returns `true` if every byte of it was captured.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ended && self.holes.is_empty()
    }

    /// Returns `true` if a reader gets other bytes than those on the wire.
    #[must_use]
    pub fn is_decoded(&self) -> bool {
        self.wire_bytes() > 0 && !self.as_sent && known(&self.codings).next().is_some()
    }

    /// At most `len` of its bytes on the wire, after the first `from`. Missing bytes are zeros.
    pub(in crate::http) fn part(
        &self,
        direction: MessageRole,
        from: u64,
        len: u64,
        streams: &dyn Streams,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        for range in parts(&self.ranges, from, len) {
            streams.read(direction, range, &mut |piece| match piece {
                BodyPiece::Bytes(part) => bytes.extend_from_slice(part),
                BodyPiece::Hole(hole) => {
                    let hole = usize::try_from(hole.min(len)).unwrap_or(usize::MAX);
                    bytes.resize(bytes.len().saturating_add(hole), 0);
                }
            });
        }
        bytes
    }

    /// The value of `encoding` in `http.jsonl`: the codings, joined; `None` without codings.
    #[must_use]
    pub fn encoding(&self) -> Option<String> {
        (!self.codings.is_empty()).then(|| self.codings.join(", "))
    }
}

/// The parts of the joined `ranges` from `offset` on, at most `len` bytes.
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
