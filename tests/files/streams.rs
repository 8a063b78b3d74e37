//! Streams: every reader has a position of its own, every missing packet is counted, and no record
//! is torn.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use nix::unistd::Pid;
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{
    ALIAS, Emit, Fed, Mount, Pace, Running, StreamReader, Traffic, Wired, skip_unless, tool,
    wait_until,
};
use serde_json::Value;

const STREAMS: [&str; 4] = ["live.pcap", "live.pcapng", "follow.pcap", "follow.pcapng"];

fn number(reader: &Value, field: &str) -> u64 {
    reader[field].as_u64().unwrap_or_else(|| panic!("{field} is no number in {reader}"))
}

/// Sum of delivered, lost and lag: a cursor accounts for every packet stored since it was opened.
fn accounted(reader: &Value) -> u64 {
    ["delivered_packets", "lost_packets", "lag_packets"]
        .map(|field| number(reader, field))
        .iter()
        .sum()
}

#[test]
fn every_opener_has_a_place_of_its_own() {
    skip_unless!(mount);
    let mut fed = Fed::holding(50);
    let open = |file: &str| StreamReader::open(&fed.daemon.path(ALIAS).join(file), Pace::FAST);
    let first: Vec<_> = STREAMS.into_iter().map(open).collect();
    fed.send(50);
    let open = |file: &str| StreamReader::open(&fed.daemon.path(ALIAS).join(file), Pace::FAST);
    let second: Vec<_> = STREAMS.into_iter().map(open).collect();
    fed.send(50);
    for (readers, opened_behind) in [(first, 50), (second, 100)] {
        for (reader, file) in readers.into_iter().zip(STREAMS) {
            let seen = reader.wait_last(150).seen;
            let begin = if file.starts_with("live") { opened_behind + 1 } else { 1 };
            assert_eq!((seen.first, seen.missing), (begin, 0), "{file}: {seen:?}");
        }
    }
}

#[test]
fn follow_joins_the_past_to_the_present_under_traffic() {
    skip_unless!(root);
    let wired = Wired::start();
    let traffic = Traffic::start(wired.net.sender(200), 20_000, 60_000);
    let mut readers = Vec::new();
    for opened in 1..=10 {
        wait_until("more packets are stored", 10, || {
            wired.daemon.count(ALIAS, "/packets/stored") >= opened * 4_000
        });
        for file in ["follow.pcap", "follow.pcapng"] {
            readers.push(StreamReader::open(&wired.daemon.path(ALIAS).join(file), Pace::FAST));
        }
    }
    let last = traffic.finish().emitted();
    for reader in readers {
        let seen = reader.wait_last(last).seen;
        assert_eq!((seen.first, seen.count, seen.missing), (1, last, 0), "{seen:?}");
    }
}

#[test]
fn live_begins_with_the_next_packet() {
    skip_unless!(root);
    let wired = Wired::start();
    let traffic = Traffic::start(wired.net.sender(200), 10_000, 40_000);
    let mut readers = Vec::new();
    for opened in 1..=10 {
        wait_until("more packets are stored", 10, || {
            wired.daemon.count(ALIAS, "/packets/stored") >= opened * 2_000
        });
        for file in ["live.pcap", "live.pcapng"] {
            let before = wired.daemon.count(ALIAS, "/packets/stored");
            let reader = StreamReader::open(&wired.daemon.path(ALIAS).join(file), Pace::FAST);
            let after = wired.daemon.count(ALIAS, "/packets/stored");
            readers.push((reader, before, after));
        }
    }
    let last = traffic.finish().emitted();
    for (reader, before, after) in readers {
        let seen = reader.wait_last(last).seen;
        assert!((before + 1..=after + 1).contains(&seen.first), "{before} {after} {seen:?}");
        assert_eq!(seen.missing, 0, "{seen:?}");
    }
}

