//! Several threads that fill one ring: each packet is there once, those of one thread are in their
//! order, numbers have no holes, and the file is as whole as that of one thread.
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use capture::cursor::snapshot::{Snapshot, SnapshotExtent};
use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::pipeline::counters;
use capture::ring::{
    Append, MIN_RING, OpenedRing, RecordLengths, Ring, RingOptions, SharedWriter, Writer,
};
use capture::store::Store;
use support::{Packet, Parser, SEGMENT, collect, data, directory, length, options, time};

/// The number of a thread's packet, which its time and its bytes show.
fn number_of(thread: u64, index: u64) -> u64 {
    (thread + 1) * 1_000_000 + index
}

/// Stores some packets as a thread does that has a block of them.
fn store(writer: &SharedWriter<'_>, numbers: &[u64]) {
    let mut lengths = RecordLengths::default();
    for number in numbers {
        lengths.push(u32::try_from(length(*number)).unwrap());
    }
    let mut rest = numbers.iter();
    let mut from = 0;
    while from < lengths.len() {
        let mut run = writer.reserve(&lengths, from);
        assert!(run.left() > 0);
        from += run.left();
        for number in rest.by_ref().take(run.left()) {
            let len = length(*number);
            let bytes = data(*number, len);
            let (front, data) = bytes.split_at(len / 3);
            run.append(time(*number), u32::try_from(len + 1).unwrap(), [front, data]);
        }
        run.finish();
    }
}

/// Has `threads` threads store `count` packets each, in blocks of changing size.
fn fill(writer: &mut Writer, threads: u64, count: u64) {
    let shared = SharedWriter::new(writer);
    thread::scope(|scope| {
        for thread in 0..threads {
            let shared = &shared;
            scope.spawn(move || {
                let mut index = 0;
                while index < count {
                    let block = (index % 7 * 40 + 1).min(count - index);
                    let numbers: Vec<u64> =
                        (index..index + block).map(|index| number_of(thread, index)).collect();
                    store(shared, &numbers);
                    index += block;
                }
            });
        }
    });
    drop(shared);
    writer.set_ended(true);
}

/// Checks each packet, and that those of each thread are in their order.
struct Order {
    last: Vec<u64>,
    count: u64,
}

impl Order {
    fn new(threads: u64) -> Self {
        Self { last: (0..threads).map(|thread| number_of(thread, 0)).collect(), count: 0 }
    }

    fn check(&mut self, packet: &Packet) {
        packet.check();
        assert_eq!(packet.data.len(), length(packet.number));
        let thread = usize::try_from(packet.number / 1_000_000 - 1).unwrap();
        assert!(packet.number >= self.last[thread], "twice, or not in order");
        self.last[thread] = packet.number + 1;
        self.count += 1;
    }
}

/// Reads everything that a ring retains as one file.
fn snapshot(ring: &Ring, format: SavefileFormat, threads: u64) -> u64 {
    let extent = SnapshotExtent::new(ring, format);
    let mut snapshot = Snapshot::new(ring, extent);
    let mut parser = Parser::forgetful(format == SavefileFormat::Pcapng);
    let (mut order, mut offset, mut bytes) = (Order::new(threads), 0, Vec::new());
    loop {
        bytes.clear();
        let outcome = snapshot.read(ring, offset, 100_000, &mut collect(&mut bytes)).unwrap();
        if outcome == ReadOutcome::End {
            break;
        }
        offset += bytes.len() as u64;
        parser.feed(&bytes);
        parser.packets.iter().for_each(|packet| order.check(packet));
    }
    assert_eq!(parser.pending(), 0);
    order.count
}

fn large(directory: &tempfile::TempDir) -> RingOptions {
    RingOptions { size: 64 << 20, ..options(directory.path().join("shared.ring")) }
}

#[test]
fn each_packet_is_there_once_and_in_the_order_of_its_thread() {
    const THREADS: u64 = 3;
    const COUNT: u64 = 10_000;
    let directory = directory();
    let options = large(&directory);
    let OpenedRing { ring, mut writer, .. } = Ring::open(&options).unwrap();
    fill(&mut writer, THREADS, COUNT);
    assert_eq!(ring.bounds().next.number, THREADS * COUNT + 1);
    for format in [SavefileFormat::Pcap, SavefileFormat::Pcapng] {
        assert_eq!(snapshot(&ring, format, THREADS), THREADS * COUNT);
    }
    let newest = (0..THREADS).map(|thread| time(number_of(thread, COUNT - 1))).max();
    assert_eq!(ring.bounds().newest_time, newest);
    // The next process finds everything whole, and goes on with one thread.
    drop((ring, writer));
    let OpenedRing { ring, mut writer, recovered, damage, .. } = Ring::open(&options).unwrap();
    assert_eq!((recovered, damage), (THREADS * COUNT, None));
    let next = number_of(THREADS - 1, COUNT);
    let appended = writer.append(
        time(next),
        u32::try_from(length(next) + 1).unwrap(),
        &data(next, length(next)),
    );
    assert_eq!(appended, Append::Stored);
    writer.publish();
    assert_eq!(snapshot(&ring, SavefileFormat::Pcap, THREADS), THREADS * COUNT + 1);
}

