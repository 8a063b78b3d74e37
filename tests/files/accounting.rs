//! The three equations hold whenever they are read.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pcapfs_tests::savefile::{Format, Parser, PcapParser, check_prefix, timestamp};
use pcapfs_tests::{
    ALIAS, Daemon, Emit, Fed, Fifo, Mount, Net, Pace, StreamReader, Traffic, Wired, run,
    skip_unless, tool, wait_until,
};
use serde_json::Value;

#[track_caller]
fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {value:#}"))
}

/// Checks the equations within one reading of a capture's `status.json`.
fn check_status(status: &Value) -> Result<(), String> {
    let of = |pointer: &str| number(status, pointer);
    let dropped =
        of("/packets/excluded") + of("/packets/dropped_kernel") + of("/packets/dropped_oversize");
    let wrong = |what: &str| Err(format!("{what}: {status:#}"));
    if of("/packets/seen") != of("/packets/stored") + dropped {
        return wrong("seen is not stored, excluded and dropped");
    }
    if of("/packets/stored") != of("/packets/retained") + of("/packets/overwritten") {
        return wrong("stored is not retained and overwritten");
    }
    if of("/ring/next_number") != of("/ring/first_number") + of("/packets/retained") {
        return wrong("the numbers are not those of the retained packets");
    }
    if of("/bytes/stored") < of("/bytes/retained") || of("/ring/used") > of("/ring/segments") {
        return wrong("more than there can be");
    }
    Ok(())
}

/// Numbers of one capture that never fall.
const RISING: [&str; 9] = [
    "/packets/seen",
    "/packets/stored",
    "/packets/excluded",
    "/packets/dropped_kernel",
    "/packets/dropped_oversize",
    "/packets/overwritten",
    "/bytes/stored",
    "/readers/delivered",
    "/readers/lost",
];

/// A thread that reads `status.json` and `readers.jsonl` all the time and checks every reading.
struct Auditor {
    thread: JoinHandle<Result<(), String>>,
    stop: Arc<AtomicBool>,
    readings: Arc<AtomicU64>,
}

