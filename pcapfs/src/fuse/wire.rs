//! The messages of the FUSE protocol that the front end reads and writes.

use zerocopy::{FromBytes, IntoBytes, transmute};

use super::structures::{
    Attr, AttrOut, BatchForgetIn, Dirent, EntryOut, FOPEN_DIRECT_IO, FOPEN_NONSEEKABLE, ForgetOne,
    GETATTR_FH, GetattrIn, InHeader, Kstatfs, LseekIn, NOTIFY_POLL, OpenIn, OpenOut, OutHeader,
    POLL_SCHEDULE_NOTIFY, PollIn, PollReply, PollWakeup, ReadIn, ReleaseIn, WriteIn, WriteOut,
    opcode,
};
use crate::fs::list::ListedName;
use crate::fs::{Asker, Attributes, InodeKind};

/// Bytes of the header of a reply.
pub(super) const OUT_HEADER_LEN: usize = size_of::<OutHeader>();

/// Maximum bytes of a request that is not a write: a header, a structure and two names.
pub(super) const MAX_OTHER: usize = 16 << 10;

/// Bytes of a reply to `FUSE_LOOKUP`.
pub(super) const ENTRY_LEN: usize = size_of::<EntryOut>();

/// Bytes of an entry of a directory before its name.
const DIRENT_LEN: usize = size_of::<Dirent>();

/// A message: the fields that precede every request, and the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FuseMessage<'a> {
    pub(super) unique: u64,
    /// The inode of the request.
    pub(super) inode: u64,
    pub(super) asker: Asker,
    pub(super) request: FuseRequest<'a>,
    /// The whole message.
    pub(super) bytes: &'a [u8],
}

/// A request, with the fields that the front end uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FuseRequest<'a> {
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
    List(ReadIn),
    /// `FUSE_STATFS`
    FileSystem,
    /// `FUSE_READDIRPLUS`: the same, with the result of a lookup for each name.
    ListAhead(ReadIn),
    /// `FUSE_READ`
    Read(ReadIn),
    /// `FUSE_POLL`
    Poll(PollIn),
    /// `FUSE_INTERRUPT` of the request with this number.
    Interrupt {
        /// The interrupted request.
        target: u64,
    },
    /// `FUSE_WRITE` of these bytes.
    Write(WriteIn, &'a [u8]),
    /// `FUSE_LSEEK`
    Seek(LseekIn),
    /// `FUSE_FORGET` of this many lookups.
    Forget(u64),
    /// `FUSE_BATCH_FORGET`, see [`forgotten`].
    ForgetMany(&'a [u8]),
    /// Any other request.
    Other,
}

impl PollIn {
    /// Returns `true` if a program waits for a notification.
    pub(super) const fn notifies(&self) -> bool {
        self.flags & POLL_SCHEDULE_NOTIFY != 0
    }
}

/// The structure that bytes begin with; `None` if they are shorter.
fn structure<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(structure, _)| structure)
}

/// Parses a message; `None` if it is shorter than its structures.
pub(super) fn parse(message: &[u8]) -> Option<FuseMessage<'_>> {
    let (header, body) = InHeader::read_from_prefix(message).ok()?;
    let request = match header.opcode {
        opcode::LOOKUP => FuseRequest::Lookup(body.split(|byte| *byte == 0).next()?),
        opcode::GETATTR => {
            let GetattrIn { flags, handle, .. } = structure(body)?;
            FuseRequest::Attributes { handle: (flags & GETATTR_FH != 0).then_some(handle) }
        }
        opcode::OPEN => FuseRequest::Open { flags: structure::<OpenIn>(body)?.flags },
        opcode::RELEASE => FuseRequest::Release { handle: structure::<ReleaseIn>(body)?.handle },
        opcode::OPENDIR => FuseRequest::OpenDirectory,
        opcode::RELEASEDIR => FuseRequest::ReleaseDirectory,
        opcode::STATFS => FuseRequest::FileSystem,
        opcode::READDIR => FuseRequest::List(structure(body)?),
        opcode::READDIRPLUS => FuseRequest::ListAhead(structure(body)?),
        opcode::READ => FuseRequest::Read(structure(body)?),
        opcode::POLL => FuseRequest::Poll(structure(body)?),
        // `struct fuse_interrupt_in`
        opcode::INTERRUPT => FuseRequest::Interrupt { target: structure(body)? },
        opcode::LSEEK => FuseRequest::Seek(structure(body)?),
        opcode::WRITE => {
            let (write, bytes) = WriteIn::read_from_prefix(body).ok()?;
            FuseRequest::Write(write, bytes)
        }
        // `struct fuse_forget_in`
        opcode::FORGET => FuseRequest::Forget(structure(body)?),
        opcode::BATCH_FORGET => {
            FuseRequest::ForgetMany(BatchForgetIn::read_from_prefix(body).ok()?.1)
        }
        _ => FuseRequest::Other,
    };
    let InHeader { unique, inode, uid, gid, thread, .. } = header;
    Some(FuseMessage { unique, inode, asker: Asker { uid, gid, thread }, request, bytes: message })
}

