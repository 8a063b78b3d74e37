//! Counted inodes: one for each beginning of a file whose beginning moves on, and one for each node
//! that does not fit into a number.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use capture::flow::Stat;

use super::beginning::FileBeginning;
use super::dir::{self, Node, NodeItem};

/// How long a thread that looked a file up gets the same inode again, although the file now begins
/// elsewhere. cp and other programs look a file up, then open it, and give up if it is another
/// inode.
pub(super) const SAME_FILE: Duration = Duration::from_millis(10);

/// The file of an inode: of all files that its name has belonged to, the one with this beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeVersion {
    pub(super) node: Node,
    pub(super) beginning: FileBeginning,
}

/// A lookup of a file that may soon begin elsewhere.
#[derive(Debug)]
struct RecentLookup {
    when: Instant,
    /// The thread that looked it up.
    thread: u32,
    inode: u64,
    version: NodeVersion,
    /// The attributes that the thread has seen, if they cannot be found out again.
    visible: Option<Stat>,
}

/// The inodes known to the kernel whose number does not say what they are.
#[derive(Debug, Default)]
pub(super) struct Inodes {
    made: u64,
    /// Makes numbers from `made` that no user can predict.
    secret: RandomState,
    /// By inode, with its version and the number of lookups that were not forgotten.
    counted: HashMap<u64, (NodeVersion, u64)>,
    /// The current beginning of a node, and its inode.
    current: HashMap<NodeItem, (FileBeginning, u64)>,
    /// Lookups within the last [`SAME_FILE`] that were not followed by an open, oldest first.
    recent: VecDeque<RecentLookup>,
}

impl Inodes {
    /// Looks `version` up for a thread that sees the attributes `visible`, and counts the lookup.
    /// Returns the inode and its version, which may be the ones that the same thread found a moment
    /// ago.
    pub(super) fn look_up(
        &mut self,
        thread: u32,
        version: NodeVersion,
        visible: Option<Stat>,
        now: Instant,
    ) -> (u64, NodeVersion) {
        while self.recent.front().is_some_and(|one| now.duration_since(one.when) > SAME_FILE) {
            self.recent.pop_front();
        }
        let node = version.node;
        let again = self.recent.iter().find(|recent| {
            (recent.thread, recent.version.node.item) == (thread, node.item)
                && (!dir::is_counted(recent.inode) || self.counted.contains_key(&recent.inode))
        });
        let again = again.map(|recent| (recent.inode, recent.version));
        let (inode, version) = again.unwrap_or_else(|| (self.number(version), version));
        if dir::is_counted(inode) {
            self.counted.entry(inode).or_insert((version, 0)).1 += 1;
        }
        if again.is_none() && node.begins_anew() {
            self.recent.push_back(RecentLookup { when: now, thread, inode, version, visible });
        }
        (inode, version)
    }

    /// The inode of a version: the number of its node, or a counted one.
    fn number(&mut self, version: NodeVersion) -> u64 {
        let NodeVersion { node, beginning } = version;
        if beginning == FileBeginning::Always
            && let Some(number) = node.number
        {
            return number;
        }
        match self.current.get(&node.item) {
            Some((same, inode)) if *same == beginning => *inode,
            _ => {
                let inode = self.unused();
                self.current.insert(node.item, (beginning, inode));
                inode
            }
        }
    }

