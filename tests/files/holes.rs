//! How pcapng streams report times in which nothing was captured.

use std::fs;
use std::path::Path;
use std::process::Command;

use pcapfs_tests::savefile::{NgParser, Parser, Seen, check_prefix};
use pcapfs_tests::{
    ALIAS, Daemon, Fifo, Finished, Mount, Net, Running, Wired, run, skip_unless, tool,
};
use serde_json::Value;
use tempfile::TempDir;

/// A hole as a stream reports it: the number of packets before it, its start and end, and its
/// cause.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    packets: u64,
    began: String,
    ended: String,
    why: String,
}

impl Told {
    /// Reads `TEXT nothing was captured from TIME to TIME: WHY`.
    fn parse(packets: u64, text: &str) -> Option<Self> {
        let (_, text) = text.split_once("nothing was captured from ")?;
        let (times, why) = text.split_once(": ")?;
        let (began, ended) = times.split_once(" to ")?;
        for time in [began, ended] {
            // Times have nanoseconds, so that they can be compared as text.
            assert!(time.len() == 30 && time.ends_with('Z'), "{text}");
        }
        assert!(began <= ended, "{text}");
        let (began, ended, why) = (began.to_owned(), ended.to_owned(), why.to_owned());
        Some(Self { packets, began, ended, why })
    }
}

/// Holes reported by statistics blocks. For holes caused by a missing interface, the comments on
/// the next packets must say the same.
#[track_caller]
fn told(bytes: &[u8]) -> Vec<Told> {
    let mut parser = NgParser::default();
    let (mut seen, mut in_blocks, mut on_packets) = (Seen::default(), Vec::new(), Vec::new());
    // Byte by byte, so that the position of each block among the packets is known.
    for byte in bytes.chunks(1) {
        parser
            .push(byte, &mut |record| {
                on_packets.extend(record.comment.and_then(|text| Told::parse(seen.count, text)));
                seen.record(&record)
            })
            .unwrap();
        let statistics = parser.statistics();
        let told = statistics.iter().filter_map(|one| one.comment.as_deref());
        in_blocks
            .extend(told.skip(in_blocks.len()).filter_map(|text| Told::parse(seen.count, text)));
    }
    let away: Vec<_> = in_blocks.iter().filter(|hole| hole.why.contains(Net::DEVICE)).collect();
    // The last hole may have no packet after it.
    assert!(away.len() - on_packets.len() <= 1, "{in_blocks:?} {on_packets:?}");
    assert!(away.into_iter().zip(&on_packets).all(|(one, other)| one == other), "{on_packets:?}");
    in_blocks
}

/// Packet comments as tshark shows them, each with the packet's number. Checks that all packets are
/// there.
#[track_caller]
fn comments(file: &Path, packets: usize) -> Vec<(usize, String)> {
    let fields = ["-T", "fields", "-e", "frame.number", "-e", "frame.comment"];
    let output = run(tool("tshark").arg("-nr").arg(file).args(fields), 20).success();
    let lines: Vec<_> = output.text().lines().map(|line| line.split_once('\t').unwrap()).collect();
    assert_eq!(lines.len(), packets);
    let commented = lines.iter().filter(|(_, comment)| !comment.is_empty());
    commented.map(|(number, comment)| (number.parse().unwrap(), (*comment).to_owned())).collect()
}

/// Runs cat on a stream of a capture that has stopped.
fn cat(daemon: &Daemon, file: &str) -> Finished {
    run(tool("cat").arg(daemon.path(ALIAS).join(file)), 5).success()
}

/// Start and end of an interface's absence, as `status.json` reports it.
fn interruption(daemon: &Daemon, index: usize) -> Told {
    let status = daemon.status(ALIAS);
    let text = |name: &str| status["interruptions"][index][name].as_str().unwrap().to_owned();
    Told { packets: 0, began: text("began"), ended: text("ended"), why: text("why") }
}

