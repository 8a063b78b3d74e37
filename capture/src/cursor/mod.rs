//! A reader's place in a store, and the savefile bytes it gets from there.
//!
//! A [`Cursor`] hands out one endless savefile, piece by piece: a header, then record after record
//! as they are stored. A reply may end in the middle of a record; the cursor then keeps the rest of
//! that record for itself, so that what a reader has seen stays a valid beginning of a savefile
//! whatever happens to the ring before it comes back. A cursor whose next record is no longer
//! retained skips to the oldest one that is, and counts exactly what it skipped.
//!
//! A pcap file holds one link type, so a pcap cursor passes over the packets of others, and counts
//! them too. It does so at once: behind a record it delivered it stands before the next that it
//! can, or where its chunk ends.
//!
//! Between replies `position` is always a record boundary, and `lost` and `foreign` are the packets
//! passed over: `position.number - origin = delivered + lost + foreign`.
//!
//! [`Snapshot`](snapshot::Snapshot) puts file offsets on top, for files one can seek in.

#![warn(clippy::arithmetic_side_effects)]

mod encode;
mod read_pcap;
mod read_pcapng;
mod seek;
pub mod snapshot;

use std::io::{self, IoSlice};

use crate::record;
use crate::savefile::pcap;
use crate::store::{Bounds, Chunk, PinError, Position, Store, Target};

use encode::Encoder;

/// Most chunks one reply is made from. A one-mebibyte read spans three of the smallest segments a
/// default ring has, and a tiny ring gives short reads instead of more pins.
const CHUNKS_PER_REPLY: usize = 3;

/// Turns of a loop that a whole store ends after a few: a chunk that is passed over, a writer that
/// retires one. The headers of a ring are bytes that another process may have changed, and must not
/// hold a thread for ever. With a pause in each turn this takes some milliseconds.
const TURNS: u32 = 10_000;

/// What kind of savefile a cursor hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// pcap, in this machine's byte order: slices of the store.
    Pcap,
    /// pcapng, made from the records while they are sent.
    Pcapng,
}

impl Format {
    /// The records of a chunk that a file of this format has.
    fn records<'a>(self, chunk: &'a Chunk<'_>) -> &'a [u8] {
        match self {
            Self::Pcap => chunk.pcap_bytes(),
            Self::Pcapng => chunk.bytes(),
        }
    }
}

/// Where a cursor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With the oldest packet retained.
    Oldest,
    /// With the next packet to come.
    Next,
}

/// How one read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many bytes, at least one, were sent.
    Sent(usize),
    /// There is nothing now; the store's bells will ring.
    Empty,
    /// There will be nothing more.
    End,
}

/// Why a read failed; the cursor stays where it was.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
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

/// A reader's place; see the [module](self).
#[derive(Debug)]
pub struct Cursor {
    format: Format,
    /// Where it was asked to begin, until the store's header is known.
    waiting: Option<Begin>,
    place: Place,
    /// Number of the first packet it was to deliver.
    origin: u64,
    /// Packets that were overwritten before they could be handed out.
    lost: u64,
    /// Packets passed over for their link type; 0 for pcapng. A store that has any drops none, so
    /// for a cursor that seeks they are those before its place, of which packet 1 is the first.
    foreign: u64,
    delivered_bytes: u64,
    /// Bytes handed out before anything else; those below `carried` were sent.
    carry: Vec<u8>,
    carried: usize,
    /// From this place on, in the pcapng measure, the bytes handed out were those a seek gives:
    /// behind the last packet that had a comment.
    plain: u64,
    encoder: Encoder,
}

/// The next record: its position and the chunk to look for it first.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// At or before the chunk that has or will have the record.
    chunk: u64,
    /// In the pcapng measure only kept up to date by cursors of that format.
    position: Position,
}

/// What a reply would do to a cursor, done once it was sent.
struct Step {
    place: Place,
    lost: u64,
    foreign: u64,
    /// See [`Cursor::plain`].
    plain: u64,
}

/// Whether whoever wants a chunk has others pinned, and so must not wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    Nothing,
    Chunks,
}

