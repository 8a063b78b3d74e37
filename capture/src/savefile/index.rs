//! The index of a mapped savefile: the places of its chunks.
//!
//! One walk over the file builds it, chunk by chunk, and each chunk can be read as soon as it is in
//! the index. An entry has the beginning and end of a chunk in the file, and the number of packets
//! and bytes before it. The records in between are walked again when they are needed. So 100 GB
//! take some 30 MB of index, and with a filter one more bit for each packet.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::RwLock;
use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

use super::map::FileMap;
use super::metadata;
use super::pcapng_writer::{enhanced_packet_len, note_len};
use super::pending::{Pending, SPAN_LEN};
use super::verdicts::Verdicts;
use super::walk::{FileFormat, FileInterface, FilePacket, WalkPlace, WalkResult};
use super::{MAX_INTERFACES, Malformed, SavefileFault};
use crate::bell::Bells;
use crate::filter::Filter;
use crate::record;
use crate::store::{Position, Trailing};

/// Maximum bytes of records in a chunk, unless a single record has more. That is one or two replies
/// to a reader, and small enough that its conversion is not noticed.
pub(super) const CHUNK_LEN: u64 = 256 << 10;

/// How long to wait before checking again whether a file has grown: the shortest pause at first,
/// then twice as long each time, up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// Records between two checks of the stop flag, for files with little to publish.
const STOP_INTERVAL: u64 = 4096;

/// The part of the index that readers see.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) chunks: Vec<IndexEntry>,
    /// Position of the packet after the last chunk.
    pub(super) next: Position,
    pub(super) newest: Option<Timestamp>,
    /// Whether packets may still be added to the last chunk.
    pub(super) is_open: bool,
    pub(super) ended: bool,
    /// Whether everything that the file had at some moment has been walked.
    pub(super) is_read: bool,
    pub(super) problem: Option<String>,
    pub(super) raw: u64,
    pub(super) foreign: Foreign,
    /// Kept blocks that no file has.
    pub(super) left_out: u64,
    /// The blocks after the last packet.
    pub(super) trailing: Option<Arc<Trailing>>,
    /// All interfaces that the file describes, in its order.
    pub(super) interfaces: Arc<Vec<FileInterface>>,
}

/// Packets of another link type than the header's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Foreign {
    /// Packets that are served to readers of pcapng.
    pub(super) packets: u64,
    /// Bytes of their records.
    pub(super) bytes: u64,
    /// Packets left out because the filter does not compile for their link type.
    pub(super) unfiltered: u64,
}

/// A run of packets.
#[derive(Clone, Debug)]
pub(super) struct IndexEntry {
    pub(super) first: Position,
    /// Packets before the first one that are of another link type than the header's.
    pub(super) foreign: u64,
    /// Bytes of all records.
    pub(super) len: u64,
    /// Place of the first packet's record or block.
    pub(super) place: WalkPlace,
    /// End of the last packet's record or block in the file.
    pub(super) end: usize,
    /// Whether the file between the two places is exactly the data to serve, apart from the byte
    /// order.
    pub(super) whole: bool,
    /// For each packet, whether the filter matched; `None` if it matched all.
    pub(super) matched: Option<Arc<[u64]>>,
}

/// How the walk over the file ended.
#[derive(Debug)]
enum WalkEnd {
    /// The flag stopped it; it can continue.
    Stopped,
    /// At the end of the file, or before a record that is cut short.
    File,
    /// Before a malformed record or block.
    Malformed(SavefileFault),
    /// The file is no longer the same.
    Changed(String),
}

/// The walk that builds the index.
#[derive(Debug)]
pub(super) struct Indexer {
    link_type: LinkType,
    precision: Precision,
    /// Maximum bytes served of a packet.
    snaplen: u32,
    /// Whether decryption secrets are left out.
    without_keys: bool,
    filter: Option<Filters>,
    place: WalkPlace,
    interfaces: Vec<FileInterface>,
    /// Interfaces whose description is included in `next.pcapng`, or comes before everything.
    counted: u32,
    next: Position,
    newest: Option<(u32, u32)>,
    raw: u64,
    foreign: Foreign,
    open: Option<OpenChunk>,
    /// Blocks since the last served packet.
    pending: Option<Pending>,
    /// Blocks that readers of pcapng do not get.
    left_out: u64,
    /// Whether readers already see the chunk being built, as the last one.
    is_shown: bool,
    finished: bool,
    /// Whether it ended at the end of the file, so that it can continue if bytes are added.
    at_end: bool,
}

