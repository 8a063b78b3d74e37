//! The layout of pcapng savefiles.
//!
//! A file is a sequence of blocks: type, total length, body, total length again, everything padded
//! to four bytes. A section header starts a new section with its own byte order and its own
//! interfaces. An interface description adds interface 0, 1, ... of its section, and packets refer
//! to these numbers. Blocks of unknown type are skipped.
//!
//! Source: draft-ietf-opsawg-pcapng; libpcap `sf-pcapng.c` for deviations accepted in practice.

use protocol::linktype::LinkType;

pub use super::clock::Clock;
use super::clock::Unit;
use super::order::{ByteOrder, Fields};
use super::{DEFAULT_SNAPLEN, MAX_BLOCK_LEN, MAX_CAPTURED_LEN, SavefileFault};
use crate::store::Interface;

/// Section header block; reads the same in both byte orders.
pub const SECTION_HEADER: u32 = 0x0a0d_0d0a;
/// Interface description block.
pub const INTERFACE_DESCRIPTION: u32 = 1;
/// Packet block, obsolete: an enhanced packet block with 16-bit interface and drop count.
pub const OBSOLETE_PACKET: u32 = 2;
/// Simple packet block: interface 0, no time.
pub const SIMPLE_PACKET: u32 = 3;
/// Interface statistics block.
pub const INTERFACE_STATISTICS: u32 = 5;
/// Enhanced packet block.
pub const ENHANCED_PACKET: u32 = 6;

/// The value of a section header's byte order magic when read in the right order.
pub const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Bytes needed to find the length of any block, and the length of the shortest block.
pub const HEAD_LEN: usize = 12;

/// Option codes that this crate reads or writes.
pub mod option {
    /// Ends a list of options.
    pub const END: u16 = 0;
    /// A comment, in any block.
    pub const COMMENT: u16 = 1;
    /// `shb_userappl`: the program that wrote the section.
    pub const USER_APPLICATION: u16 = 4;
    /// `if_name`.
    pub const IF_NAME: u16 = 2;
    /// `if_description`.
    pub const IF_DESCRIPTION: u16 = 3;
    /// `if_tsresol`: unit of the interface's time stamps.
    pub const IF_TSRESOL: u16 = 9;
    /// `if_filter`: one byte, 0 for an expression, and the filter.
    pub const IF_FILTER: u16 = 11;
    /// `if_tsoffset`: seconds to add to the interface's time stamps.
    pub const IF_TSOFFSET: u16 = 14;
    /// `isb_starttime`.
    pub const ISB_STARTTIME: u16 = 2;
    /// `isb_endtime`.
    pub const ISB_ENDTIME: u16 = 3;
    /// `isb_ifrecv`: packets received.
    pub const ISB_IFRECV: u16 = 4;
    /// `isb_ifdrop`: packets the interface dropped for lack of resources.
    pub const ISB_IFDROP: u16 = 5;
    /// `isb_osdrop`: packets the operating system dropped.
    pub const ISB_OSDROP: u16 = 7;
    /// `isb_usrdeliv`: packets delivered to the user.
    pub const ISB_USRDELIV: u16 = 8;
}

/// Type and length of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHead {
    /// Type of the block.
    pub block_type: u32,
    /// Bytes of the whole block: a multiple of 4, at least 12.
    pub len: u32,
    /// Byte order of the block, and of all blocks up to the next section header.
    pub order: ByteOrder,
}

