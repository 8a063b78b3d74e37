//! The pcap savefile: a strict reader, and savefiles of numbered packets.

use frames::Format;

use super::{Parser, Record};
use crate::frame;

/// Time stamp of the numbered packet `sequence`: 1 us and 1 ns apart, so that it shows the order,
/// the resolution and a carry. Nanoseconds since the Unix epoch.
#[must_use]
pub const fn timestamp(sequence: u64) -> u64 {
    1_700_000_000_999_000_000 + sequence * 1_001
}

/// Appends the record of the numbered Ethernet packet `sequence`.
pub fn append_numbered(bytes: &mut Vec<u8>, format: Format, sequence: u64, payload_length: usize) {
    let frame = frame::ethernet(sequence, payload_length);
    let kept = frame.len().min(usize::try_from(format.snaplen).expect("64 bits"));
    format.append(bytes, timestamp(sequence), &frame[..kept], frame.len());
}

/// A whole savefile of the numbered packets 1 to `count`.
#[must_use]
pub fn numbered(format: Format, count: u64, payload_length: usize) -> Vec<u8> {
    let mut bytes = format.header();
    for sequence in 1..=count {
        append_numbered(&mut bytes, format, sequence, payload_length);
    }
    bytes
}

/// Reads pcap of any byte order and resolution.
#[derive(Debug, Default)]
pub struct PcapParser {
    format: Option<Format>,
    rest: Vec<u8>,
}

impl PcapParser {
    /// The format in the header, once the header is complete.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    fn read_u32(format: Format, bytes: &[u8]) -> u32 {
        let bytes = bytes[..4].try_into().expect("four bytes");
        if format.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn header(bytes: &[u8]) -> Result<Format, String> {
        let (nanoseconds, big_endian) = match &bytes[..4] {
            [0x4d, 0x3c, 0xb2, 0xa1] => (true, false),
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, false),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, true),
            [0xa1, 0xb2, 0xc3, 0xd4] => (false, true),
            magic => return Err(format!("{magic:02x?} is no magic of a savefile")),
        };
        let format = Format { nanoseconds, big_endian, link_type: 0, snaplen: 0 };
        let version = [format.u16(2), format.u16(4)].concat();
        if bytes[4..8] != version || bytes[8..16] != [0; 8] {
            return Err(format!("version, zone or accuracy in the header {:02x?}", &bytes[..24]));
        }
        let link_type = Self::read_u32(format, &bytes[20..]);
        Ok(Format { snaplen: Self::read_u32(format, &bytes[16..]), link_type, ..format })
    }
}

impl Parser for PcapParser {
    fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        self.rest.extend_from_slice(bytes);
        let mut used = 0;
        if self.format.is_none() && self.rest.len() >= 24 {
            self.format = Some(Self::header(&self.rest)?);
            used = 24;
        }
        if let Some(format) = self.format {
            while let Some(header) = self.rest.get(used..used + 16) {
                let word = |index: usize| Self::read_u32(format, &header[4 * index..]);
                let (seconds, fraction, kept, original_length) =
                    (word(0), word(1), word(2), word(3));
                let unit = if format.nanoseconds { 1 } else { 1_000 };
                let fraction = u64::from(fraction) * unit;
                if fraction >= 1_000_000_000
                    || kept > original_length
                    || (format.snaplen > 0 && kept > format.snaplen)
                {
                    return Err(format!("no record header: {header:02x?}"));
                }
                let end = used + 16 + usize::try_from(kept).expect("64 bits");
                let Some(data) = self.rest.get(used + 16..end) else {
                    break;
                };
                each(Record {
                    timestamp: u64::from(seconds) * 1_000_000_000 + fraction,
                    link_type: format.link_type,
                    interface: 0,
                    original_length,
                    data,
                    comment: None,
                })?;
                used = end;
            }
        }
        self.rest.drain(..used);
        Ok(())
    }

    fn rest(&self) -> &[u8] {
        &self.rest
    }
}
