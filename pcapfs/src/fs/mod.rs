//! The tree as operations on inodes, without FUSE: what there is, what it says, who has it open.
//!
//! Sizes are exact although contents change: a `status.json` is frozen when it is opened, and its
//! opener is told the size of what was frozen; a `replay.pcap` has a new inode each time the ring
//! has dropped what its old one began with, and whoever has the old one open goes on with that.

pub(crate) mod captures;
pub(crate) mod error;
pub(crate) mod file;
mod names;
mod node;
mod status;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use capture::cursor::snapshot::{Extent, Snapshot};
use capture::cursor::{Cursor, Format};
use capture::ring::Permissions;
use capture::time::Timestamp;
use parking_lot::{Mutex, RwLock};

use captures::{Captures, Entry, Named};
use error::Error;
use file::{Content, OpenFile, Opener};
use node::{LEAVES, Leaf, Node, leaf_index, replay_inode};

pub(crate) use names::group_id;

/// What kind of thing an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    Link,
}

/// What stat(2) says of an inode.
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
    pub(crate) modified: Timestamp,
}

/// One name of a directory.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryEntry {
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

/// A change of attributes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// A `replay` file with a beginning of its own.
#[derive(Clone, Debug)]
struct Replay {
    name: &'static str,
    entry: Arc<Entry>,
    extent: Extent,
}

/// How long a process that looked a `replay` file up finds the same one, although it begins
/// elsewhere by now: cp and others look first, open then, and give up if that is another file.
const SAME_FILE: Duration = Duration::from_millis(10);

/// The `replay` files the kernel knows of.
#[derive(Debug, Default)]
struct Replays {
    made: u64,
    /// By inode, with the number of times each was looked up and not forgotten.
    known: HashMap<u64, (Replay, u64)>,
    /// The inode that a capture's replay of a format has now.
    current: HashMap<(u32, Format), (Extent, u64)>,
    /// Who looked up what within the last [`SAME_FILE`] and has not opened it, oldest first.
    recent: VecDeque<(Instant, u32, (u32, Format), u64)>,
}

/// The whole tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) captures: Captures,
    replays: Mutex<Replays>,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    opened: AtomicU64,
    started: Timestamp,
    /// Owner and group of the root and what belongs to no capture.
    owner: (u32, u32),
}

impl Tree {
    /// A tree without captures.
    pub(crate) fn new(owner: (u32, u32)) -> Self {
        Self {
            captures: Captures::default(),
            replays: Mutex::default(),
            files: RwLock::default(),
            opened: AtomicU64::new(0),
            started: Timestamp::now(),
            owner,
        }
    }

    /// Finds a name in a directory, for a process. Each success is to be undone with
    /// [`Tree::forget`].
    pub(crate) fn lookup(&self, parent: u64, name: &str, pid: u32) -> Result<Attributes, Error> {
        let node = match Node::of(parent) {
            Some(Node::Root) => match name {
                "README" => Node::Readme,
                "status.json" => Node::RootStatus,
                _ => match self.captures.named(name).ok_or(Error::NotFound)? {
                    Named::Capture(entry) => Node::Capture(entry.id),
                    Named::Link { index } => Node::Link(index),
                },
            },
            Some(Node::Capture(id)) => {
                let entry = self.captures.by_id(id).ok_or(Error::NotFound)?;
                let index = leaf_index(name).ok_or(Error::NotFound)?;
                match LEAVES.get(index) {
                    Some((name, Leaf::Replay(format))) => {
                        return Ok(self.replay(name, &entry, *format, pid));
                    }
                    _ => Node::Leaf(id, index),
                }
            }
            Some(_) => return Err(Error::NotADirectory),
            None => return Err(Error::NotFound),
        };
        self.attributes(node.inode(), pid)
    }

