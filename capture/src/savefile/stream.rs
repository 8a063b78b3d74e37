//! Savefiles that arrive as a stream of bytes: a FIFO, standard input.
//!
//! A [`StreamReader`] does no I/O. Its owner reads into [`StreamReader::space`], passes the number
//! of bytes to [`StreamReader::filled`], and takes [events](StreamEvent) until there are none.
//! Packets are slices of the reader's buffer. The buffer starts at 256 KiB and grows only while a
//! larger record is arriving, never beyond the largest possible record ([`MAX_BLOCK_LEN`]).

use std::ops::Range;

use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

use super::metadata::{self, OptionsOwner};
use super::order::ByteOrder;
use super::pcap::{self, PcapHeader};
use super::pcapng::{self, Block, BlockHead, Clock, InterfaceBlock, PacketBlock};
use super::{MAX_BLOCK_LEN, MAX_INTERFACES, Malformed, SavefileFault};
use crate::record;
use crate::store::{Interface, StoreHeader};

/// Length of the buffer, unless a record needs more: four times the default size of a pipe.
const BUFFER_LEN: usize = 256 << 10;

/// Minimum room for a read, so that no read returns just a few bytes: the default size of a pipe.
const MIN_SPACE: usize = 64 << 10;

/// An event of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent<'a> {
    /// A section of a pcapng stream begins, and its interfaces are numbered from 0. The bytes are
    /// its kept options, in this machine's byte order, without their end.
    Section(&'a [u8]),
    /// A pcapng stream describes the next interface of its section.
    Interface(&'a Interface),
    /// A whole block that is kept for readers of pcapng with the packet after it, in this machine's
    /// byte order. Statistics refer to an interface of the section, with times in nanoseconds.
    Kept(&'a [u8]),
    /// A block of that kind that is too long or damaged.
    LeftOut,
    /// The properties that later packets have in common; precedes the first of them.
    Header(StoreHeader),
    /// A packet.
    Packet(StreamPacket<'a>),
    /// A packet of another link type than the header's; one capture holds one link type.
    Foreign {
        /// Its link type.
        link_type: LinkType,
    },
}

/// A packet, in the reader's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPacket<'a> {
    /// The time at which it was captured; the epoch if the stream does not have it (simple packet
    /// blocks).
    pub time: Timestamp,
    /// Its length on the wire, in bytes.
    pub original_len: u32,
    /// The captured bytes.
    pub data: &'a [u8],
    /// Index of its interface in the section of a pcapng stream; 0 in a pcap stream.
    pub interface: u32,
    /// Its kept options, in this machine's byte order, without their end.
    pub options: &'a [u8],
}

/// Splits a stream into packets. See the [module](self).
#[derive(Debug)]
pub struct StreamReader {
    buffer: Vec<u8>,
    /// The unread part of `buffer`: `0 <= unread.start <= unread.end <= len`.
    unread: Range<usize>,
    /// Offset in the stream at which `unread` begins.
    offset: u64,
    format: StreamFormat,
    failed: Option<Malformed>,
    /// Offset in the stream of the record or block of the last event.
    last: u64,
    /// The part of the last event that had to be converted.
    made: Vec<u8>,
}

#[derive(Debug)]
enum StreamFormat {
    /// Too few bytes have arrived to recognize it.
    Unknown,
    Pcap(PcapHeader),
    Pcapng(StreamSection),
}

/// State of a pcapng stream.
#[derive(Debug, Default)]
struct StreamSection {
    /// Set by the section header.
    order: Option<ByteOrder>,
    interfaces: Vec<StreamInterface>,
    /// The last interface, as its block describes it.
    last: Interface,
    /// Set by the first packet.
    link_type: Option<LinkType>,
    /// A block that is being skipped and has not arrived completely.
    skipping: Option<Skipping>,
}

#[derive(Clone, Copy, Debug)]
struct StreamInterface {
    link_type: LinkType,
    snaplen: u32,
    clock: Clock,
}

#[derive(Clone, Copy, Debug)]
struct Skipping {
    head: BlockHead,
    /// Bytes of the block dropped so far, all before its trailer.
    dropped: u32,
}

/// One step through the buffer; `len` bytes of it are consumed.
enum StreamStep {
    /// More bytes are needed.
    Wait,
    Skip {
        len: usize,
    },
    Found {
        len: usize,
        found: StreamResult,
    },
}

enum StreamResult {
    /// Its options.
    Section(Vec<u8>),
    /// [`StreamSection::last`].
    Interface,
    /// The block; `None` if it is left out.
    Kept(Option<Vec<u8>>),
    Header(StoreHeader),
    /// `data` is relative to the beginning of the unread bytes.
    Packet {
        time: Timestamp,
        original_len: u32,
        data: Range<usize>,
        interface: u32,
        options: Vec<u8>,
    },
    Foreign(LinkType),
}

impl Default for StreamReader {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamReader {
    /// A reader that expects a file header.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            unread: 0..0,
            offset: 0,
            format: StreamFormat::Unknown,
            failed: None,
            last: 0,
            made: Vec::new(),
        }
    }

    /// Room for the next bytes of the stream, at least 64 KiB if all events have been taken.
    pub fn space(&mut self) -> &mut [u8] {
        if self.unread.is_empty() {
            self.unread = 0..0;
            self.buffer.truncate(BUFFER_LEN);
            self.buffer.shrink_to(BUFFER_LEN);
        }
        let free = self.buffer.len().saturating_sub(self.unread.end);
        if free < MIN_SPACE {
            self.make_space();
        }
        self.buffer.get_mut(self.unread.end..).unwrap_or_default()
    }

    /// Moves the unread bytes to the front. If that does not make enough room, enlarges the buffer.
    fn make_space(&mut self) {
        // Always holds, see `unread`.
        if self.unread.end <= self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
        }
        self.unread = 0..self.unread.len();
        let needed = self.unread.end.saturating_add(MIN_SPACE);
        // Only if events are not taken do more bytes than the largest record plus one read stay
        // unread.
        let most = (MAX_BLOCK_LEN as usize).saturating_add(MIN_SPACE);
        if self.buffer.len() < needed && self.buffer.len() < most {
            let len = needed.max(self.buffer.len().saturating_mul(2)).clamp(BUFFER_LEN, most);
            self.buffer.resize(len, 0);
        }
    }

    /// Tells the reader that the first `len` bytes of [`StreamReader::space`] now hold bytes of the
    /// stream.
    ///
    /// `len` is limited to the room there was.
    pub fn filled(&mut self, len: usize) {
        self.unread.end = self.unread.end.saturating_add(len).min(self.buffer.len());
    }

    /// The next event; `None` if more bytes are needed.
    ///
    /// # Errors
    /// The stream is malformed; the error has the place. It is returned again until
    /// [`StreamReader::reset`] or [`StreamReader::resume`].
    pub fn event(&mut self) -> Result<Option<StreamEvent<'_>>, Malformed> {
        if let Some(malformed) = &self.failed {
            return Err(malformed.clone());
        }
        loop {
            let step = self.step().map_err(|fault| {
                let malformed = Malformed { offset: self.record_offset(), fault };
                self.failed = Some(malformed.clone());
                malformed
            })?;
            match step {
                StreamStep::Wait => return Ok(None),
                StreamStep::Skip { len } => {
                    self.take(len);
                }
                StreamStep::Found { len, found } => {
                    self.last = self.record_offset();
                    let taken = self.take(len);
                    return Ok(Some(self.found(found, taken)));
                }
            }
        }
    }

    /// Makes the event of what was found in the bytes `taken` of the buffer.
    fn found(&mut self, found: StreamResult, taken: Range<usize>) -> StreamEvent<'_> {
        match found {
            StreamResult::Section(options) => {
                self.made = options;
                StreamEvent::Section(&self.made)
            }
            StreamResult::Interface => match &self.format {
                StreamFormat::Pcapng(section) => StreamEvent::Interface(&section.last),
                StreamFormat::Unknown | StreamFormat::Pcap(_) => StreamEvent::LeftOut,
            },
            StreamResult::Kept(None) => StreamEvent::LeftOut,
            StreamResult::Kept(Some(block)) => {
                self.made = block;
                StreamEvent::Kept(&self.made)
            }
            StreamResult::Header(header) => StreamEvent::Header(header),
            StreamResult::Foreign(link_type) => StreamEvent::Foreign { link_type },
            StreamResult::Packet { time, original_len, data, interface, options } => {
                let data = self.buffer.get(taken).and_then(|taken| taken.get(data));
                let data = data.unwrap_or_default();
                self.made = options;
                StreamEvent::Packet(StreamPacket {
                    time,
                    original_len,
                    data,
                    interface,
                    options: &self.made,
                })
            }
        }
    }

    /// Offset in the stream of the record or block that the last event was made of.
    #[must_use]
    pub const fn event_offset(&self) -> u64 {
        self.last
    }

    /// Returns `true` if it is known to be a pcapng stream.
    #[must_use]
    pub const fn is_pcapng(&self) -> bool {
        matches!(self.format, StreamFormat::Pcapng(_))
    }

    /// Bytes received of an incomplete header, record or block. They are lost if the stream ends
    /// here.
    #[must_use]
    pub fn finish(&self) -> u64 {
        let dropped = u64::from(self.skipping().map_or(0, |skipping| skipping.dropped));
        dropped.saturating_add(self.unread.len() as u64)
    }

    /// Resets the reader for another writer, which begins with a header of its own.
    pub fn reset(&mut self) {
        self.unread = 0..0;
        self.offset = 0;
        self.format = StreamFormat::Unknown;
        self.failed = None;
    }

    /// Searches the unread bytes for the beginning of a savefile, drops the bytes before it, and
    /// expects a file header next. Returns whether it found one. For a malformed stream: another
    /// writer may have come without a visible end of file in between.
    ///
    /// Bytes of a packet can look like a beginning, so do not call this for a well-formed stream.
    pub fn resume(&mut self) -> bool {
        let unread = self.buffer.get(self.unread.clone()).unwrap_or_default();
        // Not at the place of the error, where it would occur again.
        let mut at = usize::from(self.failed.is_some()).min(unread.len());
        let mut found = Some(false);
        // Bytes shorter than a magic number are kept until more arrive.
        while let Some(rest) = unread.get(at..).filter(|rest| rest.len() >= size_of::<u32>()) {
            found = begins_file(rest);
            if found != Some(false) {
                break;
            }
            at = at.saturating_add(1);
        }
        self.take(at);
        if found == Some(true) {
            self.offset = 0;
            self.format = StreamFormat::Unknown;
            self.failed = None;
        }
        found == Some(true)
    }

    const fn skipping(&self) -> Option<Skipping> {
        match &self.format {
            StreamFormat::Pcapng(section) => section.skipping,
            StreamFormat::Unknown | StreamFormat::Pcap(_) => None,
        }
    }

    /// Offset in the stream of the record or block that is being read.
    fn record_offset(&self) -> u64 {
        let dropped = u64::from(self.skipping().map_or(0, |skipping| skipping.dropped));
        self.offset.saturating_sub(dropped)
    }

    /// Drops `len` unread bytes. Returns their range in the buffer.
    fn take(&mut self, len: usize) -> Range<usize> {
        let start = self.unread.start;
        let end = start.saturating_add(len).min(self.unread.end);
        self.unread.start = end;
        self.offset = self.offset.saturating_add(len as u64);
        start..end
    }

    fn step(&mut self) -> Result<StreamStep, SavefileFault> {
        let unread = self.buffer.get(self.unread.clone()).unwrap_or_default();
        // One writer may leave and the next one come without a visible end of file between them. So
        // a file header where a record or block should begin starts another savefile. A section
        // header in a pcapng file is just its next section.
        if self.format.is_at_boundary() && !self.format.goes_on_with(unread) {
            match begins_file(unread) {
                Some(true) => self.format = StreamFormat::Unknown,
                Some(false) => {}
                None => return Ok(StreamStep::Wait),
            }
        }
        match &mut self.format {
            StreamFormat::Unknown => {
                let Some(magic) = unread.first_chunk() else {
                    return Ok(StreamStep::Wait);
                };
                if ByteOrder::NATIVE.u32(*magic) == pcapng::SECTION_HEADER {
                    self.format = StreamFormat::Pcapng(StreamSection::default());
                    return Ok(StreamStep::Skip { len: 0 });
                }
                pcap::magic_number(*magic).ok_or(SavefileFault::Magic(*magic))?;
                let Some(header) = unread.first_chunk() else {
                    return Ok(StreamStep::Wait);
                };
                let file = PcapHeader::parse(header)?;
                self.format = StreamFormat::Pcap(file);
                let PcapHeader { link_type, precision, snaplen, .. } = file;
                let found = StreamResult::Header(StoreHeader { link_type, precision, snaplen });
                Ok(StreamStep::Found { len: header.len(), found })
            }
            StreamFormat::Pcap(file) => {
                let Some((header, data)) = pcap::record(unread, file)? else {
                    return Ok(StreamStep::Wait);
                };
                let len = record::HEADER_LEN.saturating_add(data.len());
                let (time, original_len) = (header.time(file.precision), header.original_len);
                let (data, options) = (record::HEADER_LEN..len, Vec::new());
                let found =
                    StreamResult::Packet { time, original_len, data, interface: 0, options };
                Ok(StreamStep::Found { len, found })
            }
            StreamFormat::Pcapng(section) => section.step(unread),
        }
    }
}

