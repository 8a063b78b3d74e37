//! Gets an open, mounted `/dev/fuse`, and unmounts it.
//!
//! root mounts with mount(2), as type `fuse.pcapfs`. Other users ask `fusermount3`, which is setuid
//! root, checks the mount point, and sends the descriptor back.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mount_helper::mountinfo::{self, Mount};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access, geteuid};

use crate::fs::user_name;

/// The device.
const DEVICE: &str = "/dev/fuse";

/// The file system type in `/proc/mounts`.
const TYPE: &str = "fuse.pcapfs";

/// How to mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// The first column of `/proc/mounts`.
    pub(crate) source: String,
    /// Words of `-o`, without those that are always set.
    pub(crate) words: Vec<String>,
}

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnmountManner {
    /// Only if no file is open.
    Clean,
    /// Leaves the tree now, and the kernel when the last file is closed.
    Detach,
}

/// Why a tree was not mounted, or not unmounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// No directory is there.
    #[error("{path}: no such directory (make it with: mkdir -p {path})", path = .0.display())]
    Missing(PathBuf),
    /// The path is not a directory.
    #[error("{path}: not a directory", path = .0.display())]
    NotADirectory(PathBuf),
    /// A tree is mounted there.
    #[error("{path}: busy, a pcapfs is mounted there (end it with: pcapfs umount {path})", path = .0.display())]
    Busy(PathBuf),
    /// Files are open.
    #[error("{path}: busy, files below it are open (fuser -vm {path} shows by whom)", path = .0.display())]
    InUse(PathBuf),
    /// Nothing is mounted there.
    #[error("{path}: nothing is mounted there", path = .0.display())]
    NotMounted(PathBuf),
    /// Another file system is mounted there.
    #[error("{path}: what is mounted there is no pcapfs but {kind} (unmount it with: umount {path})",
        path = .path.display())]
    NotOurs {
        /// The mount point.
        path: PathBuf,
        /// Type of the file system.
        kind: String,
    },
    /// A word of `-o` that is no mount option.
    #[error(
        "-o {0}: no such mount option (have: ro, noatime, sync, and the like; options of \
             captures are for mount -t pcapfs)"
    )]
    BadOption(String),
    /// The kernel has no FUSE, or does not let this process use it.
    #[error(
        "{DEVICE}: {0} (is the fuse module loaded? modprobe fuse; in a container: --device \
             {DEVICE})"
    )]
    Device(io::Error),
    /// Only root may open the device, as in some containers.
    #[error("{DEVICE}: closed to user {0} (as root: chmod 0666 {DEVICE})")]
    Closed(String),
    /// root without the capability to mount.
    #[error("{path}: mounting takes CAP_SYS_ADMIN, which this process has not got (in a container: \
             --cap-add SYS_ADMIN --device {DEVICE})", path = .0.display())]
    NotCapable(PathBuf),
    /// root has mounted it, and another user tries to unmount it.
    #[error("{path}: mounted by {owner}, who alone may unmount it (sudo pcapfs umount {path})",
        path = .path.display())]
    NotYours {
        /// The mount point.
        path: PathBuf,
        /// Name of the user.
        owner: String,
    },
    /// mount(2) or umount(2) failed.
    #[error("{path}: {error}", path = .path.display())]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// fusermount3 is missing.
    #[error("fusermount3: {0} (install it with: apt-get install fuse3)")]
    NoHelper(io::Error),
    /// fusermount3 refused.
    #[error("{0}")]
    Helper(String),
    /// The mount helper refused; it has printed the reason.
    #[error("the mount helper has not mounted the tree")]
    HelperRefused,
    /// The tree is mounted, but cannot be served.
    #[error("cannot serve the tree: {0}")]
    Serve(io::Error),
}

