//! Answers to stat(2).

use std::time::Duration;

use capture::ring::Permissions;

use super::access::PermissionBit;
use super::dir::NodeItem;
use super::error::TreeError;
use super::file::FileRequest;
use super::inodes::NodeVersion;
use super::{Asker, Attributes, NodeFacts, Tree};

impl Tree {
    /// The attributes for this asker, whose process can then read up to the size it was given.
    pub(crate) fn attributes(&self, inode: u64, asker: Asker) -> Result<Attributes, TreeError> {
        self.attributes_of(inode, self.version(inode)?, asker)
    }

    /// The same for an open file, whose content may differ from later openings.
    pub(crate) fn attributes_of_opening(
        &self,
        handle: u64,
        inode: u64,
        asker: Asker,
    ) -> Result<Attributes, TreeError> {
        let attributes = self.attributes(inode, asker)?;
        let file = self.file(handle).filter(|file| file.inode == inode);
        Ok(match file.and_then(|file| file.rendered()) {
            // The kernel has one set of attributes for all openings, so it must ask for each.
            Some((size, modified)) if size != attributes.size => {
                Attributes { size, present: size, modified, valid: Duration::ZERO, ..attributes }
            }
            _ => attributes,
        })
    }

    /// The same for an inode whose version is known. A user who may search a capture's directory
    /// but not read it learns nothing about its packets.
    pub(super) fn attributes_of(
        &self,
        inode: u64,
        version: NodeVersion,
        asker: Asker,
    ) -> Result<Attributes, TreeError> {
        let NodeVersion { node, beginning } = version;
        let request = FileRequest { tree: self, inode, beginning, asker };
        let (facts, capture, reveals_traffic) = match &node.item {
            NodeItem::Directory(directory) => {
                let provider = directory.provider();
                (provider.facts(self)?, provider.capture(), provider.reveals_traffic())
            }
            NodeItem::File(file) => {
                let provider = file.provider();
                (provider.facts(&request)?, provider.capture(), true)
            }
            NodeItem::Link(link) => (link.facts(self)?, link.capture(), true),
        };
        let entry = capture.map(|capture| self.entry(capture)).transpose()?;
        let permissions =
            entry.as_ref().map_or_else(|| self.permissions(), |entry| entry.permissions());
        let NodeFacts { size, present, links, modified, valid } = facts;
        let attributes = Attributes {
            inode,
            kind: node.kind(),
            mode: match &node.item {
                NodeItem::Directory(_) => permissions.mode,
                NodeItem::File(file) => file.provider().mode(permissions.mode),
                NodeItem::Link(_) => 0o777,
            },
            links,
            uid: permissions.uid,
            gid: permissions.gid,
            size,
            present,
            modified,
            valid,
        };
        let Some(entry) = entry.filter(|_| reveals_traffic && permits_search_only(permissions))
        else {
            return Ok(attributes);
        };
        // The kernel has one set of attributes for all users, so it must ask for each.
        let attributes = Attributes { valid: Duration::ZERO, ..attributes };
        if asker.caller().may(permissions, &[PermissionBit::Read]) {
            return Ok(attributes);
        }
        Ok(Attributes { size: 0, present: 0, modified: entry.capture.started(), ..attributes })
    }
}

/// Returns `true` if there may be users who can search the directory but not read it.
fn permits_search_only(permissions: Permissions) -> bool {
    [6, 3, 0].into_iter().any(|shift| permissions.mode >> shift & 0o5 == 0o1)
}
