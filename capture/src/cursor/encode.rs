//! Encodes records as pcapng blocks, with the further blocks between them.

use std::fmt::Write as _;

use protocol::time::{Precision, Timestamp};

use crate::clock;
use crate::hole::Hole;
use crate::record::PacketRecord;
use crate::savefile::pcapng_writer as write;
use crate::store::{Losses, NoteRef, RecordInterface, Store, StoreHeader};

/// Maximum number of holes in time in the comment on one packet. All holes are in statistics blocks
/// before it.
const HOLES_PER_PACKET: usize = 16;

/// The state of a pcapng cursor between packets.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    /// Whether this cursor sends interface statistics.
    statistics: bool,
    /// Number of interfaces described so far.
    described: u32,
    /// Packets lost since the last one sent; reported in a comment on the next one.
    lost: u64,
    /// Index of the first hole in time that has not been reported.
    hole: u64,
    /// Holes reported since the last packet in which the source was lost; repeated in the comment
    /// on the next packet.
    holes: Vec<Hole>,
    /// The losses reported last.
    reported: Losses,
    /// Packets were lost since statistics were last sent.
    due: bool,
    finished: bool,
    /// Bytes of blocks that were sent when no packet followed them. They belong to the next packet
    /// and are not sent again.
    trailed: usize,
    /// The time at which the cursor began, for the statistics.
    started: Timestamp,
    /// Kept between reads for its capacity. Taken out while the encoder is in use, so that a copy
    /// of the encoder copies no blocks.
    pub(super) scratch: Vec<u8>,
}

impl Encoder {
    /// `hole` is the index of the first hole in time to report.
    pub(super) fn new(statistics: bool, hole: u64) -> Self {
        Self {
            statistics,
            described: 0,
            lost: 0,
            hole,
            holes: Vec::new(),
            reported: Losses::default(),
            due: false,
            finished: false,
            trailed: 0,
            started: clock::now(),
            scratch: Vec::new(),
        }
    }

    /// Writes the section header, and the interfaces that are described before the first packet,
    /// which is number `number`.
    pub(super) fn begin(
        &mut self,
        store: &dyn Store,
        header: &StoreHeader,
        number: u64,
        out: &mut Vec<u8>,
    ) {
        write::section_header(out, store.section_options());
        self.described = 0;
        self.describe(store, header, store.interfaces_before(number), out);
        self.reported = store.losses();
    }

    /// Describes the interfaces before packet `number` that have not been described yet, as after a
    /// loss. Positions do not count these descriptions at this place.
    pub(super) fn describe_missed(
        &mut self,
        store: &dyn Store,
        header: &StoreHeader,
        number: u64,
        out: &mut Vec<u8>,
    ) {
        self.describe(store, header, store.interfaces_before(number), out);
    }

    /// Describes the interfaces below `known` that have not been described yet. Returns the bytes
    /// written.
    fn describe(
        &mut self,
        store: &dyn Store,
        header: &StoreHeader,
        known: u32,
        out: &mut Vec<u8>,
    ) -> u64 {
        let before = out.len();
        // Another process may have changed the number, so stop where the interfaces end.
        while self.described < known
            && let Some(interface) = store.interface(self.described)
        {
            write::interface_description(out, &interface, header);
            self.described = self.described.saturating_add(1);
        }
        out.len().saturating_sub(before) as u64
    }

    pub(super) fn note_loss(&mut self, lost: u64) {
        self.lost = self.lost.saturating_add(lost);
        self.due |= lost > 0;
    }

    /// Returns true if the next packet will have a comment.
    pub(super) const fn has_comment(&self) -> bool {
        self.lost > 0 || !self.holes.is_empty()
    }

    /// Returns true if there are holes in time that have not been reported.
    pub(super) fn has_hole_to_tell(&self, store: &dyn Store) -> bool {
        self.statistics && self.hole < store.holes()
    }

    /// Writes an interface statistics block for each hole in time before the packet with this
    /// number. Returns the number of the packet that the next hole precedes.
    ///
    /// To be called after the store's contents up to that packet have been seen.
    pub(super) fn holes_before(
        &mut self,
        store: &dyn Store,
        number: u64,
        delivered: u64,
        out: &mut Vec<u8>,
    ) -> u64 {
        while self.has_hole_to_tell(store) {
            let Some((index, hole)) = store.hole(self.hole) else { break };
            if hole.before > number {
                return hole.before;
            }
            self.hole = index.saturating_add(1);
            let comment = format!("pcapfs: {hole}");
            self.write_statistics(store, store.losses(), delivered, Some(&comment), out);
            if hole.lost && self.holes.len() < HOLES_PER_PACKET {
                self.holes.push(hole);
            }
        }
        u64::MAX
    }

