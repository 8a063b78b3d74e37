//! The tree as operations on inodes, without FUSE: what there is, what it says, who has it open.
//!
//! Files whose content changes and whose size must be exact get an inode for each content: a
//! `status.json` is frozen when its name is looked up, a `replay.pcap` has a new inode each time
//! the ring has dropped what its old one began with. So a size, once told, stays true.

pub(crate) mod captures;
pub(crate) mod error;
pub(crate) mod file;
mod names;
mod node;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use capture::cursor::snapshot::{Extent, Snapshot};
use capture::cursor::{Cursor, Format};
use capture::ring::Permissions;
use capture::time::Timestamp;
use parking_lot::{Mutex, RwLock};

use captures::{Captures, Entry, Named};
use error::Error;
use file::{Content, OpenFile, Opener};
use node::{LEAVES, Leaf, Node, dynamic, leaf_index};

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

/// A file with a content of its own.
#[derive(Clone, Debug)]
enum Dynamic {
    Frozen { name: &'static str, entry: Option<Arc<Entry>>, bytes: Arc<[u8]>, made: Timestamp },
    Replay { name: &'static str, entry: Arc<Entry>, extent: Extent },
}

/// The dynamic inodes the kernel knows of.
#[derive(Debug, Default)]
struct Inodes {
    made: u64,
    /// With the number of times each was looked up and not forgotten.
    known: HashMap<u64, (Dynamic, u64)>,
    /// The inode that a capture's replay of a format has now.
    current: HashMap<(u32, Format), (Extent, u64)>,
}

/// The whole tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) captures: Captures,
    inodes: Mutex<Inodes>,
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
            inodes: Mutex::default(),
            files: RwLock::default(),
            opened: AtomicU64::new(0),
            started: Timestamp::now(),
            owner,
        }
    }

    /// Finds a name in a directory. Each success is to be undone with [`Tree::forget`].
    pub(crate) fn lookup(&self, parent: u64, name: &str) -> Result<Attributes, Error> {
        match Node::of(parent) {
            Some(Node::Root) => match name {
                "README" => self.attributes(Node::Readme.inode()),
                "status.json" => {
                    let bytes = status::of_daemon(&self.captures, self.started);
                    Ok(self.freeze("status.json", None, bytes))
                }
                _ => match self.captures.named(name).ok_or(Error::NotFound)? {
                    Named::Capture(entry) => self.attributes(Node::Capture(entry.id).inode()),
                    Named::Link { index } => self.attributes(Node::Link(index).inode()),
                },
            },
            Some(Node::Capture(id)) => {
                let entry = self.captures.by_id(id).ok_or(Error::NotFound)?;
                let index = leaf_index(name).ok_or(Error::NotFound)?;
                let (name, leaf) = LEAVES.get(index).ok_or(Error::NotFound)?;
                match leaf {
                    Leaf::Stream(..) | Leaf::Control => {
                        self.attributes(Node::Leaf(id, index).inode())
                    }
                    Leaf::Replay(format) => self.replay(name, &entry, *format),
                    Leaf::Status => {
                        let bytes = status::of_capture(&entry, &self.readers(id));
                        Ok(self.freeze(name, Some(entry), bytes))
                    }
                    Leaf::Readers => {
                        let bytes = status::of_readers(&self.readers(id));
                        Ok(self.freeze(name, Some(entry), bytes))
                    }
                }
            }
            Some(_) => Err(Error::NotADirectory),
            None => Err(Error::NotFound),
        }
    }

    /// Makes an inode with this content, looked up once.
    fn freeze(&self, name: &'static str, entry: Option<Arc<Entry>>, bytes: Vec<u8>) -> Attributes {
        let made = Timestamp::now();
        let frozen = Dynamic::Frozen { name, entry, bytes: bytes.into(), made };
        let mut inodes = self.inodes.lock();
        inodes.made += 1;
        let inode = dynamic(inodes.made);
        let attributes = self.of_dynamic(inode, &frozen);
        inodes.known.insert(inode, (frozen, 1));
        attributes
    }

    /// The inode a capture's replay has now, looked up once more.
    fn replay(
        &self,
        name: &'static str,
        entry: &Arc<Entry>,
        format: Format,
    ) -> Result<Attributes, Error> {
        let extent = Extent::new(&**entry.capture.store(), format);
        let mut inodes = self.inodes.lock();
        let key = (entry.id, format);
        let inode = match inodes.current.get(&key) {
            Some((known, inode)) if *known == extent => *inode,
            _ => {
                inodes.made += 1;
                let inode = dynamic(inodes.made);
                inodes.current.insert(key, (extent, inode));
                inode
            }
        };
        let replay = || Dynamic::Replay { name, entry: Arc::clone(entry), extent };
        let (known, lookups) = inodes.known.entry(inode).or_insert_with(|| (replay(), 0));
        *lookups += 1;
        Ok(self.of_dynamic(inode, known))
    }

    /// Undoes `count` lookups of an inode.
    pub(crate) fn forget(&self, inode: u64, count: u64) {
        let mut inodes = self.inodes.lock();
        if let Some((_, lookups)) = inodes.known.get_mut(&inode) {
            *lookups = lookups.saturating_sub(count);
            if *lookups == 0 {
                inodes.known.remove(&inode);
            }
        }
    }

    fn dynamic(&self, inode: u64) -> Result<Dynamic, Error> {
        let inodes = self.inodes.lock();
        inodes.known.get(&inode).map(|(dynamic, _)| dynamic.clone()).ok_or(Error::NotFound)
    }

    /// What stat(2) says.
    pub(crate) fn attributes(&self, inode: u64) -> Result<Attributes, Error> {
        let of_root = |inode, kind, mode, size| Attributes {
            inode,
            kind,
            mode,
            links: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            size,
            modified: self.started,
        };
        match Node::of(inode).ok_or(Error::NotFound)? {
            Node::Root => {
                let directories = self.captures.all().len();
                let links = u32::try_from(directories + 2).unwrap_or(u32::MAX);
                Ok(Attributes { links, ..of_root(inode, Kind::Directory, 0o755, 0) })
            }
            Node::Readme => Ok(of_root(inode, Kind::File, 0o444, status::README.len() as u64)),
            Node::RootStatus => Ok(of_root(inode, Kind::File, 0o444, 0)),
            Node::Link(index) => {
                let target = self.captures.link_target(index).ok_or(Error::NotFound)?;
                Ok(of_root(inode, Kind::Link, 0o777, target.len() as u64))
            }
            Node::Capture(id) => {
                let entry = self.captures.by_id(id).ok_or(Error::NotFound)?;
                let Permissions { uid, gid, mode } = entry.permissions();
                let modified = newest(&entry);
                Ok(Attributes {
                    inode,
                    kind: Kind::Directory,
                    mode,
                    links: 2,
                    uid,
                    gid,
                    size: 0,
                    modified,
                })
            }
            Node::Leaf(id, index) => {
                let entry = self.captures.by_id(id).ok_or(Error::NotFound)?;
                let leaf = LEAVES.get(index).map(|(_, leaf)| *leaf).ok_or(Error::NotFound)?;
                Ok(of_leaf(inode, &entry, leaf, 0, newest(&entry)))
            }
            Node::Dynamic => Ok(self.of_dynamic(inode, &self.dynamic(inode)?)),
        }
    }

    /// [`Tree::attributes`] for process `pid`, which may then read as far as it was told.
    pub(crate) fn attributes_for(&self, inode: u64, pid: u32) -> Result<Attributes, Error> {
        // The ends move after the size was taken, so they are never before it.
        let attributes = self.attributes(inode)?;
        if Node::of(inode) == Some(Node::Dynamic) {
            let files = self.files.read();
            for file in files.values() {
                if file.inode == inode && file.opener.pid == pid {
                    file.size_was_told();
                }
            }
        }
        Ok(attributes)
    }

    fn of_dynamic(&self, inode: u64, dynamic: &Dynamic) -> Attributes {
        match dynamic {
            Dynamic::Replay { entry, extent, .. } => {
                let size = extent.size(&**entry.capture.store());
                of_leaf(inode, entry, Leaf::Replay(Format::Pcap), size, newest(entry))
            }
            Dynamic::Frozen { entry: Some(entry), bytes, made, .. } => {
                of_leaf(inode, entry, Leaf::Status, bytes.len() as u64, *made)
            }
            Dynamic::Frozen { entry: None, bytes, made, .. } => Attributes {
                inode,
                kind: Kind::File,
                mode: 0o444,
                links: 1,
                uid: self.owner.0,
                gid: self.owner.1,
                size: bytes.len() as u64,
                modified: *made,
            },
        }
    }

    /// Changes owner, group and mode of a capture's directory. Setting the size of `ctl` to zero,
    /// as a shell's `>` does, changes nothing and is no error.
    pub(crate) fn change(&self, inode: u64, change: Change) -> Result<Attributes, Error> {
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
        self.attributes(inode)
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
        let (name, entry, content) = match Node::of(inode).ok_or(Error::NotFound)? {
            Node::Readme => ("README", None, Content::Frozen(status::README.as_bytes().into())),
            Node::Leaf(id, index) => {
                let entry = self.captures.by_id(id).ok_or(Error::NotFound)?;
                let (name, leaf) = LEAVES.get(index).ok_or(Error::NotFound)?;
                let content = match leaf {
                    Leaf::Control => Content::Control,
                    Leaf::Stream(begin, format) => {
                        let store = &**entry.capture.store();
                        Content::Stream(Mutex::new(Cursor::new(store, *format, *begin, true)))
                    }
                    // Always looked up as inodes of their own.
                    Leaf::Replay(_) | Leaf::Status | Leaf::Readers => return Err(Error::NotFound),
                };
                (*name, Some(entry), content)
            }
            Node::Dynamic => match self.dynamic(inode)? {
                Dynamic::Frozen { name, entry, bytes, .. } => (name, entry, Content::Frozen(bytes)),
                Dynamic::Replay { name, entry, extent } => {
                    let snapshot = Snapshot::new(&**entry.capture.store(), extent);
                    (name, Some(entry), Content::Snapshot(Mutex::new(snapshot)))
                }
            },
            Node::Root | Node::RootStatus | Node::Capture(_) | Node::Link(_) => {
                return Err(Error::NotFound);
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
            b"clear" => Err(Error::Refused("a savefile cannot be cleared".to_owned())),
            _ => Err(Error::BadOrder),
        }
    }
}

/// When something last changed in a capture.
fn newest(entry: &Entry) -> Timestamp {
    entry.capture.store().bounds().newest_time.unwrap_or_else(|| entry.capture.started())
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
