//! One direction of a connection: its beginning, the bytes seen and acknowledged, its end.
//!
//! **Beginning.** A SYN, or the acknowledgment in a SYN-ACK, fixes the sequence number of offset 0.
//! Without them, offset 0 is the first byte seen. That byte may be in a segment that overtook
//! another. So nothing is announced at first, and earlier bytes still move the beginning, until
//! `pickup_segments` or `pickup_wait` are over. An acknowledgment, or a segment without payload,
//! also begins a stream: for good if the connection's SYN was seen, otherwise until the first
//! payload.
//!
//! **Gaps.** Bytes that were not seen are `missing` once
//!
//! * their receiver has acknowledged them, and since then `gap_segments` segments with payload came
//!   in this direction or `gap_wait` has passed; or
//! * no packet of the receiver was captured, and `one_sided_wait` has passed since later bytes
//!   came; or
//! * more data waits after them than the limits allow; or
//! * their packet was captured without them; or
//! * the connection ends, and a FIN, an acknowledgment, the numbers of a reset with an
//!   acknowledgment, or later bytes show that they were sent.
//!
//! An acknowledgment for exactly one more than was seen may be for a FIN, and proves no byte. If no
//! packet of a sender is captured, the last number that its receiver acknowledged may be for a FIN
//! too. It proves no byte if it is one more than the number before. It proves none either if the
//! receiver has sent its own FIN.
//!
//! **End.** A FIN without acknowledgment is forgotten if its sender goes on after it. So a stream
//! has ended once its FIN is acknowledged, or no packet of the receiver is captured, or the
//! connection is closed. Of two FINs, the one that is acknowledged counts. A FIN before bytes that
//! were seen, but have not come in order, counts if it is acknowledged and those bytes are not.
//!
//! **Window.** Data and FINs far after everything known are `rejected`, because someone else sent
//! them: far means more than twice the largest window that the receiver ever advertised. They are
//! accepted if the receiver acknowledges them, or if two more segments follow them. Windows are
//! only known if both SYNs were seen.

mod beginning;
mod doubt;
mod ending;
mod far;
mod gaps;
mod unplaced;
mod window;

use std::ops::Range;
use std::time::Duration;

use beginning::StreamStart;
use doubt::DoubtfulBytes;
use far::Votes;
pub(super) use gaps::ReceiverFacts;
use gaps::Suspicion;
pub(super) use window::ReceiveWindow;

use super::assembler::{Absence, Assembler, Bytes, Inserted, Policy, StreamChunk};
use super::segment::{
    ConnectionEvent, ConnectionSettings, Direction, Scale, Segment, StreamCounters,
};
use super::seq::Sequence;
use crate::time::Timestamp;

/// One direction; the module's text explains it.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) assembler: Assembler,
    pub(super) counters: StreamCounters,
    /// The window that the sender of this stream has advertised for the other stream.
    pub(super) window: Option<ReceiveWindow>,
    scale: Scale,
    /// A SYN of this direction was seen.
    pub(super) syn_seen: bool,
    start: StreamStart,
    /// Nothing is announced while this is set: since when, and the number of segments since then.
    held: Option<Box<(Timestamp, u16)>>,
    origin: Sequence,
    /// End of the highest byte seen.
    highest: u64,
    /// Highest offset that the receiver has acknowledged.
    acked: Option<u64>,
    /// It was one more than the acknowledgment before.
    acked_one: bool,
    /// Offset of the FIN.
    fin: Option<u64>,
    /// Offset of another FIN before it. The one that is acknowledged counts.
    rival: Option<Box<u64>>,
    ended: bool,
    /// End of the stream according to a reset.
    reset: Option<u64>,
    suspicion: Option<Box<Suspicion>>,
    votes: Option<Box<Votes>>,
    /// A window probe that its receiver has not taken yet, or zeros that may be padding.
    doubt: Option<Box<DoubtfulBytes>>,
}

/// Place of a segment relative to the expected one.
pub(super) enum SegmentPlace {
    Near(i64),
    Far,
}

impl Stream {
    pub(super) fn is_known(&self) -> bool {
        self.start != StreamStart::Unknown
    }

    pub(super) fn is_exact(&self) -> bool {
        self.start == StreamStart::Exact
    }

    pub(super) fn is_acked(&self) -> bool {
        self.acked.is_some()
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acked.unwrap_or(0)
    }

    pub(super) fn fin(&self) -> Option<u64> {
        self.fin
    }

    pub(super) fn is_fin_acked(&self) -> bool {
        self.fin.is_some_and(|fin| self.acked.is_some_and(|acked| acked > fin))
    }

    /// The sender has finished: its FIN is acknowledged, or all bytes before it are there.
    pub(super) fn is_over(&self) -> bool {
        self.is_fin_acked() || self.fin == Some(self.assembler.end())
    }

    pub(super) fn origin(&self) -> Sequence {
        self.origin
    }

    /// Stream offset after everything that is known of this direction, the FIN excluded.
    pub(super) fn anchor(&self) -> u64 {
        self.assembler.end().max(self.highest).max(self.acked.unwrap_or(0))
    }

