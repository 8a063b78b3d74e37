//! Blocks for readers of `.pcapng` files, appended to a buffer in this machine's byte order.
//!
//! Sizes of files are known before they are written: [`enhanced_packet_len`] and
//! [`interface_description_len`] return the exact lengths that the matching functions append.
//!
//! Source: draft-ietf-opsawg-pcapng.
#![expect(clippy::arithmetic_side_effects, reason = "lengths of blocks that this process makes")]

use protocol::time::{Precision, Timestamp};

use super::pcapng::{
    BYTE_ORDER_MAGIC, ENHANCED_PACKET, INTERFACE_DESCRIPTION, INTERFACE_STATISTICS, SECTION_HEADER,
    option,
};
use crate::store::{Interface, NoteRef, StoreHeader};

/// Head and trailer of a block, as far as its length includes them.
const FRAME_LEN: u64 = 12;

/// Bytes of an enhanced packet block without its data: the fields before the data, and the trailer.
const ENHANCED_PACKET_FIXED_LEN: u64 = FRAME_LEN + 20;

/// Maximum bytes of data in one block: the length of the block, with a comment, must fit 32 bits.
///
/// No store has packets anywhere near this size.
const MAX_DATA_LEN: u32 = u32::MAX - (1 << 20);

/// Appends the section header at the beginning of a file, with `options` before the option that
/// names this program. The length of the section is left unspecified.
pub fn section_header(out: &mut Vec<u8>, options: &[u8]) {
    block(out, SECTION_HEADER, |out| {
        out.extend(BYTE_ORDER_MAGIC.to_ne_bytes());
        out.extend(1_u16.to_ne_bytes());
        out.extend(0_u16.to_ne_bytes());
        out.extend((-1_i64).to_ne_bytes());
        out.extend(options);
        append_option(out, option::USER_APPLICATION, APPLICATION.as_bytes());
        end_of_options(out);
    });
}

/// The program that wrote the section, for the section header.
const APPLICATION: &str = concat!("pcapfs ", env!("CARGO_PKG_VERSION"));

/// Bytes that [`section_header`] appends with `options` bytes of options.
#[must_use]
pub const fn section_header_len(options: usize) -> u64 {
    FRAME_LEN + 16 + options as u64 + option_len(APPLICATION.len()) + option_len(0)
}

/// Bytes that a note adds in a file: `blocks` bytes of blocks before the packet, `options` bytes of
/// the packet's options, and the end of the options, which `options` does not include.
#[must_use]
pub(crate) const fn note_len(blocks: usize, options: usize) -> u64 {
    let end = if options == 0 { 0 } else { option_len(0) };
    blocks as u64 + options as u64 + end
}

/// Bytes that a note takes in a file.
pub(crate) const fn len_of(note: &NoteRef<'_>) -> u64 {
    note_len(note.blocks.len(), note.options.len())
}

/// Appends the description of one more interface of a store with this header. An interface without
/// a link type gets the link type of the header.
///
/// Text above 65,535 bytes, the maximum of an option, is cut.
pub fn interface_description(out: &mut Vec<u8>, interface: &Interface, header: &StoreHeader) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend(interface.link_type.unwrap_or(header.link_type).0.to_ne_bytes());
        out.extend([0; 2]);
        out.extend(interface.snaplen.to_ne_bytes());
        let texts =
            [(option::IF_NAME, &interface.name), (option::IF_DESCRIPTION, &interface.description)];
        for (code, value) in texts {
            if let Some(value) = value {
                append_option(out, code, fitting(value, MAX_OPTION_LEN).as_bytes());
            }
        }
        let resolution = match header.precision {
            Precision::Micro => 6,
            Precision::Nano => 9,
        };
        append_option(out, option::IF_TSRESOL, &[resolution]);
        if let Some(filter) = &interface.filter {
            let expression = fitting(filter, MAX_OPTION_LEN - 1);
            append_option(out, option::IF_FILTER, &[b"\0", expression.as_bytes()].concat());
        }
        end_of_options(out);
    });
}

/// Bytes that [`interface_description`] appends; the same for every header.
#[must_use]
pub fn interface_description_len(interface: &Interface) -> u64 {
    let text = |value: &Option<String>| {
        value.as_ref().map_or(0, |value| option_len(fitting(value, MAX_OPTION_LEN).len()))
    };
    let filter = interface
        .filter
        .as_ref()
        .map_or(0, |filter| option_len(fitting(filter, MAX_OPTION_LEN - 1).len() + 1));
    let resolution_and_end = option_len(1) + option_len(0);
    FRAME_LEN
        + 8
        + text(&interface.name)
        + text(&interface.description)
        + filter
        + resolution_and_end
}

/// One packet as an enhanced packet block holds it.
#[derive(Clone, Copy, Debug)]
pub struct PacketBlockContent<'a> {
    /// Index of its interface among those described in the file.
    pub interface: u32,
    /// The time at which it was captured.
    pub time: Timestamp,
    /// Its length on the wire, in bytes.
    pub original_len: u32,
    /// The captured bytes.
    pub data: &'a [u8],
}

