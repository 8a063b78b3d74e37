//! The harness of the black-box tests: daemons, networks, traffic and an independent view of
//! savefiles.
//!
//! No code here uses the product's crates. The tests take their knowledge from the documented
//! contract and from the formats' own specifications, so that a mistake in the product cannot hide
//! in a shared helper. A test reads like this:
//!
//! ```ignore
//! use pcapfs_tests::{Fed, run, skip_unless, tool};
//!
//! #[test]
//! fn cat_reads_what_was_sent() {
//!     skip_unless!(mount);
//!     let fed = Fed::holding(100);
//!     let output = run(tool("cat").arg(fed.daemon.path("web/replay.pcap")), 5).success();
//!     assert_eq!(output.stdout[24..], Fed::records(100));
//! }
//! ```
//!
//! * [`Mount`] and [`Daemon`]: a daemon in the foreground with its own mount point and ring folder,
//!   gone when the value is dropped, also when the test panics.
//! * [`Net`]: two network namespaces with a veth pair, and [`Sender`] for numbered packets in them.
//! * [`Container`]: a process in a network namespace without a name.
//! * [`Fifo`] and [`Feed`]: a source without loss, at any speed, for exact counts.
//! * [`Fed`] and [`Wired`]: a daemon over either of them, with which most tests begin.
//! * [`Conversation`]: packets of a connection, as a network would have carried them, or should not
//!   have; [`Filed`] is a daemon over a savefile of some, and [`flows`] reads the flows made of
//!   them.
//! * [`Host`]: a mount namespace in which pcapfs is installed and has its user, for mount(8).
//! * [`User`]: a user and groups that no account has.
//! * [`Traffic`]: either of the two, sending in the background at a bounded rate.
//! * [`savefile`]: strict incremental readers of pcap and pcapng, and savefiles of numbered packets.
//! * [`segments`]: savefiles of any number of connections, for tests about large numbers.
//! * [`StreamReader`]: a thread of this process that reads a stream at a given pace and checks it.
//! * [`Running`] and [`run`]: real tools as children, with a time limit, killed on drop.
//! * [`Receiving`]: a `pcapfs receive`, at an address of its own.
//! * [`wait_until`], [`wait_for`]: conditions instead of sleeps.
//! * [`measure`]: CPU time, memory and descriptors of a process.
//!
//! Tests need the built binary `pcapfs` beside the test's own target folder, or in `$PCAPFS_BIN`.
//! If the machine lacks a requirement, the test prints that and is skipped; with
//! `PCAPFS_REQUIRE_ALL=1` that is a failure.

#![allow(clippy::missing_panics_doc, reason = "panicking is how a test helper reports failure")]

pub mod coding;
pub mod container;
pub mod conversation;
pub mod daemon;
pub mod feed;
pub mod fixture;
pub mod flows;
pub mod frame;
pub mod host;
pub mod measure;
pub mod net;
pub mod process;
pub mod receiving;
#[cfg(test)]
mod registered;
pub mod require;
pub mod savefile;
pub mod schema;
pub mod segments;
pub mod stream;
pub mod traffic;
pub mod user;
pub mod wait;
pub mod zmq;

pub use container::Container;
pub use conversation::{Client, Conversation, Server, Side};
pub use daemon::{Daemon, Mount, Refused, binary, is_mounted};
pub use feed::{Feed, Fifo};
pub use fixture::{ALIAS, Fed, Replaceable, Wired, matching, saved_places, wait_for_place};
pub use flows::Filed;
pub use host::Host;
pub use net::{Namespace, Net, Sender};
pub use process::{Finished, Running, python, run, tool};
pub use receiving::{Receiving, loopback_address};
pub use stream::{Pace, StreamReader};
pub use traffic::{Emit, Traffic};
pub use user::User;
pub use wait::{wait_for, wait_until};
