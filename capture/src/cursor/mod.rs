//! A reader's place in a store, and the savefile bytes that the reader gets from there.
//!
//! A [`Cursor`] hands out one endless savefile, piece by piece: a header, then record after record
//! as they are stored. A reply may end in the middle of a record. The cursor then keeps the rest of
//! that record, so that the bytes a reader has seen stay a valid beginning of a savefile, whatever
//! happens to the ring before the reader comes back. If a cursor's next record is no longer
//! retained, the cursor skips to the oldest one that is, and counts exactly the packets it skipped.
//!
//! A pcap file holds one link type, so a pcap cursor skips packets of other link types, and counts
//! them too. It skips them at once: after a delivered record, its position is the next record that
//! it can deliver, or the end of its chunk.
//!
//! Between replies `position` is always a record boundary, and `lost` and `foreign` are the packets
//! skipped: `position.number - origin = delivered + lost + foreign`.
//!
//! [`Snapshot`](snapshot::Snapshot) adds file offsets, for files with seek.

#![warn(clippy::arithmetic_side_effects)]

pub mod batch;
mod encode;
mod read_pcap;
mod read_pcapng;
mod seek;
pub mod snapshot;

use std::io::{self, IoSlice};

use crate::record;
use crate::savefile::pcap;
use crate::store::{Bounds, Chunk, PinError, Position, SearchTarget, Store};

use encode::Encoder;

/// Maximum number of chunks in one reply. A one-mebibyte read spans three of the smallest segments
/// of a default ring. A tiny ring gives short reads instead of more pins.
const CHUNKS_PER_REPLY: usize = 3;

/// Maximum number of turns of a loop that looks for the next chunk, or for the bounds after it.
/// With a whole store it takes a few. A ring whose headers another process has overwritten must not
/// hold a thread for ever. With a pause in each turn, all of them take some milliseconds.
const TURNS: u32 = 10_000;

/// The kind of savefile that a cursor hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SavefileFormat {
    /// pcap, in this machine's byte order: slices of the store.
    Pcap,
    /// pcapng, encoded from the records while they are sent.
    Pcapng,
}

impl SavefileFormat {
    /// The records of a chunk that belong in a file of this format.
    fn records<'a>(self, chunk: &'a Chunk<'_>) -> &'a [u8] {
        match self {
            Self::Pcap => chunk.pcap_bytes(),
            Self::Pcapng => chunk.bytes(),
        }
    }
}

/// The packet that a cursor begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Begin {
    /// The oldest packet retained.
    Oldest,
    /// The next packet to come.
    Next,
}

/// The result of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// This many bytes were sent, at least one.
    Sent(usize),
    /// No bytes are available now; the store's bells will ring.
    Empty,
    /// No more bytes will come.
    End,
}

/// Why a read failed. The cursor has not moved.
#[derive(Debug, thiserror::Error)]
pub enum CursorReadError {
    /// The storage of the packets failed.
    #[error("{0}")]
    Storage(String),
    /// The bytes at this offset are no longer retained.
    #[error("the packets at this offset have been overwritten")]
    Expired,
    /// The reply could not be sent.
    #[error("{0}")]
    Send(io::Error),
}

/// A reader's place in a store; see the [module](self).
#[derive(Debug)]
pub struct Cursor {
    format: SavefileFormat,
    /// The requested beginning, until the store's header is known.
    waiting: Option<Begin>,
    place: NextRecord,
    /// Number of the first packet that it was to deliver.
    origin: u64,
    /// Packets that were overwritten before they could be handed out.
    lost: u64,
    /// Packets skipped because of their link type; 0 for pcapng. A store with such packets never
    /// drops any. So for a cursor that seeks these are the foreign packets between packet 1 and its
    /// place.
    foreign: u64,
    delivered_bytes: u64,
    /// Bytes to hand out before anything else; those before `carried` have been sent.
    carry: Vec<u8>,
    carried: usize,
    /// The place after the last packet with a comment, in bytes of pcapng. A seek to an earlier
    /// place would not give the comments that the reader got; from here on, it gives the same
    /// bytes.
    plain: u64,
    encoder: Encoder,
}