/// Mount flags with their words.
const FLAGS: [(&str, MsFlags, bool); 11] = [
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("nodev", MsFlags::MS_NODEV, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("atime", MsFlags::MS_NOATIME, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
];

/// Words that are always set, and may be repeated on the command line.
const ALWAYS: [&str; 2] = ["default_permissions", "allow_other"];

/// Checks the words of `-o`, and returns the flags and the words for the file system.
fn flags(options: &MountOptions) -> Result<(MsFlags, Vec<&str>), MountError> {
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mut data = Vec::new();
    for word in &options.words {
        if let Some((_, flag, set)) = FLAGS.iter().find(|(name, ..)| name == word) {
            flags.set(*flag, *set);
        } else if word.starts_with("max_read=") {
            data.push(word.as_str());
        } else if !ALWAYS.contains(&word.as_str()) && !word.starts_with("fsname=") {
            return Err(MountError::BadOption(word.clone()));
        }
    }
    Ok((flags, data))
}

/// Mounts, after a [`check`], and returns the device to serve.
///
/// # Errors
/// [`MountError`]; nothing is mounted then.
pub(super) fn mount(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let (flags, data) = flags(options)?;
    if geteuid().is_root() {
        mount_directly(mountpoint, options, flags, &data)
    } else {
        mount_with_helper(mountpoint, options, flags, &data)
    }
}

/// Checks that a tree can be mounted there like this; unmounts a tree whose daemon has died.
///
/// # Errors
/// [`MountError`]; nothing is mounted.
pub(crate) fn check(mountpoint: &Path, options: &MountOptions) -> Result<(), MountError> {
    flags(options)?;
    if mounted(mountpoint)?.is_some_and(|mount| mount.kind == TYPE.as_bytes()) {
        // Not stat(2): for a dead mount, the kernel answers that as long as attributes are cached.
        match statvfs(mountpoint) {
            Err(Errno::ENOTCONN) => unmount(mountpoint, UnmountManner::Detach)?,
            _ => return Err(MountError::Busy(mountpoint.to_owned())),
        }
    }
    match fs::metadata(mountpoint) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(MountError::NotADirectory(mountpoint.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(MountError::Missing(mountpoint.to_owned()))
        }
        Err(error) => Err(MountError::Refused { path: mountpoint.to_owned(), error }),
    }
}

/// The mount at exactly this path, if any.
fn mounted(mountpoint: &Path) -> Result<Option<Mount>, MountError> {
    let table = fs::read(mountinfo::TABLE)
        .map_err(|error| MountError::Refused { path: mountinfo::TABLE.into(), error })?;
    Ok(mountinfo::top(&table, mountpoint))
}

/// The mount points of trees, dead or alive, that this process can see; none if it cannot read the
/// table.
pub(crate) fn mounted_trees() -> Vec<PathBuf> {
    let table = fs::read(mountinfo::TABLE).unwrap_or_default();
    let trees = mountinfo::mounts(&table).filter(|mount| mount.kind == TYPE.as_bytes());
    trees.map(|mount| mount.place.into()).collect()
}

fn mount_directly(
    mountpoint: &Path,
    options: &MountOptions,
    flags: MsFlags,
    data: &[&str],
) -> Result<OwnedFd, MountError> {
    let device: OwnedFd =
        OpenOptions::new().read(true).write(true).open(DEVICE).map_err(MountError::Device)?.into();
    let mut words = vec![
        format!("fd={}", device.as_raw_fd()),
        // S_IFDIR: the root of the tree.
        "rootmode=40000".to_owned(),
        "user_id=0".to_owned(),
        "group_id=0".to_owned(),
    ];
    words.extend(ALWAYS.iter().chain(data).map(|word| (*word).to_owned()));
    let words = words.join(",");
    let mounted = nix::mount::mount(
        Some(options.source.as_str()),
        mountpoint,
        Some(TYPE),
        flags,
        Some(words.as_str()),
    );
    match mounted {
        Ok(()) => Ok(device),
        Err(Errno::EBUSY) => Err(MountError::Busy(mountpoint.to_owned())),
        Err(Errno::EPERM) => Err(MountError::NotCapable(mountpoint.to_owned())),
        Err(errno) => Err(MountError::Refused { path: mountpoint.to_owned(), error: errno.into() }),
    }
}

/// Asks fusermount3 to mount, and receives the descriptor over its standard input.
fn mount_with_helper(
    mountpoint: &Path,
    options: &MountOptions,
    flags: MsFlags,
    data: &[&str],
) -> Result<OwnedFd, MountError> {
    let mut words = vec!["subtype=pcapfs".to_owned(), "default_permissions".to_owned()];
    words.push(format!("fsname={}", options.source.replace(',', "\\,")));
    let set = FLAGS.iter().filter(|(_, flag, set)| *set && flags.contains(*flag));
    words.extend(set.map(|(word, ..)| (*word).to_owned()));
    words.extend(data.iter().map(|word| (*word).to_owned()));
    let mut with_others = words.clone();
    with_others.push("allow_other".to_owned());
    // `allow_other` needs `user_allow_other` in /etc/fuse.conf; without it, only this user can use
    // the tree.
    ask_helper(mountpoint, &with_others.join(",")).or_else(|error| match error {
        MountError::Helper(text) if text.contains("allow_other") => {
            ask_helper(mountpoint, &words.join(","))
        }
        error => Err(error),
    })
}

fn ask_helper(mountpoint: &Path, words: &str) -> Result<OwnedFd, MountError> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| MountError::Serve(errno.into()))?;
    // The helper finds the number of its socket in this variable; here it is standard input.
    let child = Command::new("fusermount3")
        .args(["-o", words, "--"])
        .arg(mountpoint)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(MountError::NoHelper)?;
    // Returns without a descriptor if the helper ends before it has sent one.
    let device = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(MountError::NoHelper)?;
    match device {
        Some(device) if output.status.success() => Ok(device),
        _ => {
            let text = String::from_utf8_lossy(&output.stderr);
            let is_closed = access(DEVICE, AccessFlags::R_OK | AccessFlags::W_OK).is_err();
            if is_closed && text.contains(DEVICE) {
                return Err(MountError::Closed(user_name(geteuid().as_raw())));
            }
            Err(MountError::Helper(text.trim().replace('\n', "; ")))
        }
    }
}

