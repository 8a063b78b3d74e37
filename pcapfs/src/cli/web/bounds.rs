//! The end of a savefile: after a number of packets or bytes, or after an order to end, and always
//! after a whole packet.
//!
//! It comes from the daemon, in this machine's byte order. Only the heads of records are looked at,
//! and no byte of a packet is copied.

use bytes::Bytes;
use capture::record::HEADER_LEN;
use capture::savefile::{MAX_BLOCK_LEN, MAX_CAPTURED_LEN};

use crate::cli::serve::convert::word;
use crate::control::messages::Format;

/// Bytes of the header of a pcap (draft-ietf-opsawg-pcap, 4).
const FILE_HEADER_LEN: usize = 24;

/// Bytes at the start of a pcapng block: type and length (draft-ietf-opsawg-pcapng, 3.1).
const BLOCK_HEAD_LEN: usize = 8;

/// Types of pcapng blocks without which no packet can be read: section and interface.
const DESCRIPTIONS: [u32; 2] = [0x0a0d_0d0a, 1];

/// Types of pcapng blocks that are packets: packet (obsolete), simple packet, enhanced packet.
const PACKETS: [u32; 3] = [2, 3, 6];

/// The bounds of a savefile.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SavefileBounds {
    pub(super) packets: Option<u64>,
    /// The packet that would make it longer is not in it. Its descriptions are, whatever their
    /// length.
    pub(super) bytes: Option<u64>,
}

/// A savefile on its way, up to its bounds.
#[derive(Debug)]
pub(super) struct BoundedSavefile {
    is_pcapng: bool,
    bounds: SavefileBounds,
    /// The beginning of a head that came in pieces.
    held: Vec<u8>,
    /// The head that comes next, or is held, is that of the file.
    is_at_start: bool,
    /// Bytes until the end of the record whose head has come.
    left: u64,
    packets: u64,
    bytes: u64,
    /// It is to end with the record on the way.
    is_last: bool,
    has_ended: bool,
}

/// A record, as its head states it.
#[derive(Clone, Copy, Debug)]
struct RecordHead {
    /// Bytes, the head included.
    length: u64,
    is_packet: bool,
    /// It is sent whatever the bounds say.
    is_description: bool,
}

impl BoundedSavefile {
    pub(super) fn new(format: Format, bounds: SavefileBounds) -> Self {
        Self {
            is_pcapng: format == Format::Pcapng,
            bounds,
            held: Vec::new(),
            is_at_start: true,
            left: 0,
            packets: 0,
            bytes: 0,
            is_last: false,
            has_ended: false,
        }
    }

    /// Appends to `out` what is within the bounds of the next bytes of the savefile.
    ///
    /// # Errors
    /// The savefile is malformed.
    pub(super) fn push(&mut self, bytes: &Bytes, out: &mut Vec<Bytes>) -> Result<(), String> {
        // The first byte that is not yet in `out`, and the first one that is not yet admitted.
        let (mut from, mut at) = (0, 0);
        while !self.has_ended {
            let rest = bytes.get(at..).unwrap_or_default();
            if self.left > 0 {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                at += here;
                self.left -= here as u64;
                if self.left > 0 {
                    break;
                }
                self.end_between();
                continue;
            }
            let wanted = self.head_len();
            let Some(part) = rest.get(..wanted.saturating_sub(self.held.len())) else {
                self.held.extend_from_slice(rest);
                push_slice(bytes, from, at, out);
                return Ok(());
            };
            let head = if self.held.is_empty() {
                self.head(part)?
            } else {
                self.head(&[&self.held, part].concat())?
            };
            if !self.admits(head) {
                self.has_ended = true;
                break;
            }
            self.is_at_start = false;
            self.packets += u64::from(head.is_packet);
            self.bytes = self.bytes.saturating_add(head.length);
            self.left = head.length.saturating_sub(self.held.len() as u64);
            if !self.held.is_empty() {
                // They were the last bytes before these.
                out.push(std::mem::take(&mut self.held).into());
                from = at;
            }
        }
        push_slice(bytes, from, at, out);
        Ok(())
    }

    /// Has it end with the record that is on the way.
    pub(super) fn finish(&mut self) {
        self.is_last = true;
        if self.left == 0 {
            self.has_ended = true;
        }
    }

    /// True once it is complete.
    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn end_between(&mut self) {
        let has_all = self.bounds.packets.is_some_and(|most| self.packets >= most);
        self.has_ended = self.is_last || has_all;
    }

    const fn head_len(&self) -> usize {
        match (self.is_pcapng, self.is_at_start) {
            (true, _) => BLOCK_HEAD_LEN,
            (false, true) => FILE_HEADER_LEN,
            (false, false) => HEADER_LEN,
        }
    }

    fn head(&self, bytes: &[u8]) -> Result<RecordHead, String> {
        if self.is_pcapng {
            let (kind, length) = (word(bytes, 0), word(bytes, 4));
            let is_fitting = (12..=MAX_BLOCK_LEN).contains(&length);
            if !is_fitting {
                return Err(format!("the daemon sends a block of {length} bytes"));
            }
            return Ok(RecordHead {
                length: length.into(),
                is_packet: PACKETS.contains(&kind),
                is_description: DESCRIPTIONS.contains(&kind),
            });
        }
        if self.is_at_start {
            let length = FILE_HEADER_LEN as u64;
            return Ok(RecordHead { length, is_packet: false, is_description: true });
        }
        let captured = word(bytes, 8);
        if captured > MAX_CAPTURED_LEN {
            return Err(format!("the daemon sends a packet of {captured} bytes"));
        }
        let length = HEADER_LEN as u64 + u64::from(captured);
        Ok(RecordHead { length, is_packet: true, is_description: false })
    }

