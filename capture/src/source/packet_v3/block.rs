//! The packets in a block that the kernel has handed over: bytes in, packets out.
//!
//! The kernel writes blocks, so they are right. Still nothing here depends on that: every length and
//! offset is checked. A damaged block ends with its last whole packet, and the packets after it are
//! counted.
//!
//! Sources: `struct tpacket_block_desc`, `struct tpacket3_hdr` and `struct sockaddr_ll` of
//! `linux/if_packet.h`; `tpacket_rcv` and `prb_fill_vlan_info` of `net/packet/af_packet.c`.
#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use libc::{
    TP_STATUS_VLAN_TPID_VALID, TP_STATUS_VLAN_VALID, sockaddr_ll, tpacket_block_desc, tpacket3_hdr,
};
use protocol::time::Timestamp;

/// Offset of the part of a block that [`BlockPackets`] reads: what follows the status, which the
/// kernel and this process write. It begins with the number of packets.
pub(super) const AFTER_STATUS: usize = 12;

/// Bytes of the header of a packet, and of the address after it (`TPACKET3_HDRLEN`).
const HEADER_LEN: usize = size_of::<tpacket3_hdr>();
const ADDRESS_LEN: usize = size_of::<sockaddr_ll>();

const _: () = assert!(size_of::<tpacket_block_desc>() == 48 && HEADER_LEN == 48);
const _: () = assert!(ADDRESS_LEN == 20 && libc::TPACKET3_HDRLEN == HEADER_LEN + ADDRESS_LEN);

/// `ETH_P_8021Q` of `linux/if_ether.h`: what a tag begins with, if the kernel does not say.
const TAG_PROTOCOL: u16 = 0x8100;

/// A VLAN tag that the kernel has taken out of a packet, or that the driver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TakenTag {
    /// EtherType of the tag.
    pub(super) protocol: u16,
    /// Priority and number.
    pub(super) control: u16,
}

/// What a packet socket says about a packet beside its bytes: the fields of `struct sockaddr_ll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PacketAddress {
    /// EtherType.
    pub(super) protocol: u16,
    /// Number of the interface.
    pub(super) interface: u32,
    /// `ARPHRD_` number of the interface.
    pub(super) hardware: u16,
    /// `PACKET_HOST` and others: to whom the packet goes.
    pub(super) direction: u8,
    /// Used bytes of `address`.
    pub(super) address_len: u8,
    /// Hardware address of the sender.
    pub(super) address: [u8; 8],
}

/// A packet in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockPacket<'a> {
    pub(super) time: Timestamp,
    /// Length on the wire in bytes, without a taken tag; at least that of `data`.
    pub(super) original_len: u32,
    pub(super) tag: Option<TakenTag>,
    pub(super) address: PacketAddress,
    /// The captured bytes, without a taken tag.
    pub(super) data: &'a [u8],
}

/// The packets of a block, in their order.
#[derive(Clone, Debug)]
pub(super) struct BlockPackets<'a> {
    /// The block from [`AFTER_STATUS`] on.
    bytes: &'a [u8],
    /// Offset of the next packet in `bytes`; `None` after damage.
    next: Option<usize>,
    left: u32,
}

