//! Who waits for packets of captures: reads and processes in poll(2), streams of the control service.
//!
//! Each kind of waiting has its [`Waiters`]. One that finds nothing adds itself to the [`Waiting`] of
//! its capture, arms the bell, and looks once more. The bell rings on the thread that captures: it
//! sets a flag and calls `wake`, which must not block. Whoever `wake` wakes asks for those
//! [that rang](Waiters::rung).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use capture::bell::Bell;
use parking_lot::RwLock;

use crate::fs::captures::Entry;

/// What waits, for each capture for which something has waited.
pub(crate) struct Waiters<T> {
    /// By capture id.
    captures: RwLock<HashMap<u32, Arc<Waiting<T>>>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// What waits for packets of one capture.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    /// Not to keep a capture that was removed and that no process has open.
    entry: Weak<Entry>,
    bell: Arc<Bell>,
    /// The bell has rung since [`Waiters::rung`] was called last.
    rung: Arc<AtomicBool>,
    /// Those who wait.
    pub(crate) who: T,
}

impl<T: Default> Waiters<T> {
    /// Nobody waits. `wake` is called on threads that capture.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { captures: RwLock::default(), wake: Arc::new(wake) }
    }

    /// What waits for packets of this capture.
    pub(crate) fn of(&self, entry: &Arc<Entry>) -> Arc<Waiting<T>> {
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
            Arc::new(Waiting { entry, bell, rung, who: T::default() })
        });
        Arc::clone(waiting)
    }

    /// Those whose bell has rung since this was called last.
    pub(crate) fn rung(&self) -> Vec<Arc<Waiting<T>>> {
        let captures = self.captures.read();
        let rung = captures.values().filter(|one| one.rung.swap(false, Ordering::AcqRel));
        rung.cloned().collect()
    }

    /// Those of all captures.
    pub(crate) fn all(&self) -> Vec<Arc<Waiting<T>>> {
        self.captures.read().values().cloned().collect()
    }
}

impl<T> Waiting<T> {
    /// From now on the next packet rings, once. Look at the capture again after this: what came
    /// before rang no bell.
    pub(crate) fn arm(&self) {
        self.bell.arm();
    }

    /// Changes whenever one who waits might have something to read.
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
