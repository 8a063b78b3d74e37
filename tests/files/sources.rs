//! Where packets come from: interfaces, savefiles, FIFOs, standard input.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::net::UdpSocket;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use pcapfs_tests::measure::anonymous_memory;
use pcapfs_tests::net::ip;
use pcapfs_tests::require::testdata;
use pcapfs_tests::savefile::{
    Format, Interface, NgPacket, NgParser, Parser, PcapParser, append_numbered, check_prefix,
    numbered, parser_for, pcapng, timestamp,
};
use pcapfs_tests::{
    ALIAS, Daemon, Fed, Fifo, Finished, Mount, Net, Pace, Running, StreamReader, Traffic, Wired,
    frame, python, run, skip_unless, tool, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

/// A daemon over one savefile, all of it indexed.
struct Filed {
    daemon: Daemon,
    path: PathBuf,
    _folder: TempDir,
}

impl Filed {
    #[track_caller]
    fn new(bytes: &[u8], arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("web.pcap");
        fs::write(&path, bytes).unwrap();
        let daemon = Mount::new().arg("-r").arg(&path).args(arguments).start();
        daemon.wait_state(ALIAS, "ended");
        Self { daemon, path, _folder: folder }
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.daemon.path(ALIAS).join(name)).unwrap()
    }
}

/// A packet: nanoseconds, link type, index of the interface, length on the wire, bytes kept.
type Packet = (u64, u32, u32, u32, Vec<u8>);

/// The packets of a savefile, with nothing behind the last one.
#[track_caller]
fn packets_of(name: &str, bytes: &[u8]) -> Vec<Packet> {
    let mut parser = parser_for(name);
    packets_by(&mut *parser, bytes)
}

#[track_caller]
fn packets_by(parser: &mut dyn Parser, bytes: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    parser
        .push(bytes, &mut |record| {
            let data = record.data.to_vec();
            let (time, length) = (record.timestamp, record.original_length);
            packets.push((time, record.link_type, record.interface, length, data));
            Ok(())
        })
        .unwrap();
    assert_eq!(parser.rest(), b"", "ends inside a record");
    packets
}

fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    packets_of("x.pcap", bytes).into_iter().map(|packet| packet.4).collect()
}

// Interfaces.

#[test]
fn an_interface_by_its_flags_with_filter_and_alias() {
    skip_unless!(root);
    let net = Net::new();
    let daemon = Mount::new()
        .inside(&net.a)
        .args(["-i", Net::DEVICE, "-f", "udp port 40001", "--alias", "lan"])
        .start();
    daemon.wait_state("lan", "running");
    let (mut wanted, mut other) = (net.sender(100), net.sender_to(100, 40_002));
    for _ in 0..10 {
        other.send(3);
        wanted.send(2);
    }
    daemon.wait_stored("lan", 20);
    let status = daemon.status("lan");
    assert_eq!(status["packets"]["seen"], 20, "what the filter leaves out was never seen");
    assert_eq!(status["interface"], Net::DEVICE);
    assert_eq!(status["source"], Net::DEVICE);
    assert_eq!(status["filter"], "udp port 40001");
    assert_eq!(status["linktype"], "EN10MB");
    let bytes = fs::read(daemon.path("lan/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=20));
}

#[test]
fn an_interface_without_a_name_is_called_as_it_is() {
    skip_unless!(root);
    let net = Net::new();
    let daemon = Mount::new().inside(&net.a).args(["-i", Net::DEVICE]).start();
    daemon.wait_state(Net::DEVICE, "running");
    net.sender(100).send(5);
    daemon.wait_stored(Net::DEVICE, 5);
    assert_eq!(daemon.status(Net::DEVICE)["filter"], Value::Null);
}

#[test]
fn any_and_nothing_are_all_interfaces() {
    skip_unless!(root);
    let net = Net::new();
    // Somebody listens, so that nothing is answered.
    let (listener, local) = net.a.run(|| {
        let listener = UdpSocket::bind(("127.0.0.1", frame::PORT)).unwrap();
        let local = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        local.connect(("127.0.0.1", frame::PORT)).unwrap();
        (listener, local)
    });
    let filter = format!("udp dst port {}", frame::PORT);
    let captures =
        [("any", "any".to_owned()), ("empty", String::new()), ("quoted", format!("\"\" {filter}"))];
    let mut daemons = Vec::new();
    for (alias, source) in &captures {
        daemons.push(Mount::new().inside(&net.a).capture(alias, source).start());
    }
    daemons.push(Mount::new().inside(&net.a).args(["-i", "", "--alias", "flag"]).start());
    let aliases = ["any", "empty", "quoted", "flag"];
    for (daemon, alias) in daemons.iter().zip(aliases) {
        daemon.wait_state(alias, "running");
        assert_eq!(daemon.status(alias)["linktype"], "LINUX_SLL2", "{alias}");
    }
    let mut sender = net.sender(100);
    sender.send(5);
    for sequence in 6..=8 {
        local.send(&frame::payload(sequence, 100)).unwrap();
    }
    sender.send(3); // numbered 6 to 8 as well: left out below
    for (daemon, alias) in daemons.iter().zip(aliases) {
        daemon.wait_stored(alias, 11);
        let bytes = fs::read(daemon.path(alias).join("replay.pcap")).unwrap();
        let packets = packets_of("replay.pcap", &bytes);
        let mut seen: Vec<(u64, [u8; 4])> = packets
            .iter()
            .map(|(_, link_type, _, length, data)| {
                assert_eq!(*link_type, 276, "LINKTYPE_LINUX_SLL2");
                let sequence = frame::sequence(*link_type, data, *length as usize).unwrap();
                // SLL2: protocol, reserved, then the interface's index.
                (sequence, data[4..8].try_into().unwrap())
            })
            .collect();
        seen.sort_unstable();
        let numbers: Vec<u64> = seen.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 8], "{alias}");
        let index = |number: u64| -> Vec<[u8; 4]> {
            seen.iter().filter(|(other, _)| *other == number).map(|(_, index)| *index).collect()
        };
        let lo = [0, 0, 0, 1];
        assert_ne!(index(1), [lo], "{alias}");
        assert!(index(7).contains(&lo) && index(7).contains(&index(1)[0]), "{alias}: {seen:?}");
    }
    drop(listener);
}

