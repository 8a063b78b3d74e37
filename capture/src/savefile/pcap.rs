//! The layout of pcap savefiles.
//!
//! A header of 24 bytes, then records: a header of 16 bytes and the captured data, back to back
//! and without padding. All numbers are in the byte order of the machine that wrote the file.
//!
//! Source: `pcap-savefile(5)`, draft-ietf-opsawg-pcap, libpcap `sf-pcap.c`.

use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

use super::order::ByteOrder;
use super::{DEFAULT_SNAPLEN, MAX_CAPTURED_LEN, SavefileFault};
use crate::record;
use crate::store::StoreHeader;

/// Bytes before the first record.
pub const FILE_HEADER_LEN: usize = 24;

/// Magic number of a file with microseconds.
pub const MAGIC_MICRO: u32 = 0xa1b2_c3d4;
/// Magic number of a file with nanoseconds.
pub const MAGIC_NANO: u32 = 0xa1b2_3c4d;

/// The version that is written; its major number is the only one that exists.
const VERSION: (u16, u16) = (2, 4);

/// The values in the header of a pcap file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcapHeader {
    /// Byte order of this header and of every record header.
    pub order: ByteOrder,
    /// Unit of the fraction in record headers.
    pub precision: Precision,
    /// Link type of every packet.
    pub link_type: LinkType,
    /// Maximum bytes kept of one packet; never 0.
    pub snaplen: u32,
    /// The order of the two lengths in a record.
    pub lengths: Lengths,
}

/// The order of the two lengths in record headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// Captured bytes first.
    Captured,
    /// Bytes on the wire first: versions before 2.3.
    Original,
    /// Version 2.3 has files of both kinds: the lower number is the captured length.
    Either,
}

impl PcapHeader {
    /// Parses the 24 bytes at the beginning of a pcap file.
    ///
    /// The upper half of the link type field holds the length of the frame check sequence, and is
    /// ignored. A snapshot length of 0, or above the range of a signed number, means
    /// [`DEFAULT_SNAPLEN`] as in libpcap.
    ///
    /// # Errors
    /// [`SavefileFault::Magic`] if it is not a pcap file, [`SavefileFault::Version`] if the version is unsupported.
    pub fn parse(header: &[u8; FILE_HEADER_LEN]) -> Result<Self, SavefileFault> {
        let [m0, m1, m2, m3, major0, major1, minor0, minor1, ..] = *header;
        let magic = [m0, m1, m2, m3];
        let (order, precision) = magic_number(magic).ok_or(SavefileFault::Magic(magic))?;
        let (major, minor) = (order.u16([major0, major1]), order.u16([minor0, minor1]));
        if major != VERSION.0 {
            return Err(SavefileFault::Version { format: "pcap", major, minor });
        }
        let lengths = match minor {
            0..=2 => Lengths::Original,
            3 => Lengths::Either,
            _ => Lengths::Captured,
        };
        let [_magic, _version, _zone, _accuracy, snaplen, network] = order.words(header);
        let unlimited = snaplen == 0 || i32::try_from(snaplen).is_err();
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
        let link_type = LinkType(network as u16);
        let snaplen = if unlimited { DEFAULT_SNAPLEN } else { snaplen };
        Ok(Self { order, precision, link_type, snaplen, lengths })
    }
}

/// Byte order and precision of the pcap file that begins with `magic`; `None` if it is not a pcap
/// file.
#[must_use]
pub fn magic_number(magic: [u8; 4]) -> Option<(ByteOrder, Precision)> {
    let orders = [ByteOrder::NATIVE, ByteOrder::NATIVE.swapped()];
    orders.into_iter().find_map(|order| match order.u32(magic) {
        MAGIC_MICRO => Some((order, Precision::Micro)),
        MAGIC_NANO => Some((order, Precision::Nano)),
        _ => None,
    })
}

/// The header of a pcap file in this machine's byte order. Native records must follow it.
#[must_use]
pub fn file_header(header: &StoreHeader) -> [u8; FILE_HEADER_LEN] {
    let magic = match header.precision {
        Precision::Micro => MAGIC_MICRO,
        Precision::Nano => MAGIC_NANO,
    };
    let [[a, b], [c, d]] = [VERSION.0.to_ne_bytes(), VERSION.1.to_ne_bytes()];
    let fields = [
        magic.to_ne_bytes(),
        [a, b, c, d],
        [0; 4],
        [0; 4],
        header.snaplen.to_ne_bytes(),
        u32::from(header.link_type.0).to_ne_bytes(),
    ];
    let mut bytes = [0; FILE_HEADER_LEN];
    for (field, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
        *field = value;
    }
    bytes
}

/// The header of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Seconds since the Unix epoch.
    pub seconds: u32,
    /// Micro- or nanoseconds, depending on the file header.
    pub fraction: u32,
    /// Bytes of data that follow.
    pub captured_len: u32,
    /// Length of the packet on the wire, in bytes.
    pub original_len: u32,
}

