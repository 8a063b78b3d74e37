//! What the fuzz targets do with a run of bytes. `tests/corpus.rs` does the same on a stable
//! toolchain with every file of the corpus, so that what was found once stays found.

#![allow(dead_code, reason = "each target uses one")]

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use capture::linktype::LinkType;
use capture::record::Records;
use capture::savefile::stream::{Event, Reader};
use capture::savefile::{Malformed, Options, Probe, Savefile, pcapng_writer};
use capture::store::{PinError, Store, Target};
use capture::time::{Precision, Timestamp};

/// What came out of a stream.
#[derive(Debug, Default, PartialEq)]
struct Streamed {
    link_type: Option<LinkType>,
    packets: Vec<Packet>,
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

/// A pcap stream: the first byte is the length of a read, and of which kind the file is.
pub(crate) fn pcap_stream(data: &[u8]) {
    const MAGICS: [[u8; 4]; 4] = [
        [0xa1, 0xb2, 0xc3, 0xd4],
        [0xd4, 0xc3, 0xb2, 0xa1],
        [0xa1, 0xb2, 0x3c, 0x4d],
        [0x4d, 0x3c, 0xb2, 0xa1],
    ];
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

/// A file, mapped; the first byte says what is to be left out.
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
    assert!(native.eq(&streamed.packets));
    assert_eq!(whole.foreign_packets(), streamed.foreign);
    let problem = whole.problem().unwrap_or_default();
    match &streamed.malformed {
        Some(malformed) => assert_eq!(problem, malformed.to_string()),
        None => assert_eq!(problem.is_empty(), streamed.left == 0, "{problem}"),
    }

    let Some(part) = mapped(file.path(), *first) else { panic!("opened a moment ago") };
    let snaplen = usize::from(*first);
    let expected = packets.into_iter().map(|mut packet| {
        packet.data.truncate(if snaplen == 0 { usize::MAX } else { snaplen });
        packet
    });
    assert_eq!(check_store(&part), expected.collect::<Vec<_>>());
}

/// However a stream is cut into reads, the same comes out of it.
fn in_pieces(piece: u8, bytes: &[u8]) {
    assert_eq!(stream(bytes, usize::from(piece).max(1)), stream(bytes, usize::MAX));
}

fn stream(bytes: &[u8], piece: usize) -> Streamed {
    let mut reader = Reader::new();
    let mut streamed = Streamed::default();
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
                Ok(Some(Event::Header(header))) => {
                    assert!(streamed.link_type.replace(header.link_type).is_none());
                    precision = header.precision;
                }
                Ok(Some(Event::Foreign { link_type })) => {
                    assert_ne!(Some(link_type), streamed.link_type);
                    streamed.foreign += 1;
                }
                Ok(Some(Event::Packet(packet))) => {
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
    let options = Options { filter: None, snaplen: Some(u32::from(snaplen)) };
    let savefile = Probe::open(path).ok()?.into_savefile(options);
    savefile.index(&AtomicBool::new(false));
    Some(savefile)
}

/// Everything in a store, after a look at whether its parts agree.
fn check_store(store: &Savefile) -> Vec<Packet> {
    let header = store.header().expect("known from the start");
    let (mut packets, mut pcap, mut foreign) = (Vec::new(), 0, 0);
    let mut pcapng = Vec::new();
    let mut described = store.leading_interfaces();
    for id in 0.. {
        let chunk = match store.pin(id) {
            Ok(chunk) => chunk,
            Err(PinError::NotYet) => break,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(chunk.first.number, packets.len() as u64 + 1);
        assert_eq!((chunk.first.pcap, chunk.first.pcapng), (pcap, pcapng.len() as u64));
        assert_eq!(store.find(Target::Number(chunk.first.number)), Ok(id));
        assert_eq!(store.find(Target::Pcap(chunk.first.pcap)), Ok(id));
        assert_eq!(store.find(Target::Pcapng(chunk.first.pcapng)), Ok(id));
        assert_eq!(chunk.foreign, foreign);
        pcap += chunk.pcap_bytes().len() as u64;
        let mut selected = Records::new(chunk.pcap_bytes());
        let mut records = Records::new(chunk.bytes());
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
            let packet = pcapng_writer::Packet { interface, time, original_len, data };
            pcapng_writer::enhanced_packet(&mut pcapng, &packet, header.precision, None);
            packets.push(Packet {
                link_type,
                // As time stamps, because a fraction of a second or more carries over in one.
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
