//! Unsafe code of this program: system calls that nix has no function for. The library has one
//! more, seccomp(2).
//!
//! All of it gives up rights: capabilities, descriptors. No code here reads or writes
//! memory that another process provides.
#![expect(unsafe_code, reason = "these system calls have no safe wrapper")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// First descriptor that is not standard input, output or error.
const FIRST: libc::c_uint = 3;

/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: two words of each set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// `CAP_NET_RAW` of `linux/capability.h`: packet sockets.
pub(crate) const CAP_NET_RAW: u32 = 13;

/// More capabilities than there will be: the sets have 64 bits.
const CAPABILITIES: u32 = 64;

/// Marks every descriptor except the three standard ones, so that it is closed in the next program
/// that this process becomes.
pub(crate) fn close_descriptors_on_exec() -> io::Result<()> {
    // SAFETY: it marks descriptors and closes none, so their owners can go on using them.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Removes every capability except `kept` from the bounding set, for good.
pub(crate) fn limit_bounding_set(kept: u32) -> io::Result<()> {
    for capability in (0..CAPABILITIES).filter(|capability| *capability != kept) {
        match prctl(libc::PR_CAPBSET_READ, capability, 0) {
            Ok(0) => {}
            Ok(_) => prctl(libc::PR_CAPBSET_DROP, capability, 0).map(|_| ())?,
            // After the last capability that this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes `kept` the only capability of this thread: permitted, effective, inheritable and ambient.
/// A program started by a user other than root gets the ambient ones.
pub(crate) fn keep_one_capability(kept: u32) -> io::Result<()> {
    /// `struct __user_cap_header_struct` of `linux/capability.h`.
    #[repr(C)]
    struct CapabilityHeader {
        version: u32,
        pid: libc::c_int,
    }
    /// `struct __user_cap_data_struct` of `linux/capability.h`.
    #[repr(C)]
    struct CapabilityData {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let bits = 1u64 << kept;
    let data = [bits & u64::from(u32::MAX), bits >> 32].map(|word| {
        let word = u32::try_from(word).unwrap_or(0);
        CapabilityData { effective: word, permitted: word, inheritable: word }
    });
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    // SAFETY: version 3 reads a header and two data structures, which both live here until the
    // call returns; it writes the header only if it does not know the version, and then the
    // version alone.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs(), 0)?;
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE.unsigned_abs(), kept)?;
    Ok(())
}

/// Makes the new process of `command` run `confine` between fork and exec.
pub(crate) fn before_exec(
    command: &mut Command,
    confine: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: between fork and exec, the new process must not wait for a lock that another thread
    // of the old process holds. The only other thread there can be is the watchdog's. It shares
    // with `confine` only the allocator, whose locks the C library handles at a fork: it does not
    // print and does not use the environment.
    unsafe {
        command.pre_exec(confine);
    }
}

fn prctl(option: libc::c_int, first: u32, second: u32) -> io::Result<libc::c_int> {
    let [first, second] = [first, second].map(libc::c_ulong::from);
    let none: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers and no pointers, and unused arguments are 0, as
    // prctl(2) requires.
    let result = unsafe { libc::prctl(option, first, second, none, none) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
