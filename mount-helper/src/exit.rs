//! Why a tree was not mounted, and the exit statuses for mount(8).

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use nix::sys::signal::Signal;

use crate::account::AccountError;
use crate::list;
use crate::plan::UsageError;
use crate::tree::MountedTreeError;

/// The exit statuses of mount(8), section "EXIT STATUS". 16 (mtab) and 64 (some succeeded) cannot
/// happen here: there is no mtab to write, and one call mounts one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The tree is mounted, or would have been.
    Done = 0,
    /// Incorrect invocation or permissions.
    Usage = 1,
    /// The system refused a resource: no memory, no process, no namespace.
    System = 2,
    /// A bug in pcapfs.
    Bug = 4,
    /// Interrupted by the user.
    Interrupted = 8,
    /// The daemon could not mount, and has reported why.
    Failed = 32,
}

impl Exit {
    /// The exit status of the supervisor.
    pub(crate) fn of_supervisor(status: ExitStatus) -> Self {
        let all =
            [Self::Done, Self::Usage, Self::System, Self::Bug, Self::Interrupted, Self::Failed];
        let known = all.into_iter().find(|exit| status.code() == Some(i32::from(*exit as u8)));
        known.unwrap_or_else(|| Self::of_daemon(status))
    }

    /// The exit status for mount(8) after the daemon's start ended like this.
    pub(crate) fn of_daemon(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::Done,
            Some(1) => Self::Failed,
            Some(2) => Self::Usage,
            Some(_) => Self::Bug,
            None => Self::of_signal(status.signal()),
        }
    }

    fn of_signal(signal: Option<i32>) -> Self {
        match signal.and_then(|number| Signal::try_from(number).ok()) {
            Some(Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM) => {
                Self::Interrupted
            }
            // The system sends it when memory has run out.
            Some(Signal::SIGKILL) => Self::System,
            _ => Self::Bug,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why no tree was mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountFailure {
    /// The arguments make no valid plan.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The daemon's user cannot be used.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The tree cannot be mounted.
    #[error(transparent)]
    Tree(#[from] MountedTreeError),
    /// The directory for rings is missing and cannot be made.
    #[error("-o ring_dir={}: cannot be made: {error}", path.display())]
    RingDirectory { path: PathBuf, error: io::Error },
    /// The system refused a resource that a supervisor needs.
    #[error("cannot supervise a daemon: {0}")]
    System(io::Error),
    /// The namespace of `-N` cannot be entered.
    #[error("{}: cannot enter this mount namespace: {error}", path.display())]
    Namespace { path: PathBuf, error: io::Error },
    /// This program has rights that its caller does not have.
    #[error(
        "it is set to run as another user than its caller, who could capture then (chmod ug-s it)"
    )]
    SetUser,
    /// The daemon was found in none of the directories.
    #[error("pcapfs is not installed (looked in {})", list(directories).display())]
    NoDaemon { directories: Vec<PathBuf> },
    /// The daemon was found and does not start.
    #[error("{}: cannot be started: {error}", daemon.display())]
    Start { daemon: PathBuf, error: io::Error },
}

impl MountFailure {
    /// The exit status for it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_)
            | Self::Account(AccountError::Missing(_) | AccountError::Root(_))
            | Self::Tree(MountedTreeError::Missing(_) | MountedTreeError::NotADirectory(_)) => {
                Exit::Usage
            }
            Self::SetUser
            | Self::Namespace { .. }
            | Self::Start { .. }
            | Self::System(_)
            | Self::Account(AccountError::Lookup(..))
            | Self::Tree(MountedTreeError::Device(_)) => Exit::System,
            Self::NoDaemon { .. }
            | Self::RingDirectory { .. }
            | Self::Tree(
                MountedTreeError::Busy(_)
                | MountedTreeError::NotCapable(_)
                | MountedTreeError::Refused { .. },
            ) => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_exit_codes_become_status_bits() {
        let code = |code: i32| Exit::of_daemon(ExitStatus::from_raw(code << 8));
        assert_eq!(code(0), Exit::Done);
        assert_eq!(code(1), Exit::Failed, "it said why");
        assert_eq!(code(2), Exit::Usage);
        assert_eq!(code(101), Exit::Bug, "a panic");
    }

    #[test]
    fn signals_are_sorted_by_their_cause() {
        let signal = |signal: Signal| Exit::of_daemon(ExitStatus::from_raw(signal as i32));
        assert_eq!(signal(Signal::SIGINT), Exit::Interrupted);
        assert_eq!(signal(Signal::SIGTERM), Exit::Interrupted);
        assert_eq!(signal(Signal::SIGKILL), Exit::System);
        assert_eq!(signal(Signal::SIGSEGV), Exit::Bug);
    }

    #[test]
    fn the_supervisors_status_is_passed_on() {
        for exit in [Exit::Done, Exit::Usage, Exit::System, Exit::Interrupted, Exit::Failed] {
            let status = ExitStatus::from_raw(i32::from(exit as u8) << 8);
            assert_eq!(Exit::of_supervisor(status), exit);
        }
        assert_eq!(Exit::of_supervisor(ExitStatus::from_raw(101 << 8)), Exit::Bug, "a panic");
        assert_eq!(Exit::of_supervisor(ExitStatus::from_raw(9)), Exit::System);
    }

    #[test]
    fn the_statuses_are_those_of_mount_8() {
        let statuses =
            [Exit::Done, Exit::Usage, Exit::System, Exit::Bug, Exit::Interrupted, Exit::Failed];
        assert_eq!(statuses.map(|exit| exit as u8), [0, 1, 2, 4, 8, 32]);
    }
}