/// Counters of a cursor at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Packets handed out; one that was begun counts.
    pub delivered: u64,
    /// Bytes handed out, file headers included.
    pub delivered_bytes: u64,
    /// Packets that were overwritten before they could be handed out, or that a pcap file cannot
    /// have for their link type.
    pub lost: u64,
    /// Packets stored but not handed out yet.
    pub lag: u64,
    /// Those of `lag` that are no longer retained: lost as soon as the cursor is read on.
    pub gone: u64,
}

impl Cursor {
    /// A cursor over `store`, which all later calls must be made with.
    ///
    /// With `statistics`, a pcapng cursor sends interface statistics blocks, and says when a hole in
    /// time was ([`Hole`](crate::hole::Hole)), as befits a stream and not a file of known length.
    pub fn new(store: &dyn Store, format: Format, begin: Begin, statistics: bool) -> Self {
        // In this order: of a hole that is just being found, a reader may be told in vain.
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
            place: Place { chunk, position },
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

    /// Counters as of now. They add up:
    /// `delivered + lost + lag` is the number of packets stored since the cursor began.
    pub fn progress(&self, store: &dyn Store) -> Progress {
        let bounds = self.bounds(store);
        let number = self.place.position.number;
        let done = number.saturating_sub(self.origin);
        Progress {
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
            // A segment's committed length is visible a moment before the sum of all.
            if bounds.next.number >= self.place.position.number {
                break;
            }
            std::thread::yield_now();
            bounds = store.bounds();
        }
        // A damaged header has sent this cursor further than there are packets: nothing is left.
        bounds.next.number = bounds.next.number.max(self.place.position.number);
        bounds
    }

    /// Whether a read would send something or report the end, as poll(2) asks.
    pub fn is_ready(&self, store: &dyn Store) -> bool {
        let bounds = store.bounds();
        let position = self.place.position;
        let has_more = match self.format {
            // Also says whether all that is left is of other link types.
            Format::Pcap => bounds.next.pcap > position.pcap,
            Format::Pcapng => {
                bounds.next.number > position.number || self.encoder.has_hole_to_tell(store)
            }
        };
        self.carried < self.carry.len()
            || bounds.ended
            || (store.header().is_some() && (self.waiting.is_some() || has_more))
    }

    /// Hands up to `want` bytes to `send`, in one call, as slices in order.
    ///
    /// Moves on only if `send` succeeds; then all of them count as delivered.
    ///
    /// # Errors
    /// [`ReadError::Storage`] and [`ReadError::Send`]; the cursor stays where it was.
    pub fn read(
        &mut self,
        store: &dyn Store,
        want: usize,
        send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> Result<Outcome, ReadError> {
        // Before looking for packets: whoever sees the end sees all that came before it.
        let ended = store.bounds().ended;
        if !self.begin(store) {
            return Ok(if ended { Outcome::End } else { Outcome::Empty });
        }
        let outcome = match self.format {
            Format::Pcap => self.read_pcap(store, want, send),
            Format::Pcapng => self.read_pcapng(store, want, ended, send),
        }?;
        Ok(match outcome {
            Outcome::Empty if ended => Outcome::End,
            other => other,
        })
    }

    /// Puts the file header in front, once the store knows it.
    fn begin(&mut self, store: &dyn Store) -> bool {
        if self.waiting.is_none() {
            return true;
        }
        let Some(header) = store.header() else { return false };
        self.waiting = None;
        match self.format {
            Format::Pcap => self.carry.extend_from_slice(&pcap::file_header(&header)),
            Format::Pcapng => {
                let number = self.place.position.number;
                self.encoder.begin(store, &header, number, &mut self.carry);
            }
        }
        true
    }

    /// Bytes left of a record or header that was begun.
    fn carry(&self) -> &[u8] {
        self.carry.get(self.carried..).unwrap_or_default()
    }

    /// Bytes of the record or header that was begun and not sent to its end.
    pub(crate) fn carry_len(&self) -> usize {
        self.carry().len()
    }

    /// Where the record after the carry begins.
    pub(crate) fn position(&self) -> Position {
        self.place.position
    }

    fn consume_carry(&mut self, count: usize) {
        self.carried = self.carried.saturating_add(count);
        if self.carried >= self.carry.len() {
            self.carry.clear();
            self.carried = 0;
            // One giant record should not cost its size for as long as the reader lives.
            self.carry.shrink_to(64 << 10);
        }
    }

    /// Passes over packets at the end of the store that a pcap file cannot have, if only such are
    /// left.
    pub(crate) fn pass_over_foreign(&mut self, store: &dyn Store) {
        if self.format == Format::Pcap && self.waiting.is_none() && self.carry().is_empty() {
            let mut step = self.step();
            pass_over_foreign(store, &mut step);
            self.apply(&step);
        }
    }

    /// A reply that does nothing yet.
    const fn step(&self) -> Step {
        Step { place: self.place, lost: 0, foreign: 0, plain: self.plain }
    }

    fn apply(&mut self, step: &Step) {
        self.place = step.place;
        self.lost = self.lost.saturating_add(step.lost);
        self.foreign = self.foreign.saturating_add(step.foreign);
        self.plain = step.plain;
    }
}

/// Index of the first hole in time, of so many, that lies between packets of this number and later
/// ones, or of the first to come.
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

/// The chunk with the next record, and the record's offset among those a file of this format has
/// of it; `None` if there is none yet.
///
/// With `may_lap`, a chunk that is gone is made up for by the oldest there is; without, it ends
/// the reply, so that what was begun is sent first.
fn next_chunk<'a>(
    store: &'a dyn Store,
    format: Format,
    step: &mut Step,
    may_lap: bool,
    holding: Holding,
) -> Result<Option<(Chunk<'a>, usize)>, ReadError> {
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
                        // No record between, so whole chunks were left out below.
                        step.foreign = step.foreign.saturating_add(skipped);
                    } else if may_lap {
                        // Put back to a place that is no longer retained, see Cursor::rewind.
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
                    if format == Format::Pcap && chunk.is_mixed() {
                        pass_over_foreign(store, step);
                    }
                    return Ok(None);
                }
                step.place.chunk = step.place.chunk.saturating_add(1);
                if format == Format::Pcap && chunk.is_mixed() {
                    // There may be any number of chunks with nothing for this file.
                    match store.find(Target::Pcap(step.place.position.pcap)) {
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
                // Behind the end of a chunk that is gone, there may be nothing to skip.
                if skipped > 0 {
                    step.place.position = bounds.oldest;
                } else if step.place.chunk == bounds.oldest_chunk {
                    // Retired this moment and not published yet.
                    std::thread::yield_now();
                }
                step.place.chunk = bounds.oldest_chunk;
            }
            Err(PinError::Lapped) => return Ok(None),
            Err(error) => return Err(storage(error)),
        }
    }
    let why = "the headers of the ring's segments do not fit together: somebody has written to it";
    Err(ReadError::Storage(why.to_owned()))
}