#[test]
fn streams_have_no_size_and_ignore_where_they_are_read() {
    skip_unless!(mount);
    let mut fed = Fed::holding(20);
    for name in ["live.pcap", "follow.pcap"] {
        let mut file = File::open(fed.daemon.path(ALIAS).join(name)).unwrap();
        assert_eq!(file.metadata().unwrap().size(), 0, "{name}");
        fed.send(20);
        let mut bytes = vec![0; 24];
        file.read_exact(&mut bytes).unwrap();
        assert_eq!(file.seek(SeekFrom::Start(0)).unwrap(), 0, "{name} can be sought");
        for offset in [0, 7, 1 << 40] {
            let mut part = vec![0; 500];
            file.read_exact_at(&mut part, offset).unwrap();
            bytes.append(&mut part);
        }
        assert_eq!(file.seek(SeekFrom::Start(1 << 33)).unwrap(), 1 << 33);
        let mut part = vec![0; 500];
        file.read_exact(&mut part).unwrap();
        bytes.append(&mut part);
        let prefix = check_prefix(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let first = if name == "live.pcap" { 21 } else { 1 };
        assert_eq!((prefix.seen.first, prefix.seen.missing), (first, 0), "{name}");
        assert_eq!(file.metadata().unwrap().size(), 0, "{name}");
    }
}

#[test]
fn bytes_so_far_are_a_prefix_at_any_read_size() {
    skip_unless!(mount);
    let fed = Fed::holding(200);
    for name in ["follow.pcap", "follow.pcapng"] {
        let mut whole = Vec::new();
        for size in [1, 7, 16, 24, 100, 4096, 1 << 20] {
            let mut file = File::open(fed.daemon.path(ALIAS).join(name)).unwrap();
            let mut bytes = Vec::new();
            while bytes.len() < 10_000 {
                let mut part = vec![0; size];
                let length = file.read(&mut part).unwrap();
                assert!(length > 0, "{name} ends after {} bytes", bytes.len());
                bytes.extend_from_slice(&part[..length]);
            }
            check_prefix(&bytes).unwrap_or_else(|error| panic!("{name} by {size}: {error}"));
            bytes.truncate(10_000);
            if whole.is_empty() {
                whole.clone_from(&bytes);
            }
            assert!(bytes == whole, "{name} read {size} at a time is another file");
        }
    }
}

/// Paces at which a ring of 1 MiB overtakes its readers again and again.
const SLOW: [Pace; 7] = [
    Pace::slow(1, 20),
    Pace::slow(7, 20),
    Pace::slow(16, 10),
    Pace::slow(24, 10),
    Pace::slow(1000, 2),
    Pace::slow(4096, 1),
    Pace::slow(1 << 17, 1),
];

/// Overtakes readers of `file` again and again. Then checks that each has received whole records in
/// order, and that its missing packets were counted exactly.
fn laps_are_counted_exactly(file: &str, payload_length: usize) {
    let mut fed = Fed::with(Mount::new().ring("1M"));
    let path = fed.daemon.path(ALIAS).join(file);
    let readers = SLOW.map(|pace| StreamReader::open(&path, pace));
    let lapped = || {
        // The last one reads faster than some machines feed, so it need not be overtaken.
        readers.iter().take(SLOW.len() - 1).all(|reader| {
            let progress = reader.progress();
            assert!(progress.end.is_none(), "{file}: {progress:?}");
            progress.seen.gaps >= 3
        })
    };
    let mut sent = 0;
    while !lapped() {
        assert!(sent < 3_000_000, "readers of {file} are not overtaken: {readers:#?}");
        fed.feed.send(2_000, payload_length);
        sent += 2_000;
    }
    fed.daemon.wait_stored(ALIAS, sent);
    for (index, reader) in readers.iter().enumerate() {
        reader.set_pace(Pace::FAST);
        reader.wait_last(sent);
        // Statistics may follow the last packet.
        wait_until("the reader and the daemon agree on the bytes", 5, || {
            let told = fed.daemon.reader(ALIAS, file, index);
            number(&told, "delivered_bytes") == reader.progress().bytes
        });
        let progress = reader.progress();
        let seen = &progress.seen;
        let told = fed.daemon.reader(ALIAS, file, index);
        let what = format!("{file} at {:?}: {progress:?}, {told}", SLOW[index]);
        assert_eq!(progress.rest, 0, "{what}");
        assert_eq!(number(&told, "lost_packets"), sent - seen.count, "{what}");
        assert_eq!(number(&told, "delivered_packets"), seen.count, "{what}");
        assert_eq!(number(&told, "lag_packets"), 0, "{what}");
        assert_eq!(accounted(&told), sent, "{what}");
        if file.ends_with(".pcapng") {
            assert_eq!(seen.said, sent - seen.count, "comments of {what}");
        }
    }
    let status = fed.daemon.status(ALIAS);
    let of = |name: &str| status.pointer(name).and_then(Value::as_u64).unwrap();
    assert_eq!(of("/packets/stored"), of("/packets/retained") + of("/packets/overwritten"));
    let lost: u64 = readers.iter().map(|reader| sent - reader.progress().seen.count).sum();
    assert_eq!(of("/readers/lost"), lost, "{status:#}");
}

#[test]
fn overtaken_readers_of_live_lose_whole_records_and_know_how_many() {
    skip_unless!(mount);
    laps_are_counted_exactly("live.pcap", 200);
}

#[test]
fn overtaken_readers_of_follow_lose_whole_records_and_know_how_many() {
    skip_unless!(mount);
    laps_are_counted_exactly("follow.pcap", 1_401);
}

#[test]
fn overtaken_readers_of_live_pcapng_get_comments() {
    skip_unless!(mount);
    laps_are_counted_exactly("live.pcapng", 201);
}

#[test]
fn overtaken_readers_of_follow_pcapng_get_comments() {
    skip_unless!(mount);
    laps_are_counted_exactly("follow.pcapng", 33);
}

#[test]
fn overtaken_readers_on_an_interface_know_how_many() {
    skip_unless!(root);
    // As much as a large ring gets: this test is not about drops by the kernel on a busy machine.
    let wired = Wired::with(Mount::new().ring("1M").args(["--kernel-buffer", "22M"]));
    let slow = StreamReader::open(&wired.daemon.path("web/live.pcap"), Pace::slow(700, 1));
    let fast = StreamReader::open(&wired.daemon.path("web/live.pcapng"), Pace::FAST);
    let traffic = Traffic::start(wired.net.sender(1_400), 15_000, 45_000);
    let sent = traffic.finish().emitted();
    let status = wired.daemon.status(ALIAS);
    assert_eq!(status["packets"]["dropped_kernel"], 0, "too fast for a test: {status:#}");
    wired.daemon.wait_stored(ALIAS, sent);
    slow.set_pace(Pace::FAST);
    for (reader, file) in [(&slow, "live.pcap"), (&fast, "live.pcapng")] {
        let progress = reader.wait_last(sent);
        let told = wired.daemon.reader(ALIAS, file, 0);
        assert_eq!(number(&told, "lost_packets"), sent - progress.seen.count, "{progress:?}");
        assert_eq!(accounted(&told), sent, "{told}");
    }
    assert!(slow.progress().seen.gaps >= 3, "{:?}", slow.progress());
}

#[test]
fn a_slow_reader_slows_no_other_reader() {
    skip_unless!(root);
    let wired = Wired::with(Mount::new().ring("8M"));
    let path = wired.daemon.path("web/live.pcap");
    let slow = [(); 3].map(|()| StreamReader::open(&path, Pace::slow(100, 1)));
    let fast = StreamReader::open(&path, Pace::FAST);
    let traffic = Traffic::start(wired.net.sender(1_000), 10_000, 20_000);
    let sent = traffic.finish().emitted();
    let seen = fast.wait_last(sent).seen;
    assert_eq!((seen.first, seen.missing), (1, 0), "{seen:?}");
    assert!(slow.iter().all(|reader| reader.progress().seen.last < sent), "they were not slow");
}

#[test]
fn pcapng_streams_carry_statistics() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let readers = ["live.pcapng", "follow.pcapng"]
        .map(|file| StreamReader::open(&fed.daemon.path(ALIAS).join(file), Pace::FAST));
    fed.send(1_000);
    fed.daemon.control(ALIAS, "stop").unwrap();
    let seen = fed.daemon.count(ALIAS, "/packets/seen");
    for reader in readers {
        let progress = reader.wait_end();
        assert_eq!(progress.seen.count, 1_000);
        let last = progress.statistics.last().expect("an interface statistics block");
        assert_eq!((last.interface, last.received), (0, Some(seen)), "{last:?}");
    }
}

