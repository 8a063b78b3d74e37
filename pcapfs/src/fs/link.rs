//! Links in the root: each stands for a capture's alias.

use super::error::Error;
use super::{NodeFacts, Tree};

/// A further name of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CaptureLink {
    /// Its index among all links, from 0.
    pub(super) index: u32,
}

impl CaptureLink {
    /// The path that it stands for.
    ///
    /// # Errors
    /// If it has been removed.
    pub(super) fn target(self, tree: &Tree) -> Result<String, Error> {
        tree.captures.link_target(self.index).ok_or(Error::NotFound)
    }

    /// Its attributes.
    ///
    /// # Errors
    /// If it has been removed.
    pub(super) fn facts(self, tree: &Tree) -> Result<NodeFacts, Error> {
        Ok(NodeFacts::of_size(self.target(tree)?.len() as u64, tree.started))
    }
}
