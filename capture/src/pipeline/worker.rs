//! The thread of a capture, and what it works on while it does not run.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::linktype::LinkType;
use protocol::time::Timestamp;

use super::{CaptureError, Shared, Spec, State};
use crate::clock;
use crate::ring::{Ring, Writer};
use crate::savefile::{Indexed, Savefile};
use crate::source::{Control, Ended, Live, LiveOptions, STOPPED, SourceError, SourceName, Stream};
use crate::store::Store;

/// Milliseconds between attempts to open a source that went away.
const RETRY_INTERVAL: u16 = 250;

/// Bytes of stack for a capture's thread: none of them recurses or has large locals.
const STACK: usize = 256 << 10;

/// A source that fills a ring.
#[derive(Debug)]
pub(super) enum Feed {
    Live(Live),
    Stream(Box<Stream>),
}

impl Feed {
    pub(super) fn open(spec: &Spec) -> Result<Self, SourceError> {
        let filter = spec.expression();
        Ok(match &spec.source {
            SourceName::Interface(name) => {
                let Spec { snaplen, promiscuous, .. } = *spec;
                let kernel_buffer = spec.kernel_buffer();
                let options = LiveOptions { snaplen, promiscuous, kernel_buffer };
                Self::Live(Live::open(name, filter, options)?)
            }
            SourceName::Stream(path) => {
                let stream = Stream::fifo(path, filter, spec.snaplen)?;
                Self::Stream(Box::new(stream.with_keys(spec.export_keys)))
            }
            SourceName::Stdin => {
                let stream = Stream::stdin(filter, spec.snaplen)?;
                Self::Stream(Box::new(stream.with_keys(spec.export_keys)))
            }
            SourceName::File(_) | SourceName::Growing(_) => {
                unreachable!("a savefile fills no ring")
            }
        })
    }

    /// What it sends, as far as that is known before the first packet.
    pub(super) fn link_type(&self) -> Option<LinkType> {
        match self {
            Self::Live(live) => Some(live.link_type()),
            Self::Stream(_) => None,
        }
    }
}

/// The writing side of a capture: at rest, or in its thread.
#[derive(Debug)]
pub(super) enum Worker {
    /// Not running. `feed` is a source opened already, or one that goes on after a stop.
    Idle { writer: Box<Writer>, feed: Option<Feed> },
    /// Filling a ring.
    Running {
        thread: JoinHandle<(Box<Writer>, Option<Feed>)>,
        control: Arc<Control>,
        /// The ring, if the source is a FIFO: then the thread goes on while the capture is stopped.
        fifo: Option<Arc<Ring>>,
    },
    /// Indexing a savefile.
    Indexing { thread: Option<JoinHandle<()>>, stop: Arc<AtomicBool> },
    /// Its thread panicked; there is no writer any more.
    Broken,
}

impl Worker {
    pub(super) fn idle(writer: Writer, feed: Option<Feed>) -> Self {
        Self::Idle { writer: Box::new(writer), feed }
    }

    /// Starts the thread that indexes a savefile.
    pub(super) fn index(savefile: &Arc<Savefile>, shared: &Arc<Shared>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (savefile, shared) = (Arc::clone(savefile), Arc::clone(shared));
        let order = Arc::clone(&stop);
        let thread = builder().spawn(move || {
            let state = match savefile.index(&order) {
                Indexed::Finished => State::Ended,
                Indexed::Stopped => State::Stopped,
            };
            shared.set(state, None);
        })?;
        Ok(Self::Indexing { thread: Some(thread), stop })
    }

    /// Whether a savefile's thread is at work.
    pub(super) fn is_indexing(&self) -> bool {
        let Self::Indexing { thread: Some(thread), .. } = self else { return false };
        !thread.is_finished()
    }

    /// Starts filling the ring, unless that is going on.
    pub(super) fn start(&mut self, spec: &Spec, shared: &Arc<Shared>) -> Result<(), CaptureError> {
        self.start_at(clock::now(), spec, shared)
    }

