//! Contents that are made in memory when a program asks for the size of a file or opens it. A
//! content is made once, however many readers have it open. All together are limited, because every
//! reader of a capture can open as many files as it likes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

/// Bytes above which contents of one capture are made one after the other, because making them
/// takes further memory.
pub(super) const LARGE: u64 = 1 << 20;

/// Bytes that are decoded in a moment, half a millisecond; much less than [`LARGE`].
pub(super) const QUICK: u64 = 256 << 10;

/// Maximum bytes of a content that takes no room. Opening any file takes as much memory, and the
/// number of files that a reader may open is limited.
pub(super) const SMALL: usize = 4 << 10;

/// A content, as long as a reader has it.
#[derive(Debug)]
pub(super) struct MadeContent {
    bytes: OnceLock<Vec<u8>>,
    /// Bytes of the common room that it takes.
    taken: u64,
    room: Option<Arc<AtomicU64>>,
}

impl MadeContent {
    /// A small content for one opener, which takes no room.
    pub(super) fn own(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes: OnceLock::from(bytes), taken: 0, room: None })
    }

    /// The bytes of the content.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get().map_or(&[], Vec::as_slice)
    }
}

impl Drop for MadeContent {
    fn drop(&mut self) {
        if let Some(room) = &self.room {
            room.fetch_add(self.taken, Ordering::Relaxed);
        }
    }
}

/// All contents of a capture that readers have open.
#[derive(Debug)]
pub(super) struct Contents<K> {
    known: Mutex<Known<K>>,
    /// Bytes of room that are left.
    room: Arc<AtomicU64>,
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Known<K> {
    contents: HashMap<K, Weak<MadeContent>>,
    /// Number of entries above which entries without a reader are removed.
    most: usize,
}

impl<K: Copy + Eq + Hash> Contents<K> {
    /// Contents with room for `room` bytes.
    pub(super) fn new(room: u64) -> Self {
        let known = Known { contents: HashMap::new(), most: 64 };
        let room = Arc::new(AtomicU64::new(room));
        Self { known: Mutex::new(known), room, turn: Mutex::new(()) }
    }

    /// The content called `key`, of at most `len` bytes. It is made unless a reader has it already;
    /// `None` if there is no room.
    pub(super) fn get(
        &self,
        key: K,
        len: u64,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Option<Arc<MadeContent>> {
        let mut known = self.known.lock();
        let there = known.contents.get(&key).and_then(Weak::upgrade);
        let made = match there {
            Some(made) => made,
            None => {
                let made = self.take(len)?;
                known.contents.insert(key, Arc::downgrade(&made));
                if known.contents.len() > known.most {
                    known.contents.retain(|_, made| made.strong_count() > 0);
                    known.most = known.contents.len().saturating_mul(2).max(64);
                }
                made
            }
        };
        drop(known);
        made.bytes.get_or_init(|| {
            let _turn = (len > LARGE).then(|| self.turn.lock());
            make()
        });
        Some(made)
    }

    /// Runs `act`, which takes much memory besides its result. Only one runs at a time.
    pub(super) fn in_turn<T>(&self, act: impl FnOnce() -> T) -> T {
        let _turn = self.turn.lock();
        act()
    }

    /// Keeps a content that exists already; `None` if there is no room for it.
    pub(super) fn keep(&self, bytes: Vec<u8>) -> Option<Arc<MadeContent>> {
        let made = self.take(bytes.len() as u64)?;
        made.bytes.get_or_init(|| bytes);
        Some(made)
    }

    /// Takes room for a content kept elsewhere; `None` if there is not enough.
    pub(super) fn hold(&self, len: u64) -> Option<Arc<MadeContent>> {
        self.take(len)
    }

    /// Returns `true` if there is room for this many bytes.
    pub(super) fn has_room(&self, len: u64) -> bool {
        self.room.load(Ordering::Relaxed) >= len
    }

    fn take(&self, len: u64) -> Option<Arc<MadeContent>> {
        let order = Ordering::Relaxed;
        self.room.fetch_update(order, order, |room| room.checked_sub(len)).ok()?;
        let room = Some(Arc::clone(&self.room));
        Some(Arc::new(MadeContent { bytes: OnceLock::new(), taken: len, room }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_content_is_made_once_and_room_comes_back() {
        let contents = Contents::new(100);
        let one = contents.get(1, 60, || vec![1; 60]).unwrap();
        let same = contents.get(1, 60, || unreachable!("it is there")).unwrap();
        assert_eq!((one.bytes(), same.bytes().len()), (&[1; 60][..], 60));
        assert!(contents.get(2, 41, || vec![2; 41]).is_none());
        assert!(contents.keep(vec![3; 41]).is_none());
        let beside = contents.keep(vec![3; 40]).unwrap();
        drop(one);
        assert!(contents.get(2, 41, Vec::new).is_none(), "one of two openers has it still");
        drop(same);
        assert_eq!(contents.get(2, 60, || vec![2; 60]).unwrap().bytes(), [2; 60]);
        drop(beside);
        // Contents without a reader are forgotten.
        for key in 0..1_000 {
            assert!(contents.get(key, 1, || vec![0]).is_some());
        }
        assert!(contents.known.lock().contents.len() <= 65);
        assert_eq!(contents.room.load(Ordering::Relaxed), 100);
    }
}
