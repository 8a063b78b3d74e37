//! The clock of this machine. Only this module reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::ClockId;

use protocol::time::Timestamp;

/// The current time. A clock that is set before 1970 reads as the Unix epoch.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanoseconds(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which the kernel's own time stamps of some packets are in.
#[must_use]
pub(crate) fn monotonic() -> u64 {
    // It cannot fail: the clock is there on each Linux.
    let time = ClockId::CLOCK_MONOTONIC.now().unwrap_or_else(|_| TimeSpec::new(0, 0));
    let seconds = time.tv_sec().unsigned_abs();
    seconds.wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec().unsigned_abs())
}
