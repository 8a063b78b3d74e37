//! The interface of all stores of packets, for their readers.
//!
//! There are two stores: the shared [ring](crate::ring) of a live capture, and a mapped
//! [savefile](crate::savefile). Cursors, and everything built on cursors, see both through
//! [`Store`]: a sequence of packets numbered from 1, divided into *chunks* of whole pcap records
//! back to back. The oldest chunks may have been dropped, and new ones may be added at the end.
//!
//! The one invariant: a packet's number, its bytes and its [`Position`] never change once it is
//! visible in [`Store::bounds`]. It can only disappear, together with all packets before it.

use std::sync::Arc;

use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

use crate::bell::Bells;
use crate::hole::Hole;
use crate::record::PacketRecord;

/// A place between two stored packets, in the three measures that readers use.
///
/// All three grow together: if `a.number <= b.number`, the same holds for the other two. Only
/// `pcap` may stay the same, across packets that `.pcap` files lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the packet that begins here; the first packet of a capture is number 1.
    pub number: u64,
    /// Bytes of all pcap records (16-byte header and data) of [`StoreHeader::link_type`] before
    /// this place, since packet 1.
    pub pcap: u64,
    /// Bytes of all pcapng packet blocks, and interface blocks between them, before this place.
    pub pcapng: u64,
}

impl Position {
    /// The beginning of packet number 1.
    pub const START: Self = Self { number: 1, pcap: 0, pcapng: 0 };
}

/// The contents of a store at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Chunk that holds the oldest retained packet.
    pub oldest_chunk: u64,
    /// The chunk that will hold the next packet, or one shortly before it.
    pub newest_chunk: u64,
    /// The beginning of the oldest retained packet; equals `next` when nothing is retained.
    pub oldest: Position,
    /// The beginning of the next packet.
    pub next: Position,
    /// Bytes of the records that [`Position::pcap`] of `next` leaves out, because their link type
    /// differs from the header's. Only a store that drops nothing has such records.
    pub foreign_bytes: u64,
    /// Bytes of a pcapng file after the last packet, see [`Store::trailing`]; `next` is before
    /// them.
    pub trailing: u64,
    /// Time stamp of the newest packet; `None` before the first.
    pub newest_time: Option<Timestamp>,
    /// Whether no more packets will be added, unless the capture is started again.
    pub ended: bool,
}

/// The header of a savefile made from a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHeader {
    /// Link type of a `.pcap` file. Packets with other link types are only in `.pcapng` files.
    pub link_type: LinkType,
    /// Resolution of the time stamps in the records.
    pub precision: Precision,
    /// Maximum bytes kept of one packet.
    pub snaplen: u32,
}

/// An interface from which packets came, with the fields of a pcapng interface description block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// `if_name`, such as `eth0`.
    pub name: Option<String>,
    /// `if_description`.
    pub description: Option<String>,
    /// `if_filter`: the filter expression in force.
    pub filter: Option<String>,
    /// Maximum bytes kept of one packet of this interface; 0 for no limit.
    pub snaplen: u32,
    /// Link type of its packets; `None` for [`StoreHeader::link_type`].
    pub link_type: Option<LinkType>,
}

/// The target of a search in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchTarget {
    /// The packet with this number.
    Number(u64),
    /// The record that covers this offset, see [`Position::pcap`]; it has the header's link type.
    Pcap(u64),
    /// The block that covers this offset, see [`Position::pcapng`].
    Pcapng(u64),
}

impl SearchTarget {
    /// The coordinate of `position` in the measure of this target.
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

/// Why a chunk is not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Its packets have been overwritten; continue at [`Bounds::oldest_chunk`].
    #[error("the packets asked for are no longer retained")]
    Lapped,
    /// No packet has been stored there yet.
    #[error("no packet has been stored there yet")]
    NotYet,
    /// The storage failed, for example because someone truncated a mapped savefile.
    #[error("{0}")]
    Failed(String),
}

