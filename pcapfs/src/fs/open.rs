//! Opening and closing files.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use capture::clock;
use capture::cursor::batch::BatchCursor;
use capture::cursor::snapshot::SnapshotExtent;
use capture::cursor::{Begin, SavefileFormat};

use parking_lot::Mutex;

use super::captures::CaptureEntry;
use super::dir::{NodeItem, name_of};
use super::error::TreeError;
use super::file::{FileNode, FileRequest};
use super::open_file::{FileOpener, OpenContent, OpenFile};
use super::{OpenAccess, SavefileKind, Tree};

/// Bytes of the largest file that is read through the page cache. Larger files are read in pieces
/// so large that one more copy costs more than one more request for the end.
const SMALL: u64 = 256 << 10;

impl Tree {
    /// Opens a file; release the handle with [`Tree::close`].
    pub(crate) fn open(
        &self,
        inode: u64,
        access: OpenAccess,
        opener: FileOpener,
    ) -> Result<u64, TreeError> {
        let version = self.version(inode)?;
        let NodeItem::File(file) = &version.node.item else { return Err(TreeError::NotFound) };
        let provider = file.provider();
        let is_written = provider.is_written();
        if access.read == is_written || access.write != is_written {
            return Err(TreeError::WrongAccess);
        }
        let entry = provider.capture().map(|capture| self.entry(capture)).transpose()?;
        let request =
            FileRequest { tree: self, inode, beginning: version.beginning, asker: opener.asker };
        let content = provider.open(&request);
        // Also if it cannot be opened: a new lookup must find the current file.
        self.inodes.lock().opened(opener.asker.thread, inode);
        let content = content?;
        let final_size = content.final_size().filter(|_| !provider.begins_anew());
        if final_size.is_none() {
            // While the thread exists: it may be gone when a reader of `readers.jsonl` asks.
            let _ = opener.process();
        }
        let is_awaited = content.is_awaited();
        Ok(self.open_files.add(OpenFile {
            inode,
            name: version.node.label,
            entry,
            content,
            opener,
            opened: clock::now(),
            blocked: AtomicBool::new(false),
            is_small_and_final: final_size.is_some_and(|size| size <= SMALL),
            is_awaited,
        }))
    }

    /// Opens a savefile of a capture for a client that does not come through the kernel; release
    /// the handle with [`Tree::close`]. Also returns its current size, if it has one.
    pub(crate) fn open_savefile(
        &self,
        entry: &Arc<CaptureEntry>,
        wanted: SavefileKind,
        format: SavefileFormat,
        opener: FileOpener,
    ) -> (u64, u64) {
        let store = &**entry.capture.store();
        let (file, content, size) = match wanted {
            SavefileKind::Replay => {
                let extent = SnapshotExtent::new(store, format);
                let content = OpenContent::snapshot(entry, extent);
                (FileNode::replay(entry.id, format), content, extent.size(store))
            }
            SavefileKind::Follow | SavefileKind::Live => {
                let begin = if wanted == SavefileKind::Live { Begin::Next } else { Begin::Oldest };
                let content = OpenContent::stream(entry, begin, format);
                (FileNode::stream(entry.id, begin, format), content, 0)
            }
        };
        let name = name_of(entry.id, file).unwrap_or_default();
        (self.open_unlisted(entry, name, content, opener), size)
    }

    /// Opens the packets of a capture, from the packet with this number on, for another daemon that
    /// follows it; release the handle with [`Tree::close`].
    pub(crate) fn open_batches(
        &self,
        entry: &Arc<CaptureEntry>,
        first: u64,
        opener: FileOpener,
    ) -> u64 {
        let cursor = BatchCursor::at(&**entry.capture.store(), first);
        self.open_unlisted(entry, "mirror", OpenContent::Batches(Mutex::new(cursor)), opener)
    }

    /// Adds an open file that has no inode.
    fn open_unlisted(
        &self,
        entry: &Arc<CaptureEntry>,
        name: &'static str,
        content: OpenContent,
        opener: FileOpener,
    ) -> u64 {
        let is_awaited = content.is_awaited();
        self.open_files.add(OpenFile {
            // No inode: a request by inode does not mean this file.
            inode: 0,
            name,
            entry: Some(Arc::clone(entry)),
            content,
            opener,
            opened: clock::now(),
            blocked: AtomicBool::new(false),
            is_small_and_final: false,
            is_awaited,
        })
    }

    /// Releases a handle.
    pub(crate) fn close(&self, handle: u64) {
        let Some(file) = self.open_files.remove(handle) else { return };
        if let Some(lack) = file.lack() {
            file.log_injection(&lack);
        }
        if let (Some(progress), Some(entry)) = (file.progress(), &file.entry) {
            entry.reader_closed(progress.delivered, progress.lost);
        }
    }
}
