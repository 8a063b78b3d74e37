//! `pcapfs serve`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use pcapfs_tests::savefile::{Format, Parser, PcapParser, Record, check_prefix, timestamp};
use pcapfs_tests::{
    ALIAS, Daemon, Fed, Mount, Running, Wired, binary, run, skip_unless, tool, wait_for, wait_until,
};

use crate::support::{check_sum, free_address};

/// A `pcapfs serve` of a daemon's capture at a free port.
pub(crate) struct Serving {
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
}

impl Serving {
    #[track_caller]
    pub(crate) fn start(daemon: &Daemon, options: &[&str]) -> Self {
        let mut command = daemon.command(["serve", ALIAS]);
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let process = Running::spawn(command.args(options));
        let address = wait_for("it serves", 10, || {
            let said = process.stderr();
            let (_, rest) = said.split_once(&format!("pcapfs: serving {ALIAS} at "))?;
            rest.split(' ').next()?.parse().ok()
        });
        Self { process, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream
    }

    /// Ends it with SIGINT, and returns what it said.
    #[track_caller]
    pub(crate) fn end(mut self) -> String {
        self.process.signal(Signal::SIGINT);
        let status = self.process.wait(5);
        assert!(status.success(), "{status}: {}", self.process.stderr());
        self.process.stderr()
    }
}

/// Reads a savefile from its beginning until it has this many packets. Returns the bytes.
#[track_caller]
fn read_packets(stream: &mut TcpStream, packets: u64) -> Vec<u8> {
    read_on(stream, &mut PcapParser::default(), packets)
}

/// Reads this many packets more. Returns the bytes.
#[track_caller]
fn read_on(stream: &mut TcpStream, parser: &mut PcapParser, packets: u64) -> Vec<u8> {
    let (mut bytes, mut count) = (Vec::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    while count < packets {
        let length = stream.read(&mut buffer).expect("the packets come");
        assert!(length > 0, "the end after {count} packets");
        bytes.extend_from_slice(&buffer[..length]);
        let mut each = |_: Record<'_>| {
            count += 1;
            Ok(())
        };
        parser.push(&buffer[..length], &mut each).unwrap();
    }
    bytes
}

/// Reads to the end.
fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the end comes");
    bytes
}

fn wait_readers(daemon: &Daemon, count: usize) {
    wait_until("the daemon has these readers", 10, || daemon.readers(ALIAS).len() == count);
}

#[test]
fn many_clients_have_a_place_of_their_own_and_are_readers() {
    skip_unless!(mount);
    let mut fed = Fed::holding(100);
    let serving = Serving::start(&fed.daemon, &["--from", "follow"]);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| serving.connect()).collect();
    for client in &mut clients {
        let bytes = read_packets(client, 100);
        assert_eq!(bytes, fs::read(fed.daemon.path("web/replay.pcap")).unwrap());
    }
    let pid = serving.process.pid();
    wait_readers(&fed.daemon, 20);
    let readers = fed.daemon.readers(ALIAS);
    assert!(readers.iter().all(|reader| reader["pid"] == pid.as_raw()), "{readers:#?}");
    fed.send(10);
    for client in &mut clients {
        let mut record = vec![0; 10 * usize::try_from(Fed::RECORD).unwrap()];
        client.read_exact(&mut record).unwrap();
    }
    // A client that leaves an idle capture is no reader any more.
    clients.truncate(5);
    wait_readers(&fed.daemon, 5);
    let said = serving.end();
    assert!(said.ends_with("pcapfs: 20 clients: 2200 packets sent, 0 lost\n"), "{said}");
    assert!(said.contains(": left; 110 packets sent, 0 lost"), "{said}");
    assert!(said.contains(": closed; 110 packets sent, 0 lost"), "{said}");
    for client in clients {
        assert_eq!(read_all(client), b"", "it ended at once, after a whole packet");
    }
    wait_readers(&fed.daemon, 0);
}

#[test]
fn a_client_gets_what_was_asked_for() {
    skip_unless!(mount);
    let mut fed = Fed::holding(50);
    let replay = Serving::start(&fed.daemon, &["--from=replay"]);
    let bytes = read_all(replay.connect());
    assert_eq!(bytes, fs::read(fed.daemon.path("web/replay.pcap")).unwrap());
    wait_until("it says that the client has all", 5, || {
        replay.process.stderr().contains(": has all packets; 50 packets sent, 0 lost")
    });
    let live = Serving::start(&fed.daemon, &[]);
    let mut client = live.connect();
    wait_until("it waits", 5, || {
        fed.daemon.readers(ALIAS).iter().any(|reader| reader["blocked"] == true)
    });
    fed.send(5);
    let bytes = read_packets(&mut client, 5);
    assert_eq!(check_prefix(&bytes).unwrap().sequences, Vec::from_iter(51..=55));
    // The end of the capture is the end for its clients.
    fed.daemon.verb(["stop", ALIAS]);
    assert_eq!(read_all(client), b"");
    // And `serve` goes on with the next.
    fed.daemon.verb(["start", ALIAS]);
    let mut client = live.connect();
    wait_until("it waits", 5, || {
        fed.daemon.readers(ALIAS).iter().any(|reader| reader["blocked"] == true)
    });
    fed.send(5);
    assert_eq!(check_prefix(&read_packets(&mut client, 5)).unwrap().seen.first, 56);
}

