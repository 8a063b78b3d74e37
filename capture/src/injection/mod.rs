//! Frames on their way into the kernel: what programs write into `inject.pcap` of a capture.
//!
//! ```text
//!   writers ── savefile bytes ──▶ queues, one for each ── frames when they are due ──▶ source
//! ```
//!
//! A writer's bytes are taken apart at once ([`InjectionWriter`]), and its frames wait here until they
//! are due. The capture's own thread takes them out, hands them to the kernel and stores them: it is
//! the only one that fills the ring.
//!
//! The one invariant: a queue takes bytes only while it has less than [`QUEUE_LEN`]. So memory is
//! bounded, and a savefile of any size passes through.

mod speed;
mod writer;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use protocol::linktype::LinkType;
use protocol::time::Timestamp;

pub use speed::InjectSpeed;
pub use writer::InjectionWriter;

/// Bytes of frames that may wait for one writer before it waits itself: 80 ms at 100 Mbit/s, far
/// more than the capture's thread sleeps.
const QUEUE_LEN: usize = 1 << 20;

/// Bytes that a waiting frame takes beside its own.
const ENTRY_LEN: usize = size_of::<QueuedFrame>() + 16;

/// Maximum number of writers of a capture, including those that have left while frames of theirs
/// wait. Each may hold a queue, a buffer, and a write that waits.
const WRITERS: usize = 16;

/// The time between two problems in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A frame that is never due, because its savefile has an impossible time, is due after this.
const LONGEST_GAP: Duration = Duration::from_secs(u32::MAX as u64);

/// Why bytes of a writer are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectionError {
    /// The device takes no frames now.
    #[error("the capture is not running, so nothing can be injected (its state is in status.json)")]
    NotRunning,
    /// The capture was stopped, or its device was gone, since the writer has begun.
    #[error("the capture has stopped since; write the savefile again when it runs")]
    Ended,
    /// There are too many writers.
    #[error("{WRITERS} programs inject already, which is the maximum")]
    TooMany,
    /// The bytes are no savefile of such frames.
    #[error("{0}")]
    Malformed(String),
    /// A write is not at the end of what was written before.
    #[error("written at byte {at}, and byte {end} was next: a savefile is taken in its order only")]
    OutOfOrder {
        /// Offset of the write.
        at: u64,
        /// Number of bytes before it.
        end: u64,
    },
}

/// The counters of an injection, since the capture was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct InjectionStatus {
    /// As it is written.
    speed: String,
    /// Programs that write, and those whose frames still wait.
    writers: u64,
    /// Frames that wait until they are due, and their bytes.
    queued_packets: u64,
    queued_bytes: u64,
    /// Frames that the kernel has taken, and their bytes.
    injected_packets: u64,
    injected_bytes: u64,
    /// Frames that the kernel has refused.
    refused_packets: u64,
    /// Frames that were still waiting when the capture stopped.
    dropped_packets: u64,
    /// Frames that the savefile has only the beginning of. They are injected as they are there.
    cut_packets: u64,
    /// The last problem.
    error: Option<String>,
}

/// The queues of one capture.
#[derive(Debug)]
pub struct Injection {
    speed: InjectSpeed,
    queues: Mutex<Queues>,
    /// Readable after frames have come.
    wake: EventFd,
}

#[derive(Debug, Default)]
struct Queues {
    /// The link types that the device takes; empty before it was open.
    takes: &'static [LinkType],
    /// Frames are taken.
    is_running: bool,
    writers: Vec<WriterQueue>,
    /// The number of the next writer.
    next: u64,
    counts: InjectionStatus,
    /// When a problem was last written to the log.
    logged: Option<Instant>,
}

/// The frames of one writer.
#[derive(Debug)]
struct WriterQueue {
    number: u64,
    /// When a frame of the savefile was due, and its time there; none for the next one to be due at
    /// once.
    clock: Option<(Instant, Timestamp)>,
    frames: VecDeque<QueuedFrame>,
    /// Bytes of memory that the frames take.
    len: usize,
    has_left: bool,
}

/// A frame that waits.
#[derive(Debug)]
struct QueuedFrame {
    due: Instant,
    bytes: Box<[u8]>,
}

