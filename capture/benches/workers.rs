//! How fast one thread and several threads store the packets of an interface. `make bench` prints it.
//!
//! The sender needs a processor of its own, and on two processors it would take one from the threads
//! that are measured. So the kernel's buffers are filled first, and then the threads empty them.
//!
//! Processors of a virtual machine may be parts of one. So as many threads that only copy as many bytes
//! are measured as well: several threads cannot gain more than these.

#![allow(clippy::print_stdout, reason = "a benchmark is a program that prints")]

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use capture::ring::{OpenedRing, RecordLengths, Ring, RingOptions, SharedWriter, Writer};
use capture::source::{
    InterfaceBackend, Observer, SourceControl, SourceError, SourceName, SourceOptions, Workers,
};
use capture::store::{Interface, Store};
use nix::sched::{CloneFlags, unshare};
use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

/// Bytes of UDP payload, and packets of that size: half a gigabyte of kernel buffer, or a tenth.
const SIZES: [(usize, u64); 2] = [(1_400, 300_000), (18, 600_000)];
const WORKERS: [&str; 3] = ["1", "2", "4"];
const ROUNDS: usize = 7;
const FLOWS: usize = 256;
const PORT: u16 = 40_001;
const KERNEL_BUFFER: u64 = 1 << 30;
/// Time without a packet after which no more comes.
const PATIENCE: Duration = Duration::from_secs(1);
const RING: usize = 64 << 20;
const SNAPLEN: u32 = 262_144;

struct Silent;

impl Observer for Silent {
    fn tick(&mut self, _: &Writer) {}
    fn trouble(&mut self, _: Option<&SourceError>) {}
    fn away(&mut self, _: &mut Writer, _: &SourceError) {}
    fn left(&mut self, _: &mut Writer, _: &SourceError) {}
    fn back(&mut self, _: &mut Writer) {}
}

/// Sends packets of many flows to a socket that takes none.
fn send(len: usize, count: u64) {
    let _listener = UdpSocket::bind(("127.0.0.1", PORT)).expect("the port is free");
    let socket = |_| {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port is free");
        socket.connect(("127.0.0.1", PORT)).expect("there is a loopback interface");
        socket
    };
    let flows: Vec<UdpSocket> = (0..FLOWS).map(socket).collect();
    let payload = vec![7; len];
    for flow in flows.iter().cycle().take(usize::try_from(count).unwrap_or(usize::MAX)) {
        flow.send(&payload).expect("the loopback interface takes all");
    }
}

/// A ring in memory that has all its pages.
fn ring(directory: &Path) -> (Arc<Ring>, Writer) {
    let OpenedRing { ring, writer, .. } = Ring::open(&RingOptions {
        path: directory.join("bench.ring"),
        size: RING as u64,
        snaplen: SNAPLEN,
        precision: Precision::Nano,
        link_type: Some(LinkType::ETHERNET),
        interface: Interface {
            name: Some("lo".to_owned()),
            description: None,
            filter: None,
            snaplen: SNAPLEN,
            link_type: None,
        },
    })
    .expect("there is room for a ring");
    while ring.populate_next() {}
    (ring, writer)
}

/// Nanoseconds to reserve a run, to fill it with one short record, and to make it visible. All but
/// the filling is done by one thread at a time.
fn run() -> f64 {
    const RUNS: u64 = 1_000_000;
    let directory = tempfile::tempdir_in("/dev/shm").expect("there is a tmpfs");
    let (_ring, mut writer) = ring(directory.path());
    let shared = SharedWriter::new(&mut writer);
    let mut lengths = RecordLengths::default();
    lengths.push(60);
    let begin = Instant::now();
    for number in 0..RUNS {
        let mut run = shared.reserve(&lengths, 0);
        run.append(Timestamp::from_nanoseconds(number), 60, [&[], &[7; 60]]);
        run.finish();
    }
    begin.elapsed().as_nanos() as f64 / RUNS as f64
}

