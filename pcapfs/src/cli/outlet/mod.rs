//! What outlets that read more than packets have in common: the daemon behind its control socket, and
//! its mounted tree with the logs of captures.

pub(in crate::cli) mod daemon;
pub(in crate::cli) mod lines;
pub(in crate::cli) mod tree;
pub(in crate::cli) mod trouble;
