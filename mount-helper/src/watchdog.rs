//! Asking the tree whether it answers, for a systemd that wants to know.
//!
//! The question is a statfs(2), which goes through the kernel and the daemon's threads like that of
//! any reader. It may hang, so a thread of its own asks it.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::tree;

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A sign of life.
    Well,
    /// Nothing new.
    Unknown,
    /// No answer for too long.
    Stuck,
}

/// Asks at intervals; without an interval, never.
#[derive(Debug)]
pub(crate) struct Watchdog {
    place: PathBuf,
    /// How long systemd waits for a sign of life.
    interval: Option<Duration>,
    next: Instant,
    answers: PipeReader,
    answer: Arc<PipeWriter>,
    /// The question that waits for an answer, and since when.
    asked: Option<(u8, Instant)>,
    last: u8,
}

impl Watchdog {
    /// Asks the tree at `place` four times in each interval.
    ///
    /// # Errors
    /// Those of pipe(2).
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

    /// To wait for answers; `None` if none are asked for.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.interval.map(|_| self.answers.as_fd())
    }

    /// How long until the next question.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.interval.map(|_| self.next.saturating_duration_since(Instant::now()))
    }

    /// Takes answers and asks again. A tree that is not `serving` is not asked: a supervisor that
    /// is here to say so is the sign of life.
    pub(crate) fn tick(&mut self, serving: bool) -> Verdict {
        let Some(interval) = self.interval else { return Verdict::Unknown };
        let answered = self.take_answer();
        if !serving {
            self.asked = None;
        }
        if Instant::now() < self.next {
            return if answered && serving { Verdict::Well } else { Verdict::Unknown };
        }
        self.next = Instant::now() + interval / 4;
        match self.asked {
            _ if !serving => Verdict::Well,
            Some((_, since)) if since.elapsed() >= interval / 2 => {
                self.asked = None;
                Verdict::Stuck
            }
            Some(_) => Verdict::Unknown,
            None => {
                self.ask();
                if answered { Verdict::Well } else { Verdict::Unknown }
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
        // Without a thread nothing is asked, and systemd hears nothing, as it should.
        if thread.is_ok() {
            self.asked = Some((number, Instant::now()));
        }
    }

    /// Whether the answer to the last question has come; those to earlier ones are late.
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

    fn until(watchdog: &mut Watchdog, serving: bool, wanted: Verdict) {
        let limit = Instant::now() + Duration::from_secs(10);
        while watchdog.tick(serving) != wanted {
            assert!(Instant::now() < limit, "never {wanted:?}");
            thread::yield_now();
        }
    }

    #[test]
    fn what_answers_is_well() {
        let interval = Some(Duration::from_millis(40));
        let mut watchdog = Watchdog::new(interval, "/".into()).unwrap();
        until(&mut watchdog, false, Verdict::Well);
        for _ in 0..3 {
            until(&mut watchdog, true, Verdict::Well);
        }
    }

    #[test]
    fn what_does_not_answer_is_stuck() {
        let interval = Some(Duration::from_millis(40));
        let mut watchdog = Watchdog::new(interval, "/no/such/tree".into()).unwrap();
        until(&mut watchdog, true, Verdict::Stuck);
        until(&mut watchdog, true, Verdict::Stuck);
    }

    #[test]
    fn nobody_asks_without_an_interval() {
        let mut watchdog = Watchdog::new(None, "/".into()).unwrap();
        assert_eq!(watchdog.tick(true), Verdict::Unknown);
        assert!(watchdog.as_fd().is_none() && watchdog.next().is_none());
    }
}
