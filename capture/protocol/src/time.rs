//! Packet time: one type, so that microseconds and nanoseconds are never confused.
#![expect(clippy::arithmetic_side_effects, reason = "each number has a range, stated beside it")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in nanoseconds since the Unix epoch.
///
/// Savefile records hold seconds as an unsigned 32-bit number, which ends in 2106. A fraction in
/// nanoseconds leaves two high bits free; they hold the next two bits of the seconds, so that a
/// record can state any moment before 2514. With microseconds, [`Timestamp::to_parts`] saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Resolution of a capture's time stamps; it decides the magic number of the pcap files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Microseconds: magic `0xa1b2c3d4`, readable by every tool ever written.
    Micro,
    /// Nanoseconds: magic `0xa1b23c4d`, libpcap 1.5 (2013) and later.
    Nano,
}

impl Precision {
    /// Nanoseconds in one unit of the record header's fraction field.
    #[must_use]
    pub const fn unit_nanoseconds(self) -> u32 {
        match self {
            Self::Micro => 1_000,
            Self::Nano => 1,
        }
    }
}

/// Bits that a fraction in nanoseconds needs.
const ERA_SHIFT: u32 = 30;

impl Timestamp {
    /// The moment `nanoseconds` after the Unix epoch.
    #[must_use]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// The moment in a record header: `seconds` plus `fraction` units of `precision`.
    ///
    /// Broken writers produce fractions of a second or more. These carry over into the seconds. In
    /// nanoseconds, the two highest bits extend the seconds instead.
    #[must_use]
    pub const fn from_parts(seconds: u32, fraction: u32, precision: Precision) -> Self {
        let (era, fraction) = match precision {
            Precision::Nano => (fraction >> ERA_SHIFT, fraction & ((1 << ERA_SHIFT) - 1)),
            Precision::Micro => (0, fraction),
        };
        let seconds = (era as u64) << 32 | seconds as u64;
        // 2^34 seconds and u32::MAX microseconds are below u64::MAX nanoseconds.
        Self(seconds * 1_000_000_000 + fraction as u64 * precision.unit_nanoseconds() as u64)
    }

    /// Seconds and fraction for a record header.
    #[must_use]
    pub fn to_parts(self, precision: Precision) -> (u32, u32) {
        let seconds = self.0 / 1_000_000_000;
        // The remainder is below 10^9 and fits, and the seconds are below 2^35.
        let nanoseconds = (self.0 % 1_000_000_000) as u32;
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are what is meant")]
        let (era, low) = ((seconds >> 32) as u32, seconds as u32);
        match (era, precision) {
            (0, _) => (low, nanoseconds / precision.unit_nanoseconds()),
            (1..=3, Precision::Nano) => (low, nanoseconds | era << ERA_SHIFT),
            (_, Precision::Nano) => (u32::MAX, 999_999_999 | 3 << ERA_SHIFT),
            (_, Precision::Micro) => (u32::MAX, 999_999),
        }
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn nanoseconds(self) -> u64 {
        self.0
    }

    /// The same moment as a type of the standard library.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }

    /// The moment `wait` after this one, or the last possible moment if that is earlier.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Microseconds from `earlier` to this moment, rounded down; `None` if it is before `earlier`.
    #[must_use]
    pub const fn microseconds_since(self, earlier: Self) -> Option<u64> {
        match self.0.checked_sub(earlier.0) {
            Some(nanoseconds) => Some(nanoseconds / 1_000),
            None => None,
        }
    }

    /// RFC 3339 in UTC with nine digits of fraction: `2026-11-21T10:20:30.123456789Z`.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let (days, second) = (self.0 / 86_400_000_000_000, self.0 / 1_000_000_000 % 86_400);
        // Converts days to a date. Its years begin in March, so that the leap day comes
        // last: 146097 days in 400 years, 1461 in 4, 153 in 5 months.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
            second / 3_600,
            second / 60 % 60,
            second % 60,
            self.0 % 1_000_000_000
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_round_trip_in_both_precisions() {
        for precision in [Precision::Micro, Precision::Nano] {
            let unit = u64::from(precision.unit_nanoseconds());
            for nanoseconds in
                [0, 999_999_000, 1_700_000_000_123_456_000, 4_294_967_295_999_999_000]
            {
                let time = Timestamp::from_nanoseconds(nanoseconds);
                let (seconds, fraction) = time.to_parts(precision);
                assert_eq!(Timestamp::from_parts(seconds, fraction, precision), time);
                assert!(u64::from(fraction) * unit < 1_000_000_000);
            }
        }
    }

    #[test]
    fn far_future_saturates_and_overlong_fractions_carry() {
        let far = Timestamp::from_nanoseconds(u64::MAX);
        assert_eq!(far.to_parts(Precision::Micro), (u32::MAX, 999_999));
        let (seconds, fraction) = far.to_parts(Precision::Nano);
        let latest = Timestamp::from_parts(seconds, fraction, Precision::Nano);
        assert_eq!(latest.to_rfc3339(), "2514-05-30T01:53:03.999999999Z");
        // 2106-02-07T06:28:16Z and later.
        for nanoseconds in [1 << 32, 4_323_369_600, 1 << 33, (1 << 34) - 1] {
            let time = Timestamp::from_nanoseconds(nanoseconds * 1_000_000_000 + 999_999_999);
            let (seconds, fraction) = time.to_parts(Precision::Nano);
            assert_eq!(Timestamp::from_parts(seconds, fraction, Precision::Nano), time);
            assert_eq!(time.to_parts(Precision::Micro), (u32::MAX, 999_999));
        }
        let carried = Timestamp::from_parts(1, 1_500_000, Precision::Micro);
        assert_eq!(carried.nanoseconds(), 2_500_000_000);
    }

    #[test]
    fn rfc3339_knows_leap_years_and_century_rules() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(Timestamp::from_nanoseconds(seconds * 1_000_000_000).to_rfc3339(), text);
        }
    }
}
