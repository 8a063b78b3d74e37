//! Looks up names.

use std::time::Instant;

use capture::flow::ContentOperation;

use super::dir::{self, Node, NodeItem};
use super::error::TreeError;
use super::inodes::NodeVersion;
use super::{Asker, Attributes, LASTING, Tree};
use crate::fs::beginning::FileBeginning;

impl Tree {
    /// Finds a name in a directory. Undo each success with [`Tree::forget`].
    pub(crate) fn lookup(
        &self,
        parent: u64,
        name: &str,
        asker: Asker,
    ) -> Result<Attributes, TreeError> {
        let parent = self.version(parent)?.node.directory()?;
        let node = parent.provider().find(self, name)?;
        let (beginning, visible) = match &node.item {
            NodeItem::File(file) => file.provider().beginning(self)?,
            NodeItem::Directory(_) | NodeItem::Link(_) => (FileBeginning::Always, None),
        };
        let version = NodeVersion { node, beginning };
        let (inode, version) =
            self.inodes.lock().look_up(asker.thread, version, visible, Instant::now());
        // It is counted before its attributes are read, so that it cannot be forgotten in between.
        self.attributes_of(inode, version, asker).inspect_err(|_| self.forget(inode, 1))
    }

    /// [`Tree::lookup`] of a name that is being listed, if that costs little and the kernel may
    /// cache the result for longer than a moment.
    pub(crate) fn look_ahead(&self, parent: u64, name: &str, asker: Asker) -> Option<Attributes> {
        let directory = self.version(parent).ok()?.node.directory().ok()?;
        if !directory.provider().lists_attributes_of(name) {
            return None;
        }
        let attributes = self.lookup(parent, name, asker).ok()?;
        if attributes.valid < LASTING {
            self.forget(attributes.inode, 1);
            return None;
        }
        Some(attributes)
    }

    /// Undoes `count` lookups of an inode.
    pub(crate) fn forget(&self, inode: u64, count: u64) {
        if dir::is_counted(inode) {
            self.inodes.lock().forget(inode, count);
        }
    }

    /// The capture for which the pool must do an operation on an inode, because no other request
    /// may wait for it; `None` if it does not take long.
    pub(crate) fn long_work(&self, inode: u64, operation: ContentOperation) -> Option<u32> {
        let NodeItem::File(file) = self.version(inode).ok()?.node.item else { return None };
        let provider = file.provider();
        provider.takes_long(self, operation).then(|| provider.capture()).flatten()
    }

    /// The same for a lookup of a name in a directory: a lookup gives the size too.
    pub(crate) fn long_lookup(&self, parent: u64, name: &[u8]) -> Option<u32> {
        let directory = self.version(parent).ok()?.node.directory().ok()?;
        let file = directory.provider().file(std::str::from_utf8(name).ok()?)?;
        let provider = file.provider();
        provider.takes_long(self, ContentOperation::Look).then(|| provider.capture()).flatten()
    }

    /// The node and the beginning of an inode.
    ///
    /// # Errors
    /// If there is no such inode.
    pub(super) fn version(&self, inode: u64) -> Result<NodeVersion, TreeError> {
        // Without the lock, if the number says it.
        let node =
            Node::of(inode).map(|node| NodeVersion { node, beginning: FileBeginning::Always });
        node.or_else(|| self.inodes.lock().version(inode)).ok_or(TreeError::NotFound)
    }
}