#[test]
fn what_arkime_reads_is_cut_and_in_microseconds() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    fed.feed.send(10, 1_400);
    let mut long = Vec::new();
    Format::default().append(&mut long, timestamp(11), &[7; 70_000], 70_042);
    fed.feed.write(&long);
    fed.daemon.wait_stored(ALIAS, 11);
    let options = ["--from=replay", "--microseconds", "--snaplen=65535"];
    let bytes = read_all(Serving::start(&fed.daemon, &options).connect());
    let (mut parser, mut lengths) = (PcapParser::default(), Vec::new());
    let mut each = |record: Record<'_>| {
        assert_eq!(record.timestamp % 1000, 0);
        lengths.push((record.data.len(), record.original_length));
        Ok(())
    };
    parser.push(&bytes, &mut each).unwrap();
    let format = parser.format().unwrap();
    assert_eq!((format.nanoseconds, format.snaplen), (false, 65_535));
    assert_eq!(lengths.pop(), Some((65_535, 70_042)));
    assert_eq!(lengths, [(1_442, 1_442); 10]);
}

#[test]
fn a_filter_is_applied_for_each_client_and_a_wrong_one_refused_at_the_start() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    fed.feed.send(5, 100);
    fed.feed.send(5, 900);
    fed.feed.send(5, 100);
    fed.daemon.wait_stored(ALIAS, 15);
    for format in ["pcap", "pcapng"] {
        let options = ["--from=replay", "--filter", "udp and greater 500", "--format", format];
        let serving = Serving::start(&fed.daemon, &options);
        let bytes = read_all(serving.connect());
        assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(6..=10), "{format}");
        let said = serving.end();
        assert!(said.contains(": has all packets; 5 packets sent, 0 lost"), "{said}");
    }
    for (filter, says) in [
        ("udp prt 53", "filter 'udp prt 53' does not compile"),
        ("udp prt 53", "it is right up to 'udp', and wrong in 'prt 53'"),
        ("inbound", "is for interfaces only"),
    ] {
        let refused = run(&mut fed.daemon.command(["serve", ALIAS, "--filter", filter]), 10);
        assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
}

#[test]
fn a_slow_client_is_overtaken_and_no_other_notices() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().ring("1M"));
    let serving = Serving::start(&fed.daemon, &[]);
    let mut slow = serving.connect();
    wait_readers(&fed.daemon, 1);
    let mut fast = serving.connect();
    wait_readers(&fed.daemon, 2);
    let (mut received, mut parser) = (0, PcapParser::default());
    // Far more than the ring and all sockets between hold.
    for _ in 0..60 {
        fed.feed.send(1_000, 200);
        received += 1_000;
        fed.daemon.wait_stored(ALIAS, received);
        let _ = read_on(&mut fast, &mut parser, 1_000);
    }
    wait_until("it says that one is too slow", 5, || {
        let lost = fed.daemon.readers(ALIAS).iter().map(|one| one["lost_packets"].as_u64()).max();
        lost.flatten() > Some(0)
    });
    // When the client reads again, it gets whole packets, and serve knows how many it lost.
    let (mut parser, mut seen, mut buffer) = (PcapParser::default(), 0, vec![0; 1 << 16]);
    let mut last = 0;
    while last < received {
        let length = slow.read(&mut buffer).unwrap();
        assert!(length > 0);
        let mut each = |record: Record<'_>| {
            seen += 1;
            last = record.sequence()?;
            Ok(())
        };
        parser.push(&buffer[..length], &mut each).unwrap();
    }
    let lost = received - seen;
    assert!(lost > 0);
    wait_until("it says so", 5, || {
        serving.process.stderr().contains("is too slow, and loses packets")
    });
    let said = serving.end();
    assert!(said.contains(&format!(": closed; {seen} packets sent, {lost} lost")), "{said}");
    assert!(said.contains(&format!(": closed; {received} packets sent, 0 lost")), "{said}");
}

