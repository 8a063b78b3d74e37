//! The order in which threads that fill one ring have reserved their runs of records.
//!
//! Runs are filled side by side and finished in any order. They become visible in the order of their
//! reservation, so packet numbers have no holes.

use std::collections::VecDeque;

/// The number of a run, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Runs that were reserved and are not visible yet.
#[derive(Debug)]
pub(super) struct Flight<T> {
    /// The ticket of the first one of `runs`.
    first: u64,
    /// `None` for a run that is being filled.
    runs: VecDeque<Option<T>>,
}

impl<T> Flight<T> {
    pub(super) const fn new() -> Self {
        Self { first: 0, runs: VecDeque::new() }
    }

    /// Adds a run that is being filled after the others.
    pub(super) fn add(&mut self) -> Ticket {
        self.runs.push_back(None);
        Ticket(self.first + self.runs.len() as u64 - 1)
    }

    /// Marks a run as filled.
    ///
    /// # Panics
    /// If it was marked before.
    pub(super) fn finish(&mut self, Ticket(ticket): Ticket, run: T) {
        let index = ticket.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let place = index.and_then(|index| self.runs.get_mut(index));
        let place = place.filter(|place| place.is_none());
        *place.expect("a run is finished once") = Some(run);
    }

    /// Takes the first run, if it is filled.
    pub(super) fn take(&mut self) -> Option<T> {
        let run = self.runs.front_mut()?.take()?;
        self.runs.pop_front();
        self.first += 1;
        Some(run)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn runs_come_in_the_order_of_their_tickets() {
        let mut flight = Flight::new();
        let [first, second, third] = [flight.add(), flight.add(), flight.add()];
        flight.finish(second, 2);
        assert_eq!(flight.take(), None, "the first one is being filled");
        flight.finish(first, 1);
        assert_eq!([flight.take(), flight.take(), flight.take()], [Some(1), Some(2), None]);
        assert!(!flight.is_empty());
        let fourth = flight.add();
        flight.finish(fourth, 4);
        flight.finish(third, 3);
        assert_eq!([flight.take(), flight.take(), flight.take()], [Some(3), Some(4), None]);
        assert!(flight.is_empty());
    }

    #[test]
    #[should_panic(expected = "finished once")]
    fn a_run_is_not_finished_twice() {
        let mut flight = Flight::new();
        let ticket = flight.add();
        flight.finish(ticket, 1);
        flight.finish(ticket, 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    use super::*;

    /// Two runs of each of two threads.
    const RUNS: usize = 4;

    /// The bodies of runs, with the number of those that a reader may read. loom reports any access
    /// that overlaps a write.
    struct Bodies {
        runs: [UnsafeCell<usize>; RUNS],
        committed: AtomicUsize,
    }
    // SAFETY: that all access is ordered is what the test proves.
    #[expect(unsafe_code, reason = "the cells under test")]
    unsafe impl Sync for Bodies {}

    struct State {
        flight: Flight<usize>,
        reserved: usize,
        visible: usize,
    }

    /// Reserves a run, fills it, and makes all visible that may be: as `SharedWriter` does.
    fn fill_one(state: &Mutex<State>, bodies: &Bodies) {
        let (ticket, index) = {
            let mut state = state.lock().unwrap();
            state.reserved += 1;
            (state.flight.add(), state.reserved - 1)
        };
        #[expect(unsafe_code, reason = "the cells under test")]
        // SAFETY: reserved for this thread.
        bodies.runs[index].with_mut(|value| unsafe { *value = index + 1 });
        let mut state = state.lock().unwrap();
        state.flight.finish(ticket, index);
        while let Some(next) = state.flight.take() {
            assert_eq!(next, state.visible, "numbers have no holes");
            state.visible += 1;
            bodies.committed.store(state.visible, Ordering::Release);
        }
    }

    #[test]
    fn what_is_visible_was_filled_and_has_no_holes() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let state = State { flight: Flight::new(), reserved: 0, visible: 0 };
            let state = Arc::new(Mutex::new(state));
            let bodies = Arc::new(Bodies {
                runs: std::array::from_fn(|_| UnsafeCell::new(0)),
                committed: AtomicUsize::new(0),
            });
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (state, bodies) = (Arc::clone(&state), Arc::clone(&bodies));
                    thread::spawn(move || {
                        for _ in 0..RUNS / 2 {
                            fill_one(&state, &bodies);
                        }
                    })
                })
                .collect();
            let committed = bodies.committed.load(Ordering::Acquire);
            for (index, run) in bodies.runs.iter().enumerate().take(committed) {
                #[expect(unsafe_code, reason = "the cells under test")]
                // SAFETY: committed.
                run.with(|value| assert_eq!(unsafe { *value }, index + 1));
            }
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(bodies.committed.load(Ordering::Acquire), RUNS, "all are visible");
            assert!(state.lock().unwrap().flight.is_empty());
        });
    }
}
