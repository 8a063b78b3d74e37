//! The tree as operations on inodes, without FUSE: its nodes, their contents, and the open files.
//!
//! Sizes are exact although contents change. A `status.json` is frozen when it is opened, and its
//! opener sees the size of the frozen copy. A `replay.pcap` has a new inode each time the ring has
//! dropped the packets that the old one began with; a reader that has the old one open keeps it.
//!
//! ```text
//!   lookup ─┐                         ┌── captures   the captures and their flows
//!   list    ├── inode ── known ── node┤
//!   open    │                         └── opened     who has what open
//!   attributes
//! ```

pub(crate) mod access;
mod asker;
mod attributes;
pub(crate) mod captures;
pub(crate) mod error;
pub(crate) mod file;
mod frozen;
mod known;
pub(crate) mod list;
mod lookup;
mod making;
mod names;
mod node;
mod open;
mod opened;
mod status;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use capture::clock;
use capture::flow::Seek;
use capture::ring::Permissions;
use parking_lot::Mutex;
use protocol::time::Timestamp;

use captures::{Captures, Entry};
use error::Error;
use file::{Content, OpenFile};
use known::Known;
use node::{Leaf, Node};
use opened::Opened;

pub(crate) use asker::Asker;
pub(crate) use names::{group_id, user as user_name, user_id};

/// The kind of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    Link,
}

/// The answer to stat(2) for an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes that are not in holes.
    pub(crate) present: u64,
    pub(crate) modified: Timestamp,
    /// How long the kernel may cache all of this, and that the name belongs to this inode.
    pub(crate) valid: Duration,
}

/// For directories that change a little with each packet: long enough to walk a path.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(200);

/// For files that have ended, and change only with permissions or by leaving. Long enough for a
/// program that lists many files before it opens them; a change of permissions waits no longer.
pub(crate) const LASTING: Duration = Duration::from_secs(1);

/// A change of attributes; a field that is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
}

impl Change {
    fn apply(self, permissions: &mut Permissions) {
        permissions.mode = self.mode.map_or(permissions.mode, |mode| mode & 0o777);
        permissions.uid = self.uid.unwrap_or(permissions.uid);
        permissions.gid = self.gid.unwrap_or(permissions.gid);
    }
}

/// A savefile of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything retained.
    Replay,
    /// Everything retained, then new packets.
    Follow,
    /// New packets.
    Live,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// The whole tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) captures: Captures,
    known: Mutex<Known>,
    opened: Opened,
    /// Limits the memory of frozen contents while they are open.
    room: frozen::Room,
    started: Timestamp,
    /// `started` on the monotonic clock, and until when the kernel may have something cached, in
    /// milliseconds from then on.
    begin: Instant,
    believed: AtomicU64,
    /// Permissions of the root; files that belong to no capture have its owner and group.
    permissions: Mutex<Permissions>,
    /// The path of the control socket, if there is one.
    socket: OnceLock<PathBuf>,
    /// Gets every change of permissions.
    keeper: OnceLock<Box<dyn Keeper>>,
}

/// Keeps permissions for the next process.
pub(crate) trait Keeper: Send + Sync + std::fmt::Debug {
    /// Keeps changed permissions of a capture, or of the root if there is no entry.
    fn keep(&self, entry: Option<&Entry>);
}

impl Tree {
    /// A tree without captures, whose root has these permissions.
    pub(crate) fn new(permissions: Permissions) -> Self {
        Self {
            captures: Captures::default(),
            known: Mutex::default(),
            opened: Opened::default(),
            room: frozen::Room::default(),
            started: clock::now(),
            begin: Instant::now(),
            believed: AtomicU64::new(0),
            permissions: Mutex::new(permissions),
            socket: OnceLock::new(),
            keeper: OnceLock::new(),
        }
    }

    /// The permissions of the root.
    pub(crate) fn permissions(&self) -> Permissions {
        *self.permissions.lock()
    }

    /// Sets the permissions of the root.
    pub(crate) fn set_permissions(&self, permissions: Permissions) {
        *self.permissions.lock() = permissions;
    }

    /// Sets the path of the control socket; only the first call counts.
    pub(crate) fn set_socket(&self, path: &Path) {
        let _ = self.socket.set(path.to_owned());
    }

    /// Sets the keeper of changed permissions; only the first call counts.
    pub(crate) fn set_keeper(&self, keeper: Box<dyn Keeper>) {
        let _ = self.keeper.set(keeper);
    }

