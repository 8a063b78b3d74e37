//! When each packet is due: its time stamp in, a time since the start out.
//!
//! Each time is computed from the first time stamp, not from the packet before, so that no error
//! adds up however late packets are sent.

use std::str::FromStr;
use std::time::Duration;

use protocol::time::Timestamp;

/// The speed of sending, compared with that of the capture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SendSpeed {
    /// So many times as fast.
    Times(f64),
    /// As fast as the receivers take it.
    Max,
}

impl FromStr for SendSpeed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let times: Option<f64> = text.parse().ok();
        times.filter(|times| (MIN_TIMES..=MAX_TIMES).contains(times)).map(Self::Times).ok_or_else(
            || format!("'{text}' is no speed (1.0 is that of the capture, 2 twice that; or max)"),
        )
    }
}

/// Slower, a packet of the next day would be due after centuries; faster is `max`.
const MIN_TIMES: f64 = 1e-6;
const MAX_TIMES: f64 = 1e6;

/// Computes when packets are due.
#[derive(Debug)]
pub(super) struct SendSchedule {
    speed: SendSpeed,
    /// Time stamp of the first packet, and when it was due.
    origin: Option<(Timestamp, Duration)>,
    /// When the packet before was due.
    last: Duration,
}

impl SendSchedule {
    /// Before the first packet, which is due at once.
    pub(super) const fn new(speed: SendSpeed) -> Self {
        Self { speed, origin: None, last: Duration::ZERO }
    }

    /// When a packet is due, as a time since the start; `None` if it is due when the one before has
    /// been sent. Packets are due in their order, also if their time stamps are not in order.
    pub(super) fn due(&mut self, time: Timestamp) -> Option<Duration> {
        let SendSpeed::Times(times) = self.speed else { return None };
        let (first, start) = *self.origin.get_or_insert((time, self.last));
        let since = Duration::from_nanos(time.nanoseconds().saturating_sub(first.nanoseconds()));
        let due = start.saturating_add(scaled(since, times));
        self.last = self.last.max(due);
        Some(self.last)
    }

    /// Begins again: the next packet is due together with the last one.
    pub(super) const fn repeat(&mut self) {
        self.origin = None;
    }
}

/// A time at `times` times its speed.
fn scaled(since: Duration, times: f64) -> Duration {
    // Not through floating point where that changes nothing.
    if times == 1.0 {
        return since;
    }
    Duration::try_from_secs_f64(since.as_secs_f64() / times).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn due(schedule: &mut SendSchedule, nanoseconds: u64) -> Option<u64> {
        let due = schedule.due(Timestamp::from_nanoseconds(nanoseconds))?;
        Some(u64::try_from(due.as_nanos()).unwrap())
    }

    #[test]
    fn packets_are_due_after_the_first_as_in_the_capture() {
        let mut schedule = SendSchedule::new(SendSpeed::Times(1.0));
        let begin = 1_700_000_000 * SECOND;
        // A hundred days in steps of a microsecond less than a second: no error adds up.
        for step in 0..8_640_000 {
            let since = step * (SECOND - 1_000);
            assert_eq!(due(&mut schedule, begin + since), Some(since));
        }
    }

    #[test]
    fn speeds_scale() {
        let mut twice = SendSchedule::new("2".parse().unwrap());
        let mut half = SendSchedule::new("0.5".parse().unwrap());
        for (since, at_twice, at_half) in [
            (0, 0, 0),
            (SECOND, SECOND / 2, 2 * SECOND),
            (600 * SECOND, 300 * SECOND, 1200 * SECOND),
        ] {
            assert_eq!(due(&mut twice, 5 + since), Some(at_twice));
            assert_eq!(due(&mut half, 5 + since), Some(at_half));
        }
        assert_eq!(due(&mut SendSchedule::new(SendSpeed::Max), 5), None);
        for text in ["0", "-1", "inf", "nan", "1e7", "fast", ""] {
            assert!(text.parse::<SendSpeed>().is_err(), "{text}");
        }
    }

    #[test]
    fn time_never_goes_back() {
        let mut schedule = SendSchedule::new(SendSpeed::Times(1.0));
        let dues = [100, 300, 50, 200, 400].map(|time| due(&mut schedule, time));
        assert_eq!(dues, [0, 200, 200, 200, 300].map(Some));
    }

    #[test]
    fn a_repetition_begins_where_the_one_before_ended() {
        let mut schedule = SendSchedule::new(SendSpeed::Times(1.0));
        let once = [100, 150, 400];
        let mut all = Vec::new();
        for _ in 0..3 {
            all.extend(once.map(|time| due(&mut schedule, time).unwrap()));
            schedule.repeat();
        }
        assert_eq!(all, [0, 50, 300, 300, 350, 600, 600, 650, 900]);
    }
}