impl StreamFormat {
    /// Returns `true` if the unread bytes begin where a record or block begins, and not the first
    /// one.
    const fn is_at_boundary(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Pcap(_) => true,
            Self::Pcapng(section) => section.order.is_some() && section.skipping.is_none(),
        }
    }

    /// Returns `true` if bytes that could begin another file here are part of this one.
    fn goes_on_with(&self, unread: &[u8]) -> bool {
        let section = || {
            unread.first_chunk().is_some_and(|kind: &[u8; 4]| {
                ByteOrder::NATIVE.u32(*kind) == pcapng::SECTION_HEADER
            })
        };
        matches!(self, Self::Pcapng(_)) && section()
    }
}

/// Returns whether a savefile begins here; `None` if more bytes are needed.
///
/// Taken as a record header, the header of a pcap file would be an empty packet of the year 2055 or
/// later, in one particular microsecond. The header of a pcapng file would be a packet of 1975 with
/// an impossible length.
fn begins_file(unread: &[u8]) -> Option<bool> {
    let Some(magic) = unread.first_chunk::<4>() else {
        return Some(false);
    };
    if ByteOrder::NATIVE.u32(*magic) == pcapng::SECTION_HEADER {
        let order: &[u8; 4] = unread.get(8..)?.first_chunk()?;
        let order = ByteOrder::NATIVE.u32(*order);
        return Some([0x1a2b_3c4d, 0x4d3c_2b1a].contains(&order));
    }
    if pcap::magic_number(*magic).is_none() {
        return Some(false);
    }
    let header = unread.first_chunk()?;
    // Zone and accuracy, which no program has ever set.
    Some(PcapHeader::parse(header).is_ok() && header.get(8..16) == Some(&[0; 8]))
}

