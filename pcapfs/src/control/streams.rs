//! Savefile bytes for clients: readers of the tree like any other, in `readers.jsonl` too.
//!
//! A stream that finds no packets arms the bell of its capture. On the thread that captures, the
//! bell only writes a byte into a socket; a task here then wakes the streams that wait for that
//! capture.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use capture::cursor::{ReadOutcome, SavefileFormat};
use http::HeaderMap;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::time::Sleep;
use tonic::Status;

use super::chunks;
use super::connections::Busy;
use super::follow::FollowAnswers;
use super::outgoing::Outgoing;
use crate::fs::captures::CaptureEntry;
use crate::fs::open_file::{FileOpener, OpenFile, ReadFailure};
use crate::fs::{SavefileKind, Tree};
use crate::waiters::{Waiters, WaitingReaders};

/// The minimum time between two reads of a stream that has caught up. A packet that comes alone is
/// sent at once. Otherwise the packets of a few milliseconds are sent together, since waking a
/// client costs more than copying them.
const GATHER: Duration = Duration::from_millis(4);

/// How many times a stream looks again for data that should be there and is not, as in a ring whose
/// headers another program has overwritten. After that it waits for the next packet.
const TRIES: usize = 4;

/// Tasks that wait for packets of one capture, by the handles of their files.
pub(super) type Tasks = Mutex<HashMap<u64, Waker>>;

/// Starts the task that wakes others, in the current runtime.
///
/// # Errors
/// Errors of socketpair(2).
pub(super) fn waiters() -> io::Result<Arc<Waiters<Tasks>>> {
    let (rung, news) = UnixStream::pair()?;
    rung.set_nonblocking(true)?;
    news.set_nonblocking(true)?;
    let mut news = tokio::net::UnixStream::from_std(news)?;
    let waiters = Arc::new(Waiters::<Tasks>::new(move || {
        // It fails only if the socket is full, and then the task has bytes to read.
        let _ = (&rung).write(&[1]);
    }));
    let task = Arc::downgrade(&waiters);
    tokio::spawn(async move {
        let mut heard = [0; 64];
        while let Ok(1..) = news.read(&mut heard).await {
            let Some(waiters) = task.upgrade() else { return };
            for waiting in waiters.rung() {
                let tasks = std::mem::take(&mut *waiting.who.lock());
                tasks.into_values().for_each(Waker::wake);
            }
        }
    });
    Ok(waiters)
}

/// What a stream sends.
#[derive(Debug)]
enum StreamContent {
    /// A savefile.
    Savefile {
        /// The next offset, for a file that has offsets.
        offset: u64,
        /// Sent with the first chunk, then 0.
        total: u64,
        /// Packets that it has lost, as its reader knows.
        lost: u64,
    },
    /// Packets with their numbers.
    Packets(Box<FollowAnswers>),
}

/// A savefile or packets on their way to a client.
#[derive(Debug)]
pub(super) struct SavefileStream {
    tree: Arc<Tree>,
    waiting: Arc<WaitingReaders<Tasks>>,
    handle: u64,
    file: Arc<OpenFile>,
    content: StreamContent,
    /// The last time it had caught up.
    caught_up: Option<Instant>,
    /// Waits while more packets gather.
    gathering: Option<Pin<Box<Sleep>>>,
    /// True if its status was sent.
    has_ended: bool,
    outgoing: Outgoing,
    _busy: Busy,
}

impl SavefileStream {
    /// Opens a savefile of a capture for `opener`.
    pub(super) fn open(
        tree: &Arc<Tree>,
        waiters: &Waiters<Tasks>,
        entry: &Arc<CaptureEntry>,
        (wanted, format): (SavefileKind, SavefileFormat),
        opener: FileOpener,
        (busy, outgoing): (Busy, Outgoing),
    ) -> Self {
        let (handle, total) = tree.open_savefile(entry, wanted, format, opener);
        let content = StreamContent::Savefile { offset: 0, total, lost: 0 };
        Self::of_handle(tree, waiters, entry, (handle, content), (busy, outgoing))
    }