/// The place of the next record: its position, and the chunk in which to look for it first.
#[derive(Clone, Copy, Debug)]
struct NextRecord {
    /// The chunk that has or will have the record, or an earlier one.
    chunk: u64,
    /// Only cursors of the pcapng format keep its pcapng measure up to date.
    position: Position,
}

/// The changes that a reply makes to a cursor, applied once it has been sent.
struct CursorStep {
    place: NextRecord,
    lost: u64,
    foreign: u64,
    /// See [`Cursor::plain`].
    plain: u64,
}

/// Whether the caller has other chunks pinned, and so must not wait for a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    Nothing,
    Chunks,
}

/// Counters of a cursor at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorProgress {
    /// Packets handed out, including one that was begun.
    pub delivered: u64,
    /// Bytes handed out, including file headers.
    pub delivered_bytes: u64,
    /// Packets that were overwritten before they could be handed out, or whose link type a pcap
    /// file cannot have.
    pub lost: u64,
    /// Packets stored but not handed out yet.
    pub lag: u64,
    /// Packets of `lag` that are no longer retained. They are counted as lost at the next read.
    pub gone: u64,
}

impl Cursor {
    /// A cursor over `store`. All later calls must use the same store.
    ///
    /// With `statistics`, a pcapng cursor sends interface statistics blocks, and reports holes in
    /// time ([`Hole`](crate::hole::Hole)). That suits a stream, but not a file of known length.
    pub fn new(store: &dyn Store, format: SavefileFormat, begin: Begin, statistics: bool) -> Self {
        // Read the hole count first: a hole added in between may be reported needlessly, but is
        // never missed.
        let holes = store.holes();
        let bounds = store.bounds();
        let (chunk, position) = match begin {
            Begin::Oldest => (bounds.oldest_chunk, bounds.oldest),
            Begin::Next => (bounds.newest_chunk, bounds.next),
        };
        let hole = match begin {
            Begin::Oldest => first_hole_behind(store, position.number, holes),
            Begin::Next => holes,
        };
        Self {
            format,
            waiting: Some(begin),
            place: NextRecord { chunk, position },
            origin: position.number,
            lost: 0,
            foreign: 0,
            delivered_bytes: 0,
            carry: Vec::new(),
            carried: 0,
            plain: 0,
            encoder: Encoder::new(statistics, hole),
        }
    }

    /// The current counters. They add up: `delivered + lost + lag` is the number of packets stored
    /// since the cursor began.
    pub fn progress(&self, store: &dyn Store) -> CursorProgress {
        let bounds = self.bounds(store);
        let number = self.place.position.number;
        let done = number.saturating_sub(self.origin);
        CursorProgress {
            delivered: done.saturating_sub(self.lost.saturating_add(self.foreign)),
            delivered_bytes: self.delivered_bytes,
            lost: self.lost.saturating_add(self.foreign),
            lag: bounds.next.number.saturating_sub(number),
            gone: bounds.oldest.number.saturating_sub(number),
        }
    }

    /// The store's bounds, not older than what this cursor has already seen of the store.
    fn bounds(&self, store: &dyn Store) -> Bounds {
        let mut bounds = store.bounds();
        for _ in 0..TURNS {
            // A segment's committed length is visible a moment before the bounds of the store.
            if bounds.next.number >= self.place.position.number {
                break;
            }
            std::thread::yield_now();
            bounds = store.bounds();
        }
        // A damaged header has moved this cursor past the last packet: nothing is left to read.
        bounds.next.number = bounds.next.number.max(self.place.position.number);
        bounds
    }

    /// Returns true if a read would send bytes or report the end, as poll(2) asks.
    pub fn is_ready(&self, store: &dyn Store) -> bool {
        let bounds = store.bounds();
        let position = self.place.position;
        let has_more = match self.format {
            // This is false if only packets of other link types are left.
            SavefileFormat::Pcap => bounds.next.pcap > position.pcap,
            SavefileFormat::Pcapng => {
                bounds.next.number > position.number
                    || bounds.next.pcapng.saturating_add(bounds.trailing) > position.pcapng
                    || self.encoder.has_hole_to_tell(store)
            }
        };
        self.carried < self.carry.len()
            || bounds.ended
            || (store.header().is_some() && (self.waiting.is_some() || has_more))
    }

