//! Code that `mount.pcapfs` shares with the daemon that it starts.

pub mod arguments;
pub mod message;
pub mod mountinfo;
pub mod netns;
pub mod seccomp;
pub mod source;
pub mod tap;
pub mod xdp;
