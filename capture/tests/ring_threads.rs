//! The ring under load: one writer at full speed, and readers of every kind and speed at the same
//! time.
//!
//! Each packet's bytes depend on its number and its length, so a torn packet is noticed wherever it
//! tears. The tests are limited by counts, not by time: all readers read until the writer has
//! ended.
mod support;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use capture::bell::Bell;
use capture::cursor::snapshot::{Snapshot, SnapshotExtent};
use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::pipeline::counters;
use capture::ring::{Append, MAX_PINS, OpenedRing, Ring, Writer};
use capture::store::{PinError, Store};
use support::{Parser, SEGMENT, collect, data, directory, length, options, time};

/// After this time a waiting reader has been forgotten. It only ends a failed test; a successful
/// test never waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns `true` if the source is lost and found after this packet.
fn is_before_hole(number: u64) -> bool {
    number.wrapping_mul(0x9e37_79b9).is_multiple_of(499)
}

/// Appends `count` packets in batches of changing size; calls `pause` after each batch.
fn write(writer: &mut Writer, count: u64, mut pause: impl FnMut(u64)) {
    for number in 1..=count {
        let len = length(number);
        let original_len = u32::try_from(len + 1).unwrap();
        let done = writer.append(time(number), original_len, &data(number, len));
        assert_eq!(done, Append::Stored);
        if is_before_hole(number) {
            writer.source_lost(time(number), &format!("after {number}"));
            writer.source_found(time(number));
        }
        if number.wrapping_mul(0x9e37_79b9) % 23 == 0 {
            writer.publish();
            pause(number);
        }
    }
    writer.set_ended(true);
}

fn bell(ring: &Ring) -> (Arc<Bell>, Receiver<()>) {
    let (sender, receiver) = sync_channel(1);
    let bell = Bell::new(move || {
        // A full channel means that a message is on its way.
        let _ = sender.try_send(());
    });
    ring.bells().hang(Arc::clone(&bell));
    (bell, receiver)
}

/// The packets that a reader has seen by the end.
struct Seen {
    first: Option<u64>,
    delivered: u64,
    lost: u64,
}

/// Reads to the end with read sizes in turn. Checks every packet, and that the counters add up at
/// every step.
fn read(ring: &Ring, format: SavefileFormat, begin: Begin, wants: &[usize]) -> Seen {
    let (bell, bells) = bell(ring);
    let mut cursor = Cursor::new(ring, format, begin, true);
    let mut parser = Parser::forgetful(format == SavefileFormat::Pcapng);
    let mut bytes = Vec::new();
    let (mut first, mut last, mut jumped) = (None, None, 0);
    let mut origin = (0, u64::MAX);
    for round in 0_usize.. {
        bytes.clear();
        let want = wants[round % wants.len()];
        let outcome = cursor.read(ring, want, &mut |slices: &[IoSlice<'_>]| {
            slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
            // Yield while the segments are pinned, so that many are pinned at once.
            thread::yield_now();
            Ok(())
        });
        let sum = |cursor: &Cursor| {
            let before = ring.bounds().next.number;
            let progress = cursor.progress(ring);
            let after = ring.bounds().next.number;
            (before, progress.delivered + progress.lost + progress.lag, after)
        };
        let (before, all, after) = sum(&cursor);
        match outcome.unwrap() {
            ReadOutcome::Sent(_) => parser.feed(&bytes),
            ReadOutcome::Empty => {
                bell.arm();
                if !cursor.is_ready(ring) {
                    bells.recv_timeout(PATIENCE).expect("the writer forgot to ring");
                }
                continue;
            }
            ReadOutcome::End => break,
        }
        for packet in &parser.packets {
            packet.check();
            assert_eq!(packet.data.len(), length(packet.number));
            // Known only for a reader that begins with a retained packet.
            first.get_or_insert(packet.number);
            if let Some(last) = last {
                assert!(packet.number > last, "twice, or not in order");
                let lost = packet.number - last - 1;
                jumped += lost;
                if format == SavefileFormat::Pcapng {
                    assert_eq!(packet.comment.unwrap_or(0), lost);
                    let holes = (last..packet.number).filter(|number| is_before_hole(*number));
                    let holes = holes.map(|number| format!(": after {number}"));
                    // The comment on one packet has no more holes than this.
                    let holes: Vec<_> = holes.take(16).collect();
                    let told = packet.holes.iter().zip(&holes);
                    let same = told.filter(|(text, hole)| text.ends_with(hole.as_str())).count();
                    assert!(same == holes.len() && same == packet.holes.len(), "{packet:?}");
                }
            }
            last = Some(packet.number);
        }
        // The sum belongs to some moment between the two looks. It is counted from an origin that
        // is not known here, but is always the same.
        origin = (origin.0.max(before.saturating_sub(all)), origin.1.min(after - all));
        assert!(origin.0 <= origin.1, "delivered + lost + lag does not add up: {origin:?}");
    }
    assert_eq!(parser.pending(), 0, "whole records at the end");
    let progress = cursor.progress(ring);
    assert_eq!(progress.lag, 0);
    assert_eq!(progress.delivered, parser.count, "exactly what was parsed");
    let all = progress.delivered + progress.lost;
    let begun = ring.bounds().next.number - all;
    // Packets lost before the first packet do not show as a jump between packets.
    let before_first = first.map_or(progress.lost, |first| first - begun);
    assert_eq!(progress.lost, jumped + before_first, "exactly what was jumped over");
    if format == SavefileFormat::Pcapng {
        let last = parser.statistics.last().expect("a stream that ends says so");
        assert_eq!(last.delivered, progress.delivered);
        assert_eq!(last.received, ring.bounds().next.number - 1);
    }
    Seen { first, delivered: progress.delivered, lost: progress.lost }
}

