//! The interface of a capture: what it is, and news of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use crate::source::link_counters::drops;
use crate::source::link_message::{LinkMessage, LinkQuestions, attribute};

/// Attributes of a link: `IFLA_MTU`, `IFLA_MASTER`, `IFLA_NUM_RX_QUEUES`, `IFLA_XDP`, and in the last
/// one `IFLA_XDP_ATTACHED`.
const MTU: u16 = 4;
const MASTER: u16 = 10;
const RECEIVE_QUEUES: u16 = 32;
const XDP: u16 = 43;
const ATTACHED: u16 = 2;

/// `RTMGRP_LINK`: the messages about links.
const LINKS: u32 = 1;

/// An interface as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    pub(super) is_up: bool,
    /// Number of the bridge or the like that it is part of.
    pub(super) master: Option<u32>,
    /// Maximum length of a packet in bytes, without the header of the link.
    pub(super) mtu: u32,
    /// Maximum number of receive queues; the interface may use fewer.
    pub(super) receive_queues: u32,
    /// It has an XDP program.
    pub(super) has_program: bool,
    /// Packets that it dropped before the kernel saw them, since it was created.
    pub(super) drops: u64,
}

impl LinkState {
    fn of(link: &LinkMessage<'_>) -> Self {
        let attached = link.attribute(XDP).and_then(|xdp| attribute(xdp, ATTACHED));
        Self {
            is_up: link.flags & libc::IFF_UP.unsigned_abs() != 0,
            master: link.number(MASTER),
            mtu: link.number(MTU).unwrap_or(0),
            receive_queues: link.number(RECEIVE_QUEUES).unwrap_or(1),
            has_program: attached.and_then(<[u8]>::first).is_some_and(|how| *how != 0),
            drops: drops(link).unwrap_or(0),
        }
    }
}

/// Asks for the state of an interface, and learns when to ask again.
#[derive(Debug)]
pub(super) struct LinkWatch {
    questions: LinkQuestions,
    /// Receives the messages about all links of the namespace.
    news: OwnedFd,
}

impl LinkWatch {
    /// For the interface with this number, in the network namespace of this thread.
    ///
    /// # Errors
    /// Errors of socket(2) and bind(2).
    pub(super) fn open(interface: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let kind = (AddressFamily::Netlink, SockType::Raw, SockProtocol::NetlinkRoute);
        let news = socket(kind.0, kind.1, flags, kind.2)?;
        bind(news.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
        Ok(Self { questions: LinkQuestions::open(interface)?, news })
    }

    /// The state of the interface at present.
    ///
    /// # Errors
    /// ENODEV if it has vanished.
    pub(super) fn state(&self) -> io::Result<LinkState> {
        self.questions.ask(LinkState::of)
    }

    /// Readable when the state of an interface may have changed.
    pub(super) fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Returns true if a state may have changed since the last call.
    pub(super) fn has_news(&self) -> bool {
        let mut is_new = false;
        // The messages need not be whole, since the state is asked for afterwards. The error of a
        // queue that was full is news too, and comes once.
        let mut byte = [0; 1];
        loop {
            match recv(self.news.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT) {
                Err(nix::errno::Errno::EAGAIN) => return is_new,
                Ok(_) | Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => is_new = true,
                Err(_) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::link_message::tests::message;
    use super::*;

    #[test]
    fn the_state_of_a_link_is_read_from_its_message() {
        let attached = [5, 0, 2, 0, 1, 0, 0, 0];
        let number = 7_u32.to_ne_bytes();
        let bytes = message(&[(MTU, &1500_u32.to_ne_bytes()), (MASTER, &number), (XDP, &attached)]);
        let state = LinkState::of(&LinkMessage::new(&bytes).unwrap());
        let expected = LinkState {
            is_up: true,
            master: Some(7),
            mtu: 1500,
            receive_queues: 1,
            has_program: true,
            drops: 0,
        };
        assert_eq!(state, expected);
        let bytes = message(&[(XDP, &[5, 0, 2, 0, 0, 0, 0, 0])]);
        let state = LinkState::of(&LinkMessage::new(&bytes).unwrap());
        assert_eq!((state.has_program, state.master), (false, None));
    }

    #[test]
    fn the_loopback_interface_is_up_and_has_no_program() {
        let number = nix::net::if_::if_nametoindex("lo").unwrap();
        let state = LinkWatch::open(number).unwrap().state().unwrap();
        assert!(state.is_up && state.mtu >= 1500 && state.receive_queues >= 1, "{state:?}");
    }
}