    fn admits(&self, head: RecordHead) -> bool {
        let length = self.bytes.saturating_add(head.length);
        head.is_description || self.bounds.bytes.is_none_or(|most| length <= most)
    }
}

fn push_slice(bytes: &Bytes, from: usize, to: usize, out: &mut Vec<Bytes>) {
    if from < to {
        out.push(bytes.slice(from..to));
    }
}

#[cfg(test)]
mod tests {
    use frames::Format as PcapFormat;

    use super::*;

    /// A pcap with packets of these lengths.
    fn pcap(lengths: &[usize]) -> Vec<u8> {
        let format =
            PcapFormat { big_endian: cfg!(target_endian = "big"), ..PcapFormat::default() };
        let mut bytes = format.header();
        for (number, length) in (1..).zip(lengths) {
            format.append(&mut bytes, number * 1_000_000_001, &vec![7; *length], *length);
        }
        bytes
    }

    fn block(kind: u32, length: u32) -> Vec<u8> {
        let mut bytes = [kind.to_ne_bytes(), length.to_ne_bytes()].concat();
        bytes.resize(length as usize, 1);
        bytes
    }

    /// The bytes that pass, of some that come in pieces of this size.
    fn passed(mut savefile: BoundedSavefile, bytes: &[u8], size: usize) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            savefile.push(&Bytes::copy_from_slice(piece), &mut out).unwrap();
        }
        (out.concat(), savefile.has_ended())
    }

    #[test]
    fn a_pcap_ends_after_its_packets_or_before_too_many_bytes() {
        let bytes = pcap(&[10, 60, 0, 300]);
        // Ends of the header and of the packets.
        let ends = [24, 50, 126, 142, 458];
        for size in [1, 7, 16, 24, 25, 1000] {
            let of = |bounds| passed(BoundedSavefile::new(Format::Pcap, bounds), &bytes, size);
            assert_eq!(of(SavefileBounds::default()), (bytes.clone(), false));
            for packets in 1..=4 {
                let bounds = SavefileBounds { packets: Some(packets as u64), bytes: None };
                assert_eq!(of(bounds), (bytes[..ends[packets]].to_vec(), true), "{packets}");
            }
            for most in 1..600 {
                let bounds = SavefileBounds { packets: None, bytes: Some(most) };
                let fitting = ends.iter().rev().find(|end| **end as u64 <= most).unwrap_or(&24);
                let wanted = (bytes[..*fitting].to_vec(), *fitting < bytes.len());
                assert_eq!(of(bounds), wanted, "{most}");
            }
        }
    }

    #[test]
    fn a_pcapng_counts_packets_and_keeps_its_descriptions() {
        let parts = [
            block(0x0a0d_0d0a, 40),
            block(1, 32),
            block(5, 24),
            block(6, 100),
            block(1, 20),
            block(3, 16),
            block(6, 12),
        ];
        let bytes = parts.concat();
        for size in [1, 3, 8, 1000] {
            let of = |bounds| passed(BoundedSavefile::new(Format::Pcapng, bounds), &bytes, size);
            assert_eq!(of(SavefileBounds::default()), (bytes.clone(), false));
            let two = SavefileBounds { packets: Some(2), bytes: None };
            assert_eq!(of(two), (parts[..6].concat(), true));
            let short = SavefileBounds { packets: None, bytes: Some(50) };
            assert_eq!(of(short), (parts[..2].concat(), true), "no room for statistics");
            let longer = SavefileBounds { packets: None, bytes: Some(196) };
            assert_eq!(of(longer), (parts[..5].concat(), true));
        }
    }

    #[test]
    fn an_order_to_end_waits_for_the_packet_on_the_way() {
        let bytes = pcap(&[10, 60]);
        for cut in 0..bytes.len() {
            let (sent, rest) = bytes.split_at(cut);
            let mut savefile = BoundedSavefile::new(Format::Pcap, SavefileBounds::default());
            let mut out = Vec::new();
            savefile.push(&Bytes::copy_from_slice(sent), &mut out).unwrap();
            savefile.finish();
            savefile.push(&Bytes::copy_from_slice(rest), &mut out).unwrap();
            let length = out.concat().len();
            assert!(savefile.has_ended() || length == bytes.len());
            assert!([0, 24, 50, 126].contains(&length), "{cut}: {length}");
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let push = |format, bytes: Vec<u8>| {
            let mut savefile = BoundedSavefile::new(format, SavefileBounds::default());
            savefile.push(&bytes.into(), &mut Vec::new())
        };
        assert!(push(Format::Pcap, [pcap(&[]), vec![0xff; 16]].concat()).is_err());
        assert!(push(Format::Pcapng, vec![0; 8]).is_err());
        assert!(push(Format::Pcapng, vec![0xff; 8]).is_err());
    }
}