#[test]
fn an_interface_that_vanishes_is_waited_for() {
    skip_unless!(root);
    let wired = Wired::start();
    let mut sender = wired.net.sender(200);
    wired.send(&mut sender, 10);
    let live = StreamReader::open(&wired.daemon.path("web/live.pcap"), Pace::FAST);
    let (a, b) = (wired.net.a.name(), wired.net.b.name());
    for round in 1..=2 {
        wired.net.unplug();
        wired.daemon.wait_state(ALIAS, "retrying");
        let status = wired.daemon.status(ALIAS);
        let error = status["error"].as_str().expect("a reason");
        assert!(error.contains(Net::DEVICE), "{error}");
        assert_eq!(status["packets"]["retained"], round * 10);
        let bytes = fs::read(wired.daemon.path("web/replay.pcap")).unwrap();
        assert_eq!(check_prefix(&bytes).unwrap().whole().len(), round * 10);

        wired.net.plug();
        wired.daemon.wait_state(ALIAS, "running");
        assert_eq!(wired.daemon.status(ALIAS)["error"], Value::Null);
        wired.send(&mut sender, 10);
    }
    // Down and up is no reason to stop.
    ip(&["-n", a, "link", "set", Net::DEVICE, "down"]);
    ip(&["-n", a, "link", "set", Net::DEVICE, "up"]);
    wait_until("the wire carries again", 5, || {
        let link = run(tool("ip").args(["-n", b, "link", "show", Net::PEER]), 5).success();
        link.text().contains("LOWER_UP")
    });
    wired.daemon.wait_state(ALIAS, "running");
    let neighbour = ["neighbour", "replace", Net::NOBODY, "lladdr", "02:00:00:00:00:99"];
    ip(&[&["-n", b][..], &neighbour, &["dev", Net::PEER, "nud", "permanent"]].concat());
    wired.send(&mut sender, 10);
    let seen = live.wait_last(40).seen;
    assert_eq!((seen.first, seen.missing), (11, 0), "the reader stayed: {seen:?}");
}

// Savefiles.

#[test]
fn savefiles_of_every_pcap_variety() {
    skip_unless!(mount);
    for nanoseconds in [true, false] {
        for big_endian in [true, false] {
            let format = Format { nanoseconds, big_endian, ..Format::default() };
            let bytes = numbered(format, 300, 90);
            let wanted = packets_by(&mut PcapParser::default(), &bytes);
            let filed = Filed::new(&bytes, &[]);
            let what = format!("{format:?}");
            for name in ["replay.pcap", "replay.pcapng", "follow.pcap", "follow.pcapng"] {
                let served = filed.read(name);
                assert_eq!(packets_of(name, &served), wanted, "{name} of {what}");
                if name.ends_with(".pcap") {
                    let native = Format { big_endian: false, ..format };
                    assert_eq!(served[..24], native.header(), "{name} of {what}");
                }
            }
            for name in ["live.pcap", "live.pcapng"] {
                assert_eq!(packets_of(name, &filed.read(name)), [], "{name} of {what}");
            }
            let status = filed.daemon.status(ALIAS);
            assert_eq!(status["error"], Value::Null, "{what}");
            assert_eq!(status["linktype"], "EN10MB", "{what}");
            assert_eq!(status["precision"], if nanoseconds { "nano" } else { "micro" }, "{what}");
            let counts = &status["packets"];
            for (name, count) in
                [("seen", 300), ("stored", 300), ("retained", 300), ("overwritten", 0)]
            {
                assert_eq!(counts[name], count, "{name} of {what}");
            }
        }
    }
}

