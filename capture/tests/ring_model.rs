//! The ring against an obvious model: a vector of all packets ever stored, and a list of the
//! segments with their lengths.
//!
//! Single-threaded, so that everything can be compared exactly after every step. The ring has the
//! minimum size and packets are large, so that cursors are lapped all the time.
#![expect(clippy::cast_possible_truncation, reason = "small numbers of the test's own making")]

mod support;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use capture::cursor::snapshot::{Snapshot, SnapshotExtent};
use capture::cursor::{Begin, Cursor, CursorReadError, ReadOutcome, SavefileFormat};
use capture::pipeline::counters;
use capture::ring::{Append, Ring, Writer};
use capture::store::{Interface, NoteRef, Store};
use frames::pcapng;
use proptest::prelude::*;
use proptest::sample::Index;
use protocol::time::Timestamp;
use support::{Parser, SEGMENT, collect, data, directory, options, time};

/// Segments of the smallest ring.
const SEGMENTS: usize = 4;

/// The longest packet that fits a segment.
const LONGEST: usize = SEGMENT - 16;

#[derive(Clone, Debug)]
enum Op {
    /// Lengths of packets, and whether they are published together.
    Append(Vec<usize>, bool),
    /// An interface that later packets may come from.
    Describe(usize),
    Publish,
    Clear,
    Loss(u64, u64),
    /// The source was lost and found.
    Hole,
    Ended(bool),
    Open {
        pcapng: bool,
        begin: Begin,
    },
    Read {
        cursor: Index,
        want: usize,
        fail_first: bool,
    },
    Drain {
        cursor: Index,
        want: usize,
    },
    Extent {
        pcapng: bool,
    },
    OpenSnapshot {
        extent: Index,
    },
    /// Read where the last read ended.
    Straight {
        snapshot: Index,
        want: usize,
    },
    /// Read at any offset up to there.
    Back {
        snapshot: Index,
        offset: Index,
        want: usize,
    },
    /// Read to the end of file.
    ToTheEnd {
        snapshot: Index,
        want: usize,
    },
    /// Read with a fresh opener from front to back, and compare it with another opener at random
    /// offsets.
    Compare {
        extent: Index,
        want: usize,
        offsets: Vec<Index>,
    },
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => Just(0_usize),
        6 => 1..400_usize,
        8 => 20_000..70_000_usize,
        1 => LONGEST - 1..=LONGEST,
        1 => LONGEST + 1..LONGEST + 20,
    ]
}

fn want() -> impl Strategy<Value = usize> {
    prop_oneof![1..40_usize, 1..3_000_usize, 4_096..400_000_usize, Just(1 << 20)]
}

fn op() -> impl Strategy<Value = Op> {
    let begin = prop_oneof![Just(Begin::Oldest), Just(Begin::Next)];
    prop_oneof![
        12 => (prop::collection::vec(length(), 1..12), prop::bool::weighted(0.8))
            .prop_map(|(lengths, publish)| Op::Append(lengths, publish)),
        1 => (1..5_usize).prop_map(Op::Describe),
        1 => Just(Op::Publish),
        1 => Just(Op::Clear),
        1 => (0..9_u64, 0..9_u64).prop_map(|(kernel, interface)| Op::Loss(kernel, interface)),
        1 => any::<bool>().prop_map(Op::Ended),
        2 => Just(Op::Hole),
        3 => (any::<bool>(), begin).prop_map(|(pcapng, begin)| Op::Open { pcapng, begin }),
        12 => (any::<Index>(), want(), prop::bool::weighted(0.2))
            .prop_map(|(cursor, want, fail_first)| Op::Read { cursor, want, fail_first }),
        3 => (any::<Index>(), want().prop_map(|want| want.max(500)))
            .prop_map(|(cursor, want)| Op::Drain { cursor, want }),
        2 => any::<bool>().prop_map(|pcapng| Op::Extent { pcapng }),
        3 => any::<Index>().prop_map(|extent| Op::OpenSnapshot { extent }),
        10 => (any::<Index>(), want())
            .prop_map(|(snapshot, want)| Op::Straight { snapshot, want }),
        4 => (any::<Index>(), any::<Index>(), want())
            .prop_map(|(snapshot, offset, want)| Op::Back { snapshot, offset, want }),
        3 => (any::<Index>(), want().prop_map(|want| want.max(500)))
            .prop_map(|(snapshot, want)| Op::ToTheEnd { snapshot, want }),
        2 => (any::<Index>(), want().prop_map(|want| want.max(5_000)),
              prop::collection::vec(any::<Index>(), 1..5))
            .prop_map(|(extent, want, offsets)| Op::Compare { extent, want, offsets }),
    ]
}

