//! Shared by the tests of flows: a ring, its flow engine, and conversations to fill the ring with.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

#[path = "../wait/mod.rs"]
mod wait;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use capture::flow::{
    Application, File, FileReading, FlowCounters, FlowLimits, FlowOptions, Flows, Log,
};
use capture::ring::{self, Append, MIN_RING, OpenedRing, Ring, Writer};
use capture::store::{Interface, Store};
use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const EPOCH: u64 = 1_700_000_000_000_000_000;
pub(crate) const MILLISECOND: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) use wait::wait_until;

pub(crate) use frames::flags::{ACK, FIN, SYN};

/// Name of the capture.
pub(crate) const CAPTURE: &str = "web";

/// The place of a ring, which outlives the rings opened there.
pub(crate) struct Place {
    _directory: TempDir,
    path: PathBuf,
    size: u64,
    precision: Precision,
}

impl Place {
    pub(crate) fn new(size: u64, precision: Precision) -> Self {
        let shared = std::path::Path::new("/dev/shm");
        let directory = if shared.is_dir() {
            tempfile::tempdir_in(shared).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        let path = directory.path().join("flows.ring");
        Self { _directory: directory, path, size, precision }
    }

    pub(crate) fn open(&self) -> (Arc<Ring>, Writer) {
        let options = ring::RingOptions {
            path: self.path.clone(),
            size: self.size,
            snaplen: 262_144,
            precision: self.precision,
            link_type: Some(LinkType::ETHERNET),
            interface: Interface::default(),
        };
        let OpenedRing { ring, writer, .. } = Ring::open(&options).unwrap();
        (ring, writer)
    }
}

/// A ring with an engine.
pub(crate) struct Scene {
    pub(crate) flows: Arc<Flows>,
    pub(crate) ring: Arc<Ring>,
    pub(crate) writer: Writer,
    pub(crate) place: Place,
    /// Time of the next packet, in nanoseconds since the epoch.
    pub(crate) now: u64,
}

impl Scene {
    pub(crate) fn new(options: FlowOptions) -> Self {
        Self::of_size(MIN_RING, options)
    }

    pub(crate) fn of_size(size: u64, options: FlowOptions) -> Self {
        Self::over(Place::new(size, Precision::Nano), options)
    }

    pub(crate) fn over(place: Place, options: FlowOptions) -> Self {
        let (ring, writer) = place.open();
        let store: Arc<dyn Store> = Arc::clone(&ring) as _;
        let flows = Arc::new(Flows::start(CAPTURE, store, options).unwrap());
        Self { flows, ring, writer, place, now: EPOCH }
    }

    /// Puts a packet into the ring, a microsecond after the one before.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.now += 1_000;
        self.send_cut(frame, frame.len());
    }

    /// Puts a packet into the ring at the current time, with only `captured` bytes captured.
    pub(crate) fn send_cut(&mut self, frame: &[u8], captured: usize) {
        let time = Timestamp::from_nanoseconds(self.now);
        let stored = self.writer.append(time, frame.len() as u32, &frame[..captured]);
        assert_eq!(stored, Append::Stored);
    }

    pub(crate) fn send_all(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        for frame in frames {
            self.send(&frame);
        }
    }

    /// Waits until everything sent is in the tree.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        self.writer.publish();
        wait_until("the engine has caught up", || self.flows.is_caught_up());
    }

    /// Fills the ring with packets of other flows until all packets in it now are overwritten.
    /// Waits for the engine on the way, so that the engine loses nothing.
    pub(crate) fn lap(&mut self) {
        let target = self.ring.bounds().next.number;
        self.lap_to(target);
    }

    /// Fills the ring in the same way until packet `number` is the oldest.
    pub(crate) fn lap_to(&mut self, number: u64) {
        while self.ring.bounds().oldest.number < number {
            for _ in 0..16 {
                self.send(&udp(9, 1, true, &[0; 1_400]));
            }
            self.settle();
        }
    }

    /// Ends the capture.
    #[track_caller]
    pub(crate) fn end(&mut self) {
        self.writer.set_ended(true);
        wait_until("every flow has ended", || self.flows.is_caught_up());
    }

    /// Stops the engine, and opens the same ring with another engine.
    pub(crate) fn restart(self, options: FlowOptions) -> Self {
        let Self { flows, ring, writer, place, now } = self;
        flows.stop();
        drop((flows, writer, ring));
        let (ring, writer) = place.open();
        let store: Arc<dyn Store> = Arc::clone(&ring) as _;
        let flows = Arc::new(Flows::start(CAPTURE, store, options).unwrap());
        Self { flows, ring, writer, place, now }
    }

    pub(crate) fn counters(&self) -> FlowCounters {
        self.flows.counters()
    }

    /// Ids of the flows in the tree.
    pub(crate) fn ids(&self) -> Vec<u64> {
        ids(&self.flows)
    }

    /// A whole file.
    #[track_caller]
    pub(crate) fn file(&self, id: u64, file: File) -> Vec<u8> {
        let stat = self.flows.stat(id, file).expect("there is such a file");
        let mut reading = self.flows.open(id, file, stat.beginning).expect("it can be opened");
        whole(&mut reading)
    }

    #[track_caller]
    pub(crate) fn meta(&self, id: u64) -> Value {
        serde_json::from_slice(&self.file(id, File::Meta)).unwrap()
    }

    /// Lines of a file of a flow.
    #[track_caller]
    pub(crate) fn lines(&self, id: u64, file: File) -> Vec<Value> {
        lines(&self.file(id, file))
    }

    /// The retained lines of a log.
    pub(crate) fn log(&self, log: Log) -> Vec<Value> {
        let beginning = self.flows.log_stat(log, None).beginning;
        let bytes = whole(&mut self.flows.open_log(log, beginning));
        lines(&bytes)
    }
}

