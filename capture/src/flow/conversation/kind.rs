//! The state of a flow while it is under way, and the part of it that is kept afterwards.

use protocol::tcp::seq::Sequence;
use protocol::tcp::{Assembler, Connection, Direction, Ports, Scale, Segment, SegmentFlags};
use protocol::time::Timestamp;

use super::datagrams::Datagrams;
use crate::flow::apps::StreamProtocolState;
use crate::flow::apps::datagram::DatagramProtocolState;
use crate::flow::key::FlowKey;

/// The state of a flow, which takes most of its memory.
#[derive(Debug)]
pub(in crate::flow) enum FlowKind {
    /// TCP with one segment without payload, such as a flood of SYNs causes. It is enough to make a
    /// [`Connection`] when a second segment comes.
    Embryo(Embryo),
    /// TCP that is followed.
    Tcp(Box<TcpFlow>),
    /// UDP.
    Udp(Box<Udp>),
    /// TCP that has ended.
    Ended(Box<EndedConnection>),
}

/// The first segment of a connection.
#[derive(Clone, Copy, Debug)]
pub(in crate::flow) struct Embryo {
    direction: Direction,
    sequence: Sequence,
    acknowledgment: Option<Sequence>,
    pub(in crate::flow) flags: SegmentFlags,
    window: u16,
    scale: Scale,
}

/// A connection that is followed, and its application protocol.
#[derive(Debug)]
pub(in crate::flow) struct TcpFlow {
    pub(in crate::flow) connection: Connection,
    pub(in crate::flow) app: StreamProtocolState,
}

/// Datagrams between two endpoints, and their application protocol.
#[derive(Debug, Default)]
pub(in crate::flow) struct Udp {
    /// Forward and backward.
    pub(in crate::flow) sides: [Datagrams; 2],
    pub(in crate::flow) app: DatagramProtocolState,
}

/// The part of a connection that is kept after its end.
#[derive(Debug)]
pub(in crate::flow) struct EndedConnection {
    pub(in crate::flow) streams: [Option<Box<Assembler>>; 2],
    pub(in crate::flow) counters: [ShownCounters; 2],
    pub(in crate::flow) closed_by: Option<Direction>,
    pub(in crate::flow) handshake_us: Option<u32>,
}

/// The counters that `meta.json` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::flow) struct ShownCounters {
    pub(in crate::flow) retransmitted: u32,
    pub(in crate::flow) out_of_order: u32,
    pub(in crate::flow) overlapping: u32,
    pub(in crate::flow) captured_bytes: u64,
    pub(in crate::flow) repeated_bytes: u64,
    pub(in crate::flow) late_bytes: u64,
    pub(in crate::flow) rejected_bytes: u64,
    pub(in crate::flow) urgent_bytes: u64,
}

impl ShownCounters {
    /// The counters of the stream sent in `direction`.
    pub(in crate::flow) fn of(connection: &Connection, direction: Direction) -> Self {
        let counters = connection.counters(direction);
        Self {
            retransmitted: counters.retransmitted,
            out_of_order: counters.out_of_order,
            overlapping: counters.overlapping,
            captured_bytes: counters.captured_bytes,
            repeated_bytes: counters.repeated_bytes,
            late_bytes: counters.late_bytes,
            rejected_bytes: counters.rejected_bytes,
            urgent_bytes: connection.urgent_bytes(direction),
        }
    }
}

impl TcpFlow {
    /// A connection before its first segment.
    pub(in crate::flow) fn new(key: &FlowKey) -> Self {
        let ports = Ports {
            forward: key.sender(Direction::Forward).1,
            backward: key.sender(Direction::Backward).1,
        };
        Self { connection: Connection::new(ports), app: StreamProtocolState::default() }
    }
}

impl Embryo {
    /// Keeps the first segment.
    pub(in crate::flow) fn new(segment: &Segment<'_>) -> Self {
        Self {
            direction: segment.direction,
            sequence: segment.sequence,
            acknowledgment: segment.acknowledgment,
            flags: segment.flags,
            window: segment.window,
            scale: segment.scale,
        }
    }

    /// The first segment, which came at `time`.
    pub(in crate::flow) fn segment(&self, time: Timestamp) -> Segment<'static> {
        Segment {
            time,
            packet: 0,
            direction: self.direction,
            sequence: self.sequence,
            acknowledgment: self.acknowledgment,
            flags: self.flags,
            window: self.window,
            scale: self.scale,
            payload: &[],
            wire_len: 0,
            is_padded: false,
            urgent: None,
        }
    }
}

impl EndedConnection {
    /// Keeps the needed part of a connection that has ended.
    pub(in crate::flow) fn new(connection: Connection) -> Self {
        let (closed_by, handshake_us) = (connection.closed_by(), connection.handshake_us());
        let counters = [
            ShownCounters::of(&connection, Direction::Forward),
            ShownCounters::of(&connection, Direction::Backward),
        ];
        let (forward, backward) = connection.into_assemblers();
        let streams = [forward, backward].map(|mut stream| {
            stream.shrink();
            (stream.end() > 0).then(|| Box::new(stream))
        });
        Self { streams, counters, closed_by, handshake_us }
    }

    /// Bytes of memory; an estimate.
    pub(in crate::flow) fn memory(&self) -> usize {
        let streams = self.streams.iter().flatten();
        let streams = streams.map(|stream| stream.memory().saturating_add(size_of::<Assembler>()));
        size_of::<Self>().saturating_add(streams.sum())
    }
}
