//! The index of a mapped savefile: where its chunks are.
//!
//! One walk over the file builds it, chunk by chunk, and every chunk can be read as soon as it is
//! there. An entry says where a chunk begins and ends in the file and how many packets and bytes
//! lie before it; what is between is walked again when it is needed. So 100 GB take some 30 MB of
//! index, and with a filter one more bit for each packet.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::map::Map;
use super::pcapng_writer::enhanced_packet_len;
use super::walk::{Described, Format, Found, Packet, Place};
use super::{Fault, MAX_INTERFACES, Malformed};
use crate::bell::Bells;
use crate::filter::Filter;
use crate::linktype::LinkType;
use crate::record;
use crate::store::Position;
use crate::time::{Precision, Timestamp};

/// Bytes of records in a chunk, unless a single record has more: a reply or two to a reader, and
/// small enough that converting one is not noticed.
pub(super) const CHUNK_LEN: u64 = 256 << 10;

/// Bytes of the file a chunk spans at most, unless a single record has more: what is walked again
/// for the few packets of a chunk that a filter has left.
const SPAN_LEN: usize = 1 << 20;

/// Records between two looks at the stop flag, for files with little to publish.
const STOP_INTERVAL: u64 = 4096;

/// What readers see of the index.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) chunks: Vec<Entry>,
    /// Where the packet after the last chunk begins.
    pub(super) next: Position,
    pub(super) newest: Option<Timestamp>,
    pub(super) ended: bool,
    pub(super) problem: Option<String>,
    pub(super) raw: u64,
    pub(super) foreign: u64,
    pub(super) interfaces: Arc<Interfaces>,
}

/// A run of packets.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) first: Position,
    /// Where the record or block of the first packet is.
    pub(super) place: Place,
    /// End of the last packet's record or block in the file.
    pub(super) end: usize,
    /// The file between the two is exactly what is to be served, but for the byte order.
    pub(super) whole: bool,
    /// For each packet of the link type, whether the filter matched; `None` if all did.
    pub(super) matched: Option<Arc<[u64]>>,
}

/// The interfaces of a pcapng file.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces {
    /// All that are described, in the order of the file.
    pub(super) all: Vec<Described>,
    /// Index in `all` of each interface served.
    pub(super) served: Vec<usize>,
}

impl Interfaces {
    /// Adds the next one of the file.
    pub(super) fn push(&mut self, mut described: Described, link_type: LinkType) {
        if described.link_type == link_type {
            described.served = u32::try_from(self.served.len()).ok();
            self.served.push(self.all.len());
        }
        self.all.push(described);
    }
}

/// How the walk over the file ended.
enum End {
    /// Stopped by the flag; it can go on.
    Stopped,
    /// At the end of the file, or before a record that is cut short.
    File,
    /// Before something malformed.
    Malformed(Fault),
    /// The file is no longer what it was.
    Changed(String),
}

/// The walk that builds the index.
#[derive(Debug)]
pub(super) struct Indexer {
    link_type: LinkType,
    precision: Precision,
    /// Captured bytes served of a packet at most.
    snaplen: u32,
    filter: Option<Filter>,
    place: Place,
    interfaces: Interfaces,
    /// Interfaces whose description is in `next.pcapng`, or comes before everything.
    counted: u32,
    next: Position,
    newest: Option<(u32, u32)>,
    raw: u64,
    foreign: u64,
    open: Option<Open>,
    finished: bool,
}

/// The chunk being built.
#[derive(Debug)]
struct Open {
    first: Position,
    place: Place,
    end: usize,
    whole: bool,
    verdicts: Verdicts,
}

impl Indexer {
    /// A walk from the beginning. `leading` interfaces are described before the first packet.
    pub(super) fn new(
        format: &Format,
        link_type: LinkType,
        snaplen: u32,
        filter: Option<Filter>,
        leading: u32,
    ) -> Self {
        Self {
            link_type,
            precision: format.precision(),
            snaplen,
            filter,
            place: format.start(),
            interfaces: Interfaces::default(),
            counted: leading,
            next: Position::START,
            newest: None,
            raw: 0,
            foreign: 0,
            open: None,
            finished: false,
        }
    }