    /// The same; `now` is before the source was opened, if it was already.
    pub(super) fn start_at(
        &mut self,
        now: Timestamp,
        spec: &Spec,
        shared: &Arc<Shared>,
    ) -> Result<(), CaptureError> {
        match self {
            Self::Running { thread, control, fifo } if !thread.is_finished() => {
                if let Some(ring) = fifo.as_ref().filter(|_| control.is_paused()) {
                    control.pause(false);
                    let known = ring.header().is_some();
                    shared.set(if known { State::Running } else { State::Pending }, None);
                    wait_until(|| !ring.bounds().ended || thread.is_finished());
                }
                return Ok(());
            }
            // Ended by itself: its writer is taken back first.
            Self::Running { .. } => self.join(),
            Self::Idle { .. } => {}
            Self::Indexing { .. } | Self::Broken => return Ok(()),
        }
        let Self::Idle { writer, feed } = self else { return Ok(()) };
        let feed = match feed.take() {
            Some(feed) => feed,
            None => Feed::open(spec)?,
        };
        if let (Some(sent), Some(held)) = (feed.link_type(), writer.ring().header())
            && sent != held.link_type
        {
            let name = spec.source.to_string();
            return Err(SourceError::Changed { name, held: held.link_type, sent }.into());
        }
        writer.source_found(now);
        writer.set_ended(false);
        let known = writer.ring().header().is_some();
        shared.set(if known { State::Running } else { State::Pending }, None);
        Ok(self.spawn(Some(feed), spec, shared)?)
    }

    /// Starts looking for a source that is not there, for want of which nothing was opened.
    pub(super) fn look_for(
        &mut self,
        lack: &SourceError,
        spec: &Spec,
        shared: &Arc<Shared>,
    ) -> io::Result<()> {
        let now = clock::now();
        shared.interrupted(now, lack);
        if let Self::Idle { writer, .. } = self {
            writer.source_lost(now, &lack.to_string());
        }
        shared.set(State::Retrying, Some(lack.to_string()));
        self.spawn(None, spec, shared)
    }

    /// Starts the thread that fills the ring.
    fn spawn(&mut self, feed: Option<Feed>, spec: &Spec, shared: &Arc<Shared>) -> io::Result<()> {
        let control = Control::new()?;
        let Self::Idle { writer, .. } = std::mem::replace(self, Self::Broken) else {
            return Ok(());
        };
        let orders = Arc::clone(&control);
        let (spec, shared) = (spec.clone(), Arc::clone(shared));
        let endless = matches!(spec.source, SourceName::Stream(_));
        let fifo = endless.then(|| Arc::clone(writer.ring()));
        let thread =
            builder().spawn(move || Filling { spec, shared, control: orders }.run(writer, feed))?;
        *self = Self::Running { thread, control, fifo };
        Ok(())
    }

    /// Stops, so that the store has ended when this returns.
    pub(super) fn stop(&mut self, shared: &Shared) {
        match self {
            Self::Running { thread, control, fifo: Some(ring) } if !thread.is_finished() => {
                control.pause(true);
                wait_until(|| ring.bounds().ended || thread.is_finished());
                shared.set(State::Stopped, shared.error());
            }
            _ => self.end(shared),
        }
    }

    /// Stops and waits for the thread.
    pub(super) fn end(&mut self, shared: &Shared) {
        match self {
            Self::Running { control, .. } => {
                control.stop();
                self.join();
            }
            Self::Indexing { thread, stop } => {
                stop.store(true, Ordering::Release);
                let Some(thread) = thread.take() else { return };
                // It may wait for a file to grow.
                thread.thread().unpark();
                if thread.join().is_err() {
                    shared.set(State::Failed, Some("the indexing thread panicked".to_owned()));
                }
            }
            Self::Idle { .. } | Self::Broken => {}
        }
    }

    fn join(&mut self) {
        if let Self::Running { thread, .. } = std::mem::replace(self, Self::Broken)
            && let Ok((writer, feed)) = thread.join()
        {
            *self = Self::Idle { writer, feed };
        }
    }

    /// Drops what is retained.
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

/// Waits for what a capture's thread does within its next batch.
fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        thread::sleep(Duration::from_micros(100));
    }
}

fn builder() -> thread::Builder {
    thread::Builder::new().name("capture".to_owned()).stack_size(STACK)
}

/// What the thread of a ring works with.
struct Filling {
    spec: Spec,
    shared: Arc<Shared>,
    control: Arc<Control>,
}