fn interface(name: &str, link_type: u16, per_second: u64) -> Interface {
    Interface { link_type, snaplen: 65_535, name: Some(name.into()), filter: None, per_second }
}

#[test]
fn a_pcapng_keeps_its_interfaces_and_nanoseconds() {
    skip_unless!(mount);
    let interfaces = [
        interface("eth0", 1, 1_000_000_000),
        interface("wlan0", 1, 1_000_000),
        interface("lan one", 1, 1_000_000_000),
    ];
    let packets: Vec<NgPacket> = (1..=90)
        .map(|sequence: u64| {
            let index = usize::try_from(sequence % 3).unwrap();
            let unit = 1_000_000_000 / interfaces[index].per_second;
            NgPacket {
                interface: u32::try_from(index).unwrap(),
                timestamp: timestamp(sequence) / unit,
                data: frame::ethernet(sequence, 20 + usize::try_from(sequence).unwrap()),
            }
        })
        .collect();
    let bytes = pcapng(&interfaces, &packets);
    let filed = Filed::new(&bytes, &[]);
    let wanted = packets_by(&mut NgParser::default(), &bytes);
    assert!(wanted.iter().any(|packet| packet.0 % 1_000 != 0), "there are nanoseconds");

    let mut parser = NgParser::default();
    let served = packets_by(&mut parser, &filed.read("replay.pcapng"));
    assert_eq!(served, wanted);
    let names: Vec<_> = parser.interfaces().iter().map(|one| one.name.as_deref()).collect();
    assert_eq!(names, [Some("eth0"), Some("wlan0"), Some("lan one")]);
    let follow = packets_of("follow.pcapng", &filed.read("follow.pcapng"));
    assert_eq!(follow, wanted);

    let plain = packets_of("replay.pcap", &filed.read("replay.pcap"));
    let without =
        wanted.into_iter().map(|(time, link, _, length, data)| (time, link, 0, length, data));
    assert_eq!(plain, Vec::from_iter(without));
}

#[test]
fn a_pcapng_of_two_link_types_is_whole_as_pcapng() {
    skip_unless!(mount);
    let interfaces = [interface("eth0", 1, 1_000_000_000), interface("tun0", 101, 1_000_000_000)];
    let packets: Vec<NgPacket> = (1..=20)
        .map(|sequence: u64| {
            let cooked = sequence.is_multiple_of(2);
            NgPacket {
                interface: u32::from(cooked),
                timestamp: timestamp(sequence),
                data: frame::ethernet(sequence, 50).split_off(if cooked { 14 } else { 0 }),
            }
        })
        .collect();
    let bytes = pcapng(&interfaces, &packets);
    let filed = Filed::new(&bytes, &[]);
    let wanted = packets_by(&mut NgParser::default(), &bytes);
    let served = packets_of("x.pcapng", &filed.read("replay.pcapng"));
    let status = filed.daemon.status(ALIAS);
    assert!(served == wanted, "{} of {} packets; {status:#}", served.len(), wanted.len());
    // A pcap has one link type: that of the first packet.
    let plain = packets_of("x.pcap", &filed.read("replay.pcap"));
    assert!(plain.iter().all(|packet| packet.1 == 1), "{plain:?}");
    let numbers = check_prefix(&filed.read("replay.pcap")).unwrap().sequences;
    assert_eq!(numbers, Vec::from_iter((1..=20).step_by(2)));
}

/// Writes a savefile of `count` packets of 64 KiB of zeros, which take no room on the disk.
fn sparse(path: &Path, count: u64) -> u64 {
    let format = Format::default();
    let mut file = File::create(path).unwrap();
    file.write_all(&format.header()).unwrap();
    let record = 16 + (1 << 16);
    for sequence in 0..count {
        let mut header = Vec::new();
        format.append(&mut header, timestamp(sequence), &[], 1 << 16);
        header[8..12].copy_from_slice(&(1u32 << 16).to_le_bytes());
        file.seek(SeekFrom::Start(24 + sequence * record)).unwrap();
        file.write_all(&header).unwrap();
    }
    let size = 24 + count * record;
    file.set_len(size).unwrap();
    size
}

