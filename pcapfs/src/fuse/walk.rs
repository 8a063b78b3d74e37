//! The requests a walk through the tree is made of, answered by the front end: looking a name up,
//! its attributes, listing, opening, closing.
//!
//! fuser could do all of this. But a request through it takes two more threads, which cost three
//! times as much as the answer, and copying a tree of flows is hundreds of thousands of requests.

use std::ops::ControlFlow;

use super::wire::{self, Message, Opening, Page, Request};
use crate::fs::error::Error;
use crate::fs::file::Opener;
use crate::fs::{Access, Tree};

/// The reply to a message; `None` if it gets none.
///
/// # Errors
/// For whoever asked.
pub(super) fn answer(tree: &Tree, message: &Message<'_>) -> Result<Option<Vec<u8>>, Error> {
    let Message { inode, thread, uid, request, .. } = *message;
    let reply = match request {
        Request::Lookup(name) => {
            // Names in the tree are UTF-8.
            let name = std::str::from_utf8(name).map_err(|_| Error::NotFound)?;
            let attributes = tree.lookup(inode, name, thread)?;
            tree.tell(&attributes);
            wire::entry_reply(&attributes)
        }
        Request::Attributes => {
            let attributes = tree.attributes(inode, thread)?;
            tree.tell(&attributes);
            wire::attributes_reply(&attributes)
        }
        Request::Open { flags } => {
            let opener = Opener::new(thread, uid);
            let handle = tree.open(inode, access(flags), opener)?;
            let is_cached = tree.file(handle).is_some_and(|file| file.is_small_and_final());
            let opening = if is_cached { Opening::Cached } else { Opening::Direct };
            wire::open_reply(handle, opening).to_vec()
        }
        Request::Release { handle } => {
            tree.close(handle);
            Vec::new()
        }
        // A listing needs nothing but where it goes on.
        Request::OpenDirectory => wire::open_reply(0, Opening::Directory).to_vec(),
        Request::ReleaseDirectory => Vec::new(),
        Request::List(read) => {
            let mut page = Page::new(usize::try_from(read.size).unwrap_or(usize::MAX));
            tree.list(inode, read.offset, &mut |listed| match page.add(&listed) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })?;
            page.into_bytes()
        }
        Request::Forget(count) => {
            tree.forget(inode, count);
            return Ok(None);
        }
        Request::ForgetMany(list) => {
            for (inode, count) in wire::forgotten(list) {
                tree.forget(inode, count);
            }
            return Ok(None);
        }
        Request::Read(_)
        | Request::Poll(_)
        | Request::Interrupt { .. }
        | Request::Write
        | Request::Other => return Err(Error::WrongAccess),
    };
    Ok(Some(reply))
}

/// What open(2) was asked for.
fn access(flags: u32) -> Access {
    let mode = i32::try_from(flags).unwrap_or(0) & libc::O_ACCMODE;
    Access { read: mode != libc::O_WRONLY, write: mode == libc::O_WRONLY || mode == libc::O_RDWR }
}
