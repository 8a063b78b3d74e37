//! The root: the captures, links to them, and two files about the tree itself.

use ::capture::ring::Permissions;

use super::{
    DirectoryNode, DirectoryProvider, Node, NodeItem, VisitEntry, index_of, indexed, list_in_order,
};
use crate::fs::captures::RootName;
use crate::fs::error::TreeError;
use crate::fs::file::{FileNode, RenderedFile};
use crate::fs::link::LinkNode;
use crate::fs::{A_MOMENT, NodeFacts, PermissionKeeper, Tree};

/// The number of the root (`FUSE_ROOT_ID` of linux/fuse.h).
pub(in crate::fs) const ROOT: u64 = 1;

/// Mark of the number of a link.
const LINK: u64 = 1 << 17;

/// The files, in the order of listings, and their numbers.
const FILES: [(&str, FileNode, u64); 2] = [
    ("README", FileNode::Rendered(RenderedFile::Readme), 2),
    ("status.json", FileNode::Rendered(RenderedFile::DaemonStatus), 3),
];

/// The root of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct RootDirectory;

/// The node of the root's number, or of one of a file or link in it.
pub(super) fn node_of(number: u64) -> Option<Node> {
    if number == ROOT {
        return Some(DirectoryNode::root().into());
    }
    let (index, mark) = index_of(number)?;
    let file = FILES.iter().find(|(.., known)| *known == number);
    file.map(node_of_file).or_else(|| (mark == LINK).then(|| node_of_link(index)))
}

fn node_of_file((label, file, number): &(&'static str, FileNode, u64)) -> Node {
    Node { item: NodeItem::File(*file), number: Some(*number), label }
}

fn node_of_link(index: u32) -> Node {
    let number = indexed(index, LINK);
    Node { item: NodeItem::Link(LinkNode::Alias { index }), number, label: "" }
}

fn node_of_name(named: &RootName) -> Node {
    match named {
        RootName::Capture(entry) => DirectoryNode::capture(entry.id).into(),
        RootName::Link { index } => node_of_link(*index),
    }
}

impl DirectoryProvider for RootDirectory {
    fn number(&self) -> Option<u64> {
        Some(ROOT)
    }

    fn parent(&self) -> DirectoryNode {
        DirectoryNode::root()
    }

    fn capture(&self) -> Option<u32> {
        None
    }

    fn find(&self, tree: &Tree, name: &str) -> Result<Node, TreeError> {
        let file = FILES.iter().find(|(known, ..)| *known == name).map(node_of_file);
        let found = file.or_else(|| tree.captures.named(name).as_ref().map(node_of_name));
        found.ok_or(TreeError::NotFound)
    }

    fn list(&self, tree: &Tree, after: u64, visit: VisitEntry<'_>) -> Result<(), TreeError> {
        let named = tree.captures.names();
        let files = FILES.iter().map(|file| (file.0, node_of_file(file)));
        let named = named.iter().map(|(name, named)| (name.as_str(), node_of_name(named)));
        list_in_order(files.chain(named), after, visit);
        Ok(())
    }

    fn facts(&self, tree: &Tree) -> Result<NodeFacts, TreeError> {
        let directories = u32::try_from(tree.captures.all().len()).unwrap_or(u32::MAX);
        let facts = NodeFacts::of_directory(Some(directories), tree.started);
        Ok(NodeFacts { valid: A_MOMENT, ..facts })
    }

    fn reveals_traffic(&self) -> bool {
        false
    }

    fn change_permissions(
        &self,
        tree: &Tree,
        change: &dyn Fn(&mut Permissions),
    ) -> Result<(), TreeError> {
        change(&mut tree.permissions.lock());
        Ok(())
    }

    fn keep_permissions(&self, _tree: &Tree, keeper: &dyn PermissionKeeper) {
        keeper.keep(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::captures::RESERVED;

    #[test]
    fn no_capture_can_have_the_name_of_a_file() {
        assert_eq!(FILES.map(|(name, ..)| name), RESERVED);
    }
}
