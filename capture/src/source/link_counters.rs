//! The kernel's own counters of an interface, over a netlink socket.
//!
//! Source: `struct rtnl_link_stats64` of `linux/if_link.h`.

use std::os::fd::OwnedFd;

use super::link_message::{LinkMessage, LinkQuestions};

/// `IFLA_STATS64`
const STATISTICS: u16 = 23;

/// The places of `tx_dropped`, `rx_fifo_errors` and `rx_missed_errors` among the numbers of the
/// statistics.
const NOT_SENT: usize = 7;
const FIFO_ERRORS: usize = 14;
const MISSED_ERRORS: usize = 15;

/// The counters of one interface.
#[derive(Debug)]
pub(super) struct LinkCounters {
    questions: LinkQuestions,
}

impl LinkCounters {
    /// The counters of the interface with this index, in the network namespace of this thread.
    ///
    /// # Errors
    /// Errors of socket(2).
    pub(super) fn open(index: u32) -> nix::Result<Self> {
        Ok(Self { questions: LinkQuestions::open(index)? })
    }

    /// The same over a socket that was made in the namespace of the interface.
    pub(super) const fn over(socket: OwnedFd, index: u32) -> Self {
        Self { questions: LinkQuestions::over(socket, index) }
    }

    /// Packets that the interface and its driver dropped before the kernel saw them, since the
    /// interface was created; `None` if the kernel does not say.
    pub(super) fn drops(&self) -> Option<u64> {
        self.questions.ask(drops).ok()?
    }

    /// Packets that the system could not send over the interface, since the interface was created;
    /// `None` if the kernel does not say.
    pub(super) fn not_sent(&self) -> Option<u64> {
        self.questions.ask(|link| counter(link, NOT_SENT)).ok()?
    }
}

/// The drops in a message.
pub(super) fn drops(link: &LinkMessage<'_>) -> Option<u64> {
    counter(link, FIFO_ERRORS)?.checked_add(counter(link, MISSED_ERRORS)?)
}

/// The number at this place among those of the statistics in a message.
fn counter(link: &LinkMessage<'_>, place: usize) -> Option<u64> {
    let counters = link.attribute(STATISTICS)?.as_chunks::<8>().0;
    counters.get(place).map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::super::link_message::tests::message;
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
    fn statistics_without_these_counters_have_no_drops() {
        let mut statistics = [0; 25 * 8];
        statistics[FIFO_ERRORS * 8] = 3;
        statistics[MISSED_ERRORS * 8] = 4;
        statistics[NOT_SENT * 8] = 5;
        for (len, expected) in [(25 * 8, Some(7)), (16 * 8, Some(7)), (16 * 8 - 1, None)] {
            let message = message(&[(3, b"a"), (STATISTICS, &statistics[..len])]);
            let link = LinkMessage::new(&message).unwrap();
            assert_eq!((drops(&link), counter(&link, NOT_SENT)), (expected, Some(5)), "{len}");
        }
    }
}
