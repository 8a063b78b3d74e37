//! Why an outlet cannot have something of the daemon or of the tree now: a kind, which decides what
//! the outlet does, and a text for people.

use std::io;

use nix::errno::Errno;
use tonic::Code;

/// The kinds of trouble, by what would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum TroubleKind {
    /// There is no such thing.
    Missing,
    /// A right is missing.
    Denied,
    /// The request is wrong.
    Invalid,
    /// The request does not fit the state of what it is for.
    Conflicting,
    /// It was there and is gone for ever.
    Gone,
    /// It may be had later.
    Unavailable,
}

/// Why something cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(in crate::cli) struct Trouble {
    pub(in crate::cli) kind: TroubleKind,
    /// Names the culprit, and says what to do.
    pub(in crate::cli) text: String,
}

impl Trouble {
    pub(in crate::cli) fn new(kind: TroubleKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// It may be had later.
    pub(in crate::cli) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(TroubleKind::Unavailable, text)
    }

    /// An error of the tree; `what` names the file.
    pub(in crate::cli) fn of_tree(what: &str, error: &io::Error) -> Self {
        let (kind, why) = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                (TroubleKind::Missing, "no such file (any more)".to_owned())
            }
            Some(Errno::EACCES | Errno::EPERM) => (TroubleKind::Denied, error.to_string()),
            // Its packets were overwritten, or its flow has left.
            Some(Errno::EIO | Errno::ESTALE) => {
                (TroubleKind::Gone, "its packets are overwritten".to_owned())
            }
            Some(Errno::ENOTCONN | Errno::ECONNABORTED) => {
                (TroubleKind::Unavailable, "the daemon went away".to_owned())
            }
            _ => (TroubleKind::Unavailable, error.to_string()),
        };
        Self::new(kind, format!("{what}: {why}"))
    }
}

/// The kind of a status of the control service.
pub(super) const fn kind_of(code: Code) -> TroubleKind {
    match code {
        Code::NotFound => TroubleKind::Missing,
        Code::PermissionDenied | Code::Unauthenticated => TroubleKind::Denied,
        Code::InvalidArgument => TroubleKind::Invalid,
        Code::FailedPrecondition | Code::AlreadyExists => TroubleKind::Conflicting,
        _ => TroubleKind::Unavailable,
    }
}
