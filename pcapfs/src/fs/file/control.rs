//! `ctl`: takes orders for a capture.

use super::{FileProvider, FileRequest};
use crate::fs::error::TreeError;
use crate::fs::open_file::OpenContent;
use crate::fs::{NodeFacts, Tree};

/// `ctl` of a capture. Users who can write the capture can write this file; no user can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) struct ControlFile {
    pub(super) capture: u32,
}

impl FileProvider for ControlFile {
    fn capture(&self) -> Option<u32> {
        Some(self.capture)
    }

    fn mode(&self, directory: u32) -> u32 {
        directory & 0o222
    }

    fn is_written(&self) -> bool {
        true
    }

    fn facts(&self, request: &FileRequest<'_>) -> Result<NodeFacts, TreeError> {
        Ok(NodeFacts::of_size(0, request.tree.entry(self.capture)?.newest()))
    }

    fn open(&self, _request: &FileRequest<'_>) -> Result<OpenContent, TreeError> {
        Ok(OpenContent::Written)
    }

    /// Carries out an order: one word, with or without a line feed.
    fn write(&self, tree: &Tree, bytes: &[u8]) -> Result<(), TreeError> {
        // A capture that has been removed from the tree since must not begin again.
        let entry = tree.entry(self.capture)?;
        let capture = &entry.capture;
        match bytes.strip_suffix(b"\n").unwrap_or(bytes) {
            b"start" => capture.start().map_err(|error| TreeError::Refused(error.to_string())),
            b"stop" => {
                capture.stop();
                Ok(())
            }
            b"clear" if capture.clear() => Ok(()),
            b"clear" => Err(TreeError::Unsupported("a savefile cannot be cleared")),
            _ => Err(TreeError::BadOrder),
        }
    }
}
