//! Puts the pieces of packets together: a packet that is longer than a frame has several.
//!
//! The one invariant: each packet that the kernel has handed over is either given on as a whole, or
//! counted as lost.

use std::num::NonZeroU64;

use super::rings::PacketPiece;

/// Bytes of a packet that are kept: the kernel makes no packets of more than 18 frames
/// (`MAX_SKB_FRAGS`), 72 KiB.
const MAX_JOINED: usize = 128 << 10;

/// A packet whose pieces are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JoinedPacket<'a> {
    /// When it was received, in nanoseconds of `CLOCK_MONOTONIC`, if that is known.
    pub(super) stamp: Option<NonZeroU64>,
    /// Its length on the wire in bytes.
    pub(super) original_len: u32,
    pub(super) data: &'a [u8],
}

/// The pieces of one queue, one after the other.
#[derive(Debug, Default)]
pub(super) struct PacketJoiner {
    /// The packet that goes on, if it has pieces so far.
    open: Option<OpenPacket>,
    /// Its bytes.
    bytes: Vec<u8>,
    /// Packets with a piece that was outside of the memory.
    lost: u64,
}

#[derive(Clone, Copy, Debug)]
struct OpenPacket {
    stamp: Option<NonZeroU64>,
    len: u32,
    is_whole: bool,
}

impl PacketJoiner {
    /// Takes the next piece, and gives on the packet that ends with it.
    #[inline]
    pub(super) fn take(&mut self, piece: PacketPiece<'_>, give: impl FnOnce(JoinedPacket<'_>)) {
        // Nearly all packets are in one frame.
        if self.open.is_none()
            && !piece.continues
            && let Some(data) = piece.data
        {
            give(JoinedPacket { stamp: piece.stamp, original_len: len_of(data), data });
            return;
        }
        let first = OpenPacket { stamp: piece.stamp, len: 0, is_whole: true };
        let packet = self.open.get_or_insert(first);
        match piece.data {
            Some(data) => {
                packet.len = packet.len.saturating_add(len_of(data));
                let room = MAX_JOINED.saturating_sub(self.bytes.len());
                self.bytes.extend_from_slice(data.get(..room).unwrap_or(data));
            }
            None => packet.is_whole = false,
        }
        if piece.continues {
            return;
        }
        if let Some(OpenPacket { stamp, len, is_whole }) = self.open.take() {
            if is_whole {
                give(JoinedPacket { stamp, original_len: len, data: &self.bytes });
            } else {
                self.lost += 1;
            }
        }
        self.bytes.clear();
    }

    /// Packets lost since the last call.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

fn len_of(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packets_are_their_pieces_one_after_the_other(
            packets in proptest::collection::vec(
                (proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..5),
                 any::<u64>(), proptest::option::weighted(0.1, 0..5_usize)),
                0..20,
            ),
        ) {
            let mut joiner = PacketJoiner::default();
            let mut given = Vec::new();
            for (pieces, stamp, missing) in &packets {
                for (number, data) in pieces.iter().enumerate() {
                    let piece = PacketPiece {
                        data: Some(&data[..]).filter(|_| *missing != Some(number)),
                        // Only that of the first piece counts.
                        stamp: NonZeroU64::new(stamp.wrapping_add(number as u64)),
                        continues: number + 1 < pieces.len(),
                    };
                    joiner.take(piece, |packet| {
                        given.push((packet.stamp, packet.original_len, packet.data.to_vec()));
                    });
                }
            }
            let is_whole = |(pieces, _, missing): &(Vec<Vec<u8>>, u64, Option<usize>)| {
                missing.is_none_or(|missing| missing >= pieces.len())
            };
            let expected: Vec<_> = packets.iter().filter(|packet| is_whole(packet)).map(
                |(pieces, stamp, _)| {
                    let data = pieces.concat();
                    (NonZeroU64::new(*stamp), u32::try_from(data.len()).unwrap(), data)
                },
            ).collect();
            let lost = packets.len() - expected.len();
            prop_assert_eq!(given, expected);
            prop_assert_eq!((joiner.take_lost(), joiner.take_lost()), (lost as u64, 0));
        }
    }

    #[test]
    fn a_packet_without_an_end_takes_a_bounded_memory() {
        let mut joiner = PacketJoiner::default();
        let frame = [7; 4096];
        for _ in 0..1000 {
            let piece = PacketPiece { data: Some(&frame), stamp: None, continues: true };
            joiner.take(piece, |_| unreachable!("it goes on"));
        }
        assert_eq!(joiner.bytes.len(), MAX_JOINED);
        let mut given = None;
        let end = PacketPiece { data: Some(&[1]), stamp: None, continues: false };
        joiner.take(end, |packet| given = Some((packet.original_len, packet.data.len())));
        assert_eq!(given, Some((4_096_001, MAX_JOINED)));
    }
}