#[track_caller]
pub(crate) fn lines(bytes: &[u8]) -> Vec<Value> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| serde_json::from_slice(line).expect("a whole line")).collect()
}

pub(crate) fn ids(flows: &Flows) -> Vec<u64> {
    let mut ids = Vec::new();
    flows.list(0, &mut |flow| {
        ids.push(flow.id);
        ControlFlow::Continue(())
    });
    ids
}

/// Reads to the end.
#[track_caller]
pub(crate) fn whole(reading: &mut FileReading) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let part = reading.read(bytes.len() as u64, 50_000).expect("it can be read");
        if part.is_empty() {
            return bytes;
        }
        bytes.extend(part);
    }
}

/// The end of client number `client` and the server's, the sender's first.
fn ends(client: u32, port: u16, server: u16, from_client: bool) -> [SocketAddr; 2] {
    let [_, second, third, fourth] = client.to_be_bytes();
    let ends = [([10, second, third, fourth], port), ([192, 168, 0, 1], server)];
    let [client, server] = ends.map(SocketAddr::from);
    if from_client { [client, server] } else { [server, client] }
}

fn frame([from, to]: [SocketAddr; 2], protocol: u8, content: &[u8]) -> Vec<u8> {
    let packet = frames::ip(from.ip(), to.ip(), protocol, content);
    frames::ethernet(&[], frames::IPV4, &packet)
}

/// A TCP segment between port `port` of a client and port 80.
pub(crate) fn tcp(
    client: u32,
    port: u16,
    from_client: bool,
    (sequence, acknowledgment): (u32, u32),
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let ends = ends(client, port, 80, from_client);
    let segment = frames::tcp(ends[0], ends[1], [sequence, acknowledgment], flags, data);
    frame(ends, frames::TCP, &segment)
}

/// A UDP datagram between port `port` of a client and port 53.
pub(crate) fn udp(client: u32, port: u16, from_client: bool, data: &[u8]) -> Vec<u8> {
    udp_to(client, [port, 53], from_client, data)
}

/// A UDP datagram between these ports, of a client and of a server.
pub(crate) fn udp_to(client: u32, ports: [u16; 2], from_client: bool, data: &[u8]) -> Vec<u8> {
    let ends = ends(client, ports[0], ports[1], from_client);
    frame(ends, frames::UDP, &frames::udp(ends[0], ends[1], data))
}

/// The same datagram in two fragments; the first has `first` bytes of data.
pub(crate) fn fragmented_udp(client: u32, port: u16, data: &[u8], first: usize) -> Vec<Vec<u8>> {
    fragments(&udp(client, port, true, data), 0, &[8 + first])
}

/// The fragments of an Ethernet frame with IPv4, cut at these places of the payload of IP. Each
/// place is a multiple of 8.
pub(crate) fn fragments(frame: &[u8], identification: u16, cuts: &[usize]) -> Vec<Vec<u8>> {
    let (headers, payload) = frame.split_at(34);
    let address = |at: usize| <[u8; 4]>::try_from(&headers[at..at + 4]).unwrap();
    let addresses = (address(26), address(30));
    let edges: Vec<usize> = [0].iter().chain(cuts).copied().chain([payload.len()]).collect();
    let fragment = |edge: &[usize]| {
        let more = u16::from(edge[1] < payload.len()) << 13;
        let place = more | (edge[0] / 8) as u16;
        let part = &payload[edge[0]..edge[1]];
        let packet = frames::ipv4_fragment(addresses, headers[23], place, identification, part);
        frames::ethernet(&[], frames::IPV4, &packet)
    };
    edges.windows(2).map(fragment).collect()
}

