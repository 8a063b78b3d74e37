//! Growing files: their size is exact at every moment, any offset can be read, and their end is not
//! final.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::libc;
use nix::unistd::{Whence, lseek};
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{
    ALIAS, Fed, Mount, Pace, StreamReader, Traffic, Wired, skip_unless, wait_until,
};

const REPLAYS: [&str; 2] = ["replay.pcap", "replay.pcapng"];

fn to_end(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = vec![0; 1 << 16];
    loop {
        let length = file.read(&mut part).unwrap();
        if length == 0 {
            return bytes;
        }
        bytes.extend_from_slice(&part[..length]);
    }
}

#[test]
fn the_size_is_the_number_of_bytes() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut last = 0;
    for count in [0, 1, 99, 5_000] {
        if count > 0 {
            fed.send(count);
        }
        last += count;
        for name in REPLAYS {
            let path = fed.daemon.path(ALIAS).join(name);
            let size = fs::metadata(&path).unwrap().size();
            let mut file = File::open(&path).unwrap();
            assert_eq!(file.metadata().unwrap().size(), size, "{name}");
            let bytes = to_end(&mut file);
            assert_eq!(bytes.len() as u64, size, "{name} of {last} packets");
            assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=last), "{name}");
        }
        let size = fs::metadata(fed.daemon.path("web/replay.pcap")).unwrap().size();
        assert_eq!(size, 24 + last * Fed::RECORD);
    }
}

#[test]
fn the_end_of_file_is_not_final() {
    skip_unless!(mount);
    let mut fed = Fed::holding(10);
    let mut files = REPLAYS.map(|name| File::open(fed.daemon.path(ALIAS).join(name)).unwrap());
    let mut read = [Vec::new(), Vec::new()];
    for last in [10, 15, 20] {
        for ((file, bytes), name) in files.iter_mut().zip(&mut read).zip(REPLAYS) {
            bytes.append(&mut to_end(file));
            let sequences = check_prefix(bytes).unwrap().whole();
            assert_eq!(sequences, Vec::from_iter(1..=last), "{name}");
            assert_eq!(file.metadata().unwrap().size(), bytes.len() as u64, "{name}");
        }
        fed.send(5);
    }
}

#[test]
fn any_offset_gives_the_bytes_of_that_place() {
    skip_unless!(mount);
    let fed = Fed::holding(20_000);
    for name in REPLAYS {
        let path = fed.daemon.path(ALIAS).join(name);
        let whole = fs::read(&path).unwrap();
        let file = File::open(&path).unwrap();
        // A pseudo-random walk over all offsets, so that consecutive reads are far apart.
        let mut place = 12_345u64;
        for turn in 0..1_000 {
            place = place
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let offset = usize::try_from(place >> 20).unwrap() % whole.len();
            let mut part = vec![0; [1, 16, 100, 5_000, 200_000][turn % 5]];
            let length = file.read_at(&mut part, offset as u64).unwrap();
            let wanted = &whole[offset..whole.len().min(offset + part.len())];
            assert!(length > 0, "{name} at {offset} of {}", whole.len());
            assert!(part[..length] == wanted[..length], "{name} at {offset}, {length} bytes");
        }
        for beyond in [whole.len(), whole.len() + 1, whole.len() * 2] {
            let length = file.read_at(&mut [0; 100], beyond as u64).unwrap();
            assert_eq!(length, 0, "{name} at {beyond} of {}", whole.len());
        }
        let mut last = [0];
        assert_eq!(file.read_at(&mut last, whole.len() as u64 - 1).unwrap(), 1);
        assert_eq!(last[0], whole[whole.len() - 1]);
    }
}

