//! Random savefiles of every format, whole and cut at every byte, against the obvious model.

mod savefile_encoder;
mod support;

use std::io::Write;
use std::sync::atomic::AtomicBool;

use capture::cursor::snapshot::{Snapshot, SnapshotExtent};
use capture::cursor::{Begin, Cursor, ReadOutcome, SavefileFormat};
use capture::filter::Filter;
use capture::record::PacketRecords;
use capture::savefile::stream::{StreamEvent, StreamReader};
use capture::savefile::{
    Indexed, Probe, Savefile, SavefileOpenError, SavefileOptions, pcapng_writer,
};
use capture::store::{ChunkBytes, PinError, Position, SearchTarget, Store};
use proptest::prelude::*;
use protocol::linktype::LinkType;
use savefile_encoder::{Expected, File, Order, Packet, any_file, pcap};

/// The part of a file that is to be served.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    snaplen: Option<u32>,
    /// Only packets whose first byte is below this value.
    below: Option<u8>,
}

impl View {
    fn matches(self, data: &[u8]) -> bool {
        self.below.is_none_or(|below| data.first().is_some_and(|byte| *byte < below))
    }

    fn options(self, link_type: LinkType) -> SavefileOptions {
        // A damaged file may have a link type that nothing compiles for.
        let filter = self
            .below
            .and_then(|below| Filter::compile(&format!("link[0] < {below}"), link_type).ok());
        SavefileOptions { filter, snaplen: self.snaplen, ..SavefileOptions::default() }
    }
}

/// A packet as a store returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Served {
    time: (u32, u32),
    original_len: u32,
    data: Vec<u8>,
    /// Whether it has the link type that pcap files have.
    native: bool,
    /// Index of its interface in the file, and the number of interfaces described before the
    /// packet.
    interface: (u32, u32),
    at: Position,
    /// Blocks before it, and its options, in a pcapng file.
    beside: (Vec<u8>, Vec<u8>),
}

/// The obvious reader of the first `cut` bytes of a file.
struct Model {
    link_type: u16,
    leading: u32,
    /// Name and link type.
    interfaces: Vec<(Option<String>, u16)>,
    served: Vec<Served>,
    next: Position,
    raw: usize,
    left: usize,
    /// The blocks after the last served packet, and whether comments follow it too.
    trailing: (Vec<u8>, bool),
}

impl Model {
    fn new(file: &File, cut: usize, view: View) -> Self {
        let raw: Vec<&Expected> = file.packets.iter().filter(|packet| packet.end <= cut).collect();
        let interfaces: Vec<_> = file.interfaces.iter().filter(|one| one.end <= cut).collect();
        let link_type = file
            .link_type
            .or_else(|| raw.first().map(|packet| packet.link_type))
            .or_else(|| interfaces.first().map(|interface| interface.link_type))
            .unwrap_or(1);
        let known_at = |end: usize| {
            let known = interfaces.iter().filter(|interface| interface.end <= end).count();
            if file.link_type.is_some() { 1 } else { u32::try_from(known).unwrap() }
        };
        let leading = known_at(raw.first().map_or(cut, |packet| packet.end)).max(1);
        let mut next = Position::START;
        let mut described = leading;
        let mut served = Vec::new();
        let mut kept = file.kept.iter().filter(|kept| kept.end <= cut).peekable();
        let mut comments = file.comments.iter().filter(|kept| kept.end <= cut).peekable();
        for packet in raw.iter().filter(|packet| view.matches(&packet.data)) {
            let mut data = packet.data.clone();
            data.truncate(view.snaplen.unwrap_or(u32::MAX) as usize);
            let native = packet.link_type == link_type;
            let known = known_at(packet.end);
            let at = next;
            next.number += 1;
            next.pcap += if native { 16 + data.len() as u64 } else { 0 };
            next.pcapng += 32 + data.len().next_multiple_of(4) as u64;
            while described < known {
                let name = interfaces[described as usize].name.as_ref();
                let name = name.map_or(0, |name| 4 + name.len().next_multiple_of(4));
                // Block, link type and snapshot length, name, resolution, end of options.
                next.pcapng += 12 + 8 + name as u64 + 8 + 4;
                described += 1;
            }
            let interface = (u32::try_from(packet.interface).unwrap(), known);
            let (time, original_len) = (packet.time, packet.original_len);
            let mut blocks = Vec::new();
            while let Some(one) = kept.next_if(|kept| kept.end < packet.end) {
                blocks.extend_from_slice(&one.bytes);
            }
            let mut options = Vec::new();
            while let Some(one) = comments.next_if(|one| one.end < packet.end) {
                options.extend_from_slice(&one.bytes);
            }
            options.extend_from_slice(&packet.options);
            let end = if options.is_empty() { 0 } else { 4 };
            next.pcapng += (blocks.len() + options.len() + end) as u64;
            let beside = (blocks, options);
            served.push(Served { time, original_len, data, native, interface, at, beside });
        }
        let whole = file.ends.iter().filter(|end| **end <= cut).max().copied().unwrap_or(0);
        Self {
            link_type,
            leading,
            interfaces: interfaces.iter().map(|one| (one.name.clone(), one.link_type)).collect(),
            next,
            served,
            raw: raw.len(),
            left: cut - whole,
            trailing: (kept.flat_map(|one| one.bytes.clone()).collect(), comments.peek().is_some()),
        }
    }

