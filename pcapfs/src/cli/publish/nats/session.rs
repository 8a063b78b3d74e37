//! One connection to a server, and the messages that it has not acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{NatsSettings, stream};
use crate::cli::nats::STREAM;
use crate::cli::nats::connection::{ANSWER, Connection, check};
use crate::cli::nats::protocol::{self, ServerMessage, StreamAnswer, append_message};
use crate::cli::outlet::event_kind::EventKind;
use crate::cli::outlet::saved::SavedPositions;
use crate::cli::publish::SAVES;
use crate::cli::publish::feed::{Feed, FeedItem, FeedSettings};
use crate::cli::publish::message::{Message, MessagePlace};
use crate::cli::publish::report::PeerCounts;
use crate::cli::publish::tracker::SentTracker;
use crate::failure::Failure;

/// Maximum number of messages that are not acknowledged, and of their bytes.
const WINDOW: usize = 256;
const WINDOW_BYTES: usize = 1 << 20;

/// Error of JetStream for a stream that is there with another configuration.
const STREAM_EXISTS: u32 = 10_058;

/// Bytes of headers around an id: the id has fewer than 100.
const HEADERS: usize = 160;

/// How a session ended.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// By the order to end.
    Stopped,
    /// For this reason; it may be tried again.
    Away(String),
}

/// Messages that were taken from the feed, and that the server has not acknowledged.
#[derive(Debug)]
pub(super) struct Unacknowledged {
    /// By their sequence.
    messages: BTreeMap<u64, Message>,
    bytes: usize,
    tracker: SentTracker,
    saved: SavedPositions,
    settings: Arc<FeedSettings>,
    /// The subject of a message without its last token.
    subject: String,
    counts: PeerCounts,
}

impl Unacknowledged {
    pub(super) fn new(
        tracker: SentTracker,
        saved: SavedPositions,
        settings: &Arc<FeedSettings>,
        subject: String,
    ) -> Self {
        let (messages, counts) = (BTreeMap::new(), PeerCounts::default());
        let settings = Arc::clone(settings);
        Self { messages, bytes: 0, tracker, saved, settings, subject, counts }
    }

    /// Messages that the server has acknowledged so far.
    pub(super) const fn acknowledged(&self) -> u64 {
        self.counts.messages
    }

    fn has_room(&self) -> bool {
        self.messages.len() < WINDOW && self.bytes < WINDOW_BYTES
    }

    /// Takes an item of the feed; returns the sequence of a message.
    fn take(&mut self, item: FeedItem) -> Option<u64> {
        let sequence = self.tracker.take(&item);
        let FeedItem::Message(message) = item else { return None };
        self.bytes += message.size();
        self.messages.insert(sequence, Message { sequence, ..message });
        Some(sequence)
    }

    /// Appends a message. One that the server does not take is lost, which is reported.
    fn append(&mut self, out: &mut BytesMut, sequence: u64, inbox: &str, max_payload: usize) {
        let Some(message) = self.messages.get(&sequence) else { return };
        let payload = message.frames.first().cloned().unwrap_or_default();
        let kind = match message.place {
            MessagePlace::Line(kind, _) => kind,
            MessagePlace::Status => EventKind::Status,
            // They are not published here.
            MessagePlace::Packet(_) | MessagePlace::Segment { .. } => return,
        };
        if payload.len() + HEADERS > max_payload {
            self.settings.reporter.lost("lines longer than the max_payload of the server", 1);
            self.remove(sequence);
            return;
        }
        let subject = format!("{}.{kind}", self.subject);
        append_message(out, &subject, &format!("{inbox}.{sequence}"), &message.id, &payload);
    }

