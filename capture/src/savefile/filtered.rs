//! A savefile on its way to a reader, without the packets that a filter leaves out.
//!
//! A program that passes a savefile on can filter it for its own reader, so that the process that
//! captures never runs an expression of a reader. Everything that is not a packet stays, in its
//! order. The reports about losses stay true: a comment of pcapfs on a packet that is left out
//! moves to the next packet, and the number of delivered packets in statistics is that of the
//! packets that passed.

use protocol::linktype::LinkType;

use super::order::ByteOrder;
use super::pcap::{self, FILE_HEADER_LEN, PcapHeader};
use super::pcapng::{
    self, Block, BlockHead, ENHANCED_PACKET, INTERFACE_STATISTICS, PacketBlock, option,
};
use super::{MAX_BLOCK_LEN, MAX_INTERFACES, SavefileFault};
use crate::filter::{Filter, FilterError};
use crate::record;

/// The beginning of the comments in which pcapfs says what is missing before a packet.
const OWN_COMMENT: &[u8] = b"pcapfs: ";

/// Maximum bytes of comments that wait for the next packet: hundreds of losses. The statistics
/// blocks have the losses whose comments are dropped.
const MAX_COMMENTS: usize = 32 << 10;

/// Bytes of a statistics block before its options: type and length, interface and time.
const STATISTICS_FIELDS: usize = 20;

