//! The user and thread that ask for an operation in the tree.

use super::access::Caller;
use crate::process::ProcessStatus;

/// The asker of a request, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The thread, as numbered in the daemon's pid namespace; 0 if it is outside.
    pub(crate) thread: u32,
    /// User that its accesses to files are checked for.
    pub(crate) uid: u32,
    /// Group that its accesses to files are checked for.
    pub(crate) gid: u32,
}

impl Asker {
    /// The asker with its supplementary groups. The kernel does not report them, so they are read
    /// from /proc. The thread exists while it waits for its answer. If it is not visible there, its
    /// groups are not known, and it gets none.
    pub(super) fn caller(self) -> Caller {
        let Self { thread, uid, gid } = self;
        // Root may do everything, so its groups are not read.
        let groups = if uid == 0 || thread == 0 { Vec::new() } else { groups_of(thread) };
        Caller { uid, gid, groups }
    }
}

/// Supplementary groups of a thread.
fn groups_of(thread: u32) -> Vec<u32> {
    let status = ProcessStatus::of(thread);
    status
        .field("Groups")
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|group| group.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use nix::unistd::{getegid, geteuid, getgroups, gettid};

    use super::*;

    #[test]
    fn groups_are_found() {
        let thread = u32::try_from(gettid().as_raw()).unwrap();
        let groups: Vec<u32> = getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(groups_of(thread), groups);
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        assert_eq!(Asker { thread: 0, uid, gid }.caller().groups, [0; 0]);
        assert_eq!(groups_of(1 << 30), [0; 0]);
    }
}
