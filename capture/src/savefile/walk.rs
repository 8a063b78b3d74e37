//! The walk over a mapped savefile that probing, indexing and converting share.

use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

use super::SavefileFault;
use super::metadata::{self, OptionsOwner};
use super::order::ByteOrder;
use super::pcap::{self, Lengths, PcapHeader};
use super::pcapng::{self, Block, BlockHead, Clock, InterfaceBlock, PacketBlock};
use super::pcapng_writer::interface_description_len;
use crate::record;
use crate::store::RecordInterface;

/// The format of a file, with the properties in its header.
#[derive(Clone, Copy, Debug)]
pub(super) enum FileFormat {
    Pcap(PcapHeader),
    Pcapng,
}

impl FileFormat {
    /// The precision in which its packets are served.
    pub(super) const fn precision(&self) -> Precision {
        match self {
            Self::Pcap(file) => file.precision,
            Self::Pcapng => Precision::Nano,
        }
    }

    /// Returns `true` if its records are served exactly as they are in the file.
    pub(super) fn is_native(&self) -> bool {
        matches!(self, Self::Pcap(file)
            if file.order == ByteOrder::NATIVE && file.lengths == Lengths::Captured)
    }

    /// Place of its first record or block.
    pub(super) const fn start(&self) -> WalkPlace {
        let offset = match self {
            Self::Pcap(_) => pcap::FILE_HEADER_LEN,
            Self::Pcapng => 0,
        };
        WalkPlace { offset, order: None, section: 0, described: 0 }
    }
}

/// An interface described in a pcapng file. All interfaces of a file, of any section and link type,
/// are in one table in the order of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileInterface {
    /// Offset of its block; its texts are read from there on demand.
    pub(super) offset: usize,
    pub(super) order: ByteOrder,
    pub(super) link_type: LinkType,
    pub(super) snaplen: u32,
    pub(super) clock: Clock,
    /// Bytes of the description that readers get of it.
    pub(super) description_len: u64,
}

impl FileInterface {
    pub(super) fn new(block: &InterfaceBlock<'_>, at: WalkPlace) -> Result<Self, SavefileFault> {
        Ok(Self {
            offset: at.offset,
            order: at.order.unwrap_or(ByteOrder::NATIVE),
            link_type: block.link_type,
            snaplen: block.snaplen,
            clock: block.clock()?,
            description_len: interface_description_len(&block.interface()?),
        })
    }
}

/// A place between two records or blocks, with the state needed to continue from there.
#[derive(Clone, Copy, Debug)]
pub(super) struct WalkPlace {
    /// Bytes before it.
    pub(super) offset: usize,
    /// Byte order of the section; `None` before the first, and in a pcap file.
    order: Option<ByteOrder>,
    /// Interfaces described in all earlier sections, which is the index of this section's interface
    /// 0.
    section: u32,
    /// Interfaces described so far: `section <= described`.
    pub(super) described: u32,
}

