//! Opening and closing files.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use capture::clock;
use capture::cursor::snapshot::{Extent, Snapshot};
use capture::cursor::{Begin, Cursor, Format};
use capture::flow::{File, OpenError};
use capture::source::SourceName;
use parking_lot::Mutex;

use super::attributes::Found;
use super::captures::Entry;
use super::error::Error;
use super::file::{Content, FlowFile, OpenFile, Opener};
use super::known::{Begins, Version};
use super::node::{FLOW_LEAVES, LEAVES, Leaf, Node, Part};
use super::{Access, Asker, Kind, Tree, Wanted};

/// Bytes of the largest file that is read through the page cache. Larger files are read in pieces
/// so large that one more copy costs more than one more request for the end.
const SMALL: u64 = 256 << 10;

impl Tree {
    /// Opens a file; release the handle with [`Tree::close`].
    pub(crate) fn open(&self, inode: u64, access: Access, opener: Opener) -> Result<u64, Error> {
        let version = self.known.lock().version(inode).ok_or(Error::NotFound)?;
        let node = version.node;
        if node.kind() != Kind::File {
            return Err(Error::NotFound);
        }
        let is_control = node.leaf() == Some(Leaf::Control);
        if access.read == is_control || access.write != is_control {
            return Err(Error::WrongAccess);
        }
        let (entry, content) = match node {
            Node::Leaf(id, _) | Node::Flow(id, ..) => {
                let entry = self.entry(id)?;
                let content = self.content(inode, version, &entry, opener.asker);
                (Some(entry), content)
            }
            _ => (None, self.freeze(node, opener.asker)),
        };
        // Also if it cannot be opened: a new lookup must find the current file.
        self.known.lock().opened(opener.asker.thread, inode);
        let content = content?;
        let (is_final, size) = content.finality(version);
        if !is_final {
            // While the thread exists: it may be gone when a reader of `readers.jsonl` asks.
            let _ = opener.process();
        }
        let is_awaited = content.is_awaited();
        Ok(self.opened.add(OpenFile {
            inode,
            name: name(node),
            entry,
            content,
            opener,
            opened: clock::now(),
            blocked: AtomicBool::new(false),
            is_small_and_final: is_final && size <= SMALL,
            is_awaited,
        }))
    }

    /// Opens a savefile of a capture for a client that does not come through the kernel; release
    /// the handle with [`Tree::close`]. Also returns its current size, if it has one.
    pub(crate) fn open_savefile(
        &self,
        entry: &Arc<Entry>,
        wanted: Wanted,
        format: Format,
        opener: Opener,
    ) -> (u64, u64) {
        let store = &**entry.capture.store();
        let (leaf, content, size) = match wanted {
            Wanted::Replay => {
                let extent = Extent::new(store, format);
                let snapshot = snapshot(entry, extent);
                (Leaf::Replay(format), Content::Snapshot(Mutex::new(snapshot)), extent.size(store))
            }
            Wanted::Follow | Wanted::Live => {
                let begin = if wanted == Wanted::Live { Begin::Next } else { Begin::Oldest };
                let cursor = Cursor::new(store, format, begin, true);
                (Leaf::Stream(begin, format), Content::Stream(Mutex::new(cursor)), 0)
            }
        };
        let named = LEAVES.iter().find(|(_, known)| *known == leaf).map(|(name, _)| *name);
        let is_awaited = content.is_awaited();
        let handle = self.opened.add(OpenFile {
            // No inode: a request by inode does not mean this file.
            inode: 0,
            name: named.unwrap_or_default(),
            entry: Some(Arc::clone(entry)),
            content,
            opener,
            opened: clock::now(),
            blocked: AtomicBool::new(false),
            is_small_and_final: false,
            is_awaited,
        });
        (handle, size)
    }

