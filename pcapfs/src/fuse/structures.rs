//! The structures of the FUSE protocol that the front end reads and writes.
//!
//! Source: `include/uapi/linux/fuse.h` of Linux, protocol 7.38. A structure has had its layout
//! since protocol 7.12, or since it was introduced; what later versions put into its padding is not
//! used. All fields are in this machine's byte order. Fields that pcapfs neither reads nor sets
//! begin with an underscore.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `enum fuse_opcode`
pub(super) mod opcode {
    pub(in crate::fuse) const LOOKUP: u32 = 1;
    pub(in crate::fuse) const FORGET: u32 = 2;
    pub(in crate::fuse) const GETATTR: u32 = 3;
    pub(in crate::fuse) const OPEN: u32 = 14;
    pub(in crate::fuse) const READ: u32 = 15;
    pub(in crate::fuse) const WRITE: u32 = 16;
    pub(in crate::fuse) const STATFS: u32 = 17;
    pub(in crate::fuse) const RELEASE: u32 = 18;
    pub(in crate::fuse) const OPENDIR: u32 = 27;
    pub(in crate::fuse) const READDIR: u32 = 28;
    pub(in crate::fuse) const RELEASEDIR: u32 = 29;
    pub(in crate::fuse) const INTERRUPT: u32 = 36;
    pub(in crate::fuse) const POLL: u32 = 40;
    pub(in crate::fuse) const BATCH_FORGET: u32 = 42;
    pub(in crate::fuse) const READDIRPLUS: u32 = 44;
    pub(in crate::fuse) const LSEEK: u32 = 46;
}

/// `FUSE_NOTIFY_POLL` of `enum fuse_notify_code`.
pub(super) const NOTIFY_POLL: i32 = 1;

/// `FUSE_GETATTR_FH`: the request has a handle.
pub(super) const GETATTR_FH: u32 = 1;

/// `FUSE_POLL_SCHEDULE_NOTIFY`: a program waits for a notification.
pub(super) const POLL_SCHEDULE_NOTIFY: u32 = 1;

/// `FOPEN_DIRECT_IO`: reads bypass the page cache.
pub(super) const FOPEN_DIRECT_IO: u32 = 1;

/// `FOPEN_NONSEEKABLE`: lseek(2) and sendfile(2) fail.
pub(super) const FOPEN_NONSEEKABLE: u32 = 1 << 2;

