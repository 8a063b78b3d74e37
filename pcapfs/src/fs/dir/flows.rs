//! `flows`: a directory for each flow of a capture.

use super::{
    DirectoryNode, DirectoryProvider, FIRST_COOKIE, Node, NodeItem, VisitEntry, capture,
    leading_number,
};
use crate::fs::error::TreeError;
use crate::fs::{A_MOMENT, NodeFacts, Tree};

/// The directory of all flows of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct FlowsDirectory {
    /// Id of the capture.
    pub(super) capture: u32,
}

impl DirectoryProvider for FlowsDirectory {
    fn number(&self) -> Option<u64> {
        let item = NodeItem::Directory(DirectoryNode::flows(self.capture));
        capture::number_of(self.capture, &item)
    }

    fn parent(&self) -> DirectoryNode {
        DirectoryNode::capture(self.capture)
    }

    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    fn find(&self, tree: &Tree, name: &str) -> Result<Node, TreeError> {
        let id = leading_number(name).ok_or(TreeError::NotFound)?;
        let flow = tree.entry(self.capture)?.capture.flows().flow(id);
        flow.filter(|flow| flow.name == name).ok_or(TreeError::NotFound)?;
        Ok(DirectoryNode::flow(self.capture, id).into())
    }

    fn list(&self, tree: &Tree, after: u64, visit: VisitEntry<'_>) -> Result<(), TreeError> {
        let entry = tree.entry(self.capture)?;
        entry.capture.flows().list(first_after(after), &mut |flow| {
            let node = DirectoryNode::flow(self.capture, flow.id).into();
            visit(&node, &flow.name, cookie(flow.id))
        });
        Ok(())
    }

    fn lists_attributes_of(&self, _name: &str) -> bool {
        true
    }

    fn facts(&self, tree: &Tree) -> Result<NodeFacts, TreeError> {
        let newest = tree.entry(self.capture)?.newest();
        Ok(NodeFacts { valid: A_MOMENT, ..NodeFacts::of_directory(None, newest) })
    }
}

/// Cookie of a flow; ids begin with 1.
const fn cookie(id: u64) -> u64 {
    id.saturating_add(FIRST_COOKIE - 1)
}

/// The lowest id that may come after a cookie.
const fn first_after(cookie: u64) -> u64 {
    cookie + 2 - FIRST_COOKIE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_lead_to_the_next_flow() {
        assert_eq!(first_after(FIRST_COOKIE - 1), 1, "the first one after the dots");
        for id in [1, 2, 1_000_000, 1 << 40] {
            assert!(cookie(id) >= FIRST_COOKIE);
            assert_eq!(first_after(cookie(id)), id + 1);
        }
    }
}
