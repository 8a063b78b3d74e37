//! The bodies of the fuzz targets. `tests/corpus.rs` runs them on a stable toolchain with every
//! file of the corpus, so that a mended fault does not come back unnoticed.

#![allow(dead_code, reason = "each target uses one")]

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use capture::record::PacketRecords;
use capture::savefile::stream::{StreamEvent, StreamReader};
use capture::savefile::{Malformed, Probe, Savefile, SavefileOptions, pcapng_writer};
use capture::store::{PinError, SearchTarget, Store};
use protocol::decode::{self, DecodeOutcome, DecodedPacket, Decoder, Overlap, Reason};
use protocol::dns::{self, DnsRecord, Framer, MAX_LINE, Pairing, RawMessage};
use protocol::extent::Extent;
use protocol::flow_context::FlowContext;
use protocol::http::body::{self, BodyPiece, Streams};
use protocol::http::direction::MessageRole;
use protocol::http::har::{self, Server};
use protocol::http::parser::{HttpParser, ParserEvent, ParserLimits, StreamEnd};
use protocol::http::transaction::HttpTransaction;
use protocol::http::{names, probe, transcript};
use protocol::linktype::LinkType;
use protocol::tcp::assembler::AssemblerLimits;
use protocol::tcp::seq::Sequence;
use protocol::tcp::{
    Bytes, Connection, ConnectionEvent as TcpEvent, ConnectionSettings, Direction, Policy, Ports,
    Scale, Segment, SegmentFlags, SegmentVerdict,
};
use protocol::time::{Precision, Timestamp};
use protocol::tls;

/// The output of reading a stream.
#[derive(Debug, Default, PartialEq)]
struct BodyStreams {
    link_type: Option<LinkType>,
    packets: Vec<Packet>,
    /// Number of packets before the header of a second writer.
    first: Option<usize>,
    foreign: u64,
    left: u64,
    malformed: Option<Malformed>,
}

#[derive(Clone, Debug, PartialEq)]
struct Packet {
    link_type: LinkType,
    seconds: u32,
    fraction: u32,
    original_len: u32,
    data: Vec<u8>,
}

/// The magic numbers of pcap files.
const MAGICS: [[u8; 4]; 4] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
];

/// A pcap stream. The first byte is the length of a read, and selects the kind of file.
pub(crate) fn pcap_stream(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let magic = MAGICS[usize::from(*first) % MAGICS.len()];
    in_pieces(*first, &[&magic[..], rest].concat());
}

/// A pcapng stream: the first byte is the length of a read.
pub(crate) fn pcapng_stream(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    in_pieces(*first, &[&[0x0a, 0x0d, 0x0d, 0x0a], rest].concat());
}

/// A mapped file. The first byte is the snapshot length of a second reading.
pub(crate) fn savefile(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(rest).expect("room in the temporary folder");
    let streamed = stream(rest, usize::MAX);

    let Some(whole) = mapped(file.path(), 0) else {
        assert!(streamed.packets.is_empty(), "a stream gives what a file does not");
        return;
    };
    let packets = check_store(&whole);
    let link_type = whole.header().expect("known from the start").link_type;
    let native = packets.iter().filter(|packet| packet.link_type == link_type);
    // In a stream this is the beginning of another writer's file, even if it ends there. In a file,
    // those bytes are ordinary data.
    let left = usize::try_from(streamed.left).expect("no more than there was");
    // Or it ends with an error there.
    let fault = streamed.malformed.as_ref().and_then(|one| usize::try_from(one.offset).ok());
    let tail = &rest[fault.unwrap_or(rest.len() - left).min(rest.len())..];
    let begins = MAGICS.iter().any(|magic| tail.starts_with(magic));
    let second = begins.then_some(streamed.packets.len());
    if let Some(first) = streamed.first.or(second) {
        assert!(native.take(first).eq(&streamed.packets[..first]));
    } else {
        assert!(native.eq(&streamed.packets));
        assert_eq!(whole.foreign_packets(), streamed.foreign);
        let problem = whole.problem().unwrap_or_default();
        match &streamed.malformed {
            Some(malformed) => assert_eq!(problem, malformed.to_string()),
            None => assert_eq!(problem.is_empty(), streamed.left == 0, "{problem}"),
        }
    }

    let Some(part) = mapped(file.path(), *first) else { panic!("opened a moment ago") };
    let snaplen = usize::from(*first);
    let expected = packets.into_iter().map(|mut packet| {
        packet.data.truncate(if snaplen == 0 { usize::MAX } else { snaplen });
        packet
    });
    assert_eq!(check_store(&part), expected.collect::<Vec<_>>());
}

