//! The layout of a ring in its file.
//!
//! ```text
//!   0        file header, one page: geometry, link type, loss counters, permissions, last alive,
//!            the interfaces that a pcapng stream described ([`super::interfaces`]), and the
//!            identity of its packet numbers ([`super::lineage`])
//!   4096     segment headers, 128 bytes each
//!   body     segment bodies, back to back, each `segment_size` bytes:
//!            pcap records exactly as a savefile has them, none crossing a segment, from the front;
//!            what a pcapng stream has beside them ([`super::notes`]), from the end downwards
//! ```
//!
//! The file is mapped shared and outlives the process. The next process reads it again
//! ([`super::recover`]), but never another process at the same time, because the file is locked.
//! Everything is in this machine's byte order: a ring does not travel. Every field is an atomic, so
//! a mapping with any content at all is a valid value of these structures.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use protocol::time::Precision;

use super::geometry::{Geometry, PAGE, SEGMENT_HEADER};
use super::lineage::LineageHeader;
use crate::store::Position;

/// First eight bytes of a ring file.
pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"pcapfsR1");

/// Version of a ring that never had notes or interfaces of a stream. A change that makes older
/// rings unreadable increments both versions.
pub(super) const VERSION: u32 = 1;

/// Version of a ring that has, or had, notes or interfaces of a stream. A program that does not
/// know them does not count them in positions, and would drop segments that are whole.
pub(super) const VERSION_WITH_NOTES: u32 = 2;

/// Value of [`RingHeader::link_type`] while the source has not sent its link type yet.
pub(super) const NO_LINK_TYPE: u32 = u32::MAX;

/// Bytes of the file header for descriptions of interfaces: the rest of the page.
pub(super) const DESCRIPTIONS: usize = 4096 - 120 - size_of::<LineageHeader>();

/// The first page of a ring file.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(super) struct RingHeader {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU32,
    /// CRC-32 of the geometry, the link type and the precision, see [`RingHeader::checksum`].
    pub(super) checksum: AtomicU32,
    pub(super) segment_size: AtomicU64,
    pub(super) segments: AtomicU32,
    pub(super) spares: AtomicU32,
    /// `LINKTYPE_` number or [`NO_LINK_TYPE`].
    pub(super) link_type: AtomicU32,
    /// 6 for microseconds, 9 for nanoseconds.
    pub(super) precision: AtomicU32,
    pub(super) snaplen: AtomicU32,
    /// 1 once `uid`, `gid` and `mode` have been set.
    pub(super) has_permissions: AtomicU32,
    pub(super) uid: AtomicU32,
    pub(super) gid: AtomicU32,
    pub(super) mode: AtomicU32,
    pub(super) reserved: AtomicU32,
    /// Sequence number of the oldest retained segment.
    pub(super) oldest_sequence: AtomicU64,
    /// Packets the kernel dropped because its buffer was full.
    pub(super) dropped_kernel: AtomicU64,
    /// Packets the interface or its driver dropped before the kernel saw them.
    pub(super) dropped_interface: AtomicU64,
    /// Packets whose record is longer than a segment.
    pub(super) dropped_oversize: AtomicU64,
    /// When the capture was last seen running, nanoseconds since the Unix epoch; 0 if that is not
    /// known, as in a file older than this field.
    pub(super) last_alive: AtomicU64,
    /// [`Committed`]: the length of the used `descriptions`, and their checksum. Bytes are only
    /// appended, and before this word is stored, so that a process killed at any moment leaves a
    /// pair that belongs together. 0 in a file older than this field.
    pub(super) described: AtomicU64,
    /// Written and read by [`super::interfaces`].
    pub(super) descriptions: [AtomicU8; DESCRIPTIONS],
    /// Packets of our own transport, which were not stored. Here and at the end of the page, a file
    /// older than these fields has zeros unless its descriptions fill the page.
    pub(super) excluded: AtomicU64,
    /// At the end of the page, so that the descriptions of an older file stay where they are.
    pub(super) lineage: LineageHeader,
}

#[cfg(test)]
impl Default for RingHeader {
    /// All zeros, as in a new file.
    fn default() -> Self {
        Self {
            magic: AtomicU64::default(),
            version: AtomicU32::default(),
            checksum: AtomicU32::default(),
            segment_size: AtomicU64::default(),
            segments: AtomicU32::default(),
            spares: AtomicU32::default(),
            link_type: AtomicU32::default(),
            precision: AtomicU32::default(),
            snaplen: AtomicU32::default(),
            has_permissions: AtomicU32::default(),
            uid: AtomicU32::default(),
            gid: AtomicU32::default(),
            mode: AtomicU32::default(),
            reserved: AtomicU32::default(),
            oldest_sequence: AtomicU64::default(),
            dropped_kernel: AtomicU64::default(),
            dropped_interface: AtomicU64::default(),
            dropped_oversize: AtomicU64::default(),
            last_alive: AtomicU64::default(),
            described: AtomicU64::default(),
            descriptions: std::array::from_fn(|_| AtomicU8::default()),
            excluded: AtomicU64::default(),
            lineage: LineageHeader::default(),
        }
    }
}

