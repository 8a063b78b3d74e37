//! The holes in time that pcapng streams report.
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use capture::bell::Bell;
use capture::clock;
use capture::cursor::snapshot::{Snapshot, SnapshotExtent};
use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::ring::{Append, OpenedRing, Ring, Writer};
use capture::store::Store;
use protocol::time::Timestamp;
use support::{Parser, collect, data, directory, options, time};

fn ring() -> (tempfile::TempDir, Arc<Ring>, Writer) {
    let directory = directory();
    let OpenedRing { ring, writer, .. } =
        Ring::open(&options(directory.path().join("x.ring"))).unwrap();
    (directory, ring, writer)
}

fn append(writer: &mut Writer, numbers: std::ops::RangeInclusive<u64>, len: usize) {
    for number in numbers {
        let original_len = u32::try_from(len + 1).unwrap();
        let done = writer.append(time(number), original_len, &data(number, len));
        assert_eq!(done, Append::Stored);
    }
    writer.publish();
}

/// Loses and finds the source. Returns the text that reports the hole.
fn hole(writer: &mut Writer, second: u64) -> String {
    let [began, ended] =
        [second, second + 2].map(|second| Timestamp::from_nanoseconds(second * 1_000_000_000));
    writer.source_lost(began, "eth0 went away");
    writer.source_found(ended);
    format!(
        "pcapfs: nothing was captured from 1970-01-01T00:00:{second:02}.000000000Z \
         to 1970-01-01T00:00:{:02}.000000000Z: eth0 went away",
        second + 2
    )
}

fn cursor(ring: &Ring, begin: Begin) -> (Cursor, Parser) {
    (Cursor::new(ring, SavefileFormat::Pcapng, begin, true), Parser::new(true))
}

/// Reads everything available.
fn read((cursor, parser): &mut (Cursor, Parser), ring: &Ring, want: usize) {
    parser.feed(&support::drain(cursor, ring, want).0);
}

/// Holes reported in statistics, each with the number of packets before it.
fn told(parser: &Parser) -> Vec<(u64, String)> {
    let statistics = parser.statistics.iter();
    statistics.filter_map(|one| Some((one.after, one.hole.clone()?))).collect()
}

/// Numbers of packets whose comments report holes, with these holes.
fn comments(parser: &Parser) -> Vec<(u64, Vec<String>)> {
    let packets = parser.packets.iter().filter(|packet| !packet.holes.is_empty());
    packets.map(|packet| (packet.number, packet.holes.clone())).collect()
}

#[test]
fn a_hole_is_reported_once_before_the_packet_after_it_at_any_read_size() {
    for want in [1, 7, 64, 1 << 20] {
        let (_directory, ring, mut writer) = ring();
        append(&mut writer, 1..=3, 100);
        let text = hole(&mut writer, 10);
        append(&mut writer, 4..=6, 100);
        let mut follow = cursor(&ring, Begin::Oldest);
        read(&mut follow, &ring, want);
        append(&mut writer, 7..=8, 100);
        read(&mut follow, &ring, want);
        let parser = &follow.1;
        assert_eq!(parser.count, 8);
        assert_eq!(told(parser), [(3, text.clone())]);
        assert_eq!(comments(parser), [(4, vec![text])]);
    }
}

#[test]
fn a_reader_that_opened_after_a_hole_gets_no_report() {
    let (_directory, ring, mut writer) = ring();
    append(&mut writer, 1..=3, 100);
    hole(&mut writer, 10);
    let mut live = cursor(&ring, Begin::Next);
    append(&mut writer, 4..=6, 100);
    read(&mut live, &ring, 1 << 20);
    assert_eq!((told(&live.1), live.1.count), (vec![], 3));

    // A hole among dropped packets is not reported to a reader of the packets after it.
    writer.clear();
    append(&mut writer, 7..=9, 100);
    let mut follow = cursor(&ring, Begin::Oldest);
    read(&mut follow, &ring, 1 << 20);
    assert_eq!((told(&follow.1), follow.1.count), (vec![], 3));
}

#[test]
fn a_waiting_reader_gets_the_hole_when_the_source_is_back() {
    let (_directory, ring, mut writer) = ring();
    append(&mut writer, 1..=3, 100);
    let rung = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&rung);
    let bell = Bell::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    ring.bells().hang(Arc::clone(&bell));
    let mut live = cursor(&ring, Begin::Next);
    read(&mut live, &ring, 1 << 20);
    let mut pcap = Cursor::new(&*ring, SavefileFormat::Pcap, Begin::Next, true);
    support::drain(&mut pcap, &*ring, 1 << 20);
    bell.arm();
    assert!(!live.0.is_ready(&*ring));

    let text = hole(&mut writer, 10);
    assert_eq!(rung.load(Ordering::SeqCst), 1);
    assert!(live.0.is_ready(&*ring) && !pcap.is_ready(&*ring));
    read(&mut live, &ring, 1 << 20);
    assert_eq!(told(&live.1), [(0, text.clone())]);
    assert!(!live.0.is_ready(&*ring));

    // A cursor that was opened while the source was away gets the report too.
    writer.source_lost(time(1), "again");
    let mut late = cursor(&ring, Begin::Next);
    writer.source_found(time(2));
    append(&mut writer, 4..=6, 100);
    read(&mut live, &ring, 1 << 20);
    read(&mut late, &ring, 1 << 20);
    let told_late = told(&late.1);
    let [(0, again)] = &told_late[..] else { panic!("{told_late:?}") };
    assert_eq!(told(&live.1), [(0, text.clone()), (0, again.clone())]);
    assert_eq!(comments(&live.1), [(4, vec![text, again.clone()])]);
    assert_eq!(comments(&late.1), [(4, vec![again.clone()])]);
}

