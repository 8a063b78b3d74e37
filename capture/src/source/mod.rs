//! The sources of packets.
//!
//! A [`Source`] hands packets to a ring's [writer](Writer) until it is stopped or has no more. It
//! knows nothing about readers. Savefiles are not sources: a [savefile](crate::savefile) is a store
//! itself.

mod arriving;
mod control;
mod external;
mod fifo;
mod following;
mod interface;
mod kinds;
mod link_counters;
mod link_message;
mod namespace;
mod network;
mod packet_v3;
mod patience;
mod stdin;
mod stream_metadata;
mod tap;
mod workers;
mod xdp;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::linktype::LinkType;

pub use control::SourceControl;
pub use external::{ExternalSource, SourceOpener};
pub use following::{FollowBeginning, FollowedNote, FollowedPackets, Following};
pub use interface::{InterfaceInfo, interfaces, real_name};
pub use kinds::{FORMS, SourceName};
pub use namespace::{
    NamespaceOpener, NamespaceRefusal, NamespaceSockets, NamespacedInterface, open_namespaces_with,
};
pub use network::{Connecting, HostAndPort, Incoming, ListenAddress, Listening, Transport};
pub use patience::ReconnectPatience;
pub use tap::TapDevice;
pub use workers::{Fanout, Workers};
pub use xdp::{XdpAttacher, XdpError, XdpPath, attach_xdp_with};

use crate::filter::FilterError;
use crate::injection::Injection;
use crate::ring::Writer;

/// The name under which all interfaces are captured at once.
pub const ANY: &str = "any";

/// The reason that pcapng streams give for a time in which a capture was stopped.
pub(crate) const STOPPED: &str = "stopped";

/// A source that fills a ring.
///
/// It opens in its constructor, which must not wait for another machine. After a stop,
/// [`run`](Self::run) may be called again, if [`rest`](Self::rest) says that the source is
/// [open](Rest::is_open). Otherwise it is dropped and opened anew.
pub trait Source: std::fmt::Debug + Send {
    /// The link type of its packets; `None` if it is known only with the first packet.
    fn link_type(&self) -> Option<LinkType>;

    /// The state of the source while its capture is stopped.
    fn rest(&self) -> Rest;

    /// How packets are received, if the source is an interface.
    fn backend(&self) -> Option<InterfaceBackend> {
        None
    }

    /// Number of threads that take its packets.
    fn workers(&self) -> u32 {
        1
    }

    /// Returns true if the source has all it needs. A source that has to connect first returns
    /// false, and reports its peer with [`Observer::back`].
    fn is_ready(&self) -> bool {
        true
    }

    /// Fills the ring until `control` orders a stop, or there are no more packets.
    ///
    /// * It applies [`SourceOptions::filter`] and [`SourceOptions::snaplen`]: no other code does.
    /// * If [`link_type`](Self::link_type) is `None`, it calls [`Writer::declare`] before the first
    ///   packet.
    /// * After each batch it calls [`Writer::publish`], then [`Observer::tick`]. Without packets it
    ///   calls `tick` at least every five seconds: the ring notes then that the source is there.
    /// * It gives packets that it has lost to [`Writer::add_loss`].
    /// * Between batches it looks for orders: [`SourceControl::must_stop`],
    ///   [`SourceControl::clear_if_ordered`], and [`SourceControl::is_paused`] if it is
    ///   [drained](Rest::Drained). While it waits, it polls [`SourceControl::wake_fd`] too.
    /// * When it has to stop, it first stores what was received before.
    ///
    /// # Errors
    /// [`SourceError::Lost`] if the source may come back, another error if not. All packets that
    /// came before are in the ring.
    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError>;
}

/// The state of a source while its capture is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It is closed, and opened again at the start. Packets in between are not captured.
    Closed,
    /// It is held open, since others depend on it. Packets in between are not captured.
    Kept,
    /// It is held open and not read, and continues where it was.
    Held,
    /// It keeps running, with [`SourceControl::pause`]: it is read, but nothing is stored, because
    /// the programs that write into it must not be held up.
    Drained,
    /// It is closed. When it is opened again, it continues after the last packet in the ring, and
    /// says itself which packets it could not get.
    Resumed,
}

impl Rest {
    /// Returns true if the source object is kept for the next start.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Kept | Self::Held | Self::Drained)
    }
}

/// Receives reports from a running source.
pub trait Observer {
    /// A source calls it after each batch, and at least every five seconds without packets. The
    /// ring notes then that the source is there.
    fn tick(&mut self, writer: &Writer);

    /// Called for an error that does not end the source: an error of one of several writers, or
    /// packets that the ring cannot hold. `None` if the error is over.
    fn trouble(&mut self, error: Option<&SourceError>);

