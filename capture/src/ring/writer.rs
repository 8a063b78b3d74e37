//! The writer, which fills a ring.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::linktype::LinkType;
use protocol::time::Timestamp;

use super::Ring;
use super::lineage::FarPlace;
use super::map::{BodyArea, RingTail, SegmentOpening};
use super::notes::{FIXED_LEN, NoteEntry};
use super::published::Moment;
use crate::clock;
use crate::hole::Hole;
use crate::record;
use crate::savefile::pcapng_writer::{enhanced_packet_len, len_of};
use crate::store::{Interface, NoteRef, Position, RecordInterface, Store, Trailing};

/// The result of appending a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Append {
    /// The packet is in the ring, and becomes visible with the next [`Writer::publish`] at the
    /// latest.
    Stored,
    /// Its record is longer than a segment; counted as oversize.
    Oversize,
}

/// The writing end of a [`Ring`]; each ring has one.
///
/// Appended packets become visible to cursors at [`Writer::publish`], which a source calls once per
/// batch, or when a segment is full.
#[derive(Debug)]
pub struct Writer {
    ring: Arc<Ring>,
    tail: RingTail,
    sequence: u64,
    next: Position,
    /// Position of the first packet of the oldest retained segment.
    oldest: Position,
    /// Packets in the open segment.
    count: u64,
    first_time: u64,
    last_time: u64,
    unpublished: bool,
    /// Interface of the packets that [`Writer::append`] adds.
    interface: u32,
    /// Number of interfaces described before the next packet.
    known: u32,
    /// Whether the next packet needs an entry even without a note: its interface is not 0, or
    /// descriptions come right before it.
    has_entry: bool,
    /// Bytes of the descriptions that come right before the next packet.
    described: u64,
    /// Number of notes that were left out.
    left_out: u64,
    /// The place in the ring that this one follows, after the appended packets.
    far: Option<FarPlace>,
    /// The current absence of a source. It becomes a hole when a source is back.
    away: Option<Away>,
}

/// Records that were filled in beside others, see [`super::shared`].
#[derive(Debug)]
pub(super) struct FilledRun {
    /// Sequence number of the segment.
    pub(super) sequence: u64,
    pub(super) area: BodyArea,
    /// Number of records.
    pub(super) count: u64,
    /// Bytes of the records, and bytes in a pcapng file.
    pub(super) pcap: u64,
    pub(super) pcapng: u64,
    /// Time of the first record, and the latest one of all.
    pub(super) first_time: u64,
    pub(super) last_time: u64,
}

/// When and why the source left.
#[derive(Debug)]
struct Away {
    began: Timestamp,
    why: String,
    lost: bool,
}

/// The position at which a writer starts in a new or recovered ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriterStart {
    pub(super) sequence: u64,
    pub(super) next: Position,
    pub(super) oldest: Position,
    pub(super) count: u64,
    pub(super) first_time: u64,
    pub(super) last_time: u64,
}

impl Writer {
    pub(super) fn new(ring: Arc<Ring>, tail: RingTail, start: WriterStart) -> Self {
        let WriterStart { sequence, next, oldest, count, first_time, last_time } = start;
        let ring_known = ring.interfaces.lock().count();
        let far = ring.file_header().lineage.far(next.number);
        let writer = Self {
            ring,
            tail,
            sequence,
            next,
            oldest,
            count,
            first_time,
            last_time,
            unpublished: false,
            interface: 0,
            known: ring_known,
            has_entry: false,
            described: 0,
            left_out: 0,
            far,
            away: None,
        };
        writer.show_far();
        writer
    }

    /// The ring that this writer fills.
    #[must_use]
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Adds a packet after the others.
    ///
    /// `data` are its captured bytes, already cut to the snaplen; `original_len` is its length on
    /// the wire. Lengths beyond 4 GiB do not occur: a segment is smaller.
    pub fn append(&mut self, time: Timestamp, original_len: u32, data: &[u8]) -> Append {
        self.append_joined(time, original_len, [&[], data])
    }

    /// Adds a packet whose captured bytes are in two parts, one after the other. Otherwise it is
    /// [`Writer::append`].
    pub fn append_joined(
        &mut self,
        time: Timestamp,
        original_len: u32,
        parts: [&[u8]; 2],
    ) -> Append {
        if self.has_entry {
            return self.append_parts(time, original_len, parts, NoteRef::default());
        }
        self.append_record(time, original_len, parts)
    }

