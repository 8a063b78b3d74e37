//! Files of flows, as their openers see them.

use std::ops::Range;
use std::sync::Arc;

use protocol::http::body::BodyPiece;
use protocol::http::body::framed::parts;
use protocol::http::direction::MessageRole;
use protocol::tcp::Direction;

use super::gather::FlowStreams;
use super::hars::Packed;
use super::holes::StreamHoles;
use super::render;
use super::texts::{Text, TextKind};
use crate::flow::apps::Application;
use crate::flow::apps::http::exchange::{StoredMessage, TransactionView};
use crate::flow::error::{FlowOpenError, FlowReadError};
use crate::flow::file::{File, Log, Seek};
use crate::flow::log::LogCache;
use crate::flow::made::{self, MadeContent};
use crate::flow::places::sender;
use crate::flow::shared::SharedFlows;
use crate::savefile::pcap;

/// One opener of one file of a flow or of the capture.
///
/// Reads end at the size that is visible to the opener: the size when the file was opened, or at
/// the last [`extend_visible`](Self::extend_visible). A read at the end reports end of file, and
/// makes the next read extend the visible size.
#[derive(Debug)]
pub struct FileReading {
    shared: Arc<SharedFlows>,
    content: FileContent,
    /// Bytes that are visible to the opener.
    visible_size: u64,
    /// For a stream: every byte before the visible end is of this packet or an earlier one.
    newest: u64,
    at_end: bool,
    holes: StreamHoles,
}

/// The content of a file.
#[derive(Debug)]
pub(in crate::flow) enum FileContent {
    /// Rendered or decoded when the file was opened.
    Rendered(Arc<MadeContent>),
    /// The stream that a flow sends in a direction.
    Stream { id: u64, direction: Direction },
    /// Pieces of such a stream, which are a body that needs no decoding. `grows` names the body
    /// while its transaction is under way.
    Pieces {
        id: u64,
        direction: Direction,
        ranges: Box<[Range<u64>]>,
        grows: Option<(u64, MessageRole)>,
    },
    /// The packets of a flow, from the packet whose record begins at this offset.
    Packets { id: u64, header: [u8; pcap::FILE_HEADER_LEN], begin: u64 },
    /// One text for each transaction of a flow, and the last text that was made.
    Texts { id: u64, kind: TextKind, made: Option<Text> },
    /// Lines of a flow, from this offset on, which are in the log of the capture.
    Lines { id: u64, application: Application, begin: u64, cache: LogCache },
    /// A file of a whole capture, made when it was opened.
    Packed { packed: Packed, cache: LogCache },
    /// Lines of a whole capture, from this offset on.
    Log { log: Log, begin: u64, cache: LogCache },
}

impl FileReading {
    /// `None` if the flow has left the tree since `content` was looked up: an empty file would be
    /// wrong where no file is left.
    pub(in crate::flow) fn new(shared: Arc<SharedFlows>, content: FileContent) -> Option<Self> {
        let (visible_size, newest) = content.end(&shared)?;
        Some(Self {
            shared,
            content,
            visible_size,
            newest,
            at_end: false,
            holes: StreamHoles::default(),
        })
    }

    /// A reading of a log of the capture, from offset `begin` on.
    pub(in crate::flow) fn of_log(shared: Arc<SharedFlows>, log: Log, begin: u64) -> Self {
        let content = FileContent::Log { log, begin, cache: LogCache::default() };
        let holes = StreamHoles::default();
        let mut reading =
            Self { shared, content, visible_size: 0, newest: 0, at_end: false, holes };
        reading.extend_visible();
        reading
    }

    /// A reading of a content that was made for its opener.
    pub(in crate::flow) fn of_made(shared: Arc<SharedFlows>, made: Arc<MadeContent>) -> Self {
        let visible_size = made.bytes().len() as u64;
        let (content, holes) = (FileContent::Rendered(made), StreamHoles::default());
        Self { shared, content, visible_size, newest: 0, at_end: false, holes }
    }

