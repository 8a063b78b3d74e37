//! Interfaces in other network namespaces: of containers, and of `ip netns`.
//!
//! A packet socket belongs to the namespace in which it is made, wherever its process is. So only
//! the moment of opening needs a thread inside, and that thread ends at once: no other code of this
//! process ever runs in another namespace, and nothing there is looked at but its interfaces. A
//! process that may not enter has another one open the socket ([`open_namespaces_with`]).
//!
//! An open socket keeps a namespace alive after its last process. Therefore the capture itself looks
//! whether the name or process still leads to the same namespace, and lets it go if not.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use nix::fcntl::AtFlags;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstatat;

use super::{ANY, SourceError, real_name};

/// The directory in which `ip netns` keeps the namespaces with names, ip-netns(8).
const NAMED: &str = "/run/netns";

/// A source in another network namespace begins with this.
pub(super) const PREFIX: &str = "netns:";

/// Bytes of stack for a thread that opens a socket: libpcap has buffers of some KiB.
const STACK: usize = 512 << 10;

/// An interface in another network namespace, written `netns:NAME/IFACE`, `netns:PID/IFACE` or
/// `netns:/PATH/IFACE`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamespacedInterface {
    namespace: NetworkNamespace,
    /// The interface, or [`ANY`] for all of that namespace.
    interface: String,
}

/// Sockets that another process has opened in a network namespace, and which receive nothing yet.
#[derive(Debug)]
pub struct NamespaceSockets {
    /// A packet socket, bound to nothing: of whole frames for an interface, of cooked packets for
    /// all.
    pub packet: OwnedFd,
    /// A socket of netlink(7).
    pub route: OwnedFd,
    /// The real name of the interface, or [`ANY`].
    pub name: String,
    /// The number of the interface; 0 for all.
    pub index: u32,
    /// Device and inode of the namespace.
    pub identity: (u64, u64),
}

/// Why another process has opened no sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceRefusal {
    /// The namespace is missing; the text says what there is.
    NoNamespace(String),
    /// The interface is missing; the text says what there is.
    NoInterface(String),
    /// Another reason.
    Refused(String),
}

/// A way to have sockets opened by another process: the name, process or path of a namespace, and an
/// interface in it.
pub type NamespaceOpener =
    Box<dyn Fn(&str, &str) -> Result<NamespaceSockets, NamespaceRefusal> + Send + Sync>;

/// The other process.
static OPENER: OnceLock<NamespaceOpener> = OnceLock::new();

/// Has sockets in other namespaces opened in this way, for a process that may not enter them; only
/// the first call counts.
pub fn open_namespaces_with(opener: NamespaceOpener) {
    let _ = OPENER.set(opener);
}

/// How a network namespace is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum NetworkNamespace {
    /// By the name that `ip netns` has given it.
    Named(String),
    /// As that of a process.
    OfProcess(u32),
    /// By the path of a file that keeps it, as container engines make them.
    At(PathBuf),
}

impl NamespacedInterface {
    /// Parses what follows `netns:`.
    pub(super) fn parse(text: &str) -> Self {
        let (namespace, interface) = text.rsplit_once('/').unwrap_or((text, ""));
        let interface = if interface.is_empty() { ANY } else { interface };
        let namespace = match namespace.parse() {
            _ if namespace.starts_with('/') => NetworkNamespace::At(namespace.into()),
            Ok(process) => NetworkNamespace::OfProcess(process),
            Err(_) => NetworkNamespace::Named(namespace.to_owned()),
        };
        Self { namespace, interface: interface.to_owned() }
    }