/// The answer to the question which frame is next.
#[derive(Debug)]
pub(crate) enum NextFrame {
    /// This one, now. `has_room` is true if its writer may go on because of that.
    Due { frame: Box<[u8]>, has_room: bool },
    /// One is due at this time.
    At(Instant),
    /// None waits.
    None,
}

impl Injection {
    /// Empty queues.
    ///
    /// # Errors
    /// The errors of eventfd(2).
    pub fn new(speed: InjectSpeed) -> io::Result<Arc<Self>> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Arc::new(Self { speed, queues: Mutex::default(), wake }))
    }

    /// Begins a savefile.
    ///
    /// # Errors
    /// [`InjectionError::NotRunning`] and [`InjectionError::TooMany`].
    pub fn writer(self: &Arc<Self>) -> Result<InjectionWriter, InjectionError> {
        let mut queues = self.queues.lock();
        if !queues.is_running {
            return Err(InjectionError::NotRunning);
        }
        if queues.writers.len() >= WRITERS {
            return Err(InjectionError::TooMany);
        }
        let number = queues.next;
        queues.next += 1;
        queues.writers.push(WriterQueue {
            number,
            clock: None,
            frames: VecDeque::new(),
            len: 0,
            has_left: false,
        });
        Ok(InjectionWriter::new(Arc::clone(self), number))
    }

    /// The counters now.
    #[must_use]
    pub fn status(&self) -> InjectionStatus {
        let queues = self.queues.lock();
        let sum = |of: fn(&WriterQueue) -> usize| {
            queues.writers.iter().map(|writer| of(writer) as u64).sum::<u64>()
        };
        let bytes = |writer: &WriterQueue| writer.len - ENTRY_LEN * writer.frames.len();
        InjectionStatus {
            speed: self.speed.to_string(),
            writers: queues.writers.len() as u64,
            queued_packets: sum(|writer| writer.frames.len()),
            queued_bytes: sum(bytes),
            ..queues.counts.clone()
        }
    }

    /// For a source: its device is open, and takes frames of these link types from now on.
    pub(crate) fn begin(&self, takes: &'static [LinkType]) {
        let mut queues = self.queues.lock();
        queues.takes = takes;
        queues.is_running = true;
    }

    /// The source, which was stopped, is about to run again.
    pub(crate) fn resume(&self) {
        let mut queues = self.queues.lock();
        queues.is_running = !queues.takes.is_empty();
    }

    /// For a source: the device takes nothing any more. Frames that wait are dropped, and
    /// their writers get an error.
    pub(crate) fn end(&self) {
        let mut queues = self.queues.lock();
        queues.is_running = false;
        let waiting: usize = queues.writers.iter().map(|writer| writer.frames.len()).sum();
        queues.counts.dropped_packets += waiting as u64;
        queues.writers.clear();
    }

    /// For the source's thread: the frame that is due first.
    pub(crate) fn next(&self, now: Instant) -> NextFrame {
        let mut queues = self.queues.lock();
        let heads = queues.writers.iter().enumerate();
        let heads = heads.filter_map(|(at, writer)| Some((writer.frames.front()?.due, at)));
        let Some((due, at)) = heads.min() else { return NextFrame::None };
        if due > now {
            return NextFrame::At(due);
        }
        let Some(writer) = queues.writers.get_mut(at) else { return NextFrame::None };
        let was_full = writer.len >= QUEUE_LEN;
        let Some(QueuedFrame { bytes: frame, .. }) = writer.frames.pop_front() else {
            return NextFrame::None;
        };
        writer.len -= frame.len() + ENTRY_LEN;
        let has_room = was_full && writer.len < QUEUE_LEN;
        if writer.has_left && writer.frames.is_empty() {
            queues.writers.swap_remove(at);
        }
        NextFrame::Due { frame, has_room }
    }

    /// For the source's thread: notes what the kernel has said to a frame of this length.
    pub(crate) fn done(&self, len: usize, result: Result<(), String>) {
        let counts = &mut self.queues.lock().counts;
        match result {
            Ok(()) => {
                counts.injected_packets += 1;
                counts.injected_bytes += len as u64;
            }
            Err(why) => {
                counts.refused_packets += 1;
                counts.error = Some(why);
            }
        }
    }

    /// For the source's thread: a descriptor to poll, readable after frames have come.
    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// For the source's thread: makes that descriptor unreadable. Look for frames afterwards.
    pub(crate) fn acknowledge(&self) {
        // Fails only when it is not readable.
        let _ = self.wake.read();
    }

    /// Adds frames of a writer, which come with their times in its savefile.
    fn add(&self, number: u64, frames: Vec<SavedFrame>) -> Result<(), InjectionError> {
        if frames.is_empty() {
            return self.has(number).then_some(()).ok_or(InjectionError::Ended);
        }
        let now = Instant::now();
        let mut queues = self.queues.lock();
        let Queues { writers, counts, .. } = &mut *queues;
        let writer = writers.iter_mut().find(|writer| writer.number == number);
        let writer = writer.ok_or(InjectionError::Ended)?;
        for SavedFrame { time, bytes, is_cut, begins_file } in frames {
            if begins_file {
                writer.clock = None;
            }
            let last = writer.frames.back().map_or(now, |last| last.due.max(now));
            // A simple packet block has no time.
            let has_time = time != Timestamp::default();
            let due = match writer.clock {
                Some((began, first)) if has_time && self.speed != InjectSpeed::Max => {
                    let gap = time.nanoseconds().saturating_sub(first.nanoseconds());
                    let gap = self.speed.gap(Duration::from_nanos(gap)).min(LONGEST_GAP);
                    began.checked_add(gap).unwrap_or(last)
                }
                _ => last,
            };
            if has_time && writer.clock.is_none() {
                writer.clock = Some((due, time));
            }
            writer.len += bytes.len() + ENTRY_LEN;
            counts.cut_packets += u64::from(is_cut);
            // Within a savefile, the order counts before the times.
            let due = writer.frames.back().map_or(due, |before| before.due.max(due));
            writer.frames.push_back(QueuedFrame { due, bytes });
        }
        drop(queues);
        // Fails only when the counter is full, and then the descriptor is readable.
        let _ = self.wake.write(1);
        Ok(())
    }

    /// True if the device still takes frames of this writer.
    fn has(&self, number: u64) -> bool {
        self.queues.lock().writers.iter().any(|writer| writer.number == number)
    }

    /// True if bytes of a writer are taken, or refused, at once.
    fn has_room(&self, number: u64) -> bool {
        let queues = self.queues.lock();
        let writer = queues.writers.iter().find(|writer| writer.number == number);
        writer.is_none_or(|writer| writer.len < QUEUE_LEN)
    }

    /// Notes that a writer has left, and what was wrong with its savefile.
    fn leave(&self, number: u64, problem: Option<String>) {
        let mut queues = self.queues.lock();
        if problem.is_some() {
            queues.counts.error = problem;
        }
        for writer in queues.writers.iter_mut().filter(|writer| writer.number == number) {
            writer.has_left = true;
        }
        queues.writers.retain(|writer| !writer.has_left || !writer.frames.is_empty());
    }

    /// Returns true if a problem may be written to the log: once a second, so that no program fills
    /// it.
    pub fn may_log(&self) -> bool {
        let (now, mut queues) = (Instant::now(), self.queues.lock());
        let may_log = queues.logged.is_none_or(|logged| now - logged >= LOG_INTERVAL);
        if may_log {
            queues.logged = Some(now);
        }
        may_log
    }

    /// Notes what is wrong with a savefile.
    fn report(&self, problem: &str) {
        self.queues.lock().counts.error = Some(problem.to_owned());
    }

    /// The link types that the device takes.
    fn takes(&self) -> &'static [LinkType] {
        self.queues.lock().takes
    }
}

/// A frame as its savefile has it.
#[derive(Debug)]
struct SavedFrame {
    time: Timestamp,
    bytes: Box<[u8]>,
    /// The savefile has only its beginning.
    is_cut: bool,
    /// It is the first one of a file.
    begins_file: bool,
}

#[cfg(test)]
mod tests;
