//! The remotes that a user, or this machine, knows: names of other machines, in `remotes.toml`.
//!
//! The user's file counts before the system's. Neither is read if another user may write to it: it
//! says where requests go, and which key is shown there.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use capture::source::HostAndPort;
use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;
use serde_json::Value;

use super::DEFAULT_PORT;
use super::certificate::Fingerprint;
use super::identity::check_host_name;
use super::secret_file;

/// The remotes of the system.
const SYSTEM: &str = "/etc/pcapfs/remotes.toml";

/// Words that begin a source, so no remote can have them as its name.
const RESERVED: [&str; 15] = [
    "any",
    "file",
    "stream",
    "nflog",
    "nfqueue",
    "tcp",
    "tcp-listen",
    "tls",
    "tls-listen",
    "remote",
    "netns",
    "tap",
    "tun",
    "xdp",
    "usbmon",
];

/// The address of a remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RemoteAddress {
    /// A service over TLS: `pcap://HOST[:PORT]`.
    Tls {
        /// A name or an address, without brackets.
        host: String,
        port: u16,
    },
    /// A socket of this machine, such as one that ssh forwards: `pcap+unix:///PATH`.
    Unix(PathBuf),
}

impl std::fmt::Display for RemoteAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls { host, port } => {
                let place = HostAndPort { host: host.clone(), port: *port };
                write!(formatter, "pcap://{place}")
            }
            Self::Unix(path) => write!(formatter, "pcap+unix://{}", path.display()),
        }
    }
}

impl FromStr for RemoteAddress {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("pcap+unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(format!("'{url}': write the whole path of the socket: pcap+unix:///PATH"))
            };
        }
        let wrong = |why: &str| format!("'{url}' is no URL of a remote: {why}");
        let form = "write pcap://HOST or pcap://HOST:PORT, or pcap+unix:///PATH for a socket";
        let place = url.strip_prefix("pcap://").ok_or_else(|| wrong(form))?;
        let place = place.strip_suffix('/').unwrap_or(place);
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(|| wrong(form))?;
                (host, rest.strip_prefix(':').or(if rest.is_empty() { None } else { Some(rest) }))
            }
            None => match place.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (place, None),
            },
        };
        check_host_name(host).map_err(|why| wrong(&why))?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| wrong(&format!("'{port}' is no port")))?,
        };
        Ok(Self::Tls { host: host.to_owned(), port })
    }
}

/// Another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) name: String,
    pub(crate) address: RemoteAddress,
    /// The certificate that this side shows, in a file of `pcapfs identity issue`.
    pub(crate) identity: Option<PathBuf>,
    /// The only certificate that is believed of the other side, instead of its authority and name.
    pub(crate) sha256: Option<Fingerprint>,
}

/// One `[NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoteTable {
    url: String,
    identity: Option<PathBuf>,
    sha256: Option<String>,
}

/// Why remotes cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = .path.display())]
pub(crate) struct RemotesError {
    path: PathBuf,
    /// For people.
    why: String,
}

impl RemotesError {
    fn new(path: &Path, why: impl ToString) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

/// True if a remote can have this name.
///
/// # Errors
/// The reason, for people.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if !capture::pipeline::is_alias(name) {
        return Err(format!(
            "'{name}' is no name of a remote: 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front"
        ));
    }
    if is_reserved(name) {
        return Err(format!("'{name}' is no name of a remote: sources begin with it"));
    }
    Ok(())
}

/// True if a word before a colon begins a source, and is no remote.
pub(crate) fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// The user's own file; `None` if there is no place for one.
pub(crate) fn user_file() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("pcapfs/remotes.toml"))
}

/// The system's file.
pub(crate) fn system_file() -> PathBuf {
    SYSTEM.into()
}

/// All remotes that this process knows, the user's first, by name; no name comes twice.
///
/// # Errors
/// A file that cannot be read or is wrong.
pub(crate) fn load() -> Result<Vec<Remote>, RemotesError> {
    let mut all: Vec<Remote> = Vec::new();
    for file in user_file().into_iter().chain([system_file()]) {
        for remote in read(&file)? {
            if all.iter().all(|known| known.name != remote.name) {
                all.push(remote);
            }
        }
    }
    Ok(all)
}

/// The remotes of one file; none if it does not exist.
///
/// # Errors
/// It cannot be read, or is wrong.
pub(crate) fn read(path: &Path) -> Result<Vec<Remote>, RemotesError> {
    let bytes = match secret_file::read_public(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RemotesError::new(path, error)),
    };
    let text = String::from_utf8(bytes).map_err(|_| RemotesError::new(path, "no text"))?;
    let file: BTreeMap<String, RemoteTable> =
        toml::from_str(&text).map_err(|error| RemotesError::new(path, error.message()))?;
    let parsed = file.into_iter().map(|(name, table)| {
        check_name(&name)?;
        let sha256 = table.sha256.as_deref().map(str::parse).transpose()?;
        Ok(Remote { address: table.url.parse()?, name, identity: table.identity, sha256 })
    });
    parsed.collect::<Result<Vec<_>, String>>().map_err(|why| RemotesError::new(path, why))
}

