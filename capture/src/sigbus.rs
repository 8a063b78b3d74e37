//! Survives mapped files that are cut short.
//!
//! Touching a page after the end of a mapped file raises SIGBUS, which ends the process by default.
//! Anyone with write permission to a savefile could end the daemon that way; so could a failing
//! disk, or someone who edits a ring file. So the first [`Guard`] installs a handler. The handler
//! puts an empty page in the place of a missing one, marks the guarded mapping as *torn*, and lets
//! the thread that touched the page continue. The thread reads zeros, and must call
//! [`Guard::is_torn`] afterwards to learn that they are not the file's bytes. A fault outside of
//! all guarded mappings goes to the previously installed handler.
//!
//! No guard is needed where the kernel touches the mapping (`writev`): the kernel returns EFAULT.

#![expect(unsafe_code, reason = "a signal handler that mends the address space")]

use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering, fence};

use libc::{c_int, c_void, siginfo_t};
use parking_lot::Mutex;

/// Maximum number of mappings guarded at a time. The handler looks through all of them without a
/// lock, so the table has a fixed size. Each entry is 24 bytes, and a mount has a handful of
/// captures.
pub(crate) const MAX_MAPPINGS: usize = 1024;

/// How a guarded mapping is used, which decides the protection of a replacement page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    Write,
}

/// Guards the addresses of a mapping for as long as it lives. It must be dropped before the
/// addresses can be used for something else.
#[derive(Debug)]
pub(crate) struct Guard {
    index: usize,
}

/// Addresses of a mapping. Written under [`SLOTS_LOCK`], read by the handler at any moment.
#[derive(Debug)]
struct GuardedMapping {
    /// First address; 0 while the entry is free or being changed.
    start: AtomicUsize,
    /// First address after the mapping; valid if `start` is the same, and not 0, before and after
    /// reading it.
    end: AtomicUsize,
    /// `PROT_` flags of a replacement page; valid under the same condition as `end`.
    protection: AtomicI32,
    /// Whether a page of the mapping has been replaced.
    torn: AtomicBool,
}

static SLOTS: [GuardedMapping; MAX_MAPPINGS] = [const {
    GuardedMapping {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        protection: AtomicI32::new(libc::PROT_NONE),
        torn: AtomicBool::new(false),
    }
}; MAX_MAPPINGS];

/// Held while an entry is taken or freed; never by the handler.
static SLOTS_LOCK: Mutex<()> = Mutex::new(());

impl Guard {
    /// Guards the pages of `addresses`, which are a mapping of a file; `None` if the maximum number
    /// of mappings is guarded.
    ///
    /// # Errors
    /// The errors of sigaction(2), when the handler cannot be installed.
    pub(crate) fn new(addresses: &Range<*const u8>, purpose: Use) -> io::Result<Option<Self>> {
        let page = install()?;
        let (start, end) = (addresses.start.addr(), addresses.end.addr().next_multiple_of(page));
        let _lock = SLOTS_LOCK.lock();
        let free = |slot: &GuardedMapping| slot.start.load(Ordering::Relaxed) == 0;
        let Some(index) = SLOTS.iter().position(free) else { return Ok(None) };
        let Some(slot) = SLOTS.get(index) else { return Ok(None) };
        slot.torn.store(false, Ordering::Relaxed);
        slot.end.store(end, Ordering::Relaxed);
        let protection = match purpose {
            Use::Read => libc::PROT_READ,
            Use::Write => libc::PROT_READ | libc::PROT_WRITE,
        };
        slot.protection.store(protection, Ordering::Relaxed);
        // Publishes the three fields above; pairs with the Acquire load in `Slot::contains`.
        slot.start.store(start, Ordering::Release);
        Ok(Some(Self { index }))
    }

    /// Returns `true` if a page was missing. Call it after reading: the bytes read are valid only
    /// if it returns false.
    pub(crate) fn is_torn(&self) -> bool {
        // Acquire for the reads before: the handler sets the flag before it lets a read continue,
        // whether the read is on the same thread or, through the page table, on another.
        fence(Ordering::Acquire);
        self.slot().is_some_and(|slot| slot.torn.load(Ordering::Acquire))
    }

