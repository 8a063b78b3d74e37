//! Flows: connections as directories, while they grow, once they have ended, and when packets of
//! theirs are missing or gone.

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