#[test]
fn tshark_and_nc_read_unmodified() {
    skip_unless!(mount, "tshark", "nc");
    let bytes = {
        use frames::pcapng::{CUSTOM, block, interface, packet, section};
        let data = |number: u64| pcapfs_tests::frame::ethernet(number, 60);
        let nanoseconds: &[(u16, &[u8])] = &[(frames::pcapng::IF_TSRESOL, &[9])];
        [
            section(&[]),
            interface(1, 0, nanoseconds),
            packet(0, 5, &data(1), data(1).len(), &[]),
            block(CUSTOM, b"\xd9\x7e\0\0a custom block"),
            packet(0, 6, &data(2), data(2).len(), &[]),
        ]
        .concat()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.pcapng");
    fs::write(&path, &bytes).unwrap();
    let daemon = Mount::new().arg("-r").arg(&path).start();
    assert!(
        fs::read(daemon.path("web/replay.pcapng")).unwrap().windows(8).any(|w| w == b"a custom")
    );
    for format in ["pcap", "pcapng"] {
        let serving = Serving::start(&daemon, &["--from=replay", "--format", format]);
        let place = format!("TCP@{}", serving.address);
        let mut tshark = tool("tshark");
        tshark.args(["-i", &place, "-T", "fields", "-e", "frame.number", "-e", "udp.dstport"]);
        let finished = run(&mut tshark, 30).success();
        // A custom block would be another line.
        assert_eq!(finished.text(), "1\t40001\n2\t40001\n", "{format}: {}", finished.stderr);
        let mut nc = tool("nc");
        nc.args(["127.0.0.1", &serving.address.port().to_string()]);
        let received = run(&mut nc, 10).success().stdout;
        assert_eq!(check_prefix(&received).unwrap().whole(), [1, 2], "{format}");
    }
}

#[test]
fn another_capture_gets_equal_packets() {
    skip_unless!(root, "ip");
    let wired = Wired::start();
    for format in ["pcap", "pcapng"] {
        let first = wired.daemon.count(ALIAS, "/packets/stored") + 1;
        let serving = Serving::start(&wired.daemon, &["--format", format]);
        let source = format!("tcp:{}", serving.address);
        let mirror = Mount::new().capture(ALIAS, &source).start();
        wait_readers(&wired.daemon, 1);
        wait_until("it waits", 5, || wired.daemon.readers(ALIAS)[0]["blocked"] == true);
        let mut sender = wired.net.sender(300);
        wired.send(&mut sender, 2_000);
        mirror.wait_stored(ALIAS, 2_000);
        let replay = |daemon: &Daemon| fs::read(daemon.path("web/replay.pcap")).unwrap();
        let skipped = 24 + (usize::try_from(first).unwrap() - 1) * (16 + 342);
        assert_eq!(replay(&mirror)[24..], replay(&wired.daemon)[skipped..]);
        check_sum(&mirror);
        assert!(serving.end().contains("2000 packets sent, 0 lost"));
    }
}

#[test]
fn wrong_requests_are_refused_and_explained() {
    skip_unless!(mount);
    let fed = Fed::holding(1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (words, says, code) in [
        (&["serve", "nobody"][..], "nobody: no such capture", 1),
        (&["serve", ALIAS, "--listen", "0.0.0.0:57012"], "add --insecure", 2),
        (&["serve", ALIAS, "--listen", "57012"], "write ADDR:PORT", 2),
        (&["serve", ALIAS, "--listen", "sensor:57012"], "no address of this machine", 2),
        (&["serve", ALIAS, "--listen", &taken], "another program listens there", 1),
        (&["serve", ALIAS, "--microseconds", "--format=pcapng"], "use --format pcap", 2),
        (&["serve", ALIAS, "--snaplen=0"], "'0' for '--snaplen <BYTES>'", 2),
        (&["serve", ALIAS, "--from=now"], "possible values: live, follow, replay", 2),
    ] {
        let refused = run(&mut fed.daemon.command(words), 10);
        assert_eq!(refused.status.code(), Some(code), "{words:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(says), "{words:?}: {}", refused.stderr);
    }
    let insecure = free_address().port();
    let listen = format!("0.0.0.0:{insecure}");
    let mut command =
        fed.daemon.command(["serve", ALIAS, "--insecure", "--from=replay", "--listen"]);
    let serving = Running::spawn(command.arg(&listen));
    wait_until("it serves", 5, || serving.stderr().contains(&format!("at {listen}")));
    assert_eq!(read_all(TcpStream::connect(("127.0.0.1", insecure)).unwrap()), {
        fs::read(fed.daemon.path("web/replay.pcap")).unwrap()
    });
}

#[test]
fn a_client_may_send_nonsense_and_the_daemon_may_go_away() {
    skip_unless!(mount);
    let mut fed = Fed::holding(10);
    let serving = Serving::start(&fed.daemon, &["--from=follow"]);
    let mut rude = serving.connect();
    rude.write_all(&vec![0x55; 1 << 20]).unwrap();
    assert_eq!(check_prefix(&read_packets(&mut rude, 10)).unwrap().seen.count, 10);
    let _ = fed.daemon.terminate();
    wait_until("it says that the daemon is gone", 5, || {
        let said = serving.process.stderr();
        said.contains("; 10 packets sent, 0 lost")
    });
    // It stays, or its leaving could be what is reported.
    let next = serving.connect();
    wait_until("it says so to the next", 5, || {
        serving.process.stderr().contains("no pcapfs listens")
    });
    drop((rude, next));
    assert!(serving.end().contains("2 clients: 10 packets sent, 0 lost"));
}

#[test]
fn a_user_serves_only_what_he_may_read() {
    skip_unless!(root, "setpriv");
    let fed = Fed::with(Mount::new().args(["--mode", "0750"]));
    let mut command = tool("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(binary("pcapfs")).args(["serve", ALIAS]);
    let refused = run(command.env("PCAPFS_SOCKET", fed.daemon.socket()), 10);
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("ermission denied"), "{}", refused.stderr);
}