    fn slot(&self) -> Option<&'static GuardedMapping> {
        SLOTS.get(self.index)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _lock = SLOTS_LOCK.lock();
        if let Some(slot) = self.slot() {
            slot.start.store(0, Ordering::Relaxed);
            // A reader that sees a later owner's value in `end` also sees the 0 above, so it never
            // combines the addresses of two owners; pairs with the fence in `contains`.
            fence(Ordering::Release);
        }
    }
}

impl GuardedMapping {
    /// Returns `true` if the address lies in the mapping. Safe to call in a signal handler.
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

/// The handler for SIGBUS before ours; set before ours is installed.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler on the first call. Returns the length of a page.
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
    // SA_ONSTACK, because the previous handler may be the standard library's, which runs when a
    // stack has overflowed.
    swap_action(Some((handler as usize, libc::SA_SIGINFO | libc::SA_ONSTACK)))?;
    *installed = true;
    Ok(page)
}

/// Sets handler and flags for SIGBUS, if any are given. Returns the previous action.
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
    // SAFETY: both pointers are null or point to a sigaction that lives past the call. The handler,
    // if given, is either SIG_DFL or `on_sigbus`, which has the signature that SA_SIGINFO requires.
    let result = unsafe {
        libc::sigaction(libc::SIGBUS, new.unwrap_or(std::ptr::null()), &raw mut previous)
    };
    if result == 0 { Ok(previous) } else { Err(io::Error::last_os_error()) }
}

/// The handler. It only loads and stores atomics, and makes system calls.
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a siginfo that lives until the handler returns; `si_code` is valid
    // for every signal.
    let code = unsafe { (*info).si_code };
    // SAFETY: for the two codes of a fault at an address, the kernel sets this field; see
    // sigaction(2).
    let address =
        matches!(code, libc::BUS_ADRERR | BUS_OBJERR).then(|| unsafe { (*info).si_addr() }.addr());
    if !address.is_some_and(patch) {
        pass_on(signal, info, context, code);
    }
}

/// `si_code` of an error of the hardware behind a page (asm-generic/siginfo.h).
const BUS_OBJERR: c_int = 3;

/// Puts a page of zeros at a faulting address of one of our mappings; false if the address is not
/// in any.
fn patch(address: usize) -> bool {
    let Some(slot) = SLOTS.iter().find(|slot| slot.contains(address)) else {
        return false;
    };
    // Before the page: a reader that sees zeros in another thread must find the flag set.
    slot.torn.store(true, Ordering::SeqCst);
    let page = PAGE_LEN.load(Ordering::Relaxed);
    let protection = slot.protection.load(Ordering::Relaxed);
    let start = address - address % page;
    // SAFETY: errno belongs to this thread, and its address is valid.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: MAP_FIXED replaces the one page of `start`, which lies in a guarded mapping according
    // to its slot. The thread that faulted is using the mapping, so it cannot be unmapped now. The
    // old page has no contents that anything could refer to; the new page can be used in the same
    // way.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::without_provenance_mut(start),
            page,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    // SAFETY: as above. The code that was interrupted must find its errno.
    unsafe { *libc::__errno_location() = errno };
    mapped != libc::MAP_FAILED
}

/// Passes a signal that is not ours to the previous handler, or to the default.
///
/// A signal sent by a process always gets the default, unless it was ignored. The previous handler
/// is usually the standard library's, which takes every SIGBUS for a fault, restores the default,
/// and waits for the fault to occur again. That would only remove our handler.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void, code: c_int) {
    let sent_by_a_process = code <= 0;
    match PREVIOUS.get().map(|previous| (previous.sa_sigaction, previous.sa_flags)) {
        Some((libc::SIG_IGN, _)) if sent_by_a_process => {}
        _ if sent_by_a_process => {
            if swap_action(Some((libc::SIG_DFL, 0))).is_ok() {
                // The signal is blocked, and takes effect as soon as this returns.
                // SAFETY: raise is async-signal-safe and touches no memory of ours.
                unsafe { libc::raise(signal) };
            }
        }
        None | Some((libc::SIG_DFL | libc::SIG_IGN, _)) => {
            // The fault occurs again as soon as this returns. A failure here cannot happen with
            // these arguments; it would make the process hang at the faulting instruction.
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
