//! Flows: connections as directories, while they grow, after they have ended, and when some of
//! their packets are missing or overwritten.

mod closed;
mod counters;
mod gaps;
mod growing;
mod leaving;
mod lifetime;
mod meta;
mod packets;
mod permissions;
mod recovery;
mod streams;
mod support;
mod tree;
mod under_way;
mod wire;
