//! What comes before the bytes of a packet that the kernel hands over: a tag that it has taken out,
//! or the header of a packet from any interface.
//!
//! Sources: LINKTYPE_LINUX_SLL2 (<https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>), and
//! `fix_offset` of libpcap's `pcap-linux.c` for the filters.

use libc::PACKET_OUTGOING;

use super::block::{BlockPacket, PacketAddress, TakenTag};
use crate::filter::JUMP_IF_EQUAL;
use crate::libpcap::{Instruction, LOAD_ABSOLUTE};

/// Bytes of the two addresses before the EtherType of an Ethernet frame.
const ADDRESSES_LEN: usize = 12;

/// Bytes of a VLAN tag: its EtherType, and priority and number.
const TAG_LEN: usize = 4;

/// Bytes of the header of LINKTYPE_LINUX_SLL2.
const SLL2_LEN: usize = 20;

/// Bytes that come before the rest of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PacketFront {
    bytes: [u8; SLL2_LEN + TAG_LEN],
    len: usize,
}

impl PacketFront {
    /// The bytes.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.bytes.iter_mut().skip(self.len);
        self.len += room.zip(bytes).map(|(place, byte)| *place = *byte).count();
    }

    fn push_tag(&mut self, tag: TakenTag) {
        self.push(&tag.protocol.to_be_bytes());
        self.push(&tag.control.to_be_bytes());
    }
}

/// A packet in two parts, with all that belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WholePacket<'a> {
    /// Length on the wire, with the parts that are put back.
    pub(super) original_len: u32,
    pub(super) front: PacketFront,
    pub(super) rest: &'a [u8],
}

impl<'a> WholePacket<'a> {
    /// A packet to which nothing else belongs.
    #[inline]
    pub(super) fn plain(packet: &BlockPacket<'a>) -> Self {
        let front = PacketFront::default();
        Self { original_len: packet.original_len, front, rest: packet.data }
    }

    /// An Ethernet frame. A tag is put back, unless the frame was cut before its place.
    pub(super) fn ethernet(packet: &BlockPacket<'a>) -> Self {
        let mut whole = Self::plain(packet);
        if let Some(tag) = packet.tag
            && let Some((addresses, rest)) = packet.data.split_at_checked(ADDRESSES_LEN)
        {
            whole.front.push(addresses);
            whole.front.push_tag(tag);
            whole.add(TAG_LEN);
            whole.rest = rest;
        }
        whole
    }

    /// A packet without a link header, with the header of LINKTYPE_LINUX_SLL2. A tag is put back
    /// after that header, whose protocol is then that of the tag.
    pub(super) fn cooked(packet: &BlockPacket<'a>) -> Self {
        let mut whole = Self::plain(packet);
        let PacketAddress { protocol, interface, hardware, direction, address_len, address } =
            packet.address;
        let first = packet.tag.map_or(protocol, |tag| tag.protocol);
        for field in [
            &first.to_be_bytes()[..],
            &[0, 0],
            &interface.to_be_bytes(),
            &hardware.to_be_bytes(),
            &[direction, address_len],
            &address,
        ] {
            whole.front.push(field);
        }
        whole.add(SLL2_LEN);
        if let Some(tag) = packet.tag {
            let protocol = if has_hidden_tag(packet) { INNER_TAG } else { protocol };
            whole.front.push(&tag.control.to_be_bytes());
            whole.front.push(&protocol.to_be_bytes());
            whole.add(TAG_LEN);
        }
        whole
    }

    fn add(&mut self, len: usize) {
        self.original_len =
            self.original_len.saturating_add(u32::try_from(len).unwrap_or_default());
    }
}

/// EtherTypes: of a second tag, of IPv4 and of IPv6.
const INNER_TAG: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Returns true if the bytes of a packet, whose first tag was taken out, begin with a second tag.
///
/// The kernel leaves that one where it is, and names the protocol after it (`vlan_get_protocol_dgram`
/// since Linux 6.10); earlier ones name the tag. The bytes tell: a tag has that protocol at its end,
/// where an IP packet has another number, unless it has a length that it cannot have.
fn has_hidden_tag(packet: &BlockPacket<'_>) -> bool {
    let protocol = packet.address.protocol;
    let Some([first, _, p0, p1, l0, l1, ..]) = packet.data.first_chunk::<6>() else {
        return false;
    };
    if u16::from_be_bytes([*p0, *p1]) != protocol {
        return false;
    }
    let (version, len) = match protocol {
        // The total length is where the protocol of a tag is.
        IPV4 => (4, u32::from(protocol)),
        IPV6 => (6, u32::from(u16::from_be_bytes([*l0, *l1])) + 40),
        _ => return false,
    };
    first >> 4 != version || len > packet.original_len
}

/// `ldb [k]`, `ldh [k]` and `ld [k]`.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_WORD: u16 = 0x20;

/// Bits of a code for its class, and two classes: loads into the accumulator, and into the index
/// register.
const CLASS: u16 = 0x07;
const INTO_ACCUMULATOR: u16 = 0x00;
const INTO_INDEX: u16 = 0x01;