impl BlockHead {
    /// The head of the block at the start of `bytes`, which belongs to a section in `order`.
    /// Without a section yet, only a section header is accepted. `None` if there are fewer than
    /// [`HEAD_LEN`] bytes.
    ///
    /// # Errors
    /// A fault in the block's length or in a section header's magic numbers.
    #[inline]
    pub fn parse(bytes: &[u8], order: Option<ByteOrder>) -> Result<Option<Self>, SavefileFault> {
        let Some(head) = bytes.first_chunk::<HEAD_LEN>() else {
            return Ok(None);
        };
        let [t0, t1, t2, t3, .., m0, m1, m2, m3] = *head;
        let block_type = ByteOrder::NATIVE.u32([t0, t1, t2, t3]);
        let order = match order {
            _ if block_type == SECTION_HEADER => section_order([m0, m1, m2, m3])?,
            Some(order) => order,
            None => return Err(SavefileFault::Magic([t0, t1, t2, t3])),
        };
        let [block_type, len, _] = order.words(head);
        let (shortest, read) = shortest(block_type);
        if len < shortest || len % 4 != 0 {
            return Err(SavefileFault::BlockLength { block_type, len });
        }
        if read && len > MAX_BLOCK_LEN {
            return Err(SavefileFault::BlockTooLong { block_type, len });
        }
        Ok(Some(Self { block_type, len, order }))
    }

    /// Returns `true` if [`Block::parse`] ignores the contents, so that they need not be present.
    #[must_use]
    pub const fn is_skipped(&self) -> bool {
        !shortest(self.block_type).1
    }

    /// Compares the length at the end of the block with the one at its beginning.
    ///
    /// # Errors
    /// [`SavefileFault::BlockTrailer`] if they differ.
    #[inline]
    pub fn check_trailer(&self, trailer: [u8; 4]) -> Result<(), SavefileFault> {
        let (block_type, head, tail) = (self.block_type, self.len, self.order.u32(trailer));
        if head == tail {
            Ok(())
        } else {
            Err(SavefileFault::BlockTrailer { block_type, head, tail })
        }
    }
}

/// Length of the shortest block of a type, and whether its contents are read.
const fn shortest(block_type: u32) -> (u32, bool) {
    match block_type {
        SECTION_HEADER => (28, true),
        INTERFACE_DESCRIPTION => (20, true),
        OBSOLETE_PACKET | ENHANCED_PACKET => (32, true),
        SIMPLE_PACKET => (16, true),
        _ => (12, false),
    }
}

/// The byte order of a section from its byte order magic.
fn section_order(magic: [u8; 4]) -> Result<ByteOrder, SavefileFault> {
    [ByteOrder::Little, ByteOrder::Big]
        .into_iter()
        .find(|order| order.u32(magic) == BYTE_ORDER_MAGIC)
        .ok_or_else(|| SavefileFault::ByteOrderMagic(ByteOrder::NATIVE.u32(magic)))
}

/// The contents of a block.
#[derive(Clone, Debug)]
pub enum Block<'a> {
    /// A section begins; interfaces are numbered from 0 again.
    Section,
    /// One more interface of the section.
    Interface(InterfaceBlock<'a>),
    /// A packet.
    Packet(PacketBlock<'a>),
    /// A block that is not read here.
    Other,
}

impl<'a> Block<'a> {
    /// Parses the block at the start of `bytes`. `None` if `bytes` ends inside it.
    ///
    /// # Errors
    /// Any fault in it, except that the options of an interface are not read yet.
    #[inline]
    pub fn parse(head: &BlockHead, bytes: &'a [u8]) -> Result<Option<Self>, SavefileFault> {
        let Some(block) = bytes.get(..head.len as usize) else {
            return Ok(None);
        };
        let Some((block, trailer)) = block.split_last_chunk() else {
            return Ok(None);
        };
        head.check_trailer(*trailer)?;
        let body = Fields::new(block.get(8..).unwrap_or_default(), head.order);
        let too_short =
            || SavefileFault::BlockLength { block_type: head.block_type, len: head.len };
        match head.block_type {
            SECTION_HEADER => {
                let (major, minor) = section_version(body).ok_or_else(too_short)?;
                // Some programs write minor version 2 by mistake for 0 (draft, section 4.1).
                match (major, minor) {
                    (1, 0 | 2) => Ok(Some(Self::Section)),
                    _ => Err(SavefileFault::Version { format: "pcapng", major, minor }),
                }
            }
            INTERFACE_DESCRIPTION => {
                let interface = InterfaceBlock::parse(body).ok_or_else(too_short)?;
                Ok(Some(Self::Interface(interface)))
            }
            ENHANCED_PACKET | OBSOLETE_PACKET | SIMPLE_PACKET => {
                let packet = PacketBlock::parse(head.block_type, body).ok_or_else(too_short)?;
                Ok(Some(Self::Packet(packet)))
            }
            _ => Ok(Some(Self::Other)),
        }
    }
}

fn section_version(mut body: Fields<'_>) -> Option<(u16, u16)> {
    let _magic = body.u32()?;
    Some((body.u16()?, body.u16()?))
}

/// An interface description block.
#[derive(Clone, Debug)]
pub struct InterfaceBlock<'a> {
    /// Link type of the interface's packets.
    pub link_type: LinkType,
    /// Maximum bytes kept of one packet; 0 for no limit.
    pub snaplen: u32,
    options: Fields<'a>,
}