/// Bytes of the entry of a packet that has a note, or another interface than the first.
const ENTRY: usize = 20;

/// The blocks and options of a stream beside one of our packets. One packet in four has none.
fn said(number: u64) -> (Vec<u8>, Vec<u8>) {
    let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let word = (seed as u32).to_le_bytes();
    let block = |words: usize| pcapng::block(pcapng::CUSTOM, &word.repeat(words));
    let option = [&[5, 0, 8, 0][..], &word, &word].concat();
    match seed % 8 {
        0 | 1 => (Vec::new(), Vec::new()),
        2 => (block(1), Vec::new()),
        3 => ([block(2), block(0)].concat(), option),
        4 => (block(5_000), option),
        _ => (Vec::new(), option),
    }
}

/// Index of its interface: every other packet is of the first one.
fn interface_of(number: u64) -> usize {
    let seed = number.wrapping_mul(0x517c_c1b7_2722_0a95) >> 40;
    usize::try_from(seed % 8).unwrap().saturating_sub(3)
}

fn interface_name(index: usize) -> String {
    if index == 0 { "test0".to_owned() } else { format!("if{index}") }
}

fn interface(index: usize) -> Interface {
    Interface { name: Some(interface_name(index)), ..Interface::default() }
}

/// Bytes of the description of an interface after the first.
const DESCRIPTION: u64 = 12 + 8 + 8 + 8 + 4;

/// The part of [`said`] for which a segment has room beside a packet.
fn kept(number: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut blocks, mut options) = said(number);
    let free = SEGMENT.saturating_sub(16 + len + ENTRY);
    if blocks.len() + options.len() > free {
        blocks.clear();
    }
    if options.len() > free {
        options.clear();
    }
    (blocks, options)
}

/// Panics unless a reader of pcapng got the blocks and options beside a packet.
fn check_beside(packet: &support::Packet) {
    let (blocks, options) = kept(packet.number, packet.data.len());
    let options: Vec<_> =
        if options.is_empty() { vec![] } else { vec![(5, options[4..].to_vec())] };
    assert_eq!(packet.beside, (blocks, options), "packet {}", packet.number);
    assert_eq!(packet.interface, interface_name(interface_of(packet.number)));
}

/// The expected state of the ring.
#[derive(Default)]
struct Model {
    /// The length of packet `n` is at index `n - 1`.
    stored: Vec<usize>,
    /// The interfaces after the first, and the packets right after their descriptions.
    described: Vec<(usize, u64)>,
    /// First number and bytes used, oldest first.
    segments: VecDeque<(u64, usize)>,
    /// Packets that must be visible; more may be visible if a segment was filled since.
    published: u64,
    kernel: u64,
    interface: u64,
    oversize: u64,
    /// Number of the packet that each hole in time lies before.
    holes: Vec<u64>,
}

impl Model {
    fn next(&self) -> u64 {
        self.stored.len() as u64 + 1
    }

    fn oldest(&self) -> u64 {
        self.segments[0].0
    }

    fn roll(&mut self) {
        if self.segments.len() == SEGMENTS {
            self.segments.pop_front();
        }
        // A full segment is published.
        self.published = self.stored.len() as u64;
        self.segments.push_back((self.next(), 0));
    }

    /// Interfaces after the first that are described before a packet, but not right before it.
    fn described_before(&self, number: u64) -> u64 {
        self.described.iter().filter(|(_, before)| *before < number).count() as u64
    }

    /// Describes an interface right before the next packet.
    fn describe(&mut self, index: usize) {
        if index > 0 && self.described.iter().all(|(known, _)| *known != index) {
            self.described.push((index, self.next()));
        }
    }

