//! Open files: their content (a cursor, a snapshot, a file of a flow or a rendered text), and their
//! opener.
//!
//! Each opener of a file that changes has a *visible size*: reads end there. It grows when its
//! process asks for the size (stat(2)), and after each end of file that a read reports.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use capture::cursor::batch::{BatchCursor, PacketBatch};
use capture::cursor::snapshot::{Snapshot, SnapshotExtent};
use capture::cursor::{
    Begin, Cursor, CursorProgress, CursorReadError, ReadOutcome, SavefileFormat,
};
use capture::flow::{self, FileReading, Seek, Stat};
use capture::injection::InjectionWriter;
use capture::store::Store;
use parking_lot::Mutex;
use protocol::time::Timestamp;

use super::Asker;
use super::captures::CaptureEntry;
use super::error::TreeError;
use super::rendered_text::RenderedText;
use crate::output::say;
use crate::process;

/// The opener of a file.
#[derive(Debug)]
pub(crate) struct FileOpener {
    /// The thread that called.
    pub(crate) asker: Asker,
    process: OnceLock<OpenerProcess>,
}

/// The process a thread belongs to.
#[derive(Debug)]
pub(crate) struct OpenerProcess {
    /// Its number, or the thread's own if the process is gone or not visible.
    pub(crate) pid: u32,
    /// The thread's name when it was looked up.
    pub(crate) comm: String,
}

impl FileOpener {
    /// An opener with the credentials of a request.
    pub(crate) fn new(asker: Asker) -> Self {
        Self { asker, process: OnceLock::new() }
    }

    /// An opener on another machine: a process that cannot be seen, under this name.
    pub(crate) fn elsewhere(asker: Asker, name: String) -> Self {
        Self { asker, process: OnceLock::from(OpenerProcess { pid: 0, comm: name }) }
    }

    /// Its process. It is looked up on the first call only, since that costs more than opening a
    /// small file.
    pub(crate) fn process(&self) -> &OpenerProcess {
        self.process.get_or_init(|| {
            let thread = self.asker.thread;
            OpenerProcess { pid: process::of_thread(thread), comm: process::name_of_thread(thread) }
        })
    }

    /// True if its program is BusyBox, whose `cat` and `cp` copy with sendfile(2), and read only if
    /// that fails. A daemon that is not root may not see the program's file; then the thread's name
    /// counts.
    pub(crate) fn sends_files(&self) -> bool {
        const NAME: &str = "busybox";
        let program = process::program_of_thread(self.asker.thread);
        let name = program.as_ref().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(NAME)) || self.process().comm == NAME
    }
}

/// The content of an open file.
#[derive(Debug)]
pub(crate) enum OpenContent {
    /// Savefile bytes without end; offsets are ignored.
    Stream(Mutex<Cursor>),
    /// A savefile with offsets.
    Snapshot(Mutex<Snapshot>),
    /// Packets with their numbers, for another daemon.
    Batches(Mutex<BatchCursor>),
    /// A file of a flow, or a log of flows.
    Flow(Mutex<FlowReader>),
    /// A text that does not change.
    Rendered(RenderedText),
    /// Takes what is written, and has no bytes.
    Written,
    /// Takes a savefile whose frames are injected.
    Injection(Mutex<InjectionWriter>),
}

impl OpenContent {
    /// The packets of a capture, from `begin` on.
    pub(super) fn stream(entry: &CaptureEntry, begin: Begin, format: SavefileFormat) -> Self {
        let store = &**entry.capture.store();
        Self::Stream(Mutex::new(Cursor::new(store, format, begin, true)))
    }

    /// All packets of a capture from the beginning of `extent` on. If the source is a savefile,
    /// reads wait until all of it has been indexed.
    pub(super) fn snapshot(entry: &CaptureEntry, extent: SnapshotExtent) -> Self {
        let snapshot = Snapshot::new(&**entry.capture.store(), extent);
        let is_complete = entry.capture.spec().source.is_complete_savefile();
        Self::Snapshot(Mutex::new(if is_complete { snapshot.awaited() } else { snapshot }))
    }

    /// True if it is a snapshot whose reads may wait.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Self::Snapshot(snapshot) if snapshot.lock().is_awaited())
    }

    /// True if its opener counts as a reader of its capture.
    pub(super) const fn is_reader(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Snapshot(_) | Self::Batches(_))
    }

    /// The size, if the bytes of this file will not change any more; a file that begins anew may
    /// still get others.
    pub(super) fn final_size(&self) -> Option<u64> {
        let Self::Flow(flow) = self else { return None };
        let Stat { size, is_final, .. } = flow.lock().visible();
        is_final.then_some(size)
    }
}