/// The chunk being built.
#[derive(Clone, Debug)]
struct OpenChunk {
    first: Position,
    foreign: u64,
    len: u64,
    place: WalkPlace,
    end: usize,
    whole: bool,
    verdicts: Verdicts,
}

impl Indexer {
    /// A walk from the beginning. `leading` interfaces are described before the first packet.
    pub(super) fn new(
        format: &FileFormat,
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

    /// Sets whether the walk leaves out decryption secrets.
    pub(super) fn without_keys(self, without_keys: bool) -> Self {
        Self { without_keys, ..self }
    }

    /// Continues until the end of the file or until `stop`; returns true at the end. With `follow`,
    /// waits for bytes that are added to the file.
    pub(super) fn run(
        &mut self,
        map: &FileMap,
        format: &FileFormat,
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
            while follow && matches!(end, WalkEnd::File) && !stop.load(Ordering::Relaxed) {
                end = match self.wait(map, index, bells, stop) {
                    Ok(true) => self.walk(map, format, index, bells, stop),
                    Ok(false) => WalkEnd::Stopped,
                    Err(problem) => WalkEnd::Changed(problem),
                };
            }
            if !matches!(end, WalkEnd::Changed(_))
                && let Err(problem) = self.publish(map, index, bells, !follow)
            {
                end = WalkEnd::Changed(problem);
            }
            // Zeros after a cut can look like anything; the cut explains them.
            if !matches!(end, WalkEnd::Stopped | WalkEnd::Changed(_))
                && let Err(problem) = map.check()
            {
                end = WalkEnd::Changed(problem);
            }
            self.finished = !matches!(end, WalkEnd::Stopped);
            self.at_end = matches!(end, WalkEnd::File);
            let left = map.bytes().len().saturating_sub(self.place.offset);
            let mut index = index.write();
            if self.finished && !matches!(end, WalkEnd::Changed(_)) {
                self.end_with_trailing(&mut index);
            }
            index.problem = self.problem(end, left);
            index.is_read = true;
            index.ended = true;
        }
        bells.strike();
        self.finished
    }

