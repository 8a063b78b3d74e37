//! The set-ups with which most tests begin; the capture's alias is `web` in all.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{Daemon, Mount};
use crate::feed::{Feed, Fifo};
use crate::frame;
use crate::net::{Net, Sender};
use crate::process::{run, tool};
use crate::savefile::{self, Format};
use crate::wait::wait_until;

/// Alias of the capture.
pub const ALIAS: &str = "web";

/// A place for a daemon over a FIFO, whose socket, tree and ring the next daemon has again.
#[derive(Debug)]
pub struct Replaceable {
    folder: TempDir,
    fifo: Fifo,
}

impl Replaceable {
    /// A place without a daemon.
    #[must_use]
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "it makes folders")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder for the test can be made");
        for name in ["tree", "rings"] {
            std::fs::create_dir(folder.path().join(name))
                .expect("a folder for the test can be made");
        }
        Self { folder, fifo: Fifo::new() }
    }

    /// Starts a daemon there, and connects its source.
    #[must_use]
    #[track_caller]
    pub fn start(&self) -> (Daemon, Feed) {
        let path = |name: &str| self.folder.path().join(name);
        let mount = Mount::new().socket(&path("control.sock")).mountpoint(&path("tree"));
        let daemon = mount.ring_dir(&path("rings")).capture(ALIAS, &self.fifo.source()).start();
        let feed = self.fifo.connect();
        daemon.wait_state(ALIAS, "running");
        (daemon, feed)
    }
}

/// A file in which an outlet will remember its places, in a folder that it makes, and the folder
/// around that.
#[must_use]
#[track_caller]
pub fn saved_places() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the test can be made");
    let path = folder.path().join("places/state.json");
    (folder, path)
}

/// Waits until the file has a place in the capture, such as `/lines/http`.
#[track_caller]
pub fn wait_for_place(state: &Path, pointer: &str) {
    wait_until("the outlet has a place", 20, || {
        let text = std::fs::read_to_string(state).unwrap_or_default();
        let places: Value = serde_json::from_str(&text).unwrap_or_default();
        places.pointer(&format!("/captures/{ALIAS}{pointer}")).is_some_and(Value::is_u64)
    });
}

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
