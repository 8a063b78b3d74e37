//! A file mapped read-only, whoever may cut it short meanwhile.
//!
//! Touching a page behind the end of a mapped file raises SIGBUS, whose default is the end of the
//! process. Anybody with write permission to a savefile could end the daemon that way, and so
//! could a failing disk. So the first mapping installs a handler that puts an empty page in the
//! place of one that cannot be had, marks the mapping as *torn*, and lets the reader go on: it
//! reads zeros, and [`Map::check`], asked afterwards, says that they must not be believed.
//! Whatever is no page of a mapping here goes to the handler that was there before.
//!
//! The same is not needed where the kernel reads the mapping (`writev`): it returns EFAULT.

#![expect(unsafe_code, reason = "mmap, and the signal handler that makes mmap safe to use")]

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use libc::{c_int, c_void, siginfo_t};
use memmap2::{Mmap, MmapOptions};
use parking_lot::Mutex;

use super::OpenError;

/// Most files mapped at a time. The handler looks through all of them without a lock, so the table
/// has a fixed size; each entry is 24 bytes, and a mount has a handful of savefiles.
pub(super) const MAX_MAPPINGS: usize = 1024;

/// A mapped file. Its bytes stay where they are until it is dropped.
#[derive(Debug)]
pub(super) struct Map {
    // Dropped in this order: a mapping leaves the table before its addresses can be reused.
    guard: Guard,
    bytes: Mmap,
    file: File,
    path: PathBuf,
}

impl Map {
    /// Maps the first `len` bytes of `file`, which was opened at `path`. `len` is not 0.
    pub(super) fn new(file: File, path: &Path, len: u64) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io { path: path.to_owned(), source };
        let page = install().map_err(io_error)?;
        let len = usize::try_from(len).map_err(|_| io_error(io::ErrorKind::FileTooLarge.into()))?;
        // SAFETY: what is asked of the caller is that the file does not change under the slice
        // made of the mapping. Nobody can promise that for a file others may write. What keeps us
        // out of trouble is that (1) a change of length is answered by the handler below, so
        // every address in the mapping stays readable until the `Mmap` is dropped; (2) the bytes
        // are plain numbers and payload, valid with any value; (3) every reader takes a length out
        // of the mapping once, checks the copy against the slice, and uses the copy. A file
        // rewritten while mounted so gives wrong packets, not wrong memory accesses.
        let bytes = unsafe { MmapOptions::new().len(len).map(&file) }.map_err(io_error)?;
        let start = bytes.as_ptr().addr();
        let end = start.saturating_add(len.next_multiple_of(page));
        let Some(guard) = Guard::new(start, end) else {
            return Err(OpenError::TooMany { path: path.to_owned(), limit: MAX_MAPPINGS });
        };
        Ok(Self { guard, bytes, file, path: path.to_owned() })
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
        // Acquire on behalf of the reads before: the handler has set the flag before it let the
        // read go on, on the same thread or, through the page table, before another's.
        fence(Ordering::Acquire);
        let torn = self.guard.slot().is_some_and(|slot| slot.torn.load(Ordering::Acquire));
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

    /// What to say when the file no longer holds what it did, though its length is right.
    pub(super) fn describe_change(&self) -> String {
        format!("{} was written to while mounted", self.path.display())
    }
}

/// An entry of [`SLOTS`] for as long as it lives.
#[derive(Debug)]
struct Guard {
    index: usize,
}

/// Addresses of a mapping. Written under [`SLOTS_LOCK`], read by the handler at any moment.
#[derive(Debug)]
struct Slot {
    /// First address; 0 while the entry is free or being changed.
    start: AtomicUsize,
    /// First address behind; valid if `start` is the same, and not 0, before and after reading it.
    end: AtomicUsize,
    /// A page of the mapping has been replaced.
    torn: AtomicBool,
}

static SLOTS: [Slot; MAX_MAPPINGS] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), torn: AtomicBool::new(false) }
}; MAX_MAPPINGS];

/// Held while an entry is taken or freed; never by the handler.
static SLOTS_LOCK: Mutex<()> = Mutex::new(());

impl Guard {
    /// Takes a free entry; `None` if there is none.
    fn new(start: usize, end: usize) -> Option<Self> {
        let _lock = SLOTS_LOCK.lock();
        let free = |slot: &Slot| slot.start.load(Ordering::Relaxed) == 0;
        let index = SLOTS.iter().position(free)?;
        let slot = SLOTS.get(index)?;
        slot.torn.store(false, Ordering::Relaxed);
        slot.end.store(end, Ordering::Relaxed);
        // Publishes the two above; pairs with the Acquire load in `Slot::contains`.
        slot.start.store(start, Ordering::Release);
        Some(Self { index })
    }

    fn slot(&self) -> Option<&'static Slot> {
        SLOTS.get(self.index)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _lock = SLOTS_LOCK.lock();
        if let Some(slot) = self.slot() {
            slot.start.store(0, Ordering::Relaxed);
            // Whoever sees what a later owner stores in `end` also sees the 0 above, and so takes
            // nothing for a mix of two owners' addresses; pairs with the fence in `contains`.
            fence(Ordering::Release);
        }
    }
}

impl Slot {
    /// Whether the mapping has this address. Safe to call in a signal handler.
    fn contains(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        let end = self.end.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let unchanged = self.start.load(Ordering::Relaxed) == start;
        unchanged && start != 0 && (start..end).contains(&address)
    }
}

