//! Why a command failed: one type for all commands, since all end in the same way.

use std::io;
use std::path::PathBuf;

use tonic::Status;

use crate::config::ConfigError;
use crate::control::SocketError;
use crate::fuse::MountError;
use crate::registry::Refusal;
use crate::remote::error::RemoteError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong.
    #[error("{0} (try: pcapfs mount --help)")]
    Usage(String),
    /// An argument is not valid.
    #[error("{0}")]
    Argument(String),
    /// A capture cannot be made.
    #[error("{0}")]
    Refused(Refusal),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(ConfigError),
    /// The control service cannot have its socket.
    #[error("{0}")]
    Socket(SocketError),
    /// The control service cannot be made.
    #[error("{path}: the control service cannot be started: {error}", path = .path.display())]
    Control {
        /// The path of its socket.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The tree cannot be mounted or unmounted.
    #[error("{0}")]
    Mount(MountError),
    /// The output cannot be written.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// The system refused another operation.
    #[error("{0}")]
    System(io::Error),
    /// No daemon listens.
    #[error("{0}")]
    NoDaemon(String),
    /// The daemon cannot be reached, or has gone away.
    #[error("{0}")]
    Unreachable(String),
    /// The daemon refused the request.
    #[error("{0}")]
    Answer(String),
    /// The daemon's answer, before its meaning for this connection is known.
    #[error("{}", .0.message())]
    Status(Box<Status>),
    /// Another machine cannot be used.
    #[error("{0}")]
    Remote(Box<RemoteError>),
    /// The process in the background has printed the reason, and ended with this code.
    #[error("not started in the background (exit code {0})")]
    Background(i32),
}

impl Failure {
    /// Returns `true` if another command line would help, whatever the state of the system.
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_) | Self::Argument(_) | Self::Mount(MountError::BadOption(_)))
    }
}