#[test]
fn readers_jsonl_lists_the_readers() {
    skip_unless!(mount);
    let mut fed = Fed::holding(10);
    assert_eq!(fs::read(fed.daemon.path("web/readers.jsonl")).unwrap(), b"");
    let cats = STREAMS.map(|file| {
        let cat = Running::spawn(tool("cat").arg(fed.daemon.path(ALIAS).join(file)));
        fed.daemon.wait_blocked(ALIAS, file, cat.pid());
        cat
    });
    fed.send(5);
    for (file, cat) in STREAMS.iter().zip(&cats) {
        cat.wait_stdout("packet 15", 5, |bytes| check_prefix(bytes).unwrap().seen.last == 15);
        fed.daemon.wait_blocked(ALIAS, file, cat.pid());
    }
    let readers = fed.daemon.readers(ALIAS);
    assert_eq!(readers.len(), 4, "{readers:#?}");
    for (reader, (file, cat)) in readers.iter().zip(STREAMS.iter().zip(&cats)) {
        let packets = if file.starts_with("live") { 5 } else { 15 };
        assert_eq!(reader["file"], *file);
        assert_eq!(reader["pid"], cat.pid().as_raw());
        assert_eq!(reader["uid"], nix::unistd::getuid().as_raw());
        assert_eq!(reader["comm"], "cat");
        assert!(is_rfc3339(&reader["opened"]), "{reader}");
        assert_eq!(number(reader, "delivered_packets"), packets, "{reader}");
        assert_eq!(number(reader, "delivered_bytes"), cat.stdout().len() as u64, "{reader}");
        assert_eq!(number(reader, "lost_packets"), 0, "{reader}");
        assert_eq!(number(reader, "lag_packets"), 0, "{reader}");
        assert_eq!(reader["blocked"], true);
    }
    assert_eq!(fed.daemon.count(ALIAS, "/readers/open"), 4);
    assert_eq!(fed.daemon.count(ALIAS, "/readers/delivered"), 5 + 5 + 15 + 15);
    drop(cats);
    wait_until("no reader is left", 5, || fed.daemon.readers(ALIAS).is_empty());
    assert_eq!(fed.daemon.count(ALIAS, "/readers/open"), 0);
    assert_eq!(fed.daemon.count(ALIAS, "/readers/delivered"), 40, "forgets who has left");
}