    /// Writes one packet. Returns its length in the pcapng measure of positions.
    pub(super) fn packet(
        &mut self,
        store: &dyn Store,
        header: &StoreHeader,
        beside: (Option<RecordInterface>, NoteRef<'_>),
        record: &PacketRecord<'_>,
        out: &mut Vec<u8>,
    ) -> u64 {
        let (interface, note) = beside;
        let RecordInterface { id, known } =
            interface.unwrap_or(RecordInterface { id: 0, known: 1 });
        let described = self.describe(store, header, known, out);
        let trailed = std::mem::take(&mut self.trailed).min(note.blocks.len());
        out.extend(note.blocks.get(trailed..).unwrap_or_default());
        let comment = self.has_comment().then(|| self.take_comment());
        let captured_len = u32::try_from(record.data.len()).unwrap_or(u32::MAX);
        let packet = write::PacketBlockContent {
            interface: if id < self.described { id } else { 0 },
            time: record.time(header.precision),
            original_len: record.original_len,
            data: record.data,
        };
        let comment = comment.as_deref();
        write::enhanced_packet(out, &packet, header.precision, note.options, comment);
        described
            .saturating_add(write::len_of(&note).saturating_sub(trailed as u64))
            .saturating_add(write::enhanced_packet_len(captured_len))
    }

    /// Appends the blocks after the last packet, if that is the packet before `number`, without
    /// those that were sent already. Returns their length in the pcapng measure of positions.
    pub(super) fn trailing(
        &mut self,
        store: &dyn Store,
        header: &StoreHeader,
        number: u64,
        out: &mut Vec<u8>,
    ) -> u64 {
        let trailing = store.trailing().filter(|trailing| trailing.number == number);
        let Some(trailing) = trailing else { return 0 };
        let described = self.describe(store, header, trailing.known, out);
        let blocks = trailing.blocks.get(self.trailed..).unwrap_or_default();
        self.trailed = self.trailed.saturating_add(blocks.len());
        out.extend(blocks);
        described.saturating_add(blocks.len() as u64)
    }

    /// The comment on a packet. It begins with the number of packets lost before it, even if that
    /// is 0, and goes on with the holes in time.
    fn take_comment(&mut self) -> String {
        let lost = std::mem::take(&mut self.lost);
        let mut comment = format!("pcapfs: {lost} packets lost before this one");
        for hole in std::mem::take(&mut self.holes) {
            // Writing to a string does not fail.
            let _ = write!(comment, "; {hole}");
        }
        comment
    }

    /// The value that [`Encoder::packet`] would return.
    pub(super) fn measure(
        &self,
        store: &dyn Store,
        beside: (Option<RecordInterface>, NoteRef<'_>),
        record: &PacketRecord<'_>,
    ) -> u64 {
        let (interface, note) = beside;
        let known = interface.map_or(1, |interface| interface.known);
        let described: u64 = (self.described..known)
            .map_while(|id| Some(write::interface_description_len(&store.interface(id)?)))
            .sum();
        let captured_len = u32::try_from(record.data.len()).unwrap_or(u32::MAX);
        described
            .saturating_add(write::len_of(&note))
            .saturating_add(write::enhanced_packet_len(captured_len))
    }

    /// Writes an interface statistics block if packets were lost since the last one.
    pub(super) fn statistics_if_due(
        &mut self,
        store: &dyn Store,
        delivered: u64,
        out: &mut Vec<u8>,
    ) {
        let losses = store.losses();
        if self.statistics && (self.due || losses != self.reported) {
            self.write_statistics(store, losses, delivered, None, out);
        }
    }

    /// Writes the last block of a stream that ends.
    pub(super) fn finish(&mut self, store: &dyn Store, delivered: u64, out: &mut Vec<u8>) {
        if self.statistics && !std::mem::replace(&mut self.finished, true) {
            self.write_statistics(store, store.losses(), delivered, None, out);
        }
    }

    fn write_statistics(
        &mut self,
        store: &dyn Store,
        losses: Losses,
        delivered: u64,
        comment: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        self.reported = losses;
        self.due = false;
        let stored = store.bounds().next.number.saturating_sub(1);
        let precision = store.header().map_or(Precision::Nano, |header| header.precision);
        let statistics = write::Statistics {
            start: Some(self.started),
            received: Some(
                stored
                    .saturating_add(losses.kernel)
                    .saturating_add(losses.oversize)
                    .saturating_add(losses.remote),
            ),
            interface_dropped: Some(losses.interface),
            os_dropped: Some(losses.kernel),
            delivered: Some(delivered),
        };
        write::interface_statistics(out, 0, clock::now(), precision, &statistics, comment);
    }

    /// Sets how many interfaces were described before the place that a reader jumps to.
    pub(super) fn jump(&mut self, described: u32) {
        self.described = described;
        self.trailed = 0;
        self.lost = 0;
        self.holes.clear();
    }

    /// Counts the interfaces described right before a packet that is skipped as described.
    pub(super) fn pass(&mut self, interface: Option<RecordInterface>) {
        self.described = self.described.max(interface.map_or(0, |interface| interface.known));
    }
}
