//! Mounts and unmounts trees.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use mount_helper::mountinfo::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::statvfs::statvfs;

use crate::namespace;
use crate::table;

/// The file system type in `/proc/mounts`.
const TYPE: &str = "fuse.pcapfs";

/// The kernel checks the permission bits for every user: they are the access control.
const DATA: &str = "rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other";

/// Why no tree was mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountedTreeError {
    #[error("{path}: no such directory (make it with: mkdir -p {path})", path = .0.display())]
    Missing(PathBuf),
    #[error("{path}: not a directory", path = .0.display())]
    NotADirectory(PathBuf),
    #[error("{path}: busy, a pcapfs is mounted there (end it with: umount {path})", path = .0.display())]
    Busy(PathBuf),
    #[error(
        "/dev/fuse: {0} (is the fuse module loaded? modprobe fuse; in a container: --device /dev/fuse)"
    )]
    Device(io::Error),
    #[error(
        "{path}: mounting takes CAP_SYS_ADMIN, which this process has not got (in a container: --cap-add SYS_ADMIN --device /dev/fuse)",
        path = .0.display()
    )]
    NotCapable(PathBuf),
    #[error("{path}: {error}", path = .path.display())]
    Refused { path: PathBuf, error: io::Error },
}

impl MountedTreeError {
    fn refused(path: &Path, error: impl Into<io::Error>) -> Self {
        Self::Refused { path: path.to_owned(), error: error.into() }
    }
}

/// A path in the form of the table of mounts: absolute, without links.
///
/// # Errors
/// If there is no current directory for a relative path.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    // A mount point whose daemon died cannot be resolved, but its parent can.
    fs::canonicalize(path).or_else(|_| {
        let whole = std::path::absolute(path)?;
        Ok(match (whole.parent().map(fs::canonicalize), whole.file_name()) {
            (Some(Ok(parent)), Some(name)) => parent.join(name),
            _ => whole,
        })
    })
}

/// Checks that a tree can be mounted there; unmounts one whose daemon died.
///
/// # Errors
/// [`MountedTreeError`].
pub(crate) fn check(place: &Path) -> Result<(), MountedTreeError> {
    let top = table::top(place).map_err(|error| MountedTreeError::refused(place, error))?;
    if top.is_some_and(|entry| entry.kind == TYPE.as_bytes()) {
        if !is_dead(place) {
            return Err(MountedTreeError::Busy(place.to_owned()));
        }
        detach(place).map_err(|errno| MountedTreeError::refused(place, errno))?;
    }
    match fs::metadata(place) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(MountedTreeError::NotADirectory(place.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(MountedTreeError::Missing(place.to_owned()))
        }
        Err(error) => Err(MountedTreeError::refused(place, error)),
    }
}

/// Returns `true` if the tree's daemon is gone. Not by stat(2): for a dead tree, the kernel answers
/// that as long as attributes are cached. A request that was under way at the death is aborted.
fn is_dead(place: &Path) -> bool {
    matches!(statvfs(place), Err(Errno::ENOTCONN | Errno::ECONNABORTED))
}

/// Returns `true` if a tree answers. Waits for the answer, or until its daemon is gone.
pub(crate) fn answers(place: &Path) -> bool {
    statvfs(place).is_ok()
}

fn detach(place: &Path) -> nix::Result<()> {
    umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
}

/// A tree that this process has mounted.
#[derive(Debug)]
pub(crate) struct MountedTree {
    place: PathBuf,
    entry: Mount,
}

impl MountedTree {
    /// Mounts the tree, and returns the device to serve it with. When every copy of the device is
    /// closed, the tree is dead.
    ///
    /// # Errors
    /// [`MountedTreeError`]; nothing is mounted then.
    pub(crate) fn mount(
        source: &str,
        place: &Path,
        words: &[String],
    ) -> Result<(Self, OwnedFd), MountedTreeError> {
        let device: OwnedFd = namespace::open_device().map_err(MountedTreeError::Device)?.into();
        let data = format!("fd={},{DATA}", device.as_raw_fd());
        let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        flags.set(MsFlags::MS_RDONLY, words.iter().any(|word| word == "ro"));
        nix::mount::mount(Some(source), place, Some(TYPE), flags, Some(data.as_str())).map_err(
            |errno| match errno {
                Errno::EPERM => MountedTreeError::NotCapable(place.to_owned()),
                errno => MountedTreeError::refused(place, errno),
            },
        )?;
        match table::top(place) {
            Ok(Some(entry)) => Ok((Self { place: place.to_owned(), entry }, device)),
            // It was unmounted at once, or /proc is missing.
            other => {
                let _ = detach(place);
                let error = other.err().unwrap_or_else(|| io::ErrorKind::NotFound.into());
                Err(MountedTreeError::refused(place, error))
            }
        }
    }

    /// Returns `true` if it is still mounted, dead or alive, and nothing is mounted over it.
    pub(crate) fn is_there(&self) -> bool {
        table::top(&self.place).is_ok_and(|top| top.as_ref() == Some(&self.entry))
    }

    /// Returns `true` if it is still mounted and its daemon is gone. Another tree that was mounted
    /// there since may have got the same numbers, but it answers.
    pub(crate) fn is_there_and_dead(&self) -> bool {
        self.is_there() && is_dead(&self.place)
    }

    /// Takes it out of the file system, unless it has been unmounted already; open files go on.
    pub(crate) fn detach(self) {
        if self.is_there() {
            // It may have been unmounted just now.
            let _ = detach(&self.place);
        }
    }
}