#[test]
fn a_savefile_is_mapped_and_not_copied() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large.pcap");
    let size = sparse(&path, 3_200);
    assert!(size > 200_000_000);
    let rings = folder.path().join("rings");
    let daemon = Mount::new().ring_dir(&rings).arg("-r").arg(&path).start();
    daemon.wait_state("large", "ended");
    assert_eq!(daemon.count("large", "/packets/retained"), 3_200);
    assert_eq!(daemon.count("large", "/bytes/retained"), size - 24);
    let replay = daemon.path("large/replay.pcap");
    assert_eq!(fs::metadata(&replay).unwrap().size(), size);
    let same = run(tool("cmp").args([&replay, &path]), 30);
    assert!(same.status.success(), "{same:?}");

    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
    let mapped: Vec<&str> =
        maps.lines().filter(|line| line.ends_with(path.to_str().unwrap())).collect();
    assert!(!mapped.is_empty(), "{maps}");
    assert!(mapped.iter().all(|line| !line.contains(" rw")), "not for writing: {mapped:?}");
    assert!(!rings.exists(), "no ring is made");
    assert!(!maps.contains(".ring"), "{maps}");
    let memory = anonymous_memory(daemon.pid());
    assert!(memory < 32 << 20, "{memory} bytes of memory of its own");
    assert!(
        fs::metadata(&path).unwrap().blocks() * 512 < size / 4,
        "this test's file is not sparse"
    );
}

#[test]
fn a_savefile_cut_short_gives_every_whole_record_and_says_so() {
    skip_unless!(mount);
    let whole = numbered(Format::default(), 10, 100);
    let record = (whole.len() - 24) / 10;
    for cut in [1, 8, 15, 16, 17, 100, record - 1] {
        let end = 24 + 7 * record + cut;
        let filed = Filed::new(&whole[..end], &[]);
        for name in ["replay.pcap", "replay.pcapng", "follow.pcap"] {
            let prefix = check_prefix(&filed.read(name)).unwrap();
            assert_eq!(prefix.whole(), Vec::from_iter(1..=7), "{name}, {cut} bytes of the eighth");
        }
        let status = filed.daemon.status(ALIAS);
        assert_eq!(status["packets"]["stored"], 7);
        let error = status["error"].as_str().expect("a reason");
        assert!(error.contains("cut short"), "{error}");
    }
    // Nothing to say about one that ends where a record ends, or holds none.
    for count in [0, 7] {
        let filed = Filed::new(&whole[..24 + count * record], &[]);
        assert_eq!(filed.daemon.status(ALIAS)["error"], Value::Null);
        assert_eq!(check_prefix(&filed.read("replay.pcap")).unwrap().whole().len(), count);
    }
}

#[test]
fn a_pcapng_cut_short_gives_every_whole_block_and_says_so() {
    skip_unless!(mount);
    let packets: Vec<NgPacket> = (1..=5)
        .map(|sequence| NgPacket {
            interface: 0,
            timestamp: timestamp(sequence),
            data: frame::ethernet(sequence, 58),
        })
        .collect();
    let bytes = pcapng(&[interface("eth0", 1, 1_000_000_000)], &packets);
    let block = 32 + 100;
    for cut in [3, 8, 20, 60, block - 1] {
        let filed = Filed::new(&bytes[..bytes.len() - cut], &[]);
        let prefix = check_prefix(&filed.read("replay.pcapng")).unwrap();
        assert_eq!(prefix.whole(), [1, 2, 3, 4], "without the last {cut} bytes");
        let error = filed.daemon.status(ALIAS)["error"].clone();
        assert!(error.as_str().is_some_and(|error| error.contains("cut short")), "{error}");
    }
}

