//! Savefiles: pcap and pcapng, read and written.
//!
//! ```text
//!   pcap  pcapng            layouts of both formats, parsed from bytes in memory
//!     │      │
//!     ├──────┴── stream     bytes as they come through a FIFO: events out, no I/O
//!     └──────┴── mapped     a whole file where it lies: a [`Store`](crate::store::Store)
//!   pcapng_writer           blocks for readers of `.pcapng` files
//!   filtered                a savefile that passes through a filter on its way to a reader
//! ```
//!
//! Files come from strangers. A length read from a file is compared with the available bytes before
//! it is used, and never sizes an allocation beyond a stated limit. Impossible data is a
//! [`SavefileFault`] with its numbers, never a panic. The data before the fault is served.
//!
//! Sources: `pcap-savefile(5)`, draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod clock;
mod convert;
mod fault;
mod filtered;
mod index;
mod map;
mod mapped;
pub(crate) mod metadata;
mod order;
pub mod pcap;
pub mod pcapng;
pub mod pcapng_writer;
mod pending;
mod probe;
pub mod stream;
mod verdicts;
mod walk;

pub use fault::{Malformed, SavefileFault, SavefileOpenError};
pub use filtered::{FilteredError, FilteredSavefile};
pub use mapped::{Indexed, Savefile, SavefileOptions};
pub use order::ByteOrder;
pub use probe::{Probe, ProbedFormat};

/// Maximum captured bytes of one packet; a record that claims more is malformed.
///
/// libpcap refuses more than 256 KiB for network link types. The largest packets of a Linux
/// interface (BIG TCP) have 512 KiB, and USB requests of a few MiB occur. In practice a length
/// above 16 MiB means that the file is damaged. This limit also bounds the memory of a
/// [`stream::StreamReader`].
pub const MAX_CAPTURED_LEN: u32 = 16 << 20;

/// Maximum bytes of a pcapng block whose contents are read: the largest packet and 1 MiB of
/// options.
pub const MAX_BLOCK_LEN: u32 = MAX_CAPTURED_LEN + (1 << 20);

/// Maximum number of interfaces described in one file (mapped) or one section (streamed).
///
/// A router with a VLAN for every tag has 4096; merged files have a few for each part.
pub const MAX_INTERFACES: usize = 65_536;

/// The snapshot length of a file that states none, as in libpcap (`MAXIMUM_SNAPLEN`).
pub const DEFAULT_SNAPLEN: u32 = 262_144;
