//! The files of the tree, one source file for each kind.

mod control;
mod flow;
mod http;
mod inject;
mod log;
mod reading;
mod rendered;
mod replay;
mod stream;

use capture::cursor::{Begin, SavefileFormat};
use capture::flow::{ContentOperation, File, Log, Stat};

use super::beginning::FileBeginning;
use super::error::TreeError;
use super::open_file::OpenContent;
use super::{Asker, NodeFacts, Tree};
use control::ControlFile;
use flow::FlowFile;
use http::{HarFile, OpenHttpFile};
use inject::InjectFile;
use log::LogFile;
use replay::ReplayFile;
use stream::StreamFile;

pub(super) use rendered::RenderedFile;

/// One inode of a file, and the user that asks.
#[derive(Debug)]
pub(super) struct FileRequest<'a> {
    pub(super) tree: &'a Tree,
    pub(super) inode: u64,
    /// Where the file of this inode begins.
    pub(super) beginning: FileBeginning,
    pub(super) asker: Asker,
}

/// A kind of file.
///
/// A file is a small key, such as the id of a flow and a name. It is made anew for each request, so
/// it keeps no state. All methods may be called after the file has left the tree.
pub(super) trait FileProvider {
    /// The capture whose owner, group and mode it has; `None` if it has those of the root.
    fn capture(&self) -> Option<u32>;

    /// Its mode in a directory with this mode.
    fn mode(&self, directory: u32) -> u32 {
        directory & 0o666
    }

    /// Returns `true` if it is opened for writing only, and otherwise for reading only.
    fn is_written(&self) -> bool {
        false
    }

    /// Returns `true` if it may later begin elsewhere, and be another file then, with another
    /// inode.
    fn begins_anew(&self) -> bool {
        false
    }

    /// Returns `true` if its inode number is remembered after the kernel has forgotten it. This
    /// takes memory for each file, so it is only for a kind that a capture has few files of.
    fn keeps_number(&self) -> bool {
        false
    }

    /// Where it begins now; and its attributes, if they cannot be found out any more once it begins
    /// elsewhere.
    fn beginning(&self, tree: &Tree) -> Result<(FileBeginning, Option<Stat>), TreeError> {
        let _ = tree;
        Ok((FileBeginning::Always, None))
    }

    /// Its attributes for the asker, whose process can then read up to the size in them; an error
    /// if it has left the tree and no program has it open.
    fn facts(&self, request: &FileRequest<'_>) -> Result<NodeFacts, TreeError>;

    /// The content for a new opener. A content with a cursor makes the opener a reader of the
    /// capture, see [`OpenContent::is_reader`].
    fn open(&self, request: &FileRequest<'_>) -> Result<OpenContent, TreeError>;

    /// Returns `true` if the operation may take so long that no other request may wait for it. The
    /// pool then does it.
    fn takes_long(&self, tree: &Tree, operation: ContentOperation) -> bool {
        let _ = (tree, operation);
        false
    }

    /// Takes the bytes of one write(2), whatever their offset.
    fn write(&self, tree: &Tree, bytes: &[u8]) -> Result<(), TreeError> {
        let _ = (tree, bytes);
        Err(TreeError::WrongAccess)
    }
}

/// A file of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FileNode {
    Rendered(RenderedFile),
    Control(ControlFile),
    Inject(InjectFile),
    Stream(StreamFile),
    Replay(ReplayFile),
    Log(LogFile),
    OpenHttp(OpenHttpFile),
    Har(HarFile),
    Flow(FlowFile),
}

impl FileNode {
    pub(super) fn provider(&self) -> &dyn FileProvider {
        match self {
            Self::Rendered(file) => file,
            Self::Control(file) => file,
            Self::Inject(file) => file,
            Self::Stream(file) => file,
            Self::Replay(file) => file,
            Self::Log(file) => file,
            Self::OpenHttp(file) => file,
            Self::Har(file) => file,
            Self::Flow(file) => file,
        }
    }

    /// `status.json` of a capture.
    pub(super) const fn status(capture: u32) -> Self {
        Self::Rendered(RenderedFile::Status { capture })
    }

    /// `readers.jsonl`
    pub(super) const fn readers(capture: u32) -> Self {
        Self::Rendered(RenderedFile::Readers { capture })
    }

    /// `ctl`
    pub(super) const fn control(capture: u32) -> Self {
        Self::Control(ControlFile { capture })
    }

    /// `inject.pcap`
    pub(super) const fn inject(capture: u32) -> Self {
        Self::Inject(InjectFile { capture })
    }

    /// Returns `true` if the capture has this file.
    pub(super) fn exists(&self, tree: &Tree) -> bool {
        match self {
            Self::Inject(file) => file.exists(tree),
            _ => true,
        }
    }

    /// `live`, from the next packet on, and `follow`, from the oldest.
    pub(super) const fn stream(capture: u32, begin: Begin, format: SavefileFormat) -> Self {
        Self::Stream(StreamFile { capture, begin, format })
    }

    /// `replay`
    pub(super) const fn replay(capture: u32, format: SavefileFormat) -> Self {
        Self::Replay(ReplayFile { capture, format })
    }

    /// `flows.jsonl` and the other logs.
    pub(super) const fn log(capture: u32, log: Log) -> Self {
        Self::Log(LogFile { capture, log })
    }

    /// `http-open.jsonl` of a capture.
    pub(super) const fn open_http(capture: u32) -> Self {
        Self::OpenHttp(OpenHttpFile { capture })
    }

    /// `http.har` of a capture.
    pub(super) const fn har(capture: u32) -> Self {
        Self::Har(HarFile { capture })
    }

    /// A file of a flow, or a body.
    pub(super) const fn of_flow(capture: u32, flow: u64, file: File) -> Self {
        Self::Flow(FlowFile { capture, flow, file })
    }
}
