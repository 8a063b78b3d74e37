//! Sockets in another network namespace, for a daemon that may not enter one.
//!
//! The supervisor opens a packet socket that receives nothing yet, and a socket that asks the kernel
//! about interfaces there. Both belong to the namespace in which they are made, wherever their process
//! is, so the daemon does the rest: it needs no right to enter. Only a thread that ends at once is
//! inside, and it looks at nothing there but interfaces.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::net::if_::{if_indextoname, if_nameindex, if_nametoindex};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::xdp;

/// The directory in which `ip netns` keeps the namespaces with names, ip-netns(8).
const NAMED: &str = "/run/netns";

/// All interfaces of a namespace, and every namespace in a list of those that root has named.
pub const ANY: &str = "any";

/// Maximum bytes of the name, number or path of a namespace.
const NAMESPACE_MAX: usize = 256;

/// Bytes of stack for the thread that makes the sockets.
const STACK: usize = 128 << 10;

/// A request for sockets, written `INTERFACE NAMESPACE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetnsRequest {
    /// Name, process or path.
    pub namespace: String,
    /// A name of the interface, or [`ANY`].
    pub interface: String,
}

/// Sockets of a namespace, which receive nothing yet.
#[derive(Debug)]
pub struct NetnsSockets {
    /// A packet socket, bound to nothing: of whole frames for an interface, of cooked packets for
    /// all.
    pub packet: OwnedFd,
    /// A socket of netlink(7).
    pub route: OwnedFd,
    /// The interface.
    pub description: NetnsDescription,
}

/// What the sockets are for, written `INDEX DEVICE INODE NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetnsDescription {
    /// The real name of the interface, or [`ANY`].
    pub name: String,
    /// The number of the interface; 0 for all.
    pub index: u32,
    /// Device and inode of the namespace.
    pub identity: (u64, u64),
}

/// Why there are no sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetnsRefusal {
    /// The namespace is missing; the text says what there is.
    NoNamespace(String),
    /// The interface is missing; the text says what there is.
    NoInterface(String),
    /// Another reason.
    Refused(String),
}

impl NetnsRequest {
    /// Parses the written form; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (interface, namespace) = text.split_once(' ')?;
        (xdp::is_name(interface) && is_namespace(namespace))
            .then(|| Self { namespace: namespace.to_owned(), interface: interface.to_owned() })
    }

    /// Makes the sockets.
    ///
    /// # Errors
    /// [`NetnsRefusal`]
    pub fn open(&self) -> Result<NetnsSockets, NetnsRefusal> {
        let file = self.namespace()?;
        let metadata = file.metadata().map_err(|error| refused(&error))?;
        let identity = (metadata.dev(), metadata.ino());
        thread::scope(|scope| {
            let builder = thread::Builder::new().name("netns".to_owned()).stack_size(STACK);
            let thread = builder.spawn_scoped(scope, || {
                setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| refused(&errno.into()))?;
                self.sockets(identity)
            });
            let joined = thread.map_err(|error| refused(&error))?.join();
            joined.unwrap_or_else(|_| Err(NetnsRefusal::Refused("an error of this program".into())))
        })
    }

    /// Opens the file of the namespace. The daemon may have chosen the path, so nothing is opened
    /// before it is known to be a namespace: opening a device may have an effect.
    fn namespace(&self) -> Result<File, NetnsRefusal> {
        let path = path(&self.namespace);
        let place = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path);
        let place = place.map_err(|error| match (error.kind(), &self.namespace) {
            (io::ErrorKind::NotFound, name) => NetnsRefusal::NoNamespace(advice(name)),
            (io::ErrorKind::PermissionDenied, name) if name.parse::<u32>().is_ok() => {
                NetnsRefusal::Refused(format!(
                    "mount.pcapfs may not look at the namespaces of process {name} (it takes \
                     CAP_SYS_PTRACE)"
                ))
            }
            _ => refused(&error),
        })?;
        let kind = fstatfs(&place).map_err(|errno| refused(&errno.into()))?;
        if kind.filesystem_type() != NSFS_MAGIC {
            return Err(NetnsRefusal::NoNamespace(format!(
                "{} keeps no network namespace, or one of another mount namespace",
                path.display()
            )));
        }
        File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(|error| refused(&error))
    }

    /// The sockets, in the namespace of this thread.
    fn sockets(&self, identity: (u64, u64)) -> Result<NetnsSockets, NetnsRefusal> {
        let (index, name) = self.find()?;
        let kind = if index == 0 { SockType::Datagram } else { SockType::Raw };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol, it receives nothing.
        let packet = socket(AddressFamily::Packet, kind, flags, None);
        let route = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        );
        Ok(NetnsSockets {
            packet: packet.map_err(|errno| refused(&errno.into()))?,
            route: route.map_err(|errno| refused(&errno.into()))?,
            description: NetnsDescription { name, index, identity },
        })
    }

    /// The interface's number and real name.
    fn find(&self) -> Result<(u32, String), NetnsRefusal> {
        if self.interface == ANY {
            return Ok((0, ANY.to_owned()));
        }
        // The kernel finds an interface by any of its names, and returns the real one.
        let found = if_nametoindex(self.interface.as_str())
            .and_then(|index| Ok((index, if_indextoname(index)?.to_string_lossy().into_owned())));
        found.map_err(|_| {
            let interfaces = if_nameindex();
            let names = interfaces.iter().flat_map(|interfaces| interfaces.iter());
            let names: Vec<_> =
                names.map(|one| one.name().to_string_lossy().into_owned()).collect();
            NetnsRefusal::NoInterface(format!("have: {}", names.join(", ")))
        })
    }
}

