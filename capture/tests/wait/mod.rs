//! Waits for a condition, with a limit and a name for the condition.

use std::thread;
use std::time::{Duration, Instant};

/// Ends a failed test; a successful test never waits so long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Calls `is_so` until it returns true.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "still waiting until {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}
