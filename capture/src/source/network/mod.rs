//! PCAP-over-IP: savefiles that arrive over TCP, from a machine that this one connects to, or from
//! machines that connect to this one.
//!
//! A peer may be anyone: it may send nothing, half a record, nonsense or a record of 4 GiB, and it
//! may vanish without a word. Its bytes go through [`Arriving`](super::arriving::Arriving), whose
//! memory is bounded, and no wait for it outlasts an order of the capture.

mod connect;
mod listen;
mod lookup;
mod place;
mod socket;

pub(super) use connect::Connecting;
pub(super) use listen::Listening;
pub use place::{HostAndPort, ListenAddress};
