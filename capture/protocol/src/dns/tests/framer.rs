//! Messages in TCP streams.

use super::*;
use crate::dns::Framer;

/// A piece of a stream: bytes, or a gap of this length.
enum Piece<'a> {
    Data(&'a [u8]),
    Gap(usize),
}

/// The messages in a stream: captured bytes, length on the wire, and note.
fn messages(framer: &mut Framer, pieces: &[Piece<'_>]) -> Vec<(Vec<u8>, usize, bool)> {
    let mut found = Vec::new();
    let mut each = |raw: RawMessage<'_>| {
        found.push((raw.bytes.to_vec(), raw.wire_len, raw.note.is_some()));
    };
    for (number, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Data(bytes) => framer.data(second(number as u64), bytes, &mut each),
            Piece::Gap(len) => framer.gap(*len as u64, &mut each),
        }
    }
    framer.close(&mut each);
    found
}

fn three() -> [Builder; 3] {
    [
        Builder::query(1, "first.example"),
        Builder::query(2, "b"),
        Builder::response(3, "third.example", [1; 4]),
    ]
}

fn stream() -> Vec<u8> {
    three().iter().flat_map(Builder::framed).collect()
}

#[test]
fn messages_are_the_same_however_their_stream_is_cut() {
    let stream = stream();
    let expected: Vec<_> =
        three().into_iter().map(|one| (one.bytes.clone(), one.bytes.len(), false)).collect();
    for part in 1..=stream.len() {
        let pieces: Vec<_> = stream.chunks(part).map(Piece::Data).collect();
        let mut framer = Framer::new();
        assert_eq!(messages(&mut framer, &pieces), expected, "{part}");
        assert_eq!(framer.skipped(), 0);
    }
}

#[test]
fn an_incomplete_last_message_is_cut() {
    let stream = stream();
    let last = three()[2].bytes.len();
    let mut framer = Framer::new();
    let found = messages(&mut framer, &[Piece::Data(&stream[..stream.len() - 4])]);
    assert_eq!(found[2].1, last);
    assert_eq!(found[2].0.len(), last - 4);
}

#[test]
fn messages_are_found_again_after_every_gap() {
    let stream = stream();
    let whole: Vec<_> = three().into_iter().map(|one| one.bytes).collect();
    for from in 0..stream.len() {
        for to in from + 1..=stream.len() {
            let pieces =
                [Piece::Data(&stream[..from]), Piece::Gap(to - from), Piece::Data(&stream[to..])];
            let mut framer = Framer::new();
            let found = messages(&mut framer, &pieces);
            // Each message is one of those that were sent, whole or cut, in order.
            let mut sent = whole.iter();
            for (bytes, wire_len, _) in &found {
                let is_it = |one: &&Vec<u8>| one.len() == *wire_len && one.starts_with(bytes);
                assert!(sent.any(|one| is_it(&one)), "{from}..{to}: {found:?}");
            }
            // Those outside the gap are all there.
            let mut begin = 0;
            for message in &whole {
                let end = begin + 2 + message.len();
                if end <= from || begin >= to {
                    let is_there = found.iter().any(|(bytes, ..)| bytes == message);
                    assert!(is_there, "{from}..{to}: {begin}..{end} of {found:?}");
                }
                begin = end;
            }
            let bytes: usize = found.iter().map(|(bytes, ..)| bytes.len()).sum();
            let seen = bytes + 2 * found.len() + framer.skipped() as usize;
            assert_eq!(seen, stream.len() - (to - from), "{from}..{to}");
        }
    }
}

#[test]
fn a_gap_inside_a_message_keeps_what_precedes_it() {
    let [first, second, _] = three();
    let stream = [first.framed(), second.framed()].concat();
    let pieces = [Piece::Data(&stream[..20]), Piece::Gap(5), Piece::Data(&stream[25..])];
    let found = messages(&mut Framer::new(), &pieces);
    assert_eq!(found[0], (first.bytes[..18].to_vec(), first.bytes.len(), false));
    assert_eq!(found[1], (second.bytes.clone(), second.bytes.len(), false));
}

#[test]
fn a_joined_stream_begins_with_the_first_certain_message() {
    let stream = stream();
    let mut framer = Framer::joined();
    let found = messages(&mut framer, &[Piece::Data(&stream[5..])]);
    let lens: Vec<_> = found.iter().map(|(bytes, _, is_noted)| (bytes.len(), *is_noted)).collect();
    assert_eq!(lens, [(three()[1].bytes.len(), true), (three()[2].bytes.len(), false)]);
    assert_eq!(framer.skipped() as usize, three()[0].bytes.len() + 2 - 5);
}

#[test]
fn foreign_bytes_are_never_found() {
    let text = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".repeat(500);
    let mut framer = Framer::joined();
    assert_eq!(messages(&mut framer, &[Piece::Data(&text)]), []);
    assert_eq!(framer.skipped() as usize, text.len());
}

#[test]
fn memory_is_bounded_by_one_message() {
    let mut framer = Framer::new();
    let mut each = |_: RawMessage<'_>| {};
    for _ in 0..100 {
        framer.data(second(0), &[0xff; 60_000], &mut each);
        assert!(framer.memory() <= 256 << 10, "{}", framer.memory());
    }
    framer.gap(70_000, &mut each);
    for _ in 0..100 {
        framer.data(second(0), &[0xff; 60_000], &mut each);
        assert!(framer.memory() <= 256 << 10, "{}", framer.memory());
    }
}

/// Headers that announce a message to the end of the buffer, at every place.
#[test]
fn the_search_for_a_message_ends() {
    let header = [0x30, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut framer = Framer::joined();
    let mut each = |_: RawMessage<'_>| {};
    for _ in 0..2000 {
        framer.data(second(0), &header.repeat(100), &mut each);
    }
    assert!(framer.memory() <= 256 << 10, "{}", framer.memory());
    framer.close(&mut each);
    assert_eq!(framer.skipped(), 2000 * 1200);
}