/// Bits of a code for the mode of a load, and modes that read the packet beside [`LOAD_ABSOLUTE`]:
/// after the index register, and the length of an IPv4 header.
const MODE: u16 = 0xe0;
const INDIRECT: u16 = 0x40;
const HEADER_LENGTH: u16 = 0xa0;

/// Offsets at which a load gives what the kernel knows of a packet: `SKF_AD_OFF` and the names in
/// `linux/filter.h`.
const PROTOCOL: u32 = 0xffff_f000;
const DIRECTION: u32 = 0xffff_f004;
const INTERFACE: u32 = 0xffff_f008;
const HARDWARE: u32 = 0xffff_f01c;

/// The program for a socket whose packets have no link header, from one for packets of
/// LINKTYPE_LINUX_SLL2; `None` if it loads what the kernel cannot give.
pub(super) fn without_header(program: &[Instruction]) -> Option<Vec<Instruction>> {
    program.iter().map(|instruction| instruction_without_header(*instruction)).collect()
}

fn instruction_without_header(instruction: Instruction) -> Option<Instruction> {
    let Instruction { code, operand, .. } = instruction;
    let reads_packet = matches!(
        (code & CLASS, code & MODE),
        (INTO_ACCUMULATOR, LOAD_ABSOLUTE | INDIRECT) | (INTO_INDEX, HEADER_LENGTH)
    );
    if !reads_packet || instruction.asks_the_kernel() {
        return Some(instruction);
    }
    let header_len = u32::try_from(SLL2_LEN).unwrap_or_default();
    let operand = match (code, operand) {
        (_, operand) if operand >= header_len => operand - header_len,
        (LOAD_HALF, 0) => PROTOCOL,
        (LOAD_WORD, 4) => INTERFACE,
        (LOAD_HALF, 8) => HARDWARE,
        (LOAD_BYTE, 10) => DIRECTION,
        _ => return None,
    };
    Some(Instruction { operand, ..instruction })
}

/// Number of the loopback interface in every network namespace: `LOOPBACK_IFINDEX` of
/// `net/flow.h`.
pub(super) const LOOPBACK: u32 = 1;

/// The program without the packets that leave through the loopback interface. Each of them comes
/// in again.
pub(super) fn without_loops(mut program: Vec<Instruction>) -> Vec<Instruction> {
    let load = |code, operand| Instruction { code, jump_true: 0, jump_false: 0, operand };
    let unless = |operand: u32, jump_false| Instruction {
        code: JUMP_IF_EQUAL,
        jump_true: 0,
        jump_false,
        operand,
    };
    let before = [
        load(LOAD_BYTE, DIRECTION),
        unless(PACKET_OUTGOING.into(), 3),
        load(LOAD_WORD, INTERFACE),
        unless(LOOPBACK, 1),
        Instruction::returning(0),
    ];
    program.splice(0..0, before);
    program
}

#[cfg(test)]
mod tests {
    use protocol::linktype::LinkType;
    use protocol::time::Timestamp;

    use super::*;
    use crate::filter::Filter;
    use crate::libpcap;

    const ADDRESS: PacketAddress = PacketAddress {
        protocol: 0x0800,
        interface: 0x0102_0304,
        hardware: 1,
        direction: PACKET_OUTGOING,
        address_len: 6,
        address: [1, 2, 3, 4, 5, 6, 0, 0],
    };

