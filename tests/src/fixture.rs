//! The two set-ups with which most tests begin; the capture's alias is `web` in both.

use crate::daemon::{Daemon, Mount};
use crate::feed::{Feed, Fifo};
use crate::frame;
use crate::net::{Net, Sender};
use crate::process::{run, tool};
use crate::savefile::{self, Format};

/// Alias of the capture.
pub const ALIAS: &str = "web";

/// A daemon that captures from a FIFO: only the ring can lose packets, at any speed.
#[derive(Debug)]
pub struct Fed {
    /// The daemon, with the header of the savefile received.
    pub daemon: Daemon,
    /// The source of packets.
    pub feed: Feed,
    /// The FIFO.
    pub fifo: Fifo,
}

impl Fed {
    /// With the daemon's default ring.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::with(Mount::new())
    }

    /// With further arguments.
    #[must_use]
    #[track_caller]
    pub fn with(mount: Mount) -> Self {
        let fifo = Fifo::new();
        let daemon = mount.capture(ALIAS, &fifo.source()).start();
        let feed = fifo.connect();
        daemon.wait_state(ALIAS, "running");
        Self { daemon, feed, fifo }
    }

    /// With packets 1 to `count`, of 200 bytes of payload each, stored.
    #[must_use]
    #[track_caller]
    pub fn holding(count: u64) -> Self {
        let mut fed = Self::start();
        fed.send(count);
        fed
    }

    /// Sends the next `count` packets with 200 bytes of payload and waits until they are stored.
    #[track_caller]
    pub fn send(&mut self, count: u64) {
        let stored = self.daemon.count(ALIAS, "/packets/stored");
        self.feed.send(count, 200);
        self.daemon.wait_stored(ALIAS, stored + count);
    }

    /// The records that [`Fed::holding`] makes, as they must follow the 24 bytes of header.
    #[must_use]
    pub fn records(count: u64) -> Vec<u8> {
        savefile::numbered(Format::default(), count, 200).split_off(24)
    }

    /// Bytes of a record of [`Fed::send`].
    pub const RECORD: u64 = 16 + frame::HEADERS as u64 + 200;
}

/// A daemon that captures on a veth pair, from the kernel as from any network card.
#[derive(Debug)]
pub struct Wired {
    /// The daemon, running inside `net.a`.
    pub daemon: Daemon,
    /// The network.
    pub net: Net,
}

impl Wired {
    /// With the daemon's default ring.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::with(Mount::new())
    }

    /// With further arguments.
    #[must_use]
    #[track_caller]
    pub fn with(mount: Mount) -> Self {
        let net = Net::new();
        let daemon = mount.inside(&net.a).capture(ALIAS, Net::DEVICE).start();
        daemon.wait_state(ALIAS, "running");
        Self { daemon, net }
    }

    /// Sends the next `count` packets of `sender` and waits until they are stored.
    #[track_caller]
    pub fn send(&self, sender: &mut Sender, count: u64) {
        let stored = self.daemon.count(ALIAS, "/packets/stored");
        sender.send(count);
        self.daemon.wait_stored(ALIAS, stored + count);
    }
}

/// Number of retained packets of a capture that match a filter expression, as tcpdump counts them.
#[must_use]
#[track_caller]
pub fn matching(daemon: &Daemon, alias: &str, filter: &str) -> usize {
    let mut tcpdump = tool("tcpdump");
    tcpdump.args(["-n", "-r"]).arg(daemon.path(&format!("{alias}/replay.pcap"))).arg(filter);
    run(&mut tcpdump, 30).success().text().lines().count()
}
