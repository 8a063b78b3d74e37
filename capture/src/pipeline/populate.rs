//! The thread that gives rings their pages before their writers come to them.
//!
//! A ring's file has its memory from the beginning, but each page is cleared and mapped when it is
//! touched first. A writer that does this itself needs several times as long for the first lap of a
//! large ring, and loses packets. One thread does it for all rings, segment by segment in turn, and
//! ends when nothing is left to do.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread;

use parking_lot::Mutex;

use crate::priority::come_after_capture;
use crate::ring::Ring;

/// Bytes of stack.
const STACK: usize = 64 << 10;

/// Rings that may have something left to do, and whether there is a thread.
struct Work {
    rings: VecDeque<Weak<Ring>>,
    is_running: bool,
}

static WORK: Mutex<Work> = Mutex::new(Work { rings: VecDeque::new(), is_running: false });

/// Has a ring's pages made ready, in the background.
pub(super) fn populate(ring: &Arc<Ring>) {
    let mut work = WORK.lock();
    work.rings.push_back(Arc::downgrade(ring));
    if !work.is_running {
        let thread = thread::Builder::new().name("populate".to_owned()).stack_size(STACK);
        // Without it the writer does it, which is slower.
        work.is_running = thread.spawn(run).is_ok();
    }
}

fn run() {
    come_after_capture();
    loop {
        let ring = {
            let mut work = WORK.lock();
            let Some(ring) = work.rings.pop_front() else {
                work.is_running = false;
                return;
            };
            ring
        };
        if ring.upgrade().is_some_and(|ring| ring.populate_next()) {
            WORK.lock().rings.push_back(ring);
        }
    }
}
