//! Moves a cursor to another place: to any retained byte, or back to the beginning.

use super::{Begin, Cursor, CursorReadError, NextRecord, SavefileFormat, storage};
use crate::record;
use crate::store::{Bounds, PinError, Position, SearchTarget, Store, StoreHeader};

impl Cursor {
    /// Moves the cursor to the byte with this coordinate of its format, as [`Position`] measures
    /// it.
    ///
    /// # Errors
    /// [`CursorReadError::Expired`] if the byte is no longer retained. The cursor does not move then.
    pub(crate) fn seek(
        &mut self,
        store: &dyn Store,
        coordinate: u64,
    ) -> Result<(), CursorReadError> {
        let Some(header) = store.header() else { return Err(CursorReadError::Expired) };
        if self.format == SavefileFormat::Pcapng && coordinate < self.plain {
            return Err(CursorReadError::Expired);
        }
        let target = match self.format {
            SavefileFormat::Pcap => SearchTarget::Pcap(coordinate),
            SavefileFormat::Pcapng => SearchTarget::Pcapng(coordinate),
        };
        if self.format == SavefileFormat::Pcapng
            && self.seek_trailing(store, &header, coordinate)?
        {
            return Ok(());
        }
        let expired = |error| match error {
            PinError::Failed(why) => CursorReadError::Storage(why),
            PinError::Lapped | PinError::NotYet => CursorReadError::Expired,
        };
        let chunk = store.find(target).and_then(|id| store.pin(id)).map_err(expired)?;
        let mut encoder = self.encoder.clone();
        encoder.jump(store.interfaces_before(chunk.first.number));
        let mut position = chunk.first;
        // Packets of other link types before `position`.
        let mut foreign = match self.format {
            SavefileFormat::Pcap => chunk.foreign,
            SavefileFormat::Pcapng => 0,
        };
        for (index, record) in record::PacketRecords::new(self.format.records(&chunk)).enumerate() {
            let interface = chunk.interface(index);
            let mut after = position;
            match self.format {
                SavefileFormat::Pcap => {
                    after.number = chunk.pcap_number(position.number, 1);
                    let passed = after.number.saturating_sub(position.number).saturating_sub(1);
                    foreign = foreign.saturating_add(passed);
                    after.pcap = after.pcap.saturating_add(record.len() as u64);
                }
                SavefileFormat::Pcapng => {
                    after.number = after.number.saturating_add(1);
                    if chunk.is_in_pcap(index) {
                        after.pcap = after.pcap.saturating_add(record.len() as u64);
                    }
                    after.pcapng = after.pcapng.saturating_add(encoder.measure(
                        store,
                        (interface, chunk.note(index)),
                        &record,
                    ));
                }
            }
            if target.coordinate(&after) <= coordinate {
                encoder.pass(interface);
                position = after;
                continue;
            }
            let mut carry = Vec::new();
            match self.format {
                SavefileFormat::Pcap => {
                    let from = usize::try_from(position.pcap.saturating_sub(chunk.first.pcap))
                        .unwrap_or(0);
                    let bytes = chunk.pcap_bytes().get(from..from.saturating_add(record.len()));
                    carry.extend_from_slice(bytes.unwrap_or_default());
                }
                SavefileFormat::Pcapng => {
                    let beside = (interface, chunk.note(index));
                    encoder.packet(store, &header, beside, &record, &mut carry);
                }
            }
            store.intact().map_err(storage)?;
            self.waiting = None;
            self.carried = usize::try_from(coordinate.saturating_sub(target.coordinate(&position)))
                .unwrap_or(0);
            self.carry = carry;
            self.encoder = encoder;
            self.place = NextRecord { chunk: chunk.id, position: after };
            self.foreign = foreign;
            self.lost = self.lost.min(after.number.saturating_sub(self.origin));
            return Ok(());
        }
        Err(CursorReadError::Expired)
    }

    /// Moves the cursor to the byte with this coordinate, if that is in the blocks after the last
    /// packet. Returns whether it is.
    fn seek_trailing(
        &mut self,
        store: &dyn Store,
        header: &StoreHeader,
        coordinate: u64,
    ) -> Result<bool, CursorReadError> {
        let Bounds { next, trailing, newest_chunk, .. } = store.bounds();
        let ahead = coordinate.checked_sub(next.pcapng).filter(|ahead| *ahead < trailing);
        let Some(ahead) = ahead else { return Ok(false) };
        let mut encoder = self.encoder.clone();
        encoder.jump(store.interfaces_before(next.number));
        let mut carry = Vec::new();
        let mut position = next;
        let len = encoder.trailing(store, header, next.number, &mut carry);
        position.pcapng = position.pcapng.saturating_add(len);
        store.intact().map_err(storage)?;
        self.waiting = None;
        self.carried = usize::try_from(ahead).unwrap_or(0).min(carry.len());
        self.carry = carry;
        self.encoder = encoder;
        self.place = NextRecord { chunk: newest_chunk, position };
        self.foreign = 0;
        self.lost = self.lost.min(next.number.saturating_sub(self.origin));
        Ok(true)
    }

    /// Moves the cursor back to its beginning, before the file header.
    pub(crate) fn rewind(&mut self, store: &dyn Store, begin: Position) {
        self.waiting = Some(Begin::Oldest);
        self.carry.clear();
        self.carried = 0;
        self.lost = 0;
        self.foreign = 0;
        self.plain = 0;
        self.encoder.jump(0);
        self.place = NextRecord { chunk: store.bounds().oldest_chunk, position: begin };
        if let Ok(chunk) = store.find(SearchTarget::Number(begin.number)) {
            self.place.chunk = chunk;
        }
    }
}
