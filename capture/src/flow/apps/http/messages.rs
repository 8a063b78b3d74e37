//! The dissector of HTTP/1: brings both streams to the parser in the order in which the endpoints
//! saw them.
//!
//! The capture may have a response before its request, and one of two streams may be settled long
//! before the other. The acknowledgment of a segment shows what its sender had received by then. So
//! each piece of a stream waits until the other stream has been fed up to that acknowledgment, or
//! was given up there as a gap. Only the places of waiting pieces are kept; their bytes are read
//! again.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use protocol::http::direction::Direction as Side;
use protocol::http::head::Head;
use protocol::http::parser::{End, Event, Limits, Parser};
use protocol::http::probe::{self, Verdict};
use protocol::http::transaction::{Message, Transaction};
use protocol::http::transcript::Progress;
use protocol::tcp::Direction;

use super::exchange::Http;
use super::recording::Ended;
use crate::flow::apps::dissector::{
    Answer, Boundary, ByteStreams, Dissector, Finished, Opening, Protocol, Run, Start, Tunnel,
};
use crate::flow::apps::kept::Kept;
use crate::flow::apps::marks::Marks;
use crate::flow::pair::of;

/// Maximum number of waiting pieces of one stream. Above it, order is given up. It corresponds to a
/// window of 6 MB full of requests of one segment each, which no client sends.
const MAX_WAITING: usize = 4_096;

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

/// HTTP/1.x.
#[derive(Debug)]
pub(in crate::flow) struct Http1;

impl Protocol for Http1 {
    fn probe(&self, opening: &Opening<'_>, _kept: &mut Kept) -> Answer {
        let probe = match opening.boundary {
            _ if opening.bytes.is_empty() => return Answer::No,
            Boundary::Beginning => probe::probe,
            Boundary::Torn | Boundary::Segment => probe::probe_joined,
            Boundary::Piece => return Answer::No,
        };
        let mut answer = Answer::No;
        for side in Side::BOTH {
            match probe(side, opening.bytes) {
                Verdict::Yes => return Answer::Yes { is_client: side == Side::Request },
                Verdict::NotYet => answer = Answer::NotYet,
                Verdict::No => {}
            }
        }
        answer
    }

    fn begin(&self, start: Start, kept: &mut Kept) -> Option<Box<dyn Dissector>> {
        kept.tls = None;
        let http = kept.http.get_or_insert_with(|| Box::new(Http::new(start.client)));
        // A server that sends requests to its client inside a tunnel: the records of a flow have
        // one direction.
        (http.request == start.client).then(|| Box::new(Messages::new(start)) as Box<_>)
    }
}

impl Messages {
    /// Both streams are HTTP from the offsets of `start` on.
    pub(in crate::flow) fn new(start: Start) -> Self {
        let Start { client: request, begins, marks, is_torn, before } = start;
        let limits = Limits::default();
        let parser = if is_torn { Parser::joined(limits) } else { Parser::new(limits) };
        let parser = parser.beginning_at(*of(&begins, request), *of(&begins, request.other()));
        let ([forward, backward], [forward_marks, backward_marks]) = (begins, marks);
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

    /// Transactions under way, as [`Parser::under_way`] returns them.
    pub(in crate::flow) fn under_way(&self) -> impl Iterator<Item = (&Transaction, Progress)> {
        self.parser.under_way()
    }

    /// Number of transactions under way.
    pub(in crate::flow) fn pending(&self) -> usize {
        self.parser.pending()
    }
}

impl Dissector for Messages {
    /// Feeds the pieces that need not wait.
    fn settled(
        &mut self,
        direction: Direction,
        end: u64,
        acknowledged: u64,
        streams: &dyn ByteStreams,
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
        self.feed(streams);
        while self.half(direction).waiting.len() > MAX_WAITING {
            self.feed_one(direction, streams);
        }
    }

    fn early(&mut self, direction: Direction, end: u64, acknowledged: u64) {
        if self.switched {
            return;
        }
        self.half_mut(direction).marks.set(end, acknowledged);
    }

    fn has_early(&self, direction: Direction) -> bool {
        !self.half(direction).marks.is_empty()
    }

    fn ended(&mut self, direction: Direction, how: End, streams: &dyn ByteStreams) {
        let half = self.half_mut(direction);
        if half.end.is_none() {
            half.end = Some((how, false));
        }
        self.feed(streams);
    }

    fn close(&mut self, how: End, streams: &dyn ByteStreams) {
        let (request, response) = (self.request, self.request.other());
        while !self.forward.waiting.is_empty() || !self.backward.waiting.is_empty() {
            // The bytes that they wait for will not come any more.
            if self.half(request).waiting.is_empty() {
                self.feed_one(response, streams);
            } else {
                self.feed_one(request, streams);
            }
            self.feed(streams);
        }
        self.ended(request, how, streams);
        self.ended(response, how, streams);
    }

    fn is_closed(&self) -> bool {
        [&self.forward, &self.backward].iter().all(|half| matches!(half.end, Some((_, true))))
    }

    fn finished(
        &mut self,
        streams: &dyn ByteStreams,
        kept: &mut Kept,
    ) -> Option<Box<dyn Finished>> {
        let transaction = Arc::from(self.transaction(streams)?);
        if let Some(http) = &mut kept.http {
            http.transit.push(Arc::clone(&transaction));
        }
        Some(Box::new(Ended { transaction, request: self.request }))
    }

    fn take_tunnel(&mut self) -> Option<Tunnel> {
        self.tunnel.take()
    }

    fn memory(&self) -> usize {
        let waiting =
            self.forward.waiting.capacity().saturating_add(self.backward.waiting.capacity());
        let marks = self.forward.marks.memory().saturating_add(self.backward.marks.memory());
        self.parser
            .memory()
            .saturating_add(waiting.saturating_mul(size_of::<Waiting>()))
            .saturating_add(marks)
            .saturating_add(size_of::<Self>())
    }
}

impl Messages {
    /// The next transaction that ended.
    fn transaction(&mut self, streams: &dyn ByteStreams) -> Option<Box<Transaction>> {
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
    fn dispute(&self, transaction: &mut Transaction, streams: &dyn ByteStreams) {
        for direction in [self.request, self.request.other()] {
            let side = self.side(direction);
            let interim = if side == Side::Response { &*transaction.interim } else { &[] };
            let message = transaction.message(side).map(Message::span);
            let mut ranges = message.iter().chain(interim);
            if ranges.any(|range| streams.is_disputed(direction, range)) {
                transaction.dispute(side);
            }
        }
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
    fn feed(&mut self, streams: &dyn ByteStreams) {
        loop {
            let mut is_done = true;
            for direction in [self.request, self.request.other()] {
                while self.may_feed(direction, streams) {
                    self.feed_one(direction, streams);
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
    fn may_feed(&self, direction: Direction, streams: &dyn ByteStreams) -> bool {
        let Some(next) = self.half(direction).waiting.front() else { return false };
        let other = self.half(direction.other());
        // An acknowledgment of one byte more than the stream has acknowledges a FIN.
        other.fed >= next.needs
            || other.waiting.is_empty()
                && other.fed.saturating_add(1) == next.needs
                && !streams.is_waiting(direction.other())
    }

    fn feed_one(&mut self, direction: Direction, streams: &dyn ByteStreams) {
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
        streams.read(direction, range, &mut |run| {
            match run {
                Run::Bytes { at, bytes, time } => self.parser.feed(side, at, bytes, time),
                Run::Hole(hole) => self.parser.gap(side, hole.start, hole.end),
            }
            ControlFlow::Continue(())
        });
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
