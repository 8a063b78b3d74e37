//! The few messages of the FUSE protocol that the front end answers itself.
//!
//! Source: `linux/fuse.h`, protocol 7.12 and later. All fields are in this machine's byte order.

use crate::fs::list::ListedName;
use crate::fs::{Asker, Attributes, InodeKind};

/// Bytes of `struct fuse_in_header`.
const IN_HEADER_LEN: usize = 40;

/// Bytes of `struct fuse_out_header`.
pub(super) const OUT_HEADER_LEN: usize = 16;

/// The maximum bytes of a request that is not a write: a header, a structure and two names.
pub(super) const MAX_OTHER: usize = 16 << 10;

/// Bytes of `struct fuse_entry_out`.
pub(super) const ENTRY_LEN: usize = 128;

/// Bytes of `struct fuse_dirent` before the name.
const DIRENT_LEN: usize = 24;

mod opcode {
    //! `enum fuse_opcode`
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const OPENDIR: u32 = 27;
    pub(super) const STATFS: u32 = 17;
    pub(super) const READDIR: u32 = 28;
    pub(super) const READDIRPLUS: u32 = 44;
    pub(super) const RELEASEDIR: u32 = 29;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const POLL: u32 = 40;
    pub(super) const BATCH_FORGET: u32 = 42;
    pub(super) const LSEEK: u32 = 46;
}

/// `FUSE_NOTIFY_POLL` of `enum fuse_notify_code`.
const NOTIFY_POLL: i32 = 1;

/// `FUSE_POLL_SCHEDULE_NOTIFY`: a program waits for a notification.
const POLL_SCHEDULE_NOTIFY: u32 = 1;

/// `FUSE_GETATTR_FH`: the request has a handle.
const GETATTR_FH: u32 = 1;

/// `FOPEN_NONSEEKABLE`
const FOPEN_NONSEEKABLE: u32 = 1 << 2;

/// `FOPEN_DIRECT_IO`
const FOPEN_DIRECT_IO: u32 = 1;

/// A message: the fields that precede every request, and the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) unique: u64,
    /// The inode of the request.
    pub(super) inode: u64,
    pub(super) asker: Asker,
    pub(super) request: Request<'a>,
    /// The whole message.
    pub(super) bytes: &'a [u8],
}

/// A request, with the fields that the front end uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// `FUSE_LOOKUP` of this name.
    Lookup(&'a [u8]),
    /// `FUSE_GETATTR`
    Attributes {
        /// The handle, if the request is for an open file.
        handle: Option<u64>,
    },
    /// `FUSE_OPEN` with these flags of open(2).
    Open {
        /// See open(2).
        flags: u32,
    },
    /// `FUSE_RELEASE`
    Release {
        /// The handle of the open file.
        handle: u64,
    },
    /// `FUSE_OPENDIR`
    OpenDirectory,
    /// `FUSE_RELEASEDIR`
    ReleaseDirectory,
    /// `FUSE_READDIR`: the handle is not used, the offset is a cookie.
    List(Read),
    /// `FUSE_STATFS`
    FileSystem,
    /// `FUSE_READDIRPLUS`: the same, with the result of a lookup for each name.
    ListAhead(Read),
    /// `FUSE_READ`
    Read(Read),
    /// `FUSE_POLL`
    Poll(Poll),
    /// `FUSE_INTERRUPT` of the request with this number.
    Interrupt {
        /// The interrupted request.
        target: u64,
    },
    /// `FUSE_WRITE`
    Write,
    /// `FUSE_LSEEK`
    Seek(Position),
    /// `FUSE_FORGET` of this many lookups.
    Forget(u64),
    /// `FUSE_BATCH_FORGET`, see [`forgotten`].
    ForgetMany(&'a [u8]),
    /// Any other request.
    Other,
}

/// The fields of `struct fuse_read_in` that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
    /// The opener's current file flags, such as `O_NONBLOCK`.
    pub(super) flags: u32,
}

/// `struct fuse_lseek_in`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) handle: u64,
    pub(super) offset: u64,
    /// See lseek(2).
    pub(super) whence: i32,
}

/// The fields of `struct fuse_poll_in` that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Poll {
    pub(super) handle: u64,
    /// The handle to name in a notification.
    pub(super) kernel_handle: u64,
    /// True if a program waits for a notification.
    pub(super) notify: bool,
}

