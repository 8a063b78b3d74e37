//! The kernel's answer to a question about an interface, a message of netlink.
//!
//! The files of sysfs are those of the network namespace in which sysfs was mounted. A netlink
//! socket belongs to the namespace in which it was made, so it asks about the right interface in
//! every namespace.
//!
//! Sources: netlink(7), rtnetlink(7), `linux/rtnetlink.h`, `linux/if_link.h`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// `RTM_NEWLINK` and `RTM_GETLINK`: a link, and the request for it; `NLMSG_ERROR`.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const ERROR: u16 = 2;

/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;

/// Bytes of `struct nlmsghdr` and of `struct ifinfomsg`.
const HEADER_LEN: usize = 16;
const LINK_LEN: usize = 16;

/// `NLA_TYPE_MASK`: the bits of a kind of attribute that are no flags.
const KIND: u16 = 0x3fff;

/// Room for an answer: the attributes of a link, those of its driver included, take 2 KiB.
const ANSWER_LEN: usize = 16 << 10;

/// A socket that asks about one interface.
#[derive(Debug)]
pub(super) struct LinkQuestions {
    socket: OwnedFd,
    index: u32,
}

impl LinkQuestions {
    /// For the interface with this index, in the network namespace of this thread.
    ///
    /// # Errors
    /// Errors of socket(2).
    pub(super) fn open(index: u32) -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self::over(socket, index))
    }

    /// The same over a socket that was made in the namespace of the interface.
    pub(super) const fn over(socket: OwnedFd, index: u32) -> Self {
        Self { socket, index }
    }

    /// Asks for the interface, and reads the answer.
    ///
    /// # Errors
    /// ENODEV if there is no such interface, and errors of send(2) and recv(2).
    pub(super) fn ask<T>(&self, read: impl FnOnce(&LinkMessage<'_>) -> T) -> io::Result<T> {
        let request = request(self.index);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER_LEN];
        // The kernel has answered when send returns.
        let len = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        let answer = answer.get(..len).unwrap_or_default();
        if let Some(error) = refusal(answer) {
            return Err(error.into());
        }
        LinkMessage::new(answer)
            .map(|message| read(&message))
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The request for a link.
fn request(index: u32) -> [u8; HEADER_LEN + LINK_LEN] {
    let mut request = [0; HEADER_LEN + LINK_LEN];
    let len = u32::try_from(request.len()).unwrap_or(0);
    let fields: [(usize, &[u8]); 4] = [
        (0, &len.to_ne_bytes()),
        (4, &GET_LINK.to_ne_bytes()),
        (6, &REQUEST.to_ne_bytes()),
        (HEADER_LEN + 4, &index.to_ne_bytes()),
    ];
    for (at, bytes) in fields {
        for (place, byte) in request.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
    }
    request
}

/// The error in an answer that is one.
fn refusal(answer: &[u8]) -> Option<Errno> {
    let is_error = answer.get(4..6)? == ERROR.to_ne_bytes();
    let number = i32::from_ne_bytes(*answer.get(HEADER_LEN..)?.first_chunk()?);
    is_error.then(|| Errno::from_raw(number.saturating_neg()))
}

/// A message about a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkMessage<'a> {
    /// `IFF_` flags of netdevice(7).
    pub(super) flags: u32,
    attributes: &'a [u8],
}

impl<'a> LinkMessage<'a> {
    /// `None` if the message is about something else, or cut off before its attributes.
    pub(super) fn new(message: &'a [u8]) -> Option<Self> {
        if message.get(4..6)? != NEW_LINK.to_ne_bytes() {
            return None;
        }
        let flags = u32::from_ne_bytes(*message.get(HEADER_LEN + 8..)?.first_chunk()?);
        let attributes = message.get(HEADER_LEN + LINK_LEN..)?;
        Some(Self { flags, attributes })
    }

    /// The value of an attribute.
    pub(super) fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        attribute(self.attributes, kind)
    }

    /// The value of an attribute that is a number.
    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        self.attribute(kind)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }
}

/// The value of an attribute among others.
pub(super) fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let [l0, l1, k0, k1] = *attributes.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([k0, k1]) & KIND == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message with these attributes.
    pub(in crate::source) fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; HEADER_LEN + LINK_LEN];
        message[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
        message[HEADER_LEN + 8] = 0x43;
        for (kind, value) in attributes {
            let len = u16::try_from(4 + value.len()).unwrap();
            message.extend([len.to_ne_bytes(), kind.to_ne_bytes()].concat());
            message.extend(*value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        message
    }

    #[test]
    fn attributes_are_found_and_what_is_cut_off_is_not() {
        let message = message(&[(3, b"a"), (0x8000 | 7, &9_u32.to_ne_bytes())]);
        let whole = LinkMessage::new(&message).unwrap();
        assert_eq!(
            (whole.flags, whole.number(7), whole.attribute(3)),
            (0x43, Some(9), Some(&b"a"[..]))
        );
        assert_eq!((whole.number(3), whole.number(8)), (None, None));
        for len in 0..message.len() {
            let cut = LinkMessage::new(&message[..len]);
            assert_eq!(cut.and_then(|cut| cut.number(7)), None, "{len}");
        }
    }

    #[test]
    fn the_kernel_says_which_interface_is_there() {
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        let questions = LinkQuestions::open(loopback).unwrap();
        for _ in 0..3 {
            // IFLA_IFNAME
            let name = questions.ask(|link| link.attribute(3).map(<[u8]>::to_vec)).unwrap();
            assert_eq!(name.as_deref(), Some(&b"lo\0"[..]));
        }
        let missing = LinkQuestions::open(u32::MAX >> 1).unwrap().ask(|_| ());
        assert_eq!(missing.unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
