//! Places of bytes, without the bytes: all that a flow keeps of a packet in the ring.

use std::ops::Range;

/// A run of bytes of one captured packet.
///
/// A stream is a list of extents. A reader of the stream gets their bytes from the ring. A packet
/// that the ring has overwritten leaves a hole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Number of the packet in its capture, from 1.
    pub packet: u64,
    /// First byte, counted from the beginning of the packet's captured data.
    pub offset: u32,
    /// Number of bytes; `offset + len` is at most the packet's captured length.
    pub len: u32,
}

impl Extent {
    /// At most `len` bytes of this extent, after its first `skip` bytes. Shorter if the extent ends
    /// first.
    #[must_use]
    pub fn part(self, skip: u64, len: u64) -> Self {
        let skip = u32::try_from(skip).unwrap_or(u32::MAX).min(self.len);
        let rest = self.len.saturating_sub(skip);
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(rest);
        Self { packet: self.packet, offset: self.offset.saturating_add(skip), len }
    }

    /// The extent as a range of indices into the packet's captured data.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.offset as usize..(self.offset as usize).saturating_add(self.len as usize)
    }

    /// Returns `true` if `next` begins where this extent ends, in the same packet.
    #[must_use]
    pub fn continues_in(self, next: Self) -> bool {
        self.packet == next.packet && self.offset.checked_add(self.len) == Some(next.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_inside() {
        let whole = Extent { packet: 7, offset: 54, len: 10 };
        assert_eq!(whole.part(0, 99), whole);
        assert_eq!(whole.part(3, 4), Extent { packet: 7, offset: 57, len: 4 });
        assert_eq!(whole.part(u64::MAX, u64::MAX), Extent { packet: 7, offset: 64, len: 0 });
        assert!(whole.part(0, 4).continues_in(whole.part(4, 6)));
        assert!(!whole.part(0, 4).continues_in(whole.part(5, 5)));
    }
}
