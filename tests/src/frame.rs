//! Packets with their numbers in them.
//!
//! Every packet that the tests send is UDP over IPv4. Its payload is a magic, the packet's sequence
//! number, and filler made from that number. So a reader can check that it is the right packet and
//! that each of its bytes is right.

use frames::{HARDWARE, IPV4, UDP, ethernet_header, ipv4_header};

/// First bytes of every payload.
pub const MAGIC: [u8; 8] = *b"PcApFsT1";
/// Bytes of the Ethernet, IPv4 and UDP headers before the payload.
pub const HEADERS: usize = 42;
/// Smallest payload: magic and sequence number.
pub const MIN_PAYLOAD: usize = 16;
/// UDP port packets are sent from.
pub const SOURCE_PORT: u16 = 40_000;
/// UDP port packets are sent to.
pub const PORT: u16 = 40_001;

/// The payload of packet `sequence`, `length` bytes (at least [`MIN_PAYLOAD`]).
#[must_use]
pub fn payload(sequence: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_payload(&mut bytes, sequence, length);
    bytes
}

fn append_payload(bytes: &mut Vec<u8>, sequence: u64, length: usize) {
    assert!(length >= MIN_PAYLOAD, "a payload of {length} bytes has no room for its number");
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(filler(sequence, length));
}

/// Bytes 0 to 255 again and again, as many as the longest payload and the first offset need.
static CYCLE: [u8; 0x1_0100] = {
    let mut bytes = [0; 0x1_0100];
    let mut index = 1;
    while index < bytes.len() {
        bytes[index] = u8::wrapping_add(bytes[index - 1], 1);
        index += 1;
    }
    bytes
};

/// The payload of packet `sequence` after its number: bytes that count up from one derived from it.
fn filler(sequence: u64, length: usize) -> &'static [u8] {
    let [low, ..] = sequence.to_le_bytes();
    &CYCLE[usize::from(low.wrapping_mul(31))..][MIN_PAYLOAD..length]
}

/// A whole Ethernet frame with the [`payload`] of packet `sequence`.
#[must_use]
pub fn ethernet(sequence: u64, payload_length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADERS + payload_length);
    append_ethernet(&mut frame, sequence, payload_length);
    frame
}

/// Appends the frame that [`ethernet`] makes to `frame`.
pub fn append_ethernet(frame: &mut Vec<u8>, sequence: u64, payload_length: usize) {
    let udp_length = 8 + payload_length;
    let addresses = ([10, 0, 0, 1], [10, 0, 0, 2]);
    frame.extend(ethernet_header(HARDWARE, &[], IPV4));
    frame.extend(ipv4_header(addresses, UDP, 0, 0, udp_length));
    frame.extend_from_slice(&SOURCE_PORT.to_be_bytes());
    frame.extend_from_slice(&PORT.to_be_bytes());
    let udp_length = u16::try_from(udp_length).expect("a payload that fits in UDP");
    frame.extend_from_slice(&udp_length.to_be_bytes());
    frame.extend_from_slice(&[0, 0]); // no UDP checksum
    append_payload(frame, sequence, payload_length);
}

/// The sequence number of a captured test packet, after a check of every captured byte.
///
/// `data` may have been cut by a snaplen, but not before the number; `original_length` is the
/// length on the wire. Understands Ethernet (with one VLAN tag), raw IP, SLL and SLL2.
///
/// # Errors
/// The mistake in the packet.
pub fn sequence(link_type: u32, data: &[u8], original_length: usize) -> Result<u64, String> {
    let wrong = |what: &str| Err(format!("{what} in packet {:02x?}", &data[..data.len().min(64)]));
    let link_header = match link_type {
        1 if data.get(12..14) == Some(&[0x81, 0]) => 18,
        1 => 14,
        101 => 0,
        113 => 16,
        276 => 20,
        other => return Err(format!("link type {other} is none the tests know")),
    };
    let Some(ip) = data.get(link_header..link_header + 20) else {
        return wrong("no whole IPv4 header");
    };
    if ip[0] != 0x45 || ip[9] != 17 {
        return wrong("no plain UDP over IPv4");
    }
    let total_length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let Some(payload) = data.get(link_header + 28..) else {
        return wrong("no whole UDP header");
    };
    if payload.len() < MIN_PAYLOAD || payload[..8] != MAGIC {
        return wrong("no payload of ours");
    }
    let padded = original_length <= 60;
    if link_header + total_length != original_length && !padded {
        return wrong("a length on the wire that is not the packet's own");
    }
    let number = u64::from_be_bytes(payload[8..16].try_into().expect("eight bytes"));
    let end = payload.len().min(total_length - 28);
    if payload[MIN_PAYLOAD..end] != *filler(number, end) {
        return Err(format!("packet {number} has a wrong byte: {:02x?}", &payload[..end]));
    }
    Ok(number)
}
