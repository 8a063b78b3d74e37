//! The place of offset 0, and how long it may still move.

use super::{Stream, passed};
use crate::tcp::assembler::Policy;
use crate::tcp::segment::ConnectionSettings;
use crate::tcp::seq::Sequence;
use crate::time::Timestamp;

/// How reliable the sequence number of offset 0 is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StreamStart {
    /// It is unknown.
    #[default]
    Unknown,
    /// A number was seen, but no payload.
    Soft,
    /// It is the first byte seen, and may move to an earlier one while `held`.
    Guess,
    /// It comes from a SYN.
    Exact,
}

impl Stream {
    /// A SYN: offset 0 has number `origin`. Returns `false` if that contradicts announced data.
    pub(in crate::tcp) fn begin(
        &mut self,
        origin: Sequence,
        settings: &ConnectionSettings,
    ) -> bool {
        match self.start {
            StreamStart::Unknown => self.origin = origin,
            StreamStart::Exact => return self.origin == origin,
            StreamStart::Soft | StreamStart::Guess => {
                let earlier = self.origin.since(origin);
                let is_near = earlier >= 0 && earlier <= i64::from(settings.reach);
                let may_move = self.held.is_some() || self.start == StreamStart::Soft;
                if earlier != 0 && !(is_near && may_move) && !self.is_untouched() {
                    return false;
                }
                self.move_origin(origin);
            }
        }
        self.start = StreamStart::Exact;
        self.release(settings);
        true
    }

    /// The number of the next byte is `next`. That byte itself was not seen.
    pub(in crate::tcp) fn hint(
        &mut self,
        next: Sequence,
        firm: bool,
        now: Timestamp,
        settings: &ConnectionSettings,
    ) {
        if self.start == StreamStart::Unknown {
            self.origin = next;
            self.start = if firm { StreamStart::Guess } else { StreamStart::Soft };
            self.hold(now, settings);
        }
    }

    /// Restarts with another initial number. Of the old one, only the SYN was seen.
    pub(in crate::tcp) fn restart(&mut self, origin: Sequence) {
        self.origin = origin;
        self.acked = None;
    }

    pub(super) fn hold(&mut self, now: Timestamp, settings: &ConnectionSettings) {
        self.held = Some(Box::new((now, 0)));
        self.limit(settings);
    }

    pub(super) fn release(&mut self, settings: &ConnectionSettings) {
        self.held = None;
        self.limit(settings);
    }

    /// Counts a segment of the connection towards the end of the wait for earlier bytes.
    pub(in crate::tcp) fn wait(&mut self, now: Timestamp, settings: &ConnectionSettings) {
        let Some((since, segments)) = self.held.as_deref_mut() else {
            return;
        };
        *segments = segments.saturating_add(1);
        if *segments > settings.pickup_segments || passed(*since, now, settings.pickup_wait) {
            self.release(settings);
        }
    }

    /// Sets how far bytes settle. With [`Policy::Last`] they may be replaced until their receiver
    /// has acknowledged them.
    pub(super) fn limit(&mut self, settings: &ConnectionSettings) {
        let limit = match (&self.held, settings.policy, self.acked) {
            (Some(_), ..) => 0,
            (None, Policy::Last, Some(acked)) => acked,
            _ => u64::MAX,
        };
        self.assembler.set_limit(limit);
    }

    /// Moves offset 0. Only while nothing is announced.
    pub(super) fn move_origin(&mut self, origin: Sequence) {
        let distance = self.origin.since(origin);
        let move_by = |offset: u64| offset.checked_add_signed(distance).unwrap_or(0);
        self.assembler.shift(distance);
        self.origin = origin;
        if self.highest > 0 {
            self.highest = move_by(self.highest);
        }
        self.acked = self.acked.map(move_by);
        self.fin = self.fin.map(move_by);
        self.reset = self.reset.map(move_by);
        if let Some(doubt) = &mut self.doubt {
            doubt.offset = move_by(doubt.offset);
        }
        self.suspicion = None;
        self.votes = None;
        self.rival = None;
    }
}
