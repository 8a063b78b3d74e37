//! A pcap on its way: its packets counted, or cut and with shorter times.
//!
//! It comes from the daemon, in this machine's byte order. A record that is longer than any that a
//! daemon makes is an error, so no length makes a buffer grow without bound.

use bytes::Bytes;
use capture::record::HEADER_LEN;
use capture::savefile::MAX_CAPTURED_LEN;

use super::convert::{Conversion, word};

/// Bytes of the header of a pcap (draft-ietf-opsawg-pcap, 4).
const FILE_HEADER_LEN: usize = 24;

/// The first four bytes of a pcap with microseconds, and with nanoseconds.
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

/// Counts the packets of a pcap that is passed on as it is, and knows where they end.
#[derive(Debug)]
pub(super) struct PcapMeter {
    /// The beginning of a header, if it came in pieces.
    held: Vec<u8>,
    /// The header that comes next, or is held, is that of the file.
    is_at_start: bool,
    /// Bytes until the end of the record whose header has come.
    left: usize,
    packets: u64,
}

impl Default for PcapMeter {
    fn default() -> Self {
        Self { held: Vec::new(), is_at_start: true, left: 0, packets: 0 }
    }
}

impl PcapMeter {
    /// The same bytes; if they are the last ones, only up to the end of the packet on the way.
    pub(super) fn push(&mut self, bytes: Bytes, is_last: bool) -> Bytes {
        let mut at = 0;
        loop {
            let skipped = self.left.min(bytes.len().saturating_sub(at));
            at += skipped;
            self.left -= skipped;
            if self.left > 0 || at == bytes.len() || (is_last && self.is_between_packets()) {
                return bytes.slice(..at);
            }
            let wanted = if self.is_at_start { FILE_HEADER_LEN } else { HEADER_LEN };
            let rest = bytes.get(at..).unwrap_or_default();
            let taken = rest.len().min(wanted - self.held.len());
            let part = rest.get(..taken).unwrap_or_default();
            // Nearly all headers come in one piece.
            let length = if self.held.is_empty() && taken == wanted {
                word(part, 8)
            } else {
                self.held.extend_from_slice(part);
                word(&self.held, 8)
            };
            at += taken;
            if self.held.len() < wanted && taken < wanted {
                return bytes;
            }
            self.held.clear();
            if std::mem::take(&mut self.is_at_start) {
                continue;
            }
            self.packets += 1;
            self.left = length as usize;
        }
    }

    /// True if the bytes so far end with a packet.
    pub(super) const fn is_between_packets(&self) -> bool {
        self.left == 0 && self.held.is_empty()
    }

    pub(super) const fn packets(&self) -> u64 {
        self.packets
    }
}

/// Changes a pcap.
#[derive(Debug)]
pub(super) struct PcapConverter {
    conversion: Conversion,
    /// The beginning of a record that has not come completely.
    held: Vec<u8>,
    /// Units of the time stamps for one of those that are sent, once the header of the file has
    /// come.
    divisor: Option<u32>,
    packets: u64,
}

impl PcapConverter {
    pub(super) const fn new(conversion: Conversion) -> Self {
        Self { conversion, held: Vec::new(), divisor: None, packets: 0 }
    }

    /// The bytes for the client after these bytes of the pcap.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Bytes, String> {
        let mut input = std::mem::take(&mut self.held);
        input.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(input.len());
        let mut rest = input.as_slice();
        if self.divisor.is_none()
            && let Some((header, records)) = rest.split_at_checked(FILE_HEADER_LEN)
        {
            self.divisor = Some(self.begin(header, &mut out)?);
            rest = records;
        }
        if let Some(divisor) = self.divisor {
            while let Some(record) = record(rest)? {
                let (head, data) = record.split_at(HEADER_LEN);
                rest = rest.get(record.len()..).unwrap_or_default();
                let data = self.conversion.cut(data);
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                for word in [word(head, 0), word(head, 4) / divisor, length, word(head, 12)] {
                    out.extend_from_slice(&word.to_ne_bytes());
                }
                out.extend_from_slice(data);
                self.packets += 1;
            }
        }
        self.held = rest.to_vec();
        Ok(out.into())
    }

    fn begin(&self, header: &[u8], out: &mut Vec<u8>) -> Result<u32, String> {
        let magic = word(header, 0);
        if ![MICROSECONDS, NANOSECONDS].contains(&magic) {
            return Err("the daemon sends no pcap".to_owned());
        }
        let is_divided = self.conversion.microseconds && magic == NANOSECONDS;
        let sent = if is_divided { MICROSECONDS } else { magic };
        let snaplen = self.conversion.stated_snaplen(word(header, 16));
        out.extend_from_slice(&sent.to_ne_bytes());
        out.extend_from_slice(header.get(4..16).unwrap_or_default());
        out.extend_from_slice(&snaplen.to_ne_bytes());
        out.extend_from_slice(header.get(20..).unwrap_or_default());
        Ok(if is_divided { 1000 } else { 1 })
    }

    pub(super) const fn packets(&self) -> u64 {
        self.packets
    }
}

