//! The logs of a capture, such as `flows.jsonl`: they grow a line at a time.

use capture::flow::{FileReading, FlowOpenError, Flows, Log, Stat};

use super::reading::{self, CurrentFile, ReadingFile};
use super::{FileProvider, FileRequest};
use crate::fs::beginning::FileBeginning;
use crate::fs::error::TreeError;
use crate::fs::open_file::OpenContent;
use crate::fs::{NodeFacts, Tree};

/// A log of a capture. It begins anew when its oldest lines are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct LogFile {
    pub(super) capture: u32,
    pub(super) log: Log,
}

impl FileProvider for LogFile {
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
        let stat = reading::flows(self, tree)?.log_stat(self.log, None);
        Ok((FileBeginning::at(stat.beginning), None))
    }

    fn facts(&self, request: &FileRequest<'_>) -> Result<NodeFacts, TreeError> {
        reading::facts(self, request)
    }

    fn open(&self, request: &FileRequest<'_>) -> Result<OpenContent, TreeError> {
        reading::open(self, request)
    }
}

impl ReadingFile for LogFile {
    fn current(&self, flows: &Flows, beginning: u64) -> CurrentFile {
        CurrentFile::Same(flows.log_stat(self.log, Some(beginning)))
    }

    fn reading(&self, flows: &Flows, beginning: u64) -> Result<FileReading, FlowOpenError> {
        Ok(flows.open_log(self.log, beginning))
    }
}
