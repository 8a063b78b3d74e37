//! The bytes of packets for the engine: those of the current chunk, and of any earlier one.

use std::borrow::Cow;
use std::thread;

use parking_lot::RwLock;
use protocol::extent::Extent;
use protocol::tcp::{Bytes, Difference, Direction};
use protocol::time::{Precision, Timestamp};

use super::arrival::Arrival;
use super::locator::{Locator, RecordPlace};
use crate::record::PacketRecord;
use crate::store::{PinError, Store};

/// The engine's view from the packet it is at: all packets up to that one.
pub(super) struct EngineWindow<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) locator: &'a RwLock<Locator>,
    pub(super) precision: Precision,
    /// The chunk that the engine holds, and its records.
    pub(super) chunk: u64,
    pub(super) bytes: &'a [u8],
    /// The packet that the engine is at; its bytes are read most often.
    pub(super) number: u64,
    pub(super) data: &'a [u8],
    pub(super) time: Timestamp,
}

impl<'a> EngineWindow<'a> {
    /// A view between two packets: there is no current packet, though the engine may hold a chunk.
    pub(super) fn between(
        store: &'a dyn Store,
        locator: &'a RwLock<Locator>,
        chunk: u64,
        bytes: &'a [u8],
    ) -> Self {
        let header = store.header();
        Self {
            store,
            locator,
            precision: header.map_or(Precision::Nano, |header| header.precision),
            chunk,
            bytes,
            number: 0,
            data: &[],
            time: Timestamp::default(),
        }
    }

    /// An earlier packet, which went in `direction`; `None` if it is gone.
    pub(super) fn arrival(&self, number: u64, direction: Direction) -> Option<Arrival> {
        let arrival = |record: &PacketRecord<'_>| {
            Some(Arrival::new(number, record.time(self.precision), direction, record))
        };
        let place = self.locator.read().place(number)?;
        if place.chunk == self.chunk {
            return arrival(&place.record(self.bytes)?);
        }
        self.elsewhere(place, arrival)
    }

    /// The bytes of an extent, and the time of their packet; `None` if they are gone.
    pub(super) fn read(&self, extent: Extent) -> Option<(Cow<'_, [u8]>, Timestamp)> {
        if extent.packet == self.number {
            return self.data.get(extent.range()).map(|bytes| (Cow::Borrowed(bytes), self.time));
        }
        let place = self.locator.read().place(extent.packet)?;
        if place.chunk == self.chunk {
            let record = place.record(self.bytes)?;
            let bytes = record.data.get(extent.range())?;
            return Some((Cow::Borrowed(bytes), record.time(self.precision)));
        }
        let precision = self.precision;
        let found = self.elsewhere(place, |record| {
            let bytes = record.data.get(extent.range())?.to_vec();
            Some((bytes, record.time(precision)))
        });
        found.map(|(bytes, time)| (Cow::Owned(bytes), time))
    }

    fn elsewhere<T>(
        &self,
        place: RecordPlace,
        take: impl Fn(&PacketRecord<'_>) -> Option<T>,
    ) -> Option<T> {
        loop {
            match self.store.pin_more(place.chunk) {
                Ok(chunk) => return take(&place.record(chunk.bytes())?),
                // The chunk was stored, so other readers hold the maximum number of chunks. They
                // hold them for one reply each, and wait for no one.
                Err(PinError::NotYet) => thread::yield_now(),
                Err(PinError::Lapped | PinError::Failed(_)) => return None,
            }
        }
    }
}

impl Bytes for EngineWindow<'_> {
    fn get(&self, extent: Extent) -> Option<&[u8]> {
        match self.read(extent)?.0 {
            Cow::Borrowed(bytes) => Some(bytes),
            Cow::Owned(_) => None,
        }
    }

    fn differing(&self, one: Extent, other: Extent) -> Option<Difference> {
        Difference::between(&self.read(one)?.0, &self.read(other)?.0)
    }
}
