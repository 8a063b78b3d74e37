//! The pair of streams, and what their segments say about the connection.
//!
//! **Who is the client**, from the surest to the least sure: the sender of a SYN, or the receiver of
//! a SYN-ACK; of two ports the one that is not well known (below 1024); the higher of two ports of
//! which only one is ephemeral (from 32768 on, as Linux and RFC 6335 count); the sender of the first
//! segment. Only a SYN seen late changes what was said with [`Event::Opened`].
//!
//! **Opening** ends with the first segment that has an acknowledgment and neither SYN nor RST: its
//! sender has finished its handshake. If both sides send a SYN, it ends when both are acknowledged.
//! Data in a SYN is data (RFC 7413).
//!
//! A SYN-ACK to another SYN than was seen last is believed as long as no data was: of two SYNs with
//! different numbers the server says with it which one it has. If the client goes on from its own, that
//! counts again. What has neither an acknowledgment nor SYN or RST is `rejected`, as receivers drop it.
//!
//! **Reset.** A RST counts if its number lies between what its sender's peer has acknowledged and
//! the end of the window that the peer has advertised last, or anywhere near if the window's scale is
//! not known; or, from a sender of which nothing is known, if it acknowledges the peer's SYN or data.
//! A RST whose alleged sender goes on with new bytes afterwards, or acknowledges new ones, was
//! someone else's: it is `rejected` and the connection lives on. If that comes when the connection is
//! over already, or the other side goes on then, it is another connection.
//!
//! **Reuse.** A SYN with another initial number begins a new connection if this one has two FINs, a
//! reset or is closed; if it is opening and nobody has answered; or after `reuse_after` of silence.
//! Otherwise it is kept in mind and `rejected`, and the new connection begins with the
//! segment that goes on from it: the SYN-ACK, or the sender's next. So with a SYN-ACK out of the
//! window whose SYN was not captured: at once if this one has two FINs or a reset, else with the
//! segment that has both of its numbers.
//!
//! **Ending.** After a reset, or two FINs that are acknowledged or have all bytes before them, the
//! connection waits for `linger` of silence and is closed. With one FIN, it is closed after `closing_timeout`,
//! as `timed_out` unless nothing was ever seen of the other side.

mod ending;
mod opening;
mod reset;
mod urgent;

pub use opening::Ports;
use opening::{Challenger, Syn, client_by_port};
use reset::Reset;

use super::assembler::{Assembler, Bytes};
use super::segment::{Counters, Direction, Event, Segment, Settings, State, Verdict};
use super::seq::Sequence;
use super::stream::{Announce, Place, Receiver, Stream, passed};
use super::urgent::Taken;
use crate::time::Timestamp;

/// One TCP connection. See the module's text for its rules.
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
    closed: Option<State>,
    reset: Option<Box<Reset>>,
    challenger: Option<Box<Challenger>>,
    /// What the client's own SYN says, if a SYN-ACK was believed that answers another one.
    own_syn: Option<Sequence>,
    first_fin: Option<Direction>,
    syn_time: Option<Timestamp>,
    handshake: Option<u32>,
    last: Timestamp,
    /// Urgent bytes that are not in the streams, forward and backward.
    urgent: Option<Box<[Taken; 2]>>,
}

impl Connection {
    /// A connection of which no segment was seen yet.
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

    /// Takes one segment, and adds what follows from it to `events`.
    ///
    /// `bytes` is asked for payload only where copies of it overlap.
    pub fn process(
        &mut self,
        segment: &Segment<'_>,
        settings: &Settings,
        bytes: &dyn Bytes,
        events: &mut Vec<Event>,
    ) -> Verdict {
        if self.urgent.is_none() && segment.urgent.is_none() {
            return self.segment(segment, settings, bytes, events);
        }
        self.note_urgent(segment, settings);
        let (payload, removed, captured) = self.taken(segment.direction).strip(segment);
        let wire_len = segment.wire_len.saturating_sub(removed);
        let rest = Segment { payload: &payload, wire_len, ..self.renumbered(segment) };
        let verdict = self.segment(&rest, settings, bytes, events);
        if verdict == Verdict::Taken && captured > 0 {
            let counters = &mut self.stream(segment.direction).counters;
            counters.captured_bytes = counters.captured_bytes.saturating_add(captured);
            self.taken_mut(segment.direction).count(captured);
        }
        verdict
    }

