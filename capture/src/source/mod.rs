//! Where packets come from.
//!
//! A [`Source`] hands packets to a ring's [writer](Writer) until it is told to stop or has no more.
//! It knows nothing of who reads them. Savefiles are not here: a [savefile](crate::savefile) is a
//! store of its own.

mod arriving;
mod beside;
mod control;
mod fifo;
mod interface;
mod stdin;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use protocol::linktype::LinkType;

pub use control::Control;
pub use interface::{InterfaceInfo, interfaces, real_name};

use crate::filter::{FilterError, Runner};
use crate::ring::Writer;
use fifo::Fifo;
use interface::Live;
use stdin::Stdin;

/// The name under which all interfaces are captured at once.
pub const ANY: &str = "any";

/// What pcapng streams say of a time in which a capture was stopped.
pub(crate) const STOPPED: &str = "stopped";

/// After the path of a savefile that another program still writes.
const FOLLOW: &str = ",follow";

/// What a capture captures, as it is written: an interface, `any` or nothing for all of them,
/// `file:PATH`, `file:PATH,follow`, `stream:PATH`, or `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceName {
    /// A network interface, or [`ANY`].
    Interface(String),
    /// A savefile.
    File(PathBuf),
    /// A savefile that another program still writes: what is added is read as well.
    Growing(PathBuf),
    /// A FIFO that savefiles are written into.
    Stream(PathBuf),
    /// Standard input.
    Stdin,
}

impl SourceName {
    /// Who runs the filter of a capture of it. Savefiles of cooked packets have the direction of
    /// each packet, so theirs are checked again when they are opened.
    #[must_use]
    pub const fn filter_runner(&self) -> Runner {
        match self {
            Self::Interface(_) | Self::File(_) | Self::Growing(_) => Runner::Kernel,
            Self::Stream(_) | Self::Stdin => Runner::Process,
        }
    }

    /// Opens it. An interface that has no name of its own here may be found by another.
    ///
    /// # Errors
    /// [`SourceError`]; nothing stays open.
    ///
    /// # Panics
    /// For a savefile, which fills no ring.
    pub fn open(&self, options: &Options<'_>) -> Result<Box<dyn Source>, SourceError> {
        Ok(match self {
            Self::Interface(name) => Box::new(Live::open(name, options)?),
            Self::Stream(path) => Box::new(Fifo::open(path, options)?),
            Self::Stdin => Box::new(Stdin::open(options)?),
            Self::File(_) | Self::Growing(_) => unreachable!("a savefile fills no ring"),
        })
    }

    /// Reads a source as it is written.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "" => Self::Interface(ANY.to_owned()),
            "-" => Self::Stdin,
            _ => match (text.strip_prefix("file:"), text.strip_prefix("stream:")) {
                (Some(path), _) => Self::savefile(path.as_ref()),
                (_, Some(path)) => Self::Stream(path.into()),
                (None, None) => Self::Interface(text.to_owned()),
            },
        }
    }

    /// A savefile by its path, or by the path and `,follow`.
    #[must_use]
    pub fn savefile(path: &Path) -> Self {
        match path.as_os_str().as_bytes().strip_suffix(FOLLOW.as_bytes()) {
            Some(path) if !path.is_empty() => Self::Growing(OsStr::from_bytes(path).into()),
            _ => Self::File(path.to_owned()),
        }
    }

    /// The path of a savefile.
    #[must_use]
    pub fn savefile_path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Growing(path) => Some(path),
            Self::Interface(_) | Self::Stream(_) | Self::Stdin => None,
        }
    }

    /// The alias a capture of this source gets if it is given none: the interface's name, or the
    /// file's without its extension, with what an alias cannot have replaced.
    #[must_use]
    pub fn default_alias(&self) -> String {
        let name = match self {
            Self::Interface(name) => name.clone(),
            Self::File(path) | Self::Growing(path) | Self::Stream(path) => {
                path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
            }
            Self::Stdin => "stdin".to_owned(),
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
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Growing(path) => write!(formatter, "file:{}{FOLLOW}", path.display()),
            Self::Stream(path) => write!(formatter, "stream:{}", path.display()),
            Self::Stdin => formatter.write_str("-"),
        }
    }
}

/// A source that fills a ring.
///
/// The same source may run again after it was told to stop, unless it is [closed](Rest::Closed).
pub trait Source: std::fmt::Debug + Send {
    /// The link type of its packets; `None` if the first packet will say it.
    fn link_type(&self) -> Option<LinkType>;

    /// What becomes of it while its capture is stopped.
    fn rest(&self) -> Rest;

