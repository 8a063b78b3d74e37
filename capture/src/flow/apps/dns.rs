//! The dissector of DNS, over UDP and TCP.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use protocol::dns::{DnsRecord, DnsTransaction, Framer, Pairing, RawMessage, probe};
use protocol::http::parser::StreamEnd;
use protocol::json;
use protocol::tcp::Direction;
use protocol::time::Timestamp;
use protocol::verdict::ProbeVerdict;

use super::Application;
use super::datagram::{Datagram, DatagramDissector, DatagramProtocol};
use super::dissector::{
    Boundary, ByteStreams, Dissector, DissectorStart, Finished, ProbeAnswer, ProbedBytes, Recorded,
    RecordingContext, StreamProtocol, StreamRun,
};
use super::kept::FlowRecords;
use super::order::{DissectorStep, StreamOrder};
use crate::flow::pair::of_mut;

/// DNS, mDNS and LLMNR.
#[derive(Debug)]
pub(in crate::flow) struct Dns;

impl StreamProtocol for Dns {
    fn application(&self) -> Application {
        Application::Dns
    }

    fn probe(&self, opening: &ProbedBytes<'_>, _kept: &mut FlowRecords) -> ProbeAnswer {
        let ProbedBytes { bytes, boundary, ends } = *opening;
        if boundary == Boundary::Piece || bytes.is_empty() {
            return ProbeAnswer::No;
        }
        match probe::stream(bytes, ports(ends)) {
            ProbeVerdict::Yes => ProbeAnswer::Yes { is_client: is_query(bytes) },
            ProbeVerdict::No => ProbeAnswer::No,
            ProbeVerdict::NotYet => ProbeAnswer::NotYet,
        }
    }

    fn begin(&self, start: DissectorStart, kept: &mut FlowRecords) -> Option<Box<dyn Dissector>> {
        kept.tls = None;
        let DissectorStart { client, begins, marks, is_torn, ends, .. } = start;
        let framer = || if is_torn { Framer::joined() } else { Framer::new() };
        Some(Box::new(DnsStreamDissector {
            order: StreamOrder::new(client, begins, marks),
            framers: [framer(), framer()],
            pairing: Pairing::new(ends),
        }))
    }
}

impl DatagramProtocol for Dns {
    fn application(&self) -> Application {
        Application::Dns
    }

    fn probe(&self, datagram: &Datagram<'_>, ends: [SocketAddr; 2]) -> bool {
        probe::datagram(datagram.bytes, datagram.wire_len, ports(ends))
    }

    fn tries(&self, ends: [SocketAddr; 2]) -> usize {
        probe::tries(ports(ends))
    }

    fn begin(&self, ends: [SocketAddr; 2]) -> Box<dyn DatagramDissector> {
        Box::new(DnsDatagramDissector { pairing: Pairing::new(ends) })
    }
}

fn ports(ends: [SocketAddr; 2]) -> [u16; 2] {
    ends.map(|end| end.port())
}

/// Returns `true` if the first message of a stream is a query: RFC 1035, section 4.1.1, after the
/// two bytes of its length.
fn is_query(bytes: &[u8]) -> bool {
    bytes.get(4).is_none_or(|flags| flags & 0x80 == 0)
}

/// DNS over TCP.
#[derive(Debug)]
struct DnsStreamDissector {
    order: StreamOrder,
    /// Forward and backward.
    framers: [Framer; 2],
    pairing: Pairing,
}

impl DnsStreamDissector {
    /// Takes in the next step of the order.
    fn step(
        framers: &mut [Framer; 2],
        pairing: &mut Pairing,
        streams: &dyn ByteStreams,
        step: DissectorStep,
    ) {
        let (DissectorStep::Piece { direction, .. } | DissectorStep::End { direction, .. }) = step;
        let framer = of_mut(framers, direction);
        let mut each = |message: RawMessage<'_>| pairing.push(direction, message);
        match step {
            DissectorStep::Piece { range, .. } => streams.read(direction, range, &mut |run| {
                match run {
                    StreamRun::Bytes { at, bytes, time } => {
                        let end = at.saturating_add(bytes.len() as u64);
                        // It is not known which copy of the bytes was received.
                        if streams.is_disputed(direction, &(at..end)) {
                            framer.gap(bytes.len() as u64, &mut each);
                        } else {
                            framer.data(time, bytes, &mut each);
                        }
                    }
                    StreamRun::Hole(hole) => {
                        framer.gap(hole.end.saturating_sub(hole.start), &mut each);
                    }
                }
                ControlFlow::Continue(())
            }),
            DissectorStep::End { .. } => framer.close(&mut each),
        }
    }
}

