//! Descriptors that this process was started with and does not know of.
#![expect(unsafe_code, reason = "close_range(2) has no safe wrapper")]

/// First descriptor that is not standard input, output or error.
const FIRST: libc::c_uint = 3;

/// Has every descriptor but the three standard ones end with the next program that this process
/// becomes or starts. Where the kernel cannot do that (before Linux 5.11), they stay open there.
pub(super) fn close_on_exec() {
    // SAFETY: marks descriptors, closes none: whoever owns one goes on using it.
    unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}
