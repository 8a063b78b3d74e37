//! The pcap savefile (draft-ietf-opsawg-pcap) in each of its varieties.

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
    /// A number in the byte order of the file.
    #[must_use]
    pub fn u32(self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// A number in the byte order of the file.
    #[must_use]
    pub fn u16(self, value: u16) -> [u8; 2] {
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

    /// Appends one record. `timestamp` is in nanoseconds since the Unix epoch, `original_length` the
    /// length on the wire.
    pub fn append(self, bytes: &mut Vec<u8>, timestamp: u64, data: &[u8], original_length: usize) {
        bytes.extend(self.record_header(timestamp, data.len(), original_length));
        bytes.extend_from_slice(data);
    }

    /// The header of a record with `length` bytes.
    #[must_use]
    pub fn record_header(self, timestamp: u64, length: usize, original_length: usize) -> [u8; 16] {
        let fraction = timestamp % 1_000_000_000 / if self.nanoseconds { 1 } else { 1_000 };
        let words = [timestamp / 1_000_000_000, fraction, length as u64, original_length as u64];
        let mut header = [0; 16];
        for (place, word) in header.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&self.u32(u32::try_from(word).expect("a field of 32 bits")));
        }
        header
    }
}
