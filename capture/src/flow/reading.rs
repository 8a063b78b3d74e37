//! Files of flows, as their openers see them.

use std::ops::Range;
use std::sync::Arc;

use super::exchange::Exchange;
use super::gather::{FlowStreams, sender};
use super::holes::Holes;
use super::log::Cache;
use super::made::{self, Made};
use super::{File, Log, Seek, Shared, render};
use crate::http::body::Piece;
use crate::savefile::pcap;
use crate::tcp::Direction;

/// One opener of one of the files here.
///
/// The end is fixed at open; handing out an end of file makes the next read move it to the newest.
#[derive(Debug)]
pub struct Reading {
    shared: Arc<Shared>,
    content: Content,
    end: u64,
    /// Of a stream: no byte before the end is of a packet after this one.
    newest: u64,
    at_end: bool,
    holes: Holes,
}

/// What a file is made of.
#[derive(Debug)]
pub(super) enum Content {
    /// Made when it was opened.
    Frozen(Arc<Made>),
    /// The stream a flow sends in a direction.
    Stream { id: u64, direction: Direction },
    /// Pieces of such a stream: a body that needs no decoding.
    Pieces { id: u64, direction: Direction, ranges: Box<[Range<u64>]> },
    /// The packets of a flow, from the one on whose record begins at this offset.
    Packets { id: u64, header: [u8; pcap::FILE_HEADER_LEN], begin: u64 },
    /// Something for each transaction of a flow, and the last one that was made.
    Exchanges { id: u64, kind: Kind, made: Option<Text> },
    /// Lines of a whole capture, from this offset on.
    Log { log: Log, begin: u64, cache: Cache },
}

/// What was made of a transaction.
#[derive(Debug)]
pub(super) struct Text {
    /// Its place among all.
    index: usize,
    /// Where it begins in the file.
    begin: u64,
    text: Vec<u8>,
}

/// What there is for each transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A part of `http`.
    Transcript,
    /// A line of `http.jsonl`.
    Line,
}

impl Text {
    /// Where it ends in the file.
    fn end(&self) -> u64 {
        self.begin.saturating_add(self.text.len() as u64)
    }
}

impl Kind {
    /// Bytes of it, if known.
    fn len(self, exchange: &Exchange) -> Option<u64> {
        match self {
            Self::Transcript => exchange.transcript.map(u64::from),
            Self::Line => Some(exchange.line.into()),
        }
    }
}

impl Reading {
    /// `None` if what it is made of has left since `content` was looked up: an empty file where
    /// there was none would be a lie.
    pub(super) fn new(shared: Arc<Shared>, content: Content) -> Option<Self> {
        let (end, newest) = content.end(&shared)?;
        Some(Self { shared, content, end, newest, at_end: false, holes: Holes::default() })
    }

    /// Of the lines of a whole capture from `begin` on.
    pub(super) fn of_log(shared: Arc<Shared>, log: Log, begin: u64) -> Self {
        let content = Content::Log { log, begin, cache: Cache::default() };
        let holes = Holes::default();
        let mut reading = Self { shared, content, end: 0, newest: 0, at_end: false, holes };
        reading.rearm();
        reading
    }