/// A run of whole pcap records that stays in place until the chunk is dropped.
///
/// `bytes` holds only records, in this machine's byte order and the precision of [`StoreHeader`].
/// If all are of the header's link type, these are the bytes of a savefile without its file header.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// Chunks of a store are numbered without gaps; the next one is `id + 1`.
    pub id: u64,
    /// Position of the first record.
    pub first: Position,
    /// Packets before this chunk, since packet 1, with another link type than the header's.
    pub foreign: u64,
    /// Whether no more records will be added to this chunk.
    pub complete: bool,
    /// The records.
    pub bytes: ChunkBytes<'a>,
}

/// The owner of a chunk's bytes.
#[derive(Debug)]
pub enum ChunkBytes<'a> {
    /// Records of a ring, which are not overwritten while this exists.
    Held(Box<dyn HeldRecords + 'a>),
    /// A slice of a mapped savefile.
    Mapped(&'a [u8]),
    /// Records converted from a savefile of another format.
    Converted(Arc<Converted>),
}

/// Records that stay in place for as long as this exists.
pub trait HeldRecords: std::fmt::Debug {
    /// The records: whole ones, back to back.
    fn bytes(&self) -> &[u8];

    /// Interface and note of the record with this index; `None` if it has interface 0 and no note.
    fn beside(&self, index: usize) -> Option<(RecordInterface, NoteRef<'_>)>;
}

/// Records converted from something other than a native pcap savefile.
#[derive(Debug, Default)]
pub struct Converted {
    /// Native records back to back.
    pub bytes: Vec<u8>,
    /// The interface of each record; empty if the store has only interface 0.
    pub interfaces: Vec<RecordInterface>,
    /// The records that `.pcap` files have; `None` if they have all.
    pub selection: Option<Selection>,
    /// The notes of records, in the order of the records.
    pub notes: Vec<PacketNote>,
}

/// The data that a pcapng file has beside a packet, in this machine's byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketNote {
    /// Index in the chunk of the record that it belongs to.
    pub index: u32,
    /// Whole blocks before the packet.
    pub blocks: Vec<u8>,
    /// Options of the packet, without their end.
    pub options: Vec<u8>,
}

impl PacketNote {
    /// The same note, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> NoteRef<'_> {
        NoteRef { blocks: &self.blocks, options: &self.options }
    }

    /// Returns true if it has neither blocks nor options.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.options.is_empty()
    }
}

/// A borrowed [`PacketNote`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoteRef<'a> {
    /// Whole blocks before the packet.
    pub blocks: &'a [u8],
    /// Options of the packet, without their end.
    pub options: &'a [u8],
}

impl NoteRef<'_> {
    /// Returns true if it has neither blocks nor options.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.options.is_empty()
    }
}

/// The blocks of a pcapng file after its last packet, in this machine's byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailing {
    /// Number of the packet that would follow.
    pub number: u64,
    /// Number of interfaces described before it, see [`Store::interfaces_before`].
    pub known: u32,
    /// Whole blocks.
    pub blocks: Arc<[u8]>,
    /// Bytes of the blocks, and of the descriptions since the last packet.
    pub len: u64,
}

/// The records of a [`Converted`] chunk with the header's link type, if the chunk has others too.
#[derive(Debug, Default)]
pub struct Selection {
    /// A copy of these records, back to back.
    pub bytes: Vec<u8>,
    /// Index in the chunk of each of these records, in rising order.
    pub indices: Vec<u32>,
    /// Number of records in the chunk: above every index.
    pub records: u32,
}

impl Selection {
    /// Number of selected records before the record with this index in the chunk.
    fn before(&self, index: u64) -> usize {
        self.indices.partition_point(|selected| u64::from(*selected) < index)
    }

    /// Index in the chunk of the record with this index in the selection; after the last one, the
    /// index of the end of the chunk.
    fn index(&self, selected: usize) -> u64 {
        u64::from(self.indices.get(selected).copied().unwrap_or(self.records))
    }
}

