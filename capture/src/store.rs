//! What every place that keeps packets looks like to those who read them.
//!
//! Two things keep packets: the shared [ring](crate::ring) of a live capture and a
//! [savefile](crate::savefile) mapped where it lies. Cursors, and whatever is built on cursors, see
//! both through [`Store`]: a sequence of packets numbered from 1, cut into *chunks* that hold whole
//! pcap records back to back, of which the oldest may have been dropped and to which new ones may
//! be added at the end.
//!
//! The one invariant: a packet's number, its bytes and its [`Position`] never change once it is
//! visible in [`Store::bounds`]; it can only cease to be there, together with all before it.

use std::sync::Arc;

use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

use crate::bell::Bells;
use crate::hole::Hole;
use crate::record::Record;

/// A place between two stored packets, in the three measures readers use.
///
/// All three grow together: if `a.number <= b.number` then the same holds for the other two. Only
/// `pcap` may stand still meanwhile, over packets that `.pcap` files do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the packet that begins here; the first packet of a capture is number 1.
    pub number: u64,
    /// Bytes of all pcap records (16-byte header and data) of [`Header::link_type`] before this
    /// place, since packet 1.
    pub pcap: u64,
    /// Bytes of all pcapng packet blocks, and interface blocks between them, before this place.
    pub pcapng: u64,
}

impl Position {
    /// Where packet number 1 begins.
    pub const START: Self = Self { number: 1, pcap: 0, pcapng: 0 };
}

/// What a store holds at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Chunk that holds the oldest retained packet.
    pub oldest_chunk: u64,
    /// A chunk at or shortly before the one in which the next packet will be.
    pub newest_chunk: u64,
    /// Where the oldest retained packet begins; equals `next` when nothing is retained.
    pub oldest: Position,
    /// Where the next packet to come will begin.
    pub next: Position,
    /// Bytes of the records that [`Position::pcap`] of `next` leaves out: those of other link
    /// types than the header's. Only a store that drops nothing has any.
    pub foreign_bytes: u64,
    /// Bytes of a pcapng file after the last packet, see [`Store::trailing`]; `next` is before them.
    pub trailing: u64,
    /// Time stamp of the newest packet; `None` before the first.
    pub newest_time: Option<Timestamp>,
    /// No packet will be added any more, unless the capture is started again.
    pub ended: bool,
}

/// What a savefile made of a store says in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Link type of a `.pcap` file. Packets of interfaces that have another are in `.pcapng` files
    /// only.
    pub link_type: LinkType,
    /// Resolution of the time stamps in the records.
    pub precision: Precision,
    /// Most bytes kept of one packet.
    pub snaplen: u32,
}

/// One interface packets came from, as a pcapng interface description block names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// `if_name`, such as `eth0`.
    pub name: Option<String>,
    /// `if_description`.
    pub description: Option<String>,
    /// `if_filter`: the filter expression that was in force.
    pub filter: Option<String>,
    /// Most bytes kept of one packet of this interface; 0 for no limit.
    pub snaplen: u32,
    /// Link type of its packets; `None` for [`Header::link_type`].
    pub link_type: Option<LinkType>,
}

/// Where a search in a store starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The packet of this number.
    Number(u64),
    /// The record that covers this offset, see [`Position::pcap`]; one of the header's link type.
    Pcap(u64),
    /// The block that covers this offset, see [`Position::pcapng`].
    Pcapng(u64),
}

impl Target {
    /// The coordinate of `position` that this target is measured in.
    #[must_use]
    pub const fn coordinate(self, position: &Position) -> u64 {
        match self {
            Self::Number(_) => position.number,
            Self::Pcap(_) => position.pcap,
            Self::Pcapng(_) => position.pcapng,
        }
    }

    /// The value searched for.
    #[must_use]
    pub const fn value(self) -> u64 {
        match self {
            Self::Number(value) | Self::Pcap(value) | Self::Pcapng(value) => value,
        }
    }
}

