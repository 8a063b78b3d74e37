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

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::RwLock;
use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

use super::beside;
use super::map::Map;
use super::pcapng_writer::{enhanced_packet_len, note_len};
use super::pending::Pending;
use super::verdicts::Verdicts;
use super::walk::{Described, Format, Found, Packet, Place};
use super::{Fault, MAX_INTERFACES, Malformed};
use crate::bell::Bells;
use crate::filter::Filter;
use crate::record;
use crate::store::{Position, Trailing};

/// Bytes of records in a chunk, unless a single record has more: a reply or two to a reader, and
/// small enough that converting one is not noticed.
pub(super) const CHUNK_LEN: u64 = 256 << 10;

/// Bytes of the file a chunk spans at most, unless a single record has more: what is walked again
/// for the few packets of a chunk that a filter has left.
pub(super) const SPAN_LEN: usize = 1 << 20;

/// How long to wait before a file that was at its end is looked at again: for as long at first, and
/// twice as long each time up to the other.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// Records between two looks at the stop flag, for files with little to publish.
const STOP_INTERVAL: u64 = 4096;

/// What readers see of the index.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) chunks: Vec<Entry>,
    /// Where the packet after the last chunk begins.
    pub(super) next: Position,
    pub(super) newest: Option<Timestamp>,
    /// Packets may come into the last chunk.
    pub(super) is_open: bool,
    pub(super) ended: bool,
    /// All that was in the file at some moment has been walked over.
    pub(super) is_read: bool,
    pub(super) problem: Option<String>,
    pub(super) raw: u64,
    pub(super) foreign: Foreign,
    /// Blocks that are in no file, of those that are kept.
    pub(super) left_out: u64,
    /// What comes after the last packet.
    pub(super) trailing: Option<Arc<Trailing>>,
    /// All interfaces the file describes, in its order.
    pub(super) interfaces: Arc<Vec<Described>>,
}

/// Packets that are of another link type than the header's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Foreign {
    /// Served, for readers of pcapng.
    pub(super) packets: u64,
    /// Bytes of their records.
    pub(super) bytes: u64,
    /// Left out, because the filter does not compile for their link type.
    pub(super) unfiltered: u64,
}

/// A run of packets.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) first: Position,
    /// Packets before the first that are of another link type than the header's.
    pub(super) foreign: u64,
    /// Bytes of all records.
    pub(super) len: u64,
    /// Where the record or block of the first packet is.
    pub(super) place: Place,
    /// End of the last packet's record or block in the file.
    pub(super) end: usize,
    /// The file between the two is exactly what is to be served, but for the byte order.
    pub(super) whole: bool,
    /// For each packet, whether the filter matched; `None` if all did.
    pub(super) matched: Option<Arc<[u64]>>,
}

/// How the walk over the file ended.
#[derive(Debug)]
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
    /// Decryption secrets are left out.
    without_keys: bool,
    filter: Option<Filters>,
    place: Place,
    interfaces: Vec<Described>,
    /// Interfaces whose description is in `next.pcapng`, or comes before everything.
    counted: u32,
    next: Position,
    newest: Option<(u32, u32)>,
    raw: u64,
    foreign: Foreign,
    open: Option<Open>,
    /// Blocks since the last packet served.
    pending: Option<Pending>,
    /// Blocks that readers of pcapng do not get.
    left_out: u64,
    /// The chunk being built is the last one of those that readers see, too.
    is_shown: bool,
    finished: bool,
    /// It ended at the end of the file, so that it could go on if more was added.
    at_end: bool,
}