    /// Stream offset after everything that was seen, the FIN included.
    pub(super) fn seen_end(&self) -> u64 {
        self.highest.max(self.fin.map_or(0, |fin| fin.saturating_add(1)))
    }

    /// Stream offset after everything that was seen or acknowledged, the FIN included.
    pub(super) fn known_end(&self) -> u64 {
        self.anchor().max(self.seen_end())
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.highest == 0
    }

    /// Returns `true` if one of the `len` bytes at `offset` was never seen.
    pub(super) fn lacks(&self, offset: i64, len: u32) -> bool {
        let end = u64::try_from(offset.saturating_add(len.into())).unwrap_or(0);
        let start = u64::try_from(offset).unwrap_or(0).min(end);
        let is_missing = |chunk: StreamChunk| matches!(chunk.content, Err(Absence::Missing));
        len > 0 && (end > self.anchor() || self.assembler.chunks(start..end).any(is_missing))
    }

    pub(super) fn place(
        &self,
        sequence: Sequence,
        len: u32,
        settings: &ConnectionSettings,
    ) -> SegmentPlace {
        let anchor = i64::try_from(self.anchor()).unwrap_or(i64::MAX);
        let offset = sequence.offset(self.origin, self.anchor());
        let reach = i64::from(settings.reach);
        let ahead = offset.saturating_add(len.into()).saturating_sub(anchor);
        if ahead > reach || anchor.saturating_sub(offset) > reach {
            SegmentPlace::Far
        } else {
            SegmentPlace::Near(offset)
        }
    }

    /// The receiver has acknowledged everything before `number`.
    pub(super) fn acknowledge(
        &mut self,
        number: Sequence,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) {
        let offset = match self.place(number, 0, settings) {
            SegmentPlace::Near(offset) => u64::try_from(offset).unwrap_or(0),
            SegmentPlace::Far => match self.heard_from_afar(number, settings, bytes, announce) {
                Some(offset) => offset,
                None => return,
            },
        };
        if self.acked.is_none_or(|acked| acked < offset) {
            self.acked_one = offset == self.acknowledged().saturating_add(1);
            self.acked = Some(offset);
            self.take_strays(offset, settings, bytes, announce);
            self.padding_acknowledged(offset, settings, bytes);
            self.refute_fin(offset);
            self.settle_rivals();
            if self.probe().is_some_and(|probe| offset > probe) {
                self.take_probe(settings, bytes);
            }
            if settings.policy == Policy::Last {
                self.limit(settings);
            }
        }
    }

    /// Processes payload, FIN, and everything else a segment says about its own direction. Returns
    /// whether it is consistent with what was believed before.
    pub(super) fn receive(
        &mut self,
        segment: &Segment<'_>,
        window: Option<ReceiveWindow>,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) -> bool {
        let sequence = segment.sequence.plus(segment.flags.syn.into());
        let len = segment.wire_len;
        if len > 0 {
            match self.start {
                StreamStart::Unknown => {
                    self.origin = sequence;
                    self.start = StreamStart::Guess;
                    self.hold(segment.time, settings);
                }
                StreamStart::Soft if !self.looks_kept_alive(sequence, segment) => {
                    self.move_origin(sequence);
                    self.start = StreamStart::Guess;
                }
                _ => {}
            }
        }
        let mut offset = match self.place(sequence, len, settings) {
            SegmentPlace::Near(offset) if !self.is_far_out(offset, window) => offset,
            _ if len == 0 && !segment.flags.fin => return true,
            SegmentPlace::Near(offset) => {
                if !self.stray(offset, segment, settings, bytes, announce) {
                    self.reject(segment);
                    return false;
                }
                offset
            }
            SegmentPlace::Far => match self.sent_from_afar(segment, settings, bytes, announce) {
                Some(offset) => offset,
                None => {
                    self.reject(segment);
                    return false;
                }
            },
        };
        if self.looks_kept_alive(sequence, segment) {
            self.repeat(segment.captured());
            let count = &mut self.counters.keep_alives;
            *count = count.saturating_add(1);
            return true;
        }
        if self.hold_padding(offset, segment) {
            return true;
        }
        self.padding_followed(offset, settings, bytes);
        if len == 0 && !segment.flags.fin {
            return true;
        }
        let may_move = self.start == StreamStart::Soft
            || self.held.is_some() && self.start == StreamStart::Guess;
        if offset < 0 && may_move {
            self.move_origin(sequence);
            offset = 0;
        }
        let is_probe = window.is_some_and(ReceiveWindow::is_zero)
            && len == 1
            && segment.captured() == 1
            && !segment.flags.fin
            && u64::try_from(offset) == Ok(self.highest);
        // The payload may contain empty extents.
        let mut captured = segment.payload.iter().filter(|extent| extent.packet != 0);
        if is_probe && let Some(extent) = captured.find(|extent| extent.len > 0) {
            self.counters.window_probes = self.counters.window_probes.saturating_add(1);
            self.forget_probe();
            self.drop_padding();
            let (offset, extent) = (self.highest, extent.part(0, 1));
            let (is_padding, since) = (false, segment.time);
            self.doubt = Some(Box::new(DoubtfulBytes { offset, extent, is_padding, since }));
            return true;
        }
        self.put(offset, segment, settings, bytes, announce)
    }