    /// Publishes the part that has been walked, and waits until the file has grown. Returns false
    /// if stopped first.
    fn wait(
        &mut self,
        map: &FileMap,
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

    /// Returns true if [`Indexer::run`] would find more by now.
    ///
    /// # Errors
    /// Why the data that may have been added is not read, in one line.
    pub(super) fn look_again(&mut self, map: &FileMap) -> Result<bool, String> {
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

    fn problem(&self, end: WalkEnd, left: usize) -> Option<String> {
        match end {
            WalkEnd::Stopped => None,
            WalkEnd::File if left == 0 => None,
            WalkEnd::File => {
                let bytes = if left == 1 { "byte is" } else { "bytes are" };
                Some(format!("cut short: the last {left} {bytes} not a whole record"))
            }
            WalkEnd::Malformed(fault) => {
                let offset = self.place.offset as u64;
                Some(Malformed { offset, fault }.to_string())
            }
            WalkEnd::Changed(problem) => Some(problem),
        }
    }

    fn walk(
        &mut self,
        map: &FileMap,
        format: &FileFormat,
        index: &RwLock<Index>,
        bells: &Bells,
        stop: &AtomicBool,
    ) -> WalkEnd {
        let bytes = map.bytes();
        let mut until_stop = 0_u64;
        loop {
            if until_stop == 0 {
                if stop.load(Ordering::Relaxed) {
                    return WalkEnd::Stopped;
                }
                until_stop = STOP_INTERVAL;
            }
            until_stop = until_stop.saturating_sub(1);
            let before = self.place;
            match self.place.step(bytes, format, &self.interfaces) {
                Ok(WalkResult::Packet(packet)) => {
                    self.raw = self.raw.saturating_add(1);
                    let left_out = self.is_left_out(&packet);
                    let len = if left_out { 0 } else { self.len(&packet) };
                    let is_full = |open: &OpenChunk| open.is_full(len, self.place.offset);
                    if self.open.as_ref().is_some_and(is_full)
                        && let Err(problem) = self.publish(map, index, bells, true)
                    {
                        return WalkEnd::Changed(problem);
                    }
                    if !left_out {
                        self.add(&packet, before, len);
                    }
                }
                Ok(WalkResult::Interface(block)) => match FileInterface::new(&block, before) {
                    Ok(_) if self.interfaces.len() >= MAX_INTERFACES => {
                        self.place = before;
                        return WalkEnd::Malformed(SavefileFault::TooManyInterfaces);
                    }
                    Ok(described) => {
                        self.interfaces.push(described);
                        self.place.describe();
                    }
                    Err(fault) => {
                        self.place = before;
                        return WalkEnd::Malformed(fault);
                    }
                },
                Ok(WalkResult::Kept(head, _)) if self.without_keys && metadata::is_keys(&head) => {}
                Ok(WalkResult::Kept(head, bytes)) => {
                    let block = self.place.kept(&head, bytes, &self.interfaces);
                    self.keep(before, block);
                }
                Ok(WalkResult::Section(comments)) => self.keep_comments(before, &comments),
                Ok(WalkResult::Other) => {}
                Ok(WalkResult::End) => return WalkEnd::File,
                Err(fault) => return WalkEnd::Malformed(fault),
            }
        }
    }

    /// Returns `true` if the filter leaves a packet out. The answer is kept for the chunk being
    /// built.
    #[inline]
    fn is_left_out(&mut self, packet: &FilePacket<'_>) -> bool {
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
    fn len(&self, packet: &FilePacket<'_>) -> u32 {
        // The captured length has been checked to fit.
        u32::try_from(packet.data.len()).unwrap_or(u32::MAX).min(self.snaplen)
    }

    /// Adds a packet to the chunk being built. `len` of its bytes are served. Its record or
    /// block begins at `before`.
    #[inline]
    fn add(&mut self, packet: &FilePacket<'_>, before: WalkPlace, len: u32) {
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
            OpenChunk { first, foreign, len: 0, place, end: before.offset, whole: true, verdicts }
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

    /// Keeps a block for the packet after it; `None` is a block that cannot be kept, and is
    /// counted.
    fn keep(&mut self, place: WalkPlace, block: Option<Vec<u8>>) {
        let Some(block) = block else {
            self.left_out = self.left_out.saturating_add(1);
            return;
        };
        self.pending.get_or_insert_with(|| Pending::new(place)).add(&block);
    }

    /// Keeps the comments on a section for the packet after it.
    fn keep_comments(&mut self, place: WalkPlace, comments: &[u8]) {
        if !comments.is_empty() {
            self.pending.get_or_insert_with(|| Pending::new(place)).add_comments(comments);
        }
    }

    /// Publishes the blocks after the last packet, and counts those that are left out.
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

    /// Publishes all new packets, with the chunk being built. With `close`, or if nothing can
    /// follow, that chunk is complete.
    ///
    /// On failure nothing is published, and the walk must end, because it has counted bytes that
    /// were not in the file.
    fn publish(
        &mut self,
        map: &FileMap,
        index: &RwLock<Index>,
        bells: &Bells,
        close: bool,
    ) -> Result<(), String> {
        let open = if close { self.open.take() } else { self.open.clone() };
        if open.is_some() {
            // Read first, check afterwards: then all bytes read so far were in the file.
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
                let OpenChunk { first, foreign, len, place, end, whole, .. } = open;
                if self.is_shown {
                    index.chunks.pop();
                }
                index.chunks.push(IndexEntry { first, foreign, len, place, end, whole, matched });
                index.is_open = !close;
                self.is_shown = !close;
            }
            index.next = self.next;
            // If a packet follows, the blocks before it belong to that packet.
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

impl OpenChunk {
    /// Returns `true` if a packet of `len` bytes that ends at `end` in the file belongs in the next
    /// chunk.
    #[inline]
    const fn is_full(&self, len: u32, end: usize) -> bool {
        self.len.saturating_add(record_len(len)) > CHUNK_LEN
            || end.saturating_sub(self.place.offset) > SPAN_LEN
    }
}

/// A filter, compiled again for every link type that occurs.
#[derive(Debug)]
struct Filters {
    /// For the header's link type.
    filter: Filter,
    /// For other link types; `None` if its expression does not compile for one.
    others: HashMap<LinkType, Option<Filter>>,
}

impl Filters {
    fn other(&mut self, link_type: LinkType) -> Option<&Filter> {
        let compile = || Filter::compile(self.filter.expression(), link_type).ok();
        self.others.entry(link_type).or_insert_with(compile).as_ref()
    }
}

/// Bytes of a pcap record with `captured_len` captured bytes.
#[inline]
const fn record_len(captured_len: u32) -> u64 {
    (record::HEADER_LEN as u64).saturating_add(captured_len as u64)
}
