//! The front end: pcapfs' own reader of `/dev/fuse`, before fuser.
//!
//! ```text
//!   kernel ── /dev/fuse ──▶ front end ── SOCK_SEQPACKET ──▶ fuser ──▶ the tree
//!     ▲                      │      ▲                         │
//!     └───── its replies ────┘      └───── fuser's replies ───┘
//! ```
//!
//! fuser answers FUSE_INTERRUPT with ENOSYS; after that, a reader that waits for a packet cannot
//! even be killed. And fuser replies with one slice from its own thread, where a read that waits
//! would block all others. So the front end answers READ, with the data gathered straight from the
//! ring, POLL and INTERRUPT, and the requests of a [walk](super::walk) through the tree. It passes
//! everything else to a stock fuser session over a socket pair.
//!
//! It also takes the bytes of savefiles that are injected: such a write may have to wait for room.
//!
//! A read that finds no data, or a write that finds no room, is *parked*: an entry in the table of its capture, without a thread.
//! The waker answers it when the capture's bell has rung, or the interrupt that ends it does.
//!
//! Long work goes to the [pool](super::pool), so that it delays no other request.

mod inject;

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use capture::cursor::ReadOutcome;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, setsockopt, shutdown,
    socketpair, sockopt,
};
use nix::sys::uio::writev;
use nix::unistd::read;
use parking_lot::Mutex;

use super::pace::Pace;
use super::parked::{Parked, Polled, ReadsAndPolls};
use super::pool::{self, Pool, PoolJob, RequestState};
use super::structures::{PollIn, ReadIn};
use super::walk;
use super::wire::{self, FuseMessage, FuseRequest, OUT_HEADER_LEN};
use crate::fs::Tree;
use crate::fs::error::TreeError;
use crate::fs::open_file::{OpenFile, ReadFailure};
use crate::priority::let_others_go_first;
use crate::process::is_being_killed;
use crate::waiters::{Waiters, WaitingReaders};

/// Threads that read requests: one may copy a mebibyte while the other takes the next request.
const READERS: usize = 2;

/// Bytes of the largest request: the maximum of a write ([`super::adapter::MAX_WRITE`]) and its
/// headers.
const MAX_REQUEST: usize = super::adapter::MAX_WRITE as usize + 4096;

/// Bytes of socket buffer for messages to and from fuser. Replies to READ do not go there, so the
/// largest is a directory listing.
const SOCKET_BUFFER: usize = 1 << 20;

/// The maximum number of slices that a cursor hands out at once, and the header.
const MAX_SLICES: usize = 8;

/// How many times a read is tried again if there should be data and is none, as in a ring whose
/// headers another program has overwritten. After that it waits for the next packet.
const TRIES: usize = 4;

/// How long a thread that has answered a step of a walk stays awake for the next one. To be woken
/// takes 30 us on a virtual machine with idle processors, more than half the time of a step.
/// Threads that are awake also keep the processors from idling, so that the asking program wakes on
/// the processor where it slept.
const AWAKE: Duration = Duration::from_micros(100);

/// Stack of a front end thread, which has its message buffer on the heap.
const STACK: usize = 256 << 10;

/// `POLLIN | POLLRDNORM` of `asm-generic/poll.h`.
const READABLE: u32 = 0x0001 | 0x0040;
/// `POLLOUT | POLLWRNORM`
const WRITABLE: u32 = 0x0004 | 0x0100;
/// The answer to poll(2) for files that never wait.
const ALWAYS: u32 = READABLE | WRITABLE;

/// A running front end.
#[derive(Debug)]
pub(super) struct Front {
    /// Disconnected when the last thread has ended.
    ended: Receiver<Infallible>,
}

#[derive(Debug)]
struct SharedFront {
    device: OwnedFd,
    fuser: OwnedFd,
    tree: Arc<Tree>,
    waiters: Waiters<ReadsAndPolls>,
    waker: Arc<Waker>,
    pool: Pool,
    closed: AtomicBool,
    /// Held by the thread that sleeps until there is a request.
    turn: Mutex<()>,
}

/// The thread to unpark when a bell rings. It has no lock, since bells ring on capturing threads.
#[derive(Debug, Default)]
struct Waker {
    thread: OnceLock<Thread>,
}

