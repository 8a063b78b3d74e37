//! The directory of a capture.

use std::sync::LazyLock;

use ::capture::cursor::{Begin, SavefileFormat};
use ::capture::flow::{Application, Log};
use ::capture::ring::Permissions;

use super::{
    DirectoryNode, DirectoryProvider, Node, NodeItem, VisitEntry, index_of, indexed, list_in_order,
};
use crate::fs::error::TreeError;
use crate::fs::file::FileNode;
use crate::fs::{A_MOMENT, InodeKind, NodeFacts, PermissionKeeper, Tree};

/// Mark of the number of a capture's directory.
const CAPTURE: u64 = 1 << 16;

/// Makes the entry of a capture.
type MakeEntry = Box<dyn Fn(u32) -> NodeItem + Send + Sync>;

/// The same for an entry that is always there.
type MakeFixed = fn(capture: u32) -> NodeItem;

/// The entries other than lines of protocols. Not every capture has all of them.
const OTHERS: [(&str, MakeFixed); 14] = [
    ("ctl", |capture| NodeItem::File(FileNode::control(capture))),
    ("flows", |capture| NodeItem::Directory(DirectoryNode::flows(capture))),
    ("flows.jsonl", |capture| NodeItem::File(FileNode::log(capture, Log::Flows))),
    ("follow.pcap", |capture| stream(capture, Begin::Oldest, SavefileFormat::Pcap)),
    ("follow.pcapng", |capture| stream(capture, Begin::Oldest, SavefileFormat::Pcapng)),
    ("http-open.jsonl", |capture| NodeItem::File(FileNode::open_http(capture))),
    ("http.har", |capture| NodeItem::File(FileNode::har(capture))),
    ("inject.pcap", |capture| NodeItem::File(FileNode::inject(capture))),
    ("live.pcap", |capture| stream(capture, Begin::Next, SavefileFormat::Pcap)),
    ("live.pcapng", |capture| stream(capture, Begin::Next, SavefileFormat::Pcapng)),
    ("readers.jsonl", |capture| NodeItem::File(FileNode::readers(capture))),
    ("replay.pcap", |capture| NodeItem::File(FileNode::replay(capture, SavefileFormat::Pcap))),
    ("replay.pcapng", |capture| NodeItem::File(FileNode::replay(capture, SavefileFormat::Pcapng))),
    ("status.json", |capture| NodeItem::File(FileNode::status(capture))),
];

/// All entries, sorted by name as they are listed. The index of an entry is part of its number.
static ENTRIES: LazyLock<Vec<(&str, MakeEntry)>> = LazyLock::new(|| {
    let lines = Application::with_lines().map(|(application, name)| -> (_, MakeEntry) {
        let log = Log::Lines(application);
        (name, Box::new(move |capture| NodeItem::File(FileNode::log(capture, log))))
    });
    let others = OTHERS.map(|(name, make)| -> (_, MakeEntry) { (name, Box::new(make)) });
    let mut entries: Vec<_> = others.into_iter().chain(lines).collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
});

fn stream(capture: u32, begin: Begin, format: SavefileFormat) -> NodeItem {
    NodeItem::File(FileNode::stream(capture, begin, format))
}

/// The directory of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct CaptureDirectory {
    /// Id of the capture.
    pub(super) capture: u32,
}

/// The node of the number of a capture's directory, or of an entry in it.
pub(super) fn node_of(number: u64) -> Option<Node> {
    let (capture, low) = index_of(number)?;
    let directory = CaptureDirectory { capture };
    match low.checked_sub(CAPTURE)? {
        0 => Some(DirectoryNode::Capture(directory).into()),
        number => {
            let index = usize::try_from(number - 1).ok()?;
            ENTRIES.get(index).map(|(name, make)| directory.entry(index, name, make))
        }
    }
}

