//! From packets to the bytes that are sent: each packet adds bytes to a connection.
//!
//! It does no I/O, so that the same packets give the same connections when they are counted and
//! when they are sent.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use capture::record;
use capture::savefile::pcap::file_header;
use capture::savefile::stream::StreamPacket;
use capture::store::StoreHeader;
use clap::ValueEnum;
use protocol::decode::{DecodeOptions, DecodeOutcome, DecodedPacket, Decoder, Transport};
use protocol::linktype::LinkType;
use protocol::tcp::Bytes as _;
use protocol::time::{Precision, Timestamp};
use serde::Serialize;

use crate::cli::streams::reassembly::{PartOrigin, Reassembly, StreamPart};
use crate::cli::streams::recent::{KeptPacket, RecentPackets};

/// The part of the packets that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SentPart {
    /// Payload as it was captured, repetitions included.
    Payload,
    /// The streams of TCP connections: each byte once, in order.
    Stream,
    /// Frames with all of their headers, one after the other.
    Frames,
    /// A savefile.
    Pcap,
}

/// The unit that has a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ConnectionPer {
    /// A source address.
    Source,
    /// Each direction of a flow.
    Flow,
}

/// The transport protocol of the packets that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SentProtocol {
    Tcp,
    Udp,
    Any,
}

/// The user's choice of content.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentContent {
    pub(super) part: SentPart,
    pub(super) per: ConnectionPer,
    pub(super) protocol: SentProtocol,
}

/// Identifies a connection: an address, or the ends of one direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SenderKey {
    Source(IpAddr),
    Flow { protocol: u8, source: SocketAddr, destination: SocketAddr },
}

impl fmt::Display for SenderKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(address) => address.fmt(formatter),
            Self::Flow { protocol, source, destination } => {
                match *protocol {
                    TCP => formatter.write_str("tcp "),
                    UDP => formatter.write_str("udp "),
                    other => write!(formatter, "ip {other} "),
                }?;
                write!(formatter, "{source} to {destination}")
            }
        }
    }
}

/// Protocol numbers of TCP (RFC 9293) and UDP (RFC 768).
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Bytes for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extracted {
    pub(super) key: SenderKey,
    /// May be empty, if all bytes are missing.
    pub(super) bytes: Bytes,
    /// Bytes that belong here too, and that the capture does not have.
    pub(super) missing: u64,
}

/// Numbers of packets that are not sent, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    /// Not decoded: no IP, or malformed.
    pub(super) no_ip: u64,
    /// Fragments of datagrams that did not become complete.
    pub(super) fragments: u64,
    /// Another transport protocol than the wanted one.
    pub(super) protocol: u64,
    /// Of connections of this process.
    pub(super) own: u64,
    /// Another link type than the first packet: it cannot be read together with the others.
    pub(super) link_type: u64,
}

impl LeftOut {
    /// Adds those of another round.
    pub(super) const fn add(&mut self, other: &Self) {
        self.no_ip += other.no_ip;
        self.fragments += other.fragments;
        self.protocol += other.protocol;
        self.own += other.own;
        self.link_type += other.link_type;
    }
}

/// Takes packets in order, and returns the bytes that each of them adds.
#[derive(Debug)]
pub(super) struct Extraction {
    content: SentContent,
    decoder: Decoder,
    reassembly: Reassembly,
    recent: RecentPackets,
    number: u64,
    header: Option<StoreHeader>,
    pub(super) left_out: LeftOut,
}

impl Extraction {
    /// Before the first packet.
    pub(super) fn new(content: SentContent) -> Self {
        Self {
            content,
            decoder: Decoder::new(DecodeOptions::default()),
            reassembly: Reassembly::default(),
            recent: RecentPackets::default(),
            number: 0,
            header: None,
            left_out: LeftOut::default(),
        }
    }

    /// Takes the header of the savefile, before its packets.
    pub(super) const fn begin(&mut self, header: StoreHeader) {
        self.header = Some(header);
    }

    /// Bytes that begin every connection: the header of a savefile, or nothing.
    pub(super) fn preamble(&self) -> Bytes {
        let header = self.header.filter(|_| self.content.part == SentPart::Pcap);
        header.map_or_else(Bytes::new, |header| {
            let header = StoreHeader { precision: Precision::Nano, ..header };
            Bytes::copy_from_slice(&file_header(&header))
        })
    }