    /// A reading of a file of the whole capture that was made for its opener.
    pub(in crate::flow) fn of_packed(shared: Arc<SharedFlows>, packed: Packed) -> Self {
        let visible_size = packed.log.end();
        let (content, holes) =
            (FileContent::Packed { packed, cache: LogCache::default() }, StreamHoles::default());
        Self { shared, content, visible_size, newest: 0, at_end: false, holes }
    }

    /// The bytes at `offset`, at most `want`; none at the end.
    ///
    /// # Errors
    /// [`FlowReadError`]
    pub fn read(&mut self, offset: u64, want: usize) -> Result<Vec<u8>, FlowReadError> {
        if std::mem::take(&mut self.at_end) {
            self.extend_visible();
        }
        let left = self.visible_size.saturating_sub(offset);
        if left == 0 {
            self.at_end = true;
            return Ok(Vec::new());
        }
        let want = usize::try_from(left).map_or(want, |left| left.min(want));
        let mut bytes = Vec::with_capacity(want);
        let (shared, newest) = (&self.shared, self.newest);
        match &mut self.content {
            FileContent::Rendered(made) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = made.bytes().get(from..).unwrap_or_default();
                bytes.extend_from_slice(rest.get(..want).unwrap_or(rest));
            }
            FileContent::Stream { id, direction } => {
                let range = offset..offset.saturating_add(want as u64);
                shared.read_pieces(*id, *direction, &[range], newest, &mut bytes)?;
            }
            FileContent::Pieces { id, direction, ranges, .. } => {
                let ranges = parts(ranges, offset, want as u64);
                shared.read_pieces(*id, *direction, &ranges, newest, &mut bytes)?;
            }
            FileContent::Packets { id, header, begin } => {
                shared.read_packets(*id, header, *begin, offset, want, &mut bytes)?;
            }
            FileContent::Texts { id, kind, made } => {
                shared.read_texts(*id, *kind, made, offset, want, &mut bytes)?;
            }
            FileContent::Lines { id, application, begin, cache } => {
                let from = begin.saturating_add(offset);
                let range = from..from.saturating_add(want as u64);
                shared.read_lines((*id, *application), &range, cache, &mut bytes)?;
            }
            FileContent::Packed { packed, cache } => {
                bytes = packed.log.read(offset, want, cache).ok_or(FlowReadError::Expired)?;
            }
            FileContent::Log { log, begin, cache } => {
                let at = begin.saturating_add(offset);
                bytes = shared.log(*log).read(at, want, cache).ok_or(FlowReadError::Expired)?;
            }
        }
        Ok(bytes)
    }

    /// Extends the visible size to the newest: the opener has seen the current size.
    pub fn extend_visible(&mut self) {
        self.content.grow(&self.shared);
        // A content whose flow is gone keeps its size.
        if let Some((end, newest)) = self.content.end(&self.shared) {
            self.visible_size = self.visible_size.max(end);
            self.newest = self.newest.max(newest);
        }
    }

    /// Returns `true` if this is a stream, or a body in a stream, with no bytes left: its flow has
    /// left the tree together with its last packet.
    #[must_use]
    pub fn is_all_hole(&self) -> bool {
        let Some(id) = self.content.stream() else { return false };
        self.shared.table.read().flow(id).is_none() && self.shared.is_overwritten(self.newest)
    }

    /// The size that is visible to the opener, if the content was rendered or decoded when the file
    /// was opened (`meta.json`, `http.har`, a body). By now it may differ from the size that
    /// another opener would see.
    #[must_use]
    pub fn rendered_size(&self) -> Option<u64> {
        match &self.content {
            FileContent::Rendered(made) => Some(made.bytes().len() as u64),
            FileContent::Packed { packed, .. } => Some(packed.log.end()),
            _ => None,
        }
    }

    /// The next place of the kind `to` at or after `offset`; `None` at or after the end, or if only
    /// holes follow.
    #[must_use]
    pub fn seek(&mut self, offset: u64, to: Seek) -> Option<u64> {
        self.content.grow(&self.shared);
        let end = self.content.len(&self.shared);
        let end = end.map_or(self.visible_size, |end| end.max(self.visible_size));
        if offset >= end {
            return None;
        }
        let is_there = match &self.content {
            FileContent::Stream { id, direction } => {
                self.shared.holes(*id, *direction, None, &mut self.holes)
            }
            FileContent::Pieces { id, direction, ranges, .. } => {
                self.shared.holes(*id, *direction, Some(ranges), &mut self.holes)
            }
            _ => return Some(if to == Seek::Data { offset } else { end }),
        };
        if !is_there {
            // Only overwritten bytes are a hole. Reading other bytes reports that they are not
            // available.
            let all = self.shared.is_overwritten(self.newest).then_some(0..end);
            self.holes = StreamHoles::until_next_look(all.into_iter().collect());
        }
        let holes = &self.holes.ranges;
        let next = holes.get(holes.partition_point(|hole| hole.end <= offset));
        let here = next.filter(|hole| hole.start <= offset);
        match to {
            // A hole is followed by bytes, or by the end.
            Seek::Data => Some(here.map_or(offset, |hole| hole.end)).filter(|at| *at < end),
            Seek::Hole => Some(next.map_or(end, |hole| hole.start.max(offset))),
        }
    }
}

