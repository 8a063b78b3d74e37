//! Savefiles taken apart, changed and written again.

use std::fs;
use std::path::Path;

/// A savefile in pcap format and in this machine's byte order.
#[derive(Clone, Debug)]
pub(crate) struct Savefile {
    header: Vec<u8>,
    /// Records, each with its header of 16 bytes.
    pub(crate) records: Vec<Vec<u8>>,
}

const RECORD: usize = 16;
const ETHERNET: usize = 14;

impl Savefile {
    /// Reads a savefile. An incomplete record at its end is left out.
    ///
    /// # Panics
    /// If the file cannot be read or has another format.
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (header, mut rest) = bytes.split_at(24.min(bytes.len()));
        assert_eq!(header.get(..4), Some(&[0xd4, 0xc3, 0xb2, 0xa1][..]), "{}", path.display());
        let mut records = Vec::new();
        while let Some(length) = rest.get(8..12) {
            let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
            let length = RECORD + usize::try_from(length).expect("at least 32 bits");
            let Some((record, more)) = rest.split_at_checked(length) else { break };
            records.push(record.to_owned());
            rest = more;
        }
        Self { header: header.to_owned(), records }
    }

    /// Writes the savefile.
    ///
    /// # Panics
    /// If it cannot be written.
    pub(crate) fn write(&self, path: &Path) {
        let bytes = [self.header.clone(), self.records.concat()].concat();
        fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Moves a packet to the position of another.
    pub(crate) fn shift(&mut self, from: usize, to: usize) {
        let record = self.records.remove(from);
        self.records.insert(to, record);
    }

    /// A copy of a packet of TCP over IPv4 over Ethernet with a part of its payload: `length` bytes
    /// from offset `begin`, or all the rest. Bytes beyond the payload are `*`.
    pub(crate) fn part(&self, index: usize, begin: usize, length: Option<usize>) -> Vec<u8> {
        let mut bytes = self.payload(index).split_off(begin);
        let length = length.unwrap_or(bytes.len());
        bytes.resize(length, b'*');
        self.other(index, begin, &bytes)
    }

    /// The payload of a packet of TCP over IPv4 over Ethernet.
    pub(crate) fn payload(&self, index: usize) -> Vec<u8> {
        let record = &self.records[index];
        let end = RECORD + ETHERNET + usize::from(be16(record, RECORD + ETHERNET + 2));
        record[payload_at(record)..end].to_vec()
    }

    /// A copy of a packet of TCP over IPv4 over Ethernet with another payload, which begins `begin`
    /// bytes later in the stream.
    pub(crate) fn other(&self, index: usize, begin: usize, bytes: &[u8]) -> Vec<u8> {
        let mut record = self.records[index].clone();
        let ip = RECORD + ETHERNET;
        let tcp = ip + usize::from(record[ip] & 15) * 4;
        record.truncate(payload_at(&record));
        record.extend_from_slice(bytes);

        let sequence = record[tcp + 4..tcp + 8].try_into().expect("four bytes");
        let begin = u32::try_from(begin).expect("less than a packet");
        let sequence = u32::from_be_bytes(sequence).wrapping_add(begin);
        record[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
        let total = record.len() - ip;
        set_be16(&mut record, ip + 2, total);
        let length = u32::try_from(record.len() - RECORD).expect("a packet");
        record[8..12].copy_from_slice(&length.to_le_bytes());
        record[12..16].copy_from_slice(&length.to_le_bytes());
        record
    }

    /// Increases the length field of a packet of IPv4 over Ethernet by `more` bytes.
    pub(crate) fn lie(&mut self, index: usize, more: usize) {
        let at = RECORD + ETHERNET + 2;
        let record = &mut self.records[index];
        let total = usize::from(be16(record, at)) + more;
        set_be16(record, at, total);
    }
}

/// Offset of the payload of TCP over IPv4 over Ethernet in a record.
fn payload_at(record: &[u8]) -> usize {
    let ip = RECORD + ETHERNET;
    let tcp = ip + usize::from(record[ip] & 15) * 4;
    tcp + usize::from(record[tcp + 12] >> 4) * 4
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn set_be16(bytes: &mut [u8], at: usize, value: usize) {
    let value = u16::try_from(value).expect("a length of IPv4");
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Pseudo-random numbers that are the same in every run.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `bound`, by splitmix64.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = usize::try_from(mixed >> 33).expect("31 bits");
        number % bound.max(1)
    }
}

/// Changes a few bits of a savefile after its header of 24 bytes.
pub(crate) fn flip(bytes: &mut [u8], random: &mut Random) {
    if bytes.len() <= 24 {
        return;
    }
    for _ in 0..=random.below(8) {
        let at = 24 + random.below(bytes.len() - 24);
        bytes[at] ^= match random.below(3) {
            0 => 1 << random.below(8),
            1 => 0xff,
            _ => u8::try_from(1 + random.below(255)).expect("a byte"),
        };
    }
}
