//! How a connection begins, and which segments begin another one.

use super::Connection;
use crate::tcp::segment::{
    ConnectionEvent, ConnectionSettings, ConnectionState, Direction, Segment, SegmentVerdict,
};
use crate::tcp::seq::Sequence;
use crate::tcp::stream::{SegmentPlace, passed};

/// First port that needs no privilege (RFC 6335 6).
const FIRST_USER_PORT: u16 = 1_024;

/// First ephemeral port of Linux (`ip_local_port_range`). IANA's range begins at 49152.
const FIRST_EPHEMERAL_PORT: u16 = 32_768;

/// The ports of both endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Port of the endpoint that sends [`Direction::Forward`].
    pub forward: u16,
    /// Port of the other endpoint.
    pub backward: u16,
}

/// A SYN with a number that does not fit, remembered until a segment follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnfitSyn {
    direction: Direction,
    first: Sequence,
    /// The number it acknowledges.
    peer: Option<Sequence>,
}

/// The meaning of a segment's SYN.
pub(super) enum Syn {
    /// It has no SYN, or the SYN fits.
    Believed,
    Rejected,
    NewConnection,
}

/// The direction the client sends in, if the ports show it.
pub(super) fn client_by_port(ports: Ports) -> Option<Direction> {
    let by = |test: fn(u16) -> bool| match (test(ports.forward), test(ports.backward)) {
        (true, false) => Some(Direction::Forward),
        (false, true) => Some(Direction::Backward),
        _ => None,
    };
    by(|port| port >= FIRST_USER_PORT).or_else(|| by(|port| port >= FIRST_EPHEMERAL_PORT))
}

impl Connection {
    /// Reports the client, first when the connection opens, and again if a SYN shows that the other
    /// side is the client.
    pub(super) fn announce_opening(
        &mut self,
        said: Direction,
        segment: &Segment<'_>,
        events: &mut Vec<ConnectionEvent>,
    ) {
        if !self.is_announced {
            if !self.is_client_sure {
                self.client = segment.direction;
            }
            self.is_announced = true;
            events.push(ConnectionEvent::Opened { client: self.client });
        } else if said != self.client {
            events.push(ConnectionEvent::Turned { client: self.client });
        }
    }

    /// The verdict on a segment of a connection that is closed.
    pub(super) fn after_closing(
        &self,
        state: ConnectionState,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
    ) -> SegmentVerdict {
        if segment.flags.rst {
            return SegmentVerdict::Late;
        }
        let stream = self.half(segment.direction);
        let is_known = stream.is_known();
        let first = segment.sequence.plus(1);
        let is_new = if segment.flags.syn {
            !(is_known && stream.origin() == first)
        } else if state == ConnectionState::TimedOut {
            segment.wire_len > 0
        } else {
            is_known && self.goes_on(state, segment, settings)
        };
        if is_new { SegmentVerdict::NewConnection } else { SegmentVerdict::Late }
    }

    /// Returns `true` if a segment without SYN, from a side that was seen, shows that a closed
    /// connection goes on.
    fn goes_on(
        &self,
        state: ConnectionState,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
    ) -> bool {
        let stream = self.half(segment.direction);
        let len = segment.wire_len;
        let SegmentPlace::Near(offset) = stream.place(segment.sequence, len, settings) else {
            return len > 0;
        };
        if stream.is_far_out(offset, self.half(segment.direction.other()).window) {
            return len > 0;
        }
        match state {
            // The reset or FIN was someone else's, and both sides go on where they were. A segment
            // whose bytes were all seen before is a straggler.
            ConnectionState::Reset if segment.flags.fin && stream.fin().is_none() => true,
            ConnectionState::Reset => stream.lacks(offset, len),
            ConnectionState::Closed => !stream.is_fin_acked() && stream.lacks(offset, len),
            // Open at the end of the capture, or evicted: it may go on.
            _ => len > 0 && u64::try_from(offset).is_ok_and(|offset| offset >= stream.anchor()),
        }
    }

