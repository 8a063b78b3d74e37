//! Rights that a daemon started by mount.pcapfs gives up itself, beyond those taken from it.
//!
//! The filter of system calls that it was started under must let it start, so that filter allows
//! starting programs. This daemon starts none.

use std::io;

use mount_helper::seccomp::{self, call, compare, load_call, refusal, verdict};
use nix::sys::prctl::set_dumpable;

/// Keeps packets in the memory of this process out of core files, also if a program reads those
/// from a pipe and the limit of their size does not apply, and away from other processes of its
/// user.
///
/// # Errors
/// Errors of prctl(2).
pub(super) fn keep_memory() -> io::Result<()> {
    Ok(set_dumpable(false)?)
}

/// From now on, neither this thread nor any that it starts can start a program: execve(2) and
/// execveat(2) fail with EPERM.
///
/// Calls of other architectures have other numbers. The filter of mount.pcapfs, which stays in
/// force, ends a process that makes one.
///
/// # Errors
/// See [`seccomp::install`].
pub(super) fn start_no_programs() -> io::Result<()> {
    seccomp::install(&[
        load_call(),
        compare(call(libc::SYS_execve), 2, 0),
        compare(call(libc::SYS_execveat), 1, 0),
        verdict(libc::SECCOMP_RET_ALLOW),
        refusal(libc::EPERM),
    ])
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use nix::sys::prctl::set_no_new_privs;

    use super::*;

    #[test]
    fn no_program_is_started_any_more() {
        // In a thread of its own, since other threads of this process run tests.
        let error = thread::spawn(|| {
            set_no_new_privs().unwrap();
            assert!(Command::new("true").status().unwrap().success());
            start_no_programs().unwrap();
            Command::new("true").status().unwrap_err()
        });
        assert_eq!(error.join().unwrap().raw_os_error(), Some(libc::EPERM));
    }
}
