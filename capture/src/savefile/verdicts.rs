//! The filter's results for the packets of a chunk.

use std::sync::Arc;

/// One bit for each packet: whether the filter matched.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdicts {
    words: Vec<u64>,
    count: u32,
    /// Words up to the last packet that matched.
    needed: usize,
    left_out: bool,
}

impl Verdicts {
    pub(super) fn push(&mut self, matched: bool) {
        let bit = self.count % 64;
        if bit == 0 {
            self.words.push(0);
        }
        if let Some(word) = self.words.last_mut() {
            *word |= u64::from(matched).wrapping_shl(bit);
        }
        if matched {
            self.needed = self.words.len();
        }
        self.left_out |= !matched;
        self.count = self.count.saturating_add(1);
    }

    /// The words that an [`IndexEntry`](super::index::IndexEntry) keeps.
    pub(super) fn matched(&self) -> Option<Arc<[u64]>> {
        let words = self.words.get(..self.needed).unwrap_or(&self.words);
        self.left_out.then(|| words.into())
    }
}

/// Returns `true` if the packet with this index in a chunk matched the filter.
#[inline]
pub(super) fn matched(words: Option<&[u64]>, packet: usize) -> bool {
    words.is_none_or(|words| {
        let word = packet.checked_div(64).and_then(|at| words.get(at));
        word.is_some_and(|word| (word >> (packet % 64)) & 1 == 1)
    })
}
