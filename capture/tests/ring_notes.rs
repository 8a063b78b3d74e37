//! The data that a ring keeps beside packets, for the next process and for a ring of another size.

mod support;

use std::fs;
use std::path::Path;

use capture::cursor::snapshot::{Snapshot, SnapshotExtent};
use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::ring::{Append, MAX_INTERFACES, MIN_RING, OpenedRing, Ring, RingOptions, Writer};
use capture::store::{Interface, NoteRef, Store};
use frames::pcapng;
use protocol::linktype::LinkType;
use support::{Parser, SEGMENT, collect, data, directory, options, time};

/// An option with a packet's number.
const OPTION: &[u8] = b"\x05\0\x08\0number 1";

/// A custom block.
fn block(words: usize) -> Vec<u8> {
    pcapng::block(pcapng::CUSTOM, &b"note".repeat(words))
}

fn named(name: &str) -> Interface {
    Interface {
        name: Some(name.to_owned()),
        link_type: Some(LinkType::ETHERNET),
        ..Interface::default()
    }
}

/// The options of a stream's ring: its link type is known with the first packet.
fn of_stream(path: &Path) -> RingOptions {
    RingOptions { link_type: None, ..options(path.to_owned()) }
}

fn append(writer: &mut Writer, number: u64, len: usize, note: NoteRef<'_>) {
    let original_len = u32::try_from(len + 1).unwrap();
    let done = writer.append_noted(time(number), original_len, &data(number, len), note);
    assert_eq!(done, Append::Stored);
}

/// Two interfaces and four packets: of the first, of the second, with a note, without a note.
fn fill(writer: &mut Writer) {
    writer.begin_section(b"\x01\0\x07\0section\0");
    let ids = ["one", "two"].map(|name| writer.describe(&named(name), &[]).unwrap());
    assert_eq!(ids, [0, 1]);
    writer.declare(LinkType::ETHERNET, 262_144).unwrap();
    append(writer, 1, 60, NoteRef::default());
    writer.set_interface(1);
    append(writer, 2, 60, NoteRef::default());
    let blocks = block(3);
    append(writer, 3, 60, NoteRef { blocks: &blocks, options: OPTION });
    writer.set_interface(0);
    append(writer, 4, 60, NoteRef::default());
    writer.publish();
}

fn read(ring: &Ring) -> Vec<u8> {
    let mut cursor = Cursor::new(ring, SavefileFormat::Pcapng, Begin::Oldest, false);
    support::drain(&mut cursor, ring, 1 << 20).0
}

/// Number, interface, bytes of blocks and number of options of each packet.
fn packets(bytes: &[u8]) -> Vec<(u64, String, usize, usize)> {
    let mut parser = Parser::new(true);
    parser.feed(bytes);
    assert_eq!(parser.pending(), 0);
    let packets = parser.packets.iter().map(|packet| {
        packet.check();
        let (blocks, options) = &packet.beside;
        (packet.number, packet.interface.clone(), blocks.len(), options.len())
    });
    packets.collect()
}

/// A read at any offset of the file gives the same bytes as reading straight on; for a small file,
/// all offsets are checked.
fn check_seeks(ring: &Ring) {
    let whole = read(ring);
    let extent = SnapshotExtent::new(ring, SavefileFormat::Pcapng);
    assert_eq!(extent.size(ring), whole.len() as u64);
    let mut snapshot = Snapshot::new(ring, extent);
    for at in (0..whole.len()).rev().step_by(1 + whole.len() / 2_000) {
        let mut bytes = Vec::new();
        let outcome = snapshot.read(ring, at as u64, 300, &mut collect(&mut bytes)).unwrap();
        assert!(matches!(outcome, ReadOutcome::Sent(_)));
        assert!(bytes[..] == whole[at..at + bytes.len()], "at {at} of {}", whole.len());
    }
}