/// The inodes of a `FUSE_BATCH_FORGET`, each with the number of lookups to forget.
pub(super) fn forgotten(list: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let list = list.as_chunks().0.iter();
    list.map(|one: &[u8; size_of::<ForgetOne>()]| {
        let ForgetOne { inode, lookups } = transmute!(*one);
        (inode, lookups)
    })
}

fn attr(attributes: &Attributes) -> Attr {
    let kind = match attributes.kind {
        InodeKind::Directory => libc::S_IFDIR,
        InodeKind::File => libc::S_IFREG,
        InodeKind::Link => libc::S_IFLNK,
    };
    let nanoseconds = attributes.modified.nanoseconds();
    Attr {
        inode: attributes.inode,
        size: attributes.size,
        blocks: attributes.present.div_ceil(512),
        seconds: [nanoseconds / 1_000_000_000; 3],
        // Below a billion.
        nanoseconds: [u32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0); 3],
        mode: kind | attributes.mode & 0o777,
        links: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        device: 0,
        block_size: 4096,
        flags: 0,
    }
}

/// A reply to `FUSE_LOOKUP`.
pub(super) fn entry_reply(attributes: &Attributes) -> [u8; ENTRY_LEN] {
    let valid = attributes.valid;
    transmute!(EntryOut {
        inode: attributes.inode,
        generation: 0,
        valid_seconds: [valid.as_secs(); 2],
        valid_nanoseconds: [valid.subsec_nanos(); 2],
        attributes: attr(attributes),
    })
}

/// A reply to `FUSE_GETATTR`.
pub(super) fn attributes_reply(attributes: &Attributes) -> [u8; size_of::<AttrOut>()] {
    transmute!(AttrOut {
        valid_seconds: attributes.valid.as_secs(),
        valid_nanoseconds: attributes.valid.subsec_nanos(),
        padding: 0,
        attributes: attr(attributes),
    })
}

/// A reply to `FUSE_STATFS`. No block is free, since the tree cannot be written to.
pub(super) fn file_system_reply() -> [u8; size_of::<Kstatfs>()] {
    let sizes =
        Kstatfs { block_size: 4096, name_len: 255, fragment_size: 4096, ..Kstatfs::default() };
    transmute!(sizes)
}

/// A reply to `FUSE_LSEEK`: `struct fuse_lseek_out`.
pub(super) fn seek_reply(offset: u64) -> [u8; 8] {
    offset.to_ne_bytes()
}

/// A reply to `FUSE_WRITE` of this many bytes.
pub(super) fn write_reply(len: usize) -> [u8; size_of::<WriteOut>()] {
    transmute!(WriteOut { size: u32::try_from(len).unwrap_or(u32::MAX), padding: 0 })
}

/// The inode in a reply to `FUSE_LOOKUP`, or the handle in a reply to `FUSE_OPEN`.
pub(super) fn given(reply: &[u8]) -> Option<u64> {
    structure(reply)
}

/// How a file or directory is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenReply {
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

/// A reply to `FUSE_OPEN` or `FUSE_OPENDIR`.
///
/// Files are usually not marked as non-seekable or as streams: `tail -f -c +1` seeks before it
/// reads. But sendfile(2) goes by the size, and returns no bytes for a seekable file of size 0.
pub(super) fn open_reply(handle: u64, opening: OpenReply) -> [u8; size_of::<OpenOut>()] {
    let flags = match opening {
        OpenReply::Directory | OpenReply::Cached => 0,
        OpenReply::Direct => FOPEN_DIRECT_IO,
        OpenReply::Unseekable => FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE,
    };
    transmute!(OpenOut { handle, flags, padding: 0 })
}

