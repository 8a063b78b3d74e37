//! Why a command fails: one type for all of them, as all end in the same way.

use std::io;
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::control::SocketError;
use crate::fuse::MountError;
use crate::registry::Refusal;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Typed wrong.
    #[error("{0} (try: pcapfs mount --help)")]
    Usage(String),
    /// An argument that cannot be right.
    #[error("{0}")]
    Argument(String),
    /// A capture cannot be made.
    #[error("{0}")]
    Refused(Refusal),
    /// The configuration.
    #[error("{0}")]
    Config(ConfigError),
    /// The control service cannot have its socket.
    #[error("{0}")]
    Socket(SocketError),
    /// The control service cannot be made.
    #[error("{path}: the control service cannot be started: {error}", path = .path.display())]
    Control {
        /// Where it was to be reached.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The tree cannot be mounted or unmounted.
    #[error("{0}")]
    Mount(MountError),
    /// What was asked for cannot be written.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// The system refused something else.
    #[error("{0}")]
    System(io::Error),
    /// No daemon listens.
    #[error("{0}")]
    NoDaemon(String),
    /// The daemon cannot be reached, or has gone away.
    #[error("{0}")]
    Unreachable(String),
    /// The daemon does not do what it was asked for.
    #[error("{0}")]
    Answer(String),
    /// The process in the background has said why, and ended with this code.
    #[error("not started in the background (exit code {0})")]
    Background(i32),
}

impl Failure {
    /// Whether typing something else would help, whatever the state of the system.
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_) | Self::Argument(_) | Self::Mount(MountError::BadOption(_)))
    }
}
