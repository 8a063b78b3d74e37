//! The captures of a tree, their aliases and permissions.
//!
//! Captures and links come and go while the tree is used. The number of a removed one is never
//! given to another, so open files and earlier lookups keep their meaning.

use std::collections::BTreeMap;
use std::sync::Arc;

use capture::pipeline::Capture;
use capture::ring::Permissions;
use parking_lot::{Mutex, RwLock};
use protocol::time::Timestamp;

use super::access::{Caller, PermissionBit};

/// Names in the root of the tree that are no captures.
pub(crate) const RESERVED: [&str; 2] = ["README", "status.json"];

/// One capture in the tree.
#[derive(Debug)]
pub(crate) struct CaptureEntry {
    /// Index of the capture, from 0; never reused.
    pub(crate) id: u32,
    pub(crate) capture: Arc<Capture>,
    permissions: Mutex<Permissions>,
    /// Packets delivered to, and lost by, readers that have closed.
    closed: Mutex<ReaderTotals>,
}

/// Packets of readers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReaderTotals {
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
}

impl CaptureEntry {
    pub(crate) fn alias(&self) -> &str {
        &self.capture.spec().alias
    }

    pub(crate) fn permissions(&self) -> Permissions {
        *self.permissions.lock()
    }

    /// The time of the last change in the capture.
    pub(super) fn newest(&self) -> Timestamp {
        let newest = self.capture.store().bounds().newest_time;
        newest.unwrap_or_else(|| self.capture.started())
    }

    /// Changes the permissions, and keeps them for the next process if that is possible.
    pub(crate) fn change_permissions(&self, change: impl FnOnce(&mut Permissions)) {
        let mut permissions = self.permissions.lock();
        change(&mut permissions);
        self.capture.keep_permissions(*permissions);
    }

    pub(crate) fn closed(&self) -> ReaderTotals {
        *self.closed.lock()
    }

    pub(crate) fn reader_closed(&self, delivered: u64, lost: u64) {
        let mut closed = self.closed.lock();
        closed.delivered = closed.delivered.saturating_add(delivered);
        closed.lost = closed.lost.saturating_add(lost);
    }
}

/// The capture or link of a name in the root of the tree.
#[derive(Clone, Debug)]
pub(crate) enum RootName {
    Capture(Arc<CaptureEntry>),
    /// A link; its index among all links, from 0.
    Link {
        index: u32,
    },
}

/// All captures of a tree.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    names: RwLock<RootNames>,
}

#[derive(Debug, Default)]
struct RootNames {
    by_name: BTreeMap<String, RootName>,
    /// By index; `None` for a removed capture.
    entries: Vec<Option<Arc<CaptureEntry>>>,
    /// The alias of each link's capture, by index; `None` for a removed link.
    links: Vec<Option<String>>,
}

impl Captures {
    /// Adds a capture under its alias, which must be free.
    pub(crate) fn add(&self, capture: Arc<Capture>, permissions: Permissions) -> Arc<CaptureEntry> {
        let mut names = self.names.write();
        let entry = Arc::new(CaptureEntry {
            id: u32::try_from(names.entries.len()).unwrap_or(u32::MAX),
            capture,
            permissions: Mutex::new(permissions),
            closed: Mutex::default(),
        });
        names.entries.push(Some(Arc::clone(&entry)));
        names.by_name.insert(entry.alias().to_owned(), RootName::Capture(Arc::clone(&entry)));
        entry
    }

    /// Adds another name for the capture `target`.
    pub(crate) fn link(&self, name: &str, target: &str) {
        let mut names = self.names.write();
        let index = u32::try_from(names.links.len()).unwrap_or(u32::MAX);
        names.links.push(Some(target.to_owned()));
        names.by_name.insert(name.to_owned(), RootName::Link { index });
    }

    /// Takes a capture and the links to it out of the tree, and returns the names of the links. Its
    /// open files go on.
    pub(crate) fn remove(&self, entry: &CaptureEntry) -> Vec<String> {
        let mut names = self.names.write();
        if let Some(place) = names.entries.get_mut(entry.id as usize) {
            *place = None;
        }
        names.by_name.remove(entry.alias());
        let links = names.links_to(entry.alias());
        for name in &links {
            names.unlink(name);
        }
        links
    }

    /// Takes a link out of the tree.
    pub(crate) fn unlink(&self, name: &str) {
        self.names.write().unlink(name);
    }

    /// The names of the links to a capture, sorted.
    pub(crate) fn links_to(&self, alias: &str) -> Vec<String> {
        self.names.read().links_to(alias)
    }

    pub(crate) fn named(&self, name: &str) -> Option<RootName> {
        self.names.read().by_name.get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: u32) -> Option<Arc<CaptureEntry>> {
        self.names.read().entries.get(id as usize)?.clone()
    }

    pub(crate) fn link_target(&self, index: u32) -> Option<String> {
        self.names.read().links.get(index as usize)?.clone()
    }

    /// All captures, in the order in which they were made.
    pub(crate) fn all(&self) -> Vec<Arc<CaptureEntry>> {
        self.names.read().entries.iter().flatten().cloned().collect()
    }

    /// The captures that the caller may read, in the same order.
    pub(crate) fn readable(&self, caller: &Caller) -> Vec<Arc<CaptureEntry>> {
        let mut entries = self.all();
        entries.retain(|entry| {
            caller.may(entry.permissions(), &[PermissionBit::Read, PermissionBit::Search])
        });
        entries
    }

    /// All names of captures and links in the root, sorted.
    pub(crate) fn names(&self) -> Vec<(String, RootName)> {
        let names = self.names.read();
        names.by_name.iter().map(|(name, named)| (name.clone(), named.clone())).collect()
    }
}

impl RootNames {
    fn links_to(&self, alias: &str) -> Vec<String> {
        let target = |index: &u32| self.links.get(*index as usize).and_then(Option::as_deref);
        let links = self.by_name.iter().filter(
            |(_, named)| matches!(named, RootName::Link { index } if target(index) == Some(alias)),
        );
        links.map(|(name, _)| name.clone()).collect()
    }

    fn unlink(&mut self, name: &str) {
        if let Some(RootName::Link { index }) = self.by_name.get(name) {
            if let Some(place) = self.links.get_mut(*index as usize) {
                *place = None;
            }
            self.by_name.remove(name);
        }
    }
}