impl StreamSection {
    fn step(&mut self, unread: &[u8]) -> Result<StreamStep, SavefileFault> {
        if let Some(skipping) = self.skipping {
            return self.skip(skipping, unread);
        }
        let Some(head) = BlockHead::parse(unread, self.order)? else {
            return Ok(StreamStep::Wait);
        };
        let is_kept = metadata::is_kept(head.block_type);
        if head.is_skipped() && !(is_kept && head.len <= metadata::MAX_BLOCK) {
            return self.skip(Skipping { head, dropped: 0 }, unread);
        }
        let len = head.len as usize;
        match Block::parse(&head, unread)? {
            None => Ok(StreamStep::Wait),
            Some(Block::Other) if is_kept => {
                let block = metadata::block(&head, unread, |id| {
                    let described = self.interfaces.get(usize::try_from(id).ok()?)?;
                    Some((id, described.clock))
                });
                Ok(StreamStep::Found { len, found: StreamResult::Kept(block) })
            }
            Some(Block::Other) => Ok(StreamStep::Skip { len }),
            Some(Block::Section) => {
                self.order = Some(head.order);
                self.interfaces.clear();
                let options = metadata::section(&head, unread).unwrap_or_default();
                Ok(StreamStep::Found { len, found: StreamResult::Section(options) })
            }
            Some(Block::Interface(block)) => {
                self.describe(&block)?;
                Ok(StreamStep::Found { len, found: StreamResult::Interface })
            }
            Some(Block::Packet(packet)) => self.packet(&packet, len),
        }
    }

