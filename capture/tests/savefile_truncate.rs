//! A mapped savefile that someone cuts short causes errors, but never ends the process.

#![expect(unsafe_code, reason = "a mapping the crate knows nothing of, to fault in")]

mod wait;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use capture::record;
use capture::savefile::{Indexed, Savefile, SavefileOptions, pcap};
use capture::store::{PinError, Position, Store, StoreHeader};
use protocol::time::{Precision, Timestamp};
use wait::wait_until;

static GO_ON: AtomicBool = AtomicBool::new(false);

const HEADER: StoreHeader = StoreHeader {
    link_type: protocol::linktype::LinkType::ETHERNET,
    precision: Precision::Nano,
    snaplen: 65_535,
};

/// A native savefile of some 4 MiB with records of 1016 bytes.
fn savefile() -> tempfile::NamedTempFile {
    let mut bytes = Vec::from(pcap::file_header(&HEADER));
    for number in 0..4_000 {
        let time = Timestamp::from_nanoseconds(number);
        bytes.extend(record::header(time, Precision::Nano, 1_000, 1_000));
        bytes.extend([0x55; 1_000]);
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

fn open(path: &Path, snaplen: Option<u32>) -> Savefile {
    Savefile::open(path, SavefileOptions { snaplen, ..SavefileOptions::default() }).unwrap()
}

fn cut(path: &Path, len: u64) -> String {
    format!("{} was cut to {len} bytes while mounted", path.display())
}

#[test]
fn a_file_cut_before_it_is_indexed_is_reported() {
    for len in [2_000_000, 5_000, 0] {
        let file = savefile();
        let store = open(file.path(), None);
        file.as_file().set_len(len).unwrap();
        assert_eq!(store.index(&GO_ON), Indexed::Finished);
        assert_eq!(store.problem(), Some(cut(file.path(), len)));
        let bounds = store.bounds();
        assert!(bounds.ended);
        assert_eq!(bounds.next, Position::START, "nothing made of zeros is served");
    }
}

#[test]
fn a_file_cut_after_it_was_indexed_fails() {
    // Mapped as it is, and converted.
    for snaplen in [None, Some(100)] {
        let file = savefile();
        let store = open(file.path(), snaplen);
        assert_eq!(store.index(&GO_ON), Indexed::Finished);
        assert_eq!(store.problem(), None);
        let last = store.capacity().used - 1;
        let sum = |chunk| {
            let chunk = store.pin(chunk)?;
            Ok(chunk.bytes().iter().fold(0_u64, |sum, byte| sum + u64::from(*byte)))
        };
        assert!(sum(last).is_ok());
        let len = 2_000_000;
        file.as_file().set_len(len).unwrap();
        let failed = PinError::Failed(cut(file.path(), len));
        assert_eq!(store.intact(), Err(failed.clone()));
        assert_eq!(sum(0), Err(failed.clone()), "no part of it is used");
        assert_eq!(sum(last), Err(failed));
        assert_eq!(store.problem(), Some(cut(file.path(), len)));
    }
}

#[test]
fn a_file_cut_under_a_slice_that_is_being_read_reads_as_zeros() {
    let file = savefile();
    let store = open(file.path(), None);
    store.index(&GO_ON);
    let last = store.capacity().used - 1;
    let chunk = store.pin(last).unwrap();
    file.as_file().set_len(100).unwrap();
    assert!(chunk.bytes().iter().rev().take(10_000).all(|byte| *byte == 0));
    assert!(matches!(store.pin(last), Err(PinError::Failed(_))));
    assert!(matches!(store.pin(0), Err(PinError::Failed(_))));
}

#[test]
fn a_file_cut_in_the_middle_of_walks_ends_no_reader() {
    const ROUNDS: u64 = 20;
    for round in 0..ROUNDS {
        let file = savefile();
        let (plain, cutting) = (open(file.path(), None), open(file.path(), Some(100)));
        cutting.index(&GO_ON);
        let done = AtomicBool::new(false);
        // How often each of two readers has read the whole file, as far as it is there.
        let readings = [AtomicU64::new(0), AtomicU64::new(0)];
        let have_read =
            |times: u64| readings.iter().all(|one| one.load(Ordering::Relaxed) >= times);
        std::thread::scope(|scope| {
            let index = scope.spawn(|| plain.index(&GO_ON));
            for reading in &readings {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        for id in 0..cutting.capacity().used {
                            let Ok(chunk) = cutting.pin(id) else { continue };
                            // Converted chunks never hold the zeros after a cut.
                            let records = record::PacketRecords::new(chunk.bytes());
                            for record in records {
                                assert!(record.data.iter().all(|byte| *byte == 0x55));
                            }
                        }
                        reading.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // The walk is at another place each round, and the readers are under way.
            let place = 1 + round * 4_000 / ROUNDS;
            wait_until("the walk is there", || {
                index.is_finished() || plain.bounds().next.number >= place
            });
            wait_until("the readers read", || have_read(1));
            file.as_file().set_len(round * 200_000).unwrap();
            let before = readings.iter().map(|one| one.load(Ordering::Relaxed)).max().unwrap_or(0);
            wait_until("the readers have read what is left", || have_read(before + 2));
            done.store(true, Ordering::Relaxed);
        });
        assert!(plain.bounds().ended);
        assert!(plain.problem().is_none_or(|problem| problem.contains("was cut to")));
    }
}

/// Environment variable that makes the test below do, in a process of its own, the thing that must
/// end that process.
const CHILD: &str = "SAVEFILE_TRUNCATE_CHILD";

#[test]
fn a_fault_elsewhere_and_a_signal_from_a_process_still_kill() {
    let file = savefile();
    if let Ok(how) = std::env::var(CHILD) {
        let store = open(file.path(), None);
        store.index(&GO_ON);
        if how == "fault" {
            let other = savefile();
            // SAFETY: the file is meant to change; the fault ends the process.
            let foreign = unsafe { memmap2::Mmap::map(other.as_file()) }.unwrap();
            other.as_file().set_len(0).unwrap();
            std::hint::black_box(foreign[1_000_000]);
        } else {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).unwrap();
        }
        return;
    }
    for how in ["fault", "signal"] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_fault_elsewhere_and_a_signal_from_a_process_still_kill"])
            .env(CHILD, how)
            .output()
            .unwrap();
        assert_eq!(child.status.signal(), Some(libc::SIGBUS), "{how}: {child:?}");
    }
}
