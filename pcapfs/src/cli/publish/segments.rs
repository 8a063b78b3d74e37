//! Messages of the streams of TCP connections, made from packets one after the other.
//!
//! The same packets from the same beginning give the same messages. So a run that goes on reads the
//! packets before its place once more, as far as they are retained, and says nothing about them.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use protocol::decode::{DecodeOptions, DecodeOutcome, Decoder, TcpFlags, Transport};
use protocol::linktype::LinkType;
use protocol::tcp::ConnectionState;
use protocol::time::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::message::{Message, MessagePlace};
use crate::cli::outlet::position::{PacketPlace, SegmentPlace};
use crate::cli::streams::reassembly::{PartOrigin, Reassembly, StreamPart};
use crate::cli::streams::recent::RecentPackets;

/// Packets after which bytes of an earlier one are not waited for any more.
const WAITING: u64 = 1 << 18;

/// The streams of a capture.
#[derive(Debug)]
pub(super) struct Segments {
    decoder: Decoder,
    reassembly: Reassembly,
    recent: RecentPackets,
    /// Number of the first packet.
    since: u64,
    /// Packets before this one give no messages.
    silent_before: u64,
    /// The time of the last packet, and when that was here.
    clock: Option<(Timestamp, Instant)>,
}

/// A packet of a capture.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentPacket<'a> {
    pub(super) link_type: LinkType,
    pub(super) time: Timestamp,
    /// Bytes on the wire.
    pub(super) length: u32,
    pub(super) data: &'a [u8],
}

/// The facts of all messages of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentContext<'a> {
    pub(super) capture: &'a str,
    /// The packet from which they come.
    pub(super) place: PacketPlace,
    /// Packets lost so far.
    pub(super) lost: u64,
}

/// A part of a stream, with its own copy of the bytes.
#[derive(Debug)]
struct CopiedPart {
    origin: PartOrigin,
    length: u64,
    bytes: Bytes,
    event: PartEvent,
}

#[derive(Clone, Copy, Debug)]
enum PartEvent {
    Data { packet: u64, time: Timestamp, flags: TcpFlags },
    Gap,
    End(Option<ConnectionState>),
}