    /// Drops the available part of a block, and its trailer if that has arrived.
    fn skip(&mut self, skipping: Skipping, unread: &[u8]) -> Result<StreamStep, SavefileFault> {
        let Skipping { head, dropped } = skipping;
        let before_trailer = head.len.saturating_sub(4).saturating_sub(dropped) as usize;
        if let Some(trailer) = unread.get(before_trailer..).and_then(<[u8]>::first_chunk) {
            head.check_trailer(*trailer)?;
            self.skipping = None;
            let len = before_trailer.saturating_add(4);
            return Ok(if metadata::is_kept(head.block_type) {
                StreamStep::Found { len, found: StreamResult::Kept(None) }
            } else {
                StreamStep::Skip { len }
            });
        }
        let len = unread.len().min(before_trailer);
        // `len` is less than the block's length, which fits.
        let dropped = dropped.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        self.skipping = Some(Skipping { head, dropped });
        Ok(if len == 0 { StreamStep::Wait } else { StreamStep::Skip { len } })
    }

    fn describe(&mut self, block: &InterfaceBlock<'_>) -> Result<(), SavefileFault> {
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(SavefileFault::TooManyInterfaces);
        }
        let (link_type, snaplen, clock) = (block.link_type, block.snaplen, block.clock()?);
        self.last = block.interface()?;
        self.interfaces.push(StreamInterface { link_type, snaplen, clock });
        Ok(())
    }

    fn packet(
        &mut self,
        packet: &PacketBlock<'_>,
        len: usize,
    ) -> Result<StreamStep, SavefileFault> {
        let interface = usize::try_from(packet.interface).ok();
        let Some(described) = interface.and_then(|id| self.interfaces.get(id)) else {
            let described = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
            return Err(SavefileFault::NoInterface { interface: packet.interface, described });
        };
        let data = packet.data(described.snaplen)?;
        let Some(link_type) = self.link_type else {
            let header = self.header(described.link_type);
            self.link_type = Some(header.link_type);
            // The packet itself comes with the next step.
            return Ok(StreamStep::Found { len: 0, found: StreamResult::Header(header) });
        };
        if described.link_type != link_type {
            return Ok(StreamStep::Found {
                len,
                found: StreamResult::Foreign(described.link_type),
            });
        }
        let time =
            packet.ticks.map_or_else(Timestamp::default, |ticks| described.clock.time(ticks));
        let start = packet.data_offset();
        let data = start..start.saturating_add(data.len());
        let raw = packet.options(data.len());
        let order = self.order.unwrap_or(ByteOrder::NATIVE);
        let found = StreamResult::Packet {
            time,
            original_len: packet.original_len,
            data,
            interface: packet.interface,
            options: metadata::options(raw, order, OptionsOwner::Packet),
        };
        Ok(StreamStep::Found { len, found })
    }

    /// The header of a stream whose first packet has this link type: it covers all interfaces of
    /// the link type described so far.
    fn header(&self, link_type: LinkType) -> StoreHeader {
        let same = self.interfaces.iter().filter(|described| described.link_type == link_type);
        let snaplen = same.map(|described| pcapng::effective_snaplen(described.snaplen)).max();
        let snaplen = snaplen.unwrap_or(super::DEFAULT_SNAPLEN);
        StoreHeader { link_type, precision: Precision::Nano, snaplen }
    }
}