/// Appends an enhanced packet block, with options and with a comment of at most 65,535 bytes (the
/// rest is cut).
pub fn enhanced_packet(
    out: &mut Vec<u8>,
    packet: &PacketBlockContent<'_>,
    precision: Precision,
    options: &[u8],
    comment: Option<&str>,
) {
    let captured_len = packet.data.len().try_into().unwrap_or(u32::MAX).min(MAX_DATA_LEN);
    let data = packet.data.get(..captured_len as usize).unwrap_or(packet.data);
    block(out, ENHANCED_PACKET, |out| {
        let (high, low) = ticks(packet.time, precision);
        for field in [packet.interface, high, low, captured_len, packet.original_len] {
            out.extend(field.to_ne_bytes());
        }
        out.extend(data);
        pad(out, data.len());
        out.extend(options);
        if let Some(comment) = comment {
            append_option(out, option::COMMENT, fitting(comment, MAX_OPTION_LEN).as_bytes());
        }
        if comment.is_some() || !options.is_empty() {
            end_of_options(out);
        }
    });
}

/// Bytes that [`enhanced_packet`] appends for this many captured bytes, without options and
/// comment.
#[must_use]
pub const fn enhanced_packet_len(captured_len: u32) -> u64 {
    let captured_len = if captured_len < MAX_DATA_LEN { captured_len } else { MAX_DATA_LEN };
    ENHANCED_PACKET_FIXED_LEN + (captured_len as u64).next_multiple_of(4)
}

/// Counters of one interface, for an interface statistics block; `None` is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The time at which capturing began.
    pub start: Option<Timestamp>,
    /// Packets the interface received.
    pub received: Option<u64>,
    /// Packets the interface dropped for lack of resources.
    pub interface_dropped: Option<u64>,
    /// Packets the operating system dropped.
    pub os_dropped: Option<u64>,
    /// Packets delivered to the reader.
    pub delivered: Option<u64>,
}

/// Appends an interface statistics block: the counters of `interface` at `time`, and a comment of
/// at most 65,535 bytes (the rest is cut).
pub fn interface_statistics(
    out: &mut Vec<u8>,
    interface: u32,
    time: Timestamp,
    precision: Precision,
    statistics: &Statistics,
    comment: Option<&str>,
) {
    let stamp = |time| {
        let (high, low) = ticks(time, precision);
        [high.to_ne_bytes(), low.to_ne_bytes()].concat()
    };
    block(out, INTERFACE_STATISTICS, |out| {
        out.extend(interface.to_ne_bytes());
        out.extend(stamp(time));
        if let Some(comment) = comment {
            append_option(out, option::COMMENT, fitting(comment, MAX_OPTION_LEN).as_bytes());
        }
        if let Some(start) = statistics.start {
            append_option(out, option::ISB_STARTTIME, &stamp(start));
        }
        for (code, value) in [
            (option::ISB_IFRECV, statistics.received),
            (option::ISB_IFDROP, statistics.interface_dropped),
            (option::ISB_OSDROP, statistics.os_dropped),
            (option::ISB_USRDELIV, statistics.delivered),
        ] {
            if let Some(value) = value {
                append_option(out, code, &value.to_ne_bytes());
            }
        }
        end_of_options(out);
    });
}

/// Maximum bytes of an option's value.
const MAX_OPTION_LEN: usize = u16::MAX as usize;

/// Appends head, body and trailer; `body` appends a multiple of 4 bytes.
fn block(out: &mut Vec<u8>, block_type: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(block_type.to_ne_bytes());
    out.extend([0; 4]);
    body(out);
    // Bodies are limited: data by MAX_DATA_LEN, each option by MAX_OPTION_LEN.
    let len = u32::try_from(out.len() - start + 4).unwrap_or(u32::MAX).to_ne_bytes();
    if let Some(field) = out.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&len);
    }
    out.extend(len);
}

/// Appends an option; `value` must have at most [`MAX_OPTION_LEN`] bytes.
fn append_option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend(code.to_ne_bytes());
    out.extend(len.to_ne_bytes());
    out.extend(value);
    pad(out, value.len());
}

fn end_of_options(out: &mut Vec<u8>) {
    append_option(out, option::END, &[]);
}

/// Bytes of an option with a value of `len` bytes.
const fn option_len(len: usize) -> u64 {
    4 + (len as u64).next_multiple_of(4)
}

/// Pads to a multiple of 4 after `len` bytes.
fn pad(out: &mut Vec<u8>, len: usize) {
    out.resize(out.len() + (len.next_multiple_of(4) - len), 0);
}

