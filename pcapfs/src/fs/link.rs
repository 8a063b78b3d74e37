//! The symbolic links of the tree.

use super::error::TreeError;
use super::{NodeFacts, Tree};

/// A link of any kind. It is a small key, such as an index, that the directory of the link makes
/// anew for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LinkNode {
    /// In the root: a further name of a capture.
    Alias {
        /// Its index among all aliases, from 0.
        index: u32,
    },
}

impl LinkNode {
    /// The capture whose owner and group it has; `None` if it has those of the root.
    pub(super) const fn capture(self) -> Option<u32> {
        match self {
            Self::Alias { .. } => None,
        }
    }

    /// The path that it leads to.
    ///
    /// # Errors
    /// If it has been removed.
    pub(super) fn target(self, tree: &Tree) -> Result<String, TreeError> {
        match self {
            Self::Alias { index } => tree.captures.link_target(index).ok_or(TreeError::NotFound),
        }
    }

    /// Its attributes.
    ///
    /// # Errors
    /// If it has been removed.
    pub(super) fn facts(self, tree: &Tree) -> Result<NodeFacts, TreeError> {
        Ok(NodeFacts::of_size(self.target(tree)?.len() as u64, tree.started))
    }
}
