//! pcapfs: live packet captures as ordinary files.
//!
//! ```text
//!   cli ──▶ daemon ──▶ control ──▶ registry ──▶ fs ──▶ capture
//!              │                      ▲           ▲
//!              ├──▶ config ───────────┘           │
//!              └──▶ fuse ─────────────────────────┘
//! ```
//!
//! [`cli`] reads the command line. [`daemon`] starts captures and the tree, and ends them in order.
//! [`config`] reads the configuration. [`registry`] makes, changes and removes captures for all
//! clients. [`control`] is the service through which other programs, and the commands of this one,
//! control the daemon. [`fuse`] is the kernel's side of the tree, and [`fs`] the tree itself,
//! without FUSE. [`mirror`] follows captures of other machines. Packets, rings and cursors are in the `capture` crate.
//!
//! The single files are what several of these need: [`waiters`] for packets, the [`sources`] of users,
//! [`settings`] of a capture, [`paths`] that other
//! users could change, what the kernel says of a [`process`], the [`failure`] of a command, its [`output`], the [`size`]s and
//! [`candidates`] of its options, the [`memory`] that the allocator keeps, the
//! [`descriptor_limit`], and the [`priority`] of threads.

mod candidates;
mod cli;
mod config;
mod control;
mod daemon;
mod descriptor_limit;
mod failure;
mod fs;
mod fuse;
mod memory;
mod mirror;
mod output;
mod paths;
mod priority;
mod process;
mod registry;
mod remote;
mod settings;
mod size;
mod sources;
mod tcp_socket;
mod waiters;

pub use cli::run;
