//! Checks whether the tree answers, for systemd's watchdog.
//!
//! The check is a statfs(2), which goes through the kernel and the daemon's threads like a reader's
//! calls. It may hang, so a thread of its own makes it.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::tree;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchdogVerdict {
    /// A sign of life.
    Well,
    /// No news.
    Unknown,
    /// No answer for too long.
    Stuck,
}

/// Checks at intervals; without an interval, never.
#[derive(Debug)]
pub(crate) struct Watchdog {
    place: PathBuf,
    /// How long systemd waits for a sign of life.
    interval: Option<Duration>,
    next: Instant,
    answers: PipeReader,
    answer: Arc<PipeWriter>,
    /// The number of the check that waits for its answer, and its start.
    asked: Option<(u8, Instant)>,
    last: u8,
}

impl Watchdog {
    /// A watchdog that checks the tree at `place` four times in each interval.
    ///
    /// # Errors
    /// Errors of pipe(2).
    pub(crate) fn new(interval: Option<Duration>, place: PathBuf) -> io::Result<Self> {
        let (answers, answer) = io::pipe()?;
        Ok(Self {
            place,
            interval,
            next: Instant::now(),
            answers,
            answer: Arc::new(answer),
            asked: None,
            last: 0,
        })
    }

    /// The descriptor to wait for answers on; `None` if there are no checks.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.interval.map(|_| self.answers.as_fd())
    }

    /// How long until the next check.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.interval.map(|_| self.next.saturating_duration_since(Instant::now()))
    }

    /// Takes answers and starts the next check. A tree that is not `serving` is not checked: then
    /// the running supervisor itself is the sign of life.
    pub(crate) fn tick(&mut self, serving: bool) -> WatchdogVerdict {
        let Some(interval) = self.interval else { return WatchdogVerdict::Unknown };
        let answered = self.take_answer();
        if !serving {
            self.asked = None;
        }
        if Instant::now() < self.next {
            return if answered && serving {
                WatchdogVerdict::Well
            } else {
                WatchdogVerdict::Unknown
            };
        }
        self.next = Instant::now() + interval / 4;
        match self.asked {
            _ if !serving => WatchdogVerdict::Well,
            Some((_, since)) if since.elapsed() >= interval / 2 => {
                self.asked = None;
                WatchdogVerdict::Stuck
            }
            Some(_) => WatchdogVerdict::Unknown,
            None => {
                self.ask();
                if answered { WatchdogVerdict::Well } else { WatchdogVerdict::Unknown }
            }
        }
    }

    fn ask(&mut self) {
        self.last = self.last.wrapping_add(1);
        let (number, place, answer) = (self.last, self.place.clone(), Arc::clone(&self.answer));
        let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            if tree::answers(&place) {
                let _ = (&*answer).write_all(&[number]);
            }
        });
        // Without a thread there is no check, and systemd gets no sign of life, which is right.
        if thread.is_ok() {
            self.asked = Some((number, Instant::now()));
        }
    }

    /// Returns `true` if the answer to the last check has come; answers to earlier checks are late.
    fn take_answer(&mut self) -> bool {
        let mut fds = [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            return false;
        }
        let mut numbers = [0; 64];
        let len = self.answers.read(&mut numbers).unwrap_or(0);
        let current = self.asked.map(|(number, _)| number);
        let answered = numbers.iter().take(len).any(|number| Some(*number) == current);
        if answered {
            self.asked = None;
        }
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(watchdog: &mut Watchdog, serving: bool, wanted: WatchdogVerdict) {
        let limit = Instant::now() + Duration::from_secs(10);
        while watchdog.tick(serving) != wanted {
            assert!(Instant::now() < limit, "never {wanted:?}");
            thread::yield_now();
        }
    }

    #[test]
    fn a_tree_that_answers_is_well() {
        let interval = Some(Duration::from_millis(40));
        let mut watchdog = Watchdog::new(interval, "/".into()).unwrap();
        until(&mut watchdog, false, WatchdogVerdict::Well);
        for _ in 0..3 {
            until(&mut watchdog, true, WatchdogVerdict::Well);
        }
    }

    #[test]
    fn a_tree_that_does_not_answer_is_stuck() {
        let interval = Some(Duration::from_millis(40));
        let mut watchdog = Watchdog::new(interval, "/no/such/tree".into()).unwrap();
        until(&mut watchdog, true, WatchdogVerdict::Stuck);
        until(&mut watchdog, true, WatchdogVerdict::Stuck);
    }

    #[test]
    fn without_an_interval_nothing_is_asked() {
        let mut watchdog = Watchdog::new(None, "/".into()).unwrap();
        assert_eq!(watchdog.tick(true), WatchdogVerdict::Unknown);
        assert!(watchdog.as_fd().is_none() && watchdog.next().is_none());
    }
}
