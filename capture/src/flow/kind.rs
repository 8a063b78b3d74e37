//! What a flow is made of while it is under way, and what stays of it.

use protocol::tcp::seq::Sequence;
use protocol::tcp::{Assembler, Connection, Direction, Flags, Ports, Scale, Segment};
use protocol::time::Timestamp;

use super::app::{App, Probing};
use super::datagrams::Datagrams;
use super::key::Key;

/// The state of a flow, which is most of its memory.
#[derive(Debug)]
pub(super) enum Kind {
    /// One segment without payload, as a flood of SYNs leaves behind: what a [`Connection`] can be
    /// made of if a second one comes.
    Embryo(Embryo),
    /// TCP that is followed.
    Tcp(Box<Tcp>),
    /// UDP.
    Udp(Box<[Datagrams; 2]>),
    /// TCP that is over.
    Ended(Box<Ended>),
}

/// The first segment of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Embryo {
    direction: Direction,
    sequence: Sequence,
    acknowledgment: Option<Sequence>,
    pub(super) flags: Flags,
    window: u16,
    scale: Scale,
}

/// A connection that is followed, and what it speaks.
#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) connection: Connection,
    pub(super) app: App,
}

/// What stays of a connection.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) streams: [Option<Box<Assembler>>; 2],
    pub(super) counters: [Short; 2],
    pub(super) closed_by: Option<Direction>,
    pub(super) handshake_us: Option<u32>,
}

/// The counters that `meta.json` has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Short {
    pub(super) retransmitted: u32,
    pub(super) out_of_order: u32,
    pub(super) overlapping: u32,
    pub(super) captured_bytes: u64,
    pub(super) repeated_bytes: u64,
    pub(super) late_bytes: u64,
    pub(super) rejected_bytes: u64,
    pub(super) urgent_bytes: u64,
}

impl Short {
    /// Those of the stream sent in `direction`.
    pub(super) fn of(connection: &Connection, direction: Direction) -> Self {
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

impl Tcp {
    /// One of which no segment was seen yet.
    pub(super) fn new(key: &Key) -> Self {
        let ports = Ports {
            forward: key.sender(Direction::Forward).1,
            backward: key.sender(Direction::Backward).1,
        };
        Self { connection: Connection::new(ports), app: App::Probing(Probing::default()) }
    }
}

impl Embryo {
    /// What is kept of that segment.
    pub(super) fn new(segment: &Segment<'_>) -> Self {
        Self {
            direction: segment.direction,
            sequence: segment.sequence,
            acknowledgment: segment.acknowledgment,
            flags: segment.flags,
            window: segment.window,
            scale: segment.scale,
        }
    }

    /// The segment, which came at `time`.
    pub(super) fn segment(&self, time: Timestamp) -> Segment<'static> {
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

impl Ended {
    /// What is kept of a connection that has ended.
    pub(super) fn new(connection: Connection) -> Self {
        let (closed_by, handshake_us) = (connection.closed_by(), connection.handshake_us());
        let counters = [
            Short::of(&connection, Direction::Forward),
            Short::of(&connection, Direction::Backward),
        ];
        let (forward, backward) = connection.into_assemblers();
        let streams = [forward, backward].map(|mut stream| {
            stream.shrink();
            (stream.end() > 0).then(|| Box::new(stream))
        });
        Self { streams, counters, closed_by, handshake_us }
    }

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        let streams = self.streams.iter().flatten();
        let streams = streams.map(|stream| stream.memory().saturating_add(size_of::<Assembler>()));
        size_of::<Self>().saturating_add(streams.sum())
    }
}
