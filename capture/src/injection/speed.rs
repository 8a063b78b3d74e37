//! How fast the gaps between injected frames pass.

use std::fmt;
use std::time::Duration;

/// The speed of an injection: a factor of the gaps between packets, or as fast as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectSpeed {
    /// So many thousandths of the original speed; not 0.
    Thousandths(u32),
    /// Without gaps.
    Max,
}

/// The speed at which the gaps are kept.
const ORIGINAL: u32 = 1000;

impl InjectSpeed {
    /// The word for [`InjectSpeed::Max`].
    const MAX: &str = "max";

    /// For messages: what can be written.
    pub const EXPECTED: &str = "a number from 0.001 to 1000000, or max";

    /// Parses the written form: a number with up to three digits after the point, or `max`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == Self::MAX {
            return Some(Self::Max);
        }
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(part) || part.len() > 3 {
            return None;
        }
        let part: u32 = format!("{part:0<3}").parse().ok()?;
        let speed = whole.parse::<u32>().ok()?.checked_mul(ORIGINAL)?.checked_add(part)?;
        (1..=1_000_000 * ORIGINAL).contains(&speed).then_some(Self::Thousandths(speed))
    }

    /// The time that a gap of the original takes.
    pub(super) fn gap(self, original: Duration) -> Duration {
        match self {
            Self::Max => Duration::ZERO,
            Self::Thousandths(ORIGINAL) => original,
            Self::Thousandths(speed) => {
                let nanoseconds = original.as_nanos().saturating_mul(ORIGINAL.into());
                let gap = nanoseconds / u128::from(speed.max(1));
                Duration::from_nanos(u64::try_from(gap).unwrap_or(u64::MAX))
            }
        }
    }
}

impl Default for InjectSpeed {
    fn default() -> Self {
        Self::Thousandths(ORIGINAL)
    }
}

impl fmt::Display for InjectSpeed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => formatter.write_str(Self::MAX),
            Self::Thousandths(speed) => {
                let part = format!("{:03}", speed % ORIGINAL);
                let part = part.trim_end_matches('0');
                let part = if part.is_empty() { "0" } else { part };
                write!(formatter, "{}.{part}", speed / ORIGINAL)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read_as_they_are_written() {
        for (text, speed, written) in [
            ("max", InjectSpeed::Max, "max"),
            ("1", InjectSpeed::default(), "1.0"),
            ("1.0", InjectSpeed::default(), "1.0"),
            ("0.001", InjectSpeed::Thousandths(1), "0.001"),
            ("2.5", InjectSpeed::Thousandths(2500), "2.5"),
            ("1000000", InjectSpeed::Thousandths(1_000_000_000), "1000000.0"),
        ] {
            assert_eq!(InjectSpeed::parse(text), Some(speed), "{text}");
            assert_eq!(speed.to_string(), written);
        }
        for text in ["", "0", "0.0", "-1", "+1", "1.0000", "1e3", ".5", "Max", "1000000.001", "x"] {
            assert_eq!(InjectSpeed::parse(text), None, "{text}");
        }
    }

    #[test]
    fn gaps_shrink_and_grow() {
        let gap = |speed: &str, seconds| {
            InjectSpeed::parse(speed).unwrap().gap(Duration::from_secs(seconds))
        };
        assert_eq!(gap("1", 7), Duration::from_secs(7));
        assert_eq!(gap("2", 7), Duration::from_millis(3500));
        assert_eq!(gap("0.5", 7), Duration::from_secs(14));
        assert_eq!(gap("max", 7), Duration::ZERO);
        assert_eq!(gap("0.001", u64::MAX), Duration::from_nanos(u64::MAX));
    }
}