    /// Called when the peer of a source that connects is away, or away for another reason. The
    /// source looks for it itself.
    fn away(&mut self, writer: &mut Writer, error: &SourceError);

    /// Called when all senders have left a source that waits for senders; `error` says how the last
    /// one left. Its capture goes on.
    fn left(&mut self, writer: &mut Writer, error: &SourceError);

    /// Called when a source that connects has reached its peer, or a sender is back.
    fn back(&mut self, writer: &mut Writer);
}

/// How a source is opened.
#[derive(Clone, Copy, Debug)]
pub struct SourceOptions<'a> {
    /// Only packets that match this expression are stored.
    pub filter: Option<&'a str>,
    /// Maximum number of bytes kept of one packet.
    pub snaplen: u32,
    /// Receive frames for other stations, too. It has no effect on [`ANY`] and on devices that are
    /// not network interfaces.
    pub promiscuous: bool,
    /// Bytes in which the kernel keeps packets of an interface until they are fetched. The maximum
    /// is 2 GiB.
    pub kernel_buffer: u64,
    /// How packets of an interface are received.
    pub backend: InterfaceBackend,
    /// The threads that take the packets of one interface. Other sources have one.
    pub workers: Workers,
    /// Keep the decryption secrets in a pcapng stream.
    pub export_keys: bool,
    /// Frames to hand to the kernel, for a source that takes some.
    pub injection: Option<&'a Arc<Injection>>,
}

/// How packets of an interface are received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterfaceBackend {
    /// Through a packet socket of this program, packet(7). Interfaces that are not Ethernet, and
    /// devices that are no interfaces, are received through libpcap.
    #[default]
    AfPacket,
    /// Through libpcap.
    Libpcap,
    /// Through AF_XDP. It is chosen by the source, see [`SourceName::Xdp`].
    AfXdp(XdpPath),
}

impl InterfaceBackend {
    /// Those that an option can choose, as they are written.
    pub const WORDS: [&str; 2] = ["af_packet", "libpcap"];

    /// The backend that is written like this.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::AfPacket, Self::Libpcap].into_iter().find(|backend| backend.word() == word)
    }

    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        let [af_packet, libpcap] = Self::WORDS;
        match self {
            Self::AfPacket => af_packet,
            Self::Libpcap => libpcap,
            Self::AfXdp(path) => path.word(),
        }
    }
}

/// Why a source cannot be opened, or has failed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No interface has this name.
    #[error("{name}: no such interface ({advice})")]
    NoInterface {
        /// The requested name.
        name: String,
        /// The existing names, or what the name may have meant.
        advice: String,
    },
    /// No network namespace is found in this way.
    #[error("{name}: no such network namespace ({advice})")]
    NoNamespace {
        /// The source.
        name: String,
        /// The existing ones, or what is missing.
        advice: String,
    },
    /// The process is not allowed to enter a network namespace.
    #[error("{name}: no permission to capture there: {why}")]
    NotEntered {
        /// The source.
        name: String,
        /// The missing right, and who has it.
        why: String,
    },
    /// The process is not allowed to open a packet socket.
    #[error("{name}: no permission to capture (run as root, or give the program CAP_NET_RAW)")]
    NotPermitted {
        /// The interface.
        name: String,
    },
    /// The interface is down.
    #[error("{name}: the interface is down (ip link set {name} up)")]
    Down {
        /// The interface.
        name: String,
    },
    /// The device or its driver refuses.
    #[error("{name}: {why}")]
    Device {
        /// The source.
        name: String,
        /// The cause, and what to do.
        why: String,
    },
    /// The interface cannot be captured through AF_XDP.
    #[error("{name}: {error}")]
    Xdp {
        /// The source.
        name: String,
        /// Why not.
        error: XdpError,
    },
    /// libpcap refuses for another reason.
    #[error("{name}: {why}")]
    Libpcap {
        /// The interface.
        name: String,
        /// libpcap's message.
        why: String,
    },
    /// The interface went away or down, or its socket failed; or the peer of a connection is away.
    #[error("{name}: {why}")]
    Lost {
        /// The interface, or the source that has the peer.
        name: String,
        /// The cause.
        why: String,
    },
    /// The filter does not compile.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A link type without a number in savefiles.
    #[error("{name}: its link type {dlt} has no savefile number")]
    LinkType {
        /// The interface.
        name: String,
        /// libpcap's number.
        dlt: i32,
    },
    /// The new packets cannot be in one savefile with the stored ones.
    #[error("{name}: now sends {sent} packets, this capture holds {held}")]
    Changed {
        /// The source.
        name: String,
        /// Link type stored.
        held: LinkType,
        /// Link type of the new packets.
        sent: LinkType,
    },
    /// A stream that a capture cannot hold completely.
    #[error("{name}: {left_out}")]
    NotAll {
        /// The source.
        name: String,
        /// The data left out so far.
        left_out: LeftOut,
    },
    /// A stream that is not a savefile.
    #[error("{name}: {why}")]
    Malformed {
        /// The source.
        name: String,
        /// The error and its place.
        why: String,
    },
    /// A far end is connected again, and has sent nothing yet.
    #[error("{before}; connected again, and waits for a header")]
    Silent {
        /// Why it was away.
        before: Box<Self>,
    },
    /// The end of a connection is not written as it must be.
    #[error("{name}: {why}")]
    Place {
        /// The source as it was written.
        name: String,
        /// The mistake, and the right form.
        why: String,
    },
    /// A path that is not a FIFO.
    #[error("{path}: not a FIFO (make one with: mkfifo {path}; a savefile is file:{path})", path = .path.display())]
    NotAFifo {
        /// The path.
        path: PathBuf,
    },
    /// A path at which no file exists.
    #[error("{path}: no such FIFO (make one with: mkfifo {path})", path = .path.display())]
    NoFifo {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{name}: {error}")]
    System {
        /// The source.
        name: String,
        /// The error of the system.
        error: io::Error,
    },
}

