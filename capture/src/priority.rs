//! The order of threads where there are not enough processors.

/// Steps of nice(2) by which threads come after those that capture: on a core that all share they
/// get a third of what a capturing thread gets. Not less, since others may wait for what they hold.
const STEPS: i32 = 5;

/// Has the calling thread come after those that take packets from their sources.
pub(crate) fn come_after_capture() {
    // On Linux this is about the calling thread only. Refused, as by a filter of system calls, it
    // changes nothing.
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
