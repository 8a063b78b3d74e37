//! The order of threads when there are not enough processors.

/// Steps of nice(2) by which other threads come after those that capture. On a shared core, such a
/// thread gets a third of a capturing thread's time. A smaller share could delay threads that wait
/// for locks it holds.
const STEPS: i32 = 5;

/// Puts the calling thread after the threads that take packets from their sources.
pub(crate) fn come_after_capture() {
    // On Linux this affects only the calling thread. If it is refused, as by a filter of system
    // calls, it changes nothing.
    let _ = rustix::process::nice(STEPS);
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn it_is_about_one_thread_only() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let lowered = thread::spawn(move || {
            come_after_capture();
            nice()
        });
        assert_eq!(lowered.join().unwrap(), (before + STEPS).min(19));
        assert_eq!(nice(), before);
    }
}
