//! Captures of other projects. Every packet is in a flow or counted with a reason. A capture gives
//! the same flows whether it is read as a savefile or arrives as a stream.

#[allow(dead_code, reason = "the tests of the engine use the rest")]
#[path = "flow_engine/scene.rs"]
mod scene;
mod testdata;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use capture::flow::{Application, File, FlowCounters, Flows};
use capture::ring::{self, Append, MIN_RING, OpenedRing, Ring};
use capture::savefile::stream::StreamEvent;
use capture::savefile::{self, Savefile};
use capture::store::{Interface, Store};
use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};
use serde_json::Value;

use scene::{CAPTURE, free, ids, wait_until, whole};
use testdata::{captures, folders, stream};

/// All captures. If none exist here, prints that.
fn all() -> Vec<PathBuf> {
    let folders = folders(&["testdata", "faults"]);
    let found: Vec<_> = folders.iter().flat_map(|folder| captures(folder)).collect();
    if found.is_empty() {
        eprintln!("skipped: no captures of other projects");
    }
    found
}

/// The files of a flow.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    meta: Value,
    streams: [Option<Vec<u8>>; 2],
    http: Option<Vec<u8>>,
}

fn file(flows: &Flows, id: u64, file: File) -> Option<Vec<u8>> {
    let stat = flows.stat(id, file)?;
    Some(whole(&mut flows.open(id, file, stat.beginning).ok()?))
}

fn told(flows: &Flows) -> Vec<Told> {
    let one = |id| {
        let meta = serde_json::from_slice(&file(flows, id, File::Meta)?).unwrap();
        let streams = [File::Client, File::Server].map(|side| file(flows, id, side));
        Some(Told { meta, streams, http: file(flows, id, File::Lines(Application::Http)) })
    };
    ids(flows).into_iter().filter_map(one).collect()
}

/// The result of reading a capture.
struct Heard {
    stored: u64,
    counters: FlowCounters,
    told: Vec<Told>,
}

impl Heard {
    fn of(store: Arc<dyn Store>) -> Self {
        let flows = Flows::start(CAPTURE, Arc::clone(&store), free()).unwrap();
        wait_until("the flows are there", || flows.is_caught_up());
        let stored = store.bounds().next.number - 1;
        Self { stored, counters: flows.counters(), told: told(&flows) }
    }

    /// Checks that every packet is in a flow or counted, that every byte is in its stream or
    /// counted, and that every listed gap counts.
    fn check(&self, path: &Path) {
        let (counters, path) = (&self.counters, path.display());
        let (mut packets, mut ranges) = (counters.undecodable, 0);
        for Told { meta, streams, .. } in &self.told {
            for (side, stream) in ["client", "server"].into_iter().zip(streams) {
                let (side, len) = (&meta[side], stream.as_ref().map_or(0, Vec::len) as u64);
                let of = |name: &str| side[name].as_u64().unwrap();
                packets += of("packets");
                let len_of = |gap: &Value| gap[1].as_u64().unwrap() - gap[0].as_u64().unwrap();
                let gaps = side["gaps"].as_array().unwrap();
                ranges += gaps.len() as u64;
                let gaps: u64 = gaps.iter().map(len_of).sum();
                assert_eq!(len, of("stream_bytes"), "{path}: {meta}");
                let counted = ["repeated_bytes", "late_bytes", "rejected_bytes", "urgent_bytes"];
                let counted: u64 = counted.map(of).iter().sum();
                assert_eq!(len - gaps + counted, of("captured_bytes"), "{path}: {meta}");
            }
        }
        assert_eq!((packets, counters.dropped), (self.stored, 0), "{path}: {counters:#?}");
        assert_eq!(counters.undecodable, counters.undecodable_by.total());
        assert_eq!(counters.gaps, ranges, "{path}");
    }
}

/// Reads a file as a savefile; `None` if it is not one.
fn mapped(path: &Path) -> Option<Heard> {
    let store = Savefile::open(path, savefile::SavefileOptions::default()).ok()?;
    store.index(&AtomicBool::new(false));
    Some(Heard::of(Arc::new(store)))
}

