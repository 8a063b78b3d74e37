//! A file mapped read-only. Anyone may cut it short at any time: see [`crate::sigbus`].

#![expect(unsafe_code, reason = "a mapping of a file that others may write")]

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use memmap2::{Mmap, MmapOptions};
use nix::time::{ClockId, clock_gettime};

use super::SavefileOpenError;
use crate::sigbus::{Guard, MAX_MAPPINGS, Use};

/// A mapped file. Its bytes do not move until it is dropped.
#[derive(Debug)]
pub(super) struct FileMap {
    mapping: Mapping,
    /// Number of known bytes of the file; at most the length of the last mapping.
    len: AtomicUsize,
    file: File,
    path: PathBuf,
    /// The time of the last check of the file, in milliseconds of some clock.
    checked: AtomicU64,
}

/// The file from its beginning, and possibly beyond its end.
#[derive(Debug)]
struct Mapping {
    // Dropped in this order: a mapping leaves the table before its addresses can be reused.
    guard: Guard,
    bytes: Mmap,
    /// A larger mapping, made when the file had outgrown this one.
    next: OnceLock<Box<Self>>,
}

/// Minimum number of addresses reserved after a file that grows, so that it is mapped again less
/// often.
const RESERVE: usize = 1 << 30;

impl Mapping {
    /// `len` may exceed the length of the file: bytes after its end are not touched before they
    /// exist.
    fn new(file: &File, path: &Path, len: usize) -> Result<Self, SavefileOpenError> {
        let io_error = |source| SavefileOpenError::Io { path: path.to_owned(), source };
        // SAFETY: the caller must ensure that the file does not change under the slice made of the
        // mapping. No one can ensure that for a file that others may write. It is sound
        // nevertheless, because (1) the guard below handles a change of length, so every address in
        // the mapping stays readable until the `Mmap` is dropped; (2) the bytes are plain numbers
        // and payload, valid with any value; (3) every reader copies a length out of the mapping
        // once, checks the copy against the slice, and uses the copy. So a file rewritten while
        // mounted gives wrong packets, but no wrong memory accesses.
        let bytes = unsafe { MmapOptions::new().len(len).map(file) }.map_err(io_error)?;
        let Some(guard) = Guard::new(&bytes.as_ptr_range(), Use::Read).map_err(io_error)? else {
            return Err(SavefileOpenError::TooMany { path: path.to_owned(), limit: MAX_MAPPINGS });
        };
        Ok(Self { guard, bytes, next: OnceLock::new() })
    }

    fn last(&self) -> &Self {
        let mut last = self;
        while let Some(next) = last.next.get() {
            last = next;
        }
        last
    }
}

impl FileMap {
    /// Maps the first `len` bytes of `file`, which was opened at `path`. `len` must not be 0.
    pub(super) fn new(file: File, path: &Path, len: u64) -> Result<Self, SavefileOpenError> {
        let io_error = |source| SavefileOpenError::Io { path: path.to_owned(), source };
        let len = usize::try_from(len).map_err(|_| io_error(io::ErrorKind::FileTooLarge.into()))?;
        let mapping = Mapping::new(&file, path, len)?;
        let (len, checked) = (AtomicUsize::new(len), AtomicU64::new(0));
        Ok(Self { mapping, len, file, path: path.to_owned(), checked })
    }

    /// A digest of the file's place in the system; another file has another one.
    pub(super) fn identity(&self) -> u64 {
        let Ok(metadata) = self.file.metadata() else { return 0 };
        let mut bytes = Vec::new();
        bytes.extend(metadata.dev().to_ne_bytes());
        bytes.extend(metadata.ino().to_ne_bytes());
        let low = crc32fast::hash(&bytes);
        bytes.extend(self.path.as_os_str().as_bytes());
        u64::from(crc32fast::hash(&bytes)) << 32 | u64::from(low)
    }

    /// All known bytes of the file. Bytes that have been cut off read as zeros, see
    /// [`FileMap::check`].
    pub(super) fn bytes(&self) -> &[u8] {
        // Pairs with the store in Map::grow: a mapping with that many bytes exists.
        let len = self.len.load(Ordering::Acquire);
        let mut mapping = &self.mapping;
        loop {
            match (mapping.bytes.get(..len), mapping.next.get()) {
                (None, Some(next)) => mapping = next,
                (bytes, _) => return bytes.unwrap_or_default(),
            }
        }
    }

    /// Checks whether the file has grown, and if so makes [`FileMap::bytes`] show more. Returns
    /// whether it has grown. To be called by one thread at a time.
    ///
    /// # Errors
    /// Why the added bytes are not available, in one line.
    pub(super) fn grow(&self) -> Result<bool, String> {
        let found = self.file.metadata().map_err(|error| self.failure(&error))?.len();
        let found = usize::try_from(found).unwrap_or(usize::MAX);
        if found <= self.len.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let last = self.mapping.last();
        if found > last.bytes.len() {
            let wanted = found.saturating_add(found.max(RESERVE));
            let larger = Mapping::new(&self.file, &self.path, wanted)
                .or_else(|_| Mapping::new(&self.file, &self.path, found))
                .map_err(|error| error.to_string())?;
            last.next.get_or_init(|| Box::new(larger));
        }
        self.len.store(found, Ordering::Release);
        Ok(true)
    }