/// One opener of a file that is read through a [`FileReading`].
#[derive(Debug)]
pub(crate) struct FlowReader {
    reading: FileReading,
    /// The attributes that its opener has seen. They stay when the file leaves the tree.
    visible: Stat,
}

impl FlowReader {
    /// An opener that has seen the attributes `visible`.
    pub(super) fn new(reading: FileReading, visible: Stat) -> Self {
        let visible = match reading.rendered_size() {
            Some(size) => Stat { size, present: size, ..visible },
            None => visible,
        };
        Self { reading, visible }
    }

    /// The attributes that its opener has seen.
    const fn visible(&self) -> Stat {
        self.visible
    }

    /// The same, if the file was rendered when it was opened: they may differ from those for other
    /// users.
    fn rendered(&self) -> Option<Stat> {
        self.reading.rendered_size().map(|_| self.visible)
    }

    /// The same for a file that has left the tree. All bytes of a stream may be gone.
    fn visible_after_removal(&self) -> Stat {
        let present = if self.reading.is_all_hole() { 0 } else { self.visible.present };
        Stat { present, ..self.visible }
    }

    /// Notes that its opener has seen these attributes, and lets it read up to that size.
    fn extend_visible(&mut self, stat: Stat) {
        self.reading.extend_visible();
        self.visible = Stat { size: stat.size.max(self.visible.size), ..stat };
    }

    /// Extends the visible size to the newest one, for a file whose name now belongs to a newer
    /// file: no stat(2) gives its size. Such files, which begin anew, have only the hole after
    /// their end.
    fn extend_visible_to_newest(&mut self) {
        self.reading.extend_visible();
        if let Some(end) = self.reading.seek(0, Seek::Hole)
            && end > self.visible.size
        {
            self.visible = Stat { size: end, present: end, ..self.visible };
        }
    }

    /// The next data or hole, see [`FileReading::seek`].
    pub(super) fn seek(&mut self, offset: u64, to: Seek) -> Option<u64> {
        self.reading.seek(offset, to)
    }

