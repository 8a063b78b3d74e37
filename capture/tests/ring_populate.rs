//! The pages of a ring are present before its writer reaches them.

use std::path::Path;

use capture::clock;
use capture::ring::{Append, OpenedRing, Ring, RingOptions};
use capture::store::{Interface, Store};
use nix::sys::resource::{UsageWho, getrusage};
use protocol::time::Precision;
use tempfile::TempDir;

const RING: u64 = 16 << 20;

fn open(folder: &TempDir) -> OpenedRing {
    let interface =
        Interface { name: None, description: None, filter: None, snaplen: 2_000, link_type: None };
    let path = folder.path().join("x.ring");
    let precision = Precision::Nano;
    Ring::open(&RingOptions {
        path,
        size: RING,
        snaplen: 2_000,
        precision,
        link_type: None,
        interface,
    })
    .unwrap()
}

/// Page faults of this thread while it fills the ring once.
fn faults_of_a_lap(opened: &mut OpenedRing) -> i64 {
    let faults = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults();
    let before = faults();
    let end = opened.ring.bounds().next.pcap + RING;
    while opened.ring.bounds().next.pcap < end {
        for _ in 0..100 {
            assert_eq!(opened.writer.append(clock::now(), 1_500, &[7; 1_500]), Append::Stored);
        }
        opened.writer.publish();
    }
    faults() - before
}

fn in_memory() -> TempDir {
    tempfile::Builder::new().tempdir_in("/dev/shm").unwrap()
}

#[test]
fn the_first_lap_causes_no_page_faults() {
    let folder = in_memory();
    let mut opened = open(&folder);
    while opened.ring.populate_next() {}
    let first = faults_of_a_lap(&mut opened);
    // Some faults are caused by the test itself; a whole lap would cause 4,096.
    assert!(first < 100, "{first}");
}

#[test]
fn nor_does_the_first_lap_of_a_ring_that_was_there() {
    let folder = in_memory();
    let mut opened = open(&folder);
    faults_of_a_lap(&mut opened);
    drop(opened);
    let mut opened = open(&folder);
    assert!(opened.recovered > 0);
    while opened.ring.populate_next() {}
    let first = faults_of_a_lap(&mut opened);
    assert!(first < 100, "{first}");
}

#[test]
fn pages_that_come_while_the_writer_writes_change_nothing() {
    let folder = in_memory();
    let mut opened = open(&folder);
    let ring = std::sync::Arc::clone(&opened.ring);
    let beside = std::thread::spawn(move || while ring.populate_next() {});
    faults_of_a_lap(&mut opened);
    beside.join().unwrap();
    let bounds = opened.ring.bounds();
    for chunk in bounds.oldest_chunk..=bounds.newest_chunk {
        let pinned = opened.ring.pin(chunk).unwrap();
        let records = capture::record::PacketRecords::new(pinned.bytes());
        assert!(records.into_iter().all(|record| record.data == [7; 1_500]));
    }
}

#[test]
fn on_a_disk_nothing_is_touched_before_it_is_needed() {
    let folder = TempDir::new_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let is_tmpfs = nix::sys::statfs::statfs(folder.path())
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC);
    if is_tmpfs {
        eprintln!("skipped: the target directory is in memory");
        return;
    }
    assert!(!open(&folder).ring.populate_next());
}
