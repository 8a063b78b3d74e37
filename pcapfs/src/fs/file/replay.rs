//! `replay`: all packets retained.

use capture::cursor::SavefileFormat;
use capture::cursor::snapshot::SnapshotExtent;
use capture::flow::Stat;

use super::{FileProvider, FileRequest};
use crate::fs::beginning::FileBeginning;
use crate::fs::error::TreeError;
use crate::fs::open_file::OpenContent;
use crate::fs::{NodeFacts, Tree};

/// The packets of a capture from the oldest one retained on, as a savefile with a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct ReplayFile {
    pub(super) capture: u32,
    pub(super) format: SavefileFormat,
}

impl FileProvider for ReplayFile {
    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    fn begins_anew(&self) -> bool {
        true
    }

    fn keeps_number(&self) -> bool {
        true
    }

    fn beginning(&self, tree: &Tree) -> Result<(FileBeginning, Option<Stat>), TreeError> {
        let entry = tree.entry(self.capture)?;
        Ok((
            FileBeginning::Extent(SnapshotExtent::new(&**entry.capture.store(), self.format)),
            None,
        ))
    }

    fn facts(&self, request: &FileRequest<'_>) -> Result<NodeFacts, TreeError> {
        let entry = request.tree.entry(self.capture)?;
        let extent = extent(request)?;
        let facts = NodeFacts::of_size(extent.size(&**entry.capture.store()), entry.newest());
        // The ends move after the size was read, so they are never before it.
        for file in request.tree.open_files.of_process(request.inode, request.asker.thread) {
            file.extend_visible(None);
        }
        Ok(facts)
    }

    fn open(&self, request: &FileRequest<'_>) -> Result<OpenContent, TreeError> {
        let entry = request.tree.entry(self.capture)?;
        Ok(OpenContent::snapshot(&entry, extent(request)?))
    }
}

fn extent(request: &FileRequest<'_>) -> Result<SnapshotExtent, TreeError> {
    match request.beginning {
        FileBeginning::Extent(extent) => Ok(extent),
        // A lookup always finds a beginning.
        FileBeginning::Always | FileBeginning::At(_) => Err(TreeError::Stale),
    }
}
