//! Savefile bytes for clients: readers of the tree like any other, in `readers.jsonl` too.
//!
//! One that finds nothing arms the bell of its capture. The bell, on the thread that captures,
//! writes a byte into a socket and no more; a task here then wakes whoever waits for that capture.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use capture::bell::Bell;
use capture::cursor::{Format, Outcome};
use http::HeaderMap;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::time::Sleep;
use tonic::Status;

use super::chunks;
use super::connections::Busy;
use super::outgoing::Outgoing;
use crate::fs::captures::Entry;
use crate::fs::file::{OpenFile, Opener, ReadFailure};
use crate::fs::{Tree, Wanted};

/// Least time between two times that a stream which has caught up looks for more. A packet that
/// comes alone is sent at once; of many, a few milliseconds' worth are sent together, since waking
/// a client costs more than copying what it gets.
const GATHER: Duration = Duration::from_millis(4);

/// How often a stream looks again for what should be there and is not, as in a ring whose headers
/// somebody else has written to. After that it waits for the next packet.
const TRIES: usize = 4;

/// The bells of captures that somebody waits for.
#[derive(Debug)]
pub(super) struct Bells {
    /// By capture id.
    topics: Mutex<HashMap<u32, Arc<Topic>>>,
    /// A byte written here has the task look.
    rung: Arc<UnixStream>,
}

/// Those who wait for packets of one capture.
#[derive(Debug)]
struct Topic {
    entry: Weak<Entry>,
    bell: Arc<Bell>,
    /// The bell has rung since the task last looked.
    rung: Arc<AtomicBool>,
    waiting: Mutex<HashMap<u64, Waker>>,
}

impl Bells {
    /// Starts the task that wakes, in the runtime this is called in.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let (rung, news) = UnixStream::pair()?;
        rung.set_nonblocking(true)?;
        news.set_nonblocking(true)?;
        let mut news = tokio::net::UnixStream::from_std(news)?;
        let bells = Arc::new(Self { topics: Mutex::default(), rung: Arc::new(rung) });
        let task = Arc::downgrade(&bells);
        tokio::spawn(async move {
            let mut heard = [0; 64];
            while let Ok(1..) = news.read(&mut heard).await {
                let Some(bells) = task.upgrade() else { return };
                bells.wake();
            }
        });
        Ok(bells)
    }

    fn wake(&self) {
        let topics: Vec<_> = self
            .topics
            .lock()
            .values()
            .filter(|topic| topic.rung.swap(false, Ordering::AcqRel))
            .cloned()
            .collect();
        for topic in topics {
            let waiting = std::mem::take(&mut *topic.waiting.lock());
            waiting.into_values().for_each(Waker::wake);
        }
    }

    fn topic(&self, entry: &Arc<Entry>) -> Arc<Topic> {
        let mut topics = self.topics.lock();
        if let Some(topic) = topics.get(&entry.id) {
            return Arc::clone(topic);
        }
        topics.retain(|_, topic| topic.entry.strong_count() > 0);
        let rung = Arc::new(AtomicBool::new(false));
        let (flag, news) = (Arc::clone(&rung), Arc::clone(&self.rung));
        let bell = Bell::new(move || {
            flag.store(true, Ordering::Release);
            // Fails only when it is full, and then there is something to read.
            let _ = (&*news).write(&[1]);
        });
        entry.capture.store().bells().hang(Arc::clone(&bell));
        let entry_id = entry.id;
        let entry = Arc::downgrade(entry);
        let topic = Arc::new(Topic { entry, bell, rung, waiting: Mutex::default() });
        topics.insert(entry_id, Arc::clone(&topic));
        topic
    }
}

/// A savefile on its way to a client.
#[derive(Debug)]
pub(super) struct Savefile {
    tree: Arc<Tree>,
    topic: Arc<Topic>,
    handle: u64,
    file: Arc<OpenFile>,
    /// For a file that has offsets.
    offset: u64,
    /// Told with the first chunk, then 0.
    total: u64,
    /// When it had caught up last.
    caught_up: Option<Instant>,
    /// Until when more is gathered before it is sent.
    gathering: Option<Pin<Box<Sleep>>>,
    /// Its status was sent.
    has_ended: bool,
    outgoing: Outgoing,
    _busy: Busy,
}

