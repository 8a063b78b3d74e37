//! The clock of this machine. Only this module reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::time::Timestamp;

/// The current time. A clock that is set before 1970 reads as the Unix epoch.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanoseconds(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
