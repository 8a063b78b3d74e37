//! Copies of the same bytes: what an insertion found, and whether they agree.

use crate::extent::Extent;

/// The bytes of extents, for as long as somebody has them.
///
/// Only overlaps ask: are the two copies of a byte the same?
pub trait Bytes {
    /// The bytes of an extent, exactly `extent.len` of them. `None` if they are gone.
    fn get(&self, extent: Extent) -> Option<&[u8]>;

    /// How many bytes differ between two extents of the same length; `None` if one of them is gone.
    ///
    /// For those who cannot lend two extents at a time.
    fn differing(&self, one: Extent, other: Extent) -> Option<u64> {
        let (one, other) = (self.get(one)?, self.get(other)?);
        if one.len() != other.len() {
            return None;
        }
        if one == other {
            return Some(0);
        }
        Some(one.iter().zip(other).map(|(one, other)| u64::from(one != other)).sum())
    }
}

/// No bytes at all: whether overlaps agree stays unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBytes;

impl Bytes for NoBytes {
    fn get(&self, _: Extent) -> Option<&[u8]> {
        None
    }
}

/// What became of the bytes of one [`insert`](super::Assembler::insert). Units are bytes;
/// `new + seen + late` is what was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inserted {
    /// Not seen before.
    pub new: u64,
    /// Seen before, whichever copy counts now.
    pub seen: u64,
    /// Not seen before, but the place had been given up as missing; they are not used.
    pub late: u64,
    /// Of `seen`: different from the earlier copy.
    pub conflicting: u64,
    /// Of `seen`: the earlier copy could not be compared, because its bytes are gone.
    pub unverified: u64,
    /// Stream offset of the first byte that is new.
    pub first_new: Option<u64>,
}

impl Inserted {
    /// Both of two.
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
    pub(super) fn overlap(&mut self, old: Extent, new: Extent, bytes: &dyn Bytes) {
        let len = u64::from(new.len);
        if old == new {
            self.seen = self.seen.saturating_add(len);
            return;
        }
        match bytes.differing(old, new) {
            Some(count) => {
                self.seen = self.seen.saturating_add(len);
                self.conflicting = self.conflicting.saturating_add(count);
            }
            None => self.unverifiable(len),
        }
    }

    pub(super) fn unverifiable(&mut self, len: u64) {
        self.seen = self.seen.saturating_add(len);
        self.unverified = self.unverified.saturating_add(len);
    }
}
