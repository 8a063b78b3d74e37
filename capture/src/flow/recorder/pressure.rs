//! Whether the ring is about to overtake the engine. If so, there is no time to decode bodies.

use std::time::Duration;

/// Time over which the progress of the engine and of the end of the ring is compared.
const SPAN: Duration = Duration::from_millis(100);

/// The recorder hurries if the engine would be overtaken in less than this time, which is longer
/// than decoding any one body takes.
const NEAR: Duration = Duration::from_secs(2);

/// The engine's lead over the packets that are overwritten next, and how that lead changes.
#[derive(Debug, Default)]
pub(in crate::flow) struct Pressure {
    /// The time of the last comparison, the oldest packet retained then, and the engine's next
    /// packet.
    last: Option<(Duration, u64, u64)>,
    is_high: bool,
}

impl Pressure {
    /// Returns `true` if the recorder must hurry. `now` is the time of any clock that does not go
    /// back.
    pub(in crate::flow) fn is_high(&mut self, now: Duration, oldest: u64, position: u64) -> bool {
        let Some((then, old_oldest, old_position)) = self.last else {
            self.last = Some((now, oldest, position));
            return false;
        };
        let span = now.saturating_sub(then);
        if span < SPAN {
            return self.is_high;
        }
        self.last = Some((now, oldest, position));
        let margin = position.saturating_sub(oldest);
        // By how much the margin has become smaller, or 0.
        let overwritten = oldest.saturating_sub(old_oldest);
        let shrunk = overwritten.saturating_sub(position.saturating_sub(old_position));
        // At this rate the margin is used up after so many spans.
        let spans = margin.checked_div(shrunk);
        let time = spans.map(|spans| span.saturating_mul(u32::try_from(spans).unwrap_or(u32::MAX)));
        self.is_high = time.is_some_and(|time| time < NEAR);
        self.is_high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers for an engine that is at `position` when `oldest` is the oldest packet, ten
    /// times a second.
    fn said(steps: &[(u64, u64)]) -> Vec<bool> {
        let mut pressure = Pressure::default();
        let said = steps
            .iter()
            .zip(0..)
            .map(|((oldest, position), at)| pressure.is_high(SPAN * at, *oldest, *position));
        said.collect()
    }

    #[test]
    fn an_engine_that_is_held_up_is_seen_before_it_is_overtaken() {
        // 1,000 packets are overwritten in each span; the engine does not move.
        let steps: Vec<_> = (0..40).map(|at| (at * 1_000, 30_000)).collect();
        let said = said(&steps);
        let first = said.iter().position(|high| *high).unwrap();
        assert_eq!(first, 11, "{said:?}");
        assert!(said[first..30].iter().all(|high| *high), "{said:?}");
    }

    #[test]
    fn an_engine_that_keeps_up_or_catches_up_is_not() {
        let keeps_up: Vec<_> = (0..40).map(|at| (at * 1_000, 500 + at * 1_000)).collect();
        assert!(!said(&keeps_up).contains(&true));
        // After a start on a full ring.
        let catches_up: Vec<_> = (0..40).map(|at| (at * 10, 1 + at * 1_000)).collect();
        assert!(!said(&catches_up).contains(&true));
        // Nothing is overwritten.
        let reads: Vec<_> = (0..40).map(|at| (1, 1 + at / 10)).collect();
        assert!(!said(&reads).contains(&true));
    }

    #[test]
    fn looks_within_a_span_say_the_same() {
        let mut pressure = Pressure::default();
        assert!(!pressure.is_high(Duration::ZERO, 0, 5_000));
        assert!(!pressure.is_high(SPAN / 2, 4_000, 5_000));
        assert!(pressure.is_high(SPAN, 4_000, 5_000));
        assert!(pressure.is_high(SPAN * 3 / 2, 4_000, 9_000));
        assert!(!pressure.is_high(SPAN * 2, 4_000, 9_000));
    }
}