    /// Adds a packet with its note from a pcapng file. The note is left out and counted if it does
    /// not fit a segment together with the packet.
    pub fn append_noted(
        &mut self,
        time: Timestamp,
        original_len: u32,
        data: &[u8],
        note: NoteRef<'_>,
    ) -> Append {
        self.append_parts(time, original_len, [&[], data], note)
    }

    fn append_parts(
        &mut self,
        time: Timestamp,
        original_len: u32,
        parts: [&[u8]; 2],
        note: NoteRef<'_>,
    ) -> Append {
        if note.is_empty() && !self.has_entry {
            return self.append_record(time, original_len, parts);
        }
        let len = record::HEADER_LEN + parts_len(parts);
        let size = usize::try_from(self.ring.geometry().segment_size).unwrap_or(usize::MAX);
        let Some(free) = size.checked_sub(len + FIXED_LEN) else {
            if !self.has_entry {
                self.left_out += 1;
                return self.append_record(time, original_len, parts);
            }
            self.add_oversize(1);
            return Append::Oversize;
        };
        let mut kept = note;
        if kept.blocks.len() + kept.options.len() > free {
            kept.blocks = &[];
        }
        if kept.options.len() > free {
            kept.options = &[];
        }
        self.left_out += u64::from(kept != note);
        let interface = RecordInterface { id: self.interface, known: self.known };
        let mut entry = NoteEntry { index: 0, interface, note: kept };
        if self.tail.room() < len + entry.len() {
            self.roll();
        }
        // A segment has fewer records than bytes.
        entry.index = u32::try_from(self.count).unwrap_or(u32::MAX);
        self.ring.file_header().mark_notes();
        self.tail.note(&entry);
        self.next.pcapng += std::mem::take(&mut self.described) + len_of(&kept);
        self.has_entry = self.interface != 0;
        self.append_record(time, original_len, parts)
    }

    fn append_record(&mut self, time: Timestamp, original_len: u32, parts: [&[u8]; 2]) -> Append {
        let len = record::HEADER_LEN + parts_len(parts);
        let captured_len = match u32::try_from(parts_len(parts)) {
            Ok(captured_len) if len as u64 <= self.ring.geometry().segment_size => captured_len,
            _ => {
                self.add_oversize(1);
                return Append::Oversize;
            }
        };
        if self.tail.room() < len {
            self.roll();
        }
        let header = record::header(time, self.ring.precision(), captured_len, original_len);
        self.tail.append(header, parts);
        if self.count == 0 {
            self.first_time = time.nanoseconds();
        }
        self.last_time = time.nanoseconds();
        self.count += 1;
        self.next.number += 1;
        self.next.pcap += len as u64;
        self.next.pcapng += enhanced_packet_len(captured_len);
        self.unpublished = true;
        Append::Stored
    }

