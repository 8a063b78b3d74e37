//! Runs many operations that wait for the kernel at the same time.
//!
//! Opening and closing a packet socket waits until every processor has passed a quiescent state,
//! and zeroes 22 MiB of buffer: this blocks a thread for tens of milliseconds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

/// The maximum number of threads: with more, they would only wait for the kernel's own locks.
const THREADS: usize = 8;

/// The results of `work` on each of `items`, in their order. One item needs no thread.
pub(super) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let take_turns = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(item), Some(result)) = (items.get(index), results.get(index)) else { return };
            *result.lock() = Some(work(item));
        }
    };
    thread::scope(|scope| {
        for _ in 1..THREADS.min(items.len()) {
            let builder = thread::Builder::new().name("start-stop".to_owned());
            // Without another thread, this one does it all.
            if builder.spawn_scoped(scope, take_turns).is_err() {
                break;
            }
        }
        take_turns();
    });
    // A panic of one has gone on from the scope: none is missing.
    results.into_iter().filter_map(Mutex::into_inner).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_are_in_order_and_at_once() {
        let together = Barrier::new(THREADS);
        let items: Vec<usize> = (0..THREADS).collect();
        let doubled = map(&items, |item| {
            // Passed only when all are under way.
            together.wait();
            item * 2
        });
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        assert_eq!(map(&[7_usize; 100], |item| item + 1), [8; 100]);
        assert!(map(&[] as &[u8], |item| *item).is_empty());
    }
}
