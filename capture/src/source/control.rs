//! Orders to a source that runs, from any thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

/// Orders to a running source, from any thread.
#[derive(Debug)]
pub struct SourceControl {
    stop: AtomicBool,
    pause: AtomicBool,
    clear: AtomicBool,
    /// Readable while there may be an order.
    wake: EventFd,
}

impl SourceControl {
    /// A control without orders.
    ///
    /// # Errors
    /// The errors of eventfd(2).
    pub fn new() -> io::Result<Arc<Self>> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Arc::new(Self {
            stop: AtomicBool::new(false),
            pause: AtomicBool::new(false),
            clear: AtomicBool::new(false),
            wake,
        }))
    }

    /// Orders the source to stop soon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Has the source run on without storing packets, or store them again. Only streams do that,
    /// because a stream's writer must not be held up.
    pub fn pause(&self, pause: bool) {
        self.pause.store(pause, Ordering::Release);
        self.wake();
    }

    /// For the source's thread: returns true if packets must not be stored.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.pause.load(Ordering::Acquire)
    }

    /// Has the source drop all packets that its ring retains.
    pub fn clear(&self) {
        self.clear.store(true, Ordering::Release);
        self.wake();
    }

    /// Has the source's thread look around.
    pub(super) fn wake(&self) {
        // Fails only when the counter is full, and then the descriptor is readable.
        let _ = self.wake.write(1);
    }

    /// For the source's thread: returns true if it must stop.
    #[must_use]
    pub fn must_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// For the source's thread: runs `clear` if it was ordered.
    pub fn clear_if_ordered(&self, clear: impl FnOnce()) {
        if self.clear.load(Ordering::Acquire) {
            clear();
            self.clear.store(false, Ordering::Release);
        }
    }

    /// Returns true if an order to clear has not been carried out yet.
    #[must_use]
    pub fn is_clearing(&self) -> bool {
        self.clear.load(Ordering::Acquire)
    }

    /// For the source's thread: the descriptor to poll beside the source itself.
    #[must_use]
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// For the source's thread: makes [`SourceControl::wake_fd`] unreadable again. Check for orders
    /// afterwards.
    pub fn acknowledge(&self) {
        // Fails only when it is not readable.
        let _ = self.wake.read();
    }

    /// Waits until an order has come, or `timeout` is over. Returns true after an order.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(self.wake_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        // An interrupted or failed wait only means that the caller looks too early.
        let is_ordered = matches!(poll(&mut fds, timeout), Ok(1..));
        if is_ordered {
            self.acknowledge();
        }
        is_ordered
    }

    /// For the source's thread, between two attempts: waits this long, or until it must stop. Other
    /// orders end the wait too. Returns false if it must stop.
    pub fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.must_stop() || left.is_zero() || self.wait(left) {
                return !self.must_stop();
            }
        }
    }

    /// For the source's thread: waits until `source` is readable, an order has come, or `timeout`
    /// is over.
    pub(super) fn wait_for(&self, source: BorrowedFd<'_>, timeout: PollTimeout) {
        self.wait_until_ready(source, PollFlags::POLLIN, timeout);
    }

    /// For the source's thread: waits until one of these descriptors is readable, an order has come, or
    /// `timeout` is over, which counts to the nanosecond.
    pub(super) fn wait_for_any(&self, sources: &[BorrowedFd<'_>], timeout: Duration) {
        let readable = |source| PollFd::new(source, PollFlags::POLLIN);
        let mut fds: Vec<_> = sources.iter().copied().map(readable).collect();
        fds.push(readable(self.wake_fd()));
        // An interrupted or failed wait only means that the caller looks too early.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None);
        if fds.last().is_some_and(|fd| fd.any().unwrap_or(false)) {
            self.acknowledge();
        }
    }

    /// For the source's thread: waits until `source` has one of these events, an order has come, or
    /// `timeout` is over.
    pub(super) fn wait_until_ready(
        &self,
        source: BorrowedFd<'_>,
        events: PollFlags,
        timeout: PollTimeout,
    ) {
        let mut fds = [PollFd::new(source, events), PollFd::new(self.wake_fd(), PollFlags::POLLIN)];
        // An interrupted or failed wait only means that the caller looks too early.
        let _ = poll(&mut fds, timeout);
        if fds.iter().skip(1).any(|fd| fd.any().unwrap_or(false)) {
            self.acknowledge();
        }
    }
}

/// Returns true if a read of `source` would not wait. At the end of a pipe it would not either.
pub(super) fn is_readable(source: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(source, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
