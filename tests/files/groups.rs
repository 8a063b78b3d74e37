//! Groups, as teams use them.
