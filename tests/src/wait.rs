//! Waits for a condition, with a limit and a name for the condition.

use std::thread;
use std::time::{Duration, Instant};

/// Checks `condition` until it holds; panics with `what` after `seconds`.
#[track_caller]
pub fn wait_until(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    wait_for(what, seconds, || condition().then_some(()));
}

/// Asks `question` until it has an answer; panics with `what` after `seconds`.
#[track_caller]
pub fn wait_for<T>(what: &str, seconds: u64, mut question: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(seconds);
    loop {
        // The time is taken before the question, so that a slow answer still gets one attempt after
        // the limit.
        let late = Instant::now() > limit;
        if let Some(answer) = question() {
            return answer;
        }
        assert!(!late, "after {seconds} s still waiting until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