/// Parses a message; `None` if it is shorter than its structures.
pub(super) fn parse(message: &[u8]) -> Option<Message<'_>> {
    let code = u32_at(message, 4)?;
    let body = message.get(IN_HEADER_LEN..)?;
    let read = || {
        Some(Read {
            handle: u64_at(body, 0)?,
            offset: u64_at(body, 8)?,
            size: u32_at(body, 16)?,
            flags: u32_at(body, 32)?,
        })
    };
    let request = match code {
        opcode::LOOKUP => Request::Lookup(body.split(|byte| *byte == 0).next()?),
        opcode::GETATTR => {
            let (flags, handle) = (u32_at(body, 0)?, u64_at(body, 8)?);
            Request::Attributes { handle: (flags & GETATTR_FH != 0).then_some(handle) }
        }
        opcode::OPEN => Request::Open { flags: u32_at(body, 0)? },
        opcode::RELEASE => Request::Release { handle: u64_at(body, 0)? },
        opcode::OPENDIR => Request::OpenDirectory,
        opcode::RELEASEDIR => Request::ReleaseDirectory,
        opcode::STATFS => Request::FileSystem,
        opcode::READDIR => Request::List(read()?),
        opcode::READDIRPLUS => Request::ListAhead(read()?),
        opcode::READ => Request::Read(read()?),
        opcode::POLL => Request::Poll(Poll {
            handle: u64_at(body, 0)?,
            kernel_handle: u64_at(body, 8)?,
            notify: u32_at(body, 16)? & POLL_SCHEDULE_NOTIFY != 0,
        }),
        opcode::INTERRUPT => Request::Interrupt { target: u64_at(body, 0)? },
        opcode::LSEEK => Request::Seek(Position {
            handle: u64_at(body, 0)?,
            offset: u64_at(body, 8)?,
            whence: u32_at(body, 16)?.cast_signed(),
        }),
        opcode::WRITE => Request::Write,
        opcode::FORGET => Request::Forget(u64_at(body, 0)?),
        opcode::BATCH_FORGET => Request::ForgetMany(body.get(8..)?),
        _ => Request::Other,
    };
    Some(Message {
        unique: u64_at(message, 8)?,
        inode: u64_at(message, 16)?,
        asker: Asker {
            uid: u32_at(message, 24)?,
            gid: u32_at(message, 28)?,
            thread: u32_at(message, 32)?,
        },
        request,
        bytes: message,
    })
}

/// The inodes of a `FUSE_BATCH_FORGET`, each with the number of lookups to forget:
/// `struct fuse_forget_one`.
pub(super) fn forgotten(list: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    list.as_chunks::<16>().0.iter().filter_map(|one| Some((u64_at(one, 0)?, u64_at(one, 8)?)))
}

/// Appends `struct fuse_attr`, 88 bytes, to `out`.
fn put_attributes(out: &mut Vec<u8>, attributes: &Attributes) {
    let kind = match attributes.kind {
        InodeKind::Directory => libc::S_IFDIR,
        InodeKind::File => libc::S_IFREG,
        InodeKind::Link => libc::S_IFLNK,
    };
    let nanoseconds = attributes.modified.nanoseconds();
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    // Below a billion.
    let fraction = u32::try_from(fraction).unwrap_or(0);
    let blocks = attributes.present.div_ceil(512);
    for word in [attributes.inode, attributes.size, blocks, seconds, seconds, seconds] {
        out.extend(word.to_ne_bytes());
    }
    let mode = kind | attributes.mode & 0o777;
    let owner = [attributes.links, attributes.uid, attributes.gid];
    for word in [fraction, fraction, fraction, mode].into_iter().chain(owner).chain([0, 4096, 0]) {
        out.extend(word.to_ne_bytes());
    }
}

/// A reply to `FUSE_LOOKUP`: `struct fuse_entry_out`.
pub(super) fn entry_reply(attributes: &Attributes) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENTRY_LEN);
    let valid = attributes.valid;
    // Inode, generation, and seconds for which the name and the attributes are valid.
    for word in [attributes.inode, 0, valid.as_secs(), valid.as_secs()] {
        out.extend(word.to_ne_bytes());
    }
    for fraction in [valid.subsec_nanos(); 2] {
        out.extend(fraction.to_ne_bytes());
    }
    put_attributes(&mut out, attributes);
    out
}

