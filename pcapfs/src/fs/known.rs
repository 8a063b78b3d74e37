//! Counted inodes: one for each beginning of a file whose beginning moves on, and one for each node
//! that does not fit into a number.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use capture::cursor::snapshot::Extent;
use capture::flow::Stat;

use super::node::{self, Node};

/// How long a process that looked a file up gets the same inode again, although the file now begins
/// elsewhere. cp and other programs look a file up, then open it, and give up if it is another
/// inode.
pub(super) const SAME_FILE: Duration = Duration::from_millis(10);

/// The beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// At its only place, or the first of several: beginning 0 of [`Stat::beginning`].
    Always,
    /// A `replay`, in its store.
    Extent(Extent),
    /// Another [`Stat::beginning`].
    At(u64),
}

impl Begins {
    /// The beginning with this [`Stat::beginning`].
    pub(super) const fn at(beginning: u64) -> Self {
        match beginning {
            0 => Self::Always,
            beginning => Self::At(beginning),
        }
    }

    /// The beginning as a [`Stat::beginning`].
    pub(super) const fn beginning(self) -> u64 {
        match self {
            Self::At(beginning) => beginning,
            Self::Always | Self::Extent(_) => 0,
        }
    }
}

/// The file of an inode: of all files that its name has belonged to, the one with this beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) node: Node,
    pub(super) begins: Begins,
}

impl Version {
    /// True if a file of a flow with these attributes will not change any more.
    pub(super) fn is_final(self, stat: Stat) -> bool {
        stat.is_final && !self.node.begins_anew()
    }
}

/// A lookup of a file that may soon begin elsewhere.
#[derive(Debug)]
struct Recent {
    when: Instant,
    /// The thread that looked it up.
    thread: u32,
    inode: u64,
    version: Version,
    /// The attributes that the thread got, if they cannot be found out again.
    told: Option<Stat>,
}

/// The inodes known to the kernel whose number does not say what they are.
#[derive(Debug, Default)]
pub(super) struct Known {
    made: u64,
    /// Makes numbers from `made` that no user can predict.
    secret: RandomState,
    /// By inode, with its version and the number of lookups that were not forgotten.
    counted: HashMap<u64, (Version, u64)>,
    /// The current beginning of a node, and its inode.
    current: HashMap<Node, (Begins, u64)>,
    /// Lookups within the last [`SAME_FILE`] that were not followed by an open, oldest first.
    recent: VecDeque<Recent>,
}

impl Known {
    /// Looks `version` up for a thread that gets the attributes `told`, and counts the lookup.
    /// Returns the inode and its version, which may be the ones that the same thread found a moment
    /// ago.
    pub(super) fn look_up(
        &mut self,
        thread: u32,
        version: Version,
        told: Option<Stat>,
        now: Instant,
    ) -> (u64, Version) {
        while self.recent.front().is_some_and(|one| now.duration_since(one.when) > SAME_FILE) {
            self.recent.pop_front();
        }
        let node = version.node;
        let again = self.recent.iter().find(|recent| {
            (recent.thread, recent.version.node) == (thread, node)
                && (!node::is_counted(recent.inode) || self.counted.contains_key(&recent.inode))
        });
        let again = again.map(|recent| (recent.inode, recent.version));
        let (inode, version) = again.unwrap_or_else(|| (self.number(version), version));
        if node::is_counted(inode) {
            self.counted.entry(inode).or_insert((version, 0)).1 += 1;
        }
        if again.is_none() && node.begins_anew() {
            self.recent.push_back(Recent { when: now, thread, inode, version, told });
        }
        (inode, version)
    }

    /// The inode of a version: the number of its node, or a counted one.
    fn number(&mut self, version: Version) -> u64 {
        let Version { node, begins } = version;
        if begins == Begins::Always
            && let Some(number) = node.number()
        {
            return number;
        }
        match self.current.get(&node) {
            Some((same, inode)) if *same == begins => *inode,
            _ => {
                let inode = self.unused();
                self.current.insert(node, (begins, inode));
                inode
            }
        }
    }

    /// A number that no counted inode has. Consecutive numbers would show the readers of one
    /// capture how often the rings of other captures have dropped their oldest packets.
    fn unused(&mut self) -> u64 {
        loop {
            self.made += 1;
            let inode = node::counted(self.secret.hash_one(self.made));
            if !self.counted.contains_key(&inode) {
                return inode;
            }
        }
    }

    /// Undoes `count` lookups of an inode.
    pub(super) fn forget(&mut self, inode: u64, count: u64) {
        let Some((version, lookups)) = self.counted.get_mut(&inode) else { return };
        *lookups = lookups.saturating_sub(count);
        if *lookups > 0 {
            return;
        }
        let node = version.node;
        self.counted.remove(&inode);
        // The few files of captures keep their numbers; there are too many flows for that.
        if matches!(node, Node::Flow(..))
            && self.current.get(&node).is_some_and(|(_, current)| *current == inode)
        {
            self.current.remove(&node);
        }
    }

    /// The version of an inode.
    pub(super) fn version(&self, inode: u64) -> Option<Version> {
        match Node::of(inode) {
            Some(node) => Some(Version { node, begins: Begins::Always }),
            None => self.counted.get(&inode).map(|(version, _)| *version),
        }
    }

