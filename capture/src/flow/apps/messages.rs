//! HTTP in a TCP flow: brings both streams to the parser in the order in which the endpoints saw
//! them.
//!
//! The capture may have a response before its request, and one of two streams may be settled long
//! before the other. The acknowledgment of a segment shows what its sender had received by then. So
//! each piece of a stream waits until the other stream has been fed up to that acknowledgment, or
//! was given up there as a gap. Only the places of waiting pieces are kept; their bytes are read
//! again.

use std::collections::{BTreeMap, VecDeque};

use protocol::footprint;
use protocol::http::direction::Direction as Side;
use protocol::http::head::Head;
use protocol::http::parser::{End, Event, Limits, Parser};
use protocol::http::transaction::{Message, Transaction};
use protocol::http::transcript::Progress;
use protocol::tcp::{Assembler, Direction};

use crate::flow::window::Window;

/// Maximum number of waiting pieces of one stream. Above it, order is given up. It corresponds to a
/// window of 6 MB full of requests of one segment each, which no client sends.
const MAX_WAITING: usize = 4_096;

/// Maximum number of early segments whose acknowledgment is kept until their bytes are in order.
const MAX_MARKS: usize = 4_096;

/// Acknowledgments of early segments, by the stream offset after the segment.
#[derive(Debug, Default)]
pub(in crate::flow) struct Marks(BTreeMap<u64, u64>);

impl Marks {
    /// Records that a segment whose payload ends at `end` came too early, and acknowledges the
    /// other stream up to `acknowledged`.
    pub(in crate::flow) fn set(&mut self, end: u64, acknowledged: u64) {
        if self.0.len() < MAX_MARKS {
            let mark = self.0.entry(end).or_insert(acknowledged);
            *mark = acknowledged.min(*mark);
        }
    }

    /// Removes the marks up to `end` and returns them, in order.
    fn take(&mut self, end: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let mut behind = self.0.split_off(&end.saturating_add(1));
        if behind.is_empty() {
            // An empty map that was split off has a node.
            behind.clear();
        }
        std::mem::replace(&mut self.0, behind).into_iter()
    }

    /// Returns true if there are no marks.
    pub(in crate::flow) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        footprint::of_tree::<u64, u64>(self.0.len())
    }
}

/// A waiting piece of a stream.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Offset of its end.
    end: u64,
    /// The offset that the other stream must have reached.
    needs: u64,
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    /// The parser has all bytes before this offset.
    fed: u64,
    waiting: VecDeque<Waiting>,
    marks: Marks,
    /// How the stream ended, once it has, and whether the parser has been informed.
    end: Option<(End, bool)>,
}

impl Half {
    /// The end of the settled bytes, whether they have been fed or not.
    fn settled(&self) -> u64 {
        self.waiting.back().map_or(self.fed, |last| last.end)
    }