fn is_rfc3339(time: &Value) -> bool {
    // 2026-11-21T10:20:30.123456789Z
    let shape = |letter: char| if letter.is_ascii_digit() { '0' } else { letter };
    time.as_str().is_some_and(|time| {
        time.chars().map(shape).collect::<String>() == "0000-00-00T00:00:00.000000000Z"
    })
}

#[test]
fn overwritten_packets_are_lost_before_their_reader_comes_back() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().ring("1M"));
    for (file, sent) in [("follow.pcap", 20_000), ("live.pcapng", 40_000)] {
        let before = fed.daemon.count(ALIAS, "/readers/lost");
        let stored = fed.daemon.count(ALIAS, "/packets/stored");
        let reader = File::open(fed.daemon.path(ALIAS).join(file)).unwrap();
        fed.feed.send(20_000, 200);
        fed.daemon.wait_stored(ALIAS, sent);
        let retained = fed.daemon.count(ALIAS, "/packets/retained");
        assert!(retained < 10_000, "{retained} of 20,000 retained");
        let told = fed.daemon.reader(ALIAS, file, 0);
        assert_eq!(number(&told, "lag_packets"), retained, "what there is to read: {told}");
        assert_eq!(number(&told, "lost_packets"), sent - stored - retained, "{told}");
        assert_eq!(accounted(&told), sent - stored, "{told}");
        drop(reader);
        wait_until("the reader has left", 5, || fed.daemon.count(ALIAS, "/readers/open") == 0);
        let lost = fed.daemon.count(ALIAS, "/readers/lost");
        assert_eq!(lost - before, sent - stored - retained, "those who never came back count too");
    }
}

