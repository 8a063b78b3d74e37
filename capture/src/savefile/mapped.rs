//! A savefile as a store: it is mapped, never copied, and retained as a whole.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use super::convert::{Conversion, ConvertedChunks};
use super::index::{Index, IndexEntry, Indexer};
use super::map::FileMap;
use super::walk::{self, FileFormat, FileInterface};
use super::{Probe, SavefileOpenError};
use crate::bell::Bells;
use crate::filter::Filter;
use crate::store::{
    Bounds, Capacity, Chunk, ChunkBytes, Converted, Interface, PinError, Position, SearchTarget,
    Store, StoreHeader, StoreIdentity, Trailing,
};

/// The part of a savefile that is to be served.
#[derive(Debug, Default)]
pub struct SavefileOptions {
    /// Serve only packets that this filter matches, compiled for [`Probe::link_type`]. It sees the
    /// uncut packets. Its expression is compiled again for other link types.
    pub filter: Option<Filter>,
    /// Maximum bytes served of each packet; `None` and 0 for all bytes that the file has.
    pub snaplen: Option<u32>,
    /// Read data added to the file as well, until [`Savefile::index`] is stopped.
    pub follow: bool,
    /// Do not give the file's decryption secrets to readers of pcapng.
    pub without_keys: bool,
}

/// How [`Savefile::index`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexed {
    /// Everything that can be served of the file is in the index. [`Savefile::problem`] reports any
    /// part that is not.
    Finished,
    /// It was stopped; another call continues from there.
    Stopped,
}

/// A mapped savefile. See the [module](super).
///
/// The interfaces of a pcapng file are numbered across all its sections. Only readers of pcapng get
/// packets whose link type differs from that of the file's first packet.
#[derive(Debug)]
pub struct Savefile {
    map: FileMap,
    format: FileFormat,
    header: StoreHeader,
    leading: u32,
    /// Maximum bytes served of a packet, even of one that exceeds the file's snapshot length.
    snaplen: u32,
    follow: bool,
    without_keys: bool,
    section_options: Vec<u8>,
    index: RwLock<Index>,
    indexer: Mutex<Indexer>,
    cache: Mutex<ConvertedChunks>,
    /// Why chunks are no longer available: someone has changed the file.
    failure: OnceLock<String>,
    bells: Bells,
}

impl Savefile {
    /// Opens a savefile that needs no compiled filter; otherwise see [`Probe`].
    ///
    /// # Errors
    /// The errors of [`Probe::open`].
    pub fn open(path: &Path, options: SavefileOptions) -> Result<Self, SavefileOpenError> {
        Probe::open(path).map(|probe| probe.into_savefile(options))
    }

    pub(super) fn new(probe: Probe, options: SavefileOptions) -> Self {
        let Probe { map, format, mut header, interfaces } = probe;
        let snaplen = options.snaplen.filter(|snaplen| *snaplen != 0).unwrap_or(u32::MAX);
        header.snaplen = header.snaplen.min(snaplen);
        let leading = u32::try_from(interfaces.len()).unwrap_or(u32::MAX).max(1);
        let section_options = match format {
            FileFormat::Pcapng => walk::section_options(map.bytes()).unwrap_or_default(),
            FileFormat::Pcap(_) => Vec::new(),
        };
        let indexer = Indexer::new(&format, header.link_type, snaplen, options.filter, leading)
            .without_keys(options.without_keys);
        let index =
            Index { next: Position::START, interfaces: Arc::new(interfaces), ..Index::default() };
        Self {
            map,
            format,
            header,
            leading,
            snaplen,
            follow: options.follow,
            without_keys: options.without_keys,
            section_options,
            index: RwLock::new(index),
            indexer: Mutex::new(indexer),
            cache: Mutex::default(),
            failure: OnceLock::new(),
            bells: Bells::default(),
        }
    }