    /// Goes on until the end of the file or until `stop`; true at the end.
    pub(super) fn run(
        &mut self,
        map: &Map,
        format: &Format,
        index: &RwLock<Index>,
        bells: &Bells,
        stop: &AtomicBool,
    ) -> bool {
        if !self.finished {
            index.write().ended = false;
            let mut end = self.walk(map, format, index, bells, stop);
            if !matches!(end, End::Changed(_))
                && let Err(problem) = self.publish(map, index, bells)
            {
                end = End::Changed(problem);
            }
            // Zeros behind a cut look like all sorts of things; the cut explains them.
            if !matches!(end, End::Stopped | End::Changed(_))
                && let Err(problem) = map.check()
            {
                end = End::Changed(problem);
            }
            self.finished = !matches!(end, End::Stopped);
            let left = map.bytes().len().saturating_sub(self.place.offset);
            let mut index = index.write();
            index.problem = self.problem(end, left);
            index.ended = true;
        }
        bells.strike();
        self.finished
    }

    fn problem(&self, end: End, left: usize) -> Option<String> {
        match end {
            End::Stopped => None,
            End::File if left == 0 => None,
            End::File => {
                let bytes = if left == 1 { "byte is" } else { "bytes are" };
                Some(format!("cut short: the last {left} {bytes} not a whole record"))
            }
            End::Malformed(fault) => {
                let offset = self.place.offset as u64;
                Some(Malformed { offset, fault }.to_string())
            }
            End::Changed(problem) => Some(problem),
        }
    }

    fn walk(
        &mut self,
        map: &Map,
        format: &Format,
        index: &RwLock<Index>,
        bells: &Bells,
        stop: &AtomicBool,
    ) -> End {
        let bytes = map.bytes();
        let mut until_stop = 0_u64;
        loop {
            if until_stop == 0 {
                if stop.load(Ordering::Relaxed) {
                    return End::Stopped;
                }
                until_stop = STOP_INTERVAL;
            }
            until_stop = until_stop.saturating_sub(1);
            let before = self.place;
            match self.place.step(bytes, format, &self.interfaces.all) {
                Ok(Found::Packet(packet)) => {
                    self.raw = self.raw.saturating_add(1);
                    let left_out = self.is_left_out(&packet);
                    let len = if left_out { 0 } else { self.len(&packet) };
                    let next = self.next;
                    let is_full = |open: &Open| open.is_full(&next, len, self.place.offset);
                    if self.open.as_ref().is_some_and(is_full)
                        && let Err(problem) = self.publish(map, index, bells)
                    {
                        return End::Changed(problem);
                    }
                    if !left_out {
                        self.add(&packet, before, len);
                    }
                }
                Ok(Found::Foreign(_)) => {
                    self.raw = self.raw.saturating_add(1);
                    self.foreign = self.foreign.saturating_add(1);
                }
                Ok(Found::Interface(block)) => match Described::new(&block, before) {
                    Ok(_) if self.interfaces.all.len() >= MAX_INTERFACES => {
                        self.place = before;
                        return End::Malformed(Fault::TooManyInterfaces);
                    }
                    Ok(described) => {
                        self.interfaces.push(described, self.link_type);
                        if let Some(described) = self.interfaces.all.last() {
                            self.place.describe(described);
                        }
                    }
                    Err(fault) => {
                        self.place = before;
                        return End::Malformed(fault);
                    }
                },
                Ok(Found::Other) => {}
                Ok(Found::End) => return End::File,
                Err(fault) => return End::Malformed(fault),
            }
        }
    }

    /// Whether the filter leaves a packet out; the answer is kept for the chunk being built.
    #[inline]
    fn is_left_out(&mut self, packet: &Packet<'_>) -> bool {
        let Some(filter) = &self.filter else {
            return false;
        };
        let left_out = !filter.matches(packet.original_len, packet.data);
        if left_out && let Some(open) = &mut self.open {
            open.verdicts.push(false);
        }
        left_out
    }

    /// Bytes served of a packet.
    #[inline]
    fn len(&self, packet: &Packet<'_>) -> u32 {
        // The captured length has been checked to fit.
        u32::try_from(packet.data.len()).unwrap_or(u32::MAX).min(self.snaplen)
    }

