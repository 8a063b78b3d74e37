//! The tree as operations on inodes, without FUSE: its nodes, their contents, and the open files.
//!
//! Sizes are exact although contents change. A `status.json` is rendered when it is opened, and its
//! opener sees the size of that text. A `replay.pcap` has a new inode each time the ring has
//! dropped the packets that the old one began with; a reader that has the old one open keeps it.
//!
//! ```text
//!   lookup ─┐           ┌── dir    the directories, a provider for each kind
//!   list    ├── inodes ─┤
//!   open    │           └── file   the files, a provider for each kind ──┬── captures, flows
//!   attributes                                                          └── open_files
//! ```
//!
//! The operations on the left know no kind of directory or file. They find the node of an inode,
//! and ask its provider.

pub(crate) mod access;
mod asker;
mod attributes;
mod beginning;
pub(crate) mod captures;
mod dir;
pub(crate) mod error;
mod file;
mod inodes;
mod link;
pub(crate) mod list;
mod lookup;
pub(crate) mod names;
mod open;
pub(crate) mod open_file;
mod open_files;
mod rendered_text;
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

use captures::{CaptureEntry, Captures};
use dir::{Node, NodeItem};
use error::TreeError;
use inodes::Inodes;
use open_file::{OpenContent, OpenFile};
use open_files::OpenFiles;
use rendered_text::RenderedRoom;

pub(crate) use asker::Asker;
pub(crate) use names::{group_id, user as user_name, user_id};
pub(crate) use status::{CertificateStatus, RemoteReporter, RemoteStatus};

/// The kind of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InodeKind {
    Directory,
    File,
    Link,
}

/// The answer to stat(2) for an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) inode: u64,
    pub(crate) kind: InodeKind,
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
    /// The time for which the kernel may cache all of this, and that the name belongs to this
    /// inode.
    pub(crate) valid: Duration,
}

/// The attributes of a node, except those that depend on its capture and on the asker.
#[derive(Clone, Copy, Debug)]
struct NodeFacts {
    /// Bytes.
    size: u64,
    /// Bytes that are not in holes.
    present: u64,
    links: u32,
    modified: Timestamp,
    /// See [`Attributes::valid`].
    valid: Duration,
}

impl NodeFacts {
    /// Facts about a file or link without holes, which the kernel must not cache.
    const fn of_size(size: u64, modified: Timestamp) -> Self {
        Self { size, present: size, links: 1, modified, valid: Duration::ZERO }
    }

    /// Facts about a directory that contains this many directories, which the kernel must not
    /// cache.
    ///
    /// `None` means that they are not counted, or that one may appear during a walk. The directory
    /// has one link then: programs that walk through trees take a number below 2 as "not known", as
    /// with btrfs. Because of a wrong number they would leave directories out.
    const fn of_directory(directories: Option<u32>, modified: Timestamp) -> Self {
        // Its name and its own `.`, and `..` of each directory in it.
        let links = match directories {
            Some(directories) => directories.saturating_add(2),
            None => 1,
        };
        Self { links, ..Self::of_size(0, modified) }
    }
}

/// For directories that change a little with each packet: long enough to walk a path.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(200);

/// For files and directories of flows that have ended, which change only with permissions or by
/// leaving. Long enough for a
/// program that lists many files before it opens them; a change of permissions waits no longer.
pub(crate) const LASTING: Duration = Duration::from_secs(1);

/// A change of attributes; a field that is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttributeChange {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
}

impl AttributeChange {
    fn apply(self, permissions: &mut Permissions) {
        permissions.mode = self.mode.map_or(permissions.mode, |mode| mode & 0o777);
        permissions.uid = self.uid.unwrap_or(permissions.uid);
        permissions.gid = self.gid.unwrap_or(permissions.gid);
    }
}

/// A savefile of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SavefileKind {
    /// Everything retained.
    Replay,
    /// Everything retained, then new packets.
    Follow,
    /// New packets.
    Live,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenAccess {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// The whole tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) captures: Captures,
    inodes: Mutex<Inodes>,
    open_files: OpenFiles,
    /// Limits the memory of rendered texts while they are open.
    room: RenderedRoom,
    started: Timestamp,
    /// `started` on the monotonic clock, and the time until which the kernel may have something
    /// cached, in milliseconds from then on.
    begin: Instant,
    cached_until: AtomicU64,
    /// Permissions of the root; files that belong to no capture have its owner and group.
    permissions: Mutex<Permissions>,
    /// The path of the control socket, unless the daemon has none.
    socket: OnceLock<PathBuf>,
    /// The service for other machines.
    remote: OnceLock<Arc<dyn RemoteReporter>>,
    /// Gets every change of permissions.
    keeper: OnceLock<Box<dyn PermissionKeeper>>,
}

/// Keeps permissions for the next process.
pub(crate) trait PermissionKeeper: Send + Sync + std::fmt::Debug {
    /// Keeps changed permissions of a capture, or of the root if there is no entry.
    fn keep(&self, entry: Option<&CaptureEntry>);
}

