//! What can go wrong with an operation on the tree, and the one table of error numbers.

use capture::flow;
use nix::errno::Errno;

/// Why an operation on the tree is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No such name or inode.
    #[error("no such file")]
    NotFound,
    /// An inode whose name stands for another file by now, which begins elsewhere.
    #[error("another file has this name now")]
    Stale,
    /// An offset behind which there is nothing that was looked for.
    #[error("nothing from there on")]
    NothingThere,
    /// A way to seek that lseek(2) does not have.
    #[error("no such way to seek")]
    BadSeek,
    /// An inode that is not a directory.
    #[error("not a directory")]
    NotADirectory,
    /// An inode that is not a link.
    #[error("not a link")]
    NotALink,
    /// The tree's shape is decided by the captures; nothing is made, removed or written in it.
    #[error("the tree cannot be changed like this")]
    Fixed,
    /// Only `ctl` is written to, and it is not read.
    #[error("opened for what the file is not for")]
    WrongAccess,
    /// A word written to `ctl` that is none of its orders.
    #[error("no such order (start, stop, clear)")]
    BadOrder,
    /// An order that was tried and failed.
    #[error("not possible now: {0}")]
    Refused(String),
    /// An order that no capture of this kind can carry out.
    #[error("not possible for this capture: {0}")]
    Unsupported(&'static str),
    /// A file handle that is not open.
    #[error("not open")]
    BadHandle,
    /// The packets could not be read.
    #[error("{0}")]
    Storage(String),
    /// A content that is made in memory, of which as much is open as may be.
    #[error("{0}")]
    NoRoom(flow::OpenError),
    /// A content that is frozen, of which as much is open as may be.
    #[error("as much of status.json and readers.jsonl is open as may be")]
    Full,
    /// An offset whose packets were overwritten.
    #[error("overwritten")]
    Expired,
}

impl Error {
    /// The error number a caller of the file system gets.
    pub(crate) const fn errno(&self) -> Errno {
        match self {
            Self::NotFound => Errno::ENOENT,
            // What makes the kernel look the name up again, for whoever came by name: it is for
            // what that helps with. What is gone for good is ENOENT at once, since tar and rsync
            // pass over a file that vanished, and fail at any other error.
            Self::Stale => Errno::ESTALE,
            // lseek(2), of SEEK_DATA and SEEK_HOLE.
            Self::NothingThere => Errno::ENXIO,
            Self::NotADirectory => Errno::ENOTDIR,
            Self::NotALink | Self::BadOrder | Self::BadSeek => Errno::EINVAL,
            // What a file system answers whose content is not the caller's to change, whoever the
            // caller is.
            Self::Fixed => Errno::EPERM,
            Self::WrongAccess => Errno::EACCES,
            Self::BadHandle => Errno::EBADF,
            Self::Unsupported(_) => Errno::EOPNOTSUPP,
            Self::NoRoom(_) | Self::Full => Errno::ENOMEM,
            // EIO for both: the bytes exist in the file's size and cannot be had.
            Self::Refused(_) | Self::Storage(_) | Self::Expired => Errno::EIO,
        }
    }
}
