//! The dissector of HTTP/1: brings both streams to the parser, and finds tunnels.

use std::ops::ControlFlow;
use std::sync::Arc;

use protocol::http::direction::MessageRole;
use protocol::http::head::Head;
use protocol::http::parser::{HttpParser, ParserEvent, ParserLimits, StreamEnd};
use protocol::http::probe;
use protocol::http::transaction::{HttpMessage, HttpTransaction};
use protocol::http::transcript::TransactionProgress;
use protocol::tcp::Direction;
use protocol::time::Timestamp;
use protocol::verdict::ProbeVerdict;

use super::exchange::HttpExchanges;
use super::recording::EndedExchange;
use super::unconfirmed::Unconfirmed;
use crate::flow::apps::Application;
use crate::flow::apps::dissector::{
    Boundary, ByteStreams, Dissector, DissectorStart, Finished, ProbeAnswer, ProbedBytes,
    ProxyTunnel, StreamProtocol, StreamRun,
};
use crate::flow::apps::kept::FlowRecords;
use crate::flow::apps::order::{DissectorStep, StreamOrder};
use crate::flow::pair::of;

/// The parser of one flow, and the order in which it gets the streams.
#[derive(Debug)]
pub(in crate::flow) struct HttpDissector {
    parser: HttpParser,
    /// The direction of requests.
    request: Direction,
    order: StreamOrder,
    /// The connection has ceased to be HTTP/1.
    switched: bool,
    /// The tunnel that a proxy opened, until it is taken.
    tunnel: Option<ProxyTunnel>,
    /// Ended transactions of the flow, including those before these messages.
    transactions: u64,
    /// Whether the last of these asked for a tunnel, and got it.
    is_connected: bool,
    unconfirmed: Unconfirmed,
}

/// HTTP/1.x.
#[derive(Debug)]
pub(in crate::flow) struct Http1;

impl StreamProtocol for Http1 {
    fn application(&self) -> Application {
        Application::Http
    }

    fn probe(&self, opening: &ProbedBytes<'_>, _kept: &mut FlowRecords) -> ProbeAnswer {
        let probe = match opening.boundary {
            _ if opening.bytes.is_empty() => return ProbeAnswer::No,
            Boundary::Beginning => probe::probe,
            Boundary::Torn | Boundary::Segment => probe::probe_joined,
            Boundary::Piece => return ProbeAnswer::No,
        };
        let mut answer = ProbeAnswer::No;
        for side in MessageRole::BOTH {
            match probe(side, opening.bytes) {
                ProbeVerdict::Yes => {
                    return ProbeAnswer::Yes { is_client: side == MessageRole::Request };
                }
                ProbeVerdict::NotYet => answer = ProbeAnswer::NotYet,
                ProbeVerdict::No => {}
            }
        }
        answer
    }

    fn begin(&self, start: DissectorStart, kept: &mut FlowRecords) -> Option<Box<dyn Dissector>> {
        kept.tls = None;
        let http = kept.http.get_or_insert_with(|| Box::new(HttpExchanges::new(start.client)));
        // A server that sends requests to its client inside a tunnel: the records of a flow have
        // one direction.
        (http.request == start.client).then(|| Box::new(HttpDissector::new(start)) as Box<_>)
    }
}

impl HttpDissector {
    /// Both streams are HTTP from the offsets of `start` on.
    pub(in crate::flow) fn new(start: DissectorStart) -> Self {
        let DissectorStart { client: request, begins, marks, is_torn, before, .. } = start;
        let limits = ParserLimits::default();
        let parser = if is_torn { HttpParser::joined(limits) } else { HttpParser::new(limits) };
        let parser = parser.beginning_at(*of(&begins, request), *of(&begins, request.other()));
        Self {
            parser: parser.with_first_index(before.saturating_add(1)),
            request,
            order: StreamOrder::new(request, begins, marks),
            switched: false,
            tunnel: None,
            transactions: before,
            is_connected: false,
            unconfirmed: Unconfirmed::default(),
        }
    }

    /// Transactions under way, as [`HttpParser::under_way`] returns them.
    pub(in crate::flow) fn under_way(
        &self,
    ) -> impl Iterator<Item = (&HttpTransaction, TransactionProgress)> {
        self.parser.under_way()
    }
}