impl Savefile {
    /// Opens a savefile of a capture for `opener`.
    pub(super) fn open(
        tree: &Arc<Tree>,
        bells: &Bells,
        entry: &Arc<Entry>,
        (wanted, format): (Wanted, Format),
        opener: Opener,
        (busy, outgoing): (Busy, Outgoing),
    ) -> Self {
        let (handle, total) = tree.open_savefile(entry, wanted, format, opener);
        let file = tree.file(handle);
        let topic = bells.topic(entry);
        // A handle that was just made is there.
        let file = file.unwrap_or_else(|| unreachable!("nobody closes it but us"));
        Self {
            tree: Arc::clone(tree),
            topic,
            handle,
            file,
            offset: 0,
            total,
            caught_up: None,
            gathering: None,
            has_ended: false,
            outgoing,
            _busy: busy,
        }
    }

    /// Reads what there is, at most `size` bytes, as a message; `None` if there is nothing yet.
    fn read(&mut self, size: usize) -> Option<Result<Option<Bytes>, Status>> {
        let total = self.total;
        let mut message = Bytes::new();
        let outcome = self.file.read(self.offset, size, &mut |slices: &[IoSlice<'_>]| {
            message = chunks::message(total, slices);
            Ok(())
        });
        // Before they are believed: a mapped file may have been cut while it was copied.
        if let Some(entry) = &self.file.entry
            && let Err(error) = entry.capture.store().intact()
        {
            return Some(Err(Status::data_loss(error.to_string())));
        }
        match outcome {
            Ok(Outcome::Sent(count)) => {
                self.offset += count as u64;
                self.total = 0;
                Some(Ok(Some(message)))
            }
            Ok(Outcome::End) => Some(Ok(None)),
            Ok(Outcome::Empty) => None,
            Err(ReadFailure::Refused(error)) => Some(Err(Status::data_loss(error.to_string()))),
            Err(ReadFailure::Send(error)) => Some(Err(Status::internal(error.to_string()))),
        }
    }

    /// The next message; `None` at the end.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        if let Some(caught_up) = self.caught_up.take() {
            // Woken: there is more.
            if caught_up.elapsed() < GATHER && self.file.is_ready() {
                self.gathering =
                    Some(Box::pin(tokio::time::sleep_until((caught_up + GATHER).into())));
            }
        }
        if let Some(gathering) = &mut self.gathering {
            ready!(gathering.as_mut().poll(context));
            self.gathering = None;
        }
        let size = ready!(self.outgoing.poll_room(context));
        for _ in 0..TRIES {
            if let Some(result) = self.read(size) {
                return Poll::Ready(result);
            }
            self.caught_up = Some(Instant::now());
            self.file.blocked.store(true, Ordering::Relaxed);
            self.topic.waiting.lock().insert(self.handle, context.waker().clone());
            self.topic.bell.arm();
            // What came between the read and the arming rang no bell.
            if !self.file.is_ready() {
                return Poll::Pending;
            }
        }
        Poll::Pending
    }
}

impl Body for Savefile {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.has_ended {
            return Poll::Ready(None);
        }
        let status = match ready!(this.poll_message(context)) {
            Ok(Some(message)) => {
                return Poll::Ready(Some(Ok(Frame::data(this.outgoing.hold(message)))));
            }
            Ok(None) => Status::ok(""),
            Err(status) => status,
        };
        this.has_ended = true;
        let mut trailers = HeaderMap::new();
        // A text that is no header value; the status is told without it.
        if status.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", i32::from(status.code()).into());
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Drop for Savefile {
    fn drop(&mut self) {
        self.topic.waiting.lock().remove(&self.handle);
        self.tree.close(self.handle);
    }
}