    /// A number that no counted inode has. Consecutive numbers would show the readers of one
    /// capture how often the rings of other captures have dropped their oldest packets.
    fn unused(&mut self) -> u64 {
        loop {
            self.made += 1;
            let inode = dir::counted(self.secret.hash_one(self.made));
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
        if !node.keeps_number()
            && self.current.get(&node.item).is_some_and(|(_, current)| *current == inode)
        {
            self.current.remove(&node.item);
        }
    }

    /// The version of a counted inode.
    pub(super) fn version(&self, inode: u64) -> Option<NodeVersion> {
        self.counted.get(&inode).map(|(version, _)| *version)
    }

    /// The number to list a node with, without a lookup.
    pub(super) fn listed(&self, node: &Node) -> u64 {
        let current = if node.begins_anew() || node.number.is_none() {
            self.current.get(&node.item).map(|(_, inode)| *inode)
        } else {
            None
        };
        current.or(node.number).unwrap_or(UNKNOWN)
    }

    /// Notes the attributes that a thread has seen in the meantime of an inode that was looked up a
    /// moment ago.
    pub(super) fn extend_visible(&mut self, inode: u64, stat: Stat) {
        for recent in self.recent.iter_mut().filter(|recent| recent.inode == inode) {
            recent.visible = Some(stat);
        }
    }

    /// The attributes that a thread has seen of an inode that was looked up a moment ago.
    pub(super) fn visible(&self, inode: u64) -> Option<Stat> {
        self.recent.iter().rev().find(|recent| recent.inode == inode)?.visible
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

    use super::*;

    fn packets() -> Node {
        file_of_flow("packets.pcap")
    }

    fn file_of_flow(name: &str) -> Node {
        let numbers = (1 << 62 | 42 << 16..).take(100);
        let mut nodes = numbers.filter_map(Node::of);
        nodes.find(|node| node.label == name).unwrap()
    }

    fn at(beginning: u64) -> NodeVersion {
        NodeVersion { node: packets(), beginning: FileBeginning::at(beginning) }
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
        let mut inodes = Inodes::default();
        let now = Instant::now();
        let (first, _) = inodes.look_up(1, at(0), None, now);
        assert_eq!(Some(first), packets().number);
        let now = later(now);
        let (second, found) = inodes.look_up(1, at(7), None, now);
        assert_ne!(first, second);
        assert_eq!((found, inodes.version(second)), (at(7), Some(at(7))));
        assert_eq!(inodes.listed(&packets()), second);
        assert_eq!(inodes.look_up(2, at(7), None, now).0, second);
        let (third, _) = inodes.look_up(3, at(9), None, now);
        assert!(third != second && third != first);
        inodes.forget(second, 1);
        assert_eq!(inodes.version(second), Some(at(7)));
        inodes.forget(second, 1);
        assert_eq!(inodes.version(second), None);
        assert_eq!(inodes.look_up(4, at(9), None, now).0, third, "that was another inode");
        inodes.forget(third, 2);
        assert!(inodes.counted.is_empty() && inodes.current.is_empty(), "nothing is left behind");
    }

    #[test]
    fn who_looked_a_moment_ago_finds_the_same_file() {
        let mut inodes = Inodes::default();
        let now = Instant::now();
        let (first, _) = inodes.look_up(1, at(0), stat(100), now);
        assert_eq!(inodes.look_up(1, at(7), stat(50), now), (first, at(0)));
        assert_ne!(inodes.look_up(2, at(7), stat(50), now).0, first);
        assert_eq!(inodes.visible(first).map(|stat| stat.size), Some(100));
        inodes.extend_visible(first, stat(120).unwrap());
        assert_eq!(inodes.visible(first).map(|stat| stat.size), Some(120));
        inodes.opened(1, first);
        let (second, _) = inodes.look_up(1, at(7), stat(50), now);
        assert_ne!(second, first, "opened: the next look is a new one");
        assert_eq!(inodes.look_up(1, at(9), stat(10), now).0, second);
        inodes.forget(second, 100);
        assert_ne!(inodes.look_up(1, at(9), stat(10), now).0, second, "forgotten");
        let now = later(now);
        inodes.look_up(9, at(9), None, now);
        assert_eq!(inodes.recent.len(), 1);
    }

    #[test]
    fn what_has_no_number_is_counted_and_what_has_one_is_not() {
        let mut inodes = Inodes::default();
        let now = Instant::now();
        let node = file_of_flow("meta.json");
        let plain = NodeVersion { node, beginning: FileBeginning::Always };
        assert_eq!(Some(inodes.look_up(1, plain, None, now).0), node.number);
        inodes.forget(node.number.unwrap(), 1);
        assert!(inodes.counted.is_empty() && inodes.recent.is_empty());
        let node = Node { number: None, ..node };
        assert_eq!(inodes.listed(&node), UNKNOWN);
        let large = NodeVersion { node, beginning: FileBeginning::Always };
        let (inode, _) = inodes.look_up(1, large, None, now);
        assert_eq!(inodes.look_up(2, large, None, now).0, inode);
        assert_eq!((inodes.version(inode), inodes.listed(&node)), (Some(large), inode));
        inodes.forget(inode, 2);
        assert!(inodes.counted.is_empty() && inodes.current.is_empty());
    }
}
