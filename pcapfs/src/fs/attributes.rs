//! Answers to stat(2).

use std::sync::Arc;
use std::time::Duration;

use capture::clock;
use capture::flow::Stat;
use capture::ring::Permissions;
use protocol::time::Timestamp;

use super::access::Bit;
use super::captures::Entry;
use super::error::Error;
use super::file::Content;
use super::known::{Begins, Version};
use super::node::{Leaf, Node, Part};
use super::{A_MOMENT, Asker, Attributes, Kind, LASTING, Tree, status};

/// Links of a directory that has no directories in it: its name and its own `.`.
const LINKS: u32 = 2;

/// Links of a directory whose subdirectories are not counted, or where a subdirectory may appear
/// during a walk. Programs that walk through trees take a number below 2 as "not known", as with
/// btrfs; because of a wrong number they would leave directories out.
const UNKNOWN_LINKS: u32 = 1;

/// The file that is now in the place of a file of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// The same file.
    Same(Stat),
    /// Another file, which begins elsewhere.
    Other(Stat),
    /// No file.
    Nothing,
}

impl Found {
    /// The error for a program that wants the earlier file, see [`Error::errno`].
    pub(super) const fn error(self) -> Error {
        match self {
            Self::Same(_) | Self::Other(_) => Error::Stale,
            Self::Nothing => Error::NotFound,
        }
    }
}

impl Tree {
    /// The attributes for this asker, whose process can then read up to the size it was given.
    pub(crate) fn attributes(&self, inode: u64, asker: Asker) -> Result<Attributes, Error> {
        let version = self.known.lock().version(inode).ok_or(Error::NotFound)?;
        self.attributes_of(inode, version, asker)
    }

    /// The same for an open file, whose content may differ from later openings.
    pub(crate) fn attributes_of_opening(
        &self,
        handle: u64,
        inode: u64,
        asker: Asker,
    ) -> Result<Attributes, Error> {
        let attributes = self.attributes(inode, asker)?;
        let file = self.file(handle).filter(|file| file.inode == inode);
        let own = file.and_then(|file| match &file.content {
            Content::Frozen(frozen) => Some((frozen.bytes().len() as u64, file.opened)),
            Content::Flow(flow) => flow.lock().frozen().map(|stat| (stat.size, stat.modified)),
            Content::Stream(_) | Content::Snapshot(_) | Content::Control => None,
        });
        Ok(match own {
            // The kernel has one set of attributes for all openings, so it must ask for each.
            Some((size, modified)) if size != attributes.size => {
                Attributes { size, present: size, modified, valid: Duration::ZERO, ..attributes }
            }
            _ => attributes,
        })
    }

    /// The same for an inode whose version is known. A user who may search a capture's directory
    /// but not read it learns nothing about its packets.
    pub(super) fn attributes_of(
        &self,
        inode: u64,
        version: Version,
        asker: Asker,
    ) -> Result<Attributes, Error> {
        let attributes = self.all_attributes_of(inode, version, asker)?;
        let (Node::Leaf(id, _) | Node::Flow(id, ..)) = version.node else { return Ok(attributes) };
        let entry = self.entry(id)?;
        let permissions = entry.permissions();
        if !permits_search_only(permissions) {
            return Ok(attributes);
        }
        // The kernel has one set of attributes for all users, so it must ask for each.
        let attributes = Attributes { valid: Duration::ZERO, ..attributes };
        if asker.caller().may(permissions, &[Bit::Read]) {
            return Ok(attributes);
        }
        Ok(Attributes { size: 0, present: 0, modified: entry.capture.started(), ..attributes })
    }