    /// The interface's name inside.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The text from which the alias of a capture is made.
    pub(super) fn default_alias(&self) -> String {
        let namespace = match &self.namespace {
            NetworkNamespace::Named(name) => name.clone(),
            NetworkNamespace::OfProcess(process) => process.to_string(),
            NetworkNamespace::At(path) => {
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
        };
        format!("{namespace}.{}", self.interface)
    }

    /// Why it cannot be opened at present, as text for people.
    #[must_use]
    pub fn lack(&self) -> Option<String> {
        let found = self.inside(|| real_name(&self.interface));
        found.err().map(|error| error.of_source(&self.to_string()).to_string())
    }

    /// Runs `action` in a thread inside the namespace. Returns its result, and the namespace that
    /// was entered.
    ///
    /// # Errors
    /// [`SourceError::NoNamespace`], or why it cannot be entered.
    pub(super) fn inside<T: Send>(
        &self,
        action: impl FnOnce() -> Result<T, SourceError> + Send,
    ) -> Result<(T, EnteredNamespace), SourceError> {
        let path = self.namespace.path();
        let file = File::open(&path).map_err(|error| self.not_opened(&error))?;
        let metadata = file.metadata().map_err(|error| self.refused(&error))?;
        let identity = (metadata.dev(), metadata.ino());
        let entered = EnteredNamespace { path, identity, process: None };
        let value = thread::scope(|scope| {
            let builder = thread::Builder::new().name("netns".to_owned()).stack_size(STACK);
            let thread = builder.spawn_scoped(scope, || {
                setns(&file, CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| self.not_entered(errno.into()))?;
                action()
            });
            let joined = thread.map_err(|error| self.refused(&error))?.join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        Ok((value, entered))
    }

    /// Sockets in the namespace that another process opens, and the namespace; `None` if this
    /// process enters namespaces itself.
    ///
    /// # Errors
    /// [`SourceError`] with the reason of the other process.
    pub(super) fn received(
        &self,
    ) -> Option<Result<(NamespaceSockets, EnteredNamespace), SourceError>> {
        let opener = OPENER.get()?;
        // Before the namespace, so that no later process of this number is taken for this one.
        let process = match &self.namespace {
            NetworkNamespace::OfProcess(process) => File::open(format!("/proc/{process}")).ok(),
            NetworkNamespace::Named(_) | NetworkNamespace::At(_) => None,
        };
        let opened = opener(&self.namespace.to_string(), &self.interface);
        let name = self.to_string();
        Some(match opened {
            Ok(sockets) => {
                let identity = sockets.identity;
                Ok((sockets, EnteredNamespace { path: self.namespace.path(), identity, process }))
            }
            Err(NamespaceRefusal::NoNamespace(advice)) => {
                Err(SourceError::NoNamespace { name, advice })
            }
            Err(NamespaceRefusal::NoInterface(advice)) => {
                Err(SourceError::NoInterface { name, advice })
            }
            Err(NamespaceRefusal::Refused(why)) => Err(SourceError::NotEntered { name, why }),
        })
    }

    fn not_opened(&self, error: &io::Error) -> SourceError {
        match (error.kind(), &self.namespace) {
            (io::ErrorKind::NotFound, namespace) => {
                let advice = match namespace {
                    NetworkNamespace::Named(_) => listed(),
                    NetworkNamespace::OfProcess(process) => format!("no process {process}"),
                    NetworkNamespace::At(path) => format!("no file {}", path.display()),
                };
                SourceError::NoNamespace { name: self.to_string(), advice }
            }
            (io::ErrorKind::PermissionDenied, NetworkNamespace::OfProcess(process)) => self
                .not_permitted(format!(
                    "the namespaces of process {process} are closed to this user; root may look \
                     into them"
                )),
            _ => self.refused(error),
        }
    }

    /// The error for a failure of setns(2).
    fn not_entered(&self, error: io::Error) -> SourceError {
        match error.raw_os_error() {
            Some(libc::EPERM) => self.not_permitted(
                "entering another network namespace needs root, or CAP_SYS_ADMIN".to_owned(),
            ),
            Some(libc::EINVAL) => SourceError::NoNamespace {
                name: self.to_string(),
                advice: format!(
                    "{} keeps no network namespace, or one of another mount namespace",
                    self.namespace.path().display()
                ),
            },
            _ => self.refused(&error),
        }
    }

    pub(super) fn not_permitted(&self, why: String) -> SourceError {
        SourceError::NotEntered { name: self.to_string(), why }
    }

    fn refused(&self, error: &io::Error) -> SourceError {
        let error = error
            .raw_os_error()
            .map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error);
        SourceError::System { name: self.to_string(), error }
    }
}

impl std::fmt::Display for NamespacedInterface {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{PREFIX}{}/{}", self.namespace, self.interface)
    }
}

impl std::fmt::Display for NetworkNamespace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(name) => formatter.write_str(name),
            Self::OfProcess(process) => write!(formatter, "{process}"),
            Self::At(path) => write!(formatter, "{}", path.display()),
        }
    }
}

