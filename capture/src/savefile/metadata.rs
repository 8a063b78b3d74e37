//! Metadata of a pcapng file beside its packets and interfaces, for readers of pcapng: options of
//! packets and of the section, secrets, names, and blocks of other programs.
//!
//! Metadata is converted to this machine's byte order and keeps its length. Values of an unknown
//! layout in the other order are left out, and so are options that must not be copied. Interface
//! statistics get the number that the reader's file gives their interface, and times in
//! nanoseconds, as the descriptions for readers state.

use super::order::{ByteOrder, Fields};
use super::pcapng::{BlockHead, Clock, INTERFACE_STATISTICS, option};

/// Name resolution block.
const NAME_RESOLUTION: u32 = 4;
/// Decryption secrets block.
const DECRYPTION_SECRETS: u32 = 10;
/// Custom block that may be copied.
const CUSTOM: u32 = 0xbad;

/// Custom options that may be copied: the number of an organisation, then a text or bytes.
const CUSTOM_OPTIONS: [u16; 2] = [2988, 2989];
/// Custom options that must not be copied.
const CUSTOM_OPTIONS_NOT_TO_COPY: [u16; 2] = [19372, 19373];

/// Maximum length of a kept block, in bytes.
pub(super) const MAX_BLOCK: u32 = 1 << 20;

/// Maximum bytes of options kept of one packet or section.
const MAX_OPTIONS: usize = 256 << 10;

/// The owner of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OptionsOwner {
    Section,
    Packet,
    /// A kept block: only its comment has a known layout.
    Block,
    /// Statistics of an interface with this clock.
    Statistics(Clock),
}

/// Returns true for block types that are kept with the packet after them.
pub(super) const fn is_kept(block_type: u32) -> bool {
    matches!(block_type, NAME_RESOLUTION | INTERFACE_STATISTICS | DECRYPTION_SECRETS | CUSTOM)
}

/// Returns true for a block of decryption secrets.
pub(super) const fn is_keys(head: &BlockHead) -> bool {
    head.block_type == DECRYPTION_SECRETS
}

/// The interface number in a whole block of interface statistics in this machine's byte order;
/// `None` for other blocks.
pub(crate) fn statistics_interface(block: &mut [u8]) -> Option<&mut [u8; 4]> {
    let kind = block.first_chunk().map(|kind| u32::from_ne_bytes(*kind));
    let is_statistics = kind == Some(INTERFACE_STATISTICS);
    block.get_mut(8..).and_then(<[u8]>::first_chunk_mut).filter(|_| is_statistics)
}

/// Returns true for a whole block of decryption secrets in this machine's byte order.
pub(crate) fn has_keys(block: &[u8]) -> bool {
    block.first_chunk().is_some_and(|kind| u32::from_ne_bytes(*kind) == DECRYPTION_SECRETS)
}

/// Options in this machine's byte order, without their end.
pub(super) fn options(raw: &[u8], order: ByteOrder, of: OptionsOwner) -> Vec<u8> {
    let mut out = Vec::new();
    let mut fields = Fields::new(raw, order);
    while let (Some(code), Some(len)) = (fields.u16(), fields.u16()) {
        let Some(value) = fields.padded(usize::from(len)).filter(|_| code != option::END) else {
            break;
        };
        let Some(value) = native_value(code, value, order, of) else { continue };
        let whole = value.len().next_multiple_of(4);
        if out.len().saturating_add(whole) > MAX_OPTIONS {
            break;
        }
        out.extend(code.to_ne_bytes());
        out.extend(len.to_ne_bytes());
        let end = out.len().saturating_add(whole);
        out.extend(value);
        out.resize(end, 0);
    }
    out
}

/// The kept options of a section, from its whole block.
pub(super) fn section(head: &BlockHead, bytes: &[u8]) -> Option<Vec<u8>> {
    let block = bytes.get(..usize::try_from(head.len).ok()?)?;
    let raw = block.get(24..block.len().checked_sub(4)?)?;
    Some(options(raw, head.order, OptionsOwner::Section))
}

/// Options of a packet from another machine, in this machine's byte order, without their end.
pub(crate) fn packet_options(raw: &[u8], order: ByteOrder) -> Vec<u8> {
    options(raw, order, OptionsOwner::Packet)
}

