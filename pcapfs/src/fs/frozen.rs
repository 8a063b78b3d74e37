//! Contents that are frozen when they are opened: `status.json` and `readers.jsonl`.
//!
//! Each opener has a copy, and whoever may read a capture can open as many as they like, of a list
//! of readers that they made as long as they like.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of them that may be open at a time: the list of ten thousand readers for thirty openers.
const MOST: usize = 64 << 20;

/// Bytes of one that takes no room: that much takes opening any file, and those who may open it are
/// held to their number of open files. The `status.json` of a capture is shorter.
const SMALL: usize = 4 << 10;

/// Room for all of them that are open.
#[derive(Debug, Default)]
pub(super) struct Room {
    taken: Arc<AtomicUsize>,
}

/// A content, for one opener.
#[derive(Debug)]
pub(crate) struct Frozen {
    bytes: Arc<[u8]>,
    /// Where it was taken of, if it takes room.
    room: Option<Arc<AtomicUsize>>,
}

impl Room {
    /// Freezes a content; `None` if there is no room for it.
    pub(super) fn take(&self, bytes: Arc<[u8]>) -> Option<Frozen> {
        if bytes.len() <= SMALL {
            return Some(Frozen { bytes, room: None });
        }
        let order = Ordering::Relaxed;
        let add = |taken: usize| taken.checked_add(bytes.len()).filter(|sum| *sum <= MOST);
        self.taken.fetch_update(order, order, add).ok()?;
        Some(Frozen { bytes, room: Some(Arc::clone(&self.taken)) })
    }
}

impl Frozen {
    /// What it is.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Frozen {
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
        let room = Room::default();
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
