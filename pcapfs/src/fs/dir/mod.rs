//! The directories of the tree, one file for each kind, and the nodes that they contain.
//!
//! The number of most inodes says which node they are. Files whose beginning moves on (`replay`,
//! `packets.pcap` and the logs) get a number of their own for each beginning, and so do nodes that
//! do not fit into a number. Those inodes are counted as the kernel looks them up and forgets them,
//! see [`super::inodes`].
//!
//! ```text
//!   1                          the root
//!   2, 3                       README, status.json of the root
//!   1 << 16 | capture id << 32 a capture's directory; plus 1 and the entry's index, what is in it
//!   1 << 17 | link index << 32 a link
//!   1 << 62 | capture id << 52 | flow id << 16
//!                              a flow's directory; plus 1 and the entry's index, what is in it;
//!                              plus 16 and twice the index from 0 of a transaction, the body of
//!                              its request, and plus 1 that of its response
//!   1 << 63 | hash             a counted inode
//! ```

mod bodies;
mod capture;
mod flow;
mod flows;
mod root;

use std::ops::ControlFlow;

use ::capture::ring::Permissions;

use super::error::TreeError;
use super::file::FileNode;
use super::link::LinkNode;
use super::{InodeKind, NodeFacts, PermissionKeeper, Tree};
use bodies::BodiesDirectory;
use capture::CaptureDirectory;
use flow::FlowDirectory;
use flows::FlowsDirectory;
use root::RootDirectory;

pub(super) use capture::name_of;
#[cfg(test)]
pub(super) use root::ROOT;

/// Takes the entries of a directory one by one, for as long as it wants more: the node, its name,
/// and the cookie after which the listing continues.
pub(super) type VisitEntry<'a> = &'a mut dyn FnMut(&Node, &str, u64) -> ControlFlow<()>;

/// The first cookie of an entry: those before it belong to `.` and `..`.
pub(super) const FIRST_COOKIE: u64 = 3;

/// A kind of directory.
///
/// A directory is a small key, such as the id of a flow. It is made anew for each request, so it
/// keeps no state. All methods may be called after the directory has left the tree.
pub(super) trait DirectoryProvider {
    /// The number of its inode, which the directory it is in must list too; `None` if it gets a
    /// counted one. Always the same for one directory.
    fn number(&self) -> Option<u64>;

    /// The directory it is in; the root is in itself.
    fn parent(&self) -> DirectoryNode;

    /// The capture whose owner, group and mode it has; `None` if it has those of the root.
    fn capture(&self) -> Option<u32>;

    /// Finds the node of a name, which must be one that [`list`](Self::list) would list now. A node
    /// that is removed in the meantime may be found too: its attributes are an error then.
    fn find(&self, tree: &Tree, name: &str) -> Result<Node, TreeError>;

    /// The file that always has this name, even if it does not exist now; `None` for a name that
    /// has to be looked up, and for a directory.
    fn file(&self, name: &str) -> Option<FileNode> {
        let _ = name;
        None
    }

    /// Visits the entries with a cookie greater than `after`, in the order of their cookies. `after`
    /// is that of `..` or of an entry. An entry keeps its cookie while other entries come and go.
    fn list(&self, tree: &Tree, after: u64, visit: VisitEntry<'_>) -> Result<(), TreeError>;

    /// Returns an error if it cannot be listed because it has left the tree.
    fn check(&self, tree: &Tree) -> Result<(), TreeError> {
        let _ = tree;
        Ok(())
    }

    /// Returns `true` if a listing may give the attributes of this name too, because they cost
    /// little.
    fn lists_attributes_of(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// Its attributes; an error if it has left the tree.
    fn facts(&self, tree: &Tree) -> Result<NodeFacts, TreeError>;

    /// Returns `true` if its attributes reveal something about the traffic. Users who may search
    /// the capture's directory but not read it do not get those.
    fn reveals_traffic(&self) -> bool {
        true
    }

    /// Changes the permissions of the capture or root that this is the directory of.
    fn change_permissions(
        &self,
        tree: &Tree,
        change: &dyn Fn(&mut Permissions),
    ) -> Result<(), TreeError> {
        let _ = (tree, change);
        Err(TreeError::Fixed)
    }

    /// Has changed permissions kept for the next process.
    fn keep_permissions(&self, tree: &Tree, keeper: &dyn PermissionKeeper) {
        let _ = (tree, keeper);
    }
}

/// A directory of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum DirectoryNode {
    Root(RootDirectory),
    Capture(CaptureDirectory),
    Flows(FlowsDirectory),
    Flow(FlowDirectory),
    Bodies(BodiesDirectory),
}

impl DirectoryNode {
    pub(super) fn provider(&self) -> &dyn DirectoryProvider {
        match self {
            Self::Root(directory) => directory,
            Self::Capture(directory) => directory,
            Self::Flows(directory) => directory,
            Self::Flow(directory) => directory,
            Self::Bodies(directory) => directory,
        }
    }