impl FileContent {
    /// The id of the flow, if the content is a stream of it or pieces of one.
    const fn stream(&self) -> Option<u64> {
        match self {
            Self::Stream { id, .. } | Self::Pieces { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// Takes in the ranges that were added to a body whose transaction is under way.
    fn grow(&mut self, shared: &SharedFlows) {
        let Self::Pieces { id, ranges, grows, .. } = self else { return };
        let Some((index, side)) = *grows else { return };
        let table = shared.table.read();
        match table.flow(*id).and_then(|flow| flow.transaction(index)) {
            Some(TransactionView::UnderWay(transaction, _)) => {
                let now = transaction.message(side).map(|message| &*message.body.ranges);
                let now = now.unwrap_or_default();
                if (now.len(), now.last()) != (ranges.len(), ranges.last()) {
                    *ranges = now.into();
                }
            }
            Some(TransactionView::Ended(exchange)) => {
                *ranges = exchange.part(side).map(StoredMessage::ranges).unwrap_or_default().into();
                *grows = None;
            }
            // A body whose transaction is gone keeps its end.
            None => {}
        }
    }

    /// The current length in bytes and, for a stream, the newest packet its bytes may be of; `None`
    /// if the flow has left the tree.
    fn end(&self, shared: &SharedFlows) -> Option<(u64, u64)> {
        let end = self.len(shared)?;
        // Looked up after the end, so that it is not older than the end.
        let newest = match self.stream() {
            Some(id) => shared.table.read().flow(id)?.packets.last().unwrap_or(0),
            None => 0,
        };
        Some((end, newest))
    }

    /// The current length in bytes; `None` if the flow has left the tree.
    pub(in crate::flow) fn len(&self, shared: &SharedFlows) -> Option<u64> {
        Some(match self {
            Self::Rendered(made) => made.bytes().len() as u64,
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
            Self::Lines { id, application, begin, .. } => {
                let table = shared.table.read();
                let lines = table.flow(*id)?.kept.lines(*application)?;
                lines.end().saturating_sub(*begin)
            }
            Self::Packed { packed, .. } => packed.log.end(),
            Self::Log { log, begin, .. } => shared.log(*log).end().saturating_sub(*begin),
        })
    }
}

/// A hole reads as zeros.
fn fill(bytes: &mut Vec<u8>, piece: BodyPiece<'_>) {
    match piece {
        BodyPiece::Bytes(part) => bytes.extend_from_slice(part),
        BodyPiece::Hole(len) => {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            bytes.resize(bytes.len().saturating_add(len), 0);
        }
    }
}

impl SharedFlows {
    /// Returns `true` if the store has dropped all packets up to this one.
    fn is_overwritten(&self, newest: u64) -> bool {
        self.store.bounds().oldest.number > newest
    }

    /// Reads `ranges` of a stream, whose bytes are of packet `newest` or earlier ones.
    ///
    /// A flow that has left the tree together with its last packet is a hole from end to end, since
    /// its packets were overwritten one after the other. A flow that left because of a limit is
    /// not: its bytes may still be stored, but nothing records where.
    fn read_pieces(
        &self,
        id: u64,
        direction: Direction,
        ranges: &[Range<u64>],
        newest: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), FlowReadError> {
        let len = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum::<u64>();
        let mut sink = |piece: BodyPiece<'_>| fill(bytes, piece);
        let read = ranges
            .iter()
            .try_for_each(|range| self.read_stream(id, direction, range.clone(), &mut sink));
        match read {
            Err(FlowReadError::Expired) if self.is_overwritten(newest) => {
                fill(bytes, BodyPiece::Hole(len.saturating_sub(bytes.len() as u64)));
                Ok(())
            }
            read => read,
        }
    }

    /// Reads `range` of the lines of a protocol in a flow.
    fn read_lines(
        &self,
        (id, application): (u64, Application),
        range: &Range<u64>,
        cache: &mut LogCache,
        bytes: &mut Vec<u8>,
    ) -> Result<(), FlowReadError> {
        let table = self.table.read();
        let lines = table.flow(id).and_then(|flow| flow.kept.lines(application));
        let places = lines.map(|lines| lines.in_log(range)).unwrap_or_default();
        drop(table);
        let log = self.log(Log::Lines(application));
        for place in places {
            let len = usize::try_from(place.end.saturating_sub(place.start)).unwrap_or(usize::MAX);
            let part = log.read(place.start, len, cache).unwrap_or_default();
            bytes.extend_from_slice(&part);
            if part.len() < len {
                break;
            }
        }
        // The lines before a dropped one are correct.
        if bytes.is_empty() { Err(FlowReadError::Expired) } else { Ok(()) }
    }

    fn read_packets(
        &self,
        id: u64,
        header: &[u8; pcap::FILE_HEADER_LEN],
        begin: u64,
        offset: u64,
        want: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<(), FlowReadError> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        bytes.extend(header.iter().skip(from).take(want));
        let left = want.saturating_sub(bytes.len());
        if left == 0 {
            return Ok(());
        }
        let at = offset.saturating_sub(header.len() as u64).saturating_add(begin);
        let table = self.table.read();
        let Some(flow) = table.flow(id) else { return Err(FlowReadError::Expired) };
        let end = at.saturating_add(left as u64);
        let entries = flow.packets.iter_at(at).take_while(|entry| entry.offset < end);
        let entries: Vec<_> = entries.map(|entry| (entry.number, entry.offset)).collect();
        drop(table);
        let Some((_, first)) = entries.first() else { return Err(FlowReadError::Expired) };
        let mut skip = usize::try_from(at.saturating_sub(*first)).unwrap_or(usize::MAX);
        let numbers = entries.iter().map(|(number, _)| *number);
        let is_there = self.records(numbers, &mut |record| {
            let part = record.get(std::mem::take(&mut skip)..).unwrap_or_default();
            let room = want.saturating_sub(bytes.len());
            bytes.extend_from_slice(part.get(..room).unwrap_or(part));
            bytes.len() < want
        })?;
        // The bytes read before the first missing packet are correct.
        if is_there || !bytes.is_empty() { Ok(()) } else { Err(FlowReadError::Expired) }
    }

    /// Returns `true` if a flow is in the tree. If it is, a content made from its packets before
    /// this call lacks nothing but what the tree lacked too.
    pub(in crate::flow) fn has(&self, id: u64) -> bool {
        self.table.read().flow(id).is_some()
    }

    /// Keeps a content for one opener. It may be long, such as a list of gaps.
    pub(in crate::flow) fn keep(&self, text: Vec<u8>) -> Result<Arc<MadeContent>, FlowOpenError> {
        if text.len() <= made::SMALL {
            return Ok(MadeContent::own(text));
        }
        if !self.bodies.has_room(text.len() as u64) {
            // The cache makes room.
            self.hars.lock().clear();
        }
        self.bodies.keep(text).ok_or(FlowOpenError::NoRoom)
    }

    /// The content of a file of a flow.
    pub(in crate::flow) fn content(
        &self,
        id: u64,
        file: File,
        beginning: u64,
    ) -> Result<FileContent, FlowOpenError> {
        if matches!(file, File::Meta) {
            self.expire(id);
        }
        let table = self.table.read();
        let flow = table.flow(id).ok_or(FlowOpenError::Gone)?;
        let http = flow.kept.http.as_deref().ok_or(FlowOpenError::Gone);
        Ok(match file {
            File::Meta => {
                let text = render::meta(self, flow);
                drop(table);
                FileContent::Rendered(self.keep(text)?)
            }
            File::HttpOpen => {
                http?;
                let (text, _) = render::open_lines(self, flow);
                drop(table);
                FileContent::Rendered(self.keep(text)?)
            }
            File::Client => FileContent::Stream { id, direction: flow.client },
            File::Server => FileContent::Stream { id, direction: flow.client.other() },
            File::Packets => {
                let link_type = flow.network.as_ref().and_then(|network| network.link_type);
                drop(table);
                let header = render::pcap_header(self, link_type).ok_or(FlowOpenError::Gone)?;
                FileContent::Packets { id, header, begin: beginning }
            }
            File::Transcript => {
                http?;
                FileContent::Texts { id, kind: TextKind::Transcript, made: None }
            }
            File::Lines(Application::Http) => {
                http?;
                FileContent::Texts { id, kind: TextKind::Line, made: None }
            }
            File::Lines(application) => {
                flow.kept.lines(application).ok_or(FlowOpenError::Gone)?;
                FileContent::Lines { id, application, begin: beginning, cache: LogCache::default() }
            }
            File::Har => {
                http?;
                drop(table);
                let har = self.har(id)?;
                FileContent::Rendered(if self.has(id) {
                    har
                } else {
                    return Err(FlowOpenError::Gone);
                })
            }
            File::Body { index, direction } => {
                let http = http?;
                let sends = sender(direction, http.request);
                let view = flow.transaction(index).ok_or(FlowOpenError::Gone)?;
                view.file(direction).ok_or(FlowOpenError::Gone)?;
                let exchange = match view {
                    TransactionView::Ended(exchange) => exchange,
                    TransactionView::UnderWay(transaction, _) => {
                        let message = transaction.message(direction).ok_or(FlowOpenError::Gone)?;
                        let ranges = message.body.ranges.as_slice().into();
                        let grows = Some((index, direction));
                        return Ok(FileContent::Pieces { id, direction: sends, ranges, grows });
                    }
                };
                let part = exchange.part(direction).ok_or(FlowOpenError::Gone)?;
                if part.is_plain {
                    let ranges = part.ranges().into();
                    return Ok(FileContent::Pieces { id, direction: sends, ranges, grows: None });
                }
                let (len, exchange, request) = (part.decoded, exchange.clone(), http.request);
                drop(table);
                let streams = FlowStreams::new(self, id, request);
                if !self.bodies.has_room(len) {
                    // The cache makes room.
                    self.hars.lock().clear();
                }
                let made = self.bodies.get((id, index, direction), len, || {
                    render::body(&exchange, direction, &streams).unwrap_or_default()
                });
                let made = made.ok_or(FlowOpenError::NoRoom)?;
                FileContent::Rendered(if self.has(id) {
                    made
                } else {
                    return Err(FlowOpenError::Gone);
                })
            }
        })
    }
}
