//! The end of a stream: a FIN, a reset, or the end of its connection.

use super::{Announce, ReceiveWindow, SegmentPlace, Stream};
use crate::tcp::assembler::Bytes;
use crate::tcp::segment::{ConnectionSettings, Segment};
use crate::tcp::seq::Sequence;
use crate::time::Timestamp;

/// A reset's own number proves that bytes before it were sent, if it lies at most this far after
/// the last byte seen. This is a window without scale; random numbers seldom come as close.
const RESET_REACH: u64 = 65_535;

impl Stream {
    /// Returns `true` if the segment fits the FIN, if one was seen. Notes the segment's own FIN.
    pub(super) fn fin_allows(&mut self, end: i64, segment: &Segment<'_>) -> bool {
        let end = u64::try_from(end).unwrap_or(0);
        let mut is_believed = true;
        if let Some(fin) = self.fin
            && end > fin
        {
            is_believed = false;
            // Its sender goes on, and no acknowledgment confirmed the FIN: someone else sent it.
            if !self.is_fin_acked() && !self.ended {
                self.fin = None;
            }
        }
        if segment.flags.fin && self.fin.is_none() && end >= self.highest {
            self.fin = Some(end);
        } else if segment.flags.fin && self.may_end(end) {
            is_believed &= end >= self.highest;
            self.rival = Some(Box::new(end));
            self.settle_rivals();
        } else if segment.flags.fin {
            is_believed &= self.fin == Some(end);
            if is_believed && segment.wire_len == 0 {
                self.counters.retransmitted = self.counters.retransmitted.saturating_add(1);
            }
        }
        is_believed
    }

    /// Returns `true` if the stream may end here instead of at its FIN or at the highest byte seen,
    /// which are further on.
    fn may_end(&self, end: u64) -> bool {
        let is_open = !self.is_fin_acked() && !self.ended;
        let acked = self.acked.unwrap_or(0);
        is_open
            && self.fin.is_none_or(|fin| end < fin)
            && end >= self.assembler.end()
            && acked <= end.saturating_add(1)
    }

    /// Of two FINs, or of a FIN and bytes after it, the FIN that is acknowledged counts.
    pub(super) fn settle_rivals(&mut self) {
        let Some(end) = self.rival.as_deref().copied() else {
            return;
        };
        if !self.may_end(end) {
            self.rival = None;
        } else if self.acked == Some(end.saturating_add(1)) {
            self.rival = None;
            // The other FIN, or the bytes after this one, came from someone else. Those bytes are
            // counted when they are cut off.
            let is_other = self.fin.replace(end).is_some();
            let rejected = &mut self.counters.rejected;
            *rejected = rejected.saturating_add(is_other.into());
        }
    }

    /// The receiver has everything before `acked`. If these are bytes seen after the FIN, someone
    /// else sent the FIN.
    pub(super) fn refute_fin(&mut self, acked: u64) {
        let is_before = |fin: u64| acked > fin.saturating_add(1) && self.highest > fin;
        if !self.ended && self.fin.is_some_and(is_before) {
            self.fin = None;
        }
    }

    /// The stream offset of a sender's reset with this number, if it is in the receiver's window. A
    /// receiver ignores resets outside of its window (RFC 9293 3.10.7.4). It asks before it accepts
    /// one that is inside, but not exactly at the next number (RFC 5961 3.2). Here those are
    /// accepted, because the next number is unknown if packets were not captured.
    pub(in crate::tcp) fn accepts_reset(
        &self,
        number: Sequence,
        window: Option<ReceiveWindow>,
        settings: &ConnectionSettings,
    ) -> Option<u64> {
        match self.place(number, 0, settings) {
            SegmentPlace::Near(offset) => {
                let offset = u64::try_from(offset).unwrap_or(0);
                let received = self.acked.unwrap_or(0).min(self.highest);
                (received..=self.reset_limit(window)).contains(&offset).then_some(offset)
            }
            SegmentPlace::Far => None,
        }
    }

    /// The number of an accepted reset shows where the stream ends.
    pub(in crate::tcp) fn reset_at(&mut self, offset: Option<u64>) {
        let limit = self.highest.saturating_add(RESET_REACH);
        self.reset = offset.filter(|offset| *offset <= limit);
    }

    /// The acknowledgment in an accepted reset of the receiver shows where the stream ends. Exactly
    /// one more than was seen may be a FIN.
    pub(in crate::tcp) fn reset_acknowledges(
        &mut self,
        number: Sequence,
        settings: &ConnectionSettings,
    ) {
        if let (true, SegmentPlace::Near(offset)) =
            (self.is_known(), self.place(number, 0, settings))
        {
            let offset = u64::try_from(offset).unwrap_or(0);
            self.reset_at(Some(offset).filter(|offset| *offset != self.highest.saturating_add(1)));
        }
    }

    /// The connection ends: announces everything that is known.
    ///
    /// `has_receiver_ended`: the FIN of the other side was seen.
    pub(in crate::tcp) fn close(
        &mut self,
        has_receiver_ended: bool,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) {
        self.release(settings);
        self.take_probe(settings, bytes);
        self.end_padding(Timestamp::from_nanoseconds(u64::MAX), settings);
        self.drop_padding();
        self.assembler.set_limit(u64::MAX);
        let proven = self.proven(has_receiver_ended);
        let mut end = self.highest.max(self.reset.unwrap_or(0)).max(proven);
        // Neither FIN is acknowledged: the one without unseen bytes before it counts.
        let rival = self.rival.take().filter(|rival| self.may_end(**rival));
        if let Some(rival) = rival.filter(|rival| **rival == end) {
            self.fin = Some(*rival);
        }
        if let Some(fin) = self.fin {
            let cut = self.assembler.cut_pending(fin);
            self.counters.rejected_bytes = self.counters.rejected_bytes.saturating_add(cut);
            end = fin;
        }
        self.give_up(end, announce);
        self.suspicion = None;
        self.assembler.trim(&settings.limits);
        if self.fin == Some(self.assembler.end()) && !self.ended {
            self.ended = true;
            announce.ended();
        }
    }
}
