//! pcapfs: live packet captures as ordinary files.
//!
//! ```text
//!   cli ──▶ daemon ──▶ fuse ──▶ fs ──▶ capture
//! ```
//!
//! `cli` reads the command line; `daemon` starts captures and the tree and ends them in order;
//! `fuse` is the kernel's side of the tree; `fs` is the tree itself, without FUSE. Packets, rings
//! and cursors are in the `capture` crate.

mod cli;
mod daemon;
mod fs;
mod fuse;

pub use cli::run;
