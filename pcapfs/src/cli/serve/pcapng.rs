//! A pcapng on its way: packets are cut, and there are no custom blocks, which Wireshark shows as
//! packets.
//!
//! It comes from the daemon, in this machine's byte order.

use bytes::Bytes;
use capture::savefile::MAX_BLOCK_LEN;

use super::convert::{Conversion, word};

/// Types of blocks (draft-ietf-opsawg-pcapng, 4): a packet, a description of an interface, and
/// blocks of others, to be kept in copies or not.
const PACKET: u32 = 6;
const INTERFACE: u32 = 1;
const CUSTOM: [u32; 2] = [0x0000_0bad, 0x4000_0bad];

/// Bytes of a block before its body, of one after it, and before the data of a packet.
const HEAD: usize = 8;
const TAIL: usize = 4;
const PACKET_HEAD: usize = HEAD + 20;

/// Changes a pcapng.
#[derive(Debug)]
pub(super) struct BlockConverter {
    conversion: Conversion,
    /// The beginning of a block that has not come completely.
    held: Vec<u8>,
    packets: u64,
}

/// A length with what fills it up to a multiple of four.
const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

impl BlockConverter {
    pub(super) const fn new(conversion: Conversion) -> Self {
        Self { conversion, held: Vec::new(), packets: 0 }
    }

    /// The bytes for the client after these bytes of the pcapng.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Bytes, String> {
        let mut input = std::mem::take(&mut self.held);
        input.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(input.len());
        let mut rest = input.as_slice();
        while let Some(block) = block(rest)? {
            rest = rest.get(block.len()..).unwrap_or_default();
            self.convert(block, &mut out)?;
        }
        self.held = rest.to_vec();
        Ok(out.into())
    }

    pub(super) const fn packets(&self) -> u64 {
        self.packets
    }

    fn convert(&mut self, block: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match word(block, 0) {
            kind if CUSTOM.contains(&kind) => {}
            INTERFACE => {
                let at = out.len() + HEAD + 4;
                out.extend_from_slice(block);
                let snaplen = self.conversion.stated_snaplen(word(block, HEAD + 4));
                if let Some(place) = out.get_mut(at..at + 4) {
                    place.copy_from_slice(&snaplen.to_ne_bytes());
                }
            }
            PACKET => self.packet(block, out)?,
            _ => out.extend_from_slice(block),
        }
        Ok(())
    }

    fn packet(&mut self, block: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let (length, original) = (word(block, HEAD + 12) as usize, word(block, HEAD + 16));
        let end = block.len().saturating_sub(TAIL);
        let data = block.get(PACKET_HEAD..PACKET_HEAD.saturating_add(length));
        let options = block.get(PACKET_HEAD.saturating_add(padded(length))..end);
        let (Some(data), Some(options)) = (data, options) else {
            return Err("the daemon sends a packet that is longer than its block".to_owned());
        };
        self.packets += 1;
        let data = self.conversion.cut(data);
        let fill = padded(data.len()) - data.len();
        let size = PACKET_HEAD + data.len() + fill + options.len() + TAIL;
        let size = u32::try_from(size).unwrap_or(u32::MAX).to_ne_bytes();
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_ne_bytes();
        out.extend_from_slice(&PACKET.to_ne_bytes());
        out.extend_from_slice(&size);
        out.extend_from_slice(block.get(HEAD..HEAD + 12).unwrap_or_default());
        out.extend_from_slice(&length);
        out.extend_from_slice(&original.to_ne_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice([0; 3].get(..fill).unwrap_or_default());
        out.extend_from_slice(options);
        out.extend_from_slice(&size);
        Ok(())
    }
}

/// The first block, if it has come completely.
fn block(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    if bytes.len() < HEAD {
        return Ok(None);
    }
    let length = word(bytes, 4);
    if !(12..=MAX_BLOCK_LEN).contains(&length) || !length.is_multiple_of(4) {
        return Err(format!("the daemon sends a block of {length} bytes"));
    }
    Ok(bytes.get(..length as usize))
}

#[cfg(test)]
mod tests {
    use frames::pcapng::{COMMENT, CUSTOM, IF_NAME, block, interface, packet, section};

    use super::*;

    /// Sends the blocks in pieces.
    fn sent(conversion: Conversion, blocks: &[Vec<u8>]) -> (Vec<u8>, u64) {
        let mut converter = BlockConverter::new(conversion);
        let mut sent = Vec::new();
        for piece in blocks.concat().chunks(13) {
            sent.extend_from_slice(&converter.push(piece).unwrap());
        }
        (sent, converter.packets())
    }

    fn described(snaplen: u32) -> Vec<Vec<u8>> {
        vec![section(&[]), interface(1, snaplen, &[(IF_NAME, b"eth0")])]
    }

    #[test]
    fn custom_blocks_are_left_out_and_others_stay() {
        let packets =
            [packet(0, 5, &[7; 61], 61, &[(COMMENT, b"a")]), packet(0, 6, &[8; 9], 10, &[])];
        let names = block(4, &[0; 8]);
        let with: Vec<Vec<u8>> = [
            described(0),
            vec![packets[0].clone(), block(CUSTOM, b"\xd9\x7e\0\0x\0\0\0"), names.clone()],
            vec![block(0x4000_0bad, &[0; 8]), packets[1].clone()],
        ]
        .concat();
        let without = [described(0), vec![packets[0].clone(), names, packets[1].clone()]].concat();
        assert_eq!(sent(Conversion::default(), &with), (without.concat(), 2));
    }

    #[test]
    fn packets_are_cut_and_their_interfaces_say_so() {
        let conversion = Conversion { snaplen: Some(50), ..Conversion::default() };
        for stated in [0, 65_535, 50] {
            let options: &[(u16, &[u8])] = &[(COMMENT, b"kept")];
            let blocks = [described(stated), vec![packet(0, 5, &[7; 61], 99, options)]].concat();
            let expected = [described(50), vec![packet(0, 5, &[7; 50], 99, options)]].concat();
            assert_eq!(sent(conversion.clone(), &blocks), (expected.concat(), 1));
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [
            [6_u32, 8, 0].map(u32::to_ne_bytes).concat(),
            [6_u32, 0xffff_fff0, 0].map(u32::to_ne_bytes).concat(),
        ] {
            assert!(BlockConverter::new(Conversion::default()).push(&bytes).is_err());
        }
        let mut long = [described(0), vec![packet(0, 1, &[0; 4], 4, &[])]].concat().concat();
        let at = long.len() - 4 - 4 - 8;
        long[at..at + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(BlockConverter::new(Conversion::default()).push(&long).is_err());
    }
}
