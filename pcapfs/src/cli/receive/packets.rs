//! The bytes of a connection as packets of a savefile.
//!
//! A program sees only bytes, so the headers are made: addresses and ports are those of the
//! connection, and sequence numbers count its bytes from 0, with a SYN before them and a FIN or RST
//! after them. Time stamps are those of the reads.

use std::net::{IpAddr, SocketAddr};

use capture::savefile::pcapng_writer::{
    PacketBlockContent, enhanced_packet, interface_description, section_header,
};
use capture::store::{Interface, StoreHeader};
use protocol::decode::TcpFlags;
use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

/// Maximum payload bytes of one packet: with headers of 60 bytes it fits the 16 bits of the length
/// of an IP packet (RFC 791).
const MAX_PAYLOAD: usize = 65_000;

/// Bytes of the headers of IPv4, IPv6 and TCP, all without options.
const IPV4_HEADER: u16 = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;

/// Protocol number of TCP (RFC 9293), and a time to live.
const TCP: u8 = 6;
const TIME_TO_LIVE: u8 = 64;

/// The beginning of a savefile for connections to this address.
pub(super) fn savefile_header(local: SocketAddr, out: &mut Vec<u8>) {
    let snaplen = capture::savefile::DEFAULT_SNAPLEN;
    let header = StoreHeader { link_type: LinkType::RAW, precision: Precision::Nano, snaplen };
    let interface = Interface { name: Some(local.to_string()), snaplen, ..Interface::default() };
    section_header(out, &[]);
    interface_description(out, &interface, &header);
}

/// Makes the packets of one connection.
#[derive(Debug)]
pub(super) struct PacketMaker {
    peer: SocketAddr,
    local: SocketAddr,
    /// Sequence number of the next byte.
    sequence: u32,
}

impl PacketMaker {
    /// Of a connection from `peer` to `local`, whose addresses are of one family.
    pub(super) const fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self { peer, local, sequence: 0 }
    }

    /// Appends the packet that opens the connection.
    pub(super) fn opening(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        self.packet(time, TcpFlags::SYN.0, &[], out);
        self.sequence = 1;
    }

    /// Appends packets with these bytes.
    pub(super) fn data(&mut self, time: Timestamp, bytes: &[u8], out: &mut Vec<u8>) {
        for part in bytes.chunks(MAX_PAYLOAD) {
            self.packet(time, TcpFlags::ACK.0 | TcpFlags::PSH.0, part, out);
            // A part has at most MAX_PAYLOAD bytes.
            self.sequence = self.sequence.wrapping_add(u32::try_from(part.len()).unwrap_or(0));
        }
    }

    /// Appends the packet that ends the connection.
    pub(super) fn ending(&self, time: Timestamp, is_whole: bool, out: &mut Vec<u8>) {
        let end = if is_whole { TcpFlags::FIN } else { TcpFlags::RST };
        self.packet(time, TcpFlags::ACK.0 | end.0, &[], out);
    }

    fn packet(&self, time: Timestamp, flags: u8, payload: &[u8], out: &mut Vec<u8>) {
        let mut data = Vec::with_capacity(IPV6_HEADER + TCP_HEADER + payload.len());
        let segment_len = u16::try_from(TCP_HEADER + payload.len()).unwrap_or(u16::MAX);
        let pseudo = ip_header(self.peer.ip(), self.local.ip(), segment_len, &mut data);
        let at = data.len();
        data.extend(self.peer.port().to_be_bytes());
        data.extend(self.local.port().to_be_bytes());
        data.extend(self.sequence.to_be_bytes());
        // The other side is not in the savefile, and would begin with the number 0 too.
        let acknowledged = u32::from(flags & TcpFlags::ACK.0 != 0);
        data.extend(acknowledged.to_be_bytes());
        data.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        data.extend_from_slice(payload);
        let sum = checksum(pseudo + sum(data.get(at..).unwrap_or_default()));
        set(&mut data, at + 16, sum);
        let original_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let content = PacketBlockContent { interface: 0, time, original_len, data: &data };
        enhanced_packet(out, &content, Precision::Nano, &[], None);
    }
}

