//! Texts that are rendered when they are opened: `README`, `status.json` and `readers.jsonl`.
//!
//! Each opener has a copy. A user can open many copies, and each open file makes `readers.jsonl`
//! longer. So the memory of all copies together is limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Maximum number of bytes that may be open at a time: the list of ten thousand readers for thirty
/// openers.
const MOST: usize = 64 << 20;

/// Bytes of a text that needs no room: opening any file takes as much, and the limit of open
/// files bounds that. The `status.json` of a capture is shorter.
const SMALL: usize = 4 << 10;

/// The room that all open rendered texts share.
#[derive(Debug, Default)]
pub(super) struct RenderedRoom {
    taken: Arc<AtomicUsize>,
}

/// A text, for one opener.
#[derive(Debug)]
pub(crate) struct RenderedText {
    bytes: Arc<[u8]>,
    /// The room that it was taken from, if it takes any.
    room: Option<Arc<AtomicUsize>>,
}

impl RenderedRoom {
    /// Takes a text in; `None` if there is no room for it.
    pub(super) fn take(&self, bytes: Arc<[u8]>) -> Option<RenderedText> {
        if bytes.len() <= SMALL {
            return Some(RenderedText { bytes, room: None });
        }
        let order = Ordering::Relaxed;
        let add = |taken: usize| taken.checked_add(bytes.len()).filter(|sum| *sum <= MOST);
        self.taken.fetch_update(order, order, add).ok()?;
        Some(RenderedText { bytes, room: Some(Arc::clone(&self.taken)) })
    }
}

impl RenderedText {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for RenderedText {
    fn drop(&mut self) {
        if let Some(room) = &self.room {
            room.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_by_what_is_large_and_comes_back() {
        let room = RenderedRoom::default();
        let large: Arc<[u8]> = vec![0; MOST / 2].into();
        let one = room.take(Arc::clone(&large)).unwrap();
        let two = room.take(Arc::clone(&large)).unwrap();
        assert!(room.take(vec![0; SMALL + 1].into()).is_none());
        let small = room.take(vec![0; SMALL].into()).unwrap();
        assert_eq!(small.bytes().len(), SMALL);
        drop(one);
        assert!(room.take(vec![0; SMALL + 1].into()).is_some());
        drop((two, small));
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
    }
}
