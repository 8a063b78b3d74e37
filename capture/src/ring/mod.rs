//! The shared ring: one file, one writer, any number of cursors.
//!
//! A ring is a file of equal segments, mapped shared ([`layout`]). The writer fills one segment
//! after the other with pcap records; when the ring is full, the oldest segment is dropped. Readers
//! pin a segment while they reply from it, and the writer takes only unpinned segments. Spare
//! segments ensure that an unpinned one always exists ([`pins`], [`map`]). A new process takes over
//! the file of a killed process with every committed record ([`recover`]).
//!
//! The one invariant that readers rely on: packet numbers, byte positions and record bytes never
//! change once published. They can only cease to be retained, oldest segment first.

mod copy;
mod flight;
mod geometry;
mod interfaces;
mod layout;
mod lineage;
mod map;
mod notes;
mod open;
mod pins;
mod published;
mod recover;
mod shared;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nix::fcntl::Flock;
use parking_lot::{Mutex, RwLock};
use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

pub use geometry::{BadSize, Geometry, MAX_PINS, MAX_RING, MIN_RING};
pub use interfaces::MAX_INTERFACES;
pub use lineage::FarPlace;
pub use open::{OpenedRing, RingError, RingOptions};
pub use shared::{RecordLengths, RecordRun, SharedWriter};
pub use writer::{Append, Writer};

use crate::bell::Bells;
use crate::hole::{Hole, StoreHoles};
use crate::store::{
    Bounds, Capacity, Chunk, ChunkBytes, Interface, Losses, PinError, Position, SearchTarget,
    Store, StoreHeader, StoreIdentity, StorePlace, Trailing,
};
use interfaces::{RingInterfaces, Section};
use layout::RingHeader;
use map::{Pin, Segments};
use published::Published;

/// Owner, group and permission bits of a capture, kept in its ring file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits, `0o777` at most.
    pub mode: u32,
}

/// The number of an open ring, which no other ring of this process has or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RingNumber(u64);

impl RingNumber {
    /// The number of a ring that is being opened.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Only the difference between two numbers matters.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A ring, whether it is still being filled or not; see the [module](self).
#[derive(Debug)]
pub struct Ring {
    segments: Arc<Segments>,
    published: Published,
    bells: Bells,
    holes: StoreHoles,
    ended: AtomicBool,
    /// Number of retained segments.
    used: AtomicU64,
    /// Packets that were gone before they could be fetched from another ring.
    lost_remote: AtomicU64,
    precision: Precision,
    link_type: OnceLock<LinkType>,
    /// The source itself, as the capture described it.
    own: Interface,
    interfaces: Mutex<RingInterfaces>,
    section: Section,
    /// Blocks of a stream after its last packet. They are not in the file, and are lost when this
    /// process ends.
    trailing: RwLock<Option<Arc<Trailing>>>,
    path: PathBuf,
    number: RingNumber,
    /// Whether the file is in a tmpfs.
    is_in_memory: bool,
    /// Excludes other processes for as long as the ring is used.
    _lock: Flock<std::fs::File>,
}

impl Ring {
    fn file_header(&self) -> &RingHeader {
        self.segments.map().header()
    }

    /// The ring's shape.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.segments.map().geometry()
    }

    /// Resolution of the time stamps in the records.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the ring in this process.
    #[must_use]
    pub fn number(&self) -> RingNumber {
        self.number
    }

    /// The permissions kept with the ring; `None` if none have been set.
    #[must_use]
    pub fn permissions(&self) -> Option<Permissions> {
        let header = self.file_header();
        (header.has_permissions.load(Ordering::Acquire) == 1).then(|| Permissions {
            uid: header.uid.load(Ordering::Relaxed),
            gid: header.gid.load(Ordering::Relaxed),
            mode: header.mode.load(Ordering::Relaxed) & 0o777,
        })
    }

    /// Keeps permissions with the ring, for the next process that opens it.
    pub fn set_permissions(&self, permissions: Permissions) {
        let header = self.file_header();
        header.uid.store(permissions.uid, Ordering::Relaxed);
        header.gid.store(permissions.gid, Ordering::Relaxed);
        header.mode.store(permissions.mode, Ordering::Relaxed);
        header.has_permissions.store(1, Ordering::Release);
    }

    /// See [`Writer::declare`].
    fn declare(&self, link_type: LinkType, snaplen: u32) -> Result<(), LinkType> {
        let known = *self.link_type.get_or_init(|| {
            let header = self.file_header();
            header.link_type.store(u32::from(link_type.0), Ordering::Relaxed);
            header.checksum.store(header.compute_checksum(), Ordering::Release);
            link_type
        });
        if known != link_type {
            return Err(known);
        }
        self.file_header().snaplen.fetch_max(snaplen, Ordering::Relaxed);
        Ok(())
    }

    /// The source itself, as the capture described it.
    #[must_use]
    pub fn own_interface(&self) -> &Interface {
        &self.own
    }

    /// Gives a segment its pages before the writer reaches it, so that the writer takes no faults
    /// on its first lap; false if nothing is left to do. For a thread beside the writer's.
    ///
    /// Does nothing unless the ring is in memory: on a disk, all touched pages are written.
    #[must_use]
    pub fn populate_next(&self) -> bool {
        self.is_in_memory && self.segments.populate_next()
    }