impl NetworkNamespace {
    /// The file that leads to the namespace, namespaces(7).
    fn path(&self) -> PathBuf {
        match self {
            Self::Named(name) => Path::new(NAMED).join(name),
            Self::OfProcess(process) => PathBuf::from(format!("/proc/{process}/ns/net")),
            Self::At(path) => path.clone(),
        }
    }
}

/// The namespaces with names, for a message.
fn listed() -> String {
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

/// A namespace that a thread was in.
#[derive(Debug)]
pub(super) struct EnteredNamespace {
    path: PathBuf,
    /// Device and inode of its file.
    identity: (u64, u64),
    /// The directory of the process whose namespace it is, for a process that may not look at the
    /// namespaces of that one.
    process: Option<File>,
}

impl EnteredNamespace {
    /// Returns `true` if it is that of this process.
    pub(super) fn is_own(&self) -> bool {
        let own = fs::metadata("/proc/self/ns/net");
        own.is_ok_and(|own| (own.dev(), own.ino()) == self.identity)
    }

    /// Why the name or process leads to this namespace no longer; `None` while it does.
    pub(super) fn lost(&self) -> Option<String> {
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.identity => None,
            Ok(_) => Some("it is another network namespace now".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("the network namespace is gone".to_owned())
            }
            // The namespace may still be there, unless its process has ended. The directory stays that
            // of the process when another one gets its number.
            Err(_) => {
                let process = self.process.as_ref()?;
                let found = fstatat(process, "stat", AtFlags::empty());
                found.is_err().then(|| "the network namespace is gone".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_read_as_they_are_written() {
        let at = |path: &str| NetworkNamespace::At(path.into());
        for (text, namespace, interface, alias, written) in [
            ("blue/eth0", NetworkNamespace::Named("blue".into()), "eth0", "blue.eth0", "blue/eth0"),
            ("blue/", NetworkNamespace::Named("blue".into()), ANY, "blue.any", "blue/any"),
            ("blue", NetworkNamespace::Named("blue".into()), ANY, "blue.any", "blue/any"),
            ("42/eth0", NetworkNamespace::OfProcess(42), "eth0", "42.eth0", "42/eth0"),
            ("/run/d/ab/lo", at("/run/d/ab"), "lo", "ab.lo", "/run/d/ab/lo"),
        ] {
            let parsed = NamespacedInterface::parse(text);
            assert_eq!((&parsed.namespace, parsed.interface()), (&namespace, interface), "{text}");
            assert_eq!(parsed.default_alias(), alias);
            assert_eq!(parsed.to_string(), format!("{PREFIX}{written}"));
            assert_eq!(NamespacedInterface::parse(written), parsed);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |text: &str| {
            let inside = NamespacedInterface::parse(text).inside(|| Ok(()));
            inside.unwrap_err().to_string()
        };
        let none = error("no-such-namespace/lo");
        assert!(
            none.starts_with("netns:no-such-namespace/lo: no such network namespace ("),
            "{none}"
        );
        assert!(error("4194305/lo").contains("(no process 4194305)"), "above the largest pid");
        assert!(error("/nonexistent/lo").contains("(no file /nonexistent)"));
        if nix::unistd::geteuid().is_root() {
            let other = error("/proc/self/status/lo");
            assert!(other.contains("keeps no network namespace"), "{other}");
        }
    }
}
