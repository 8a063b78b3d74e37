//! Wakes readers without making the writer wait.
//!
//! A reader that finds nothing *arms* its bell, looks once more, and sleeps. After the writer has
//! published a batch, it rings every armed bell. Either the reader's second look sees the batch, or
//! the writer sees the armed bell. Sequentially consistent fences separate the two, so no wake-up
//! is lost. A writer without waiting readers pays one load for each bell.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use parking_lot::RwLock;

/// Wakes one reader; shared between the reader and the stores that it reads.
pub struct Bell {
    armed: AtomicBool,
    ring: Box<dyn Fn() + Send + Sync>,
}

impl Bell {
    /// A bell that runs `ring` if it is armed when the writer publishes.
    ///
    /// `ring` runs on the writer's thread: it must not block, and it must not touch the store.
    pub fn new(ring: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { armed: AtomicBool::new(false), ring: Box::new(ring) })
    }

    /// From now on the next publication rings, once. Look at the store again afterwards.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Rings if armed, and disarms.
    fn strike(&self) {
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::SeqCst) {
            (self.ring)();
        }
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Bell").field("armed", &self.armed).finish_non_exhaustive()
    }
}

/// The bells of one store.
#[derive(Debug, Default)]
pub struct Bells {
    // Written when a reader of the store is set up or torn down as a whole (a mounted tree, an
    // engine), not when a file is opened; the writer's read lock is uncontended.
    bells: RwLock<Vec<Arc<Bell>>>,
}

impl Bells {
    /// Adds a bell that stays for the life of the store.
    pub fn hang(&self, bell: Arc<Bell>) {
        self.bells.write().push(bell);
    }

    /// Called by the writer after it has made something visible.
    pub fn strike(&self) {
        fence(Ordering::SeqCst);
        for bell in self.bells.read().iter() {
            bell.strike();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn rings_once_for_each_arming() {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        let bell = Bell::new(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let bells = Bells::default();
        bells.hang(Arc::clone(&bell));
        bells.strike();
        assert_eq!(count.load(Ordering::Relaxed), 0, "not armed");
        bell.arm();
        bells.strike();
        bells.strike();
        assert_eq!(count.load(Ordering::Relaxed), 1, "armed once");
    }
}
