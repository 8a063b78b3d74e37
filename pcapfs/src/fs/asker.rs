//! Who asks for something in the tree.

use super::access::Caller;
use crate::process::Status;

/// Who asks, as the kernel says it with each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The thread, as the daemon's pid namespace numbers it; 0 from outside.
    pub(crate) thread: u32,
    /// User that its accesses to files are checked for.
    pub(crate) uid: u32,
    /// Group, likewise.
    pub(crate) gid: u32,
}

impl Asker {
    /// With its supplementary groups, which the kernel does not say: they are looked for in /proc.
    /// The thread is there for as long as it waits for its answer. Of one that is out of sight they
    /// are not known, and it has none.
    pub(super) fn caller(self) -> Caller {
        let Self { thread, uid, gid } = self;
        // Root may do everything, so its groups are not read.
        let groups = if uid == 0 || thread == 0 { Vec::new() } else { groups_of(thread) };
        Caller { uid, gid, groups }
    }
}

/// Supplementary groups of a thread.
fn groups_of(thread: u32) -> Vec<u32> {
    let status = Status::of(thread);
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
