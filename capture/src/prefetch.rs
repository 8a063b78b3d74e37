//! Fetches memory into the caches of this core before it is used.
//!
//! A ring is larger than the caches, and its packets were written by another core. To wait for the
//! lines of a packet costs more than to process them, unless the wait begins early enough.
#![expect(unsafe_code, reason = "an instruction that accesses nothing")]

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Fetches `len` bytes from `start` that will be written. The address may be any.
pub(crate) fn for_writing(start: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for ahead in (0..len).step_by(LINE) {
        // SAFETY: a prefetch accesses nothing and faults on no address; processors without the
        // instruction take it for a NOP.
        unsafe {
            std::arch::asm!(
                "prefetchw [{}]",
                in(reg) start.wrapping_add(ahead),
                options(nostack, preserves_flags, readonly)
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, len);
}

/// Fetches the cache line of the byte at `offset`, which will be read. Nothing happens if `bytes` ends
/// before it.
pub(crate) fn for_reading(bytes: &[u8], offset: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = bytes.get(offset) {
        // SAFETY: a prefetch accesses nothing and faults on no address.
        unsafe {
            std::arch::asm!(
                "prefetcht0 [{}]",
                in(reg) std::ptr::from_ref(byte),
                options(nostack, preserves_flags, readonly)
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, offset);
}
