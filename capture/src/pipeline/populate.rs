//! The thread that gives rings their pages before their writers reach them.
//!
//! A ring's file has its memory from the beginning, but each page is cleared and mapped when it is
//! first touched. A writer that does this itself needs several times as long for the first lap of a
//! large ring, and loses packets. One thread does it for all rings, segment by segment in turn, and
//! ends when nothing is left to do.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread;

use parking_lot::{Condvar, Mutex};

use crate::priority::come_after_capture;
use crate::ring::Ring;

/// Bytes of stack.
const STACK: usize = 64 << 10;

/// Rings that may have segments left to populate.
struct Work {
    rings: VecDeque<Weak<Ring>>,
    /// The ring that the thread is working on.
    current: Weak<Ring>,
    /// Whether the thread exists.
    is_running: bool,
}

static WORK: Mutex<Work> =
    Mutex::new(Work { rings: VecDeque::new(), current: Weak::new(), is_running: false });

/// Signalled when the thread has finished a segment.
static PUT_DOWN: Condvar = Condvar::new();

/// Has a ring's pages prepared in the background.
pub(super) fn populate(ring: &Arc<Ring>) {
    let mut work = WORK.lock();
    work.rings.push_back(Arc::downgrade(ring));
    if !work.is_running {
        let thread = thread::Builder::new().name("populate".to_owned()).stack_size(STACK);
        // Without the thread the writer does it, which is slower.
        work.is_running = thread.spawn(run).is_ok();
    }
}

/// Stops work on a ring. Waits for the segment that the thread may be working on, some
/// milliseconds: until then the thread keeps the ring and its lock.
pub(super) fn leave(ring: &Arc<Ring>) {
    let mut work = WORK.lock();
    loop {
        work.rings.retain(|other| other.as_ptr() != Arc::as_ptr(ring));
        if work.current.as_ptr() != Arc::as_ptr(ring) {
            return;
        }
        PUT_DOWN.wait(&mut work);
    }
}

fn run() {
    come_after_capture();
    let mut work = WORK.lock();
    while let Some(ring) = work.rings.pop_front() {
        work.current = Weak::clone(&ring);
        drop(work);
        let has_more = ring.upgrade().is_some_and(|ring| ring.populate_next());
        work = WORK.lock();
        work.current = Weak::new();
        if has_more {
            work.rings.push_back(ring);
        }
        PUT_DOWN.notify_all();
    }
    work.is_running = false;
}
