//! Many readers of one live stream, compared with one reader.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pcapfs_tests::{ALIAS, Mount, Net, Traffic, Wired, measure, wait_until};

use crate::Effort;
use crate::load::{Noise, Watch};
use crate::memory::{Memory, mebibytes};
use crate::report::Section;
use crate::sample::Sample;
use crate::walker::Walker;

const RATE: u64 = 100_000;
const PACKETS: u64 = 3 * RATE;
/// A frame of 200 bytes.
const PAYLOAD: usize = 200 - pcapfs_tests::frame::HEADERS;
const READERS: [usize; 2] = [1, 64];

#[derive(Debug, Default)]
struct Figures {
    rate: Sample,
    complete: Sample,
    missed: Sample,
    bytes: Sample,
    cpu: Sample,
    per_byte: Sample,
    memory: Sample,
}

pub(crate) fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "Live readers at 100,000 packets/s of 200 bytes",
        &[
            "readers",
            "packets/s",
            "readers that got all",
            "packets missed",
            "delivered MB",
            "daemon CPU s",
            "ns per delivered byte",
            "MiB beside the ring",
        ],
    );
    let mut noise = Noise::default();
    let mut all = READERS.map(|_| Figures::default());
    for round in 0..effort.rounds {
        for turn in 0..READERS.len() {
            let which = (round + turn) % READERS.len();
            let watch = Watch::when_quiet();
            take(READERS[which], &mut all[which]);
            noise.round(&watch);
        }
    }
    for (readers, figures) in READERS.iter().zip(&all) {
        section.row([
            readers.to_string(),
            figures.rate.show(0),
            figures.complete.show(0),
            figures.missed.show(0),
            figures.bytes.show(0),
            figures.cpu.show(2),
            figures.per_byte.show(3),
            figures.memory.show(1),
        ]);
    }
    let [one, many] = &all;
    section.verdict(
        "packets missed by any of 64 live readers",
        many.missed.show(0),
        "0",
        many.missed.max() == 0.0,
    );
    let ratio = many.per_byte.over(&one.per_byte);
    section.verdict(
        "daemon CPU per delivered byte, 64 readers over 1",
        format!("{}x", ratio.show(3)),
        "1x or less",
        ratio.median() <= 1.0,
    );
    section.note(
        "Readers are threads that read 128 KiB at a time and check the number of every packet."
            .to_owned(),
    );
    section.note(noise.show());
    section
}

fn take(readers: usize, figures: &mut Figures) {
    let wired = Wired::with(Mount::new());
    let live = wired.daemon.path("web/live.pcap");
    let reading: Vec<_> = (0..readers).map(|_| follow(&live)).collect();
    wait_until("all readers are there", 10, || {
        wired.daemon.count(ALIAS, "/readers/open") >= readers as u64
    });
    let pid = wired.daemon.pid();
    let cpu = measure::cpu_time(pid);
    let begin = Instant::now();
    let traffic = Traffic::start(Net::sender(&wired.net, PAYLOAD), RATE, PACKETS);
    drop(traffic.finish());
    let elapsed = begin.elapsed();
    // The processor time after the last packet belongs to the figure too.
    thread::sleep(Duration::from_millis(500));
    let cpu = measure::cpu_time(pid).saturating_sub(cpu);
    let memory = Memory::of(pid);
    // Ends the streams, and so the readers.
    drop(wired);
    let walkers: Vec<Walker> =
        reading.into_iter().map(|reader| reader.join().expect("the stream is whole")).collect();

    let bytes: u64 = walkers.iter().map(|walker| walker.bytes).sum();
    let complete = walkers.iter().filter(|walker| walker.packets == PACKETS && walker.jumps == 0);
    let missed: u64 = walkers.iter().map(|walker| PACKETS - walker.packets).sum();
    figures.rate.push(PACKETS as f64 / elapsed.as_secs_f64());
    figures.complete.push(complete.count() as f64);
    figures.missed.push(missed as f64);
    figures.bytes.push(bytes as f64 / 1e6);
    figures.cpu.push(cpu.as_secs_f64());
    figures.per_byte.push(cpu.as_secs_f64() * 1e9 / bytes as f64);
    figures.memory.push(mebibytes(memory.beside_ring()));
}

/// A thread that reads a stream to its end.
pub(crate) fn follow(path: &Path) -> JoinHandle<Walker> {
    let mut file = File::open(path).expect("it can be opened");
    let read = move || {
        let mut walker = Walker::default();
        let mut buffer = vec![0; 128 << 10];
        while let Ok(length @ 1..) = file.read(&mut buffer) {
            walker.push(&buffer[..length], |_| ());
        }
        walker
    };
    thread::Builder::new().stack_size(64 << 10).spawn(read).expect("a thread")
}