    fn append(&mut self, len: usize) -> Append {
        let number = self.next();
        self.describe(interface_of(number));
        let is_told = self.described.last().is_some_and(|(_, before)| *before == number);
        let needs_entry = is_told || interface_of(number) > 0;
        if len > LONGEST || needs_entry && len + ENTRY > LONGEST {
            self.oversize += 1;
            return Append::Oversize;
        }
        let (blocks, options) = kept(number, len);
        let beside = blocks.len() + options.len();
        // The entry of a note that was left out is stored if the entry itself fits.
        let said = said(number);
        let has_note = !(said.0.is_empty() && said.1.is_empty()) && len + ENTRY <= LONGEST;
        let entry = if needs_entry || has_note { ENTRY + beside } else { 0 };
        if self.segments.back().unwrap().1 + 16 + len + entry > SEGMENT {
            self.roll();
        }
        self.segments.back_mut().unwrap().1 += 16 + len + entry;
        self.stored.push(len);
        Append::Stored
    }

    fn clear(&mut self) {
        self.roll();
        self.segments.drain(..self.segments.len() - 1);
    }
}

/// A cursor, and the bytes that it must have handed out.
struct Reader {
    cursor: Cursor,
    pcapng: bool,
    parser: Parser,
    origin: u64,
    /// Next packet number if none is lost.
    expected: u64,
    /// Number of lost packets, according to the packets seen.
    jumped: u64,
    /// Oldest packet numbers at the times of its reads: a jump can only lead to one of these.
    landings: BTreeSet<u64>,
    /// Index of the first hole in time that is reported to it.
    hole: usize,
}

impl Reader {
    fn take(&mut self, bytes: &[u8], model: &Model) {
        let before = self.parser.packets.len();
        self.parser.feed(bytes);
        for packet in &self.parser.packets[before..] {
            packet.check();
            if self.pcapng {
                check_beside(packet);
            }
            assert_eq!(packet.data.len(), model.stored[packet.number as usize - 1]);
            assert!(packet.number >= self.expected, "twice, or not in order");
            let lost = packet.number - self.expected;
            if lost > 0 {
                assert!(self.landings.contains(&packet.number), "a jump to no segment's start");
            }
            let comment = (self.pcapng && lost > 0).then_some(lost);
            assert_eq!(packet.comment, comment);
            self.jumped += lost;
            self.expected = packet.number + 1;
        }
        let mut told = self.hole;
        for statistics in &self.parser.statistics {
            assert_eq!(statistics.delivered, statistics.after);
            let Some(text) = &statistics.hole else { continue };
            assert_eq!(*text, hole_text(told), "each once and in order");
            let before = model.holes[told];
            told += 1;
            let after = usize::try_from(statistics.after).unwrap();
            let number = |index: usize| self.parser.packets.get(index).map(|packet| packet.number);
            let previous = after.checked_sub(1).and_then(number);
            assert!(previous.is_none_or(|number| number < before));
            assert!(number(after).is_none_or(|number| number >= before));
            if let Some(next) = self.parser.packets.get(after) {
                assert!(next.holes.contains(text), "the packet says so too: {next:?}");
            }
        }
        let comments = self.parser.packets.iter().flat_map(|packet| &packet.holes);
        let comments: Vec<_> = comments.cloned().collect();
        let told: Vec<_> = (self.hole..told).map(hole_text).collect();
        assert!(told.starts_with(&comments), "{comments:?} of {told:?}");
    }

    /// Number of holes in time, according to the reports it got.
    fn holes_told(&self) -> usize {
        let holes = self.parser.statistics.iter().filter(|statistics| statistics.hole.is_some());
        self.hole + holes.count()
    }

    fn check(&self, ring: &Ring) {
        let progress = self.cursor.progress(ring);
        let since = ring.bounds().next.number - self.origin;
        assert_eq!(progress.delivered + progress.lost + progress.lag, since, "{progress:?}");
        let (next, oldest) = (ring.bounds().next.number, ring.bounds().oldest.number);
        let there = (next - progress.lag).max(oldest);
        assert_eq!(progress.lag - progress.gone, next - there, "{progress:?}");
        let begun = u64::from(self.parser.pending() > 0 || self.pcapng);
        let parsed = self.parser.count;
        assert!((parsed..=parsed + begun).contains(&progress.delivered), "{progress:?} {parsed}");
        assert!(progress.lost >= self.jumped, "{progress:?}");
    }
}