#[test]
fn a_savefile_truncated_while_it_is_mounted_is_an_error_and_not_the_end() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    let (path, other) = (folder.path().join("web.pcap"), folder.path().join("other.pcap"));
    let bytes = numbered(Format::default(), 40_000, 200);
    fs::write(&path, &bytes).unwrap();
    fs::write(&other, numbered(Format::default(), 10, 200)).unwrap();
    let daemon = Mount::new().arg("-r").arg(&path).arg("-r").arg(&other).start();
    daemon.wait_state(ALIAS, "ended");
    let open = File::open(daemon.path("web/replay.pcap")).unwrap();
    let mut start = vec![0; 100];
    open.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(start, bytes[..100]);

    File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let mut part = vec![0; 4096];
    for file in ["replay.pcap", "replay.pcapng"] {
        let reopened = File::open(daemon.path(ALIAS).join(file)).unwrap();
        let error = reopened.read_at(&mut part, 8_000_000).expect_err("what is gone");
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{file}: {error}");
    }
    let error = open.read_at(&mut part, 5_000_000).expect_err("what is gone");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    let cat = run(tool("cat").arg(daemon.path("web/follow.pcap")), 5);
    assert_eq!(cat.status.code(), Some(1), "{}", cat.stderr);
    assert!(cat.stderr.contains("Input/output error"), "{}", cat.stderr);
    check_prefix(&cat.stdout).unwrap_or_else(|error| panic!("up to there: {error}"));

    let status = daemon.status(ALIAS);
    let said = status["error"].as_str().unwrap_or_else(|| panic!("no reason: {status:#}"));
    assert!(said.contains("web.pcap"), "{said}");
    let fine = fs::read(daemon.path("other/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&fine).unwrap().whole(), Vec::from_iter(1..=10));
}

#[test]
fn a_savefile_that_goes_on_growing_or_is_removed_stays_what_it_was() {
    skip_unless!(mount);
    let filed = Filed::new(&numbered(Format::default(), 50, 100), &[]);
    let before = filed.read("replay.pcap");
    let mut more = Vec::new();
    append_numbered(&mut more, Format::default(), 51, 100);
    OpenOptions::new().append(true).open(&filed.path).unwrap().write_all(&more).unwrap();
    assert_eq!(filed.read("replay.pcap"), before);
    fs::remove_file(&filed.path).unwrap();
    assert_eq!(filed.read("replay.pcap"), before);
}

// FIFOs and standard input.

/// A tcpdump in `net.a` that writes into the FIFO.
fn tcpdump_into(net: &Net, fifo: &Fifo) -> Running {
    let tcpdump = net.a.run(|| {
        Running::spawn(
            tool("tcpdump")
                .args(["-i", Net::DEVICE, "-U", "-B", "16384", "-s", "0", "-Z", "root"])
                .args(["--time-stamp-precision=nano", "-w"])
                .arg(fifo.path())
                .args(["udp port 40001"]),
        )
    });
    wait_until("tcpdump listens", 5, || tcpdump.stderr().contains("listening on"));
    tcpdump
}

#[test]
fn tcpdump_into_a_fifo_runs_on_with_nobody_reading() {
    skip_unless!(root, "tcpdump");
    let (net, fifo) = (Net::new(), Fifo::new());
    let daemon = Mount::new().ring("4M").capture(ALIAS, &fifo.source()).start();
    assert_eq!(daemon.status(ALIAS)["state"], "pending", "nobody has written yet");
    let mut first = tcpdump_into(&net, &fifo);
    daemon.wait_state(ALIAS, "running");
    // Twenty times the largest pipe there is, and five times the ring.
    let traffic = Traffic::start(net.sender(1_000), 12_000, 20_000);
    let sender = traffic.finish();
    daemon.wait_stored(ALIAS, 20_000);
    assert!(first.try_wait().is_none(), "tcpdump has ended: {}", first.stderr());
    assert!(daemon.count(ALIAS, "/packets/overwritten") > 0);
    let live = StreamReader::open(&daemon.path("web/live.pcap"), Pace::FAST);

    // The writer leaves, another one comes: the same capture, the same readers.
    first.signal(Signal::SIGINT);
    assert!(first.wait(5).success(), "{}", first.stderr());
    assert!(first.stderr().contains("20000 packets captured"), "{}", first.stderr());
    let mut second = tcpdump_into(&net, &fifo);
    let mut sender = sender;
    sender.send(100);
    daemon.wait_stored(ALIAS, 20_100);
    let seen = live.wait_last(20_100).seen;
    assert_eq!((seen.first, seen.missing), (20_001, 0), "{seen:?}");
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    let prefix = check_prefix(&bytes).unwrap();
    assert_eq!(prefix.seen.last, 20_100);
    assert_eq!(prefix.seen.missing, 0, "one run over both writers");
    assert_eq!(daemon.count(ALIAS, "/ring/next_number"), 20_101);
    second.signal(Signal::SIGINT);
    assert!(second.wait(5).success());
}

#[test]
fn half_a_record_of_a_writer_that_left_is_dropped() {
    skip_unless!(mount);
    let mut fed = Fed::holding(10);
    let live = StreamReader::open(&fed.daemon.path("web/live.pcap"), Pace::FAST);
    let mut sent = 10;
    for cut in [1, 15, 16, 17, 200] {
        let mut record = Vec::new();
        append_numbered(&mut record, Format::default(), sent + 1, 200);
        fed.feed.write(&record[..cut]);
        drop(fed.feed);
        // Whoever comes next may write another variety.
        let format = Format { big_endian: cut % 2 == 0, ..Format::default() };
        wait_until("the daemon says what was left out", 5, || {
            fed.daemon.status(ALIAS)["error"].is_string()
        });
        fed.feed = fed.fifo.connect_as(format).after(sent);
        fed.feed.send(10, 200);
        sent += 10;
        fed.daemon.wait_stored(ALIAS, sent);
        assert_eq!(fed.daemon.status(ALIAS)["state"], "running");
        assert_eq!(fed.daemon.status(ALIAS)["error"], Value::Null, "all is well again");
    }
    let seen = live.wait_last(sent).seen;
    assert_eq!((seen.first, seen.missing), (11, 0));
    let bytes = fs::read(fed.daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=sent));
}

