//! Requests that take long, such as opening a body that has to be decoded. A few threads of low
//! priority carry them out; users take turns, and so do captures.
//!
//! The front end must never do such work itself, since all other requests would wait for it. A
//! request that waits here is an entry in a table and holds no thread. The pool carries out one
//! request of a capture at a time, so that two requests for one body never wait for each other: the
//! second uses the result of the first. No user gets more than half of the threads, so that others
//! have the rest.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::{Condvar, Mutex};

/// Threads. More would not decode faster on typical machines, and each needs memory for two bodies.
pub(super) const THREADS: usize = 4;

/// Maximum number of requests of one user that are carried out at a time.
const PER_USER: usize = THREADS / 2;

/// Maximum number of waiting requests of one user. A program has at most one for each of its
/// threads.
const WAITING: usize = 4_096;

/// The user and capture whose turn a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Share {
    pub(super) uid: u32,
    /// Id of the capture.
    pub(super) capture: u32,
}

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PoolJob {
    /// The kernel's number for it.
    pub(super) unique: u64,
    /// The thread that waits for the reply.
    pub(super) thread: u32,
    pub(super) share: Share,
    /// The message.
    pub(super) bytes: Box<[u8]>,
}

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestState {
    /// No thread has begun it.
    Waiting,
    /// A thread is carrying it out.
    Begun,
}

/// The requests, for the threads that carry them out.
#[derive(Debug, Default)]
pub(super) struct Pool {
    queue: Mutex<PoolQueue>,
    /// Signals that there may be a request to begin, or that the pool is closed.
    changed: Condvar,
}

/// The requests that wait and those that are being carried out.
#[derive(Debug, Default)]
struct PoolQueue {
    is_closed: bool,
    users: HashMap<u32, User>,
    /// Number, thread and share of each request that is being carried out.
    begun: Vec<(u64, u32, Share)>,
    /// Counts turns, from 1.
    turns: u64,
}

/// The requests of one user.
#[derive(Debug, Default)]
struct User {
    /// Its last turn, or the number of turns when it came.
    turn: u64,
    waiting: usize,
    /// By capture; no lane is empty.
    captures: HashMap<u32, Lane>,
}

/// The requests of one user for one capture.
#[derive(Debug, Default)]
struct Lane {
    turn: u64,
    jobs: VecDeque<PoolJob>,
}

impl PoolQueue {
    /// Adds a request, unless too many of its user are waiting.
    fn add(&mut self, job: PoolJob) -> bool {
        let Share { uid, capture } = job.share;
        // A user who comes back has a turn after those who are here.
        let turn = self.turns;
        let user = self.users.entry(uid).or_insert_with(|| User { turn, ..User::default() });
        if self.is_closed || user.waiting >= WAITING {
            return false;
        }
        user.waiting += 1;
        let lane = user.captures.entry(capture).or_insert_with(|| Lane { turn, ..Lane::default() });
        lane.jobs.push_back(job);
        true
    }

    /// Takes the next request: of the users who may have one more carried out, the one whose last
    /// turn is longest ago; among that user's captures, the one whose last turn is longest ago.
    fn begin(&mut self) -> Option<PoolJob> {
        let begun = &self.begun;
        let has_room = |uid| begun.iter().filter(|(.., share)| share.uid == uid).count() < PER_USER;
        let is_free = |capture| begun.iter().all(|(.., share)| share.capture != capture);
        let users = self.users.iter().filter(|(uid, _)| has_room(**uid));
        let lanes = users.flat_map(|(uid, user)| {
            let free = user.captures.iter().filter(|(capture, _)| is_free(**capture));
            free.map(|(capture, lane)| (user.turn, lane.turn, *uid, *capture))
        });
        let (.., uid, capture) = lanes.min()?;
        self.turns += 1;
        let turn = self.turns;
        let user = self.users.get_mut(&uid)?;
        user.turn = turn;
        let lane = user.captures.get_mut(&capture)?;
        lane.turn = turn;
        let job = lane.jobs.pop_front()?;
        self.begun.push((job.unique, job.thread, job.share));
        self.left(job.share);
        Some(job)
    }

    /// Removes a request of this share from the counts of waiting ones.
    fn left(&mut self, share: Share) {
        let Some(user) = self.users.get_mut(&share.uid) else { return };
        user.waiting = user.waiting.saturating_sub(1);
        user.captures.retain(|_, lane| !lane.jobs.is_empty());
        if user.captures.is_empty() {
            self.users.remove(&share.uid);
        }
    }

    fn end(&mut self, unique: u64) {
        self.begun.retain(|(begun, ..)| *begun != unique);
    }

    /// The state of a request, and the thread that waits for its reply.
    fn find(&self, unique: u64) -> Option<(RequestState, u32)> {
        if let Some((_, thread, _)) = self.begun.iter().find(|(begun, ..)| *begun == unique) {
            return Some((RequestState::Begun, *thread));
        }
        let lanes = self.users.values().flat_map(|user| user.captures.values());
        let job = lanes.flat_map(|lane| &lane.jobs).find(|job| job.unique == unique)?;
        Some((RequestState::Waiting, job.thread))
    }

    /// Removes a request that no thread has begun.
    fn take(&mut self, unique: u64) -> Option<PoolJob> {
        let mut lanes = self.users.values_mut().flat_map(|user| user.captures.values_mut());
        let job = lanes.find_map(|lane| {
            let index = lane.jobs.iter().position(|job| job.unique == unique)?;
            lane.jobs.remove(index)
        })?;
        self.left(job.share);
        Some(job)
    }
}