impl Auditor {
    /// `openers` gives for each file the number of stored packets that its readers cannot have: for
    /// `live` those stored before they opened it, for `follow` those overwritten by then.
    fn start(daemon: &Daemon, alias: &str, openers: &[(&'static str, u64)]) -> Self {
        let folder: PathBuf = daemon.path(alias);
        let (stop, readings) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let openers = openers.to_vec();
        let thread = thread::spawn({
            let (stop, readings) = (Arc::clone(&stop), Arc::clone(&readings));
            move || {
                let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
                let status = || -> Value { serde_json::from_str(&read("status.json")).unwrap() };
                let mut before = status();
                check_status(&before)?;
                while !stop.load(Ordering::Relaxed) {
                    let readers = read("readers.jsonl");
                    let after = status();
                    check_status(&after)?;
                    for pointer in RISING {
                        if number(&after, pointer) < number(&before, pointer) {
                            return Err(format!("{pointer} falls from {before:#} to {after:#}"));
                        }
                    }
                    let stored =
                        number(&before, "/packets/stored")..=number(&after, "/packets/stored");
                    for line in readers.lines() {
                        let reader: Value = serde_json::from_str(line)
                            .map_err(|error| format!("{error}: {line}"))?;
                        let sum: u64 = ["/delivered_packets", "/lost_packets", "/lag_packets"]
                            .map(|name| number(&reader, name))
                            .iter()
                            .sum();
                        let opener = openers.iter().find(|(file, _)| reader["file"] == *file);
                        if let Some((_, base)) = opener
                            && !stored.contains(&(sum + base))
                        {
                            return Err(format!("{sum} and {base}, not {stored:?}: {reader}"));
                        }
                    }
                    before = after;
                    readings.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
        });
        Self { thread, stop, readings }
    }

    /// Waits for `count` more readings, so that no verdict depends on one lucky reading.
    #[track_caller]
    fn wait(&self, count: u64) {
        let begin = self.readings.load(Ordering::Relaxed);
        wait_until("the auditor has read on", 20, || {
            self.thread.is_finished() || self.readings.load(Ordering::Relaxed) >= begin + count
        });
    }

    #[track_caller]
    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let readings = self.readings.load(Ordering::Relaxed);
        self.thread.join().unwrap().unwrap_or_else(|wrong| panic!("reading {readings}: {wrong}"));
        assert!(readings >= 20, "only {readings} readings");
    }
}

/// Two slow readers and a fast one of each kind of stream, opened before the first packet.
fn open_readers(daemon: &Daemon) -> Vec<StreamReader> {
    let mut readers = Vec::new();
    for file in ["live.pcap", "follow.pcap", "live.pcapng", "follow.pcapng"] {
        for pace in [Pace::slow(100, 2), Pace::slow(4096, 1), Pace::FAST] {
            readers.push(StreamReader::open(&daemon.path(ALIAS).join(file), pace));
        }
    }
    readers
}

const ALL: [(&str, u64); 4] =
    [("live.pcap", 0), ("follow.pcap", 0), ("live.pcapng", 0), ("follow.pcapng", 0)];

#[test]
fn equations_hold_on_a_wire_under_load_with_slow_readers() {
    skip_unless!(root);
    // Room for all that is sent: a pcapng stream says how many packets its reader lost, and the
    // readers here compare that with the numbers that are missing. What the kernel dropped would be
    // missing too.
    let wired = Wired::with(Mount::new().ring("1M").args(["--kernel-buffer", "64M"]));
    let readers = open_readers(&wired.daemon);
    let auditors = [(); 2].map(|()| Auditor::start(&wired.daemon, ALIAS, &ALL));
    let traffic = Traffic::start(wired.net.sender(900), 12_000, 18_000);
    let sent = traffic.finish().emitted();
    wait_until("all that was sent is accounted for", 10, || {
        wired.daemon.count(ALIAS, "/packets/seen") == sent
    });
    for auditor in auditors {
        auditor.wait(20);
        auditor.finish();
    }
    for reader in &readers {
        assert_eq!(reader.progress().end, None);
    }
    let lost = || -> u64 {
        wired.daemon.readers(ALIAS).iter().map(|one| number(one, "/lost_packets")).sum()
    };
    // Slow readers go on and learn what they lost, so the sum may grow between two queries.
    let before = wired.daemon.count(ALIAS, "/readers/lost");
    let sum = lost();
    let after = wired.daemon.count(ALIAS, "/readers/lost");
    assert!((before..=after).contains(&sum), "{before} <= {sum} <= {after}");
    assert!(lost() > 0, "no reader was overtaken");
    drop(readers);
}

#[test]
fn equations_hold_at_the_speed_of_a_fifo_with_clear_in_between() {
    skip_unless!(mount);
    let fed = Fed::with(Mount::new().ring("2M"));
    let readers = open_readers(&fed.daemon);
    let auditors = [(); 2].map(|()| Auditor::start(&fed.daemon, ALIAS, &ALL));
    let traffic = Traffic::start(fed.feed.with_payload(400), 40_000, 120_000);
    for round in 1..=8 {
        wait_until("more is stored", 10, || {
            fed.daemon.count(ALIAS, "/packets/stored") >= round * 8_000
        });
        fed.daemon.control(ALIAS, "clear").unwrap();
    }
    let sent = traffic.stop().emitted();
    fed.daemon.wait_stored(ALIAS, sent);
    assert_eq!(fed.daemon.count(ALIAS, "/packets/seen"), sent, "clear forgets no count");
    for auditor in auditors {
        auditor.wait(20);
        auditor.finish();
    }
    for reader in &readers {
        reader.set_pace(Pace::FAST);
    }
    wait_until("every reader is at the end", 10, || {
        fed.daemon.readers(ALIAS).iter().all(|reader| number(reader, "/lag_packets") == 0)
    });
    for reader in fed.daemon.readers(ALIAS) {
        let sum = number(&reader, "/delivered_packets") + number(&reader, "/lost_packets");
        assert_eq!(sum, sent, "{reader}");
    }
}

#[test]
fn equations_hold_after_clear_on_an_idle_capture() {
    skip_unless!(mount);
    let fed = Fed::holding(100);
    let reader = fs::File::open(fed.daemon.path("web/follow.pcap")).unwrap();
    let auditor = Auditor::start(&fed.daemon, ALIAS, &[("follow.pcap", 0)]);
    for _ in 0..20 {
        fed.daemon.control(ALIAS, "clear").unwrap();
    }
    wait_until("the ring is empty", 5, || fed.daemon.count(ALIAS, "/packets/retained") == 0);
    auditor.wait(20);
    auditor.finish();
    let told = fed.daemon.reader(ALIAS, "follow.pcap", 0);
    assert_eq!(number(&told, "/lost_packets") + number(&told, "/lag_packets"), 100, "{told}");
    let status = fed.daemon.status(ALIAS);
    assert_eq!(number(&status, "/packets/overwritten"), 100, "{status:#}");
    drop(reader);
}

#[test]
fn equations_hold_after_recovery() {
    skip_unless!(mount);
    let rings = tempfile::Builder::new().prefix("pcapfs-test-").tempdir_in("/dev/shm").unwrap();
    let fifo = Fifo::new();
    let start =
        || Mount::new().ring_dir(rings.path()).ring("1M").capture(ALIAS, &fifo.source()).start();
    let mut told: Option<Value> = None;
    for _ in 0..4 {
        let mut daemon = start();
        let recovered = daemon.status(ALIAS);
        check_status(&recovered).unwrap();
        if let Some(told) = &told {
            for name in
                ["/packets/stored", "/packets/seen", "/packets/overwritten", "/bytes/stored"]
            {
                let (now, then) = (number(&recovered, name), number(told, name));
                assert!(now >= then, "{name}: {now} after the kill, {then} before");
            }
        }
        // Packets before the first retained one count for no reader that opens now.
        let first = number(&recovered, "/packets/overwritten");
        let stored = number(&recovered, "/packets/stored");
        let follow = StreamReader::open(&daemon.path("web/follow.pcap"), Pace::slow(4096, 2));
        let live = StreamReader::open(&daemon.path("web/live.pcap"), Pace::slow(300, 1));
        let bases = [("follow.pcap", first), ("live.pcap", stored)];
        let auditor = Auditor::start(&daemon, ALIAS, &bases);
        let feed = fifo.connect().after(stored).with_payload(600);
        let traffic = Traffic::start(feed, 30_000, 15_000);
        let feed = traffic.finish();
        daemon.wait_stored(ALIAS, stored + 15_000);
        auditor.wait(20);
        auditor.finish();
        told = Some(daemon.status(ALIAS));
        daemon.kill9();
        drop((feed, follow, live));
    }
}

/// One record in the FIFO's format with `kept` bytes of data. Its time is its number.
fn large(sequence: u64, kept: usize) -> Vec<u8> {
    let format = Format::default();
    let mut bytes = Vec::new();
    format.append(&mut bytes, timestamp(sequence), &vec![0x5a; kept], kept);
    bytes
}

#[test]
fn packets_too_long_for_the_ring_are_counted() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().ring("512K"));
    let follow = fs::File::open(fed.daemon.path("web/follow.pcap")).unwrap();
    let auditor = Auditor::start(&fed.daemon, ALIAS, &[("follow.pcap", 0)]);
    let (mut small, mut oversize) = (0u64, 0u64);
    for _ in 0..20 {
        fed.feed.send(3, 200);
        small += 3;
        for _ in 0..2 {
            oversize += 1;
            fed.feed.write(&large(1_000 + oversize, 200_000));
        }
    }
    fed.daemon.wait_stored(ALIAS, small);
    wait_until("all are seen", 10, || fed.daemon.count(ALIAS, "/packets/seen") == small + oversize);
    let status = fed.daemon.status(ALIAS);
    assert_eq!(number(&status, "/packets/dropped_oversize"), oversize, "{status:#}");
    assert_eq!(number(&status, "/packets/dropped_kernel"), 0, "{status:#}");
    assert_eq!(number(&status, "/packets/retained"), small, "{status:#}");
    assert_eq!(status["state"], "running");
    auditor.wait(20);
    auditor.finish();
    // For readers such packets do not exist: they have no number and leave no gap.
    let bytes = fs::read(fed.daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=small));
    let told = fed.daemon.reader(ALIAS, "follow.pcap", 0);
    assert_eq!(number(&told, "/lost_packets"), 0, "{told}");
    assert_eq!(number(&told, "/lag_packets"), small, "{told}");
    drop(follow);
}

