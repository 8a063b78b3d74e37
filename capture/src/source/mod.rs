//! The sources of packets.
//!
//! A [`Source`] hands packets to a ring's [writer](Writer) until it is stopped or has no more. It
//! knows nothing about readers. Savefiles are not sources: a [savefile](crate::savefile) is a store
//! itself.

mod arriving;
mod beside;
mod control;
mod external;
mod fifo;
mod following;
mod interface;
mod link_counters;
mod namespace;
mod network;
mod patience;
mod stdin;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use protocol::linktype::LinkType;

pub use control::SourceControl;
pub use external::{ExternalSource, SourceOpener};
pub use following::{FollowBeginning, FollowedNote, FollowedPackets, Following};
pub use interface::{InterfaceInfo, interfaces, real_name};
pub use namespace::NamespacedInterface;
pub use network::{Connecting, HostAndPort, Incoming, ListenAddress, Listening, Transport};
pub use patience::ReconnectPatience;

use crate::filter::{FilterError, Runner};
use crate::ring::Writer;
use fifo::Fifo;
use interface::Live;
use namespace::PREFIX as NETNS;
use stdin::Stdin;

/// The name under which all interfaces are captured at once.
pub const ANY: &str = "any";

/// The reason that pcapng streams give for a time in which a capture was stopped.
pub(crate) const STOPPED: &str = "stopped";

/// The written forms of sources that begin with their kind, for messages: those of this crate, and
/// those that the program brings.
pub const FORMS: &str = "netns:NAME/IFACE, netns:PID/IFACE, file:PATH, stream:PATH, tcp:HOST:PORT, \
     tcp-listen:ADDR:PORT, tls:HOST:PORT, tls-listen:ADDR:PORT, remote:NAME/CAPTURE";

/// Suffix of the path of a savefile that another program is still writing.
const FOLLOW: &str = ",follow";

/// The source of a capture. It is written as an interface, `any` or nothing for all interfaces,
/// `netns:NAME/IFACE`, `netns:PID/IFACE`, `file:PATH`, `file:PATH,follow`, `stream:PATH`,
/// `tcp:HOST:PORT`, `tcp-listen:ADDR:PORT`, or `-`.
///
/// Other code asks the methods what a source can, and does not match the variants. So a new kind is
/// decided here, where the compiler asks for each answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceName {
    /// A network interface, or [`ANY`].
    Interface(String),
    /// The same in another network namespace.
    Namespaced(NamespacedInterface),
    /// A savefile.
    File(PathBuf),
    /// A savefile that another program is still writing; added packets are read as well.
    Growing(PathBuf),
    /// A FIFO that programs write savefiles into.
    Stream(PathBuf),
    /// Standard input.
    Stdin,
    /// A far end to connect to, which sends a savefile over TCP: a [`HostAndPort`] as it was
    /// written.
    Tcp(String),
    /// An address at which senders of savefiles connect: a [`ListenAddress`] as it was written.
    TcpListen(String),
    /// A kind that the program brings.
    External(ExternalSource),
}

impl SourceName {
    /// Who runs the filter of a capture of this source. Savefiles of cooked packets have the
    /// direction of each packet, so their filters are checked again when they are opened.
    #[must_use]
    pub const fn filter_runner(&self) -> Runner {
        match self {
            Self::Interface(_) | Self::Namespaced(_) | Self::File(_) | Self::Growing(_) => {
                Runner::Kernel
            }
            Self::Stream(_)
            | Self::Stdin
            | Self::Tcp(_)
            | Self::TcpListen(_)
            | Self::External(_) => Runner::Process,
        }
    }

    /// Opens the source. An interface may also be given by an alternative name.
    ///
    /// # Errors
    /// [`SourceError`]; nothing stays open.
    ///
    /// # Panics
    /// For a savefile, which fills no ring.
    pub fn open(&self, options: &SourceOptions<'_>) -> Result<Box<dyn Source>, SourceError> {
        Ok(match self {
            Self::Interface(name) => Box::new(Live::open(name, options)?),
            Self::Namespaced(place) => Box::new(Live::open_inside(place, options)?),
            Self::Stream(path) => Box::new(Fifo::open(path, options)?),
            Self::Stdin => Box::new(Stdin::open(options)?),
            Self::Tcp(text) => Box::new(network::connecting(text, options)?),
            Self::TcpListen(text) => Box::new(network::listening(text, options)?),
            Self::External(source) => source.open(options)?,
            Self::File(_) | Self::Growing(_) => unreachable!("a savefile fills no ring"),
        })
    }

