//! What `mount.pcapfs` has in common with the daemon that it starts.

pub mod arguments;
pub mod message;
pub mod mountinfo;
