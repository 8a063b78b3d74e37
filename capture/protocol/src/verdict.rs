//! The answer to the question whether a stream is of a protocol.

/// An answer for which more bytes may be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeVerdict {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// The bytes so far do not decide it.
    NotYet,
}
