//! The streams of TCP connections: each byte once, in order, at the time at which it is certain.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use protocol::decode::{DecodedPacket, PacketTunnel, PayloadExtents, TcpHeader, TunnelKind, Vlans};
use protocol::tcp::{
    Bytes, Connection, ConnectionEvent, ConnectionSettings, Direction, Ports, Segment,
    SegmentOrigin, SegmentVerdict,
};
use protocol::time::Timestamp;

use super::recent::RecentPackets;

/// Maximum number of connections under way. Beyond that, the half is forgotten that has the least
/// time left.
const MAX_CONNECTIONS: usize = 1 << 17;

/// The interval between two looks at all connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// After this many segments a connection forgets the places of earlier bytes.
const EXPIRE_EVERY: u32 = 64;

/// Identifies a connection. The lower end is first, so that both directions have the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct TcpKey {
    low: SocketAddr,
    high: SocketAddr,
    vlans: Vlans,
    /// The same addresses in two tunnels may be those of different hosts. Labels of MPLS and keys
    /// of GRE may differ between the directions of one connection.
    tunnel: Option<(TunnelKind, Option<u32>)>,
}

impl TcpKey {
    fn of(packet: &DecodedPacket<'_>, tcp: &TcpHeader) -> (Self, Direction) {
        let source = SocketAddr::new(packet.source, tcp.source_port);
        let destination = SocketAddr::new(packet.destination, tcp.destination_port);
        let (direction, low, high) = if source <= destination {
            (Direction::Forward, source, destination)
        } else {
            (Direction::Backward, destination, source)
        };
        let tunnel = packet.tunnel.and_then(network);
        (Self { low, high, vlans: packet.vlans, tunnel }, direction)
    }

    const fn ends(&self, direction: Direction) -> (SocketAddr, SocketAddr) {
        match direction {
            Direction::Forward => (self.low, self.high),
            Direction::Backward => (self.high, self.low),
        }
    }
}

/// The part of a tunnel's identity that both directions of a connection share.
const fn network(tunnel: PacketTunnel) -> Option<(TunnelKind, Option<u32>)> {
    match tunnel.kind {
        TunnelKind::Mpls | TunnelKind::Pppoe => None,
        kind @ (TunnelKind::Vxlan | TunnelKind::Geneve) => Some((kind, tunnel.id)),
        kind => Some((kind, None)),
    }
}

#[derive(Debug)]
struct TrackedConnection {
    connection: Connection,
    segments: u32,
}

/// A part of a stream, as far as it is there.
#[derive(Debug)]
pub(super) enum StreamPart<'a> {
    /// The next bytes.
    Bytes(&'a [u8]),
    /// So many bytes are missing.
    Missing(u64),
}

/// Takes the parts of streams: source and destination of the stream, and the part.
pub(super) type PartSink<'s> = dyn FnMut((SocketAddr, SocketAddr), StreamPart<'_>) + 's;

/// All connections under way.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    connections: HashMap<TcpKey, TrackedConnection>,
    settings: ConnectionSettings,
    events: Vec<ConnectionEvent>,
    /// Time of the last look at all connections.
    swept: Timestamp,
}

impl Reassembly {
    /// Takes a segment, and hands on the bytes that have become certain.
    pub(super) fn segment(
        &mut self,
        packet: &DecodedPacket<'_>,
        tcp: &TcpHeader,
        (number, time): (u64, Timestamp),
        recent: &RecentPackets,
        sink: &mut PartSink<'_>,
    ) {
        let (key, direction) = TcpKey::of(packet, tcp);
        let extents = PayloadExtents::of(&packet.payload);
        let origin = SegmentOrigin { packet: number, time, direction };
        let segment = Segment::new(tcp, origin, extents.as_slice(), packet.payload.len());
        // The second time the connection is new.
        for _ in 0..2 {
            self.make_room();
            let tracked =
                self.connections.entry(key).or_insert_with(|| TrackedConnection::new(&key));
            let TrackedConnection { connection, segments } = tracked;
            let verdict = connection.process(&segment, &self.settings, recent, &mut self.events);
            *segments = segments.wrapping_add(1);
            hand_on(&key, connection, &mut self.events, recent, sink);
            if segments.is_multiple_of(EXPIRE_EVERY) {
                connection.expire(recent.oldest());
            }
            if verdict != SegmentVerdict::NewConnection {
                return;
            }
            self.end(&key, recent, sink);
        }
    }

    /// Lets time pass for all connections, about once a second: some wait for bytes that do not
    /// come.
    pub(super) fn advance(
        &mut self,
        now: Timestamp,
        recent: &RecentPackets,
        sink: &mut PartSink<'_>,
    ) {
        if now < self.swept.plus(SWEEP_INTERVAL) {
            return;
        }
        self.swept = now;
        let Self { connections, settings, events, .. } = self;
        connections.retain(|key, TrackedConnection { connection, .. }| {
            connection.poll(now, settings, recent, events);
            hand_on(key, connection, events, recent, sink);
            !connection.is_closed()
        });
    }

    /// Ends all connections: no more packets come.
    pub(super) fn finish(&mut self, recent: &RecentPackets, sink: &mut PartSink<'_>) {
        let mut keys: Vec<TcpKey> = self.connections.keys().copied().collect();
        // Always in the same order.
        keys.sort_by_key(|key| (key.low, key.high));
        for key in keys {
            self.end(&key, recent, sink);
        }
    }

    fn end(&mut self, key: &TcpKey, recent: &RecentPackets, sink: &mut PartSink<'_>) {
        let Some(mut tracked) = self.connections.remove(key) else { return };
        tracked.connection.close(&self.settings, recent, &mut self.events);
        hand_on(key, &tracked.connection, &mut self.events, recent, sink);
    }

    /// Forgets connections that have nothing to send, if there are too many.
    fn make_room(&mut self) {
        if self.connections.len() < MAX_CONNECTIONS {
            return;
        }
        let settings = &self.settings;
        let last = |tracked: &TrackedConnection| tracked.connection.deadline(settings);
        let mut deadlines: Vec<_> = self.connections.values().map(last).collect();
        let middle = deadlines.len() / 2;
        let (_, middle, _) = deadlines.select_nth_unstable(middle);
        let middle = *middle;
        self.connections.retain(|_, tracked| tracked.connection.deadline(settings) > middle);
    }
}

impl TrackedConnection {
    fn new(key: &TcpKey) -> Self {
        let ports = Ports { forward: key.low.port(), backward: key.high.port() };
        Self { connection: Connection::new(ports), segments: 0 }
    }
}

/// Hands on the parts of streams that the events announce.
fn hand_on(
    key: &TcpKey,
    connection: &Connection,
    events: &mut Vec<ConnectionEvent>,
    recent: &RecentPackets,
    sink: &mut PartSink<'_>,
) {
    let missing = |range: &Range<u64>| StreamPart::Missing(range.end.saturating_sub(range.start));
    for event in events.drain(..) {
        match event {
            ConnectionEvent::Data { direction, range } => {
                for chunk in connection.assembler(direction).chunks(range) {
                    let bytes = chunk.content.ok().and_then(|extent| recent.get(extent));
                    let part = bytes.map_or_else(|| missing(&chunk.range), StreamPart::Bytes);
                    sink(key.ends(direction), part);
                }
            }
            ConnectionEvent::Gap { direction, range } => {
                sink(key.ends(direction), missing(&range));
            }
            ConnectionEvent::Opened { .. }
            | ConnectionEvent::Turned { .. }
            | ConnectionEvent::Ended { .. }
            | ConnectionEvent::Closed { .. } => {}
        }
    }
}
