//! How the allocator treats freed memory.
#![expect(unsafe_code, reason = "mallopt(3), mallinfo(3) and malloc_trim(3) have no safe wrapper")]

use crate::process::ProcessStatus;

/// Bytes that are kept for later allocations.
const KEPT: libc::c_int = 8 << 20;

/// Bytes from which on an allocation gets a mapping of its own, and is unmapped when it is freed.
const MAPPED: libc::c_int = 2 << 20;

/// Lets the allocator keep freed memory, for a program that receives into one buffer after another:
/// otherwise each buffer would be given back, and be made of new, zeroed pages the next time.
pub(super) fn keep_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers of the allocator.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}

/// Bytes of memory that this process holds without use, beyond those that cannot be given back,
/// from which on it is worth giving some back.
const WORTH: u64 = 8 << 20;

/// Gives freed memory that the allocator keeps back to the kernel, for a daemon that goes on after
/// much work.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    /// Bytes that could not be given back the last time, since they lie between others in use.
    scattered: u64,
}

impl Freed {
    /// Gives free memory back, if there is much. Call it now and then.
    pub(crate) fn give_back(&mut self) {
        if free().is_some_and(|free| self.is_worth(free)) {
            trim();
            self.scattered = free().unwrap_or(0);
        }
    }

    fn is_worth(&mut self, free: u64) -> bool {
        self.scattered = self.scattered.min(free);
        free >= self.scattered + WORTH
    }
}

/// Bytes that are resident and not in use.
fn free() -> Option<u64> {
    let resident = ProcessStatus::of("self").bytes("RssAnon")?;
    Some(resident.saturating_sub(in_use()?))
}

/// Bytes that are allocated.
#[cfg(target_env = "gnu")]
fn in_use() -> Option<u64> {
    // SAFETY: reads counters of the allocator.
    let info = unsafe { libc::mallinfo2() };
    u64::try_from(info.uordblks.saturating_add(info.hblkhd)).ok()
}

#[cfg(not(target_env = "gnu"))]
fn in_use() -> Option<u64> {
    None
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: gives back pages without any allocation on them.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_given_back_is_not_tried_repeatedly() {
        let mut freed = Freed::default();
        assert!(!freed.is_worth(WORTH - 1));
        assert!(freed.is_worth(WORTH));
        freed.scattered = 2 * WORTH;
        assert!(!freed.is_worth(2 * WORTH));
        assert!(freed.is_worth(3 * WORTH));
        assert!(!freed.is_worth(WORTH / 2) && freed.is_worth(WORTH / 2 + WORTH));
        freed.give_back();
        assert!(free().is_none_or(|free| free < 1 << 40));
    }
}
