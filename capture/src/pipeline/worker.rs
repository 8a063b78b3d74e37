//! The thread of a capture, and the parts kept for it while it does not run.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::time::Timestamp;

use super::{CaptureError, CaptureState, Reception, SharedPipeline, Spec};
use crate::clock;
use crate::ring::{Ring, Writer};
use crate::savefile::{Indexed, Savefile};
use crate::source::{Observer, Rest, STOPPED, Source, SourceControl, SourceEnd, SourceError};
use crate::store::Store;

/// Milliseconds between attempts to open a source that went away.
const RETRY_INTERVAL: u16 = 250;

/// Bytes of stack for a capture's thread. None of them recurses, but a source may shake hands over
/// TLS. Pages that are not used take no memory.
const STACK: usize = 1 << 20;

/// What a thread that fills a ring returns: the writer, and a source that is not closed.
type Filled = (Box<Writer>, Option<Box<dyn Source>>);

/// The writing side of a capture: idle, or in its thread.
#[derive(Debug)]
pub(super) enum Worker {
    /// Not running. `source` has been opened already, or continues after a stop.
    Idle { writer: Box<Writer>, source: Option<Box<dyn Source>> },
    /// Filling a ring.
    Running {
        thread: JoinHandle<Filled>,
        control: Arc<SourceControl>,
        /// The ring, if the source is drained while the capture is stopped: the thread continues
        /// then.
        drained: Option<Arc<Ring>>,
    },
    /// Indexing a savefile.
    Indexing { thread: Option<JoinHandle<()>>, stop: Arc<AtomicBool> },
    /// Its thread panicked, and the writer is lost.
    Broken,
}

impl Worker {
    pub(super) fn idle(writer: Writer, source: Option<Box<dyn Source>>) -> Self {
        Self::Idle { writer: Box::new(writer), source }
    }

    /// Starts the thread that indexes a savefile.
    pub(super) fn index(
        savefile: &Arc<Savefile>,
        shared: &Arc<SharedPipeline>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (savefile, shared) = (Arc::clone(savefile), Arc::clone(shared));
        let order = Arc::clone(&stop);
        let thread = builder().spawn(move || {
            let state = match savefile.index(&order) {
                Indexed::Finished => CaptureState::Ended,
                Indexed::Stopped => CaptureState::Stopped,
            };
            shared.set(state, None);
        })?;
        Ok(Self::Indexing { thread: Some(thread), stop })
    }

    /// Returns true if a savefile's thread is at work.
    pub(super) fn is_indexing(&self) -> bool {
        let Self::Indexing { thread: Some(thread), .. } = self else { return false };
        !thread.is_finished()
    }

    /// Starts filling the ring, unless it is being filled.
    pub(super) fn start(
        &mut self,
        spec: &Spec,
        shared: &Arc<SharedPipeline>,
    ) -> Result<(), CaptureError> {
        self.start_at(clock::now(), spec, shared)
    }

    /// Like `start`; `now` is a time before the source was opened, if it is open already.
    pub(super) fn start_at(
        &mut self,
        now: Timestamp,
        spec: &Spec,
        shared: &Arc<SharedPipeline>,
    ) -> Result<(), CaptureError> {
        match self {
            Self::Running { thread, control, drained } if !thread.is_finished() => {
                if let Some(ring) = drained.as_ref().filter(|_| control.is_paused()) {
                    control.pause(false);
                    let known = ring.header().is_some();
                    shared.set(
                        if known { CaptureState::Running } else { CaptureState::Pending },
                        None,
                    );
                    wait_until(|| !ring.bounds().ended || thread.is_finished());
                }
                return Ok(());
            }
            // It ended by itself: take back its writer first.
            Self::Running { .. } => self.join(),
            Self::Idle { .. } => {}
            Self::Indexing { .. } | Self::Broken => return Ok(()),
        }
        let Self::Idle { writer, source } = self else { return Ok(()) };
        let source = match source.take() {
            Some(source) => source,
            None => spec.open_source(shared.injection.as_ref())?,
        };
        if let (Some(sent), Some(held)) = (source.link_type(), writer.ring().header())
            && sent != held.link_type
        {
            let name = spec.source.to_string();
            return Err(SourceError::Changed { name, held: held.link_type, sent }.into());
        }
        writer.source_found(now);
        writer.set_ended(false);
        if let Some(injection) = &shared.injection {
            injection.resume();
        }
        let known = source.is_ready() && writer.ring().header().is_some();
        shared.set(if known { CaptureState::Running } else { CaptureState::Pending }, None);
        Ok(self.spawn(Some(source), spec, shared)?)
    }

    /// Starts looking for a source that is missing and could not be opened.
    pub(super) fn look_for(
        &mut self,
        lack: &SourceError,
        spec: &Spec,
        shared: &Arc<SharedPipeline>,
    ) -> io::Result<()> {
        let now = clock::now();
        shared.interrupted(now, lack);
        if let Self::Idle { writer, .. } = self {
            writer.source_lost(now, &lack.to_string());
        }
        shared.set(CaptureState::Retrying, Some(lack.to_string()));
        self.spawn(None, spec, shared)
    }

