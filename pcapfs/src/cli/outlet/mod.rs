//! Code that outlets share if they read more than packets: the daemon and its control socket, its
//! mounted tree, and the lines of the logs in it.
//!
//! ```text
//!   follower ── lines ── tree ── daemon
//!      └── position ── saved
//! ```

pub(in crate::cli) mod daemon;
pub(in crate::cli) mod event_kind;
pub(in crate::cli) mod expression;
pub(in crate::cli) mod follower;
pub(in crate::cli) mod lines;
pub(in crate::cli) mod position;
mod recent;
pub(in crate::cli) mod saved;
pub(in crate::cli) mod tree;
pub(in crate::cli) mod trouble;
