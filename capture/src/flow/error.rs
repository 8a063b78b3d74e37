//! Why files of flows cannot be opened or read.

/// Why a file cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such file, or no longer.
    #[error("no such file")]
    Gone,
    /// Its content is made in memory, and of such contents as much is open as may be.
    #[error("as much that is made in memory is open as --flow-memory has room for")]
    NoRoom,
}

/// Why there is nothing to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store has dropped it, a log its lines, or its flow has left the tree.
    #[error("what was to be read is no longer retained")]
    Expired,
    /// The storage below failed, and said this.
    #[error("{0}")]
    Storage(String),
}

impl From<String> for ReadError {
    fn from(why: String) -> Self {
        Self::Storage(why)
    }
}
