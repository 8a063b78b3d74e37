//! Places of the bodies of transactions, looked up before the bodies are read.
//!
//! The recorder decodes bodies while the engine holds the table, so it looks up all bodies of a
//! batch at once. The places go into one buffer that is used again for the next batch. Separate
//! lists would lie in memory between the data kept of the transactions, and leave holes there.

use std::ops::Range;

use protocol::extent::Extent;
use protocol::http::direction::MessageRole;
use protocol::tcp::Direction;

use super::conversation::Flow;

/// A run of bytes to read, and its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Bytes.
    pub(super) len: u64,
    /// `None` for a hole.
    pub(super) extent: Option<Extent>,
}

/// Maximum bytes of a body, with the bytes between its pieces, that is looked up before it is read.
const MAX_BYTES: u64 = 1 << 20;

/// Pieces of bodies that are looked up at once: a megabyte of places. Further bodies are looked up
/// when they are read.
const MAX_PIECES: usize = 1 << 15;

/// Places of many bodies, one after the other. Each has an offset in its stream, and the bytes
/// there.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<(u64, Wanted)>);

/// The ranges of places of one transaction: for the body of its request, and for that of its
/// response.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans([Option<Span>; 2]);

/// The places of one body.
#[derive(Clone, Debug)]
struct Span {
    /// From its first byte to its last, in its stream.
    range: Range<u64>,
    /// The places that cover it, in order and without gaps between them.
    places: Range<usize>,
}

/// The places that were found for one transaction.
#[derive(Debug)]
pub(super) struct FoundPlaces<'a> {
    places: &'a Places,
    spans: Spans,
}

impl Places {
    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Looks up the ranges that will be read, as long as there is room for their pieces. The first
    /// is of the stream sent in `request`, the second of the other one.
    pub(super) fn look_up(
        &mut self,
        flow: Option<&Flow>,
        request: Direction,
        ranges: [Option<Range<u64>>; 2],
    ) -> Spans {
        let mut one = |side: MessageRole, range: Option<Range<u64>>| {
            let range = range?;
            let len = range.end.saturating_sub(range.start);
            if len > MAX_BYTES || self.0.len() >= MAX_PIECES {
                return None;
            }
            let begin = self.0.len();
            let mut start = range.start;
            list(flow, sender(side, request), range.clone(), |one| {
                self.0.push((start, one));
                start = start.saturating_add(one.len);
            });
            if self.0.len() > MAX_PIECES {
                self.0.truncate(begin);
                return None;
            }
            Some(Span { range, places: begin..self.0.len() })
        };
        let [request, response] = ranges;
        Spans([one(MessageRole::Request, request), one(MessageRole::Response, response)])
    }

    /// The places of one transaction.
    pub(super) fn of(&self, spans: Spans) -> FoundPlaces<'_> {
        FoundPlaces { places: self, spans }
    }
}

impl FoundPlaces<'_> {
    /// The places of the bytes of `range`, if they were looked up.
    pub(super) fn part(&self, side: MessageRole, range: &Range<u64>) -> Option<Vec<Wanted>> {
        let [request, response] = &self.spans.0;
        let span = match side {
            MessageRole::Request => request,
            MessageRole::Response => response,
        };
        let covers = |span: &&Span| span.range.start <= range.start && range.end <= span.range.end;
        let span = span.as_ref().filter(covers)?;
        let places = self.places.0.get(span.places.clone())?;
        let first = places.partition_point(|(start, _)| *start <= range.start);
        let places = places.iter().skip(first.saturating_sub(1));
        let places = places.take_while(|(start, _)| *start < range.end);
        let cut = places.filter_map(|(start, one)| {
            let end = start.saturating_add(one.len).min(range.end);
            let from = range.start.max(*start);
            let (skip, len) = (from.saturating_sub(*start), end.saturating_sub(from));
            let extent = one.extent.map(|extent| extent.part(skip, len));
            (len > 0).then_some(Wanted { len, extent })
        });
        Some(cut.collect())
    }
}

/// Passes the places of all bytes of `range` to `sink`, in order.
pub(super) fn list(
    flow: Option<&Flow>,
    direction: Direction,
    range: Range<u64>,
    mut sink: impl FnMut(Wanted),
) {
    let mut at = range.start;
    let stream = flow.and_then(|flow| flow.stream(direction));
    for chunk in stream.into_iter().flat_map(|stream| stream.chunks(range.clone())) {
        let len = chunk.range.end.saturating_sub(chunk.range.start);
        sink(Wanted { len, extent: chunk.content.ok() });
        at = chunk.range.end;
    }
    if at < range.end {
        sink(Wanted { len: range.end.saturating_sub(at), extent: None });
    }
}

/// The direction in which a side sends, if requests go in direction `request`.
pub(super) fn sender(side: MessageRole, request: Direction) -> Direction {
    match side {
        MessageRole::Request => request,
        MessageRole::Response => request.other(),
    }
}
