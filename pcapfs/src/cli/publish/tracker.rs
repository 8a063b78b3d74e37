//! The place up to which all messages have been sent, although several peers send at their own pace.
//!
//! A peer that does not read keeps its messages for as long as it likes. So only messages on their way
//! are kept here, which the room of the peers bounds.

use std::collections::{BTreeMap, VecDeque};

use super::feed::FeedItem;
use super::message::MessagePlace;
use crate::cli::outlet::position::CapturePosition;

/// Messages of one numbering: another daemon, or another ring, numbers anew.
#[derive(Debug, Default)]
struct Era {
    /// After all that was taken from the feed.
    taken: CapturePosition,
    /// Messages on their way, by their sequence.
    unsent: BTreeMap<u64, MessagePlace>,
}

/// Messages on their way, and the place before the first of them.
#[derive(Debug, Default)]
pub(super) struct SentTracker {
    /// Those with messages on their way, and the newest one.
    eras: VecDeque<Era>,
    /// Of the next message.
    sequence: u64,
}

impl SentTracker {
    /// Begins at a place.
    pub(super) fn new(position: CapturePosition) -> Self {
        let era = Era { taken: position, unsent: BTreeMap::new() };
        Self { eras: [era].into(), sequence: 0 }
    }

    /// Notes an item of the feed; returns the sequence for a message.
    pub(super) fn take(&mut self, item: &FeedItem) -> u64 {
        self.sequence = self.sequence.saturating_add(1);
        let Some(era) = self.eras.back_mut() else { return self.sequence };
        match item {
            FeedItem::Message(message) => {
                era.unsent.insert(self.sequence, message.place);
                match message.place {
                    MessagePlace::Line(kind, number) => era.taken.set_line(kind, number),
                    MessagePlace::Packet(number) => {
                        if let Some(place) = &mut era.taken.packets {
                            place.next = number.saturating_add(1);
                        }
                    }
                    MessagePlace::Segment { sent, .. } => {
                        if let Some(place) = &mut era.taken.segments {
                            place.packets.next = sent;
                        }
                    }
                    MessagePlace::Status => {}
                }
            }
            FeedItem::Lines(position) => {
                let mut taken = (**position).clone();
                taken.packets = era.taken.packets;
                taken.segments = era.taken.segments;
                let is_same = era.taken.is_in_logs_of(&taken);
                self.go_on(taken, is_same);
            }
            FeedItem::Packets(place) => {
                let known = era.taken.packets;
                let is_same = known.is_none_or(|known| known.is_in_ring_of(place));
                let mut taken = era.taken.clone();
                taken.packets = Some(*place);
                self.go_on(taken, is_same);
            }
            FeedItem::Segments(place) => {
                let known = era.taken.segments.map(|known| known.packets);
                let is_same = known.is_none_or(|known| known.is_in_ring_of(&place.packets));
                let mut taken = era.taken.clone();
                taken.segments = Some(*place);
                self.go_on(taken, is_same);
            }
            FeedItem::Failed(_) => {}
        }
        self.sequence
    }

    fn go_on(&mut self, taken: CapturePosition, is_same: bool) {
        match self.eras.back_mut() {
            Some(era) if is_same => era.taken = taken,
            _ => self.eras.push_back(Era { taken, unsent: BTreeMap::new() }),
        }
        self.leave_eras();
    }

    /// Notes that the message of this sequence has been sent.
    pub(super) fn sent(&mut self, sequence: u64) {
        for era in &mut self.eras {
            if era.unsent.remove(&sequence).is_some() {
                break;
            }
        }
        self.leave_eras();
    }

    /// Leaves the oldest eras, if all of their messages have been sent.
    fn leave_eras(&mut self) {
        while self.eras.len() > 1 && self.eras.front().is_some_and(|era| era.unsent.is_empty()) {
            self.eras.pop_front();
        }
    }