#[test]
fn the_promised_size_can_be_read_while_a_file_grows() {
    skip_unless!(root);
    let wired = Wired::start();
    let traffic = Traffic::start(wired.net.sender(200), 20_000, 60_000);
    for name in REPLAYS.repeat(5) {
        let path = wired.daemon.path(ALIAS).join(name);
        let mut file = File::open(&path).unwrap();
        let promised = file.metadata().unwrap().size();
        let bytes = to_end(&mut file);
        assert!(bytes.len() as u64 >= promised, "{name}: {} of {promised} bytes", bytes.len());
        let prefix = check_prefix(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((prefix.rest, prefix.seen.missing), (0, 0), "{name}");

        // Once more, in small steps, with the size queried before each.
        let file = File::open(&path).unwrap();
        let (mut size, mut offset) = (0, 0);
        let mut part = vec![0; 30_000];
        loop {
            let now = file.metadata().unwrap().size();
            assert!(now >= size, "{name} shrinks from {size} to {now}");
            size = now;
            let length = file.read_at(&mut part, offset).unwrap();
            if length == 0 {
                break;
            }
            offset += length as u64;
        }
        assert!(offset >= promised, "{name} ends at {offset}, before its size of {promised}");
    }
    drop(traffic.stop());
}

#[test]
fn the_time_of_change_is_fresh() {
    skip_unless!(mount);
    let mut fed = Fed::holding(10);
    let path = fed.daemon.path("web/replay.pcap");
    let file = File::open(&path).unwrap();
    let mut last = None;
    for _ in 0..3 {
        let by_handle = file.metadata().unwrap();
        let by_name = fs::metadata(&path).unwrap();
        assert_eq!(by_handle.size(), by_name.size());
        let time = (by_name.mtime(), by_name.mtime_nsec());
        assert!(Some(time) > last, "packets came, but the time stays {time:?}");
        last = Some(time);
        fed.send(1);
    }
}

#[test]
fn a_new_beginning_is_a_new_file() {
    skip_unless!(mount);
    for name in REPLAYS {
        let mut fed = Fed::with(Mount::new().ring("1M"));
        fed.send(1_000);
        let path = fed.daemon.path(ALIAS).join(name);
        let mut old = File::open(&path).unwrap();
        let before = old.metadata().unwrap();
        let mut bytes = vec![0; 100_003];
        old.read_exact(&mut bytes).unwrap();

        while fed.daemon.count(ALIAS, "/packets/overwritten") < 3_000 {
            fed.send(1_000);
        }
        let (by_handle, by_name) = (old.metadata().unwrap(), fs::metadata(&path).unwrap());
        assert_eq!(by_handle.ino(), before.ino(), "{name}: an open file becomes another");
        assert_ne!(by_name.ino(), before.ino(), "{name}: another beginning is another file");
        assert!(by_handle.size() >= before.size(), "{name} shrinks");

        let overwritten = fed.daemon.count(ALIAS, "/packets/overwritten");
        let stored = fed.daemon.count(ALIAS, "/packets/stored");
        let new = fs::read(&path).unwrap();
        assert_eq!(new.len() as u64, by_name.size(), "{name}");
        let sequences = check_prefix(&new).unwrap().whole();
        assert_eq!(sequences, Vec::from_iter(overwritten + 1..=stored), "{name}");
        assert_eq!(fed.daemon.count(ALIAS, "/ring/first_number"), overwritten + 1);
        assert_eq!(fed.daemon.count(ALIAS, "/ring/next_number"), stored + 1);

        // Reading overwritten packets at their offset fails, whether they were read before or not.
        for offset in [50_000, 200_000] {
            let error = old.read_at(&mut [0; 100], offset).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name} at {offset}: {error}");
        }
        // The old opener goes on after its gap and learns how wide the gap was.
        bytes.append(&mut to_end(&mut old));
        fed.send(10);
        bytes.append(&mut to_end(&mut old));
        let prefix = check_prefix(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((prefix.rest, prefix.seen.last), (0, stored + 10), "{name}");
        assert!(prefix.seen.missing > 0 && prefix.seen.gaps == 1, "{name}: {:?}", prefix.seen);
        let told = fed.daemon.reader(ALIAS, name, 0);
        assert_eq!(told["lost_packets"], prefix.seen.missing, "{name}: {told}");
    }
}

#[test]
fn every_reader_of_replay_comes_to_its_end() {
    skip_unless!(mount);
    let fed = Fed::with(Mount::new().ring("1M"));
    let path = fed.daemon.path("web/replay.pcap");
    let traffic = Traffic::start(fed.feed, u64::from(u32::MAX), 50_000_000);
    wait_until("the ring is full", 10, || fed.daemon.count(ALIAS, "/packets/overwritten") > 0);
    let paces = [Pace::slow(5_000, 1), Pace::slow(50_000, 1), Pace::FAST];
    let readers = paces.map(|pace| StreamReader::open(&path, pace));
    for reader in readers {
        let progress = reader.wait_end();
        assert!(progress.seen.count > 0, "{progress:?}");
    }
    drop(traffic.stop());
}

#[test]
fn status_and_readers_have_the_size_they_say() {
    skip_unless!(root);
    let wired = Wired::start();
    let traffic = Traffic::start(wired.net.sender(200), 5_000, 40_000);
    let reader = StreamReader::open(&wired.daemon.path("web/live.pcap"), Pace::FAST);
    for name in ["web/status.json", "web/readers.jsonl", "status.json", "README"].repeat(50) {
        let mut file = File::open(wired.daemon.path(name)).unwrap();
        let size = file.metadata().unwrap().size();
        let bytes = to_end(&mut file);
        assert_eq!(bytes.len() as u64, size, "{name}: {}", String::from_utf8_lossy(&bytes));
        assert!(bytes.ends_with(b"\n"), "{name} has no end of line at its end");
        assert!(to_end(&mut file).is_empty(), "{name} goes on after its end");
    }
    drop((traffic.stop(), reader));
}

#[test]
fn the_end_of_an_opening_is_that_of_its_own_content() {
    skip_unless!(mount);
    let fed = Fed::holding(10);
    let path = fed.daemon.path("web/readers.jsonl");
    let mut readers = Vec::new();
    let mut lists = Vec::new();
    for count in [1, 30, 5] {
        readers.resize_with(count, || File::open(fed.daemon.path("web/live.pcap")).unwrap());
        wait_until("they are listed", 5, || fed.daemon.readers(ALIAS).len() == count);
        lists.push((count, File::open(&path).unwrap()));
    }
    // Read the oldest list last, so that the size the kernel saw last belongs to another opening.
    for (count, list) in lists.iter_mut().rev() {
        let end = lseek(&*list, 0, Whence::SeekEnd).unwrap();
        assert_eq!(lseek(&*list, 0, Whence::SeekHole).unwrap(), end, "of {count}");
        lseek(&*list, 0, Whence::SeekSet).unwrap();
        let bytes = to_end(list);
        assert_eq!(i64::try_from(bytes.len()).unwrap(), end, "of {count}");
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), *count);
    }
}

#[test]
fn status_is_frozen_at_open() {
    skip_unless!(mount);
    let mut fed = Fed::holding(10);
    let file = File::open(fed.daemon.path("web/status.json")).unwrap();
    let mut early = vec![0; 10];
    assert_eq!(file.read_at(&mut early, 0).unwrap(), 10);
    fed.send(12_345);
    let mut late = vec![0; 1 << 16];
    let length = file.read_at(&mut late, 0).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&late[..length]).unwrap();
    assert_eq!(status["packets"]["stored"], 10, "{status:#}");
    assert_eq!(fed.daemon.count(ALIAS, "/packets/stored"), 12_355);
}
