//! `bodies` of a flow: the bodies of its HTTP transactions.

use std::ops::ControlFlow;

use ::capture::flow::{Application, File};
use protocol::http::direction::MessageRole;

use super::flow::{FIRST_BODY, FlowDirectory, number_of_bodies, number_of_part, part_of};
use super::{
    DirectoryNode, DirectoryProvider, FIRST_COOKIE, Node, NodeItem, VisitEntry, leading_number,
};
use crate::fs::error::TreeError;
use crate::fs::file::FileNode;
use crate::fs::{LASTING, NodeFacts, Tree};

/// The directory of the bodies of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct BodiesDirectory {
    /// Id of the capture.
    pub(super) capture: u32,
    /// Id of the flow.
    pub(super) flow: u64,
}

/// The node of the number of a body.
pub(super) fn node_of(number: u64) -> Option<Node> {
    let (FlowDirectory { capture, flow }, part) = part_of(number)?;
    let body = part.checked_sub(FIRST_BODY)?;
    let direction = if body % 2 == 0 { MessageRole::Request } else { MessageRole::Response };
    Some(BodiesDirectory { capture, flow }.body(body / 2 + 1, direction))
}

/// The part of its flow that a body is.
fn part(index: u64, direction: MessageRole) -> Option<u64> {
    let response = u64::from(direction == MessageRole::Response);
    index.checked_sub(1)?.checked_mul(2)?.checked_add(FIRST_BODY + response)
}

impl BodiesDirectory {
    /// A body of the transaction with this index.
    fn body(self, index: u64, direction: MessageRole) -> Node {
        let Self { capture, flow } = self;
        let file = FileNode::of_flow(capture, flow, File::Body { index, direction });
        let number = part(index, direction).and_then(|part| number_of_part(capture, flow, part));
        Node { item: NodeItem::File(file), number, label: "a body" }
    }
}

impl DirectoryProvider for BodiesDirectory {
    fn number(&self) -> Option<u64> {
        number_of_bodies(self.capture, self.flow)
    }

    fn parent(&self) -> DirectoryNode {
        DirectoryNode::flow(self.capture, self.flow)
    }

    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    /// The name begins with the index of the transaction.
    fn find(&self, tree: &Tree, name: &str) -> Result<Node, TreeError> {
        let index = leading_number(name).ok_or(TreeError::NotFound)?;
        let mut found = None;
        tree.entry(self.capture)?.capture.flows().bodies(self.flow, index, &mut |body| {
            if body.index == index && body.name == name {
                found = Some(self.body(index, body.direction));
            }
            if found.is_some() || body.index > index {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        found.ok_or(TreeError::NotFound)
    }

    fn list(&self, tree: &Tree, after: u64, visit: VisitEntry<'_>) -> Result<(), TreeError> {
        let entry = tree.entry(self.capture)?;
        entry.capture.flows().bodies(self.flow, first_after(after), &mut |body| {
            let cookie = cookie(body.index, body.direction);
            if cookie <= after {
                return ControlFlow::Continue(());
            }
            visit(&self.body(body.index, body.direction), &body.name, cookie)
        });
        Ok(())
    }

    fn check(&self, tree: &Tree) -> Result<(), TreeError> {
        let flow = tree.entry(self.capture)?.capture.flows().flow(self.flow);
        flow.map(drop).ok_or(TreeError::NotFound)
    }

    fn lists_attributes_of(&self, _name: &str) -> bool {
        true
    }

    fn facts(&self, tree: &Tree) -> Result<NodeFacts, TreeError> {
        let flow = tree.entry(self.capture)?.capture.flows().flow(self.flow);
        let flow = flow
            .filter(|flow| flow.applications.has(Application::Http))
            .ok_or(TreeError::NotFound)?;
        let facts = NodeFacts::of_directory(Some(0), flow.modified);
        Ok(if flow.is_over { NodeFacts { valid: LASTING, ..facts } } else { facts })
    }
}

/// Cookie of a body; indexes begin with 1.
const fn cookie(index: u64, direction: MessageRole) -> u64 {
    let number = match direction {
        MessageRole::Request => index.saturating_mul(2),
        MessageRole::Response => index.saturating_mul(2).saturating_add(1),
    };
    number.saturating_add(FIRST_COOKIE - 2)
}

/// The lowest index of a transaction that may have a body after a cookie.
const fn first_after(cookie: u64) -> u64 {
    cookie / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_lead_to_the_next_body() {
        assert!(first_after(FIRST_COOKIE - 1) <= 1, "the first one after the dots");
        let mut before = FIRST_COOKIE - 1;
        for index in [1, 2, 3, 32_000, 1 << 40] {
            for direction in [MessageRole::Request, MessageRole::Response] {
                let cookie = cookie(index, direction);
                assert!(cookie > before, "{index} {direction:?}");
                assert!(first_after(before) <= index, "not passed over");
                before = cookie;
            }
            assert_eq!(first_after(cookie(index, MessageRole::Request)), index);
            assert_eq!(first_after(cookie(index, MessageRole::Response)), index + 1);
        }
    }

    #[test]
    fn a_body_that_does_not_fit_has_no_number() {
        let directory = BodiesDirectory { capture: 0, flow: 1 };
        let number = |index, direction| directory.body(index, direction).number;
        assert!(number(32_760, MessageRole::Response).is_some());
        assert_eq!(number(32_761, MessageRole::Request), None);
        assert_eq!(number(u64::MAX, MessageRole::Response), None);
        assert_eq!(number(0, MessageRole::Request), None);
    }
}