#[test]
fn a_reader_that_does_not_read_lags() {
    skip_unless!(mount);
    let mut fed = Fed::holding(10);
    let live = File::open(fed.daemon.path("web/live.pcap")).unwrap();
    let follow = File::open(fed.daemon.path("web/follow.pcap")).unwrap();
    fed.send(30);
    for (mut file, name, stored) in [(live, "live.pcap", 30), (follow, "follow.pcap", 40)] {
        let reader = fed.daemon.reader(ALIAS, name, 0);
        assert_eq!(number(&reader, "lag_packets"), stored, "{reader}");
        assert_eq!(number(&reader, "delivered_packets"), 0, "{reader}");
        assert_eq!(reader["blocked"], false, "{reader}");
        // The process that opened the file, which is this one. The id of the thread would do as
        // well.
        let pid = Pid::from_raw(i32::try_from(number(&reader, "pid")).unwrap());
        assert!(fs::exists(format!("/proc/{}/task/{pid}", std::process::id())).unwrap());
        let mut part = vec![0; 24 + 3 * 258];
        file.read_exact(&mut part).unwrap();
        let reader = fed.daemon.reader(ALIAS, name, 0);
        assert_eq!(number(&reader, "delivered_packets"), 3, "{reader}");
        assert_eq!(number(&reader, "lag_packets"), stored - 3, "{reader}");
    }
}

#[test]
fn every_cursor_accounts_for_every_packet_at_any_moment() {
    skip_unless!(mount);
    let fed = Fed::with(Mount::new().ring("1M"));
    let daemon = fed.daemon;
    let paces = [Pace::slow(33, 3), Pace::slow(4096, 1), Pace::FAST];
    let _readers = paces.map(|pace| StreamReader::open(&daemon.path("web/live.pcap"), pace));
    let (mut feed, mut sent, mut looks) = (fed.feed, 0, 0);
    // One look may take long on a busy machine.
    while sent < 150_000 || looks < 20 {
        let traffic = Traffic::start(feed, 50_000, 50_000);
        sent += 50_000;
        loop {
            let before = daemon.count(ALIAS, "/packets/stored");
            let readers = daemon.readers(ALIAS);
            let after = daemon.count(ALIAS, "/packets/stored");
            assert_eq!(readers.len(), paces.len());
            for reader in &readers {
                let sum = accounted(reader);
                assert!((before..=after).contains(&sum), "{sum} of {before} to {after}: {reader}");
            }
            if before >= sent {
                break;
            }
            looks += 1;
            // Leaves the processors to the daemon and the readers between two looks.
            std::thread::sleep(Duration::from_millis(1));
        }
        feed = traffic.finish();
    }
}

/// BusyBox `cat` and `cp` copy with sendfile(2), which goes by the size, and read only if it fails.
/// It fails into a file, but not into a pipe.
#[test]
fn busybox_copies_streams_into_files_and_reads_them_into_pipes() {
    skip_unless!(mount, "busybox", "bash");
    let fed = Fed::holding(100);
    let whole = fs::read(fed.daemon.path("web/replay.pcap")).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    // By its own name, and by another one, as where BusyBox provides the system's tools.
    std::os::unix::fs::symlink("/bin/busybox", folder.path().join("cat")).unwrap();
    let file = fed.daemon.path("web/follow.pcap");
    let spawn = |line: &str| {
        let mut bash = tool("bash");
        bash.args(["-c", line]).current_dir(&folder).env("FILE", &file);
        Running::spawn(&mut bash)
    };
    let copies = [
        ("one", spawn("busybox cat $FILE > one")),
        ("two", spawn("./cat $FILE > two")),
        ("three", spawn("busybox cp $FILE three")),
    ];
    let pipe = spawn("busybox dd bs=64k if=$FILE | busybox cat");
    for (name, _) in &copies {
        let copy = folder.path().join(name);
        wait_until("all is copied", 10, || fs::read(&copy).is_ok_and(|bytes| bytes == whole));
    }
    pipe.wait_stdout("all that is stored", 10, |bytes| bytes == whole);
    fed.daemon.verb(["stop", ALIAS]);
    for (name, mut running) in copies {
        assert!(running.wait(10).success(), "{name}: {}", running.stderr());
    }
}