/// The first record, if it has come completely.
fn record(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    if bytes.len() < HEADER_LEN {
        return Ok(None);
    }
    let length = word(bytes, 8);
    if length > MAX_CAPTURED_LEN {
        return Err(format!("the daemon sends a packet of {length} bytes"));
    }
    Ok(bytes.get(..HEADER_LEN + length as usize))
}

#[cfg(test)]
mod tests {
    use frames::Format;

    use super::*;

    /// Records with these lengths, a second and some nanoseconds apart.
    fn pcap(lengths: &[usize]) -> Vec<u8> {
        let format = Format { big_endian: cfg!(target_endian = "big"), ..Format::default() };
        let mut bytes = format.header();
        for (number, length) in (1..).zip(lengths) {
            format.append(&mut bytes, number * 1_000_001_001, &vec![7; *length], length + 1);
        }
        bytes
    }

    #[test]
    fn packets_are_counted_in_pieces_of_any_size() {
        let bytes = pcap(&[0, 1, 60, 300]);
        for size in 1..bytes.len() {
            let mut meter = PcapMeter::default();
            for piece in bytes.chunks(size) {
                assert_eq!(meter.push(Bytes::copy_from_slice(piece), false), piece);
            }
            assert_eq!((meter.packets(), meter.is_between_packets()), (4, true), "{size}");
        }
    }

    #[test]
    fn the_last_bytes_end_with_a_packet() {
        let bytes = pcap(&[0, 10, 60, 300]);
        let ends = [24, 40, 66, 142, 458];
        assert_eq!(bytes.len(), ends[4]);
        for cut in 0..bytes.len() {
            let (sent, rest) = bytes.split_at(cut);
            let mut meter = PcapMeter::default();
            meter.push(Bytes::copy_from_slice(sent), false);
            let last = if meter.is_between_packets() {
                Bytes::new()
            } else {
                meter.push(Bytes::copy_from_slice(rest), true)
            };
            let end = cut + last.len();
            assert!(end == 0 || ends.contains(&end), "{cut}: {end}");
            assert!(meter.is_between_packets());
        }
    }

    #[test]
    fn packets_are_cut_and_times_shortened() {
        let conversion = Conversion { filter: None, microseconds: true, snaplen: Some(50) };
        let bytes = pcap(&[10, 60]);
        let mut converter = PcapConverter::new(conversion);
        let mut sent = Vec::new();
        for piece in bytes.chunks(7) {
            sent.extend_from_slice(&converter.push(piece).unwrap());
        }
        let format = Format {
            nanoseconds: false,
            big_endian: cfg!(target_endian = "big"),
            snaplen: 50,
            ..Format::default()
        };
        let mut expected = format.header();
        format.append(&mut expected, 1_000_001_000, &[7; 10], 11);
        format.append(&mut expected, 2_000_002_000, &[7; 50], 61);
        assert_eq!(sent, expected);
        assert_eq!(converter.packets(), 2);
    }

    #[test]
    fn nonsense_is_an_error() {
        let converter = || PcapConverter::new(Conversion::default());
        let mut huge = pcap(&[]);
        huge.extend_from_slice(&[0xff; HEADER_LEN]);
        assert!(converter().push(&huge).is_err());
        assert!(converter().push(&[0; 24]).is_err());
    }
}
