//! The front end's answers to the requests of a walk through the tree: looking a name up, its
//! attributes, listing, opening, closing.
//!
//! fuser could do all of this. But a request through it takes two more threads, which cost three
//! times as much as the answer, and copying a tree of flows takes hundreds of thousands of
//! requests.

use std::ops::ControlFlow;

use capture::flow::Seek;

use super::wire::{self, DirectoryPage, FuseMessage, FuseRequest, OpenReply};
use crate::fs::error::TreeError;
use crate::fs::list::ListedName;
use crate::fs::open_file::FileOpener;
use crate::fs::{Asker, OpenAccess, Tree};

/// The reply to a message; `None` if the kernel expects none.
///
/// # Errors
/// The error for the asking program.
pub(super) fn answer(tree: &Tree, message: &FuseMessage<'_>) -> Result<Option<Vec<u8>>, TreeError> {
    let FuseMessage { inode, asker, request, .. } = *message;
    let reply = match request {
        FuseRequest::Lookup(name) => {
            // Names in the tree are UTF-8.
            let name = std::str::from_utf8(name).map_err(|_| TreeError::NotFound)?;
            let attributes = tree.lookup(inode, name, asker)?;
            tree.note_caching(&attributes);
            wire::entry_reply(&attributes).to_vec()
        }
        FuseRequest::Attributes { handle } => {
            let attributes = match handle {
                Some(handle) => tree.attributes_of_opening(handle, inode, asker)?,
                None => tree.attributes(inode, asker)?,
            };
            tree.note_caching(&attributes);
            wire::attributes_reply(&attributes).to_vec()
        }
        FuseRequest::Open { flags } => {
            let opener = FileOpener::new(asker);
            let handle = tree.open(inode, access(flags), opener)?;
            let file = tree.file(handle);
            let opening = match &file {
                Some(file) if file.is_small_and_final() => OpenReply::Cached,
                Some(file) if file.is_stream() && file.opener.sends_files() => {
                    OpenReply::Unseekable
                }
                _ => OpenReply::Direct,
            };
            wire::open_reply(handle, opening).to_vec()
        }
        FuseRequest::Release { handle } => {
            tree.close(handle);
            Vec::new()
        }
        // A listing keeps no state except its cookie.
        FuseRequest::OpenDirectory => wire::open_reply(0, OpenReply::Directory).to_vec(),
        FuseRequest::ReleaseDirectory => Vec::new(),
        FuseRequest::List(read) => {
            let mut page = DirectoryPage::new(usize::try_from(read.size).unwrap_or(usize::MAX));
            tree.list(inode, read.offset, &mut |listed| match page.add(&listed) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })?;
            page.into_bytes()
        }
        FuseRequest::Seek(seek) => {
            let to = match seek.whence {
                libc::SEEK_DATA => Seek::Data,
                libc::SEEK_HOLE => Seek::Hole,
                // The kernel handles the other ways itself.
                _ => return Err(TreeError::BadSeek),
            };
            wire::seek_reply(tree.seek(seek.handle, seek.offset, to, asker)?).to_vec()
        }
        // find(1) asks for each directory.
        FuseRequest::FileSystem => wire::file_system_reply().to_vec(),
        FuseRequest::ListAhead(read) => {
            let size = usize::try_from(read.size).unwrap_or(usize::MAX);
            list_ahead(tree, inode, asker, read.offset, size)?
        }
        FuseRequest::Forget(count) => {
            tree.forget(inode, count);
            return Ok(None);
        }
        FuseRequest::ForgetMany(list) => {
            for (inode, count) in wire::forgotten(list) {
                tree.forget(inode, count);
            }
            return Ok(None);
        }
        FuseRequest::Read(_)
        | FuseRequest::Poll(_)
        | FuseRequest::Interrupt { .. }
        | FuseRequest::Write(..)
        | FuseRequest::Other => return Err(TreeError::WrongAccess),
    };
    Ok(Some(reply))
}

/// Undoes a lookup or an open whose reply did not arrive.
pub(super) fn undo(tree: &Tree, message: &FuseMessage<'_>, reply: &[u8]) {
    let Some(given) = wire::given(reply) else { return };
    match message.request {
        FuseRequest::Open { .. } => tree.close(given),
        FuseRequest::Lookup(_) => tree.forget(given, 1),
        _ => {}
    }
}

/// A page of names with the attributes of their lookups.
fn list_ahead(
    tree: &Tree,
    inode: u64,
    asker: Asker,
    after: u64,
    size: usize,
) -> Result<Vec<u8>, TreeError> {
    // The lookups follow the listing: by then it holds no lock that a lookup needs.
    let mut names = Vec::new();
    let mut room = size;
    tree.list(inode, after, &mut |listed| {
        let len = wire::ENTRY_LEN + listed.name.len();
        let Some(left) = room.checked_sub(len) else { return ControlFlow::Break(()) };
        room = left;
        names.push((listed.inode, listed.kind, listed.name.to_owned(), listed.cookie));
        ControlFlow::Continue(())
    })?;
    let mut page = DirectoryPage::new(size);
    for (listed, kind, name, cookie) in &names {
        let listed = ListedName { inode: *listed, kind: *kind, name, cookie: *cookie };
        let look = || {
            let is_dot = matches!(name.as_str(), "." | "..");
            let attributes = if is_dot { None } else { tree.look_ahead(inode, name, asker) };
            attributes.inspect(|attributes| tree.note_caching(attributes))
        };
        if !page.add_ahead(&listed, look) {
            break;
        }
    }
    Ok(page.into_bytes())
}

/// The access of an open(2) with these flags.
fn access(flags: u32) -> OpenAccess {
    let mode = i32::try_from(flags).unwrap_or(0) & libc::O_ACCMODE;
    OpenAccess {
        read: mode != libc::O_WRONLY,
        write: mode == libc::O_WRONLY || mode == libc::O_RDWR,
    }
}