/// The JSON of a segment.
#[derive(Serialize)]
struct SegmentLine<'a> {
    published: PublishedSegment,
    capture: &'a str,
    event: &'static str,
    /// Number of the first packet of the flow.
    flow: u64,
    /// Its time: `first` in `meta.json`.
    first: String,
    client: SegmentEnd,
    server: SegmentEnd,
    /// The sender.
    direction: &'static str,
    offset: u64,
    length: u64,
    packet: Option<u64>,
    time: Option<String>,
    flags: Option<Vec<&'static str>>,
    /// How the stream ended.
    end: Option<EndOfStream>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EndOfStream {
    Fin(&'static str),
    Without(ConnectionState),
}

#[derive(Serialize)]
struct SegmentEnd {
    address: IpAddr,
    port: u16,
}

/// The part of a message's JSON about the message itself.
#[derive(Serialize)]
struct PublishedSegment {
    position: String,
    lost: u64,
}

/// Names of flags, the lowest bit first.
const FLAGS: [(TcpFlags, &str); 8] = [
    (TcpFlags::FIN, "fin"),
    (TcpFlags::SYN, "syn"),
    (TcpFlags::RST, "rst"),
    (TcpFlags::PSH, "psh"),
    (TcpFlags::ACK, "ack"),
    (TcpFlags::URG, "urg"),
    (TcpFlags::ECE, "ece"),
    (TcpFlags::CWR, "cwr"),
];

impl Segments {
    /// Begins with the packet of number `since`, and says nothing before `silent_before`.
    pub(super) fn new(since: u64, silent_before: u64) -> Self {
        Self {
            decoder: Decoder::new(DecodeOptions::default()),
            reassembly: Reassembly::default(),
            recent: RecentPackets::default(),
            since,
            silent_before,
            clock: None,
        }
    }

    /// The place of a reader that is at this packet.
    pub(super) fn place(&self, packets: PacketPlace) -> SegmentPlace {
        let next = packets.next.max(self.silent_before);
        SegmentPlace { packets: PacketPlace { next, ..packets }, since: self.since }
    }

    /// The number of the first packet that gives messages.
    pub(super) const fn silent_before(&self) -> u64 {
        self.silent_before
    }

    /// Takes the packet at the context's place; returns what it adds to streams.
    pub(super) fn packet(
        &mut self,
        packet: &SegmentPacket<'_>,
        context: &SegmentContext<'_>,
    ) -> Vec<Message> {
        let mut parts = Vec::new();
        self.take(packet, context.place.next, &mut parts);
        self.clock = Some((packet.time, Instant::now()));
        if context.place.next < self.silent_before {
            return Vec::new();
        }
        messages(parts, context, true)
    }

    /// Lets time pass while no packet comes; the context's place is after the last one.
    pub(super) fn advance(&mut self, context: &SegmentContext<'_>) -> Vec<Message> {
        let Some((time, here)) = self.clock else { return Vec::new() };
        if context.place.next < self.silent_before {
            return Vec::new();
        }
        let Self { reassembly, recent, .. } = self;
        let mut parts = Vec::new();
        let mut sink = |origin: &PartOrigin, part: StreamPart<'_>| {
            parts.push(copied(origin, part, recent));
        };
        reassembly.advance(time.plus(here.elapsed()), recent, &mut sink);
        self.free(&parts);
        messages(parts, context, false)
    }

    fn take(&mut self, packet: &SegmentPacket<'_>, number: u64, parts: &mut Vec<CopiedPart>) {
        let SegmentPacket { link_type, time, length, data } = *packet;
        let Self { decoder, reassembly, recent, .. } = self;
        recent.forget_before(number.saturating_sub(WAITING));
        reassembly.advance(time, recent, &mut |origin, part| {
            parts.push(copied(origin, part, recent));
        });
        match decoder.packet(link_type, number, time, length, data) {
            DecodeOutcome::Decoded(decoded) => {
                if let Transport::Tcp(tcp) = &decoded.transport {
                    // Other segments may have to wait for bytes before them.
                    if decoded.payload.len() > 0 {
                        recent.keep(number, time, length, data);
                        // Of a datagram in fragments it has only some of the bytes.
                        recent.note_segment(tcp.flags, decoded.payload.len());
                    }
                    let mut sink = |origin: &PartOrigin, part: StreamPart<'_>| {
                        parts.push(copied(origin, part, recent));
                    };
                    reassembly.segment(&decoded, tcp, (number, time), recent, &mut sink);
                }
            }
            DecodeOutcome::Fragment => recent.keep(number, time, length, data),
            DecodeOutcome::Undecoded(_) => {}
        }
        self.free(parts);
    }

    /// Frees the room of packets whose bytes are all in messages.
    fn free(&mut self, parts: &[CopiedPart]) {
        for part in parts {
            if let PartEvent::Data { packet, .. } = part.event {
                self.recent.handed_on(packet, part.length);
            }
        }
    }
}

fn copied(origin: &PartOrigin, part: StreamPart<'_>, recent: &RecentPackets) -> CopiedPart {
    let (length, bytes, event) = match part {
        StreamPart::Bytes { bytes, packet } => {
            let kept = recent.packet(packet);
            let (time, flags) = kept.map_or_else(Default::default, |kept| (kept.time, kept.flags));
            let event = PartEvent::Data { packet, time, flags };
            (bytes.len() as u64, Bytes::copy_from_slice(bytes), event)
        }
        StreamPart::Missing { length } => (length, Bytes::new(), PartEvent::Gap),
        StreamPart::End { without } => (0, Bytes::new(), PartEvent::End(without)),
    };
    CopiedPart { origin: *origin, length, bytes, event }
}

/// The messages of parts. If they come from a packet, the last of them leaves it.
fn messages(
    parts: Vec<CopiedPart>,
    context: &SegmentContext<'_>,
    is_of_packet: bool,
) -> Vec<Message> {
    let (count, next) = (parts.len(), context.place.next);
    let places = (1..=count).map(|index| {
        let sent = if is_of_packet && index == count { next.saturating_add(1) } else { next };
        MessagePlace::Segment { unsent: next, sent }
    });
    parts.into_iter().zip(places).map(|(part, place)| message(part, place, context)).collect()
}