    /// Walks the file and makes its packets visible, some 256 KiB of records at a time. When this
    /// returns, the store has ended. After [`Indexed::Stopped`] it may be called again, and
    /// continues. With [`SavefileOptions::follow`] it returns when it is stopped, or when the file
    /// is malformed.
    ///
    /// # Blocking
    /// For as long as the walk takes, or until shortly after `stop` is set. A second caller waits
    /// for the first.
    pub fn index(&self, stop: &AtomicBool) -> Indexed {
        let mut indexer = self.indexer.lock();
        let shown = (&self.index, &self.bells);
        if indexer.run(&self.map, &self.format, shown, stop, self.follow) {
            Indexed::Finished
        } else {
            Indexed::Stopped
        }
    }

    /// Returns true if [`Savefile::index`] has something to do: it was stopped, or the file has
    /// grown since.
    ///
    /// # Errors
    /// Why the added data is not read, in one line.
    pub fn look_again(&self) -> Result<bool, String> {
        self.indexer.lock().look_again(&self.map)
    }

    /// Returns true if everything that the file had at some moment has been read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.index.read().is_read
    }

    /// Why a part of the file is not served, in one line; `None` if all of it is, or will be.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.failure.get().cloned().or_else(|| self.index.read().problem.clone())
    }

    /// Packets found in the file so far, whether they are served or not.
    #[must_use]
    pub fn raw_packets(&self) -> u64 {
        self.index.read().raw
    }

    /// Packets served so far whose link type is not [`StoreHeader::link_type`]. `.pcap` files lack
    /// them.
    #[must_use]
    pub fn foreign_packets(&self) -> u64 {
        self.index.read().foreign.packets
    }

    /// A notice for a file without errors, in one line: packets that only `.pcapng` files have, and
    /// packets for which the filter cannot be used.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let (foreign, left_out) = {
            let index = self.index.read();
            (index.foreign, index.left_out)
        };
        let name = self.header.link_type;
        let count = |count: u64| match count {
            1 => "1 packet is".to_owned(),
            _ => format!("{count} packets are"),
        };
        let pcapng_only = (foreign.packets > 0).then(|| {
            let count = count(foreign.packets);
            format!("{count} of another link type than {name} and in .pcapng files only")
        });
        let unfiltered = (foreign.unfiltered > 0).then(|| {
            let count = count(foreign.unfiltered);
            format!("{count} left out, of a link type the filter does not compile for")
        });
        let blocks = (left_out > 0).then(|| {
            let blocks =
                if left_out == 1 { "1 block is" } else { &format!("{left_out} blocks are") };
            format!(
                "{blocks} left out: of more than 1 MiB, damaged, or far from the packet after them"
            )
        });
        let notes: Vec<String> = pcapng_only.into_iter().chain(unfiltered).chain(blocks).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// The converted records of a chunk, from the cache or converted now.
    fn converted(
        &self,
        chunk: u64,
        entry: &IndexEntry,
        interfaces: &[FileInterface],
        pcap_len: u64,
    ) -> Result<Arc<Converted>, PinError> {
        // The last chunk of a growing file may have been shorter.
        let is_whole = |known: &Arc<Converted>| known.bytes.len() as u64 == entry.len;
        if let Some(converted) = self.cache.lock().get(chunk).filter(is_whole) {
            return Ok(converted);
        }
        let conversion = Conversion {
            bytes: self.map.bytes(),
            format: &self.format,
            interfaces,
            snaplen: self.snaplen,
            link_type: self.header.link_type,
            without_keys: self.without_keys,
        };
        let converted = conversion.convert(entry, pcap_len);
        // Check after reading: zeros in place of bytes that were cut off are never served.
        self.intact()?;
        let Some(converted) = converted else {
            return Err(self.fail(self.map.describe_change()));
        };
        let converted = Arc::new(converted);
        self.cache.lock().insert(chunk, Arc::clone(&converted));
        Ok(converted)
    }

    fn fail(&self, problem: String) -> PinError {
        PinError::Failed(self.failure.get_or_init(|| problem).clone())
    }
}

impl Store for Savefile {
    fn header(&self) -> Option<StoreHeader> {
        Some(self.header)
    }

