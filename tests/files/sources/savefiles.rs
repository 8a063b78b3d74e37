//! Savefiles of every kind, and broken ones.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use frames::pcapng::{CUSTOM, block};
use pcapfs_tests::measure::anonymous_memory;
use pcapfs_tests::savefile::{
    Format, NgPacket, NgParser, PcapParser, append_numbered, check_prefix, numbered, pcapng,
    timestamp,
};
use pcapfs_tests::{ALIAS, Mount, Pace, StreamReader, frame, run, skip_unless, tool};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Filed, interface, packets_by, packets_of};

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
    // A pcap has a single link type, taken from the first packet.
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
fn a_truncated_savefile_gives_every_whole_record_and_a_reason() {
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
    // A savefile that ends at the end of a record, or has no record, is no error.
    for count in [0, 7] {
        let filed = Filed::new(&whole[..24 + count * record], &[]);
        assert_eq!(filed.daemon.status(ALIAS)["error"], Value::Null);
        assert_eq!(check_prefix(&filed.read("replay.pcap")).unwrap().whole().len(), count);
    }
}

#[test]
fn a_truncated_pcapng_gives_every_whole_block_and_a_reason() {
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

/// So many packets that reading them takes many times as long as mounting.
const MANY: u64 = 200_000;

#[test]
fn a_mount_is_ready_when_all_of_its_savefile_is_read() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.pcap");
    fs::write(&path, numbered(Format::default(), MANY, 60)).unwrap();
    for _ in 0..10 {
        let daemon = Mount::new().arg("-r").arg(&path).start();
        // At once, without waiting for a state.
        let replay = fs::read(daemon.path("web/replay.pcap")).unwrap();
        assert_eq!(replay.len() as u64, fs::metadata(&path).unwrap().len());
        let status = daemon.status(ALIAS);
        assert_eq!(
            (&status["state"], &status["packets"]["stored"]),
            (&"ended".into(), &MANY.into())
        );
    }
}

#[test]
fn replay_of_a_savefile_that_is_still_being_read_has_all_of_it() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.pcap");
    fs::write(&path, numbered(Format::default(), MANY, 60)).unwrap();
    for _ in 0..10 {
        let daemon = Mount::new().arg("-r").arg(&path).arg("--no-wait").start();
        let copied = run(&mut daemon.command(["replay", ALIAS]), 60).success();
        assert_eq!(copied.stdout.len() as u64, fs::metadata(&path).unwrap().len());
    }
}

#[test]
fn no_reader_of_a_savefile_ends_before_the_savefile_is_read() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("web.pcap");
    fs::write(&path, numbered(Format::default(), MANY, 60)).unwrap();
    let whole = fs::metadata(&path).unwrap().len();
    for turn in 0..5 {
        let daemon = Mount::new().arg("-r").arg(&path).arg("--no-wait").start();
        let replay = daemon.path("web/replay.pcap");
        let copy = folder.path().join(format!("{turn}.pcap"));
        let _ = run(tool("cp").arg(&replay).arg(&copy), 60).success();
        assert_eq!(fs::metadata(&copy).unwrap().len(), whole);
    }
    for _ in 0..5 {
        let daemon = Mount::new().arg("-r").arg(&path).arg("--no-wait").start();
        let replay = daemon.path("web/replay.pcapng");
        let read = run(tool("cat").arg(&replay), 60).success();
        let again = run(tool("cat").arg(&replay), 60).success();
        assert!(read.stdout.len() as u64 > whole && read.stdout == again.stdout);
    }
}