impl<'a> InterfaceBlock<'a> {
    fn parse(mut body: Fields<'a>) -> Option<Self> {
        let (link_type, _reserved, snaplen) = (LinkType(body.u16()?), body.u16()?, body.u32()?);
        Some(Self { link_type, snaplen, options: body })
    }

    /// The meaning of the interface's time stamps.
    ///
    /// # Errors
    /// [`SavefileFault::BadOption`]
    pub fn clock(&self) -> Result<Clock, SavefileFault> {
        let mut clock = Clock::default();
        self.each_option(|code, value| match code {
            option::IF_TSRESOL => {
                value.first().map(|resolution| clock.unit = Unit::parse(*resolution))
            }
            option::IF_TSOFFSET => {
                value.first_chunk().map(|seconds| clock.offset = self.options_order().i64(*seconds))
            }
            _ => Some(()),
        })?;
        Ok(clock)
    }

    /// The interface as the block describes it.
    ///
    /// Bytes that are not UTF-8 are replaced. NULs that some writers add after a text are removed.
    ///
    /// # Errors
    /// [`SavefileFault::BadOption`]
    pub fn interface(&self) -> Result<Interface, SavefileFault> {
        let (snaplen, link_type) = (self.snaplen, Some(self.link_type));
        let mut interface = Interface { snaplen, link_type, ..Interface::default() };
        self.each_option(|code, value| {
            match (code, value) {
                (option::IF_NAME, name) => interface.name = Some(text(name)),
                (option::IF_DESCRIPTION, description) => {
                    interface.description = Some(text(description));
                }
                (option::IF_FILTER, [0, expression @ ..]) => {
                    interface.filter = Some(text(expression));
                }
                _ => {}
            }
            Some(())
        })?;
        Ok(interface)
    }

    const fn options_order(&self) -> ByteOrder {
        self.options.order()
    }

    /// Calls `read` with each option's code and value. `read` returns `None` if the value is too
    /// short.
    fn each_option(
        &self,
        mut read: impl FnMut(u16, &'a [u8]) -> Option<()>,
    ) -> Result<(), SavefileFault> {
        let mut options = self.options.clone();
        while let (Some(code), Some(len)) = (options.u16(), options.u16()) {
            if code == option::END {
                break;
            }
            let bad = || SavefileFault::BadOption { code, len };
            let value = options.padded(usize::from(len)).ok_or_else(bad)?;
            read(code, value).ok_or_else(bad)?;
        }
        Ok(())
    }
}

/// The snapshot length in an interface description, or [`DEFAULT_SNAPLEN`] if it has none.
#[must_use]
pub const fn effective_snaplen(snaplen: u32) -> u32 {
    if snaplen == 0 { DEFAULT_SNAPLEN } else { snaplen }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// A packet block of any of the three types.
#[derive(Clone, Debug)]
pub struct PacketBlock<'a> {
    /// Interface of the packet, counted from 0 in its section.
    pub interface: u32,
    /// Time in units of the interface's [`Clock`]; `None` if the block has none.
    pub ticks: Option<u64>,
    /// Length of the packet on the wire, in bytes.
    pub original_len: u32,
    captured_len: Option<u32>,
    /// The data, its padding and the options.
    room: &'a [u8],
}

impl<'a> PacketBlock<'a> {
    #[inline]
    fn parse(block_type: u32, mut body: Fields<'a>) -> Option<Self> {
        let interface = match block_type {
            ENHANCED_PACKET => body.u32()?,
            OBSOLETE_PACKET => {
                let (interface, _drops) = (body.u16()?, body.u16()?);
                u32::from(interface)
            }
            _ => {
                let original_len = body.u32()?;
                let room = body.rest();
                return Some(Self {
                    interface: 0,
                    ticks: None,
                    original_len,
                    captured_len: None,
                    room,
                });
            }
        };
        let (high, low) = (body.u32()?, body.u32()?);
        let (captured_len, original_len) = (Some(body.u32()?), body.u32()?);
        let ticks = Some(u64::from(high) << 32 | u64::from(low));
        Some(Self { interface, ticks, original_len, captured_len, room: body.rest() })
    }

