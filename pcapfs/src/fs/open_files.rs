//! The table of open files.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::open_file::OpenFile;
use crate::process;

/// The open files of a tree.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    table: RwLock<OpenFileTable>,
    /// How often a handle was looked up.
    #[cfg(test)]
    pub(super) lookups: std::sync::atomic::AtomicUsize,
}

#[derive(Debug, Default)]
struct OpenFileTable {
    made: u64,
    by_handle: HashMap<u64, Arc<OpenFile>>,
    /// The handles of each inode. Every stat(2) asks for one inode's, however many other files are
    /// open.
    by_inode: HashMap<u64, Vec<u64>>,
}

impl OpenFiles {
    /// Adds a file, and returns its handle.
    pub(super) fn add(&self, file: OpenFile) -> u64 {
        let mut table = self.table.write();
        table.made += 1;
        let handle = table.made;
        table.by_inode.entry(file.inode).or_default().push(handle);
        table.by_handle.insert(handle, Arc::new(file));
        handle
    }

    /// Removes a file.
    pub(super) fn remove(&self, handle: u64) -> Option<Arc<OpenFile>> {
        let mut table = self.table.write();
        let file = table.by_handle.remove(&handle)?;
        if let Some(handles) = table.by_inode.get_mut(&file.inode) {
            handles.retain(|other| *other != handle);
            if handles.is_empty() {
                table.by_inode.remove(&file.inode);
            }
        }
        Some(file)
    }

    /// The file of a handle.
    pub(super) fn file(&self, handle: u64) -> Option<Arc<OpenFile>> {
        #[cfg(test)]
        self.lookups.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.table.read().by_handle.get(&handle).cloned()
    }

    /// The number of open files.
    pub(super) fn count(&self) -> usize {
        self.table.read().by_handle.len()
    }

    /// All open files of an inode.
    pub(super) fn of_inode(&self, inode: u64) -> Vec<Arc<OpenFile>> {
        let table = self.table.read();
        let handles = table.by_inode.get(&inode).into_iter().flatten();
        handles.filter_map(|handle| table.by_handle.get(handle).cloned()).collect()
    }

    /// The open files of an inode that the process of this thread has.
    pub(super) fn of_process(&self, inode: u64, thread: u32) -> Vec<Arc<OpenFile>> {
        let open = self.of_inode(inode);
        if open.iter().all(|file| file.opener.asker.thread == thread) {
            return open;
        }
        // Only in this case, since it reads /proc.
        let process = process::of_thread(thread);
        let is_own = |file: &Arc<OpenFile>| {
            file.opener.asker.thread == thread
                || [process, thread].contains(&file.opener.process().pid)
        };
        open.into_iter().filter(is_own).collect()
    }

    /// The open files that read packets of a capture.
    pub(super) fn readers(&self, capture: u32) -> Vec<Arc<OpenFile>> {
        let belongs = |file: &&Arc<OpenFile>| {
            file.is_reader() && file.entry.as_ref().is_some_and(|entry| entry.id == capture)
        };
        self.table.read().by_handle.values().filter(belongs).cloned().collect()
    }
}
