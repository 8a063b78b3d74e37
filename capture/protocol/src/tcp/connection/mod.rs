//! The pair of streams, and the state of the connection that its segments show.
//!
//! **Who is the client**, from the surest sign to the least sure: the sender of a SYN, or the
//! receiver of a SYN-ACK; the side with a port of 1024 or more, if the other port is well known
//! (below 1024); the side with an ephemeral port, if the other port is not ephemeral (from 32768
//! on, as Linux and RFC 6335 count); the sender of the first segment. Only a SYN seen late changes
//! what [`ConnectionEvent::Opened`] reported.
//!
//! **Opening** ends with the first segment that has an acknowledgment and neither SYN nor RST: its
//! sender has finished its handshake. If both sides send a SYN, it ends when both are acknowledged.
//! Data in a SYN is data (RFC 7413).
//!
//! A SYN-ACK may answer another SYN than the last one seen. It is believed if no data was seen: of
//! two SYNs with different numbers, it shows which one the server has. If the client goes on from
//! its own SYN, that one counts again. A segment that has neither an acknowledgment nor SYN or RST
//! is `rejected`, because receivers drop it, unless the connection has shown neither a SYN nor an
//! acknowledgment so far.
//!
//! **Reset.** A RST counts if its number lies between the last acknowledgment of its sender's peer
//! and the end of the window that the peer has advertised last. If the scale of the window is
//! unknown, any later number within `reach` counts. From a sender of which nothing is known, a RST
//! counts unless it acknowledges bytes that its peer was not seen to send. If the alleged sender of
//! a RST goes on with new bytes afterwards, or acknowledges new ones, someone else sent the RST: it
//! is `rejected` and the connection lives on. Once the connection is closed, new bytes of either
//! side belong to another connection.
//!
//! **Reuse.** A SYN with another initial number begins a new connection
//!
//! * if this one has two FINs, has a reset, or is closed; or
//! * if this one is opening and has no answer; or
//! * after `reuse_after` of silence.
//!
//! Otherwise the SYN is remembered and `rejected`. The new connection begins with a segment that
//! continues from it: the SYN-ACK, or the next segment of its sender.
//!
//! A SYN-ACK outside of the window, whose SYN was not captured, begins a new connection if this one
//! has two FINs or a reset. Otherwise it is remembered and `rejected`, and the new connection
//! begins with a segment that has both of its numbers.
//!
//! **Ending.** After a reset, or two FINs that are acknowledged or have all bytes before them, the
//! connection waits for `linger` of silence and is closed. After the FIN of one side only, it
//! becomes `timed_out` after `half_closed_timeout`. It becomes `closed` after `closing_timeout` if
//! the other side was never seen, or if bytes before one of two FINs do not come.

mod ending;
mod opening;
mod reset;
mod urgent;

pub use opening::Ports;
use opening::{Syn, UnfitSyn, client_by_port};
use reset::Reset;

use super::assembler::{Assembler, Bytes};
use super::segment::{
    ConnectionEvent, ConnectionSettings, ConnectionState, Direction, Segment, SegmentVerdict,
    StreamCounters,
};
use super::seq::Sequence;
use super::stream::{Announce, ReceiverFacts, SegmentPlace, Stream, passed};
use super::urgent::UrgentBytes;
use crate::time::Timestamp;

/// One TCP connection. The module's text describes its rules.
#[derive(Debug)]
pub struct Connection {
    forward: Stream,
    backward: Stream,
    client: Direction,
    is_client_sure: bool,
    is_announced: bool,
    /// A SYN of either side was seen.
    has_beginning: bool,
    syn_ack_seen: bool,
    is_open: bool,
    closed: Option<ConnectionState>,
    reset: Option<Box<Reset>>,
    challenger: Option<Box<UnfitSyn>>,
    /// Number in the client's own SYN, if a SYN-ACK was believed that answers another SYN.
    own_syn: Option<Sequence>,
    first_fin: Option<Direction>,
    syn_time: Option<Timestamp>,
    handshake: Option<u32>,
    last: Timestamp,
    /// Urgent bytes that were taken out of the streams, forward and backward.
    urgent: Option<Box<[UrgentBytes; 2]>>,
}