#[test]
fn nothing_is_torn_and_every_loss_is_counted() {
    const COUNT: u64 = 30_000;
    let directory = directory();
    let OpenedRing { ring, mut writer, .. } =
        Ring::open(&options(directory.path().join("threads.ring"))).unwrap();
    let appended = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ring = &ring;
        let end = End(&over);
        let readers: Vec<_> = [
            (SavefileFormat::Pcap, &[1, 1, 1, 1, 500][..]),
            (SavefileFormat::Pcap, &[15, 16, 17, 1_000]),
            (SavefileFormat::Pcap, &[4_096]),
            (SavefileFormat::Pcap, &[1 << 20]),
            (SavefileFormat::Pcap, &[1 << 20]),
            (SavefileFormat::Pcap, &[1 << 20, 1]),
            (SavefileFormat::Pcapng, &[1, 7, 2_000]),
            (SavefileFormat::Pcapng, &[100_000]),
        ]
        .map(|(format, wants)| scope.spawn(move || read(ring, format, Begin::Oldest, wants)))
        .into_iter()
        .collect();
        let status = scope.spawn(|| watch(ring, &appended, &over));
        let files = scope.spawn(|| snapshots(ring, &over));
        write(&mut writer, COUNT, |number| {
            appended.store(number, Ordering::Release);
            if number.is_multiple_of(3) {
                thread::yield_now();
            }
        });
        let seen: Vec<Seen> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        drop(end);
        status.join().unwrap();
        files.join().unwrap();
        assert!(seen.iter().any(|seen| seen.lost > 0), "no reader was lapped: this tested nothing");
        assert!(seen.iter().all(|seen| seen.delivered > 0 && seen.first.is_some()));
    });
    assert_eq!(ring.bounds().next.number, COUNT + 1);
}

/// Ends the threads that run until stopped, even if the test has failed.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Reads the counters all the time.
fn watch(ring: &Ring, appended: &AtomicU64, over: &AtomicBool) {
    let mut last = counters(ring).0;
    while !over.load(Ordering::Acquire) {
        let at_least = appended.load(Ordering::Acquire);
        let (packets, bytes) = counters(ring);
        assert!(packets.stored >= at_least, "published, but not counted");
        assert_eq!(packets.stored, packets.retained + packets.overwritten);
        let dropped = packets.dropped_kernel + packets.dropped_oversize;
        assert_eq!(packets.seen, packets.stored + dropped);
        assert!(packets.stored >= last.stored && packets.overwritten >= last.overwritten);
        assert!(bytes.retained <= ring.geometry().size(), "more than there is room for");
        assert!(ring.capacity().used <= ring.capacity().segments);
        last = packets;
    }
}