    fn interface(&self, id: u32) -> Option<Interface> {
        let limited = |snaplen: u32| match snaplen {
            0 if self.snaplen == u32::MAX => 0,
            0 => self.snaplen,
            _ => snaplen.min(self.snaplen),
        };
        let interfaces = Arc::clone(&self.index.read().interfaces);
        match interfaces.get(usize::try_from(id).ok()?) {
            Some(described) => {
                let interface = walk::interface(self.map.bytes(), described).unwrap_or_default();
                let link_type = Some(described.link_type);
                Some(Interface { snaplen: limited(interface.snaplen), link_type, ..interface })
            }
            // A pcap file, or a pcapng file without interface descriptions.
            None if id == 0 => {
                Some(Interface { snaplen: self.header.snaplen, ..Interface::default() })
            }
            None => None,
        }
    }

    fn interfaces_before(&self, number: u64) -> u32 {
        // The number of interfaces that the packet before it knows.
        let known = || {
            let before = number.checked_sub(1)?;
            let chunk = self.pin(self.find(SearchTarget::Number(before)).ok()?).ok()?;
            let index = usize::try_from(before.checked_sub(chunk.first.number)?).ok()?;
            Some(chunk.interface(index)?.known)
        };
        known().map_or(self.leading, |known| known.max(self.leading))
    }

    fn section_options(&self) -> &[u8] {
        &self.section_options
    }

    fn bounds(&self) -> Bounds {
        let index = self.index.read();
        Bounds {
            oldest_chunk: 0,
            newest_chunk: (index.chunks.len() as u64).saturating_sub(u64::from(index.is_open)),
            oldest: Position::START,
            next: index.next,
            foreign_bytes: index.foreign.bytes,
            trailing: index.trailing.as_ref().map_or(0, |trailing| trailing.len),
            newest_time: index.newest,
            ended: index.ended,
        }
    }

    fn trailing(&self) -> Option<Arc<Trailing>> {
        self.index.read().trailing.clone()
    }

    fn pin(&self, chunk: u64) -> Result<Chunk<'_>, PinError> {
        let (entry, next, complete, interfaces) = {
            let index = self.index.read();
            let at = usize::try_from(chunk).map_err(|_| PinError::NotYet)?;
            let entry = index.chunks.get(at).ok_or(PinError::NotYet)?.clone();
            let next = at.checked_add(1).and_then(|at| index.chunks.get(at));
            let next = next.map_or(index.next, |next| next.first);
            let complete = !index.is_open || at.saturating_add(1) < index.chunks.len();
            (entry, next, complete, Arc::clone(&index.interfaces))
        };
        if let Some(problem) = self.failure.get() {
            return Err(PinError::Failed(problem.clone()));
        }
        self.map.check_lately().map_err(|problem| self.fail(problem))?;
        let bytes = if entry.whole && self.format.is_native() {
            let bytes = self.map.bytes().get(entry.place.offset..entry.end);
            ChunkBytes::Mapped(bytes.unwrap_or_default())
        } else {
            let pcap_len = next.pcap.saturating_sub(entry.first.pcap);
            ChunkBytes::Converted(self.converted(chunk, &entry, &interfaces, pcap_len)?)
        };
        let IndexEntry { first, foreign, .. } = entry;
        Ok(Chunk { id: chunk, first, foreign, complete, bytes })
    }

    fn find(&self, target: SearchTarget) -> Result<u64, PinError> {
        let index = self.index.read();
        let value = target.value();
        if value < target.coordinate(&Position::START) {
            return Err(PinError::Lapped);
        }
        if value >= target.coordinate(&index.next) {
            return Err(PinError::NotYet);
        }
        let behind = index.chunks.partition_point(|entry| target.coordinate(&entry.first) <= value);
        // The first chunk begins at START, so the result is at least 1.
        behind.checked_sub(1).map(|chunk| chunk as u64).ok_or(PinError::NotYet)
    }

    /// Once a savefile has been cut while mounted, no part of it is trusted.
    fn intact(&self) -> Result<(), PinError> {
        self.map.check().map_err(|problem| self.fail(problem))
    }

    fn identity(&self) -> StoreIdentity {
        StoreIdentity { store: self.map.identity(), epoch: 1 }
    }

    fn bells(&self) -> &Bells {
        &self.bells
    }

    fn capacity(&self) -> Capacity {
        let chunks = self.index.read().chunks.len() as u64;
        Capacity { size: self.map.bytes().len() as u64, segments: chunks, used: chunks }
    }
}
