//! Bytes for readers: extents and whole records, fetched from the store by packet number.

use std::ops::Range;

use protocol::http::body::{BodyPiece, Streams};
use protocol::http::direction::MessageRole;
use protocol::tcp::Direction;

use crate::flow::error::FlowReadError;
use crate::flow::locator::RecordPlace;
use crate::flow::places::FoundPlaces;
use crate::flow::places::{Wanted, list, sender};
use crate::flow::shared::SharedFlows;
use crate::record;
use crate::store::{Chunk, PinError};

/// Bytes of a stream that are looked up at a time, so that the engine does not wait long.
const PORTION: u64 = 256 << 10;

impl SharedFlows {
    /// Hands the bytes of `wanted` to `sink`, in order.
    ///
    /// # Errors
    /// The storage's error if it failed; some bytes may have been handed out by then.
    pub(in crate::flow) fn gather(
        &self,
        wanted: &[Wanted],
        sink: &mut dyn FnMut(BodyPiece<'_>),
    ) -> Result<(), String> {
        let mut held: Option<Chunk<'_>> = None;
        for one in wanted {
            let place = one.extent.and_then(|extent| self.locator.read().place(extent.packet));
            let (Some(extent), Some(place)) = (one.extent, place) else {
                sink(BodyPiece::Hole(one.len));
                continue;
            };
            self.hold(&mut held, place)?;
            let record = held.as_ref().and_then(|chunk| place.record(chunk.bytes()));
            match record.and_then(|record| record.data.get(extent.range())) {
                Some(bytes) => sink(BodyPiece::Bytes(bytes)),
                None => sink(BodyPiece::Hole(one.len)),
            }
        }
        drop(held);
        self.store.intact().map_err(|error| error.to_string())
    }

    /// Hands whole records, header and data, to `sink`, as long as `sink` returns true. Returns
    /// `false` if a packet is gone.
    ///
    /// # Errors
    /// The storage's error if it failed.
    pub(in crate::flow) fn records(
        &self,
        numbers: impl Iterator<Item = u64>,
        sink: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, String> {
        let mut held: Option<Chunk<'_>> = None;
        for number in numbers {
            let Some(place) = self.locator.read().place(number) else { return Ok(false) };
            self.hold(&mut held, place)?;
            let bytes = held.as_ref().and_then(|chunk| place.bytes(chunk.bytes()));
            let Some(record) = bytes.and_then(|bytes| bytes.get(..record::len_at(bytes)?)) else {
                return Ok(false);
            };
            if !sink(record) {
                break;
            }
        }
        drop(held);
        self.store.intact().map_err(|error| error.to_string())?;
        Ok(true)
    }

    /// Holds the chunk of `place` instead of the one held before; holds none if that chunk is gone.
    fn hold<'s>(&'s self, held: &mut Option<Chunk<'s>>, place: RecordPlace) -> Result<(), String> {
        if held.as_ref().is_some_and(|chunk| chunk.id == place.chunk) {
            return Ok(());
        }
        // Release the old chunk first: a reader that waits for a chunk must hold none.
        *held = None;
        match self.store.pin(place.chunk) {
            Ok(chunk) => *held = Some(chunk),
            Err(PinError::Lapped | PinError::NotYet) => {}
            Err(PinError::Failed(why)) => return Err(why),
        }
        Ok(())
    }

    /// Hands `range` of the stream that flow `id` sends in `direction` to `sink`. Missing bytes are
    /// handed out as holes.
    ///
    /// # Errors
    /// If the flow has left the tree, or the storage failed; some bytes may have been handed out by
    /// then.
    pub(in crate::flow) fn read_stream(
        &self,
        id: u64,
        direction: Direction,
        range: Range<u64>,
        sink: &mut dyn FnMut(BodyPiece<'_>),
    ) -> Result<(), FlowReadError> {
        let mut at = range.start;
        let mut wanted = Vec::new();
        while at < range.end {
            let end = range.end.min(at.saturating_add(PORTION));
            wanted.clear();
            let table = self.table.read();
            // Nothing of the flow can be found any more, which differs from a hole.
            let flow = table.flow(id).ok_or(FlowReadError::Expired)?;
            list(Some(flow), direction, at..end, |one| wanted.push(one));
            drop(table);
            self.gather(&wanted, sink)?;
            at = end;
        }
        Ok(())
    }
}

/// The streams of a flow, addressed by the sides of HTTP.
#[derive(Debug)]
pub(in crate::flow) struct FlowStreams<'a> {
    pub(in crate::flow) shared: &'a SharedFlows,
    pub(in crate::flow) id: u64,
    /// The direction of the requests.
    pub(in crate::flow) request: Direction,
    /// Places that were looked up before.
    pub(in crate::flow) found: Option<&'a FoundPlaces<'a>>,
}

impl<'a> FlowStreams<'a> {
    /// The streams of flow `id`, whose requests go in direction `request`.
    pub(in crate::flow) fn new(shared: &'a SharedFlows, id: u64, request: Direction) -> Self {
        Self { shared, id, request, found: None }
    }
}

impl Streams for FlowStreams<'_> {
    fn read(&self, side: MessageRole, range: Range<u64>, sink: &mut dyn FnMut(BodyPiece<'_>)) {
        let mut given = 0;
        let mut counting = |piece: BodyPiece<'_>| {
            given += match piece {
                BodyPiece::Bytes(bytes) => bytes.len() as u64,
                BodyPiece::Hole(len) => len,
            };
            sink(piece);
        };
        let direction = sender(side, self.request);
        let len = range.end.saturating_sub(range.start);
        let read = match self.found.and_then(|found| found.part(side, &range)) {
            Some(wanted) => self.shared.gather(&wanted, &mut counting).map_err(FlowReadError::from),
            None => self.shared.read_stream(self.id, direction, range, &mut counting),
        };
        // Neither a storage that failed nor a flow that has left the tree gives any more bytes.
        if read.is_err() && given < len {
            sink(BodyPiece::Hole(len.saturating_sub(given)));
        }
    }
}
