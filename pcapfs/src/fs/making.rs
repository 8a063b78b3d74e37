//! Finds out which operations must first make a content so large that no other request may wait for
//! it: the front end's pool does these. Each function returns the capture, or `None`.

use capture::flow::File;

use super::Tree;
use super::node::{self, Leaf, Node, Part};

impl Tree {
    /// For attributes or a seek: the sizes of some files are known only after they have been made.
    pub(crate) fn makes_to_look(&self, inode: u64) -> Option<u32> {
        self.makes(inode, |file| matches!(file, File::Transcript | File::HttpOpen | File::Har))
    }

    /// For an open.
    pub(crate) fn makes_to_open(&self, inode: u64) -> Option<u32> {
        self.makes(inode, |file| {
            !matches!(file, File::Meta | File::Packets | File::Client | File::Server)
        })
    }

    /// For a read of an open file: one file is made piece by piece.
    pub(crate) fn makes_to_read(&self, inode: u64) -> Option<u32> {
        self.makes(inode, |file| matches!(file, File::Transcript))
    }

    /// For a lookup of a name in a directory.
    pub(crate) fn makes_to_find(&self, parent: u64, name: &[u8]) -> Option<u32> {
        let part = node::flow_leaf(std::str::from_utf8(name).ok()?)?;
        let Part::File(file) = part else { return None };
        if !part.is_measured_by_making() {
            return None;
        }
        let node = self.known.lock().version(parent)?.node;
        match node {
            Node::Capture(capture) if file == File::HttpOpen => self.makes_open_http(capture),
            Node::Capture(capture) if file == File::Har => Some(capture),
            Node::Flow(capture, id, Part::Directory) => self.takes_long(capture, id, file),
            _ => None,
        }
    }

    fn makes(&self, inode: u64, of: impl Fn(File) -> bool) -> Option<u32> {
        let node = self.known.lock().version(inode)?.node;
        match node {
            Node::Flow(capture, id, Part::File(file)) if of(file) => {
                self.takes_long(capture, id, file)
            }
            Node::Leaf(capture, _) if node.leaf() == Some(Leaf::OpenHttp) => {
                self.makes_open_http(capture)
            }
            Node::Leaf(capture, _) if node.leaf() == Some(Leaf::Har) => Some(capture),
            _ => None,
        }
    }

    fn makes_open_http(&self, capture: u32) -> Option<u32> {
        let entry = self.captures.by_id(capture)?;
        entry.capture.flows().open_http_takes_long().then_some(capture)
    }

    fn takes_long(&self, capture: u32, id: u64, file: File) -> Option<u32> {
        let entry = self.captures.by_id(capture)?;
        entry.capture.flows().takes_long(id, file).then_some(capture)
    }
}
