//! Packet exchanges as a test language: each line of a test is a segment.
//!
//! `a` and `b` are the endpoints. Numbers in tests are relative: byte 0 of a stream is 0, its SYN
//! is -1, and the world adds an initial number that is chosen so that it wraps in some tests.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the numbers of tests are small"
)]
#![allow(dead_code, reason = "each test uses a part")]

use std::time::Duration;

use protocol::extent::Extent;
use protocol::tcp::seq::Sequence;
use protocol::tcp::{
    Absence, Bytes, Connection, ConnectionEvent, ConnectionSettings, ConnectionState, Direction,
    NoBytes, Ports, Scale, Segment, SegmentFlags, SegmentVerdict, StreamCounters,
};
use protocol::time::Timestamp;

/// All packets. Each has 54 bytes of headers and then only its payload.
#[derive(Default)]
pub(crate) struct Packets(Vec<Vec<u8>>);

impl Bytes for Packets {
    fn get(&self, extent: Extent) -> Option<&[u8]> {
        let payload = self.0.get(usize::try_from(extent.packet).ok()?.checked_sub(1)?)?;
        let start = (extent.offset as usize).checked_sub(54)?;
        payload.get(start..start + extent.len as usize)
    }
}

/// A segment in the notation of a test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    pub(crate) direction: Direction,
    pub(crate) flags: &'a str,
    pub(crate) sequence: i64,
    pub(crate) acknowledgment: Option<i64>,
    pub(crate) data: &'a [u8],
    pub(crate) wire_len: Option<u32>,
    pub(crate) window: u16,
    pub(crate) scale: Scale,
}

pub(crate) struct World {
    pub(crate) connection: Connection,
    pub(crate) settings: ConnectionSettings,
    pub(crate) packets: Packets,
    pub(crate) events: Vec<ConnectionEvent>,
    pub(crate) now: u64,
    /// Initial sequence numbers.
    pub(crate) initial: [u32; 2],
}

pub(crate) const A: Direction = Direction::Forward;
pub(crate) const B: Direction = Direction::Backward;

/// A connection after `count` data segments of a stream, whose places are a function of their
/// index.
pub(crate) fn after(
    count: u64,
    settings: &ConnectionSettings,
    place: impl Fn(u64) -> (u32, u32),
) -> Connection {
    let mut connection = Connection::new(Ports { forward: 40_000, backward: 80 });
    let mut events = Vec::new();
    for index in 0..count {
        let (sequence, len) = place(index);
        let extent = Extent { packet: index + 1, offset: 54, len };
        let segment = Segment {
            time: Timestamp::from_nanoseconds(index),
            packet: index + 1,
            direction: A,
            sequence: Sequence(sequence),
            acknowledgment: (index > 0).then_some(Sequence(1)),
            flags: SegmentFlags { syn: index == 0, ..SegmentFlags::default() },
            window: 500,
            scale: Scale::Absent,
            payload: &[extent],
            wire_len: len,
            is_padded: false,
            urgent: None,
        };
        let _ = connection.process(&segment, settings, &NoBytes, &mut events);
        events.clear();
    }
    connection
}

pub(crate) fn world() -> World {
    with(ConnectionSettings::default())
}

pub(crate) fn with(settings: ConnectionSettings) -> World {
    World {
        connection: Connection::new(Ports { forward: 40_000, backward: 80 }),
        settings,
        packets: Packets::default(),
        events: Vec::new(),
        now: 1_000_000_000,
        initial: [1_000, u32::MAX - 5],
    }
}