/// Why a chunk cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Its packets have been overwritten; go on at [`Bounds::oldest_chunk`].
    #[error("the packets asked for are no longer retained")]
    Lapped,
    /// No packet has been stored there yet.
    #[error("no packet has been stored there yet")]
    NotYet,
    /// The storage below failed, as when a mapped savefile was truncated by someone.
    #[error("{0}")]
    Failed(String),
}

/// A run of whole pcap records that stays in place until the chunk is dropped.
///
/// `bytes` holds records in this machine's byte order and the precision of [`Header`], and nothing
/// else: the bytes of a savefile without its file header, if all are of the header's link type.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// Chunks of a store are numbered without holes; the next one is `id + 1`.
    pub id: u64,
    /// Where the first record begins.
    pub first: Position,
    /// Packets before it, since packet 1, that are of another link type than the header's.
    pub foreign: u64,
    /// No record will be added to this chunk any more.
    pub complete: bool,
    /// The records.
    pub bytes: ChunkBytes<'a>,
}

/// Who keeps a chunk's bytes in place.
#[derive(Debug)]
pub enum ChunkBytes<'a> {
    /// Records of a ring, which are not overwritten while this exists.
    Held(Box<dyn Held + 'a>),
    /// A slice of a mapped savefile.
    Mapped(&'a [u8]),
    /// Records made from a savefile whose own are of another format.
    Converted(Arc<Converted>),
}

/// Records that stay in place for as long as this exists.
pub trait Held: std::fmt::Debug {
    /// The records: whole ones, back to back.
    fn bytes(&self) -> &[u8];

    /// Interface and note of the record with this index; `None` if it has interface 0 and no note.
    fn beside(&self, index: usize) -> Option<(RecordInterface, NoteRef<'_>)>;
}

/// Records made for sending out of something that is not a native pcap savefile.
#[derive(Debug, Default)]
pub struct Converted {
    /// Native records back to back.
    pub bytes: Vec<u8>,
    /// For each record the interface it came from; empty if the store has only interface 0.
    pub interfaces: Vec<RecordInterface>,
    /// What `.pcap` files have of it; `None` if they have all.
    pub selection: Option<Selection>,
    /// What the file says beside some of the records, in their order.
    pub notes: Vec<Note>,
}

/// What a pcapng file says beside a packet, in this machine's byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Index in the chunk of the record it belongs to.
    pub index: u32,
    /// Whole blocks that come before the packet.
    pub blocks: Vec<u8>,
    /// Options of the packet, without their end.
    pub options: Vec<u8>,
}

impl Note {
    /// The same, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> NoteRef<'_> {
        NoteRef { blocks: &self.blocks, options: &self.options }
    }

    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.options.is_empty()
    }
}

/// A [`Note`] where it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoteRef<'a> {
    /// Whole blocks that come before the packet.
    pub blocks: &'a [u8],
    /// Options of the packet, without their end.
    pub options: &'a [u8],
}

impl NoteRef<'_> {
    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.options.is_empty()
    }
}

/// What a pcapng file has after its last packet, in this machine's byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailing {
    /// Number of the packet that would follow.
    pub number: u64,
    /// How many interfaces are described before it, see [`Store::interfaces_before`].
    pub known: u32,
    /// Whole blocks.
    pub blocks: Arc<[u8]>,
    /// Bytes of it all: the blocks, and the descriptions since the last packet.
    pub len: u64,
}

/// The records of a [`Converted`] chunk that are of the header's link type, where some are not.
#[derive(Debug, Default)]
pub struct Selection {
    /// A copy of these records, back to back.
    pub bytes: Vec<u8>,
    /// Index in the chunk of each of them, in rising order.
    pub indices: Vec<u32>,
    /// Records in the chunk: above every index.
    pub records: u32,
}

impl Selection {
    /// How many records of the selection lie before the record with this index in the chunk.
    fn before(&self, index: u64) -> usize {
        self.indices.partition_point(|selected| u64::from(*selected) < index)
    }

