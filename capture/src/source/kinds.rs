//! The sources of captures as they are written: one place knows the kinds, and what each can.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::fifo::Fifo;
use super::interface::{self, SeveralInterfaces};
use super::namespace::{NamespacedInterface, PREFIX as NETNS};
use super::network::{self, TCP, TCP_LISTEN};
use super::stdin::Stdin;
use super::xdp::{self, PREFIX as XDP, XdpInterface, XdpSource};
use super::{ANY, ExternalSource, Source, SourceError, SourceOptions};
use crate::filter::Runner;

/// The written forms of sources that begin with their kind, for messages: those of this crate, and
/// those that the program brings.
pub const FORMS: &str = "netns:NAME/IFACE, netns:PID/IFACE, xdp:IFACE, file:PATH, stream:PATH, \
     tcp:HOST:PORT, tcp-listen:ADDR:PORT, tls:HOST:PORT, tls-listen:ADDR:PORT, \
     remote:NAME/CAPTURE, tap:NAME, tun:NAME";

/// Suffix of the path of a savefile that another program is still writing.
const FOLLOW: &str = ",follow";

/// The source of a capture. It is written as an interface, interfaces with commas between them,
/// `any` or nothing for all interfaces,
/// `netns:NAME/IFACE`, `netns:PID/IFACE`, `xdp:IFACE`, `file:PATH`, `file:PATH,follow`, `stream:PATH`,
/// `tcp:HOST:PORT`, `tcp-listen:ADDR:PORT`, or `-`.
///
/// Other code asks the methods what a source can, and does not match the variants. So a new kind is
/// decided here, where the compiler asks for each answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceName {
    /// A network interface, or [`ANY`].
    Interface(String),
    /// Several network interfaces, in one capture.
    Several(Vec<String>),
    /// The same in another network namespace.
    Namespaced(NamespacedInterface),
    /// A network interface whose packets are taken from the system through AF_XDP: its name and
    /// options as they were written.
    Xdp(String),
    /// A savefile.
    File(PathBuf),
    /// A savefile that another program is still writing; added packets are read as well.
    Growing(PathBuf),
    /// A FIFO that programs write savefiles into.
    Stream(PathBuf),
    /// Standard input.
    Stdin,
    /// A far end to connect to, which sends a savefile over TCP: a [`HostAndPort`](super::HostAndPort) as it was
    /// written.
    Tcp(String),
    /// An address at which senders of savefiles connect: a [`ListenAddress`](super::ListenAddress) as it was written.
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
            Self::Interface(_)
            | Self::Several(_)
            | Self::Namespaced(_)
            | Self::File(_)
            | Self::Growing(_) => Runner::Kernel,
            Self::Stream(_)
            | Self::Stdin
            | Self::Tcp(_)
            | Self::TcpListen(_)
            | Self::Xdp(_)
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
            Self::Interface(name) => interface::open(name, options)?,
            Self::Several(names) => Box::new(SeveralInterfaces::open(names, options)?),
            Self::Namespaced(place) => interface::open_inside(place, options)?,
            Self::Xdp(text) => Box::new(XdpSource::open(text, options)?),
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
                } else if let Some(place) = text.strip_prefix(TCP) {
                    Self::Tcp(place.to_owned())
                } else if let Some(place) = text.strip_prefix(TCP_LISTEN) {
                    Self::TcpListen(place.to_owned())
                } else if let Some(place) = text.strip_prefix(NETNS) {
                    Self::Namespaced(NamespacedInterface::parse(place))
                } else if let Some(place) = text.strip_prefix(XDP) {
                    Self::Xdp(place.to_owned())
                } else if text.contains(',') && !text.contains(':') {
                    Self::Several(text.split(',').map(str::to_owned).collect())
                } else {
                    Self::Interface(text.to_owned())
                }
            }
        }
    }

    /// The mistake in the written form of a source that names a place in the network or has
    /// options, for people.
    #[must_use]
    pub fn mistake(&self) -> Option<String> {
        let error = match self {
            Self::Tcp(text) => network::far_end(text).err(),
            Self::TcpListen(text) => network::listen_address(text).err(),
            Self::Xdp(text) => XdpInterface::parse(text).err().map(|why| self.misplaced(why)),
            _ => None,
        };
        error.map(|error| error.to_string())
    }

    fn misplaced(&self, why: String) -> SourceError {
        SourceError::Place { name: self.to_string(), why }
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
            Self::Interface(_) | Self::Several(_) | Self::Namespaced(_) | Self::Xdp(_) => true,
            Self::File(_)
            | Self::Growing(_)
            | Self::Stream(_)
            | Self::Stdin
            | Self::Tcp(_)
            | Self::TcpListen(_)
            | Self::External(_) => false,
        }
    }

    /// Returns `true` if packets come from interfaces in the network namespace of this process, over
    /// which its own connections may go.
    #[must_use]
    pub fn is_of_own_network(&self) -> bool {
        match self {
            Self::Interface(_) | Self::Several(_) => true,
            other => other.external().is_some_and(|source| source.interface().is_some()),
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
            | Self::Several(_)
            | Self::Namespaced(_)
            | Self::Xdp(_)
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
            | Self::Several(_)
            | Self::Namespaced(_)
            | Self::Xdp(_)
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
            | Self::Several(_)
            | Self::Namespaced(_)
            | Self::Xdp(_)
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
            | Self::Several(_)
            | Self::Namespaced(_)
            | Self::Xdp(_)
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
            // The others are described when their first packets come.
            Self::Several(names) => names.first().cloned().unwrap_or_default(),
            Self::Namespaced(place) => place.interface().to_owned(),
            Self::Xdp(text) => xdp::interface_of(text).to_owned(),
            other => {
                let interface = other.external().and_then(|source| source.interface());
                interface.map_or_else(|| other.to_string(), str::to_owned)
            }
        }
    }

    /// The description of the interface in pcapng files: which one it is, if its name does not say
    /// that.
    #[must_use]
    pub fn interface_description(&self) -> Option<String> {
        matches!(self, Self::Namespaced(_) | Self::Xdp(_)).then(|| self.to_string())
    }

    /// The source of a kind that the program brings.
    #[must_use]
    pub const fn external(&self) -> Option<&ExternalSource> {
        match self {
            Self::External(source) => Some(source),
            _ => None,
        }
    }

    /// The path of a savefile.
    #[must_use]
    pub fn savefile_path(&self) -> Option<&Path> {
        match self {
            // Its path is that of a FIFO.
            Self::Stream(_) => None,
            other => other.path(),
        }
    }

    /// The alias that a capture of this source gets by default: the interface's name, the file's
    /// name without its extension, or the host and port. Characters that an alias cannot have are
    /// replaced.
    #[must_use]
    pub fn default_alias(&self) -> String {
        let name = match self {
            Self::Interface(name) => name.clone(),
            Self::Several(names) => names.join("_"),
            Self::Namespaced(place) => place.default_alias(),
            Self::Xdp(text) => xdp::interface_of(text).to_owned(),
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
            Self::Several(names) => formatter.write_str(&names.join(",")),
            Self::Namespaced(place) => place.fmt(formatter),
            Self::Xdp(text) => write!(formatter, "{XDP}{text}"),
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Growing(path) => write!(formatter, "file:{}{FOLLOW}", path.display()),
            Self::Stream(path) => write!(formatter, "stream:{}", path.display()),
            Self::Stdin => formatter.write_str("-"),
            Self::Tcp(place) => write!(formatter, "{TCP}{place}"),
            Self::TcpListen(place) => write!(formatter, "{TCP_LISTEN}{place}"),
            Self::External(source) => formatter.write_str(source.written()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_they_are_written() {
        for (text, source, alias) in [
            ("eth0", SourceName::Interface("eth0".into()), "eth0"),
            ("", SourceName::Interface(ANY.into()), "any"),
            ("any", SourceName::Interface(ANY.into()), "any"),
            ("eth0,eth1", SourceName::Several(vec!["eth0".into(), "eth1".into()]), "eth0_eth1"),
            ("nflog:5,6", SourceName::Interface("nflog:5,6".into()), "nflog_5_6"),
            ("-", SourceName::Stdin, "stdin"),
            ("file:/tmp/a b.pcap", SourceName::File("/tmp/a b.pcap".into()), "a_b"),
            ("file:/tmp/a.pcap,follow", SourceName::Growing("/tmp/a.pcap".into()), "a"),
            ("file:,follow", SourceName::File(",follow".into()), "_follow"),
            ("xdp:eth1", SourceName::Xdp("eth1".into()), "eth1"),
            ("xdp:eth1,queues=0,2", SourceName::Xdp("eth1,queues=0,2".into()), "eth1"),
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
