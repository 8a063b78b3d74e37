//! Files that are read through a [`FileReading`]: the files of flows, the logs, and the capture's
//! files about HTTP.

use std::sync::Arc;
use std::time::Duration;

use capture::flow::{FileReading, FlowOpenError, Flows, Stat};
use parking_lot::Mutex;

use super::{FileProvider, FileRequest};
use crate::fs::error::TreeError;
use crate::fs::open_file::{FlowReader, OpenContent};
use crate::fs::{LASTING, NodeFacts, Tree};

/// The file that a name belongs to now, compared with an earlier one.
#[derive(Clone, Copy, Debug)]
pub(super) enum CurrentFile {
    /// The same file.
    Same(Stat),
    /// Another file, which begins elsewhere.
    Other(Stat),
    /// No file.
    Gone,
}

impl CurrentFile {
    /// The error for a program that wants the earlier file, see [`TreeError::errno`].
    const fn error(self) -> TreeError {
        match self {
            Self::Same(_) | Self::Other(_) => TreeError::Stale,
            Self::Gone => TreeError::NotFound,
        }
    }
}

/// A kind of file that is read through a [`FileReading`].
pub(super) trait ReadingFile: FileProvider {
    /// The file that now has its name, compared with the one that begins at `beginning`.
    fn current(&self, flows: &Flows, beginning: u64) -> CurrentFile;

    /// Opens the file that begins at `beginning`.
    fn reading(&self, flows: &Flows, beginning: u64) -> Result<FileReading, FlowOpenError>;
}

/// The flows of the capture of a file.
pub(super) fn flows(file: &impl FileProvider, tree: &Tree) -> Result<Arc<Flows>, TreeError> {
    let capture = file.capture().ok_or(TreeError::NotFound)?;
    Ok(Arc::clone(tree.entry(capture)?.capture.flows()))
}

/// See [`FileProvider::facts`].
pub(super) fn facts(
    file: &impl ReadingFile,
    request: &FileRequest<'_>,
) -> Result<NodeFacts, TreeError> {
    let &FileRequest { tree, inode, beginning, asker } = request;
    let begins_anew = file.begins_anew();
    let facts = |Stat { size, present, modified, is_final, .. }, links| NodeFacts {
        present,
        links,
        valid: if links > 0 && is_final && !begins_anew { LASTING } else { Duration::ZERO },
        ..NodeFacts::of_size(size, modified)
    };
    match file.current(&*flows(file, tree)?, beginning.offset()) {
        CurrentFile::Same(stat) => {
            let own = tree.open_files.of_process(inode, asker.thread);
            let newest = own.iter().max_by_key(|file| file.opened);
            if let Some(rendered) = newest.and_then(|file| file.rendered_stat()) {
                return Ok(facts(rendered, 1));
            }
            if begins_anew {
                tree.inodes.lock().extend_visible(inode, stat);
            }
            // After the size was read, so that no end is before it.
            for file in own {
                file.extend_visible(Some(stat));
            }
            Ok(facts(stat, 1))
        }
        // The file has left the tree. Like a removed file, it goes on for its openers.
        current => {
            if let CurrentFile::Other(_) = current {
                for file in tree.open_files.of_process(inode, asker.thread) {
                    file.extend_visible_to_newest();
                }
            }
            let open = tree.open_files.of_inode(inode);
            let visible = open.iter().filter_map(|file| file.visible_after_removal());
            let visible = visible.max_by_key(|visible| visible.size);
            let visible = visible.or_else(|| tree.inodes.lock().visible(inode));
            let mut visible = visible.ok_or_else(|| current.error())?;
            if let CurrentFile::Other(now) = current {
                // The open file has the newer bytes as well.
                visible.modified = now.modified;
            }
            Ok(facts(visible, 0))
        }
    }
}

/// See [`FileProvider::open`].
pub(super) fn open(
    file: &impl ReadingFile,
    request: &FileRequest<'_>,
) -> Result<OpenContent, TreeError> {
    let &FileRequest { tree, inode, beginning, .. } = request;
    let flows = flows(file, tree)?;
    // Before it is opened, so that its end is never before the size that stat(2) gave. If the file
    // has moved to another beginning since its lookup, the opener still gets the file it looked up.
    let visible = match file.current(&flows, beginning.offset()) {
        CurrentFile::Same(stat) => stat,
        current @ CurrentFile::Other(_) => {
            tree.inodes.lock().visible(inode).ok_or_else(|| current.error())?
        }
        CurrentFile::Gone => return Err(TreeError::NotFound),
    };
    let reading = file.reading(&flows, beginning.offset()).map_err(|error| match error {
        FlowOpenError::Gone => file.current(&flows, beginning.offset()).error(),
        FlowOpenError::NoRoom => TreeError::NoRoom(error),
    })?;
    Ok(OpenContent::Flow(Mutex::new(FlowReader::new(reading, visible))))
}
