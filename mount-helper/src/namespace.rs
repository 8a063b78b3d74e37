//! Mounts in another mount namespace, `-N`, whose owner is a stranger: a container, for example.
//!
//! Only the mount point is looked up there. Code that runs as root uses nothing else of that
//! namespace: no program, no library, no user database, no `/proc` and no `/dev`. All of these are
//! opened before it is entered. The daemon's process goes back before exec.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use mount_helper::mountinfo;
use nix::fcntl::{OFlag, openat};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

/// The device of FUSE.
const DEVICE: &str = "/dev/fuse";

/// The device that is always empty.
const NULL: &str = "/dev/null";

/// The mount namespace that this process comes from, held open.
#[derive(Debug)]
struct Home {
    namespace: File,
    root: File,
    /// `/proc/self`.
    process: File,
    device: File,
    null: File,
}

/// Set when another namespace is entered.
static HOME: OnceLock<Home> = OnceLock::new();

/// Enters a mount namespace, from a process with one thread, for good.
///
/// # Errors
/// If the path is no namespace, or cannot be entered, or a file is missing here.
pub(crate) fn enter(namespace: &Path) -> io::Result<()> {
    let place = |path: &str| OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
    let home = Home {
        namespace: File::open("/proc/self/ns/mnt")?,
        root: place("/")?,
        process: place("/proc/self")?,
        device: place(DEVICE)?,
        null: place(NULL)?,
    };
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNS)?;
    HOME.set(home).map_err(|_| io::Error::other("another one was entered before"))
}

/// Goes back, in a process of its own with one thread; does nothing if no other namespace was
/// entered.
///
/// # Errors
/// Errors of setns(2) and chroot(2).
pub(crate) fn go_back() -> io::Result<()> {
    let Some(home) = HOME.get() else { return Ok(()) };
    setns(&home.namespace, CloneFlags::CLONE_NEWNS)?;
    // A process that enters a namespace gets the namespace's root.
    fchdir(&home.root)?;
    chroot(".")?;
    Ok(())
}

impl Home {
    /// Opens a file below this namespace's `/proc/self`.
    fn open(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_CLOEXEC;
        Ok(openat(&self.process, name, flags, Mode::empty())?.into())
    }
}

/// Opens this namespace's `/dev/fuse` once more.
///
/// # Errors
/// Errors of open(2).
pub(crate) fn open_device() -> io::Result<File> {
    open_again(DEVICE, |home| &home.device)
}

/// Opens this namespace's `/dev/null` once more.
///
/// # Errors
/// Errors of open(2).
pub(crate) fn open_null() -> io::Result<File> {
    open_again(NULL, |home| &home.null)
}

fn open_again(path: &str, held: impl FnOnce(&Home) -> &File) -> io::Result<File> {
    match HOME.get() {
        None => OpenOptions::new().read(true).write(true).open(path),
        Some(home) => home.open(&format!("fd/{}", held(home).as_raw_fd()), OFlag::O_RDWR),
    }
}

/// Reads the table of the mounts that this process sees, in its current namespace.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read_table() -> io::Result<Vec<u8>> {
    let mut table = Vec::new();
    match HOME.get() {
        None => File::open(mountinfo::TABLE)?,
        Some(home) => home.open("mountinfo", OFlag::O_RDONLY)?,
    }
    .read_to_end(&mut table)?;
    Ok(table)
}