fn message(part: CopiedPart, place: MessagePlace, context: &SegmentContext<'_>) -> Message {
    let SegmentContext { capture, place: PacketPlace { ring, epoch, .. }, lost } = *context;
    let CopiedPart { origin, length, bytes, event } = part;
    let (flow, first) = origin.began;
    let (source, destination) = origin.ends();
    let end = |end: SocketAddr| SegmentEnd { address: end.ip(), port: end.port() };
    let (client, server) =
        if origin.is_client { (source, destination) } else { (destination, source) };
    // The client may be known later only; the order of the ends is always the same.
    let stream = u8::from(source > destination);
    let offset = origin.offset;
    let (name, tail) = match event {
        PartEvent::Data { .. } => ("data", ""),
        PartEvent::Gap => ("gap", ""),
        PartEvent::End(_) => ("end", ".end"),
    };
    let line = SegmentLine {
        published: PublishedSegment {
            position: format!("{ring:016x}.{epoch}.segment.{flow}.{stream}.{offset}{tail}"),
            lost,
        },
        capture,
        event: name,
        flow,
        first: first.to_rfc3339(),
        client: end(client),
        server: end(server),
        direction: if origin.is_client { "client" } else { "server" },
        offset,
        length,
        packet: match event {
            PartEvent::Data { packet, .. } => Some(packet),
            _ => None,
        },
        time: match event {
            PartEvent::Data { time, .. } => Some(time.to_rfc3339()),
            _ => None,
        },
        flags: match event {
            PartEvent::Data { flags, .. } => Some(names(flags)),
            _ => None,
        },
        end: match event {
            PartEvent::End(None) => Some(EndOfStream::Fin("fin")),
            PartEvent::End(Some(state)) => Some(EndOfStream::Without(state)),
            _ => None,
        },
    };
    let mut json = Vec::with_capacity(384);
    protocol::json::append(&mut json, &line);
    let frames = vec![Bytes::from(json), bytes];
    Message { topic: "segment", frames, place, id: String::new(), sequence: 0 }
}

fn names(flags: TcpFlags) -> Vec<&'static str> {
    let set = FLAGS.iter().filter(|(flag, _)| flags.contains(*flag));
    set.map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use frames::flags::{ACK, SYN};

    use super::*;

    /// A connection of one client, whose segments come in pairs in the wrong order.
    fn packets() -> Vec<Vec<u8>> {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let ends = [end("10.0.0.1:4000"), end("10.0.0.2:9000")];
        let frame = |from: usize, numbers: [u32; 2], flags: u8, payload: &[u8]| {
            let (from, to) = (ends[from], ends[1 - from]);
            let segment = frames::tcp(from, to, numbers, flags, payload);
            let packet = frames::ip(from.ip(), to.ip(), frames::TCP, &segment);
            frames::ethernet(&[], 0x0800, &packet)
        };
        let mut packets = vec![
            frame(0, [99, 0], SYN, b""),
            frame(1, [499, 100], SYN | ACK, b""),
            frame(0, [100, 500], ACK, b""),
        ];
        for pair in 0..500_u32 {
            let number = 100 + pair * 2_000;
            for (number, letter) in [(number + 1_000, b'b'), (number, b'a')] {
                packets.push(frame(0, [number, 500], ACK, &[letter; 1_000]));
            }
            packets.push(frame(1, [500, number + 2_000], ACK, b""));
        }
        packets
    }

    fn run(segments: &mut Segments, packets: &[Vec<u8>], from: u64) -> Vec<Message> {
        let mut messages = Vec::new();
        for (data, number) in packets.iter().zip(from..) {
            let place = PacketPlace { ring: 1, epoch: 1, next: number };
            let context = SegmentContext { capture: "web", place, lost: 0 };
            let length = u32::try_from(data.len()).unwrap();
            let time = Timestamp::default().plus(std::time::Duration::from_millis(number));
            let packet = SegmentPacket { link_type: LinkType::ETHERNET, time, length, data };
            messages.extend(segments.packet(&packet, &context));
        }
        messages
    }

    #[test]
    fn streams_take_no_memory_and_a_run_that_goes_on_repeats_nothing() {
        let packets = packets();
        let mut segments = Segments::new(1, 0);
        let all = run(&mut segments, &packets, 1);
        assert_eq!(all.len(), 1_000);
        let next = packets.len() as u64 + 1;
        assert!(segments.recent.oldest() + 2 >= next, "{}", segments.recent.oldest());
        for (message, letter) in all.iter().zip([b'a', b'b'].into_iter().cycle()) {
            assert_eq!(message.frames[1], vec![letter; 1_000]);
        }
        // Between the packets of a pair.
        let place = 3 + 3 * 200 + 2;
        let before = run(&mut Segments::new(1, 0), &packets[..604], 1);
        let mut again = Segments::new(1, place);
        let after = run(&mut again, &packets, 1);
        let frames = |messages: &[Message]| {
            messages.iter().map(|message| message.frames.clone()).collect::<Vec<_>>()
        };
        assert_eq!([frames(&before), frames(&after)].concat(), frames(&all));
        let at = PacketPlace { ring: 1, epoch: 1, next: 5 };
        assert_eq!(again.place(at).packets.next, place, "it does not go back");
    }
}
