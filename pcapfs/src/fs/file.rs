//! Open files: a cursor, a snapshot, a file of a flow, frozen bytes, or `ctl`, and who opened it.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use capture::cursor::snapshot::Snapshot;
use capture::cursor::{Cursor, Outcome, Progress, ReadError};
use capture::flow::{self, Reading, Seek, Stat};
use capture::store::Store;
use parking_lot::Mutex;
use protocol::time::Timestamp;

use super::Asker;
use super::captures::Entry;
use super::error::Error;
use super::frozen::Frozen;
use super::known::Version;
use crate::process;

/// Who opened a file.
#[derive(Debug)]
pub(crate) struct Opener {
    /// The thread that called.
    pub(crate) asker: Asker,
    process: OnceLock<Process>,
}

/// The process a thread belongs to.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its number; the thread's own if it is gone or out of sight.
    pub(crate) pid: u32,
    /// The thread's name when it was looked for.
    pub(crate) comm: String,
}

impl Opener {
    /// Whoever asks.
    pub(crate) fn new(asker: Asker) -> Self {
        Self { asker, process: OnceLock::new() }
    }

    /// Its process, which is looked for when it is first asked for: that costs more than all of
    /// opening a small file.
    pub(crate) fn process(&self) -> &Process {
        self.process.get_or_init(|| {
            // A name may be any bytes.
            let comm =
                std::fs::read(format!("/proc/{}/comm", self.asker.thread)).unwrap_or_default();
            let comm = String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned();
            Process { pid: process::of_thread(self.asker.thread), comm }
        })
    }
}

impl Opener {
    /// Whether its program is BusyBox, whose `cat` and `cp` copy with sendfile(2), and read only if
    /// that fails. Its file may be out of sight for a daemon that is not root; then its name counts.
    pub(crate) fn sends_files(&self) -> bool {
        const NAME: &str = "busybox";
        let program = std::fs::read_link(format!("/proc/{}/exe", self.asker.thread));
        let name = program.as_ref().ok().and_then(|path| path.file_name()?.to_str());
        name.is_some_and(|name| name.starts_with(NAME)) || self.process().comm == NAME
    }
}

/// What an open file gives.
#[derive(Debug)]
pub(crate) enum Content {
    /// Savefile bytes without end; offsets mean nothing.
    Stream(Mutex<Cursor>),
    /// A savefile with offsets.
    Snapshot(Mutex<Snapshot>),
    /// A file of a flow, or a log of flows.
    Flow(Mutex<FlowFile>),
    /// Bytes that do not change.
    Frozen(Frozen),
    /// Takes orders, gives nothing.
    Control,
}

impl Content {
    /// Whether it is a snapshot whose reads may wait.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Self::Snapshot(snapshot) if snapshot.lock().is_awaited())
    }

    /// Whether all openers of the file get the same, whenever they opened it, and its size.
    pub(super) fn finality(&self, version: Version) -> (bool, u64) {
        match self {
            Self::Flow(flow) => {
                let told = flow.lock().told();
                (version.is_final(told), told.size)
            }
            Self::Stream(_) | Self::Snapshot(_) | Self::Frozen(_) | Self::Control => (false, 0),
        }
    }
}

/// One opener of a file of a flow.
#[derive(Debug)]
pub(crate) struct FlowFile {
    reading: Reading,
    /// What its opener knows of it. It stays when the file is gone from the tree.
    told: Stat,
}

impl FlowFile {
    /// An opener that was told `told`.
    pub(super) fn new(reading: Reading, told: Stat) -> Self {
        let told = match reading.frozen_size() {
            Some(size) => Stat { size, present: size, ..told },
            None => told,
        };
        Self { reading, told }
    }

    /// What its opener is to be told of it, if that is not what any other would be told.
    pub(super) fn frozen(&self) -> Option<Stat> {
        self.reading.frozen_size().map(|_| self.told)
    }