/// A connection as a list of operations: a byte for the kind, a byte for the length, then the
/// bytes.
pub(crate) fn http(data: &[u8]) {
    let Some((first, operations)) = data.split_first() else {
        return;
    };
    let limits = http_limits(*first);
    let size = usize::from(first >> 1).max(1);
    let (whole, streams) = same_in_pieces(operations, limits, [size]);
    for one in &whole {
        check_transaction(one, &streams);
    }
}

/// The same connection, with its bytes cut in every way.
#[allow(dead_code, reason = "for a test of all cuts, which a fuzzer has no time for")]
pub(crate) fn http_cuts(data: &[u8]) {
    if let Some((first, operations)) = data.split_first() {
        same_in_pieces(operations, http_limits(*first), 1..=255);
    }
}

/// Checks that the output for whole parts and for pieces of these sizes is equal. Returns that
/// output.
fn same_in_pieces(
    operations: &[u8],
    limits: ParserLimits,
    sizes: impl IntoIterator<Item = usize>,
) -> (Vec<HttpTransaction>, TwoStreams) {
    let whole = connection(operations, limits, usize::MAX);
    for size in sizes {
        let (pieces, _) = connection(operations, limits, size);
        assert_eq!(whole.0, pieces, "in pieces of {size}");
    }
    whole
}

/// Small limits, or the default ones.
fn http_limits(first: u8) -> ParserLimits {
    let small = ParserLimits {
        head_bytes: 300,
        headers: 8,
        pending: 4,
        pending_bytes: 600,
        chunk_line: 40,
        body_ranges: 6,
        pending_ranges: 10,
        codings: 3,
        junk_line: 40,
    };
    if first & 1 == 0 { small } else { ParserLimits::default() }
}

/// A compressed body: the first byte names the coding.
pub(crate) fn http_body(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let all = ["gzip", "deflate", "br", "zstd"];
    let codings: Vec<_> =
        all.iter().skip(usize::from(first & 3)).take(1 + usize::from(first >> 7)).collect();
    let codings: Vec<_> = codings.into_iter().map(|&name| name.to_owned()).collect();
    let limits = body::DecodingLimits {
        output: 10_000,
        ratio_from: 5_000,
        ..body::DecodingLimits::default()
    };
    let decoded = body::decode([BodyPiece::Bytes(rest)], &codings, first & 4 != 0, &limits);
    assert!(decoded.bytes.len() <= rest.len().max(10_000));
    if decoded.undone.is_empty() {
        assert_eq!(decoded.bytes, rest);
    }
}

/// The beginning of a stream. The first byte is the number of bytes that come at a time.
pub(crate) fn tls(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    let whole = tls::hello(stream);
    // Enough pieces to find undecided prefixes, and few enough for streams of some length.
    let piece = usize::from(*first).max(stream.len() / 64).max(1);
    for cut in (0..stream.len()).step_by(piece) {
        let part = tls::hello(&stream[..cut]);
        assert!(part == tls::HelloOutcome::NotYet || part == whole, "{part:?}, then {whole:?}");
    }
    let names = match whole {
        tls::HelloOutcome::Client(hello) => {
            hello.server_name.into_iter().chain(hello.alpn).collect()
        }
        tls::HelloOutcome::Server(hello) => hello.alpn.into_iter().collect(),
        tls::HelloOutcome::NotYet => {
            assert!(stream.len() < tls::ENOUGH);
            Vec::new()
        }
        tls::HelloOutcome::No => Vec::new(),
    };
    assert!(names.len() <= 33);
    for name in names {
        assert!(!name.is_empty() && name.len() <= 255 && !name.contains(char::is_control));
    }
}

