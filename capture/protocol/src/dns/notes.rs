//! The reasons in the field `why` of a transaction.

use std::fmt::{Arguments, Write};

/// Maximum number of bytes of all reasons of a transaction. No single one has more than 100.
pub(super) const MAX_WHY: usize = 600;

/// What is wrong with a transaction, or odd. Plain ASCII without quotes and backslashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Why(String);

impl Why {
    /// Adds a reason. It is left out if there are too many.
    pub(super) fn add(&mut self, reason: Arguments<'_>) {
        let before = self.0.len();
        let separator = if before > 0 { "; " } else { "" };
        // Writing to a string never fails.
        let _ = write!(self.0, "{separator}{reason}");
        if self.0.len() > MAX_WHY {
            self.0.truncate(before);
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&*self.0)
    }

    /// Heap bytes.
    pub(super) fn memory(&self) -> usize {
        self.0.capacity()
    }
}