impl Filling {
    /// Fills the ring until it is told to stop or there is no more; looks again for a source that
    /// went away.
    fn run(self, mut writer: Box<Writer>, feed: Option<Feed>) -> (Box<Writer>, Option<Feed>) {
        let found = feed.or_else(|| self.look(&mut writer));
        let (state, error, feed) = match found {
            Some(mut feed) => {
                let (state, error) = self.fill_all(&mut writer, &mut feed);
                (state, error, Some(feed))
            }
            None => (State::Stopped, self.shared.error(), None),
        };
        writer.set_ended(true);
        // Of standard input nothing is missed: it is not read on.
        if matches!(self.spec.source, SourceName::Interface(_)) {
            let now = clock::now();
            match &error {
                Some(why) if state == State::Failed => writer.source_lost(now, why),
                _ => writer.source_rests(now, STOPPED),
            }
        }
        self.shared.rate.reset();
        self.shared.set(state, error);
        // A FIFO stays open while the capture is stopped, so that its writer does not get SIGPIPE;
        // an interface is opened again, and standard input has to be kept to go on with.
        let kept = feed.filter(|feed| matches!((feed, state), (Feed::Stream(_), State::Stopped)));
        (writer, kept)
    }

    /// Fills the ring from one source after the other; says how that ended.
    fn fill_all(&self, writer: &mut Writer, feed: &mut Feed) -> (State, Option<String>) {
        loop {
            match self.fill(writer, feed) {
                Ok(Ended::Stopped) => match writer.ring().intact() {
                    // What was left out until then still is.
                    Ok(()) => return (State::Stopped, self.shared.error()),
                    Err(error) => return (State::Failed, Some(error.to_string())),
                },
                Ok(Ended::Exhausted) => return (State::Ended, self.shared.error()),
                Err(error @ SourceError::Lost { .. }) => {
                    let now = clock::now();
                    self.shared.interrupted(now, &error);
                    writer.source_lost(now, &error.to_string());
                    self.shared.set(State::Retrying, Some(error.to_string()));
                    match self.look(writer) {
                        Some(found) => *feed = found,
                        None => return (State::Stopped, Some(error.to_string())),
                    }
                }
                Err(error) => return (State::Failed, Some(error.to_string())),
            }
        }
    }

    fn fill(&self, writer: &mut Writer, feed: &mut Feed) -> Result<Ended, SourceError> {
        let shared = &self.shared;
        let mut tick = |writer: &Writer| {
            writer.note_alive();
            shared.rate.measure(Instant::now(), || writer.ring().bounds());
            if writer.ring().intact().is_err() {
                // What is stored from here on would be in no file.
                self.control.stop();
            }
        };
        match feed {
            Feed::Live(live) => live.run(writer, &self.control, &mut tick),
            Feed::Stream(stream) => {
                let mut pending = shared.condition.lock().state == State::Pending;
                let mut tick = |writer: &Writer| {
                    if pending && writer.ring().header().is_some() && !self.control.is_paused() {
                        pending = false;
                        shared.condition.lock().state = State::Running;
                    }
                    tick(writer);
                };
                let mut trouble = |error: Option<&SourceError>| {
                    shared.condition.lock().error = error.map(SourceError::to_string);
                };
                stream.run(writer, &self.control, &mut tick, &mut trouble)
            }
        }
    }

    /// Waits for the source to be there; `None` if told to stop meanwhile.
    fn look(&self, writer: &mut Writer) -> Option<Feed> {
        let found = self.retry(writer);
        let (now, feed) = match found {
            Some((opening, feed)) => (opening, Some(feed)),
            None => (clock::now(), None),
        };
        self.shared.resumed(now);
        if feed.is_some() {
            writer.source_found(now);
            self.shared.set(State::Running, None);
        }
        feed
    }

    /// Beside the source, the time before it was opened: no packet of it is older.
    fn retry(&self, writer: &mut Writer) -> Option<(Timestamp, Feed)> {
        loop {
            let mut fds = [PollFd::new(self.control.wake_fd(), PollFlags::POLLIN)];
            // Interrupted or failed: looks too early, no more.
            if matches!(poll(&mut fds, PollTimeout::from(RETRY_INTERVAL)), Ok(1)) {
                self.control.acknowledge();
            }
            if self.control.must_stop() {
                return None;
            }
            self.control.clear_if_ordered(|| writer.clear());
            let opening = clock::now();
            match Feed::open(&self.spec) {
                Ok(feed) => {
                    // The first one says what the ring is to hold.
                    let sent = feed.link_type();
                    let held = sent.and_then(|sent| writer.declare(sent, self.spec.snaplen).err());
                    let (Some(held), Some(sent)) = (held, sent) else {
                        return Some((opening, feed));
                    };
                    let name = self.spec.source.to_string();
                    let changed = SourceError::Changed { name, held, sent };
                    self.shared.set(State::Retrying, Some(changed.to_string()));
                }
                Err(error) => self.shared.set(State::Retrying, Some(error.to_string())),
            }
        }
    }
}