impl fmt::Display for NetnsRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.interface, self.namespace)
    }
}

impl NetnsDescription {
    /// Parses the written form; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let index = words.next()?.parse().ok()?;
        let identity = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let name = words.next()?.to_owned();
        words.next().is_none().then_some(Self { name, index, identity })
    }
}

impl fmt::Display for NetnsDescription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, index, identity: (device, inode) } = self;
        write!(formatter, "{index} {device} {inode} {name}")
    }
}

/// Returns true if a namespace can be named like this: by a name, a process or a path.
#[must_use]
pub fn is_namespace(text: &str) -> bool {
    let is_named = !text.contains('/') && ![".", ".."].contains(&text);
    (1..=NAMESPACE_MAX).contains(&text.len())
        && (is_named || text.starts_with('/'))
        && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// The namespace of a source that is written `netns:NAMESPACE/INTERFACE`; `None` for other sources.
#[must_use]
pub fn namespace(source: &str) -> Option<&str> {
    let place = source.strip_prefix("netns:")?;
    let namespace = place.rsplit_once('/').map_or(place, |(namespace, _)| namespace);
    is_namespace(namespace).then_some(namespace)
}

/// The file that leads to the namespace, namespaces(7).
fn path(namespace: &str) -> PathBuf {
    if namespace.starts_with('/') {
        return namespace.into();
    }
    match namespace.parse::<u32>() {
        Ok(process) => format!("/proc/{process}/ns/net").into(),
        Err(_) => Path::new(NAMED).join(namespace),
    }
}

/// What there is instead of a namespace.
fn advice(namespace: &str) -> String {
    if namespace.starts_with('/') {
        return format!("no file {namespace}");
    }
    if let Ok(process) = namespace.parse::<u32>() {
        return format!("no process {process}");
    }
    let entries = fs::read_dir(NAMED).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    if names.is_empty() {
        "there is none with a name".to_owned()
    } else {
        format!("have: {}", names.join(", "))
    }
}

fn refused(error: &io::Error) -> NetnsRefusal {
    NetnsRefusal::Refused(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_read_as_they_are_written() {
        for text in ["eth0 blue", "any 4711", "lo /run/docker/netns/1a2b"] {
            assert_eq!(NetnsRequest::parse(text).unwrap().to_string(), text);
        }
        let long = format!("lo /{}", "x".repeat(NAMESPACE_MAX));
        for text in
            ["", "eth0", "eth0 ", "eth0 ..", "eth0 a/b", "a/b blue", "eth0 a b", "lo a\nb", &long]
        {
            assert_eq!(NetnsRequest::parse(text), None, "{text}");
        }
        let description = NetnsDescription::parse("2 4 4026532000 eth0").unwrap();
        assert_eq!(description.to_string(), "2 4 4026532000 eth0");
        for text in ["", "2 4 5", "x 4 5 eth0", "2 4 5 eth0 more"] {
            assert_eq!(NetnsDescription::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_namespace_of_a_source_is_found() {
        for (source, found) in [
            ("netns:blue/eth0", Some("blue")),
            ("netns:blue", Some("blue")),
            ("netns:17/any", Some("17")),
            ("netns:/run/x/y/eth0", Some("/run/x/y")),
            ("netns:", None),
            ("eth0", None),
        ] {
            assert_eq!(namespace(source), found, "{source}");
        }
    }

    #[test]
    fn only_the_file_of_a_namespace_is_opened() {
        let refusal = |text: &str| NetnsRequest::parse(text).unwrap().open().unwrap_err();
        for (text, part) in [
            ("lo /dev/null", "/dev/null keeps no network namespace"),
            ("lo /nonexistent", "no file /nonexistent"),
            ("lo 4194305", "no process 4194305"),
        ] {
            match refusal(text) {
                NetnsRefusal::NoNamespace(why) => assert!(why.contains(part), "{why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        if nix::unistd::geteuid().is_root() {
            let own = std::process::id();
            let sockets = NetnsRequest::parse(&format!("lo {own}")).unwrap().open().unwrap();
            assert_eq!((sockets.description.index, sockets.description.name.as_str()), (1, "lo"));
            let missing = refusal(&format!("no-such {own}"));
            assert!(
                matches!(&missing, NetnsRefusal::NoInterface(have) if have.contains("lo")),
                "{missing:?}"
            );
        }
    }
}