#[test]
fn a_reader_overtaken_across_a_hole_gets_it_with_the_next_packet() {
    let (_directory, ring, mut writer) = ring();
    let mut live = cursor(&ring, Begin::Next);
    append(&mut writer, 1..=2, 50_000);
    let text = hole(&mut writer, 10);
    append(&mut writer, 3..=40, 50_000);
    let oldest = ring.bounds().oldest.number;
    assert!(oldest > 3, "{oldest}");
    read(&mut live, &ring, 1 << 20);
    let parser = &live.1;
    assert_eq!(told(parser), [(0, text.clone())]);
    assert_eq!(comments(parser), [(oldest, vec![text])]);
    assert_eq!(parser.packets[0].comment, Some(oldest - 1));
}

#[test]
fn a_stop_is_not_reported_in_comments_on_packets() {
    let (_directory, ring, mut writer) = ring();
    append(&mut writer, 1..=3, 100);
    writer.source_rests(time(1), "stopped");
    writer.source_found(time(2));
    append(&mut writer, 4..=6, 100);
    let mut follow = cursor(&ring, Begin::Oldest);
    read(&mut follow, &ring, 1 << 20);
    let told = told(&follow.1);
    assert!(told.len() == 1 && told[0].0 == 3 && told[0].1.ends_with(": stopped"), "{told:?}");
    assert_eq!(comments(&follow.1), []);
}

#[test]
fn a_failed_reply_reports_nothing() {
    let (_directory, ring, mut writer) = ring();
    let mut live = cursor(&ring, Begin::Next);
    read(&mut live, &ring, 1 << 20);
    let text = hole(&mut writer, 10);
    let mut refuse = |_: &[std::io::IoSlice<'_>]| Err(std::io::ErrorKind::Other.into());
    live.0.read(&*ring, 4096, &mut refuse).unwrap_err();
    assert!(live.0.is_ready(&*ring));
    read(&mut live, &ring, 1 << 20);
    assert_eq!(told(&live.1), [(0, text)]);
}

#[test]
fn many_holes_are_reported_as_far_as_they_are_kept() {
    let (_directory, ring, mut writer) = ring();
    append(&mut writer, 1..=1, 100);
    let mut follow = cursor(&ring, Begin::Oldest);
    for _ in 0..300 {
        hole(&mut writer, 10);
    }
    append(&mut writer, 2..=2, 100);
    read(&mut follow, &ring, 1 << 20);
    assert_eq!(told(&follow.1).len(), 256);
    let comments = comments(&follow.1);
    let [(2, texts)] = &comments[..] else { panic!("{comments:?}") };
    assert_eq!(texts.len(), 16);
    assert!(!follow.0.is_ready(&*ring));
}

#[test]
fn files_of_known_length_say_nothing() {
    let (_directory, ring, mut writer) = ring();
    append(&mut writer, 1..=3, 100);
    hole(&mut writer, 10);
    append(&mut writer, 4..=6, 100);
    let extent = SnapshotExtent::new(&*ring, SavefileFormat::Pcapng);
    let mut snapshot = Snapshot::new(&*ring, extent);
    let (mut bytes, mut parser) = (Vec::new(), Parser::new(true));
    loop {
        let at = bytes.len() as u64;
        if snapshot.read(&*ring, at, 100, &mut collect(&mut bytes)).unwrap() == ReadOutcome::End {
            break;
        }
    }
    assert_eq!(bytes.len() as u64, extent.size(&*ring));
    parser.feed(&bytes);
    assert_eq!((parser.count, told(&parser), comments(&parser)), (6, vec![], vec![]));
}

#[test]
fn reasons_are_collected_until_the_source_is_back() {
    let (_directory, ring, mut writer) = ring();
    writer.source_found(time(1));
    assert_eq!(ring.holes(), 0, "it was not lost");
    writer.source_lost(time(2), "eth0 went away");
    writer.source_rests(time(3), "stopped");
    assert_eq!(ring.holes(), 0, "it is not over");
    // The clock was set back.
    writer.source_found(time(1));
    writer.source_found(time(9));
    assert_eq!(ring.holes(), 1);
    let (_, hole) = ring.hole(0).unwrap();
    assert_eq!((hole.began, hole.ended, &*hole.why), (time(2), time(2), "eth0 went away; stopped"));
    assert!(hole.lost);
}

#[test]
fn a_ring_knows_when_it_was_left() {
    let directory = directory();
    let options = options(directory.path().join("x.ring"));
    let left = |before: Timestamp, size: u64| {
        let mut opened =
            Ring::open(&capture::ring::RingOptions { size, ..options.clone() }).unwrap();
        let left = opened.left;
        assert!(left.is_none_or(|left| before <= left && left < clock::now()));
        append(&mut opened.writer, 1..=1, 100);
        (left, opened.writer)
    };
    let now = clock::now();
    let (none, writer) = left(now, options.size);
    assert_eq!(none, None, "a new one");
    writer.note_alive();
    drop(writer);
    let (first, mut writer) = left(now, options.size);
    assert!(first.is_some());
    writer.source_rests(clock::now(), "stopped");
    writer.note_alive();
    drop(writer);
    let (same, writer) = left(now, options.size * 2);
    assert_eq!(same, first, "it did not capture since");
    drop(writer);
    assert_eq!(left(now, options.size * 2).0, first, "of another size, it still knows");
}