    /// Starts the thread that fills the ring.
    fn spawn(
        &mut self,
        source: Option<Box<dyn Source>>,
        spec: &Spec,
        shared: &Arc<SharedPipeline>,
    ) -> io::Result<()> {
        let control = SourceControl::new()?;
        *shared.reception.lock() = source.as_deref().and_then(Reception::of);
        let Self::Idle { writer, .. } = std::mem::replace(self, Self::Broken) else {
            return Ok(());
        };
        let orders = Arc::clone(&control);
        let (spec, shared) = (spec.clone(), Arc::clone(shared));
        let is_drained = source.as_ref().is_some_and(|source| source.rest() == Rest::Drained);
        let drained = is_drained.then(|| Arc::clone(writer.ring()));
        let thread = builder()
            .spawn(move || Filling { spec, shared, control: orders }.run(writer, source))?;
        *self = Self::Running { thread, control, drained };
        Ok(())
    }

    /// Stops the capture. The store has ended when this returns.
    pub(super) fn stop(&mut self, shared: &SharedPipeline) {
        match self {
            Self::Running { thread, control, drained: Some(ring) } if !thread.is_finished() => {
                control.pause(true);
                wait_until(|| ring.bounds().ended || thread.is_finished());
                shared.set(CaptureState::Stopped, shared.error());
            }
            _ => self.end(shared),
        }
    }

    /// Stops the thread and waits for its end.
    pub(super) fn end(&mut self, shared: &SharedPipeline) {
        match self {
            Self::Running { control, .. } => {
                control.stop();
                self.join();
            }
            Self::Indexing { thread, stop } => {
                stop.store(true, Ordering::Release);
                let Some(thread) = thread.take() else { return };
                // The thread may be waiting for a file to grow.
                thread.thread().unpark();
                if thread.join().is_err() {
                    shared
                        .set(CaptureState::Failed, Some("the indexing thread panicked".to_owned()));
                }
            }
            Self::Idle { .. } | Self::Broken => {}
        }
    }

    fn join(&mut self) {
        if let Self::Running { thread, .. } = std::mem::replace(self, Self::Broken)
            && let Ok((writer, source)) = thread.join()
        {
            *self = Self::Idle { writer, source };
        }
    }

    /// Drops all retained packets.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Running { thread, .. } if thread.is_finished() => {
                self.join();
                self.clear();
            }
            Self::Running { thread, control, .. } => {
                control.clear();
                wait_until(|| !control.is_clearing() || thread.is_finished());
            }
            Self::Idle { writer, .. } => writer.clear(),
            Self::Indexing { .. } | Self::Broken => {}
        }
    }
}

/// Waits for a change that a capture's thread makes within its next batch.
fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        thread::sleep(Duration::from_micros(100));
    }
}

fn builder() -> thread::Builder {
    thread::Builder::new().name("capture".to_owned()).stack_size(STACK)
}

/// How the filling of a ring ended.
struct FillEnd {
    state: CaptureState,
    error: Option<String>,
    /// `None` if it was lost.
    source: Option<Box<dyn Source>>,
    rest: Rest,
}

/// The parameters of the thread that fills a ring.
struct Filling {
    spec: Spec,
    shared: Arc<SharedPipeline>,
    control: Arc<SourceControl>,
}

impl Filling {
    /// Fills the ring until it is stopped or there are no more packets. Looks again for a source
    /// that is gone.
    fn run(self, mut writer: Box<Writer>, source: Option<Box<dyn Source>>) -> Filled {
        let found = source.or_else(|| self.look(&mut writer));
        let FillEnd { state, error, source, rest } = match found {
            Some(source) => self.fill_all(&mut writer, source),
            None => FillEnd {
                state: CaptureState::Stopped,
                error: self.shared.error(),
                source: None,
                rest: Rest::Closed,
            },
        };
        writer.set_ended(true);
        // A source that is not read in the meantime, or is read without being stored, misses
        // nothing.
        if matches!(rest, Rest::Closed | Rest::Kept) {
            let now = clock::now();
            match &error {
                Some(why) if state == CaptureState::Failed => writer.source_lost(now, why),
                _ => writer.source_rests(now, STOPPED),
            }
        }
        self.shared.rate.reset();
        self.shared.set(state, error);
        let kept = source.filter(|_| rest.is_open() && state == CaptureState::Stopped);
        (writer, kept)
    }