    pub(super) fn syn(&mut self, segment: &Segment<'_>, settings: &ConnectionSettings) -> Syn {
        if self.follows_challenger(segment) {
            return Syn::NewConnection;
        }
        if !segment.flags.syn || segment.flags.rst {
            return Syn::Believed;
        }
        let direction = segment.direction;
        let first = segment.sequence.plus(1);
        if self.is_other_connection(segment, settings) {
            return Syn::NewConnection;
        }
        if let Some(number) = segment.acknowledgment {
            let peer = self.half(direction.other());
            if peer.is_known() && peer.is_exact() {
                match peer.place(number, 0, settings) {
                    SegmentPlace::Near(offset)
                        if u64::try_from(offset).is_ok_and(|offset| offset <= peer.anchor()) => {}
                    _ if self.may_answer_another(direction.other(), number) => {
                        let peer = self.stream(direction.other());
                        let own = peer.origin();
                        peer.restart(number);
                        let own = self.own_syn.take().unwrap_or(own);
                        self.own_syn = Some(own).filter(|own| *own != number);
                    }
                    _ => {
                        self.challenge(segment, settings);
                        return Syn::Rejected;
                    }
                }
            }
        }
        let is_known = self.half(direction).is_exact() && self.half(direction).origin() == first;
        let is_opening = self.has_beginning && !self.is_open;
        let stream = self.stream(direction);
        if is_known {
            let was_seen = std::mem::replace(&mut stream.syn_seen, true);
            let is_repeated =
                if segment.acknowledgment.is_some() { self.syn_ack_seen } else { was_seen };
            if is_repeated && segment.wire_len == 0 {
                let count = &mut self.stream(direction).counters.retransmitted;
                *count = count.saturating_add(1);
            }
        } else if stream.is_exact() && is_opening && stream.is_untouched() {
            // An answer to the same SYN with another number, which happens with SYN cookies.
            stream.restart(first);
        } else if !stream.begin(first, settings) {
            let is_before = !self.has_beginning
                && (0..=1 << 20).contains(&self.half(direction).origin().since(first));
            if !is_before {
                self.challenge(segment, settings);
                return Syn::Rejected;
            }
        }
        self.stream(direction).syn_seen = true;
        self.stream(direction).note_scale(segment.scale);
        self.note_syn(segment, settings);
        Syn::Believed
    }

    /// Returns `true` if a SYN-ACK to `number` may answer another SYN of `client` than the last one
    /// seen. Since then no other segment was seen, except SYN-ACKs to the same other SYN.
    fn may_answer_another(&self, client: Direction, number: Sequence) -> bool {
        let is_opening = self.has_beginning && !self.is_open && self.half(client).is_untouched();
        is_opening && (!self.syn_ack_seen || self.own_syn == Some(number))
    }

    /// Decides which SYN counts: the client's segment goes on from its own, or from the answered
    /// one.
    pub(super) fn settle_own_syn(&mut self, segment: &Segment<'_>) {
        let Some(own) = self.own_syn else { return };
        if segment.direction != self.client || segment.flags.syn {
            return;
        }
        let stream = self.stream(segment.direction);
        if segment.sequence == own && stream.is_untouched() {
            stream.restart(own);
        }
        self.own_syn = None;
    }

    /// Notes from a SYN that was believed who is the client, and when the connection began.
    fn note_syn(&mut self, segment: &Segment<'_>, settings: &ConnectionSettings) {
        let direction = segment.direction;
        if let Some(number) = segment.acknowledgment {
            let peer = self.stream(direction.other());
            if !peer.is_exact() {
                // The SYN may have had data that this acknowledges too. None of it was seen.
                peer.begin(number, settings);
            }
            self.syn_ack_seen = true;
        } else if !self.syn_ack_seen {
            self.syn_time = Some(segment.time);
        }
        let is_first = !self.has_beginning;
        self.has_beginning = true;
        if is_first {
            let is_answer = segment.acknowledgment.is_some();
            let client = if is_answer { direction.other() } else { direction };
            self.is_client_sure = true;
            self.client = client;
        }
    }

