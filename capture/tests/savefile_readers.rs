//! Readers of savefiles whose packets have several link types: they read mixed chunks, and chunks
//! that have nothing for them.

mod savefile_encoder;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use capture::bell::Bells;
use capture::cursor::snapshot::{Snapshot, SnapshotExtent};
use capture::cursor::{Begin, Cursor, CursorProgress, ReadOutcome, SavefileFormat};
use capture::filter::Filter;
use capture::savefile::{Probe, Savefile, SavefileOptions};
use capture::store::{
    Bounds, Capacity, Chunk, Interface, PinError, Position, SearchTarget, Store, StoreHeader,
};
use proptest::prelude::*;
use savefile_encoder::{File, Item, Order, Packet, Resolution, pcapng};

/// A savefile whose first chunks exist and whose others are added later.
#[derive(Debug)]
struct Growing {
    inner: Savefile,
    chunks: AtomicU64,
}

impl Growing {
    fn next(&self) -> Position {
        let chunks = self.chunks.load(Ordering::Relaxed);
        self.inner.pin(chunks).map_or_else(|_| self.inner.bounds().next, |chunk| chunk.first)
    }
}

impl Store for Growing {
    fn header(&self) -> Option<StoreHeader> {
        self.inner.header()
    }

    fn interface(&self, id: u32) -> Option<Interface> {
        self.inner.interface(id)
    }

    fn interfaces_before(&self, number: u64) -> u32 {
        self.inner.interfaces_before(number)
    }

    fn bounds(&self) -> Bounds {
        let newest_chunk = self.chunks.load(Ordering::Relaxed);
        Bounds { newest_chunk, next: self.next(), ended: false, ..self.inner.bounds() }
    }

    fn pin(&self, chunk: u64) -> Result<Chunk<'_>, PinError> {
        if chunk >= self.chunks.load(Ordering::Relaxed) {
            return Err(PinError::NotYet);
        }
        self.inner.pin(chunk)
    }

    fn find(&self, target: SearchTarget) -> Result<u64, PinError> {
        if target.value() >= target.coordinate(&self.next()) {
            return Err(PinError::NotYet);
        }
        self.inner.find(target)
    }

    fn bells(&self) -> &Bells {
        self.inner.bells()
    }

    fn capacity(&self) -> Capacity {
        self.inner.capacity()
    }
}

/// Consecutive packets of one interface.
#[derive(Clone, Debug)]
struct Run {
    interface: usize,
    count: usize,
    len: usize,
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let len = prop_oneof![0..200_usize, 1_000..70_000_usize, Just(300_000)];
    let run = (0..4_usize, 1..12_usize, len).prop_map(|(interface, count, len)| Run {
        interface,
        count,
        len,
    });
    prop::collection::vec(run, 0..12)
}

const LINK_TYPES: [u16; 4] = [1, 113, 1, 101];

/// Three interfaces before all packets, and a fourth before its own first packet, in either byte
/// order.
fn file(runs: &[Run], first: u16) -> File {
    let interface = |index: usize| Item::Interface {
        link_type: if index == 0 { first } else { LINK_TYPES[index] },
        resolution: Resolution::Decimal(9),
        offset: None,
        name: Some(format!("if{index}")),
    };
    let mut items: Vec<Item> = (0..3).map(interface).collect();
    let mut known = 3;
    for (number, run) in (0..).zip(runs) {
        if run.interface == 3 && known == 3 {
            items.push(interface(3));
            known = 4;
        }
        for nanoseconds in 0..run.count {
            let packet = Packet {
                seconds: number,
                nanoseconds: u32::try_from(nanoseconds).unwrap(),
                more_on_the_wire: number,
                data: vec![number.to_le_bytes()[0]; run.len],
            };
            items.push(Item::Enhanced { interface: run.interface, packet, comment: false });
        }
    }
    pcapng(Order { big: runs.len() % 2 == 1 }, &items)
}

fn indexed(file: &File, filter: Option<&str>) -> Savefile {
    let mut temporary = tempfile::NamedTempFile::new().unwrap();
    temporary.write_all(&file.bytes).unwrap();
    let probe = Probe::open(temporary.path()).unwrap();
    let filter = filter.map(|filter| Filter::compile(filter, probe.link_type()).unwrap());
    let savefile = probe.into_savefile(SavefileOptions { filter, ..SavefileOptions::default() });
    savefile.index(&AtomicBool::new(false));
    assert_eq!(savefile.problem(), None);
    savefile
}

