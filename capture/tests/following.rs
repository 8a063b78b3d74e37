//! A ring that follows another one: the numbers that it receives are exactly those stored there,
//! each once, whatever stops either of them.
#![expect(clippy::cast_possible_truncation, reason = "small numbers of the test's own making")]

mod support;

use std::path::Path;

use capture::cursor::batch::{BatchCursor, PacketBatch};
use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::record::PacketRecords;
use capture::ring::{Append, MIN_RING, OpenedRing, Ring, RingOptions};
use capture::savefile::ByteOrder;
use capture::source::{
    FollowBeginning, FollowedNote, FollowedPackets, Following, SourceError, SourceOptions,
};
use capture::store::{Interface, NoteRef, Store, StorePlace};
use protocol::linktype::LinkType;
use protocol::time::Precision;
use support::{Parser, data, directory, options, time};

const SOURCE: SourceOptions<'static> = SourceOptions {
    filter: None,
    snaplen: 262_144,
    promiscuous: false,
    kernel_buffer: 0,
    backend: capture::source::InterfaceBackend::AfPacket,
    workers: capture::source::Workers::ONE,
    injection: None,
    export_keys: true,
};

/// A ring whose packets have their number in their time.
struct Far {
    opened: OpenedRing,
    sent: u64,
}

impl Far {
    fn open(directory: &Path) -> Self {
        let opened = Ring::open(&options(directory.join("far.ring"))).unwrap();
        let sent = opened.ring.bounds().next.number - 1;
        Self { opened, sent }
    }

    fn capture(&mut self, packets: u64, len: usize) {
        for _ in 0..packets {
            self.sent += 1;
            let data = data(self.sent, len);
            let original_len = len as u32 + 1;
            assert_eq!(
                self.opened.writer.append(time(self.sent), original_len, &data),
                Append::Stored
            );
        }
        self.opened.writer.publish();
    }

    fn store(&self) -> &dyn Store {
        &*self.opened.ring
    }
}

/// A ring that follows.
struct Near {
    opened: OpenedRing,
    following: Following,
    cursor: Option<BatchCursor>,
}

fn near_options(directory: &Path) -> RingOptions {
    let path = directory.join("near.ring");
    // Larger than the far ring, so that nothing is overwritten before it is compared.
    RingOptions { size: 16 * MIN_RING, link_type: None, ..options(path) }
}

impl Near {
    fn open(directory: &Path, filter: Option<&str>) -> Self {
        let opened = Ring::open(&near_options(directory)).unwrap();
        let source = SourceOptions { filter, ..SOURCE };
        Self { opened, following: Following::new("far:x", &source).unwrap(), cursor: None }
    }

    /// Asks for the packets after its own.
    fn connect(&mut self, far: &dyn Store) {
        let place = self.opened.writer.far_place().map(|far| far.place);
        let known = place.and_then(|place| far.continued(place));
        let first = known.unwrap_or(1);
        let cursor = BatchCursor::at(far, first);
        self.following
            .begin(
                &FollowBeginning {
                    identity: far.identity(),
                    first,
                    is_continued: known.is_some(),
                    order: ByteOrder::NATIVE,
                    link_type: LinkType::ETHERNET,
                    precision: Precision::Nano,
                    snaplen: 262_144,
                    section: far.section_options(),
                    interfaces: &[Interface { name: Some("far0".into()), ..Interface::default() }],
                },
                &mut self.opened.writer,
            )
            .unwrap();
        self.cursor = Some(cursor);
    }

    /// Receives one batch; false if there is none.
    fn receive(&mut self, far: &dyn Store, want: usize) -> bool {
        let Some(cursor) = &mut self.cursor else { panic!("not connected") };
        let (following, writer) = (&mut self.following, &mut self.opened.writer);
        let outcome = cursor.read(far, want, &mut |batch: &PacketBatch<'_>| {
            let notes: Vec<_> = batch
                .beside()
                .map(|(index, interface, note)| FollowedNote {
                    index: index as u64,
                    interface: interface.id,
                    blocks: note.blocks,
                    options: note.options,
                })
                .collect();
            let packets =
                FollowedPackets { first: batch.first, records: batch.records, notes: &notes };
            following.packets(&packets, writer).unwrap();
            Ok(())
        });
        matches!(outcome.unwrap(), ReadOutcome::Sent(_))
    }

    /// The numbers of its packets, each packet checked.
    fn numbers(&self) -> Vec<u64> {
        let store = &*self.opened.ring;
        if store.header().is_none() {
            return Vec::new();
        }
        let mut cursor = Cursor::new(store, SavefileFormat::Pcap, Begin::Oldest, false);
        let mut parser = Parser::new(false);
        parser.any_snaplen = true;
        parser.feed(&support::drain(&mut cursor, store, 1 << 20).0);
        parser.packets.iter().for_each(support::Packet::check);
        parser.packets.iter().map(|packet| packet.number).collect()
    }

    /// Checks that the numbers rise, and that the missing ones are those counted as lost.
    fn check(&self, far_next: u64) {
        let numbers = self.numbers();
        assert!(numbers.is_sorted_by(|one, other| one < other), "no packet came twice");
        let lost = self.opened.ring.losses().remote;
        assert_eq!(numbers.len() as u64 + lost, far_next - 1);
    }
}