/// A page of a directory: `struct fuse_dirent` one after the other, at most `size` bytes.
#[derive(Debug)]
pub(super) struct DirectoryPage {
    size: usize,
    bytes: Vec<u8>,
}

impl DirectoryPage {
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

    /// Returns `true` if a name fits, after `before` more bytes.
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
        let entry = Dirent {
            inode: listed.inode,
            cookie: listed.cookie,
            // A name has at most 255 bytes.
            name_len: u32::try_from(name.len()).unwrap_or(0),
            kind: u32::from(kind),
        };
        self.bytes.extend(entry.as_bytes());
        self.bytes.extend(name);
        self.bytes.resize(end, 0);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The header before `len` bytes of a reply; `error` is 0 or a positive errno.
pub(super) fn reply_header(unique: u64, error: i32, len: usize) -> [u8; OUT_HEADER_LEN] {
    transmute!(header(unique, -error, OUT_HEADER_LEN + len))
}

fn header(unique: u64, error: i32, len: usize) -> OutHeader {
    OutHeader { len: u32::try_from(len).unwrap_or(u32::MAX), error, unique }
}

/// A reply to `FUSE_POLL`.
pub(super) fn poll_reply(unique: u64, events: u32) -> [u8; size_of::<PollReply>()] {
    let header = header(unique, 0, size_of::<PollReply>());
    transmute!(PollReply { header, events, padding: 0 })
}

/// A notification that a polled file may be ready.
pub(super) fn poll_wakeup(kernel_handle: u64) -> [u8; size_of::<PollWakeup>()] {
    let header = header(0, NOTIFY_POLL, size_of::<PollWakeup>());
    transmute!(PollWakeup { header, kernel_handle })
}

#[cfg(test)]
mod tests {
    use protocol::time::Timestamp;

    use super::*;

    fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
        structure(&bytes[offset..])
    }

    fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
        structure(&bytes[offset..])
    }

    fn message(code: u32, unique: u64, body: &[u8]) -> Vec<u8> {
        let mut message = u32::try_from(40 + body.len()).unwrap().to_ne_bytes().to_vec();
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
        let read =
            ReadIn { handle: 7, offset: 4096, size: 131_072, flags: 0o4000, ..ReadIn::default() };
        assert_eq!(
            parse(&whole).map(|one| (one.unique, one.request)),
            Some((42, FuseRequest::Read(read)))
        );
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), None, "{len} bytes");
        }
        let interrupt = message(36, 43, &42u64.to_ne_bytes());
        assert_eq!(
            parse(&interrupt).map(|one| one.request),
            Some(FuseRequest::Interrupt { target: 42 })
        );
        for (flags, handle) in [(0u64, None), (1, Some(9))] {
            let body = [flags, 9].map(u64::to_ne_bytes).concat();
            let whole = message(3, 5, &body);
            let found = parse(&whole).map(|one| one.request);
            assert_eq!(found, Some(FuseRequest::Attributes { handle }));
        }
        let lookup = message(1, 5, b"name\0");
        assert_eq!(parse(&lookup).map(|one| one.request), Some(FuseRequest::Lookup(b"name")));
        assert_eq!(
            parse(&message(17, 5, b"")).map(|one| one.request),
            Some(FuseRequest::FileSystem)
        );
        let seek = [9u64, 4096, libc::SEEK_HOLE as u64].map(u64::to_ne_bytes).concat();
        let position =
            LseekIn { handle: 9, offset: 4096, whence: libc::SEEK_HOLE, ..LseekIn::default() };
        let parsed = message(46, 5, &seek);
        assert_eq!(parse(&parsed).map(|one| one.request), Some(FuseRequest::Seek(position)));
        // FUSE_FLUSH
        assert_eq!(parse(&message(25, 5, b"")).map(|one| one.request), Some(FuseRequest::Other));
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
        assert_eq!(u64_at(&open_reply(8, OpenReply::Direct), 0), Some(8));
        assert_eq!(open_reply(8, OpenReply::Direct)[8], 1);
        assert_eq!(open_reply(8, OpenReply::Unseekable)[8], 5);
        assert_eq!(open_reply(8, OpenReply::Cached)[8], 0);
        assert_eq!(file_system_reply().len(), 80);
        let listed =
            ListedName { inode: 11, kind: InodeKind::Directory, name: "bodies", cookie: 7 };
        let mut page = DirectoryPage::new(200);
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
