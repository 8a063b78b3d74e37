//! Native pcap records: the 16-byte header in this machine's byte order, then the data.
//!
//! Packets have this layout in the ring, in a mapped savefile of this machine's byte order, and in
//! every reply to a reader of a `.pcap` file. So the fast paths know only this layout.
//!
//! Source: pcap savefile format, `pcap-savefile(5)`, and libpcap `sf-pcap.c`.

use protocol::time::{Precision, Timestamp};

/// Bytes of a record header: seconds, fraction, captured length, original length, 32 bits each.
pub const HEADER_LEN: usize = 16;

/// One record in a sequence of native records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRecord<'a> {
    /// Seconds since the Unix epoch.
    pub seconds: u32,
    /// Micro- or nanoseconds, depending on the precision of the savefile.
    pub fraction: u32,
    /// Length of the packet on the wire, in bytes.
    pub original_len: u32,
    /// The captured bytes.
    pub data: &'a [u8],
}

impl<'a> PacketRecord<'a> {
    /// The record at the start of `bytes`; `None` if `bytes` ends inside it.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let [seconds, fraction, captured_len, original_len] = words(header);
        let data = rest.get(..usize::try_from(captured_len).ok()?)?;
        Some(Self { seconds, fraction, original_len, data })
    }

    /// Bytes of header and data.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a record is never empty")]
    pub const fn len(&self) -> usize {
        HEADER_LEN + self.data.len()
    }

    /// The time at which the packet was captured.
    #[must_use]
    pub const fn time(&self, precision: Precision) -> Timestamp {
        Timestamp::from_parts(self.seconds, self.fraction, precision)
    }
}

/// Length of the record at the start of `bytes`, header and data; `None` if `bytes` ends inside it.
///
/// Touches only the header, so a walk over records costs one cache line each.
#[must_use]
pub fn len_at(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_LEN>()?;
    let [_, _, captured_len, _] = words(header);
    let len = HEADER_LEN.checked_add(usize::try_from(captured_len).ok()?)?;
    (len <= bytes.len()).then_some(len)
}

/// A record header.
#[must_use]
pub fn header(
    time: Timestamp,
    precision: Precision,
    captured_len: u32,
    original_len: u32,
) -> [u8; HEADER_LEN] {
    let (seconds, fraction) = time.to_parts(precision);
    let mut header = [0; HEADER_LEN];
    for (field, value) in header.as_chunks_mut::<4>().0.iter_mut().zip([
        seconds,
        fraction,
        captured_len,
        original_len,
    ]) {
        *field = value.to_ne_bytes();
    }
    header
}

fn words(header: &[u8; HEADER_LEN]) -> [u32; 4] {
    let (fields, _) = header.as_chunks::<4>();
    let mut words = [0; 4];
    for (word, field) in words.iter_mut().zip(fields) {
        *word = u32::from_ne_bytes(*field);
    }
    words
}

/// Walks a sequence of native records; ends at the first one that is not whole.
#[derive(Clone, Debug)]
pub struct PacketRecords<'a> {
    rest: &'a [u8],
}

impl<'a> PacketRecords<'a> {
    /// The records in `bytes`, which begins at a record boundary.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes after the last record returned.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for PacketRecords<'a> {
    type Item = PacketRecord<'a>;

    fn next(&mut self) -> Option<PacketRecord<'a>> {
        let record = PacketRecord::parse(self.rest)?;
        self.rest = self.rest.get(record.len()..)?;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_walked_up_to_the_first_partial_one() {
        let time = Timestamp::from_nanoseconds(5_000_000_007);
        let mut bytes = Vec::new();
        for data in [&b"abc"[..], b"", b"defgh"] {
            let captured_len = u32::try_from(data.len()).unwrap();
            bytes.extend(header(time, Precision::Nano, captured_len, 1500));
            bytes.extend(data);
        }
        for cut in 0..=bytes.len() {
            let mut records = PacketRecords::new(&bytes[..cut]);
            let whole: usize = records.by_ref().map(|record| record.len()).sum();
            assert_eq!(whole + records.rest().len(), cut);
            assert!(len_at(records.rest()).is_none());
        }
        let first = PacketRecord::parse(&bytes).unwrap();
        assert_eq!((first.data, first.original_len), (&b"abc"[..], 1500));
        assert_eq!(first.time(Precision::Nano), time);
    }

    #[test]
    fn a_length_no_machine_could_hold_is_not_a_record() {
        let header = header(Timestamp::default(), Precision::Micro, u32::MAX, 0);
        assert!(PacketRecord::parse(&header).is_none());
        assert!(len_at(&header).is_none());
    }
}