#[test]
fn a_savefile_that_grows_or_is_removed_is_served_unchanged() {
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

#[test]
fn packets_added_to_a_savefile_are_read() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    let bytes = numbered(Format::default(), 90, 100);
    let record = (bytes.len() - 24) / 90;
    let end = |packets: usize| 24 + record * packets;
    let (grows, read_once) = (folder.path().join("grows.pcap"), folder.path().join("once.pcap"));
    let mut written = [&grows, &read_once].map(|path| {
        let mut file = File::create(path).unwrap();
        file.write_all(&bytes[..end(10) + 7]).unwrap();
        file
    });
    let followed = format!("{},follow", grows.display());
    let daemon = Mount::new().arg("-r").arg(&followed).arg("-r").arg(&read_once).start();
    assert_eq!(daemon.status("grows")["state"], "running");
    assert_eq!(daemon.status("grows")["source"], format!("file:{followed}"));
    let stored = |alias: &str| daemon.count(alias, "/packets/stored");
    assert_eq!(
        (stored("grows"), stored("once")),
        (10, 10),
        "ready when the present packets are read"
    );
    let live = StreamReader::open(&daemon.path("grows/live.pcap"), Pace::FAST);
    for file in &mut written {
        file.write_all(&bytes[end(10) + 7..end(60) + 3]).unwrap();
    }
    daemon.wait_stored("grows", 60);
    live.wait_last(60);
    assert_eq!(stored("once"), 10);
    daemon.verb(["start", "once"]);
    daemon.wait_stored("once", 60);
    daemon.verb(["stop", "grows"]);
    assert_eq!(daemon.status("grows")["state"], "stopped");
    for file in &mut written {
        file.write_all(&bytes[end(60) + 3..]).unwrap();
    }
    for alias in ["grows", "once"] {
        daemon.verb(["start", alias]);
        daemon.wait_stored(alias, 90);
        let served = fs::read(daemon.path(alias).join("replay.pcap")).unwrap();
        assert_eq!(check_prefix(&served).unwrap().whole(), Vec::from_iter(1..=90), "{alias}");
    }
    written[1].write_all(&[0xff; 50]).unwrap();
    daemon.verb(["start", "once"]);
    daemon.wait_state("once", "ended");
    written[1].write_all(&[0xff; 50]).unwrap();
    let refused = run(&mut daemon.command(["start", "once"]), 10);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(refused.stderr.contains("is not read on"), "{refused:?}");
}

#[test]
fn blocks_and_options_of_a_pcapng_are_kept() {
    skip_unless!(mount);
    let interfaces = [interface("eth0", 1, 1_000_000_000)];
    let packet = |sequence: u64| NgPacket {
        interface: 0,
        timestamp: timestamp(sequence),
        data: frame::ethernet(sequence, 50),
    };
    let packets = Vec::from_iter((1..=3).map(packet));
    let plain = pcapng(&interfaces, &packets);
    let secrets = block(10, b"KSLT\x04\0\0\0CLIE");
    let statistics = |received: u8| {
        let options = [&b"\x04\0\x08\0"[..], &[received, 0, 0, 0, 0, 0, 0, 0], &[0; 4]].concat();
        block(5, &[&[0; 12][..], &options].concat())
    };
    let (middle, end) = (statistics(1), statistics(3));
    let custom = block(CUSTOM, b"\xd9\x7e\0\0as it is");
    // Before the first packet, and between the first and the second.
    let mut at = 0;
    let mut starts = Vec::new();
    while at < plain.len() {
        let word = |at: usize| u32::from_le_bytes(plain[at..at + 4].try_into().unwrap());
        if word(at) == 6 {
            starts.push(at);
        }
        at += word(at + 4) as usize;
    }
    let (first, second) = (starts[0], starts[1]);
    let comment = b"\x01\0\x09\0look here\0\0\0\0\0\0\0";
    let commented = block(6, &[&plain[first + 8..second - 4], &comment[..]].concat());
    let parts = [&plain[..first], &secrets, &commented, &custom, &middle, &plain[second..], &end];
    let bytes = [&parts.concat()[..], &secrets].concat();
    let filed = Filed::new(&bytes, &[]);
    for name in ["replay.pcapng", "follow.pcapng"] {
        let served = filed.read(name);
        let found = |wanted: &[u8]| {
            let mut places = served.windows(wanted.len());
            places.position(|window| window == wanted).unwrap_or_else(|| panic!("{name}"))
        };
        let places = [&secrets[..], &commented, &custom, &middle, &plain[second..], &end];
        let places = places.map(found);
        assert!(places.is_sorted(), "{name}: {places:?}");
    }
    let path = filed.daemon.path(ALIAS).join("replay.pcapng");
    let whole = filed.read("replay.pcapng");
    assert!(whole.ends_with(&[end, secrets].concat()));
    assert_eq!(fs::metadata(&path).unwrap().size(), whole.len() as u64);
    let file = File::open(path).unwrap();
    for at in 0..whole.len() {
        let mut part = vec![0; 100.min(whole.len() - at)];
        file.read_exact_at(&mut part, at as u64).unwrap();
        assert!(whole[at..].starts_with(&part), "at {at}");
    }
    assert_eq!(filed.daemon.status(ALIAS)["error"], Value::Null);
}