    /// Opens the packets of a capture, from the packet with number `first` on.
    pub(super) fn packets(
        tree: &Arc<Tree>,
        waiters: &Waiters<Tasks>,
        entry: &Arc<CaptureEntry>,
        (answers, first): (FollowAnswers, u64),
        opener: FileOpener,
        (busy, outgoing): (Busy, Outgoing),
    ) -> Self {
        let handle = tree.open_batches(entry, first, opener);
        let content = StreamContent::Packets(Box::new(answers));
        Self::of_handle(tree, waiters, entry, (handle, content), (busy, outgoing))
    }

    fn of_handle(
        tree: &Arc<Tree>,
        waiters: &Waiters<Tasks>,
        entry: &Arc<CaptureEntry>,
        (handle, content): (u64, StreamContent),
        (busy, outgoing): (Busy, Outgoing),
    ) -> Self {
        let file = tree.file(handle);
        let waiting = waiters.of(entry);
        // The handle was just made.
        let file = file.unwrap_or_else(|| unreachable!("nobody closes it but us"));
        Self {
            tree: Arc::clone(tree),
            waiting,
            handle,
            file,
            content,
            caught_up: None,
            gathering: None,
            has_ended: false,
            outgoing,
            _busy: busy,
        }
    }

    /// Reads at most `size` bytes that are there, as a message; `None` if there are none yet.
    fn read(&mut self, size: usize) -> Option<Result<Option<Bytes>, Status>> {
        let mut message = Bytes::new();
        let outcome = match &mut self.content {
            StreamContent::Savefile { offset, total, lost } => {
                let first = *total;
                let lost_now = self.file.progress().map_or(0, |progress| progress.lost);
                let more_lost = if lost_now > *lost { lost_now } else { 0 };
                let read = self.file.read(*offset, size, &mut |slices: &[IoSlice<'_>]| {
                    message = chunks::message(first, more_lost, slices);
                    Ok(())
                });
                if let Ok(ReadOutcome::Sent(count)) = &read {
                    *offset += *count as u64;
                    *total = 0;
                    *lost = lost_now;
                }
                read
            }
            StreamContent::Packets(answers) => {
                answers.read(&self.file, size).map(|(outcome, answer)| {
                    message = answer;
                    outcome
                })
            }
        };
        // Before the bytes are used: a mapped file may have been truncated while it was copied.
        if let Some(entry) = &self.file.entry
            && let Err(error) = entry.capture.store().intact()
        {
            return Some(Err(Status::data_loss(error.to_string())));
        }
        match outcome {
            Ok(ReadOutcome::Sent(_)) => Some(Ok(Some(message))),
            Ok(ReadOutcome::End) => Some(match &mut self.content {
                StreamContent::Packets(answers) => answers.last_report().transpose(),
                StreamContent::Savefile { .. } => Ok(None),
            }),
            Ok(ReadOutcome::Empty) => None,
            Err(ReadFailure::Refused(error)) => Some(Err(Status::data_loss(error.to_string()))),
            Err(ReadFailure::Send(error)) => Some(Err(Status::internal(error.to_string()))),
        }
    }

    /// The next message; `None` at the end.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        if let StreamContent::Packets(answers) = &mut self.content {
            if let Poll::Ready(report) = answers.poll_report(context) {
                return Poll::Ready(report.map(Some));
            }
            ready!(answers.poll_rate(context));
        }
        if let Some(caught_up) = self.caught_up.take() {
            // Woken by the bell: there are more packets.
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
            self.waiting.who.lock().insert(self.handle, context.waker().clone());
            self.waiting.arm();
            // Packets that came between the read and the arming rang no bell.
            if !self.file.is_ready() {
                return Poll::Pending;
            }
        }
        Poll::Pending
    }
}

impl Body for SavefileStream {
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
        // If the text is no valid header value, the status is sent without it.
        if status.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", i32::from(status.code()).into());
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Drop for SavefileStream {
    fn drop(&mut self) {
        self.waiting.who.lock().remove(&self.handle);
        self.tree.close(self.handle);
    }
}