#[test]
fn nonsense_in_a_fifo_is_said_and_the_next_writer_heard() {
    skip_unless!(mount);
    let mut fed = Fed::holding(10);
    drop(fed.feed);
    let mut nonsense =
        OpenOptions::new().write(true).open(fed.fifo.path()).expect("the daemon reads");
    nonsense.write_all(b"these are words and no packets at all").unwrap();
    drop(nonsense);
    wait_until("the daemon says so", 5, || fed.daemon.status(ALIAS)["error"].is_string());
    fed.feed = fed.fifo.connect().after(10);
    fed.feed.send(10, 200);
    fed.daemon.wait_stored(ALIAS, 20);
    let bytes = fs::read(fed.daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=20));
}

#[test]
fn a_fifo_takes_pcapng_and_many_writers() {
    skip_unless!(mount);
    let fifo = Fifo::new();
    let daemon = Mount::new().capture(ALIAS, &fifo.source()).start();
    let mut sent = 0;
    for _ in 0..20 {
        let packets: Vec<NgPacket> = (sent + 1..=sent + 5)
            .map(|sequence| NgPacket {
                interface: 0,
                timestamp: timestamp(sequence),
                data: frame::ethernet(sequence, 77),
            })
            .collect();
        let bytes = pcapng(&[interface("far0", 1, 1_000_000_000)], &packets);
        OpenOptions::new().write(true).open(fifo.path()).unwrap().write_all(&bytes).unwrap();
        sent += 5;
        daemon.wait_stored(ALIAS, sent);
    }
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=sent));
}

#[test]
fn standard_input_from_a_file_and_from_a_pipe() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("trace.pcap");
    fs::write(&path, numbered(Format::default(), 500, 100)).unwrap();
    let daemon = Mount::new().stdin(File::open(&path).unwrap()).capture(ALIAS, "-").start();
    daemon.wait_state(ALIAS, "ended");
    let bytes = fs::read(daemon.path("web/follow.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=500));

    let (reader, mut writer) = std::io::pipe().unwrap();
    let daemon = Mount::new().stdin(reader).capture(ALIAS, "-").start();
    assert_eq!(daemon.status(ALIAS)["state"], "pending");
    let bytes = numbered(Format::default(), 100, 100);
    let (first, second) = bytes.split_at(24 + 40 * (16 + 142) + 33);
    writer.write_all(first).unwrap();
    daemon.wait_stored(ALIAS, 40);
    let live = StreamReader::open(&daemon.path("web/live.pcap"), Pace::FAST);
    assert_eq!(daemon.status(ALIAS)["state"], "running");
    writer.write_all(second).unwrap();
    drop(writer);
    let seen = live.wait_end().seen;
    assert_eq!((seen.first, seen.count), (41, 60), "{seen:?}");
    assert_eq!(daemon.status(ALIAS)["state"], "ended");
    assert_eq!(daemon.count(ALIAS, "/packets/stored"), 100);
}

// Filters and snaplen.

#[test]
fn filters_choose_in_savefiles_and_streams() {
    skip_unless!(mount);
    let mut bytes = Format::default().header();
    let mut wanted = Vec::new();
    for sequence in 1..=50 {
        let mut data = frame::ethernet(sequence, 60);
        if sequence % 3 == 0 {
            data[36..38].copy_from_slice(&53u16.to_be_bytes());
            wanted.push(data.clone());
        }
        Format::default().append(&mut bytes, timestamp(sequence), &data, data.len());
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.pcap");
    fs::write(&path, &bytes).unwrap();
    let source = format!("file:{} udp dst port 53", path.display());
    let by_capture = Mount::new().capture(ALIAS, &source).start();
    let by_flag = Mount::new().arg("-r").arg(&path).args(["-f", "udp dst port 53"]).start();
    let piped = File::open(&path).unwrap();
    let by_stream = Mount::new().stdin(piped).capture(ALIAS, "- udp dst port 53").start();
    for daemon in [&by_capture, &by_flag, &by_stream] {
        daemon.wait_state(ALIAS, "ended");
        let served = fs::read(daemon.path("web/replay.pcap")).unwrap();
        assert_eq!(frames(&served), wanted);
        assert_eq!(daemon.count(ALIAS, "/packets/seen"), wanted.len() as u64);
    }
}

#[test]
fn snaplen_cuts_what_is_kept_and_not_what_is_said() {
    skip_unless!(root);
    let net = Net::new();
    let fifo = Fifo::new();
    let daemon = Mount::new()
        .inside(&net.a)
        .args(["--snaplen", "96"])
        .capture("wire", Net::DEVICE)
        .capture("pipe", &fifo.source())
        .start();
    daemon.wait_state("wire", "running");
    net.sender(1_000).send(20);
    let mut feed = fifo.connect();
    feed.send(20, 1_000);
    for alias in ["wire", "pipe"] {
        daemon.wait_stored(alias, 20);
        assert_eq!(daemon.status(alias)["snaplen"], 96);
        for name in ["replay.pcap", "replay.pcapng"] {
            let bytes = fs::read(daemon.path(alias).join(name)).unwrap();
            assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=20));
            for (.., length, data) in packets_of(name, &bytes) {
                assert_eq!((length, data.len()), (1_042, 96), "{name} of {alias}");
            }
        }
    }
}

