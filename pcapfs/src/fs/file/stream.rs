//! `live` and `follow`: savefiles without end.

use capture::cursor::{Begin, SavefileFormat};

use super::{FileProvider, FileRequest};
use crate::fs::NodeFacts;
use crate::fs::error::TreeError;
use crate::fs::open_file::OpenContent;

/// A stream of packets of a capture. It has no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct StreamFile {
    pub(super) capture: u32,
    pub(super) begin: Begin,
    pub(super) format: SavefileFormat,
}

impl FileProvider for StreamFile {
    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    fn facts(&self, request: &FileRequest<'_>) -> Result<NodeFacts, TreeError> {
        Ok(NodeFacts::of_size(0, request.tree.entry(self.capture)?.newest()))
    }

    fn open(&self, request: &FileRequest<'_>) -> Result<OpenContent, TreeError> {
        let entry = request.tree.entry(self.capture)?;
        Ok(OpenContent::stream(&entry, self.begin, self.format))
    }
}
