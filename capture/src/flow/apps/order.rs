//! The order in which a dissector gets the two streams: that in which the endpoints saw them.
//!
//! The capture may have a response before its request, and one of two streams may be settled long
//! before the other. The acknowledgment of a segment shows what its sender had received by then. So
//! each piece of a stream waits until the other stream has been fed up to that acknowledgment, or
//! was given up there as a gap. Only the places of waiting pieces are kept; their bytes are read
//! again.

use std::collections::VecDeque;
use std::ops::Range;

use protocol::http::parser::StreamEnd;
use protocol::tcp::Direction;

use super::dissector::ByteStreams;
use super::marks::Marks;
use crate::flow::pair::{of, of_mut};

/// Maximum number of waiting pieces of one stream. Above it, order is given up. It corresponds to a
/// window of 6 MB full of requests of one segment each, which no client sends.
const MAX_WAITING: usize = 4_096;

/// A waiting piece of a stream.
#[derive(Clone, Copy, Debug)]
struct WaitingPiece {
    /// Offset of its end.
    end: u64,
    /// The offset that the other stream must have reached.
    needs: u64,
}

/// One direction.
#[derive(Debug, Default)]
struct StreamHalf {
    /// The dissector has all bytes before this offset.
    fed: u64,
    waiting: VecDeque<WaitingPiece>,
    marks: Marks,
    /// How the stream ended, once it has, and whether the dissector has been informed.
    end: Option<(StreamEnd, bool)>,
}

impl StreamHalf {
    /// The end of the settled bytes, whether they have been fed or not.
    fn settled(&self) -> u64 {
        self.waiting.back().map_or(self.fed, |last| last.end)
    }

    fn wait(&mut self, piece: WaitingPiece) {
        if piece.end <= self.settled() {
            return;
        }
        match self.waiting.back_mut() {
            Some(last) if last.needs >= piece.needs => last.end = piece.end,
            _ => self.waiting.push_back(piece),
        }
    }

    /// Queues the bytes up to `end`, which came in several segments, some of them early.
    fn wait_for_marks(&mut self, end: u64, acknowledged: u64) {
        let last = WaitingPiece { end, needs: acknowledged };
        let pieces = self.marks.take(end).map(|(end, needs)| WaitingPiece { end, needs });
        let mut pieces: Vec<_> = pieces.chain([last]).collect();
        // Bytes earlier in the stream were sent with the same or an earlier acknowledgment.
        let mut least = u64::MAX;
        for piece in pieces.iter_mut().rev() {
            least = least.min(piece.needs);
            piece.needs = least;
        }
        for piece in pieces {
            self.wait(piece);
        }
    }
}

/// The next event for the dissector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::flow) enum DissectorStep {
    /// A piece of a stream is to be read. Its sender had received the other stream up to `needs`.
    Piece { direction: Direction, range: Range<u64>, needs: u64 },
    /// Nothing will follow in a direction.
    End { direction: Direction, how: StreamEnd },
}

/// The pieces of both streams on their way to the dissector.
#[derive(Debug)]
pub(in crate::flow) struct StreamOrder {
    /// The direction that goes first if both may.
    client: Direction,
    /// Forward and backward.
    halves: [StreamHalf; 2],
}

impl StreamOrder {
    /// The streams, forward and backward, are fed from the offsets `begins` on. `marks` are of
    /// segments whose bytes are not all settled.
    pub(in crate::flow) fn new(client: Direction, begins: [u64; 2], marks: [Marks; 2]) -> Self {
        let ([forward, backward], [of_forward, of_backward]) = (begins, marks);
        let half = |fed, marks| StreamHalf { fed, marks, ..StreamHalf::default() };
        Self { client, halves: [half(forward, of_forward), half(backward, of_backward)] }
    }

    /// The ends of the settled bytes, forward and backward, whether they were fed or not.
    pub(in crate::flow) fn all_settled(&self) -> [u64; 2] {
        self.halves.each_ref().map(StreamHalf::settled)
    }