    /// What its opener knows of it.
    pub(super) const fn told(&self) -> Stat {
        self.told
    }

    /// The same when it is gone from the tree: of a stream it may be that nothing is left.
    fn left(&self) -> Stat {
        let present = if self.reading.is_all_hole() { 0 } else { self.told.present };
        Stat { present, ..self.told }
    }

    /// Says that its opener was told this, and can read that far.
    fn tell(&mut self, stat: Stat) {
        self.reading.rearm();
        self.told = Stat { size: stat.size.max(self.told.size), ..stat };
    }

    /// Looks how long a file is whose name stands for one with another beginning now: nobody else
    /// can say. Files that begin anew have no holes but the one behind their end.
    fn catch_up(&mut self) {
        self.reading.rearm();
        if let Some(end) = self.reading.seek(0, Seek::Hole)
            && end > self.told.size
        {
            self.told = Stat { size: end, present: end, ..self.told };
        }
    }

    /// Where the next data or hole is, see [`Reading::seek`].
    pub(super) fn seek(&mut self, offset: u64, to: Seek) -> Option<u64> {
        self.reading.seek(offset, to)
    }

    fn read(&mut self, offset: u64, size: usize) -> Result<Vec<u8>, flow::ReadError> {
        let bytes = self.reading.read(offset, size)?;
        // A file that is gone from the tree can still grow for those who have it open, and must
        // not seem to be shorter than what they have read.
        if !bytes.is_empty() {
            self.told.size = self.told.size.max(offset.saturating_add(bytes.len() as u64));
        }
        Ok(bytes)
    }
}

/// One opener of one file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) inode: u64,
    pub(crate) name: &'static str,
    /// The capture it belongs to, for all but the files in the root of the tree.
    pub(crate) entry: Option<Arc<Entry>>,
    pub(crate) content: Content,
    pub(crate) opener: Opener,
    pub(crate) opened: Timestamp,
    /// A read of it waits for packets.
    pub(crate) blocked: AtomicBool,
    /// The kernel may keep its content.
    pub(super) is_small_and_final: bool,
    /// It is a snapshot whose reads may wait.
    pub(super) is_awaited: bool,
}

impl OpenFile {
    /// Whether it is one without a size.
    pub(crate) const fn is_stream(&self) -> bool {
        matches!(self.content, Content::Stream(_))
    }

    /// Whether the kernel may keep its content while it is open.
    pub(crate) const fn is_small_and_final(&self) -> bool {
        self.is_small_and_final
    }

    /// Whether it counts as a reader of its capture.
    pub(crate) fn is_reader(&self) -> bool {
        matches!(self.content, Content::Stream(_) | Content::Snapshot(_))
    }

    /// The packets it reads, for one whose reads may wait.
    pub(crate) fn waits_for(&self) -> Option<&Arc<Entry>> {
        match self.content {
            Content::Stream(_) => self.entry.as_ref(),
            Content::Snapshot(_) if self.is_awaited => self.entry.as_ref(),
            Content::Snapshot(_) | Content::Flow(_) | Content::Frozen(_) | Content::Control => None,
        }
    }

    fn store(&self) -> Option<&dyn Store> {
        self.entry.as_ref().map(|entry| &**entry.capture.store())
    }