/// The interface of a record of a [`Converted`] chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordInterface {
    /// Index of the interface, see [`Store::interface`].
    pub id: u32,
    /// Number of interfaces described before this record; always above `id`.
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

    /// The records with the header's link type: the part of the chunk that `.pcap` files have.
    #[must_use]
    pub fn pcap_bytes(&self) -> &[u8] {
        self.selection().map_or_else(|| self.bytes(), |selection| &selection.bytes)
    }

    /// Number of the packet `count` records of [`Chunk::pcap_bytes`] after the packet with
    /// `number`. If that packet is not among them, counts from the place it would have. After the
    /// last of them, the number of the packet with which the next chunk begins.
    pub(crate) fn pcap_number(&self, number: u64, count: u64) -> u64 {
        let Some(selection) = self.selection() else { return number.saturating_add(count) };
        let before = selection.before(number.saturating_sub(self.first.number));
        let selected = before.saturating_add(usize::try_from(count).unwrap_or(usize::MAX));
        self.first.number.saturating_add(selection.index(selected))
    }

    /// Returns true if the record with this index in the chunk is one of [`Chunk::pcap_bytes`].
    pub(crate) fn is_in_pcap(&self, index: usize) -> bool {
        self.selection().is_none_or(|selection| {
            u32::try_from(index).is_ok_and(|index| selection.indices.binary_search(&index).is_ok())
        })
    }

    /// Returns true if `.pcap` files lack some of its records.
    pub(crate) fn is_mixed(&self) -> bool {
        self.selection().is_some()
    }

    fn selection(&self) -> Option<&Selection> {
        match &self.bytes {
            ChunkBytes::Converted(converted) => converted.selection.as_ref(),
            ChunkBytes::Held(_) | ChunkBytes::Mapped(_) => None,
        }
    }

    /// The note of the record with this index in the chunk.
    #[must_use]
    pub fn note(&self, index: usize) -> NoteRef<'_> {
        match &self.bytes {
            ChunkBytes::Converted(converted) => {
                let found =
                    converted.notes.binary_search_by_key(&index, |note| note.index as usize);
                let note = found.ok().and_then(|at| converted.notes.get(at));
                note.map(PacketNote::borrowed).unwrap_or_default()
            }
            ChunkBytes::Held(held) => held.beside(index).map(|(_, note)| note).unwrap_or_default(),
            ChunkBytes::Mapped(_) => NoteRef::default(),
        }
    }

    /// Interface of the record with this index in the chunk; `None` if it is interface 0, and no
    /// description comes right before the record.
    #[must_use]
    pub fn interface(&self, index: usize) -> Option<RecordInterface> {
        match &self.bytes {
            ChunkBytes::Converted(converted) => converted.interfaces.get(index).copied(),
            ChunkBytes::Held(held) => held.beside(index).map(|(interface, _)| interface),
            ChunkBytes::Mapped(_) => None,
        }
    }
}