impl Connection {
    /// A connection that has seen no segment yet.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        let by_port = client_by_port(ports);
        Self {
            forward: Stream::default(),
            backward: Stream::default(),
            client: by_port.unwrap_or(Direction::Forward),
            is_client_sure: by_port.is_some(),
            is_announced: false,
            has_beginning: false,
            syn_ack_seen: false,
            is_open: false,
            closed: None,
            reset: None,
            challenger: None,
            own_syn: None,
            first_fin: None,
            syn_time: None,
            handshake: None,
            last: Timestamp::default(),
            urgent: None,
        }
    }

    /// Processes one segment, and adds the resulting events to `events`.
    ///
    /// `bytes` is only asked for payload where copies of it overlap.
    pub fn process(
        &mut self,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        events: &mut Vec<ConnectionEvent>,
    ) -> SegmentVerdict {
        if self.urgent.is_none() && segment.urgent.is_none() {
            return self.segment(segment, settings, bytes, events);
        }
        self.note_urgent(segment, settings);
        let (payload, removed, captured) = self.taken(segment.direction).strip(segment);
        let wire_len = segment.wire_len.saturating_sub(removed);
        let rest = Segment { payload: &payload, wire_len, ..self.renumbered(segment) };
        let verdict = self.segment(&rest, settings, bytes, events);
        if verdict == SegmentVerdict::Taken && captured > 0 {
            let counters = &mut self.stream(segment.direction).counters;
            counters.captured_bytes = counters.captured_bytes.saturating_add(captured);
            self.taken_mut(segment.direction).count(captured);
        }
        verdict
    }

    fn segment(
        &mut self,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        events: &mut Vec<ConnectionEvent>,
    ) -> SegmentVerdict {
        if self.is_announced {
            self.poll(segment.time, settings, bytes, events);
        }
        if let Some(state) = self.closed {
            return self.after_closing(state, segment, settings);
        }
        let said = self.client;
        let is_believed = match self.syn(segment, settings) {
            Syn::NewConnection => return SegmentVerdict::NewConnection,
            Syn::Believed => true,
            Syn::Rejected => false,
        };
        self.announce_opening(said, segment, events);
        self.last = self.last.max(segment.time);
        let counters = &mut self.stream(segment.direction).counters;
        counters.packets = counters.packets.saturating_add(1);
        counters.captured_bytes = counters.captured_bytes.saturating_add(segment.captured());
        let is_believed = is_believed && self.may_be_taken(segment);
        let is_believed = if is_believed && !segment.flags.rst {
            self.take(segment, settings, bytes, events)
        } else {
            self.stream(segment.direction).reject(segment);
            is_believed && self.take_reset(segment, settings)
        };
        if !is_believed {
            let rejected = &mut self.stream(segment.direction).counters.rejected;
            *rejected = rejected.saturating_add(1);
        }
        self.forward.wait(segment.time, settings);
        self.backward.wait(segment.time, settings);
        self.advance(segment.time, settings, events);
        SegmentVerdict::Taken
    }

    /// Advances the time: gives up holes that have waited too long, and closes a connection that is
    /// over.
    ///
    /// Costs nothing before [`Connection::deadline`].
    pub fn poll(
        &mut self,
        now: Timestamp,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        events: &mut Vec<ConnectionEvent>,
    ) {
        if self.closed.is_some() {
            return;
        }
        let timeout = self.timeout(settings);
        if passed(self.last, now, timeout) {
            let state = self.state_after_silence();
            self.close_as(state, settings, bytes, events);
            return;
        }
        if self.stream_deadline(settings).is_some_and(|deadline| deadline <= now) {
            for stream in [&mut self.forward, &mut self.backward] {
                if stream.deadline(true, settings).is_some() {
                    stream.wait(now, settings);
                }
            }
            self.advance(now, settings, events);
        }
    }

    /// The latest time for the next call of [`Connection::poll`] if no segment comes. `None` once
    /// closed.
    #[must_use]
    pub fn deadline(&self, settings: &ConnectionSettings) -> Option<Timestamp> {
        if self.closed.is_some() {
            return None;
        }
        let silence = self.last.plus(self.timeout(settings));
        Some(self.stream_deadline(settings).map_or(silence, |stream| stream.min(silence)))
    }

    /// Ends the connection now: the capture ends, a new connection takes its place, or it is
    /// evicted. Announces everything that is known of its streams. The state stays the same, except
    /// that it becomes [`ConnectionState::Closed`] with two FINs.
    pub fn close(
        &mut self,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        events: &mut Vec<ConnectionEvent>,
    ) {
        if self.closed.is_none() {
            let has_both = self.forward.fin().is_some() && self.backward.fin().is_some();
            let state = match self.state() {
                ConnectionState::Closing if has_both => ConnectionState::Closed,
                state => state,
            };
            self.close_as(state, settings, bytes, events);
        }
    }

    /// Packets below number `packet` are gone: extents that refer to them expire.
    pub fn expire(&mut self, packet: u64) {
        self.forward.assembler.expire(packet);
        self.backward.assembler.expire(packet);
    }

    /// The stream sent in `direction`.
    #[must_use]
    pub fn assembler(&self, direction: Direction) -> &Assembler {
        &self.half(direction).assembler
    }

    /// Counters of `direction`.
    #[must_use]
    pub fn counters(&self, direction: Direction) -> &StreamCounters {
        &self.half(direction).counters
    }

    /// The direction the client sends in.
    #[must_use]
    pub fn client(&self) -> Direction {
        self.client
    }

    /// The present state of the connection.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        if let Some(state) = self.closed {
            return state;
        }
        let (forward, backward) = (&self.forward, &self.backward);
        if self.reset.is_some() {
            ConnectionState::Reset
        } else if forward.is_over() && backward.is_over() {
            ConnectionState::Closed
        } else if forward.fin().is_some() || backward.fin().is_some() {
            ConnectionState::Closing
        } else if !self.has_beginning {
            ConnectionState::Midstream
        } else if self.is_open {
            ConnectionState::Open
        } else {
            ConnectionState::Opening
        }
    }

    /// Returns `true` if a SYN of either side was seen. If not, offset 0 is where the capture
    /// begins, which may be anywhere in the conversation.
    #[must_use]
    pub fn has_beginning(&self) -> bool {
        self.has_beginning
    }

    /// The side that ended it: the sender of the first FIN, or of a reset before any FIN.
    #[must_use]
    pub fn closed_by(&self) -> Option<Direction> {
        self.valid_fin().or_else(|| self.reset.as_deref().map(|reset| reset.by))
    }

    /// Microseconds from the SYN (the last one, if it was repeated) to the acknowledgment of the
    /// SYN-ACK. `None` unless all three were seen in this order.
    #[must_use]
    pub fn handshake_us(&self) -> Option<u32> {
        self.handshake
    }

    /// Stream offset up to which the receiver of the stream sent in `direction` has acknowledged
    /// it; 0 without an acknowledgment. One more than the stream's length if a FIN was
    /// acknowledged.
    #[must_use]
    pub fn acknowledged(&self, direction: Direction) -> u64 {
        self.half(direction).acknowledged()
    }

    /// Stream offset after the payload of a segment that was just processed; `None` if it is far
    /// from the expected place.
    #[must_use]
    pub fn offset_behind(
        &self,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
    ) -> Option<u64> {
        let (taken, len) = (self.taken(segment.direction), segment.wire_len);
        let sequence = segment.sequence.plus(segment.flags.syn.into());
        let end = taken.renumber(sequence.plus(len));
        let sequence = taken.renumber(sequence);
        match self.half(segment.direction).place(sequence, len, settings) {
            SegmentPlace::Near(offset) => {
                u64::try_from(offset.saturating_add(end.since(sequence))).ok()
            }
            SegmentPlace::Far => None,
        }
    }

    /// Stream offset up to which a segment that was just processed acknowledges the other stream.
    /// If it has no acknowledgment, or one far from the expected place, the highest earlier one.
    #[must_use]
    pub fn acknowledged_by(&self, segment: &Segment<'_>, settings: &ConnectionSettings) -> u64 {
        let (other, taken) =
            (self.half(segment.direction.other()), self.taken(segment.direction.other()));
        let number = segment.acknowledgment.map(|number| taken.renumber(number));
        match number.map(|number| other.place(number, 0, settings)) {
            Some(SegmentPlace::Near(offset)) => u64::try_from(offset).unwrap_or(0),
            Some(SegmentPlace::Far) | None => other.acknowledged(),
        }
    }

    /// Returns `true` if it has ended: [`ConnectionEvent::Closed`] was reported.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Heap memory in bytes, to a few per cent.
    #[must_use]
    pub fn memory(&self) -> usize {
        let streams =
            self.forward.assembler.memory().saturating_add(self.backward.assembler.memory());
        streams.saturating_add(self.urgent_memory())
    }

    /// Only the two streams, forward and backward. They are enough to read a closed connection, and
    /// need less than half of the memory.
    #[must_use]
    pub fn into_assemblers(self) -> (Assembler, Assembler) {
        (self.forward.assembler, self.backward.assembler)
    }

    fn half(&self, direction: Direction) -> &Stream {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        }
    }

    fn stream(&mut self, direction: Direction) -> &mut Stream {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Backward => &mut self.backward,
        }
    }
}