    /// Index in the chunk of the record with this index in the selection; behind the last, that of
    /// the end of the chunk.
    fn index(&self, selected: usize) -> u64 {
        u64::from(self.indices.get(selected).copied().unwrap_or(self.records))
    }
}

/// Which interface a record of a [`Converted`] chunk came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordInterface {
    /// Index of the interface, see [`Store::interface`].
    pub id: u32,
    /// How many interfaces are described before this record; always above `id`.
    pub known: u32,
}

impl Chunk<'_> {
    /// The records: whole ones, back to back.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            ChunkBytes::Held(held) => held.bytes(),
            ChunkBytes::Mapped(bytes) => bytes,
            ChunkBytes::Converted(converted) => &converted.bytes,
        }
    }

    /// The records of the header's link type: what `.pcap` files have of the chunk.
    #[must_use]
    pub fn pcap_bytes(&self) -> &[u8] {
        self.selection().map_or_else(|| self.bytes(), |selection| &selection.bytes)
    }

    /// Number of the packet `count` records of [`Chunk::pcap_bytes`] behind that with `number`,
    /// or behind the place it would have among them; behind the last of them, that of the packet
    /// the next chunk begins with.
    pub(crate) fn pcap_number(&self, number: u64, count: u64) -> u64 {
        let Some(selection) = self.selection() else { return number.saturating_add(count) };
        let before = selection.before(number.saturating_sub(self.first.number));
        let selected = before.saturating_add(usize::try_from(count).unwrap_or(usize::MAX));
        self.first.number.saturating_add(selection.index(selected))
    }

    /// Whether the record with this index in the chunk is one of [`Chunk::pcap_bytes`].
    pub(crate) fn is_in_pcap(&self, index: usize) -> bool {
        self.selection().is_none_or(|selection| {
            u32::try_from(index).is_ok_and(|index| selection.indices.binary_search(&index).is_ok())
        })
    }

    /// Whether some of its records are not in `.pcap` files.
    pub(crate) fn is_mixed(&self) -> bool {
        self.selection().is_some()
    }

    fn selection(&self) -> Option<&Selection> {
        match &self.bytes {
            ChunkBytes::Converted(converted) => converted.selection.as_ref(),
            ChunkBytes::Held(_) | ChunkBytes::Mapped(_) => None,
        }
    }

    /// What the file says beside the record with this index in the chunk.
    #[must_use]
    pub fn note(&self, index: usize) -> NoteRef<'_> {
        match &self.bytes {
            ChunkBytes::Converted(converted) => {
                let found =
                    converted.notes.binary_search_by_key(&index, |note| note.index as usize);
                let note = found.ok().and_then(|at| converted.notes.get(at));
                note.map(Note::borrowed).unwrap_or_default()
            }
            ChunkBytes::Held(held) => held.beside(index).map(|(_, note)| note).unwrap_or_default(),
            ChunkBytes::Mapped(_) => NoteRef::default(),
        }
    }

    /// Interface of the record with this index in the chunk; `None` if it is interface 0, and
    /// nothing is described in front of the record.
    #[must_use]
    pub fn interface(&self, index: usize) -> Option<RecordInterface> {
        match &self.bytes {
            ChunkBytes::Converted(converted) => converted.interfaces.get(index).copied(),
            ChunkBytes::Held(held) => held.beside(index).map(|(interface, _)| interface),
            ChunkBytes::Mapped(_) => None,
        }
    }
}