#[test]
fn a_packet_in_two_parts_is_the_packet_that_is_in_one() {
    let directory = directory();
    let contents = [false, true].map(|is_joined| {
        let path = directory.path().join(format!("{is_joined}.ring"));
        let OpenedRing { ring, mut writer, .. } = Ring::open(&of_stream(&path)).unwrap();
        for name in ["one", "two"] {
            writer.describe(&named(name), &[]).unwrap();
        }
        writer.declare(LinkType::ETHERNET, 262_144).unwrap();
        // Packets of a second interface have an entry beside them.
        for number in 1..=60 {
            writer.set_interface(u32::from(number % 3 == 0));
            let data = data(number, 7_000);
            let at = usize::try_from(number * 29 % 7_001).unwrap();
            let parts: [&[u8]; 2] = if is_joined { data.split_at(at).into() } else { [&[], &data] };
            assert_eq!(writer.append_joined(time(number), 7_001, parts), Append::Stored);
        }
        let long = vec![0; SEGMENT];
        assert_eq!(writer.append_joined(time(61), 0, [&[1], &long]), Append::Oversize);
        writer.publish();
        drop(writer);
        let bytes = read(&ring);
        drop(ring);
        let again = Ring::open(&of_stream(&path)).unwrap();
        assert_eq!(again.damage, None);
        assert!(read(&again.ring) == bytes);
        bytes
    });
    assert!(contents[0] == contents[1]);
    assert!(packets(&contents[0]).len() > 40);
}

#[test]
fn notes_and_interfaces_are_there_for_the_next_process() {
    let directory = directory();
    let path = directory.path().join("x.ring");
    let OpenedRing { ring, mut writer, .. } = Ring::open(&of_stream(&path)).unwrap();
    fill(&mut writer);
    writer.describe(&named("three"), &[]).unwrap();
    append(&mut writer, 5, 60, NoteRef::default());
    writer.publish();
    // No packet comes after this description.
    writer.describe(&named("four"), &[]).unwrap();
    let before = read(&ring);
    check_seeks(&ring);
    drop((ring, writer));

    let OpenedRing { ring, mut writer, recovered, damage, .. } =
        Ring::open(&of_stream(&path)).unwrap();
    assert_eq!((recovered, damage), (5, None));
    assert_eq!(read(&ring), before);
    assert_eq!(ring.section_options(), b"\x01\0\x07\0section\0");
    // Another writer with the same interfaces, and one more.
    let ids = ["two", "five"].map(|name| writer.describe(&named(name), &[]).unwrap());
    assert_eq!(ids, [1, 3]);
    for (number, id) in (6..).zip(ids) {
        writer.set_interface(id);
        append(&mut writer, number, 60, NoteRef { blocks: &[], options: OPTION });
    }
    writer.publish();
    let names: Vec<String> = packets(&read(&ring)).into_iter().map(|packet| packet.1).collect();
    assert_eq!(names, ["one", "two", "two", "one", "one", "two", "five"]);
    check_seeks(&ring);
}

/// Version in the header of a ring file.
fn version(path: &Path) -> u32 {
    u32::from_ne_bytes(fs::read(path).unwrap()[8..12].try_into().unwrap())
}

#[test]
fn a_ring_with_notes_is_of_a_version_that_older_programs_refuse() {
    let directory = directory();
    let path = directory.path().join("x.ring");
    let OpenedRing { ring, mut writer, .. } = Ring::open(&options(path.clone())).unwrap();
    append(&mut writer, 1, 60, NoteRef::default());
    writer.publish();
    assert_eq!(version(&path), 1, "without notes");
    append(&mut writer, 2, 60, NoteRef { blocks: &[], options: OPTION });
    writer.publish();
    assert_eq!(version(&path), 2, "with a note");
    drop((ring, writer));
    let OpenedRing { ring, writer, recovered, damage, .. } =
        Ring::open(&options(path.clone())).unwrap();
    assert_eq!((recovered, damage), (2, None));
    drop((ring, writer));

    let path = directory.path().join("y.ring");
    let OpenedRing { ring, mut writer, .. } = Ring::open(&of_stream(&path)).unwrap();
    assert_eq!(version(&path), 1, "without interfaces");
    writer.describe(&named("one"), &[]).unwrap();
    assert_eq!(version(&path), 2, "with an interface");
    drop((ring, writer));

    // A version that does not exist yet.
    let mut file = fs::read(&path).unwrap();
    file[8..12].copy_from_slice(&3_u32.to_ne_bytes());
    fs::write(&path, &file).unwrap();
    let refused = Ring::open(&of_stream(&path)).map(drop).unwrap_err().to_string();
    assert!(refused.contains("it is of version 3, this program writes 2"), "{refused}");
}

