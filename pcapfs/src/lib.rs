//! pcapfs: live packet captures as ordinary files.
//!
//! ```text
//!   cli ──▶ daemon ──▶ fuse ────┬──▶ fs ──▶ capture
//!    └────────┴─────▶ control ──┘
//! ```
//!
//! `cli` reads the command line and `config` the configuration; `daemon` starts captures and the tree and ends them in order;
//! `fuse` is the kernel's side of the tree; `control` is the service that other programs, this
//! command among them, steer the daemon with; `fs` is the tree itself, without FUSE. Packets, rings
//! and cursors are in the `capture` crate.

mod cli;
mod config;
mod control;
mod daemon;
mod fs;
mod fuse;

pub use cli::run;