/// An opener of an extent, and the bytes that it has read.
struct Opener {
    snapshot: Snapshot,
    extent: SnapshotExtent,
    pcapng: bool,
    begin: u64,
    /// The contents of the file, up to the place where it was read straight on.
    seen: Vec<u8>,
    /// Has been fed with all of these bytes.
    parser: Parser,
    /// Number of the next parsed packet if none is lost.
    expected: u64,
    /// Size of the file when its end was last set.
    armed: u64,
    /// Whether an end of file was reported, so that the next read moves the end.
    ended: bool,
    lapped: bool,
}

impl Opener {
    /// Forgets the bytes after `len`.
    fn truncate(&mut self, len: usize) {
        self.seen.truncate(len);
        let seen = std::mem::take(&mut self.seen);
        self.parser = Parser::forgetful(self.pcapng);
        self.expected = self.begin;
        self.extend(&seen);
    }

    /// In any case, all bytes are a beginning of a savefile with our packets in order.
    fn extend(&mut self, bytes: &[u8]) {
        self.seen.extend_from_slice(bytes);
        self.parser.feed(bytes);
        for packet in &self.parser.packets {
            packet.check();
            if self.pcapng {
                check_beside(packet);
            }
            assert!(packet.number >= self.expected);
            let lost = packet.number - self.expected;
            assert_eq!(packet.comment, (self.pcapng && lost > 0).then_some(lost));
            self.expected = packet.number + 1;
        }
    }
}

struct World {
    ring: Arc<Ring>,
    writer: Writer,
    model: Model,
    readers: Vec<Reader>,
    /// Each with the number it begins at, and the largest size seen.
    extents: Vec<(SnapshotExtent, bool, u64, u64)>,
    openers: Vec<Opener>,
    ended: bool,
    /// Bytes before the first packet of a pcapng file with one interface.
    header_len: usize,
}

/// Beginning and end of a hole in time, and its reason.
fn hole(index: usize) -> (Timestamp, Timestamp, String) {
    (time(index as u64), time(index as u64 + 7), format!("reason {index}"))
}

fn hole_text(index: usize) -> String {
    let (began, ended, why) = hole(index);
    let (began, ended) = (began.to_rfc3339(), ended.to_rfc3339());
    format!("pcapfs: nothing was captured from {began} to {ended}: {why}")
}

fn format(pcapng: bool) -> SavefileFormat {
    if pcapng { SavefileFormat::Pcapng } else { SavefileFormat::Pcap }
}

impl World {
    fn new(path: std::path::PathBuf) -> Self {
        let opened = Ring::open(&options(path)).unwrap();
        let model = Model { segments: VecDeque::from([(1, 0)]), ..Model::default() };
        let header_len = header_len(&opened.ring);
        Self {
            header_len,
            ring: opened.ring,
            writer: opened.writer,
            model,
            readers: Vec::new(),
            extents: Vec::new(),
            openers: Vec::new(),
            ended: false,
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(lengths, publish) => {
                for &len in lengths {
                    let number = self.model.next();
                    let original_len = u32::try_from(len + 1).unwrap();
                    let expected = self.model.append(len);
                    self.describe(interface_of(number));
                    let (blocks, options) = said(number);
                    let note = NoteRef { blocks: &blocks, options: &options };
                    let data = data(number, len);
                    let done = self.writer.append_noted(time(number), original_len, &data, note);
                    assert_eq!(done, expected);
                }
                if *publish {
                    self.publish();
                }
            }
            Op::Describe(index) => {
                self.model.describe(*index);
                self.describe(*index);
            }
            Op::Publish => self.publish(),
            Op::Clear => {
                self.writer.clear();
                self.model.clear();
            }
            Op::Loss(kernel, interface) => {
                self.writer.add_loss(*kernel, *interface);
                self.model.kernel += kernel;
                self.model.interface += interface;
            }
            Op::Hole => {
                let (began, ended, why) = hole(self.model.holes.len());
                self.writer.source_lost(began, &why);
                self.writer.source_found(ended);
                self.model.holes.push(self.model.next());
                self.model.published = self.model.stored.len() as u64;
            }
            Op::Ended(ended) => {
                self.writer.set_ended(*ended);
                self.ended = *ended;
                self.model.published = self.model.stored.len() as u64;
            }
            Op::Open { pcapng, begin } => self.open(*pcapng, *begin),
            Op::Read { cursor, want, fail_first } => self.read(cursor, *want, *fail_first),
            Op::Drain { cursor, want } => self.drain(cursor, *want),
            Op::Extent { pcapng } => {
                let extent = SnapshotExtent::new(&*self.ring, format(*pcapng));
                self.extents.push((extent, *pcapng, self.model.oldest(), 0));
            }
            Op::OpenSnapshot { extent } if !self.extents.is_empty() => {
                let (extent, pcapng, begin, _) = *extent.get(&self.extents);
                let snapshot = Snapshot::new(&*self.ring, extent);
                let armed = extent.size(&*self.ring);
                let seen = Vec::new();
                self.openers.push(Opener {
                    snapshot,
                    extent,
                    pcapng,
                    begin,
                    seen,
                    parser: Parser::forgetful(pcapng),
                    expected: begin,
                    armed,
                    ended: false,
                    lapped: false,
                });
            }
            Op::Straight { snapshot, want } if !self.openers.is_empty() => {
                let index = snapshot.index(self.openers.len());
                let at = self.openers[index].seen.len();
                self.pread(index, at, *want);
            }
            Op::Back { snapshot, offset, want } if !self.openers.is_empty() => {
                let index = snapshot.index(self.openers.len());
                let at = offset.index(self.openers[index].seen.len() + 1);
                self.pread(index, at, *want);
            }
            Op::ToTheEnd { snapshot, want } if !self.openers.is_empty() => {
                let index = snapshot.index(self.openers.len());
                loop {
                    let at = self.openers[index].seen.len();
                    if !self.pread(index, at, *want) {
                        break;
                    }
                }
            }
            Op::Compare { extent, want, offsets } if !self.extents.is_empty() => {
                let (extent, pcapng, begin, _) = *extent.get(&self.extents);
                self.compare(extent, pcapng, begin, *want, offsets);
            }
            _ => {}
        }
        self.check();
    }