/// The number of an entry of a capture's directory, for directories in it.
pub(super) fn number_of(capture: u32, item: &NodeItem) -> Option<u64> {
    let index = ENTRIES.iter().position(|(_, make)| make(capture) == *item)?;
    CaptureDirectory { capture }.number_of(index)
}

/// The name of a file of a capture's directory.
pub(in crate::fs) fn name_of(capture: u32, file: FileNode) -> Option<&'static str> {
    let file = NodeItem::File(file);
    ENTRIES.iter().find(|(_, make)| make(capture) == file).map(|(name, _)| *name)
}

impl CaptureDirectory {
    fn number_of(self, index: usize) -> Option<u64> {
        indexed(self.capture, CAPTURE + 1 + index as u64)
    }

    fn entry(self, index: usize, label: &'static str, make: &MakeEntry) -> Node {
        Node { item: make(self.capture), number: self.number_of(index), label }
    }

    /// Returns `true` if the capture has this entry.
    fn has(tree: &Tree, node: &Node) -> bool {
        match &node.item {
            NodeItem::File(file) => file.exists(tree),
            NodeItem::Directory(_) | NodeItem::Link(_) => true,
        }
    }

    fn entries(self) -> impl Iterator<Item = (&'static str, Node)> {
        let entries = ENTRIES.iter().enumerate();
        entries.map(move |(index, (name, make))| (*name, self.entry(index, name, make)))
    }
}

impl DirectoryProvider for CaptureDirectory {
    fn number(&self) -> Option<u64> {
        indexed(self.capture, CAPTURE)
    }

    fn parent(&self) -> DirectoryNode {
        DirectoryNode::root()
    }

    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    fn find(&self, tree: &Tree, name: &str) -> Result<Node, TreeError> {
        let index =
            ENTRIES.iter().position(|(known, _)| *known == name).ok_or(TreeError::NotFound)?;
        let (label, make) = ENTRIES.get(index).ok_or(TreeError::NotFound)?;
        let node = self.entry(index, label, make);
        if Self::has(tree, &node) { Ok(node) } else { Err(TreeError::NotFound) }
    }

    fn file(&self, name: &str) -> Option<FileNode> {
        let (_, make) = ENTRIES.iter().find(|(known, _)| *known == name)?;
        match make(self.capture) {
            NodeItem::File(file) => Some(file),
            NodeItem::Directory(_) | NodeItem::Link(_) => None,
        }
    }

    fn list(&self, tree: &Tree, after: u64, visit: VisitEntry<'_>) -> Result<(), TreeError> {
        list_in_order(self.entries().filter(|(_, node)| Self::has(tree, node)), after, visit);
        Ok(())
    }

    fn facts(&self, tree: &Tree) -> Result<NodeFacts, TreeError> {
        // All users see the time, also those who may not know when packets come.
        let started = tree.entry(self.capture)?.capture.started();
        let directories = self.entries().filter(|(_, node)| node.kind() == InodeKind::Directory);
        let directories = u32::try_from(directories.count()).ok();
        Ok(NodeFacts { valid: A_MOMENT, ..NodeFacts::of_directory(directories, started) })
    }

    fn reveals_traffic(&self) -> bool {
        false
    }

    fn change_permissions(
        &self,
        tree: &Tree,
        change: &dyn Fn(&mut Permissions),
    ) -> Result<(), TreeError> {
        tree.entry(self.capture)?.change_permissions(change);
        Ok(())
    }

    fn keep_permissions(&self, tree: &Tree, keeper: &dyn PermissionKeeper) {
        if let Some(entry) = tree.captures.by_id(self.capture) {
            keeper.keep(Some(&entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_sorted() {
        assert!(ENTRIES.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn a_file_knows_its_name() {
        for (name, make) in ENTRIES.iter() {
            if let NodeItem::File(file) = make(7) {
                assert_eq!((name_of(7, file), name_of(8, file)), (Some(*name), None));
            }
        }
    }
}