    fn read(&mut self, offset: u64, size: usize) -> Result<Vec<u8>, flow::FlowReadError> {
        let bytes = self.reading.read(offset, size)?;
        // A file that has left the tree can still grow for its openers, and must not appear shorter
        // than the bytes they have read.
        if !bytes.is_empty() {
            let end = offset.saturating_add(bytes.len() as u64);
            self.visible.size = self.visible.size.max(end);
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
    pub(crate) entry: Option<Arc<CaptureEntry>>,
    pub(crate) content: OpenContent,
    pub(crate) opener: FileOpener,
    pub(crate) opened: Timestamp,
    /// True if a read of it waits for packets.
    pub(crate) blocked: AtomicBool,
    /// True if the kernel may keep its content.
    pub(super) is_small_and_final: bool,
    /// True if it is a snapshot whose reads may wait.
    pub(super) is_awaited: bool,
}

impl OpenFile {
    /// True if it is a stream, which has no size.
    pub(crate) const fn is_stream(&self) -> bool {
        matches!(self.content, OpenContent::Stream(_))
    }

    /// True if the kernel may keep its content while it is open.
    pub(crate) const fn is_small_and_final(&self) -> bool {
        self.is_small_and_final
    }

    /// True if its opener counts as a reader of its capture.
    pub(crate) const fn is_reader(&self) -> bool {
        self.content.is_reader()
    }

    /// The capture whose packets it reads, or that it writes to, if its reads or writes may wait.
    pub(crate) fn waits_for(&self) -> Option<&Arc<CaptureEntry>> {
        match self.content {
            OpenContent::Stream(_) | OpenContent::Batches(_) => self.entry.as_ref(),
            OpenContent::Snapshot(_) if self.is_awaited => self.entry.as_ref(),
            OpenContent::Snapshot(_)
            | OpenContent::Flow(_)
            | OpenContent::Rendered(_)
            | OpenContent::Written => None,
            OpenContent::Injection(_) => self.entry.as_ref(),
        }
    }

    fn store(&self) -> Option<&dyn Store> {
        self.entry.as_ref().map(|entry| &**entry.capture.store())
    }

    /// The counters as of now; `None` for a file that is no reader. Overwritten packets count as
    /// lost even before the reader comes back and notices: packets that are gone are not part of
    /// its lag.
    pub(crate) fn progress(&self) -> Option<CursorProgress> {
        let store = self.store()?;
        let progress = match &self.content {
            OpenContent::Stream(cursor) => cursor.lock().progress(store),
            OpenContent::Snapshot(snapshot) => snapshot.lock().progress(store),
            OpenContent::Batches(cursor) => cursor.lock().progress(store),
            OpenContent::Flow(_)
            | OpenContent::Rendered(_)
            | OpenContent::Written
            | OpenContent::Injection(_) => return None,
        };
        let CursorProgress { lost, lag, gone, .. } = progress;
        Some(CursorProgress {
            lost: lost.saturating_add(gone),
            lag: lag.saturating_sub(gone),
            gone: 0,
            ..progress
        })
    }

    /// True if a read would return without waiting.
    pub(crate) fn is_ready(&self) -> bool {
        match (&self.content, self.store()) {
            (OpenContent::Stream(cursor), Some(store)) => cursor.lock().is_ready(store),
            (OpenContent::Snapshot(snapshot), Some(store)) => snapshot.lock().is_ready(store),
            (OpenContent::Batches(cursor), Some(store)) => {
                cursor.lock().is_ready(store) || store.bounds().ended
            }
            (OpenContent::Injection(writer), _) => writer.lock().has_room(),
            _ => true,
        }
    }

    /// True if a savefile is written into it, whose writes may wait.
    pub(crate) const fn is_injected(&self) -> bool {
        matches!(self.content, OpenContent::Injection(_))
    }

    /// Takes the bytes of one write to a file that takes a savefile; `false` if it has to wait for
    /// room. `at` is their offset, if the program chose one.
    ///
    /// # Errors
    /// [`TreeError`]; also for files of other content.
    pub(crate) fn inject(&self, at: Option<u64>, bytes: &[u8]) -> Result<bool, TreeError> {
        let OpenContent::Injection(writer) = &self.content else {
            return Err(TreeError::WrongAccess);
        };
        let mut writer = writer.lock();
        if !writer.has_room() {
            return Ok(false);
        }
        writer.write(at, bytes)?;
        Ok(true)
    }

    /// Writes a problem with a savefile that is injected to the log, where an errno has no text.
    pub(crate) fn log_injection(&self, problem: &dyn std::fmt::Display) {
        if let Some(entry) = &self.entry
            && let Some(injection) = entry.capture.injection()
            && injection.may_log()
        {
            say(format_args!("{}/{}: {problem}", entry.alias(), self.name));
        }
    }

    /// What is wrong with a savefile that was written into it and ends here.
    pub(super) fn lack(&self) -> Option<String> {
        match &self.content {
            OpenContent::Injection(writer) => writer.lock().lack(),
            _ => None,
        }
    }

    /// Notes that the opener has seen the file's size, and lets it read up to there; `stat` has the
    /// attributes that it saw of a file of a flow.
    pub(super) fn extend_visible(&self, stat: Option<Stat>) {
        match (&self.content, self.store(), stat) {
            (OpenContent::Snapshot(snapshot), Some(store), _) => {
                snapshot.lock().extend_visible(store)
            }
            (OpenContent::Flow(flow), _, Some(stat)) => flow.lock().extend_visible(stat),
            _ => {}
        }
    }

    /// Extends the visible size of a file of a flow whose name now belongs to a newer file.
    pub(super) fn extend_visible_to_newest(&self) {
        if let OpenContent::Flow(flow) = &self.content {
            flow.lock().extend_visible_to_newest();
        }
    }

    /// The attributes, for its opener, of a file of a flow that has left the tree.
    pub(super) fn visible_after_removal(&self) -> Option<Stat> {
        match &self.content {
            OpenContent::Flow(flow) => Some(flow.lock().visible_after_removal()),
            _ => None,
        }
    }

    /// The attributes, for its opener, of a file of a flow that was rendered when it was opened.
    pub(super) fn rendered_stat(&self) -> Option<Stat> {
        match &self.content {
            OpenContent::Flow(flow) => flow.lock().rendered(),
            _ => None,
        }
    }

    /// Size and time of a file that was rendered when it was opened.
    pub(super) fn rendered(&self) -> Option<(u64, Timestamp)> {
        match &self.content {
            OpenContent::Rendered(text) => Some((text.bytes().len() as u64, self.opened)),
            OpenContent::Flow(flow) => {
                flow.lock().rendered().map(|stat| (stat.size, stat.modified))
            }
            OpenContent::Stream(_)
            | OpenContent::Snapshot(_)
            | OpenContent::Batches(_)
            | OpenContent::Written
            | OpenContent::Injection(_) => None,
        }
    }

    /// One read: passes bytes to `send` in a single call, or returns the reason why not.
    ///
    /// # Errors
    /// [`TreeError`]; [`ReadOutcome::Empty`] only if [`waits_for`](Self::waits_for) is not `None`.
    pub(crate) fn read(
        &self,
        offset: u64,
        size: usize,
        send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> Result<ReadOutcome, ReadFailure> {
        let outcome = match (&self.content, self.store()) {
            (OpenContent::Stream(cursor), Some(store)) => {
                let mut cursor = cursor.lock();
                let outcome = cursor.read(store, size, send);
                if matches!(outcome, Ok(ReadOutcome::Sent(_))) {
                    // Before the lock is released: the reader has its bytes and may wait again.
                    self.blocked.store(false, Ordering::Relaxed);
                }
                outcome
            }
            (OpenContent::Snapshot(snapshot), Some(store)) => {
                let outcome = snapshot.lock().read(store, offset, size, send);
                if matches!(outcome, Ok(ReadOutcome::Sent(_))) {
                    self.blocked.store(false, Ordering::Relaxed);
                }
                outcome
            }
            (OpenContent::Flow(flow), _) => {
                // A statement of its own, so that the lock is released before the reply is copied.
                let bytes = flow.lock().read(offset, size);
                let bytes = bytes.map_err(|error| match error {
                    flow::FlowReadError::Expired => CursorReadError::Expired,
                    flow::FlowReadError::Storage(why) => CursorReadError::Storage(why),
                });
                bytes.and_then(|bytes| give(&bytes, send))
            }
            (OpenContent::Rendered(text), _) => read_text(text.bytes(), offset, size, send),
            _ => return Err(TreeError::WrongAccess.into()),
        };
        outcome.map_err(ReadFailure::from)
    }

    /// Passes the next packets of a file of [`OpenContent::Batches`] to `send`, at most `size`
    /// bytes of records, or one record.
    ///
    /// # Errors
    /// [`TreeError`]; also for files of other content.
    pub(crate) fn read_batch(
        &self,
        size: usize,
        send: &mut dyn FnMut(&PacketBatch<'_>) -> io::Result<()>,
    ) -> Result<ReadOutcome, ReadFailure> {
        let (OpenContent::Batches(cursor), Some(store)) = (&self.content, self.store()) else {
            return Err(TreeError::WrongAccess.into());
        };
        let ended = store.bounds().ended;
        let mut cursor = cursor.lock();
        match cursor.read(store, size, send)? {
            ReadOutcome::Empty if ended && !cursor.is_ready(store) => Ok(ReadOutcome::End),
            outcome => {
                let has_got_some = matches!(outcome, ReadOutcome::Sent(_));
                if has_got_some {
                    self.blocked.store(false, Ordering::Relaxed);
                }
                Ok(outcome)
            }
        }
    }
}

/// Why a read gave nothing.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// The reader gets this error.
    Refused(TreeError),
    /// The reply did not reach the reader.
    Send(io::Error),
}

impl From<CursorReadError> for ReadFailure {
    fn from(error: CursorReadError) -> Self {
        match error {
            CursorReadError::Storage(why) => TreeError::Storage(why).into(),
            CursorReadError::Expired => TreeError::Expired.into(),
            CursorReadError::Send(error) => Self::Send(error),
        }
    }
}

impl From<TreeError> for ReadFailure {
    fn from(error: TreeError) -> Self {
        Self::Refused(error)
    }
}

fn read_text(
    bytes: &[u8],
    offset: u64,
    size: usize,
    send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
) -> Result<ReadOutcome, CursorReadError> {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
    let rest = rest.unwrap_or_default();
    give(rest.get(..size).unwrap_or(rest), send)
}

fn give(
    part: &[u8],
    send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>,
) -> Result<ReadOutcome, CursorReadError> {
    if part.is_empty() {
        return Ok(ReadOutcome::End);
    }
    send(&[IoSlice::new(part)]).map_err(CursorReadError::Send)?;
    Ok(ReadOutcome::Sent(part.len()))
}
