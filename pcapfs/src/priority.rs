//! The order of this process's threads if there are not enough processors.
#![expect(unsafe_code, reason = "sched_setattr and setpriority have no safe wrapper")]

/// Niceness of threads that do long work.
const NICE: i32 = 19;

/// Nanoseconds for which such a thread may run at a time: the maximum that the kernel accepts.
///
/// On Linux 6.12 and later a thread that wakes up preempts one with a longer slice at once. With
/// slices of the same length it waits for the slice to end, whatever the niceness: 3 ms and a tick.
const SLICE: u64 = 100_000_000;

/// The calling thread now gets a processor only when no urgent thread wants it. If the system
/// refuses that, the thread goes on as before.
pub(crate) fn let_others_go_first() {
    let attributes = libc::sched_attr {
        // 48 bytes: SCHED_ATTR_SIZE_VER0 of linux/sched/types.h.
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0),
        sched_policy: libc::SCHED_OTHER.unsigned_abs(),
        sched_flags: 0,
        sched_nice: NICE,
        sched_priority: 0,
        sched_runtime: SLICE,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads `size` bytes, all of `attributes`, before the call returns. It
    // changes only this thread, which is thread 0 for this call, and no memory.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0_u32) };
    if result != 0 {
        // A filter of system calls may know only the older call.
        // SAFETY: changes the priority of this thread, which is process 0 for this call, and no
        // memory.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn nice() -> i32 {
        // SAFETY: reads the priority of this thread.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    /// The slice of the calling thread, as the kernel reports it.
    fn slice() -> u64 {
        // SAFETY: all zeros are a value of this type.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap();
        // SAFETY: the kernel writes at most `size` bytes, all of `attributes`.
        let result =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0_u32) };
        assert_eq!(result, 0);
        attributes.sched_runtime
    }

    #[test]
    fn it_is_about_one_thread_only() {
        let before = (nice(), slice());
        let lowered = thread::spawn(|| {
            let_others_go_first();
            (nice(), slice())
        });
        let (lowered, long) = lowered.join().unwrap();
        assert_eq!(lowered, NICE);
        // Kernels before 6.12 report no slices.
        assert!(long == SLICE || before.1 == 0, "{long}");
        assert_eq!((nice(), slice()), before);
    }
}