/// The result of a step. The place is after it, except for [`WalkResult::End`].
#[derive(Debug)]
pub(super) enum WalkResult<'a> {
    Packet(FilePacket<'a>),
    /// An interface description; the caller must call [`WalkPlace::describe`].
    Interface(InterfaceBlock<'a>),
    /// A block that is kept for readers of pcapng, and its bytes.
    Kept(BlockHead, &'a [u8]),
    /// A section other than the first begins; its comments, as options of a packet.
    Section(Vec<u8>),
    /// Any other block.
    Other,
    /// The bytes end here, or inside the record or block here.
    End,
}

/// A packet, with its time in the precision in which it is served.
#[derive(Debug)]
pub(super) struct FilePacket<'a> {
    pub(super) seconds: u32,
    pub(super) fraction: u32,
    pub(super) original_len: u32,
    pub(super) data: &'a [u8],
    pub(super) link_type: LinkType,
    pub(super) interface: RecordInterface,
    /// Its options as in the file, and their byte order.
    pub(super) options: (&'a [u8], ByteOrder),
}

impl FilePacket<'_> {
    /// The options that are kept.
    pub(super) fn kept_options(&self) -> Vec<u8> {
        let (raw, order) = self.options;
        if raw.is_empty() {
            Vec::new()
        } else {
            metadata::options(raw, order, OptionsOwner::Packet)
        }
    }
}

impl WalkPlace {
    /// Reads one record or block. `table` must hold at least the interfaces described so far.
    ///
    /// # Errors
    /// The fault; the place does not move then.
    #[inline]
    pub(super) fn step<'a>(
        &mut self,
        bytes: &'a [u8],
        format: &FileFormat,
        table: &[FileInterface],
    ) -> Result<WalkResult<'a>, SavefileFault> {
        let rest = bytes.get(self.offset..).unwrap_or_default();
        match format {
            FileFormat::Pcap(file) => {
                let Some((header, data)) = pcap::record(rest, file)? else {
                    return Ok(WalkResult::End);
                };
                self.advance(record::HEADER_LEN.saturating_add(data.len()));
                Ok(WalkResult::Packet(FilePacket {
                    seconds: header.seconds,
                    fraction: header.fraction,
                    original_len: header.original_len,
                    data,
                    link_type: file.link_type,
                    interface: RecordInterface { id: 0, known: 1 },
                    options: (&[], file.order),
                }))
            }
            FileFormat::Pcapng => self.block(rest, table),
        }
    }

    fn block<'a>(
        &mut self,
        rest: &'a [u8],
        table: &[FileInterface],
    ) -> Result<WalkResult<'a>, SavefileFault> {
        let Some(head) = BlockHead::parse(rest, self.order)? else {
            return Ok(WalkResult::End);
        };
        let Some(block) = Block::parse(&head, rest)? else {
            return Ok(WalkResult::End);
        };
        let found = match block {
            Block::Section => {
                let is_first = self.order.replace(head.order).is_none();
                self.section = self.described;
                if is_first {
                    WalkResult::Other
                } else {
                    WalkResult::Section(comments_on(&head, rest))
                }
            }
            Block::Interface(block) => WalkResult::Interface(block),
            Block::Packet(block) => self.packet(&block, table)?,
            Block::Other if metadata::is_kept(head.block_type) => {
                WalkResult::Kept(head, rest.get(..head.len as usize).unwrap_or_default())
            }
            Block::Other => WalkResult::Other,
        };
        self.advance(head.len as usize);
        Ok(found)
    }

    /// A block of [`WalkResult::Kept`] in the form for readers; `None` if it is left out.
    pub(super) fn kept(
        &self,
        head: &BlockHead,
        bytes: &[u8],
        table: &[FileInterface],
    ) -> Option<Vec<u8>> {
        metadata::block(head, bytes, |index| {
            let id = self.section.checked_add(index).filter(|id| *id < self.described)?;
            Some((id, table.get(id as usize)?.clock))
        })
    }

    /// Counts an interface that has just been found.
    pub(super) const fn describe(&mut self) {
        self.described = self.described.saturating_add(1);
    }

    #[inline]
    fn packet<'a>(
        &self,
        block: &PacketBlock<'a>,
        table: &[FileInterface],
    ) -> Result<WalkResult<'a>, SavefileFault> {
        let index = self.section.checked_add(block.interface);
        let index = index.filter(|index| *index < self.described);
        let found = index.and_then(|id| Some((id, table.get(id as usize)?)));
        let Some((id, interface)) = found else {
            let described = self.described.saturating_sub(self.section);
            return Err(SavefileFault::NoInterface { interface: block.interface, described });
        };
        let data = block.data(interface.snaplen)?;
        let time = block.ticks.map_or_else(Timestamp::default, |ticks| interface.clock.time(ticks));
        let (seconds, fraction) = time.to_parts(Precision::Nano);
        Ok(WalkResult::Packet(FilePacket {
            seconds,
            fraction,
            original_len: block.original_len,
            data,
            link_type: interface.link_type,
            interface: RecordInterface { id, known: self.described },
            options: (block.options(data.len()), self.order.unwrap_or(ByteOrder::NATIVE)),
        }))
    }

    #[inline]
    const fn advance(&mut self, len: usize) {
        self.offset = self.offset.saturating_add(len);
    }
}

/// An interface as its block describes it.
pub(super) fn interface(
    bytes: &[u8],
    described: &FileInterface,
) -> Option<crate::store::Interface> {
    let block = bytes.get(described.offset..)?;
    let head = BlockHead::parse(block, Some(described.order)).ok()??;
    match Block::parse(&head, block).ok()?? {
        Block::Interface(block) => block.interface().ok(),
        _ => None,
    }
}

/// The maximum snapshot length of the described interfaces of this link type.
pub(super) fn snaplen(table: &[FileInterface], link_type: LinkType) -> u32 {
    let same = table.iter().filter(|described| described.link_type == link_type);
    let snaplens = same.map(|described| pcapng::effective_snaplen(described.snaplen));
    snaplens.max().unwrap_or(super::DEFAULT_SNAPLEN)
}

/// The comments on a section, from its block.
fn comments_on(head: &BlockHead, bytes: &[u8]) -> Vec<u8> {
    metadata::section(head, bytes).map(|options| metadata::comments(&options)).unwrap_or_default()
}

/// The kept options of the file's first section.
pub(super) fn section_options(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = BlockHead::parse(bytes, None).ok()??;
    metadata::section(&head, bytes)
}