impl RingHeader {
    /// CRC-32 of all fields that a reader of the file must trust before it reads on.
    pub(super) fn compute_checksum(&self) -> u32 {
        self.checksum_with(self.link_type.load(Ordering::Relaxed))
    }

    /// The value of [`RingHeader::compute_checksum`] with another link type.
    pub(super) fn checksum_with(&self, link_type: u32) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.segment_size.load(Ordering::Relaxed).to_ne_bytes());
        for field in [&self.segments, &self.spares] {
            hasher.update(&field.load(Ordering::Relaxed).to_ne_bytes());
        }
        hasher.update(&link_type.to_ne_bytes());
        hasher.update(&self.precision.load(Ordering::Relaxed).to_ne_bytes());
        hasher.finalize()
    }

    /// Marks the ring as one that has notes or interfaces. To be called before any is stored.
    pub(super) fn mark_notes(&self) {
        if self.version.load(Ordering::Relaxed) != VERSION_WITH_NOTES {
            self.version.store(VERSION_WITH_NOTES, Ordering::Release);
        }
    }

    /// Writes the fields that never change, and the link type, which may.
    pub(super) fn initialise(&self, geometry: Geometry, link_type: u32, precision: u32) {
        self.segment_size.store(geometry.segment_size, Ordering::Relaxed);
        self.segments.store(geometry.segments, Ordering::Relaxed);
        self.spares.store(geometry.spares, Ordering::Relaxed);
        self.link_type.store(link_type, Ordering::Relaxed);
        self.precision.store(precision, Ordering::Relaxed);
        self.version.store(VERSION, Ordering::Relaxed);
        self.checksum.store(self.compute_checksum(), Ordering::Relaxed);
        // Last: a file without the magic number is one whose creation was interrupted.
        self.magic.store(MAGIC, Ordering::Release);
    }
}

/// One segment's header. `sequence`, `first_*` and `*_base` are written when the segment is opened
/// and do not change until it is opened again.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct SegmentHeader {
    /// Sequence number from 1; 0 for a segment that holds nothing.
    pub(super) sequence: AtomicU64,
    /// Number of the first packet.
    pub(super) first_number: AtomicU64,
    /// [`crate::store::Position::pcap`] of the first packet.
    pub(super) pcap_base: AtomicU64,
    /// [`crate::store::Position::pcapng`] of the first packet.
    pub(super) pcapng_base: AtomicU64,
    /// Packets lost (kernel and oversize, see [`RingHeader`]) before the first packet, in total.
    pub(super) loss_before: AtomicU64,
    /// CRC-32 of the five fields above.
    pub(super) opening_checksum: AtomicU32,
    /// 1 when no further record will be added.
    pub(super) sealed: AtomicU32,
    /// The records that readers may see: [`Committed`], length and checksum in one word, so that a
    /// process killed between any two instructions leaves a pair that belongs together.
    pub(super) committed: AtomicU64,
    /// Time of the first packet, nanoseconds since the Unix epoch; 0 without a packet.
    pub(super) first_time: AtomicU64,
    /// Time of the last committed packet, in the same unit; 0 without a packet.
    pub(super) last_time: AtomicU64,
    /// Committed packets.
    pub(super) count: AtomicU64,
    /// The notes that readers may see: [`Committed`], stored before the word of the records they
    /// belong to. 0 in a file older than notes.
    pub(super) notes: AtomicU64,
}

impl SegmentHeader {
    /// The fields that [`opening_checksum`] covers: sequence, first number, pcap base, pcapng base
    /// and loss before.
    pub(super) fn opening_fields(&self) -> [u64; 5] {
        [&self.sequence, &self.first_number, &self.pcap_base, &self.pcapng_base, &self.loss_before]
            .map(|field| field.load(Ordering::Acquire))
    }

    /// Position of the first record.
    pub(super) fn first(&self) -> Position {
        let [_, number, pcap, pcapng, _] = self.opening_fields();
        Position { number, pcap, pcapng }
    }
}

/// Value of [`RingHeader::precision`].
pub(super) const fn precision_number(precision: Precision) -> u32 {
    match precision {
        Precision::Micro => 6,
        Precision::Nano => 9,
    }
}

/// CRC-32 of the fields written when a segment is opened.
pub(super) fn opening_checksum(fields: [u64; 5]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for field in fields {
        hasher.update(&field.to_ne_bytes());
    }
    hasher.finalize()
}

/// Length of the committed part of a body, and the CRC-32 of exactly these bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) len: u32,
    pub(super) checksum: u32,
}

impl Committed {
    pub(super) const fn pack(self) -> u64 {
        (self.len as u64) << 32 | self.checksum as u64
    }

    pub(super) const fn unpack(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word")]
        Self { len: (word >> 32) as u32, checksum: word as u32 }
    }
}

const _: () = assert!(size_of::<RingHeader>() as u64 == PAGE);
const _: () = assert!(size_of::<SegmentHeader>() == SEGMENT_HEADER);
