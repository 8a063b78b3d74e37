//! A file mapped read-only, whoever may cut it short meanwhile: see [`crate::sigbus`].

#![expect(unsafe_code, reason = "a mapping of a file that others may write")]

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{Mmap, MmapOptions};
use nix::time::{ClockId, clock_gettime};

use super::OpenError;
use crate::sigbus::{Guard, MAX_MAPPINGS, Use};

/// A mapped file. Its bytes stay where they are until it is dropped.
#[derive(Debug)]
pub(super) struct Map {
    // Dropped in this order: a mapping leaves the table before its addresses can be reused.
    guard: Guard,
    bytes: Mmap,
    file: File,
    path: PathBuf,
    /// When the file was last looked at, in milliseconds of some clock.
    checked: AtomicU64,
}

impl Map {
    /// Maps the first `len` bytes of `file`, which was opened at `path`. `len` is not 0.
    pub(super) fn new(file: File, path: &Path, len: u64) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io { path: path.to_owned(), source };
        let len = usize::try_from(len).map_err(|_| io_error(io::ErrorKind::FileTooLarge.into()))?;
        // SAFETY: what is asked of the caller is that the file does not change under the slice
        // made of the mapping. Nobody can promise that for a file others may write. What keeps us
        // out of trouble is that (1) a change of length is answered by the guard below, so every
        // address in the mapping stays readable until the `Mmap` is dropped; (2) the bytes
        // are plain numbers and payload, valid with any value; (3) every reader takes a length out
        // of the mapping once, checks the copy against the slice, and uses the copy. A file
        // rewritten while mounted so gives wrong packets, not wrong memory accesses.
        let bytes = unsafe { MmapOptions::new().len(len).map(&file) }.map_err(io_error)?;
        let Some(guard) = Guard::new(&bytes.as_ptr_range(), Use::Read).map_err(io_error)? else {
            return Err(OpenError::TooMany { path: path.to_owned(), limit: MAX_MAPPINGS });
        };
        Ok(Self { guard, bytes, file, path: path.to_owned(), checked: AtomicU64::new(0) })
    }

    /// The whole mapping. Zeros where the file has been cut short, see [`Map::check`].
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether what has been read of the mapping was in the file. Once the file has been cut, none
    /// of it is believed any more, so that what can be read does not depend on who read what.
    ///
    /// # Errors
    /// Why not, in one line. Once a page could not be had this stays so for the whole mapping.
    pub(super) fn check(&self) -> Result<(), String> {
        let torn = self.guard.is_torn();
        let path = self.path.display();
        match self.file.metadata().map(|metadata| metadata.len()) {
            // Also without a fault: what lies behind the cut in its page reads as zeros.
            Ok(len) if len < self.bytes.len() as u64 => {
                Err(format!("{path} was cut to {len} bytes while mounted"))
            }
            Ok(_) if torn => Err(format!(
                "{path}: a page could not be read (the file was cut for a moment, or its device fails)"
            )),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{path}: {error}")),
        }
    }

    /// [`Map::check`], unless that was done a few milliseconds ago: for whoever looks at many pieces
    /// and checks when it is done.
    pub(super) fn check_lately(&self) -> Result<(), String> {
        let now = coarse_milliseconds();
        let checked = self.checked.load(Ordering::Relaxed);
        if !self.guard.is_torn() && now.saturating_sub(checked) < LATELY {
            return Ok(());
        }
        self.checked.store(now, Ordering::Relaxed);
        self.check()
    }

    /// What to say when the file no longer holds what it did, though its length is right.
    pub(super) fn describe_change(&self) -> String {
        format!("{} was written to while mounted", self.path.display())
    }
}

/// Milliseconds in which a file is not looked at again.
const LATELY: u64 = 8;

/// Milliseconds of a clock that costs nothing to read and moves with the kernel's tick.
fn coarse_milliseconds() -> u64 {
    // The clock is always there.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from);
    now.map_or(u64::MAX, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn mapped(len: usize) -> (tempfile::NamedTempFile, Map) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![7; len]).unwrap();
        let map = Map::new(file.reopen().unwrap(), file.path(), len as u64).unwrap();
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
    fn many_threads_may_fault_at_once() {
        let (file, map) = mapped(1 << 20);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while map.check().is_ok() {
                        let sum: u64 = map.bytes().iter().map(|byte| u64::from(*byte)).sum();
                        assert!(sum <= 7 << 20);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(20));
            file.as_file().set_len(0).unwrap();
        });
        assert!(map.bytes().iter().all(|byte| *byte == 0));
    }
}
