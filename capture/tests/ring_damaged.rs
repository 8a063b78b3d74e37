//! A ring whose headers and notes another process changes while it is in use: readers may get an error, or
//! less, but they come back.

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use capture::cursor::{Begin, Cursor, Format, Outcome};
use capture::ring::{Append, Opened, Ring};
use capture::store::{Interface, NoteRef};
use support::{collect, data, directory, options, time};

/// Ends a test that hangs; what is waited for takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The file header's page, and bytes of a segment header.
const HEADERS: u64 = 4096;
const HEADER: u64 = 128;

/// Reads for as long as there is something, but no more than a whole ring has.
fn read_on(cursor: &mut Cursor, ring: &Ring) {
    let mut bytes = Vec::new();
    for _ in 0..200 {
        bytes.clear();
        match cursor.read(ring, 64 << 10, &mut collect(&mut bytes)) {
            Ok(Outcome::Sent(_)) => {}
            Ok(Outcome::Empty | Outcome::End) | Err(_) => break,
        }
    }
    cursor.is_ready(ring);
    cursor.progress(ring);
}

/// Random numbers (xorshift64).
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

fn flip_bits_while_reading(seed: u64) {
    let directory = directory();
    let path = directory.path().join("x.ring");
    let Opened { ring, mut writer, .. } = Ring::open(&options(path.clone())).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let segments = 16;
    // Bodies of the segments lie behind all headers, and notes at the end of each.
    let size = ring.geometry().segment_size;
    let bodies = file.metadata().unwrap().len() - size * u64::from(ring.geometry().slots());
    let second = Interface { name: Some("second".to_owned()), ..Interface::default() };
    let second = writer.describe(&second, &[]).unwrap();
    let mut random = seed | 1;
    let mut number = 0;
    let mut follow = [Format::Pcap, Format::Pcapng]
        .map(|format| Cursor::new(&*ring, format, Begin::Oldest, true));
    for _ in 0..30 {
        for _ in 0..200 {
            number += 1;
            writer.set_interface(if number % 3 == 0 { second } else { 0 });
            let note = NoteRef { blocks: &[0; 12], options: b"\x05\0\x08\0number 1" };
            let note = if number % 4 == 0 { note } else { NoteRef::default() };
            let done = writer.append_noted(time(number), 1_000, &data(number, 1_000), note);
            assert_eq!(done, Append::Stored);
        }
        writer.publish();
        for round in 0..16 {
            let place = if round % 2 == 0 {
                HEADERS + next(&mut random) % (HEADER * segments)
            } else {
                let slot = next(&mut random) % u64::from(ring.geometry().slots());
                bodies + size * (slot + 1) - 1 - next(&mut random) % 2_000
            };
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).unwrap();
            byte[0] ^= 1 << (next(&mut random) % 8);
            file.write_all_at(&byte, place).unwrap();
        }
        follow.iter_mut().for_each(|cursor| read_on(cursor, &ring));
        for format in [Format::Pcap, Format::Pcapng] {
            read_on(&mut Cursor::new(&*ring, format, Begin::Oldest, false), &ring);
        }
    }
}

#[test]
fn flipped_bits_hold_no_reader_for_ever() {
    for seed in 1..=8 {
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            flip_bits_while_reading(seed * 0x9e37_79b9);
            let _ = done.send(());
        });
        let end = is_done.recv_timeout(PATIENCE);
        assert_eq!(end, Ok(()), "seed {seed}: a reader did not come back, or panicked");
    }
}
