//! The layers of a packet. Each function adds a header before the bytes that it gets.

use std::net::{IpAddr, SocketAddr};

/// EtherType of IPv4 (IEEE 802 Numbers).
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6 (IEEE 802 Numbers).
pub const IPV6: u16 = 0x86dd;
/// Protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// Protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;
/// Hardware addresses: destination and source of a frame, as they follow each other in it.
pub const HARDWARE: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]];

/// An Ethernet frame between the addresses of [`HARDWARE`].
///
/// `tags` are the tag protocol and the control information of each VLAN tag, the outermost first
/// (IEEE 802.1Q).
#[must_use]
pub fn ethernet(tags: &[(u16, u16)], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet_header(HARDWARE, tags, ether_type);
    frame.extend_from_slice(payload);
    frame
}

/// The header of an Ethernet frame; `hardware` are destination and source.
#[must_use]
pub fn ethernet_header(hardware: [[u8; 6]; 2], tags: &[(u16, u16)], ether_type: u16) -> Vec<u8> {
    let mut header = hardware.concat();
    for (protocol, control) in tags {
        header.extend(protocol.to_be_bytes());
        header.extend(control.to_be_bytes());
    }
    header.extend(ether_type.to_be_bytes());
    header
}

/// An IP packet of the addresses' version.
#[must_use]
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4((source.octets(), destination.octets()), protocol, payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ipv6((source.octets(), destination.octets()), protocol, payload)
        }
        _ => panic!("{source} and {destination} are of two families"),
    }
}

/// An IPv4 packet without options that must not be fragmented; `addresses` are source and
/// destination.
#[must_use]
pub fn ipv4(addresses: ([u8; 4], [u8; 4]), protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_fragment(addresses, protocol, 0x4000, 7, payload)
}

/// A fragment of an IPv4 packet. `place` is the field of flags and offset (RFC 791 section 3.1).
#[must_use]
pub fn ipv4_fragment(
    addresses: ([u8; 4], [u8; 4]),
    protocol: u8,
    place: u16,
    identification: u16,
    payload: &[u8],
) -> Vec<u8> {
    let header = ipv4_header(addresses, protocol, place, identification, payload.len());
    [&header, payload].concat()
}

/// The header of [`ipv4_fragment`] before `length` bytes.
#[must_use]
pub fn ipv4_header(
    (source, destination): ([u8; 4], [u8; 4]),
    protocol: u8,
    place: u16,
    identification: u16,
    length: usize,
) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&sixteen_bits(20 + length).to_be_bytes());
    header[4..6].copy_from_slice(&identification.to_be_bytes());
    header[6..8].copy_from_slice(&place.to_be_bytes());
    header[8..10].copy_from_slice(&[64, protocol]);
    header[12..16].copy_from_slice(&source);
    header[16..].copy_from_slice(&destination);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// An IPv6 packet without extension headers; `addresses` are source and destination.
#[must_use]
pub fn ipv6(
    (source, destination): ([u8; 16], [u8; 16]),
    next_header: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(sixteen_bits(payload.len()).to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend_from_slice(payload);
    packet
}

/// A TCP segment with its checksum; `numbers` are the sequence and the acknowledgment number.
#[must_use]
pub fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    numbers: [u32; 2],
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    tcp_with_options(source, destination, numbers, flags, &[], payload)
}

/// [`tcp`] with options, whose length is a multiple of four.
#[must_use]
pub fn tcp_with_options(
    source: SocketAddr,
    destination: SocketAddr,
    numbers: [u32; 2],
    flags: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).expect("at most 40 bytes of options");
    let mut segment = ports(source.port(), destination.port());
    numbers.iter().for_each(|number| segment.extend(number.to_be_bytes()));
    segment.extend([words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(options);
    segment.extend_from_slice(payload);
    let sum = transport_checksum(source.ip(), destination.ip(), TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// A UDP datagram with its checksum.
#[must_use]
pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = udp_without_checksum(source.port(), destination.port(), payload);
    let sum = match transport_checksum(source.ip(), destination.ip(), UDP, &datagram) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// A UDP datagram whose sender made no checksum (RFC 768).
#[must_use]
pub fn udp_without_checksum(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = ports(source, destination);
    datagram.extend(sixteen_bits(8 + payload.len()).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend_from_slice(payload);
    datagram
}

/// The Internet checksum of RFC 1071.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u64 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(segment.len() + 40);
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend(u32::try_from(segment.len()).expect("a packet").to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend_from_slice(segment);
    checksum(&bytes)
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source, destination].map(u16::to_be_bytes).concat()
}

fn sixteen_bits(length: usize) -> u16 {
    u16::try_from(length).expect("a length of 16 bits")
}
