//! Input and output of a [`Connection`](super::Connection).

use std::ops::Range;
use std::time::Duration;

use super::assembler::{AssemblerLimits, Policy};
use super::seq::Sequence;
use crate::decode::{TcpFlags, TcpHeader};
use crate::extent::Extent;
use crate::time::Timestamp;

/// The endpoint that sends. The caller decides which endpoint is which, independently of who is the
/// client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the endpoint that the caller's flow key names first.
    Forward,
    /// From the other one.
    Backward,
}

impl Direction {
    /// The opposite direction.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }
}

/// The flags that matter here (RFC 9293 3.1). ACK is the presence of [`Segment::acknowledgment`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SegmentFlags {
    /// Synchronize: the sequence number is the initial one.
    pub syn: bool,
    /// No more data after this segment.
    pub fin: bool,
    /// Reset.
    pub rst: bool,
}

/// Whether a SYN offers to scale windows (RFC 7323 2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scale {
    /// Unknown: no SYN was seen, or its options were cut by the capture.
    #[default]
    Unknown,
    /// It does not offer it.
    Absent,
    /// It offers it: its sender's windows are shifted left by this many bits.
    By(u8),
}

/// One TCP segment, decoded from a packet.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Its capture time.
    pub time: Timestamp,
    /// Number of its packet in the capture, or of the last packet if it came in fragments.
    pub packet: u64,
    /// The endpoint that sent it.
    pub direction: Direction,
    /// Sequence number of the SYN, or of the first byte of payload without a SYN.
    pub sequence: Sequence,
    /// The acknowledgment number, if the ACK flag is set.
    pub acknowledgment: Option<Sequence>,
    /// The other flags.
    pub flags: SegmentFlags,
    /// The window field, not scaled.
    pub window: u16,
    /// The window scale option of a SYN. Meaningless without SYN.
    pub scale: Scale,
    /// The captured payload, in order. An extent of packet 0 means bytes that were on the wire but
    /// not captured. Extents beyond `wire_len` bytes are ignored.
    pub payload: &'a [Extent],
    /// Bytes of payload on the wire. More than were captured if the capture cut the packet.
    pub wire_len: u32,
    /// An acknowledgment whose payload is only a few zeros, which may be the padding of its frame.
    pub is_padded: bool,
    /// The urgent pointer, if the URG flag is set.
    pub urgent: Option<u16>,
}

/// The facts of a segment that are not in its TCP header.
#[derive(Clone, Copy, Debug)]
pub struct SegmentOrigin {
    /// See [`Segment::packet`].
    pub packet: u64,
    /// See [`Segment::time`].
    pub time: Timestamp,
    /// See [`Segment::direction`].
    pub direction: Direction,
}

impl<'a> Segment<'a> {
    /// The segment with this header and payload; `wire_len` is [`Segment::wire_len`].
    #[must_use]
    pub fn new(
        tcp: &TcpHeader,
        origin: SegmentOrigin,
        payload: &'a [Extent],
        wire_len: u32,
    ) -> Self {
        let SegmentOrigin { packet, time, direction } = origin;
        let acknowledgment = Sequence(tcp.acknowledgment);
        Self {
            time,
            packet,
            direction,
            sequence: Sequence(tcp.sequence),
            acknowledgment: tcp.flags.contains(TcpFlags::ACK).then_some(acknowledgment),
            flags: SegmentFlags {
                syn: tcp.flags.contains(TcpFlags::SYN),
                fin: tcp.flags.contains(TcpFlags::FIN),
                rst: tcp.flags.contains(TcpFlags::RST),
            },
            window: tcp.window,
            scale: match tcp.window_scale {
                Some(shift) => Scale::By(shift),
                None if tcp.has_all_options => Scale::Absent,
                None => Scale::Unknown,
            },
            payload,
            wire_len,
            is_padded: tcp.is_padded,
            urgent: tcp.flags.contains(TcpFlags::URG).then_some(tcp.urgent),
        }
    }

    /// Number of captured payload bytes.
    #[must_use]
    pub fn captured(&self) -> u64 {
        let (mut at, mut captured) = (0_u64, 0_u64);
        for extent in self.payload {
            let left = u64::from(self.wire_len).saturating_sub(at);
            let len = u64::from(extent.len).min(left);
            at = at.saturating_add(len);
            captured = captured.saturating_add(if extent.packet == 0 { 0 } else { len });
        }
        captured
    }
}

/// The output of a [`Connection`](super::Connection), in this order: [`ConnectionEvent::Opened`],
/// then any others, [`ConnectionEvent::Closed`] last.
///
/// For each direction, the ranges of `Data` and `Gap` begin at stream offset 0 and follow each
/// other without a hole or an overlap. An announced range never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The connection exists. Comes with its first segment.
    Opened {
        /// The direction the client sends in, as far as is known.
        client: Direction,
    },
    /// A late SYN shows that the other endpoint is the client.
    Turned {
        /// The direction the client sends in.
        client: Direction,
    },
    /// These bytes of a stream are now in order.
    Data {
        /// The direction of the stream.
        direction: Direction,
        /// Stream offsets.
        range: Range<u64>,
    },
    /// These bytes of a stream are missing for good.
    Gap {
        /// The direction of the stream.
        direction: Direction,
        /// Stream offsets.
        range: Range<u64>,
    },
    /// The sender's FIN was reached and is reliable: its stream is complete.
    Ended {
        /// The direction of the stream.
        direction: Direction,
    },
    /// No more events of this connection will follow.
    Closed {
        /// How it ended; the same as [`Connection::state`](super::Connection::state).
        state: ConnectionState,
    },
}