#[test]
fn a_note_goes_with_its_packet_when_the_ring_is_full() {
    let directory = directory();
    let path = directory.path().join("x.ring");
    let OpenedRing { ring, mut writer, .. } = Ring::open(&of_stream(&path)).unwrap();
    fill(&mut writer);
    let blocks = block(2_000);
    for number in 5..200 {
        if number == 150 {
            let id = writer.describe(&named("late"), &[]).unwrap();
            writer.set_interface(id);
        }
        append(&mut writer, number, 1_000, NoteRef { blocks: &blocks, options: OPTION });
    }
    writer.publish();
    let seen = packets(&read(&ring));
    let oldest = seen[0].0;
    assert!(oldest > 100 && oldest < 150, "{oldest}");
    let wanted: Vec<_> = (oldest..200)
        .map(|number| (number, if number < 150 { "one" } else { "late" }.to_owned(), 8_012, 1))
        .collect();
    assert_eq!(seen, wanted);
    check_seeks(&ring);
}

#[test]
fn a_note_that_has_no_room_is_left_out_and_counted() {
    let directory = directory();
    let OpenedRing { ring, mut writer, .. } =
        Ring::open(&of_stream(&directory.path().join("x.ring"))).unwrap();
    fill(&mut writer);
    let blocks = block(20_000);
    append(
        &mut writer,
        5,
        SEGMENT - 16 - 20 - OPTION.len(),
        NoteRef { blocks: &blocks, options: OPTION },
    );
    assert_eq!(writer.left_out(), 1);
    append(&mut writer, 6, SEGMENT - 16, NoteRef { blocks: &[], options: OPTION });
    assert_eq!(writer.left_out(), 2);
    append(&mut writer, 7, 60, NoteRef { blocks: &blocks, options: OPTION });
    assert_eq!(writer.left_out(), 2);
    writer.publish();
    let blocks: Vec<usize> = packets(&read(&ring)).iter().map(|packet| packet.2).collect();
    assert_eq!(blocks, [0, 0, 24, 0, 0, 0, 80_012]);
    check_seeks(&ring);
}

#[test]
fn more_interfaces_than_there_is_room_for_are_the_last_one() {
    let directory = directory();
    let OpenedRing { ring, mut writer, .. } =
        Ring::open(&of_stream(&directory.path().join("x.ring"))).unwrap();
    fill(&mut writer);
    for index in 2..MAX_INTERFACES {
        let id = writer.describe(&named(&format!("if{index}")), &[]);
        assert_eq!(id.map(|id| id as usize), Ok(index));
    }
    assert_eq!(writer.describe(&named("one more"), &[]), Err(63));
    assert_eq!(writer.describe(&named("two"), &[]), Ok(1));
    writer.set_interface(63);
    append(&mut writer, 5, 60, NoteRef::default());
    writer.publish();
    assert_eq!(packets(&read(&ring)).last().unwrap().1, "if63");
}

