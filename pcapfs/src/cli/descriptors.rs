//! Closes descriptors that this process was started with and does not use.
#![expect(unsafe_code, reason = "close_range(2) has no safe wrapper")]

/// First descriptor that is not standard input, output or error.
const FIRST: libc::c_uint = 3;

/// Marks every descriptor except the three standard ones, so that it is closed in the next program
/// that this process becomes or starts. If the kernel cannot do that (before Linux 5.11), they stay
/// open there.
pub(super) fn close_on_exec() {
    // SAFETY: it marks descriptors and closes none, so their owners can go on using them.
    unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}