impl Waker {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Front {
    /// Starts serving `device`, an open and mounted `/dev/fuse`, and returns the descriptor to
    /// give to fuser.
    ///
    /// # Errors
    /// Errors of fcntl(2), socketpair(2) and of starting threads; the device is closed then.
    pub(super) fn start(device: OwnedFd, tree: Arc<Tree>) -> io::Result<(Self, OwnedFd)> {
        // A thread that stays awake polls without blocking.
        fcntl(&device, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        for end in [&ours, &theirs] {
            // Only privileged processes may exceed the system's limit. A directory listing is cut
            // to the size that the request asks for.
            if setsockopt(end, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
                setsockopt(end, sockopt::SndBuf, &SOCKET_BUFFER)?;
            }
        }
        let waker: Arc<Waker> = Arc::default();
        let bell = Arc::clone(&waker);
        let waiters = Waiters::new(move || bell.wake());
        let shared = Arc::new(SharedFront {
            device,
            fuser: ours,
            tree,
            waiters,
            waker,
            pool: Pool::default(),
            closed: AtomicBool::new(false),
            turn: Mutex::default(),
        });
        let (alive, ended) = mpsc::channel();
        let spawn = |name: &str, run: fn(&SharedFront)| {
            let (shared, alive) = (Arc::clone(&shared), alive.clone());
            thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
                run(&shared);
                drop(alive);
            })
        };
        let waker = spawn("waker", SharedFront::run_waker)?;
        shared.waker.thread.get_or_init(|| waker.thread().clone());
        spawn("relay", SharedFront::run_relay)?;
        for _ in 0..READERS {
            spawn("front", SharedFront::run_reader)?;
        }
        for _ in 0..pool::THREADS {
            spawn("pool", SharedFront::run_pool)?;
        }
        Ok((Self { ended }, theirs))
    }

    /// Waits until all threads have ended, which they do when the tree is unmounted, but no longer
    /// than `limit`, since a thread may be stuck in its work.
    pub(super) fn join(&self, limit: Duration) {
        // Nothing is ever sent: this returns when the last sender is dropped, or at the limit.
        let _ = self.ended.recv_timeout(limit);
    }
}

impl SharedFront {
    /// Reads requests from the kernel until the tree is unmounted.
    ///
    /// One thread at a time sleeps until a request comes: the kernel wakes every waiting thread,
    /// and for short requests the wake-up is most of the cost. While this thread does longer work,
    /// the other one takes its turn. After that, both stay awake as long as requests keep coming,
    /// and either takes the next.
    fn run_reader(&self) {
        let mut buffer = vec![0; MAX_REQUEST];
        let mut turn = None;
        let mut awake = Instant::now();
        loop {
            match read(&self.device, &mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    let message = buffer.get(..len).unwrap_or_default();
                    // The kernel never sends less than a header.
                    let Some(message) = wire::parse(message) else { continue };
                    let file = self.read_file(&message);
                    let pace = Pace::of(&message, file.as_deref(), &self.tree);
                    if pace != Pace::Quick {
                        turn = None;
                    }
                    match pace {
                        Pace::Long(share) => self.put_off(&message, share),
                        _ => self.attempt(&message, file),
                    }
                    if pace != Pace::Lone {
                        awake = Instant::now() + AWAKE;
                    }
                    turn = turn.or_else(|| self.turn.try_lock());
                }
                Err(Errno::EAGAIN) if Instant::now() < awake => thread::yield_now(),
                Err(Errno::EAGAIN) => {
                    turn = Some(turn.unwrap_or_else(|| self.turn.lock()));
                    let mut device = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
                    // The next read reports any error that poll reports.
                    let _ = poll(&mut device, PollTimeout::NONE);
                }
                // A request that was interrupted before it was read needs no answer. Nor do signals
                // that no thread waits for.
                Err(Errno::ENOENT | Errno::EINTR) => {}
                // Unmounted, or the connection was aborted.
                Err(_) => break,
            }
        }
        // The relay and fuser see the end of the socket. The pool and the waker are ended too.
        let _ = shutdown(self.fuser.as_raw_fd(), Shutdown::Both);
        self.pool.close();
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Does the long work.
    fn run_pool(&self) {
        let_others_go_first();
        let act = |job: &PoolJob| {
            if let Some(message) = wire::parse(&job.bytes) {
                self.request(&message, self.read_file(&message));
            }
        };
        self.pool.work(act, |job| self.reply_error(job.unique, Errno::EIO));
    }