/// Options of a section from another machine, in this machine's byte order, without their end.
pub(crate) fn section_options(raw: &[u8], order: ByteOrder) -> Vec<u8> {
    options(raw, order, OptionsOwner::Section)
}

/// The whole [kept](is_kept) blocks at the beginning of bytes from another machine, in this
/// machine's byte order. Times of statistics are in nanoseconds, and keep their interface.
pub(crate) fn whole_blocks(mut raw: &[u8], order: ByteOrder) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    while let Ok(Some(head)) = BlockHead::parse(raw, Some(order)) {
        let Some((whole, rest)) =
            usize::try_from(head.len).ok().and_then(|len| raw.split_at_checked(len))
        else {
            break;
        };
        if is_kept(head.block_type) {
            blocks.extend(block(&head, whole, |interface| Some((interface, Clock::NANOSECONDS))));
        }
        raw = rest;
    }
    blocks
}

/// The comments among options in this machine's byte order.
pub(crate) fn comments(options: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut fields = Fields::new(options, ByteOrder::NATIVE);
    while let (Some(code), Some(len)) = (fields.u16(), fields.u16()) {
        let Some(value) = fields.padded(usize::from(len)) else { break };
        if code == option::COMMENT {
            out.extend(code.to_ne_bytes());
            out.extend(len.to_ne_bytes());
            append(&mut out, value);
        }
    }
    out
}

fn native_value(code: u16, value: &[u8], order: ByteOrder, of: OptionsOwner) -> Option<Vec<u8>> {
    let is_ours = of == OptionsOwner::Section && code == option::USER_APPLICATION;
    if is_ours || CUSTOM_OPTIONS_NOT_TO_COPY.contains(&code) {
        return None;
    }
    if let (OptionsOwner::Statistics(clock), option::ISB_STARTTIME | option::ISB_ENDTIME) =
        (of, code)
    {
        let mut halves = Fields::new(value, order);
        return Some(nanoseconds(&mut halves, clock)?.concat());
    }
    if order == ByteOrder::NATIVE || code == option::COMMENT {
        return Some(value.to_vec());
    }
    let numbers = match (of, code) {
        (_, code) if CUSTOM_OPTIONS.contains(&code) => {
            let (number, rest) = value.split_first_chunk::<4>()?;
            return Some([&order.u32(*number).to_ne_bytes()[..], rest].concat());
        }
        // Texts.
        (OptionsOwner::Section, 2 | 3) => return Some(value.to_vec()),
        // A hash and a verdict: a byte for the algorithm, then bytes.
        (OptionsOwner::Packet, 3 | 7) => return Some(value.to_vec()),
        // Flags and the number of a queue.
        (OptionsOwner::Packet, 2 | 6) => 4,
        // Packets dropped, and a number of the packet.
        (OptionsOwner::Packet, 4 | 5) => 8,
        // Counters of packets.
        (OptionsOwner::Statistics(_), option::ISB_IFRECV..=option::ISB_USRDELIV) => 8,
        _ => return None,
    };
    (value.len() == numbers).then(|| value.iter().rev().copied().collect())
}

/// Converts a time stamp of an interface with this clock. Returns both halves of the time in
/// nanoseconds, in this machine's byte order.
fn nanoseconds(halves: &mut Fields<'_>, clock: Clock) -> Option<[[u8; 4]; 2]> {
    let (high, low) = (halves.u32()?, halves.u32()?);
    let time = clock.time(u64::from(high) << 32 | u64::from(low)).nanoseconds();
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    Some([((time >> 32) as u32).to_ne_bytes(), (time as u32).to_ne_bytes()])
}

/// Converts interface statistics. `interface` maps the interface's number in its section to its
/// number for the reader, and its clock.
fn statistics(
    head: &BlockHead,
    body: &[u8],
    interface: impl FnOnce(u32) -> Option<(u32, Clock)>,
) -> Option<Vec<u8>> {
    let mut fields = Fields::new(body, head.order);
    let (id, clock) = interface(fields.u32()?)?;
    let time = nanoseconds(&mut fields, clock)?;
    let options = options(fields.rest(), head.order, OptionsOwner::Statistics(clock));
    // Block type, two lengths, interface, time, and the end of the options.
    let len = u32::try_from(options.len()).ok()?.checked_add(28)?;
    let fixed = [head.block_type.to_ne_bytes(), len.to_ne_bytes(), id.to_ne_bytes()];
    let end = [[0; 4], len.to_ne_bytes()];
    Some([&fixed.concat(), &time.concat(), &options, &end.concat()].map(Vec::as_slice).concat())
}

