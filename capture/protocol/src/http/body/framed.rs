//! A body as it lies in its stream: where its bytes are, framing taken out.

use std::ops::Range;

use serde::Serialize;

use super::{Piece, Streams, known};
use crate::http::direction::Direction;

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
    /// sent otherwise. Whether they are true is found out by [decoding](super::decode).
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
        self.wire_bytes() > 0 && !self.as_sent && known(&self.codings).next().is_some()
    }

    /// At most `len` of its bytes on the wire after the first `from`; zeros for missing ones.
    pub(in crate::http) fn part(
        &self,
        direction: Direction,
        from: u64,
        len: u64,
        streams: &dyn Streams,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        for range in parts(&self.ranges, from, len) {
            streams.read(direction, range, &mut |piece| match piece {
                Piece::Bytes(part) => bytes.extend_from_slice(part),
                Piece::Hole(hole) => {
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