#[test]
fn a_pcapng_stream_reports_when_its_interface_was_away() {
    skip_unless!(root, "tshark", "capinfos");
    let wired = Wired::start();
    let daemon = &wired.daemon;
    let mut sender = wired.net.sender(200);
    let open = |file: &str| {
        let mut command: Command = tool("cat");
        let reader = Running::spawn(command.arg(daemon.path(ALIAS).join(file)));
        daemon.wait_blocked(ALIAS, file, reader.pid());
        reader
    };
    let mut live = open("live.pcapng");
    wired.send(&mut sender, 10);
    wired.net.unplug();
    daemon.wait_state(ALIAS, "retrying");
    wired.net.plug();
    daemon.wait_state(ALIAS, "running");
    let first = Told { packets: 10, ..interruption(daemon, 0) };
    assert!(first.why.contains(Net::DEVICE), "{first:?}");
    // The hole is reported at once, although no packet follows it.
    live.wait_stdout("the hole", 5, |bytes| told(bytes) == [first.clone()]);
    let mut late = open("live.pcapng");
    wired.send(&mut sender, 10);
    wired.net.unplug();
    daemon.wait_state(ALIAS, "retrying");
    wired.net.plug();
    daemon.wait_state(ALIAS, "running");
    let second = Told { packets: 20, ..interruption(daemon, 1) };
    wired.send(&mut sender, 10);

    daemon.verb(["stop", ALIAS]);
    assert!(live.wait(5).success() && late.wait(5).success());
    let folder = TempDir::new().unwrap();
    let follow = cat(daemon, "follow.pcapng");
    let all = vec![first.clone(), second.clone()];
    let one = vec![Told { packets: 10, ..second.clone() }];
    for (name, bytes, holes, packets) in [
        ("live", live.stdout(), &all, 30),
        ("follow", follow.stdout, &all, 30),
        ("late", late.stdout(), &one, 20),
    ] {
        assert_eq!(told(&bytes), *holes, "{name}");
        assert_eq!(check_prefix(&bytes).unwrap().whole().len(), packets, "{name}");
        let file = folder.path().join(name);
        fs::write(&file, &bytes).unwrap();
        let wanted: Vec<_> = holes
            .iter()
            .map(|Told { packets, began, ended, why }| {
                let lost = "pcapfs: 0 packets lost before this one";
                let hole = format!("nothing was captured from {began} to {ended}: {why}");
                (usize::try_from(*packets).unwrap() + 1, format!("{lost}; {hole}"))
            })
            .collect();
        assert_eq!(comments(&file, packets), wanted, "{name}");
        // Check the statistics blocks too. tshark shows them only when it dissects the file itself
        // instead of its packets.
        let shown =
            run(tool("tshark").args(["-X", "read_format:MIME Files Format", "-Vr"]).arg(&file), 20);
        let count =
            shown.success().text().matches("Comment: pcapfs: nothing was captured from").count();
        assert_eq!(count, holes.len(), "{name}");
        let _ = run(tool("capinfos").arg(&file), 20).success();
    }
    let replay = cat(daemon, "replay.pcapng").stdout;
    assert_eq!(told(&replay), []);
    assert_eq!(check_prefix(&replay).unwrap().whole().len(), 30);
}

#[test]
fn a_pcapng_stream_reports_when_its_capture_was_stopped() {
    skip_unless!(mount);
    let fifo = Fifo::new();
    let daemon = Mount::new().ring("4M").capture(ALIAS, &fifo.source()).start();
    let mut feed = fifo.connect();
    for round in 1..=3 {
        feed.send(10, 200);
        daemon.wait_stored(ALIAS, round * 10);
        daemon.verb(["stop", ALIAS]);
        daemon.verb(["start", ALIAS]);
    }
    daemon.verb(["stop", ALIAS]);
    let bytes = cat(&daemon, "follow.pcapng").stdout;
    let holes = told(&bytes);
    let brief = holes.iter().map(|hole| (hole.packets, hole.why.as_str()));
    // The last hole comes after all packets.
    assert_eq!(brief.collect::<Vec<_>>(), [(10, "stopped"), (20, "stopped"), (30, "stopped")]);
    assert!(holes.is_sorted_by(|one, other| one.ended <= other.began), "{holes:?}");
    assert_eq!(check_prefix(&bytes).unwrap().whole().len(), 30);
}

#[test]
fn a_pcapng_stream_reports_when_no_daemon_ran() {
    skip_unless!(mount);
    let rings = TempDir::new_in("/dev/shm").unwrap();
    let fifo = Fifo::new();
    let mount = || Mount::new().ring("4M").ring_dir(rings.path()).capture(ALIAS, &fifo.source());
    let started = |daemon: &Daemon| match &daemon.status(ALIAS)["started"] {
        Value::String(text) => text.clone(),
        other => panic!("{other}"),
    };
    let mut daemon = mount().start();
    let before = started(&daemon);
    fifo.connect().send(10, 200);
    daemon.wait_stored(ALIAS, 10);
    daemon.kill9();
    let daemon = mount().start();
    let after = started(&daemon);
    fifo.connect().after(10).send(10, 200);
    daemon.wait_stored(ALIAS, 20);
    daemon.verb(["stop", ALIAS]);
    let bytes = cat(&daemon, "follow.pcapng").stdout;
    let [hole] = &told(&bytes)[..] else { panic!("{:?}", told(&bytes)) };
    assert_eq!((hole.packets, hole.why.as_str()), (10, "the capture was not running"));
    assert!(before < hole.began && hole.ended <= after, "{before} {hole:?} {after}");
    assert_eq!(check_prefix(&bytes).unwrap().whole().len(), 20);
}