/// Bytes before `position` among the records a file of this format has of a chunk.
fn offset_in(chunk: &Chunk<'_>, format: Format, position: Position) -> usize {
    if format == Format::Pcapng && chunk.is_mixed() {
        // Neither measure of positions is one of all records.
        let index = position.number.saturating_sub(chunk.first.number);
        let mut records = record::Records::new(chunk.bytes());
        let passed = usize::try_from(index).unwrap_or(usize::MAX);
        records.by_ref().take(passed).for_each(drop);
        return chunk.bytes().len().saturating_sub(records.rest().len());
    }
    let ahead = position.pcap.saturating_sub(chunk.first.pcap);
    usize::try_from(ahead).unwrap_or(usize::MAX)
}

/// Goes to the end of the store, if what is left is of other link types than the header's.
fn pass_over_foreign(store: &dyn Store, step: &mut Step) {
    let next = store.bounds().next;
    let position = &mut step.place.position;
    if next.pcap == position.pcap && next.number > position.number {
        let passed = next.number.saturating_sub(position.number);
        step.foreign = step.foreign.saturating_add(passed);
        position.number = next.number;
    }
}

/// The bytes of a store do not make a record where one begins.
fn cut_record() -> ReadError {
    ReadError::Storage("a stored record is not whole".to_owned())
}

fn storage(error: PinError) -> ReadError {
    ReadError::Storage(error.to_string())
}