    /// Parses a source of this crate from its written form. The kinds of the program come before:
    /// this takes every text that is no other source for the name of an interface.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "" => Self::Interface(ANY.to_owned()),
            "-" => Self::Stdin,
            _ => {
                if let Some(path) = text.strip_prefix("file:") {
                    Self::savefile(path.as_ref())
                } else if let Some(path) = text.strip_prefix("stream:") {
                    Self::Stream(path.into())
                } else if let Some(place) = text.strip_prefix("tcp:") {
                    Self::Tcp(place.to_owned())
                } else if let Some(place) = text.strip_prefix("tcp-listen:") {
                    Self::TcpListen(place.to_owned())
                } else if let Some(place) = text.strip_prefix(NETNS) {
                    Self::Namespaced(NamespacedInterface::parse(place))
                } else {
                    Self::Interface(text.to_owned())
                }
            }
        }
    }

    /// The mistake in the written form of a source that names a place in the network, for people.
    #[must_use]
    pub fn mistake(&self) -> Option<String> {
        let place = match self {
            Self::Tcp(text) => network::far_end(text).err(),
            Self::TcpListen(text) => network::listen_address(text).err(),
            _ => None,
        };
        place.map(|error| error.to_string())
    }

    /// A savefile from its path, or from the path and `,follow`.
    #[must_use]
    pub fn savefile(path: &Path) -> Self {
        match path.as_os_str().as_bytes().strip_suffix(FOLLOW.as_bytes()) {
            Some(path) if !path.is_empty() => Self::Growing(OsStr::from_bytes(path).into()),
            _ => Self::File(path.to_owned()),
        }
    }

    /// Returns `true` if packets come from an interface of this machine, through a socket with a
    /// buffer in the kernel.
    #[must_use]
    pub const fn is_interface(&self) -> bool {
        match self {
            Self::Interface(_) | Self::Namespaced(_) => true,
            Self::File(_)
            | Self::Growing(_)
            | Self::Stream(_)
            | Self::Stdin
            | Self::Tcp(_)
            | Self::TcpListen(_)
            | Self::External(_) => false,
        }
    }

    /// Returns `true` for a savefile that is complete: its packets have an end that readers can
    /// wait for.
    #[must_use]
    pub const fn is_complete_savefile(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Growing(_)
            | Self::Interface(_)
            | Self::Namespaced(_)
            | Self::Stream(_)
            | Self::Stdin
            | Self::Tcp(_)
            | Self::TcpListen(_)
            | Self::External(_) => false,
        }
    }

    /// Returns `true` if only one capture of a process can have this source, and only from the
    /// command line.
    #[must_use]
    pub const fn is_of_command_line(&self) -> bool {
        match self {
            Self::Stdin => true,
            Self::Interface(_)
            | Self::Namespaced(_)
            | Self::File(_)
            | Self::Growing(_)
            | Self::Stream(_)
            | Self::Tcp(_)
            | Self::TcpListen(_)
            | Self::External(_) => false,
        }
    }

    /// The path in a source that is written with one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Growing(path) | Self::Stream(path) => Some(path),
            Self::Interface(_)
            | Self::Namespaced(_)
            | Self::Stdin
            | Self::Tcp(_)
            | Self::TcpListen(_)
            | Self::External(_) => None,
        }
    }

    /// The same source with another path, if it is written with one.
    #[must_use]
    pub fn with_path(self, change: impl FnOnce(PathBuf) -> PathBuf) -> Self {
        match self {
            Self::File(path) => Self::File(change(path)),
            Self::Growing(path) => Self::Growing(change(path)),
            Self::Stream(path) => Self::Stream(change(path)),
            same @ (Self::Interface(_)
            | Self::Namespaced(_)
            | Self::Stdin
            | Self::Tcp(_)
            | Self::TcpListen(_)
            | Self::External(_)) => same,
        }
    }

    /// The name of the interface in pcapng files: that of an interface, or the written form.
    #[must_use]
    pub fn interface_name(&self) -> String {
        match self {
            Self::Interface(name) => name.clone(),
            Self::Namespaced(place) => place.interface().to_owned(),
            other => other.to_string(),
        }
    }

    /// The description of the interface in pcapng files: which one it is, if its name does not say
    /// that.
    #[must_use]
    pub fn interface_description(&self) -> Option<String> {
        matches!(self, Self::Namespaced(_)).then(|| self.to_string())
    }

    /// The source of a kind that the program brings.
    #[must_use]
    pub const fn external(&self) -> Option<&ExternalSource> {
        match self {
            Self::External(source) => Some(source),
            Self::Interface(_)
            | Self::Namespaced(_)
            | Self::File(_)
            | Self::Growing(_)
            | Self::Stream(_)
            | Self::Stdin
            | Self::Tcp(_)
            | Self::TcpListen(_) => None,
        }
    }

    /// The path of a savefile.
    #[must_use]
    pub fn savefile_path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Growing(path) => Some(path),
            Self::Interface(_)
            | Self::Namespaced(_)
            | Self::Stream(_)
            | Self::Stdin
            | Self::Tcp(_)
            | Self::TcpListen(_)
            | Self::External(_) => None,
        }
    }

    /// The alias that a capture of this source gets by default: the interface's name, the file's
    /// name without its extension, or the host and port. Characters that an alias cannot have are
    /// replaced.
    #[must_use]
    pub fn default_alias(&self) -> String {
        let name = match self {
            Self::Interface(name) => name.clone(),
            Self::Namespaced(place) => place.default_alias(),
            Self::File(path) | Self::Growing(path) | Self::Stream(path) => {
                path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
            }
            Self::Stdin => "stdin".to_owned(),
            // The words before a comma are the place.
            Self::Tcp(place) | Self::TcpListen(place) => {
                place.split(',').next().unwrap_or_default().replace(['[', ']'], "")
            }
            Self::External(source) => source.default_alias(),
        };
        let mut alias: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
            .take(64)
            .collect();
        if alias.starts_with('.') {
            alias.replace_range(..1, "_");
        }
        if alias.is_empty() { "capture".to_owned() } else { alias }
    }
}