    fn acknowledge(&mut self, sequence: u64) {
        if let Some(message) = self.remove(sequence) {
            self.counts.messages += 1;
            self.counts.bytes += message.size() as u64;
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<Message> {
        let message = self.messages.remove(&sequence)?;
        self.bytes = self.bytes.saturating_sub(message.size());
        self.tracker.sent(sequence);
        Some(message)
    }

    fn save(&mut self) -> Result<(), Failure> {
        self.saved.set(&self.settings.capture, &self.tracker.position());
        self.saved.save()
    }

    /// Saves the place, and reports the sums.
    ///
    /// # Errors
    /// The place cannot be saved.
    pub(super) fn finish(mut self, server: &str) -> Result<(), Failure> {
        self.save()?;
        self.settings.reporter.left(server, "closed", self.counts);
        Ok(())
    }
}

/// What a session works with.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) nats: &'a NatsSettings,
    pub(super) settings: &'a Arc<FeedSettings>,
    pub(super) feed: Feed,
}

impl Session<'_> {
    /// Publishes over one connection.
    ///
    /// # Errors
    /// The place cannot be saved, or the feed cannot go on.
    pub(super) async fn run(
        &mut self,
        waiting: &mut Unacknowledged,
        stopping: &mut watch::Receiver<bool>,
    ) -> Result<SessionEnd, Failure> {
        let connected = tokio::select! {
            connected = connect(self.nats) => connected,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return Ok(SessionEnd::Stopped),
        };
        let mut connection = match connected {
            Ok(connection) => connection,
            Err(why) => return Ok(SessionEnd::Away(why)),
        };
        let daemon = self.settings.source.daemon.socket();
        // Captures would store what it sends.
        let _excluded = connection.keep_out(daemon).await;
        self.settings.reporter.connected(&self.nats.server.to_string());
        let mut out = BytesMut::new();
        let again: Vec<u64> = waiting.messages.keys().copied().collect();
        for sequence in again {
            waiting.append(&mut out, sequence, &connection.inbox, connection.info.max_payload);
        }
        let (mut next_save, mut deadline) = (Instant::now() + SAVES, Instant::now() + ANSWER);
        loop {
            if !out.is_empty() {
                if let Err(why) = connection.write(&out).await {
                    return Ok(SessionEnd::Away(why));
                }
                out.clear();
            }
            tokio::select! {
                _ = stopping.wait_for(|is_stopping| *is_stopping) => return Ok(SessionEnd::Stopped),
                read = connection.fill() => {
                    let done = read.and_then(|()| hear(&mut connection, waiting, &mut out));
                    match done {
                        Ok(true) => deadline = Instant::now() + ANSWER,
                        Ok(false) => {}
                        Err(why) => return Ok(SessionEnd::Away(why)),
                    }
                }
                item = self.feed.next(), if waiting.has_room() => {
                    if let FeedItem::Failed(why) = item {
                        return Err(Failure::Answer(why));
                    }
                    if waiting.messages.is_empty() {
                        deadline = Instant::now() + ANSWER;
                    }
                    if let Some(sequence) = waiting.take(item) {
                        let max = connection.info.max_payload;
                        waiting.append(&mut out, sequence, &connection.inbox, max);
                    }
                }
                () = sleep_until(deadline), if !waiting.messages.is_empty() => {
                    let seconds = ANSWER.as_secs();
                    return Ok(SessionEnd::Away(format!("no acknowledgement within {seconds} s")));
                }
                () = sleep_until(next_save) => {}
            }
            if Instant::now() >= next_save {
                waiting.save()?;
                next_save = Instant::now() + SAVES;
            }
        }
    }
}

/// Obeys all that has come from the server; returns whether it has acknowledged a message.
///
/// # Errors
/// Why the connection is given up.
fn hear(
    connection: &mut Connection,
    waiting: &mut Unacknowledged,
    out: &mut BytesMut,
) -> Result<bool, String> {
    let mut has_acknowledged = false;
    while let Some(message) = protocol::take(&mut connection.input, connection.info.max_payload)? {
        match message {
            ServerMessage::Ping => out.extend_from_slice(b"PONG\r\n"),
            ServerMessage::Error(why) => return Err(why),
            ServerMessage::Message { subject, headers, payload, .. } => {
                let rest = subject.strip_prefix(connection.inbox.as_str());
                let sequence = rest.and_then(|rest| rest.strip_prefix('.')?.parse().ok());
                let Some(sequence) = sequence else { continue };
                check(&headers, &payload)?;
                waiting.acknowledge(sequence);
                has_acknowledged = true;
            }
            ServerMessage::Info(_) | ServerMessage::Pong | ServerMessage::Other => {}
        }
    }
    Ok(has_acknowledged)
}

/// Connects; makes the stream, if it is to be made. One of this name that is there stays as it is.
///
/// # Errors
/// Why that is not possible now.
async fn connect(nats: &NatsSettings) -> Result<Connection, String> {
    let mut connection = Connection::open(&nats.server).await?;
    let Some(bounds) = nats.created else { return Ok(connection) };
    let subject = format!("STREAM.CREATE.{STREAM}");
    let answer: StreamAnswer = connection.ask(&subject, &stream(bounds)).await?;
    match answer.error.filter(|error| error.err_code != STREAM_EXISTS) {
        None => Ok(connection),
        Some(error) => Err(format!("the stream cannot be made: {}", error.description)),
    }
}
