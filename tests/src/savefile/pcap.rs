//! The pcap savefile: its varieties, a writer and a strict reader.

use super::{Parser, Record};
use crate::frame;

/// Link type Ethernet.
pub const ETHERNET: u32 = 1;

/// A variety of pcap savefile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Nanoseconds in the second word of a time stamp, instead of microseconds.
    pub nanoseconds: bool,
    /// Most significant byte first.
    pub big_endian: bool,
    /// LINKTYPE_ number.
    pub link_type: u32,
    /// The maximum bytes kept of a packet.
    pub snaplen: u32,
}

impl Default for Format {
    fn default() -> Self {
        Self { nanoseconds: true, big_endian: false, link_type: ETHERNET, snaplen: 262_144 }
    }
}

impl Format {
    fn u32(self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u16(self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// The first 24 bytes of a savefile.
    #[must_use]
    pub fn header(self) -> Vec<u8> {
        let magic: u32 = if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        [
            &self.u32(magic)[..],
            &self.u16(2),
            &self.u16(4),
            &[0; 8],
            &self.u32(self.snaplen),
            &self.u32(self.link_type),
        ]
        .concat()
    }

    /// Appends one record.
    pub fn append(self, bytes: &mut Vec<u8>, timestamp: u64, data: &[u8], original_length: usize) {
        let fraction = timestamp % 1_000_000_000 / if self.nanoseconds { 1 } else { 1_000 };
        for word in [timestamp / 1_000_000_000, fraction, data.len() as u64, original_length as u64]
        {
            bytes.extend(self.u32(u32::try_from(word).expect("a field of 32 bits")));
        }
        bytes.extend_from_slice(data);
    }
}

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