#[test]
fn kills_of_either_side_cost_no_packet_and_double_none() {
    let directory = directory();
    let mut far = Far::open(directory.path());
    let mut near = Near::open(directory.path(), None);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % limit
    };
    near.connect(far.store());
    for _ in 0..400 {
        far.capture(random(20), 60 + random(300) as usize);
        match random(8) {
            0 => {
                // A killed process commits nothing more.
                near = {
                    drop(near);
                    Near::open(directory.path(), None)
                };
                near.connect(far.store());
            }
            1 => {
                far = {
                    drop(far);
                    Far::open(directory.path())
                };
                near.connect(far.store());
            }
            2 => near.connect(far.store()),
            _ => while random(6) > 0 && near.receive(far.store(), 1 + random(20_000) as usize) {},
        }
        near.check(near.following.place().place.next);
    }
    while near.receive(far.store(), 128 << 10) {}
    near.check(far.sent + 1);
    assert_eq!(near.opened.ring.losses().remote, 0);
    assert_eq!(near.numbers().len() as u64, far.sent);
}

#[test]
fn overwritten_packets_are_counted_and_a_hole() {
    let directory = directory();
    let mut far = Far::open(directory.path());
    let mut near = Near::open(directory.path(), None);
    near.connect(far.store());
    far.capture(100, 1000);
    assert!(near.receive(far.store(), 10_000));
    let held = near.numbers().len() as u64;
    // Several times the far ring.
    for _ in 0..40 {
        far.capture(100, 1000);
    }
    let oldest = far.store().bounds().oldest.number;
    while near.receive(far.store(), 128 << 10) {}
    let lost = near.opened.ring.losses().remote;
    assert_eq!(lost, oldest - 1 - held);
    near.check(far.sent + 1);
    let (_, hole) = near.opened.ring.hole(0).unwrap();
    assert_eq!(hole.before, held + 1);
    assert_eq!(&*hole.why, format!("{lost} packets were no longer there when far:x was read"));
    assert_eq!((hole.began, hole.ended), (time(held), time(oldest)));
    // The count is kept with the packets.
    drop(near);
    let again = Near::open(directory.path(), None);
    assert_eq!(again.opened.ring.losses().remote, lost);
    again.check(far.sent + 1);
}

#[test]
fn another_ring_is_read_from_its_first_packet() {
    let directory = directory();
    let mut far = Far::open(directory.path());
    let mut near = Near::open(directory.path(), None);
    near.connect(far.store());
    far.capture(10, 100);
    while near.receive(far.store(), 1000) {}
    drop(far);
    std::fs::remove_file(directory.path().join("far.ring")).unwrap();
    let mut far = Far::open(directory.path());
    far.capture(5, 100);
    near.connect(far.store());
    while near.receive(far.store(), 1000) {}
    assert_eq!(near.numbers(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5]);
    let (_, hole) = near.opened.ring.hole(0).unwrap();
    assert!(hole.why.contains("far:x has another ring now"), "{}", hole.why);
    assert_eq!(near.opened.ring.losses().remote, 0, "none of the new ring is missing");
}

