//! Takes over a ring file from an earlier process.
//!
//! A killed process leaves every committed record: the pages of the mapping belong to the kernel.
//! Nothing in the file is trusted before it is checked, since people, disks and crashes of the
//! machine can leave anything there. The geometry is checked against the size of the file, each
//! segment's header and body against their checksums, its records one by one, and each segment
//! against the one before. The ring is kept up to the last whole segment. Everything after the
//! first damage is dropped, with a message that reports what was dropped and how much.

use std::sync::atomic::Ordering;

use protocol::time::{Precision, Timestamp};

use super::geometry::Geometry;
use super::interfaces::RingInterfaces;
use super::layout::{
    Committed, MAGIC, NO_LINK_TYPE, RingHeader, VERSION, VERSION_WITH_NOTES, opening_checksum,
};
use super::map::RingMap;
use super::notes::NoteEntry;
use crate::record;
use crate::savefile::pcapng_writer::{enhanced_packet_len, len_of};
use crate::store::Position;

/// The values in a ring file's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claims {
    pub(super) geometry: Geometry,
    /// `LINKTYPE_` number or [`NO_LINK_TYPE`].
    pub(super) link_type: u32,
    pub(super) precision: Precision,
    pub(super) oldest_sequence: u64,
}

/// Reads the file header out of the first page of a file.
///
/// # Errors
/// A description of the error, for people.
pub(super) fn read_claims(header: &RingHeader) -> Result<Claims, String> {
    if header.magic.load(Ordering::Acquire) != MAGIC {
        return Err("it does not begin as a ring file does".to_owned());
    }
    let version = header.version.load(Ordering::Relaxed);
    if ![VERSION, VERSION_WITH_NOTES].contains(&version) {
        return Err(format!(
            "it is of version {version}, this program writes {VERSION_WITH_NOTES}"
        ));
    }
    let checksum = header.checksum.load(Ordering::Relaxed);
    let link_type = if checksum == header.compute_checksum() {
        header.link_type.load(Ordering::Relaxed)
    } else if checksum == header.checksum_with(NO_LINK_TYPE) {
        // Killed while the source's link type was being stored: the ring has no packet yet.
        NO_LINK_TYPE
    } else {
        return Err("the checksum of its header does not match".to_owned());
    };
    let geometry = Geometry::checked(
        header.segment_size.load(Ordering::Relaxed),
        header.segments.load(Ordering::Relaxed),
        header.spares.load(Ordering::Relaxed),
    )
    .ok_or_else(|| "its header describes a ring that cannot be".to_owned())?;
    let precision = match header.precision.load(Ordering::Relaxed) {
        6 => Precision::Micro,
        9 => Precision::Nano,
        other => return Err(format!("its header names a precision of 10^-{other} s")),
    };
    Ok(Claims {
        geometry,
        link_type,
        precision,
        oldest_sequence: header.oldest_sequence.load(Ordering::Acquire),
    })
}

/// Largest sequence number, packet number, position or count of losses that is accepted: 14 years
/// at 10 GB/s, and far enough below the end of a u64 that no sum overflows.
pub(super) const MAX_FIELD: u64 = 1 << 62;

/// One segment that passed all checks.
#[derive(Clone, Copy, Debug)]
struct Whole {
    sequence: u64,
    slot: u32,
    first: Position,
    next: Position,
    count: u64,
    committed: Committed,
    notes: Committed,
    sealed: bool,
    first_time: u64,
    last_time: u64,
}

/// The part of a ring that can be taken over.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Sequence and slot, oldest first; empty if nothing could be recovered.
    pub(super) retained: Vec<(u64, u32)>,
    pub(super) next: Position,
    pub(super) next_sequence: u64,
    /// Number of packets in the newest segment, and the times of its first and last packet.
    pub(super) newest: (u64, u64, u64),
    /// If the newest segment can take more: its committed records, which further records follow,
    /// and its committed notes, which further notes precede.
    pub(super) resume: Option<(Committed, Committed)>,
    /// The damage and the dropped part, for people.
    pub(super) damage: Option<String>,
}

/// Finds the whole segments. Reads every retained byte once.
pub(super) fn recover(map: &mut RingMap, claims: Claims, interfaces: &RingInterfaces) -> Recovered {
    let mut found: Vec<(u64, u32)> = (0..claims.geometry.slots())
        .map(|slot| (map.segment(slot).sequence.load(Ordering::Acquire), slot))
        .filter(|&(sequence, _)| sequence != 0)
        .collect();
    found.sort_unstable();

    let mut whole: Vec<Whole> = Vec::new();
    let mut damage: Option<String> = None;
    // The first expected segment is known even if its header was destroyed.
    let mut expected = claims.oldest_sequence;
    for &(sequence, slot) in &found {
        // The rest of a segment that was being retired when the process was killed.
        if sequence < claims.oldest_sequence {
            continue;
        }
        let checked = if sequence == expected {
            check(map, sequence, slot, claims.precision, interfaces)
                .and_then(|segment| follows(whole.last(), segment))
        } else {
            Err("its header is missing".to_owned())
        };
        match checked {
            Ok(segment) => whole.push(segment),
            Err(why) => {
                damage = Some(format!("segment {expected}: {why}"));
                if !whole.is_empty() {
                    break;
                }
                // Nothing before the damage is kept, so keep the segments after it.
                if sequence != expected
                    && let Ok(segment) = check(map, sequence, slot, claims.precision, interfaces)
                {
                    whole.push(segment);
                }
            }
        }
        expected = sequence.saturating_add(1);
    }
    if damage.is_none() && whole.last().is_none_or(|segment| segment.sealed) {
        // A ring always has an open segment.
        damage = Some(format!("segment {expected}: its header is missing"));
    }
    // The number of segments that the ring retains: someone may have added more by hand.
    let surplus = whole.len().saturating_sub(claims.geometry.segments as usize);
    whole.drain(..surplus);
    summarise(&whole, damage)
}

