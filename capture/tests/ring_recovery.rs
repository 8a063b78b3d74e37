//! Ring files that outlive their process, in any state.
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use capture::cursor::{Begin, Cursor, SavefileFormat};
use capture::pipeline::counters;
use capture::ring::{Append, OpenedRing, Permissions, Ring, RingError, RingOptions, Writer};
use capture::store::{Store, StoreHeader};
use protocol::linktype::LinkType;
use support::{Parser, data, directory, options, time};

/// Environment variable that makes this test binary the process to be killed; its value is the ring
/// to fill.
const CHILD: &str = "PCAPFS_TEST_RING";

fn length(number: u64) -> usize {
    let mixed = number.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
    if mixed.is_multiple_of(9) { (mixed % 50_000) as usize } else { (mixed % 2_000) as usize }
}

fn append(writer: &mut Writer, number: u64) {
    let len = length(number);
    let original_len = u32::try_from(len + 1).unwrap();
    let done = writer.append(time(number), original_len, &data(number, len));
    assert_eq!(done, Append::Stored);
}

/// A ring with packets 1 to `count`.
fn filled(options: &RingOptions, count: u64) -> OpenedRing {
    let mut opened = Ring::open(options).unwrap();
    for number in 1..=count {
        append(&mut opened.writer, number);
    }
    opened.writer.publish();
    opened
}

/// Numbers of all retained packets, each checked against the packet as it was written.
fn numbers(ring: &Ring) -> Vec<u64> {
    let mut cursor = Cursor::new(ring, SavefileFormat::Pcap, Begin::Oldest, false);
    // The snaplen has no checksum, since it may change.
    let mut parser = Parser::new(false);
    parser.any_snaplen = true;
    parser.feed(&support::drain(&mut cursor, ring, 1 << 20).0);
    assert_eq!(parser.pending(), 0);
    for packet in &parser.packets {
        packet.check();
        assert_eq!(packet.data.len(), length(packet.number));
    }
    parser.packets.iter().map(|packet| packet.number).collect()
}

/// The numbers retained, which must be contiguous and equal to the bounds.
fn run(ring: &Ring) -> std::ops::Range<u64> {
    let bounds = ring.bounds();
    let expected = bounds.oldest.number..bounds.next.number;
    assert_eq!(numbers(ring), expected.clone().collect::<Vec<_>>());
    let (packets, bytes) = counters(ring);
    assert_eq!(packets.retained, expected.end - expected.start);
    assert_eq!(packets.stored, packets.retained + packets.overwritten);
    let lengths = expected.clone().map(|number| 16 + length(number) as u64);
    assert_eq!(bytes.retained, lengths.sum::<u64>());
    expected
}

/// Not a test by itself: the next test starts this one and kills it.
#[test]
fn child_fills_a_ring_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let OpenedRing { ring, mut writer, damage, .. } = Ring::open(&options(path.into())).unwrap();
    assert_eq!(damage, None);
    let mut said = std::io::stdout().lock();
    for number in ring.bounds().next.number.. {
        append(&mut writer, number);
        if number.wrapping_mul(0x9e37_79b9) % 5 == 0 {
            writer.publish();
            writeln!(said, "\npublished {number}").unwrap();
            said.flush().unwrap();
        }
        if number.is_multiple_of(301) {
            writer.add_loss(1, 2);
            writer.clear();
        }
    }
}