/// A block that is [kept](is_kept), in this machine's byte order; `None` if it is too long or
/// malformed. For statistics, `interface` maps the interface's number in its section to its number
/// for the reader, and its clock.
pub(super) fn block(
    head: &BlockHead,
    bytes: &[u8],
    interface: impl FnOnce(u32) -> Option<(u32, Clock)>,
) -> Option<Vec<u8>> {
    if head.len > MAX_BLOCK {
        return None;
    }
    let whole = bytes.get(..usize::try_from(head.len).ok()?)?;
    let body = whole.get(8..whole.len().checked_sub(4)?)?;
    if head.block_type == INTERFACE_STATISTICS {
        return statistics(head, body, interface);
    }
    if head.order == ByteOrder::NATIVE {
        return Some(whole.to_vec());
    }
    let mut fields = Fields::new(body, head.order);
    let mut out = Vec::with_capacity(whole.len());
    out.extend(head.block_type.to_ne_bytes());
    out.extend(head.len.to_ne_bytes());
    match head.block_type {
        CUSTOM => {
            out.extend(fields.u32()?.to_ne_bytes());
            out.extend(fields.rest());
        }
        DECRYPTION_SECRETS => {
            let (kind, len) = (fields.u32()?, fields.u32()?);
            out.extend(kind.to_ne_bytes());
            out.extend(len.to_ne_bytes());
            append(&mut out, fields.padded(usize::try_from(len).ok()?)?);
            append_options(&mut out, &fields, head.order);
        }
        _ => {
            loop {
                let (kind, len) = (fields.u16()?, fields.u16()?);
                out.extend(kind.to_ne_bytes());
                out.extend(len.to_ne_bytes());
                append(&mut out, fields.padded(usize::from(len))?);
                if kind == 0 {
                    break;
                }
            }
            append_options(&mut out, &fields, head.order);
        }
    }
    // Options with an unknown layout are dropped; zeros fill the block.
    let end = whole.len().checked_sub(4)?;
    if out.len() > end {
        return None;
    }
    out.resize(end, 0);
    out.extend(head.len.to_ne_bytes());
    Some(out)
}

fn append(out: &mut Vec<u8>, value: &[u8]) {
    let end = out.len().saturating_add(value.len().next_multiple_of(4));
    out.extend(value);
    out.resize(end, 0);
}

