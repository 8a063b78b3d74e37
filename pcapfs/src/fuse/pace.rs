//! How long a request is expected to take, so that no other request waits for a long one.

use capture::flow::ContentOperation;

use super::pool;
use super::wire::{FuseMessage, FuseRequest, MAX_OTHER};
use crate::fs::Tree;
use crate::fs::open_file::OpenFile;

/// How long a request is expected to take, and whether another follows soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// A step of a walk that takes less than 30 us, as long as it takes to wake another thread for
    /// the next one.
    Quick,
    /// A request that may take longer, such as copying a mebibyte.
    Slow,
    /// A request that may take milliseconds, because text must be made or a body decoded: the pool
    /// handles it, in this share.
    Long(pool::Share),
    /// No step of a walk: the program may not ask again for a long time.
    Lone,
}

impl Pace {
    /// The pace of a message; `file` is the open file that it reads.
    pub(super) fn of(message: &FuseMessage<'_>, file: Option<&OpenFile>, tree: &Tree) -> Self {
        let long = |making: Option<u32>, otherwise| match making {
            Some(capture) => Self::Long(pool::Share { uid: message.asker.uid, capture }),
            None => otherwise,
        };
        let work = |operation| tree.long_work(message.inode, operation);
        match message.request {
            FuseRequest::Read(_) => match file {
                Some(file) if file.waits_for().is_some() => Self::Lone,
                Some(file) if file.is_small_and_final() => Self::Quick,
                Some(_) => long(work(ContentOperation::Read), Self::Slow),
                None => Self::Quick,
            },
            FuseRequest::Open { .. } => long(work(ContentOperation::Open), Self::Quick),
            FuseRequest::Attributes { .. } | FuseRequest::Seek(_) => {
                long(work(ContentOperation::Look), Self::Quick)
            }
            FuseRequest::Lookup(name) => long(tree.long_lookup(message.inode, name), Self::Quick),
            // A savefile that is injected. It is taken apart at once.
            FuseRequest::Write(..) if message.bytes.len() > MAX_OTHER => Self::Slow,
            FuseRequest::Write(..) => Self::Lone,
            FuseRequest::Poll(_) | FuseRequest::Interrupt { .. } | FuseRequest::Other => Self::Lone,
            _ => Self::Quick,
        }
    }
}