fn child(path: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_fills_a_ring_until_it_is_killed", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_process_leaves_every_record_it_published() {
    let directory = directory();
    let path = directory.path().join("killed.ring");
    let mut last = 0;
    for round in 0_u64..120 {
        let mut child = child(&path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut published = |count: usize| {
            let said = lines.by_ref().map(Result::unwrap);
            let numbers = said.filter_map(|line| line.strip_prefix("published ")?.parse().ok());
            numbers.take(count).last()
        };
        // Kill it after some reports and then some instructions, so at any point.
        let reports = (round * round * 7 % 90) as usize;
        let mut at_least: u64 = if reports > 0 { published(reports).unwrap() } else { 0 };
        for _ in 0..round.wrapping_mul(0x9e37_79b9) % 60_000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Reports still in the pipe were written by a living process.
        at_least = published(usize::MAX).unwrap_or(at_least).max(at_least).max(last);

        let opened = Ring::open(&options(path.clone())).unwrap();
        assert_eq!(opened.damage, None, "round {round}");
        let kept = run(&opened.ring);
        assert!(kept.end > at_least, "round {round}: {kept:?}, {at_least} was published");
        assert!(kept.end > last && kept.start <= kept.end);
        assert_eq!(opened.recovered, kept.end - kept.start);
        let losses = opened.ring.losses();
        assert!(losses.interface <= 2 * losses.kernel + 1 && losses.kernel <= kept.end / 301 + 1);
        last = kept.end - 1;
        drop(opened);
        // A second recovery changes nothing.
        let again = Ring::open(&options(path.clone())).unwrap();
        assert_eq!(again.damage, None);
        assert_eq!(run(&again.ring), kept);
    }
    assert!(last > 1_000, "it was never alive for long enough to be killed at work");
}

#[test]
fn a_process_killed_while_it_makes_its_ring_does_not_stand_in_the_way() {
    let directory = directory();
    for round in 0_u64..40 {
        let path = directory.path().join(format!("{round}.ring"));
        let mut child = child(&path);
        // Wait until the file exists, and then a little longer.
        while !path.exists() && child.try_wait().unwrap().is_none() {
            thread::yield_now();
        }
        for _ in 0..round * 400 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut opened = Ring::open(&options(path.clone())).unwrap();
        let kept = run(&opened.ring);
        append(&mut opened.writer, kept.end);
        opened.writer.publish();
        assert_eq!(run(&opened.ring).end, kept.end + 1);
        drop(opened);
        fs::remove_file(&path).unwrap();
    }
    // The states that such a process leaves, made on purpose.
    let states = [0, 5_000, 1 << 20];
    for (index, len) in states.into_iter().enumerate() {
        let path = directory.path().join(format!("unborn{index}.ring"));
        fs::File::create(&path).unwrap().set_len(len).unwrap();
        let opened = filled(&options(path.clone()), 10);
        assert_eq!(run(&opened.ring), 1..11);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn everything_kept_with_the_packets_persists() {
    let directory = directory();
    let path = directory.path().join("kept.ring");
    let unknown = RingOptions { link_type: None, ..options(path.clone()) };
    let opened = Ring::open(&unknown).unwrap();
    assert_eq!(opened.ring.header(), None);
    assert_eq!(opened.ring.permissions(), None);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    opened.writer.declare(LinkType::RAW, 96).unwrap();
    opened.writer.add_loss(3, 5);
    let permissions = Permissions { uid: 7, gid: 8, mode: 0o750 };
    opened.ring.set_permissions(permissions);
    drop(opened);

    let opened = Ring::open(&unknown).unwrap();
    assert_eq!(opened.damage, None);
    assert_eq!(
        opened.ring.header().map(|StoreHeader { link_type, .. }| link_type),
        Some(LinkType::RAW)
    );
    assert_eq!(opened.ring.permissions(), Some(permissions));
    let losses = opened.ring.losses();
    assert_eq!((losses.kernel, losses.interface, losses.oversize), (3, 5, 0));
    assert_eq!(opened.writer.declare(LinkType::ETHERNET, 96), Err(LinkType::RAW));
    drop(opened);

    let ethernet = options(path.clone());
    assert!(matches!(Ring::open(&ethernet), Err(RingError::Mismatch { .. })));
    let micro = RingOptions { precision: protocol::time::Precision::Micro, ..unknown };
    assert!(matches!(Ring::open(&micro), Err(RingError::Mismatch { .. })));
}

#[test]
fn a_ring_in_use_is_not_taken() {
    let directory = directory();
    let options = options(directory.path().join("used.ring"));
    let opened = filled(&options, 3);
    assert!(matches!(Ring::open(&options), Err(RingError::InUse { .. })));
    let larger = RingOptions { size: 2 << 20, ..options.clone() };
    assert!(matches!(Ring::open(&larger), Err(RingError::InUse { .. })));
    assert_eq!(run(&opened.ring), 1..4);
    drop(opened);
    assert_eq!(run(&Ring::open(&options).unwrap().ring), 1..4);
}

#[test]
fn another_size_keeps_the_newest_packets() {
    let directory = directory();
    let small = options(directory.path().join("sized.ring"));
    let large = RingOptions { size: 4 << 20, ..small.clone() };
    let opened = filled(&small, 400);
    opened.writer.add_loss(5, 6);
    let permissions = Permissions { uid: 1, gid: 2, mode: 0o700 };
    opened.ring.set_permissions(permissions);
    let before = run(&opened.ring);
    assert!(before.start > 1, "nothing was overwritten: this tests nothing");
    drop(opened);

    let mut grown = Ring::open(&large).unwrap();
    assert_eq!(run(&grown.ring), before, "all of it");
    assert_eq!(grown.recovered, before.end - before.start);
    assert_eq!(grown.ring.permissions(), Some(permissions));
    assert_eq!((grown.ring.losses().kernel, grown.ring.losses().interface), (5, 6));
    for number in before.end..1_000 {
        append(&mut grown.writer, number);
    }
    grown.writer.publish();
    let grown_run = run(&grown.ring);
    assert!(grown_run.end - grown_run.start > 2 * (before.end - before.start));
    drop(grown);

    let shrunk = Ring::open(&small).unwrap();
    let shrunk_run = run(&shrunk.ring);
    assert_eq!(shrunk_run.end, 1_000, "the newest");
    assert!(shrunk_run.start > grown_run.start && shrunk_run.start < 990);
    assert_eq!(shrunk.ring.bounds().next.number, 1_000);
    let left: Vec<PathBuf> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [small.path], "nothing else stays");
}

/// Opens a damaged copy. The result must be an error, or a run of the original packets.
fn open_damaged(
    options: &RingOptions,
    all: &std::ops::Range<u64>,
    what: &str,
) -> Option<std::ops::Range<u64>> {
    match Ring::open(options) {
        Err(RingError::Damaged { .. } | RingError::Mismatch { .. }) => None,
        Err(error) => panic!("{what}: {error}"),
        Ok(mut opened) => {
            let kept = run(&opened.ring);
            if kept.is_empty() {
                assert!(opened.damage.is_some(), "{what}: all gone and not a word");
                return Some(kept);
            }
            assert!(all.start <= kept.start && kept.end <= all.end, "{what}: {kept:?} of {all:?}");
            assert!(
                kept == *all || opened.damage.is_some(),
                "{what}: {kept:?} of {all:?}, and not a word"
            );
            // Packets can be appended to it, and it can be opened again.
            for number in kept.end..kept.end + 30 {
                append(&mut opened.writer, number);
            }
            opened.writer.publish();
            let after = run(&opened.ring);
            drop(opened);
            let again = Ring::open(options).unwrap();
            assert_eq!(again.damage, None, "{what}: repaired");
            assert_eq!(run(&again.ring), after, "{what}");
            Some(kept)
        }
    }
}

/// The layout of the file of the smallest ring: segment headers of 128 bytes from the second page
/// on, bodies from the third.
const HEADERS: usize = 4096;
const HEADER: usize = 128;
const BODIES: usize = 8192;
const SLOTS: usize = 12;

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn damage_is_reported_and_the_kept_packets_are_a_run_of_the_old_ones() {
    let directory = directory();
    let path = directory.path().join("damaged.ring");
    let options = options(path.clone());
    let all = run(&filled(&options, 400).ring);
    let whole = fs::read(&path).unwrap();
    let mut slots: Vec<(u64, usize)> = (0..SLOTS)
        .map(|slot| (word(&whole, HEADERS + slot * HEADER), slot))
        .filter(|(sequence, _)| *sequence != 0)
        .collect();
    slots.sort_unstable();
    assert_eq!(slots.len(), 4, "the ring is full");
    let header_of = |index: usize| HEADERS + slots[index].1 * HEADER;
    let body_of = |index: usize| BODIES + slots[index].1 * support::SEGMENT;
    let used_of = |index: usize| (word(&whole, header_of(index) + 48) >> 32) as usize;

    let attempt = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        open_damaged(&options, &all, what)
    };
    assert_eq!(attempt("nothing", &|_| {}), Some(all.clone()));

    // Every byte of the file header that has a meaning.
    for at in 0..104 {
        for bit in [0x01, 0x80] {
            let kept = attempt(&format!("file header {at}"), &|bytes| bytes[at] ^= bit);
            if (0..40).contains(&at) {
                assert_eq!(kept, None, "file header {at}: accepted");
            }
        }
    }
    // Every byte of a segment header.
    for index in [0, 2, 3] {
        for at in 0..HEADER {
            let what = format!("header {index}, byte {at}");
            let kept = attempt(&what, &|bytes| bytes[header_of(index) + at] ^= 0x41).unwrap();
            assert!(!kept.is_empty(), "{what}: three others were whole");
        }
    }
    // A byte in each part of a body.
    for index in 0..4 {
        let used = used_of(index);
        assert!(used > 20);
        for at in [0, 9, 17, used / 2, used - 1] {
            let what = format!("body {index}, byte {at} of {used}");
            let kept = attempt(&what, &|bytes| bytes[body_of(index) + at] ^= 0x10).unwrap();
            assert!(kept != all && !kept.is_empty(), "{what}: {kept:?}");
        }
    }
    // Bytes after the committed ones have no meaning.
    let end = used_of(3);
    assert!(end < support::SEGMENT);
    assert_eq!(attempt("unused", &|bytes| bytes[body_of(3) + end] ^= 1), Some(all.clone()));
    // A segment header that is missing.
    for index in 0..4 {
        let zeroed = attempt(&format!("zeroed header {index}"), &|bytes| {
            bytes[header_of(index)..header_of(index) + HEADER].fill(0);
        });
        let ones = attempt(&format!("ones in header {index}"), &|bytes| {
            bytes[header_of(index)..header_of(index) + HEADER].fill(0xff);
        });
        assert_eq!(zeroed, ones);
        let kept = zeroed.unwrap();
        if index == 0 {
            assert_eq!(kept.end, all.end, "all but the oldest");
        } else {
            assert_eq!(kept.start, all.start, "all before");
        }
        assert!(kept != all && !kept.is_empty());
    }
    // Killed after the next segment was opened and before the previous one was sealed: that is no
    // damage.
    let mut between = whole.clone();
    between[header_of(2) + 44..header_of(2) + 48].fill(0);
    between[header_of(3) + 48..header_of(3) + 56].fill(0);
    fs::write(&path, between).unwrap();
    for _ in 0..2 {
        let opened = Ring::open(&options).unwrap();
        assert_eq!(opened.damage, None);
        assert_eq!(run(&opened.ring), all.start..word(&whole, header_of(3) + 8));
    }
    let nothing = attempt("all headers", &|bytes| bytes[HEADERS..BODIES].fill(0xff));
    assert_eq!(nothing, Some(1..1));
}

#[test]
fn files_that_are_not_rings_are_refused_and_not_changed() {
    let directory = directory();
    let path = directory.path().join("other.ring");
    let options = options(path.clone());
    drop(filled(&options, 50));
    let whole = fs::read(&path).unwrap();
    let mut contents: Vec<Vec<u8>> = [1, 7, 8, 100, 4095, 4096, 5000, 8192, whole.len() - 1]
        .into_iter()
        .map(|len| whole[..len].to_vec())
        .collect();
    contents.push([&whole[..], &[0]].concat());
    contents.push(b"not a ring at all".repeat(1_000));
    contents.push((0..whole.len()).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect());
    for content in contents {
        fs::write(&path, &content).unwrap();
        let error = Ring::open(&options).unwrap_err();
        assert!(matches!(error, RingError::Damaged { .. }), "{}: {error}", content.len());
        assert!(fs::read(&path).unwrap() == content, "{} bytes were changed", content.len());
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(Ring::open(&options), Err(RingError::System { .. })));
}

#[test]
fn a_sparse_copy_gets_its_pages_back() {
    let directory = directory();
    let options = options(directory.path().join("sparse.ring"));
    let all = run(&filled(&options, 20).ring);
    let bytes = fs::read(&options.path).unwrap();
    fs::remove_file(&options.path).unwrap();
    let copy = fs::File::create(&options.path).unwrap();
    copy.set_len(bytes.len() as u64).unwrap();
    for (index, page) in bytes.chunks(4096).enumerate() {
        if page.iter().any(|&byte| byte != 0) {
            copy.write_all_at(page, index as u64 * 4096).unwrap();
        }
    }
    assert_eq!(run(&Ring::open(&options).unwrap().ring), all);
    let reserved =
        std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&options.path).unwrap()) * 512;
    assert!(reserved >= bytes.len() as u64, "{reserved}");
}