/// Options of a block. The zeros after them end the list.
fn append_options(out: &mut Vec<u8>, fields: &Fields<'_>, order: ByteOrder) {
    out.extend(options(fields.rest(), order, OptionsOwner::Block));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u16_of(order: ByteOrder, value: u16) -> [u8; 2] {
        if order == ByteOrder::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32_of(order: ByteOrder, value: u32) -> [u8; 4] {
        if order == ByteOrder::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn one(order: ByteOrder, code: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len()).unwrap();
        let mut bytes = [u16_of(order, code), u16_of(order, len)].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn packet_options(order: ByteOrder) -> Vec<u8> {
        let number = |value: u64| {
            if order == ByteOrder::Big { value.to_be_bytes() } else { value.to_le_bytes() }
        };
        [
            one(order, 1, b"hello"),
            one(order, 2, &u32_of(order, 0x102)),
            one(order, 3, b"\x02abcd"),
            one(order, 4, &number(7)),
            one(order, 2988, &[&u32_of(order, 32_473)[..], b"text"].concat()),
        ]
        .concat()
    }

    #[test]
    fn options_of_either_order_are_the_same() {
        let native = packet_options(ByteOrder::NATIVE);
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let mut raw = packet_options(order);
            // An option that must not be copied; then the end, and an option after it.
            raw.extend(one(order, 19_372, &[0; 8]));
            raw.extend(one(order, 0, b""));
            raw.extend(one(order, 1, b"behind"));
            assert_eq!(options(&raw, order, OptionsOwner::Packet), native, "{order:?}");
            for cut in 0..raw.len() {
                let kept = options(&raw[..cut], order, OptionsOwner::Packet);
                assert!(native.starts_with(&kept) && kept.len().is_multiple_of(4));
            }
        }
    }

    #[test]
    fn blocks_of_either_order_are_the_same() {
        let blocks = |order: ByteOrder| {
            let secrets = [
                &u32_of(order, 0x544c_534b)[..],
                &u32_of(order, 5),
                b"CLI X\0\0\0",
                &one(order, 1, b"why"),
                &one(order, 0, b""),
            ]
            .concat();
            let names =
                [one(order, 1, b"\x0a\0\0\x01host\0"), one(order, 0, b""), one(order, 0, b"")];
            let custom = [&u32_of(order, 32_473)[..], b"as it is"].concat();
            [(DECRYPTION_SECRETS, secrets), (NAME_RESOLUTION, names.concat()), (CUSTOM, custom)]
                .map(|(kind, body)| {
                    let len = u32_of(order, u32::try_from(body.len() + 12).unwrap());
                    [&u32_of(order, kind)[..], &len, &body, &len].concat()
                })
        };
        for order in [ByteOrder::Little, ByteOrder::Big] {
            for (bytes, native) in blocks(order).iter().zip(blocks(ByteOrder::NATIVE)) {
                let head = BlockHead::parse(bytes, Some(order)).unwrap().unwrap();
                assert!(is_kept(head.block_type));
                assert_eq!(block(&head, bytes, |_| None).unwrap(), native, "{order:?}");
            }
        }
    }

    #[test]
    fn statistics_of_either_order_and_clock_are_the_same() {
        let time = |order: ByteOrder, time: u64| {
            let (high, low) = (u32::try_from(time >> 32).unwrap(), time & 0xffff_ffff);
            [u32_of(order, high), u32_of(order, u32::try_from(low).unwrap())].concat()
        };
        let counter = |order: ByteOrder, value: u64| {
            if order == ByteOrder::Big { value.to_be_bytes() } else { value.to_le_bytes() }
        };
        let statistics = |order: ByteOrder, id: u32, unit: u64| {
            let mut body = [&u32_of(order, id)[..], &time(order, 7_000_000_000 / unit)].concat();
            body.extend(one(order, 1, b"at the end"));
            body.extend(one(order, 2, &time(order, 5_000_000_000 / unit)));
            body.extend(one(order, 3, &time(order, 6_000_000_000 / unit)));
            for code in 4..9_u16 {
                body.extend(one(order, code, &counter(order, u64::from(code) << 40)));
            }
            body.extend(one(order, 0, b""));
            let len = u32_of(order, u32::try_from(body.len() + 12).unwrap());
            [&u32_of(order, INTERFACE_STATISTICS)[..], &len, &body, &len].concat()
        };
        let native = statistics(ByteOrder::NATIVE, 5, 1);
        for order in [ByteOrder::Little, ByteOrder::Big] {
            // In microseconds, the default without an option.
            let bytes = statistics(order, 2, 1_000);
            let head = BlockHead::parse(&bytes, Some(order)).unwrap().unwrap();
            assert!(is_kept(head.block_type));
            let interface = |id: u32| (id == 2).then(|| (5, Clock::default()));
            let mut made = block(&head, &bytes, interface).unwrap();
            assert_eq!(made, native, "{order:?}");
            assert_eq!(statistics_interface(&mut made).copied(), Some(5_u32.to_ne_bytes()));
            assert_eq!(block(&head, &bytes, |_| None), None, "of no interface");
            for cut in 12..bytes.len() / 4 {
                let len = u32_of(order, u32::try_from(cut * 4).unwrap());
                let cut = [&bytes[..4], &len, &bytes[8..cut * 4 - 4], &len].concat();
                let head = BlockHead::parse(&cut, Some(order)).unwrap().unwrap();
                let made = block(&head, &cut, interface).unwrap();
                assert!(made.len() <= native.len() && made.len().is_multiple_of(4));
            }
        }
    }

    #[test]
    fn notes_beyond_the_limit_are_left_out() {
        let order = ByteOrder::NATIVE.swapped();
        let body = [&u32_of(order, 1)[..], &u32_of(order, 99), b"short"].concat();
        let len = u32_of(order, 28);
        let bytes = [&u32_of(order, DECRYPTION_SECRETS)[..], &len, &body, &[0; 3], &len].concat();
        let head = BlockHead::parse(&bytes, Some(order)).unwrap().unwrap();
        assert_eq!(block(&head, &bytes, |_| None), None);
    }
}