    /// Hands up to `want` bytes to `send`, in one call, as slices in order.
    ///
    /// The cursor moves only if `send` succeeds; then all of these bytes count as delivered.
    ///
    /// # Errors
    /// [`CursorReadError::Storage`] and [`CursorReadError::Send`]; the cursor does not move.
    pub fn read(
        &mut self,
        store: &dyn Store,
        want: usize,
        send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> Result<ReadOutcome, CursorReadError> {
        // Before looking for packets: a reader that sees the end sees all packets before it.
        let ended = store.bounds().ended;
        if !self.begin(store) {
            return Ok(if ended { ReadOutcome::End } else { ReadOutcome::Empty });
        }
        let outcome = match self.format {
            SavefileFormat::Pcap => self.read_pcap(store, want, send),
            SavefileFormat::Pcapng => self.read_pcapng(store, want, ended, send),
        }?;
        Ok(match outcome {
            ReadOutcome::Empty if ended => ReadOutcome::End,
            other => other,
        })
    }

    /// Queues the file header, once the store knows it. Returns whether it does.
    fn begin(&mut self, store: &dyn Store) -> bool {
        if self.waiting.is_none() {
            return true;
        }
        let Some(header) = store.header() else { return false };
        self.waiting = None;
        match self.format {
            SavefileFormat::Pcap => self.carry.extend_from_slice(&pcap::file_header(&header)),
            SavefileFormat::Pcapng => {
                let number = self.place.position.number;
                self.encoder.begin(store, &header, number, &mut self.carry);
            }
        }
        true
    }

    /// The unsent rest of a record or header that was begun.
    fn carry(&self) -> &[u8] {
        self.carry.get(self.carried..).unwrap_or_default()
    }

    /// Length of the unsent rest of a record or header that was begun.
    pub(crate) fn carry_len(&self) -> usize {
        self.carry().len()
    }

    /// Position of the record after the carry.
    pub(crate) fn position(&self) -> Position {
        self.place.position
    }

    fn consume_carry(&mut self, count: usize) {
        self.carried = self.carried.saturating_add(count);
        if self.carried >= self.carry.len() {
            self.carry.clear();
            self.carried = 0;
            // One giant record must not take its size in memory for as long as the reader lives.
            self.carry.shrink_to(64 << 10);
        }
    }

    /// Skips packets at the end of the store that a pcap file cannot have, if no other packets are
    /// left.
    pub(crate) fn pass_over_foreign(&mut self, store: &dyn Store) {
        if self.format == SavefileFormat::Pcap && self.waiting.is_none() && self.carry().is_empty()
        {
            let mut step = self.step();
            pass_over_foreign(store, &mut step);
            self.apply(&step);
        }
    }

    /// A step without changes.
    const fn step(&self) -> CursorStep {
        CursorStep { place: self.place, lost: 0, foreign: 0, plain: self.plain }
    }

    fn apply(&mut self, step: &CursorStep) {
        self.place = step.place;
        self.lost = self.lost.saturating_add(step.lost);
        self.foreign = self.foreign.saturating_add(step.foreign);
        self.plain = step.plain;
    }
}

/// Index of the first of `holes` holes in time that lies after packet `number`; `holes`, the index
/// of the next hole to come, if there is no such hole.
fn first_hole_behind(store: &dyn Store, number: u64, holes: u64) -> u64 {
    let mut index = 0;
    while index < holes
        && let Some((found, hole)) = store.hole(index)
        && hole.before <= number
    {
        index = found.saturating_add(1);
    }
    index.min(holes)
}

/// The chunk with the next record, and the record's offset among the records of the chunk that a
/// file of this format has; `None` if the record has not been stored yet.
///
/// If the chunk is gone and `may_lap`, the oldest retained chunk is used in its place. Without
/// `may_lap`, the reply ends, so that bytes already gathered are sent first.
fn next_chunk<'a>(
    store: &'a dyn Store,
    format: SavefileFormat,
    step: &mut CursorStep,
    may_lap: bool,
    holding: Holding,
) -> Result<Option<(Chunk<'a>, usize)>, CursorReadError> {
    for _ in 0..TURNS {
        let pinned = match holding {
            Holding::Nothing => store.pin(step.place.chunk),
            Holding::Chunks => store.pin_more(step.place.chunk),
        };
        match pinned {
            Ok(chunk) => {
                let skipped = chunk.first.number.saturating_sub(step.place.position.number);
                if skipped > 0 {
                    if chunk.first.pcap == step.place.position.pcap {
                        // No record lies between, so whole chunks were left out of the store.
                        step.foreign = step.foreign.saturating_add(skipped);
                    } else if may_lap {
                        // The cursor was moved back to a place that is no longer retained, see
                        // Cursor::rewind.
                        step.lost = step.lost.saturating_add(skipped);
                    } else {
                        return Ok(None);
                    }
                    step.place.position = chunk.first;
                }
                let offset = offset_in(&chunk, format, step.place.position);
                if offset < format.records(&chunk).len() {
                    return Ok(Some((chunk, offset)));
                }
                if !chunk.complete {
                    if format == SavefileFormat::Pcap && chunk.is_mixed() {
                        pass_over_foreign(store, step);
                    }
                    return Ok(None);
                }
                step.place.chunk = step.place.chunk.saturating_add(1);
                if format == SavefileFormat::Pcap && chunk.is_mixed() {
                    // Any number of chunks may have nothing for this file.
                    match store.find(SearchTarget::Pcap(step.place.position.pcap)) {
                        Ok(found) => step.place.chunk = step.place.chunk.max(found),
                        Err(_) => {
                            pass_over_foreign(store, step);
                            return Ok(None);
                        }
                    }
                }
            }
            Err(PinError::NotYet) => return Ok(None),
            Err(PinError::Lapped) if may_lap => {
                let bounds = store.bounds();
                let skipped = bounds.oldest.number.saturating_sub(step.place.position.number);
                step.lost = step.lost.saturating_add(skipped);
                // After the end of a chunk that is gone, there may be nothing to skip.
                if skipped > 0 {
                    step.place.position = bounds.oldest;
                } else if step.place.chunk == bounds.oldest_chunk {
                    // The chunk was retired just now, and that is not published yet.
                    std::thread::yield_now();
                }
                step.place.chunk = bounds.oldest_chunk;
            }
            Err(PinError::Lapped) => return Ok(None),
            Err(error) => return Err(storage(error)),
        }
    }
    let why = "the headers of the ring's segments do not fit together: somebody has written to it";
    Err(CursorReadError::Storage(why.to_owned()))
}

