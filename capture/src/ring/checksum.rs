//! What the checksum of a segment's records covers.
//!
//! A killed process cannot tear a record: what it published is in pages of the kernel, whole. So a
//! checksum finds only two kinds of damage. One is what people and other programs write into the
//! file. The other is the half-written page of a machine that lost power, which a ring on a disk
//! can have and a ring in memory cannot, since it is gone as well.
//!
//! A ring on a disk has a checksum over every byte. A ring in memory has one over the headers of its
//! records, which say where each record begins and ends, when its packet was captured and how long
//! it was. The difference is a third of the time that the writer needs for a packet of 1,442 bytes.

use crate::record::HEADER_LEN;

/// Bytes of record headers to gather before they are hashed. One header alone is too short for the
/// fast way of the checksum.
const GATHERED: usize = 4 << 10;

/// The bytes that the checksum of a segment's records covers. A ring has one for all its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// All of them.
    Records,
    /// Those of the records' headers.
    RecordHeaders,
}

/// The checksum (CRC-32) of the records of a segment, while they are added.
#[derive(Debug)]
pub(super) struct RecordsChecksum {
    coverage: Coverage,
    hasher: crc32fast::Hasher,
    /// Headers that `hasher` has not seen, at most [`GATHERED`] bytes.
    headers: Vec<u8>,
}

impl RecordsChecksum {
    /// Continues a checksum; 0 is that of no record.
    pub(super) fn new(coverage: Coverage, checksum: u32) -> Self {
        Self {
            coverage,
            hasher: crc32fast::Hasher::new_with_initial(checksum),
            headers: Vec::with_capacity(match coverage {
                Coverage::Records => 0,
                Coverage::RecordHeaders => GATHERED,
            }),
        }
    }

    /// Begins anew, for the next segment.
    pub(super) fn restart(&mut self) {
        self.hasher = crc32fast::Hasher::new();
        self.headers.clear();
    }

    /// The coverage that it was made with.
    pub(super) fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// Adds whole records, if they are covered.
    pub(super) fn add_records(&mut self, bytes: &[u8]) {
        if self.coverage == Coverage::Records {
            self.hasher.update(bytes);
        }
    }

    /// Adds the header of a record, if only headers are covered.
    pub(super) fn add_header(&mut self, header: &[u8; HEADER_LEN]) {
        if self.coverage == Coverage::RecordHeaders {
            if self.headers.len() + HEADER_LEN > GATHERED {
                self.hash_headers();
            }
            self.headers.extend_from_slice(header);
        }
    }

    /// The checksum of what has been added so far.
    pub(super) fn value(&mut self) -> u32 {
        self.hash_headers();
        self.hasher.clone().finalize()
    }

    fn hash_headers(&mut self) {
        self.hasher.update(&self.headers);
        self.headers.clear();
    }
}
