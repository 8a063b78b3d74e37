//! A capture that is followed over TLS, on a wire that is cut, drops, delays and reorders.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pcapfs_tests::net::ip;
use pcapfs_tests::{
    Daemon, Emit, Fifo, Mount, Namespace, Net, Running, Traffic, binary, python, run, skip_unless,
    tool, wait_until,
};
use tempfile::TempDir;

use crate::support::{sequences, wait_same};

/// Joins two devices with a bad wire.
const RELAY: &str = include_str!("relay.py");

/// Switches off the checksums and segments that a device makes itself (ethtool(8), `tx off`).
const PLAIN: &str = "\
import array, fcntl, socket, struct, sys
end = socket.socket()
for command in 0x17, 0x1f, 0x24, 0x2c:  # tx, tso, gso, gro (linux/ethtool.h)
    value = array.array('B', struct.pack('II', command, 0))
    request = struct.pack('16sP', sys.argv[1].encode(), value.buffer_info()[0])
    try:
        fcntl.ioctl(end, 0x8946, request)
    except OSError:
        pass
";

/// Two machines on a wire: the far one captures from a FIFO, so that it loses nothing.
struct Wire {
    net: Net,
    folder: TempDir,
    fifo: Fifo,
}

impl Wire {
    fn new() -> Self {
        let wire =
            Self { net: Net::new(), folder: tempfile::tempdir().unwrap(), fifo: Fifo::new() };
        let identity = wire.path("identity");
        let identity = identity.to_str().unwrap();
        let pem = wire.path("near.pem");
        let pcapfs = |words: &[&str]| {
            let mut command = tool(binary("pcapfs").to_str().unwrap());
            let _ =
                run(command.args(words).env("XDG_CONFIG_HOME", wire.path("config")), 20).success();
        };
        pcapfs(&["identity", "init", "--name", Net::ADDRESS, "--dir", identity]);
        pcapfs(&["identity", "issue", "near", "--dir", identity, "-o", pem.to_str().unwrap()]);
        let url = format!("pcap://{}", Net::ADDRESS);
        pcapfs(&["remote", "add", "far", &url, "--identity", pem.to_str().unwrap()]);
        let config = format!(
            "[remote]\nlisten = \"{}\"\nidentity = \"{identity}\"\n\
             [[remote.client]]\nname = \"near\"\nuser = \"root\"\n\
             [[capture]]\nalias = \"web\"\nsource = \"{}\"\n",
            Net::ADDRESS,
            wire.fifo.source()
        );
        fs::write(wire.path("pcapfs.toml"), config).unwrap();
        wire
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn far(&self) -> Daemon {
        Mount::new().inside(&self.net.a).arg("--config").arg(self.path("pcapfs.toml")).start()
    }

    /// The near daemon, with a capture of its own beside the followed one.
    fn near(&self, other: &Fifo) -> Daemon {
        let mount = Mount::new().inside(&self.net.b).env("XDG_CONFIG_HOME", self.path("config"));
        mount.capture("web", "remote:far/web").capture("other", &other.source()).start()
    }

    /// Has packets of both sides go to no one, without an error.
    fn swallow(&self) {
        self.neighbours("02:00:00:00:00:99");
    }

    /// Undoes [`Wire::swallow`].
    fn swallow_no_more(&self) {
        for (namespace, device) in [(&self.net.a, Net::DEVICE), (&self.net.b, Net::PEER)] {
            ip(&["-n", namespace.name(), "neighbour", "flush", "dev", device, "nud", "permanent"]);
        }
    }

    fn neighbours(&self, address: &str) {
        let Net { a, b } = &self.net;
        for (namespace, device, other) in
            [(a, Net::DEVICE, Net::PEER_ADDRESS), (b, Net::PEER, Net::ADDRESS)]
        {
            let words = ["neighbour", "replace", other, "lladdr", address, "dev", device];
            ip(&[&["-n", namespace.name()][..], &words, &["nud", "permanent"]].concat());
        }
    }

    /// Replaces the wire by one that loses 5 % of the frames, delays each by 200 ms and lets them
    /// overtake each other, as long as the result exists.
    fn bad(&self) -> (Namespace, Running) {
        let middle = Namespace::new();
        self.net.unplug();
        let ends = [
            (&self.net.a, Net::DEVICE, Net::ADDRESS, "left"),
            (&self.net.b, Net::PEER, Net::PEER_ADDRESS, "right"),
        ];
        for (namespace, device, address, other) in ends {
            let name = namespace.name();
            let words = ["link", "add", device, "netns", name, "type", "veth", "peer", "name"];
            ip(&[&words[..], &[other, "netns", middle.name()]].concat());
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", device]);
            ip(&["-n", name, "link", "set", device, "up"]);
            ip(&["-n", middle.name(), "link", "set", other, "up"]);
            // Frames must have their checksums, and the size of the wire, in user space.
            let plain = namespace.run(|| run(python(PLAIN).arg(device), 10));
            let _ = plain.success();
        }
        let mut relay = python(RELAY);
        relay.args(["left", "right", "0.05", "0.2", "0.02"]);
        let relay = middle.run(|| Running::spawn(&mut relay));
        relay.wait_stdout("the wire is there", 10, |bytes| bytes.starts_with(b"joined"));
        (middle, relay)
    }
}

#[test]
fn a_wire_that_was_cut_costs_nothing() {
    skip_unless!(root, "ip");
    let (wire, beside) = (Wire::new(), Fifo::new());
    let far = wire.far();
    let near = wire.near(&beside);
    let other = Traffic::start(beside.connect(), 2_000, 1_000_000);
    let traffic = Traffic::start(wire.fifo.connect(), 2_000, 1_000_000);
    let has = || near.count("web", "/packets/stored");
    wait_until("packets come", 20, || has() > 500);
    ip(&["-n", wire.net.a.name(), "link", "set", Net::DEVICE, "down"]);
    // The length of the cut is what is tested.
    std::thread::sleep(Duration::from_secs(5));
    let before = has();
    ip(&["-n", wire.net.a.name(), "link", "set", Net::DEVICE, "up"]);
    let up = Instant::now();
    wait_until("packets come again", 20, || has() > before);
    let took = up.elapsed();
    eprintln!("resumed {took:?} after the link was up");
    assert!(took < Duration::from_secs(3), "{took:?}");
    let sent = traffic.stop().emitted();
    wait_same(&near, "web", sent);
    assert_eq!(far.count("web", "/packets/stored"), sent);
    let fed = other.stop().emitted();
    near.wait_stored("other", fed);
    assert_eq!(sequences(&near, "other").len() as u64, fed, "the other capture lost nothing");
}

#[test]
fn a_wire_that_swallows_everything_is_noticed() {
    skip_unless!(root, "ip");
    let (wire, beside) = (Wire::new(), Fifo::new());
    let _far = wire.far();
    let near = wire.near(&beside);
    let mut feed = wire.fifo.connect();
    feed.send(100, 100);
    wait_same(&near, "web", 100);
    wire.swallow();
    let begun = Instant::now();
    wait_until("it is missed", 10, || near.status("web")["state"] == "retrying");
    eprintln!("missed after {:?}", begun.elapsed());
    feed.send(100, 100);
    wire.swallow_no_more();
    wait_same(&near, "web", 200);
}

#[test]
fn loss_delay_and_reordering_change_nothing() {
    skip_unless!(root, "ip");
    let (wire, beside) = (Wire::new(), Fifo::new());
    let bad = wire.bad();
    let _far = wire.far();
    let near = wire.near(&beside);
    let mut feed = wire.fifo.connect();
    for _ in 0..10 {
        feed.send(200, 500);
    }
    wait_same(&near, "web", 2_000);
    near.wait_state("web", "running");
    drop(bad);
}