/// Offset of `position` among the records of a chunk that a file of this format has.
fn offset_in(chunk: &Chunk<'_>, format: SavefileFormat, position: Position) -> usize {
    if format == SavefileFormat::Pcapng && chunk.is_mixed() {
        // Neither measure of positions covers all records.
        let index = position.number.saturating_sub(chunk.first.number);
        let mut records = record::PacketRecords::new(chunk.bytes());
        let passed = usize::try_from(index).unwrap_or(usize::MAX);
        records.by_ref().take(passed).for_each(drop);
        return chunk.bytes().len().saturating_sub(records.rest().len());
    }
    let ahead = position.pcap.saturating_sub(chunk.first.pcap);
    usize::try_from(ahead).unwrap_or(usize::MAX)
}

/// Moves to the end of the store, if only packets of other link types than the header's are left.
fn pass_over_foreign(store: &dyn Store, step: &mut CursorStep) {
    let next = store.bounds().next;
    let position = &mut step.place.position;
    if next.pcap == position.pcap && next.number > position.number {
        let passed = next.number.saturating_sub(position.number);
        step.foreign = step.foreign.saturating_add(passed);
        position.number = next.number;
    }
}

/// The error for bytes of a store that do not form a record where one begins.
fn cut_record() -> CursorReadError {
    CursorReadError::Storage("a stored record is not whole".to_owned())
}

fn storage(error: PinError) -> CursorReadError {
    CursorReadError::Storage(error.to_string())
}