/// Nanoseconds of time and of processor for a packet, for `count` packets of `len` bytes of payload.
fn measure(workers: &str, len: usize, count: u64) -> [f64; 2] {
    let directory = tempfile::tempdir_in("/dev/shm").expect("there is a tmpfs");
    let (ring, mut writer) = ring(directory.path());
    let filter = format!("udp dst port {PORT}");
    let options = SourceOptions {
        filter: Some(&filter),
        snaplen: SNAPLEN,
        promiscuous: false,
        kernel_buffer: KERNEL_BUFFER,
        backend: InterfaceBackend::AfPacket,
        workers: Workers::parse(workers).expect("a number"),
        export_keys: false,
        injection: None,
    };
    let mut source = SourceName::parse("lo").open(&options).expect("root may capture");
    send(len, count);
    let control = SourceControl::new().expect("there are descriptors");
    let taken = AtomicU64::new(0);
    let (begin, before) = (Instant::now(), processor_time());
    thread::scope(|scope| {
        let running = scope.spawn(|| source.run(&mut writer, &control, &mut Silent));
        // The kernel drops a packet now and then with most of its buffer free, and that is known later.
        let (mut last, mut elapsed) = (0, Duration::ZERO);
        while last <= count && begin.elapsed() < elapsed + PATIENCE {
            let next = ring.bounds().next.number;
            if std::mem::replace(&mut last, next) != next {
                elapsed = begin.elapsed();
            }
            thread::sleep(Duration::from_micros(200));
        }
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        taken.store(nanoseconds, Ordering::Relaxed);
        control.stop();
        running.join().expect("it does not panic").expect("the interface stays");
    });
    let used = processor_time() - before;
    let (stored, dropped) = (ring.bounds().next.number - 1, ring.losses().kernel);
    assert_eq!(stored + dropped, count, "stored and dropped");
    assert!(dropped < count / 1_000, "{dropped} of {count} packets had no room in the kernel");
    [taken.into_inner() as f64, used.as_nanos() as f64].map(|time| time / count as f64)
}

/// Nanoseconds for a packet if all that threads do is to copy `packets`, each of `len` bytes.
fn copy(threads: usize, len: usize, packets: &[u8]) -> f64 {
    let count = packets.len() / len;
    let room = || vec![1; RING / threads];
    let mut rooms: Vec<Vec<u8>> = (0..threads).map(|_| room()).collect();
    let begin = Instant::now();
    thread::scope(|scope| {
        for (room, share) in rooms.iter_mut().zip(packets.chunks(count.div_ceil(threads) * len)) {
            scope.spawn(move || {
                for lap in share.chunks(room.len() / len * len) {
                    for (to, from) in room.chunks_exact_mut(len).zip(lap.chunks_exact(len)) {
                        to.copy_from_slice(from);
                    }
                }
                std::hint::black_box(room);
            });
        }
    });
    begin.elapsed().as_nanos() as f64 / count as f64
}

/// Processor time of this process, in user and kernel mode.
fn processor_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
    nix::time::clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("not measuring: run it with `make bench`");
        return;
    }
    // A loopback interface without other packets.
    unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "ip link set lo up");
    println!("one run of one record: {:.0} ns", sorted((0..ROUNDS).map(|_| run()))[ROUNDS / 2]);
    println!("emptying the kernel's buffers, {FLOWS} UDP flows, ring of {} MiB:", RING >> 20);
    println!(
        "                ns a packet                      times as fast as one thread, median"
    );
    println!("bytes  threads  min  median   max   processor    capturing   copying alone");
    for (len, count) in SIZES {
        let frame = len + 42;
        let packets = vec![7; frame * usize::try_from(count).unwrap_or(0)];
        let mut all = WORKERS.map(|_| Vec::new());
        for round in 0..ROUNDS {
            for turn in 0..WORKERS.len() {
                let which = (round + turn) % WORKERS.len();
                let threads = WORKERS[which].parse().unwrap_or(1);
                let [time, used] = measure(WORKERS[which], len, count);
                all[which].push([time, used, copy(threads, frame, &packets)]);
            }
        }
        for (which, workers) in WORKERS.iter().enumerate() {
            let column = |column: usize| sorted(all[which].iter().map(|row| row[column]));
            let gain = |column: usize| {
                let pairs = all[0].iter().zip(&all[which]);
                sorted(pairs.map(|(one, several)| one[column] / several[column]))[ROUNDS / 2]
            };
            let times = column(0);
            println!(
                "{frame:5}  {workers:>7}  {:3.0}  {:6.0}  {:4.0}  {:10.0}  {:11.2}  {:14.2}",
                times[0],
                times[ROUNDS / 2],
                times[ROUNDS - 1],
                column(1)[ROUNDS / 2],
                gain(0),
                gain(2),
            );
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}
