//! One connection to a server, and the messages that it has not acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::protocol::{
    self, ClientIntroduction, ServerInfo, ServerMessage, StreamAnswer, StreamError, append_message,
    append_request,
};
use super::{NatsSettings, STREAM, stream};
use crate::cli::outlet::saved::SavedPositions;
use crate::cli::publish::SAVES;
use crate::cli::publish::feed::{Feed, FeedItem, FeedSettings};
use crate::cli::publish::message::{Message, MessagePlace};
use crate::cli::publish::report::PeerCounts;
use crate::cli::publish::tracker::SentTracker;
use crate::cli::{exclude, far_end};
use crate::failure::Failure;

/// Maximum number of messages that are not acknowledged, and of their bytes.
const WINDOW: usize = 256;
const WINDOW_BYTES: usize = 1 << 20;

/// The time for a step of the beginning, for a write, and for an acknowledgement.
const ANSWER: Duration = Duration::from_secs(5);

/// The answer to the request for a stream.
const STREAM_REPLY: &str = "stream";

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
        let MessagePlace::Line(kind, _) = message.place else { return };
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

/// A connection to a server.
struct Connection {
    stream: TcpStream,
    input: BytesMut,
    info: ServerInfo,
    /// The beginning of subjects to which answers go.
    inbox: String,
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
            connected = Connection::open(self.nats) => connected,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return Ok(SessionEnd::Stopped),
        };
        let mut connection = match connected {
            Ok(connection) => connection,
            Err(why) => return Ok(SessionEnd::Away(why)),
        };
        let daemon = self.settings.source.daemon.socket();
        // Captures would store what it sends.
        let _excluded = match (connection.stream.local_addr(), connection.stream.peer_addr()) {
            (Ok(local), Ok(peer)) => Some(exclude::keep_out(daemon, local, Some(peer)).await),
            _ => None,
        };
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
    while let Some(message) = protocol::take(&mut connection.input)? {
        match message {
            ServerMessage::Ping => out.extend_from_slice(b"PONG\r\n"),
            ServerMessage::Error(why) => return Err(why),
            ServerMessage::Message { subject, headers, payload } => {
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

/// Checks that an answer is an acknowledgement.
///
/// # Errors
/// Why it is none.
fn check(headers: &[u8], payload: &Bytes) -> Result<(), String> {
    if protocol::status(headers) == Some(503) {
        return Err(format!(
            "no stream takes the lines (make one that keeps pcapfs.>, or use --create-stream, which \
             makes '{STREAM}')"
        ));
    }
    let answer: StreamAnswer = serde_json::from_slice(payload)
        .map_err(|_| "an answer that is none of JetStream".to_owned())?;
    match answer.error {
        None => Ok(()),
        Some(StreamError { code, description, .. }) => Err(format!("{description} ({code})")),
    }
}

impl Connection {
    /// Connects and introduces itself; makes the stream, if it is to be made.
    ///
    /// # Errors
    /// Why that is not possible now.
    async fn open(nats: &NatsSettings) -> Result<Self, String> {
        timeout(2 * ANSWER, Self::begin(nats)).await.unwrap_or_else(|_| Err("no answer".to_owned()))
    }

    async fn begin(nats: &NatsSettings) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let place = &nats.server.place;
        let found = lookup_host((place.host.as_str(), place.port)).await.map_err(text)?;
        let stream = TcpStream::connect(&found.collect::<Vec<_>>()[..]).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        far_end::notice_when_gone(&stream).map_err(text)?;
        let inbox = format!("_INBOX.pcapfs{}{:x}", std::process::id(), unique());
        let (input, info) = (BytesMut::new(), ServerInfo::default());
        let mut connection = Self { stream, input, info, inbox };
        match connection.message().await? {
            ServerMessage::Info(info) => connection.info = info,
            _ => return Err("no NATS server".to_owned()),
        }
        let ServerInfo { headers, jetstream, tls_required, version, .. } = &connection.info;
        if *tls_required {
            return Err("the server requires TLS, which is not offered here".to_owned());
        }
        if !headers || !jetstream {
            return Err(format!(
                "the server (NATS {version}) has no JetStream (start it with: -js)"
            ));
        }
        connection.introduce(nats).await?;
        if let Some(bounds) = nats.created {
            connection.create(&stream_request(&connection.inbox, bounds)).await?;
        }
        Ok(connection)
    }

    async fn introduce(&mut self, nats: &NatsSettings) -> Result<(), String> {
        let (user, pass, auth_token) = match nats.server.credentials.clone() {
            Some((user, Some(password))) => (Some(user), Some(password), None),
            Some((token, None)) => (None, None, Some(token)),
            None => (None, None, None),
        };
        let introduction = ClientIntroduction {
            headers: true,
            no_responders: true,
            name: "pcapfs",
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            user,
            pass,
            auth_token,
            ..ClientIntroduction::default()
        };
        let introduction = serde_json::to_string(&introduction).unwrap_or_default();
        let inbox = &self.inbox;
        let text = format!("CONNECT {introduction}\r\nSUB {inbox}.* 1\r\nPING\r\n");
        self.write(text.as_bytes()).await?;
        loop {
            match self.message().await? {
                ServerMessage::Pong => return Ok(()),
                ServerMessage::Error(why) => return Err(why),
                ServerMessage::Ping => self.write(b"PONG\r\n").await?,
                _ => {}
            }
        }
    }

    /// Has the stream made. One of this name that is there stays as it is.
    async fn create(&mut self, request: &[u8]) -> Result<(), String> {
        self.write(request).await?;
        loop {
            let ServerMessage::Message { headers, payload, .. } = self.message().await? else {
                continue;
            };
            let answer: Result<StreamAnswer, _> = serde_json::from_slice(&payload);
            return match answer.ok().and_then(|answer| answer.error) {
                Some(error) if error.err_code == STREAM_EXISTS => Ok(()),
                Some(error) => Err(format!("the stream cannot be made: {}", error.description)),
                None => check(&headers, &payload),
            };
        }
    }

    /// The next message.
    async fn message(&mut self) -> Result<ServerMessage, String> {
        loop {
            if let Some(message) = protocol::take(&mut self.input)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// Waits for bytes. May be dropped and called again.
    async fn fill(&mut self) -> Result<(), String> {
        self.input.reserve(4096);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err("the server closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = timeout(ANSWER, self.stream.write_all(bytes)).await;
        let written = written.map_err(|_| "the server takes no bytes".to_owned())?;
        written.map_err(|error| error.to_string())
    }
}

fn stream_request(inbox: &str, bounds: super::StreamBounds) -> Vec<u8> {
    let mut out = BytesMut::new();
    let subject = format!("$JS.API.STREAM.CREATE.{STREAM}");
    append_request(&mut out, &subject, &format!("{inbox}.{STREAM_REPLY}"), &stream(bounds));
    out.to_vec()
}

/// A number that no other connection of this process has.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    CONNECTIONS.fetch_add(1, Ordering::Relaxed)
}
