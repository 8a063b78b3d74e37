//! Sizes of a ring: the number and size of its segments, and their places in the file.

/// Bytes of the file header, and the alignment of the bodies.
pub(super) const PAGE: u64 = 4096;

/// Bytes of the header of one segment.
pub(super) const SEGMENT_HEADER: usize = 128;

/// Maximum number of chunks that all threads together may have pinned in one ring at one time.
///
/// There are as many spare segments, so that a writer that needs a segment finds one that is
/// neither retained nor pinned. Eight allow two threads to reply with one-mebibyte reads that span
/// three segments each, and two more single pins.
pub const MAX_PINS: u32 = 8;

/// Smallest segment: a full-size GRO frame fits with its header.
const MIN_SEGMENT: u64 = 128 << 10;

/// Largest segment: dropping the oldest segment should not drop much of a large ring.
const MAX_SEGMENT: u64 = 4 << 20;

/// Desired number of segments of a ring, so that one segment is less than a hundredth of it.
const WANTED_SEGMENTS: u64 = 128;

/// Largest segment of a capture with a giant snaplen: its length must fit 32 bits.
const MAX_GIANT_SEGMENT: u64 = 1 << 31;

/// Minimum number of segments: with fewer, dropping one drops too much.
const MIN_SEGMENTS: u64 = 4;

/// Smallest ring, in bytes.
pub const MIN_RING: u64 = MIN_SEGMENT * MIN_SEGMENTS;

/// Largest ring, in bytes: 16 TiB, far above any memory, low enough that no sum overflows.
pub const MAX_RING: u64 = 1 << 44;

/// The shape of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of one segment's body: a multiple of the page size, below 4 GiB.
    pub segment_size: u64,
    /// Segments that hold retained packets, including the open one.
    pub segments: u32,
    /// Further segments, see [`MAX_PINS`].
    pub spares: u32,
}

/// A ring size that is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ring of {size} bytes is not possible (at least 512K, at most 16384G)")]
pub struct BadSize {
    /// The requested size in bytes.
    pub size: u64,
}

impl Geometry {
    /// The shape of a ring that retains about `size` bytes of packets of at most `snaplen` bytes.
    ///
    /// The longest record fits a segment if the ring is at least eight times as large. In a smaller
    /// ring, long records are counted as oversize.
    ///
    /// # Errors
    /// [`BadSize`] outside [`MIN_RING`] to [`MAX_RING`].
    pub fn new(size: u64, snaplen: u32) -> Result<Self, BadSize> {
        if !(MIN_RING..=MAX_RING).contains(&size) {
            return Err(BadSize { size });
        }
        let record = (u64::from(snaplen) + crate::record::HEADER_LEN as u64).next_power_of_two();
        let wanted = (size / WANTED_SEGMENTS).next_power_of_two().clamp(MIN_SEGMENT, MAX_SEGMENT);
        let largest_power = 1 << (size / 8).ilog2();
        let segment_size = wanted.max(record.min(largest_power)).min(MAX_GIANT_SEGMENT);
        let segments = u32::try_from(size / segment_size).map_err(|_| BadSize { size })?;
        Ok(Self { segment_size, segments, spares: MAX_PINS })
    }

    /// Maximum bytes of retained packets.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.segment_size * u64::from(self.segments)
    }

    /// Segments in the file.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.segments + self.spares
    }

    /// Offset in the file at which the bodies begin.
    #[must_use]
    pub(super) fn body_offset(&self) -> u64 {
        let headers = u64::from(self.slots()) * SEGMENT_HEADER as u64;
        PAGE + headers.next_multiple_of(PAGE)
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.body_offset() + self.segment_size * u64::from(self.slots())
    }

    /// A shape read from a file; `None` if [`Geometry::new`] could not have made it.
    pub(super) fn checked(segment_size: u64, segments: u32, spares: u32) -> Option<Self> {
        let plausible = segment_size.is_power_of_two()
            && (PAGE..1 << 32).contains(&segment_size)
            && segment_size.checked_mul(u64::from(segments))? <= MAX_RING
            && u64::from(segments) >= MIN_SEGMENTS
            && spares == MAX_PINS;
        plausible.then_some(Self { segment_size, segments, spares })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_the_size() {
        let default = Geometry::new(64 << 20, 262_144).unwrap();
        assert_eq!((default.segment_size, default.segments), (512 << 10, 128));
        let small = Geometry::new(MIN_RING, 262_144).unwrap();
        assert_eq!((small.segment_size, small.segments), (128 << 10, 4));
        let large = Geometry::new(1 << 30, 262_144).unwrap();
        assert_eq!((large.segment_size, large.segments), (4 << 20, 256));
        let odd = Geometry::new(5_000_000, 96).unwrap();
        assert_eq!(odd.segment_size, 128 << 10);
        assert!(odd.size() <= 5_000_000 && odd.size() > 4_800_000);
        assert_eq!(Geometry::new(MIN_RING - 1, 96), Err(BadSize { size: MIN_RING - 1 }));
        assert!(Geometry::new(u64::MAX, 96).is_err());
        let giant = Geometry::new(MAX_RING, u32::MAX).unwrap();
        for geometry in [default, small, large, odd, giant] {
            let Geometry { segment_size, segments, spares } = geometry;
            assert_eq!(Geometry::checked(segment_size, segments, spares), Some(geometry));
        }
    }
}