/// A flow of DNS. After the port of its server come operations, each with an argument and a length:
/// a datagram, a piece of a stream or a gap in it in either direction, or time that passes.
pub(crate) fn dns(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let ports = [40_000, [53, 5353, 5355, 9999][usize::from(*first) % 4]];
    let ends = ports.map(|port| ([192, 0, 2, 1], port).into());
    let mut pairing = Pairing::new(ends);
    let mut framers = [Framer::new(), Framer::joined()];
    let (mut seconds, mut lines, mut pieces, mut found) = (0, 0, 0, 0);
    while let [operation, argument, len, after @ ..] = rest {
        let (bytes, after) = after.split_at(usize::from(*len).min(after.len()));
        rest = after;
        let side = usize::from(operation & 1);
        let direction = [Direction::Forward, Direction::Backward][side];
        let now = Timestamp::from_nanoseconds(seconds * 1_000_000_000);
        let more = usize::from(*argument);
        let mut each = |message: RawMessage<'_>| {
            found += 2 + message.bytes.len() as u64;
            pairing.push(direction, message);
        };
        match operation % 8 / 2 {
            0 => {
                let _ = dns::probe::datagram(bytes, bytes.len() + more, ports);
                let message = RawMessage::datagram(bytes, bytes.len() + more, now);
                pairing.push(direction, message);
            }
            1 => {
                let _ = dns::probe::stream(bytes, ports);
                pieces += bytes.len() as u64;
                framers[side].data(now, bytes, &mut each);
            }
            2 => framers[side].gap(u64::from(*argument), &mut each),
            _ => {
                seconds += u64::from(*argument);
                pairing.poll(now);
            }
        }
        lines += dns_lines(&mut pairing, ends);
    }
    for (framer, direction) in framers.iter_mut().zip([Direction::Forward, Direction::Backward]) {
        framer.close(&mut |message: RawMessage<'_>| {
            found += 2 + message.bytes.len() as u64;
            pairing.push(direction, message);
        });
        found += framer.skipped();
    }
    pairing.close();
    lines += dns_lines(&mut pairing, ends);
    // Every byte is in a message or counted, and every transaction has a line.
    assert_eq!(found, pieces);
    assert_eq!((lines, pairing.under_way()), (pairing.counts().transactions, 0));
}

/// Fetches the transactions that have ended, and checks their lines.
fn dns_lines(pairing: &mut Pairing, ends: [SocketAddr; 2]) -> u64 {
    let mut lines = 0;
    while let Some(transaction) = pairing.finished() {
        let context = FlowContext::new("c", 1, ends, transaction.asked);
        let line = protocol::json::line(&DnsRecord::new(&context, &transaction));
        assert!(line.len() <= MAX_LINE, "{}", String::from_utf8_lossy(&line));
        lines += 1;
    }
    lines
}

#[derive(Debug, Default)]
struct TwoStreams([Vec<u8>; 2]);