    /// Takes the stream sent in `direction` as settled up to `end`. The last settled segment
    /// acknowledged the other stream up to `acknowledged`. Passes on the pieces that need not wait.
    pub(in crate::flow) fn settled(
        &mut self,
        direction: Direction,
        end: u64,
        acknowledged: u64,
        streams: &dyn ByteStreams,
        sink: &mut dyn FnMut(DissectorStep),
    ) {
        let half = of_mut(&mut self.halves, direction);
        if half.marks.is_empty() {
            half.wait(WaitingPiece { end, needs: acknowledged });
        } else {
            half.wait_for_marks(end, acknowledged);
        }
        self.feed(streams, sink);
        while of(&self.halves, direction).waiting.len() > MAX_WAITING {
            self.feed_one(direction, sink);
        }
    }

    /// See [`Dissector::early`](super::dissector::Dissector::early).
    pub(in crate::flow) fn early(&mut self, direction: Direction, end: u64, acknowledged: u64) {
        of_mut(&mut self.halves, direction).marks.set(end, acknowledged);
    }

    /// Returns `true` while there are segments that came too early in `direction`.
    pub(in crate::flow) fn has_early(&self, direction: Direction) -> bool {
        !of(&self.halves, direction).marks.is_empty()
    }

    /// Nothing will follow in `direction`, which ended in the way `how`.
    pub(in crate::flow) fn ended(
        &mut self,
        direction: Direction,
        how: StreamEnd,
        streams: &dyn ByteStreams,
        sink: &mut dyn FnMut(DissectorStep),
    ) {
        let half = of_mut(&mut self.halves, direction);
        if half.end.is_none() {
            half.end = Some((how, false));
        }
        self.feed(streams, sink);
    }

    /// The flow has ended. A direction that has not ended before ends in the way `how`.
    pub(in crate::flow) fn close(
        &mut self,
        how: StreamEnd,
        streams: &dyn ByteStreams,
        sink: &mut dyn FnMut(DissectorStep),
    ) {
        let (client, server) = (self.client, self.client.other());
        while self.halves.iter().any(|half| !half.waiting.is_empty()) {
            // The bytes that they wait for will not come any more.
            if of(&self.halves, client).waiting.is_empty() {
                self.feed_one(server, sink);
            } else {
                self.feed_one(client, sink);
            }
            self.feed(streams, sink);
        }
        self.ended(client, how, streams, sink);
        self.ended(server, how, streams, sink);
    }

    /// Returns `true` if the dissector has been informed of both ends.
    pub(in crate::flow) fn is_closed(&self) -> bool {
        self.halves.iter().all(|half| matches!(half.end, Some((_, true))))
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let of_half = |half: &StreamHalf| {
            let waiting = half.waiting.capacity().saturating_mul(size_of::<WaitingPiece>());
            waiting.saturating_add(half.marks.memory())
        };
        self.halves.iter().map(of_half).sum()
    }

    /// Passes on all pieces that need not wait.
    fn feed(&mut self, streams: &dyn ByteStreams, sink: &mut dyn FnMut(DissectorStep)) {
        loop {
            let mut is_done = true;
            for direction in [self.client, self.client.other()] {
                while self.may_feed(direction, streams) {
                    self.feed_one(direction, sink);
                    is_done = false;
                }
                let half = of_mut(&mut self.halves, direction);
                if let (true, Some((how, false))) = (half.waiting.is_empty(), half.end) {
                    half.end = Some((how, true));
                    sink(DissectorStep::End { direction, how });
                    is_done = false;
                }
            }
            if is_done {
                return;
            }
        }
    }

    /// Returns `true` if the next piece of a direction need not wait.
    fn may_feed(&self, direction: Direction, streams: &dyn ByteStreams) -> bool {
        let Some(next) = of(&self.halves, direction).waiting.front() else { return false };
        let other = of(&self.halves, direction.other());
        // An acknowledgment of one byte more than the stream has acknowledges a FIN.
        other.fed >= next.needs
            || other.waiting.is_empty()
                && other.fed.saturating_add(1) == next.needs
                && !streams.is_waiting(direction.other())
    }

    fn feed_one(&mut self, direction: Direction, sink: &mut dyn FnMut(DissectorStep)) {
        let half = of_mut(&mut self.halves, direction);
        let Some(piece) = half.waiting.pop_front() else { return };
        let range = half.fed..piece.end;
        half.fed = piece.end.max(half.fed);
        sink(DissectorStep::Piece { direction, range, needs: piece.needs });
    }
}