    fn segment(
        &mut self,
        segment: &Segment<'_>,
        settings: &Settings,
        bytes: &dyn Bytes,
        events: &mut Vec<Event>,
    ) -> Verdict {
        if self.is_announced {
            self.poll(segment.time, settings, bytes, events);
        }
        if let Some(state) = self.closed {
            return self.after_closing(state, segment, settings);
        }
        let said = self.client;
        let is_believed = match self.syn(segment, settings) {
            Syn::NewConnection => return Verdict::NewConnection,
            Syn::Believed => true,
            Syn::Rejected => false,
        };
        self.announce_opening(said, segment, events);
        self.last = self.last.max(segment.time);
        let counters = &mut self.stream(segment.direction).counters;
        counters.packets = counters.packets.saturating_add(1);
        counters.captured_bytes = counters.captured_bytes.saturating_add(segment.captured());
        // A receiver drops what has no acknowledgment once its handshake is over (RFC 9293 3.10.7.4).
        let is_taken = segment.acknowledgment.is_some() || segment.flags.syn || segment.flags.rst;
        let is_believed = is_believed && is_taken;
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
        Verdict::Taken
    }

    /// Lets time pass: gives up holes that nobody will fill, closes what is over.
    ///
    /// Costs nothing before [`Connection::deadline`].
    pub fn poll(
        &mut self,
        now: Timestamp,
        settings: &Settings,
        bytes: &dyn Bytes,
        events: &mut Vec<Event>,
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

    /// When [`Connection::poll`] has something to do at the latest, if nothing else comes. `None`
    /// once closed.
    #[must_use]
    pub fn deadline(&self, settings: &Settings) -> Option<Timestamp> {
        if self.closed.is_some() {
            return None;
        }
        let silence = self.last.plus(self.timeout(settings));
        Some(self.stream_deadline(settings).map_or(silence, |stream| stream.min(silence)))
    }

    /// Ends the connection now: the capture ends, a new connection takes its place, or it is
    /// evicted. Everything that is known of its streams is announced; the state stays as it is, but
    /// with two FINs is [`State::Closed`].
    pub fn close(&mut self, settings: &Settings, bytes: &dyn Bytes, events: &mut Vec<Event>) {
        if self.closed.is_none() {
            let has_both = self.forward.fin().is_some() && self.backward.fin().is_some();
            let state = match self.state() {
                State::Closing if has_both => State::Closed,
                state => state,
            };
            self.close_as(state, settings, bytes, events);
        }
    }

    /// Packets below number `packet` are gone; what refers to them expires.
    pub fn expire(&mut self, packet: u64) {
        self.forward.assembler.expire(packet);
        self.backward.assembler.expire(packet);
    }

    /// The stream that is sent in `direction`.
    #[must_use]
    pub fn assembler(&self, direction: Direction) -> &Assembler {
        &self.half(direction).assembler
    }

    /// What `direction` amounts to.
    #[must_use]
    pub fn counters(&self, direction: Direction) -> &Counters {
        &self.half(direction).counters
    }

    /// The direction the client sends in.
    #[must_use]
    pub fn client(&self) -> Direction {
        self.client
    }

    /// Where the connection is now.
    #[must_use]
    pub fn state(&self) -> State {
        if let Some(state) = self.closed {
            return state;
        }
        let (forward, backward) = (&self.forward, &self.backward);
        if self.reset.is_some() {
            State::Reset
        } else if forward.is_over() && backward.is_over() {
            State::Closed
        } else if forward.fin().is_some() || backward.fin().is_some() {
            State::Closing
        } else if !self.has_beginning {
            State::Midstream
        } else if self.is_open {
            State::Open
        } else {
            State::Opening
        }
    }

    /// Whether a SYN of either side was seen. If not, offset 0 is where the capture begins, and that
    /// may be anywhere in what is said.
    #[must_use]
    pub fn has_beginning(&self) -> bool {
        self.has_beginning
    }

    /// Who ended it: the sender of the first FIN, or of a reset before any FIN.
    #[must_use]
    pub fn closed_by(&self) -> Option<Direction> {
        self.valid_fin().or_else(|| self.reset.as_deref().map(|reset| reset.by))
    }

    /// Microseconds from the SYN (the last of them, if it was repeated) to the acknowledgment of the
    /// SYN-ACK. `None` unless all three were seen in this order.
    #[must_use]
    pub fn handshake_us(&self) -> Option<u32> {
        self.handshake
    }

    /// Stream offset up to which the receiver of the stream sent in `direction` has acknowledged it;
    /// 0 if it never did. One more than the stream has if that was for a FIN.
    #[must_use]
    pub fn acknowledged(&self, direction: Direction) -> u64 {
        self.half(direction).acknowledged()
    }

    /// Stream offset behind the payload of a segment that was just taken; `None` if it is far from
    /// anything expected.
    #[must_use]
    pub fn offset_behind(&self, segment: &Segment<'_>, settings: &Settings) -> Option<u64> {
        let (taken, len) = (self.taken(segment.direction), segment.wire_len);
        let sequence = segment.sequence.plus(segment.flags.syn.into());
        let end = taken.renumber(sequence.plus(len));
        let sequence = taken.renumber(sequence);
        match self.half(segment.direction).place(sequence, len, settings) {
            Place::Near(offset) => u64::try_from(offset.saturating_add(end.since(sequence))).ok(),
            Place::Far => None,
        }
    }

    /// Stream offset up to which a segment that was just taken acknowledges the other stream; what
    /// is known if it does not, or says something far from that.
    #[must_use]
    pub fn acknowledged_by(&self, segment: &Segment<'_>, settings: &Settings) -> u64 {
        let (other, taken) =
            (self.half(segment.direction.other()), self.taken(segment.direction.other()));
        let number = segment.acknowledgment.map(|number| taken.renumber(number));
        match number.map(|number| other.place(number, 0, settings)) {
            Some(Place::Near(offset)) => u64::try_from(offset).unwrap_or(0),
            Some(Place::Far) | None => other.acknowledged(),
        }
    }

    /// Whether it has ended: [`Event::Closed`] was told.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Bytes of memory on the heap, to a few per cent.
    #[must_use]
    pub fn memory(&self) -> usize {
        let streams =
            self.forward.assembler.memory().saturating_add(self.backward.assembler.memory());
        streams.saturating_add(self.urgent_memory())
    }

    /// The two streams alone, forward and backward: all that is needed to read a closed connection,
    /// in less than half of the memory.
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
    /// Anything but a reset. Whether it is believed.
    fn take(
        &mut self,
        segment: &Segment<'_>,
        settings: &Settings,
        bytes: &dyn Bytes,
        events: &mut Vec<Event>,
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

    /// Who sent the first FIN, unless it turned out to be somebody else's.
    fn valid_fin(&self) -> Option<Direction> {
        self.first_fin.filter(|direction| self.half(*direction).fin().is_some())
    }

    fn advance(&mut self, now: Timestamp, settings: &Settings, events: &mut Vec<Event>) {
        let receiver = |stream: &Stream| Receiver {
            is_seen: stream.counters.packets > 0,
            has_ended: stream.fin().is_some(),
        };
        let (forward, backward) = (receiver(&self.forward), receiver(&self.backward));
        let mut announce = Announce { direction: Direction::Forward, events };
        self.forward.advance(backward, now, settings, &mut announce);
        let mut announce = Announce { direction: Direction::Backward, events };
        self.backward.advance(forward, now, settings, &mut announce);
    }

    fn stream_deadline(&self, settings: &Settings) -> Option<Timestamp> {
        let (forward, backward) =
            (self.forward.counters.packets > 0, self.backward.counters.packets > 0);
        let one = self.forward.deadline(backward, settings);
        let other = self.backward.deadline(forward, settings);
        one.into_iter().chain(other).min()
    }
}