// VLAN tags.

/// A frame to or from TCP port `port` with these tags: protocol and control information each.
fn tcp(tags: &[(u16, u16)], port: u16, mark: u8) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for (protocol, control) in tags {
        bytes.extend(protocol.to_be_bytes());
        bytes.extend(control.to_be_bytes());
    }
    bytes.extend([8, 0, 0x45, 0, 0, 60, 0, mark, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(40_000u16.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]);
    bytes.extend([mark; 20]);
    bytes
}

/// Each way to be tagged, to port 80 (wanted) and to port 81 (not wanted), in turn.
fn tagged() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (q, ad) = (0x8100, 0x88a8);
    let ways: [&[(u16, u16)]; 6] =
        [&[], &[(q, 7)], &[(q, 0xa000)], &[(q, 4094)], &[(ad, 5), (q, 7)], &[(q, 5), (q, 7)]];
    let (mut all, mut wanted) = (Vec::new(), Vec::new());
    for (mark, tags) in (1..).zip(ways) {
        all.push(tcp(tags, 81, mark));
        wanted.push(tcp(tags, 80, mark));
        all.extend(wanted.last().cloned());
    }
    (all, wanted)
}

/// Sends frames as they are, in `b`.
fn send_raw(net: &Net, frames: &[Vec<u8>]) {
    const PROGRAM: &str = "
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]:
    s.send(bytes.fromhex(frame))
";
    let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut command = python(PROGRAM);
    command.arg(Net::PEER).args(frames.iter().map(hex));
    let _ = net.b.run(|| run(&mut command, 10)).success();
}

#[test]
fn tagged_frames_match_on_an_interface() {
    skip_unless!(root, "python3");
    let net = Net::new();
    let captures = [
        ("web", "wire-a tcp port 80"),
        ("seven", "wire-a vlan 7"),
        ("not", "wire-a not tcp port 80 and tcp"),
        ("all", "wire-a"),
    ];
    let mut mount = Mount::new().inside(&net.a);
    for (alias, source) in captures {
        mount = mount.capture(alias, source);
    }
    let daemon = mount.start();
    for (alias, _) in captures {
        daemon.wait_state(alias, "running");
    }
    let (all, wanted) = tagged();
    send_raw(&net, &all);
    let stored = |alias: &str| {
        daemon.wait_stored(alias, all.len() as u64);
        frames(&fs::read(daemon.path(alias).join("replay.pcap")).unwrap())
    };
    assert_eq!(stored("all"), all, "frames are as they were sent, tags in their place");
    // One ring is full of them, so the kernel has put them before every capture's filter; what
    // the others got is there once a last packet that each of them wants is.
    let served = |alias: &str, count: usize| {
        daemon.wait_stored(alias, count as u64);
        frames(&fs::read(daemon.path(alias).join("replay.pcap")).unwrap())
    };
    assert_eq!(served("web", wanted.len()), wanted);
    let seven: Vec<Vec<u8>> =
        all.iter().filter(|frame| frame[12..16] == [0x81, 0, 0, 7]).cloned().collect();
    assert_eq!(served("seven", 2), seven, "a filter that speaks of tags is taken as it stands");
    let not: Vec<Vec<u8>> = all.iter().filter(|frame| !wanted.contains(frame)).cloned().collect();
    assert_eq!(served("not", not.len()), not, "and what is not wanted is not, tagged or not");
}

#[test]
fn tagged_frames_match_in_savefiles_and_streams() {
    skip_unless!(mount);
    let (all, wanted) = tagged();
    let mut bytes = Format::default().header();
    for (sequence, frame) in (1..).zip(&all) {
        Format::default().append(&mut bytes, timestamp(sequence), frame, frame.len());
    }
    let filed = Filed::new(&bytes, &["-f", "tcp port 80"]);
    assert_eq!(frames(&filed.read("replay.pcap")), wanted);
    let input = File::open(&filed.path).unwrap();
    let daemon = Mount::new().stdin(input).capture(ALIAS, "- tcp port 80").start();
    daemon.wait_state(ALIAS, "ended");
    assert_eq!(frames(&fs::read(daemon.path("web/replay.pcap")).unwrap()), wanted);
    let not = Filed::new(&bytes, &["-f", "not tcp port 80"]);
    let others: Vec<Vec<u8>> =
        all.iter().filter(|frame| !wanted.contains(frame)).cloned().collect();
    assert_eq!(frames(&not.read("replay.pcap")), others);
}

// Other projects' captures.