    /// Passes a request to the pool.
    fn put_off(&self, message: &FuseMessage<'_>, share: pool::Share) {
        let (unique, thread) = (message.unique, message.asker.thread);
        if !self.pool.add(PoolJob { unique, thread, share, bytes: message.bytes.into() }) {
            self.reply_error(unique, Errno::EAGAIN);
        }
    }

    /// The open file that a message reads. Looking it up is not free, since open(2) and close(2)
    /// of any file change the same table: a reader looks once for each message.
    fn read_file(&self, message: &FuseMessage<'_>) -> Option<Arc<OpenFile>> {
        match message.request {
            FuseRequest::Read(read) => self.tree.file(read.handle),
            _ => None,
        }
    }

    /// Passes fuser's replies on to the kernel.
    fn run_relay(&self) {
        let mut buffer = vec![0; SOCKET_BUFFER];
        loop {
            match recv(self.fuser.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(0) => break,
                Ok(len) => self.write(&[IoSlice::new(buffer.get(..len).unwrap_or_default())]),
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
    }

    /// Sends one message to the kernel. If the request or the whole mount is gone, there is nothing
    /// to do.
    fn write(&self, message: &[IoSlice<'_>]) {
        let _ = writev(&self.device, message);
    }

    fn reply_error(&self, unique: u64, errno: Errno) {
        self.write(&[IoSlice::new(&wire::reply_header(unique, errno as i32, 0))]);
    }

    /// Answers a request. If that panics, which is a bug, other requests are not affected.
    fn attempt(&self, message: &FuseMessage<'_>, file: Option<Arc<OpenFile>>) {
        // All shared data is behind locks, and these locks are not poisoned.
        if catch_unwind(AssertUnwindSafe(|| self.request(message, file))).is_err() {
            self.reply_error(message.unique, Errno::EIO);
        }
    }

    /// Answers a request; `file` is its [`read_file`](Self::read_file).
    fn request(&self, message: &FuseMessage<'_>, file: Option<Arc<OpenFile>>) {
        let unique = message.unique;
        match message.request {
            FuseRequest::Read(read) => self.read(unique, read, file),
            FuseRequest::Poll(poll) => self.poll(unique, poll),
            FuseRequest::Interrupt { target } => self.interrupt(unique, target),
            FuseRequest::Write(write, bytes) => match self.tree.file(write.handle) {
                Some(file) if file.is_injected() => self.inject(unique, file, write, bytes),
                // No order is this long.
                _ if message.bytes.len() > wire::MAX_OTHER => {
                    self.reply_error(unique, Errno::EINVAL);
                }
                _ => self.forward(unique, message.bytes),
            },
            FuseRequest::Other => self.forward(unique, message.bytes),
            _ => self.walk(message),
        }
    }

    /// Answers a step of a walk through the tree, which is one message.
    fn walk(&self, message: &FuseMessage<'_>) {
        match walk::answer(&self.tree, message) {
            Ok(Some(reply)) => {
                let header = wire::reply_header(message.unique, 0, reply.len());
                let sent = writev(&self.device, &[IoSlice::new(&header), IoSlice::new(&reply)]);
                if sent.is_err() {
                    // The request was interrupted and has been answered, or the tree was unmounted.
                    walk::undo(&self.tree, message, &reply);
                }
            }
            Ok(None) => {}
            Err(error) => self.reply_error(message.unique, error.errno()),
        }
    }

    fn forward(&self, unique: u64, message: &[u8]) {
        loop {
            let fuser = self.fuser.as_raw_fd();
            match send(fuser, message, MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                Ok(_) => return,
                Err(errno) => {
                    let errno = if errno == Errno::EMSGSIZE { Errno::E2BIG } else { Errno::EIO };
                    self.reply_error(unique, errno);
                    return;
                }
            }
        }
    }

    fn read(&self, unique: u64, read: ReadIn, file: Option<Arc<OpenFile>>) {
        match file {
            None => self.reply_error(unique, TreeError::BadHandle.errno()),
            Some(file) => {
                if let Some(parked) = self.serve(Parked { unique, file, read }) {
                    self.park(parked);
                }
            }
        }
    }

    /// Answers a read, or returns it if there is no data yet.
    fn serve(&self, parked: Parked) -> Option<Parked> {
        let Parked { unique, file, read } = &parked;
        let size = usize::try_from(read.size).unwrap_or(usize::MAX);
        let mut send = |slices: &[IoSlice<'_>]| self.reply_data(*unique, slices);
        match file.read(read.offset, size, &mut send) {
            Ok(ReadOutcome::Sent(_)) => {}
            Ok(ReadOutcome::End) => {
                file.blocked.store(false, Ordering::Relaxed);
                self.write(&[IoSlice::new(&wire::reply_header(*unique, 0, 0))]);
            }
            Ok(ReadOutcome::Empty) if read.flags & libc::O_NONBLOCK.unsigned_abs() != 0 => {
                self.reply_error(*unique, Errno::EAGAIN);
            }
            Ok(ReadOutcome::Empty) => return Some(parked),
            Err(ReadFailure::Refused(error)) => {
                log::warn!("reading {}: {error}", file.name);
                self.reply_error(*unique, error.errno());
            }
            // The file of a mapping was truncated while the kernel copied from it.
            Err(ReadFailure::Send(error)) if error.raw_os_error() == Some(libc::EFAULT) => {
                self.reply_error(*unique, Errno::EIO);
            }
            // The reader no longer waits: the request was interrupted, or the tree was unmounted.
            Err(ReadFailure::Send(_)) => {}
        }
        None
    }

    fn reply_data(&self, unique: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        let header = wire::reply_header(unique, 0, len);
        let mut message = [IoSlice::new(&header); MAX_SLICES];
        for (place, slice) in message.iter_mut().skip(1).zip(slices) {
            *place = *slice;
        }
        let used = slices.len() + 1;
        debug_assert!(used <= MAX_SLICES, "cursors hand out few slices");
        match writev(&self.device, message.get(..used).unwrap_or_default()) {
            Ok(written) if written == OUT_HEADER_LEN + len => Ok(()),
            // The device takes a message whole or not at all.
            Ok(_) => Err(io::Error::from(io::ErrorKind::WriteZero)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Puts a read that found no data where the waker and interrupts find it.
    fn park(&self, mut parked: Parked) {
        let Some(entry) = parked.file.waits_for() else {
            // Only streams wait.
            self.reply_error(parked.unique, Errno::EIO);
            return;
        };
        let waiting = self.waiters.of(entry);
        for _ in 0..TRIES {
            let (unique, file) = (parked.unique, Arc::clone(&parked.file));
            file.blocked.store(true, Ordering::Relaxed);
            waiting.who.parked.lock().push(parked);
            waiting.arm();
            // Packets that came between the read and the arming rang no bell.
            let taken = if file.is_ready() { waiting.who.take(unique) } else { None };
            match taken.and_then(|parked| self.serve(parked)) {
                Some(again) => parked = again,
                None => return,
            }
        }
        waiting.who.parked.lock().push(parked);
        waiting.arm();
    }

    fn poll(&self, unique: u64, poll: PollIn) {
        let Some(file) = self.tree.file(poll.handle) else {
            self.reply_error(unique, TreeError::BadHandle.errno());
            return;
        };
        let Some(entry) = file.waits_for() else {
            self.write(&[IoSlice::new(&wire::poll_reply(unique, ALWAYS))]);
            return;
        };
        if poll.notifies() {
            let waiting = self.waiters.of(entry);
            let kernel_handle = poll.kernel_handle;
            {
                let mut polls = waiting.who.polls.lock();
                // Drop the entries of files that have been closed since: only this list holds them.
                polls.retain(|polled| Arc::strong_count(&polled.file) > 1);
                // The kernel asks repeatedly with the same handle for one file.
                if polls.iter().all(|polled| polled.kernel_handle != kernel_handle) {
                    polls.push(Polled { kernel_handle, file: Arc::clone(&file) });
                }
            }
            waiting.arm();
        }
        let events = match file.is_ready() {
            true if file.is_injected() => WRITABLE,
            true => READABLE,
            false => 0,
        };
        self.write(&[IoSlice::new(&wire::poll_reply(unique, events))]);
    }

    /// Ends a parked read or write; asks the kernel to try again if it is not parked (yet).
    fn interrupt(&self, unique: u64, target: u64) {
        let waiting = self.waiters.all();
        if let Some(parked) = waiting.iter().find_map(|waiting| waiting.who.take_write(target)) {
            // None of its bytes was taken.
            self.reply_error(parked.unique, Errno::EINTR);
            return;
        }
        match waiting.iter().find_map(|waiting| waiting.who.take(target)) {
            // Data comes before the interrupt: many programs do not try again after EINTR.
            Some(parked) => {
                if let Some(parked) = self.serve(parked) {
                    parked.file.blocked.store(false, Ordering::Relaxed);
                    self.reply_error(parked.unique, Errno::EINTR);
                }
            }
            None => match self.pool.find(target) {
                Some((place, thread)) => self.interrupt_making(target, place, thread),
                // It is just being read, served or answered. The kernel repeats the interrupt until
                // the request is answered.
                None => self.reply_error(unique, Errno::EAGAIN),
            },
        }
    }

    /// Handles an interrupt of a request in the pool. Programs do not expect EINTR from open(2) or
    /// stat(2) of a file, so the request goes on unless its process is about to end.
    fn interrupt_making(&self, target: u64, place: RequestState, thread: u32) {
        if !is_being_killed(thread) {
            return;
        }
        if place == RequestState::Waiting {
            self.pool.take(target);
        }
        // The pool thread that works on it finds the request gone.
        self.reply_error(target, Errno::EINTR);
    }

    /// Answers the parked reads of captures whose bell has rung.
    fn run_waker(&self) {
        while !self.closed.load(Ordering::Acquire) {
            let rung = self.waiters.rung();
            if rung.is_empty() {
                // An unpark since the check above makes this return at once.
                thread::park();
            }
            for waiting in rung {
                self.wake(&waiting);
            }
        }
    }

    fn wake(&self, waiting: &WaitingReaders<ReadsAndPolls>) {
        loop {
            let before = waiting.progress();
            for Polled { kernel_handle, .. } in waiting.who.take_ready_polls() {
                self.write(&[IoSlice::new(&wire::poll_wakeup(kernel_handle))]);
            }
            let is_writing = self.wake_writes(waiting);
            let parked = std::mem::take(&mut *waiting.who.parked.lock());
            let left: Vec<_> = parked.into_iter().filter_map(|parked| self.serve(parked)).collect();
            let idle = {
                let mut parked = waiting.who.parked.lock();
                parked.extend(left);
                parked.is_empty() && !is_writing && waiting.who.polls.lock().is_empty()
            };
            if idle {
                return;
            }
            waiting.arm();
            // Packets that came between serving and arming rang no bell, nor did room for writes.
            if waiting.progress() == before && !waiting.who.has_ready_write() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
    use zerocopy::IntoBytes;

    use super::*;
    use crate::fs::open_file::FileOpener;
    use crate::fs::{Asker, OpenAccess};
    use crate::fuse::structures::{InHeader, opcode};

    #[test]
    fn a_read_looks_its_handle_up_once() {
        let permissions = capture::ring::Permissions { uid: 0, gid: 0, mode: 0o755 };
        let tree = Arc::new(Tree::new(permissions));
        let asker = Asker { uid: 0, gid: 0, thread: 0 };
        let inode = tree.lookup(1, "status.json", asker).unwrap().inode;
        let access = OpenAccess { read: true, write: false };
        let handle = tree.open(inode, access, FileOpener::new(asker)).unwrap();
        // Like the device, this socket takes and gives one whole message at a time.
        let (device, kernel) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        let (front, _fuser) = Front::start(device, Arc::clone(&tree)).unwrap();
        let before = tree.handle_lookups();
        let header = InHeader { opcode: opcode::READ, unique: 2, inode, ..InHeader::default() };
        let read = ReadIn { handle, size: 4096, ..ReadIn::default() };
        let message = [header.as_bytes(), read.as_bytes()].concat();
        send(kernel.as_raw_fd(), &message, MsgFlags::empty()).unwrap();
        let mut reply = [0; 8192];
        let len = recv(kernel.as_raw_fd(), &mut reply, MsgFlags::empty()).unwrap();
        assert!(reply[OUT_HEADER_LEN..len].starts_with(b"{"), "it is JSON");
        assert_eq!(tree.handle_lookups() - before, 1);
        drop(kernel);
        front.join(Duration::from_secs(10));
    }
}