impl<'a> BlockPackets<'a> {
    /// The packets of a block. `bytes` is the block from [`AFTER_STATUS`] on.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let left = word(0).unwrap_or(0);
        let next = word(4).and_then(|first| usize::try_from(first).ok()?.checked_sub(AFTER_STATUS));
        Self { bytes, next, left }
    }

    /// Packets of the block that have not been returned. After the last one, these are packets that
    /// damage hides.
    pub(super) const fn left(&self) -> u32 {
        self.left
    }

    #[inline]
    fn packet(&self) -> Option<(BlockPacket<'a>, usize)> {
        let start = self.next?;
        let bytes = self.bytes.get(start..)?;
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let (address, _) = rest.split_first_chunk::<ADDRESS_LEN>()?;
        let [
            next,
            seconds,
            nanoseconds,
            captured_len,
            original_len,
            status,
            offsets,
            _,
            control,
            tag,
            ..,
        ] = header.as_chunks::<4>().0
        else {
            return None;
        };
        let number = |word: &[u8; 4]| u32::from_ne_bytes(*word);
        let length = |word| usize::try_from(number(word)).ok();
        let [m0, m1, _, _] = *offsets;
        let data_at = usize::from(u16::from_ne_bytes([m0, m1]));
        let end = data_at.checked_add(length(captured_len)?)?;
        let data = bytes.get(data_at..end)?;
        let next = length(next)?;
        // Each packet is after the header of the one before, so the walk ends.
        if next < HEADER_LEN && self.left > 1 {
            return None;
        }
        let packet = BlockPacket {
            time: Timestamp::from_nanoseconds(
                u64::from(number(seconds))
                    .wrapping_mul(1_000_000_000)
                    .wrapping_add(number(nanoseconds).into()),
            ),
            original_len: number(original_len).max(number(captured_len)),
            tag: tag_of(number(status), number(control), *tag),
            address: PacketAddress::of(*address),
            data,
        };
        Some((packet, start.checked_add(next)?))
    }
}

impl<'a> Iterator for BlockPackets<'a> {
    type Item = BlockPacket<'a>;

    #[inline]
    fn next(&mut self) -> Option<BlockPacket<'a>> {
        let left = self.left.checked_sub(1)?;
        let Some((packet, next)) = self.packet() else {
            self.next = None;
            return None;
        };
        (self.next, self.left) = (Some(next), left);
        Some(packet)
    }
}

/// The tag that was taken out of a packet. `protocol` is its EtherType and two bytes of padding.
fn tag_of(status: u32, control: u32, [p0, p1, _, _]: [u8; 4]) -> Option<TakenTag> {
    if status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let protocol = if status & TP_STATUS_VLAN_TPID_VALID == 0 {
        TAG_PROTOCOL
    } else {
        u16::from_ne_bytes([p0, p1])
    };
    // The field has 32 bits, a tag has 16.
    let control = u16::try_from(control & 0xffff).unwrap_or_default();
    Some(TakenTag { protocol, control })
}