fn summarise(whole: &[Whole], damage: Option<String>) -> Recovered {
    let (Some(first), Some(last)) = (whole.first(), whole.last()) else {
        return Recovered {
            retained: Vec::new(),
            next: Position::START,
            next_sequence: 1,
            newest: (0, 0, 0),
            resume: None,
            damage: damage.map(|why| format!("{why}: nothing of it could be kept")),
        };
    };
    Recovered {
        retained: whole.iter().map(|segment| (segment.sequence, segment.slot)).collect(),
        next: last.next,
        next_sequence: last.sequence + 1,
        newest: (last.count, last.first_time, last.last_time),
        resume: (!last.sealed).then_some((last.committed, last.notes)),
        damage: damage.map(|why| {
            format!(
                "{why}: kept packets {} to {}, dropped the rest",
                first.first.number,
                last.next.number.saturating_sub(1)
            )
        }),
    }
}

/// Checks that `segment` begins where the one before it ends.
fn follows(before: Option<&Whole>, segment: Whole) -> Result<Whole, String> {
    match before {
        // A segment is sealed once the next one is open, and before the next one gets any record.
        Some(before) if !before.sealed && segment.count > 0 => {
            Err("the one before it was not sealed".to_owned())
        }
        Some(before) if before.next != segment.first => {
            Err("it does not begin where the one before it ends".to_owned())
        }
        _ => Ok(segment),
    }
}

/// Checks a segment against its checksums and walks its records.
fn check(
    map: &mut RingMap,
    sequence: u64,
    slot: u32,
    precision: Precision,
    interfaces: &RingInterfaces,
) -> Result<Whole, String> {
    let header = map.segment(slot);
    let fields = header.opening_fields();
    if opening_checksum(fields) != header.opening_checksum.load(Ordering::Acquire) {
        return Err("the checksum of its header does not match".to_owned());
    }
    let [numbers @ .., _loss_before] = fields;
    if numbers.iter().any(|&number| number > MAX_FIELD) {
        return Err("its header has numbers that cannot be".to_owned());
    }
    let first = header.first();
    let committed = Committed::unpack(header.committed.load(Ordering::Acquire));
    let notes = Committed::unpack(header.notes.load(Ordering::Acquire));
    let sealed = header.sealed.load(Ordering::Acquire) == 1;
    let body = map
        .body_alone(slot, committed.len)
        .ok_or_else(|| "it claims to be longer than a segment".to_owned())?;
    if crc32fast::hash(body) != committed.checksum {
        return Err("the checksum of its packets does not match".to_owned());
    }
    let mut next = first;
    let (mut count, mut first_time, mut last_time) = (0, 0, 0);
    let mut records = record::PacketRecords::new(body);
    for record in records.by_ref() {
        let time: Timestamp = record.time(precision);
        if count == 0 {
            first_time = time.nanoseconds();
        }
        last_time = time.nanoseconds();
        count += 1;
        // Far below overflow, see MAX_FIELD.
        next.number += 1;
        next.pcap += record.len() as u64;
        let captured_len = u32::try_from(record.data.len()).unwrap_or(u32::MAX);
        next.pcapng += enhanced_packet_len(captured_len);
    }
    if !records.rest().is_empty() {
        return Err("its last record is not whole".to_owned());
    }
    if u64::from(committed.len) + u64::from(notes.len) > map.geometry().segment_size {
        return Err("its packets and notes claim to be longer than a segment".to_owned());
    }
    let area = map.notes_alone(slot, notes.len).unwrap_or_default();
    let (notes, len) = check_notes(area, notes.checksum, first.number, count, interfaces)?;
    next.pcapng += len + interfaces.len_between(first.number, next.number);
    Ok(Whole {
        sequence,
        slot,
        first,
        next,
        count,
        committed,
        notes,
        sealed,
        first_time,
        last_time,
    })
}

/// Checks the notes of the `count` records of a segment whose first packet is number `first`.
/// Returns the bytes that the notes take in the segment, and in a pcapng file.
///
/// A killed process may leave notes of records that it did not write. They are not counted.
fn check_notes(
    notes: &[u8],
    checksum: u32,
    first: u64,
    count: u64,
    interfaces: &RingInterfaces,
) -> Result<(Committed, u64), String> {
    let (mut hasher, mut end, mut len) = (crc32fast::Hasher::new(), notes.len(), 0);
    let mut found = (Committed::default(), 0);
    let mut least = 0;
    while let Some((entry, start)) = NoteEntry::before(notes, end) {
        hasher.update(notes.get(start..end).unwrap_or_default());
        if u64::from(entry.index) < count {
            let number = first + u64::from(entry.index);
            if entry.index < least || entry.interface.known != interfaces.before(number + 1) {
                return Err("its notes do not fit its packets".to_owned());
            }
            least = entry.index.saturating_add(1);
            len += len_of(&entry.note);
            let taken = u32::try_from(notes.len() - start).unwrap_or(u32::MAX);
            found = (Committed { len: taken, checksum: hasher.clone().finalize() }, len);
        }
        end = start;
    }
    if end > 0 || hasher.finalize() != checksum {
        return Err("the checksum of its notes does not match".to_owned());
    }
    Ok(found)
}
