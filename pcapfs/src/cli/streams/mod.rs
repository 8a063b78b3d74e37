//! Streams of TCP connections, for outlets that read packets: what each packet adds to them.

pub(super) mod reassembly;
pub(super) mod recent;
