//! Bytes that may or may not be data.
//!
//! A window probe has one byte, the next one due, that the receiver may take or not.
//!
//! Some devices count the padding of an Ethernet frame as the payload of an acknowledgment
//! ([`Segment::is_padded`]). Whether a few zeros are that shows with what comes next: if their sender
//! goes on after them, or their receiver acknowledges them and no more, they were sent. If not, they
//! were not, and what comes in their place is the data.

use super::Stream;
use crate::extent::Extent;
use crate::tcp::assembler::{Bytes, NoBytes};
use crate::tcp::segment::{Segment, Settings};
use crate::time::Timestamp;

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    pub(super) offset: u64,
    pub(super) extent: Extent,
    /// It may be padding; else it is a window probe.
    pub(super) is_padding: bool,
    pub(super) since: Timestamp,
}

impl Doubt {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.extent.len.into())
    }
}

impl Stream {
    /// The place of a window probe that its receiver has not taken yet.
    pub(super) fn probe(&self) -> Option<u64> {
        self.doubt.as_deref().filter(|doubt| !doubt.is_padding).map(|probe| probe.offset)
    }

    /// The byte of a window probe came again as data.
    pub(super) fn forget_probe(&mut self) {
        if self.probe().is_some() {
            self.doubt = None;
            self.repeat(1);
        }
    }

    /// The probe's byte was taken by the receiver: it is data like any other.
    pub(super) fn take_probe(&mut self, settings: &Settings, bytes: &dyn Bytes) {
        if self.probe().is_some() {
            self.take_doubt(settings, bytes);
        }
    }

    /// What may be padding.
    pub(super) fn padding(&self) -> Option<&Doubt> {
        self.doubt.as_deref().filter(|doubt| doubt.is_padding)
    }

    /// Keeps what may be padding until it is known. `false` if it is no such segment.
    pub(super) fn hold_padding(&mut self, offset: i64, segment: &Segment<'_>) -> bool {
        let [extent] = segment.payload else { return false };
        if !segment.is_padded || extent.packet == 0 || extent.len != segment.wire_len {
            return false;
        }
        self.drop_padding();
        let offset = u64::try_from(offset).unwrap_or(0);
        let is_old = offset < self.highest || self.fin.is_some_and(|fin| offset >= fin);
        if is_old || self.doubt.is_some() {
            self.reject(segment);
        } else {
            let (extent, since) = (*extent, segment.time);
            self.doubt = Some(Box::new(Doubt { offset, extent, is_padding: true, since }));
        }
        true
    }

    /// The sender goes on at `next`.
    pub(super) fn padding_followed(&mut self, next: i64, settings: &Settings, bytes: &dyn Bytes) {
        if let (Some(padding), Ok(next)) = (self.padding(), u64::try_from(next)) {
            if next == padding.end() {
                self.take_doubt(settings, bytes);
            } else if (padding.offset..padding.end()).contains(&next) {
                self.drop_padding();
            }
        }
    }

    /// The receiver has everything below `acked`.
    pub(super) fn padding_acknowledged(
        &mut self,
        acked: u64,
        settings: &Settings,
        bytes: &dyn Bytes,
    ) {
        if let Some(padding) = self.padding() {
            if acked == padding.end() {
                self.take_doubt(settings, bytes);
            } else if acked > padding.offset {
                self.drop_padding();
            }
        }
    }

    /// When a single byte counts as sent if nothing has shown what it is: keep-alives have one.
    pub(super) fn padding_deadline(&self, settings: &Settings) -> Option<Timestamp> {
        let padding = self.padding().filter(|padding| padding.extent.len == 1)?;
        Some(padding.since.plus(settings.gap_wait))
    }

    /// Nothing has shown what it is until `now`.
    pub(super) fn end_padding(&mut self, now: Timestamp, settings: &Settings) {
        if self.padding_deadline(settings).is_some_and(|deadline| deadline <= now) {
            // Nothing is in its place.
            self.take_doubt(settings, &NoBytes);
        }
    }

    /// It was not sent.
    pub(super) fn drop_padding(&mut self) {
        if let Some(padding) = self.padding() {
            let len = u64::from(padding.extent.len);
            self.doubt = None;
            let rejected = &mut self.counters.rejected_bytes;
            *rejected = rejected.saturating_add(len);
        }
    }

    /// It was sent: it is data like any other.
    fn take_doubt(&mut self, settings: &Settings, bytes: &dyn Bytes) {
        if let Some(doubt) = self.doubt.take() {
            let (offset, end) = (doubt.offset, doubt.end());
            let inserted = self.assembler.insert(offset, doubt.extent, settings.policy, bytes);
            self.repeat(inserted.seen);
            self.counters.late_bytes = self.counters.late_bytes.saturating_add(inserted.late);
            self.highest = self.highest.max(end);
        }
    }
}