    /// Fills the ring until `control` says stop, or there is no more. Publishes each batch, and calls
    /// [`Observer::tick`] after it. Carries out the other orders of `control` between batches.
    ///
    /// # Errors
    /// [`SourceError::Lost`] if it may come back, and any other if not. All packets that came before
    /// are in the ring.
    fn run(
        &mut self,
        writer: &mut Writer,
        control: &Control,
        observer: &mut dyn Observer,
    ) -> Result<Ended, SourceError>;
}

/// What becomes of a source while its capture is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It is closed, and opened again at the start. What comes meanwhile is not captured.
    Closed,
    /// It is held open, and not read. It goes on where it was.
    Held,
    /// It goes on to run, with [`Control::pause`]: it is read, and nothing is stored. Who writes into
    /// it must not be held up.
    Drained,
}

/// Who hears of a source while it runs.
pub trait Observer {
    /// A batch was published, or a few seconds have passed.
    fn tick(&mut self, writer: &Writer);

    /// Something is wrong that does not end the source: with one of several writers, or with packets
    /// that the ring cannot hold. `None` if all is well again.
    fn trouble(&mut self, error: Option<&SourceError>);
}

/// How a source is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Only packets that match this expression are stored.
    pub filter: Option<&'a str>,
    /// Most bytes kept of one packet.
    pub snaplen: u32,
    /// Receive frames that are for other stations, too. [`ANY`] and devices that are no network
    /// interfaces know nothing of it.
    pub promiscuous: bool,
    /// Bytes in which the kernel keeps packets of an interface until they are fetched; 2 GiB is the
    /// maximum.
    pub kernel_buffer: u64,
    /// Keep the decryption secrets that a pcapng stream has.
    pub export_keys: bool,
}

/// Why a source cannot be opened, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no interface of this name.
    #[error("{name}: no such interface ({advice})")]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The names there are, or what the name may mean instead.
        advice: String,
    },
    /// The process may not open a packet socket.
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
        /// What it said.
        why: String,
    },
    /// The interface went away or down, or its socket failed.
    #[error("{name}: {why}")]
    Lost {
        /// The interface.
        name: String,
        /// What happened.
        why: String,
    },
    /// The filter does not compile.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A link type that savefiles have no number for.
    #[error("{name}: its link type {dlt} has no savefile number")]
    LinkType {
        /// The interface.
        name: String,
        /// libpcap's number.
        dlt: i32,
    },
    /// The packets to come cannot be in one savefile with those stored.
    #[error("{name}: now sends {sent} packets, this capture holds {held}")]
    Changed {
        /// The source.
        name: String,
        /// Link type stored.
        held: LinkType,
        /// Link type to come.
        sent: LinkType,
    },
    /// A stream of which a capture cannot hold all.
    #[error("{name}: {left_out}")]
    NotAll {
        /// The source.
        name: String,
        /// What is left out, up to now.
        left_out: LeftOut,
    },
    /// A stream that is no savefile.
    #[error("{name}: {why}")]
    Malformed {
        /// The source.
        name: String,
        /// What is wrong and where.
        why: String,
    },
    /// A path that is no FIFO.
    #[error("{path}: not a FIFO (make one with: mkfifo {path}; a savefile is file:{path})", path = .path.display())]
    NotAFifo {
        /// The path.
        path: PathBuf,
    },
    /// A path at which there is nothing.
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
        /// What it said.
        error: io::Error,
    },
}

impl SourceError {
    /// There is no interface of this name; these there are.
    fn no_interface(name: &str, have: &[String]) -> Self {
        let have = have.join(", ");
        let kind = name.split_once(':').map(|(kind, _)| kind);
        let advice = match kind {
            Some(kind) if !kind.contains('/') => format!(
                "'{kind}:' is no kind of source either: a source is an interface, any, file:PATH, \
                 stream:PATH or -; have: {have}"
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

/// What a capture cannot hold of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Link type stored.
    pub held: LinkType,
    /// Packets of others: a capture holds one link type.
    pub packets: u64,
    /// Blocks, and options of packets, that a pcapng stream says beside packets: those that are
    /// damaged, longer than 1 MiB, behind the last packet, or do not fit a segment of the ring
    /// beside their packet.
    pub notes: u64,
    /// Interfaces that are taken for others: a ring tells 64 apart.
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
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// There is no more to come.
    Exhausted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_interface_may_be_something_else() {
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
            ("file:/", SourceName::File("/".into()), "capture"),
        ] {
            assert_eq!(SourceName::parse(text), source);
            assert_eq!(source.default_alias(), alias);
        }
    }
}