    /// Adds a packet of `len` bytes, to be served from `before`, to the chunk being built.
    #[inline]
    fn add(&mut self, packet: &Packet<'_>, before: Place, len: u32) {
        let first = self.next;
        let open = self.open.get_or_insert_with(|| Open {
            first,
            place: before,
            end: before.offset,
            whole: true,
            verdicts: Verdicts::default(),
        });
        open.whole &= open.end == before.offset && packet.data.len() == len as usize;
        open.end = self.place.offset;
        if self.filter.is_some() {
            open.verdicts.push(true);
        }
        self.newest = Some((packet.seconds, packet.fraction));
        let mut pcapng = enhanced_packet_len(len);
        while self.counted < packet.interface.known {
            let counted = self.counted as usize;
            let described =
                self.interfaces.served.get(counted).and_then(|at| self.interfaces.all.get(*at));
            pcapng =
                pcapng.saturating_add(described.map_or(0, |described| described.description_len));
            self.counted = self.counted.saturating_add(1);
        }
        self.next.number = self.next.number.saturating_add(1);
        self.next.pcap = self.next.pcap.saturating_add(record_len(len));
        self.next.pcapng = self.next.pcapng.saturating_add(pcapng);
    }

    /// Closes the chunk being built, if there is one, and shows all that is new to readers.
    ///
    /// On failure nothing is shown, and the walk must end: it has counted what was not there.
    fn publish(&mut self, map: &Map, index: &RwLock<Index>, bells: &Bells) -> Result<(), String> {
        let closed = self.open.take();
        if closed.is_some() {
            // Read first, asked after: what was read up to here was there.
            map.check()?;
        }
        {
            let mut index = index.write();
            let known = index.interfaces.all.len();
            if let Some(new) = self.interfaces.all.get(known..)
                && !new.is_empty()
            {
                let interfaces = Arc::make_mut(&mut index.interfaces);
                for described in new {
                    interfaces.push(*described, self.link_type);
                }
            }
            if let Some(open) = closed {
                let matched = open.verdicts.matched();
                let Open { first, place, end, whole, .. } = open;
                index.chunks.push(Entry { first, place, end, whole, matched });
            }
            index.next = self.next;
            index.raw = self.raw;
            index.foreign = self.foreign;
            index.newest = self.newest.map(|(seconds, fraction)| {
                Timestamp::from_parts(seconds, fraction, self.precision)
            });
        }
        bells.strike();
        Ok(())
    }
}

impl Open {
    /// Whether a packet of `len` bytes that ends at `end` in the file is for the next chunk.
    #[inline]
    const fn is_full(&self, next: &Position, len: u32, end: usize) -> bool {
        let served = next.pcap.saturating_sub(self.first.pcap);
        served.saturating_add(record_len(len)) > CHUNK_LEN
            || end.saturating_sub(self.place.offset) > SPAN_LEN
    }
}

/// Bytes of a pcap record with so many captured bytes.
#[inline]
const fn record_len(captured_len: u32) -> u64 {
    (record::HEADER_LEN as u64).saturating_add(captured_len as u64)
}

/// One bit for each packet: what the filter said.
#[derive(Debug, Default)]
struct Verdicts {
    words: Vec<u64>,
    count: u32,
    /// Words up to the last packet that matched.
    needed: usize,
    left_out: bool,
}

impl Verdicts {
    fn push(&mut self, matched: bool) {
        let bit = self.count % 64;
        if bit == 0 {
            self.words.push(0);
        }
        if let Some(word) = self.words.last_mut() {
            *word |= u64::from(matched).wrapping_shl(bit);
        }
        if matched {
            self.needed = self.words.len();
        }
        self.left_out |= !matched;
        self.count = self.count.saturating_add(1);
    }

    /// What an [`Entry`] keeps.
    fn matched(&self) -> Option<Arc<[u64]>> {
        let words = self.words.get(..self.needed).unwrap_or(&self.words);
        self.left_out.then(|| words.into())
    }
}

/// Whether the packet of this index in a chunk matched the filter.
#[inline]
pub(super) fn matched(words: Option<&[u64]>, packet: usize) -> bool {
    words.is_none_or(|words| {
        let word = packet.checked_div(64).and_then(|at| words.get(at));
        word.is_some_and(|word| (word >> (packet % 64)) & 1 == 1)
    })
}