/// A sequence of stored packets that any number of cursors read while one writer adds to it.
///
/// Everything here may be called at any rate from any thread, and never waits for the writer.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// What a savefile made of this store says; `None` until the source has said what it sends.
    fn header(&self) -> Option<Header>;

    /// The interface of this index; `None` past the last one known by now.
    fn interface(&self, id: u32) -> Option<Interface>;

    /// How many interfaces are described before the packet with this number, and not in front of
    /// it: at least 1 once [`Store::header`] is known. A file that begins with the packet describes
    /// these before everything.
    ///
    /// Those that are described before no packet are in front of everything. Each other is in front
    /// of the first packet that follows it, and the length of the description counts in
    /// [`Position::pcapng`].
    fn interfaces_before(&self, number: u64) -> u32;

    /// Options of the section that a pcapng file begins with, in this machine's byte order, without
    /// their end: comments on the capture and the machine it was made on.
    fn section_options(&self) -> &[u8] {
        &[]
    }

    /// What a pcapng file has after its last packet; `None` if nothing, or if that is not known yet.
    ///
    /// If a packet is added all the same, the blocks are a part of what is beside that packet.
    fn trailing(&self) -> Option<Arc<Trailing>> {
        None
    }

    /// What is retained now. The parts agree with each other: they are of one moment.
    fn bounds(&self) -> Bounds;

    /// Keeps a chunk in place and gives its records as of now.
    ///
    /// Hold the result only for the time of one reply: a ring has as many spare segments as there
    /// are threads that reply, and no more. Whoever holds one already asks for another with
    /// [`Store::pin_more`].
    ///
    /// # Errors
    /// See [`PinError`]; nothing is changed.
    ///
    /// # Blocking
    /// While others hold all chunks that may be held, until one of them lets go of one.
    fn pin(&self, chunk: u64) -> Result<Chunk<'_>, PinError>;

    /// Like [`Store::pin`], for one who holds a chunk already: never waits, since several who wait
    /// with a chunk in their hands would wait for each other.
    ///
    /// # Errors
    /// See [`PinError`]; [`PinError::NotYet`] also while others hold all that may be held.
    fn pin_more(&self, chunk: u64) -> Result<Chunk<'_>, PinError> {
        self.pin(chunk)
    }

    /// The chunk in which `target` lies.
    ///
    /// # Errors
    /// [`PinError::Lapped`] for one before the oldest retained packet, [`PinError::NotYet`] for
    /// one at or behind the end.
    fn find(&self, target: Target) -> Result<u64, PinError>;

    /// Whether what was read from pinned chunks so far was what the storage holds. Asked after
    /// the bytes were looked at and before they are believed.
    ///
    /// # Errors
    /// [`PinError::Failed`] if the storage below was pulled away meanwhile.
    fn intact(&self) -> Result<(), PinError> {
        Ok(())
    }

    /// Packets that were lost on the way into the store.
    fn losses(&self) -> Losses {
        Losses::default()
    }

    /// How many holes in time there have been, see [`Hole`]. Ask after the packets behind them were
    /// found, and for each chunk rather than for each packet.
    fn holes(&self) -> u64 {
        0
    }

    /// The hole of this index, counted from 0, with its index; instead of one that is too old to be
    /// remembered, the oldest that is. `None` if there is none yet.
    fn hole(&self, _index: u64) -> Option<(u64, Hole)> {
        None
    }

    /// Time stamp of the oldest retained packet.
    fn oldest_time(&self) -> Option<Timestamp> {
        let precision = self.header()?.precision;
        let chunk = self.pin(self.bounds().oldest_chunk).ok()?;
        Record::parse(chunk.bytes()).map(|record| record.time(precision))
    }

    /// Who is to be told when packets were added or the store has ended.
    fn bells(&self) -> &Bells;

    /// Bytes the records of the store may take, and how many chunks there are, for status.
    fn capacity(&self) -> Capacity;
}

/// Packets lost on the way into a store, since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Passed the filter but found the kernel's buffer full.
    pub kernel: u64,
    /// Dropped by the interface or its driver before the kernel saw them.
    pub interface: u64,
    /// Longer than the store can keep.
    pub oversize: u64,
}

/// Size of a store, for status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capacity {
    /// Bytes that retained records may take up: the size of the ring, or of the savefile.
    pub size: u64,
    /// Chunks the store is divided into.
    pub segments: u64,
    /// Chunks that hold packets.
    pub used: u64,
}
