//! Lists directories, a page at a time.
//!
//! A *cookie* says where a listing continues. It belongs to a name, not to a place in the list: it
//! is made from the flow's id or the transaction's index. So names that come and go during a
//! listing cause no other name to be skipped or listed twice.

use std::ops::ControlFlow;

use super::dir::{FIRST_COOKIE, Node};
use super::error::TreeError;
use super::{InodeKind, Tree};

/// Cookies of `.` and `..`, which come first.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
const _: () = assert!(DOT_DOT + 1 == FIRST_COOKIE);

/// One name of a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListedName<'a> {
    pub(crate) inode: u64,
    pub(crate) kind: InodeKind,
    pub(crate) name: &'a str,
    /// The listing continues after this cookie.
    pub(crate) cookie: u64,
}

/// Takes the names of a directory one by one, for as long as it wants more.
type VisitName<'a> = &'a mut dyn FnMut(ListedName<'_>) -> ControlFlow<()>;

impl Tree {
    /// Visits the names of a directory after the one with the cookie `after`, which is 0 for all:
    /// `.` and `..`, then the others, always in the same order.
    pub(crate) fn list(
        &self,
        inode: u64,
        after: u64,
        visit: VisitName<'_>,
    ) -> Result<(), TreeError> {
        let directory = self.version(inode)?.node.directory()?;
        let provider = directory.provider();
        provider.check(self)?;
        let kind = InodeKind::Directory;
        let dot = ListedName { inode, kind, name: ".", cookie: DOT };
        if dot.cookie > after && visit(dot).is_break() {
            return Ok(());
        }
        let parent = Node::from(provider.parent());
        let inode = self.inodes.lock().listed(&parent);
        let dot_dot = ListedName { inode, kind, name: "..", cookie: DOT_DOT };
        if dot_dot.cookie > after && visit(dot_dot).is_break() {
            return Ok(());
        }
        provider.list(self, after.max(DOT_DOT), &mut |node, name, cookie| {
            // Only nodes that may have a counted inode are looked up.
            let plain = if node.begins_anew() { None } else { node.number };
            let inode = plain.unwrap_or_else(|| self.inodes.lock().listed(node));
            visit(ListedName { inode, kind: node.kind(), name, cookie })
        })
    }
}