    fn all_attributes_of(
        &self,
        inode: u64,
        version: Version,
        asker: Asker,
    ) -> Result<Attributes, Error> {
        let Version { node, .. } = version;
        let root = self.permissions();
        let of_root = |mode, size, modified| Attributes {
            inode,
            kind: node.kind(),
            mode,
            links: 1,
            uid: root.uid,
            gid: root.gid,
            size,
            present: size,
            modified,
            valid: Duration::ZERO,
        };
        match node {
            Node::Root => {
                let directories = self.captures.all().len();
                let links = u32::try_from(directories).unwrap_or(u32::MAX).saturating_add(LINKS);
                Ok(Attributes { links, valid: A_MOMENT, ..of_root(root.mode, 0, self.started) })
            }
            Node::Readme => Ok(of_root(0o444, status::README.len() as u64, self.started)),
            Node::RootStatus => {
                let (size, modified) = self.frozen(inode, node, asker);
                Ok(of_root(0o444, size, modified))
            }
            Node::Link(index) => {
                let target = self.captures.link_target(index).ok_or(Error::NotFound)?;
                Ok(of_root(0o777, target.len() as u64, self.started))
            }
            Node::Capture(id) => {
                let entry = self.entry(id)?;
                // All users see it, also those who may not know when packets come.
                let modified = entry.capture.started();
                // It contains `flows`.
                let links = LINKS + 1;
                let attributes = of_entry(inode, &entry, node, 0, modified);
                Ok(Attributes { links, valid: A_MOMENT, ..attributes })
            }
            Node::Leaf(id, _) => self.of_leaf(inode, version, &self.entry(id)?, asker),
            Node::Flow(id, flow, part) => {
                let entry = self.entry(id)?;
                if matches!(part, Part::File(_)) {
                    return self.of_flow_file(inode, version, &entry, asker);
                }
                let flow = entry.capture.flows().flow(flow);
                let flow = flow.filter(|flow| flow.has_http || !part.is_of_http());
                let flow = flow.ok_or(Error::NotFound)?;
                let links = if part == Part::Bodies { LINKS } else { UNKNOWN_LINKS };
                let attributes = of_entry(inode, &entry, node, 0, flow.modified);
                let valid = if flow.is_over { LASTING } else { Duration::ZERO };
                Ok(Attributes { links, valid, ..attributes })
            }
        }
    }

    /// Attributes of an entry of a capture's directory.
    fn of_leaf(
        &self,
        inode: u64,
        version: Version,
        entry: &Arc<Entry>,
        asker: Asker,
    ) -> Result<Attributes, Error> {
        let node = version.node;
        let plain = |size, modified| of_entry(inode, entry, node, size, modified);
        match node.leaf().ok_or(Error::NotFound)? {
            Leaf::Status | Leaf::Readers => {
                let (size, modified) = self.frozen(inode, node, asker);
                Ok(plain(size, modified))
            }
            Leaf::Stream(..) | Leaf::Control => Ok(plain(0, newest(entry))),
            Leaf::Replay(_) => {
                // A lookup always finds a beginning.
                let Begins::Extent(extent) = version.begins else { return Err(Error::Stale) };
                let attributes = plain(extent.size(&**entry.capture.store()), newest(entry));
                // The ends move after the size was read, so they are never before it.
                for file in self.opened.of_process(inode, asker.thread) {
                    file.size_was_told(None);
                }
                Ok(attributes)
            }
            Leaf::Log(_) | Leaf::OpenHttp | Leaf::Har => {
                self.of_flow_file(inode, version, entry, asker)
            }
            Leaf::Flows => {
                let attributes = plain(0, newest(entry));
                Ok(Attributes { links: UNKNOWN_LINKS, valid: A_MOMENT, ..attributes })
            }
        }
    }

    /// Attributes of a file of a flow or a log.
    fn of_flow_file(
        &self,
        inode: u64,
        version: Version,
        entry: &Arc<Entry>,
        asker: Asker,
    ) -> Result<Attributes, Error> {
        let attributes = |stat: Stat, links| Attributes {
            present: stat.present,
            links,
            valid: if links > 0 && version.is_final(stat) { LASTING } else { Duration::ZERO },
            ..of_entry(inode, entry, version.node, stat.size, stat.modified)
        };
        match Self::stat(version, entry) {
            Found::Same(stat) => {
                let own = self.opened.of_process(inode, asker.thread);
                let newest = own.iter().max_by_key(|file| file.opened);
                if let Some(file) = newest
                    && let Content::Flow(flow) = &file.content
                    && let Some(frozen) = flow.lock().frozen()
                {
                    return Ok(attributes(frozen, 1));
                }
                if version.node.begins_anew() {
                    self.known.lock().tell(inode, stat);
                }
                // After the size was read, as above.
                for file in own {
                    file.size_was_told(Some(stat));
                }
                Ok(attributes(stat, 1))
            }
            // The file has left the tree. Like a removed file, it goes on for its openers.
            found => {
                if let Found::Other(_) = found {
                    for file in self.opened.of_process(inode, asker.thread) {
                        file.catch_up();
                    }
                }
                let open = self.opened.of_inode(inode);
                let told = open.iter().filter_map(|file| file.left()).max_by_key(|told| told.size);
                let told = told.or_else(|| self.known.lock().told(inode));
                let mut told = told.ok_or_else(|| found.error())?;
                if let Found::Other(now) = found {
                    // The open file has the newer bytes as well.
                    told.modified = now.modified;
                }
                Ok(attributes(told, 0))
            }
        }
    }

