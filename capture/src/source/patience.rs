//! How long a source that connects waits before it tries again.
//!
//! A wait is a share of the time that the peer has been away, so that a short absence costs a
//! short wait, and a long one costs the network little. Many sources that lose the same peer at
//! the same moment come back spread out, because a part of each wait is random.

use std::time::{Duration, Instant};

use super::SourceControl;
use crate::random::random;

/// The shortest wait: a peer that starts again needs about this long.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest wait. After an absence of four minutes or more, a capture continues within this time,
/// and two hundred captures wake ten times a second.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest wait is this part of the absence so far: after 5 s, well under a second.
const PART: u32 = 8;

/// The attempts to reach a peer that is away.
#[derive(Debug)]
pub struct ReconnectPatience {
    since: Instant,
}

impl ReconnectPatience {
    /// For a peer that is away from now on.
    #[must_use]
    pub fn begin() -> Self {
        Self { since: Instant::now() }
    }

    /// Waits before the next attempt, or until `control` has an order. Returns false if the source
    /// must stop.
    #[must_use]
    pub fn wait(&self, control: &SourceControl) -> bool {
        control.sleep(wait_after(self.since.elapsed(), random()))
    }
}

/// The wait after an absence of this length; `random` chooses within its second half.
fn wait_after(absence: Duration, random: u64) -> Duration {
    let longest = (absence / PART).clamp(SHORTEST, LONGEST);
    let half = longest / 2;
    let share = u128::from(random) * half.as_nanos() / u128::from(u64::MAX);
    half + Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_the_absence_and_differ() {
        for (absence, least, greatest) in
            [(0, 50, 100), (800, 50, 100), (5_000, 312, 625), (1_000_000, 15_000, 30_000)]
        {
            let absence = Duration::from_millis(absence);
            assert_eq!(wait_after(absence, 0).as_millis(), least);
            assert_eq!(wait_after(absence, u64::MAX).as_millis(), greatest);
        }
        assert_ne!(random(), random());
    }

    #[test]
    fn an_order_to_stop_ends_the_wait() {
        let control = SourceControl::new().unwrap();
        let patience = ReconnectPatience::begin();
        assert!(patience.wait(&control));
        control.stop();
        assert!(!patience.wait(&control));
    }
}