    /// Checks that the path still names this file. The error is a message for people.
    pub(super) fn check_place(&self) -> Result<(), String> {
        let path = self.path.display();
        let ours = self.file.metadata().map_err(|error| self.failure(&error))?;
        match std::fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(()),
            Ok(_) => Err(format!("{path} is another file by now (mount it anew)")),
            Err(error) => Err(format!("{path}: {error}")),
        }
    }

    fn failure(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }

    /// Checks that all bytes read from the mapping so far were in the file. Once the file has been
    /// cut, none of it is trusted any more, so that the readable part does not depend on who read
    /// what.
    ///
    /// # Errors
    /// The reason, in one line. Once a page was missing, the error stays for the whole mapping.
    pub(super) fn check(&self) -> Result<(), String> {
        let torn = self.is_torn();
        let path = self.path.display();
        match self.file.metadata().map(|metadata| metadata.len()) {
            // Also without a fault: bytes after the cut, in the same page, read as zeros.
            Ok(len) if len < self.len.load(Ordering::Relaxed) as u64 => {
                Err(format!("{path} was cut to {len} bytes while mounted"))
            }
            Ok(_) if torn => Err(format!(
                "{path}: a page could not be read (the file was cut for a moment, or its device fails)"
            )),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{path}: {error}")),
        }
    }

    /// [`FileMap::check`], unless it was called a few milliseconds ago. For callers that look at
    /// many pieces, and call `check` at their end.
    pub(super) fn check_lately(&self) -> Result<(), String> {
        let now = coarse_milliseconds();
        let checked = self.checked.load(Ordering::Relaxed);
        if !self.is_torn() && now.saturating_sub(checked) < LATELY {
            return Ok(());
        }
        self.checked.store(now, Ordering::Relaxed);
        self.check()
    }

    /// Returns true if a page of any mapping was missing.
    fn is_torn(&self) -> bool {
        let mut mapping = Some(&self.mapping);
        while let Some(one) = mapping {
            if one.guard.is_torn() {
                return true;
            }
            mapping = one.next.get().map(|next| &**next);
        }
        false
    }

    /// The message for a file that no longer holds the same data, although its length is right.
    pub(super) fn describe_change(&self) -> String {
        format!("{} was written to while mounted", self.path.display())
    }
}

/// Milliseconds in which a file is not checked again.
const LATELY: u64 = 8;

/// Milliseconds of a clock that is cheap to read and moves with the kernel's tick.
fn coarse_milliseconds() -> u64 {
    // This clock always exists.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from);
    now.map_or(u64::MAX, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Barrier;

    fn mapped(len: usize) -> (tempfile::NamedTempFile, FileMap) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![7; len]).unwrap();
        let map = FileMap::new(file.reopen().unwrap(), file.path(), len as u64).unwrap();
        (file, map)
    }

    #[test]
    fn a_page_that_is_gone_reads_as_zeros_and_is_reported() {
        let (file, map) = mapped(40_000);
        assert_eq!(map.check(), Ok(()));
        file.as_file().set_len(5_000).unwrap();
        let problem = format!("{} was cut to 5000 bytes while mounted", file.path().display());
        assert_eq!(map.check(), Err(problem));
        file.as_file().set_len(40_000).unwrap();
        assert_eq!(map.check(), Ok(()), "nobody has seen it");
        file.as_file().set_len(5_000).unwrap();
        assert_eq!(map.bytes()[4_999], 7);
        assert_eq!(map.bytes()[39_999], 0, "no crash");
        file.as_file().set_len(40_000).unwrap();
        assert!(map.check().unwrap_err().contains("for a moment"), "it stays torn");
        let (_file, other) = mapped(40_000);
        assert_eq!(other.check(), Ok(()), "only the one mapping is torn");
    }

    #[test]
    fn added_bytes_are_found_by_the_next_look() {
        let (mut file, map) = mapped(10_000);
        let before = map.bytes();
        assert_eq!(map.grow(), Ok(false));
        for len in [10_001, 12_288, 50_000, 60_000] {
            let missing = len - map.bytes().len();
            file.write_all(&vec![8; missing]).unwrap();
            assert_eq!(map.bytes().len() + missing, len, "not by itself");
            assert_eq!(map.grow(), Ok(true));
            assert_eq!(map.bytes().len(), len);
            assert!(map.bytes().iter().take(10_000).all(|byte| *byte == 7));
            assert!(map.bytes().iter().skip(10_000).all(|byte| *byte == 8));
        }
        assert_eq!((before.len(), map.check()), (10_000, Ok(())));
        file.as_file().set_len(55_000).unwrap();
        assert!(map.check().unwrap_err().contains("was cut to 55000 bytes"));
        assert_eq!(map.check_place(), Ok(()));
        let path = file.path().to_owned();
        std::fs::rename(&path, path.with_extension("old")).unwrap();
        assert!(map.check_place().is_err());
        std::fs::rename(path.with_extension("old"), path).unwrap();
    }

    #[test]
    fn many_threads_may_fault_at_once() {
        let (file, map) = mapped(1 << 20);
        let are_reading = Barrier::new(5);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let read = || {
                        let sum: u64 = map.bytes().iter().map(|byte| u64::from(*byte)).sum();
                        assert!(sum <= 7 << 20);
                    };
                    read();
                    are_reading.wait();
                    while map.check().is_ok() {
                        read();
                    }
                });
            }
            are_reading.wait();
            file.as_file().set_len(0).unwrap();
        });
        assert!(map.bytes().iter().all(|byte| *byte == 0));
    }
}
