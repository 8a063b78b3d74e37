//! Copies of the same bytes: the result of an insertion, and whether the copies agree.

use std::ops::Range;

use crate::extent::Extent;

/// Access to the bytes of extents, as long as they are retained.
///
/// Only overlaps need it, to compare two copies of the same bytes.
pub trait Bytes {
    /// The bytes of an extent, exactly `extent.len` of them. `None` if they are gone.
    fn get(&self, extent: Extent) -> Option<&[u8]>;

    /// The bytes that differ between two extents of the same length; `None` if one extent is gone.
    ///
    /// Override it if two extents cannot be borrowed at the same time.
    fn differing(&self, one: Extent, other: Extent) -> Option<Difference> {
        Difference::between(self.get(one)?, self.get(other)?)
    }
}

/// The bytes that differ between two copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Number of differing bytes.
    pub count: u64,
    /// Offset of the first byte that differs.
    pub first: u64,
    /// Offset after the last byte that differs.
    pub end: u64,
}

impl Difference {
    /// Compares two copies; `None` if their lengths differ.
    #[must_use]
    pub fn between(one: &[u8], other: &[u8]) -> Option<Self> {
        if one.len() != other.len() {
            return None;
        }
        let mut found = Self::default();
        if one == other {
            return Some(found);
        }
        for (at, _) in (0_u64..).zip(one.iter().zip(other)).filter(|(_, (one, other))| one != other)
        {
            if found.count == 0 {
                found.first = at;
            }
            found.count = found.count.saturating_add(1);
            found.end = at.saturating_add(1);
        }
        Some(found)
    }
}

/// No bytes at all: it stays unknown whether overlaps agree.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBytes;

impl Bytes for NoBytes {
    fn get(&self, _: Extent) -> Option<&[u8]> {
        None
    }
}

/// The result of one [`insert`](super::Assembler::insert). Units are bytes; `new + seen + late` is
/// the number of inserted bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inserted {
    /// Not seen before.
    pub new: u64,
    /// Seen before, no matter which copy counts now.
    pub seen: u64,
    /// Not seen before, but their place had been given up as missing; they are not used.
    pub late: u64,
    /// Of `seen`: different from the earlier copy.
    pub conflicting: u64,
    /// Of `seen`: the earlier copy could not be compared, because its bytes are gone.
    pub unverified: u64,
    /// Stream offset of the first new byte.
    pub first_new: Option<u64>,
}

impl Inserted {
    /// The sum of two results.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            new: self.new.saturating_add(other.new),
            seen: self.seen.saturating_add(other.seen),
            late: self.late.saturating_add(other.late),
            conflicting: self.conflicting.saturating_add(other.conflicting),
            unverified: self.unverified.saturating_add(other.unverified),
            first_new: self.first_new.or(other.first_new),
        }
    }
}

impl Inserted {
    /// Compares two copies of the bytes from stream offset `at` on. Returns the range in which they
    /// differ.
    pub(super) fn overlap(
        &mut self,
        at: u64,
        old: Extent,
        new: Extent,
        bytes: &dyn Bytes,
    ) -> Option<Range<u64>> {
        let len = u64::from(new.len);
        if old == new {
            self.seen = self.seen.saturating_add(len);
            return None;
        }
        let Some(Difference { count, first, end }) = bytes.differing(old, new) else {
            self.unverifiable(len);
            return None;
        };
        self.seen = self.seen.saturating_add(len);
        self.conflicting = self.conflicting.saturating_add(count);
        (count > 0).then(|| at.saturating_add(first)..at.saturating_add(end))
    }

    pub(super) fn unverifiable(&mut self, len: u64) {
        self.seen = self.seen.saturating_add(len);
        self.unverified = self.unverified.saturating_add(len);
    }
}
