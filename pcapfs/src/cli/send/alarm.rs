//! Waits until a time, to within some microseconds. The timers of the runtime know milliseconds
//! only, so a thread waits, and wakes the task that sends.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The longest wait of the thread at once.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// A clock that begins when it is made, and wakes a task at times of its own.
///
/// All of its times are absolute, so waking up late once makes no later time late.
#[derive(Debug)]
pub(super) struct SendClock {
    start: Instant,
    alarm: Arc<SharedAlarm>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct SharedAlarm {
    state: Mutex<AlarmState>,
    rings: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
enum AlarmState {
    #[default]
    Off,
    /// It rings at this time.
    Set(Instant),
    /// Nobody waits any more.
    Over,
}

impl SendClock {
    /// Begins now.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start() -> io::Result<Self> {
        let alarm = Arc::new(SharedAlarm::default());
        let waiting = Arc::clone(&alarm);
        let thread =
            thread::Builder::new().name("alarm".to_owned()).spawn(move || waiting.run())?;
        Ok(Self { start: Instant::now(), alarm, thread })
    }

    /// The time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits until this time after the beginning. May be dropped and called again.
    pub(super) async fn wait_until(&self, due: Duration) {
        loop {
            let elapsed = self.elapsed();
            if elapsed >= due {
                return;
            }
            let wait = due.saturating_sub(elapsed).min(LONGEST_WAIT);
            *self.alarm.state.lock() = AlarmState::Set(Instant::now() + wait);
            self.thread.thread().unpark();
            // It may ring for an earlier time, so the loop looks at the clock.
            self.alarm.rings.notified().await;
        }
    }
}

impl Drop for SendClock {
    fn drop(&mut self) {
        *self.alarm.state.lock() = AlarmState::Over;
        self.thread.thread().unpark();
    }
}

impl SharedAlarm {
    fn run(&self) {
        loop {
            let state = *self.state.lock();
            match state {
                AlarmState::Over => return,
                AlarmState::Off => thread::park(),
                AlarmState::Set(at) => match at.checked_duration_since(Instant::now()) {
                    Some(wait) if !wait.is_zero() => thread::park_timeout(wait),
                    _ => self.ring(at),
                },
            }
        }
    }

    /// Rings for this time, unless another one has been set since.
    fn ring(&self, at: Instant) {
        let mut state = self.state.lock();
        if matches!(*state, AlarmState::Set(set) if set == at) {
            *state = AlarmState::Off;
            self.rings.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_never_wakes_too_early() {
        let clock = SendClock::start().unwrap();
        for due in [0, 1, 3, 3, 10, 2].map(Duration::from_millis) {
            clock.wait_until(due).await;
            assert!(clock.elapsed() >= due);
        }
        // The alarm of a dropped wait is ignored.
        let dropped = clock.wait_until(clock.elapsed() + Duration::from_secs(3_600));
        let dropped = tokio::time::timeout(Duration::ZERO, dropped).await;
        assert!(dropped.is_err());
        let due = clock.elapsed() + Duration::from_millis(5);
        clock.wait_until(due).await;
        assert!(clock.elapsed() >= due);
    }
}