    /// Offset of the data in the block.
    #[must_use]
    pub const fn data_offset(&self) -> usize {
        if self.ticks.is_none() { 12 } else { 28 }
    }

    /// The captured bytes. For a simple packet block their number follows from the `snaplen` of its
    /// interface (0 for no limit); other blocks ignore `snaplen`.
    ///
    /// # Errors
    /// [`SavefileFault::PacketPastBlock`] if the block has fewer bytes.
    #[inline]
    pub fn data(&self, snaplen: u32) -> Result<&'a [u8], SavefileFault> {
        let captured_len = self.captured_len.unwrap_or_else(|| {
            if snaplen == 0 { self.original_len } else { self.original_len.min(snaplen) }
        });
        if captured_len > MAX_CAPTURED_LEN {
            return Err(SavefileFault::PacketTooLong { captured_len });
        }
        let room = self.room.len();
        self.room
            .get(..captured_len as usize)
            .ok_or(SavefileFault::PacketPastBlock { captured_len, room })
    }

    /// The options, which follow `captured_len` captured bytes; a simple packet block has none.
    #[must_use]
    pub fn options(&self, captured_len: usize) -> &'a [u8] {
        if self.ticks.is_none() {
            return &[];
        }
        let behind = captured_len.checked_next_multiple_of(4);
        behind.and_then(|behind| self.room.get(behind..)).unwrap_or_default()
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "numbers of the tests' own")]
mod tests {
    use super::*;