impl Pool {
    /// Adds a request; `false` if too many of its user are waiting, or the pool is closed.
    pub(super) fn add(&self, job: PoolJob) -> bool {
        let is_added = self.queue.lock().add(job);
        if is_added {
            self.changed.notify_one();
        }
        is_added
    }

    /// The state of a request, and the thread that waits for its reply.
    pub(super) fn find(&self, unique: u64) -> Option<(RequestState, u32)> {
        self.queue.lock().find(unique)
    }

    /// Removes a request that no thread has begun.
    pub(super) fn take(&self, unique: u64) -> Option<PoolJob> {
        self.queue.lock().take(unique)
    }

    /// Carries out requests with `act` until the pool is closed. `broken` is called for one that
    /// panics.
    pub(super) fn work(&self, act: impl Fn(&PoolJob), broken: impl Fn(&PoolJob)) {
        loop {
            let mut queue = self.queue.lock();
            let job = loop {
                if queue.is_closed {
                    return;
                }
                match queue.begin() {
                    Some(job) => break job,
                    None => self.changed.wait(&mut queue),
                }
            };
            drop(queue);
            // All shared data is behind locks, and these are not poisoned, as for all threads here.
            if catch_unwind(AssertUnwindSafe(|| act(&job))).is_err() {
                broken(&job);
            }
            self.queue.lock().end(job.unique);
            // A request that waited for this share can now be begun, by any thread.
            self.changed.notify_all();
        }
    }

    /// Closes the pool: no request is begun any more.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        queue.users.clear();
        drop(queue);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(unique: u64, uid: u32, capture: u32) -> PoolJob {
        PoolJob { unique, thread: 7, share: Share { uid, capture }, bytes: Box::default() }
    }

    fn begin(queue: &mut PoolQueue) -> Option<u64> {
        queue.begin().map(|job| job.unique)
    }

    #[test]
    fn one_request_of_a_capture_is_done_at_a_time() {
        let mut queue = PoolQueue::default();
        for unique in 1..=3 {
            assert!(queue.add(job(unique, 1, 5)));
        }
        assert!(queue.add(job(4, 2, 6)));
        assert_eq!(
            (begin(&mut queue), begin(&mut queue), begin(&mut queue)),
            (Some(1), Some(4), None)
        );
        queue.end(1);
        assert_eq!((begin(&mut queue), begin(&mut queue)), (Some(2), None));
        queue.end(2);
        queue.end(4);
        assert_eq!(begin(&mut queue), Some(3));
        queue.end(3);
        assert_eq!(begin(&mut queue), None);
        assert!(queue.users.is_empty() && queue.begun.is_empty(), "nothing is left behind");
    }

    #[test]
    fn users_take_turns_however_much_one_wants() {
        let mut queue = PoolQueue::default();
        for unique in 0..100 {
            assert!(queue.add(job(unique, 1, 5)));
        }
        assert!(queue.add(job(200, 2, 5)));
        assert!(queue.add(job(201, 2, 5)));
        let mut order = Vec::new();
        while order.len() < 5 {
            let unique = begin(&mut queue).unwrap();
            queue.end(unique);
            order.push(unique);
        }
        assert_eq!(order.iter().filter(|unique| **unique >= 200).count(), 2, "{order:?}");
        // A user who comes again and again does not overtake one who waits.
        assert!(queue.add(job(300, 3, 5)));
        let first = begin(&mut queue).unwrap();
        queue.end(first);
        let second = begin(&mut queue).unwrap();
        queue.end(second);
        assert!(first == 300 || second == 300, "{first} {second}");
        assert!(queue.add(job(301, 3, 5)));
        assert!(begin(&mut queue).unwrap() < 100);
    }

    #[test]
    fn no_user_has_all_threads() {
        let mut queue = PoolQueue::default();
        for capture in 0..20 {
            assert!(queue.add(job(capture.into(), 1, capture)));
        }
        for _ in 0..PER_USER {
            assert!(begin(&mut queue).is_some());
        }
        assert_eq!(begin(&mut queue), None);
        assert!(queue.add(job(100, 2, 100)));
        assert_eq!(begin(&mut queue), Some(100));
    }

    #[test]
    fn waiting_jobs_can_be_found_and_removed() {
        let mut queue = PoolQueue::default();
        assert!(queue.add(job(1, 1, 5)) && queue.add(job(2, 1, 5)));
        assert_eq!(begin(&mut queue), Some(1));
        assert_eq!(queue.find(1), Some((RequestState::Begun, 7)));
        assert_eq!(queue.find(2), Some((RequestState::Waiting, 7)));
        assert_eq!((queue.take(1), queue.take(2).map(|job| job.unique)), (None, Some(2)));
        assert_eq!((queue.find(2), queue.users.len()), (None, 0));
        for unique in 0..WAITING as u64 {
            assert!(queue.add(job(unique + 10, 1, 5)));
        }
        assert!(!queue.add(job(9, 1, 5)), "too many");
        assert!(queue.add(job(9, 2, 5)), "another user");
    }

    #[test]
    fn a_request_that_panics_harms_no_other() {
        let pool = Pool::default();
        for unique in 1..=2 {
            assert!(pool.add(job(unique, 1, 5)));
        }
        let broken = Mutex::new(Vec::new());
        let act = |job: &PoolJob| {
            assert!(job.unique != 1, "as it happens");
            pool.close();
        };
        pool.work(act, |job| broken.lock().push(job.unique));
        assert_eq!(*broken.lock(), [1]);
        assert!(!pool.add(job(3, 1, 5)), "all is over");
    }
}
