//! The wait before a daemon that died is started again.

use std::time::Duration;

/// If a daemon has answered for this long, its death counts as the first in a row.
const WELL: Duration = Duration::from_secs(10);

/// Wait before the second start in a row; it doubles with each.
const FIRST: Duration = Duration::from_millis(250);

/// The maximum wait: long enough not to keep a machine busy with a daemon that cannot work, and
/// short enough that a daemon which can work again is soon there.
const LONGEST: Duration = Duration::from_secs(30);

/// Counts deaths in a row.
#[derive(Debug, Default)]
pub(crate) struct RestartBackoff {
    deaths: u32,
}

impl RestartBackoff {
    /// How long to wait after the death of a daemon that had answered for `served`: not at all
    /// after the first death.
    pub(crate) fn after(&mut self, served: Duration) -> Duration {
        if served >= WELL {
            self.deaths = 0;
        }
        let doublings = self.deaths.checked_sub(1);
        self.deaths = self.deaths.saturating_add(1);
        doublings.map_or(Duration::ZERO, |doublings| {
            FIRST.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_anew() {
        let mut backoff = RestartBackoff::default();
        let soon = Duration::from_millis(1);
        let waits: Vec<u128> = (0..10).map(|_| backoff.after(soon).as_millis()).collect();
        assert_eq!(waits, [0, 250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        for _ in 0..100 {
            assert_eq!(backoff.after(soon), LONGEST);
        }
        assert_eq!(backoff.after(WELL), Duration::ZERO);
        assert_eq!(backoff.after(soon), FIRST);
    }
}
