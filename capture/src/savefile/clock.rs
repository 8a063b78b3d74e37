//! Time stamps of pcapng interfaces: any power of ten or two of a second, from any moment.

use protocol::time::Timestamp;

/// The meaning of the time stamps of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    pub(super) unit: Unit,
    /// Seconds to add.
    pub(super) offset: i64,
}

/// The unit of time stamps, from `if_tsresol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// This many nanoseconds.
    Nanoseconds(u64),
    /// This many units are a nanosecond; 0 if the number exceeds 64 bits.
    PerNanosecond(u64),
    /// 2 to the power of this many units are a second; at most 127.
    Binary(u8),
}

impl Unit {
    /// The unit of an `if_tsresol` value: a power of 10, or of 2 if the top bit is set.
    pub(super) fn parse(resolution: u8) -> Self {
        let exponent = u32::from(resolution & 0x7f);
        if resolution & 0x80 != 0 {
            return Self::Binary(resolution & 0x7f);
        }
        match 9_u32.checked_sub(exponent) {
            Some(more) => Self::Nanoseconds(10_u64.pow(more)),
            None => {
                let finer = exponent.saturating_sub(9);
                Self::PerNanosecond(10_u64.checked_pow(finer).unwrap_or(0))
            }
        }
    }
}

impl Default for Clock {
    /// Microseconds, the default without any option.
    fn default() -> Self {
        Self { unit: Unit::Nanoseconds(1_000), offset: 0 }
    }
}

impl Clock {
    /// Nanoseconds since the Unix epoch.
    pub(super) const NANOSECONDS: Self = Self { unit: Unit::Nanoseconds(1), offset: 0 };

    /// The time of `ticks`, limited to the range of a [`Timestamp`].
    #[inline]
    #[must_use]
    pub fn time(&self, ticks: u64) -> Timestamp {
        let since = match self.unit {
            Unit::Nanoseconds(unit) => ticks.saturating_mul(unit),
            Unit::PerNanosecond(units) => ticks.checked_div(units).unwrap_or(0),
            Unit::Binary(exponent) => {
                // At most 94 bits.
                let shifted = u128::from(ticks).saturating_mul(1_000_000_000) >> (exponent & 0x7f);
                u64::try_from(shifted).unwrap_or(u64::MAX)
            }
        };
        if self.offset == 0 {
            return Timestamp::from_nanoseconds(since);
        }
        let offset = i128::from(self.offset).saturating_mul(1_000_000_000);
        let sum = i128::from(since).saturating_add(offset).max(0);
        Timestamp::from_nanoseconds(u64::try_from(sum).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanoseconds(resolution: u8, offset: i64, ticks: u64) -> u64 {
        Clock { unit: Unit::parse(resolution), offset }.time(ticks).nanoseconds()
    }

    #[test]
    fn every_resolution_becomes_nanoseconds() {
        assert_eq!(Clock::default().time(1_700_000_000_123_456).nanoseconds(), {
            1_700_000_000_123_456_000
        });
        assert_eq!(nanoseconds(0, 0, 1_700_000_000), 1_700_000_000_000_000_000);
        assert_eq!(nanoseconds(9, 0, 1_700_000_000_123_456_789), 1_700_000_000_123_456_789);
        assert_eq!(nanoseconds(12, 0, 5_999), 5, "picoseconds are cut, not rounded");
        assert_eq!(nanoseconds(127, 0, u64::MAX), 0);
        assert_eq!(nanoseconds(0x80 | 10, 0, 1_536), 1_500_000_000);
        assert_eq!(nanoseconds(0x80 | 32, 0, (3 << 32) | (1 << 31)), 3_500_000_000);
        assert_eq!(nanoseconds(0xff, 0, u64::MAX), 0);
        assert_eq!(nanoseconds(0, 0, u64::MAX), u64::MAX, "saturates");
        assert_eq!(nanoseconds(0x80, 0, u64::MAX), u64::MAX, "saturates");
        assert_eq!(nanoseconds(9, 2, 5), 2_000_000_005);
        assert_eq!(nanoseconds(9, -2, 5), 0, "no time before 1970");
        assert_eq!(nanoseconds(9, i64::MAX, u64::MAX), u64::MAX);
        assert_eq!(nanoseconds(9, i64::MIN, u64::MAX), 0);
    }
}
