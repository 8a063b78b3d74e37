//! PUSH: one cursor, whose messages go to the peers in turn; to each one message at a time that it has
//! room for.
//!
//! If no peer has room, the cursor waits, and what it misses is counted. A message that was not sent
//! completely when its peer left goes to another one.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::feed::{Feed, FeedItem, FeedSettings};
use super::message::Message;
use super::peer::{self, PeerEnd, ReadyPeer};
use super::queue::{MessageQueue, queue};
use super::tracker::SentTracker;
use super::{LAST_MESSAGES, SAVES};
use crate::cli::outlet::saved::SavedPositions;
use crate::failure::Failure;

/// What peers report.
#[derive(Debug)]
pub(super) enum PeerReport {
    Joined {
        peer: u64,
        queue: MessageQueue,
    },
    /// The message of this number has been sent.
    Sent(u64),
    Left {
        peer: u64,
        unsent: Vec<Message>,
    },
}

/// The end at which peers report.
pub(super) type PeerReports = mpsc::UnboundedSender<PeerReport>;

/// Serves a peer with its part of the messages.
pub(super) async fn serve(peer: ReadyPeer, number: u64, reports: PeerReports) -> PeerEnd {
    let (queue, messages) = queue();
    // Fails only at the end of all.
    let _ = reports.send(PeerReport::Joined { peer: number, queue });
    let sent = reports.clone();
    let mut end = peer::serve(peer, messages, move |message| {
        let _ = sent.send(PeerReport::Sent(message.sequence));
    })
    .await;
    let unsent = std::mem::take(&mut end.unsent);
    let _ = reports.send(PeerReport::Left { peer: number, unsent });
    end
}

/// Distributes messages among peers.
#[derive(Debug)]
pub(super) struct Distribution {
    peers: Vec<(u64, MessageQueue)>,
    /// The one whose turn it is.
    turn: usize,
    /// Messages that have to be sent, the oldest first: one of the feed, or those of a peer that has
    /// left.
    pending: VecDeque<Message>,
    tracker: SentTracker,
    saved: SavedPositions,
    capture: String,
}

impl Distribution {
    /// Begins at a saved place, unless `is_new`.
    pub(super) fn new(saved: SavedPositions, capture: &str, is_new: bool) -> Self {
        let position = saved.position(capture).filter(|_| !is_new).cloned().unwrap_or_default();
        Self {
            peers: Vec::new(),
            turn: 0,
            pending: VecDeque::new(),
            tracker: SentTracker::new(position),
            saved,
            capture: capture.to_owned(),
        }
    }

    /// Distributes until `stopping` is true. Then the peers get what waits for them, if they take it
    /// soon.
    ///
    /// # Errors
    /// The place cannot be saved, or the feed cannot go on.
    pub(super) async fn run(
        mut self,
        settings: &Arc<FeedSettings>,
        mut reports: mpsc::UnboundedReceiver<PeerReport>,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let mut feed = Feed::start(settings, Some(&self.tracker.position()));
        let mut next_save = Instant::now() + SAVES;
        let done = loop {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|is_stopping| *is_stopping) => break Ok(()),
                Some(report) = reports.recv() => self.hear(report),
                item = feed.next(), if self.pending.is_empty() => {
                    if let FeedItem::Failed(why) = item {
                        break Err(Failure::Answer(why));
                    }
                    self.take(item);
                }
                () = sleep_until(next_save) => {}
            }
            self.place();
            if Instant::now() >= next_save {
                self.saved.set(&self.capture, &self.tracker.position());
                self.saved.save()?;
                next_save = Instant::now() + SAVES;
            }
        };
        drop(feed);
        // Peers end when they have sent what waits for them.
        self.peers.clear();
        let rest = async {
            while let Some(report) = reports.recv().await {
                if let PeerReport::Sent(number) = report {
                    self.tracker.sent(number);
                }
            }
        };
        // The others keep their messages for the next run.
        let _ = timeout(LAST_MESSAGES, rest).await;
        self.saved.set(&self.capture, &self.tracker.position());
        self.saved.save()?;
        done
    }

    fn take(&mut self, item: FeedItem) {
        let sequence = self.tracker.take(&item);
        if let FeedItem::Message(message) = item {
            self.pending.push_back(Message { sequence, ..message });
        }
    }

    fn hear(&mut self, report: PeerReport) {
        match report {
            PeerReport::Joined { peer, queue } => self.peers.push((peer, queue)),
            PeerReport::Sent(number) => self.tracker.sent(number),
            PeerReport::Left { peer, unsent } => {
                self.peers.retain(|(known, _)| *known != peer);
                // They are older than what has come since.
                for message in unsent.into_iter().rev() {
                    self.pending.push_front(message);
                }
            }
        }
    }

    /// Gives pending messages to peers that have room.
    fn place(&mut self) {
        while let Some(message) = self.pending.pop_front() {
            if let Err(message) = self.offer(message) {
                self.pending.push_front(message);
                return;
            }
        }
    }

    /// Gives a message to the next peer that has room; gives it back if none has.
    fn offer(&mut self, mut message: Message) -> Result<(), Message> {
        for step in 0..self.peers.len() {
            let index = (self.turn + step) % self.peers.len();
            let Some((_, queue)) = self.peers.get(index) else { continue };
            match queue.try_put(message) {
                Ok(()) => {
                    self.turn = (index + 1) % self.peers.len();
                    return Ok(());
                }
                Err(back) => message = back,
            }
        }
        Err(message)
    }
}