/// A packet as a reader gets it: link type, seconds, nanoseconds, bytes on the wire, data.
type Got = (u16, u32, u32, u32, Vec<u8>);

/// The packets of a file of this format, in order, and the beginning of each, which is the end of
/// the previous one. `leading` interfaces are described before all packets.
fn parse(format: SavefileFormat, leading: u32, bytes: &[u8]) -> (Vec<Got>, Vec<u64>) {
    let u16_at = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap());
    let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let data = |at: usize, len: u32| bytes[at..at + len as usize].to_vec();
    let (mut packets, mut starts, mut at) = (Vec::new(), Vec::new(), 0);
    match format {
        SavefileFormat::Pcap => {
            let link_type = u16_at(20);
            at = 24;
            while at < bytes.len() {
                let len = u32_at(at + 8);
                let (seconds, nanoseconds, wire) = (u32_at(at), u32_at(at + 4), u32_at(at + 12));
                packets.push((link_type, seconds, nanoseconds, wire, data(at + 16, len)));
                starts.push(at as u64);
                at += 16 + len as usize;
            }
        }
        SavefileFormat::Pcapng => {
            let mut interfaces = Vec::new();
            let mut start = None;
            while at < bytes.len() {
                let len = u32_at(at + 4) as usize;
                assert_eq!(u32_at(at + len - 4) as usize, len);
                match u32_at(at) {
                    0x0a0d_0d0a => assert_eq!(at, 0),
                    1 => {
                        interfaces.push(u16_at(at + 8));
                        start = (interfaces.len() > leading as usize).then_some(at);
                    }
                    6 => {
                        let link_type = interfaces[u32_at(at + 8) as usize];
                        let time = u64::from(u32_at(at + 12)) << 32 | u64::from(u32_at(at + 16));
                        let seconds = u32::try_from(time / 1_000_000_000).unwrap();
                        let nanoseconds = u32::try_from(time % 1_000_000_000).unwrap();
                        let (len, wire) = (u32_at(at + 20), u32_at(at + 24));
                        packets.push((link_type, seconds, nanoseconds, wire, data(at + 28, len)));
                        starts.push(start.take().unwrap_or(at) as u64);
                    }
                    other => panic!("block type {other:#x}"),
                }
                at += len;
            }
        }
    }
    assert_eq!(at, bytes.len());
    (packets, starts)
}

/// The packets that a file of this format must have: all, or those of the header's link type.
fn expected(file: &File, format: SavefileFormat, link_type: u16, below: Option<u8>) -> Vec<Got> {
    let ours = file.packets.iter().filter(|packet| {
        below.is_none_or(|below| packet.data.first().is_some_and(|byte| *byte < below))
            && (format == SavefileFormat::Pcapng || packet.link_type == link_type)
    });
    ours.map(|packet| {
        let (seconds, nanoseconds) = packet.time;
        (packet.link_type, seconds, nanoseconds, packet.original_len, packet.data.clone())
    })
    .collect()
}

fn check_sum(progress: CursorProgress, store: &dyn Store) {
    let stored = store.bounds().next.number - 1;
    assert_eq!(progress.delivered + progress.lost + progress.lag, stored, "{progress:?}");
}

