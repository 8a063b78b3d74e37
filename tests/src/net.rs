//! Networks for one test: two namespaces, a veth pair between them, numbered packets.

use std::fs::File;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::frame;
use crate::process::{python, run};
use crate::traffic::Emit;

/// A network namespace, deleted on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with a name of its own, loopback up and without IPv6, which would send
    /// unwanted packets.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pcapfs-test-{}-{count}", std::process::id());
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        Self::enter(&namespace.name, || {
            for which in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
                // If the kernel has no IPv6, there is nothing to switch off.
                let _ = std::fs::write(path, "1");
            }
        });
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"]);
        namespace
    }

    /// The name `ip netns` knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `action` inside; sockets and processes made by it stay there.
    ///
    /// Only the network changes, not the mounts, so mounts made inside are visible outside.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        Self::enter(&self.name, action)
    }

    /// Sends these frames over a device of this namespace, as they are.
    pub fn send_frames(&self, device: &str, frames: &[Vec<u8>]) {
        self.run(|| send_frames(device, frames));
    }

    /// Runs `action` in a thread that has entered the namespace of this name.
    pub(crate) fn enter<T: Send>(name: &str, action: impl FnOnce() -> T + Send) -> T {
        let handle = File::open(format!("/run/netns/{name}")).expect("the namespace is there");
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(handle, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                    action()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Sends these frames over a device of the namespace of this thread, as they are.
pub fn send_frames(device: &str, frames: &[Vec<u8>]) {
    const PROGRAM: &str = "
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]:
    s.send(bytes.fromhex(frame))
";
    let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut command = python(PROGRAM);
    let _ = run(command.arg(device).args(frames.iter().map(hex)), 10).success();
}

/// Runs `ip` with these arguments.
///
/// # Panics
/// If it fails; the message has its output.
pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Two namespaces and a veth pair: the daemon captures on [`Net::DEVICE`] in `a`, where packets
/// sent in `b` arrive. No other packets are ever on the wire.
#[derive(Debug)]
pub struct Net {
    /// The daemon's namespace: `Mount::new().inside(&net.a)`.
    pub a: Namespace,
    /// The sender's namespace.
    pub b: Namespace,
}

impl Net {
    /// The interface in `a`.
    pub const DEVICE: &str = "wire-a";
    /// The interface in `b`.
    pub const PEER: &str = "wire-b";
    /// Address of [`Net::DEVICE`].
    pub const ADDRESS: &str = "10.77.0.1";
    /// Address of [`Net::PEER`].
    pub const PEER_ADDRESS: &str = "10.77.0.2";
    /// An address on the same wire that no host has, so that no host answers.
    pub const NOBODY: &str = "10.77.0.9";

    /// Makes the two namespaces and the wire.
    #[must_use]
    pub fn new() -> Self {
        let net = Self { a: Namespace::new(), b: Namespace::new() };
        net.plug();
        net
    }

    /// Removes the wire, with both of its ends.
    pub fn unplug(&self) {
        ip(&["-n", self.a.name(), "link", "delete", Self::DEVICE]);
    }

    /// Makes the wire, which must be missing.
    pub fn plug(&self) {
        let Self { a, b } = self;
        ip(&[
            "link",
            "add",
            Self::DEVICE,
            "netns",
            a.name(),
            "type",
            "veth",
            "peer",
            "name",
            Self::PEER,
            "netns",
            b.name(),
        ]);
        for (namespace, device, address) in
            [(a, Self::DEVICE, Self::ADDRESS), (b, Self::PEER, Self::PEER_ADDRESS)]
        {
            let address = format!("{address}/24");
            ip(&["-n", namespace.name(), "address", "add", &address, "dev", device]);
            ip(&["-n", namespace.name(), "link", "set", device, "up"]);
        }
        // A fixed neighbour: no ARP on the wire, and no ICMP, since no host in `a` has the frame's
        // address.
        ip(&[
            "-n",
            b.name(),
            "neighbour",
            "add",
            Self::NOBODY,
            "lladdr",
            "02:00:00:00:00:99",
            "dev",
            Self::PEER,
            "nud",
            "permanent",
        ]);
    }

    /// Sends these frames from `b`, as they are.
    pub fn send_frames(&self, frames: &[Vec<u8>]) {
        self.b.send_frames(Self::PEER, frames);
    }

    /// A sender of numbered packets in `b`, with payloads of `payload_length` bytes.
    #[must_use]
    pub fn sender(&self, payload_length: usize) -> Sender {
        self.sender_to(payload_length, frame::PORT)
    }

    /// Like [`Net::sender`], to another UDP port.
    #[must_use]
    pub fn sender_to(&self, payload_length: usize, port: u16) -> Sender {
        let socket = self.b.run(|| {
            let socket = UdpSocket::bind((Self::PEER_ADDRESS, 0))?;
            socket.connect((Self::NOBODY, port))?;
            Ok::<_, std::io::Error>(socket)
        });
        Sender { socket: socket.expect("a UDP socket in the namespace"), payload_length, sent: 0 }
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

/// Sends packets numbered from 1 over a [`Net`].
#[derive(Debug)]
pub struct Sender {
    socket: UdpSocket,
    payload_length: usize,
    sent: u64,
}

impl Sender {
    /// Sends the next `count` packets as fast as the system accepts them.
    pub fn send(&mut self, count: u64) {
        self.emit(count);
    }
}

impl Emit for Sender {
    fn emit(&mut self, count: u64) {
        for _ in 0..count {
            let payload = frame::payload(self.sent + 1, self.payload_length);
            self.socket.send(&payload).expect("nothing on a veth refuses a packet");
            self.sent += 1;
        }
    }

    fn emitted(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Running, tool};
    use crate::savefile::check_prefix;
    use crate::skip_unless;
    use crate::wait::wait_until;

    #[test]
    fn the_wire_carries_only_sent_packets() {
        skip_unless!(root, "ip", "tcpdump");
        let net = Net::new();
        let mut tcpdump = net.a.run(|| {
            Running::spawn(
                tool("tcpdump")
                    .args(["-i", Net::DEVICE, "-U", "-B", "4096", "--immediate-mode"])
                    .args(["--time-stamp-precision=nano", "-Z", "root", "-w", "-"]),
            )
        });
        wait_until("tcpdump listens", 5, || tcpdump.stderr().contains("listening on"));
        net.sender(100).send(50);
        tcpdump.wait_stdout("50 packets", 5, |bytes| {
            check_prefix(bytes).is_ok_and(|prefix| prefix.seen.last >= 50)
        });
        tcpdump.signal(nix::sys::signal::Signal::SIGINT);
        assert!(tcpdump.wait(5).success());
        let sequences = check_prefix(&tcpdump.stdout()).unwrap().whole();
        assert_eq!(sequences, Vec::from_iter(1..=50));
    }
}
