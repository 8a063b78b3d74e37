//! Resets: which of them count, and which of them someone else sent.

use super::Connection;
use crate::tcp::segment::{ConnectionSettings, Direction, Segment};
use crate::tcp::stream::{SegmentPlace, passed};
use crate::time::Timestamp;

/// A reset that was accepted, and how far both streams had come by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reset {
    pub(super) by: Direction,
    at: u64,
    time: Timestamp,
    /// Known end of its sender's stream.
    sent: u64,
    /// Known end of the other stream.
    heard: u64,
}

impl Connection {
    /// Accepts a reset if it counts. Returns whether it does.
    pub(super) fn take_reset(
        &mut self,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
    ) -> bool {
        let (direction, other) = (segment.direction, segment.direction.other());
        let stream = self.half(direction);
        let peer = self.half(other);
        let answered = segment.acknowledgment.filter(|_| peer.is_known()).map(|number| match peer
            .place(number, 0, settings)
        {
            SegmentPlace::Near(offset) => u64::try_from(offset)
                .ok()
                .filter(|offset| *offset <= peer.anchor().saturating_add(1)),
            SegmentPlace::Far => None,
        });
        let at = if stream.is_known() {
            stream.accepts_reset(segment.sequence, peer.window, settings)
        } else {
            // An answer to a SYN, or from a side that was never seen.
            answered.is_none_or(|offset| offset.is_some()).then_some(0)
        };
        let Some(at) = at else {
            return false;
        };
        if self.reset.is_none() {
            let heard = peer.known_end().max(answered.flatten().unwrap_or(0));
            let (by, time, sent) = (direction, segment.time, stream.known_end());
            let knows = segment.acknowledgment.is_some() && stream.is_known();
            if let Some(number) = segment.acknowledgment {
                self.stream(other).reset_acknowledges(number, settings);
            }
            self.stream(direction).reset_at(knows.then_some(at));
            self.reset = Some(Box::new(Reset { by, at, time, sent, heard }));
        }
        true
    }

    /// Takes back a reset if its alleged sender goes on: someone else sent it. Returns `false` in
    /// that case.
    pub(super) fn doubt_reset(
        &mut self,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
    ) -> bool {
        let Some(reset) = self.reset.as_deref().filter(|reset| reset.by == segment.direction)
        else {
            return true;
        };
        if !self.contradicts(reset, segment, settings) {
            return true;
        }
        self.stream(segment.direction).reset_at(None);
        self.stream(segment.direction.other()).reset_at(None);
        self.reset = None;
        false
    }

    /// Returns `true` if a segment of its alleged sender shows that someone else sent a reset:
    ///
    /// * the segment goes on after the place of the reset; or
    /// * it fills bytes between the last byte seen and that place, so much later that the capture
    ///   cannot have reordered it; or
    /// * it acknowledges bytes that the other side was seen to send after the reset. The real
    ///   sender of a reset would no longer know the connection.
    fn contradicts(
        &self,
        reset: &Reset,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
    ) -> bool {
        let near = |place| match place {
            SegmentPlace::Near(offset) => u64::try_from(offset).ok(),
            SegmentPlace::Far => None,
        };
        let len = segment.wire_len.saturating_add(segment.flags.fin.into());
        let stream = self.half(segment.direction);
        let end = near(stream.place(segment.sequence, segment.wire_len, settings))
            .filter(|_| len > 0)
            .map_or(0, |offset| offset.saturating_add(len.into()));
        let peer = self.half(segment.direction.other());
        let acknowledged = segment
            .acknowledgment
            .and_then(|number| near(peer.place(number, 0, settings)))
            .unwrap_or(0);
        end > reset.at
            || (end > reset.sent && passed(reset.time, segment.time, settings.gap_wait))
            || (acknowledged > reset.heard && acknowledged <= peer.seen_end())
    }
}