    /// Makes all appended packets visible, and wakes the readers that wait for them.
    pub fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.commit();
            self.ring.bells().strike();
        }
    }

    /// Counts packets that were lost before they could be appended. `interface` counts packets that
    /// the driver dropped: the kernel never saw them, and no sum includes both.
    pub fn add_loss(&self, kernel: u64, interface: u64) {
        let header = self.ring.file_header();
        header.dropped_kernel.fetch_add(kernel, Ordering::Relaxed);
        header.dropped_interface.fetch_add(interface, Ordering::Relaxed);
    }

    /// Counts packets whose record is longer than a segment, which are not appended.
    pub fn add_oversize(&self, packets: u64) {
        self.ring.file_header().dropped_oversize.fetch_add(packets, Ordering::Relaxed);
    }

    /// Counts packets of our own transport, which are not appended.
    pub fn add_excluded(&self, packets: u64) {
        self.ring.file_header().excluded.fetch_add(packets, Ordering::Relaxed);
    }

    /// The place in the ring that this one follows, as set last, also by an earlier process; `None`
    /// if it follows no other.
    #[must_use]
    pub const fn far_place(&self) -> Option<FarPlace> {
        self.far
    }

    /// Sets the place in the ring that this one follows, which is after the packets appended so
    /// far. It is stored together with them: with the next [`Writer::publish`] at the latest.
    ///
    /// Call it after each packet, and for packets that are left out.
    pub const fn set_far_place(&mut self, far: FarPlace) {
        self.far = Some(far);
        self.unpublished = true;
    }

    /// Takes over identity and far place of a ring whose packets were copied into this one.
    pub(super) fn inherit_lineage(&mut self, from: &Ring) {
        let (old, new) = (from.bounds().next.number, self.next.number);
        self.ring.file_header().inherit_lineage(from.file_header(), (old, new));
        self.far = self.ring.file_header().lineage.far(new);
        self.show_far();
    }

    /// Number of packets whose note could not be kept in full.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Stores the options of a pcapng stream's first section. The options, and the interfaces
    /// described until [`Writer::declare`], come before everything.
    ///
    /// Does nothing once readers may have seen the header, because the header must not change.
    pub fn begin_section(&mut self, options: &[u8]) {
        if self.ring.header().is_some() {
            return;
        }
        self.ring.interfaces.lock().begin(options, self.ring.file_header());
        let _ = self.ring.section.set(options.into());
    }

    /// Shows readers the blocks that a stream has after its last packet, once the source has ended.
    pub fn set_trailing(&mut self, blocks: &[u8]) {
        let len = self.described + blocks.len() as u64;
        let (number, known, blocks) = (self.next.number, self.known, blocks.into());
        *self.ring.trailing.write() = Some(Arc::new(Trailing { number, known, blocks, len }));
    }

    /// Takes back the blocks that [`Writer::set_trailing`] showed. Store them with the next packet,
    /// so that they stay at their offset.
    pub fn take_trailing(&mut self) -> Option<Arc<[u8]>> {
        let trailing = self.ring.trailing.write().take()?;
        Some(Arc::clone(&trailing.blocks))
    }

    /// Describes an interface right before the next packet, and returns its index. If the same
    /// interface was described before and is not in `taken`, its index is returned and nothing is
    /// added.
    ///
    /// # Errors
    /// The index of the last interface, if the ring has no room for more.
    pub fn describe(&mut self, interface: &Interface, taken: &[u32]) -> Result<u32, u32> {
        let is_leading = self.ring.header().is_none();
        let before = if is_leading { 0 } else { self.next.number };
        let mut interfaces = self.ring.interfaces.lock();
        let described = interfaces.describe(interface, taken, before, self.ring.file_header());
        self.known = interfaces.count();
        drop(interfaces);
        let (id, len) = described?;
        if len > 0 && !is_leading {
            self.described += len;
            self.has_entry = true;
        }
        Ok(id)
    }

    /// Sets the interface of the following packets; it must have been described.
    pub fn set_interface(&mut self, id: u32) {
        self.interface = id.min(self.known.saturating_sub(1));
        self.has_entry = self.interface != 0 || self.described > 0;
    }

    /// Sets the source itself as the interface of the following packets, for sources that report
    /// none.
    pub fn set_own_interface(&mut self) {
        let own = self.ring.own.clone();
        let (Ok(id) | Err(id)) = self.describe(&own, &[]);
        self.set_interface(id);
    }

    /// Declares the link type and snaplen of the source, once they are known.
    ///
    /// # Errors
    /// The link type that the ring already holds, if it differs; nothing is changed then.
    pub fn declare(&self, link_type: LinkType, snaplen: u32) -> Result<(), LinkType> {
        self.ring.declare(link_type, snaplen)?;
        // Readers may be waiting for just the header.
        self.ring.bells().strike();
        Ok(())
    }

    /// Drops all retained packets. They are lost to cursors that had not read them yet.
    pub fn clear(&mut self) {
        self.commit();
        self.sequence += 1;
        let opening = self.opening();
        self.tail.clear(opening);
        self.begin_segment();
        self.oldest = self.next;
        self.take_trailing();
        self.show();
        self.ring.bells().strike();
    }

    /// Records whether the source has ended. Everything appended is published first.
    pub fn set_ended(&mut self, ended: bool) {
        self.publish();
        self.ring.ended.store(ended, Ordering::SeqCst);
        self.ring.bells().strike();
    }

    /// Records that the source is gone from `began` on, until [`Writer::source_found`]. If it was
    /// already gone, adds another reason.
    pub fn source_lost(&mut self, began: Timestamp, why: &str) {
        self.away(began, why, true);
    }

    /// Records that the source pauses from `began` on, until [`Writer::source_found`]. If it was
    /// already gone, adds another reason.
    pub fn source_rests(&mut self, began: Timestamp, why: &str) {
        self.away(began, why, false);
    }

    fn away(&mut self, began: Timestamp, why: &str, lost: bool) {
        self.publish();
        match &mut self.away {
            Some(away) => {
                away.why.push_str("; ");
                away.why.push_str(why);
                away.lost |= lost;
            }
            None => self.away = Some(Away { began, why: why.to_owned(), lost }),
        }
    }

    /// Records that packets may have come again from `ended` on, and reports the hole to readers at
    /// once.
    pub fn source_found(&mut self, ended: Timestamp) {
        self.publish();
        if let Some(Away { began, why, lost }) = self.away.take() {
            // The clock may have been set since.
            let ended = ended.max(began);
            let before = self.next.number;
            self.ring.holes.add(Hole { before, began, ended, why: why.into(), lost });
            self.ring.bells().strike();
        }
    }

    /// Stores the current time in the ring file, as proof for the next process that a source was
    /// there.
    pub fn note_alive(&self) {
        if self.away.is_none() {
            let now = clock::now().nanoseconds();
            self.ring.file_header().last_alive.store(now, Ordering::Relaxed);
        }
    }

    /// Returns true if the next packet needs an entry even without a note.
    pub(super) const fn needs_entries(&self) -> bool {
        self.has_entry
    }

    /// Sequence number of the open segment.
    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// See [`RingTail::reservable`].
    pub(super) fn reservable(&self) -> usize {
        self.tail.reservable()
    }

    /// See [`RingTail::reserve`].
    pub(super) fn reserve(&mut self, len: usize) -> (BodyArea, usize) {
        self.tail.reserve(len)
    }

    /// See [`RingTail::reserve_segment`].
    pub(super) fn reserve_segment(&mut self) -> bool {
        let has_room = self.tail.reserve_segment();
        if has_room {
            // The oldest segment may be gone.
            self.show_oldest();
        }
        has_room
    }

    /// Adds the run that was reserved first after the others. It becomes visible with
    /// [`Writer::commit_accepted`].
    pub(super) fn accept(&mut self, run: &FilledRun) {
        while self.sequence < run.sequence {
            self.roll();
        }
        self.tail.accept(&run.area);
        if self.count == 0 {
            self.first_time = run.first_time;
        }
        self.last_time = self.last_time.max(run.last_time);
        self.count += run.count;
        self.next.number += run.count;
        self.next.pcap += run.pcap;
        self.next.pcapng += run.pcapng;
    }

    /// Makes all accepted runs visible. The caller wakes the readers.
    pub(super) fn commit_accepted(&mut self) {
        self.commit();
    }

    fn commit(&mut self) {
        if let Some(far) = self.far {
            // First, see [`super::lineage`].
            self.ring.file_header().lineage.set_far(self.next.number, far);
        }
        self.tail.commit(self.count, self.first_time, self.last_time);
        self.show();
    }

    fn roll(&mut self) {
        self.commit();
        self.sequence += 1;
        let opening = self.opening();
        self.tail.roll(opening);
        self.begin_segment();
        self.show_oldest();
    }

    /// Looks which segment is the oldest one, and shows it to readers.
    fn show_oldest(&mut self) {
        // The header may hold another process's numbers, see `between`.
        self.oldest = between(self.tail.oldest_position(), self.oldest, self.next);
        self.show();
    }

    fn begin_segment(&mut self) {
        self.count = 0;
        self.first_time = 0;
    }

    fn opening(&self) -> SegmentOpening {
        let header = self.ring.file_header();
        // Any number may be there, if another process has written to the file.
        let oversize = header.dropped_oversize.load(Ordering::Relaxed);
        let loss_before = header.dropped_kernel.load(Ordering::Relaxed).saturating_add(oversize);
        SegmentOpening { sequence: self.sequence, position: self.next, loss_before }
    }

    fn show_far(&self) {
        let lost = self.far.map_or(0, |far| far.lost);
        self.ring.lost_remote.store(lost, Ordering::Relaxed);
    }

    fn show(&self) {
        self.show_far();
        self.ring.used.store(self.tail.retained() as u64, Ordering::Relaxed);
        self.ring.published.write(Moment {
            oldest_chunk: self.tail.oldest(),
            newest_chunk: self.sequence,
            oldest: self.oldest,
            next: self.next,
            newest_time: self.last_time,
        });
    }
}

/// Bytes of a packet in two parts.
fn parts_len([front, data]: [&[u8]; 2]) -> usize {
    front.len() + data.len()
}

/// Limits a position to lie between two others. Another process may have written to the header it
/// comes from, and readers rely on the order.
fn between(position: Position, least: Position, most: Position) -> Position {
    let number = |of: fn(&Position) -> u64| of(&position).max(of(&least)).min(of(&most));
    Position {
        number: number(|one| one.number),
        pcap: number(|one| one.pcap),
        pcapng: number(|one| one.pcapng),
    }
}
