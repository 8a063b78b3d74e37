//! Where the bodies of transactions are, looked up before they are read.
//!
//! The recorder decodes what the engine found while the engine has the table, so it looks all bodies
//! of a batch up at once. The places go into one buffer that is used again for the next batch: lists
//! of their own would lie between what is kept of the transactions, and leave holes there.

use std::ops::Range;

use protocol::extent::Extent;
use protocol::http::direction::Direction as Side;
use protocol::http::transaction::Transaction;
use protocol::tcp::Direction;

use super::conversation::Flow;

/// A run of bytes to give, and where they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Bytes.
    pub(super) len: u64,
    /// `None` for a hole.
    pub(super) extent: Option<Extent>,
}

/// Bytes of a body, or what lies between its pieces, that are looked up before they are read.
const MAX_BYTES: u64 = 1 << 20;

/// Pieces of bodies that are looked up at once: a megabyte of places. Bodies beyond are looked up
/// when they are read.
const MAX_PIECES: usize = 1 << 15;

/// Places of many bodies, one behind the other: where in its stream each begins, and what is there.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<(u64, Wanted)>);

/// Which of the places are those of one transaction: of the body of its request, and its response.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans([Option<Span>; 2]);

/// Where one body is.
#[derive(Clone, Debug)]
struct Span {
    /// From its first byte to its last, in its stream.
    range: Range<u64>,
    /// Which places cover that, in order and without anything between them.
    places: Range<usize>,
}

/// What was found for one transaction.
#[derive(Debug)]
pub(super) struct Found<'a> {
    places: &'a Places,
    spans: Spans,
}

impl Places {
    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Looks up the bodies that have to be decoded, as far as there is room for their pieces.
    pub(super) fn look_up(
        &mut self,
        flow: Option<&Flow>,
        request: Direction,
        transaction: &Transaction,
    ) -> Spans {
        let one = |side: Side| {
            let body = &transaction.message(side)?.body;
            let (first, last) = (body.ranges.first()?, body.ranges.last()?);
            let range = first.start..last.end;
            let len = range.end.saturating_sub(range.start);
            if !body.is_decoded() || len > MAX_BYTES || self.0.len() >= MAX_PIECES {
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
        Spans(Side::BOTH.map(one))
    }

    /// The places of one transaction.
    pub(super) fn of(&self, spans: Spans) -> Found<'_> {
        Found { places: self, spans }
    }
}

impl Found<'_> {
    /// Where the bytes of `range` are, if that was looked up.
    pub(super) fn part(&self, side: Side, range: &Range<u64>) -> Option<Vec<Wanted>> {
        let [request, response] = &self.spans.0;
        let span = match side {
            Side::Request => request,
            Side::Response => response,
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

/// Tells `sink` where the bytes of `range` are, all of it, in order.
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

/// The direction in which a side sends, where requests go in `request`.
pub(super) fn sender(side: Side, request: Direction) -> Direction {
    match side {
        Side::Request => request,
        Side::Response => request.other(),
    }
}