/// The chunk being built.
#[derive(Clone, Debug)]
struct Open {
    first: Position,
    foreign: u64,
    len: u64,
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
            without_keys: false,
            filter: filter.map(|filter| Filters { filter, others: HashMap::new() }),
            place: format.start(),
            interfaces: Vec::new(),
            counted: leading,
            next: Position::START,
            newest: None,
            raw: 0,
            foreign: Foreign::default(),
            open: None,
            pending: None,
            left_out: 0,
            is_shown: false,
            finished: false,
            at_end: false,
        }
    }

    /// The same walk, without decryption secrets.
    pub(super) fn without_keys(self, without_keys: bool) -> Self {
        Self { without_keys, ..self }
    }

    /// Goes on until the end of the file or until `stop`; true at the end. With `follow`, what is
    /// added to the file is waited for.
    pub(super) fn run(
        &mut self,
        map: &Map,
        format: &Format,
        shown: (&RwLock<Index>, &Bells),
        stop: &AtomicBool,
        follow: bool,
    ) -> bool {
        let (index, bells) = shown;
        if !self.finished {
            {
                let mut index = index.write();
                index.ended = false;
                index.problem = None;
            }
            let mut end = self.walk(map, format, index, bells, stop);
            while follow && matches!(end, End::File) && !stop.load(Ordering::Relaxed) {
                end = match self.wait(map, index, bells, stop) {
                    Ok(true) => self.walk(map, format, index, bells, stop),
                    Ok(false) => End::Stopped,
                    Err(problem) => End::Changed(problem),
                };
            }
            if !matches!(end, End::Changed(_))
                && let Err(problem) = self.publish(map, index, bells, !follow)
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
            self.at_end = matches!(end, End::File);
            let left = map.bytes().len().saturating_sub(self.place.offset);
            let mut index = index.write();
            if self.finished && !matches!(end, End::Changed(_)) {
                self.end_with_trailing(&mut index);
            }
            index.problem = self.problem(end, left);
            index.is_read = true;
            index.ended = true;
        }
        bells.strike();
        self.finished
    }

    /// Shows what has been walked over and waits until there is more in the file; false if told to
    /// stop first.
    fn wait(
        &mut self,
        map: &Map,
        index: &RwLock<Index>,
        bells: &Bells,
        stop: &AtomicBool,
    ) -> Result<bool, String> {
        self.publish(map, index, bells, false)?;
        index.write().is_read = true;
        bells.strike();
        let mut pause = SHORTEST_PAUSE;
        while !stop.load(Ordering::Relaxed) {
            map.check()?;
            if map.grow()? {
                return Ok(true);
            }
            thread::park_timeout(pause);
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
        Ok(false)
    }

    /// Whether [`Indexer::run`] would find more by now.
    ///
    /// # Errors
    /// Why what there may be is not read, in one line.
    pub(super) fn look_again(&mut self, map: &Map) -> Result<bool, String> {
        if !self.finished {
            return Ok(true);
        }
        map.check()?;
        map.check_place()?;
        if !map.grow()? {
            return Ok(false);
        }
        if !self.at_end {
            return Err(format!(
                "the file has grown, and is not read on: what is at byte {} is malformed",
                self.place.offset
            ));
        }
        self.finished = false;
        Ok(true)
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
            match self.place.step(bytes, format, &self.interfaces) {
                Ok(Found::Packet(packet)) => {
                    self.raw = self.raw.saturating_add(1);
                    let left_out = self.is_left_out(&packet);
                    let len = if left_out { 0 } else { self.len(&packet) };
                    let is_full = |open: &Open| open.is_full(len, self.place.offset);
                    if self.open.as_ref().is_some_and(is_full)
                        && let Err(problem) = self.publish(map, index, bells, true)
                    {
                        return End::Changed(problem);
                    }
                    if !left_out {
                        self.add(&packet, before, len);
                    }
                }
                Ok(Found::Interface(block)) => match Described::new(&block, before) {
                    Ok(_) if self.interfaces.len() >= MAX_INTERFACES => {
                        self.place = before;
                        return End::Malformed(Fault::TooManyInterfaces);
                    }
                    Ok(described) => {
                        self.interfaces.push(described);
                        self.place.describe();
                    }
                    Err(fault) => {
                        self.place = before;
                        return End::Malformed(fault);
                    }
                },
                Ok(Found::Kept(head, _)) if self.without_keys && beside::is_keys(&head) => {}
                Ok(Found::Kept(head, bytes)) => {
                    let block = self.place.kept(&head, bytes, &self.interfaces);
                    self.keep(before, block);
                }
                Ok(Found::Section(comments)) => self.keep_comments(before, &comments),
                Ok(Found::Other) => {}
                Ok(Found::End) => return End::File,
                Err(fault) => return End::Malformed(fault),
            }
        }
    }

    /// Whether the filter leaves a packet out; the answer is kept for the chunk being built.
    #[inline]
    fn is_left_out(&mut self, packet: &Packet<'_>) -> bool {
        let Some(filter) = &mut self.filter else {
            return false;
        };
        let filter = if packet.link_type == self.link_type {
            Some(&filter.filter)
        } else {
            filter.other(packet.link_type)
        };
        if filter.is_none() {
            self.foreign.unfiltered = self.foreign.unfiltered.saturating_add(1);
        }
        let left_out =
            !filter.is_some_and(|filter| filter.matches(packet.original_len, packet.data));
        if left_out && let Some(open) = &mut self.open {
            open.verdicts.push(false);
        }
        if left_out && let Some(pending) = &mut self.pending {
            pending.skipped = pending.skipped.saturating_add(1);
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
        let (first, foreign) = (self.next, self.foreign.packets);
        let mut pending = self.pending.take();
        if self.open.is_none() {
            let far = pending.take_if(|pending| !pending.is_near(before));
            self.left_out = self.left_out.saturating_add(far.map_or(0, |far| far.count));
        }
        let open = self.open.get_or_insert_with(|| {
            let mut verdicts = Verdicts::default();
            for _ in 0..pending.as_ref().map_or(0, |pending| pending.skipped) {
                verdicts.push(false);
            }
            let place = pending.as_ref().map_or(before, |pending| pending.place);
            Open { first, foreign, len: 0, place, end: before.offset, whole: true, verdicts }
        });
        open.whole &= open.end == before.offset && packet.data.len() == len as usize;
        open.end = self.place.offset;
        open.len = open.len.saturating_add(record_len(len));
        if self.filter.is_some() {
            open.verdicts.push(true);
        }
        self.newest = Some((packet.seconds, packet.fraction));
        let (blocks, comments) = pending.map_or((0, 0), |pending| (pending.len, pending.comments));
        let options = packet.kept_options().len().saturating_add(comments);
        let beside = note_len(blocks, options);
        let mut pcapng = enhanced_packet_len(len).saturating_add(beside);
        while self.counted < packet.interface.known {
            let described = self.interfaces.get(self.counted as usize);
            pcapng =
                pcapng.saturating_add(described.map_or(0, |described| described.description_len));
            self.counted = self.counted.saturating_add(1);
        }
        self.next.number = self.next.number.saturating_add(1);
        if packet.link_type == self.link_type {
            self.next.pcap = self.next.pcap.saturating_add(record_len(len));
        } else {
            self.foreign.packets = self.foreign.packets.saturating_add(1);
            self.foreign.bytes = self.foreign.bytes.saturating_add(record_len(len));
        }
        self.next.pcapng = self.next.pcapng.saturating_add(pcapng);
    }

    /// Keeps a block for the packet after it, if it is one that can be kept.
    fn keep(&mut self, place: Place, block: Option<Vec<u8>>) {
        let Some(block) = block else {
            self.left_out = self.left_out.saturating_add(1);
            return;
        };
        self.pending.get_or_insert_with(|| Pending::new(place)).add(&block);
    }

    /// Keeps the comments on a section for the packet after it.
    fn keep_comments(&mut self, place: Place, comments: &[u8]) {
        if !comments.is_empty() {
            self.pending.get_or_insert_with(|| Pending::new(place)).add_comments(comments);
        }
    }

    /// Shows the blocks that no packet follows, and counts those that are left out.
    fn end_with_trailing(&mut self, index: &mut Index) {
        let known = self.place.described;
        let descriptions = self.interfaces.get(self.counted as usize..known as usize);
        let described = descriptions.unwrap_or_default().iter();
        let described = described.fold(0, |len: u64, one| len.saturating_add(one.description_len));
        let pending = self.pending.as_mut();
        let (blocks, left_out) = pending.map_or((None, 0), Pending::show);
        index.left_out = self.left_out.saturating_add(left_out);
        if let Some(blocks) = blocks {
            let len = described.saturating_add(blocks.len() as u64);
            let number = self.next.number;
            index.trailing = Some(Arc::new(Trailing { number, known, blocks, len }));
        }
    }

    /// Shows all that is new to readers, with the chunk being built; with `close`, or if nothing can
    /// follow, that chunk is done.
    ///
    /// On failure nothing is shown, and the walk must end: it has counted what was not there.
    fn publish(
        &mut self,
        map: &Map,
        index: &RwLock<Index>,
        bells: &Bells,
        close: bool,
    ) -> Result<(), String> {
        let open = if close { self.open.take() } else { self.open.clone() };
        if open.is_some() {
            // Read first, asked after: what was read up to here was there.
            map.check()?;
        }
        {
            let mut index = index.write();
            let known = index.interfaces.len();
            if let Some(new) = self.interfaces.get(known..)
                && !new.is_empty()
            {
                Arc::make_mut(&mut index.interfaces).extend_from_slice(new);
            }
            if let Some(open) = open {
                let matched = open.verdicts.matched();
                let Open { first, foreign, len, place, end, whole, .. } = open;
                if self.is_shown {
                    index.chunks.pop();
                }
                index.chunks.push(Entry { first, foreign, len, place, end, whole, matched });
                index.is_open = !close;
                self.is_shown = !close;
            }
            index.next = self.next;
            // A packet that follows has the blocks before it.
            index.trailing.take_if(|trailing| trailing.number != self.next.number);
            index.raw = self.raw;
            index.foreign = self.foreign;
            index.left_out = self.left_out;
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
    const fn is_full(&self, len: u32, end: usize) -> bool {
        self.len.saturating_add(record_len(len)) > CHUNK_LEN
            || end.saturating_sub(self.place.offset) > SPAN_LEN
    }
}

/// A filter, compiled again for every link type that comes.
#[derive(Debug)]
struct Filters {
    /// For the header's link type.
    filter: Filter,
    /// For others; `None` for one its expression does not compile for.
    others: HashMap<LinkType, Option<Filter>>,
}

impl Filters {
    fn other(&mut self, link_type: LinkType) -> Option<&Filter> {
        let compile = || Filter::compile(self.filter.expression(), link_type).ok();
        self.others.entry(link_type).or_insert_with(compile).as_ref()
    }
}

/// Bytes of a pcap record with so many captured bytes.
#[inline]
const fn record_len(captured_len: u32) -> u64 {
    (record::HEADER_LEN as u64).saturating_add(captured_len as u64)
}