    fn wait(&mut self, piece: Waiting) {
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
        let last = Waiting { end, needs: acknowledged };
        let pieces = self.marks.take(end).map(|(end, needs)| Waiting { end, needs });
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

/// The parser of one flow, and the pieces on their way to it.
#[derive(Debug)]
pub(in crate::flow) struct Messages {
    parser: Parser,
    /// The direction of requests.
    request: Direction,
    forward: Half,
    backward: Half,
    /// The connection has ceased to be HTTP/1.
    switched: bool,
    /// The tunnel that a proxy opened, until it is taken.
    tunnel: Option<Tunnel>,
    /// Ended transactions of the flow, including those before these messages.
    transactions: u64,
    /// Whether the last of these asked for a tunnel, and got it.
    is_connected: bool,
}

/// A tunnel that a proxy opened with its answer to CONNECT. Pairs are forward and backward.
#[derive(Clone, Copy, Debug)]
pub(in crate::flow) struct Tunnel {
    /// Offset of the first byte inside the tunnel.
    pub(in crate::flow) begins: [u64; 2],
    /// The end of the settled bytes.
    pub(in crate::flow) settled: [u64; 2],
    /// Transactions of the flow so far.
    pub(in crate::flow) transactions: u64,
}

/// Both streams of a flow.
pub(in crate::flow) trait Pair {
    /// The stream sent in `direction`.
    fn stream(&self, direction: Direction) -> &Assembler;
}

impl Pair for protocol::tcp::Connection {
    fn stream(&self, direction: Direction) -> &Assembler {
        self.assembler(direction)
    }
}

impl Messages {
    /// A flow whose requests go in direction `request`, and whose streams, forward and backward,
    /// are HTTP from these offsets on. `marks` are of segments whose bytes are not all settled. If
    /// `is_torn`, the streams may begin within a message. The flow has had `before` transactions.
    pub(in crate::flow) fn new(
        request: Direction,
        [forward, backward]: [u64; 2],
        [forward_marks, backward_marks]: [Marks; 2],
        is_torn: bool,
        before: u64,
    ) -> Self {
        let limits = Limits::default();
        let parser = if is_torn { Parser::joined(limits) } else { Parser::new(limits) };
        let (asks, answers) = match request {
            Direction::Forward => (forward, backward),
            Direction::Backward => (backward, forward),
        };
        let parser = parser.beginning_at(asks, answers);
        Self {
            parser: parser.with_first_index(before.saturating_add(1)),
            request,
            forward: Half { fed: forward, marks: forward_marks, ..Half::default() },
            backward: Half { fed: backward, marks: backward_marks, ..Half::default() },
            switched: false,
            tunnel: None,
            transactions: before,
            is_connected: false,
        }
    }

    /// The direction of requests.
    pub(in crate::flow) fn request(&self) -> Direction {
        self.request
    }

    /// Bytes of memory on the heap; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let waiting =
            self.forward.waiting.capacity().saturating_add(self.backward.waiting.capacity());
        let marks = self.forward.marks.memory().saturating_add(self.backward.marks.memory());
        self.parser
            .memory()
            .saturating_add(waiting.saturating_mul(size_of::<Waiting>()))
            .saturating_add(marks)
    }

    /// Transactions under way, as [`Parser::under_way`] returns them.
    pub(in crate::flow) fn under_way(&self) -> impl Iterator<Item = (&Transaction, Progress)> {
        self.parser.under_way()
    }

    /// Number of transactions under way.
    pub(in crate::flow) fn pending(&self) -> usize {
        self.parser.pending()
    }

    /// Records that a segment whose payload ends at `end` of the stream sent in `direction` came
    /// too early, and acknowledges the other stream up to `acknowledged`.
    pub(in crate::flow) fn early(&mut self, direction: Direction, end: u64, acknowledged: u64) {
        if self.switched {
            return;
        }
        self.half_mut(direction).marks.set(end, acknowledged);
    }

    /// Returns true if segments came too early in `direction`, and the bytes before them have not
    /// come yet.
    pub(in crate::flow) fn has_marks(&self, direction: Direction) -> bool {
        !self.half(direction).marks.is_empty()
    }

    /// Takes the stream sent in `direction` as settled up to `end`. The last settled segment
    /// acknowledged the other stream up to `acknowledged`. Feeds the pieces that need not wait.
    pub(in crate::flow) fn settled(
        &mut self,
        direction: Direction,
        end: u64,
        acknowledged: u64,
        streams: &impl Pair,
        window: &Window<'_>,
    ) {
        if self.switched {
            return;
        }
        let half = self.half_mut(direction);
        if half.marks.is_empty() {
            half.wait(Waiting { end, needs: acknowledged });
        } else {
            half.wait_for_marks(end, acknowledged);
        }
        self.feed(streams, window);
        while self.half(direction).waiting.len() > MAX_WAITING {
            self.feed_one(direction, streams, window);
        }
    }

    /// Records that nothing will follow in `direction`.
    pub(in crate::flow) fn ended(
        &mut self,
        direction: Direction,
        how: End,
        streams: &impl Pair,
        window: &Window<'_>,
    ) {
        let half = self.half_mut(direction);
        if half.end.is_none() {
            half.end = Some((how, false));
        }
        self.feed(streams, window);
    }

    /// Ends the flow. A direction that has not ended before ends in the way `how`.
    pub(in crate::flow) fn close(&mut self, how: End, streams: &impl Pair, window: &Window<'_>) {
        let (request, response) = (self.request, self.request.other());
        while !self.forward.waiting.is_empty() || !self.backward.waiting.is_empty() {
            // The bytes that they wait for will not come any more.
            if self.half(request).waiting.is_empty() {
                self.feed_one(response, streams, window);
            } else {
                self.feed_one(request, streams, window);
            }
            self.feed(streams, window);
        }
        self.ended(request, how, streams, window);
        self.ended(response, how, streams, window);
    }

    /// The next transaction that ended.
    pub(in crate::flow) fn transaction(&mut self, streams: &impl Pair) -> Option<Box<Transaction>> {
        while let Some(event) = self.parser.event() {
            match event {
                Event::Transaction(mut transaction) => {
                    self.dispute(&mut transaction, streams);
                    self.transactions = self.transactions.saturating_add(1);
                    self.is_connected = transaction.switched && is_connect(&transaction);
                    return Some(transaction);
                }
                Event::Switched { request, response } => {
                    self.switched = true;
                    if self.is_connected {
                        let begins = match self.request {
                            Direction::Forward => [request, response],
                            Direction::Backward => [response, request],
                        };
                        let settled = [self.forward.settled(), self.backward.settled()];
                        let transactions = self.transactions;
                        self.tunnel = Some(Tunnel { begins, settled, transactions });
                    }
                    self.forward = Half::default();
                    self.backward = Half::default();
                }
            }
        }
        None
    }

    /// Marks the messages of a transaction whose bytes came in copies that differ.
    fn dispute(&self, transaction: &mut Transaction, streams: &impl Pair) {
        for direction in [self.request, self.request.other()] {
            let (side, stream) = (self.side(direction), streams.stream(direction));
            let interim = if side == Side::Response { &*transaction.interim } else { &[] };
            let message = transaction.message(side).map(Message::span);
            if message.iter().chain(interim).any(|range| stream.is_disputed(range)) {
                transaction.dispute(side);
            }
        }
    }

    /// Returns true if the parser has been informed of both ends.
    pub(in crate::flow) fn is_closed(&self) -> bool {
        [&self.forward, &self.backward].iter().all(|half| matches!(half.end, Some((_, true))))
    }

    /// Takes the tunnel that was opened. To be called after all transactions have been taken.
    pub(in crate::flow) fn take_tunnel(&mut self) -> Option<Tunnel> {
        self.tunnel.take()
    }

    fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        }
    }

    fn half_mut(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Backward => &mut self.backward,
        }
    }

    /// Feeds all pieces that need not wait.
    fn feed(&mut self, streams: &impl Pair, window: &Window<'_>) {
        loop {
            let mut is_done = true;
            for direction in [self.request, self.request.other()] {
                while self.may_feed(direction, streams) {
                    self.feed_one(direction, streams, window);
                    is_done = false;
                }
                let half = self.half_mut(direction);
                if let (true, Some((how, false))) = (half.waiting.is_empty(), half.end) {
                    half.end = Some((how, true));
                    let side = self.side(direction);
                    self.parser.end(side, how);
                    is_done = false;
                }
            }
            if is_done {
                return;
            }
        }
    }

    /// Returns true if the next piece of a direction need not wait.
    fn may_feed(&self, direction: Direction, streams: &impl Pair) -> bool {
        let Some(next) = self.half(direction).waiting.front() else { return false };
        let other = self.half(direction.other());
        // An acknowledgment of one byte more than the stream has acknowledges a FIN.
        other.fed >= next.needs
            || other.waiting.is_empty()
                && other.fed.saturating_add(1) == next.needs
                && !streams.stream(direction.other()).is_waiting()
    }

    fn feed_one(&mut self, direction: Direction, streams: &impl Pair, window: &Window<'_>) {
        let half = self.half_mut(direction);
        let Some(piece) = half.waiting.pop_front() else { return };
        let range = half.fed..piece.end;
        half.fed = piece.end.max(half.fed);
        if self.switched {
            return;
        }
        let side = self.side(direction);
        if side == Side::Request {
            self.parser.acknowledged(piece.needs);
        }
        for chunk in streams.stream(direction).chunks(range) {
            let bytes = chunk.content.ok().and_then(|extent| window.read(extent));
            match bytes {
                Some((bytes, time)) => {
                    self.parser.feed(side, chunk.range.start, &bytes, time);
                }
                None => self.parser.gap(side, chunk.range.start, chunk.range.end),
            }
        }
    }

    /// The parser's name for a direction.
    fn side(&self, direction: Direction) -> Side {
        if direction == self.request { Side::Request } else { Side::Response }
    }
}

/// Returns true if a request asks a proxy for a tunnel.
fn is_connect(transaction: &Transaction) -> bool {
    let head = transaction.request.as_ref().and_then(|request| request.head.as_ref());
    head.and_then(Head::method) == Some("CONNECT")
}