    /// Returns `true` if a SYN certainly belongs to another connection between the same endpoints.
    fn is_other_connection(&self, segment: &Segment<'_>, settings: &ConnectionSettings) -> bool {
        let stream = self.half(segment.direction);
        let first = segment.sequence.plus(1);
        if !stream.is_known() || stream.origin() == first {
            return false;
        }
        let has_ended =
            self.reset.is_some() || (self.forward.fin().is_some() && self.backward.fin().is_some());
        let peer = self.half(segment.direction.other());
        if let Some(number) = segment.acknowledgment {
            // It does not answer the SYN of this connection, and the SYN it answers was not
            // captured.
            let answers = peer.is_exact() && peer.origin() == number;
            return has_ended && !answers && self.is_elsewhere(segment, settings);
        }
        let is_unanswered = stream.syn_seen && peer.counters.packets == 0 && !self.is_open;
        has_ended
            || is_unanswered
            || (stream.syn_seen && passed(self.last, segment.time, settings.reuse_after))
    }

    /// Returns `true` if a SYN-ACK belongs to no window of this connection.
    fn is_elsewhere(&self, segment: &Segment<'_>, settings: &ConnectionSettings) -> bool {
        let (direction, other) = (segment.direction, segment.direction.other());
        let stream = self.half(direction);
        match stream.place(segment.sequence.plus(1), 0, settings) {
            SegmentPlace::Near(offset) => {
                offset < 0 || stream.is_far_out(offset, self.half(other).window)
            }
            SegmentPlace::Far => stream.is_known(),
        }
    }

    /// Remembers a SYN that does not fit. A SYN-ACK inside the window is not remembered: an
    /// attacker may have sent it, in the hope that the real sender goes on at its number.
    fn challenge(&mut self, segment: &Segment<'_>, settings: &ConnectionSettings) {
        let (direction, first) = (segment.direction, segment.sequence.plus(1));
        let peer = segment.acknowledgment;
        if peer.is_none() || self.is_elsewhere(segment, settings) {
            self.challenger = Some(Box::new(UnfitSyn { direction, first, peer }));
        }
    }

    /// Returns `true` if a segment goes on from a SYN that did not fit. From a SYN-ACK, it must
    /// have both of its numbers; the SYN that belongs to it may come after it.
    fn follows_challenger(&self, segment: &Segment<'_>) -> bool {
        let Some(UnfitSyn { direction, first, peer }) = self.challenger.as_deref().copied() else {
            return false;
        };
        let Segment { sequence, acknowledgment, flags, .. } = *segment;
        if flags.rst {
            return false;
        }
        match (segment.direction == direction, peer) {
            (true, None) => !flags.syn && sequence == first,
            (true, Some(_)) => !flags.syn && sequence == first && acknowledgment == peer,
            (false, None) => flags.syn && acknowledgment == Some(first),
            (false, Some(peer)) if flags.syn => {
                sequence.plus(1) == peer && acknowledgment.is_none()
            }
            (false, Some(peer)) => sequence == peer && acknowledgment == Some(first),
        }
    }

    pub(super) fn note_open(&mut self, segment: &Segment<'_>) {
        if self.is_open {
            return;
        }
        let both = self.forward.syn_seen && self.backward.syn_seen;
        let simultaneous = both && self.forward.is_acked() && self.backward.is_acked();
        if segment.flags.syn && !simultaneous {
            return;
        }
        self.is_open = true;
        if let Some(syn) = self.syn_time
            && self.syn_ack_seen
            && segment.direction == self.client
        {
            let taken = segment.time.nanoseconds().checked_sub(syn.nanoseconds());
            self.handshake = taken.and_then(|taken| u32::try_from(taken / 1_000).ok());
        }
    }
}