    /// Looks up the file of a flow, or the log, that belongs to a version.
    pub(super) fn stat(version: Version, entry: &Entry) -> Found {
        let beginning = version.begins.beginning();
        let flows = entry.capture.flows();
        match (version.node, version.node.leaf()) {
            (_, Some(Leaf::OpenHttp)) => Found::Same(flows.open_http_stat()),
            (_, Some(Leaf::Har)) => Found::Same(flows.har_stat()),
            (_, Some(Leaf::Log(log))) => Found::Same(flows.log_stat(log, Some(beginning))),
            (Node::Flow(_, id, Part::File(file)), _) => match flows.stat(id, file) {
                // If a file always begins at the same place, its beginning need not match.
                Some(stat) if stat.beginning == beginning || !version.node.begins_anew() => {
                    Found::Same(stat)
                }
                Some(stat) => Found::Other(stat),
                None => Found::Nothing,
            },
            _ => Found::Nothing,
        }
    }

    /// Size and time of a file that is frozen at open: those of the process's open copy, or else
    /// those of a copy made now.
    fn frozen(&self, inode: u64, node: Node, asker: Asker) -> (u64, Timestamp) {
        let own = self.opened.of_process(inode, asker.thread);
        if let Some(file) = own.into_iter().max_by_key(|file| file.opened)
            && let Content::Frozen(frozen) = &file.content
        {
            return (frozen.bytes().len() as u64, file.opened);
        }
        (self.render(node, asker).map_or(0, |bytes| bytes.len() as u64), clock::now())
    }

    /// The content of a file that is frozen at open, for this opener.
    pub(super) fn render(&self, node: Node, asker: Asker) -> Option<Arc<[u8]>> {
        match node {
            Node::Readme => Some(status::README.as_bytes().into()),
            Node::RootStatus => {
                // Everyone may read this file, so it has only the captures that its opener may
                // read.
                let readable = self.captures.readable(&asker.caller());
                Some(self.status_of_daemon(&readable).into())
            }
            Node::Leaf(id, _) => {
                let entry = self.captures.by_id(id)?;
                match node.leaf()? {
                    Leaf::Status => Some(self.status_of(&entry).into()),
                    Leaf::Readers => Some(status::of_readers(&self.opened.readers(id)).into()),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// True if there may be users who can search the directory but not read it.
fn permits_search_only(permissions: Permissions) -> bool {
    [6, 3, 0].into_iter().any(|shift| permissions.mode >> shift & 0o5 == 0o1)
}

/// The time of the last change in a capture.
fn newest(entry: &Entry) -> Timestamp {
    entry.capture.store().bounds().newest_time.unwrap_or_else(|| entry.capture.started())
}

/// Attributes of an inode in a capture. Directories have the capture's mode; files can be read by
/// those who can read the capture, and `ctl` written by those who can write the capture.
fn of_entry(inode: u64, entry: &Entry, node: Node, size: u64, modified: Timestamp) -> Attributes {
    let Permissions { uid, gid, mode } = entry.permissions();
    let kind = node.kind();
    let mode = match (kind, node.leaf()) {
        (Kind::Directory, _) => mode,
        (_, Some(Leaf::Control)) => mode & 0o222,
        _ => mode & 0o666,
    };
    let present = size;
    let valid = Duration::ZERO;
    Attributes { inode, kind, mode, links: 1, uid, gid, size, present, modified, valid }
}