    /// The place before the first message that has not been sent.
    pub(super) fn position(&self) -> CapturePosition {
        let Some(era) = self.eras.front() else { return CapturePosition::default() };
        let mut position = era.taken.clone();
        for place in era.unsent.values().rev() {
            match *place {
                MessagePlace::Line(kind, number) => {
                    position.set_line(kind, number.saturating_sub(1))
                }
                MessagePlace::Packet(number) => {
                    if let Some(place) = &mut position.packets {
                        place.next = number;
                    }
                }
                MessagePlace::Segment { unsent, .. } => {
                    if let Some(place) = &mut position.segments {
                        place.packets.next = unsent;
                    }
                }
                MessagePlace::Status => {}
            }
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::outlet::event_kind::EventKind;
    use crate::cli::outlet::position::{PacketPlace, SegmentPlace};
    use crate::cli::publish::message::Message;

    fn message(place: MessagePlace) -> FeedItem {
        FeedItem::Message(Message {
            topic: "packet",
            frames: Vec::new(),
            place,
            id: String::new(),
            sequence: 0,
        })
    }

    fn packet(number: u64) -> FeedItem {
        message(MessagePlace::Packet(number))
    }

    #[test]
    fn the_place_is_before_the_first_message_on_its_way() {
        let mut tracker = SentTracker::new(CapturePosition::default());
        let place = PacketPlace { ring: 1, epoch: 2, next: 5 };
        tracker.take(&FeedItem::Packets(place));
        let next = |tracker: &SentTracker| tracker.position().packets.map(|place| place.next);
        assert_eq!(next(&tracker), Some(5));
        let [first, second, third] = [5, 6, 8].map(|number| tracker.take(&packet(number)));
        tracker.sent(second);
        assert_eq!(next(&tracker), Some(5));
        tracker.sent(first);
        assert_eq!(next(&tracker), Some(8));
        tracker.sent(third);
        assert_eq!(next(&tracker), Some(9));
        let last = tracker.take(&packet(9));
        let other = PacketPlace { ring: 9, epoch: 1, next: 1 };
        tracker.take(&FeedItem::Packets(other));
        assert_eq!(next(&tracker), Some(9));
        assert_eq!(tracker.position().packets.map(|place| place.ring), Some(1));
        tracker.sent(last);
        assert_eq!(tracker.position().packets, Some(other));
    }

    #[test]
    fn a_packet_is_left_with_the_last_of_its_segments() {
        let mut tracker = SentTracker::new(CapturePosition::default());
        let packets = PacketPlace { ring: 1, epoch: 2, next: 5 };
        tracker.take(&FeedItem::Segments(SegmentPlace { packets, since: 3 }));
        let next = |tracker: &SentTracker| tracker.position().segments.map(|it| it.packets.next);
        let mut take = |sent| {
            let sequence = tracker.take(&message(MessagePlace::Segment { unsent: 7, sent }));
            let before = next(&tracker);
            tracker.sent(sequence);
            (before, next(&tracker))
        };
        assert_eq!(take(7), (Some(7), Some(7)), "the first of two");
        assert_eq!(take(8), (Some(7), Some(8)));
        assert_eq!(tracker.position().segments.map(|place| place.since), Some(3));
    }

    #[test]
    fn lines_of_each_log_have_a_place() {
        let mut tracker = SentTracker::new(CapturePosition::default());
        let line = |kind, number| message(MessagePlace::Line(kind, number));
        let [http, flow] = [(EventKind::Http, 3), (EventKind::Flows, 8)]
            .map(|(kind, number)| tracker.take(&line(kind, number)));
        let places = |tracker: &SentTracker| {
            let position = tracker.position();
            [EventKind::Http, EventKind::Flows].map(|kind| position.line(kind))
        };
        assert_eq!(places(&tracker), [Some(2), Some(7)]);
        tracker.sent(flow);
        assert_eq!(places(&tracker), [Some(2), Some(8)]);
        tracker.sent(http);
        assert_eq!(places(&tracker), [Some(3), Some(8)]);
    }

    #[test]
    fn a_peer_that_keeps_a_message_makes_nothing_grow() {
        let mut tracker = SentTracker::new(CapturePosition::default());
        tracker.take(&FeedItem::Packets(PacketPlace { ring: 1, epoch: 1, next: 1 }));
        tracker.take(&packet(1));
        for number in 2..10_000 {
            let sequence = tracker.take(&packet(number));
            tracker.sent(sequence);
        }
        assert_eq!((tracker.eras.len(), tracker.eras[0].unsent.len()), (1, 1));
        assert_eq!(tracker.position().packets.map(|place| place.next), Some(1));
    }
}