    /// Processes payload and FIN of a segment at `offset`.
    fn put(
        &mut self,
        offset: i64,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) -> bool {
        let end = offset.saturating_add(segment.wire_len.into());
        if segment.flags.fin || u64::try_from(end).is_ok_and(|end| end > self.highest) {
            self.votes = None;
        }
        let is_believed = self.fin_allows(end, segment);
        self.payload(offset, segment, settings, bytes, announce);
        is_believed
    }

    fn payload(
        &mut self,
        offset: i64,
        segment: &Segment<'_>,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
        announce: &mut Announce<'_>,
    ) {
        if segment.wire_len == 0 {
            return;
        }
        let before = offset.min(0).unsigned_abs();
        let start = u64::try_from(offset).unwrap_or(0);
        let len = u64::from(segment.wire_len).saturating_sub(before);
        let end = start.saturating_add(len).min(self.fin.unwrap_or(u64::MAX));
        if self.padding().is_some_and(|padding| (start..end).contains(&padding.offset)) {
            self.drop_padding();
        }
        match self.probe() {
            Some(probe) if (start..end).contains(&probe) => self.forget_probe(),
            Some(probe) if start > probe => self.take_probe(settings, bytes),
            _ => {}
        }
        let mut inserted =
            Inserted { seen: before.min(segment.wire_len.into()), ..Inserted::default() };
        let (mut at, mut skip) = (start, before);
        let mut placed = 0_u64;
        for extent in segment.payload {
            let part = extent.part(skip, end.saturating_sub(at));
            skip = skip.saturating_sub(extent.len.into());
            if extent.packet != 0 {
                inserted = inserted.and(self.assembler.insert(at, part, settings.policy, bytes));
                placed = placed.saturating_add(part.len.into());
            }
            at = at.saturating_add(part.len.into());
        }
        self.count(&inserted, end);
        self.count_unplaced(segment, before, placed, &inserted);
        self.highest = self.highest.max(end);
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.segments = suspicion.segments.saturating_add(1);
        }
        let is_cut = at < end && self.held.is_none() && settings.policy == Policy::First;
        if is_cut && self.assembler.end() == at {
            announce.data(&mut self.assembler);
            announce.gap(self.assembler.skip(end));
        }
    }

    fn count(&mut self, inserted: &Inserted, end: u64) {
        let counters = &mut self.counters;
        let is_old = inserted.new == 0 && (inserted.seen > 0 || end <= self.highest);
        if inserted.conflicting > 0 || (inserted.new > 0 && inserted.seen > 0) {
            counters.overlapping = counters.overlapping.saturating_add(1);
        } else if is_old && inserted.late == 0 {
            counters.retransmitted = counters.retransmitted.saturating_add(1);
        }
        if inserted.first_new.is_some_and(|first| first < self.highest) || inserted.late > 0 {
            counters.out_of_order = counters.out_of_order.saturating_add(1);
        }
        counters.conflicting_bytes =
            counters.conflicting_bytes.saturating_add(inserted.conflicting);
        counters.unverified_bytes = counters.unverified_bytes.saturating_add(inserted.unverified);
        counters.late_bytes = counters.late_bytes.saturating_add(inserted.late);
    }

    /// Returns `true` if the segment is at one less than the next expected number, when no data is
    /// in flight.
    fn looks_kept_alive(&self, sequence: Sequence, segment: &Segment<'_>) -> bool {
        let is_plain = !segment.flags.syn && !segment.flags.fin && segment.wire_len <= 1;
        let due = i64::try_from(self.highest).unwrap_or(i64::MAX);
        is_plain
            && self.is_known()
            && self.acked.is_none_or(|acked| acked >= self.highest)
            && self.fin.is_none()
            && sequence.offset(self.origin, self.highest) == due.saturating_sub(1)
    }
}

/// Receives the events of one direction.
pub(super) struct Announce<'a> {
    pub(super) direction: Direction,
    pub(super) events: &'a mut Vec<ConnectionEvent>,
}

impl Announce<'_> {
    fn data(&mut self, assembler: &mut Assembler) {
        if let Some(range) = assembler.take() {
            self.events.push(ConnectionEvent::Data { direction: self.direction, range });
        }
    }

    fn gap(&mut self, range: Option<Range<u64>>) {
        if let Some(range) = range {
            self.events.push(ConnectionEvent::Gap { direction: self.direction, range });
        }
    }

    fn ended(&mut self) {
        self.events.push(ConnectionEvent::Ended { direction: self.direction });
    }
}

/// Returns `true` if `wait` has passed.
pub(super) fn passed(since: Timestamp, now: Timestamp, wait: Duration) -> bool {
    now >= since.plus(wait)
}
