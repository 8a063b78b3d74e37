//! Finds the format and the header of a savefile before it is served.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use protocol::linktype::LinkType;
use protocol::time::Precision;

use super::map::FileMap;
use super::order::ByteOrder;
use super::pcap::{self, PcapHeader};
use super::pcapng;
use super::walk::{self, FileFormat, FileInterface, WalkPlace, WalkResult};
use super::{MAX_INTERFACES, Savefile, SavefileFault, SavefileOpenError, SavefileOptions};
use crate::store::StoreHeader;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbedFormat {
    /// pcap, in either byte order and precision.
    Pcap,
    /// pcapng.
    Pcapng,
}

/// A savefile that has been opened and mapped, and read up to its first packet: enough to compile a
/// filter for it.
#[derive(Debug)]
pub struct Probe {
    pub(super) map: FileMap,
    pub(super) format: FileFormat,
    pub(super) header: StoreHeader,
    /// The interfaces described before the first packet, of any link type; empty for pcap.
    pub(super) interfaces: Vec<FileInterface>,
}

impl Probe {
    /// Opens and maps the savefile at `path`. Data appended later is seen only by callers that
    /// [look again](Savefile::look_again) or [follow](SavefileOptions::follow).
    ///
    /// The link type of a pcapng file is that of the interface of its first packet. Without packets
    /// it is that of its first interface, and without interfaces it is Ethernet. Only a pcapng file
    /// without packets is read beyond its beginning.
    ///
    /// # Errors
    /// See [`SavefileOpenError`]; every variant names the path.
    pub fn open(path: &Path) -> Result<Self, SavefileOpenError> {
        let (file, len) = open_regular(path)?;
        if len == 0 {
            return Err(SavefileOpenError::Empty(path.to_owned()));
        }
        let map = FileMap::new(file, path, len)?;
        let not_savefile = |fault| SavefileOpenError::NotSavefile { path: path.to_owned(), fault };
        let format = detect(map.bytes()).map_err(not_savefile)?;
        let mut interfaces = Vec::new();
        let (link_type, snaplen) = match &format {
            FileFormat::Pcap(file) => (file.link_type, file.snaplen),
            FileFormat::Pcapng => {
                let first = first_link_type(map.bytes(), &format, &mut interfaces);
                let link_type = first
                    .or_else(|| interfaces.first().map(|interface| interface.link_type))
                    .unwrap_or(LinkType::ETHERNET);
                (link_type, walk::snaplen(&interfaces, link_type))
            }
        };
        let header = StoreHeader { link_type, precision: format.precision(), snaplen };
        Ok(Self { map, format, header, interfaces })
    }

    /// The format of the file.
    #[must_use]
    pub const fn kind(&self) -> ProbedFormat {
        match self.format {
            FileFormat::Pcap(_) => ProbedFormat::Pcap,
            FileFormat::Pcapng => ProbedFormat::Pcapng,
        }
    }

    /// Link type of the packets in its `.pcap` files, see [`StoreHeader::link_type`].
    #[must_use]
    pub const fn link_type(&self) -> LinkType {
        self.header.link_type
    }

    /// Resolution in which the packets are served: the file's for pcap, nanoseconds for pcapng.
    #[must_use]
    pub const fn precision(&self) -> Precision {
        self.header.precision
    }

    /// Maximum bytes that the file keeps of one packet, never 0. For pcapng it is the maximum of
    /// all interfaces of the link type before the first packet.
    #[must_use]
    pub const fn snaplen(&self) -> u32 {
        self.header.snaplen
    }

    /// A store over the file, empty until [`Savefile::index`] has run.
    #[must_use]
    pub fn into_savefile(self, options: SavefileOptions) -> Savefile {
        Savefile::new(self, options)
    }
}

/// Opens a file without waiting, as opening a pipe would. Returns the file and its length.
fn open_regular(path: &Path) -> Result<(File, u64), SavefileOpenError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SavefileOpenError::NotFound(path.to_owned()),
        io::ErrorKind::PermissionDenied => SavefileOpenError::NotPermitted(path.to_owned()),
        _ => SavefileOpenError::Io { path: path.to_owned(), source },
    };
    // Checked before it is opened, because opening a device or a pipe has effects, and afterwards,
    // because it may be another file by then.
    check_regular(path, &fs::metadata(path).map_err(failed)?)?;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_regular(path, &metadata)?;
    Ok((file, metadata.len()))
}

fn check_regular(path: &Path, metadata: &fs::Metadata) -> Result<(), SavefileOpenError> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "directory",
        () if kind.is_fifo() => "named pipe",
        () if kind.is_socket() => "socket",
        () => "device",
    };
    Err(SavefileOpenError::NotRegular { path: path.to_owned(), what })
}

/// The format of a file, if its beginning is valid.
fn detect(bytes: &[u8]) -> Result<FileFormat, SavefileFault> {
    let cut = |needed: usize| SavefileFault::HeaderCut {
        there: bytes.len() as u64,
        needed: needed as u64,
    };
    let magic = bytes.first_chunk().ok_or_else(|| cut(4))?;
    if ByteOrder::NATIVE.u32(*magic) == pcapng::SECTION_HEADER {
        let head = pcapng::BlockHead::parse(bytes, None)?.ok_or_else(|| cut(pcapng::HEAD_LEN))?;
        pcapng::Block::parse(&head, bytes)?.ok_or_else(|| cut(head.len as usize))?;
        return Ok(FileFormat::Pcapng);
    }
    pcap::magic_number(*magic).ok_or(SavefileFault::Magic(*magic))?;
    let header = bytes.first_chunk().ok_or_else(|| cut(pcap::FILE_HEADER_LEN))?;
    PcapHeader::parse(header).map(FileFormat::Pcap)
}

/// Collects the interfaces before the first packet. Returns the link type of that packet.
///
/// Faults of the file up to there are left for the index to report.
fn first_link_type(
    bytes: &[u8],
    format: &FileFormat,
    interfaces: &mut Vec<FileInterface>,
) -> Option<LinkType> {
    let mut place: WalkPlace = format.start();
    loop {
        let before = place;
        match place.step(bytes, format, interfaces).ok()? {
            WalkResult::Interface(block) => {
                let described = FileInterface::new(&block, before).ok()?;
                if interfaces.len() >= MAX_INTERFACES {
                    return None;
                }
                place.describe();
                interfaces.push(described);
            }
            WalkResult::Packet(packet) => return Some(packet.link_type),
            WalkResult::Kept(..) | WalkResult::Section(_) | WalkResult::Other => {}
            WalkResult::End => return None,
        }
    }
}
