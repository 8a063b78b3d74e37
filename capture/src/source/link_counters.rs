//! The kernel's own counters of an interface, over a netlink socket.
//!
//! The files of sysfs are those of the network namespace in which sysfs was mounted. A netlink
//! socket belongs to the namespace in which it was made, so it counts the right interface in every
//! namespace.
//!
//! Sources: rtnetlink(7), `linux/rtnetlink.h`, `struct rtnl_link_stats64` of `linux/if_link.h`.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// `RTM_NEWLINK` and `RTM_GETLINK`: a link, and the request for it.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;

/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;

/// Bytes of `struct nlmsghdr` and of `struct ifinfomsg`.
const HEADER_LEN: usize = 16;
const LINK_LEN: usize = 16;

/// `IFLA_STATS64`
const STATISTICS: u16 = 23;

/// The places of `tx_dropped`, `rx_fifo_errors` and `rx_missed_errors` among the numbers of the
/// statistics.
const NOT_SENT: usize = 7;
const FIFO_ERRORS: usize = 14;
const MISSED_ERRORS: usize = 15;

/// Room for an answer: the attributes of a link, those of its driver included, take 2 KiB.
const ANSWER_LEN: usize = 16 << 10;

/// The counters of one interface.
#[derive(Debug)]
pub(super) struct LinkCounters {
    socket: OwnedFd,
    index: u32,
}

impl LinkCounters {
    /// The counters of the interface with this index, in the network namespace of this thread.
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
        Ok(Self { socket, index })
    }

    /// Packets that the interface and its driver dropped before the kernel saw them, since the
    /// interface was created; `None` if the kernel does not say.
    pub(super) fn drops(&self) -> Option<u64> {
        let answer = self.answer()?;
        counter(&answer, FIFO_ERRORS)?.checked_add(counter(&answer, MISSED_ERRORS)?)
    }

    /// Packets that the system could not send over the interface, since the interface was created;
    /// `None` if the kernel does not say.
    pub(super) fn not_sent(&self) -> Option<u64> {
        counter(&self.answer()?, NOT_SENT)
    }

    fn answer(&self) -> Option<Vec<u8>> {
        let request = request(self.index);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty()).ok()?;
        let mut answer = vec![0; ANSWER_LEN];
        // The kernel has answered when send returns.
        let len = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).ok()?;
        answer.truncate(len);
        Some(answer)
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

/// The number at this place among those of the statistics in an answer.
fn counter(answer: &[u8], place: usize) -> Option<u64> {
    if answer.get(4..6)? != NEW_LINK.to_ne_bytes() {
        return None;
    }
    let mut attributes = answer.get(HEADER_LEN + LINK_LEN..)?;
    loop {
        let [l0, l1, k0, k1] = *attributes.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([k0, k1]) == STATISTICS {
            let counters = value.as_chunks::<8>().0;
            return counters.get(place).map(|bytes| u64::from_ne_bytes(*bytes));
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_the_drops_of_an_interface() {
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        let counters = LinkCounters::open(loopback).unwrap();
        for _ in 0..3 {
            assert_eq!(counters.drops(), Some(0), "nothing is ever dropped there");
            assert_eq!(counters.not_sent(), Some(0));
        }
        assert_eq!(LinkCounters::open(u32::MAX >> 1).unwrap().drops(), None);
    }

    #[test]
    fn an_answer_that_is_cut_off_has_no_counters() {
        let mut statistics = [0; 25 * 8];
        statistics[FIFO_ERRORS * 8] = 3;
        statistics[MISSED_ERRORS * 8] = 4;
        statistics[NOT_SENT * 8] = 5;
        let mut answer = vec![0; HEADER_LEN + LINK_LEN];
        answer[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
        answer.extend([5_u16.to_ne_bytes(), 3_u16.to_ne_bytes()].concat());
        answer.extend(*b"a\0\0\0");
        let len = u16::try_from(4 + statistics.len()).unwrap();
        answer.extend([len.to_ne_bytes(), STATISTICS.to_ne_bytes()].concat());
        answer.extend(statistics);
        let found = [FIFO_ERRORS, MISSED_ERRORS, NOT_SENT].map(|place| counter(&answer, place));
        assert_eq!(found, [Some(3), Some(4), Some(5)]);
        assert_eq!(counter(&answer, 25), None, "of a newer kernel");
        for len in 0..answer.len() {
            assert_eq!(counter(&answer[..len], FIFO_ERRORS), None, "{len}");
        }
    }
}