impl Connection {
    /// Processes a segment that is no reset. Returns whether it is believed.
    fn take(
        &mut self,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        events: &mut Vec<ConnectionEvent>,
    ) -> bool {
        let (direction, other) = (segment.direction, segment.direction.other());
        let has_beginning = self.has_beginning;
        self.settle_own_syn(segment);
        if !segment.flags.syn && segment.wire_len == 0 {
            self.stream(direction).hint(segment.sequence, has_beginning, segment.time, settings);
        }
        let window = self.half(other).window;
        let stream = self.stream(direction);
        let mut announce = Announce { direction, events };
        let is_believed = stream.receive(segment, window, settings, bytes, &mut announce);
        if segment.flags.fin && self.half(direction).fin().is_some() {
            self.first_fin = self.valid_fin().or(Some(direction));
        }
        if !is_believed {
            return false;
        }
        let scale = self.half(other).scale();
        self.stream(direction).note_window(segment, scale);
        if let Some(number) = segment.acknowledgment {
            let peer = self.stream(other);
            peer.hint(number, has_beginning, segment.time, settings);
            let mut announce = Announce { direction: other, events };
            peer.acknowledge(number, settings, bytes, &mut announce);
            self.note_open(segment);
        }
        self.doubt_reset(segment, settings)
    }

