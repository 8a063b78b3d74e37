//! The errors of savefiles, by their cause.

use std::io;
use std::path::{Path, PathBuf};

use super::{MAX_BLOCK_LEN, MAX_CAPTURED_LEN, MAX_INTERFACES};

/// Why bytes are not a savefile, or not at this place. The writer of the bytes has caused it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavefileFault {
    /// The first four bytes are not a magic number of a supported format.
    #[error("no savefile (starts with {})", describe_start(*.0))]
    Magic([u8; 4]),
    /// An unsupported version of the format.
    #[error("{format} version {major}.{minor} is not supported, or the header is damaged")]
    Version {
        /// `pcap` or `pcapng`.
        format: &'static str,
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
    },
    /// The bytes end inside the header of the file.
    #[error("cut short inside its header ({there} of {needed} bytes)")]
    HeaderCut {
        /// Bytes available.
        there: u64,
        /// Bytes of a whole header, as far as that is known.
        needed: u64,
    },
    /// A record that claims more than [`MAX_CAPTURED_LEN`] bytes.
    #[error("a packet of {captured_len} captured bytes (at most {MAX_CAPTURED_LEN} are possible)")]
    PacketTooLong {
        /// The captured length found.
        captured_len: u32,
    },
    /// The first block of a pcapng section has no byte order magic.
    #[error("a section header with byte order magic {0:#010x}")]
    ByteOrderMagic(u32),
    /// A block with a length that is impossible for its type.
    #[error("a block of type {block_type:#x} with a length of {len}")]
    BlockLength {
        /// Type of the block.
        block_type: u32,
        /// The total length found.
        len: u32,
    },
    /// A block that must be read and is longer than [`MAX_BLOCK_LEN`].
    #[error(
        "a block of type {block_type:#x} of {len} bytes (at most {MAX_BLOCK_LEN} are possible)"
    )]
    BlockTooLong {
        /// Type of the block.
        block_type: u32,
        /// The total length found.
        len: u32,
    },
    /// A block whose two lengths, at its beginning and at its end, differ.
    #[error("a block of type {block_type:#x} with length {head} in front and {tail} behind")]
    BlockTrailer {
        /// Type of the block.
        block_type: u32,
        /// Length at its beginning.
        head: u32,
        /// Length at its end.
        tail: u32,
    },
    /// Captured bytes that do not fit into their block.
    #[error("a packet of {captured_len} captured bytes in a block with room for {room}")]
    PacketPastBlock {
        /// The captured length found.
        captured_len: u32,
        /// Bytes from the beginning of the data to the end of the block.
        room: usize,
    },
    /// An option that does not fit into its block, or is too short.
    #[error("option {code} of {len} bytes does not fit")]
    BadOption {
        /// Option code.
        code: u16,
        /// Option length found.
        len: u16,
    },
    /// A packet of an interface that has not been described in its section.
    #[error("a packet of interface {interface}, but only {described} are described")]
    NoInterface {
        /// The packet's interface, counted from 0 in its section.
        interface: u32,
        /// Number of interfaces described in the section so far.
        described: u32,
    },
    /// More interfaces than [`MAX_INTERFACES`].
    #[error("more than {MAX_INTERFACES} interfaces")]
    TooManyInterfaces,
}

/// A [`SavefileFault`] and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed at byte {offset}: {fault}")]
pub struct Malformed {
    /// Bytes from the beginning of the file or stream to the faulty record or block.
    pub offset: u64,
    /// The fault.
    pub fault: SavefileFault,
}

/// Why a savefile cannot be opened. Nothing stays open or mapped.
#[derive(Debug, thiserror::Error)]
pub enum SavefileOpenError {
    /// No file exists at the path.
    #[error("{}: no such file{}", .0.display(), followed(.0))]
    NotFound(PathBuf),
    /// This process is not allowed to read it.
    #[error("{}: permission denied", .0.display())]
    NotPermitted(PathBuf),
    /// A directory, pipe, socket or device; a pipe can be read as a stream.
    #[error("{} is not a regular file but a {what}", path.display())]
    NotRegular {
        /// The path as given.
        path: PathBuf,
        /// The kind of file.
        what: &'static str,
    },
    /// A file without any bytes.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// Not a savefile, or of an unsupported version, or cut inside its header.
    #[error("{} is {fault}", path.display())]
    NotSavefile {
        /// The path as given.
        path: PathBuf,
        /// The fault found in it.
        fault: SavefileFault,
    },
    /// The maximum number of savefiles that this process can guard is mapped.
    #[error("{}: {limit} savefiles are mapped already", path.display())]
    TooMany {
        /// The path as given.
        path: PathBuf,
        /// Maximum number of savefiles mapped at a time.
        limit: usize,
    },
    /// The system refused for another reason.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path as given.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// A remedy if a path has a comma and the part before it is a file: the only word that may follow
/// is `follow`.
fn followed(path: &Path) -> String {
    let file = path.to_str().and_then(|path| path.rsplit_once(',')).map(|(file, _)| file);
    let file = file.filter(|file| Path::new(file).is_file());
    file.map_or_else(String::new, |file| format!(" (to follow {file} as it grows: {file},follow)"))
}

/// The first bytes of a file, and its format if people are likely to try it.
fn describe_start(start: [u8; 4]) -> String {
    let [a, b, c, d] = start;
    let known = match start {
        [0x1f, 0x8b, ..] => ": gzip, unpack it first",
        [0x28, 0xb5, 0x2f, 0xfd] => ": zstd, unpack it first",
        [0xfd, b'7', b'z', b'X'] => ": xz, unpack it first",
        [b's', b'n', b'o', b'o'] => ": snoop, convert it with editcap",
        [0xa1, 0xb2, 0xcd, 0x34] | [0x34, 0xcd, 0xb2, 0xa1] => {
            ": a pcap with patched record headers, convert it with editcap"
        }
        _ => "",
    };
    format!("{a:02x} {b:02x} {c:02x} {d:02x}{known}")
}
