//! Errors of operations on the tree, and the one table of error numbers.

use capture::flow;
use nix::errno::Errno;

/// Why an operation on the tree is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    /// No such name or inode.
    #[error("no such file")]
    NotFound,
    /// The inode's name now belongs to another file, which begins elsewhere.
    #[error("another file has this name now")]
    Stale,
    /// There is no data or hole, as wanted, at or after this offset.
    #[error("nothing from there on")]
    NothingThere,
    /// lseek(2) has no such way to seek.
    #[error("no such way to seek")]
    BadSeek,
    /// The inode is not a directory.
    #[error("not a directory")]
    NotADirectory,
    /// The inode is not a link.
    #[error("not a link")]
    NotALink,
    /// The captures decide the shape of the tree; users cannot create, remove or write files in it.
    #[error("the tree cannot be changed like this")]
    Fixed,
    /// Only `ctl` and `inject.pcap` can be written, and they cannot be read.
    #[error("opened for what the file is not for")]
    WrongAccess,
    /// The word written to `ctl` is no order.
    #[error("no such order (start, stop, clear)")]
    BadOrder,
    /// The order was tried and failed.
    #[error("not possible now: {0}")]
    Refused(String),
    /// No capture of this kind can carry out the order.
    #[error("not possible for this capture: {0}")]
    Unsupported(&'static str),
    /// The maximum number of programs write to the file already.
    #[error("{0}")]
    Busy(String),
    /// The written bytes are not a savefile that the file takes.
    #[error("{0}")]
    BadSavefile(String),
    /// The bytes are written at an offset that is not their turn.
    #[error("{0}")]
    OutOfOrder(String),
    /// The file handle is not open.
    #[error("not open")]
    BadHandle,
    /// The packets could not be read.
    #[error("{0}")]
    Storage(String),
    /// The limit of open contents that are made in memory is reached.
    #[error("{0}")]
    NoRoom(flow::FlowOpenError),
    /// The limit of open rendered texts is reached.
    #[error("as much of status.json and readers.jsonl is open as may be")]
    Full,
    /// The packets at this offset were overwritten.
    #[error("overwritten")]
    Expired,
}

impl TreeError {
    /// The error number a caller of the file system gets.
    pub(crate) const fn errno(&self) -> Errno {
        match self {
            Self::NotFound => Errno::ENOENT,
            // ESTALE makes the kernel look the name up again, for a program that came by name, so
            // it is for cases where a new lookup helps. A file that is gone for good is ENOENT at
            // once, since tar and rsync skip a file that vanished, and fail at any other error.
            Self::Stale => Errno::ESTALE,
            // As lseek(2) answers SEEK_DATA and SEEK_HOLE.
            Self::NothingThere => Errno::ENXIO,
            Self::NotADirectory => Errno::ENOTDIR,
            Self::NotALink | Self::BadOrder | Self::BadSeek | Self::BadSavefile(_) => Errno::EINVAL,
            Self::Busy(_) => Errno::EBUSY,
            // As for a pipe.
            Self::OutOfOrder(_) => Errno::ESPIPE,
            // The usual answer of a file system that no caller may change, whatever the caller's
            // rights.
            Self::Fixed => Errno::EPERM,
            Self::WrongAccess => Errno::EACCES,
            Self::BadHandle => Errno::EBADF,
            Self::Unsupported(_) => Errno::EOPNOTSUPP,
            Self::NoRoom(_) | Self::Full => Errno::ENOMEM,
            // EIO for both: the bytes count in the file's size but cannot be read.
            Self::Refused(_) | Self::Storage(_) | Self::Expired => Errno::EIO,
        }
    }
}
