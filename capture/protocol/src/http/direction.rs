//! The two directions of a connection that speaks HTTP.

/// Which of the two streams of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// What the client sent.
    Request,
    /// What the server sent.
    Response,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Request, Self::Response];

    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Request => Self::Response,
            Self::Response => Self::Request,
        }
    }
}
