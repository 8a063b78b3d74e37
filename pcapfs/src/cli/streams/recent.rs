//! The packets seen last, for payload that is sent later than its packet comes: that of fragments,
//! and of segments out of order.

use std::collections::VecDeque;

use protocol::decode::TcpFlags;
use protocol::extent::Extent;
use protocol::tcp::Bytes;
use protocol::time::Timestamp;

/// Maximum bytes of packets that are kept: more than the window of any connection.
const MAX_BYTES: usize = 64 << 20;

/// Maximum number of packets that are kept: small ones have more memory around them than in them.
const MAX_PACKETS: usize = 1 << 18;

/// A packet that is kept.
#[derive(Debug)]
pub(in crate::cli) struct KeptPacket {
    number: u64,
    pub(in crate::cli) time: Timestamp,
    /// Bytes on the wire.
    pub(in crate::cli) original_len: u32,
    pub(in crate::cli) data: Box<[u8]>,
    /// Of its segment, if they were noted.
    pub(in crate::cli) flags: TcpFlags,
    /// Bytes that were not handed on; `None` if that is not counted.
    needed: Option<u32>,
}

/// Packets in the order of their numbers.
#[derive(Debug, Default)]
pub(in crate::cli) struct RecentPackets {
    packets: VecDeque<KeptPacket>,
    bytes: usize,
    /// After the number of the newest packet that was kept.
    next: u64,
}

impl RecentPackets {
    /// Keeps a packet, whose number is higher than those before. The oldest ones make room.
    pub(in crate::cli) fn keep(
        &mut self,
        number: u64,
        time: Timestamp,
        original_len: u32,
        data: &[u8],
    ) {
        self.bytes += data.len();
        let (data, flags, needed) = (data.into(), TcpFlags::default(), None);
        self.packets.push_back(KeptPacket { number, time, original_len, data, flags, needed });
        self.next = number.saturating_add(1);
        while self.bytes > MAX_BYTES || self.packets.len() > MAX_PACKETS {
            let Some(oldest) = self.packets.pop_front() else { return };
            self.bytes -= oldest.data.len();
        }
    }

    /// Notes the flags of the newest packet, whose bytes are needed until this many were handed on.
    pub(in crate::cli) fn note_segment(&mut self, flags: TcpFlags, bytes: u32) {
        if let Some(newest) = self.packets.back_mut() {
            (newest.flags, newest.needed) = (flags, Some(bytes));
        }
    }

    /// Bytes of a packet were handed on. After the last of them its room is free.
    pub(in crate::cli) fn handed_on(&mut self, number: u64, bytes: u64) {
        let found = self.packets.binary_search_by_key(&number, |packet| packet.number);
        let Some(packet) = found.ok().and_then(|place| self.packets.get_mut(place)) else { return };
        let Some(needed) = packet.needed else { return };
        let needed = needed.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        packet.needed = Some(needed);
        if needed == 0 {
            self.bytes -= std::mem::take(&mut packet.data).len();
        }
        while self.packets.front().is_some_and(|oldest| oldest.needed == Some(0)) {
            self.packets.pop_front();
        }
    }

    /// Forgets packets with lower numbers.
    pub(in crate::cli) fn forget_before(&mut self, number: u64) {
        while self.packets.front().is_some_and(|oldest| oldest.number < number) {
            self.bytes -= self.packets.pop_front().map_or(0, |oldest| oldest.data.len());
        }
    }

    /// The packet with this number; `None` if it is not kept.
    pub(in crate::cli) fn packet(&self, number: u64) -> Option<&KeptPacket> {
        let place = self.packets.binary_search_by_key(&number, |packet| packet.number).ok()?;
        self.packets.get(place)
    }

    /// The lowest number that is kept; if none is, the next one.
    pub(in crate::cli) fn oldest(&self) -> u64 {
        self.packets.front().map_or(self.next, |packet| packet.number)
    }
}

impl Bytes for RecentPackets {
    fn get(&self, extent: Extent) -> Option<&[u8]> {
        self.packet(extent.packet)?.data.get(extent.range())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_packets_make_room() {
        let mut recent = RecentPackets::default();
        let data = vec![0; 1 << 20];
        for number in (10..200).step_by(2) {
            recent.keep(number, Timestamp::default(), 0, &data);
        }
        assert_eq!(recent.oldest(), 200 - 2 * 64);
        assert!(recent.packet(recent.oldest()).is_some());
        assert!(recent.packet(recent.oldest() - 2).is_none() && recent.packet(151).is_none());
        let extent = |offset| Extent { packet: 198, offset, len: 2 };
        assert_eq!(recent.get(extent(5)), Some(&[0, 0][..]));
        assert_eq!(recent.get(extent(1 << 20)), None);
        assert_eq!(recent.packets.len(), 64);
    }

    #[test]
    fn a_packet_whose_bytes_were_handed_on_takes_no_room() {
        let mut recent = RecentPackets::default();
        for number in 1..=100 {
            recent.keep(number, Timestamp::default(), 0, &[0; 100]);
            recent.note_segment(TcpFlags::ACK, 40);
            recent.handed_on(number, if number == 50 { 39 } else { 40 });
        }
        assert_eq!((recent.oldest(), recent.packets.len(), recent.bytes), (50, 51, 100));
        assert!(recent.get(Extent { packet: 50, offset: 60, len: 40 }).is_some());
        recent.handed_on(50, 1);
        assert_eq!((recent.oldest(), recent.packets.len(), recent.bytes), (101, 0, 0));
        recent.keep(101, Timestamp::default(), 0, &[0; 100]);
        recent.forget_before(102);
        assert_eq!((recent.oldest(), recent.bytes), (102, 0));
    }
}