impl Dissector for HttpDissector {
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
        let Self { order, parser, request, .. } = self;
        let mut sink = |step| feed(parser, *request, streams, step);
        order.settled(direction, end, acknowledged, streams, &mut sink);
    }

    fn early(&mut self, direction: Direction, end: u64, acknowledged: u64) {
        if !self.switched {
            self.order.early(direction, end, acknowledged);
        }
    }

    fn has_early(&self, direction: Direction) -> bool {
        self.order.has_early(direction)
    }

    fn ended(&mut self, direction: Direction, how: StreamEnd, streams: &dyn ByteStreams) {
        let Self { order, parser, request, .. } = self;
        order.ended(direction, how, streams, &mut |step| feed(parser, *request, streams, step));
    }

    fn close(&mut self, how: StreamEnd, streams: &dyn ByteStreams) {
        let Self { order, parser, request, .. } = self;
        order.close(how, streams, &mut |step| feed(parser, *request, streams, step));
        self.unconfirmed.end();
    }

    fn is_closed(&self) -> bool {
        self.order.is_closed() && self.unconfirmed.is_empty()
    }

    fn finished(
        &mut self,
        streams: &dyn ByteStreams,
        kept: &mut FlowRecords,
    ) -> Option<Box<dyn Finished>> {
        while let Some(transaction) = self.transaction() {
            let transaction = Arc::from(transaction);
            if let Some(http) = &mut kept.http {
                http.transit.push(Arc::clone(&transaction));
            }
            self.unconfirmed.push(transaction);
        }
        if self.switched {
            self.unconfirmed.end();
        }
        let mut transaction = self.unconfirmed.pop(self.request, streams)?;
        if self.dispute(&mut transaction, streams)
            && let Some(http) = &mut kept.http
        {
            http.replace_in_transit(&transaction);
        }
        Some(Box::new(EndedExchange { transaction, request: self.request }))
    }

    fn take_tunnel(&mut self) -> Option<ProxyTunnel> {
        self.tunnel.take()
    }

    fn pending(&self) -> usize {
        self.parser.pending()
    }

    fn poll(&mut self, now: Timestamp) {
        self.unconfirmed.poll(now);
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.unconfirmed.deadline()
    }

    fn memory(&self) -> usize {
        let parser = self.parser.memory().saturating_add(self.unconfirmed.memory());
        parser.saturating_add(self.order.memory()).saturating_add(size_of::<Self>())
    }
}

impl HttpDissector {
    /// The next transaction that ended.
    fn transaction(&mut self) -> Option<Box<HttpTransaction>> {
        while let Some(event) = self.parser.event() {
            match event {
                ParserEvent::Transaction(transaction) => {
                    self.transactions = self.transactions.saturating_add(1);
                    self.is_connected = transaction.switched && is_connect(&transaction);
                    return Some(transaction);
                }
                ParserEvent::Switched { request, response } => {
                    self.switched = true;
                    if self.is_connected {
                        let begins = match self.request {
                            Direction::Forward => [request, response],
                            Direction::Backward => [response, request],
                        };
                        let settled = self.order.all_settled();
                        let transactions = self.transactions;
                        self.tunnel = Some(ProxyTunnel { begins, settled, transactions });
                    }
                    self.order = StreamOrder::new(self.request, [0, 0], Default::default());
                }
            }
        }
        None
    }

    /// Marks the messages of a transaction whose bytes came in copies that differ. Returns whether
    /// there are any.
    fn dispute(&self, transaction: &mut Arc<HttpTransaction>, streams: &dyn ByteStreams) -> bool {
        let mut is_disputed = false;
        for direction in [self.request, self.request.other()] {
            let side = side(direction, self.request);
            let interim = if side == MessageRole::Response { &*transaction.interim } else { &[] };
            let message = transaction.message(side).map(HttpMessage::span);
            let mut ranges = message.iter().chain(interim);
            if ranges.any(|range| streams.is_disputed(direction, range)) {
                Arc::make_mut(transaction).dispute(side);
                is_disputed = true;
            }
        }
        is_disputed
    }
}

/// Feeds a step to the parser of a flow whose requests go in direction `request`.
fn feed(
    parser: &mut HttpParser,
    request: Direction,
    streams: &dyn ByteStreams,
    step: DissectorStep,
) {
    match step {
        DissectorStep::Piece { direction, range, needs } => {
            let side = side(direction, request);
            if side == MessageRole::Request {
                parser.acknowledged(needs);
            }
            streams.read(direction, range, &mut |run| {
                match run {
                    StreamRun::Bytes { at, bytes, time } => parser.feed(side, at, bytes, time),
                    StreamRun::Hole(hole) => parser.gap(side, hole.start, hole.end),
                }
                ControlFlow::Continue(())
            });
        }
        DissectorStep::End { direction, how } => parser.end(side(direction, request), how),
    }
}

/// The parser's name for a direction, if requests go in direction `request`.
fn side(direction: Direction, request: Direction) -> MessageRole {
    if direction == request { MessageRole::Request } else { MessageRole::Response }
}

/// Returns `true` if a request asks a proxy for a tunnel.
fn is_connect(transaction: &HttpTransaction) -> bool {
    let head = transaction.request.as_ref().and_then(|request| request.head.as_ref());
    head.and_then(Head::method) == Some("CONNECT")
}