/// A reply to `FUSE_GETATTR`: `struct fuse_attr_out`.
pub(super) fn attributes_reply(attributes: &Attributes) -> Vec<u8> {
    let mut out = Vec::with_capacity(104);
    out.extend(attributes.valid.as_secs().to_ne_bytes());
    for word in [attributes.valid.subsec_nanos(), 0] {
        out.extend(word.to_ne_bytes());
    }
    put_attributes(&mut out, attributes);
    out
}

/// A reply to `FUSE_STATFS`: `struct fuse_kstatfs`. No block is free, since the tree cannot be
/// written to; names have at most 255 bytes.
pub(super) fn file_system_reply() -> Vec<u8> {
    let mut out = vec![0; 40];
    // Bytes of a block, of a name, of a fragment.
    for word in [4096_u32, 255, 4096] {
        out.extend(word.to_ne_bytes());
    }
    out.resize(80, 0);
    out
}

/// A reply to `FUSE_LSEEK`: `struct fuse_lseek_out`.
pub(super) fn seek_reply(offset: u64) -> Vec<u8> {
    offset.to_ne_bytes().to_vec()
}

/// The inode in a reply to `FUSE_LOOKUP`, or the handle in a reply to `FUSE_OPEN`.
pub(super) fn given(reply: &[u8]) -> Option<u64> {
    u64_at(reply, 0)
}

/// How a file or directory is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// A directory.
    Directory,
    /// A file whose reads bypass the page cache.
    Direct,
    /// The same, for a program that first copies with sendfile(2): that must fail, so that it
    /// reads.
    Unseekable,
    /// A file that does not change, read through the page cache: the kernel knows its end.
    Cached,
}

/// A reply to `FUSE_OPEN` or `FUSE_OPENDIR`: `struct fuse_open_out`.
///
/// Files are usually not marked as non-seekable or as streams: `tail -f -c +1` seeks before it
/// reads. But sendfile(2) goes by the size, and returns no bytes for a seekable file of size 0.
pub(super) fn open_reply(handle: u64, opening: Opening) -> [u8; 16] {
    let flags = match opening {
        Opening::Directory | Opening::Cached => 0,
        Opening::Direct => FOPEN_DIRECT_IO,
        Opening::Unseekable => FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE,
    };
    let mut out = [0; 16];
    let (words, _) = out.as_chunks_mut::<8>();
    if let [first, second] = words {
        *first = handle.to_ne_bytes();
        first_half(second, flags);
    }
    out
}

fn first_half(word: &mut [u8; 8], value: u32) {
    if let (halves, _) = word.as_chunks_mut::<4>()
        && let Some(half) = halves.first_mut()
    {
        *half = value.to_ne_bytes();
    }
}

/// A page of a directory: `struct fuse_dirent` one after the other, at most `size` bytes.
#[derive(Debug)]
pub(super) struct Page {
    size: usize,
    bytes: Vec<u8>,
}

impl Page {
    pub(super) fn new(size: usize) -> Self {
        Self { size, bytes: Vec::with_capacity(size) }
    }

    /// Adds a name; false if there is no room for it.
    pub(super) fn add(&mut self, listed: &ListedName<'_>) -> bool {
        let has_room = self.has_room(listed.name, 0);
        if has_room {
            self.put(listed);
        }
        has_room
    }

    /// True if a name fits, after `before` more bytes.
    fn has_room(&self, name: &str, before: usize) -> bool {
        let len = before + (DIRENT_LEN + name.len()).next_multiple_of(8);
        self.bytes.len() + len <= self.size
    }

    /// Adds a name with the attributes of its lookup, if there are any; false if it does not fit:
    /// `struct fuse_direntplus`.
    pub(super) fn add_ahead(
        &mut self,
        listed: &ListedName<'_>,
        look: impl FnOnce() -> Option<Attributes>,
    ) -> bool {
        if !self.has_room(listed.name, ENTRY_LEN) {
            return false;
        }
        match look() {
            Some(attributes) => self.bytes.extend(entry_reply(&attributes)),
            // Inode 0: not looked up.
            None => self.bytes.extend([0; ENTRY_LEN]),
        }
        self.put(listed);
        true
    }