    /// The number to list a node with, without a lookup.
    pub(super) fn listed(&self, node: Node) -> u64 {
        let current = if node.begins_anew() || node.number().is_none() {
            self.current.get(&node).map(|(_, inode)| *inode)
        } else {
            None
        };
        current.or_else(|| node.number()).unwrap_or(UNKNOWN)
    }

    /// Notes the attributes that a thread got in the meantime for an inode that was looked up a
    /// moment ago.
    pub(super) fn tell(&mut self, inode: u64, stat: Stat) {
        for recent in self.recent.iter_mut().filter(|recent| recent.inode == inode) {
            recent.told = Some(stat);
        }
    }

    /// The attributes that a thread got for an inode that was looked up a moment ago.
    pub(super) fn told(&self, inode: u64) -> Option<Stat> {
        self.recent.iter().rev().find(|recent| recent.inode == inode)?.told
    }

    /// Notes that a thread has opened, or tried to open, the inode that it looked up.
    pub(super) fn opened(&mut self, thread: u32, inode: u64) {
        self.recent.retain(|recent| (recent.thread, recent.inode) != (thread, inode));
    }
}

/// The number in listings for a node that gets its number at its lookup (`FUSE_UNKNOWN_INO` of
/// libfuse): 0 would hide it from readdir(3).
const UNKNOWN: u64 = 0xffff_ffff;

#[cfg(test)]
mod tests {
    use capture::clock;
    use capture::flow::File;

    use super::*;
    use crate::fs::node::Part;

    const PACKETS: Node = Node::Flow(0, 42, Part::File(File::Packets));
    const META: Node = Node::Flow(0, 42, Part::File(File::Meta));

    fn at(beginning: u64) -> Version {
        Version { node: PACKETS, begins: Begins::at(beginning) }
    }

    fn stat(size: u64) -> Option<Stat> {
        let modified = clock::now();
        Some(Stat { size, present: size, modified, beginning: 0, is_final: false })
    }

    /// A time when all earlier lookups have expired.
    fn later(now: Instant) -> Instant {
        now + 2 * SAME_FILE
    }

    #[test]
    fn another_beginning_is_another_inode_and_the_same_is_the_same() {
        let mut known = Known::default();
        let now = Instant::now();
        let (first, _) = known.look_up(1, at(0), None, now);
        assert_eq!(Some(first), PACKETS.number());
        let now = later(now);
        let (second, found) = known.look_up(1, at(7), None, now);
        assert_ne!(first, second);
        assert_eq!((found, known.version(second)), (at(7), Some(at(7))));
        assert_eq!(known.listed(PACKETS), second);
        assert_eq!(known.look_up(2, at(7), None, now).0, second);
        let (third, _) = known.look_up(3, at(9), None, now);
        assert!(third != second && third != first);
        known.forget(second, 1);
        assert_eq!(known.version(second), Some(at(7)));
        known.forget(second, 1);
        assert_eq!(known.version(second), None);
        assert_eq!(known.look_up(4, at(9), None, now).0, third, "that was another inode");
        known.forget(third, 2);
        assert!(known.counted.is_empty() && known.current.is_empty(), "nothing is left behind");
    }

    #[test]
    fn who_looked_a_moment_ago_finds_the_same_file() {
        let mut known = Known::default();
        let now = Instant::now();
        let (first, _) = known.look_up(1, at(0), stat(100), now);
        assert_eq!(known.look_up(1, at(7), stat(50), now), (first, at(0)));
        assert_ne!(known.look_up(2, at(7), stat(50), now).0, first);
        assert_eq!(known.told(first).map(|told| told.size), Some(100));
        known.tell(first, stat(120).unwrap());
        assert_eq!(known.told(first).map(|told| told.size), Some(120));
        known.opened(1, first);
        let (second, _) = known.look_up(1, at(7), stat(50), now);
        assert_ne!(second, first, "opened: the next look is a new one");
        assert_eq!(known.look_up(1, at(9), stat(10), now).0, second);
        known.forget(second, 100);
        assert_ne!(known.look_up(1, at(9), stat(10), now).0, second, "forgotten");
        let now = later(now);
        known.look_up(9, at(9), None, now);
        assert_eq!(known.recent.len(), 1);
    }

    #[test]
    fn what_has_no_number_is_counted_and_what_has_one_is_not() {
        let mut known = Known::default();
        let now = Instant::now();
        let plain = Version { node: META, begins: Begins::Always };
        assert_eq!(Some(known.look_up(1, plain, None, now).0), META.number());
        assert_eq!(known.version(META.number().unwrap()), Some(plain));
        known.forget(META.number().unwrap(), 1);
        assert!(known.counted.is_empty() && known.recent.is_empty());
        let node = Node::Flow(5000, 1, Part::Directory);
        assert_eq!(known.listed(node), UNKNOWN);
        let large = Version { node, begins: Begins::Always };
        let (inode, _) = known.look_up(1, large, None, now);
        assert_eq!(known.look_up(2, large, None, now).0, inode);
        assert_eq!((known.version(inode), known.listed(node)), (Some(large), inode));
        known.forget(inode, 2);
        assert!(known.counted.is_empty() && known.current.is_empty());
    }
}
