//! A ring whose headers and notes another process changes while it is in use. Readers may get an
//! error, or fewer packets, but they always return.

mod support;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::flow::{FlowOptions, Flows};
use capture::ring::{Append, OpenedRing, Ring, Writer};
use capture::store::{Interface, NoteRef, Store};
use support::{collect, data, directory, options, time};

/// Ends a test that hangs; the awaited changes take milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Offset of the segment headers, which is the length of the file header's page, and bytes of a
/// segment header.
const HEADERS: u64 = 4096;
const HEADER: u64 = 128;

/// Reads as long as bytes are available, but no more than a whole ring has.
fn read_on(cursor: &mut Cursor, ring: &Ring) {
    let mut bytes = Vec::new();
    for _ in 0..200 {
        bytes.clear();
        match cursor.read(ring, 64 << 10, &mut collect(&mut bytes)) {
            Ok(ReadOutcome::Sent(_)) => {}
            Ok(ReadOutcome::Empty | ReadOutcome::End) | Err(_) => break,
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

/// Flips bits of segment headers, and puts the minimum and maximum numbers into some.
fn damage(file: &File, random: &mut u64) {
    for turn in 0..8 {
        let place = HEADERS + next(random) % (HEADER * 16);
        if turn == 7 {
            let extremes = [0, 1, u64::MAX, u64::MAX / 2 + 1, u32::MAX.into()];
            let number = extremes[usize::try_from(next(random) % 5).unwrap()];
            file.write_all_at(&number.to_ne_bytes(), place & !7).unwrap();
            continue;
        }
        flip(file, place, random);
    }
}

/// Flips a bit of the byte at `place`.
fn flip(file: &File, place: u64, random: &mut u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    byte[0] ^= 1 << (next(random) % 8);
    file.write_all_at(&byte, place).unwrap();
}

fn flip_bits_while_reading(seed: u64) {
    let directory = directory();
    let path = directory.path().join("x.ring");
    let OpenedRing { ring, mut writer, .. } = Ring::open(&options(path.clone())).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // Bodies of the segments lie after all headers, and notes at the end of each.
    let size = ring.geometry().segment_size;
    let bodies = file.metadata().unwrap().len() - size * u64::from(ring.geometry().slots());
    let second = Interface { name: Some("second".to_owned()), ..Interface::default() };
    let second = writer.describe(&second, &[]).unwrap();
    let mut random = seed | 1;
    let mut number = 0;
    let mut follow = [SavefileFormat::Pcap, SavefileFormat::Pcapng]
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
        damage(&file, &mut random);
        for _ in 0..8 {
            let slot = next(&mut random) % u64::from(ring.geometry().slots());
            let place = bodies + size * (slot + 1) - 1 - next(&mut random) % 2_000;
            flip(&file, place, &mut random);
        }
        follow.iter_mut().for_each(|cursor| read_on(cursor, &ring));
        for format in [SavefileFormat::Pcap, SavefileFormat::Pcapng] {
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

/// A UDP datagram from this port, in an Ethernet frame of 1,014 bytes.
fn datagram(port: u16) -> Vec<u8> {
    let datagram = frames::udp_without_checksum(port, 53, &[7; 972]);
    let packet = frames::ipv4(([10, 0, 0, 1], [10, 0, 0, 2]), frames::UDP, &datagram);
    frames::ethernet(&[], frames::IPV4, &packet)
}

/// Returns `true` if an engine over the ring finds a flow of this port while its packets arrive.
fn finds(flows: &Flows, writer: &mut Writer, number: &mut u64, port: u16) -> bool {
    let wanted = format!(".{port}-");
    for _ in 0..500 {
        for _ in 0..200 {
            *number += 1;
            let frame = datagram(port);
            assert_eq!(writer.append(time(*number), 1_014, &frame), Append::Stored);
        }
        writer.publish();
        let mut is_there = false;
        flows.list(0, &mut |flow| {
            is_there |= flow.name.contains(&wanted);
            std::ops::ControlFlow::Continue(())
        });
        if is_there {
            return true;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    false
}

fn flip_bits_under_an_engine(seed: u64) -> bool {
    let directory = directory();
    let path = directory.path().join("x.ring");
    let OpenedRing { ring, mut writer, .. } = Ring::open(&options(path.clone())).unwrap();
    let store: Arc<dyn Store> = ring;
    let flows = Flows::start("x", store, FlowOptions::default()).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (mut random, mut number) = (seed | 1, 0);
    for _ in 0..60 {
        for _ in 0..100 {
            number += 1;
            let frame = datagram(u16::try_from(1_000 + number % 50).unwrap());
            assert_eq!(writer.append(time(number), 1_014, &frame), Append::Stored);
        }
        writer.publish();
        damage(&file, &mut random);
        thread::park_timeout(Duration::from_millis(2));
    }
    // Every header is written again in the meantime.
    let is_found = finds(&flows, &mut writer, &mut number, 60_000);
    flows.stop();
    is_found
}

#[test]
fn flipped_bits_in_the_headers_do_not_end_the_flow_engine() {
    for seed in 1..=8 {
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let _ = done.send(flip_bits_under_an_engine(seed * 0x9e37_79b9));
        });
        let end = is_done.recv_timeout(PATIENCE);
        assert_eq!(end, Ok(true), "seed {seed}: the engine does not come back, or panicked");
    }
}