    /// Bytes at `offset`, at most `want`; none at the end.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn read(&mut self, offset: u64, want: usize) -> Result<Vec<u8>, ReadError> {
        if std::mem::take(&mut self.at_end) {
            self.rearm();
        }
        let left = self.end.saturating_sub(offset);
        if left == 0 {
            self.at_end = true;
            return Ok(Vec::new());
        }
        let want = usize::try_from(left).map_or(want, |left| left.min(want));
        let mut bytes = Vec::with_capacity(want);
        let (shared, newest) = (&self.shared, self.newest);
        match &mut self.content {
            Content::Frozen(made) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = made.bytes().get(from..).unwrap_or_default();
                bytes.extend_from_slice(rest.get(..want).unwrap_or(rest));
            }
            Content::Stream { id, direction } => {
                let range = offset..offset.saturating_add(want as u64);
                shared.read_pieces(*id, *direction, &[range], newest, &mut bytes)?;
            }
            Content::Pieces { id, direction, ranges } => {
                let ranges = pieces(ranges, offset, want as u64);
                shared.read_pieces(*id, *direction, &ranges, newest, &mut bytes)?;
            }
            Content::Packets { id, header, begin } => {
                shared.read_packets(*id, header, *begin, offset, want, &mut bytes)?;
            }
            Content::Exchanges { id, kind, made } => {
                shared.read_exchanges(*id, *kind, made, offset, want, &mut bytes)?;
            }
            Content::Log { log, begin, cache } => {
                let at = begin.saturating_add(offset);
                bytes = shared.log(*log).read(at, want, cache).ok_or(ReadError::Expired)?;
            }
        }
        Ok(bytes)
    }

    /// Moves the end to the newest, since the opener was told the size.
    pub fn rearm(&mut self) {
        // What is gone keeps the end it had.
        if let Some((end, newest)) = self.content.end(&self.shared) {
            (self.end, self.newest) = (self.end.max(end), self.newest.max(newest));
        }
    }

    /// Whether it is of a stream of which nothing is left: its flow has left the tree with the last
    /// of its packets.
    #[must_use]
    pub fn is_all_hole(&self) -> bool {
        let Some(id) = self.content.stream() else { return false };
        self.shared.table.read().flow(id).is_none() && self.shared.is_overwritten(self.newest)
    }

    /// The size its opener was to be told, if the content was made when it was opened (`meta.json`,
    /// `http.har`, a decoded body) and may by now differ from what another opener would get.
    #[must_use]
    pub fn frozen_size(&self) -> Option<u64> {
        match &self.content {
            Content::Frozen(made) => Some(made.bytes().len() as u64),
            _ => None,
        }
    }

    /// The next place of a kind at or after `offset`; `None` behind the end, or if only holes follow.
    #[must_use]
    pub fn seek(&mut self, offset: u64, to: Seek) -> Option<u64> {
        let end = self.content.len(&self.shared).map_or(self.end, |end| end.max(self.end));
        if offset >= end {
            return None;
        }
        let is_there = match &self.content {
            Content::Stream { id, direction } => {
                self.shared.holes(*id, *direction, None, &mut self.holes)
            }
            Content::Pieces { id, direction, ranges } => {
                self.shared.holes(*id, *direction, Some(ranges), &mut self.holes)
            }
            _ => return Some(if to == Seek::Data { offset } else { end }),
        };
        if !is_there {
            // What is not overwritten is no hole: whoever reads it is told that it cannot be had.
            let all = self.shared.is_overwritten(self.newest).then_some(0..end);
            self.holes = Holes { of: None, ranges: all.into_iter().collect() };
        }
        let holes = &self.holes.ranges;
        let next = holes.get(holes.partition_point(|hole| hole.end <= offset));
        let here = next.filter(|hole| hole.start <= offset);
        match to {
            // Behind a hole there are bytes, or the end.
            Seek::Data => Some(here.map_or(offset, |hole| hole.end)).filter(|at| *at < end),
            Seek::Hole => Some(next.map_or(end, |hole| hole.start.max(offset))),
        }
    }
}

/// Why a file cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such file, or no longer.
    #[error("no such file")]
    Gone,
    /// Its content is made in memory, and of such contents as much is open as may be.
    #[error("as much that is made in memory is open as --flow-memory has room for")]
    NoRoom,
}

/// Why there is nothing to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store has dropped it, a log its lines, or its flow has left the tree.
    #[error("what was to be read is no longer retained")]
    Expired,
    /// The storage below failed, and said this.
    #[error("{0}")]
    Storage(String),
}

impl From<String> for ReadError {
    fn from(why: String) -> Self {
        Self::Storage(why)
    }
}