/// Reads the whole file again and again while it changes. Each time it must end.
fn snapshots(ring: &Ring, over: &AtomicBool) {
    for round in 0_usize.. {
        if over.load(Ordering::Acquire) {
            break;
        }
        let format =
            if round.is_multiple_of(2) { SavefileFormat::Pcap } else { SavefileFormat::Pcapng };
        let extent = SnapshotExtent::new(ring, format);
        let mut snapshot = Snapshot::new(ring, extent);
        let mut parser = Parser::forgetful(format == SavefileFormat::Pcapng);
        let mut offset = 0;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let want = 1 << (10 + round % 8);
            let outcome = snapshot.read(ring, offset, want, &mut collect(&mut bytes)).unwrap();
            if outcome == ReadOutcome::End {
                break;
            }
            offset += bytes.len() as u64;
            parser.feed(&bytes);
            parser.packets.iter().for_each(support::Packet::check);
            // The end was set at the beginning; a lap moves past it by one read at most.
            assert!(offset <= 2 * ring.geometry().size(), "it does not end");
        }
        assert_eq!(parser.pending(), 0, "the end of file is in a record");
    }
}

#[test]
fn follow_has_no_gap_and_no_duplicate_between_the_stored_and_the_live() {
    const COUNT: u64 = 10_000;
    let directory = directory();
    let options = capture::ring::RingOptions {
        // The ring holds all packets, so none may be missing.
        size: 64 << 20,
        ..options(directory.path().join("follow.ring"))
    };
    let OpenedRing { ring, mut writer, .. } = Ring::open(&options).unwrap();
    thread::scope(|scope| {
        let ring = &ring;
        let mut readers = Vec::new();
        write(&mut writer, COUNT, |number| {
            if readers.len() < 8 && number > readers.len() as u64 * COUNT / 8 {
                let wants = [&[5_000][..], &[1 << 20]][readers.len() % 2];
                let format = [SavefileFormat::Pcap, SavefileFormat::Pcapng][readers.len() / 2 % 2];
                readers.push(scope.spawn(move || read(ring, format, Begin::Oldest, wants)));
            }
        });
        assert_eq!(readers.len(), 8);
        for reader in readers {
            let seen = reader.join().unwrap();
            assert_eq!((seen.first, seen.delivered, seen.lost), (Some(1), COUNT, 0));
        }
    });
}

/// When a segment is seen as full, all its packets are seen. It is checked all the time, with only
/// a few packets in each segment.
#[test]
fn a_full_segment_holds_every_packet_before_the_next_segment() {
    const ENOUGH: u64 = 400;
    let directory = directory();
    let OpenedRing { ring, mut writer, .. } =
        Ring::open(&options(directory.path().join("full.ring"))).unwrap();
    let (over, compared) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let (ring, over, compared) = (&ring, &over, &compared);
        let end = End(over);
        let reader = scope.spawn(move || {
            let mut id = 0;
            while !over.load(Ordering::Acquire) {
                let Ok(chunk) = ring.pin(id) else {
                    id = ring.bounds().newest_chunk;
                    continue;
                };
                if !chunk.complete {
                    continue;
                }
                let count = capture::record::PacketRecords::new(chunk.bytes()).count();
                if let Ok(next) = ring.pin_more(chunk.id + 1) {
                    assert_eq!(next.first.number, chunk.first.number + count as u64);
                    compared.fetch_add(1, Ordering::Relaxed);
                }
                id += 1;
            }
        });
        let data = vec![7; SEGMENT / 3];
        while compared.load(Ordering::Relaxed) < ENOUGH && !reader.is_finished() {
            assert_eq!(writer.append(time(0), 1, &data), Append::Stored);
            writer.publish();
        }
        drop(end);
        reader.join().unwrap();
    });
}