    /// Describes an interface, and sets it as the interface of later packets.
    fn describe(&mut self, index: usize) {
        let id = if index == 0 { 0 } else { self.writer.describe(&interface(index), &[]).unwrap() };
        self.writer.set_interface(id);
    }

    fn publish(&mut self) {
        self.writer.publish();
        self.model.published = self.model.stored.len() as u64;
    }

    fn open(&mut self, pcapng: bool, begin: Begin) {
        let bounds = self.ring.bounds();
        let origin = match begin {
            Begin::Oldest => bounds.oldest.number,
            Begin::Next => bounds.next.number,
        };
        // The holes between the packets it reads, and later holes.
        let hole = self.model.holes.partition_point(|before| *before <= origin);
        self.readers.push(Reader {
            cursor: Cursor::new(&*self.ring, format(pcapng), begin, true),
            pcapng,
            parser: Parser::new(pcapng),
            origin,
            expected: origin,
            jumped: 0,
            landings: BTreeSet::new(),
            hole,
        });
    }

    fn read(&mut self, cursor: &Index, want: usize, fail_first: bool) {
        let ring = &*self.ring;
        if self.readers.is_empty() {
            return;
        }
        let index = cursor.index(self.readers.len());
        let reader = &mut self.readers[index];
        reader.landings.insert(self.model.oldest());
        if fail_first {
            let before = reader.cursor.progress(ring);
            let mut refuse = |_: &[io::IoSlice<'_>]| Err(io::Error::from(io::ErrorKind::Other));
            match reader.cursor.read(ring, want, &mut refuse) {
                Err(CursorReadError::Send(_)) => assert_eq!(reader.cursor.progress(ring), before),
                Ok(outcome) => assert!(!matches!(outcome, ReadOutcome::Sent(_))),
                Err(error) => panic!("{error}"),
            }
        }
        let before = reader.cursor.progress(ring).delivered_bytes;
        let ready = reader.cursor.is_ready(ring);
        let mut bytes = Vec::new();
        let outcome = reader.cursor.read(ring, want, &mut collect(&mut bytes)).unwrap();
        assert_eq!(reader.cursor.progress(ring).delivered_bytes - before, bytes.len() as u64);
        match outcome {
            ReadOutcome::Sent(sent) => {
                assert_eq!(sent, bytes.len());
                assert!((1..=want).contains(&sent) && ready);
            }
            ReadOutcome::Empty => assert!(bytes.is_empty() && !self.ended),
            ReadOutcome::End => assert!(bytes.is_empty() && self.ended && ready),
        }
        reader.take(&bytes, &self.model);
    }

    fn drain(&mut self, cursor: &Index, want: usize) {
        if self.readers.is_empty() {
            return;
        }
        self.publish();
        let index = cursor.index(self.readers.len());
        let reader = &mut self.readers[index];
        reader.landings.insert(self.model.oldest());
        let (bytes, outcome) = support::drain(&mut reader.cursor, &*self.ring, want);
        reader.take(&bytes, &self.model);
        assert_eq!(outcome, if self.ended { ReadOutcome::End } else { ReadOutcome::Empty });
        assert_eq!(reader.parser.pending(), 0, "whole records at the end");
        let progress = reader.cursor.progress(&*self.ring);
        assert_eq!(progress.lag, 0);
        assert_eq!(progress.delivered, reader.parser.count);
        if reader.expected == self.model.next() {
            assert_eq!(progress.lost, reader.jumped);
        }
        if self.ended && reader.pcapng {
            let last = reader.parser.statistics.last().expect("a stream that ends says so");
            // The stream may have ended before.
            assert!(
                last.received
                    <= self.model.stored.len() as u64 + self.model.kernel + self.model.oversize
            );
        }
        assert!(!reader.cursor.is_ready(&*self.ring) || self.ended);
        if reader.pcapng {
            assert_eq!(reader.holes_told(), self.model.holes.len());
        }
    }

    /// Reads with an opener at `at`. Returns whether it read anything.
    fn pread(&mut self, index: usize, at: usize, want: usize) -> bool {
        let ring = &*self.ring;
        let opener = &mut self.openers[index];
        let described = self.model.described_before(opener.begin) * DESCRIPTION;
        let header_len =
            if opener.pcapng { self.header_len + usize::try_from(described).unwrap() } else { 24 };
        if std::mem::take(&mut opener.ended) {
            opener.armed = opener.extent.size(ring);
        }
        let lost = opener.snapshot.progress(ring).lost;
        let mut bytes = Vec::new();
        let result = opener.snapshot.read(ring, at as u64, want, &mut collect(&mut bytes));
        match result {
            Err(CursorReadError::Expired) => {
                assert!(at >= header_len, "the header is there for ever");
                // The bytes seen there must have been overwritten. Or a straight reader has jumped
                // since, so that the file continues with other packets.
                assert!(opener.begin < self.model.oldest(), "expired but retained");
                opener.lapped = true;
                if at == opener.seen.len() {
                    // The reader went back and cannot continue: start over.
                    opener.truncate(0);
                }
                return false;
            }
            Err(error) => panic!("{error}"),
            Ok(ReadOutcome::Empty) => panic!("a file does not block"),
            Ok(ReadOutcome::End) => {
                assert!(bytes.is_empty());
                if at == opener.seen.len() {
                    assert_eq!(opener.parser.pending(), 0, "the end of file is in no record");
                    if !opener.lapped && lost == 0 && opener.begin >= self.model.oldest() {
                        assert_eq!(opener.seen.len() as u64, opener.armed, "the size was exact");
                    }
                }
                opener.ended = true;
                return false;
            }
            Ok(ReadOutcome::Sent(sent)) => {
                assert_eq!(sent, bytes.len());
                assert!((1..=want).contains(&sent));
            }
        }
        let lapped = opener.snapshot.progress(ring).lost > lost || at < header_len && opener.lapped;
        if lapped || opener.begin < self.model.oldest() {
            opener.lapped = true;
        }
        let known = opener.seen.len().min(at + bytes.len());
        if opener.snapshot.progress(ring).lost > lost || at < header_len {
            let header = header_len.min(known).max(at);
            assert!(bytes[..header - at] == opener.seen[at..header], "another header");
            opener.truncate(at);
        } else {
            assert!(bytes[..known - at] == opener.seen[at..known], "other bytes than before");
        }
        if at + bytes.len() > opener.seen.len() {
            let known = opener.seen.len() - at;
            opener.extend(&bytes[known..]);
        }
        true
    }

    fn compare(
        &self,
        extent: SnapshotExtent,
        pcapng: bool,
        begin: u64,
        want: usize,
        offsets: &[Index],
    ) {
        let ring = &*self.ring;
        let size = extent.size(ring);
        let mut straight = Snapshot::new(ring, extent);
        let mut whole = Vec::new();
        while let ReadOutcome::Sent(_) =
            straight.read(ring, whole.len() as u64, want, &mut collect(&mut whole)).unwrap()
        {
        }
        let mut parser = Parser::new(pcapng);
        parser.feed(&whole);
        assert_eq!(parser.pending(), 0);
        let visible = ring.bounds().next.number;
        let numbers: Vec<u64> = parser.packets.iter().map(|packet| packet.number).collect();
        assert_eq!(numbers, (begin.max(self.model.oldest())..visible).collect::<Vec<_>>());
        parser.packets.iter().for_each(support::Packet::check);
        if pcapng {
            parser.packets.iter().for_each(check_beside);
        }
        if begin < self.model.oldest() {
            return;
        }
        assert_eq!(whole.len() as u64, size, "st_size is exact");
        let mut again = Snapshot::new(ring, extent);
        for offset in offsets {
            let at = offset.index(whole.len() + 1);
            let mut bytes = Vec::new();
            let outcome = again.read(ring, at as u64, want, &mut collect(&mut bytes)).unwrap();
            assert_eq!(outcome == ReadOutcome::End, at == whole.len());
            assert!(bytes[..] == whole[at..at + bytes.len()], "pread at {at} of {}", whole.len());
        }
        let end = again.read(ring, size + 5, want, &mut |_| Ok(())).unwrap();
        assert_eq!(end, ReadOutcome::End);
    }

    fn check(&mut self) {
        let bounds = self.ring.bounds();
        let visible = bounds.next.number - 1;
        assert!((self.model.published..self.model.next()).contains(&visible));
        assert_eq!(bounds.oldest.number, self.model.oldest());
        assert_eq!(bounds.ended, self.ended);
        let records: u64 =
            self.model.stored[..visible as usize].iter().map(|&len| 16 + len as u64).sum();
        assert_eq!(bounds.next.pcap, records);
        let blocks = (1..).zip(&self.model.stored[..visible as usize]).map(|(number, &len)| {
            let (blocks, options) = kept(number, len);
            let end = if options.is_empty() { 0 } else { 4 };
            32 + (len.next_multiple_of(4) + blocks.len() + options.len() + end) as u64
        });
        let described = self.model.described_before(visible + 1) * DESCRIPTION;
        assert_eq!(bounds.next.pcapng, blocks.sum::<u64>() + described);
        let (packets, bytes) = counters(&*self.ring);
        assert_eq!(packets.stored, visible);
        assert_eq!(packets.overwritten, self.model.oldest() - 1);
        assert_eq!(packets.stored, packets.retained + packets.overwritten);
        let lost = packets.dropped_kernel + packets.dropped_oversize;
        assert_eq!(packets.seen, packets.stored + lost);
        assert_eq!(packets.dropped_kernel, self.model.kernel);
        assert_eq!(packets.dropped_interface, self.model.interface);
        assert_eq!(packets.dropped_oversize, self.model.oversize);
        assert_eq!(bytes.stored - bytes.retained, bounds.oldest.pcap);
        assert_eq!(self.ring.capacity().used, self.model.segments.len() as u64);
        for reader in &self.readers {
            reader.check(&self.ring);
        }
        for (extent, _, _, largest) in &mut self.extents {
            let size = extent.size(&*self.ring);
            assert!(size >= *largest, "st_size shrank from {largest} to {size}");
            *largest = size;
        }
    }
}

/// Bytes before the first packet, measured with a reader that begins at the end.
fn header_len(ring: &Ring) -> usize {
    let mut cursor = Cursor::new(ring, SavefileFormat::Pcapng, Begin::Next, false);
    let mut bytes = Vec::new();
    let _ = cursor.read(ring, 1 << 10, &mut collect(&mut bytes)).unwrap();
    bytes.len()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_read_agrees_with_the_model(ops in prop::collection::vec(op(), 1..90)) {
        let directory = directory();
        let mut world = World::new(directory.path().join("model.ring"));
        for op in &ops {
            world.apply(op);
        }
        // In the end all readers read everything.
        world.apply(&Op::Ended(true));
        for index in 0..world.readers.len() {
            let reader = &mut world.readers[index];
            reader.landings.insert(world.model.oldest());
            let (bytes, outcome) = support::drain(&mut reader.cursor, &*world.ring, 100_000);
            reader.take(&bytes, &world.model);
            prop_assert_eq!(outcome, ReadOutcome::End);
            prop_assert_eq!(reader.parser.pending(), 0);
        }
        world.check();
    }
}