impl Content {
    /// The flow it is a stream of, or pieces of one.
    const fn stream(&self) -> Option<u64> {
        match self {
            Self::Stream { id, .. } | Self::Pieces { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// Bytes there are now and, of a stream, the newest packet they may be of; `None` if the flow
    /// has left the tree.
    fn end(&self, shared: &Shared) -> Option<(u64, u64)> {
        let end = self.len(shared)?;
        // Looked up after the end, it is not before it.
        let newest = match self.stream() {
            Some(id) => shared.table.read().flow(id)?.packets.last().unwrap_or(0),
            None => 0,
        };
        Some((end, newest))
    }

    /// Bytes there are now; `None` if the flow has left the tree.
    pub(super) fn len(&self, shared: &Shared) -> Option<u64> {
        Some(match self {
            Self::Frozen(made) => made.bytes().len() as u64,
            Self::Stream { id, direction } => {
                let table = shared.table.read();
                table.flow(*id)?.stream(*direction).map_or(0, |stream| stream.end())
            }
            Self::Pieces { ranges, .. } => {
                ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum()
            }
            Self::Packets { id, begin, .. } => {
                let end = shared.table.read().flow(*id)?.packets.record_bytes();
                (pcap::FILE_HEADER_LEN as u64).saturating_add(end.saturating_sub(*begin))
            }
            Self::Exchanges { id, kind, .. } => shared.measure(*id, *kind)?,
            Self::Log { log, begin, .. } => shared.log(*log).end().saturating_sub(*begin),
        })
    }
}

/// The parts of `ranges`, put together, from `offset` on.
fn pieces(ranges: &[Range<u64>], offset: u64, want: u64) -> Vec<Range<u64>> {
    let (mut before, mut left) = (0_u64, want);
    let mut parts = Vec::new();
    for range in ranges {
        let len = range.end.saturating_sub(range.start);
        let skip = offset.saturating_sub(before).min(len);
        before = before.saturating_add(len);
        let take = len.saturating_sub(skip).min(left);
        if take > 0 {
            let start = range.start.saturating_add(skip);
            parts.push(start..start.saturating_add(take));
            left = left.saturating_sub(take);
        }
    }
    parts
}

/// A hole reads as zeros.
fn fill(bytes: &mut Vec<u8>, piece: Piece<'_>) {
    match piece {
        Piece::Bytes(part) => bytes.extend_from_slice(part),
        Piece::Hole(len) => {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            bytes.resize(bytes.len().saturating_add(len), 0);
        }
    }
}

impl Shared {
    /// Whether the store has dropped all packets up to this one.
    fn is_overwritten(&self, newest: u64) -> bool {
        self.store.bounds().oldest.number > newest
    }

    /// Reads `ranges` of a stream, no byte of which is of a packet after `newest`.
    ///
    /// A flow that has left the tree with the last of its packets is a hole from end to end, as it
    /// was bit by bit before. One that had to leave for a bound is not: its bytes may be there, and
    /// nobody knows where.
    fn read_pieces(
        &self,
        id: u64,
        direction: Direction,
        ranges: &[Range<u64>],
        newest: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let len = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum::<u64>();
        let mut sink = |piece: Piece<'_>| fill(bytes, piece);
        let read = ranges
            .iter()
            .try_for_each(|range| self.read_stream(id, direction, range.clone(), &mut sink));
        match read {
            Err(ReadError::Expired) if self.is_overwritten(newest) => {
                fill(bytes, Piece::Hole(len.saturating_sub(bytes.len() as u64)));
                Ok(())
            }
            read => read,
        }
    }

    fn read_packets(
        &self,
        id: u64,
        header: &[u8; pcap::FILE_HEADER_LEN],
        begin: u64,
        offset: u64,
        want: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        bytes.extend(header.iter().skip(from).take(want));
        let left = want.saturating_sub(bytes.len());
        if left == 0 {
            return Ok(());
        }
        let at = offset.saturating_sub(header.len() as u64).saturating_add(begin);
        let table = self.table.read();
        let Some(flow) = table.flow(id) else { return Err(ReadError::Expired) };
        let end = at.saturating_add(left as u64);
        let entries = flow.packets.iter_at(at).take_while(|entry| entry.offset < end);
        let entries: Vec<_> = entries.map(|entry| (entry.number, entry.offset)).collect();
        drop(table);
        let Some((_, first)) = entries.first() else { return Err(ReadError::Expired) };
        let mut skip = usize::try_from(at.saturating_sub(*first)).unwrap_or(usize::MAX);
        let numbers = entries.iter().map(|(number, _)| *number);
        let is_there = self.records(numbers, &mut |record| {
            let part = record.get(std::mem::take(&mut skip)..).unwrap_or_default();
            let room = want.saturating_sub(bytes.len());
            bytes.extend_from_slice(part.get(..room).unwrap_or(part));
            bytes.len() < want
        })?;
        // What was read before the first packet that is gone is right.
        if is_there || !bytes.is_empty() { Ok(()) } else { Err(ReadError::Expired) }
    }

    fn read_exchanges(
        &self,
        id: u64,
        kind: Kind,
        made: &mut Option<Text>,
        offset: u64,
        want: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let mut at = offset;
        while bytes.len() < want {
            let last = made.as_ref().filter(|made| made.begin <= at);
            if last.is_none_or(|made| made.end() <= at) {
                // Whoever reads on does not begin at the first again.
                let from = last.map_or((0, 0), |made| (made.index, made.begin));
                *made = self.make(id, kind, from, at);
            }
            // Otherwise the flow has left the tree, and nothing says what was here.
            let made = made.as_ref().ok_or(ReadError::Expired)?;
            let skip = usize::try_from(at.saturating_sub(made.begin)).unwrap_or(usize::MAX);
            let part = made.text.get(skip..).unwrap_or_default();
            let room = want.saturating_sub(bytes.len());
            let part = part.get(..room).unwrap_or(part);
            bytes.extend_from_slice(part);
            at = at.saturating_add(part.len() as u64);
        }
        Ok(())
    }

    /// Makes the text that covers `at`, of a transaction not before `from`: a place among all and
    /// where its text begins; `None` if the flow has left the tree, be it meanwhile.
    fn make(&self, id: u64, kind: Kind, from: (usize, u64), at: u64) -> Option<Text> {
        let (first, mut begin) = from;
        let table = self.table.read();
        let flow = table.flow(id)?;
        let http = flow.http.as_ref()?;
        for (index, exchange) in http.exchanges.iter().enumerate().skip(first) {
            let len = kind.len(exchange)?;
            let end = begin.saturating_add(len);
            if at < end {
                let (key, request, exchange) = (flow.key, http.request, exchange.clone());
                drop(table);
                let streams = FlowStreams::new(self, id, request);
                let text = match kind {
                    Kind::Transcript => render::transcript(&exchange, &streams),
                    Kind::Line => render::line(&key, &exchange, &streams),
                };
                let text = Text { index, begin, text: fitted(text, len) };
                return self.has(id).then_some(text);
            }
            begin = end;
        }
        None
    }

    /// Bytes of a file that has something for each transaction; `None` if the flow has left the
    /// tree. What was never made is made.
    fn measure(&self, id: u64, kind: Kind) -> Option<u64> {
        let mut from = 0;
        loop {
            let table = self.table.read();
            let http = table.flow(id)?.http.as_ref()?;
            let unknown = http.exchanges.iter().enumerate().skip(from);
            let mut unknown = unknown.filter(|(_, exchange)| kind.len(exchange).is_none());
            let Some((index, exchange)) = unknown.next() else {
                return Some(http.exchanges.iter().filter_map(|exchange| kind.len(exchange)).sum());
            };
            let (request, exchange) = (http.request, exchange.clone());
            drop(table);
            let streams = FlowStreams::new(self, id, request);
            let len = render::transcript(&exchange, &streams).len();
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            let mut table = self.table.write();
            let http = table.flow_mut(id).and_then(|flow| flow.http.as_mut());
            if let Some(exchange) = http.and_then(|http| http.exchanges.get_mut(index)) {
                exchange.transcript.get_or_insert(len);
            }
            from = index;
        }
    }

    /// Whether a flow is in the tree. What was made of its packets, before this, has nothing missing
    /// that was not missing in the tree.
    fn has(&self, id: u64) -> bool {
        self.table.read().flow(id).is_some()
    }

    /// A content of one opener's own, which may be as long as a list of gaps is.
    fn keep(&self, text: Vec<u8>) -> Result<Arc<Made>, OpenError> {
        if text.len() <= made::SMALL {
            return Ok(Made::own(text));
        }
        if !self.bodies.has_room(text.len() as u64) {
            // What is kept in case somebody asks again.
            self.hars.lock().clear();
        }
        self.bodies.keep(text).ok_or(OpenError::NoRoom)
    }

    /// What a file of a flow is made of.
    pub(super) fn content(
        &self,
        id: u64,
        file: File,
        beginning: u64,
    ) -> Result<Content, OpenError> {
        if matches!(file, File::Meta) {
            self.expire(id);
        }
        let table = self.table.read();
        let flow = table.flow(id).ok_or(OpenError::Gone)?;
        let http = flow.http.as_deref().ok_or(OpenError::Gone);
        Ok(match file {
            File::Meta => {
                let text = render::meta(self, flow);
                drop(table);
                Content::Frozen(self.keep(text)?)
            }
            File::Client => Content::Stream { id, direction: flow.client },
            File::Server => Content::Stream { id, direction: flow.client.other() },
            File::Packets => {
                let link_type = flow.network.as_ref().and_then(|network| network.link_type);
                drop(table);
                let header = render::pcap_header(self, link_type).ok_or(OpenError::Gone)?;
                Content::Packets { id, header, begin: beginning }
            }
            File::Transcript | File::HttpJsonl => {
                http?;
                let is_line = file == File::HttpJsonl;
                let kind = if is_line { Kind::Line } else { Kind::Transcript };
                Content::Exchanges { id, kind, made: None }
            }
            File::Har => {
                http?;
                drop(table);
                let har = self.har(id)?;
                Content::Frozen(if self.has(id) { har } else { return Err(OpenError::Gone) })
            }
            File::Body { index, direction } => {
                let http = http?;
                let exchange = http.exchange(index).ok_or(OpenError::Gone)?;
                let part = exchange.part(direction).filter(|part| !part.file.is_empty());
                let part = part.ok_or(OpenError::Gone)?;
                let sends = sender(direction, http.request);
                if part.is_plain {
                    let ranges = part.ranges().into();
                    return Ok(Content::Pieces { id, direction: sends, ranges });
                }
                let (len, exchange, request) = (part.decoded, exchange.clone(), http.request);
                drop(table);
                let streams = FlowStreams::new(self, id, request);
                if !self.bodies.has_room(len) {
                    // What is kept in case somebody asks again.
                    self.hars.lock().clear();
                }
                let made = self.bodies.get((id, index, direction), len, || {
                    render::body(&exchange, direction, &streams).unwrap_or_default()
                });
                let made = made.ok_or(OpenError::NoRoom)?;
                Content::Frozen(if self.has(id) { made } else { return Err(OpenError::Gone) })
            }
        })
    }
}

/// Text of exactly `len` bytes: what was shown once keeps its length, though heads and bodies may be
/// gone since.
fn fitted(mut text: Vec<u8>, len: u64) -> Vec<u8> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if text.len() != len {
        text.truncate(len);
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        text.resize(len.saturating_sub(1), b' ');
        text.push(b'\n');
    }
    text
}
