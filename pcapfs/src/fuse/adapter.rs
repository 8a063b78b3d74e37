//! fuser on one side, the tree on the other: trace, call, reply. READ, POLL and INTERRUPT never
//! come here, see [`super::front`].

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use nix::errno::Errno;

use crate::fs::error::Error;
use crate::fs::file::Opener;
use crate::fs::{Access, Attributes, Change, Kind, Tree};

/// Bytes of the largest write, which is also what the kernel asks for in one read: it takes the
/// number of pages of a request from this.
pub(super) const MAX_WRITE: u32 = 1 << 20;

/// How long the kernel may believe what it was told: not at all. Sizes and times change with every
/// packet, names with what the ring retains.
const NO_CACHE: Duration = Duration::ZERO;

/// The tree as fuser wants it.
#[derive(Debug)]
pub(super) struct Adapter {
    pub(super) tree: Arc<Tree>,
}

fn fuser_errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno as i32)
}

fn refuse(operation: &str, error: &Error) -> fuser::Errno {
    log::debug!("{operation}: {error}");
    fuser_errno(error.errno())
}

const fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Link => FileType::Symlink,
    }
}

fn attr(attributes: &Attributes) -> FileAttr {
    let modified = attributes.modified.to_system_time();
    FileAttr {
        ino: INodeNo(attributes.inode),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: file_type(attributes.kind),
        // Nine bits.
        perm: u16::try_from(attributes.mode & 0o777).unwrap_or(0),
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Names in the tree are ASCII.
fn text(name: &OsStr) -> &str {
    name.to_str().unwrap_or_default()
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |_| io::Error::from(io::ErrorKind::Unsupported);
        config.set_max_write(MAX_WRITE).map_err(refused)?;
        // Listing and looking up are answered at once: let them be sent while others wait.
        let _ = config.set_max_background(64);
        // A kernel without it sends one operation after the other for each directory; that is all.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tree.lookup(parent.0, text(name), request.pid()) {
            Ok(attributes) => reply.entry(&NO_CACHE, &attr(&attributes), Generation(0)),
            Err(error) => reply.error(refuse("lookup", &error)),
        }
    }

    fn forget(&self, _request: &Request, inode: INodeNo, count: u64) {
        self.tree.forget(inode.0, count);
    }

    fn getattr(
        &self,
        request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.tree.attributes(inode.0, request.pid()) {
            Ok(attributes) => reply.attr(&NO_CACHE, &attr(&attributes)),
            Err(error) => reply.error(refuse("getattr", &error)),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.tree.change(inode.0, request.pid(), Change { mode, uid, gid, size }) {
            Ok(attributes) => reply.attr(&NO_CACHE, &attr(&attributes)),
            Err(error) => reply.error(refuse("setattr", &error)),
        }
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        match self.tree.link_target(inode.0) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(refuse("readlink", &error)),
        }
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let access = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => Access { read: true, write: false },
            OpenAccMode::O_WRONLY => Access { read: false, write: true },
            OpenAccMode::O_RDWR => Access { read: true, write: true },
        };
        let opener = Opener::new(request.pid(), request.uid());
        match self.tree.open(inode.0, access, opener) {
            // Not NONSEEKABLE or STREAM: `tail -f -c +1` seeks before it reads.
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(refuse("open", &error)),
        }
    }

    fn write(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.tree.order(handle.0, data) {
            // No longer than MAX_WRITE.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(refuse("write", &error)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.tree.close(handle.0);
        reply.ok();
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.tree.list(inode.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(refuse("readdir", &error)),
        };
        let dots = [".", ".."].map(|name| (inode, FileType::Directory, name));
        let named = entries
            .iter()
            .map(|entry| (INodeNo(entry.inode), file_type(entry.kind), entry.name.as_str()));
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, (inode, kind, name)) in (1..).zip(dots.into_iter().chain(named)).skip(skipped) {
            if reply.add(inode, index, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    // What would make, remove or rename something: fuser's own answer is "no such operation",
    // which users would take for a broken file system.

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(refuse("mknod", &Error::Fixed));
    }

    fn mkdir(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(refuse("mkdir", &Error::Fixed));
    }

    fn unlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(refuse("unlink", &Error::Fixed));
    }

    fn rmdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(refuse("rmdir", &Error::Fixed));
    }

    fn symlink(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(refuse("symlink", &Error::Fixed));
    }

    fn rename(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(refuse("rename", &Error::Fixed));
    }

    fn link(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(refuse("link", &Error::Fixed));
    }

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(refuse("create", &Error::Fixed));
    }
}