#[test]
fn oversize_is_remembered_over_a_kill() {
    skip_unless!(mount);
    let rings = tempfile::Builder::new().prefix("pcapfs-test-").tempdir_in("/dev/shm").unwrap();
    let fifo = Fifo::new();
    let start =
        || Mount::new().ring_dir(rings.path()).ring("512K").capture(ALIAS, &fifo.source()).start();
    let mut daemon = start();
    let mut feed = fifo.connect();
    feed.send(10, 200);
    for sequence in 0..7 {
        feed.write(&large(sequence, 200_000));
    }
    wait_until("all are seen", 10, || daemon.count(ALIAS, "/packets/seen") == 17);
    daemon.kill9();
    drop(feed);
    let daemon = start();
    let status = daemon.status(ALIAS);
    check_status(&status).unwrap();
    assert_eq!(number(&status, "/packets/seen"), 17, "{status:#}");
    assert_eq!(number(&status, "/packets/dropped_oversize"), 7, "{status:#}");
}

#[test]
fn large_packets_that_fit_are_kept_whole() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().ring("16M"));
    for sequence in 1..=40 {
        fed.feed.write(&large(sequence, 200_000));
    }
    fed.daemon.wait_stored(ALIAS, 40);
    assert_eq!(fed.daemon.count(ALIAS, "/packets/dropped_oversize"), 0);
    let bytes = fs::read(fed.daemon.path("web/replay.pcap")).unwrap();
    let mut parser = PcapParser::default();
    let mut times = Vec::new();
    parser
        .push(&bytes, &mut |record| {
            assert!(record.data.len() == 200_000 && record.data.iter().all(|&byte| byte == 0x5a));
            times.push(record.timestamp);
            Ok(())
        })
        .unwrap();
    assert_eq!(parser.rest(), b"");
    assert_eq!(times, (1..=40).map(timestamp).collect::<Vec<_>>());
    check_status(&fed.daemon.status(ALIAS)).unwrap();
}

