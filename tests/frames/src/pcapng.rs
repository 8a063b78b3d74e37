//! The blocks of a pcapng savefile (draft-ietf-opsawg-pcapng), least significant byte first.

/// Type of the section header block.
pub const SECTION: u32 = 0x0a0d_0d0a;
/// Type of the interface description block.
pub const INTERFACE: u32 = 1;
/// Type of the interface statistics block.
pub const STATISTICS: u32 = 5;
/// Type of the enhanced packet block.
pub const PACKET: u32 = 6;
/// Type of a custom block that may be copied.
pub const CUSTOM: u32 = 0xbad;

/// Code of a comment, in any block.
pub const COMMENT: u16 = 1;
/// Code of an interface's name.
pub const IF_NAME: u16 = 2;
/// Code of the resolution of an interface's time stamps.
pub const IF_TSRESOL: u16 = 9;

/// A block with both of its lengths, its body filled up to a multiple of four.
#[must_use]
pub fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = u32::try_from(padded + 12).expect("a block").to_le_bytes();
    let mut block = [&kind.to_le_bytes()[..], &length, body].concat();
    block.resize(8 + padded, 0);
    block.extend(length);
    block
}

/// An option, filled up to a multiple of four.
#[must_use]
pub fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a short option").to_le_bytes();
    let mut option = [&code.to_le_bytes()[..], &length, value].concat();
    option.resize(option.len().next_multiple_of(4), 0);
    option
}

/// Options with their end; nothing if there are none.
#[must_use]
pub fn options(all: &[(u16, &[u8])]) -> Vec<u8> {
    if all.is_empty() {
        return Vec::new();
    }
    let mut bytes: Vec<u8> = all.iter().flat_map(|(code, value)| option(*code, value)).collect();
    bytes.extend([0; 4]);
    bytes
}

/// A section header of unknown length.
#[must_use]
pub fn section(with: &[(u16, &[u8])]) -> Vec<u8> {
    let fixed = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    block(SECTION, &[fixed, options(with)].concat())
}

/// The description of an interface.
#[must_use]
pub fn interface(link_type: u16, snaplen: u32, with: &[(u16, &[u8])]) -> Vec<u8> {
    let fixed = [&link_type.to_le_bytes()[..], &[0, 0], &snaplen.to_le_bytes()].concat();
    block(INTERFACE, &[fixed, options(with)].concat())
}

/// A packet. `timestamp` is in the units of the interface, `original_length` the length on the
/// wire.
#[must_use]
pub fn packet(
    interface: u32,
    timestamp: u64,
    data: &[u8],
    original_length: usize,
    with: &[(u16, &[u8])],
) -> Vec<u8> {
    let word = |number: u64| u32::try_from(number).expect("32 bits").to_le_bytes();
    let mut body = [
        interface.to_le_bytes(),
        word(timestamp >> 32),
        word(timestamp & 0xffff_ffff),
        word(data.len() as u64),
        word(original_length as u64),
    ]
    .concat();
    body.extend_from_slice(data);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend(options(with));
    block(PACKET, &body)
}