#[test]
fn a_small_ring_is_lapped_by_all_threads_and_stays_whole() {
    const THREADS: u64 = 4;
    const COUNT: u64 = 10_000;
    let directory = directory();
    let options = options(directory.path().join("small.ring"));
    let OpenedRing { ring, mut writer, .. } = Ring::open(&options).unwrap();
    assert_eq!(ring.geometry().size(), MIN_RING);
    thread::scope(|scope| {
        let ring = &*ring;
        let readers: Vec<_> = [1, 5_000, 1 << 20]
            .map(|want| {
                scope.spawn(move || {
                    let mut cursor = Cursor::new(ring, SavefileFormat::Pcap, Begin::Oldest, true);
                    let (mut parser, mut order) = (Parser::forgetful(false), Order::new(THREADS));
                    let mut bytes = Vec::new();
                    loop {
                        bytes.clear();
                        let outcome = cursor.read(ring, want, &mut collect(&mut bytes)).unwrap();
                        match outcome {
                            ReadOutcome::Sent(_) => parser.feed(&bytes),
                            ReadOutcome::Empty => thread::yield_now(),
                            ReadOutcome::End => break,
                        }
                        parser.packets.iter().for_each(|packet| order.check(packet));
                        parser.packets.clear();
                    }
                    let progress = cursor.progress(ring);
                    assert_eq!(progress.delivered, order.count);
                    progress.lost
                })
            })
            .into_iter()
            .collect();
        fill(&mut writer, THREADS, COUNT);
        let lost: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(lost > 0, "no reader was lapped: this tested nothing");
    });
    let (packets, bytes) = counters(&*ring);
    assert_eq!(packets.stored, THREADS * COUNT);
    assert_eq!(packets.stored, packets.retained + packets.overwritten);
    assert!(bytes.retained <= ring.geometry().size());
    assert_eq!(snapshot(&ring, SavefileFormat::Pcap, THREADS), packets.retained);
    drop((ring, writer));
    let OpenedRing { recovered, damage, .. } = Ring::open(&options).unwrap();
    assert_eq!((recovered, damage), (packets.retained, None));
}

#[test]
fn a_thread_that_stands_still_holds_back_what_is_visible_and_then_the_others() {
    let directory = directory();
    let OpenedRing { ring, mut writer, .. } =
        Ring::open(&options(directory.path().join("slow.ring"))).unwrap();
    let shared = SharedWriter::new(&mut writer);
    let mut one = RecordLengths::default();
    one.push(100);
    let mut slow = shared.reserve(&one, 0);
    let stored = AtomicUsize::new(0);
    // As many packets as take the rest of the open segment and half of the ring.
    let half = SEGMENT / 2 - 16;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut lengths = RecordLengths::default();
            (0..12).for_each(|_| lengths.push(u32::try_from(half).unwrap()));
            let mut from = 0;
            while from < lengths.len() {
                let mut run = shared.reserve(&lengths, from);
                from += run.left();
                while run.left() > 0 {
                    run.append(time(1), 1, [&[], &vec![7; half]]);
                }
                run.finish();
                stored.store(from, Ordering::Release);
            }
        });
        // One in the rest of the open segment, two in each of the next two, which are half of the
        // ring. Nothing of it is visible.
        while stored.load(Ordering::Acquire) < 5 {
            thread::yield_now();
        }
        assert_eq!(ring.bounds().next.number, 1);
        slow.append(time(0), 100, [&[], &[1; 100]]);
        slow.finish();
    });
    assert_eq!(stored.load(Ordering::Acquire), 12);
    assert_eq!(ring.bounds().next.number, 14);
    shared.alone(|writer| {
        assert_eq!(writer.append(time(2), 1, &[1]), Append::Stored);
        writer.publish();
    });
    assert_eq!(ring.bounds().next.number, 15);
}

#[test]
fn a_thread_that_panics_ends_the_others() {
    let directory = directory();
    let OpenedRing { mut writer, .. } =
        Ring::open(&options(directory.path().join("panic.ring"))).unwrap();
    let shared = SharedWriter::new(&mut writer);
    let mut one = RecordLengths::default();
    one.push(100);
    thread::scope(|scope| {
        let run = shared.reserve(&one, 0);
        // It waits for the run, which is dropped.
        let waiting = scope.spawn(|| {
            catch_unwind(AssertUnwindSafe(|| shared.alone(|_| unreachable!("a run is missing"))))
        });
        drop(run);
        assert!(waiting.join().unwrap().is_err());
        let reserved = catch_unwind(AssertUnwindSafe(|| shared.reserve(&one, 0).left()));
        assert!(reserved.is_err());
    });
}

#[test]
fn a_longer_record_than_a_segment_is_not_reserved() {
    let directory = directory();
    let OpenedRing { mut writer, .. } =
        Ring::open(&options(directory.path().join("long.ring"))).unwrap();
    let shared = SharedWriter::new(&mut writer);
    let longest = u32::try_from(shared.max_captured_len()).unwrap();
    let reserve = |captured_len| {
        let mut one = RecordLengths::default();
        one.push(captured_len);
        let mut run = shared.reserve(&one, 0);
        run.append(time(0), captured_len, [&[], &vec![1; captured_len as usize]]);
        run.finish();
    };
    reserve(longest);
    reserve(longest);
    assert!(catch_unwind(AssertUnwindSafe(|| reserve(longest + 1))).is_err());
    assert_eq!(shared.with(|writer| writer.ring().bounds().next.number), 3);
}
