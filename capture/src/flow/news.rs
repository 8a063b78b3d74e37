//! Events of a flow that the engine passes on.

use super::apps::dissector::Finished;

/// An event that the engine passes on.
#[derive(Debug)]
pub(super) enum News {
    /// A transaction has ended.
    Finished(Box<dyn Finished>),
    /// Nothing more will come.
    Closed,
}