/// Appends an IP header, and returns the sum of its pseudo header (RFC 9293, 3.1, and RFC 8200,
/// 8.1).
fn ip_header(source: IpAddr, destination: IpAddr, payload_len: u16, out: &mut Vec<u8>) -> u64 {
    let at = out.len();
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = payload_len.saturating_add(IPV4_HEADER).to_be_bytes();
            // No options; not to be fragmented.
            out.extend([0x45, 0, total[0], total[1], 0, 0, 0x40, 0, TIME_TO_LIVE, TCP, 0, 0]);
            [source.octets(), destination.octets()].concat()
        }
        (source, destination) => {
            out.extend([0x60, 0, 0, 0]);
            out.extend(payload_len.to_be_bytes());
            out.extend([TCP, TIME_TO_LIVE]);
            [source, destination].map(octets).concat()
        }
    };
    out.extend_from_slice(&addresses);
    if addresses.len() == 8 {
        let header = checksum(sum(out.get(at..).unwrap_or_default()));
        set(out, at + 10, header);
    }
    sum(&addresses) + u64::from(TCP) + u64::from(payload_len)
}

/// An address as one of IPv6.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The sum of the words of two bytes (RFC 1071), before its carries are added.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>() + last
}

/// The checksum of a sum (RFC 1071).
fn checksum(mut sum: u64) -> [u8; 2] {
    while sum > u64::from(u16::MAX) {
        sum = (sum & u64::from(u16::MAX)) + (sum >> 16);
    }
    // Carries are added, so it fits.
    (!u16::try_from(sum).unwrap_or(u16::MAX)).to_be_bytes()
}

fn set(bytes: &mut [u8], at: usize, value: [u8; 2]) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value);
    }
}

#[cfg(test)]
mod tests {
    use capture::savefile::stream::{StreamEvent, StreamReader};

    use super::*;

    /// The packets of a savefile.
    fn packets(mut bytes: &[u8]) -> Vec<(Timestamp, Vec<u8>)> {
        let (mut reader, mut found) = (StreamReader::new(), Vec::new());
        while !bytes.is_empty() {
            let space = reader.space();
            let len = space.len().min(bytes.len());
            space[..len].copy_from_slice(&bytes[..len]);
            reader.filled(len);
            bytes = &bytes[len..];
            while let Some(event) = reader.event().unwrap() {
                if let StreamEvent::Packet(packet) = event {
                    found.push((packet.time, packet.data.to_vec()));
                }
            }
        }
        found
    }

    #[test]
    fn packets_are_those_of_a_connection() {
        for (peer, local) in [("10.0.0.1:40000", "10.0.0.2:5000"), ("[::1]:40000", "[::1]:5000")] {
            let (peer, local): (SocketAddr, SocketAddr) =
                (peer.parse().unwrap(), local.parse().unwrap());
            let mut maker = PacketMaker::new(peer, local);
            let at = Timestamp::from_nanoseconds;
            let mut out = Vec::new();
            savefile_header(local, &mut out);
            maker.opening(at(1), &mut out);
            let long = vec![7; MAX_PAYLOAD + 1];
            maker.data(at(2), &long, &mut out);
            maker.data(at(3), b"odd", &mut out);
            maker.ending(at(4), true, &mut out);
            let made = |numbers: [u32; 2], flags: u8, payload: &[u8]| {
                let segment = frames::tcp(peer, local, numbers, flags, payload);
                let mut packet = frames::ip(peer.ip(), local.ip(), frames::TCP, &segment);
                if peer.is_ipv4() {
                    // The identification, which is 7 there, and the checksum.
                    packet[4..6].fill(0);
                    packet[10..12].fill(0);
                    let sum = frames::checksum(&packet[..20]);
                    packet[10..12].copy_from_slice(&sum.to_be_bytes());
                }
                packet
            };
            let next = 1 + u32::try_from(long.len()).unwrap();
            let last = u32::try_from(MAX_PAYLOAD).unwrap();
            let expected = vec![
                (at(1), made([0, 0], frames::flags::SYN, &[])),
                (at(2), made([1, 1], 0x18, &long[..MAX_PAYLOAD])),
                (at(2), made([1 + last, 1], 0x18, &[7])),
                (at(3), made([next, 1], 0x18, b"odd")),
                (at(4), made([next + 3, 1], 0x11, &[])),
            ];
            assert_eq!(packets(&out), expected, "{peer}");
        }
    }

    #[test]
    fn a_reset_is_one() {
        let mut out = Vec::new();
        let local = "10.0.0.2:5000".parse().unwrap();
        savefile_header(local, &mut out);
        let maker = PacketMaker::new("10.0.0.1:40000".parse().unwrap(), local);
        maker.ending(Timestamp::default(), false, &mut out);
        assert_eq!(packets(&out)[0].1[20 + 13], frames::flags::RST | frames::flags::ACK);
    }
}