/// Adds a remote to a file.
///
/// # Errors
/// If the file has one of this name, and errors of writing.
pub(crate) fn add(path: &Path, remote: Remote) -> Result<(), RemotesError> {
    change(path, |remotes| {
        if remotes.iter().any(|known| known.name == remote.name) {
            let name = &remote.name;
            return Err(format!(
                "there is a remote '{name}' (remove it first: pcapfs remote remove {name})"
            ));
        }
        remotes.push(remote);
        Ok(())
    })
}

/// Removes a remote from a file, and returns whether it was there.
///
/// # Errors
/// Errors of reading and writing.
pub(crate) fn remove(path: &Path, name: &str) -> Result<bool, RemotesError> {
    if read(path)?.iter().all(|known| known.name != name) {
        return Ok(false);
    }
    change(path, |remotes| {
        remotes.retain(|known| known.name != name);
        Ok(())
    })?;
    Ok(true)
}

/// Reads a file, changes its remotes and replaces it, while no other command does.
fn change(
    path: &Path,
    change: impl FnOnce(&mut Vec<Remote>) -> Result<(), String>,
) -> Result<(), RemotesError> {
    let failure = |why: String| RemotesError::new(path, why);
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let opened = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    let opened = opened.and_then(|()| File::open(folder));
    let opened = opened.map_err(|error| failure(error.to_string()))?;
    let _lock = Flock::lock(opened, FlockArg::LockExclusive)
        .map_err(|(_, error)| failure(error.desc().to_owned()))?;
    let mut remotes = read(path)?;
    change(&mut remotes).map_err(failure)?;
    let replaced = secret_file::replace(path, text(&remotes).as_bytes());
    replaced.map_err(|error| failure(error.to_string()))
}

/// Remotes as they are written.
fn text(remotes: &[Remote]) -> String {
    let mut text = "# Other machines; pcapfs remote add and remove change this file.\n".to_owned();
    for Remote { name, address, identity, sha256 } in remotes {
        // A string of JSON is one of TOML.
        let quoted = |value: &str| Value::from(value).to_string();
        let _ = write!(text, "\n[{}]\nurl = {}\n", quoted(name), quoted(&address.to_string()));
        if let Some(path) = identity {
            let _ = writeln!(text, "identity = {}", quoted(&path.to_string_lossy()));
        }
        if let Some(fingerprint) = sha256 {
            let _ = writeln!(text, "sha256 = \"{fingerprint}\"");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn remote(name: &str, url: &str) -> Remote {
        let address = url.parse().unwrap();
        Remote { name: name.to_owned(), address, identity: None, sha256: None }
    }

    #[test]
    fn urls_are_read_and_printed_in_one_form() {
        for (url, printed) in [
            ("pcap://hall-a", "pcap://hall-a:2020"),
            ("pcap://hall-a.example:3030/", "pcap://hall-a.example:3030"),
            ("pcap://192.0.2.1", "pcap://192.0.2.1:2020"),
            ("pcap://[2001:db8::1]", "pcap://[2001:db8::1]:2020"),
            ("pcap://[2001:db8::1]:3", "pcap://[2001:db8::1]:3"),
            ("pcap://2001:db8::1", "pcap://[2001:db8::1]:2020"),
            ("pcap+unix:///run/x.sock", "pcap+unix:///run/x.sock"),
        ] {
            assert_eq!(url.parse::<RemoteAddress>().unwrap().to_string(), printed);
        }
        for url in [
            "hall-a",
            "http://hall-a",
            "pcap://",
            "pcap://a b",
            "pcap://a:0",
            "pcap://a:x",
            "pcap://[::1",
            "pcap://[::1]x",
            "pcap+unix://run/x",
            "pcap://user@host",
        ] {
            assert!(url.parse::<RemoteAddress>().is_err(), "{url}");
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/remotes.toml");
        assert_eq!(read(&path).unwrap(), []);
        let first = remote("hall-a", "pcap://hall-a:2020");
        let second = Remote {
            identity: Some("/home/a \"b\"/hall.pem".into()),
            sha256: Some(Fingerprint::of(b"")),
            ..remote("b", "pcap+unix:///run/b\\c.sock")
        };
        add(&path, first.clone()).unwrap();
        add(&path, second.clone()).unwrap();
        // By name.
        assert_eq!(read(&path).unwrap(), [second.clone(), first.clone()]);
        let error = add(&path, first).unwrap_err().to_string();
        assert!(error.contains("remove it first: pcapfs remote remove hall-a"), "{error}");
        assert!(remove(&path, "hall-a").unwrap() && !remove(&path, "hall-a").unwrap());
        assert_eq!(read(&path).unwrap(), [second]);
        fs::write(&path, "[x]\nurl = \"pcap://x\"\nport = 3\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("port"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("other users may write"));
    }

    #[test]
    fn names_that_begin_sources_are_none_of_remotes() {
        assert_eq!(check_name("hall-a"), Ok(()));
        for name in ["tcp", "nflog", ".x", "", "a:b", "a/b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