/// Why a savefile cannot be filtered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilteredError {
    /// The bytes are no savefile.
    #[error(transparent)]
    Fault(#[from] SavefileFault),
    /// The expression cannot be used for packets of this savefile's link type.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// A savefile that passes through a filter, in pieces of any size. It keeps no more of it than one
/// record or block.
#[derive(Debug)]
pub struct FilteredSavefile {
    expression: String,
    /// One for each link type so far.
    filters: Vec<(LinkType, Filter)>,
    unread: Vec<u8>,
    format: FilteredFormat,
    /// Options of packets that were left out, for the next packet that passes.
    comments: Vec<u8>,
    /// Packets that passed.
    passed: u64,
}

#[derive(Debug)]
enum FilteredFormat {
    Unknown,
    Pcap(PcapHeader),
    /// The interfaces of the section: link type, and maximum bytes of a packet.
    Pcapng(ByteOrder, Vec<(LinkType, u32)>),
}

impl FilteredSavefile {
    /// Lets through the packets that match `expression`.
    ///
    /// # Errors
    /// [`FilterError`], as far as it can be known before the savefile states its link type.
    pub fn new(expression: &str) -> Result<Self, FilterError> {
        Filter::check(expression, crate::filter::Runner::Process)?;
        Ok(Self {
            expression: expression.to_owned(),
            filters: Vec::new(),
            unread: Vec::new(),
            format: FilteredFormat::Unknown,
            comments: Vec::new(),
            passed: 0,
        })
    }

    /// Takes the next bytes of the savefile, and appends to `out` what passes. `out` always holds
    /// whole records and blocks.
    ///
    /// # Errors
    /// [`FilteredError`]; nothing of the record or block with the error has been appended.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), FilteredError> {
        let mut unread = std::mem::take(&mut self.unread);
        unread.extend_from_slice(bytes);
        let mut at = 0_usize;
        while let Some(len) = self.step(unread.get(at..).unwrap_or_default(), out)? {
            at = at.saturating_add(len);
        }
        unread.drain(..at.min(unread.len()));
        self.unread = unread;
        Ok(())
    }

    /// Passes on or leaves out what is at the start of `bytes`. Returns its length; `None` if it is
    /// not complete.
    fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, FilteredError> {
        match &self.format {
            FilteredFormat::Unknown => self.begin(bytes, out),
            FilteredFormat::Pcap(file) => {
                let Some((header, data)) = pcap::record(bytes, file)? else { return Ok(None) };
                let len = record::HEADER_LEN.saturating_add(data.len());
                let link_type = file.link_type;
                if self.matches(link_type, header.original_len, data) {
                    self.passed = self.passed.saturating_add(1);
                    out.extend(bytes.get(..len).unwrap_or_default());
                }
                Ok(Some(len))
            }
            FilteredFormat::Pcapng(order, _) => {
                let order = *order;
                self.block(bytes, Some(order), out)
            }
        }
    }

    fn begin(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, FilteredError> {
        let Some(magic) = bytes.first_chunk::<4>() else { return Ok(None) };
        if ByteOrder::NATIVE.u32(*magic) == pcapng::SECTION_HEADER {
            return self.block(bytes, None, out);
        }
        pcap::magic_number(*magic).ok_or(SavefileFault::Magic(*magic))?;
        let Some(header) = bytes.first_chunk::<FILE_HEADER_LEN>() else { return Ok(None) };
        let file = PcapHeader::parse(header)?;
        self.compile(file.link_type)?;
        self.format = FilteredFormat::Pcap(file);
        out.extend(header);
        Ok(Some(header.len()))
    }

    fn block(
        &mut self,
        bytes: &[u8],
        order: Option<ByteOrder>,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, FilteredError> {
        let Some(head) = BlockHead::parse(bytes, order)? else { return Ok(None) };
        let BlockHead { block_type, len, order } = head;
        // Also blocks whose contents are not read are kept until they are complete.
        if len > MAX_BLOCK_LEN {
            return Err(SavefileFault::BlockTooLong { block_type, len }.into());
        }
        let Some(content) = Block::parse(&head, bytes)? else { return Ok(None) };
        let block = bytes.get(..len as usize).unwrap_or_default();
        match content {
            Block::Section => {
                self.format = FilteredFormat::Pcapng(order, Vec::new());
                out.extend(block);
            }
            Block::Interface(interface) => {
                self.compile(interface.link_type)?;
                if let FilteredFormat::Pcapng(_, interfaces) = &mut self.format {
                    if interfaces.len() >= MAX_INTERFACES {
                        return Err(SavefileFault::TooManyInterfaces.into());
                    }
                    interfaces.push((interface.link_type, interface.snaplen));
                }
                out.extend(block);
            }
            Block::Packet(packet) => self.packet(&head, block, &packet, out)?,
            Block::Other if block_type == INTERFACE_STATISTICS => {
                self.statistics(&head, block, out)
            }
            Block::Other => out.extend(block),
        }
        Ok(Some(block.len()))
    }

    fn packet(
        &mut self,
        head: &BlockHead,
        block: &[u8],
        packet: &PacketBlock<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), FilteredError> {
        let FilteredFormat::Pcapng(_, interfaces) = &self.format else { return Ok(()) };
        let index = usize::try_from(packet.interface).unwrap_or(usize::MAX);
        let Some((link_type, snaplen)) = interfaces.get(index).copied() else {
            let described = u32::try_from(interfaces.len()).unwrap_or(u32::MAX);
            let interface = packet.interface;
            return Err(SavefileFault::NoInterface { interface, described }.into());
        };
        let data = packet.data(snaplen)?;
        let options = packet.options(data.len());
        if !self.matches(link_type, packet.original_len, data) {
            self.keep_comments(head.order, options);
            return Ok(());
        }
        self.passed = self.passed.saturating_add(1);
        if self.comments.is_empty() || head.block_type != ENHANCED_PACKET {
            out.extend(block);
            return Ok(());
        }
        // The same block with more options, and therefore longer.
        let comments = std::mem::take(&mut self.comments);
        let own = whole_options(head.order, options);
        let before = block.len().saturating_sub(TRAILER_LEN).saturating_sub(options.len());
        let fields = block.get(FRAME_LEN..before).unwrap_or_default();
        let end = [0; 4];
        let parts = [fields, own, &comments, &end];
        let len =
            parts.iter().fold(FRAME_LEN + TRAILER_LEN, |sum, part| sum.saturating_add(part.len()));
        let len = number(head.order, u32::try_from(len).unwrap_or(u32::MAX));
        out.extend(block.get(..4).unwrap_or_default());
        out.extend(len);
        parts.iter().for_each(|part| out.extend(*part));
        out.extend(len);
        Ok(())
    }

    /// Keeps the comments of pcapfs among the options of a packet that is left out.
    fn keep_comments(&mut self, order: ByteOrder, options: &[u8]) {
        for (code, whole, value) in (EachOption { order, rest: options }) {
            let room = MAX_COMMENTS.saturating_sub(self.comments.len());
            if code == option::COMMENT && value.starts_with(OWN_COMMENT) && whole.len() <= room {
                self.comments.extend(whole);
            }
        }
    }

    /// Passes on statistics, with the number of packets that passed so far.
    fn statistics(&self, head: &BlockHead, block: &[u8], out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend(block);
        let options = block.get(STATISTICS_FIELDS..block.len().saturating_sub(TRAILER_LEN));
        let mut at = begin.saturating_add(STATISTICS_FIELDS);
        for (code, whole, value) in
            (EachOption { order: head.order, rest: options.unwrap_or_default() })
        {
            let place = at.saturating_add(OPTION_HEAD)..at.saturating_add(whole.len());
            if code == option::ISB_USRDELIV
                && value.len() == 8
                && let Some(place) = out.get_mut(place)
            {
                place.copy_from_slice(&match head.order {
                    ByteOrder::Little => self.passed.to_le_bytes(),
                    ByteOrder::Big => self.passed.to_be_bytes(),
                });
            }
            at = at.saturating_add(whole.len());
        }
    }

    /// Compiles the expression for packets of a link type, unless it has been compiled for it.
    fn compile(&mut self, link_type: LinkType) -> Result<(), FilterError> {
        if !self.filters.iter().any(|(known, _)| *known == link_type) {
            self.filters.push((link_type, Filter::compile(&self.expression, link_type)?));
        }
        Ok(())
    }

    /// Returns true if a packet matches; its link type has been compiled for.
    fn matches(&self, link_type: LinkType, original_len: u32, data: &[u8]) -> bool {
        let filter = self.filters.iter().find(|(known, _)| *known == link_type);
        filter.is_some_and(|(_, filter)| filter.matches(original_len, data))
    }
}

/// Bytes of type and length at the beginning of a block.
const FRAME_LEN: usize = 8;

/// Bytes of the length at its end.
const TRAILER_LEN: usize = 4;

/// Bytes of the code and length of an option.
const OPTION_HEAD: usize = 4;

fn number(order: ByteOrder, number: u32) -> [u8; 4] {
    match order {
        ByteOrder::Little => number.to_le_bytes(),
        ByteOrder::Big => number.to_be_bytes(),
    }
}

/// The options without their end.
fn whole_options(order: ByteOrder, options: &[u8]) -> &[u8] {
    let len = EachOption { order, rest: options }.map(|(_, whole, _)| whole.len()).sum();
    options.get(..len).unwrap_or_default()
}

/// The options of a block up to their end: code, the whole option with padding, and value. It ends
/// at an option that does not fit.
struct EachOption<'a> {
    order: ByteOrder,
    rest: &'a [u8],
}

impl<'a> Iterator for EachOption<'a> {
    type Item = (u16, &'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [c0, c1, l0, l1] = *self.rest.first_chunk()?;
        let (code, len) = (self.order.u16([c0, c1]), usize::from(self.order.u16([l0, l1])));
        if code == option::END {
            return None;
        }
        let value = self.rest.get(OPTION_HEAD..OPTION_HEAD.saturating_add(len))?;
        let padded = OPTION_HEAD.saturating_add(len.next_multiple_of(4));
        let (whole, rest) = self.rest.split_at_checked(padded)?;
        self.rest = rest;
        Some((code, whole, value))
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "numbers of the tests' own")]
mod tests {
    use std::net::SocketAddr;

    use frames::Format;
    use frames::pcapng::{COMMENT, STATISTICS, block, interface, options, packet, section};
    use proptest::prelude::*;

    use super::*;

    /// A datagram to this port.
    fn datagram(port: u16) -> Vec<u8> {
        let [from, to] = [([10, 0, 0, 1], 40_000), ([10, 0, 0, 2], port)].map(SocketAddr::from);
        let datagram = frames::udp(from, to, b"x");
        let packet = frames::ip(from.ip(), to.ip(), frames::UDP, &datagram);
        frames::ethernet(&[], frames::IPV4, &packet)
    }

    fn delivered(count: u64) -> Vec<u8> {
        let fixed = [0; 12];
        let option = options(&[(option::ISB_IFRECV, &[9; 8]), (8, &count.to_le_bytes())]);
        block(STATISTICS, &[&fixed[..], &option].concat())
    }

    fn filtered(expression: &str, bytes: &[u8], piece: usize) -> Result<Vec<u8>, FilteredError> {
        let mut savefile = FilteredSavefile::new(expression)?;
        let mut out = Vec::new();
        for piece in bytes.chunks(piece) {
            savefile.push(piece, &mut out)?;
        }
        Ok(out)
    }

    /// A pcapng with packets to these ports; each has a comment if its port is odd.
    fn talkative(ports: &[u16], comment: &[u8]) -> Vec<u8> {
        let mut bytes = [section(&[]), interface(1, 0, &[]), interface(101, 0, &[])].concat();
        for port in ports {
            let data = datagram(*port);
            let with: &[(u16, &[u8])] = if port % 2 == 1 { &[(COMMENT, comment)] } else { &[] };
            bytes.extend(packet(0, 5, &data, data.len(), with));
            // Without an Ethernet header.
            bytes.extend(packet(1, 6, &data[14..], data.len() - 14, &[]));
        }
        bytes.extend(delivered(2 * ports.len() as u64));
        bytes
    }

    #[test]
    fn packets_that_match_pass_with_all_that_is_no_packet() {
        for big_endian in [false, true] {
            let format = Format { big_endian, ..Format::default() };
            let all = |ports: &[u16]| {
                let mut bytes = format.header();
                for port in ports {
                    format.append(&mut bytes, 7, &datagram(*port), 1000);
                }
                bytes
            };
            let out = filtered("udp port 53", &all(&[53, 80, 53, 81]), 13).unwrap();
            assert_eq!(out, all(&[53, 53]));
            let out = filtered("greater 900", &all(&[53, 80]), 999).unwrap();
            assert_eq!(out, all(&[53, 80]), "the length is that on the wire");
        }
        let out = filtered("udp port 53", &talkative(&[80, 53, 80, 54], b"of a user"), 64).unwrap();
        let wanted = talkative(&[53], b"of a user");
        assert_eq!(out, wanted);
    }

    #[test]
    fn what_is_said_about_losses_is_not_left_out() {
        let all = talkative(&[81, 83, 54], b"pcapfs: 7 packets lost before this one");
        let out = filtered("udp port 54", &all, 10).unwrap();
        let comment = (COMMENT, &b"pcapfs: 7 packets lost before this one"[..]);
        let data = datagram(54);
        let wanted = [
            section(&[]),
            interface(1, 0, &[]),
            interface(101, 0, &[]),
            packet(0, 5, &data, data.len(), &[comment, comment]),
            packet(1, 6, &data[14..], data.len() - 14, &[]),
            delivered(2),
        ];
        assert_eq!(out, wanted.concat());
    }

    #[test]
    fn what_cannot_be_filtered_is_an_error() {
        let compile = filtered("udp prt 53", &[], 1).unwrap_err().to_string();
        assert!(compile.contains("'udp prt 53' does not compile"), "{compile}");
        let link = [section(&[]), interface(101, 0, &[])].concat();
        let link = filtered("ether host 2:0:0:0:0:1", &link, 9).unwrap_err().to_string();
        assert!(link.contains("does not compile"), "{link}");
        let no_interface = [section(&[]), packet(3, 0, &[], 0, &[])].concat();
        assert!(filtered("udp", &no_interface, 9).is_err());
        assert!(filtered("udp", b"GET / HTTP/1.1", 9).is_err());
        let endless =
            [section(&[]), [99_u32.to_le_bytes(), 0x7fff_fff0_u32.to_le_bytes()].concat()];
        let endless = [endless.concat(), vec![0; 8]].concat();
        assert!(filtered("udp", &endless, 9).is_err(), "a block that would never be complete");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference_and_nothing_panics(
            piece in 1..200_usize,
            at in 0..2000_usize,
            wrong: u8,
        ) {
            let mut all = talkative(&[81, 53, 83, 54, 53], b"pcapfs: 1 packets lost");
            let whole = filtered("udp port 53", &all, all.len()).unwrap();
            prop_assert_eq!(&filtered("udp port 53", &all, piece).unwrap(), &whole);
            let at = at % all.len();
            all[at] = wrong;
            let _ = filtered("udp port 53", &all, piece);
        }
    }
}
