//! What can go wrong with an operation on the tree, and the one table of error numbers.

use nix::errno::Errno;

/// Why an operation on the tree is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No such name or inode.
    #[error("no such file")]
    NotFound,
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
    /// An offset whose packets were overwritten.
    #[error("overwritten")]
    Expired,
}

impl Error {
    /// The error number a caller of the file system gets.
    pub(crate) const fn errno(&self) -> Errno {
        match self {
            Self::NotFound => Errno::ENOENT,
            Self::NotADirectory => Errno::ENOTDIR,
            Self::NotALink | Self::BadOrder => Errno::EINVAL,
            // What a file system answers whose content is not the caller's to change, whoever the
            // caller is.
            Self::Fixed => Errno::EPERM,
            Self::WrongAccess => Errno::EACCES,
            Self::BadHandle => Errno::EBADF,
            Self::Unsupported(_) => Errno::EOPNOTSUPP,
            // EIO for both: the bytes exist in the file's size and cannot be had.
            Self::Refused(_) | Self::Storage(_) | Self::Expired => Errno::EIO,
        }
    }
}