impl PacketAddress {
    fn of(bytes: [u8; ADDRESS_LEN]) -> Self {
        let [_, _, p0, p1, i0, i1, i2, i3, h0, h1, direction, address_len, address @ ..] = bytes;
        Self {
            // In the order of the network.
            protocol: u16::from_be_bytes([p0, p1]),
            interface: u32::from_ne_bytes([i0, i1, i2, i3]),
            hardware: u16::from_ne_bytes([h0, h1]),
            direction,
            address_len,
            address,
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "numbers of a few bytes"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet as the kernel puts it into a block, with room before its data as the kernel leaves
    /// it (`TPACKET_ALIGN`).
    #[derive(Clone, Debug)]
    struct Placed {
        time: (u32, u32),
        original_len: u32,
        status: u32,
        tag: (u16, u16),
        address: PacketAddress,
        data: Vec<u8>,
    }

    const DATA_AT: u16 = 82;

    impl Placed {
        fn bytes(&self, is_last: bool) -> Vec<u8> {
            let len = (usize::from(DATA_AT) + self.data.len()).next_multiple_of(16);
            let next = if is_last { 0 } else { len as u32 };
            let mut bytes = Vec::new();
            let (seconds, nanoseconds) = self.time;
            for word in
                [next, seconds, nanoseconds, self.data.len() as u32, self.original_len, self.status]
            {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend([DATA_AT.to_ne_bytes(), 96_u16.to_ne_bytes()].concat());
            bytes.extend([0; 4]);
            bytes.extend(u32::from(self.tag.1).to_ne_bytes());
            bytes.extend(self.tag.0.to_ne_bytes());
            bytes.extend([0; 10]);
            let PacketAddress { protocol, interface, hardware, direction, address_len, address } =
                self.address;
            bytes.extend(17_u16.to_ne_bytes());
            bytes.extend(protocol.to_be_bytes());
            bytes.extend(interface.to_ne_bytes());
            bytes.extend(hardware.to_ne_bytes());
            bytes.extend([direction, address_len]);
            bytes.extend(address);
            bytes.resize(DATA_AT.into(), 0);
            bytes.extend(&self.data);
            bytes.resize(len, 0);
            bytes
        }

        fn packet(&self) -> BlockPacket<'_> {
            let (seconds, nanoseconds) = self.time;
            let time = u64::from(seconds) * 1_000_000_000 + u64::from(nanoseconds);
            BlockPacket {
                time: Timestamp::from_nanoseconds(time),
                original_len: self.original_len,
                tag: (self.status & TP_STATUS_VLAN_VALID != 0).then_some(TakenTag {
                    protocol: if self.status & TP_STATUS_VLAN_TPID_VALID == 0 {
                        TAG_PROTOCOL
                    } else {
                        self.tag.0
                    },
                    control: self.tag.1,
                }),
                address: self.address,
                data: &self.data,
            }
        }
    }

    /// A block from [`AFTER_STATUS`] on.
    fn block(packets: &[Placed]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((packets.len() as u32).to_ne_bytes());
        bytes.extend(48_u32.to_ne_bytes());
        bytes.resize(48 - AFTER_STATUS, 0);
        for (number, packet) in (1..).zip(packets) {
            bytes.extend(packet.bytes(number == packets.len()));
        }
        bytes
    }

    fn placed() -> impl Strategy<Value = Placed> {
        let address = (any::<[u16; 2]>(), any::<u32>(), any::<[u8; 2]>(), any::<[u8; 8]>());
        let address = address.prop_map(|([protocol, hardware], interface, two, address)| {
            let [direction, address_len] = two;
            PacketAddress { protocol, interface, hardware, direction, address_len, address }
        });
        let data = proptest::collection::vec(any::<u8>(), 0..200);
        let status = prop_oneof![Just(1), Just(1 | 1 << 4), Just(1 | 1 << 4 | 1 << 6)];
        let rest = (any::<(u32, u32)>(), 0..2000_u32, status, any::<(u16, u16)>());
        (address, data, rest).prop_map(|(address, data, (time, more, status, tag))| Placed {
            time: (time.0, time.1 % 1_000_000_000),
            original_len: data.len() as u32 + more,
            status,
            tag,
            address,
            data,
        })
    }

    /// Damage: bytes that are replaced, and a new length.
    fn damage() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, prop::sample::Index)> {
        let byte = (any::<prop::sample::Index>(), any::<u8>());
        (proptest::collection::vec(byte, 0..20), any::<prop::sample::Index>())
    }

    proptest! {
        #[test]
        fn the_packets_of_a_block_are_those_that_were_put_into_it(
            packets in proptest::collection::vec(placed(), 0..20),
        ) {
            let bytes = block(&packets);
            let mut found = BlockPackets::new(&bytes);
            for packet in &packets {
                prop_assert_eq!(found.next(), Some(packet.packet()));
            }
            prop_assert_eq!((found.next(), found.left()), (None, 0));
        }

        #[test]
        fn a_hostile_block_gives_packets_inside_it_and_counts_the_others(
            packets in proptest::collection::vec(placed(), 0..20),
            (damage, cut) in damage(),
        ) {
            let mut bytes = block(&packets);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1).max(1));
            let mut found = BlockPackets::new(&bytes);
            let (all, range) = (found.left(), bytes.as_ptr_range());
            let mut count = 0;
            for packet in found.by_ref() {
                count += 1;
                prop_assert!(packet.original_len as usize >= packet.data.len());
                let inside = packet.data.as_ptr_range();
                prop_assert!(packet.data.is_empty() || range.start <= inside.start && inside.end <= range.end);
            }
            prop_assert_eq!(count + found.left(), all);
            prop_assert!(count as usize <= bytes.len() / HEADER_LEN, "the walk goes on");
            prop_assert_eq!(found.next(), None);
        }

        #[test]
        fn noise_is_walked_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let mut found = BlockPackets::new(&bytes);
            let all = found.left();
            let count = u32::try_from(found.by_ref().count()).unwrap();
            prop_assert_eq!(count + found.left(), all);
        }
    }
}