    /// Fills the ring from one source after the other. Returns how that ended.
    fn fill_all(&self, writer: &mut Writer, mut source: Box<dyn Source>) -> FillEnd {
        loop {
            let pending = self.shared.condition.lock().state == CaptureState::Pending;
            let rest = source.rest();
            let resumes = rest == Rest::Resumed;
            let mut report = Report { filling: self, pending, resumes, away: false };
            let ran = source.run(writer, &self.control, &mut report);
            if report.away {
                self.shared.resumed(clock::now());
            }
            let (state, error) = match ran {
                Ok(SourceEnd::Stopped) => match writer.ring().intact() {
                    // The report of left-out data is still valid.
                    Ok(()) => (CaptureState::Stopped, self.shared.error()),
                    Err(error) => (CaptureState::Failed, Some(error.to_string())),
                },
                Ok(SourceEnd::Exhausted) => (CaptureState::Ended, self.shared.error()),
                Err(error @ SourceError::Lost { .. }) => {
                    let now = clock::now();
                    self.shared.interrupted(now, &error);
                    writer.source_lost(now, &error.to_string());
                    self.shared.set(CaptureState::Retrying, Some(error.to_string()));
                    // An open socket would keep the namespace of a container that has ended.
                    drop(source);
                    let Some(found) = self.look(writer) else {
                        let (state, error) = (CaptureState::Stopped, Some(error.to_string()));
                        return FillEnd { state, error, source: None, rest };
                    };
                    source = found;
                    continue;
                }
                Err(error) => (CaptureState::Failed, Some(error.to_string())),
            };
            return FillEnd { state, error, source: Some(source), rest };
        }
    }

    /// Waits until the source is back; `None` if stopped in the meantime.
    fn look(&self, writer: &mut Writer) -> Option<Box<dyn Source>> {
        let found = self.retry(writer);
        let (now, source) = match found {
            Some((opening, source)) => (opening, Some(source)),
            None => (clock::now(), None),
        };
        self.shared.resumed(now);
        if let Some(source) = &source {
            *self.shared.reception.lock() = Reception::of(&**source);
            writer.source_found(now);
            self.shared.set(CaptureState::Running, None);
        }
        source
    }

    /// Returns the source, and a time before it was opened: no packet of it is older.
    fn retry(&self, writer: &mut Writer) -> Option<(Timestamp, Box<dyn Source>)> {
        loop {
            let mut fds = [PollFd::new(self.control.wake_fd(), PollFlags::POLLIN)];
            // An interrupted or failed wait only means looking too early.
            if matches!(poll(&mut fds, PollTimeout::from(RETRY_INTERVAL)), Ok(1)) {
                self.control.acknowledge();
            }
            if self.control.must_stop() {
                return None;
            }
            self.control.clear_if_ordered(|| writer.clear());
            let opening = clock::now();
            match self.spec.open_source(self.shared.injection.as_ref()) {
                Ok(source) => {
                    // The first source sets the link type of the ring.
                    let sent = source.link_type();
                    let held = sent.and_then(|sent| writer.declare(sent, self.spec.snaplen).err());
                    let (Some(held), Some(sent)) = (held, sent) else {
                        return Some((opening, source));
                    };
                    let name = self.spec.source.to_string();
                    let changed = SourceError::Changed { name, held, sent };
                    self.shared.set(CaptureState::Retrying, Some(changed.to_string()));
                }
                Err(error) => self.shared.set(CaptureState::Retrying, Some(error.to_string())),
            }
        }
    }
}

/// Handles the reports of a running source.
struct Report<'a> {
    filling: &'a Filling,
    /// The first writer of a stream has not sent its header yet.
    pending: bool,
    /// The source misses nothing while its peer is away.
    resumes: bool,
    /// The peer of the source is away.
    away: bool,
}

impl Observer for Report<'_> {
    fn tick(&mut self, writer: &Writer) {
        let Filling { shared, control, .. } = self.filling;
        writer.note_alive();
        shared.rate.measure(Instant::now(), || writer.ring().bounds());
        if writer.ring().intact().is_err() {
            // Packets stored from here on would be in no file.
            control.stop();
        }
        if self.pending && writer.ring().header().is_some() && !control.is_paused() {
            self.pending = false;
            shared.condition.lock().state = CaptureState::Running;
        }
    }

    fn trouble(&mut self, error: Option<&SourceError>) {
        self.filling.shared.condition.lock().error = error.map(SourceError::to_string);
    }

    fn away(&mut self, writer: &mut Writer, error: &SourceError) {
        self.left(writer, error);
        self.filling.shared.set(CaptureState::Retrying, Some(error.to_string()));
    }

    fn left(&mut self, writer: &mut Writer, error: &SourceError) {
        if !std::mem::replace(&mut self.away, true) {
            let (now, shared) = (clock::now(), &self.filling.shared);
            shared.rate.reset();
            shared.interrupted(now, error);
            if !self.resumes {
                writer.source_lost(now, &error.to_string());
            }
        }
    }

    fn back(&mut self, writer: &mut Writer) {
        let shared = &self.filling.shared;
        if std::mem::replace(&mut self.away, false) {
            let now = clock::now();
            shared.resumed(now);
            writer.source_found(now);
        }
        self.pending = writer.ring().header().is_none();
        let state = if self.pending { CaptureState::Pending } else { CaptureState::Running };
        shared.set(state, None);
    }
}
