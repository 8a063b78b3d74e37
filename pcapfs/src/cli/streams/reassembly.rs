//! The streams of TCP connections: each byte once, in order, at the time at which it is certain.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use protocol::decode::{DecodedPacket, PacketTunnel, PayloadExtents, TcpHeader, TunnelKind, Vlans};
use protocol::tcp::{
    Bytes, Connection, ConnectionEvent, ConnectionSettings, ConnectionState, Direction, Ports,
    Segment, SegmentOrigin, SegmentVerdict,
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
    /// Its first packet.
    began: (u64, Timestamp),
    /// Streams with their end handed on: forward, backward.
    ended: (bool, bool),
}

/// The stream that a part belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct PartOrigin {
    /// Number and time of the first packet of the connection.
    pub(in crate::cli) began: (u64, Timestamp),
    source: SocketAddr,
    destination: SocketAddr,
    /// True for the stream of the client, as far as is known.
    pub(in crate::cli) is_client: bool,
    /// Offset of the part in its stream.
    pub(in crate::cli) offset: u64,
}

impl PartOrigin {
    /// Source and destination.
    pub(in crate::cli) const fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.source, self.destination)
    }
}

/// A part of a stream, as far as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum StreamPart<'a> {
    /// The next bytes, from this packet.
    Bytes { bytes: &'a [u8], packet: u64 },
    /// So many bytes are missing.
    Missing { length: u64 },
    /// No more follows: `None` after a FIN, or how the connection ended without it.
    End { without: Option<ConnectionState> },
}

/// Takes the parts of streams.
pub(in crate::cli) type PartSink<'s> = dyn FnMut(&PartOrigin, StreamPart<'_>) + 's;

/// All connections under way.
#[derive(Debug, Default)]
pub(in crate::cli) struct Reassembly {
    connections: HashMap<TcpKey, TrackedConnection>,
    settings: ConnectionSettings,
    events: Vec<ConnectionEvent>,
    /// Time of the last look at all connections.
    swept: Timestamp,
}

impl Reassembly {
    /// Takes a segment, and hands on the bytes that have become certain.
    pub(in crate::cli) fn segment(
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
            self.make_room(recent, sink);
            let began = (number, time);
            let tracked =
                self.connections.entry(key).or_insert_with(|| TrackedConnection::new(&key, began));
            let connection = &mut tracked.connection;
            let verdict = connection.process(&segment, &self.settings, recent, &mut self.events);
            tracked.segments = tracked.segments.wrapping_add(1);
            tracked.hand_on(&key, &mut self.events, recent, sink);
            if tracked.segments.is_multiple_of(EXPIRE_EVERY) {
                tracked.connection.expire(recent.oldest());
            }
            if verdict != SegmentVerdict::NewConnection {
                return;
            }
            self.end(&key, recent, sink);
        }
    }

    /// Lets time pass for all connections, about once a second: some wait for bytes that do not
    /// come.
    pub(in crate::cli) fn advance(
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
        connections.retain(|key, tracked| {
            tracked.connection.poll(now, settings, recent, events);
            tracked.hand_on(key, events, recent, sink);
            !tracked.connection.is_closed()
        });
    }

    /// Ends all connections: no more packets come.
    pub(in crate::cli) fn finish(&mut self, recent: &RecentPackets, sink: &mut PartSink<'_>) {
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
        tracked.hand_on(key, &mut self.events, recent, sink);
    }

    /// Ends the half of the connections that has the least time left, if there are too many.
    fn make_room(&mut self, recent: &RecentPackets, sink: &mut PartSink<'_>) {
        if self.connections.len() < MAX_CONNECTIONS {
            return;
        }
        let settings = &self.settings;
        let last = |tracked: &TrackedConnection| tracked.connection.deadline(settings);
        let mut deadlines: Vec<_> = self.connections.values().map(last).collect();
        let middle = deadlines.len() / 2;
        let (_, middle, _) = deadlines.select_nth_unstable(middle);
        let middle = *middle;
        let ended = self.connections.iter().filter(|(_, one)| last(one) <= middle);
        let ended: Vec<TcpKey> = ended.map(|(key, _)| *key).collect();
        for key in ended {
            self.end(&key, recent, sink);
        }
    }
}

impl TrackedConnection {
    fn new(key: &TcpKey, began: (u64, Timestamp)) -> Self {
        let ports = Ports { forward: key.low.port(), backward: key.high.port() };
        let connection = Connection::new(ports);
        Self { connection, segments: 0, began, ended: (false, false) }
    }

    /// Hands on the parts of streams that the events announce.
    fn hand_on(
        &mut self,
        key: &TcpKey,
        events: &mut Vec<ConnectionEvent>,
        recent: &RecentPackets,
        sink: &mut PartSink<'_>,
    ) {
        let length = |range: &Range<u64>| range.end.saturating_sub(range.start);
        for event in events.drain(..) {
            match event {
                ConnectionEvent::Data { direction, range } => {
                    for chunk in self.connection.assembler(direction).chunks(range) {
                        let missing = StreamPart::Missing { length: length(&chunk.range) };
                        let extent = chunk.content.ok();
                        let found = extent.and_then(|one| Some((recent.get(one)?, one.packet)));
                        let part = found
                            .map_or(missing, |(bytes, packet)| StreamPart::Bytes { bytes, packet });
                        sink(&self.origin(key, direction, chunk.range.start), part);
                    }
                }
                ConnectionEvent::Gap { direction, range } => {
                    let missing = StreamPart::Missing { length: length(&range) };
                    sink(&self.origin(key, direction, range.start), missing);
                }
                ConnectionEvent::Ended { direction } => self.ended(key, direction, None, sink),
                ConnectionEvent::Closed { state } => {
                    for direction in [Direction::Forward, Direction::Backward] {
                        self.ended(key, direction, Some(state), sink);
                    }
                }
                ConnectionEvent::Opened { .. } | ConnectionEvent::Turned { .. } => {}
            }
        }
    }

    /// Hands on the end of a stream, once.
    fn ended(
        &mut self,
        key: &TcpKey,
        direction: Direction,
        without: Option<ConnectionState>,
        sink: &mut PartSink<'_>,
    ) {
        let ended = match direction {
            Direction::Forward => &mut self.ended.0,
            Direction::Backward => &mut self.ended.1,
        };
        if !std::mem::replace(ended, true) {
            let offset = self.connection.assembler(direction).end();
            sink(&self.origin(key, direction, offset), StreamPart::End { without });
        }
    }

    fn origin(&self, key: &TcpKey, direction: Direction, offset: u64) -> PartOrigin {
        let (source, destination) = key.ends(direction);
        let is_client = self.connection.client() == direction;
        PartOrigin { began: self.began, source, destination, is_client, offset }
    }
}