    /// The content for a new opener of a file in a capture.
    fn content(
        &self,
        inode: u64,
        version: Version,
        entry: &Arc<Entry>,
        asker: Asker,
    ) -> Result<Content, Error> {
        let store = &**entry.capture.store();
        match version.node.leaf() {
            Some(Leaf::Control) => Ok(Content::Control),
            Some(Leaf::Stream(begin, format)) => {
                Ok(Content::Stream(Mutex::new(Cursor::new(store, format, begin, true))))
            }
            Some(Leaf::Replay(_)) => match version.begins {
                Begins::Extent(extent) => {
                    Ok(Content::Snapshot(Mutex::new(snapshot(entry, extent))))
                }
                Begins::Always | Begins::At(_) => Err(Error::Stale),
            },
            Some(Leaf::Status | Leaf::Readers) => self.freeze(version.node, asker),
            Some(Leaf::Log(_) | Leaf::OpenHttp | Leaf::Har | Leaf::Flows) | None => {
                self.flow_content(inode, version, entry)
            }
        }
    }

    /// The content for a new opener of a file that is frozen at open.
    fn freeze(&self, node: Node, asker: Asker) -> Result<Content, Error> {
        let bytes = self.render(node, asker).ok_or(Error::NotFound)?;
        Ok(Content::Frozen(self.room.take(bytes).ok_or(Error::Full)?))
    }

    /// The content for a new opener of a file of a flow, or of a log.
    fn flow_content(
        &self,
        inode: u64,
        version: Version,
        entry: &Arc<Entry>,
    ) -> Result<Content, Error> {
        // Before it is opened, so that its end is never before the size that stat(2) gave. If the
        // file has moved to another beginning since its lookup, the opener still gets the file it
        // looked up.
        let told = match Self::stat(version, entry) {
            Found::Same(stat) => stat,
            found @ Found::Other(_) => {
                self.known.lock().told(inode).ok_or_else(|| found.error())?
            }
            Found::Nothing => return Err(Error::NotFound),
        };
        let flows = entry.capture.flows();
        let beginning = version.begins.beginning();
        let reading = match (version.node, version.node.leaf()) {
            (_, Some(Leaf::OpenHttp)) => flows.open_http(),
            (_, Some(Leaf::Har)) => flows.har(),
            (_, Some(Leaf::Log(log))) => Ok(flows.open_log(log, beginning)),
            (Node::Flow(_, id, Part::File(file)), _) => flows.open(id, file, beginning),
            _ => Err(OpenError::Gone),
        };
        let reading = reading.map_err(|error| match error {
            OpenError::Gone => Self::stat(version, entry).error(),
            OpenError::NoRoom => Error::NoRoom(error),
        })?;
        Ok(Content::Flow(Mutex::new(FlowFile::new(reading, told))))
    }

    /// Releases a handle.
    pub(crate) fn close(&self, handle: u64) {
        if let Some(file) = self.opened.remove(handle)
            && let (Some(progress), Some(entry)) = (file.progress(), &file.entry)
        {
            entry.reader_closed(progress.delivered, progress.lost);
        }
    }
}

/// An opener of all packets of a capture. If the source is a savefile, reads wait until all of it
/// has been indexed.
fn snapshot(entry: &Entry, extent: Extent) -> Snapshot {
    let snapshot = Snapshot::new(&**entry.capture.store(), extent);
    if matches!(entry.capture.spec().source, SourceName::File(_)) {
        snapshot.awaited()
    } else {
        snapshot
    }
}

/// The name of a file in `readers.jsonl` and in messages.
fn name(node: Node) -> &'static str {
    let named = match node {
        Node::Leaf(_, index) => LEAVES.get(index).map(|(name, _)| *name),
        Node::Flow(.., Part::File(File::Body { .. })) => Some("a body"),
        Node::Flow(.., part) => {
            FLOW_LEAVES.iter().find(|(_, known)| *known == part).map(|(name, _)| *name)
        }
        _ => None,
    };
    named.unwrap_or_default()
}
