//! Random numbers that need not be secret.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A random number. The standard library asks the system for the keys of its hash tables, and this
/// is a hash with such keys.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
