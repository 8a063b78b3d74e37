//! Asks mount.pcapfs to mount the tree, for a daemon that may not mount.
//!
//! The daemon is started with one end of a pair of sockets. When its captures run, it asks for the
//! tree to be mounted, and gets the device. It reports when the tree answers, and before it ends,
//! it asks for the tree to be unmounted. In between it asks for tap devices, which it may not make, for
//! XDP programs, which it may not attach, and for sockets in network namespaces, which it may not
//! enter.
//! mount-helper/src/handoff.rs is the other end.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use mount_helper::netns::{NetnsDescription, NetnsRefusal, NetnsRequest, NetnsSockets};
use mount_helper::tap::TapDescription;
use mount_helper::xdp::XdpRequest;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{MsgFlags, send};
use parking_lot::Mutex;
use xdp_attach::{Attachment, XdpMode};

use super::mount::{MountError, own, receive_answer, receive_descriptor};

/// This end of the pair.
#[derive(Clone, Debug)]
pub(crate) struct DeviceHandoff {
    socket: Arc<OwnedFd>,
    /// Held from a request to its answer: several captures may be made at the same time.
    asking: Arc<Mutex<()>>,
}

impl DeviceHandoff {
    /// Takes over the socket this process was started with.
    ///
    /// # Errors
    /// If there is no such descriptor.
    pub(crate) fn inherited(descriptor: RawFd) -> Result<Self, MountError> {
        let socket = own(descriptor);
        match fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            Ok(_) => Ok(Self { socket: Arc::new(socket), asking: Arc::default() }),
            Err(errno) => {
                // It is not open, so it must not be closed.
                std::mem::forget(socket);
                Err(MountError::Serve(errno.into()))
            }
        }
    }

    /// Asks for the tree to be mounted, and returns the device to serve.
    pub(super) fn mount(&self) -> Result<OwnedFd, MountError> {
        let _asking = self.asking.lock();
        self.say(b"m").map_err(|errno| MountError::Serve(errno.into()))?;
        receive_descriptor(&self.socket).ok_or(MountError::HelperRefused)
    }

    /// Asks for a new tap or tun device, whose group is written as a number.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(crate) fn make_tap(&self, wanted: &TapDescription) -> Result<OwnedFd, String> {
        const GONE: &str = "mount.pcapfs, which makes devices for this daemon, is gone";
        let _asking = self.asking.lock();
        self.say(format!("t{wanted}").as_bytes()).map_err(|_| GONE.to_owned())?;
        match receive_answer(&self.socket) {
            (_, Some(device)) => Ok(device),
            (text, None) => Err(text.strip_prefix('e').unwrap_or(GONE).to_owned()),
        }
    }

    /// Asks for an XDP program on an interface, which exists for as long as the descriptor of its
    /// link.
    ///
    /// # Errors
    /// The reason of the helper, for people.
    pub(crate) fn attach_xdp(&self, wanted: &XdpRequest) -> Result<Attachment, String> {
        const GONE: &str = "mount.pcapfs, which attaches XDP programs for this daemon, is gone";
        let _asking = self.asking.lock();
        self.say(format!("x{wanted}").as_bytes()).map_err(|_| GONE.to_owned())?;
        let (text, link) = receive_answer(&self.socket);
        let Some(link) = link else {
            return Err(text.strip_prefix('e').unwrap_or(GONE).to_owned());
        };
        let mode = text.strip_prefix('x').and_then(XdpMode::parse);
        let (_, sockets) = receive_answer(&self.socket);
        match (sockets, mode) {
            (Some(sockets), Some(mode)) => Ok(Attachment { link, sockets, mode }),
            _ => Err(GONE.to_owned()),
        }
    }

    /// Asks for sockets of an interface, or of all, in a network namespace.
    ///
    /// # Errors
    /// The reason of the helper, for people.
    pub(crate) fn open_netns(
        &self,
        namespace: &str,
        interface: &str,
    ) -> Result<NetnsSockets, NetnsRefusal> {
        let gone = || {
            NetnsRefusal::Refused(
                "mount.pcapfs, which opens sockets for this daemon, is gone".to_owned(),
            )
        };
        // The helper ignores other requests, and this process would wait for ever.
        let request = NetnsRequest::parse(&format!("{interface} {namespace}"));
        let request = request.ok_or_else(|| {
            NetnsRefusal::Refused(
                "mount.pcapfs knows no such namespace or interface: a path has at most 256 bytes, \
                 and no blanks"
                    .to_owned(),
            )
        })?;
        let _asking = self.asking.lock();
        self.say(format!("n{request}").as_bytes()).map_err(|_| gone())?;
        let (text, packet) = receive_answer(&self.socket);
        let (kind, rest) = text.split_at_checked(1).ok_or_else(gone)?;
        let Some(packet) = packet else {
            return Err(match kind {
                "s" => NetnsRefusal::NoNamespace(rest.to_owned()),
                "i" => NetnsRefusal::NoInterface(rest.to_owned()),
                _ => NetnsRefusal::Refused(rest.to_owned()),
            });
        };
        let (_, route) = receive_answer(&self.socket);
        match (route, NetnsDescription::parse(rest)) {
            (Some(route), Some(description)) => Ok(NetnsSockets { packet, route, description }),
            _ => Err(gone()),
        }
    }

    /// Reports that the tree answers.
    pub(crate) fn ready(&self) {
        // If the helper is gone, nothing waits for this, and the tree answers all the same.
        let _ = self.say(b"r");
    }

    /// Asks for the tree to be taken out of the file system. If the helper is gone, a dead tree
    /// stays until it is unmounted by hand.
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