#[test]
fn a_full_file_system_is_an_error_and_leaves_no_file() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root, for a small file system of its own");
        return;
    }
    let directory = directory();
    let path = directory.path();
    thread::scope(|scope| {
        let test = scope.spawn(move || {
            // A mount namespace for this thread, which unmounts the file system when the thread
            // ends.
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("size=3m")).unwrap();
            let small = options(path.join("full.ring"));
            let large = RingOptions { size: 16 << 20, ..small.clone() };
            let Err(RingError::NoSpace { needed, .. }) = Ring::open(&large) else {
                panic!("a ring of 16 MiB in 3 MiB")
            };
            assert!((16..32).contains(&needed));
            let left = || fs::read_dir(path).unwrap().count();
            assert_eq!(left(), 0);
            // A ring that cannot grow stays as it was.
            let all = run(&filled(&small, 100).ring);
            assert!(matches!(Ring::open(&large), Err(RingError::NoSpace { .. })));
            assert_eq!(left(), 1);
            assert_eq!(run(&Ring::open(&small).unwrap().ring), all);
        });
        test.join().unwrap();
    });
}

#[test]
fn a_file_of_another_owner_or_mode_is_not_a_ring() {
    use std::os::unix::fs::{chown, symlink};
    let folder = directory();
    let options = options(folder.path().join("web.ring"));
    drop(filled(&options, 10));
    let path = &options.path;
    let refused = |part: &str| {
        let before = fs::read(path).unwrap();
        let error = Ring::open(&options).unwrap_err();
        assert!(matches!(error, RingError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(fs::read(path).unwrap(), before, "left as it was");
    };
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        refused("writable for other users");
    }
    // A ring that others may only read is closed to them.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(Ring::open(&options).unwrap());
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = folder.path().join("second");
    fs::hard_link(path, &second).unwrap();
    refused("second name");
    fs::remove_file(path).unwrap();
    symlink(&second, path).unwrap();
    refused("a link");
    fs::remove_file(path).unwrap();
    fs::rename(&second, path).unwrap();
    // Only root can give a file away.
    if chown(path, Some(54_321), None).is_ok() {
        refused("another user's");
        chown(path, Some(0), None).unwrap();
    }
    assert_eq!(run(&Ring::open(&options).unwrap().ring), 1..11);
}
