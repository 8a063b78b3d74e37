//! The packets seen last, for payload that is sent later than its packet comes: that of fragments,
//! and of segments out of order.

use std::collections::VecDeque;

use protocol::extent::Extent;
use protocol::tcp::Bytes;
use protocol::time::Timestamp;

/// Maximum bytes of packets that are kept: more than the window of any connection.
const MAX_BYTES: usize = 64 << 20;

/// Maximum number of packets that are kept: small ones have more memory around them than in them.
const MAX_PACKETS: usize = 1 << 18;

/// A packet that is kept.
#[derive(Debug)]
pub(super) struct KeptPacket {
    number: u64,
    pub(super) time: Timestamp,
    /// Bytes on the wire.
    pub(super) original_len: u32,
    pub(super) data: Box<[u8]>,
}

/// Packets in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct RecentPackets {
    packets: VecDeque<KeptPacket>,
    bytes: usize,
}

impl RecentPackets {
    /// Keeps a packet, whose number is higher than those before. The oldest ones make room.
    pub(super) fn keep(&mut self, number: u64, time: Timestamp, original_len: u32, data: &[u8]) {
        self.bytes += data.len();
        self.packets.push_back(KeptPacket { number, time, original_len, data: data.into() });
        while self.bytes > MAX_BYTES || self.packets.len() > MAX_PACKETS {
            let Some(oldest) = self.packets.pop_front() else { return };
            self.bytes -= oldest.data.len();
        }
    }

    /// The packet with this number; `None` if it is not kept.
    pub(super) fn packet(&self, number: u64) -> Option<&KeptPacket> {
        let place = self.packets.binary_search_by_key(&number, |packet| packet.number).ok()?;
        self.packets.get(place)
    }

    /// The lowest number that is kept.
    pub(super) fn oldest(&self) -> u64 {
        self.packets.front().map_or(0, |packet| packet.number)
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
}