    const fn root() -> Self {
        Self::Root(RootDirectory)
    }

    const fn capture(capture: u32) -> Self {
        Self::Capture(CaptureDirectory { capture })
    }

    const fn flows(capture: u32) -> Self {
        Self::Flows(FlowsDirectory { capture })
    }

    const fn flow(capture: u32, flow: u64) -> Self {
        Self::Flow(FlowDirectory { capture, flow })
    }

    const fn bodies(capture: u32, flow: u64) -> Self {
        Self::Bodies(BodiesDirectory { capture, flow })
    }
}

/// Functions that find the node of a number, one for each directory whose entries have numbers.
const NUMBERED: [fn(u64) -> Option<Node>; 4] =
    [flow::node_of, bodies::node_of, capture::node_of, root::node_of];

/// A node of any kind: the identity of a directory, file or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NodeItem {
    Directory(DirectoryNode),
    File(FileNode),
    Link(LinkNode),
}

/// A directory, file or link of the tree, as the directory that contains it describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) item: NodeItem,
    /// The number of its inode, or of its inode at its first beginning; `None` if it does not fit
    /// into a number. Always the same for one item.
    pub(super) number: Option<u64>,
    /// The name of a file in `readers.jsonl` and in messages.
    pub(super) label: &'static str,
}

impl From<DirectoryNode> for Node {
    fn from(directory: DirectoryNode) -> Self {
        let number = directory.provider().number();
        Self { item: NodeItem::Directory(directory), number, label: "" }
    }
}

impl Node {
    /// The node of a number; `None` for a counted inode, and for a number that no inode has.
    pub(super) fn of(number: u64) -> Option<Self> {
        if is_counted(number) {
            return None;
        }
        NUMBERED.iter().find_map(|node_of| node_of(number))
    }

    /// The kind of inode it is.
    pub(super) const fn kind(&self) -> InodeKind {
        match self.item {
            NodeItem::Directory(_) => InodeKind::Directory,
            NodeItem::File(_) => InodeKind::File,
            NodeItem::Link(_) => InodeKind::Link,
        }
    }

    /// The directory.
    ///
    /// # Errors
    /// If it is a file or a link.
    pub(super) const fn directory(&self) -> Result<DirectoryNode, TreeError> {
        match self.item {
            NodeItem::Directory(directory) => Ok(directory),
            NodeItem::File(_) | NodeItem::Link(_) => Err(TreeError::NotADirectory),
        }
    }

    /// Returns `true` if its counted inode number is remembered after the kernel has forgotten it.
    pub(super) fn keeps_number(&self) -> bool {
        matches!(&self.item, NodeItem::File(file) if file.provider().keeps_number())
    }

    /// Returns `true` if it may later begin elsewhere, and be another file then.
    pub(super) fn begins_anew(&self) -> bool {
        matches!(&self.item, NodeItem::File(file) if file.provider().begins_anew())
    }
}

/// Mark of the numbers of counted inodes.
const COUNTED: u64 = 1 << 63;

/// Returns `true` if it is the number of a counted inode.
pub(super) const fn is_counted(inode: u64) -> bool {
    inode & COUNTED != 0
}

/// The number of a counted inode, made of a value that no other one has.
pub(super) const fn counted(value: u64) -> u64 {
    COUNTED | value
}

/// Bits above which the index of a capture or link would reach the marks.
const INDEX_BITS: u32 = 30;

/// The number of the `index`-th capture or link; `None` if it does not fit.
fn indexed(index: u32, mark: u64) -> Option<u64> {
    (index >> INDEX_BITS == 0).then_some(u64::from(index) << 32 | mark)
}

/// The index of a capture or link, and the rest of its number; undoes [`indexed`].
fn index_of(number: u64) -> Option<(u32, u64)> {
    let index = u32::try_from(number >> 32).ok()?;
    (index >> INDEX_BITS == 0).then_some((index, number & 0xffff_ffff))
}

/// Lists names that never change, or are few: the cookie is the place.
fn list_in_order<'a>(
    nodes: impl Iterator<Item = (&'a str, Node)>,
    after: u64,
    visit: VisitEntry<'_>,
) {
    for (cookie, (name, node)) in (FIRST_COOKIE..).zip(nodes) {
        if cookie > after && visit(&node, name, cookie).is_break() {
            return;
        }
    }
}

/// The number a name in `flows` or `bodies` begins with, up to a hyphen.
fn leading_number(name: &str) -> Option<u64> {
    let (digits, _) = name.split_once('-')?;
    // `parse` would also accept a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