/// Reads a stream of a store that grows chunk by chunk, to its end.
fn streamed(savefile: Savefile, format: SavefileFormat, wants: &[usize]) -> (Vec<u8>, Growing) {
    let chunks = savefile.capacity().used;
    let store = Growing { inner: savefile, chunks: AtomicU64::new(0) };
    let mut cursor = Cursor::new(&store, format, Begin::Oldest, false);
    let mut bytes = Vec::new();
    let mut wants = wants.iter().cycle();
    for chunk in 0..=chunks {
        store.chunks.store(chunk, Ordering::Relaxed);
        loop {
            let ready = cursor.is_ready(&store);
            let want = *wants.next().unwrap();
            let mut send = |slices: &[std::io::IoSlice<'_>]| {
                slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
                Ok(())
            };
            let outcome = cursor.read(&store, want, &mut send).unwrap();
            check_sum(cursor.progress(&store), &store);
            assert_eq!(ready, matches!(outcome, ReadOutcome::Sent(_)));
            if outcome == ReadOutcome::Empty {
                break;
            }
        }
        assert_eq!(cursor.progress(&store).lag, 0, "what cannot be had is not waited for");
    }
    let foreign = if format == SavefileFormat::Pcap { store.inner.foreign_packets() } else { 0 };
    assert_eq!(cursor.progress(&store).lost, foreign);
    assert_eq!(cursor.progress(&store).delivered_bytes, bytes.len() as u64);
    (bytes, store)
}

/// Compares reads at random offsets with the file as it was read from front to back.
fn check_seeks(
    store: &Savefile,
    format: SavefileFormat,
    whole: &[u8],
    starts: &[u64],
    reads: &[(prop::sample::Index, usize, bool)],
) {
    let extent = SnapshotExtent::new(store, format);
    assert_eq!(extent.size(store), whole.len() as u64);
    let mut snapshot = Snapshot::new(store, extent);
    let mut offset = 0;
    for (at, want, goes_on) in reads {
        if !goes_on {
            offset = at.index(whole.len() + 100);
        }
        let mut bytes = Vec::new();
        let mut send = |slices: &[std::io::IoSlice<'_>]| {
            slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
            Ok(())
        };
        let outcome = snapshot.read(store, offset as u64, *want, &mut send).unwrap();
        let progress = snapshot.progress(store);
        check_sum(progress, store);
        if outcome == ReadOutcome::End {
            assert!(offset >= whole.len());
            continue;
        }
        assert_eq!(outcome, ReadOutcome::Sent(bytes.len()));
        assert!(!bytes.is_empty() && bytes.len() <= *want);
        assert!(bytes == whole[offset..offset + bytes.len()], "other bytes at {offset}");
        offset += bytes.len();
        let begun = starts.iter().filter(|start| **start < offset as u64).count();
        assert_eq!(progress.delivered, begun as u64, "before {offset}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn readers_get_the_packets_their_format_can_have(
        runs in runs(), first in prop_oneof![Just(1_u16), Just(113)],
        below in prop::option::of(1..12_u8),
        wants in prop::collection::vec(prop_oneof![1..400_usize, 4_096..1_100_000_usize], 1..6),
        reads in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![1..400_usize, 1..900_000_usize], any::<bool>()),
            1..60,
        ),
    ) {
        // Small replies to a large file would take too long.
        let wants = wants.into_iter().chain([1_000_000]).collect::<Vec<_>>();
        let file = file(&runs, first);
        let filter = below.map(|below| format!("link[0] < {below}"));
        for format in [SavefileFormat::Pcap, SavefileFormat::Pcapng] {
            let savefile = indexed(&file, filter.as_deref());
            let link_type = savefile.header().unwrap().link_type.0;
            let (bytes, growing) = streamed(savefile, format, &wants);
            let leading = growing.interfaces_before(1);
            let (packets, starts) = parse(format, leading, &bytes);
            prop_assert!(packets == expected(&file, format, link_type, below));
            check_seeks(&growing.inner, format, &bytes, &starts, &reads);
        }
    }
}

#[test]
fn a_filter_is_compiled_for_every_link_type() {
    let run = |interface| Run { interface, count: 3, len: 60 };
    // The packets are IPv4 only by accident. The test checks what the expression means in each
    // link type.
    let file = file(&[run(0), run(1), run(3)], 1);
    let store = indexed(&file, Some("greater 1"));
    assert_eq!(store.bounds().next.number, 10);
    assert_eq!(store.foreign_packets(), 6);
    let note = "6 packets are of another link type than EN10MB and in .pcapng files only";
    assert_eq!(store.note().as_deref(), Some(note));
    let store = indexed(&file, Some("ether broadcast"));
    assert_eq!((store.bounds().next.number, store.foreign_packets()), (1, 0));
    let note = "6 packets are left out, of a link type the filter does not compile for";
    assert_eq!(store.note().as_deref(), Some(note));
}