    /// Counters as of now; `None` for what is no reader. What is overwritten is lost to a reader
    /// that has not come back yet to find out, too: nobody is behind by what is not there.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let store = self.store()?;
        let progress = match &self.content {
            Content::Stream(cursor) => cursor.lock().progress(store),
            Content::Snapshot(snapshot) => snapshot.lock().progress(store),
            Content::Flow(_) | Content::Frozen(_) | Content::Control => return None,
        };
        let Progress { lost, lag, gone, .. } = progress;
        Some(Progress {
            lost: lost.saturating_add(gone),
            lag: lag.saturating_sub(gone),
            gone: 0,
            ..progress
        })
    }

    /// Whether a read would not wait.
    pub(crate) fn is_ready(&self) -> bool {
        match (&self.content, self.store()) {
            (Content::Stream(cursor), Some(store)) => cursor.lock().is_ready(store),
            (Content::Snapshot(snapshot), Some(store)) => snapshot.lock().is_ready(store),
            _ => true,
        }
    }

    /// Says that whoever opened the file was told its size, so that it can read that far; `stat` is
    /// what was told of a file of a flow.
    pub(super) fn size_was_told(&self, stat: Option<Stat>) {
        match (&self.content, self.store(), stat) {
            (Content::Snapshot(snapshot), Some(store), _) => snapshot.lock().rearm(store),
            (Content::Flow(flow), _, Some(stat)) => flow.lock().tell(stat),
            _ => {}
        }
    }

    /// Looks how long a file of a flow is whose name stands for another by now, for its opener.
    pub(super) fn catch_up(&self) {
        if let Content::Flow(flow) = &self.content {
            flow.lock().catch_up();
        }
    }

    /// What is known to whom it is open of a file of a flow that is gone from the tree.
    pub(super) fn left(&self) -> Option<Stat> {
        match &self.content {
            Content::Flow(flow) => Some(flow.lock().left()),
            _ => None,
        }
    }

    /// One read: hands bytes to `send`, in one call, or says why not.
    ///
    /// # Errors
    /// [`Error`]; [`Outcome::Empty`] only for what [waits](Self::waits_for).
    pub(crate) fn read(
        &self,
        offset: u64,
        size: usize,
        send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> Result<Outcome, ReadFailure> {
        let outcome = match (&self.content, self.store()) {
            (Content::Stream(cursor), Some(store)) => {
                let mut cursor = cursor.lock();
                let outcome = cursor.read(store, size, send);
                if matches!(outcome, Ok(Outcome::Sent(_))) {
                    // Before the lock is gone: the reader has its bytes and may wait again.
                    self.blocked.store(false, Ordering::Relaxed);
                }
                outcome
            }
            (Content::Snapshot(snapshot), Some(store)) => {
                let outcome = snapshot.lock().read(store, offset, size, send);
                if matches!(outcome, Ok(Outcome::Sent(_))) {
                    self.blocked.store(false, Ordering::Relaxed);
                }
                outcome
            }
            (Content::Flow(flow), _) => {
                // A statement of its own: nobody is to wait for the lock while this one's reply is
                // copied.
                let bytes = flow.lock().read(offset, size);
                let bytes = bytes.map_err(|error| match error {
                    flow::ReadError::Expired => ReadError::Expired,
                    flow::ReadError::Storage(why) => ReadError::Storage(why),
                });
                bytes.and_then(|bytes| give(&bytes, send))
            }
            (Content::Frozen(frozen), _) => read_frozen(frozen.bytes(), offset, size, send),
            _ => return Err(Error::WrongAccess.into()),
        };
        outcome.map_err(|error| match error {
            ReadError::Storage(why) => Error::Storage(why).into(),
            ReadError::Expired => Error::Expired.into(),
            ReadError::Send(error) => ReadFailure::Send(error),
        })
    }
}

/// Why a read gave nothing.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// The reader is to be told.
    Refused(Error),
    /// The reply did not reach the reader.
    Send(io::Error),
}

impl From<Error> for ReadFailure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

fn read_frozen(
    bytes: &[u8],
    offset: u64,
    size: usize,
    send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
) -> Result<Outcome, ReadError> {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
    let rest = rest.unwrap_or_default();
    give(rest.get(..size).unwrap_or(rest), send)
}

fn give(
    part: &[u8],
    send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
) -> Result<Outcome, ReadError> {
    if part.is_empty() {
        return Ok(Outcome::End);
    }
    send(&[IoSlice::new(part)]).map_err(ReadError::Send)?;
    Ok(Outcome::Sent(part.len()))
}
