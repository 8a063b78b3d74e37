//! The assignment of work to cores.

use std::thread;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The core that generates packets. It also runs the kernel's receiving side of a veth pair.
/// trafgen with one process chooses this core by itself.
pub(crate) const GENERATOR: usize = 0;

/// The core that captures, if there is a second one.
pub(crate) const CAPTURE: usize = 1;

/// Number of cores that this process may use.
pub(crate) fn count() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs `action` in a thread bound to one core, together with all threads and processes it starts.
/// Without that core, it runs anywhere.
pub(crate) fn on<T: Send>(core: usize, action: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(move || {
                bind(core);
                action()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Binds the calling thread to a core, if this process may use it.
pub(crate) fn bind(core: usize) {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).and_then(|set| set.is_set(core)).unwrap_or(false);
    let mut set = CpuSet::new();
    if allowed && set.set(core).is_ok() {
        sched_setaffinity(this, &set).expect("a core this process may use");
    }
}