/// Number of packets that the kernel has handed to the interface, by its own count.
fn received(net: &Net) -> u64 {
    let shown =
        run(tool("ip").args(["-n", net.a.name(), "-s", "-j", "link", "show", Net::DEVICE]), 5);
    let shown: Value = serde_json::from_str(shown.success().text()).unwrap();
    number(&shown, "/0/stats64/rx/packets")
}

#[test]
fn kernel_drops_are_counted_exactly() {
    skip_unless!(root, "ip");
    let wired = Wired::start();
    let before = received(&wired.net);
    let mut sender = wired.net.sender(1_400);
    wired.send(&mut sender, 100);
    let live = StreamReader::open(&wired.daemon.path("web/live.pcap"), Pace::FAST);

    // While the daemon is stopped, nothing empties the kernel's buffer.
    wired.daemon.signal(Signal::SIGSTOP);
    let begin = Instant::now();
    let mut burst = 0;
    while burst < 100_000 && begin.elapsed() < Duration::from_secs(3) {
        sender.send(500);
        burst += 500;
    }
    wired.daemon.signal(Signal::SIGCONT);
    let auditor = Auditor::start(&wired.daemon, ALIAS, &[("live.pcap", 100)]);
    let sent = sender.emitted();
    assert_eq!(received(&wired.net) - before, sent, "the veth itself has lost some");
    wait_until("all that was sent is seen", 10, || {
        wired.daemon.count(ALIAS, "/packets/seen") >= sent
    });
    auditor.wait(20);
    auditor.finish();
    let status = wired.daemon.status(ALIAS);
    assert_eq!(number(&status, "/packets/seen"), sent, "{status:#}");
    let dropped = number(&status, "/packets/dropped_kernel");
    assert!(dropped > 0, "the buffer held it all: {status:#}");
    assert_eq!(number(&status, "/packets/stored"), sent - dropped, "{status:#}");

    // The gap shows in the test's sequence numbers, and is no loss of any reader.
    wired.send(&mut sender, 10);
    let seen = live.wait_last(sent + 10).seen;
    assert_eq!((seen.first, seen.missing), (101, dropped), "{seen:?}");
    let told = wired.daemon.reader(ALIAS, "live.pcap", 0);
    assert_eq!(number(&told, "/lost_packets"), 0, "{told}");
}

#[test]
fn kernel_drops_are_remembered_over_a_stop_and_a_kill() {
    skip_unless!(root);
    let rings = tempfile::Builder::new().prefix("pcapfs-test-").tempdir_in("/dev/shm").unwrap();
    let net = Net::new();
    let start = || {
        let mount = Mount::new().ring_dir(rings.path()).inside(&net.a);
        let daemon = mount.capture(ALIAS, Net::DEVICE).start();
        daemon.wait_state(ALIAS, "running");
        daemon
    };
    let mut sender = net.sender(1_400);
    // Makes the kernel drop some of the packets sent. Returns the status once all of them are
    // accounted for.
    let mut flood = |daemon: &Daemon| {
        let (begin, before) = (daemon.status(ALIAS), sender.emitted());
        daemon.signal(Signal::SIGSTOP);
        for _ in 0..200 {
            sender.send(500);
        }
        daemon.signal(Signal::SIGCONT);
        let seen = number(&begin, "/packets/seen") + sender.emitted() - before;
        wait_until("all that was sent is seen", 10, || {
            daemon.count(ALIAS, "/packets/seen") == seen
        });
        let end = daemon.status(ALIAS);
        check_status(&end).unwrap();
        let dropped = |status: &Value| number(status, "/packets/dropped_kernel");
        assert!(dropped(&end) > dropped(&begin), "the buffer held it all: {end:#}");
        end
    };
    let mut daemon = start();
    let first = flood(&daemon);
    daemon.control(ALIAS, "stop").unwrap();
    daemon.wait_state(ALIAS, "stopped");
    daemon.control(ALIAS, "start").unwrap();
    daemon.wait_state(ALIAS, "running");
    let same = |daemon: &Daemon, told: &Value| {
        let now = daemon.status(ALIAS);
        check_status(&now).unwrap();
        assert_eq!(now["packets"], told["packets"], "{now:#}");
    };
    same(&daemon, &first);
    let second = flood(&daemon);
    daemon.kill9();
    let daemon = start();
    same(&daemon, &second);
    flood(&daemon);
}