impl SourceError {
    /// The same error of the source that is written like this, of which the error names only the
    /// interface.
    fn of_source(self, source: &str) -> Self {
        let name = source.to_owned();
        match self {
            Self::NoInterface { advice, .. } => Self::NoInterface { name, advice },
            Self::NotPermitted { .. } => Self::NotPermitted { name },
            Self::Down { .. } => Self::Down { name },
            Self::Libpcap { why, .. } => Self::Libpcap { name, why },
            Self::LinkType { dlt, .. } => Self::LinkType { name, dlt },
            Self::System { error, .. } => Self::System { name, error },
            other => other,
        }
    }

    /// The error for an unknown interface `name`; `have` are the existing ones.
    fn no_interface(name: &str, have: &[String]) -> Self {
        let have = have.join(", ");
        let kind = name.split_once(':').map(|(kind, _)| kind);
        let advice = match kind {
            Some(kind) if !kind.contains('/') => format!(
                "'{kind}:' is no kind of source either: a source is an interface, any, {FORMS} or \
                 -; have: {have}"
            ),
            _ if name.contains('/') || Path::new(name).exists() => {
                let whole = std::path::absolute(name).unwrap_or_else(|_| name.into());
                let path = whole.display();
                format!("a savefile is written file:{path}, a FIFO stream:{path}; have: {have}")
            }
            _ => format!("have: {have}"),
        };
        Self::NoInterface { name: name.to_owned(), advice }
    }
}

/// The data of a stream that a capture cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Link type stored.
    pub held: LinkType,
    /// Packets of other link types: a capture holds one link type.
    pub packets: u64,
    /// Blocks, and options of packets, that a pcapng stream has beside packets and that are left
    /// out. They are damaged, longer than 1 MiB, after the last packet, or do not fit a segment of
    /// the ring together with their packet.
    pub notes: u64,
    /// Interfaces that are taken for others: a ring distinguishes 64.
    pub interfaces: u64,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { held, packets, notes, interfaces } = *self;
        let count = |count: u64, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let notes = (notes > 0).then(|| {
            let what = if notes == 1 { "block or comment" } else { "blocks or comments" };
            format!("{notes} {what} left out: damaged, or without a packet or room in the ring")
        });
        let interfaces = (interfaces > 0).then(|| {
            let interfaces = count(interfaces, "interface");
            format!("{interfaces} taken for others, beyond the 64 that are told apart")
        });
        let packets = (packets > 0).then(|| {
            let packets = count(packets, "packet");
            format!("{packets} left out, not of link type {held} as the first")
        });
        let parts: Vec<String> = notes.into_iter().chain(interfaces).chain(packets).collect();
        formatter.write_str(&parts.join("; "))
    }
}

/// How a source that ran without an error ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceEnd {
    /// It was stopped.
    Stopped,
    /// There are no more packets to come.
    Exhausted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_an_interface_may_be_another_source() {
        let have = ["lo".to_owned(), "eth0".to_owned()];
        for (name, parts) in [
            ("eth9", &["eth9: no such interface (have: lo, eth0)"][..]),
            ("/tmp/x.pcap", &["file:/tmp/x.pcap", "stream:/tmp/x.pcap", "have: lo"]),
            ("Cargo.toml", &["file:/", "/Cargo.toml"]),
            ("ssh:host", &["'ssh:' is no kind of source", "file:PATH", "stream:PATH"]),
            ("pipe:/x", &["'pipe:' is no kind of source"]),
        ] {
            let text = SourceError::no_interface(name, &have).to_string();
            for part in parts {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
        }
    }
}