    fn packet(tag: Option<TakenTag>, data: &[u8]) -> BlockPacket<'_> {
        let original_len = u32::try_from(data.len()).unwrap() + 100;
        BlockPacket { time: Timestamp::default(), original_len, tag, address: ADDRESS, data }
    }

    fn whole(packet: WholePacket<'_>) -> (u32, Vec<u8>) {
        (packet.original_len, [packet.front.bytes(), packet.rest].concat())
    }

    const TAG: TakenTag = TakenTag { protocol: 0x88a8, control: 0xa007 };

    #[test]
    fn a_tag_is_put_back_after_the_addresses() {
        let frame: Vec<u8> = (0..60).collect();
        let plain = whole(WholePacket::ethernet(&packet(None, &frame)));
        assert_eq!(plain, (160, frame.clone()));
        let (len, tagged) = whole(WholePacket::ethernet(&packet(Some(TAG), &frame)));
        assert_eq!(len, 164);
        assert_eq!(tagged, [&frame[..12], &[0x88, 0xa8, 0xa0, 0x07], &frame[12..]].concat());
        // Cut right after the addresses, and before.
        let (len, tagged) = whole(WholePacket::ethernet(&packet(Some(TAG), &frame[..12])));
        assert_eq!((len, tagged.len()), (116, 16));
        let (len, short) = whole(WholePacket::ethernet(&packet(Some(TAG), &frame[..11])));
        assert_eq!((len, short), (111, frame[..11].to_vec()));
    }

    #[test]
    fn packets_of_all_interfaces_have_a_header() {
        let header = |protocol: [u8; 2]| {
            let rest = [0, 0, 1, 2, 3, 4, 0, 1, 4, 6, 1, 2, 3, 4, 5, 6, 0, 0];
            [&protocol[..], &rest].concat()
        };
        let (len, plain) = whole(WholePacket::cooked(&packet(None, b"data")));
        assert_eq!((len, plain), (124, [&header([8, 0])[..], b"data"].concat()));
        let (len, tagged) = whole(WholePacket::cooked(&packet(Some(TAG), b"data")));
        let after = [0xa0, 0x07, 8, 0];
        assert_eq!((len, tagged), (128, [&header([0x88, 0xa8])[..], &after, b"data"].concat()));
    }

    #[test]
    fn a_second_tag_that_the_kernel_does_not_name_is_found() {
        let [from, to] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(std::net::IpAddr::from);
        let [from6, to6] = ["fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
        for (protocol, data) in [
            (IPV4, frames::ip(from, to, frames::TCP, &[7; 40])),
            (IPV6, frames::ip(from6, to6, frames::TCP, &[7; 40])),
        ] {
            let of = |data: &[u8]| {
                let address = PacketAddress { protocol, ..ADDRESS };
                let original_len = u32::try_from(data.len()).unwrap();
                has_hidden_tag(&BlockPacket { address, original_len, ..packet(Some(TAG), data) })
            };
            assert!(!of(&data), "{protocol:x}");
            // All priorities and numbers, also those that look like the version of the protocol.
            for control in (0..=u16::MAX).step_by(5) {
                let tag = [control.to_be_bytes(), protocol.to_be_bytes()].concat();
                assert!(of(&[&tag[..], &data].concat()), "{protocol:x} {control:x}");
            }
            assert!(!of(&data[..5]));
        }
    }

    /// The answer of a program to a packet of which the kernel knows `ADDRESS`. Outside of the
    /// kernel the loads of that are out of bounds, so the test loads constants.
    fn matches(program: &[Instruction], data: &[u8]) -> bool {
        let program: Vec<Instruction> = program
            .iter()
            .map(|instruction| {
                let value = match instruction.operand {
                    PROTOCOL => ADDRESS.protocol.into(),
                    DIRECTION => ADDRESS.direction.into(),
                    INTERFACE => ADDRESS.interface,
                    HARDWARE => ADDRESS.hardware.into(),
                    _ => return *instruction,
                };
                Instruction { code: 0, operand: value, ..*instruction }
            })
            .collect();
        assert!(libpcap::is_valid(&program));
        libpcap::matches(&program, 1000, data)
    }

    #[test]
    fn filters_for_cooked_packets_are_those_for_packets_without_a_header() {
        let [from, to] =
            [([10, 0, 0, 1], 40_000), ([10, 0, 0, 2], 80)].map(std::net::SocketAddr::from);
        let segment = frames::tcp(from, to, [0, 0], 0, b"");
        let data = frames::ip(from.ip(), to.ip(), frames::TCP, &segment);
        let (_, cooked) = whole(WholePacket::cooked(&packet(None, &data)));
        for (expression, expected) in [
            ("", true),
            ("tcp port 80", true),
            ("tcp port 81", false),
            ("udp", false),
            ("outbound and host 10.0.0.1", true),
            ("inbound", false),
            ("ifindex 16909060", true),
            ("ifindex 3", false),
            ("ip6 or tcp[13] = 0", true),
            ("link[8:2] = 1 and ip", true),
        ] {
            let filter = Filter::compile(expression, LinkType::LINUX_SLL2).unwrap();
            assert_eq!(filter.matches(1000, &cooked), expected, "{expression}");
            let program = without_header(&filter.program(500)).unwrap();
            assert_eq!(matches(&program, &data), expected, "{expression}");
        }
        // The kernel does not give these to a filter.
        for expression in ["link[11] = 6", "link[12] = 1", "link[0] = 8", "link[4:2] = 0x0102"] {
            let filter = Filter::compile(expression, LinkType::LINUX_SLL2).unwrap();
            assert_eq!(without_header(&filter.program(500)), None, "{expression}");
        }
    }

    #[test]
    fn only_what_leaves_through_the_loopback_interface_is_left_out() {
        let program = without_loops(vec![Instruction::returning(7)]);
        let at = |direction: u8, interface: u32| {
            let program: Vec<Instruction> = program
                .iter()
                .map(|instruction| match instruction.operand {
                    DIRECTION => Instruction { code: 0, operand: direction.into(), ..*instruction },
                    INTERFACE => Instruction { code: 0, operand: interface, ..*instruction },
                    _ => *instruction,
                })
                .collect();
            assert!(libpcap::is_valid(&program));
            libpcap::matches(&program, 60, &[0; 60])
        };
        assert!(!at(PACKET_OUTGOING, LOOPBACK));
        assert!(at(PACKET_OUTGOING, 2) && at(0, LOOPBACK) && at(3, 2));
    }
}
