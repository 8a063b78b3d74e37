//! Bytes that may or may not be data.
//!
//! A window probe contains the next expected byte. The receiver may take that byte or not.
//!
//! Some devices count the padding of an Ethernet frame as the payload of an acknowledgment
//! ([`Segment::is_padded`]). The next segments show whether a few zeros are padding. If their
//! sender goes on after them, or their receiver acknowledges exactly them, they were sent.
//! Otherwise they were padding, and the bytes that come in their place are the data.

use super::Stream;
use crate::extent::Extent;
use crate::tcp::assembler::{Bytes, NoBytes};
use crate::tcp::segment::{ConnectionSettings, Segment};
use crate::time::Timestamp;

/// Bytes in doubt; the module's text explains them.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoubtfulBytes {
    pub(super) offset: u64,
    pub(super) extent: Extent,
    /// The bytes may be padding; otherwise they are a window probe.
    pub(super) is_padding: bool,
    pub(super) since: Timestamp,
}

impl DoubtfulBytes {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.extent.len.into())
    }
}

impl Stream {
    /// The offset of a window probe that its receiver has not taken yet.
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

    /// The receiver has taken the probe's byte: it is ordinary data.
    pub(super) fn take_probe(&mut self, settings: &ConnectionSettings, bytes: &dyn Bytes) {
        if self.probe().is_some() {
            self.take_doubt(settings, bytes);
        }
    }

    /// The bytes that may be padding.
    pub(super) fn padding(&self) -> Option<&DoubtfulBytes> {
        self.doubt.as_deref().filter(|doubt| doubt.is_padding)
    }

    /// Keeps bytes that may be padding until that is clear. Returns `false` if the segment cannot
    /// be padding.
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
            self.doubt = Some(Box::new(DoubtfulBytes { offset, extent, is_padding: true, since }));
        }
        true
    }

    /// The sender goes on at `next`.
    pub(super) fn padding_followed(
        &mut self,
        next: i64,
        settings: &ConnectionSettings,
        bytes: &dyn Bytes,
    ) {
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
        settings: &ConnectionSettings,
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

    /// When a single byte counts as sent without proof: a keep-alive has one byte.
    pub(super) fn padding_deadline(&self, settings: &ConnectionSettings) -> Option<Timestamp> {
        let padding = self.padding().filter(|padding| padding.extent.len == 1)?;
        Some(padding.since.plus(settings.gap_wait))
    }

    /// Decides at `now` for a single byte if nothing has proved otherwise.
    pub(super) fn end_padding(&mut self, now: Timestamp, settings: &ConnectionSettings) {
        if self.padding_deadline(settings).is_some_and(|deadline| deadline <= now) {
            // Nothing was inserted at its place, so there is no copy to compare.
            self.take_doubt(settings, &NoBytes);
        }
    }

    /// The padding was not sent as data.
    pub(super) fn drop_padding(&mut self) {
        if let Some(padding) = self.padding() {
            let len = u64::from(padding.extent.len);
            self.doubt = None;
            let rejected = &mut self.counters.rejected_bytes;
            *rejected = rejected.saturating_add(len);
        }
    }

    /// The bytes were sent: they are ordinary data.
    fn take_doubt(&mut self, settings: &ConnectionSettings, bytes: &dyn Bytes) {
        if let Some(doubt) = self.doubt.take() {
            let (offset, end) = (doubt.offset, doubt.end());
            let inserted = self.assembler.insert(offset, doubt.extent, settings.policy, bytes);
            self.repeat(inserted.seen);
            self.counters.late_bytes = self.counters.late_bytes.saturating_add(inserted.late);
            self.highest = self.highest.max(end);
        }
    }
}
