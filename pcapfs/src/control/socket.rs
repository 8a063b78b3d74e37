//! The socket in the file system: its path, its directory and its owner.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

use crate::paths::check_socket_dir;

/// Default path of the socket.
const DEFAULT: &str = "/run/pcapfs/control.sock";

/// Maximum number of bytes of a socket's path: `sun_path` of unix(7), without its final zero.
const MAX_PATH: usize = 107;

/// The default path of a daemon's socket; `None` if there is no place for it. `is_systems`: root
/// has started the daemon for all users, as `mount -t pcapfs` does, even if it runs as another
/// user.
pub(crate) fn daemon_path(is_systems: bool) -> Option<PathBuf> {
    if is_systems || geteuid().is_root() { Some(DEFAULT.into()) } else { users_path() }
}

/// The default path of the socket for a client: its user's daemon if that socket exists, otherwise
/// the system's.
pub(crate) fn client_path() -> PathBuf {
    let own = if geteuid().is_root() { None } else { users_path() };
    own.filter(|path| path.exists()).unwrap_or_else(|| DEFAULT.into())
}

fn users_path() -> Option<PathBuf> {
    let directory = PathBuf::from(env::var_os("XDG_RUNTIME_DIR")?);
    directory.is_absolute().then(|| directory.join("pcapfs/control.sock"))
}

/// Why a socket cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = .path.display())]
pub(crate) struct SocketError {
    path: PathBuf,
    why: String,
}

/// A listening socket, removed on drop.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Its path through the descriptor of its directory.
    inside: PathBuf,
    _directory: File,
    listener: Option<UnixListener>,
    /// Device and inode, to check whether the path still has this socket.
    identity: (u64, u64),
}

impl Socket {
    /// Listens at a path. A socket without a listening process is replaced.
    ///
    /// # Errors
    /// [`SocketError`]; also if another daemon listens there.
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let failure = |why: String| SocketError { path: path.to_owned(), why };
        if path.as_os_str().len() > MAX_PATH {
            return Err(failure(format!("longer than the {MAX_PATH} bytes a socket can have")));
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        if let Err(error) = DirBuilder::new().mode(0o755).create(directory)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(failure(format!("its directory cannot be made: {error}")));
        }
        // The socket is checked and removed in this directory, wherever the path leads later.
        let opened = File::open(directory).map_err(|error| failure(error.to_string()))?;
        let metadata = opened.metadata().map_err(|error| failure(error.to_string()))?;
        check_socket_dir(directory, &metadata).map_err(failure)?;
        let name = path.file_name().ok_or_else(|| failure("not the name of a file".to_owned()))?;
        let directory = opened.try_clone().map_err(|error| failure(error.to_string()))?;
        // By descriptor: links in the path are not followed again.
        let inside = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        // One daemon at a time looks whether a process listens there, and replaces the socket if
        // not. On a file system without locks, two that start in one moment may both go on.
        let _lock = Flock::lock(opened, FlockArg::LockExclusive);
        Self::replace_stale(&inside).map_err(failure)?;
        // Everyone may connect; the bits of the tree decide who gets an answer. A change of mode by
        // name could hit another file. Files that other threads create set their modes explicitly.
        let before = umask(Mode::from_bits_truncate(0o111));
        let listener = UnixListener::bind(&inside);
        umask(before);
        let listener = listener.map_err(|error| failure(error.to_string()))?;
        let described = || -> io::Result<(u64, u64)> {
            listener.set_nonblocking(true)?;
            let metadata = fs::symlink_metadata(&inside)?;
            if !is_socket(&metadata) || metadata.uid() != geteuid().as_raw() {
                return Err(io::Error::other("its directory was changed meanwhile"));
            }
            Ok((metadata.dev(), metadata.ino()))
        };
        let identity = described().map_err(|error| failure(error.to_string()))?;
        Ok(Self { inside, _directory: directory, listener: Some(listener), identity })
    }

    fn replace_stale(path: &Path) -> Result<(), String> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.to_string()),
            Ok(metadata) if !is_socket(&metadata) => {
                return Err("there is something that is no socket; remove it".to_owned());
            }
            Ok(_) => {}
        }
        match UnixStream::connect(path) {
            Ok(_) => Err("another pcapfs listens there (choose another --socket)".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| error.to_string())
            }
            // The queue of connections may be full, for example: a process is listening.
            Err(error) => Err(format!("somebody seems to listen there ({error})")),
        }
    }

    /// The listener to accept connections with.
    ///
    /// # Errors
    /// On every call after the first.
    pub(super) fn take_listener(&mut self) -> io::Result<UnixListener> {
        self.listener.take().ok_or_else(|| io::Error::other("the socket is served already"))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.inside);
        if there.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity) {
            // If it cannot be removed, it is replaced by the next daemon.
            let _ = fs::remove_file(&self.inside);
        }
    }
}

fn is_socket(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_socket()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_socket_is_changed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let place = directory.path().join("place");
        fs::create_dir(&place).unwrap();
        let path = place.join("control.sock");
        symlink(&secret, &path).unwrap();
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        fs::remove_file(&path).unwrap();
        let socket = Socket::bind(&path).unwrap();
        assert_eq!((mode(&secret), mode(&path)), (0o600, 0o666));
        // The path now leads to another directory, with a file of that name.
        fs::rename(&place, directory.path().join("moved")).unwrap();
        fs::create_dir(&place).unwrap();
        fs::write(&path, "another").unwrap();
        drop(socket);
        assert!(path.exists(), "not ours");
        assert!(!directory.path().join("moved/control.sock").exists(), "ours");
        fs::remove_file(&path).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("everybody may replace a socket"), "{error}");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o1777)).unwrap();
        drop(Socket::bind(&path).unwrap());
    }

    #[test]
    fn a_socket_is_replaced_only_if_no_process_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/control.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("another pcapfs listens there"), "{error}");
        drop(socket);
        assert!(!path.exists(), "removed at the end");

        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let socket = Socket::bind(&path).unwrap();
        // A file that another process has put there since is not ours to remove.
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"").unwrap();
        drop(socket);
        assert!(path.exists());
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
    }
}
