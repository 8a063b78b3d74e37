//! What goes into a [`Connection`](super::Connection) and what comes out.

use std::ops::Range;
use std::time::Duration;

use super::assembler::{Limits, Policy};
use super::seq::Sequence;
use crate::extent::Extent;
use crate::time::Timestamp;

/// Which of the two endpoints sends. Which is which is the caller's choice and has nothing to do
/// with who is the client.
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

/// The flags that matter here (RFC 9293 3.1; ACK shows in [`Segment::acknowledgment`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
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
    /// It cannot be told: no SYN was seen, or its options were cut when captured.
    #[default]
    Unknown,
    /// It does not.
    Absent,
    /// Its sender's windows are to be shifted left by this.
    By(u8),
}

/// One TCP segment, as a decoder found it in a packet.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// When it was captured.
    pub time: Timestamp,
    /// Number of its packet in the capture; of the last one if it came in fragments.
    pub packet: u64,
    /// Who sent it.
    pub direction: Direction,
    /// Sequence number of the SYN if there is one, else of the first byte of payload.
    pub sequence: Sequence,
    /// The acknowledgment number, if the ACK flag is set.
    pub acknowledgment: Option<Sequence>,
    /// The other flags.
    pub flags: Flags,
    /// The window as the wire has it, not scaled.
    pub window: u16,
    /// What a SYN says of scaling windows. Of no meaning without SYN.
    pub scale: Scale,
    /// The captured payload, in order. An extent of packet 0 means bytes of the wire that were
    /// not captured. Anything beyond `wire_len` bytes is ignored.
    pub payload: &'a [Extent],
    /// Bytes of payload on the wire. More than captured if the packet was cut when captured.
    pub wire_len: u32,
    /// An acknowledgment with nothing but a few zeros, which may be the padding of its frame.
    pub is_padded: bool,
    /// The urgent pointer, if the URG flag is set.
    pub urgent: Option<u16>,
}

impl Segment<'_> {
    /// Bytes of its payload that were captured.
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

/// What a [`Connection`](super::Connection) tells, in this order: [`Event::Opened`], then any
/// others, [`Event::Closed`] last.
///
/// For each direction `Data` and `Gap` follow on each other without a hole or an overlap, from
/// stream offset 0 on. What was told does not change any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection is there; sent with its first segment.
    Opened {
        /// Which direction the client sends in, as far as is known.
        client: Direction,
    },
    /// A SYN, seen late, shows that the other endpoint is the client.
    Turned {
        /// Which direction the client sends in.
        client: Direction,
    },
    /// These bytes of a stream are in order now.
    Data {
        /// Whose stream.
        direction: Direction,
        /// Stream offsets.
        range: Range<u64>,
    },
    /// These bytes of a stream are missing, and will stay so.
    Gap {
        /// Whose stream.
        direction: Direction,
        /// Stream offsets.
        range: Range<u64>,
    },
    /// The sender's FIN is reached and can be relied on: its stream is complete.
    Ended {
        /// Whose stream.
        direction: Direction,
    },
    /// Nothing more will come from this connection.
    Closed {
        /// How it ended, which [`Connection::state`](super::Connection::state) also says.
        state: State,
    },
}

/// What to do with the segment that was given to [`Connection::process`](super::Connection::process).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It belongs to this connection and was used.
    Taken,
    /// It begins another connection between the same endpoints, and was not used: close this one and
    /// give the segment to a new one.
    NewConnection,
    /// It belongs to this connection, which is closed; it was not used.
    Late,
}

/// The state of a connection, as `meta.json` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A SYN was seen, but no segment of a side that has finished its handshake.
    Opening,
    /// Both sides may send.
    Open,
    /// One side has sent its FIN; or both have, and bytes before one are still to come.
    Closing,
    /// Both sides have sent their FIN, and it is acknowledged or all bytes before it were seen.
    Closed,
    /// Ended by a reset.
    Reset,
    /// Nothing was seen for too long.
    TimedOut,
    /// Open, but the beginning was not seen.
    Midstream,
}

