//! The packets of a flow, one by one: who sent each, and what is odd about it.
//!
//! The notes are about what was captured: a segment that comes a second time, before its turn's
//! predecessors, or after bytes that are not there. They are found anew by walking `packets.pcap`
//! from its start for each page, since they depend on all packets before.

use std::fs::File;
use std::io::{BufReader, Read};
use std::net::IpAddr;
use std::path::Path;

use capture::record;
use capture::savefile::MAX_CAPTURED_LEN;
use capture::savefile::pcap::{FILE_HEADER_LEN, PcapHeader, RecordHeader};
use protocol::decode::{DecodeOptions, DecodeOutcome, DecodedPacket, Decoder, TcpFlags, Transport};
use protocol::tcp::seq::Sequence;
use serde::Serialize;

use super::answer::Problem;
use crate::cli::outlet::trouble::Trouble;

/// Packets of a page, unless another number is asked for.
pub(super) const LIMIT: usize = 1000;

/// Maximum number of packets of a page.
pub(super) const MOST: usize = 10_000;

/// Bytes of `packets.pcap` that are walked; the packets after them have no timeline.
const MAX_WALKED: u64 = 256 << 20;

/// Ranges of missing bytes that are remembered in each direction.
const MAX_HOLES: usize = 256;

/// Bytes to read at once.
const BUFFER: usize = 1 << 18;

/// A page of packets.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    packets: Vec<TimelinePacket>,
    /// Number of the last packet, if more follow.
    pub(super) next: Option<u64>,
    /// Why packets after these are not shown, although there are some; null as a rule.
    why: Option<&'static str>,
}

/// A packet of a flow.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct TimelinePacket {
    /// In `packets.pcap`, from 1.
    number: u64,
    /// RFC 3339, with nanoseconds.
    time: String,
    /// The sender; null for a packet that is not decoded, such as a fragment before the first one.
    direction: Option<&'static str>,
    /// Bytes on the wire.
    length: u32,
    /// Bytes of payload on the wire.
    payload: u32,
    /// Of its first byte, from the first one seen in this direction; null if it is not TCP.
    sequence: Option<i64>,
    /// Letters of its TCP flags.
    flags: Option<String>,
    note: Option<PacketNote>,
}

/// An oddity of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum PacketNote {
    /// All of its bytes were captured before.
    Retransmission,
    /// It has bytes that were missing before a packet captured earlier.
    OutOfOrder,
    /// Bytes before it were not captured so far.
    GapBefore,
}

/// The client of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowClient {
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// The packets after packet `after` of the file at `path`.
///
/// # Errors
/// Those of reading it.
pub(super) fn read(
    path: &Path,
    client: FlowClient,
    after: u64,
    limit: usize,
) -> Result<Timeline, Problem> {
    let file = File::open(path).map_err(|error| Trouble::of_tree("packets.pcap", &error))?;
    walk(BufReader::with_capacity(BUFFER, file), client, after, limit)
}

fn walk(
    mut file: impl Read,
    client: FlowClient,
    after: u64,
    limit: usize,
) -> Result<Timeline, Problem> {
    let mut timeline = Timeline { packets: Vec::new(), next: None, why: None };
    let Some(header) = next_bytes::<FILE_HEADER_LEN>(&mut file)? else { return Ok(timeline) };
    let header = PcapHeader::parse(&header)
        .map_err(|error| Problem::unavailable(format!("packets.pcap: {error}")))?;
    let mut decoder = Decoder::new(DecodeOptions { early: true, ..DecodeOptions::default() });
    let mut streams = [StreamProgress::default(), StreamProgress::default()];
    let (mut number, mut walked) = (0, 0_u64);
    let mut data = Vec::new();
    while let Some(record) = next_bytes::<{ record::HEADER_LEN }>(&mut file)? {
        let record = RecordHeader::parse(&record, &header);
        if record.captured_len > MAX_CAPTURED_LEN {
            return Err(Problem::unavailable("packets.pcap: a packet that is too long"));
        }
        if timeline.packets.len() == limit {
            timeline.next = Some(number);
            break;
        }
        if walked > MAX_WALKED {
            timeline.why = Some("the flow has more packets than a timeline shows");
            break;
        }
        data.resize(record.captured_len as usize, 0);
        file.read_exact(&mut data).map_err(|error| Trouble::of_tree("packets.pcap", &error))?;
        walked = walked.saturating_add(u64::from(record.captured_len));
        number += 1;
        let time = record.time(header.precision);
        let outcome = decoder.packet(header.link_type, number, time, record.original_len, &data);
        let packet = match &outcome {
            DecodeOutcome::Decoded(packet) => Some(packet),
            DecodeOutcome::Fragment | DecodeOutcome::Undecoded(_) => None,
        };
        let is_client = packet.map(|packet| is_from(packet, client));
        let [of_client, of_server] = &mut streams;
        let stream = if is_client == Some(true) { of_client } else { of_server };
        let segment = packet.and_then(|packet| stream.add(packet));
        if number <= after {
            continue;
        }
        timeline.packets.push(TimelinePacket {
            number,
            time: time.to_rfc3339(),
            direction: is_client.map(|is_client| if is_client { "client" } else { "server" }),
            length: record.original_len,
            payload: packet.map_or(0, |packet| packet.payload.len()),
            sequence: segment.as_ref().map(|segment| segment.sequence),
            note: segment.as_ref().and_then(|segment| segment.note),
            flags: segment.map(|segment| letters(segment.flags)),
        });
    }
    Ok(timeline)
}

