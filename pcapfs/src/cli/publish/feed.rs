//! The source of messages: tasks that follow a capture, and hand over one message at a time.
//!
//! A feed is a cursor: what it has not handed over waits in the daemon, and what the daemon has no
//! longer is counted by the feed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::line_feed::LineFeed;
use super::message::Message;
use super::packet_feed::PacketFeed;
use super::report::Reporter;
use super::status_feed::StatusFeed;
use crate::cli::outlet::event_kind::EventKind;
use crate::cli::outlet::expression::Expression;
use crate::cli::outlet::follower::{LogBeginning, LogSource};
use crate::cli::outlet::position::{CapturePosition, PacketPlace, SegmentPlace};

/// Messages that a task of a feed makes ahead of its reader.
const AHEAD: usize = 1;

/// The published part of a capture.
#[derive(Debug)]
pub(super) struct FeedSettings {
    pub(super) source: Arc<LogSource>,
    /// Its name.
    pub(super) capture: String,
    /// Kinds of lines.
    pub(super) kinds: Vec<EventKind>,
    pub(super) has_packets: bool,
    pub(super) has_segments: bool,
    /// The time between two messages of counters, if they are published.
    pub(super) status_interval: Option<Duration>,
    /// For lines.
    pub(super) expression: Expression,
    /// For packets and segments, see pcap-filter(7).
    pub(super) filter: Option<String>,
    pub(super) beginning: LogBeginning,
    /// True if bodies are published.
    pub(super) has_bodies: bool,
    /// Maximum number of bytes of a body.
    pub(super) max_body: u64,
    pub(super) reporter: Arc<Reporter>,
}

/// A thing that a feed hands over.
#[derive(Debug)]
pub(super) enum FeedItem {
    Message(Message),
    /// All lines up to this place are in the messages before, or not wanted.
    Lines(Box<CapturePosition>),
    /// The same for packets.
    Packets(PacketPlace),
    /// The same for segments.
    Segments(SegmentPlace),
    /// The feed cannot go on.
    Failed(String),
}

/// The end at which a task hands over.
pub(super) type FeedSender = mpsc::Sender<FeedItem>;

/// A cursor over what is published.
#[derive(Debug)]
pub(super) struct Feed {
    items: mpsc::Receiver<FeedItem>,
    lost: Arc<AtomicU64>,
    /// Aborted when it is dropped.
    _tasks: JoinSet<()>,
}

impl Feed {
    /// Begins, after a saved place if there is one.
    pub(super) fn start(settings: &Arc<FeedSettings>, saved: Option<&CapturePosition>) -> Self {
        let (sender, items) = mpsc::channel(AHEAD);
        let mut tasks = JoinSet::new();
        let lost: Arc<AtomicU64> = Arc::default();
        if !settings.kinds.is_empty() {
            let feed = LineFeed::new(Arc::clone(settings), saved.cloned(), sender.clone(), &lost);
            tasks.spawn(feed.run());
        }
        if let Some(interval) = settings.status_interval {
            tasks.spawn(StatusFeed::new(Arc::clone(settings), interval, sender.clone()).run());
        }
        if settings.has_packets {
            let place = saved.and_then(|saved| saved.packets);
            let feed = PacketFeed::packets(Arc::clone(settings), place, sender.clone(), &lost);
            tasks.spawn(feed.run());
        }
        if settings.has_segments {
            let place = saved.and_then(|saved| saved.segments);
            tasks.spawn(PacketFeed::segments(Arc::clone(settings), place, sender, &lost).run());
        }
        Self { items, lost, _tasks: tasks }
    }

    /// Lines and packets that it lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The next item. May be dropped and called again.
    pub(super) async fn next(&mut self) -> FeedItem {
        match self.items.recv().await {
            Some(item) => item,
            // Its tasks end only after they have said why.
            None => std::future::pending().await,
        }
    }
}
