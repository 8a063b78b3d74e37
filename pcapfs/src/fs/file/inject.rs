//! `inject.pcap`: takes a savefile, whose frames go into the kernel as if the interface had received
//! them.
//!
//! The kernel locks an inode while a program writes to it, and a write waits while the queue of its
//! savefile is full. So that no program waits for the savefile of another, each one that looks the
//! file up finds an inode of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use capture::flow::Stat;
use capture::injection::{Injection, InjectionError};
use parking_lot::Mutex;

use super::{FileProvider, FileRequest};
use crate::fs::beginning::FileBeginning;
use crate::fs::error::TreeError;
use crate::fs::open_file::OpenContent;
use crate::fs::{NodeFacts, Tree};

/// The number of lookups so far.
static LOOKUPS: AtomicU64 = AtomicU64::new(0);

/// `inject.pcap` of a capture. Users who can write the capture can write this file; no user can read
/// it. Only captures of tap and tun devices have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct InjectFile {
    pub(super) capture: u32,
}

impl InjectFile {
    /// True if the capture has this file.
    pub(in crate::fs) fn exists(self, tree: &Tree) -> bool {
        self.injection(tree).is_ok()
    }

    fn injection(self, tree: &Tree) -> Result<Arc<Injection>, TreeError> {
        let entry = tree.entry(self.capture)?;
        entry.capture.injection().cloned().ok_or(TreeError::NotFound)
    }
}

impl FileProvider for InjectFile {
    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    fn mode(&self, directory: u32) -> u32 {
        directory & 0o222
    }

    fn is_written(&self) -> bool {
        true
    }

    fn begins_anew(&self) -> bool {
        true
    }

    fn beginning(&self, tree: &Tree) -> Result<(FileBeginning, Option<Stat>), TreeError> {
        self.injection(tree)?;
        // Only the number matters.
        Ok((FileBeginning::At(LOOKUPS.fetch_add(1, Ordering::Relaxed) + 1), None))
    }

    fn facts(&self, request: &FileRequest<'_>) -> Result<NodeFacts, TreeError> {
        self.injection(request.tree)?;
        Ok(NodeFacts::of_size(0, request.tree.entry(self.capture)?.newest()))
    }

    fn open(&self, request: &FileRequest<'_>) -> Result<OpenContent, TreeError> {
        let writer = self.injection(request.tree)?.writer().map_err(TreeError::from)?;
        Ok(OpenContent::Injection(Mutex::new(writer)))
    }
}

impl From<InjectionError> for TreeError {
    fn from(error: InjectionError) -> Self {
        let text = error.to_string();
        match error {
            InjectionError::NotRunning | InjectionError::Ended => Self::Refused(text),
            InjectionError::TooMany => Self::Busy(text),
            InjectionError::Malformed(_) => Self::BadSavefile(text),
            InjectionError::OutOfOrder { .. } => Self::OutOfOrder(text),
        }
    }
}