#[test]
fn a_ring_of_another_size_goes_on() {
    let directory = directory();
    let mut far = Far::open(directory.path());
    let mut near = Near::open(directory.path(), None);
    near.connect(far.store());
    far.capture(300, 100);
    while near.receive(far.store(), 10_000) {}
    drop((far, near));
    let larger = RingOptions { size: 4 * MIN_RING, ..options(directory.path().join("far.ring")) };
    let mut far = Far { opened: Ring::open(&larger).unwrap(), sent: 300 };
    let larger = RingOptions { size: 32 * MIN_RING, ..near_options(directory.path()) };
    let following = Following::new("far:x", &SOURCE).unwrap();
    let mut near = Near { opened: Ring::open(&larger).unwrap(), following, cursor: None };
    near.connect(far.store());
    far.capture(5, 100);
    while near.receive(far.store(), 10_000) {}
    assert_eq!(near.numbers(), (1..=305).collect::<Vec<_>>());
}

#[test]
fn packets_that_do_not_match_are_passed_over_once() {
    let directory = directory();
    let mut far = Far::open(directory.path());
    let mut near = Near::open(directory.path(), Some("less 100"));
    near.connect(far.store());
    for round in 0..30 {
        far.capture(3, 90);
        far.capture(3, 200);
        while near.receive(far.store(), 1 << 10) {}
        if round % 3 == 0 {
            drop(near);
            near = Near::open(directory.path(), Some("less 100"));
            near.connect(far.store());
        }
    }
    let small = (1..=180).filter(|number| (number - 1) % 6 < 3).collect::<Vec<u64>>();
    assert_eq!(near.numbers(), small);
    assert_eq!(near.following.place().place.next, 181);
    assert_eq!(near.opened.ring.losses().remote, 0);
}

#[test]
fn interfaces_and_comments_come_along() {
    let directory = directory();
    let mut far = Far::open(directory.path());
    let mut near = Near::open(directory.path(), None);
    near.connect(far.store());
    near.following.interface(
        &Interface { name: Some("far1".into()), ..Interface::default() },
        &mut near.opened.writer,
    );
    let second = Interface { name: Some("far1".to_owned()), ..Interface::default() };
    let id = far.opened.writer.describe(&second, &[]).unwrap();
    assert_eq!(id, 1);
    for number in 1..=4_u64 {
        far.opened.writer.set_interface((number % 2) as u32);
        // A comment of four bytes.
        let comment = [&1_u16.to_ne_bytes()[..], &4_u16.to_ne_bytes(), b"nice"].concat();
        let note = NoteRef { blocks: &[], options: if number == 3 { &comment } else { &[] } };
        let stored = far.opened.writer.append_noted(time(number), 65, &data(number, 64), note);
        assert_eq!(stored, Append::Stored);
    }
    far.opened.writer.publish();
    while near.receive(far.store(), 10_000) {}
    let chunk = near.opened.ring.pin(near.opened.ring.bounds().oldest_chunk).unwrap();
    let names: Vec<_> = (0..4)
        .map(|index| chunk.interface(index).map_or(0, |interface| interface.id))
        .map(|id| near.opened.ring.interface(id).unwrap().name.unwrap())
        .collect();
    assert_eq!(names, ["far1", "far0", "far1", "far0"]);
    assert_eq!(chunk.note(2).options.get(4..8), Some(&b"nice"[..]));
    assert_eq!(PacketRecords::new(chunk.bytes()).count(), 4);
}

#[test]
fn nonsense_is_refused_and_what_came_before_it_stays() {
    let directory = directory();
    let mut near = Near::open(directory.path(), None);
    let mut far = Far::open(directory.path());
    far.capture(3, 64);
    near.connect(far.store());
    let chunk = far.store().pin(far.store().bounds().oldest_chunk).unwrap();
    let records = chunk.bytes();
    let mut take = |first, records: &[u8]| {
        let junk = [0xff; 40];
        let note = FollowedNote { index: 0, interface: 99, blocks: &junk, options: &junk };
        let packets = FollowedPackets { first, records, notes: &[note] };
        near.following.packets(&packets, &mut near.opened.writer)
    };
    let cut = take(1, &records[..200]).unwrap_err();
    assert!(matches!(&cut, SourceError::Malformed { .. }), "{cut}");
    let again = take(1, records).unwrap_err();
    assert_eq!(again.to_string(), "far:x: packet 1 came again, after 3");
    take(3, &records[160..]).unwrap();
    assert_eq!(near.numbers(), [1, 2, 3]);
    // A reader that asks for a place after the end.
    let identity = far.store().identity();
    let far_ahead = BatchCursor::at(far.store(), 1 << 60);
    assert_eq!(far_ahead.next(), 4);
    assert_eq!(far.store().continued(StorePlace { identity, next: 7 }), Some(7));
}
