//! The speed at which savefiles are indexed and served. `make bench` prints it.

#![allow(clippy::print_stdout, reason = "a benchmark is a program that prints")]

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use capture::filter::Filter;
use capture::savefile::{Probe, SavefileOptions};
use capture::store::Store;
use frames::{Format, pcapng};

/// Packets of a savefile, and bytes of a packet.
const PACKETS: u64 = 1_000_000;
const LENGTH: usize = 1_000;

fn time(number: u64) -> u64 {
    1_700_000_000_000_000_000 + number
}

fn pcap(format: Format) -> Vec<u8> {
    let mut bytes = format.header();
    for number in 0..PACKETS {
        format.append(&mut bytes, time(number), &[7; LENGTH], LENGTH);
    }
    bytes
}

fn pcapng() -> Vec<u8> {
    let nanoseconds = [(pcapng::IF_TSRESOL, &[9][..])];
    let mut bytes = [pcapng::section(&[]), pcapng::interface(1, 0, &nanoseconds)].concat();
    for number in 0..PACKETS {
        bytes.extend(pcapng::packet(0, time(number), &[7; LENGTH], LENGTH, &[]));
    }
    bytes
}

/// Bytes in a nanosecond, which are gigabytes in a second.
fn speed(bytes: &[u8], begin: Instant) -> f64 {
    bytes.len() as f64 / begin.elapsed().as_nanos() as f64
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("not measuring: run it with `make bench`");
        return;
    }
    let native = Format { big_endian: cfg!(target_endian = "big"), ..Format::default() };
    let foreign = Format { big_endian: !native.big_endian, ..native };
    println!("Savefiles of {PACKETS} packets");
    for (name, bytes, filter) in [
        ("native pcap", pcap(native), None),
        ("native pcap, filtered", pcap(native), Some("less 2000")),
        ("pcap of the other byte order", pcap(foreign), None),
        ("pcapng", pcapng(), None),
    ] {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&bytes).expect("room for it");
        let probe = Probe::open(file.path()).expect("a savefile");
        let link_type = probe.link_type();
        let filter = filter.map(|text| Filter::compile(text, link_type).expect("it is valid"));
        let store = probe.into_savefile(SavefileOptions { filter, ..SavefileOptions::default() });
        let begin = Instant::now();
        store.index(&AtomicBool::new(false));
        let indexed = speed(&bytes, begin);
        let begin = Instant::now();
        let mut sum = 0;
        for id in 0..store.capacity().used {
            let chunk = store.pin(id).expect("it is there");
            // A byte of each cache line.
            sum += chunk.bytes().iter().step_by(64).map(|byte| u64::from(*byte)).sum::<u64>();
        }
        let served = speed(&bytes, begin);
        assert!(sum > 0);
        println!("  {name}: indexed at {indexed:.1} GB/s, served at {served:.1} GB/s");
    }
}
