//! Creates a ring file, or takes over an existing one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::geteuid;
use parking_lot::{Mutex, RwLock};
use protocol::linktype::LinkType;
use protocol::time::{Precision, Timestamp};

use super::copy;
use super::geometry::{BadSize, Geometry, PAGE};
use super::interfaces::{RingInterfaces, Section};
use super::layout::{Committed, DESCRIPTIONS, NO_LINK_TYPE, precision_number};
use super::map::{Resume, RingMap, SegmentOpening, Segments};
use super::published::{Moment, Published};
use super::recover::{Claims, MAX_FIELD, read_claims, recover};
use super::writer::{Writer, WriterStart};
use super::{Ring, RingNumber};
use crate::bell::Bells;
use crate::clock;
use crate::hole::StoreHoles;
use crate::store::{Interface, Position, Store};

/// Properties of the ring to open.
#[derive(Clone, Debug)]
pub struct RingOptions {
    /// The ring file; its directory must exist.
    pub path: PathBuf,
    /// Bytes of packets to retain.
    pub size: u64,
    /// Maximum number of bytes kept of one packet.
    pub snaplen: u32,
    /// Resolution of the time stamps.
    pub precision: Precision,
    /// Link type of the source; `None` until the source has sent it.
    pub link_type: Option<LinkType>,
    /// The source of the packets, for pcapng readers.
    pub interface: Interface,
}