impl Tree {
    /// A tree without captures, whose root has these permissions.
    pub(crate) fn new(permissions: Permissions) -> Self {
        Self {
            captures: Captures::default(),
            inodes: Mutex::default(),
            open_files: OpenFiles::default(),
            room: RenderedRoom::default(),
            started: clock::now(),
            begin: Instant::now(),
            cached_until: AtomicU64::new(0),
            permissions: Mutex::new(permissions),
            socket: OnceLock::new(),
            remote: OnceLock::new(),
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

    /// The path of the control socket.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        self.socket.get().cloned()
    }

    /// Sets the path of the control socket; only the first call counts.
    pub(crate) fn set_socket(&self, path: &Path) {
        let _ = self.socket.set(path.to_owned());
    }

    /// Sets what reports on the service for other machines; only the first call counts.
    pub(crate) fn set_remote(&self, remote: Arc<dyn RemoteReporter>) {
        let _ = self.remote.set(remote);
    }

    /// Sets the keeper of changed permissions; only the first call counts.
    pub(crate) fn set_keeper(&self, keeper: Box<dyn PermissionKeeper>) {
        let _ = self.keeper.set(keeper);
    }

    /// Keeps the permissions of this inode's root or capture for the next process, after a change.
    ///
    /// # Blocking
    /// On the disk.
    pub(crate) fn keep_permissions(&self, inode: u64) {
        let Some(keeper) = self.keeper.get() else { return };
        if let Some(NodeItem::Directory(directory)) = Node::of(inode).map(|node| node.item) {
            directory.provider().keep_permissions(self, &**keeper);
        }
    }

    /// The capture with this id.
    fn entry(&self, id: u32) -> Result<Arc<CaptureEntry>, TreeError> {
        self.captures.by_id(id).ok_or(TreeError::NotFound)
    }

    /// Changes owner, group and mode of the root or a capture's directory. Setting the size of a
    /// file that is written to zero, as a shell's `>` does, changes nothing and is no error.
    pub(crate) fn change(
        &self,
        inode: u64,
        asker: Asker,
        change: AttributeChange,
    ) -> Result<Attributes, TreeError> {
        let node = self.version(inode).map_err(|_| TreeError::Fixed)?.node;
        let is_emptied = AttributeChange { size: Some(0), ..AttributeChange::default() };
        match &node.item {
            NodeItem::Directory(directory) if change.size.is_none() => {
                let change = |permissions: &mut Permissions| change.apply(permissions);
                directory.provider().change_permissions(self, &change)?;
            }
            NodeItem::File(file) if file.provider().is_written() && change == is_emptied => {}
            _ => return Err(TreeError::Fixed),
        }
        self.attributes(inode, asker)
    }

    /// Notes that the kernel is about to get attributes that it may cache for a while.
    pub(crate) fn note_caching(&self, attributes: &Attributes) {
        if attributes.valid > Duration::ZERO {
            let until = self.begin.elapsed() + attributes.valid;
            let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
            self.cached_until.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// The maximum time for which the kernel still has something cached.
    pub(crate) fn cached_for(&self) -> Duration {
        let until = Duration::from_millis(self.cached_until.load(Ordering::Relaxed));
        until.saturating_sub(self.begin.elapsed())
    }

    /// The current `status.json` of a capture.
    pub(crate) fn status_of(&self, entry: &CaptureEntry) -> Vec<u8> {
        let aliases = self.captures.links_to(entry.alias());
        status::of_capture(entry, aliases, &self.open_files.readers(entry.id))
    }

    /// The current `status.json` of the root, with these captures.
    pub(crate) fn status_of_daemon(&self, captures: &[Arc<CaptureEntry>]) -> Vec<u8> {
        let remote = self.remote.get().map(|remote| remote.status());
        status::of_daemon(
            &self.captures,
            captures,
            self.started,
            self.socket.get().map(PathBuf::as_path),
            remote,
        )
    }

    /// The target of a link.
    pub(crate) fn link_target(&self, inode: u64) -> Result<String, TreeError> {
        match self.version(inode).map(|version| version.node.item) {
            Ok(NodeItem::Link(link)) => link.target(self),
            _ => Err(TreeError::NotALink),
        }
    }

    /// The next data or hole in an open file, at or after an offset (lseek(2)).
    pub(crate) fn seek(
        &self,
        handle: u64,
        offset: u64,
        to: Seek,
        asker: Asker,
    ) -> Result<u64, TreeError> {
        let file = self.file(handle).ok_or(TreeError::BadHandle)?;
        if let OpenContent::Flow(flow) = &file.content {
            return flow.lock().seek(offset, to).ok_or(TreeError::NothingThere);
        }
        // Other files have only the hole after their end.
        let size = self.attributes_of_opening(handle, file.inode, asker)?.size;
        match to {
            _ if offset >= size => Err(TreeError::NothingThere),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(size),
        }
    }

    /// The open file of a handle.
    pub(crate) fn file(&self, handle: u64) -> Option<Arc<OpenFile>> {
        self.open_files.file(handle)
    }

    /// How often [`file`](Self::file) was called.
    #[cfg(test)]
    pub(crate) fn handle_lookups(&self) -> usize {
        self.open_files.lookups.load(Ordering::Relaxed)
    }

    /// The number of open files.
    pub(crate) fn open_files(&self) -> usize {
        self.open_files.count()
    }

    /// Passes the bytes of one write to an open file.
    pub(crate) fn write(&self, handle: u64, bytes: &[u8]) -> Result<(), TreeError> {
        let file = self.file(handle).ok_or(TreeError::BadHandle)?;
        if !matches!(file.content, OpenContent::Written) {
            return Err(TreeError::WrongAccess);
        }
        match &self.version(file.inode)?.node.item {
            NodeItem::File(file) => file.provider().write(self, bytes),
            NodeItem::Directory(_) | NodeItem::Link(_) => Err(TreeError::WrongAccess),
        }
    }
}

#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod tests;