/// The longest beginning of `text` that fits `len` bytes.
fn fitting(text: &str, len: usize) -> &str {
    if text.len() <= len {
        return text;
    }
    let end = (0..=len).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// High and low half of a time stamp in units of `precision`.
fn ticks(time: Timestamp, precision: Precision) -> (u32, u32) {
    let ticks = time.nanoseconds() / u64::from(precision.unit_nanoseconds());
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
    let low = ticks as u32;
    let high = (ticks >> 32) as u32;
    (high, low)
}

#[cfg(test)]
mod tests {
    use super::super::ByteOrder;
    use super::super::pcapng::{Block, BlockHead};
    use super::*;
    use proptest::prelude::*;
    use protocol::linktype::LinkType;

    const HEADER: StoreHeader =
        StoreHeader { link_type: LinkType::ETHERNET, precision: Precision::Nano, snaplen: 65_535 };

    fn parse(bytes: &[u8]) -> Block<'_> {
        let head = BlockHead::parse(bytes, Some(ByteOrder::NATIVE)).unwrap().unwrap();
        assert_eq!(head.len as usize, bytes.len());
        Block::parse(&head, bytes).unwrap().unwrap()
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        prop::option::of("[a-zß€]{0,9}")
    }

    proptest! {
        #[test]
        fn interfaces_are_read_back_and_have_the_length_foretold(
            name in text(), description in text(), filter in text(), snaplen: u32,
            link_type in prop::option::of(any::<u16>().prop_map(LinkType)),
        ) {
            let mut interface = Interface { name, description, filter, snaplen, link_type };
            let mut out = Vec::new();
            interface_description(&mut out, &interface, &HEADER);
            prop_assert_eq!(out.len() as u64, interface_description_len(&interface));
            let Block::Interface(block) = parse(&out) else { panic!("{out:?}") };
            interface.link_type.get_or_insert(HEADER.link_type);
            prop_assert_eq!(block.interface().unwrap(), interface);
            prop_assert_eq!(block.clock().unwrap().time(7).nanoseconds(), 7);
        }

        #[test]
        fn packets_are_read_back_and_have_the_length_foretold(
            interface: u32, nanoseconds: u64, original_len: u32,
            data in prop::collection::vec(any::<u8>(), 0..40), comment in text(),
        ) {
            let time = Timestamp::from_nanoseconds(nanoseconds);
            let packet = PacketBlockContent { interface, time, original_len, data: &data };
            let mut out = Vec::new();
            enhanced_packet(&mut out, &packet, Precision::Nano, &[], comment.as_deref());
            let comment_len =
                comment.map_or(0, |comment| 8 + comment.len().next_multiple_of(4) as u64);
            let captured_len = u32::try_from(data.len()).unwrap();
            prop_assert_eq!(out.len() as u64, enhanced_packet_len(captured_len) + comment_len);
            let Block::Packet(block) = parse(&out) else { panic!("{out:?}") };
            prop_assert_eq!(block.interface, interface);
            prop_assert_eq!(block.ticks, Some(nanoseconds));
            prop_assert_eq!(block.original_len, original_len);
            prop_assert_eq!(block.data(0).unwrap(), &data);
        }
    }

    #[test]
    fn text_too_long_for_an_option_is_cut_at_a_character() {
        let long = Some("ß".repeat(40_000));
        let interface = Interface { name: long.clone(), filter: long, ..Interface::default() };
        let mut out = Vec::new();
        interface_description(&mut out, &interface, &HEADER);
        assert_eq!(out.len() as u64, interface_description_len(&interface));
        let Block::Interface(block) = parse(&out) else { panic!("no interface") };
        let read = block.interface().unwrap();
        assert_eq!(read.name.unwrap().len(), 65_534);
        assert_eq!(read.filter.unwrap().len(), 65_534);
    }

    #[test]
    fn sections_and_statistics_are_well_formed() {
        let mut out = Vec::new();
        section_header(&mut out, b"\x01\0\x04\0text");
        assert!(matches!(parse(&out), Block::Section));
        assert_eq!(out.len() as u64, section_header_len(8));
        assert!(out.windows(7).any(|window| window == b"pcapfs "));
        out.clear();
        let start = Some(Timestamp::from_nanoseconds(1));
        let statistics = Statistics { start, os_dropped: Some(3), ..Statistics::default() };
        let time = Timestamp::from_nanoseconds(5_000);
        interface_statistics(&mut out, 0, time, Precision::Micro, &statistics, None);
        assert!(matches!(parse(&out), Block::Other));
        assert_eq!(out.len(), 12 + 12 + 12 + 12 + 4);
        let plain = out.len();
        interface_statistics(&mut out, 0, time, Precision::Micro, &statistics, Some("why"));
        assert!(matches!(parse(&out[plain..]), Block::Other));
        assert_eq!(out[plain..].len(), plain + 8);
        assert!(out[plain..].windows(8).any(|window| window == b"\x01\0\x03\0why\0"));
        assert_eq!(out[16..20], 5_u32.to_ne_bytes(), "in units of the interface");
    }
}