/// A sequence of stored packets that any number of cursors read while one writer appends to it.
///
/// All methods may be called at any rate from any thread, and never wait for the writer.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The header of a savefile made from this store; `None` until the source has sent it.
    fn header(&self) -> Option<StoreHeader>;

    /// The interface with this index; `None` after the last one known so far.
    fn interface(&self, id: u32) -> Option<Interface>;

    /// Number of interfaces described before the packet with this number, without those described
    /// right before it; at least 1 once [`Store::header`] is known. A file that begins with the
    /// packet describes these before everything.
    ///
    /// Interfaces described before the first packet come before everything. Every other description
    /// comes right before the first packet that follows it, and its length counts in
    /// [`Position::pcapng`].
    fn interfaces_before(&self, number: u64) -> u32;

    /// Options of the section at the beginning of a pcapng file, in this machine's byte order,
    /// without their end: comments on the capture, and on the machine it was made on.
    fn section_options(&self) -> &[u8] {
        &[]
    }

    /// The blocks of a pcapng file after its last packet; `None` if there are no blocks, or if they
    /// are not known yet.
    ///
    /// If a packet is added later, these blocks come before that packet.
    fn trailing(&self) -> Option<Arc<Trailing>> {
        None
    }

    /// The packets retained now. All values are of the same moment.
    fn bounds(&self) -> Bounds;

    /// Keeps a chunk in place and returns its current records.
    ///
    /// Hold the result only for the time of one reply: the number of spare segments of a ring
    /// limits how many chunks can be held. A caller that holds a chunk already must use
    /// [`Store::pin_more`] for another.
    ///
    /// # Errors
    /// See [`PinError`]; nothing changes then.
    ///
    /// # Blocking
    /// While others hold the maximum number of chunks, until one of them is released.
    fn pin(&self, chunk: u64) -> Result<Chunk<'_>, PinError>;

    /// Like [`Store::pin`], for a caller that holds a chunk already. It never waits, because
    /// callers that hold chunks would wait for each other.
    ///
    /// # Errors
    /// See [`PinError`]; [`PinError::NotYet`] also while others hold the maximum number of chunks.
    fn pin_more(&self, chunk: u64) -> Result<Chunk<'_>, PinError> {
        self.pin(chunk)
    }

    /// The chunk that contains `target`.
    ///
    /// # Errors
    /// [`PinError::Lapped`] for a target before the oldest retained packet, [`PinError::NotYet`]
    /// for a target at or after the end.
    fn find(&self, target: SearchTarget) -> Result<u64, PinError>;

    /// Checks that all bytes read from pinned chunks so far were the stored ones. Call it after
    /// reading the bytes and before using them.
    ///
    /// # Errors
    /// [`PinError::Failed`] if the storage has been cut off in the meantime.
    fn intact(&self) -> Result<(), PinError> {
        Ok(())
    }

    /// Packets that were lost on the way into the store.
    fn losses(&self) -> Losses {
        Losses::default()
    }

    /// Packets of our own transport, which were captured and not stored. They are no losses.
    fn excluded(&self) -> u64 {
        0
    }

    /// The identity of the packet numbers that this store gives now.
    fn identity(&self) -> StoreIdentity {
        StoreIdentity::default()
    }

    /// The number of the next packet for a reader that has read up to `place`, perhaps long ago;
    /// `None` if that was another store. Numbers that the store has given again since are read
    /// again.
    fn continued(&self, place: StorePlace) -> Option<u64> {
        let own = self.identity();
        (own.store != 0 && place.identity == own).then_some(place.next)
    }

    /// Number of holes in time so far, see [`Hole`]. Call it after the packets that follow the
    /// holes were found, and for each chunk rather than for each packet.
    fn holes(&self) -> u64 {
        0
    }

    /// The hole with this index, counted from 0, and its index. If it is too old to be remembered,
    /// the oldest remembered hole. `None` if the hole has not occurred yet.
    fn hole(&self, _index: u64) -> Option<(u64, Hole)> {
        None
    }

    /// Time stamp of the oldest retained packet.
    fn oldest_time(&self) -> Option<Timestamp> {
        let precision = self.header()?.precision;
        let chunk = self.pin(self.bounds().oldest_chunk).ok()?;
        PacketRecord::parse(chunk.bytes()).map(|record| record.time(precision))
    }

    /// The bells to ring when packets were added or the store has ended.
    fn bells(&self) -> &Bells;

    /// Maximum bytes of the store's records, and the number of its chunks, for status.
    fn capacity(&self) -> Capacity;
}

/// Packets lost on the way into a store, since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Packets that passed the filter but found the kernel's buffer full.
    pub kernel: u64,
    /// Packets dropped by the interface or its driver before the kernel saw them.
    pub interface: u64,
    /// Packets longer than the store can keep.
    pub oversize: u64,
    /// Packets of another machine's capture that were gone before they could be fetched.
    pub remote: u64,
}

/// The identity of the packet numbers of a store, across the processes that open it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreIdentity {
    /// A random number of the ring, or a digest of the savefile; 0 for a store without identity.
    pub store: u64,
    /// Rises when numbers may be given a second time, as after a machine has lost its power.
    pub epoch: u64,
}

/// A place in a store that a reader remembers across the processes that open it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorePlace {
    /// The store, as it was when the reader read it last.
    pub identity: StoreIdentity,
    /// Number of the next packet wanted.
    pub next: u64,
}

/// Size of a store, for status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capacity {
    /// Maximum bytes of retained records: the size of the ring, or of the savefile.
    pub size: u64,
    /// Number of chunks of the store.
    pub segments: u64,
    /// Number of chunks that hold packets.
    pub used: u64,
}