/// Declares structures with the layout of C. They have no gaps: the compiler checks that.
macro_rules! structures {
    ($($(#[$about:meta])* struct $name:ident { $($(#[$note:meta])* $field:ident: $kind:ty,)+ })+) => {
        $(
            $(#[$about])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            pub(super) struct $name {
                $($(#[$note])* pub(super) $field: $kind,)+
            }
        )+
    };
}

structures! {
    /// `struct fuse_in_header`, the beginning of every request.
    struct InHeader {
        len: u32,
        opcode: u32,
        /// The number of the request.
        unique: u64,
        inode: u64,
        uid: u32,
        gid: u32,
        /// The thread that asks.
        thread: u32,
        _padding: u32,
    }

    /// `struct fuse_getattr_in`
    struct GetattrIn {
        /// [`GETATTR_FH`]
        flags: u32,
        _padding: u32,
        handle: u64,
    }

    /// `struct fuse_open_in`
    struct OpenIn {
        /// See open(2).
        flags: u32,
        _open_flags: u32,
    }

    /// `struct fuse_release_in`
    struct ReleaseIn {
        handle: u64,
        _flags: u32,
        _release_flags: u32,
        _lock_owner: u64,
    }

    /// `struct fuse_read_in`
    struct ReadIn {
        handle: u64,
        /// Bytes; in a directory, the cookie of the last name that was listed.
        offset: u64,
        /// Maximum number of bytes of the reply.
        size: u32,
        _read_flags: u32,
        _lock_owner: u64,
        /// The opener's current file flags, such as `O_NONBLOCK`.
        flags: u32,
        _padding: u32,
    }

    /// `struct fuse_write_in`; the bytes follow.
    struct WriteIn {
        handle: u64,
        offset: u64,
        /// Number of bytes.
        size: u32,
        _write_flags: u32,
        _lock_owner: u64,
        /// The opener's current file flags, such as `O_NONBLOCK`.
        flags: u32,
        _padding: u32,
    }

    /// A reply to `FUSE_WRITE`: `struct fuse_write_out`.
    struct WriteOut {
        /// Number of bytes taken.
        size: u32,
        padding: u32,
    }

    /// `struct fuse_lseek_in`
    struct LseekIn {
        handle: u64,
        offset: u64,
        /// See lseek(2).
        whence: i32,
        _padding: u32,
    }

    /// `struct fuse_poll_in`
    struct PollIn {
        handle: u64,
        /// The handle to name in a notification.
        kernel_handle: u64,
        /// [`POLL_SCHEDULE_NOTIFY`]
        flags: u32,
        _events: u32,
    }

    /// `struct fuse_batch_forget_in`; as many [`ForgetOne`] follow.
    struct BatchForgetIn {
        _count: u32,
        _padding: u32,
    }

    /// `struct fuse_forget_one`
    struct ForgetOne {
        inode: u64,
        /// The number of lookups to forget.
        lookups: u64,
    }

    /// `struct fuse_out_header`, the beginning of every reply and notification.
    struct OutHeader {
        /// Bytes of the whole message.
        len: u32,
        /// 0, a negative errno or the code of a notification.
        error: i32,
        /// The number of the request, or 0 in a notification.
        unique: u64,
    }

    /// `struct fuse_attr`
    struct Attr {
        inode: u64,
        size: u64,
        /// In units of 512 bytes.
        blocks: u64,
        /// Seconds of the times of access, modification and change.
        seconds: [u64; 3],
        /// Their nanoseconds.
        nanoseconds: [u32; 3],
        mode: u32,
        links: u32,
        uid: u32,
        gid: u32,
        device: u32,
        block_size: u32,
        flags: u32,
    }

    /// `struct fuse_entry_out`
    struct EntryOut {
        inode: u64,
        generation: u64,
        /// Seconds for which the name and the attributes are valid.
        valid_seconds: [u64; 2],
        /// Their nanoseconds.
        valid_nanoseconds: [u32; 2],
        attributes: Attr,
    }

    /// `struct fuse_attr_out`
    struct AttrOut {
        valid_seconds: u64,
        valid_nanoseconds: u32,
        padding: u32,
        attributes: Attr,
    }

    /// `struct fuse_open_out`
    struct OpenOut {
        handle: u64,
        /// [`FOPEN_DIRECT_IO`], [`FOPEN_NONSEEKABLE`]
        flags: u32,
        padding: u32,
    }

    /// `struct fuse_kstatfs`
    struct Kstatfs {
        /// Blocks, free blocks, blocks that users may take, inodes, free inodes.
        counts: [u64; 5],
        /// Bytes of a block.
        block_size: u32,
        /// Maximum number of bytes of a name.
        name_len: u32,
        /// Bytes of a fragment.
        fragment_size: u32,
        padding: [u32; 7],
    }

    /// `struct fuse_dirent`; the name follows, padded to a multiple of eight bytes.
    struct Dirent {
        inode: u64,
        /// The offset of the listing after this name.
        cookie: u64,
        name_len: u32,
        /// `DT_*` of readdir(3).
        kind: u32,
    }

    /// A reply to `FUSE_POLL`: the header and `struct fuse_poll_out`.
    struct PollReply {
        header: OutHeader,
        events: u32,
        padding: u32,
    }

    /// A notification: the header and `struct fuse_notify_poll_wakeup_out`.
    struct PollWakeup {
        header: OutHeader,
        kernel_handle: u64,
    }
}