/// Savefiles below a folder, in order, none larger than 4 MB.
fn savefiles(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            savefiles(&path, found);
        } else if path.extension().is_some_and(|end| end == "pcap" || end == "pcapng")
            && (1..4_000_000).contains(&entry.metadata().unwrap().len())
        {
            found.push(path);
        }
    }
}

/// What tcpdump makes of a savefile: every packet's time to the nanosecond, lengths and bytes.
fn dumped(path: &Path) -> Finished {
    run(
        tool("tcpdump")
            .args(["--time-stamp-precision=nano", "-nn", "-tt", "-e", "-xx", "-r"])
            .arg(path),
        20,
    )
}

#[test]
fn captures_of_other_projects_read_the_same() {
    skip_unless!(mount, "tcpdump", "capinfos");
    let Some(folder) = testdata("") else { return };
    let mut sample = Vec::new();
    for entry in fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let mut found = Vec::new();
        savefiles(&entry.path(), &mut found);
        let every = found.len().div_ceil(8).max(1);
        let special = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.contains("nanosec") || name.contains("bigendian") || name.contains("sll2")
        };
        sample.extend(found.iter().filter(|path| special(path)).cloned());
        sample.extend(found.into_iter().step_by(every).filter(|path| !special(path)));
    }
    // Some are broken from the start: whatever libpcap opens is looked at.
    let sample: Vec<(PathBuf, Finished)> = sample
        .into_iter()
        .map(|path| (path.clone(), dumped(&path)))
        .filter(|(_, dump)| dump.stderr.contains("reading from file"))
        .collect();
    assert!(sample.len() >= 30, "only {} savefiles", sample.len());

    let mut mount = Mount::new();
    for (index, (path, _)) in sample.iter().enumerate() {
        mount = mount.capture(&format!("s{index}"), &format!("file:{}", path.display()));
    }
    let daemon = mount.start();
    let mut wrong = Vec::new();
    for (index, (path, original)) in sample.iter().enumerate() {
        let alias = format!("s{index}");
        daemon.wait_state(&alias, "ended");
        let served = dumped(&daemon.path(&alias).join("replay.pcap"));
        if served.stdout != original.stdout {
            wrong.push(format!(
                "{}: tcpdump prints {} lines, of the file itself {}; {} / {}",
                path.display(),
                served.text().lines().count(),
                original.text().lines().count(),
                served.stderr,
                original.stderr,
            ));
        }
        if original.status.success() {
            let counted = run(tool("capinfos").args(["-T", "-r", "-c", "-M"]).arg(path), 20);
            let count = counted.text().trim().rsplit('\t').next().unwrap_or("").to_owned();
            let stored = daemon.count(&alias, "/packets/stored").to_string();
            if count != stored {
                wrong.push(format!("{}: {stored} packets, not {count}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), sample.len(), wrong.join("\n"));
}

/// Lines that begin with a time, those that no record can hold (32 bits of seconds) made one: a
/// capture here has packets of the year 586524.
fn sensible(dump: &Finished) -> Vec<String> {
    let line = |line: &str| {
        let (time, rest) = line.split_once('\t').expect("several fields");
        let seconds: u64 = time.split('.').next().unwrap().parse().expect("seconds");
        let time = if seconds >= u64::from(u32::MAX) { "never" } else { time };
        format!("{time} {rest}")
    };
    dump.text().lines().map(line).collect()
}

#[test]
fn pcapng_of_other_projects_reads_the_same() {
    skip_unless!(mount, "tshark");
    let Some(folder) = testdata("") else { return };
    let mut found = Vec::new();
    savefiles(&folder, &mut found);
    // By what they are: some are called so and are pcap.
    found.retain(|path| fs::read(path).unwrap().starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]));
    let tshark = |path: &Path| {
        let fields = ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_name"];
        let mut command = tool("tshark");
        command.args(["-n", "-T", "fields"]).args(fields.iter().flat_map(|name| ["-e", *name]));
        run(command.args(["--disable-protocol", "ip", "-r"]).arg(path), 20)
    };
    let mut mount = Mount::new();
    for (index, path) in found.iter().take(8).enumerate() {
        mount = mount.capture(&format!("s{index}"), &format!("file:{}", path.display()));
    }
    let daemon = mount.start();
    let mut wrong = Vec::new();
    for (index, path) in found.iter().take(8).enumerate() {
        let alias = format!("s{index}");
        daemon.wait_state(&alias, "ended");
        let original = tshark(path);
        let served = tshark(&daemon.path(&alias).join("replay.pcapng"));
        assert!(!original.stdout.is_empty(), "{}: {}", path.display(), original.stderr);
        if sensible(&served) != sensible(&original) {
            let [served, original] = [&served, &original].map(|dump| dump.text().lines().count());
            wrong.push(format!("{}: {served} of {original} packets", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
