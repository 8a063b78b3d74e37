//! Packets of our own connections are not stored, and all others are: real captures in a network
//! namespace of the test.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use capture::flow::FlowOptions;
use capture::own_transport::{self, Exclusion, OwnListener, OwnStream, OwnTransport};
use capture::pipeline::{Capture, PacketCounters, Spec, counters};
use capture::record::PacketRecord;
use capture::source::SourceName;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{SockaddrStorage, connect, setsockopt, sockopt};
use protocol::decode::{DecodeOptions, DecodeOutcome, Decoder, Transport};
use protocol::time::Precision;
use std::os::fd::AsRawFd;

/// The port of the packet that is sent last.
const LAST: u16 = 9;

/// Runs `test` in a network namespace of its own, with a loopback interface.
fn in_a_namespace(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("PCAPFS_REQUIRE_ALL").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
        return;
    }
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip(&["link", "set", "lo", "up"]);
            test();
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

fn capture(directory: &Path, source: &str, filter: Option<&str>, snaplen: u32) -> Arc<Capture> {
    let spec = Spec {
        alias: format!("{source}-{snaplen}"),
        source: SourceName::parse(source),
        filter: filter.map(str::to_owned),
        snaplen,
        promiscuous: true,
        precision: Precision::Nano,
        ring_size: 16 << 20,
        is_default_ring: false,
        ring_dir: directory.to_owned(),
        kernel_buffer: None,
        backend: capture::source::InterfaceBackend::default(),
        workers: capture::source::Workers::ONE,
        inject_speed: capture::injection::InjectSpeed::default(),
        export_keys: false,
        flows: FlowOptions::default(),
    };
    Capture::start_new(spec).unwrap().capture
}

/// Sends a packet, waits until a capture has stored it, and returns the ends of all stored packets.
fn stored(capture: &Capture) -> (Vec<[SocketAddr; 2]>, PacketCounters) {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        sender.send_to(b"last", ("127.0.0.1", LAST)).unwrap();
        let ends = ends(capture);
        if ends.iter().any(|[from, _]| *from == sender.local_addr().unwrap()) {
            let (packets, _) = counters(&**capture.store());
            return (ends, packets);
        }
        assert!(
            Instant::now() < deadline,
            "the last packet is not stored: {:?} {ends:?}",
            counters(&**capture.store())
        );
        // The kernel hands packets over within some milliseconds.
        thread::sleep(Duration::from_millis(5));
    }
}

fn ends(capture: &Capture) -> Vec<[SocketAddr; 2]> {
    let store = &**capture.store();
    let bounds = store.bounds();
    let link_type = store.header().unwrap().link_type;
    let mut decoder = Decoder::new(DecodeOptions::default());
    let mut ends = Vec::new();
    for chunk in bounds.oldest_chunk..=bounds.newest_chunk {
        let Ok(chunk) = store.pin(chunk) else { continue };
        let mut bytes = chunk.bytes();
        while let Some(record) = PacketRecord::parse(bytes) {
            let time = record.time(Precision::Nano);
            let (number, len) = (ends.len() as u64, record.original_len);
            if let DecodeOutcome::Decoded(packet) =
                decoder.packet(link_type, number, time, len, record.data)
            {
                let (from, to) = match packet.transport {
                    Transport::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
                    Transport::Udp { source_port, destination_port } => {
                        (source_port, destination_port)
                    }
                    // An answer that nobody takes the last packet.
                    Transport::Other => (LAST, LAST),
                };
                ends.push([(packet.source, from).into(), (packet.destination, to).into()]);
            }
            bytes = &bytes[record.len()..];
        }
    }
    ends
}

/// A listener that sends back what it receives.
fn echo(listener: TcpListener) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            if bytes.is_empty() {
                return;
            }
            stream.write_all(&bytes).unwrap();
        }
    })
}

/// Sends `len` bytes to an echo and takes them back. Returns our end.
fn exchange(mut stream: TcpStream, len: usize) -> SocketAddr {
    let own = stream.local_addr().unwrap();
    let mut received = Vec::new();
    stream.write_all(&vec![7; len]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), len);
    own
}

/// Connects a socket of ours.
fn connected(remote: SocketAddr) -> (TcpStream, Option<Exclusion>) {
    let stream = OwnStream::unconnected(remote).unwrap();
    connect(stream.as_raw_fd(), &SockaddrStorage::from(remote)).unwrap();
    stream.enter_local_address().unwrap();
    stream.into_parts()
}

#[track_caller]
fn check(packets: &PacketCounters, excluded: impl Fn(u64) -> bool) {
    let lost = packets.dropped_kernel + packets.dropped_oversize;
    assert_eq!(packets.seen, packets.stored + packets.excluded + lost);
    assert!(lost == 0 && excluded(packets.excluded), "{packets:?}");
}