impl World {
    pub(crate) fn send(&mut self, sent: Sent<'_>) -> SegmentVerdict {
        self.now += 1_000;
        self.packets.0.push(sent.data.to_vec());
        let packet = self.packets.0.len() as u64;
        let len = u32::try_from(sent.data.len()).unwrap();
        let extents = [Extent { packet, offset: 54, len }];
        let (own, other) = match sent.direction {
            A => (self.initial[0], self.initial[1]),
            B => (self.initial[1], self.initial[0]),
        };
        let number = |initial: u32, at: i64| {
            Sequence(((i64::from(initial) + 1 + at).rem_euclid(1 << 32)) as u32)
        };
        let segment = Segment {
            time: Timestamp::from_nanoseconds(self.now),
            packet,
            direction: sent.direction,
            sequence: number(own, sent.sequence),
            acknowledgment: sent.acknowledgment.map(|at| number(other, at)),
            flags: SegmentFlags {
                syn: sent.flags.contains('S'),
                fin: sent.flags.contains('F'),
                rst: sent.flags.contains('R'),
            },
            window: sent.window,
            scale: sent.scale,
            payload: if len == 0 { &[] } else { &extents },
            wire_len: sent.wire_len.unwrap_or(len),
            is_padded: false,
            urgent: None,
        };
        self.connection.process(&segment, &self.settings, &self.packets, &mut self.events)
    }

    /// Lets time pass.
    pub(crate) fn sleep(&mut self, time: Duration) {
        self.now += u64::try_from(time.as_nanos()).unwrap();
        let now = Timestamp::from_nanoseconds(self.now);
        let due = self.connection.deadline(&self.settings).is_some_and(|due| due <= now);
        let before = self.events.len();
        self.connection.poll(now, &self.settings, &self.packets, &mut self.events);
        assert!(due || before == self.events.len(), "something happened before the deadline");
    }

    pub(crate) fn close(&mut self) {
        self.connection.close(&self.settings, &self.packets, &mut self.events);
    }

    /// The announced part of a stream, with `.` for missing bytes and `~` for expired ones.
    pub(crate) fn stream(&self, direction: Direction) -> String {
        let assembler = self.connection.assembler(direction);
        let mut text = Vec::new();
        for chunk in assembler.chunks(0..u64::MAX) {
            match chunk.content {
                Ok(extent) => text.extend_from_slice(self.packets.get(extent).unwrap()),
                Err(absence) => {
                    let sign = if absence == Absence::Missing { b'.' } else { b'~' };
                    text.extend(chunk.range.map(|_| sign));
                }
            }
        }
        String::from_utf8(text).unwrap()
    }

    pub(crate) fn state(&self) -> ConnectionState {
        self.connection.state()
    }

    pub(crate) fn counters(&self, direction: Direction) -> StreamCounters {
        *self.connection.counters(direction)
    }

    /// Events since the last call.
    pub(crate) fn events(&mut self) -> Vec<ConnectionEvent> {
        std::mem::take(&mut self.events)
    }

    /// SYN, SYN-ACK, ACK.
    pub(crate) fn handshake(&mut self) {
        let _ = crate::send!(self, a "S" -1);
        let _ = crate::send!(self, b "S" -1, ack 0);
        let _ = crate::send!(self, a "" 0, ack 0);
    }
}

/// `send!(world, a "S" -1)`, `send!(world, b "F" 5, ack 3, "data")`: endpoint, flags, sequence
/// number, then optional fields. Returns the verdict.
#[macro_export]
macro_rules! send {
    (@side a) => { $crate::tcp_exchange::A };
    (@side b) => { $crate::tcp_exchange::B };
    ($world:expr, $side:tt $flags:literal $sequence:expr $(, ack $ack:expr)? $(, win $window:literal)?
     $(, scale $scale:literal)?     $(, wire $wire:literal)? $(, $data:literal)?) => {{
        #[allow(unused_mut, unused_assignments, reason = "not every segment has everything")]
        let mut sent = $crate::tcp_exchange::Sent {
            direction: $crate::send!(@side $side),
            flags: $flags,
            sequence: $sequence,
            acknowledgment: None,
            data: b"",
            wire_len: None,
            window: 500,
            scale: protocol::tcp::Scale::Absent,
        };
        $( sent.acknowledgment = Some($ack); )?
        $( sent.window = $window; )?
        $( sent.scale = protocol::tcp::Scale::By($scale); )?
        $( sent.wire_len = Some($wire); )?
        $( sent.data = str::as_bytes($data); )?
        $world.send(sent)
    }};
}