#[test]
fn a_live_reader_gets_the_packets_after_its_opening() {
    let directory = directory();
    let OpenedRing { ring, mut writer, .. } =
        Ring::open(&options(directory.path().join("live.ring"))).unwrap();
    let mut append = |number: u64| {
        let len = length(number);
        let len32 = u32::try_from(len + 1).unwrap();
        assert_eq!(writer.append(time(number), len32, &data(number, len)), Append::Stored);
        writer.publish();
    };
    append(1);
    let mut cursor = Cursor::new(&*ring, SavefileFormat::Pcap, Begin::Next, false);
    append(2);
    append(3);
    let mut parser = Parser::new(false);
    parser.feed(&support::drain(&mut cursor, &*ring, 1 << 20).0);
    let numbers: Vec<u64> = parser.packets.iter().map(|packet| packet.number).collect();
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn pinned_segments_do_not_change_and_the_writer_goes_on() {
    let directory = directory();
    let OpenedRing { ring, mut writer, .. } =
        Ring::open(&options(directory.path().join("pins.ring"))).unwrap();
    let mut number = 0;
    let mut fill = |segments: u64| {
        let until = ring.bounds().newest_chunk + segments;
        while ring.bounds().newest_chunk < until {
            number += 1;
            let done = writer.append(time(number), 60_001, &data(number, 60_000));
            assert_eq!(done, Append::Stored);
        }
        writer.publish();
    };
    // The maximum number of pins, each on a different segment; most of these are overwritten by
    // now.
    let mut held = Vec::new();
    for _ in 0..MAX_PINS {
        fill(1);
        let chunk = ring.pin(ring.bounds().newest_chunk - 1).unwrap();
        let bytes = chunk.bytes().to_vec();
        held.push((chunk, bytes));
    }
    assert!(matches!(ring.pin_more(ring.bounds().newest_chunk), Err(PinError::NotYet)));
    fill(40);
    for (chunk, bytes) in &held {
        assert!(chunk.bytes() == bytes.as_slice(), "segment {} was overwritten", chunk.id);
        assert!(chunk.complete);
    }
    assert!(matches!(ring.pin_more(held[0].0.id), Err(PinError::Lapped)));
    // A thread that needs a pin waits until another releases one, and no longer.
    let newest = ring.bounds().newest_chunk;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ring.pin(newest).map(|chunk| chunk.id));
        assert!(ring.pin_more(newest).is_err(), "one more than there may be");
        held.pop();
        assert_eq!(waiting.join().unwrap(), Ok(newest));
    });
    assert!(ring.pin_more(newest).is_ok());
}

/// With segments that are small compared to a read, every reply holds the maximum number of pins.
/// More threads than there are spare segments must still all finish.
#[test]
fn many_threads_with_large_reads_do_not_wait_for_each_other_forever() {
    let directory = directory();
    let OpenedRing { ring, mut writer, .. } =
        Ring::open(&options(directory.path().join("many.ring"))).unwrap();
    for number in 1..=60 {
        assert_eq!(writer.append(time(number), 8_001, &data(number, 8_000)), Append::Stored);
    }
    writer.publish();
    let (done, finished) = sync_channel(1);
    let reading = Arc::clone(&ring);
    // Not scoped: if the threads hang, the test must fail all the same.
    thread::spawn(move || {
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for _ in 0..150 {
                        let mut cursor =
                            Cursor::new(&*reading, SavefileFormat::Pcap, Begin::Oldest, false);
                        let mut got = 0;
                        let mut count = |slices: &[IoSlice<'_>]| -> io::Result<()> {
                            got += slices.iter().map(|slice| slice.len()).sum::<usize>();
                            thread::yield_now();
                            Ok(())
                        };
                        while let ReadOutcome::Sent(_) =
                            cursor.read(&*reading, 1 << 20, &mut count).unwrap()
                        {
                        }
                        assert_eq!(got, 24 + 60 * 8_016);
                    }
                });
            }
        });
        done.send(()).unwrap();
    });
    finished.recv_timeout(PATIENCE).expect("they wait for each other");
}