/// Why a ring cannot be opened. None of these errors changes anything.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// No ring has this size.
    #[error(transparent)]
    Size(#[from] BadSize),
    /// Another process, or another capture of this one, fills the ring.
    #[error(
        "{path}: in use by another capture (give this one another alias, or another --ring-dir)"
    )]
    InUse {
        /// The ring file.
        path: PathBuf,
    },
    /// The directory's file system has no room for the whole ring.
    #[error(
        "{path}: no room for a ring of {needed} MiB (make --ring smaller, or choose another --ring-dir)"
    )]
    NoSpace {
        /// The ring file.
        path: PathBuf,
        /// Mebibytes the file takes.
        needed: u64,
    },
    /// Another user could read the packets in the file, or put others there.
    #[error("{path}: not used as a ring: it is {why} (remove it, or choose another --ring-dir)")]
    Foreign {
        /// The ring file.
        path: PathBuf,
        /// The kind of file it is, instead of one that belongs to this user alone.
        why: &'static str,
    },
    /// The file is not a ring, or is damaged beyond its segments.
    #[error("{path}: not a ring this program can use: {why} (delete the file to start afresh)")]
    Damaged {
        /// The ring file.
        path: PathBuf,
        /// The damage, for people.
        why: String,
    },
    /// The retained packets and the packets of the source cannot be in one savefile.
    #[error(
        "{path}: holds {held} packets, the source now sends {sent} (delete the file to start afresh, or choose another alias)"
    )]
    Mismatch {
        /// The ring file.
        path: PathBuf,
        /// Link type or precision retained.
        held: String,
        /// Link type or precision of the source.
        sent: String,
    },
    /// The file cannot be created in its directory.
    #[error("{path}: no ring can be made there: {error} (choose another --ring-dir)")]
    NotMade {
        /// The ring file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// Another error of the system.
    #[error("{path}: {error}")]
    System {
        /// The ring file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

/// A ring ready to be filled.
#[derive(Debug)]
pub struct OpenedRing {
    /// For cursors.
    pub ring: Arc<Ring>,
    /// For the source.
    pub writer: Writer,
    /// Packets an earlier process left in it.
    pub recovered: u64,
    /// When that process was last known to capture, to within some seconds.
    pub left: Option<Timestamp>,
    /// The part of an earlier ring that could not be kept, for people.
    pub damage: Option<String>,
}

impl Ring {
    /// Opens the ring in `options.path`, with everything that an earlier process left in it, or
    /// creates it. A ring of another size is replaced by one of the requested size, with as many of
    /// its packets as fit.
    ///
    /// All memory is reserved here, so that a full file system is an error now and not a signal
    /// later.
    ///
    /// # Errors
    /// [`RingError`]; an existing file is left as it was.
    pub fn open(options: &RingOptions) -> Result<OpenedRing, RingError> {
        let geometry = Geometry::new(options.size, options.snaplen)?;
        let path = options.path.as_path();
        let system = |error| RingError::System { path: path.to_owned(), error };
        loop {
            // Do not follow a link, which leads to another's file, and do not wait for a FIFO.
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
                Ok(file) => {
                    check_owner(&file, path)?;
                    let file = lock(file, path)?;
                    // Its last owner may have put another file in its place before releasing the
                    // lock.
                    if !is_at(&file, path).map_err(system)? {
                        continue;
                    }
                    clear_away(path).map_err(system)?;
                    if was_cut_short(&file).map_err(system)? {
                        return form(options, path, file, geometry, Position::START, 1);
                    }
                    let old = Existing::read(file, options)?;
                    return if old.claims.geometry == geometry {
                        Ok(old.adopt(options))
                    } else {
                        old.resize(options, geometry)
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match create_at(options, path, geometry, Position::START, 1) {
                        Err(RingError::System { error, .. })
                            if error.kind() == io::ErrorKind::AlreadyExists => {}
                        created => return created,
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                    return Err(RingError::Foreign { path: path.to_owned(), why: "a link" });
                }
                Err(error) => return Err(system(error)),
            }
        }
    }
}

/// Checks that no other user could have changed the file, and prevents other users from reading it.
fn check_owner(file: &File, path: &Path) -> Result<(), RingError> {
    let system = |error| RingError::System { path: path.to_owned(), error };
    let metadata = file.metadata().map_err(system)?;
    let why = if metadata.uid() != geteuid().as_raw() {
        "another user's"
    } else if metadata.is_file() && metadata.mode() & 0o022 != 0 {
        "writable for other users"
    } else if metadata.is_file() && metadata.nlink() > 1 {
        "a file with a second name"
    } else {
        // For example a copy, with the mode that copies get.
        if metadata.is_file() && metadata.mode() & 0o055 != 0 {
            file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(system)?;
        }
        return Ok(());
    };
    Err(RingError::Foreign { path: path.to_owned(), why })
}

/// The path at which a ring of another size is made before it replaces the one at `path`.
fn fresh_path(path: &Path) -> PathBuf {
    let mut fresh = path.to_owned().into_os_string();
    fresh.push(".new");
    fresh.into()
}

/// Removes the file of a process that was killed while it made a ring of another size. Call it only
/// with the ring at `path` locked.
fn clear_away(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(fresh_path(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns true if `path` still names `file`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns true if a process was killed before it had made this file a ring, so that nothing is
/// lost with it: the magic number, which is written last, is missing, and so is everything where
/// the segment headers and the first packets of a ring are.
fn was_cut_short(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let len = metadata.len();
    if !metadata.is_file() {
        // A FIFO, for example: not ours.
        return Ok(false);
    }
    if len == 0 {
        return Ok(true);
    }
    if len <= PAGE {
        return Ok(false);
    }
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0)?;
    let mut headers = vec![0; usize::try_from(len - PAGE).unwrap_or(usize::MAX).min(64 << 10)];
    file.read_exact_at(&mut headers, PAGE)?;
    Ok(magic.iter().chain(&headers).all(|&byte| byte == 0))
}

/// Time to wait for a locked ring. A daemon that is ending, or whose tree was unmounted, releases
/// its rings a moment later.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

fn lock(mut file: File, path: &Path) -> Result<Flock<File>, RingError> {
    let begun = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((same, Errno::EWOULDBLOCK)) if begun.elapsed() < LOCK_PATIENCE => {
                file = same;
                std::thread::sleep(LOCK_PATIENCE / 50);
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(RingError::InUse { path: path.to_owned() });
            }
            Err((_, errno)) => {
                return Err(RingError::System { path: path.to_owned(), error: errno.into() });
            }
        }
    }
}

/// Makes an empty ring file.
fn create_at(
    options: &RingOptions,
    path: &Path,
    geometry: Geometry,
    next: Position,
    sequence: u64,
) -> Result<OpenedRing, RingError> {
    let refused = |error: io::Error| {
        let path = path.to_owned();
        match error.kind() {
            // Another process was faster.
            io::ErrorKind::AlreadyExists => RingError::System { path, error },
            // Such an error would occur in any directory.
            _ if error.raw_os_error() == Some(libc::EMFILE) => RingError::System { path, error },
            _ => RingError::NotMade { path, error },
        }
    };
    // For the owner alone, from the first moment on, whatever the umask.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(refused)?;
    form(options, path, lock(file, path)?, geometry, next, sequence)
}

/// Makes an empty ring of a locked, empty file.
fn form(
    options: &RingOptions,
    path: &Path,
    file: Flock<File>,
    geometry: Geometry,
    next: Position,
    sequence: u64,
) -> Result<OpenedRing, RingError> {
    let system = |error| RingError::System { path: path.to_owned(), error };
    let made =
        reserve(&file, path, geometry).and_then(|()| RingMap::new(&file, geometry).map_err(system));
    let map = match made {
        Ok(map) => map,
        Err(error) => {
            // A file that could not be prepared is ours and has no value.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
    };
    map.header().snaplen.store(options.snaplen, Ordering::Relaxed);
    map.header().oldest_sequence.store(sequence, Ordering::Relaxed);
    map.header().initialise(
        geometry,
        options.link_type.map_or(NO_LINK_TYPE, |link_type| u32::from(link_type.0)),
        precision_number(options.precision),
    );
    let opening = SegmentOpening { sequence, position: next, loss_before: 0 };
    map.header().lineage.begin(next.number);
    let (segments, tail) = Segments::new(map, &[], Resume::Open(opening));
    let start = WriterStart { sequence, next, oldest: next, count: 0, first_time: 0, last_time: 0 };
    let known = (RingInterfaces::of(options.interface.clone()), Section::new());
    Ok(assemble(options, file, (segments, tail), start, known))
}

/// Reserves all pages of a new file.
fn reserve(file: &File, path: &Path, geometry: Geometry) -> Result<(), RingError> {
    let system = |error| RingError::System { path: path.to_owned(), error };
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(system)?;
    // Left by a process that was killed here.
    file.set_len(0).map_err(system)?;
    let size = i64::try_from(geometry.file_size())
        .map_err(|_| system(io::Error::from(io::ErrorKind::FileTooLarge)))?;
    let no_space = || {
        let needed = geometry.file_size().div_ceil(1 << 20);
        RingError::NoSpace { path: path.to_owned(), needed }
    };
    // Check first: an attempt to reserve too much takes all free memory from everyone for a moment.
    if available(file).is_some_and(|available| available < geometry.file_size()) {
        return Err(no_space());
    }
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::ENOSPC | Errno::EFBIG | Errno::EDQUOT | Errno::ENOMEM) => Err(no_space()),
        Err(errno) => Err(system(errno.into())),
    }
}

/// Bytes free for this process in the file system of `file`; `None` if it does not report them.
fn available(file: &File) -> Option<u64> {
    let status = fstatvfs(file).ok()?;
    // A tmpfs without a limit reports that it has no blocks at all.
    (status.blocks() > 0).then(|| status.blocks_available().saturating_mul(status.fragment_size()))
}

fn assemble(
    options: &RingOptions,
    file: Flock<File>,
    (segments, tail): (Arc<Segments>, super::map::RingTail),
    start: WriterStart,
    (interfaces, section): (RingInterfaces, Section),
) -> OpenedRing {
    let used = tail.retained() as u64;
    let link_type = OnceLock::new();
    if let Ok(known) = u16::try_from(segments.map().header().link_type.load(Ordering::Relaxed)) {
        link_type.get_or_init(|| LinkType(known));
    }
    let moment = Moment {
        oldest_chunk: tail.oldest(),
        newest_chunk: start.sequence,
        oldest: start.oldest,
        next: start.next,
        newest_time: start.last_time,
    };
    let ring = Arc::new(Ring {
        segments,
        published: Published::new(moment),
        bells: Bells::default(),
        holes: StoreHoles::default(),
        ended: AtomicBool::new(false),
        used: AtomicU64::new(used),
        lost_remote: AtomicU64::default(),
        precision: options.precision,
        link_type,
        own: options.interface.clone(),
        interfaces: Mutex::new(interfaces),
        trailing: RwLock::default(),
        section,
        path: options.path.clone(),
        number: RingNumber::next(),
        is_in_memory: fstatfs(&*file).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC),
        _lock: file,
    });
    let mut writer = Writer::new(Arc::clone(&ring), tail, start);
    if options.link_type.is_some() {
        // Not a stream, which reports the interfaces of its packets later.
        writer.set_own_interface();
    }
    let recovered = start.next.number - start.oldest.number;
    OpenedRing { ring, writer, recovered, left: None, damage: None }
}

/// An existing ring file, its header checked.
struct Existing {
    file: Flock<File>,
    map: RingMap,
    claims: Claims,
}

impl Existing {
    fn read(file: Flock<File>, options: &RingOptions) -> Result<Self, RingError> {
        let path = options.path.as_path();
        let system = |error| RingError::System { path: path.to_owned(), error };
        let damaged = |why: String| RingError::Damaged { path: path.to_owned(), why };
        let len = file.metadata().map_err(system)?.len();
        if len < PAGE {
            return Err(damaged(format!("it has {len} bytes")));
        }
        let geometry = peek_geometry(&file).map_err(system)?.map_err(damaged)?;
        if len != geometry.file_size() {
            let should = geometry.file_size();
            return Err(damaged(format!("it has {len} bytes and should have {should}")));
        }
        let map = RingMap::new(&file, geometry).map_err(system)?;
        let claims = read_claims(map.header()).map_err(damaged)?;
        let mismatch = |held: String, sent: String| {
            Err(RingError::Mismatch { path: path.to_owned(), held, sent })
        };
        if claims.precision != options.precision {
            return mismatch(
                format!("{:?}second", claims.precision).to_lowercase(),
                format!("{:?}second", options.precision).to_lowercase(),
            );
        }
        if let (Ok(held), Some(sent)) = (u16::try_from(claims.link_type), options.link_type)
            && LinkType(held) != sent
        {
            return mismatch(LinkType(held).name(), sent.name());
        }
        // A copy made by hand may be sparse: reserve the missing pages.
        let size = i64::try_from(len).unwrap_or(i64::MAX);
        match fallocate(&*file, FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(Self { file, map, claims }),
            Err(Errno::ENOSPC | Errno::EDQUOT | Errno::ENOMEM) => {
                Err(RingError::NoSpace { path: path.to_owned(), needed: len.div_ceil(1 << 20) })
            }
            Err(errno) => Err(system(errno.into())),
        }
    }

    /// Takes over the ring in place.
    fn adopt(self, options: &RingOptions) -> OpenedRing {
        let Self { file, mut map, claims } = self;
        let (mut interfaces, section) = known(&map, claims, options);
        let found = recover(&mut map, claims, &interfaces);
        interfaces.end_before(found.next.number, map.header());
        let mut retained = found.retained;
        let left = match map.header().last_alive.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(Timestamp::from_nanoseconds(nanoseconds)),
        };
        let loss = {
            let header = map.header();
            let sent = options.link_type.map(|link_type| u32::from(link_type.0));
            header.link_type.store(sent.unwrap_or(claims.link_type), Ordering::Relaxed);
            header.checksum.store(header.compute_checksum(), Ordering::Release);
            header.snaplen.fetch_max(options.snaplen, Ordering::Relaxed);
            // A file older than the counter may have descriptions in its place.
            let described = Committed::unpack(header.described.load(Ordering::Relaxed)).len;
            if described as usize > DESCRIPTIONS {
                header.excluded.store(0, Ordering::Relaxed);
            }
            // No checksum covers these counters, since they change all the time. Sums of them must
            // not overflow.
            for count in [
                &header.dropped_kernel,
                &header.dropped_interface,
                &header.dropped_oversize,
                &header.excluded,
            ] {
                if count.load(Ordering::Relaxed) > MAX_FIELD {
                    count.store(0, Ordering::Relaxed);
                }
            }
            header.dropped_kernel.load(Ordering::Relaxed)
                + header.dropped_oversize.load(Ordering::Relaxed)
        };
        let (resume, sequence) = match found.resume {
            Some((records, notes)) => {
                (Resume::Continue { records, notes }, found.next_sequence - 1)
            }
            None => {
                let opening = SegmentOpening {
                    sequence: found.next_sequence,
                    position: found.next,
                    loss_before: loss,
                };
                // The new segment is one of those retained.
                if retained.len() >= claims.geometry.segments as usize {
                    retained.remove(0);
                }
                (Resume::Open(opening), found.next_sequence)
            }
        };
        map.header().lineage.resume(found.next.number, found.damage.is_some());
        let oldest_sequence = retained.first().map_or(sequence, |(sequence, _)| *sequence);
        map.header().oldest_sequence.store(oldest_sequence, Ordering::Relaxed);
        let (segments, tail) = Segments::new(map, &retained, resume);
        let (count, first_time, last_time) =
            if found.resume.is_some() { found.newest } else { (0, 0, found.newest.2) };
        let start = WriterStart {
            sequence,
            next: found.next,
            oldest: tail.oldest_position(),
            count,
            first_time,
            last_time,
        };
        let known = (interfaces, section);
        let mut opened = assemble(options, file, (segments, tail), start, known);
        // No checksum covers the time, and a clock that was set back makes it useless.
        opened.left = left.filter(|left| *left < clock::now());
        opened.damage = found.damage;
        opened
    }

    /// Moves the packets into a new ring of another size, which then replaces the old one.
    fn resize(self, options: &RingOptions, geometry: Geometry) -> Result<OpenedRing, RingError> {
        let path = options.path.as_path();
        let system = |error| RingError::System { path: path.to_owned(), error };
        let fresh_path = fresh_path(path);
        let old = self.adopt(options);
        let bounds = old.ring.bounds();
        // The link type is declared after the interfaces that come before everything.
        let known = RingOptions { link_type: None, ..options.clone() };
        let mut fresh =
            create_at(&known, &fresh_path, geometry, bounds.oldest, bounds.oldest_chunk)?;
        copy::begin(&old.ring, &mut fresh.writer);
        let header = old.ring.header();
        if let Some(link_type) = options.link_type.or_else(|| Some(header?.link_type)) {
            let snaplen = header.map_or(0, |header| header.snaplen);
            // A ring without a declared link type accepts any.
            let _ = fresh.writer.declare(link_type, snaplen);
        }
        copy::copy(&old.ring, &mut fresh.writer);
        if options.link_type.is_some() {
            fresh.writer.set_own_interface();
        }
        if let Err(error) = std::fs::rename(&fresh_path, path) {
            let _ = std::fs::remove_file(&fresh_path);
            return Err(system(error));
        }
        let bounds = fresh.ring.bounds();
        fresh.writer.inherit_lineage(&old.ring);
        fresh.recovered = bounds.next.number - bounds.oldest.number;
        fresh.left = old.left;
        fresh.damage = old.damage;
        Ok(fresh)
    }
}

/// The interfaces that an earlier process has described, and the options of its stream's first
/// section.
///
/// The interfaces of a ring without a link type are described anew.
fn known(map: &RingMap, claims: Claims, options: &RingOptions) -> (RingInterfaces, Section) {
    let section = Section::new();
    let loaded = RingInterfaces::load(map.header()).filter(|_| claims.link_type != NO_LINK_TYPE);
    let Some((interfaces, options_of_section)) = loaded else {
        return (RingInterfaces::of(options.interface.clone()), section);
    };
    let _ = section.set(options_of_section.into());
    (interfaces, section)
}

/// The geometry in a ring file's first page. Only that page is mapped, since the size of the whole
/// mapping is not known yet.
fn peek_geometry(file: &File) -> io::Result<Result<Geometry, String>> {
    #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
    let page = memmap2::MmapOptions::new().len(PAGE as usize).map_raw_read_only(file)?;
    let geometry =
        super::map::with_header(&page, |header| read_claims(header).map(|claims| claims.geometry));
    Ok(geometry.unwrap_or_else(|| Err("it is too short".to_owned())))
}