/// How [`Connection::process`](super::Connection::process) treated a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SegmentVerdict {
    /// It belongs to this connection and was used.
    Taken,
    /// It begins another connection between the same endpoints, and was not used. Close this
    /// connection and give the segment to a new one.
    NewConnection,
    /// It belongs to this connection, which is closed; it was not used.
    Late,
}

/// The state of a connection, with its name in `meta.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// A SYN was seen, but no segment from a side that has finished its handshake.
    Opening,
    /// Both sides may send.
    Open,
    /// One side has sent its FIN. Or both have, and bytes before one of them are still to come.
    Closing,
    /// Both sides have sent their FIN, and it is acknowledged or all bytes before it were seen.
    Closed,
    /// Ended by a reset.
    Reset,
    /// The connection was silent for too long.
    TimedOut,
    /// Open, but its beginning was not captured.
    Midstream,
}

/// Counters of one direction. They count segments, except those that say bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// All segments.
    pub packets: u64,
    /// Captured bytes of payload, repetitions included. Each of them is in the stream, waits for
    /// its place there, is counted in `repeated_bytes`, `late_bytes` or `rejected_bytes`, or is
    /// urgent.
    pub captured_bytes: u64,
    /// Captured bytes whose place in the stream has another copy, equal or not, and the bytes of
    /// keep-alives.
    pub repeated_bytes: u64,
    /// Captured bytes that are not believed, see `rejected`. They include bytes after the FIN or
    /// before the SYN, and the payload of resets.
    pub rejected_bytes: u64,
    /// Repetitions: each byte, SYN or FIN in it was seen before, and no byte differs. Keep-alives
    /// and window probes are not counted here.
    pub retransmitted: u32,
    /// With bytes that were not seen before and lie below the highest byte seen in this direction:
    /// later bytes were captured first.
    pub out_of_order: u32,
    /// With bytes seen before *and* bytes not seen before, or with bytes that differ from an
    /// earlier copy. Such a segment never counts as `retransmitted`, but may count as
    /// `out_of_order` too.
    pub overlapping: u32,
    /// Keep-alives: no payload or one byte, at one less than the next expected number, when
    /// everything was acknowledged (RFC 1122 4.2.3.6).
    pub keep_alives: u32,
    /// Window probes: one byte, the next expected one, sent into a window of zero (RFC 9293
    /// 3.8.6.1).
    pub window_probes: u32,
    /// Segments that are not believed: far from the window, after the FIN, without an
    /// acknowledgment, a reset outside of the window, a reset whose sender went on sending, a SYN
    /// in the middle.
    pub rejected: u32,
    /// Bytes that differ from an earlier copy.
    pub conflicting_bytes: u64,
    /// Bytes whose earlier copy was gone, so that it is unknown whether they differ.
    pub unverified_bytes: u64,
    /// Captured bytes that came after their place had been given up as missing, or that lie before
    /// the beginning of a stream without SYN.
    pub late_bytes: u64,
}

/// Timeouts and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// The copy of a byte that counts.
    pub policy: Policy,
    /// Whether urgent data is in the stream.
    pub urgent: Urgent,
    /// Limits of one direction.
    pub limits: AssemblerLimits,
    /// Maximum distance of a sequence number from the expected one, in bytes. The wire allows 1 GiB
    /// (RFC 7323), and every other random number is as close as that. Receive buffers beyond 64 MiB
    /// are not seen in practice. A sender that goes on further away is followed after three
    /// segments.
    pub reach: u32,
    /// A hole that its receiver has acknowledged is missing after this many more segments with
    /// payload in the same direction. Captures of several queues reorder by less.
    pub gap_segments: u16,
    /// Or after this time. No capture holds back its buffers for so long.
    pub gap_wait: Duration,
    /// Like `gap_wait`, if no packet of the receiver is captured. Longer than a few retransmission
    /// timeouts.
    pub one_sided_wait: Duration,
    /// A stream without SYN waits for earlier bytes for this number of segments before it begins.
    pub pickup_segments: u16,
    /// Or for this time.
    pub pickup_wait: Duration,
    /// Silence for which an ended connection waits for stragglers.
    pub linger: Duration,
    /// Silence after which an opening connection has timed out. Linux gives up a SYN after 127 s.
    pub opening_timeout: Duration,
    /// The same after both FINs, or after one if the other side was never seen. `tcp_fin_timeout`
    /// of Linux is 60 s.
    pub closing_timeout: Duration,
    /// The same after the FIN of one side only. The other side may go on without a time limit (RFC
    /// 9293 3.6), and silences of four minutes before the second FIN have been seen.
    pub half_closed_timeout: Duration,
    /// The same for an open connection. Keep-alives come every two hours (RFC 1122 4.2.3.6).
    pub idle_timeout: Duration,
    /// Silence after which a SYN with another number is believed at once.
    pub reuse_after: Duration,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            policy: Policy::First,
            urgent: Urgent::OutOfBand,
            limits: AssemblerLimits::default(),
            reach: 64 << 20,
            gap_segments: 32,
            gap_wait: Duration::from_secs(1),
            one_sided_wait: Duration::from_secs(5),
            pickup_segments: 16,
            pickup_wait: Duration::from_millis(250),
            linger: Duration::from_secs(2),
            opening_timeout: Duration::from_secs(130),
            closing_timeout: Duration::from_secs(60),
            half_closed_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(7_300),
            reuse_after: Duration::from_secs(30),
        }
    }
}

/// Whether urgent data is part of the stream that a program reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Urgent {
    /// It is not. Sockets work like that unless a program asks for `SO_OOBINLINE`, and few programs
    /// do.
    #[default]
    OutOfBand,
    /// It is. Programs like those of telnet and rlogin ask for it with `SO_OOBINLINE`.
    Inline,
}
