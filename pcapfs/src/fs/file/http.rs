//! `http-open.jsonl` and `http.har` of a capture: made from all of its flows, when a program asks
//! for their size or opens them.

use capture::flow::{ContentOperation, FileReading, FlowOpenError, Flows};

use super::reading::{self, CurrentFile, ReadingFile};
use super::{FileProvider, FileRequest};
use crate::fs::error::TreeError;
use crate::fs::open_file::OpenContent;
use crate::fs::{NodeFacts, Tree};

/// `http-open.jsonl` of a capture: the transactions under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct OpenHttpFile {
    pub(super) capture: u32,
}

impl FileProvider for OpenHttpFile {
    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    fn facts(&self, request: &FileRequest<'_>) -> Result<NodeFacts, TreeError> {
        reading::facts(self, request)
    }

    fn open(&self, request: &FileRequest<'_>) -> Result<OpenContent, TreeError> {
        reading::open(self, request)
    }

    fn takes_long(&self, tree: &Tree, _operation: ContentOperation) -> bool {
        reading::flows(self, tree).is_ok_and(|flows| flows.open_http_takes_long())
    }
}

impl ReadingFile for OpenHttpFile {
    fn current(&self, flows: &Flows, _beginning: u64) -> CurrentFile {
        CurrentFile::Same(flows.open_http_stat())
    }

    fn reading(&self, flows: &Flows, _beginning: u64) -> Result<FileReading, FlowOpenError> {
        flows.open_http()
    }
}

/// `http.har` of a capture: the transactions that have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct HarFile {
    pub(super) capture: u32,
}

impl FileProvider for HarFile {
    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    fn facts(&self, request: &FileRequest<'_>) -> Result<NodeFacts, TreeError> {
        reading::facts(self, request)
    }

    fn open(&self, request: &FileRequest<'_>) -> Result<OpenContent, TreeError> {
        reading::open(self, request)
    }

    fn takes_long(&self, _tree: &Tree, _operation: ContentOperation) -> bool {
        true
    }
}

impl ReadingFile for HarFile {
    fn current(&self, flows: &Flows, _beginning: u64) -> CurrentFile {
        CurrentFile::Same(flows.har_stat())
    }

    fn reading(&self, flows: &Flows, _beginning: u64) -> Result<FileReading, FlowOpenError> {
        flows.har()
    }
}