impl RecordHeader {
    /// Parses a record header of a file. The captured length is not checked.
    #[inline]
    #[must_use]
    pub fn parse(header: &[u8; record::HEADER_LEN], file: &PcapHeader) -> Self {
        let [seconds, fraction, first, second] = file.order.words(header);
        let is_swapped = match file.lengths {
            Lengths::Captured => false,
            Lengths::Original => true,
            Lengths::Either => first > second,
        };
        let (captured_len, original_len) =
            if is_swapped { (second, first) } else { (first, second) };
        Self { seconds, fraction, captured_len, original_len }
    }

    /// The time at which the packet was captured.
    #[must_use]
    pub const fn time(&self, precision: Precision) -> Timestamp {
        Timestamp::from_parts(self.seconds, self.fraction, precision)
    }
}

/// The record at the start of `bytes`: its header and data. `None` if `bytes` ends inside it.
///
/// # Errors
/// [`SavefileFault::PacketTooLong`] for a captured length above [`MAX_CAPTURED_LEN`].
#[inline]
pub fn record<'a>(
    bytes: &'a [u8],
    file: &PcapHeader,
) -> Result<Option<(RecordHeader, &'a [u8])>, SavefileFault> {
    let Some((header, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let header = RecordHeader::parse(header, file);
    let captured_len = header.captured_len;
    if captured_len > MAX_CAPTURED_LEN {
        return Err(SavefileFault::PacketTooLong { captured_len });
    }
    Ok(rest.get(..captured_len as usize).map(|data| (header, data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_is_read_back() {
        for precision in [Precision::Micro, Precision::Nano] {
            let header = StoreHeader { link_type: LinkType::LINUX_SLL2, precision, snaplen: 96 };
            let parsed = PcapHeader::parse(&file_header(&header)).unwrap();
            let order = ByteOrder::NATIVE;
            let link_type = LinkType::LINUX_SLL2;
            let lengths = Lengths::Captured;
            assert_eq!(parsed, PcapHeader { order, precision, link_type, snaplen: 96, lengths });
        }
    }

    #[test]
    fn the_other_byte_order_an_fcs_length_and_no_snaplen_are_understood() {
        let bytes =
            [0xa1, 0xb2, 0x3c, 0x4d, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x24, 0, 0, 1];
        let parsed = PcapHeader::parse(&bytes).unwrap();
        assert_eq!(parsed.order, ByteOrder::Big);
        assert_eq!(parsed.precision, Precision::Nano);
        assert_eq!((parsed.link_type, parsed.snaplen), (LinkType::ETHERNET, DEFAULT_SNAPLEN));
    }

    #[test]
    fn other_files_are_refused_with_their_first_bytes() {
        let mut bytes = [0; FILE_HEADER_LEN];
        bytes[..2].copy_from_slice(&[0x1f, 0x8b]);
        let fault = PcapHeader::parse(&bytes).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "no savefile (starts with 1f 8b 00 00: gzip, unpack it first)"
        );
        bytes[..6].copy_from_slice(&[0xd4, 0xc3, 0xb2, 0xa1, 3, 0]);
        let fault = PcapHeader::parse(&bytes).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "pcap version 3.0 is not supported, or the header is damaged"
        );
    }

    #[test]
    fn a_record_is_whole_cut_or_impossible() {
        let mut bytes = Vec::from([0; 8]);
        bytes.extend(3_u32.to_be_bytes());
        bytes.extend(60_u32.to_be_bytes());
        bytes.extend(b"abc");
        let file = |order| PcapHeader {
            order,
            precision: Precision::Micro,
            link_type: LinkType::ETHERNET,
            snaplen: 96,
            lengths: Lengths::Captured,
        };
        for cut in 0..bytes.len() {
            assert_eq!(record(&bytes[..cut], &file(ByteOrder::Big)), Ok(None));
        }
        let (header, data) = record(&bytes, &file(ByteOrder::Big)).unwrap().unwrap();
        assert_eq!((header.original_len, data), (60, &b"abc"[..]));
        let fault = record(&bytes, &file(ByteOrder::Little)).unwrap_err();
        assert_eq!(fault, SavefileFault::PacketTooLong { captured_len: 0x0300_0000 });
    }

    #[test]
    fn old_versions_have_the_lengths_the_other_way_round() {
        let of = |minor: u8, first: u8, second: u8| {
            let mut header = [0; FILE_HEADER_LEN];
            header[..8].copy_from_slice(&[0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, minor]);
            let file = PcapHeader::parse(&header).unwrap();
            let bytes = [&[0; 11][..], &[first, 0, 0, 0, second], &[7; 60]].concat();
            let (header, data) = record(&bytes, &file).unwrap().unwrap();
            assert_eq!(data.len(), header.captured_len as usize);
            (header.captured_len, header.original_len)
        };
        assert_eq!((of(4, 40, 60), of(4, 60, 40)), ((40, 60), (60, 40)));
        for minor in 0..3 {
            assert_eq!(of(minor, 60, 40), (40, 60), "version 2.{minor}");
        }
        assert_eq!((of(3, 40, 60), of(3, 60, 40)), ((40, 60), (40, 60)));
    }
}
