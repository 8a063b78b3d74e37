//! The directory of a flow.

use std::sync::LazyLock;

use ::capture::flow::{Application, File, FlowEntry};

use super::{DirectoryNode, DirectoryProvider, Node, NodeItem, VisitEntry, list_in_order};
use crate::fs::error::TreeError;
use crate::fs::file::FileNode;
use crate::fs::{LASTING, NodeFacts, Tree};

/// Mark of the numbers of a flow's directory, and of everything in it.
const FLOW: u64 = 1 << 62;
/// Bits of a capture's id in the number of a flow, and where they are. A daemon has a thread or
/// more for each capture, so it will not get to a thousand.
const CAPTURE_BITS: u32 = 10;
const CAPTURE_SHIFT: u32 = 52;
/// Bits of a flow's id, and where they are: two years of a thousand flows a second.
const FLOW_BITS: u32 = 36;
const FLOW_SHIFT: u32 = 16;
/// Bits of the part of a flow.
const PART_BITS: u32 = 16;

/// The first part that is a body.
pub(super) const FIRST_BODY: u64 = 16;

pub(super) const BODIES: &str = "bodies";

/// An entry of a flow's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlowItem {
    Bodies,
    File(File),
}

impl FlowItem {
    /// Returns `true` if there are flows that do not have it.
    const fn is_optional(self) -> bool {
        match self {
            Self::Bodies => true,
            Self::File(file) => file.is_optional(),
        }
    }

    const fn is_in(self, flow: &FlowEntry) -> bool {
        match self {
            Self::Bodies => flow.applications.has(Application::Http),
            Self::File(file) => flow.has(file),
        }
    }
}

/// The entries of a flow's directory, sorted by name as they are listed. The index of an entry is
/// part of its number.
static ENTRIES: LazyLock<Vec<(&str, FlowItem)>> = LazyLock::new(|| {
    let files = File::named().into_iter().map(|(name, file)| (name, FlowItem::File(file)));
    let mut entries = vec![(BODIES, FlowItem::Bodies)];
    entries.extend(files);
    entries.sort_by_key(|(name, _)| *name);
    entries
});

/// The directory of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct FlowDirectory {
    /// Id of the capture.
    pub(super) capture: u32,
    /// Id of the flow.
    pub(super) flow: u64,
}

/// The number of a part of a flow: 0 for its directory, 1 for its first entry, and so on. `None` if
/// it does not fit.
pub(super) const fn number_of_part(capture: u32, flow: u64, part: u64) -> Option<u64> {
    let fits = capture >> CAPTURE_BITS == 0 && flow >> FLOW_BITS == 0 && part >> PART_BITS == 0;
    let place = (capture as u64) << CAPTURE_SHIFT | flow << FLOW_SHIFT;
    if fits { Some(FLOW | place | part) } else { None }
}

/// The flow of a number, and which part of it; undoes [`number_of_part`].
pub(super) fn part_of(number: u64) -> Option<(FlowDirectory, u64)> {
    if number & FLOW == 0 {
        return None;
    }
    let capture = u32::try_from((number & !FLOW) >> CAPTURE_SHIFT).ok()?;
    let flow = number >> FLOW_SHIFT & ((1 << FLOW_BITS) - 1);
    Some((FlowDirectory { capture, flow }, number & ((1 << PART_BITS) - 1)))
}

/// The node of the number of a flow's directory, or of an entry in it.
pub(super) fn node_of(number: u64) -> Option<Node> {
    let (directory, part) = part_of(number)?;
    match usize::try_from(part).ok()?.checked_sub(1) {
        None => Some(DirectoryNode::Flow(directory).into()),
        Some(index) => directory.entry(index),
    }
}

/// The number of the directory of a flow's bodies.
pub(super) fn number_of_bodies(capture: u32, flow: u64) -> Option<u64> {
    let index = ENTRIES.iter().position(|(name, _)| *name == BODIES)?;
    number_of_part(capture, flow, 1 + index as u64)
}

impl FlowDirectory {
    fn entry(self, index: usize) -> Option<Node> {
        let (label, item) = *ENTRIES.get(index)?;
        let Self { capture, flow } = self;
        let item = match item {
            FlowItem::Bodies => NodeItem::Directory(DirectoryNode::bodies(capture, flow)),
            FlowItem::File(file) => NodeItem::File(FileNode::of_flow(capture, flow, file)),
        };
        Some(Node { item, number: number_of_part(capture, flow, 1 + index as u64), label })
    }
}

impl DirectoryProvider for FlowDirectory {
    fn number(&self) -> Option<u64> {
        number_of_part(self.capture, self.flow, 0)
    }

    fn parent(&self) -> DirectoryNode {
        DirectoryNode::flows(self.capture)
    }

    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    /// Of files that every flow has, it is not checked that the flow exists.
    fn find(&self, tree: &Tree, name: &str) -> Result<Node, TreeError> {
        let index =
            ENTRIES.iter().position(|(known, _)| *known == name).ok_or(TreeError::NotFound)?;
        let (_, item) = *ENTRIES.get(index).ok_or(TreeError::NotFound)?;
        if item.is_optional() {
            let flow = tree.entry(self.capture)?.capture.flows().flow(self.flow);
            flow.filter(|flow| item.is_in(flow)).ok_or(TreeError::NotFound)?;
        }
        self.entry(index).ok_or(TreeError::NotFound)
    }

    fn file(&self, name: &str) -> Option<FileNode> {
        let (_, item) = ENTRIES.iter().find(|(known, _)| *known == name)?;
        match item {
            FlowItem::File(file) => Some(FileNode::of_flow(self.capture, self.flow, *file)),
            FlowItem::Bodies => None,
        }
    }

    fn list(&self, tree: &Tree, after: u64, visit: VisitEntry<'_>) -> Result<(), TreeError> {
        let flow = tree.entry(self.capture)?.capture.flows().flow(self.flow);
        let has = |item: FlowItem| match &flow {
            Some(flow) => item.is_in(flow),
            None => !item.is_optional(),
        };
        let there = ENTRIES.iter().enumerate().filter(|(_, (_, item))| has(*item));
        let nodes = there.filter_map(|(index, (name, _))| Some((*name, self.entry(index)?)));
        list_in_order(nodes, after, visit);
        Ok(())
    }

    fn check(&self, tree: &Tree) -> Result<(), TreeError> {
        let flow = tree.entry(self.capture)?.capture.flows().flow(self.flow);
        flow.map(drop).ok_or(TreeError::NotFound)
    }

    /// The sizes of the others are known only after they have been made.
    fn lists_attributes_of(&self, name: &str) -> bool {
        name == BODIES
    }

    fn facts(&self, tree: &Tree) -> Result<NodeFacts, TreeError> {
        let flow = tree.entry(self.capture)?.capture.flows().flow(self.flow);
        let flow = flow.ok_or(TreeError::NotFound)?;
        let facts = NodeFacts::of_directory(None, flow.modified);
        Ok(if flow.is_over { NodeFacts { valid: LASTING, ..facts } } else { facts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_sorted_and_leave_room_for_bodies() {
        assert!(ENTRIES.is_sorted_by_key(|(name, _)| *name));
        assert!((ENTRIES.len() as u64) < FIRST_BODY);
    }
}
