//! The two directions of a connection that speaks HTTP.

/// One of the two streams of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageRole {
    /// The client's bytes.
    Request,
    /// The server's bytes.
    Response,
}

impl MessageRole {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::Request, Self::Response];

    /// The opposite direction.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Request => Self::Response,
            Self::Response => Self::Request,
        }
    }
}