/// Bytes of a page, for the handler; set before it is installed.
static PAGE_LEN: AtomicUsize = AtomicUsize::new(0);

/// Who was asked on SIGBUS before; set before the handler is installed.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler on the first call. The length of a page.
fn install() -> io::Result<usize> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock();
    if *installed {
        return Ok(PAGE_LEN.load(Ordering::Relaxed));
    }
    // SAFETY: sysconf reads a number and touches no memory of ours.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page = usize::try_from(page).map_err(|_| io::Error::last_os_error())?;
    PAGE_LEN.store(page, Ordering::Relaxed);
    if PREVIOUS.get().is_none() {
        let previous = swap_action(None)?;
        PREVIOUS.get_or_init(|| previous);
    }
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_sigbus;
    // SA_ONSTACK, because the handler before this one may be the standard library's, which runs
    // when a stack has no room left.
    swap_action(Some((handler as usize, libc::SA_SIGINFO | libc::SA_ONSTACK)))?;
    *installed = true;
    Ok(page)
}

/// Sets handler and flags for SIGBUS, if any are given; what was set before.
fn swap_action(action: Option<(usize, c_int)>) -> io::Result<libc::sigaction> {
    // SAFETY: a sigaction is numbers, a signal set and a nullable pointer; zeros are SIG_DFL with
    // no flags and an empty set (Linux represents one as zeros).
    let mut previous = unsafe { std::mem::zeroed::<libc::sigaction>() };
    let mut new = previous;
    let new = action.map(|(handler, flags)| {
        new.sa_sigaction = handler;
        new.sa_flags = flags;
        &raw const new
    });
    // SAFETY: both pointers are null or point to a sigaction that lives past the call. A handler
    // given is either SIG_DFL or `on_sigbus`, which has the signature that SA_SIGINFO calls for.
    let result = unsafe {
        libc::sigaction(libc::SIGBUS, new.unwrap_or(std::ptr::null()), &raw mut previous)
    };
    if result == 0 { Ok(previous) } else { Err(io::Error::last_os_error()) }
}

/// The handler. Does nothing but loads and stores of atomics and system calls.
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a siginfo that lives until the handler returns; `si_code` is valid
    // for every signal.
    let code = unsafe { (*info).si_code };
    // SAFETY: for the two codes the kernel gives to a fault at an address, that is the field that
    // is set; see sigaction(2).
    let address =
        matches!(code, libc::BUS_ADRERR | BUS_OBJERR).then(|| unsafe { (*info).si_addr() }.addr());
    if !address.is_some_and(patch) {
        pass_on(signal, info, context, code);
    }
}

/// `si_code` of an error of the hardware behind a page (asm-generic/siginfo.h).
const BUS_OBJERR: c_int = 3;

/// Puts a page of zeros at a faulting address of one of our mappings; false if it is not ours.
fn patch(address: usize) -> bool {
    let Some(slot) = SLOTS.iter().find(|slot| slot.contains(address)) else {
        return false;
    };
    // Before the page: who reads zeros in another thread must find the flag set.
    slot.torn.store(true, Ordering::SeqCst);
    let page = PAGE_LEN.load(Ordering::Relaxed);
    let start = address - address % page;
    // SAFETY: errno belongs to this thread, and its address is valid.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: MAP_FIXED replaces the one page of `start`, which lies in a mapping of a `Map`: the
    // slot says so, and the reader that faulted holds the `Map`, so it cannot be unmapped now.
    // Nothing refers to the old page's contents, as it has none; the new one is as readable.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::without_provenance_mut(start),
            page,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    // SAFETY: as above. The code that was interrupted must find its errno.
    unsafe { *libc::__errno_location() = errno };
    mapped != libc::MAP_FAILED
}

/// Leaves a signal that is none of ours to the handler before this one, or to the default.
///
/// A signal sent by a process always gets the default, unless it was ignored: the handler before
/// is usually the standard library's, which takes every SIGBUS for a fault, restores the default
/// and waits for the fault to come again. That would only take away this handler.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void, code: c_int) {
    let sent_by_a_process = code <= 0;
    match PREVIOUS.get().map(|previous| (previous.sa_sigaction, previous.sa_flags)) {
        Some((libc::SIG_IGN, _)) if sent_by_a_process => {}
        _ if sent_by_a_process => {
            if swap_action(Some((libc::SIG_DFL, 0))).is_ok() {
                // It is blocked, and takes effect as soon as this returns.
                // SAFETY: raise is async-signal-safe and touches no memory of ours.
                unsafe { libc::raise(signal) };
            }
        }
        None | Some((libc::SIG_DFL | libc::SIG_IGN, _)) => {
            // The fault comes again as soon as this returns. A failure here cannot happen with
            // these arguments, and would make the process hang where it is.
            let _previous = swap_action(Some((libc::SIG_DFL, 0)));
        }
        Some((handler, flags)) if flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: a handler set with SA_SIGINFO has this signature, see sigaction(2).
            let handler = unsafe {
                std::mem::transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(
                    handler,
                )
            };
            handler(signal, info, context);
        }
        Some((handler, _)) => {
            // SAFETY: a handler set without SA_SIGINFO has this signature, see sigaction(2).
            let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
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
            std::thread::sleep(std::time::Duration::from_millis(20));
            file.as_file().set_len(0).unwrap();
        });
        assert!(map.bytes().iter().all(|byte| *byte == 0));
    }
}