#[test]
fn every_packet_is_in_a_flow_or_counted_and_every_byte_in_its_stream_or_counted() {
    for path in all() {
        if let Some(heard) = mapped(&path) {
            heard.check(&path);
        }
    }
}

/// A packet as it arrives in a stream.
struct Packet {
    time: Timestamp,
    original_len: u32,
    data: Vec<u8>,
}

/// The packets of a stream; `None` if not all of them can be in one ring.
fn packets(bytes: &[u8]) -> Option<(LinkType, Vec<Packet>)> {
    let (mut packets, mut link_type) = (Vec::new(), None);
    let foreign = stream(bytes, usize::MAX, |event| {
        match event {
            StreamEvent::Header(header) if link_type.is_none() => {
                link_type = Some(header.link_type)
            }
            StreamEvent::Header(_) | StreamEvent::Foreign { .. } => return ControlFlow::Break(()),
            StreamEvent::Packet(packet) => packets.push(Packet {
                time: packet.time,
                original_len: packet.original_len,
                data: packet.data.to_vec(),
            }),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    if foreign.is_some() {
        return None;
    }
    Some((link_type?, packets))
}

/// Reads the same packets from a ring; `has_ended` is whether the ring has ended.
fn streamed(link_type: LinkType, packets: &[Packet], has_ended: bool) -> Heard {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let bytes: u64 = packets.iter().map(|packet| 64 + packet.data.len() as u64).sum();
    let options = ring::RingOptions {
        path: directory.path().join("ring"),
        size: (2 * bytes).next_multiple_of(1 << 20) + 2 * MIN_RING,
        snaplen: 262_144,
        precision: Precision::Nano,
        link_type: Some(link_type),
        interface: Interface::default(),
    };
    let OpenedRing { ring, mut writer, .. } = Ring::open(&options).unwrap();
    for packet in packets {
        let stored = writer.append(packet.time, packet.original_len, &packet.data);
        assert_eq!(stored, Append::Stored);
    }
    writer.publish();
    writer.set_ended(has_ended);
    Heard::of(ring)
}

#[test]
fn a_capture_has_the_same_flows_as_a_savefile_and_as_a_stream() {
    let (mut compared, mut wrong) = (0, Vec::new());
    for path in all() {
        let bytes = std::fs::read(&path).unwrap();
        let Some((link_type, mut packets)) = packets(&bytes) else { continue };
        let Some(mapped) = mapped(&path) else { continue };
        assert_eq!(mapped.stored, packets.len() as u64, "{}", path.display());
        let ended = streamed(link_type, &packets, true);
        assert!(mapped.told == ended.told, "{}: {:#?}", path.display(), differs(&mapped, &ended));
        // A FIFO never ends: after the last packet, time passes.
        let last = packets.iter().map(|packet| packet.time.nanoseconds()).max().unwrap_or(0);
        packets.extend((1..1_000).map(|step| Packet {
            time: Timestamp::from_nanoseconds(last + step * 20_000_000),
            original_len: 14,
            data: vec![0; 14],
        }));
        let going_on = streamed(link_type, &packets, false);
        for (mapped, going_on) in mapped.told.iter().zip(&going_on.told) {
            if mapped.streams != going_on.streams {
                wrong.push(format!("{}: {}\n{}", path.display(), mapped.meta, going_on.meta));
            }
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{} flows: {}", wrong.len(), wrong.join("\n"));
    assert!(compared == 0 || compared > 100, "only {compared} were compared");
}

/// The first flow that differs.
fn differs(one: &Heard, other: &Heard) -> Option<(String, String)> {
    let mut pairs = one.told.iter().zip(&other.told);
    let (one, other) = pairs.find(|(one, other)| one != other)?;
    let text = |told: &Told| {
        let http = told.http.as_deref().map(String::from_utf8_lossy);
        format!("{} {:?}", told.meta, http)
    };
    Some((text(one), text(other)))
}
