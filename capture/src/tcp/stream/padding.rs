//! Zeros that may be the padding of a short frame.
//!
//! Some devices count the padding of an Ethernet frame as the payload of an acknowledgment
//! ([`Segment::is_padded`]). Whether it is shows with what comes next: if its sender goes on behind the
//! zeros, or its receiver acknowledges them and no more, they were sent. If not, they were not, and
//! what comes in their place is the data.

use std::ops::Range;

use super::Stream;
use crate::extent::Extent;
use crate::tcp::assembler::Bytes;
use crate::tcp::segment::{Segment, Settings};

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Padding {
    offset: u64,
    extent: Extent,
}

impl Padding {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.extent.len.into())
    }

    /// Whether its place begins in this range.
    pub(super) fn is_in(&self, range: Range<u64>) -> bool {
        range.contains(&self.offset)
    }

    pub(super) fn moved(self, by: impl Fn(u64) -> u64) -> Self {
        Self { offset: by(self.offset), ..self }
    }
}

impl Stream {
    /// Keeps what may be padding until it is known. `false` if it is no such segment.
    pub(super) fn hold_padding(&mut self, offset: i64, segment: &Segment<'_>) -> bool {
        let [extent] = segment.payload else { return false };
        if !segment.is_padded || extent.packet == 0 || extent.len != segment.wire_len {
            return false;
        }
        self.drop_padding();
        let offset = u64::try_from(offset).unwrap_or(0);
        if offset < self.highest || self.fin.is_some_and(|fin| offset >= fin) {
            self.reject(segment);
        } else {
            self.padding = Some(Box::new(Padding { offset, extent: *extent }));
        }
        true
    }

    /// The sender goes on at `next`.
    pub(super) fn padding_followed(&mut self, next: i64, settings: &Settings, bytes: &dyn Bytes) {
        if let (Some(padding), Ok(next)) = (self.padding.as_deref(), u64::try_from(next)) {
            if next == padding.end() {
                self.take_padding(settings, bytes);
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
        if let Some(padding) = self.padding.as_deref() {
            if acked == padding.end() {
                self.take_padding(settings, bytes);
            } else if acked > padding.offset {
                self.drop_padding();
            }
        }
    }

    /// It was sent: it is data like any other.
    fn take_padding(&mut self, settings: &Settings, bytes: &dyn Bytes) {
        if let Some(padding) = self.padding.take() {
            let (offset, end) = (padding.offset, padding.end());
            let inserted = self.assembler.insert(offset, padding.extent, settings.policy, bytes);
            self.repeat(inserted.seen);
            self.counters.late_bytes = self.counters.late_bytes.saturating_add(inserted.late);
            self.highest = self.highest.max(end);
        }
    }

    /// It was not sent.
    pub(super) fn drop_padding(&mut self) {
        if let Some(padding) = self.padding.take() {
            let rejected = &mut self.counters.rejected_bytes;
            *rejected = rejected.saturating_add(padding.extent.len.into());
        }
    }
}