    fn first_of(&self, chunk: u64) -> Option<Position> {
        self.segments.pin(chunk).map(|pin| pin.first())
    }
}

fn pinned(id: u64, pin: Pin<'_>) -> Chunk<'_> {
    Chunk {
        id,
        first: pin.first(),
        foreign: 0,
        complete: pin.is_complete(),
        bytes: ChunkBytes::Held(Box::new(pin)),
    }
}

impl Store for Ring {
    fn header(&self) -> Option<StoreHeader> {
        self.link_type.get().map(|&link_type| StoreHeader {
            link_type,
            precision: self.precision,
            snaplen: self.file_header().snaplen.load(Ordering::Relaxed),
        })
    }

    fn interface(&self, id: u32) -> Option<Interface> {
        self.interfaces.lock().get(id).cloned()
    }

    fn interfaces_before(&self, number: u64) -> u32 {
        self.interfaces.lock().before(number)
    }

    fn section_options(&self) -> &[u8] {
        self.section.get().map_or(&[], |options| options)
    }

    fn trailing(&self) -> Option<Arc<Trailing>> {
        self.trailing.read().clone()
    }

    fn bounds(&self) -> Bounds {
        // Before the numbers: a reader that sees the end sees all packets before it.
        let ended = self.ended.load(Ordering::SeqCst);
        let moment = self.published.read();
        Bounds {
            oldest_chunk: moment.oldest_chunk,
            newest_chunk: moment.newest_chunk,
            oldest: moment.oldest,
            next: moment.next,
            foreign_bytes: 0,
            trailing: if ended { self.trailing().map_or(0, |trailing| trailing.len) } else { 0 },
            newest_time: (moment.next.number > 1)
                .then(|| Timestamp::from_nanoseconds(moment.newest_time)),
            ended,
        }
    }

    fn pin(&self, chunk: u64) -> Result<Chunk<'_>, PinError> {
        match self.segments.pin(chunk) {
            Some(pin) => Ok(pinned(chunk, pin)),
            None if chunk < self.published.read().oldest_chunk => Err(PinError::Lapped),
            None if chunk > self.published.read().newest_chunk => Err(PinError::NotYet),
            // Retired or opened just now, and not published yet.
            None => match self.segments.pin(chunk) {
                Some(_) => Err(PinError::NotYet),
                None => Err(PinError::Lapped),
            },
        }
    }

    fn pin_more(&self, chunk: u64) -> Result<Chunk<'_>, PinError> {
        match self.segments.try_pin(chunk) {
            Ok(pin) => Ok(pinned(chunk, pin)),
            Err(_) if chunk < self.published.read().oldest_chunk => Err(PinError::Lapped),
            // Not opened yet, about to be retired, or the maximum number of chunks is pinned.
            Err(_) => Err(PinError::NotYet),
        }
    }

    fn find(&self, target: SearchTarget) -> Result<u64, PinError> {
        loop {
            let moment = self.published.read();
            if target.value() < target.coordinate(&moment.oldest) {
                return Err(PinError::Lapped);
            }
            if target.value() >= target.coordinate(&moment.next) {
                return Err(PinError::NotYet);
            }
            // Invariant: the target lies at or after the beginning of `low`, and before that of
            // `high`.
            let (mut low, mut high) = (moment.oldest_chunk, moment.newest_chunk + 1);
            let mut lapped = false;
            while high - low > 1 && !lapped {
                let middle = low + (high - low) / 2;
                match self.first_of(middle) {
                    Some(first) if target.coordinate(&first) <= target.value() => low = middle,
                    Some(_) => high = middle,
                    None => lapped = true,
                }
            }
            if !lapped {
                return Ok(low);
            }
            // At worst, a segment was retired just now, and that is not published yet.
            std::thread::yield_now();
        }
    }

    fn losses(&self) -> Losses {
        let header = self.file_header();
        Losses {
            kernel: header.dropped_kernel.load(Ordering::Relaxed),
            interface: header.dropped_interface.load(Ordering::Relaxed),
            oversize: header.dropped_oversize.load(Ordering::Relaxed),
            remote: self.lost_remote.load(Ordering::Relaxed),
        }
    }

    fn excluded(&self) -> u64 {
        self.file_header().excluded.load(Ordering::Relaxed)
    }

    fn identity(&self) -> StoreIdentity {
        self.file_header().lineage.identity()
    }

    fn continued(&self, place: StorePlace) -> Option<u64> {
        self.file_header().lineage.continued(place)
    }

    fn holes(&self) -> u64 {
        self.holes.count()
    }

    fn hole(&self, index: u64) -> Option<(u64, Hole)> {
        self.holes.get(index)
    }

    fn intact(&self) -> Result<(), PinError> {
        if self.segments.map().is_torn() {
            let path = self.path.display();
            return Err(PinError::Failed(format!("{path} was cut short while in use")));
        }
        Ok(())
    }

    fn bells(&self) -> &Bells {
        &self.bells
    }

    fn capacity(&self) -> Capacity {
        let geometry = self.geometry();
        Capacity {
            size: geometry.size(),
            segments: u64::from(geometry.segments),
            used: self.used.load(Ordering::Relaxed),
        }
    }
}
