//! The part of the written forms of sources that the helper has to know.
//!
//! The daemon parses them. The helper only makes paths valid in every directory, and a test of the
//! daemon compares this list with the forms.

/// Kinds of sources that are written with a path after them.
pub const PATH_KINDS: [&str; 2] = ["file:", "stream:"];
