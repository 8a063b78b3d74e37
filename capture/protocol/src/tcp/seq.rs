//! Sequence numbers modulo 2^32 (RFC 9293 3.4), and their offsets in a stream of any length.

/// A sequence number of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sequence(pub u32);

impl Sequence {
    /// The number `count` bytes later.
    #[must_use]
    pub fn plus(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// Distance from `earlier` to this number; negative if this number comes first. The distance
    /// takes the shorter way round, so the result is right if the two are less than 2^31 apart.
    #[must_use]
    pub fn since(self, earlier: Self) -> i64 {
        i64::from(self.0.wrapping_sub(earlier.0).cast_signed())
    }

    /// The stream offset of this number, if byte 0 of the stream has number `origin` and the
    /// offset is less than 2^31 away from `anchor`. Negative: before the stream's first byte.
    #[must_use]
    pub fn offset(self, origin: Self, anchor: u64) -> i64 {
        let distance = self.since(origin.at(anchor));
        i64::try_from(anchor).unwrap_or(i64::MAX).saturating_add(distance)
    }

    /// The sequence number of the byte at stream offset `offset`, if `self` is the number of offset
    /// 0.
    #[must_use]
    pub fn at(self, offset: u64) -> Self {
        // A sequence number is the low 32 bits of the offset.
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32 is the point")]
        self.plus(offset as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_goes_round() {
        assert_eq!(Sequence(5).since(Sequence(u32::MAX)), 6);
        assert_eq!(Sequence(u32::MAX).since(Sequence(5)), -6);
    }

    #[test]
    fn before_the_first_byte_is_negative() {
        assert_eq!(Sequence(99).offset(Sequence(100), 0), -1);
        assert_eq!(Sequence(99).offset(Sequence(100), 1 << 32), (1 << 32) - 1);
    }

    proptest! {
        #[test]
        fn offsets_come_back(origin: u32, anchor in 0..1_u64 << 40, distance in -0x7fff_ffff..0x7fff_ffff_i64) {
            let origin = Sequence(origin);
            if let Some(offset) = anchor.checked_add_signed(distance) {
                prop_assert_eq!(origin.at(offset).offset(origin, anchor), i64::try_from(offset).unwrap());
            }
        }
    }
}
