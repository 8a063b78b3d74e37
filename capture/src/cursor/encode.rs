//! Records made into pcapng blocks, and what goes between them.

use crate::record::Record;
use crate::savefile::pcapng_writer as write;
use crate::store::{Header, Losses, RecordInterface, Store};
use crate::time::{Precision, Timestamp};

/// What a pcapng cursor has to remember between packets.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    /// Whether this cursor sends interface statistics.
    statistics: bool,
    /// Interfaces described so far.
    described: u32,
    /// Packets lost since the last one sent; told in a comment on the next.
    lost: u64,
    /// Losses told of last.
    told: Losses,
    /// Something was lost since statistics were sent.
    due: bool,
    finished: bool,
    /// When the cursor began, for the statistics.
    started: Timestamp,
    /// Kept between reads for its capacity. Taken out while the encoder is in use, so that a copy
    /// of the encoder copies no blocks.
    pub(super) scratch: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(statistics: bool) -> Self {
        Self {
            statistics,
            described: 0,
            lost: 0,
            told: Losses::default(),
            due: false,
            finished: false,
            started: Timestamp::now(),
            scratch: Vec::new(),
        }
    }

    /// Section header and the interfaces that are described before any packet.
    pub(super) fn begin(&mut self, store: &dyn Store, header: &Header, out: &mut Vec<u8>) {
        write::section_header(out);
        self.described = 0;
        self.describe(store, header, store.leading_interfaces(), out);
        self.told = store.losses();
    }

    /// Describes the interfaces below `known` that were not described yet; bytes written.
    fn describe(
        &mut self,
        store: &dyn Store,
        header: &Header,
        known: u32,
        out: &mut Vec<u8>,
    ) -> u64 {
        let before = out.len();
        while self.described < known {
            let interface = store.interface(self.described).unwrap_or_default();
            write::interface_description(out, &interface, header);
            self.described += 1;
        }
        (out.len() - before) as u64
    }

    pub(super) fn note_loss(&mut self, lost: u64) {
        self.lost += lost;
        self.due |= lost > 0;
    }

    /// Whether the next packet will have a comment.
    pub(super) const fn has_loss_to_tell(&self) -> bool {
        self.lost > 0
    }

    /// One packet; its length in the pcapng measure of positions.
    pub(super) fn packet(
        &mut self,
        store: &dyn Store,
        header: &Header,
        interface: Option<RecordInterface>,
        record: &Record<'_>,
        out: &mut Vec<u8>,
    ) -> u64 {
        let RecordInterface { id, known } =
            interface.unwrap_or(RecordInterface { id: 0, known: 1 });
        let described = self.describe(store, header, known, out);
        let comment = (self.lost > 0).then(|| {
            format!("pcapfs: {} packets lost before this one", std::mem::take(&mut self.lost))
        });
        let captured_len = u32::try_from(record.data.len()).unwrap_or(u32::MAX);
        let packet = write::Packet {
            interface: id,
            time: record.time(header.precision),
            original_len: record.original_len,
            data: record.data,
        };
        write::enhanced_packet(out, &packet, header.precision, comment.as_deref());
        described + write::enhanced_packet_len(captured_len)
    }

    /// What [`Encoder::packet`] would return.
    pub(super) fn measure(
        &self,
        store: &dyn Store,
        interface: Option<RecordInterface>,
        record: &Record<'_>,
    ) -> u64 {
        let known = interface.map_or(1, |interface| interface.known);
        let described: u64 = (self.described..known)
            .map(|id| write::interface_description_len(&store.interface(id).unwrap_or_default()))
            .sum();
        described + write::enhanced_packet_len(u32::try_from(record.data.len()).unwrap_or(u32::MAX))
    }

    /// An interface statistics block, if something was lost since the last.
    pub(super) fn statistics_if_due(
        &mut self,
        store: &dyn Store,
        delivered: u64,
        out: &mut Vec<u8>,
    ) {
        let losses = store.losses();
        if self.statistics && (std::mem::take(&mut self.due) || losses != self.told) {
            self.write_statistics(store, losses, delivered, out);
        }
    }

    /// The last block of a stream that ends.
    pub(super) fn finish(&mut self, store: &dyn Store, delivered: u64, out: &mut Vec<u8>) {
        if self.statistics && !std::mem::replace(&mut self.finished, true) {
            self.write_statistics(store, store.losses(), delivered, out);
        }
    }

    fn write_statistics(
        &mut self,
        store: &dyn Store,
        losses: Losses,
        delivered: u64,
        out: &mut Vec<u8>,
    ) {
        self.told = losses;
        let stored = store.bounds().next.number - 1;
        let precision = store.header().map_or(Precision::Nano, |header| header.precision);
        let statistics = write::Statistics {
            start: Some(self.started),
            received: Some(stored + losses.kernel + losses.oversize),
            interface_dropped: Some(losses.interface),
            os_dropped: Some(losses.kernel),
            delivered: Some(delivered),
        };
        write::interface_statistics(out, 0, Timestamp::now(), precision, &statistics);
    }

    /// Says which interfaces a reader that jumps to a place has seen described before it.
    pub(super) const fn jump(&mut self, described: u32) {
        self.described = described;
        self.lost = 0;
    }
}
