//! A tree that mount.pcapfs mounts, which may do that, for a daemon that may not.
//!
//! The daemon is started with one end of a pair of sockets. When its captures run it asks for the
//! tree to be mounted, and gets the device; it says when the tree answers; and at its end it asks
//! for the tree to be taken away. Messages have one byte, so that there is nothing to interpret.
//! mount-helper/src/handoff.rs is the other end.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{MsgFlags, send};

use super::mount::{MountError, own, receive_descriptor};

/// This end of the pair.
#[derive(Clone, Debug)]
pub(crate) struct Handoff {
    socket: Arc<OwnedFd>,
}

impl Handoff {
    /// Takes over the socket this process was started with.
    ///
    /// # Errors
    /// When there is no such descriptor.
    pub(crate) fn inherited(descriptor: RawFd) -> Result<Self, MountError> {
        let socket = own(descriptor);
        match fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            Ok(_) => Ok(Self { socket: Arc::new(socket) }),
            Err(errno) => {
                // Not ours to close, since it is not open.
                std::mem::forget(socket);
                Err(MountError::Serve(errno.into()))
            }
        }
    }

    /// Has the tree mounted, and returns the device to serve.
    pub(super) fn mount(&self) -> Result<OwnedFd, MountError> {
        self.say(b"m").map_err(|errno| MountError::Serve(errno.into()))?;
        receive_descriptor(&self.socket).ok_or(MountError::HelperRefused)
    }

    /// Says that the tree answers.
    pub(crate) fn ready(&self) {
        // Without a helper nobody waits for it, and the tree answers all the same.
        let _ = self.say(b"r");
    }

    /// Has the tree taken out of the file system. Without a helper it stays there, dead, until
    /// somebody unmounts it.
    pub(super) fn unmount(&self) {
        let _ = self.say(b"u");
    }

    fn say(&self, message: &[u8]) -> nix::Result<()> {
        loop {
            match send(self.socket.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                result => return result.map(|_| ()),
            }
        }
    }
}
