//! Why files of flows cannot be opened or read.

/// Why a file cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowOpenError {
    /// The file does not exist, or no longer.
    #[error("no such file")]
    Gone,
    /// Its content is made in memory, and the limit of such content that may be open is reached.
    #[error("as much that is made in memory is open as --flow-memory has room for")]
    NoRoom,
}

/// Why there is nothing to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowReadError {
    /// The store has dropped the bytes, a log has dropped its lines, or the flow has left the tree.
    #[error("what was to be read is no longer retained")]
    Expired,
    /// The storage below failed with this error.
    #[error("{0}")]
    Storage(String),
}

impl From<String> for FlowReadError {
    fn from(why: String) -> Self {
        Self::Storage(why)
    }
}
