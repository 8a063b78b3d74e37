//! The adapter between fuser and the tree: trace, call, reply. READ, POLL and INTERRUPT never come
//! here, see [`super::front`], nor do the steps of a walk, see [`super::walk`].

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;

use crate::fs::error::TreeError;
use crate::fs::{Asker, AttributeChange, Attributes, InodeKind, Tree};

/// Maximum number of bytes of a write, and of one read of the kernel, which derives the number of
/// pages of a request from this.
pub(super) const MAX_WRITE: u32 = 1 << 20;

/// How long the kernel may cache these answers: not at all. Sizes and times change with every
/// packet, names with the packets that the ring retains.
const NO_CACHE: Duration = Duration::ZERO;

/// Added to the time for which the kernel may cache. A reply that was made before a change may
/// reach the kernel after it, and the kernel counts the time in ticks of up to 10 ms.
pub(super) const MARGIN: Duration = Duration::from_millis(50);

/// The tree as a file system of fuser.
#[derive(Debug)]
pub(super) struct Adapter {
    pub(super) tree: Arc<Tree>,
}

fn fuser_errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno as i32)
}

fn refuse(operation: &str, error: &TreeError) -> fuser::Errno {
    log::debug!("{operation}: {error}");
    fuser_errno(error.errno())
}

const fn file_type(kind: InodeKind) -> FileType {
    match kind {
        InodeKind::Directory => FileType::Directory,
        InodeKind::File => FileType::RegularFile,
        InodeKind::Link => FileType::Symlink,
    }
}

fn attr(attributes: &Attributes) -> FileAttr {
    let modified = attributes.modified.to_system_time();
    FileAttr {
        ino: INodeNo(attributes.inode),
        size: attributes.size,
        blocks: attributes.present.div_ceil(512),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: file_type(attributes.kind),
        // The mode has nine bits.
        perm: u16::try_from(attributes.mode & 0o777).unwrap_or(0),
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn asker(request: &Request) -> Asker {
    Asker { thread: request.pid(), uid: request.uid(), gid: request.gid() }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |_| io::Error::from(io::ErrorKind::Unsupported);
        config.set_max_write(MAX_WRITE).map_err(refused)?;
        // Lists and lookups are answered at once, so the kernel may send many while others wait.
        let _ = config.set_max_background(64);
        // A kernel without it sends the operations on each directory one after the other, which is
        // slower.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        // If a walk goes deeper, names come with their attributes.
        let ahead = InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO;
        let _ = config.add_capabilities(ahead);
        // Files that bypass the page cache can then be mapped shared as well, which is the usual
        // way of mapping. Linux before 6.6 maps them only privately.
        let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        Ok(())
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
        match self.tree.change(inode.0, asker(request), AttributeChange { mode, uid, gid, size }) {
            Ok(attributes) if mode.is_none() && uid.is_none() && gid.is_none() => {
                reply.attr(&NO_CACHE, &attr(&attributes));
            }
            // Other files of the capture have these permissions too, and the kernel may still have
            // the old ones cached. The call returns when the new ones are in force everywhere.
            Ok(attributes) => {
                // Without a thread the reply is dropped, which gives the caller an error.
                let tree = Arc::clone(&self.tree);
                let _ = thread::Builder::new().name("change".to_owned()).spawn(move || {
                    tree.keep_permissions(inode.0);
                    thread::sleep(tree.cached_for() + MARGIN);
                    reply.attr(&NO_CACHE, &attr(&attributes));
                });
            }
            Err(error) => reply.error(refuse("setattr", &error)),
        }
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        match self.tree.link_target(inode.0) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(refuse("readlink", &error)),
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
        match self.tree.write(handle.0, data) {
            // The length is at most MAX_WRITE.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(refuse("write", &error)),
        }
    }

    // Operations that would make, remove or rename a file: fuser's own answer is "no such
    // operation", and users would take the file system for broken.

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
        reply.error(refuse("mknod", &TreeError::Fixed));
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
        reply.error(refuse("mkdir", &TreeError::Fixed));
    }

    fn unlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(refuse("unlink", &TreeError::Fixed));
    }

    fn rmdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(refuse("rmdir", &TreeError::Fixed));
    }

    fn symlink(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(refuse("symlink", &TreeError::Fixed));
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
        reply.error(refuse("rename", &TreeError::Fixed));
    }

    fn link(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(refuse("link", &TreeError::Fixed));
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
        reply.error(refuse("create", &TreeError::Fixed));
    }
}