    fn put(&mut self, listed: &ListedName<'_>) {
        let name = listed.name.as_bytes();
        let end = self.bytes.len() + (DIRENT_LEN + name.len()).next_multiple_of(8);
        let kind = match listed.kind {
            InodeKind::Directory => libc::DT_DIR,
            InodeKind::File => libc::DT_REG,
            InodeKind::Link => libc::DT_LNK,
        };
        self.bytes.extend(listed.inode.to_ne_bytes());
        self.bytes.extend(listed.cookie.to_ne_bytes());
        // A name has at most 255 bytes.
        self.bytes.extend(u32::try_from(name.len()).unwrap_or(0).to_ne_bytes());
        self.bytes.extend(u32::from(kind).to_ne_bytes());
        self.bytes.extend(name);
        self.bytes.resize(end, 0);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// `struct fuse_out_header` before `len` bytes of reply; `error` is 0 or a positive errno.
pub(super) fn reply_header(unique: u64, error: i32, len: usize) -> [u8; OUT_HEADER_LEN] {
    out_header(unique, -error, len)
}

fn out_header(unique: u64, code: i32, len: usize) -> [u8; OUT_HEADER_LEN] {
    let total = u32::try_from(OUT_HEADER_LEN + len).unwrap_or(u32::MAX);
    let mut header = [0; OUT_HEADER_LEN];
    let (words, _) = header.as_chunks_mut::<8>();
    if let [first, second] = words {
        first[..4].copy_from_slice(&total.to_ne_bytes());
        first[4..].copy_from_slice(&code.to_ne_bytes());
        *second = unique.to_ne_bytes();
    }
    header
}

/// A reply to `FUSE_POLL`: `struct fuse_poll_out`.
pub(super) fn poll_reply(unique: u64, events: u32) -> [u8; OUT_HEADER_LEN + 8] {
    let mut reply = [0; OUT_HEADER_LEN + 8];
    reply[..OUT_HEADER_LEN].copy_from_slice(&reply_header(unique, 0, 8));
    reply[OUT_HEADER_LEN..OUT_HEADER_LEN + 4].copy_from_slice(&events.to_ne_bytes());
    reply
}

/// A notification that a polled file may be ready: `struct fuse_notify_poll_wakeup_out`.
pub(super) fn poll_wakeup(kernel_handle: u64) -> [u8; OUT_HEADER_LEN + 8] {
    let mut message = [0; OUT_HEADER_LEN + 8];
    message[..OUT_HEADER_LEN].copy_from_slice(&out_header(0, NOTIFY_POLL, 8));
    message[OUT_HEADER_LEN..].copy_from_slice(&kernel_handle.to_ne_bytes());
    message
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use protocol::time::Timestamp;

    use super::*;

    fn message(code: u32, unique: u64, body: &[u8]) -> Vec<u8> {
        let mut message = u32::try_from(IN_HEADER_LEN + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(code.to_ne_bytes());
        message.extend(unique.to_ne_bytes());
        message.extend([0; 24]);
        message.extend(body);
        message
    }

    #[test]
    fn requests_are_read_as_the_kernel_lays_them_out() {
        let mut body = 7u64.to_ne_bytes().to_vec();
        body.extend(4096u64.to_ne_bytes());
        body.extend(131_072u32.to_ne_bytes());
        body.extend([0; 12]);
        body.extend(0o4000u32.to_ne_bytes());
        body.extend([0; 4]);
        let whole = message(15, 42, &body);
        let read = Read { handle: 7, offset: 4096, size: 131_072, flags: 0o4000 };
        assert_eq!(
            parse(&whole).map(|one| (one.unique, one.request)),
            Some((42, Request::Read(read)))
        );
        for len in 0..whole.len() - 4 {
            assert_eq!(parse(&whole[..len]), None, "{len} bytes");
        }
        let interrupt = message(36, 43, &42u64.to_ne_bytes());
        assert_eq!(
            parse(&interrupt).map(|one| one.request),
            Some(Request::Interrupt { target: 42 })
        );
        for (flags, handle) in [(0u64, None), (1, Some(9))] {
            let body = [flags, 9].map(u64::to_ne_bytes).concat();
            let whole = message(3, 5, &body);
            let found = parse(&whole).map(|one| one.request);
            assert_eq!(found, Some(Request::Attributes { handle }));
        }
        let lookup = message(1, 5, b"name\0");
        assert_eq!(parse(&lookup).map(|one| one.request), Some(Request::Lookup(b"name")));
        assert_eq!(parse(&message(17, 5, b"")).map(|one| one.request), Some(Request::FileSystem));
        let seek = [9u64, 4096, libc::SEEK_HOLE as u64].map(u64::to_ne_bytes).concat();
        let position = Position { handle: 9, offset: 4096, whence: libc::SEEK_HOLE };
        let parsed = message(46, 5, &seek);
        assert_eq!(parse(&parsed).map(|one| one.request), Some(Request::Seek(position)));
        // FUSE_FLUSH
        assert_eq!(parse(&message(25, 5, b"")).map(|one| one.request), Some(Request::Other));
        let pairs = [7u64, 1, 9, 2].map(u64::to_ne_bytes).concat();
        assert_eq!(forgotten(&pairs).collect::<Vec<_>>(), [(7, 1), (9, 2)]);
    }

    #[test]
    fn replies_are_laid_out_as_the_kernel_reads_them() {
        let header = reply_header(42, 4, 0);
        assert_eq!(header[..4], 16u32.to_ne_bytes());
        assert_eq!(header[4..8], (-4i32).to_ne_bytes());
        assert_eq!(header[8..], 42u64.to_ne_bytes());
        let wakeup = poll_wakeup(9);
        assert_eq!(wakeup[..4], 24u32.to_ne_bytes());
        assert_eq!(wakeup[4..8], 1i32.to_ne_bytes());
        assert_eq!(wakeup[16..], 9u64.to_ne_bytes());
        assert_eq!(poll_reply(1, 5)[16..20], 5u32.to_ne_bytes());
        let attributes = Attributes {
            inode: 11,
            kind: InodeKind::Directory,
            mode: 0o750,
            links: 2,
            uid: 3,
            gid: 4,
            size: 5,
            present: 513,
            modified: Timestamp::from_nanoseconds(6_000_000_007),
            valid: std::time::Duration::from_millis(1_200),
        };
        let entry = entry_reply(&attributes);
        assert_eq!((entry.len(), attributes_reply(&attributes).len()), (128, 104));
        assert_eq!((u64_at(&entry, 0), u64_at(&entry, 16)), (Some(11), Some(1)));
        assert_eq!(
            (u32_at(&entry, 32), u32_at(&entry, 36)),
            (Some(200_000_000), Some(200_000_000))
        );
        let attr = &entry[40..];
        assert_eq!(
            (u64_at(attr, 8), u64_at(attr, 16), u64_at(attr, 32)),
            (Some(5), Some(2), Some(6))
        );
        assert_eq!((u32_at(attr, 52), u32_at(attr, 60)), (Some(7), Some(0o040_750)));
        assert_eq!((u32_at(attr, 68), u32_at(attr, 72)), (Some(3), Some(4)));
        assert_eq!(u64_at(&open_reply(8, Opening::Direct), 0), Some(8));
        assert_eq!(open_reply(8, Opening::Direct)[8], 1);
        assert_eq!(open_reply(8, Opening::Unseekable)[8], 5);
        assert_eq!(open_reply(8, Opening::Cached)[8], 0);
        assert_eq!(file_system_reply().len(), 80);
        let listed =
            ListedName { inode: 11, kind: InodeKind::Directory, name: "bodies", cookie: 7 };
        let mut page = Page::new(200);
        assert!(page.add_ahead(&listed, || Some(attributes)));
        assert!(!page.add_ahead(&listed, || unreachable!("there is no room for it")));
        let page = page.into_bytes();
        assert_eq!(page[..ENTRY_LEN], entry);
        // Inode, cookie, length and kind, name: struct fuse_dirent.
        assert_eq!((u64_at(&page, 128), u64_at(&page, 136)), (Some(11), Some(7)));
        assert_eq!(
            (u32_at(&page, 144), &page[152..158], page.len()),
            (Some(6), &b"bodies"[..], 160)
        );
    }
}