impl Streams for TwoStreams {
    fn read(
        &self,
        direction: MessageRole,
        range: std::ops::Range<u64>,
        sink: &mut dyn FnMut(BodyPiece<'_>),
    ) {
        let place = |offset| usize::try_from(offset).expect("an offset in memory");
        let range = place(range.start)..place(range.end);
        sink(BodyPiece::Bytes(&self.0[direction as usize][range]));
    }
}

fn connection(
    mut data: &[u8],
    limits: ParserLimits,
    piece: usize,
) -> (Vec<HttpTransaction>, TwoStreams) {
    let mut parser = HttpParser::new(limits);
    let mut streams = TwoStreams::default();
    let mut time = 0;
    while let [operation, length, rest @ ..] = data {
        time += 1;
        let now = Timestamp::from_nanoseconds(time);
        let direction =
            if operation & 1 == 0 { MessageRole::Request } else { MessageRole::Response };
        let stream = &mut streams.0[direction as usize];
        let start = stream.len() as u64;
        match operation >> 1 & 15 {
            0 => {
                stream.resize(stream.len() + usize::from(*length), 0);
                parser.gap(direction, start, stream.len() as u64);
                data = rest;
            }
            1 => {
                let how =
                    [StreamEnd::Fin, StreamEnd::Reset, StreamEnd::Timeout, StreamEnd::Evicted];
                parser.end(direction, how[usize::from(length & 3)]);
                data = rest;
            }
            2 => {
                parser.acknowledged(u64::from(*length));
                data = rest;
            }
            _ => {
                let (bytes, after) = rest.split_at(usize::from(*length).min(rest.len()));
                stream.extend_from_slice(bytes);
                let mut at = start;
                for part in bytes.chunks(piece) {
                    parser.feed(direction, at, part, now);
                    at += part.len() as u64;
                }
                data = after;
            }
        }
        for direction in [MessageRole::Request, MessageRole::Response] {
            let _ = probe::probe(direction, &streams.0[direction as usize]);
        }
        if limits.head_bytes < 1000 {
            assert!(parser.memory() < 50_000, "{} bytes", parser.memory());
        }
    }
    parser.end(MessageRole::Response, StreamEnd::Fin);
    parser.end(MessageRole::Request, StreamEnd::Fin);
    assert_eq!(parser.pending(), 0);
    let mut found = Vec::new();
    while let Some(event) = parser.event() {
        match event {
            ParserEvent::Transaction(one) => found.push(*one),
            ParserEvent::Switched { request, response } => {
                assert!(request <= streams.0[0].len() as u64);
                assert!(response <= streams.0[1].len() as u64);
            }
        }
    }
    (found, streams)
}

fn check_transaction(one: &HttpTransaction, streams: &TwoStreams) {
    assert!(one.request.is_some() || one.response.is_some());
    for direction in [MessageRole::Request, MessageRole::Response] {
        let Some(message) = one.message(direction) else { continue };
        let mut at = message.head_range.end;
        assert!(message.head_range.start <= at);
        for range in &message.body.ranges {
            assert!(at <= range.start && range.start < range.end);
            at = range.end;
        }
        assert!(at <= streams.0[direction as usize].len() as u64);
        for hole in &message.body.holes {
            let inside =
                |range: &std::ops::Range<u64>| range.start <= hole.start && hole.end <= range.end;
            assert!(message.body.ranges.iter().any(inside));
        }
        let name = names::body_file(one, direction);
        assert!(name.len() <= names::MAX && !name.contains('/') && !name.contains(".."));
    }
    let limits = body::DecodingLimits {
        output: 10_000,
        ratio_from: 5_000,
        ..body::DecodingLimits::default()
    };
    let _ = transcript::transcript(one, streams, &limits);
    let _ = har::entry(one, &Server::default(), streams, &limits);
}

/// Checks that the output of a stream does not depend on how it is cut into reads.
fn in_pieces(piece: u8, bytes: &[u8]) {
    assert_eq!(stream(bytes, usize::from(piece).max(1)), stream(bytes, usize::MAX));
}

fn stream(bytes: &[u8], piece: usize) -> BodyStreams {
    let mut reader = StreamReader::new();
    let mut streamed = BodyStreams::default();
    let mut precision = Precision::Nano;
    let mut rest = bytes;
    while !rest.is_empty() && streamed.malformed.is_none() {
        let space = reader.space();
        assert!(!space.is_empty() && space.len() <= 32 << 20);
        let (now, later) = rest.split_at(piece.min(rest.len()).min(space.len()));
        space[..now.len()].copy_from_slice(now);
        reader.filled(now.len());
        rest = later;
        loop {
            match reader.event() {
                Ok(Some(StreamEvent::Header(header))) => {
                    // Instead of a record, this is the header of the next writer's file.
                    if streamed.link_type.replace(header.link_type).is_some() {
                        streamed.first.get_or_insert(streamed.packets.len());
                    }
                    precision = header.precision;
                }
                Ok(Some(StreamEvent::Foreign { link_type })) => {
                    assert_ne!(Some(link_type), streamed.link_type);
                    streamed.foreign += 1;
                }
                Ok(Some(StreamEvent::Packet(packet))) => {
                    let link_type = streamed.link_type.expect("the header comes first");
                    let (seconds, fraction) = packet.time.to_parts(precision);
                    let original_len = packet.original_len;
                    let data = packet.data.to_vec();
                    streamed.packets.push(Packet {
                        link_type,
                        seconds,
                        fraction,
                        original_len,
                        data,
                    });
                }
                Ok(Some(StreamEvent::Section(beside) | StreamEvent::Kept(beside))) => {
                    assert!(beside.len().is_multiple_of(4), "as options and blocks are");
                }
                Ok(Some(StreamEvent::Interface(_) | StreamEvent::LeftOut)) => {}
                Ok(None) => break,
                Err(malformed) => {
                    streamed.malformed = Some(malformed);
                    break;
                }
            }
        }
    }
    if streamed.malformed.is_none() {
        streamed.left = reader.finish();
    }
    streamed
}

fn mapped(path: &Path, snaplen: u8) -> Option<Savefile> {
    let options =
        SavefileOptions { snaplen: Some(u32::from(snaplen)), ..SavefileOptions::default() };
    let savefile = Probe::open(path).ok()?.into_savefile(options);
    savefile.index(&AtomicBool::new(false));
    Some(savefile)
}

/// All packets of a store, after a check that its parts agree.
fn check_store(store: &Savefile) -> Vec<Packet> {
    let header = store.header().expect("known from the start");
    let (mut packets, mut pcap, mut foreign) = (Vec::new(), 0, 0);
    let mut pcapng = Vec::new();
    let mut described = store.interfaces_before(1);
    for id in 0.. {
        let chunk = match store.pin(id) {
            Ok(chunk) => chunk,
            Err(PinError::NotYet) => break,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(chunk.first.number, packets.len() as u64 + 1);
        assert_eq!((chunk.first.pcap, chunk.first.pcapng), (pcap, pcapng.len() as u64));
        assert_eq!(store.find(SearchTarget::Number(chunk.first.number)), Ok(id));
        assert_eq!(store.find(SearchTarget::Pcap(chunk.first.pcap)), Ok(id));
        assert_eq!(store.find(SearchTarget::Pcapng(chunk.first.pcapng)), Ok(id));
        assert_eq!(chunk.foreign, foreign);
        pcap += chunk.pcap_bytes().len() as u64;
        let mut selected = PacketRecords::new(chunk.pcap_bytes());
        let mut records = PacketRecords::new(chunk.bytes());
        for (index, record) in records.by_ref().enumerate() {
            let (interface, known) =
                chunk.interface(index).map_or((0, 1), |one| (one.id, one.known));
            assert!(interface < known);
            while described < known {
                let interface = store.interface(described).expect("known before its packet");
                pcapng_writer::interface_description(&mut pcapng, &interface, &header);
                described += 1;
            }
            let link_type = store.interface(interface).and_then(|interface| interface.link_type);
            let link_type = link_type.unwrap_or(header.link_type);
            if link_type == header.link_type {
                assert_eq!(selected.next(), Some(record));
            } else {
                foreign += 1;
            }
            let (time, original_len, data) =
                (Timestamp::default(), record.original_len, record.data);
            let packet = pcapng_writer::PacketBlockContent { interface, time, original_len, data };
            let note = chunk.note(index);
            pcapng.extend_from_slice(note.blocks);
            let (precision, options) = (header.precision, note.options);
            pcapng_writer::enhanced_packet(&mut pcapng, &packet, precision, options, None);
            packets.push(Packet {
                link_type,
                // As time stamps, because a fraction of a second or more carries over into the
                // seconds.
                seconds: record.time(header.precision).to_parts(header.precision).0,
                fraction: record.time(header.precision).to_parts(header.precision).1,
                original_len,
                data: data.to_vec(),
            });
        }
        assert!(records.rest().is_empty() && selected.rest().is_empty());
    }
    let bounds = store.bounds();
    assert!(bounds.ended);
    assert_eq!(store.foreign_packets(), foreign);
    assert_eq!(bounds.next.number, packets.len() as u64 + 1);
    assert_eq!((bounds.next.pcap, bounds.next.pcapng), (pcap, pcapng.len() as u64));
    packets
}

/// Every byte is the low byte of its offset, and every third packet is gone.
struct Pattern(Vec<u8>);

impl Bytes for Pattern {
    fn get(&self, extent: Extent) -> Option<&[u8]> {
        let start = extent.offset as usize;
        (!extent.packet.is_multiple_of(3)).then(|| &self.0[start..start + extent.len as usize])
    }
}

/// A connection. The first byte selects the settings, and every ten bytes after it are a segment.
#[allow(clippy::cast_possible_truncation, reason = "the low byte is wanted; times are short")]
pub(crate) fn tcp(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let bound = usize::from(first >> 4) + 1;
    let is_bounded = first & 2 == 0;
    let settings = ConnectionSettings {
        policy: if first & 1 == 0 { Policy::First } else { Policy::Last },
        limits: AssemblerLimits {
            pending: bound * 2,
            holes: bound,
            extents: if is_bounded { bound * 8 } else { 65_536 },
            gaps: if is_bounded { bound } else { 65_536 },
        },
        ..ConnectionSettings::default()
    };
    let pattern = Pattern((0..2_000_u32).map(|at| at as u8).collect());
    let fresh = || Connection::new(Ports { forward: 5_000, backward: u16::from(*first) });
    let (mut connection, mut events) = (fresh(), Vec::new());
    let mut now = 0;
    let mut ends = [0, 0];
    for (index, bytes) in rest.chunks_exact(10).enumerate() {
        let &[kind, how, high, low, ack_high, ack_low, len, cut, window, sleep] = bytes else {
            unreachable!("chunks of ten");
        };
        // Mostly small numbers, so that segments meet; high bits on request.
        let number = |high: u8, low: u8| {
            let far = if how & 4 > 0 { u32::from(high) << 24 } else { u32::from(high & 3) << 8 };
            Sequence((far | u32::from(low)).wrapping_sub(64))
        };
        let len = u32::from(len) * if how & 8 > 0 { 5 } else { 1 };
        let packet = index as u64 + 1;
        let whole = Extent { packet, offset: u32::from(high), len };
        let payload = [whole.part(0, cut.into()), whole.part(cut.into(), u64::MAX)];
        now += 1 + u64::from(sleep).pow(5);
        let segment = Segment {
            time: Timestamp::from_nanoseconds(now),
            packet,
            direction: if kind & 1 == 0 { Direction::Forward } else { Direction::Backward },
            sequence: number(high, low),
            acknowledgment: (kind & 2 == 0).then(|| number(ack_high, ack_low)),
            flags: SegmentFlags {
                syn: kind & 0x1c == 0x04,
                fin: kind & 0x1c == 0x08,
                rst: kind & 0x1c == 0x0c,
            },
            window: u16::from(window / 4),
            scale: [Scale::Unknown, Scale::Absent, Scale::By(window), Scale::By(0)]
                [usize::from(window & 3)],
            payload: &payload[..if how & 16 > 0 { 1 } else { 2 }],
            wire_len: len,
            is_padded: kind & 0xe0 == 0x80,
            urgent: (kind & 0x60 == 0x60).then_some(cut.into()),
        };
        let verdict = connection.process(&segment, &settings, &pattern, &mut events);
        if verdict == SegmentVerdict::NewConnection {
            connection.close(&settings, &pattern, &mut events);
            check_every_byte(&connection, is_bounded);
            check_tcp(&connection, &mut events, &mut ends, &settings);
            (connection, ends) = (fresh(), [0, 0]);
            let verdict = connection.process(&segment, &settings, &pattern, &mut events);
            assert_eq!(verdict, SegmentVerdict::Taken);
        }
        if how & 0xe0 == 0xe0 {
            connection.expire(packet / 2);
        }
        check_tcp(&connection, &mut events, &mut ends, &settings);
    }
    if let Some(deadline) = connection.deadline(&settings) {
        let late = deadline.nanoseconds() + Duration::from_secs(3).as_nanos() as u64;
        let late = Timestamp::from_nanoseconds(late);
        connection.poll(late, &settings, &pattern, &mut events);
        let next = connection.deadline(&settings);
        assert!(next.is_none_or(|next| next > deadline), "time passes and nothing happens");
    }
    connection.close(&settings, &pattern, &mut events);
    check_every_byte(&connection, is_bounded);
    check_tcp(&connection, &mut events, &mut ends, &settings);
    for direction in [Direction::Forward, Direction::Backward] {
        assert!(!connection.assembler(direction).is_waiting());
    }
}

/// Each captured byte of a closed connection is in its stream, or counted with the reason why not.
fn check_every_byte(connection: &Connection, forgets_gaps: bool) {
    for direction in [Direction::Forward, Direction::Backward] {
        let (stream, counters) = (connection.assembler(direction), connection.counters(direction));
        let unplaced = counters.repeated_bytes
            + counters.late_bytes
            + counters.rejected_bytes
            + connection.urgent_bytes(direction);
        let placed = stream.end() - stream.missing_bytes();
        if forgets_gaps {
            // Missing bytes that the assembler has forgotten look like expired ones.
            assert!(counters.captured_bytes <= placed + unplaced, "{counters:?}");
        } else {
            assert_eq!(counters.captured_bytes, placed + unplaced, "{counters:?}");
        }
    }
}

/// Events follow each other, limits hold, and the stream is complete.
fn check_tcp(
    connection: &Connection,
    events: &mut Vec<TcpEvent>,
    ends: &mut [u64; 2],
    settings: &ConnectionSettings,
) {
    for event in events.drain(..) {
        if let TcpEvent::Data { direction, range } | TcpEvent::Gap { direction, range } = event {
            let end = &mut ends[usize::from(direction == Direction::Backward)];
            assert_eq!(range.start, *end);
            assert!(range.end > range.start);
            *end = range.end;
        }
    }
    for (direction, end) in [Direction::Forward, Direction::Backward].into_iter().zip(ends) {
        let stream = connection.assembler(direction);
        assert_eq!(stream.end(), *end);
        assert!(stream.pending() <= settings.limits.pending);
        assert!(stream.holes_waiting() <= settings.limits.holes);
        assert!(stream.extents() <= settings.limits.extents);
        assert!(stream.gaps() <= settings.limits.gaps);
        let mut at = 0;
        for chunk in stream.chunks(0..u64::MAX) {
            assert_eq!(chunk.range.start, at);
            at = chunk.range.end;
        }
        assert_eq!(at, *end);
        let absent = stream.chunks(0..u64::MAX).filter(|chunk| chunk.content.is_err());
        let absent: u64 = absent.map(|chunk| chunk.range.end - chunk.range.start).sum();
        let holes: u64 = stream.holes().iter().map(|(range, _)| range.end - range.start).sum();
        assert_eq!(absent, holes);
    }
}

fn check_payload(decoded: &DecodedPacket<'_>, packets: &[&[u8]]) {
    let payload = decoded.payload;
    let (mut end, mut captured) = (0, 0);
    for part in payload.parts() {
        assert!(part.extent.len > 0 && part.at >= end);
        let packet = packets[usize::try_from(part.extent.packet).expect("small")];
        assert!(packet.get(part.extent.range()).is_some());
        end = part.at + part.extent.len;
        captured += part.extent.len;
    }
    assert!(end <= payload.len());
    assert_eq!(captured, payload.captured());
    assert_eq!(payload.captured() + payload.missing(), payload.len());
    let portion = decoded.portion;
    assert!(portion.is_none_or(|whole| whole.len.checked_sub(whole.at) >= Some(payload.len())));
}

/// A sequence of packets, each after four bytes: its link type, the number of further bytes on the
/// wire, and its length. The first byte selects the options.
pub(crate) fn decode(data: &[u8]) {
    const LINK_TYPES: [u16; 16] =
        [1, 101, 113, 276, 0, 108, 239, 9, 50, 51, 104, 166, 204, 228, 229, 147];
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let options = decode::DecodeOptions {
        tunnels: first & 1 == 0,
        early: first & 4 != 0,
        overlap: if first & 2 == 0 { Overlap::First } else { Overlap::Last },
        max_datagrams: 8,
        max_fragments: 16,
        max_fragment_bytes: 8 << 10,
        ..decode::DecodeOptions::default()
    };
    let mut decoder = Decoder::new(options);
    let mut packets: Vec<&[u8]> = Vec::new();
    while let Some(([kind, more, len @ ..], behind)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(behind.len());
        let (packet, behind) = behind.split_at(len);
        rest = behind;
        packets.push(packet);
        let number = packets.len() as u64 - 1;
        let link_type = LinkType(LINK_TYPES[usize::from(*kind) % LINK_TYPES.len()]);
        let original_len = u32::try_from(len).expect("16 bits") + u32::from(*more);
        let time = Timestamp::from_nanoseconds(number << 32);
        if let DecodeOutcome::Decoded(decoded) =
            decoder.packet(link_type, number, time, original_len, packet)
        {
            check_payload(&decoded, &packets);
        }
        while let Some((_, decoded)) = decoder.given_up() {
            check_payload(&decoded, &packets);
        }
        assert!(decoder.fragment_bytes() <= 8 << 10);
    }
    let counters = decoder.counters();
    let undecoded: u64 = Reason::ALL.into_iter().map(|reason| counters.undecoded(reason)).sum();
    assert_eq!(counters.packets, packets.len() as u64);
    assert_eq!(counters.packets, counters.decoded + counters.fragments + undecoded);
    assert!(counters.reassembly.pending <= 8);
}