    /// The inode a capture's replay has now, looked up once more.
    fn replay(
        &self,
        name: &'static str,
        entry: &Arc<Entry>,
        format: Format,
        pid: u32,
    ) -> Attributes {
        let extent = Extent::new(&**entry.capture.store(), format);
        let key = (entry.id, format);
        let now = Instant::now();
        let mut replays = self.replays.lock();
        let Replays { made, known, current, recent } = &mut *replays;
        while recent.front().is_some_and(|(then, ..)| now.duration_since(*then) > SAME_FILE) {
            recent.pop_front();
        }
        let again = recent.iter().find(|(_, who, what, _)| (*who, *what) == (pid, key));
        let inode = match (again, current.get(&key)) {
            (Some((.., inode)), _) if known.contains_key(inode) => *inode,
            (_, Some((same, inode))) if *same == extent => *inode,
            _ => {
                *made += 1;
                let inode = replay_inode(*made);
                current.insert(key, (extent, inode));
                inode
            }
        };
        if again.is_none() {
            recent.push_back((now, pid, key, inode));
        }
        let make = || Replay { name, entry: Arc::clone(entry), extent };
        let (replay, lookups) = known.entry(inode).or_insert_with(|| (make(), 0));
        *lookups += 1;
        of_replay(inode, replay)
    }

    /// Undoes `count` lookups of an inode.
    pub(crate) fn forget(&self, inode: u64, count: u64) {
        let mut replays = self.replays.lock();
        if let Some((_, lookups)) = replays.known.get_mut(&inode) {
            *lookups = lookups.saturating_sub(count);
            if *lookups == 0 {
                replays.known.remove(&inode);
            }
        }
    }

    fn known_replay(&self, inode: u64) -> Result<Replay, Error> {
        let replays = self.replays.lock();
        replays.known.get(&inode).map(|(replay, _)| replay.clone()).ok_or(Error::NotFound)
    }

    /// The content of a file that is frozen when it is opened.
    fn render(&self, node: Node) -> Option<Arc<[u8]>> {
        match node {
            Node::Readme => Some(status::README.as_bytes().into()),
            Node::RootStatus => Some(status::of_daemon(&self.captures, self.started).into()),
            Node::Leaf(id, index) => {
                let entry = self.captures.by_id(id)?;
                match LEAVES.get(index)?.1 {
                    Leaf::Status => Some(status::of_capture(&entry, &self.readers(id)).into()),
                    Leaf::Readers => Some(status::of_readers(&self.readers(id)).into()),
                    Leaf::Stream(..) | Leaf::Replay(_) | Leaf::Control => None,
                }
            }
            _ => None,
        }
    }

    /// What the process of this thread has open of an inode.
    fn opened_by(&self, inode: u64, thread: u32) -> Vec<Arc<OpenFile>> {
        let files = self.files.read();
        let open: Vec<_> = files.values().filter(|file| file.inode == inode).cloned().collect();
        drop(files);
        if open.is_empty() {
            return open;
        }
        // Only now: it is a look into /proc.
        let process = file::process_of(thread).0;
        open.into_iter().filter(|file| [process, thread].contains(&file.opener.pid)).collect()
    }

    /// Size and time of a file that is frozen when it is opened: of what process `pid` has open,
    /// or else of what it would get.
    fn frozen(&self, node: Node, pid: u32) -> (u64, Timestamp) {
        let newest = self.opened_by(node.inode(), pid).into_iter().max_by_key(|file| file.opened);
        if let Some(file) = newest
            && let Content::Frozen(bytes) = &file.content
        {
            return (bytes.len() as u64, file.opened);
        }
        (self.render(node).map_or(0, |bytes| bytes.len() as u64), Timestamp::now())
    }

