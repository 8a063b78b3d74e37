//! The files of a flow, and its bodies.

use capture::flow::{ContentOperation, File, FileReading, FlowOpenError, Flows, Stat};

use super::reading::{self, CurrentFile, ReadingFile};
use super::{FileProvider, FileRequest};
use crate::fs::beginning::FileBeginning;
use crate::fs::error::TreeError;
use crate::fs::open_file::OpenContent;
use crate::fs::{NodeFacts, Tree};

/// A file of a flow, or a body. [`File`] has all that distinguishes one kind from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct FlowFile {
    pub(super) capture: u32,
    pub(super) flow: u64,
    pub(super) file: File,
}

impl FileProvider for FlowFile {
    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    fn begins_anew(&self) -> bool {
        self.file.begins_anew()
    }

    fn beginning(&self, tree: &Tree) -> Result<(FileBeginning, Option<Stat>), TreeError> {
        if !self.file.begins_anew() {
            return Ok((FileBeginning::Always, None));
        }
        let stat =
            reading::flows(self, tree)?.stat(self.flow, self.file).ok_or(TreeError::NotFound)?;
        Ok((FileBeginning::at(stat.beginning), Some(stat)))
    }

    fn facts(&self, request: &FileRequest<'_>) -> Result<NodeFacts, TreeError> {
        reading::facts(self, request)
    }

    fn open(&self, request: &FileRequest<'_>) -> Result<OpenContent, TreeError> {
        reading::open(self, request)
    }

    fn takes_long(&self, tree: &Tree, operation: ContentOperation) -> bool {
        // Without a look at the capture for most files.
        self.file.is_made_to(operation)
            && reading::flows(self, tree)
                .is_ok_and(|flows| flows.takes_long(self.flow, self.file, operation))
    }
}

impl ReadingFile for FlowFile {
    fn current(&self, flows: &Flows, beginning: u64) -> CurrentFile {
        match flows.stat(self.flow, self.file) {
            // If a file always begins at the same place, its beginning need not match.
            Some(stat) if stat.beginning == beginning || !self.file.begins_anew() => {
                CurrentFile::Same(stat)
            }
            Some(stat) => CurrentFile::Other(stat),
            None => CurrentFile::Gone,
        }
    }

    fn reading(&self, flows: &Flows, beginning: u64) -> Result<FileReading, FlowOpenError> {
        flows.open(self.flow, self.file, beginning)
    }
}