#[test]
fn own_connections_are_left_out_and_others_to_the_same_port_stay() {
    for (source, address) in [("lo", "127.0.0.1:0"), ("any", "127.0.0.1:0"), ("any", "[::1]:0")] {
        in_a_namespace(|| {
            let directory = tempfile::tempdir().unwrap();
            let far = TcpListener::bind(address).unwrap();
            let address = far.local_addr().unwrap();
            let far = echo(far);
            let capture = capture(directory.path(), source, None, 262_144);

            let foreign: BTreeSet<_> =
                (0..20).map(|_| exchange(TcpStream::connect(address).unwrap(), 1000)).collect();
            let mut own = BTreeSet::new();
            for _ in 0..20 {
                let (stream, exclusion) = connected(address);
                own.insert(exchange(stream, 100_000));
                drop(exclusion);
            }
            // A connection that nobody accepts: a SYN and a RST.
            let nobody = TcpListener::bind((address.ip(), 0)).unwrap().local_addr().unwrap();
            let refused = OwnStream::unconnected(nobody).unwrap();
            connect(refused.as_raw_fd(), &SockaddrStorage::from(nobody)).unwrap_err();
            own.insert(refused.local_addr().unwrap());
            drop(refused);

            let (ends, packets) = stored(&capture);
            let of = |end: &SocketAddr| ends.iter().filter(|ends| ends.contains(end)).count();
            for end in &own {
                assert_eq!(of(end), 0, "{source}: packets of {end} are stored");
            }
            for end in &foreign {
                // Two SYNs, an ACK, two pieces of data, two FINs and their ACKs.
                assert!(of(end) >= 7, "{source}: {} packets of {end}", of(end));
            }
            check(&packets, |excluded| excluded > 20 * 8);
            drop(TcpStream::connect(address).unwrap());
            far.join().unwrap();
        });
    }
}

#[test]
fn packets_with_our_mark_are_counted_by_a_byte_and_others_are_not() {
    in_a_namespace(|| {
        let directory = tempfile::tempdir().unwrap();
        let lo = [(None, 262_144), (Some("udp and not port 7"), 96), (Some(""), 1)];
        let lo = lo.map(|(filter, snaplen)| capture(directory.path(), "lo", filter, snaplen));
        let any = capture(directory.path(), "any", Some("udp or icmp"), 262_144);
        let mark = own_transport::mark().unwrap();
        assert_eq!(mark & !0x307f, 0);
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (mark, payload) in [(mark, 1000), (mark ^ 1, 1000), (mark, 1), (0, 0)] {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            setsockopt(&sender, sockopt::Mark, &mark).unwrap();
            for _ in 0..10 {
                sender.send_to(&vec![7; payload], receiver.local_addr().unwrap()).unwrap();
            }
        }
        for capture in lo.iter().chain([&any]) {
            if capture.spec().snaplen > 1 {
                let ends = stored(capture).0;
                let to = |ends: &&[SocketAddr; 2]| ends[1] == receiver.local_addr().unwrap();
                assert_eq!(ends.iter().filter(to).count(), 20);
            }
            let (packets, _) = counters(&**capture.store());
            check(&packets, |excluded| excluded == 20);
        }
    });
}

#[test]
fn connections_of_a_listener_are_left_out_and_forgotten_ports_are_not() {
    in_a_namespace(|| {
        let directory = tempfile::tempdir().unwrap();
        let (listener, exclusion) =
            OwnListener::bind("[::]:0".parse().unwrap()).unwrap().into_parts();
        let port = listener.local_addr().unwrap().port();
        let far = echo(listener);
        // A filter, and a snaplen that ends inside the TCP header.
        let filter = format!("tcp port {port} or udp");
        let capture = capture(directory.path(), "lo", Some(&filter), 42);
        for address in ["127.0.0.1", "127.9.9.9", "::1"] {
            let address: std::net::IpAddr = address.parse().unwrap();
            exchange(TcpStream::connect((address, port)).unwrap(), 50_000);
        }
        let shown = OwnTransport::of_process().tuples(None);
        let shown = shown.iter().filter(|tuple| tuple.local.port() == port);
        assert_eq!(shown.count(), 2, "a listener for both families");
        drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
        far.join().unwrap();
        drop(exclusion);
        let (ends, packets) = stored(&capture);
        assert!(ends.iter().all(|[_, to]| to.port() == LAST), "{ends:?}");
        let before = packets.excluded;
        check(&packets, |excluded| excluded >= 3 * 8);

        // Another program takes the port.
        let far = echo(TcpListener::bind(("127.0.0.1", port)).unwrap());
        exchange(TcpStream::connect(("127.0.0.1", port)).unwrap(), 1000);
        drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
        far.join().unwrap();
        let (_, after) = stored(&capture);
        assert_eq!(after.excluded, before);
        assert!(after.stored - packets.stored >= 12, "{after:?}");
    });
}
