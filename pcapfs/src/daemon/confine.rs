//! Rights that a daemon started by mount.pcapfs gives up itself, beyond those taken from it.
//!
//! The filter of system calls that it was started under must let it start, so that filter allows
//! starting programs. This daemon starts none.
#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use std::io;
use std::mem::offset_of;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
    seccomp_data, sock_filter,
};
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
/// Errors of seccomp(2): EACCES without no_new_privs, EINVAL on a kernel without filters.
pub(super) fn start_no_programs() -> io::Result<()> {
    let program = program();
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel only reads it, although the type is a pointer to mutable data.
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions, all of `program`, before the call returns, and
    // checks them.
    let result = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn program() -> [sock_filter; 5] {
    let statement = |code: u32, k: u32| jump(code, k, 0, 0);
    // The numbers are small, and never negative.
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let offset = u32::try_from(offset_of!(seccomp_data, nr)).unwrap_or(u32::MAX);
    let equals = BPF_JMP | BPF_JEQ | BPF_K;
    [
        statement(BPF_LD | BPF_W | BPF_ABS, offset),
        jump(equals, number(libc::SYS_execve), 2, 0),
        jump(equals, number(libc::SYS_execveat), 1, 0),
        statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
    ]
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // Codes have 16 bits.
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
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