#[test]
fn a_ring_of_another_size_keeps_notes_and_interfaces() {
    let directory = directory();
    let path = directory.path().join("x.ring");
    let OpenedRing { ring, mut writer, .. } = Ring::open(&of_stream(&path)).unwrap();
    fill(&mut writer);
    writer.describe(&named("three"), &[]).unwrap();
    writer.set_interface(2);
    append(&mut writer, 5, 60, NoteRef { blocks: &[], options: OPTION });
    writer.publish();
    let before = read(&ring);
    drop((ring, writer));
    for size in [4 * MIN_RING, MIN_RING] {
        let larger = RingOptions { size, ..of_stream(&path) };
        let OpenedRing { ring, damage, .. } = Ring::open(&larger).unwrap();
        assert_eq!(damage, None);
        assert_eq!(read(&ring), before);
        check_seeks(&ring);
    }
}

/// Bytes of the file header's page and of a segment header, and the offsets of its words for the
/// records and for the notes.
const PAGE: usize = 4096;
const HEADER: usize = 128;
const COMMITTED: usize = 48;
const NOTES: usize = 80;

/// Offset of the header of segment 1.
fn open_segment(file: &[u8]) -> usize {
    let sequence = |at: usize| u64::from_ne_bytes(file[at..at + 8].try_into().unwrap());
    (PAGE..).step_by(HEADER).find(|at| sequence(*at) == 1).unwrap()
}

#[test]
fn a_note_whose_packet_did_not_come_is_not_that_of_another() {
    let directory = directory();
    let path = directory.path().join("x.ring");
    let OpenedRing { ring, mut writer, .. } = Ring::open(&of_stream(&path)).unwrap();
    fill(&mut writer);
    let early = fs::read(&path).unwrap();
    append(&mut writer, 5, 60, NoteRef { blocks: &block(1), options: OPTION });
    writer.publish();
    let mut file = fs::read(&path).unwrap();
    drop((ring, writer));
    // As if killed between storing the word of the notes and that of the records.
    let at = open_segment(&file) + COMMITTED;
    file[at..at + 8].copy_from_slice(&early[at..at + 8]);
    fs::write(&path, &file).unwrap();
    let OpenedRing { ring, mut writer, recovered, damage, .. } =
        Ring::open(&of_stream(&path)).unwrap();
    assert_eq!((recovered, damage), (4, None));
    append(&mut writer, 5, 60, NoteRef::default());
    append(&mut writer, 6, 60, NoteRef { blocks: &block(2), options: &[] });
    writer.publish();
    let blocks: Vec<usize> = packets(&read(&ring)).iter().map(|packet| packet.2).collect();
    assert_eq!(blocks, [0, 0, 24, 0, 0, 20]);
    drop((ring, writer));
    let OpenedRing { recovered, damage, .. } = Ring::open(&of_stream(&path)).unwrap();
    assert_eq!((recovered, damage), (6, None));
}

#[test]
fn damaged_notes_are_found() {
    let directory = directory();
    let path = directory.path().join("x.ring");
    let OpenedRing { ring, mut writer, .. } = Ring::open(&of_stream(&path)).unwrap();
    fill(&mut writer);
    let size = usize::try_from(ring.geometry().segment_size).unwrap();
    drop((ring, writer));
    let whole = fs::read(&path).unwrap();
    let header = open_segment(&whole);
    let word = u64::from_ne_bytes(whole[header + NOTES..header + NOTES + 8].try_into().unwrap());
    let len = usize::try_from(word >> 32).unwrap();
    let slot = (header - PAGE) / HEADER;
    // The bodies are at the end of the file: 4 segments and 8 spare ones.
    let end = whole.len() - (12 - slot - 1) * size;
    for at in (end - len..end).chain(header + NOTES..header + NOTES + 8) {
        let mut file = whole.clone();
        file[at] ^= 4;
        fs::write(&path, &file).unwrap();
        let OpenedRing { recovered, damage, .. } = Ring::open(&of_stream(&path)).unwrap();
        assert!(damage.is_some() && recovered == 0, "byte {at}");
    }
    // The descriptions are gone, so the notes refer to unknown interfaces.
    let mut file = whole.clone();
    file[104] ^= 1;
    fs::write(&path, &file).unwrap();
    let OpenedRing { damage, .. } = Ring::open(&of_stream(&path)).unwrap();
    assert!(damage.is_some());
}
