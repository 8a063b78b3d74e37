//! FIFOs and standard input.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use frames::pcapng::{CUSTOM, block};
use nix::sys::signal::Signal;
use pcapfs_tests::savefile::{
    Format, NgPacket, append_numbered, check_prefix, numbered, pcapng, timestamp,
};
use pcapfs_tests::{
    ALIAS, Fed, Fifo, Mount, Net, Pace, Running, StreamReader, Traffic, frame, skip_unless, tool,
    wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Filed, interface, talkative};

/// Runs a tcpdump in `net.a` that writes into the FIFO.
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
fn tcpdump_into_a_fifo_runs_on_without_readers() {
    skip_unless!(root, "tcpdump");
    let (net, fifo) = (Net::new(), Fifo::new());
    let daemon = Mount::new().ring("4M").capture(ALIAS, &fifo.source()).start();
    assert_eq!(daemon.status(ALIAS)["state"], "pending", "no program has written yet");
    let mut first = tcpdump_into(&net, &fifo);
    daemon.wait_state(ALIAS, "running");
    // Twenty times the largest possible pipe, and five times the ring.
    let traffic = Traffic::start(net.sender(1_000), 12_000, 20_000);
    let sender = traffic.finish();
    daemon.wait_stored(ALIAS, 20_000);
    assert!(first.try_wait().is_none(), "tcpdump has ended: {}", first.stderr());
    assert!(daemon.count(ALIAS, "/packets/overwritten") > 0);
    let live = StreamReader::open(&daemon.path("web/live.pcap"), Pace::FAST);

    // The writer leaves and another one comes. The capture and its readers go on.
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
        // The next writer may use another byte order.
        let format = Format { big_endian: cut % 2 == 0, ..Format::default() };
        wait_until("the daemon reports the omitted packets", 5, || {
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
fn garbage_in_a_fifo_is_reported_and_the_next_writer_read() {
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
fn a_fifo_accepts_pcapng_and_many_writers() {
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

/// Checks that seeking to any position reads the same bytes as reading the file from its start.
#[track_caller]
fn check_seeks(path: &Path, whole: &[u8]) {
    let file = File::open(path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), whole.len() as u64);
    for at in (0..whole.len()).rev() {
        let mut bytes = vec![0; 100.min(whole.len() - at)];
        file.read_exact_at(&mut bytes, at as u64).unwrap();
        assert!(bytes[..] == whole[at..at + bytes.len()], "at {at}");
    }
}

#[test]
fn a_pcapng_stream_keeps_its_blocks_and_options() {
    skip_unless!(mount);
    let bytes = talkative();
    let filed = Filed::new(&bytes, &[]);
    let wanted = filed.read("replay.pcapng");
    assert!(wanted.windows(7).any(|part| part == b"as it i"), "a savefile has it");

    let fifo = Fifo::new();
    let (mount, folder) = (|| Mount::new().capture(ALIAS, &fifo.source()), TempDir::new().unwrap());
    let daemon = mount().ring_dir(folder.path()).start();
    OpenOptions::new().write(true).open(fifo.path()).unwrap().write_all(&bytes).unwrap();
    daemon.wait_stored(ALIAS, 3);
    let path = daemon.path("web/replay.pcapng");
    assert!(fs::read(&path).unwrap() == wanted, "from a FIFO");
    check_seeks(&path, &wanted);
    assert_eq!(daemon.status(ALIAS)["error"], Value::Null);
    let copy = folder.path().join("copy.pcapng");
    daemon.verb(["replay", ALIAS, "-w", copy.to_str().unwrap()]);
    assert!(fs::read(&copy).unwrap() == wanted, "in a copy");

    // The next daemon finds them in the ring.
    drop(daemon);
    let daemon = mount().ring_dir(folder.path()).start();
    let path = daemon.path("web/replay.pcapng");
    assert!(fs::read(&path).unwrap() == wanted, "from the ring");
    check_seeks(&path, &wanted);

    let input = folder.path().join("input.pcapng");
    fs::write(&input, &bytes).unwrap();
    let daemon = Mount::new().stdin(File::open(&input).unwrap()).capture(ALIAS, "-").start();
    daemon.wait_state(ALIAS, "ended");
    assert!(fs::read(daemon.path("web/replay.pcapng")).unwrap() == wanted, "from standard input");
    assert_eq!(daemon.status(ALIAS)["error"], Value::Null);
    // In this file, statistics of the stream follow.
    assert!(fs::read(daemon.path("web/follow.pcapng")).unwrap().starts_with(&wanted));
}

#[test]
fn a_block_that_no_packet_of_standard_input_follows_is_at_the_end() {
    skip_unless!(mount);
    let behind = block(CUSTOM, b"\xd9\x7e\0\0behind");
    let bytes = [talkative(), behind.clone()].concat();
    let folder = TempDir::new().unwrap();
    let input = folder.path().join("input.pcapng");
    fs::write(&input, &bytes).unwrap();
    let daemon = Mount::new().stdin(File::open(&input).unwrap()).capture(ALIAS, "-").start();
    daemon.wait_state(ALIAS, "ended");
    assert_eq!(daemon.status(ALIAS)["error"], Value::Null);
    let path = daemon.path("web/replay.pcapng");
    let replay = fs::read(&path).unwrap();
    assert!(replay.ends_with(&behind), "{replay:?}");
    assert_eq!(fs::metadata(&path).unwrap().len(), replay.len() as u64);
    check_seeks(&path, &replay);
    let follow = fs::read(daemon.path("web/follow.pcapng")).unwrap();
    // Statistics of the stream come after it.
    assert!(follow.starts_with(&replay) && follow.len() > replay.len());
}