    /// What stat(2) says to process `pid`, which can then read as far as it was told.
    pub(crate) fn attributes(&self, inode: u64, pid: u32) -> Result<Attributes, Error> {
        let of_root = |kind, mode, size, modified| Attributes {
            inode,
            kind,
            mode,
            links: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            size,
            modified,
        };
        let node = Node::of(inode).ok_or(Error::NotFound)?;
        match node {
            Node::Root => {
                let directories = self.captures.all().len();
                let links = u32::try_from(directories + 2).unwrap_or(u32::MAX);
                Ok(Attributes { links, ..of_root(Kind::Directory, 0o755, 0, self.started) })
            }
            Node::Readme => {
                Ok(of_root(Kind::File, 0o444, status::README.len() as u64, self.started))
            }
            Node::RootStatus => {
                let (size, modified) = self.frozen(node, pid);
                Ok(of_root(Kind::File, 0o444, size, modified))
            }
            Node::Link(index) => {
                let target = self.captures.link_target(index).ok_or(Error::NotFound)?;
                Ok(of_root(Kind::Link, 0o777, target.len() as u64, self.started))
            }
            Node::Capture(id) => {
                let entry = self.captures.by_id(id).ok_or(Error::NotFound)?;
                let Permissions { uid, gid, mode } = entry.permissions();
                let modified = newest(&entry);
                let kind = Kind::Directory;
                Ok(Attributes { inode, kind, mode, links: 2, uid, gid, size: 0, modified })
            }
            Node::Leaf(id, index) => {
                let entry = self.captures.by_id(id).ok_or(Error::NotFound)?;
                let leaf = LEAVES.get(index).map(|(_, leaf)| *leaf).ok_or(Error::NotFound)?;
                let (size, modified) = match leaf {
                    Leaf::Status | Leaf::Readers => self.frozen(node, pid),
                    Leaf::Stream(..) | Leaf::Replay(_) | Leaf::Control => (0, newest(&entry)),
                };
                Ok(of_leaf(inode, &entry, leaf, size, modified))
            }
            Node::Replay => {
                let attributes = of_replay(inode, &self.known_replay(inode)?);
                // The ends move after the size was taken, so they are never before it.
                for file in self.opened_by(inode, pid) {
                    file.size_was_told();
                }
                Ok(attributes)
            }
        }
    }

    /// Changes owner, group and mode of a capture's directory. Setting the size of `ctl` to zero,
    /// as a shell's `>` does, changes nothing and is no error.
    pub(crate) fn change(&self, inode: u64, pid: u32, change: Change) -> Result<Attributes, Error> {
        match Node::of(inode) {
            Some(Node::Capture(id)) if change.size.is_none() => {
                let entry = self.captures.by_id(id).ok_or(Error::NotFound)?;
                entry.change_permissions(|permissions| {
                    permissions.mode = change.mode.map_or(permissions.mode, |mode| mode & 0o777);
                    permissions.uid = change.uid.unwrap_or(permissions.uid);
                    permissions.gid = change.gid.unwrap_or(permissions.gid);
                });
            }
            Some(Node::Leaf(_, index))
                if LEAVES.get(index).is_some_and(|(_, leaf)| *leaf == Leaf::Control)
                    && matches!(
                        change,
                        Change { mode: None, uid: None, gid: None, size: Some(0) }
                    ) => {}
            _ => return Err(Error::Fixed),
        }
        self.attributes(inode, pid)
    }

    /// Where a link points to.
    pub(crate) fn link_target(&self, inode: u64) -> Result<String, Error> {
        match Node::of(inode) {
            Some(Node::Link(index)) => self.captures.link_target(index).ok_or(Error::NotFound),
            _ => Err(Error::NotALink),
        }
    }

    /// The names of a directory, without `.` and `..`, always in the same order.
    pub(crate) fn list(&self, inode: u64) -> Result<Vec<DirectoryEntry>, Error> {
        let entry = |node: Node, kind, name: &str| DirectoryEntry {
            inode: node.inode(),
            kind,
            name: name.to_owned(),
        };
        match Node::of(inode).ok_or(Error::NotFound)? {
            Node::Root => {
                let fixed = [
                    entry(Node::Readme, Kind::File, "README"),
                    entry(Node::RootStatus, Kind::File, "status.json"),
                ];
                let named = self.captures.names().into_iter().map(|(name, named)| match named {
                    Named::Capture(found) => entry(Node::Capture(found.id), Kind::Directory, &name),
                    Named::Link { index } => entry(Node::Link(index), Kind::Link, &name),
                });
                Ok(fixed.into_iter().chain(named).collect())
            }
            Node::Capture(id) => Ok(LEAVES
                .iter()
                .enumerate()
                .map(|(index, (name, _))| entry(Node::Leaf(id, index), Kind::File, name))
                .collect()),
            _ => Err(Error::NotADirectory),
        }
    }