    /// Takes a packet. `is_own` says whether a connection between two ends is one of this process.
    pub(super) fn packet(
        &mut self,
        packet: &StreamPacket<'_>,
        is_own: &dyn Fn(SocketAddr, SocketAddr) -> bool,
        sink: &mut dyn FnMut(Extracted),
    ) {
        self.number += 1;
        let StreamPacket { time, original_len, data, .. } = *packet;
        let number = self.number;
        let link_type = self.header.map_or(LinkType::ETHERNET, |header| header.link_type);
        let Self { content, decoder, reassembly, recent, left_out, .. } = self;
        if content.part == SentPart::Stream {
            reassembly
                .advance(time, recent, &mut |origin, part| content.hand_on(origin, &part, sink));
        }
        match decoder.packet(link_type, number, time, original_len, data) {
            DecodeOutcome::Decoded(decoded) => {
                let earlier = decoded.fragments.len().saturating_sub(1) as u64;
                left_out.fragments = left_out.fragments.saturating_sub(earlier);
                if !content.wants(&decoded) {
                    left_out.protocol += earlier + 1;
                    return;
                }
                let ends = ends(&decoded);
                if is_own(ends.0, ends.1) {
                    left_out.own += 1;
                    return;
                }
                // Fragments and streams need the bytes of earlier packets.
                let is_kept = !decoded.fragments.is_empty() || content.part == SentPart::Stream;
                if is_kept {
                    recent.keep(number, time, original_len, data);
                }
                let key = content.key(decoded.protocol, ends);
                match content.part {
                    SentPart::Payload => payload(&decoded, key, (number, data), recent, sink),
                    SentPart::Stream => match &decoded.transport {
                        Transport::Tcp(tcp) => {
                            let mut parts = |origin: &PartOrigin, part: StreamPart<'_>| {
                                content.hand_on(origin, &part, sink);
                            };
                            reassembly.segment(&decoded, tcp, (number, time), recent, &mut parts);
                        }
                        _ => payload(&decoded, key, (number, data), recent, sink),
                    },
                    SentPart::Frames | SentPart::Pcap => {
                        for number in decoded.fragments.iter().filter(|one| **one != number) {
                            if let Some(KeptPacket { time, original_len, data, .. }) =
                                recent.packet(*number)
                            {
                                sink(content.frame(key, *time, *original_len, data));
                            }
                        }
                        sink(content.frame(key, time, original_len, data));
                    }
                }
            }
            DecodeOutcome::Fragment => {
                left_out.fragments += 1;
                recent.keep(number, time, original_len, data);
            }
            DecodeOutcome::Undecoded(_) => left_out.no_ip += 1,
        }
    }

    /// Lets time pass without a packet.
    pub(super) fn advance(&mut self, now: Timestamp, sink: &mut dyn FnMut(Extracted)) {
        let Self { content, reassembly, recent, .. } = self;
        reassembly.advance(now, recent, &mut |origin, part| content.hand_on(origin, &part, sink));
    }

    /// Returns the rest, after the last packet.
    pub(super) fn finish(&mut self, sink: &mut dyn FnMut(Extracted)) {
        let Self { content, reassembly, recent, .. } = self;
        reassembly.finish(recent, &mut |origin, part| content.hand_on(origin, &part, sink));
    }
}

impl SentContent {
    fn wants(&self, packet: &DecodedPacket<'_>) -> bool {
        let is_message = matches!(self.part, SentPart::Payload | SentPart::Stream);
        match (&packet.transport, self.protocol) {
            (Transport::Tcp(_), SentProtocol::Tcp | SentProtocol::Any) => true,
            (Transport::Udp { .. }, SentProtocol::Udp | SentProtocol::Any) => true,
            // Frames need no transport header.
            (Transport::Other, SentProtocol::Any) => !is_message,
            _ => false,
        }
    }

    const fn key(
        &self,
        protocol: u8,
        (source, destination): (SocketAddr, SocketAddr),
    ) -> SenderKey {
        match self.per {
            ConnectionPer::Source => SenderKey::Source(source.ip()),
            ConnectionPer::Flow => SenderKey::Flow { protocol, source, destination },
        }
    }

    /// A frame, or a record of a savefile with it.
    fn frame(&self, key: SenderKey, time: Timestamp, original_len: u32, data: &[u8]) -> Extracted {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let bytes = if self.part == SentPart::Pcap {
            [&record::header(time, Precision::Nano, len, original_len)[..], data].concat().into()
        } else {
            Bytes::copy_from_slice(data)
        };
        Extracted { key, bytes, missing: u64::from(original_len.saturating_sub(len)) }
    }

    fn hand_on(&self, origin: &PartOrigin, part: &StreamPart<'_>, sink: &mut dyn FnMut(Extracted)) {
        let (bytes, missing) = match part {
            StreamPart::Bytes { bytes, .. } => (Bytes::copy_from_slice(bytes), 0),
            StreamPart::Missing { length } => (Bytes::new(), *length),
            StreamPart::End { .. } => return,
        };
        sink(Extracted { key: self.key(TCP, origin.ends()), bytes, missing });
    }
}

/// Source and destination; without ports, 0 takes their place.
fn ends(packet: &DecodedPacket<'_>) -> (SocketAddr, SocketAddr) {
    let (source, destination) = match packet.transport {
        Transport::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
        Transport::Udp { source_port, destination_port } => (source_port, destination_port),
        Transport::Other => (0, 0),
    };
    (SocketAddr::new(packet.source, source), SocketAddr::new(packet.destination, destination))
}

/// Hands on the payload of a packet. Bytes that were not captured are left out and counted.
fn payload(
    packet: &DecodedPacket<'_>,
    key: SenderKey,
    (number, data): (u64, &[u8]),
    recent: &RecentPackets,
    sink: &mut dyn FnMut(Extracted),
) {
    let mut parts = packet.payload.parts().map(|part| match part.extent {
        extent if extent.packet == number => data.get(extent.range()),
        extent => recent.get(extent),
    });
    let bytes = match (parts.next(), packet.fragments.is_empty()) {
        (None, _) => Bytes::new(),
        (Some(first), true) => Bytes::copy_from_slice(first.unwrap_or_default()),
        (Some(first), false) => {
            let parts = std::iter::once(first).chain(parts).flatten();
            Bytes::from(parts.collect::<Vec<_>>().concat())
        }
    };
    let missing = u64::from(packet.payload.len()).saturating_sub(bytes.len() as u64);
    if !bytes.is_empty() || missing > 0 {
        sink(Extracted { key, bytes, missing });
    }
}