impl Dissector for DnsStreamDissector {
    fn settled(
        &mut self,
        direction: Direction,
        end: u64,
        acknowledged: u64,
        streams: &dyn ByteStreams,
    ) {
        let Self { order, framers, pairing } = self;
        order.settled(direction, end, acknowledged, streams, &mut |step| {
            Self::step(framers, pairing, streams, step);
        });
    }

    fn early(&mut self, direction: Direction, end: u64, acknowledged: u64) {
        self.order.early(direction, end, acknowledged);
    }

    fn has_early(&self, direction: Direction) -> bool {
        self.order.has_early(direction)
    }

    fn ended(&mut self, direction: Direction, how: StreamEnd, streams: &dyn ByteStreams) {
        let Self { order, framers, pairing } = self;
        order.ended(direction, how, streams, &mut |step| {
            Self::step(framers, pairing, streams, step);
        });
    }

    fn close(&mut self, how: StreamEnd, streams: &dyn ByteStreams) {
        let Self { order, framers, pairing } = self;
        order.close(how, streams, &mut |step| Self::step(framers, pairing, streams, step));
        pairing.close();
    }

    fn is_closed(&self) -> bool {
        self.order.is_closed() && self.pairing.under_way() == 0
    }

    fn finished(
        &mut self,
        _streams: &dyn ByteStreams,
        _kept: &mut FlowRecords,
    ) -> Option<Box<dyn Finished>> {
        finished(&mut self.pairing)
    }

    fn pending(&self) -> usize {
        self.pairing.under_way()
    }

    fn poll(&mut self, now: Timestamp) {
        self.pairing.poll(now);
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.pairing.deadline()
    }

    fn memory(&self) -> usize {
        let framers = self.framers.iter().map(Framer::memory).sum::<usize>();
        let others = self.order.memory().saturating_add(self.pairing.memory());
        framers.saturating_add(others).saturating_add(size_of::<Self>())
    }
}

/// DNS over UDP: each datagram is a message.
#[derive(Debug)]
struct DnsDatagramDissector {
    pairing: Pairing,
}

impl DatagramDissector for DnsDatagramDissector {
    fn datagram(&mut self, datagram: &Datagram<'_>) {
        let message = RawMessage::datagram(datagram.bytes, datagram.wire_len, datagram.time);
        self.pairing.push(datagram.direction, message);
    }

    fn poll(&mut self, now: Timestamp) {
        self.pairing.poll(now);
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.pairing.deadline()
    }

    fn close(&mut self) {
        self.pairing.close();
    }

    fn finished(&mut self) -> Option<Box<dyn Finished>> {
        finished(&mut self.pairing)
    }

    fn pending(&self) -> usize {
        self.pairing.under_way()
    }

    fn memory(&self) -> usize {
        self.pairing.memory().saturating_add(size_of::<Self>())
    }
}

fn finished(pairing: &mut Pairing) -> Option<Box<dyn Finished>> {
    Some(Box::new(EndedDnsTransaction(pairing.finished()?)))
}

/// A transaction that has ended.
#[derive(Debug)]
struct EndedDnsTransaction(DnsTransaction);

impl Finished for EndedDnsTransaction {
    fn application(&self) -> Application {
        Application::Dns
    }

    fn client(&self) -> Direction {
        self.0.asked
    }

    fn record(&self, desk: &mut RecordingContext<'_>) -> Recorded {
        let line = json::line(&DnsRecord::new(&desk.connection, &self.0));
        Recorded { line, decoded: 0, keep: None }
    }
}