/// A connection in which both sides see every segment.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) client: u32,
    pub(crate) port: u16,
    /// Next sequence numbers of the client and of the server.
    pub(crate) next: [u32; 2],
    /// The bytes that each side has sent.
    pub(crate) sent: [Vec<u8>; 2],
}

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

impl Talk {
    pub(crate) fn new(client: u32, port: u16) -> Self {
        // Some numbers wrap soon.
        let first = u32::MAX - client.wrapping_mul(977) % 3_000;
        Self { client, port, next: [first, first ^ 0x5555_5555], sent: Default::default() }
    }

    pub(crate) fn segment(&mut self, side: usize, flags: u8, data: &[u8]) -> Vec<u8> {
        let acknowledgment = if flags & ACK == 0 { 0 } else { self.next[1 - side] };
        let numbers = (self.next[side], acknowledgment);
        let frame = tcp(self.client, self.port, side == CLIENT, numbers, flags, data);
        let counts = data.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.next[side] = self.next[side].wrapping_add(counts);
        self.sent[side].extend(data);
        frame
    }

    pub(crate) fn open(&mut self) -> Vec<Vec<u8>> {
        vec![
            self.segment(CLIENT, SYN, b""),
            self.segment(SERVER, SYN | ACK, b""),
            self.segment(CLIENT, ACK, b""),
        ]
    }

    /// Data in segments of at most `most` bytes.
    pub(crate) fn says(&mut self, side: usize, data: &[u8], most: usize) -> Vec<Vec<u8>> {
        data.chunks(most).map(|part| self.segment(side, ACK, part)).collect()
    }

    /// Acknowledges all that the other side has sent.
    pub(crate) fn acknowledges(&mut self, side: usize) -> Vec<u8> {
        self.segment(side, ACK, b"")
    }

    pub(crate) fn close(&mut self) -> Vec<Vec<u8>> {
        vec![
            self.segment(CLIENT, FIN | ACK, b""),
            self.segment(SERVER, FIN | ACK, b""),
            self.segment(CLIENT, ACK, b""),
        ]
    }

    /// A whole connection in which the client sends `asks` and the server sends `answers`.
    pub(crate) fn exchange(&mut self, asks: &[u8], answers: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = self.open();
        frames.extend(self.says(CLIENT, asks, 1_000));
        frames.extend(self.says(SERVER, answers, 1_000));
        frames.extend(self.close());
        frames
    }
}

pub(crate) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes()
}

pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) fn limited(limit: impl FnOnce(&mut FlowLimits)) -> FlowOptions {
    let mut options = FlowOptions::default();
    options.limits.memory = 64 << 20;
    options.limits.log = 16 << 20;
    limit(&mut options.limits);
    options
}

pub(crate) fn free() -> FlowOptions {
    limited(|_| {})
}

/// Checks that every flow has begun once and ended at most once in the log, in order, and every
/// transaction too.
#[track_caller]
pub(crate) fn adds_up(scene: &Scene, opened: u64, transactions: u64) {
    let counters = scene.counters();
    assert_eq!(counters.open + counters.closed + counters.evicted, opened, "{counters:?}");
    let lines = scene.log(Log::Flows);
    let told = lines.len() as u64 + scene.log(Log::Lines(Application::Http)).len() as u64;
    let all = 2 * opened - counters.open + transactions;
    assert_eq!(told + counters.log_lines_dropped, all, "{counters:?}");
    if counters.log_lines_dropped > 0 {
        return;
    }
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    let mut newest = 0;
    for line in &lines {
        let id = line["id"].as_u64().unwrap();
        let times = seen.entry(id).or_default();
        *times += 1;
        if *times == 1 {
            assert_eq!(id, newest + 1, "ids are given in order, each once");
            newest = id;
        }
        let is_end =
            matches!(line["state"].as_str().unwrap(), "closed" | "reset" | "timed_out" | "evicted");
        assert!(*times == 1 || *times == 2 && (is_end || counters.open == 0), "{line}");
    }
    assert_eq!(newest, opened);
    assert_eq!(seen.values().filter(|times| **times == 1).count() as u64, counters.open);
}

pub(crate) fn of(lines: &[Value], id: u64) -> Vec<&Value> {
    lines.iter().filter(|line| line["id"] == id).collect()
}

pub(crate) fn target(number: u32, turn: u32) -> String {
    format!("/{number}/{turn}")
}

/// The number of the connection that a flow belongs to.
pub(crate) fn number_of(name: &str) -> u32 {
    let address = name.split('-').nth(2).unwrap();
    let parts: Vec<u32> = address.split('.').map(|part| part.parse().unwrap()).collect();
    parts[1] << 16 | parts[2] << 8 | parts[3]
}