    /// Opens a file; the handle is to be given back with [`Tree::close`].
    pub(crate) fn open(&self, inode: u64, access: Access, opener: Opener) -> Result<u64, Error> {
        let node = Node::of(inode).ok_or(Error::NotFound)?;
        let (name, entry, content) = match node {
            Node::Replay => {
                let Replay { name, entry, extent } = self.known_replay(inode)?;
                let thread = opener.thread;
                self.replays
                    .lock()
                    .recent
                    .retain(|(_, who, _, what)| (*who, *what) != (thread, inode));
                let snapshot = Snapshot::new(&**entry.capture.store(), extent);
                (name, Some(entry), Content::Snapshot(Mutex::new(snapshot)))
            }
            Node::Leaf(id, index) => {
                let entry = self.captures.by_id(id).ok_or(Error::NotFound)?;
                let (name, leaf) = LEAVES.get(index).ok_or(Error::NotFound)?;
                let content = match leaf {
                    Leaf::Control => Content::Control,
                    Leaf::Stream(begin, format) => {
                        let store = &**entry.capture.store();
                        Content::Stream(Mutex::new(Cursor::new(store, *format, *begin, true)))
                    }
                    Leaf::Replay(_) | Leaf::Status | Leaf::Readers => {
                        Content::Frozen(self.render(node).ok_or(Error::NotFound)?)
                    }
                };
                (*name, Some(entry), content)
            }
            Node::Root | Node::Readme | Node::RootStatus | Node::Capture(_) | Node::Link(_) => {
                ("", None, Content::Frozen(self.render(node).ok_or(Error::NotFound)?))
            }
        };
        let is_control = matches!(content, Content::Control);
        if access.read == is_control || access.write != is_control {
            return Err(Error::WrongAccess);
        }
        let file = OpenFile {
            inode,
            name,
            entry,
            content,
            opener,
            opened: Timestamp::now(),
            blocked: AtomicBool::new(false),
        };
        let handle = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
        self.files.write().insert(handle, Arc::new(file));
        Ok(handle)
    }

    /// The open file of a handle.
    pub(crate) fn file(&self, handle: u64) -> Option<Arc<OpenFile>> {
        self.files.read().get(&handle).cloned()
    }

    /// Gives a handle back.
    pub(crate) fn close(&self, handle: u64) {
        let closed = self.files.write().remove(&handle);
        if let Some(file) = closed
            && let (Some(progress), Some(entry)) = (file.progress(), &file.entry)
        {
            entry.reader_closed(progress.delivered, progress.lost);
        }
    }

    /// The open files that read packets of a capture.
    fn readers(&self, capture: u32) -> Vec<Arc<OpenFile>> {
        let belongs = |file: &&Arc<OpenFile>| {
            file.is_reader() && file.entry.as_ref().is_some_and(|entry| entry.id == capture)
        };
        self.files.read().values().filter(belongs).cloned().collect()
    }

    /// Files that are open.
    pub(crate) fn open_files(&self) -> usize {
        self.files.read().len()
    }

    /// Carries out what was written to `ctl`: one order, with or without a line feed.
    pub(crate) fn order(&self, handle: u64, text: &[u8]) -> Result<(), Error> {
        let file = self.file(handle).ok_or(Error::BadHandle)?;
        let (Content::Control, Some(entry)) = (&file.content, &file.entry) else {
            return Err(Error::WrongAccess);
        };
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

/// When something last changed in a capture.
fn newest(entry: &Entry) -> Timestamp {
    entry.capture.store().bounds().newest_time.unwrap_or_else(|| entry.capture.started())
}

fn of_replay(inode: u64, replay: &Replay) -> Attributes {
    let Replay { entry, extent, .. } = replay;
    let size = extent.size(&**entry.capture.store());
    of_leaf(inode, entry, Leaf::Replay(Format::Pcap), size, newest(entry))
}

/// A file of a capture: readable by whom the directory is readable, `ctl` writable by whom it is
/// writable.
fn of_leaf(inode: u64, entry: &Entry, leaf: Leaf, size: u64, modified: Timestamp) -> Attributes {
    let Permissions { uid, gid, mode } = entry.permissions();
    let mode = match leaf {
        Leaf::Control => mode & 0o222,
        _ => mode & 0o666,
    };
    Attributes { inode, kind: Kind::File, mode, links: 1, uid, gid, size, modified }
}

#[cfg(test)]
mod tests;
