//! What the allocator does with memory that is freed.
#![expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]

/// Bytes that are kept for what is allocated next.
const KEPT: libc::c_int = 8 << 20;

/// Bytes from which on memory is mapped for one thing, and unmapped with it.
const MAPPED: libc::c_int = 2 << 20;

/// Has the allocator keep what is freed, for a program that receives into one buffer after the
/// other: otherwise each would be given back, and be made of new pages, zeroed, the next time.
pub(super) fn keep_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers of the allocator.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}