/// The next bytes of the file; `None` at its end, or if it ends within them.
fn next_bytes<const N: usize>(file: &mut impl Read) -> Result<Option<[u8; N]>, Problem> {
    let mut bytes = [0; N];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(Trouble::of_tree("packets.pcap", &error).into()),
    }
}

fn is_from(packet: &DecodedPacket<'_>, client: FlowClient) -> bool {
    let port = match &packet.transport {
        Transport::Tcp(header) => Some(header.source_port),
        Transport::Udp { source_port, .. } => Some(*source_port),
        Transport::Other => None,
    };
    packet.source == client.address && port.is_none_or(|port| port == client.port)
}

/// The facts that a segment states about its stream.
struct SegmentFacts {
    sequence: i64,
    flags: TcpFlags,
    note: Option<PacketNote>,
}

/// How far one direction has come.
#[derive(Debug, Default)]
struct StreamProgress {
    /// The first number seen; `None` before it.
    origin: Option<Sequence>,
    /// Offset after the last byte seen.
    end: u64,
    /// Ranges that were left out, in rising order.
    holes: Vec<(u64, u64)>,
}

impl StreamProgress {
    fn add(&mut self, packet: &DecodedPacket<'_>) -> Option<SegmentFacts> {
        let Transport::Tcp(header) = &packet.transport else { return None };
        let sequence = Sequence(header.sequence);
        let origin = *self.origin.get_or_insert(sequence);
        let flags = header.flags;
        let offset = sequence.offset(origin, self.end);
        // A SYN and a FIN take a number each.
        let takes = [TcpFlags::SYN, TcpFlags::FIN].map(|flag| u64::from(flags.contains(flag)));
        let payload = if header.is_padded { 0 } else { packet.payload.len() };
        let length = takes.iter().sum::<u64>() + u64::from(payload);
        let is_reset = flags.contains(TcpFlags::RST);
        let note = if length > 0 && !is_reset { self.note(offset, length) } else { None };
        Some(SegmentFacts { sequence: offset, flags, note })
    }

    fn note(&mut self, offset: i64, length: u64) -> Option<PacketNote> {
        let end = offset.saturating_add_unsigned(length);
        let (begin, end) = (u64::try_from(offset).unwrap_or(0), u64::try_from(end).unwrap_or(0));
        let fills = self.fill(begin, end);
        let was = self.end;
        if begin > was {
            if self.holes.len() < MAX_HOLES {
                self.holes.push((was, begin));
            }
            self.end = end;
            return Some(PacketNote::GapBefore);
        }
        self.end = was.max(end);
        // A keep-alive repeats one byte, and so does the window probe of a closed window.
        match (fills, end > was) {
            (true, _) => Some(PacketNote::OutOfOrder),
            (false, true) => None,
            (false, false) => Some(PacketNote::Retransmission),
        }
    }

    /// Takes a range out of the holes; returns whether it was in one.
    fn fill(&mut self, begin: u64, end: u64) -> bool {
        let mut is_filling = false;
        let mut left = Vec::new();
        for (from, to) in self.holes.drain(..) {
            if end <= from || begin >= to {
                left.push((from, to));
                continue;
            }
            is_filling = true;
            left.extend((from < begin).then_some((from, begin)));
            left.extend((end < to).then_some((end, to)));
        }
        left.truncate(MAX_HOLES);
        self.holes = left;
        is_filling
    }
}

/// The flags of a segment as tcpdump writes them, with `A` for an acknowledgment.
fn letters(flags: TcpFlags) -> String {
    const LETTERS: [(TcpFlags, char); 8] = [
        (TcpFlags::SYN, 'S'),
        (TcpFlags::FIN, 'F'),
        (TcpFlags::RST, 'R'),
        (TcpFlags::PSH, 'P'),
        (TcpFlags::ACK, 'A'),
        (TcpFlags::URG, 'U'),
        (TcpFlags::ECE, 'E'),
        (TcpFlags::CWR, 'C'),
    ];
    let set = LETTERS.into_iter().filter(|(flag, _)| flags.contains(*flag));
    set.map(|(_, letter)| letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_noted() {
        use PacketNote::{GapBefore, OutOfOrder, Retransmission};
        let mut stream = StreamProgress::default();
        // A SYN takes one number, so data begins at 1.
        for (offset, length, note) in [
            (0, 1, None),
            (1, 100, None),
            (1, 100, Some(Retransmission)),
            (301, 100, Some(GapBefore)),
            (101, 100, Some(OutOfOrder)),
            (101, 100, Some(Retransmission)),
            (201, 100, Some(OutOfOrder)),
            (350, 100, None),
            (-5, 5, Some(Retransmission)),
        ] {
            assert_eq!(stream.note(offset, length), note, "{offset}");
        }
        assert!(stream.holes.is_empty());
        assert_eq!(stream.end, 450);
    }

    #[test]
    fn holes_are_bounded() {
        let mut stream = StreamProgress::default();
        for place in 0..10_000 {
            stream.note(place * 10, 1);
        }
        assert_eq!(stream.holes.len(), MAX_HOLES);
    }

    #[test]
    fn nonsense_is_a_problem() {
        let client = FlowClient { address: [192, 0, 2, 1].into(), port: 1 };
        let empty = walk(&[][..], client, 0, 10).unwrap();
        assert!(empty.packets.is_empty() && empty.next.is_none());
        assert!(walk(&[0xff; 100][..], client, 0, 10).is_err());
        let header = frames::Format::default().header();
        assert!(walk(&[&header[..], &[0xff; 100]].concat()[..], client, 0, 10).is_err());
    }
}
