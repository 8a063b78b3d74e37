//! The messages between the supervisor and the daemon, over a pair of sockets. The daemon inherits
//! its end.
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
//!     │  t, and tap:NAME,...         │
//!     │ ───────────────────────────▶ │  makes the device, if there is none
//!     │  t, and the device           │
//!     │ ◀─────────────────────────── │  closes its copy of the device
//!     │  x, and INTERFACE QUEUES MODE│
//!     │ ───────────────────────────▶ │  attaches an XDP program
//!     │  x, its mode, and the link   │
//!     │  x, and the map of sockets   │
//!     │ ◀─────────────────────────── │  closes its copies of both
//!     │  n, and INTERFACE NAMESPACE  │
//!     │ ───────────────────────────▶ │  opens sockets in a network namespace
//!     │  n, what it is, and a packet │
//!     │  socket                      │
//!     │  n, and a netlink socket     │
//!     │ ◀─────────────────────────── │  closes its copies of both
//! ```
//!
//! Instead of a descriptor, the answer may be `e` and a text with the reason. If a namespace is
//! missing, it is `s` and a text that says which there are; if the interface is, `i`.
//!
//! The daemon is not trusted: a message that makes no sense at its time is ignored, and only the
//! description of a tap device and the requests for a program and for sockets have parts that the
//! supervisor interprets.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use mount_helper::netns::{NetnsRefusal, NetnsRequest, NetnsSockets};
use mount_helper::tap::TapDescription;
use mount_helper::xdp::XdpRequest;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use xdp_attach::Attachment;

/// Maximum bytes of a message: more than a description of a tap device has, or the path of a
/// namespace.
const MESSAGE_MAX: usize = 320;

/// A message from the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DaemonMessage {
    /// It asks for the tree to be mounted, and for the device.
    Mount,
    /// The tree answers.
    Ready,
    /// It asks for the tree to be taken out of the file system.
    Unmount,
    /// It asks for a new tap or tun device of this description.
    Tap(TapDescription),
    /// It asks for an XDP program on an interface.
    Xdp(XdpRequest),
    /// It asks for sockets in a network namespace.
    Netns(NetnsRequest),
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
        let mut bytes = [0; MESSAGE_MAX];
        // With this flag, the length is that of the message before it was truncated.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        match recv(self.socket.as_raw_fd(), &mut bytes, flags) {
            Ok(0) => None,
            Ok(len) => Some(match bytes.get(..len).unwrap_or_default() {
                [b'm'] => Some(DaemonMessage::Mount),
                [b'r'] => Some(DaemonMessage::Ready),
                [b'u'] => Some(DaemonMessage::Unmount),
                [b't', description @ ..] => std::str::from_utf8(description)
                    .ok()
                    .and_then(|text| TapDescription::parse(text).ok())
                    .map(DaemonMessage::Tap),
                [b'x', request @ ..] => std::str::from_utf8(request)
                    .ok()
                    .and_then(XdpRequest::parse)
                    .map(DaemonMessage::Xdp),
                [b'n', request @ ..] => std::str::from_utf8(request)
                    .ok()
                    .and_then(NetnsRequest::parse)
                    .map(DaemonMessage::Netns),
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
        self.answer(b"m", &[device.as_raw_fd()])
    }

    /// Sends a tap device, or says why there is none. This process keeps no copy of it.
    ///
    /// # Errors
    /// If the daemon is gone; the device is closed then.
    pub(crate) fn send_tap(&self, made: Result<OwnedFd, String>) -> io::Result<()> {
        match made {
            Ok(device) => self.answer(b"t", &[device.as_raw_fd()]),
            Err(why) => self.answer(format!("e{why}").as_bytes(), &[]),
        }
    }

    /// Sends the descriptors of an XDP program, or the reason for a refusal. This process keeps no
    /// copy of them, so the program goes with the daemon.
    ///
    /// # Errors
    /// If the daemon is gone; the descriptors are closed then.
    pub(crate) fn send_xdp(&self, attached: Result<Attachment, String>) -> io::Result<()> {
        match attached {
            Ok(Attachment { link, sockets, mode }) => {
                self.answer(format!("x{}", mode.word()).as_bytes(), &[link.as_raw_fd()])?;
                self.answer(b"x", &[sockets.as_raw_fd()])
            }
            Err(why) => self.answer(format!("e{why}").as_bytes(), &[]),
        }
    }

    /// Sends sockets of a network namespace, or the reason for a refusal. This process keeps no copy
    /// of them.
    ///
    /// # Errors
    /// If the daemon is gone; the sockets are closed then.
    pub(crate) fn send_netns(&self, opened: Result<NetnsSockets, NetnsRefusal>) -> io::Result<()> {
        let refusal = match opened {
            Ok(NetnsSockets { packet, route, description }) => {
                self.answer(format!("n{description}").as_bytes(), &[packet.as_raw_fd()])?;
                return self.answer(b"n", &[route.as_raw_fd()]);
            }
            Err(NetnsRefusal::NoNamespace(have)) => format!("s{have}"),
            Err(NetnsRefusal::NoInterface(have)) => format!("i{have}"),
            Err(NetnsRefusal::Refused(why)) => format!("e{why}"),
        };
        self.answer(refusal.as_bytes(), &[])
    }

    fn answer(&self, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, flags, None)?;
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
        let tun = TapDescription::parse("tun:t0,mtu=1400").unwrap();
        let say = |bytes: &[u8]| send(daemon.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
        for (bytes, message) in [
            (&b"m"[..], Some(DaemonMessage::Mount)),
            (b"r", Some(DaemonMessage::Ready)),
            (b"u", Some(DaemonMessage::Unmount)),
            (b"x", None),
            (b"much more than one byte", None),
            (b"ttun:t0,mtu=1400", Some(DaemonMessage::Tap(tun))),
            (b"xeth1 4 auto", XdpRequest::parse("eth1 4 auto").map(DaemonMessage::Xdp)),
            (b"xeth1 4", None),
            (b"neth0 blue", NetnsRequest::parse("eth0 blue").map(DaemonMessage::Netns)),
            (b"neth0 a/b", None),
            (b"ttun:t%d", None),
            (b"t\xff", None),
            (&[b't'; 1000], None),
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