impl std::fmt::Display for SourceName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interface(name) => formatter.write_str(name),
            Self::Namespaced(place) => place.fmt(formatter),
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Growing(path) => write!(formatter, "file:{}{FOLLOW}", path.display()),
            Self::Stream(path) => write!(formatter, "stream:{}", path.display()),
            Self::Stdin => formatter.write_str("-"),
            Self::Tcp(place) => write!(formatter, "tcp:{place}"),
            Self::TcpListen(place) => write!(formatter, "tcp-listen:{place}"),
            Self::External(source) => formatter.write_str(source.written()),
        }
    }
}

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

    /// Returns true if the source has all it needs. A source that has to connect first returns
    /// false, and reports its peer with [`Observer::back`].
    fn is_ready(&self) -> bool {
        true
    }

    /// Fills the ring until `control` orders a stop, or there are no more packets.
    ///
    /// * It applies [`SourceOptions::filter`] and [`SourceOptions::snaplen`]: nobody else does.
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
        matches!(self, Self::Held | Self::Drained)
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
    /// Keep the decryption secrets in a pcapng stream.
    pub export_keys: bool,
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

    #[test]
    fn sources_are_read_as_they_are_written() {
        for (text, source, alias) in [
            ("eth0", SourceName::Interface("eth0".into()), "eth0"),
            ("", SourceName::Interface(ANY.into()), "any"),
            ("any", SourceName::Interface(ANY.into()), "any"),
            ("-", SourceName::Stdin, "stdin"),
            ("file:/tmp/a b.pcap", SourceName::File("/tmp/a b.pcap".into()), "a_b"),
            ("file:/tmp/a.pcap,follow", SourceName::Growing("/tmp/a.pcap".into()), "a"),
            ("file:,follow", SourceName::File(",follow".into()), "_follow"),
            ("stream:/run/.fifo", SourceName::Stream("/run/.fifo".into()), "_fifo"),
            ("tcp:sensor:57012", SourceName::Tcp("sensor:57012".into()), "sensor_57012"),
            ("tcp:[::1]:5", SourceName::Tcp("[::1]:5".into()), "__1_5"),
            (
                "tcp-listen:127.0.0.1:5,senders=2",
                SourceName::TcpListen("127.0.0.1:5,senders=2".into()),
                "127.0.0.1_5",
            ),
            ("file:/", SourceName::File("/".into()), "capture"),
        ] {
            assert_eq!(SourceName::parse(text), source);
            assert_eq!(source.default_alias(), alias);
        }
    }
}
