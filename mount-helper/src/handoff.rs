//! The messages between the supervisor and the daemon: one byte each, over a pair of sockets. The
//! daemon inherits its end.
//!
//! ```text
//!   daemon                      supervisor
//!     │  m: captures run, mount me   │
//!     │ ───────────────────────────▶ │  opens /dev/fuse, mounts
//!     │  m, and the device           │
//!     │ ◀─────────────────────────── │  closes its copy of the device
//!     │  r: the tree answers         │
//!     │ ───────────────────────────▶ │  reports to the first process
//!     │  u: take the tree out        │
//!     │ ───────────────────────────▶ │  unmounts
//! ```
//!
//! The daemon is not trusted: a message that makes no sense at its time is ignored, and no message
//! has a part that the supervisor would have to interpret.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};

/// A message from the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DaemonMessage {
    /// It asks for the tree to be mounted, and for the device.
    Mount,
    /// The tree answers.
    Ready,
    /// It asks for the tree to be taken out of the file system.
    Unmount,
}

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Handoff {
    socket: OwnedFd,
}

impl Handoff {
    /// A new pair: this end, and the one for the daemon.
    ///
    /// # Errors
    /// Errors of socketpair(2).
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self { socket }, theirs))
    }

    /// The descriptor to wait for messages on.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next message, if it is a valid one; `None` when the daemon has closed its end.
    pub(crate) fn receive(&self) -> Option<Option<DaemonMessage>> {
        // A longer message is truncated, and the kernel closes any descriptor that comes with it.
        let mut byte = [0; 1];
        match recv(self.socket.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => None,
            Ok(_) => Some(match byte {
                [b'm'] => Some(DaemonMessage::Mount),
                [b'r'] => Some(DaemonMessage::Ready),
                [b'u'] => Some(DaemonMessage::Unmount),
                _ => None,
            }),
            Err(Errno::EAGAIN | Errno::EINTR) => Some(None),
            Err(_) => None,
        }
    }

    /// Sends the device; this process keeps no copy of it.
    ///
    /// # Errors
    /// If the daemon is gone; the device is closed then.
    pub(crate) fn send(&self, device: OwnedFd) -> io::Result<()> {
        let descriptors = [device.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&descriptors)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(b"m")], &message, flags, None)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::send;

    use super::*;

    #[test]
    fn messages_are_understood_or_ignored() {
        let (handoff, daemon) = Handoff::pair().unwrap();
        assert_eq!(handoff.receive(), Some(None), "nothing was said yet");
        let say = |bytes: &[u8]| send(daemon.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
        for (bytes, message) in [
            (&b"m"[..], Some(DaemonMessage::Mount)),
            (b"r", Some(DaemonMessage::Ready)),
            (b"u", Some(DaemonMessage::Unmount)),
            (b"x", None),
            (b"much more than one byte", Some(DaemonMessage::Mount)),
        ] {
            say(bytes);
            assert_eq!(handoff.receive(), Some(message));
        }
        drop(daemon);
        assert_eq!(handoff.receive(), None);
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        assert!(handoff.send(reader).is_err());
    }
}