    /// Returns `false` if a receiver drops the segment, because it has no acknowledgment after the
    /// handshake (RFC 9293 3.10.7.4). Where nothing shows that there is such a receiver, a
    /// generator of traffic may have left the flag out.
    fn may_be_taken(&self, segment: &Segment<'_>) -> bool {
        let is_plain = segment.acknowledgment.is_none() && !segment.flags.syn && !segment.flags.rst;
        let is_real = self.has_beginning || self.forward.is_acked() || self.backward.is_acked();
        !(is_plain && is_real)
    }

    /// The sender of the first FIN, unless that FIN turned out to be someone else's.
    fn valid_fin(&self) -> Option<Direction> {
        self.first_fin.filter(|direction| self.half(*direction).fin().is_some())
    }

    fn advance(
        &mut self,
        now: Timestamp,
        settings: &ConnectionSettings,
        events: &mut Vec<ConnectionEvent>,
    ) {
        let receiver = |stream: &Stream| ReceiverFacts {
            is_seen: stream.counters.packets > 0,
            has_ended: stream.fin().is_some(),
        };
        let (forward, backward) = (receiver(&self.forward), receiver(&self.backward));
        let mut announce = Announce { direction: Direction::Forward, events };
        self.forward.advance(backward, now, settings, &mut announce);
        let mut announce = Announce { direction: Direction::Backward, events };
        self.backward.advance(forward, now, settings, &mut announce);
    }

    fn stream_deadline(&self, settings: &ConnectionSettings) -> Option<Timestamp> {
        let (forward, backward) =
            (self.forward.counters.packets > 0, self.backward.counters.packets > 0);
        let one = self.forward.deadline(backward, settings);
        let other = self.backward.deadline(forward, settings);
        one.into_iter().chain(other).min()
    }
}