pub(super) fn receive_descriptor(socket: &impl AsFd) -> Option<OwnedFd> {
    receive_answer(socket).1
}

/// Waits for a message, and returns its text and the descriptor that came with it. The text is empty
/// if the other end is gone.
pub(super) fn receive_answer(socket: &impl AsFd) -> (String, Option<OwnedFd>) {
    // As long as a message for people may be.
    let mut bytes = [0; 512];
    let mut parts = [io::IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        let socket = socket.as_fd().as_raw_fd();
        match recvmsg::<()>(socket, &mut parts, Some(&mut space), flags) {
            Ok(message) => break message,
            Err(Errno::EINTR) => {}
            Err(_) => return (String::new(), None),
        }
    };
    let len = message.bytes;
    let descriptor = message.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::ScmRights(descriptors) => {
                descriptors.first().map(|descriptor| own(*descriptor))
            }
            _ => None,
        })
    });
    let text = bytes.get(..len).unwrap_or_default();
    (String::from_utf8_lossy(text).into_owned(), descriptor)
}

/// Takes over a descriptor that was made for this process and that no other code uses: from a
/// message, or inherited at the start.
#[expect(unsafe_code, reason = "such a descriptor is a bare number")]
pub(super) fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel made a descriptor from a message when the message was received.
    // mount.pcapfs left the descriptor of `--handoff` open for this purpose alone, and it is taken
    // over before this process opens any file. If the number is not open, every use of it fails
    // with EBADF.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Unmounts the tree at `mountpoint`.
///
/// # Errors
/// [`MountError`]; it stays mounted then.
pub(crate) fn unmount(mountpoint: &Path, manner: UnmountManner) -> Result<(), MountError> {
    let mount =
        mounted(mountpoint)?.ok_or_else(|| MountError::NotMounted(mountpoint.to_owned()))?;
    if mount.kind != TYPE.as_bytes() {
        let kind = String::from_utf8_lossy(&mount.kind).into_owned();
        return Err(MountError::NotOurs { path: mountpoint.to_owned(), kind });
    }
    if geteuid().is_root() {
        let flags = match manner {
            UnmountManner::Clean => MntFlags::empty(),
            UnmountManner::Detach => MntFlags::MNT_DETACH,
        };
        return umount2(mountpoint, flags | MntFlags::UMOUNT_NOFOLLOW).map_err(
            |errno| match errno {
                Errno::EBUSY => MountError::InUse(mountpoint.to_owned()),
                Errno::EINVAL => MountError::NotMounted(mountpoint.to_owned()),
                errno => MountError::Refused { path: mountpoint.to_owned(), error: errno.into() },
            },
        );
    }
    if let Some(owner) = mount.user().filter(|owner| *owner != geteuid().as_raw()) {
        let path = mountpoint.to_owned();
        return Err(MountError::NotYours { path, owner: user_name(owner) });
    }
    let manner = match manner {
        UnmountManner::Clean => "-u",
        UnmountManner::Detach => "-uz",
    };
    let output = Command::new("fusermount3")
        .args([manner, "--"])
        .arg(mountpoint)
        .stdin(Stdio::null())
        .output()
        .map_err(MountError::NoHelper)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("busy") {
        return Err(MountError::InUse(mountpoint.to_owned()));
    }
    Err(MountError::Helper(text.trim().replace('\n', "; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> MountOptions {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        MountOptions { source: "pcapfs".to_owned(), words }
    }

    #[test]
    fn words_become_flags_or_are_refused() {
        let given = options(&["ro", "exec", "allow_other", "max_read=4096"]);
        let (set, data) = flags(&given).unwrap();
        assert!(set.contains(MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV));
        assert!(!set.contains(MsFlags::MS_NOEXEC));
        assert_eq!(data, ["max_read=4096"]);
        let error = flags(&options(&["colour=red"])).unwrap_err();
        assert!(error.to_string().starts_with("-o colour=red: no such mount option"));
    }
}
