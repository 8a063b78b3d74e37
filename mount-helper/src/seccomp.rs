//! Filters of system calls, seccomp(2): their instructions, and how to install them.
//!
//! `mount.pcapfs` installs one before the daemon starts, and the daemon installs another.
#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use std::io;
use std::mem::offset_of;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, seccomp_data,
    sock_filter,
};

/// Installs `program` as a filter of system calls from now on, for this thread and those that it
/// starts.
///
/// # Errors
/// Errors of seccomp(2): EACCES without no_new_privs or `CAP_SYS_ADMIN`, EINVAL on a kernel without
/// filters.
pub fn install(program: &[sock_filter]) -> io::Result<()> {
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

/// Loads the `AUDIT_ARCH_*` of the caller, see `linux/audit.h`.
#[must_use]
pub fn load_architecture() -> sock_filter {
    load(offset_of!(seccomp_data, arch))
}

/// Loads the number of the system call.
#[must_use]
pub fn load_call() -> sock_filter {
    load(offset_of!(seccomp_data, nr))
}

/// Loads the lower half of an argument: the arguments that are checked have 32 bits.
#[must_use]
pub fn load_argument(index: usize) -> sock_filter {
    let half = if cfg!(target_endian = "big") { 4 } else { 0 };
    load(offset_of!(seccomp_data, args) + index * 8 + half)
}

/// Keeps these bits of what was loaded.
#[must_use]
pub fn mask(bits: u32) -> sock_filter {
    instruction(BPF_ALU | BPF_AND | BPF_K, bits, 0, 0)
}

/// Compares what was loaded, and continues `equal` or `other` instructions after the next one.
#[must_use]
pub fn compare(value: u32, equal: u8, other: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, value, equal, other)
}

/// The number of a system call, to compare with.
#[must_use]
pub fn call(number: libc::c_long) -> u32 {
    // Calls have small numbers, which are never negative.
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Ends with an action, such as `SECCOMP_RET_ALLOW`.
#[must_use]
pub fn verdict(action: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, action, 0, 0)
}

/// Ends with an error for the caller.
#[must_use]
pub fn refusal(errno: i32) -> sock_filter {
    verdict(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

fn load(offset: usize) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, u32::try_from(offset).unwrap_or(u32::MAX), 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // Codes have 16 bits.
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}