    /// Keeps the permissions of this inode's root or capture for the next process, after a change.
    ///
    /// # Blocking
    /// On the disk.
    pub(crate) fn keep_permissions(&self, inode: u64) {
        let Some(keeper) = self.keeper.get() else { return };
        match Node::of(inode) {
            Some(Node::Root) => keeper.keep(None),
            Some(Node::Capture(id)) => {
                if let Some(entry) = self.captures.by_id(id) {
                    keeper.keep(Some(&entry));
                }
            }
            _ => {}
        }
    }

    /// The capture with this id.
    fn entry(&self, id: u32) -> Result<Arc<Entry>, Error> {
        self.captures.by_id(id).ok_or(Error::NotFound)
    }

    /// Changes owner, group and mode of the root or a capture's directory. Setting the size of
    /// `ctl` to zero, as a shell's `>` does, changes nothing and is no error.
    pub(crate) fn change(
        &self,
        inode: u64,
        asker: Asker,
        change: Change,
    ) -> Result<Attributes, Error> {
        let node = self.known.lock().version(inode).map(|version| version.node);
        match node {
            Some(Node::Root) if change.size.is_none() => {
                change.apply(&mut self.permissions.lock());
            }
            Some(Node::Capture(id)) if change.size.is_none() => {
                self.entry(id)?.change_permissions(|permissions| change.apply(permissions));
            }
            Some(node)
                if node.leaf() == Some(Leaf::Control)
                    && matches!(
                        change,
                        Change { mode: None, uid: None, gid: None, size: Some(0) }
                    ) => {}
            _ => return Err(Error::Fixed),
        }
        self.attributes(inode, asker)
    }

    /// Notes that the kernel is about to get attributes that it may cache for a while.
    pub(crate) fn tell(&self, attributes: &Attributes) {
        if attributes.valid > Duration::ZERO {
            let until = self.begin.elapsed() + attributes.valid;
            let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
            self.believed.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// How long the kernel may still have something cached.
    pub(crate) fn believed_for(&self) -> Duration {
        let until = Duration::from_millis(self.believed.load(Ordering::Relaxed));
        until.saturating_sub(self.begin.elapsed())
    }

    /// The current `status.json` of a capture.
    pub(crate) fn status_of(&self, entry: &Entry) -> Vec<u8> {
        let aliases = self.captures.links_to(entry.alias());
        status::of_capture(entry, aliases, &self.opened.readers(entry.id))
    }

    /// The current `status.json` of the root, with these captures.
    pub(crate) fn status_of_daemon(&self, captures: &[Arc<Entry>]) -> Vec<u8> {
        status::of_daemon(
            &self.captures,
            captures,
            self.started,
            self.socket.get().map(PathBuf::as_path),
        )
    }

    /// The target of a link.
    pub(crate) fn link_target(&self, inode: u64) -> Result<String, Error> {
        match Node::of(inode) {
            Some(Node::Link(index)) => self.captures.link_target(index).ok_or(Error::NotFound),
            _ => Err(Error::NotALink),
        }
    }

    /// The next data or hole in an open file, at or after an offset (lseek(2)).
    pub(crate) fn seek(
        &self,
        handle: u64,
        offset: u64,
        to: Seek,
        asker: Asker,
    ) -> Result<u64, Error> {
        let file = self.file(handle).ok_or(Error::BadHandle)?;
        if let Content::Flow(flow) = &file.content {
            return flow.lock().seek(offset, to).ok_or(Error::NothingThere);
        }
        // Other files have only the hole after their end.
        let size = self.attributes_of_opening(handle, file.inode, asker)?.size;
        match to {
            _ if offset >= size => Err(Error::NothingThere),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(size),
        }
    }

    /// The open file of a handle.
    pub(crate) fn file(&self, handle: u64) -> Option<Arc<OpenFile>> {
        self.opened.file(handle)
    }

    /// The number of open files.
    pub(crate) fn open_files(&self) -> usize {
        self.opened.count()
    }

    /// Carries out an order that was written to `ctl`: one word, with or without a line feed.
    pub(crate) fn order(&self, handle: u64, text: &[u8]) -> Result<(), Error> {
        let file = self.file(handle).ok_or(Error::BadHandle)?;
        let (Content::Control, Some(entry)) = (&file.content, &file.entry) else {
            return Err(Error::WrongAccess);
        };
        // A capture that has been removed from the tree since must not begin again.
        self.entry(entry.id)?;
        let capture = &entry.capture;
        match text.strip_suffix(b"\n").unwrap_or(text) {
            b"start" => capture.start().map_err(|error| Error::Refused(error.to_string())),
            b"stop" => {
                capture.stop();
                Ok(())
            }
            b"clear" if capture.clear() => Ok(()),
            b"clear" => Err(Error::Unsupported("a savefile cannot be cleared")),
            _ => Err(Error::BadOrder),
        }
    }
}

#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod tests;