/// What one direction amounts to. Numbers are of segments unless they say bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// All of them.
    pub packets: u64,
    /// Bytes of payload that were captured, repetitions included. Each of them is in the stream,
    /// waits for its place there, or counts as one of `repeated_bytes`, `late_bytes` and
    /// `rejected_bytes`, or as urgent.
    pub captured_bytes: u64,
    /// Captured bytes whose place in the stream has another copy, equal or not; and keep-alives.
    pub repeated_bytes: u64,
    /// Captured bytes that are not believed: see `rejected`. Bytes after the FIN or before the SYN,
    /// and all of a reset, are among them.
    pub rejected_bytes: u64,
    /// Nothing new: each byte, SYN or FIN in it was seen before, and no byte differs. Neither
    /// keep-alives nor window probes.
    pub retransmitted: u32,
    /// With bytes not seen before, of which the first lies below the end of what had been seen of
    /// this direction: later bytes were captured first.
    pub out_of_order: u32,
    /// With bytes seen before *and* bytes not seen before; or with bytes that differ from an
    /// earlier copy. Such a segment is never `retransmitted`, but may be `out_of_order` as well.
    pub overlapping: u32,
    /// Keep-alives: no payload or one byte, one before the next that is due, when all was
    /// acknowledged (RFC 1122 4.2.3.6).
    pub keep_alives: u32,
    /// One byte, the next one due, sent into a window of zero (RFC 9293 3.8.6.1).
    pub window_probes: u32,
    /// Not believed: far from the window, behind the FIN, a reset out of the window or one that its
    /// sender contradicted by going on, a SYN in the middle.
    pub rejected: u32,
    /// Bytes that differed from an earlier copy.
    pub conflicting_bytes: u64,
    /// Bytes of which the earlier copy was gone, so that it is unknown whether they differed.
    pub unverified_bytes: u64,
    /// Captured bytes that came after their place had been given up as missing, or that lie before
    /// the beginning of a stream without SYN.
    pub late_bytes: u64,
}

/// Patience and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which copy of a byte counts.
    pub policy: Policy,
    /// Whether urgent data is in the stream.
    pub urgent: Urgent,
    /// How much one direction may hold.
    pub limits: Limits,
    /// How far from what is expected a sequence number may lie, in bytes. The wire allows 1 GiB
    /// (RFC 7323), which a random number hits every other time; receive buffers beyond 64 MiB are
    /// not seen in practice. A sender that goes on further off is followed after three segments.
    pub reach: u32,
    /// Segments with payload that have to follow, in the same direction, before a hole that its
    /// receiver has acknowledged is missing. Captures of several queues reorder by less.
    pub gap_segments: u16,
    /// Or time that has to pass. Longer than a capture's buffers are ever held back.
    pub gap_wait: Duration,
    /// The same if nothing of the receiver is captured: longer than a few retransmission timeouts.
    pub one_sided_wait: Duration,
    /// How many segments a stream without SYN waits for earlier bytes before it begins.
    pub pickup_segments: u16,
    /// And how long.
    pub pickup_wait: Duration,
    /// How long an ended connection waits for stragglers, from the last segment on.
    pub linger: Duration,
    /// Silence after which an opening connection has timed out: Linux gives up a SYN after 127 s.
    pub opening_timeout: Duration,
    /// The same with both FINs seen, or the only one there can be; `tcp_fin_timeout` of Linux is 60 s.
    pub closing_timeout: Duration,
    /// The same with the FIN of one side only: the other may go on for as long as it likes (RFC 9293
    /// 3.6), and has been seen to be silent for four minutes before its own FIN.
    pub half_closed_timeout: Duration,
    /// The same for an open one. Keep-alives come every two hours (RFC 1122 4.2.3.6).
    pub idle_timeout: Duration,
    /// Silence after which a SYN with another number is believed at once.
    pub reuse_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::First,
            urgent: Urgent::OutOfBand,
            limits: Limits::default(),
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

/// Whether a program reads urgent data in its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Urgent {
    /// It does not: sockets are like that unless a program asks for something else, and few do.
    #[default]
    OutOfBand,
    /// It does: the program asks for it with `SO_OOBINLINE`, as those of telnet and rlogin do.
    Inline,
}
