//! Files of flows, as their openers see them.

use std::ops::Range;
use std::sync::Arc;

use protocol::http::body::Piece;
use protocol::http::body::framed::parts;
use protocol::http::direction::Direction as Side;
use protocol::tcp::Direction;

use super::gather::FlowStreams;
use super::hars::Packed;
use super::holes::Holes;
use super::render;
use super::texts::{Kind, Text};
use crate::flow::apps::exchange::{Part, View};
use crate::flow::error::{OpenError, ReadError};
use crate::flow::file::{File, Log, Seek};
use crate::flow::log::Cache;
use crate::flow::made::{self, Made};
use crate::flow::places::sender;
use crate::flow::shared::Shared;
use crate::savefile::pcap;

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
pub(in crate::flow) enum Content {
    /// Made when it was opened.
    Frozen(Arc<Made>),
    /// The stream a flow sends in a direction.
    Stream { id: u64, direction: Direction },
    /// Pieces of such a stream: a body that needs no decoding; and whose body, unless its
    /// transaction has ended.
    Pieces { id: u64, direction: Direction, ranges: Box<[Range<u64>]>, grows: Option<(u64, Side)> },
    /// The packets of a flow, from the one on whose record begins at this offset.
    Packets { id: u64, header: [u8; pcap::FILE_HEADER_LEN], begin: u64 },
    /// What a flow has for each transaction, and the last of it that was made.
    Texts { id: u64, kind: Kind, made: Option<Text> },
    /// A file of a whole capture, made when it was opened.
    Packed { packed: Packed, cache: Cache },
    /// Lines of a whole capture, from this offset on.
    Log { log: Log, begin: u64, cache: Cache },
}

impl Reading {
    /// `None` if what it is made of has left since `content` was looked up: an empty file where
    /// there was none would be a lie.
    pub(in crate::flow) fn new(shared: Arc<Shared>, content: Content) -> Option<Self> {
        let (end, newest) = content.end(&shared)?;
        Some(Self { shared, content, end, newest, at_end: false, holes: Holes::default() })
    }

    /// Of the lines of a whole capture from `begin` on.
    pub(in crate::flow) fn of_log(shared: Arc<Shared>, log: Log, begin: u64) -> Self {
        let content = Content::Log { log, begin, cache: Cache::default() };
        let holes = Holes::default();
        let mut reading = Self { shared, content, end: 0, newest: 0, at_end: false, holes };
        reading.rearm();
        reading
    }

    /// Of what was made for its opener.
    pub(in crate::flow) fn of_made(shared: Arc<Shared>, made: Arc<Made>) -> Self {
        let end = made.bytes().len() as u64;
        let (content, holes) = (Content::Frozen(made), Holes::default());
        Self { shared, content, end, newest: 0, at_end: false, holes }
    }

    /// Of a file of the whole capture that was made for its opener.
    pub(in crate::flow) fn of_packed(shared: Arc<Shared>, packed: Packed) -> Self {
        let end = packed.log.end();
        let (content, holes) =
            (Content::Packed { packed, cache: Cache::default() }, Holes::default());
        Self { shared, content, end, newest: 0, at_end: false, holes }
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
            Content::Pieces { id, direction, ranges, .. } => {
                let ranges = parts(ranges, offset, want as u64);
                shared.read_pieces(*id, *direction, &ranges, newest, &mut bytes)?;
            }
            Content::Packets { id, header, begin } => {
                shared.read_packets(*id, header, *begin, offset, want, &mut bytes)?;
            }
            Content::Texts { id, kind, made } => {
                shared.read_texts(*id, *kind, made, offset, want, &mut bytes)?;
            }
            Content::Packed { packed, cache } => {
                bytes = packed.log.read(offset, want, cache).ok_or(ReadError::Expired)?;
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
        self.content.grow(&self.shared);
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
            Content::Packed { packed, .. } => Some(packed.log.end()),
            _ => None,
        }
    }

    /// The next place of a kind at or after `offset`; `None` behind the end, or if only holes follow.
    #[must_use]
    pub fn seek(&mut self, offset: u64, to: Seek) -> Option<u64> {
        self.content.grow(&self.shared);
        let end = self.content.len(&self.shared).map_or(self.end, |end| end.max(self.end));
        if offset >= end {
            return None;
        }
        let is_there = match &self.content {
            Content::Stream { id, direction } => {
                self.shared.holes(*id, *direction, None, &mut self.holes)
            }
            Content::Pieces { id, direction, ranges, .. } => {
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

impl Content {
    /// The flow it is a stream of, or pieces of one.
    const fn stream(&self) -> Option<u64> {
        match self {
            Self::Stream { id, .. } | Self::Pieces { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// Takes in what has come of a body that goes on.
    fn grow(&mut self, shared: &Shared) {
        let Self::Pieces { id, ranges, grows, .. } = self else { return };
        let Some((index, side)) = *grows else { return };
        let table = shared.table.read();
        match table.flow(*id).and_then(|flow| flow.transaction(index)) {
            Some(View::UnderWay(transaction, _)) => {
                let now = transaction.message(side).map(|message| &*message.body.ranges);
                let now = now.unwrap_or_default();
                if (now.len(), now.last()) != (ranges.len(), ranges.last()) {
                    *ranges = now.into();
                }
            }
            Some(View::Ended(exchange)) => {
                *ranges = exchange.part(side).map(Part::ranges).unwrap_or_default().into();
                *grows = None;
            }
            // What is gone keeps the end it had.
            None => {}
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
    pub(in crate::flow) fn len(&self, shared: &Shared) -> Option<u64> {
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
            Self::Texts { id, kind, .. } => shared.measure(*id, *kind)?,
            Self::Packed { packed, .. } => packed.log.end(),
            Self::Log { log, begin, .. } => shared.log(*log).end().saturating_sub(*begin),
        })
    }
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

    /// Whether a flow is in the tree. What was made of its packets, before this, has nothing missing
    /// that was not missing in the tree.
    pub(in crate::flow) fn has(&self, id: u64) -> bool {
        self.table.read().flow(id).is_some()
    }

    /// A content of one opener's own, which may be as long as a list of gaps is.
    pub(in crate::flow) fn keep(&self, text: Vec<u8>) -> Result<Arc<Made>, OpenError> {
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
    pub(in crate::flow) fn content(
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
            File::HttpOpen => {
                http?;
                let (text, _) = render::open_lines(self, flow);
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
                Content::Texts { id, kind, made: None }
            }
            File::Har => {
                http?;
                drop(table);
                let har = self.har(id)?;
                Content::Frozen(if self.has(id) { har } else { return Err(OpenError::Gone) })
            }
            File::Body { index, direction } => {
                let http = http?;
                let sends = sender(direction, http.request);
                let view = flow.transaction(index).ok_or(OpenError::Gone)?;
                view.file(direction).ok_or(OpenError::Gone)?;
                let exchange = match view {
                    View::Ended(exchange) => exchange,
                    View::UnderWay(transaction, _) => {
                        let message = transaction.message(direction).ok_or(OpenError::Gone)?;
                        let ranges = message.body.ranges.as_slice().into();
                        let grows = Some((index, direction));
                        return Ok(Content::Pieces { id, direction: sends, ranges, grows });
                    }
                };
                let part = exchange.part(direction).ok_or(OpenError::Gone)?;
                if part.is_plain {
                    let ranges = part.ranges().into();
                    return Ok(Content::Pieces { id, direction: sends, ranges, grows: None });
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