    fn block(order: ByteOrder, block_type: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 12).unwrap();
        let number = |value: u32| match order {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        };
        [&number(block_type), &number(len), body, &number(len)].concat()
    }

    #[test]
    fn heads_are_checked_before_anything_else() {
        let first = |bytes: &[u8]| BlockHead::parse(bytes, None).unwrap_err();
        assert_eq!(first(b"%PDF-1.7 etc."), SavefileFault::Magic(*b"%PDF"));
        let section = |magic: u32| {
            block(ByteOrder::NATIVE, SECTION_HEADER, &[&magic.to_ne_bytes()[..], &[0; 12]].concat())
        };
        assert_eq!(first(&section(7)), SavefileFault::ByteOrderMagic(7));
        let head = BlockHead::parse(&section(BYTE_ORDER_MAGIC), None).unwrap().unwrap();
        assert_eq!((head.order, head.len), (ByteOrder::NATIVE, 28));

        let order = Some(ByteOrder::Big);
        for (len, block_type) in [(8, 99), (14, 99), (16, 1), (28, 6), (12, 3), (0, 0)] {
            let bytes = [u32::to_be_bytes(block_type), u32::to_be_bytes(len), [0; 4]].concat();
            let fault = BlockHead::parse(&bytes, order).unwrap_err();
            assert_eq!(fault, SavefileFault::BlockLength { block_type, len });
        }
        for (len, block_type, fits) in [(u32::MAX - 3, 99, true), (MAX_BLOCK_LEN + 4, 6, false)] {
            let bytes = [u32::to_be_bytes(block_type), u32::to_be_bytes(len), [0; 4]].concat();
            assert_eq!(BlockHead::parse(&bytes, order).is_ok(), fits);
        }
    }

    #[test]
    fn a_trailing_length_must_agree() {
        let mut bytes = block(ByteOrder::Big, 99, b"abcd");
        let head = BlockHead::parse(&bytes, Some(ByteOrder::Big)).unwrap().unwrap();
        assert!(matches!(Block::parse(&head, &bytes), Ok(Some(Block::Other))));
        assert!(matches!(Block::parse(&head, &bytes[..15]), Ok(None)));
        bytes[15] = 20;
        let fault = Block::parse(&head, &bytes).unwrap_err();
        assert_eq!(fault, SavefileFault::BlockTrailer { block_type: 99, head: 16, tail: 20 });
    }

    #[test]
    fn interface_options_are_read_and_bounded() {
        let mut body = vec![0, 1, 0, 0, 0, 0, 0, 0];
        body.extend([0, 2, 0, 4]);
        body.extend(b"eth0");
        body.extend([0, 3, 0, 2, b'a', 0, 0, 0]);
        body.extend([0, 11, 0, 5, 0, b't', b'c', b'p', 0, 0, 0, 0]);
        body.extend([0, 11, 0, 5, 1, 9, 9, 9, 9, 0, 0, 0]);
        body.extend([0, 9, 0, 1, 9, 0, 0, 0]);
        body.extend([0, 0, 0, 0, 0, 9, 0, 1, 6, 0, 0, 0]);
        let parse = |body: &[u8]| {
            let bytes = block(ByteOrder::Big, INTERFACE_DESCRIPTION, body);
            let head = BlockHead::parse(&bytes, Some(ByteOrder::Big)).unwrap().unwrap();
            match Block::parse(&head, &bytes).unwrap().unwrap() {
                Block::Interface(block) => (
                    block.link_type,
                    effective_snaplen(block.snaplen),
                    block.interface(),
                    block.clock(),
                ),
                other => panic!("{other:?}"),
            }
        };
        let (link_type, snaplen, interface, clock) = parse(&body);
        assert_eq!((link_type, snaplen), (LinkType::ETHERNET, DEFAULT_SNAPLEN));
        let interface = interface.unwrap();
        assert_eq!(interface.name.as_deref(), Some("eth0"));
        assert_eq!(interface.description.as_deref(), Some("a"));
        assert_eq!(interface.filter.as_deref(), Some("tcp"));
        assert_eq!(clock.unwrap().time(7).nanoseconds(), 7);

        body[11] = 200;
        let (.., interface, clock) = parse(&body);
        assert_eq!(interface, Err(SavefileFault::BadOption { code: 2, len: 200 }));
        assert_eq!(clock, Err(SavefileFault::BadOption { code: 2, len: 200 }));
    }

    #[test]
    fn packet_data_stays_in_its_block() {
        let packet = |captured_len: u32| {
            let mut body = vec![0; 12];
            body.extend(captured_len.to_be_bytes());
            body.extend(1_500_u32.to_be_bytes());
            body.extend(b"abc\0");
            let bytes = block(ByteOrder::Big, ENHANCED_PACKET, &body);
            let head = BlockHead::parse(&bytes, Some(ByteOrder::Big)).unwrap().unwrap();
            match Block::parse(&head, &bytes).unwrap().unwrap() {
                Block::Packet(packet) => packet.data(0).map(<[u8]>::to_vec),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(packet(3).unwrap(), b"abc");
        assert_eq!(packet(5), Err(SavefileFault::PacketPastBlock { captured_len: 5, room: 4 }));
        assert_eq!(packet(u32::MAX), Err(SavefileFault::PacketTooLong { captured_len: u32::MAX }));
    }
}
