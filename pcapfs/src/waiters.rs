//! Waits for packets of captures: reads, processes in poll(2), and streams of the control service.
//!
//! Each kind of waiting has its [`Waiters`]. A reader that finds no packets adds itself to the
//! [`WaitingReaders`] of its capture, arms the bell, and looks once more. The bell rings on the
//! thread that captures: it sets a flag and calls `wake`, which must not block. The thread that
//! `wake` wakes asks for the captures [that rang](Waiters::rung).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use capture::bell::Bell;
use parking_lot::RwLock;

use crate::fs::captures::CaptureEntry;

/// The readers that wait, for each capture that a reader has waited for.
pub(crate) struct Waiters<T> {
    /// By capture id.
    captures: RwLock<HashMap<u32, Arc<WaitingReaders<T>>>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// The readers that wait for packets of one capture.
#[derive(Debug)]
pub(crate) struct WaitingReaders<T> {
    /// Weak, so that a removed capture without open files is dropped.
    entry: Weak<CaptureEntry>,
    bell: Arc<Bell>,
    /// True if the bell has rung since the last call of [`Waiters::rung`].
    rung: Arc<AtomicBool>,
    /// The readers that wait.
    pub(crate) who: T,
}

impl<T: Default> Waiters<T> {
    /// An empty table. `wake` is called on threads that capture.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { captures: RwLock::default(), wake: Arc::new(wake) }
    }

    /// The readers that wait for packets of this capture.
    pub(crate) fn of(&self, entry: &Arc<CaptureEntry>) -> Arc<WaitingReaders<T>> {
        if let Some(waiting) = self.captures.read().get(&entry.id) {
            return Arc::clone(waiting);
        }
        let mut captures = self.captures.write();
        captures.retain(|_, waiting| waiting.entry.strong_count() > 0);
        let waiting = captures.entry(entry.id).or_insert_with(|| {
            let rung = Arc::new(AtomicBool::new(false));
            let (flag, wake) = (Arc::clone(&rung), Arc::clone(&self.wake));
            let bell = Bell::new(move || {
                flag.store(true, Ordering::Release);
                wake();
            });
            entry.capture.store().bells().hang(Arc::clone(&bell));
            let entry = Arc::downgrade(entry);
            Arc::new(WaitingReaders { entry, bell, rung, who: T::default() })
        });
        Arc::clone(waiting)
    }

    /// The captures whose bell has rung since the last call.
    pub(crate) fn rung(&self) -> Vec<Arc<WaitingReaders<T>>> {
        let captures = self.captures.read();
        let rung = captures.values().filter(|one| one.rung.swap(false, Ordering::AcqRel));
        rung.cloned().collect()
    }

    /// The entries of all captures.
    pub(crate) fn all(&self) -> Vec<Arc<WaitingReaders<T>>> {
        self.captures.read().values().cloned().collect()
    }
}

impl<T> WaitingReaders<T> {
    /// The next packet rings the bell, once. Check the capture again after this: packets that came
    /// before rang no bell.
    pub(crate) fn arm(&self) {
        self.bell.arm();
    }

    /// A value that changes whenever a waiting reader might have packets to read.
    pub(crate) fn progress(&self) -> (u64, bool, bool) {
        let Some(entry) = self.entry.upgrade() else { return (0, true, true) };
        let store = entry.capture.store();
        let bounds = store.bounds();
        (bounds.next.number, bounds.ended, store.header().is_some())
    }
}

impl<T: fmt::Debug> fmt::Debug for Waiters<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Waiters").field("captures", &self.captures).finish_non_exhaustive()
    }
}
