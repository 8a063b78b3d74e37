//! The limit of open descriptors, for processes that have one for each of many connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of this process to its maximum, and returns the limit. The usual one is for
/// programs that still use select(2), which pcapfs does not.
pub(crate) fn raise() -> u64 {
    let Ok((soft, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, most, most) {
        Ok(()) => most,
        // The usual limit is enough for usual numbers.
        Err(_) => soft,
    }
}
