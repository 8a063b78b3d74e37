//! Files whose text is rendered when they are opened: `README`, `status.json` and `readers.jsonl`.

use std::sync::Arc;

use capture::clock;
use protocol::time::Timestamp;

use super::{FileProvider, FileRequest};
use crate::fs::NodeFacts;
use crate::fs::error::TreeError;
use crate::fs::open_file::OpenContent;
use crate::fs::status::{self, README};

/// A file with a text of its own for each opener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::fs) enum RenderedFile {
    /// `README` of the root.
    Readme,
    /// `status.json` of the root.
    DaemonStatus,
    /// `status.json` of a capture.
    Status { capture: u32 },
    /// `readers.jsonl` of a capture.
    Readers { capture: u32 },
}

impl RenderedFile {
    /// The text for the asker, as of now.
    fn render(self, request: &FileRequest<'_>) -> Result<Arc<[u8]>, TreeError> {
        let tree = request.tree;
        Ok(match self {
            Self::Readme => README.as_bytes().into(),
            Self::DaemonStatus => {
                // Everyone may read this file, so it has only the captures that its opener may
                // read.
                let readable = tree.captures.readable(&request.asker.caller());
                tree.status_of_daemon(&readable).into()
            }
            Self::Status { capture } => tree.status_of(&*tree.entry(capture)?).into(),
            Self::Readers { capture } => {
                tree.entry(capture)?;
                status::of_readers(&tree.open_files.readers(capture)).into()
            }
        })
    }

    /// Size and time: those of the text that the asker's process has open, or else those of a text
    /// rendered now.
    fn visible(self, request: &FileRequest<'_>) -> (u64, Timestamp) {
        let own = request.tree.open_files.of_process(request.inode, request.asker.thread);
        let newest = own.into_iter().max_by_key(|file| file.opened);
        newest.and_then(|file| file.rendered()).unwrap_or_else(|| {
            (self.render(request).map_or(0, |bytes| bytes.len() as u64), clock::now())
        })
    }
}

impl FileProvider for RenderedFile {
    fn capture(&self) -> Option<u32> {
        match self {
            Self::Readme | Self::DaemonStatus => None,
            Self::Status { capture } | Self::Readers { capture } => Some(*capture),
        }
    }

    fn mode(&self, directory: u32) -> u32 {
        match self {
            Self::Readme | Self::DaemonStatus => 0o444,
            Self::Status { .. } | Self::Readers { .. } => directory & 0o666,
        }
    }

    fn facts(&self, request: &FileRequest<'_>) -> Result<NodeFacts, TreeError> {
        let (size, modified) = match self {
            Self::Readme => (README.len() as u64, request.tree.started),
            _ => self.visible(request),
        };
        Ok(NodeFacts::of_size(size, modified))
    }

    fn open(&self, request: &FileRequest<'_>) -> Result<OpenContent, TreeError> {
        let text = self.render(request)?;
        Ok(OpenContent::Rendered(request.tree.room.take(text).ok_or(TreeError::Full)?))
    }
}
