//! Looks up names.

use std::ops::ControlFlow;
use std::time::Instant;

use capture::cursor::snapshot::Extent;
use capture::flow::{File, Stat};

use super::captures::Named;
use super::error::Error;
use super::known::{Begins, Version};
use super::node::{self, Leaf, Node, Part};
use super::{Asker, Attributes, Kind, LASTING, Tree};

impl Tree {
    /// Finds a name in a directory. Undo each success with [`Tree::forget`].
    pub(crate) fn lookup(
        &self,
        parent: u64,
        name: &str,
        asker: Asker,
    ) -> Result<Attributes, Error> {
        let parent = self.known.lock().version(parent).ok_or(Error::NotFound)?.node;
        let node = self.find(parent, name)?;
        let (begins, told) = self.beginning(node)?;
        let version = Version { node, begins };
        let (inode, version) =
            self.known.lock().look_up(asker.thread, version, told, Instant::now());
        // It is counted before its attributes are read, so that it cannot be forgotten in between.
        self.attributes_of(inode, version, asker).inspect_err(|_| self.forget(inode, 1))
    }

    /// [`Tree::lookup`] of a name that is being listed, if that costs little and the kernel may
    /// cache the result for longer than a moment.
    pub(crate) fn look_ahead(&self, parent: u64, name: &str, asker: Asker) -> Option<Attributes> {
        let is_cheap = match self.known.lock().version(parent)?.node {
            Node::Leaf(..) | Node::Flow(.., Part::Bodies) => true,
            // The sizes of the others are known only after they have been made.
            Node::Flow(.., Part::Directory) => node::flow_leaf(name) == Some(Part::Bodies),
            _ => false,
        };
        let attributes =
            if is_cheap { self.lookup(parent, name, asker).ok()? } else { return None };
        if attributes.valid < LASTING {
            self.forget(attributes.inode, 1);
            return None;
        }
        Some(attributes)
    }

    /// Undoes `count` lookups of an inode.
    pub(crate) fn forget(&self, inode: u64, count: u64) {
        if node::is_counted(inode) {
            self.known.lock().forget(inode, count);
        }
    }

    /// The node of a name in a directory. Of a flow's files, only those with variable names are
    /// checked to exist.
    fn find(&self, parent: Node, name: &str) -> Result<Node, Error> {
        if parent.kind() != Kind::Directory {
            return Err(Error::NotADirectory);
        }
        match parent {
            Node::Root => match name {
                "README" => Ok(Node::Readme),
                "status.json" => Ok(Node::RootStatus),
                _ => match self.captures.named(name).ok_or(Error::NotFound)? {
                    Named::Capture(entry) => Ok(Node::Capture(entry.id)),
                    Named::Link { index } => Ok(Node::Link(index)),
                },
            },
            Node::Capture(id) => {
                let index = node::leaf_index(name).ok_or(Error::NotFound)?;
                Ok(Node::Leaf(id, index))
            }
            Node::Flow(capture, id, Part::Directory) => {
                let part = node::flow_leaf(name).ok_or(Error::NotFound)?;
                if part.is_of_http() {
                    let flow = self.entry(capture)?.capture.flows().flow(id);
                    flow.filter(|flow| flow.has_http).ok_or(Error::NotFound)?;
                }
                Ok(Node::Flow(capture, id, part))
            }
            Node::Flow(capture, id, _) => self.find_body(capture, id, name),
            // `flows` is the only directory among the leaves.
            Node::Leaf(capture, _) => {
                let id = node::leading_number(name).ok_or(Error::NotFound)?;
                let flow = self.entry(capture)?.capture.flows().flow(id);
                flow.filter(|flow| flow.name == name).ok_or(Error::NotFound)?;
                Ok(Node::Flow(capture, id, Part::Directory))
            }
            Node::Readme | Node::RootStatus | Node::Link(_) => Err(Error::NotADirectory),
        }
    }

    /// A body by its name, which begins with the index of its transaction.
    fn find_body(&self, capture: u32, id: u64, name: &str) -> Result<Node, Error> {
        let index = node::leading_number(name).ok_or(Error::NotFound)?;
        let mut found = None;
        self.entry(capture)?.capture.flows().bodies(id, index, &mut |body| {
            if body.index == index && body.name == name {
                found = Some(File::Body { index, direction: body.direction });
            }
            if found.is_some() || body.index > index {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        Ok(Node::Flow(capture, id, Part::File(found.ok_or(Error::NotFound)?)))
    }

    /// Where a node begins now; and its attributes, if they cannot be found out any more once it
    /// begins elsewhere.
    fn beginning(&self, node: Node) -> Result<(Begins, Option<Stat>), Error> {
        match (node, node.leaf()) {
            (Node::Leaf(id, _), Some(Leaf::Replay(format))) => {
                let entry = self.entry(id)?;
                Ok((Begins::Extent(Extent::new(&**entry.capture.store(), format)), None))
            }
            (Node::Leaf(id, _), Some(Leaf::Log(log))) => {
                let stat = self.entry(id)?.capture.flows().log_stat(log, None);
                Ok((Begins::at(stat.beginning), None))
            }
            (Node::Flow(id, flow, Part::File(file)), _) if node.begins_anew() => {
                let stat = self.entry(id)?.capture.flows().stat(flow, file);
                let stat = stat.ok_or(Error::NotFound)?;
                Ok((Begins::at(stat.beginning), Some(stat)))
            }
            _ => Ok((Begins::Always, None)),
        }
    }
}