    fn foreign(&self) -> usize {
        self.served.iter().filter(|packet| !packet.native).count()
    }
}

fn temporary(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn indexed(bytes: &[u8], view: View) -> Result<Savefile, SavefileOpenError> {
    let probe = Probe::open(temporary(bytes).path())?;
    let link_type = probe.link_type();
    let savefile = probe.into_savefile(view.options(link_type));
    assert_eq!(savefile.index(&AtomicBool::new(false)), Indexed::Finished);
    Ok(savefile)
}

/// All packets that a store serves, in order.
fn served(savefile: &Savefile) -> Vec<Served> {
    let mut all = Vec::new();
    for chunk in 0.. {
        let chunk = match savefile.pin(chunk) {
            Ok(chunk) => chunk,
            Err(PinError::NotYet) => break,
            Err(error) => panic!("{error}"),
        };
        assert!(chunk.complete && !chunk.bytes().is_empty());
        let mut at = chunk.first;
        let mut selected = PacketRecords::new(chunk.pcap_bytes());
        let mut records = PacketRecords::new(chunk.bytes());
        for (index, record) in records.by_ref().enumerate() {
            let interface = chunk.interface(index).map_or((0, 1), |one| (one.id, one.known));
            let link_type = savefile.interface(interface.0).unwrap().link_type;
            let native = link_type.is_none_or(|it| it == savefile.header().unwrap().link_type);
            assert!(!native || selected.next() == Some(record));
            all.push(Served {
                time: (record.seconds, record.fraction),
                original_len: record.original_len,
                data: record.data.to_vec(),
                native,
                interface,
                at,
                beside: (chunk.note(index).blocks.to_vec(), chunk.note(index).options.to_vec()),
            });
            at.number += 1;
            at.pcap += if native { record.len() as u64 } else { 0 };
        }
        assert!(records.rest().is_empty() && selected.rest().is_empty());
    }
    all
}

/// Compares a store with the model; positions in pcapng only at the beginnings of chunks.
fn check_mapped(savefile: &Savefile, model: &Model) {
    let header = savefile.header().unwrap();
    assert_eq!(header.link_type.0, model.link_type);
    assert_eq!(savefile.interfaces_before(1), model.leading);
    for (id, (name, link_type)) in (0..).zip(&model.interfaces) {
        let interface = savefile.interface(id).unwrap();
        assert_eq!(interface.name, *name);
        assert_eq!(interface.link_type.unwrap_or(header.link_type).0, *link_type);
    }
    assert!(savefile.interface(u32::try_from(model.interfaces.len().max(1)).unwrap()).is_none());
    assert_eq!(savefile.raw_packets(), model.raw as u64);
    assert_eq!(savefile.foreign_packets(), model.foreign() as u64);
    assert_eq!(savefile.note().is_some(), model.foreign() > 0 || model.trailing.1);
    let bounds = savefile.bounds();
    assert!(bounds.ended);
    assert_eq!((bounds.oldest, bounds.next), (Position::START, model.next));
    let mut got = served(savefile);
    assert_eq!(got.len(), model.served.len());
    for (got, want) in got.iter_mut().zip(&model.served) {
        got.at.pcapng = want.at.pcapng;
        assert_eq!(got, want);
    }
    let left = model.left;
    match savefile.problem() {
        None => assert_eq!(left, 0),
        Some(problem) => assert!(problem.starts_with(&format!("cut short: the last {left} byte"))),
    }
    check_find(savefile, model);
    check_written(savefile, model);
    check_read(savefile, model);
}

/// Reads the pcapng file of a store from front to back and from every place, and checks the blocks
/// after the last packet.
fn check_read(savefile: &Savefile, model: &Model) {
    let mut whole = Vec::new();
    let mut cursor = Cursor::new(savefile, SavefileFormat::Pcapng, Begin::Oldest, false);
    while let ReadOutcome::Sent(_) =
        cursor.read(savefile, 100, &mut support::collect(&mut whole)).unwrap()
    {}
    assert!(whole.ends_with(&model.trailing.0), "{:?}", model.trailing);
    let trailing = savefile.trailing();
    assert_eq!(trailing.is_some(), !model.trailing.0.is_empty());
    let extent = SnapshotExtent::new(savefile, SavefileFormat::Pcapng);
    assert_eq!(extent.size(savefile), whole.len() as u64);
    let mut snapshot = Snapshot::new(savefile, extent);
    for at in (0..whole.len()).rev().step_by(1 + whole.len() / 100) {
        let mut bytes = Vec::new();
        snapshot.read(savefile, at as u64, 70, &mut support::collect(&mut bytes)).unwrap();
        assert!(!bytes.is_empty() && whole[at..].starts_with(&bytes), "at {at}");
        // And continue from there.
        snapshot
            .read(savefile, (at + bytes.len()) as u64, 1 << 20, &mut support::collect(&mut bytes))
            .unwrap();
        assert!(whole[at..].starts_with(&bytes), "on from {at}");
    }
}

fn check_find(savefile: &Savefile, model: &Model) {
    let (first, next) = (Position::START, model.next);
    assert_eq!(savefile.find(SearchTarget::Number(0)), Err(PinError::Lapped));
    for end in [
        SearchTarget::Number(next.number),
        SearchTarget::Pcap(next.pcap),
        SearchTarget::Pcapng(next.pcapng + 9),
    ] {
        assert_eq!(savefile.find(end), Err(PinError::NotYet));
    }
    if next != first {
        let last = savefile.capacity().used - 1;
        assert_eq!(savefile.find(SearchTarget::Number(1)), Ok(0));
        assert_eq!(savefile.find(SearchTarget::Pcapng(0)), Ok(0));
        let number = model.served.iter().rposition(|packet| packet.native).map_or(0, |at| at + 1);
        let chunk = savefile.find(SearchTarget::Number(number as u64)).ok();
        assert_eq!(savefile.find(SearchTarget::Pcap(next.pcap.wrapping_sub(1))).ok(), chunk);
        assert_eq!(savefile.find(SearchTarget::Pcapng(next.pcapng - 1)), Ok(last));
    }
}

/// Writes the served packets as pcapng in the same way as a reader's cursor, and compares lengths.
fn check_written(savefile: &Savefile, model: &Model) {
    let header = savefile.header().unwrap();
    let mut out = Vec::new();
    let mut described = savefile.interfaces_before(1);
    for packet in &model.served {
        assert_eq!(out.len() as u64, packet.at.pcapng);
        let (interface, known) = packet.interface;
        while described < known {
            let interface = savefile.interface(described).unwrap();
            pcapng_writer::interface_description(&mut out, &interface, &header);
            described += 1;
        }
        out.extend_from_slice(&packet.beside.0);
        let options = &packet.beside.1;
        let time = protocol::time::Timestamp::default();
        let (original_len, data) = (packet.original_len, packet.data.as_slice());
        let packet = pcapng_writer::PacketBlockContent { interface, time, original_len, data };
        pcapng_writer::enhanced_packet(&mut out, &packet, header.precision, options, None);
    }
    assert_eq!(out.len() as u64, savefile.bounds().next.pcapng);
}

/// Feeds a reader with pieces of the given lengths, over and over. Returns the packets, the number
/// of foreign ones, and the bytes that were left.
fn streamed(bytes: &[u8], pieces: &[usize]) -> (Vec<Served>, usize, u64) {
    let mut reader = StreamReader::new();
    let (mut packets, mut foreign, mut precision) = (Vec::new(), 0, None);
    // Interfaces before the section, all interfaces, and blocks since the last packet.
    let (mut section, mut known, mut blocks) = (0, 0, Vec::new());
    let mut comments = Vec::new();
    let mut rest = bytes;
    for piece in pieces.iter().cycle() {
        let space = reader.space();
        let len = (*piece).min(rest.len()).min(space.len());
        space[..len].copy_from_slice(&rest[..len]);
        reader.filled(len);
        rest = &rest[len..];
        while let Some(event) = reader.event().unwrap() {
            match event {
                StreamEvent::Header(header) => {
                    assert!(precision.replace(header.precision).is_none());
                }
                StreamEvent::Section(options) => {
                    section = known;
                    comments.extend_from_slice(options);
                }
                StreamEvent::Interface(_) => known += 1,
                StreamEvent::Kept(block) => {
                    let start = blocks.len();
                    blocks.extend_from_slice(block);
                    if block[..4] == 5_u32.to_ne_bytes() {
                        let id = u32::from_ne_bytes(block[8..12].try_into().unwrap());
                        blocks[start + 8..start + 12]
                            .copy_from_slice(&(section + id).to_ne_bytes());
                    }
                }
                StreamEvent::LeftOut => panic!("no block of the test's is too long"),
                StreamEvent::Foreign { .. } => {
                    foreign += 1;
                    blocks.clear();
                    comments.clear();
                }
                StreamEvent::Packet(packet) => packets.push(Served {
                    time: packet.time.to_parts(precision.unwrap()),
                    original_len: packet.original_len,
                    data: packet.data.to_vec(),
                    native: true,
                    interface: (section + packet.interface, known.max(1)),
                    at: Position::START,
                    beside: (
                        std::mem::take(&mut blocks),
                        [std::mem::take(&mut comments), packet.options.to_vec()].concat(),
                    ),
                }),
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    (packets, foreign, reader.finish())
}

fn check_streamed(bytes: &[u8], pieces: &[usize], model: &Model) {
    let (packets, foreign, left) = streamed(bytes, pieces);
    assert_eq!(left, model.left as u64);
    assert_eq!(foreign, model.foreign());
    let plain = model
        .served
        .iter()
        .filter(|packet| packet.native)
        .map(|packet| Served { at: Position::START, ..packet.clone() });
    assert!(packets.into_iter().eq(plain));
}

fn view() -> impl Strategy<Value = View> {
    (prop::option::of(1..30_u32), prop::option::of(prop_oneof![Just(128), any::<u8>()]))
        .prop_map(|(snaplen, below)| View { snaplen, below })
}

/// Failing cases are added to this file by hand, as tests of their own.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn a_mapped_file_serves_its_packets(file in any_file(), view in view()) {
        let savefile = indexed(&file.bytes, view).unwrap();
        check_mapped(&savefile, &Model::new(&file, file.bytes.len(), view));
    }

    #[test]
    fn a_stream_gives_the_same_packets_however_it_is_cut_into_reads(
        file in any_file(), pieces in prop::collection::vec(1..70_usize, 1..9),
    ) {
        let model = Model::new(&file, file.bytes.len(), View::default());
        check_streamed(&file.bytes, &pieces, &model);
    }

    #[test]
    fn damage_is_survived(
        file in any_file(), view in view(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = file.bytes;
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(savefile) = indexed(&bytes, view) {
            assert_eq!(served(&savefile).len() as u64 + 1, savefile.bounds().next.number);
        }
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn a_file_cut_at_any_byte_serves_every_whole_record(file in any_file(), view in view()) {
        for cut in 0..file.bytes.len() {
            let bytes = &file.bytes[..cut];
            let model = Model::new(&file, cut, view);
            match indexed(bytes, view) {
                Ok(savefile) => check_mapped(&savefile, &model),
                Err(error) => {
                    assert!(cut < file.ends[0], "{error}");
                    assert!(cut > 0 || matches!(error, SavefileOpenError::Empty(_)), "{error}");
                }
            }
            check_streamed(bytes, &[64], &Model::new(&file, cut, View::default()));
        }
    }
}

/// A few MiB with records of all sizes, one of them larger than a chunk.
fn large(order: Order) -> File {
    let packets: Vec<Packet> = (0..4_000_u32)
        .map(|number| {
            let len = if number == 1_000 { 700_000 } else { number * 7_919 % 1_515 };
            let data = (0..len).map(|at| (at + number).to_le_bytes()[0]).collect();
            Packet { seconds: number, nanoseconds: 5, more_on_the_wire: 1, data }
        })
        .collect();
    pcap(order, true, 1, &packets)
}

#[test]
fn chunks_are_of_moderate_size_and_every_coordinate_is_found() {
    for big in [true, false] {
        for below in [None, Some(200), Some(2), Some(0)] {
            let file = large(Order { big });
            let view = View { below, snaplen: None };
            let savefile = indexed(&file.bytes, view).unwrap();
            let model = Model::new(&file, file.bytes.len(), view);
            check_mapped(&savefile, &model);
            let used = savefile.capacity().used;
            assert!(used <= 40, "{used} chunks");
            for id in 0..used {
                let chunk = savefile.pin(id).unwrap();
                let len = chunk.bytes().len();
                let single = PacketRecords::new(chunk.bytes()).count() == 1;
                assert!(len <= 256 << 10 || single, "a chunk of {len} bytes");
                // A chunk that the filter leaves whole needs no conversion either.
                let native = big == cfg!(target_endian = "big");
                match chunk.bytes {
                    ChunkBytes::Mapped(_) => assert!(native),
                    _ => assert!(!native || below.is_some()),
                }
            }
            for packet in &model.served {
                let at = packet.at;
                let chunk = savefile.find(SearchTarget::Number(at.number)).unwrap();
                assert_eq!(savefile.find(SearchTarget::Pcap(at.pcap + 15)), Ok(chunk));
                assert_eq!(savefile.find(SearchTarget::Pcapng(at.pcapng + 31)), Ok(chunk));
                let first = savefile.pin(chunk).unwrap().first;
                assert!(first.number <= at.number && first.pcapng <= at.pcapng);
            }
        }
    }
}

#[test]
fn indexing_stops_and_goes_on() {
    let file = large(Order { big: false });
    let savefile =
        Savefile::open(temporary(&file.bytes).path(), SavefileOptions::default()).unwrap();
    assert!(!savefile.bounds().ended);
    assert_eq!(savefile.index(&AtomicBool::new(true)), Indexed::Stopped);
    assert!(savefile.bounds().ended, "readers must not wait");
    assert_eq!(savefile.index(&AtomicBool::new(false)), Indexed::Finished);
    assert_eq!(savefile.bounds().next.number, 4_001);
    assert_eq!(savefile.index(&AtomicBool::new(false)), Indexed::Finished, "nothing is done twice");
    assert_eq!(savefile.raw_packets(), 4_000);
}

#[test]
fn a_stream_larger_than_its_buffer_passes_through() {
    let file = large(Order { big: true });
    let model = Model::new(&file, file.bytes.len(), View::default());
    check_streamed(&file.bytes, &[65_536, 1, 300_000], &model);
}

#[test]
fn a_malformed_record_ends_the_walk_and_is_named() {
    let mut file = large(Order { big: false });
    let end = file.packets[2].end;
    file.bytes[end + 8..end + 12].copy_from_slice(&[0xff; 4]);
    let savefile = indexed(&file.bytes, View::default()).unwrap();
    assert_eq!(savefile.bounds().next.number, 4);
    let problem = savefile.problem().unwrap();
    let expected = format!("malformed at byte {end}: a packet of 4294967295 captured bytes");
    assert!(problem.starts_with(&expected), "{problem}");

    let mut reader = StreamReader::new();
    reader.space()[..end + 16].copy_from_slice(&file.bytes[..end + 16]);
    reader.filled(end + 16);
    for _ in 0..4 {
        assert!(reader.event().unwrap().is_some());
    }
    let error = reader.event().unwrap_err();
    assert_eq!(error.offset, end as u64);
    assert_eq!(reader.event().unwrap_err(), error, "it stays");
    reader.reset();
    assert_eq!(reader.event(), Ok(None));
}

#[test]
fn a_reader_continues_with_the_next_writer() {
    let one = Packet { seconds: 1, nanoseconds: 0, more_on_the_wire: 0, data: vec![1, 2, 3] };
    let mut reader = StreamReader::new();
    for (big, link_type) in [(true, 1), (false, 101)] {
        let file = pcap(Order { big }, true, link_type, std::slice::from_ref(&one));
        let bytes = &file.bytes[..file.bytes.len() - usize::from(big)];
        reader.space()[..bytes.len()].copy_from_slice(bytes);
        reader.filled(bytes.len());
        let Ok(Some(StreamEvent::Header(header))) = reader.event() else { panic!("no header") };
        assert_eq!(header.link_type.0, link_type);
        assert_eq!(reader.event().unwrap().is_none(), big);
        assert_eq!(reader.finish(), if big { 18 } else { 0 });
        reader.reset();
    }
}

#[test]
fn a_failure_to_open_is_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let error = |name: &str| Probe::open(&at(name)).unwrap_err().to_string();
    let shown = |name: &str| at(name).display().to_string();
    assert_eq!(error("none"), format!("{}: no such file", shown("none")));
    std::fs::write(at("empty"), "").unwrap();
    assert_eq!(error("empty"), format!("{} is empty", shown("empty")));
    std::fs::write(at("pdf"), "%PDF-1.7").unwrap();
    assert_eq!(error("pdf"), format!("{} is no savefile (starts with 25 50 44 46)", shown("pdf")));
    std::fs::write(at("cut"), [0xd4, 0xc3, 0xb2, 0xa1, 2]).unwrap();
    assert_eq!(
        error("cut"),
        format!("{} is cut short inside its header (5 of 24 bytes)", shown("cut"))
    );
    std::fs::create_dir(at("folder")).unwrap();
    assert_eq!(
        error("folder"),
        format!("{} is not a regular file but a directory", shown("folder"))
    );
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(
        error("pipe"),
        format!("{} is not a regular file but a named pipe", shown("pipe")),
        "and does not wait for a writer"
    );
}
