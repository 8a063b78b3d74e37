//! One peer: its handshake, what it asks for, and its messages on their way to it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::endpoint::PeerStream;
use super::message::Message;
use super::queue::QueuedMessage;
use super::report::PeerCounts;
use super::zmtp::SenderType;
use super::zmtp::command;
use super::zmtp::frame::{self, ReceivedFrame};
use super::zmtp::greeting::{self, GREETING};
use super::zmtp::subscriptions::Subscriptions;

/// The time of a handshake: a peer that does not speak takes up a place for no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Bytes of messages that are written at once.
const BATCH: usize = 64 << 10;

/// Bytes of a read of what a peer sends.
const READ: usize = 4096;

/// Answers to PINGs that wait for their turn.
const PONGS: usize = 4;

/// A peer after its handshake.
pub(super) struct ReadyPeer {
    reader: PeerReader,
    writer: WriteHalf<Box<dyn PeerStream>>,
    pongs: mpsc::Receiver<Bytes>,
    /// What it has subscribed to.
    pub(super) subscribed: Arc<SharedSubscriptions>,
}

/// What a peer has subscribed to, for the side that sends.
#[derive(Debug, Default)]
pub(super) struct SharedSubscriptions {
    known: Mutex<Subscriptions>,
    changed: Notify,
}

impl SharedSubscriptions {
    /// True if the peer wants messages of this topic.
    pub(super) fn wants(&self, topic: &str) -> bool {
        self.known.lock().wants(topic.as_bytes())
    }

    /// Waits for the first subscription.
    pub(super) async fn first(&self) {
        self.changed.notified().await;
    }
}

/// Reads what a peer sends.
struct PeerReader {
    stream: ReadHalf<Box<dyn PeerStream>>,
    input: BytesMut,
    sender: SenderType,
    pongs: mpsc::Sender<Bytes>,
    subscribed: Arc<SharedSubscriptions>,
}

/// Greets a peer, and checks that it fits.
///
/// # Errors
/// Why it is refused, for people.
pub(super) async fn greet(
    stream: Box<dyn PeerStream>,
    sender: SenderType,
) -> Result<ReadyPeer, String> {
    let seconds = HANDSHAKE.as_secs();
    timeout(HANDSHAKE, shake_hands(stream, sender))
        .await
        .unwrap_or_else(|_| Err(format!("no handshake within {seconds} s")))
}

async fn shake_hands(stream: Box<dyn PeerStream>, sender: SenderType) -> Result<ReadyPeer, String> {
    let (reader, mut writer) = tokio::io::split(stream);
    let (pongs, waiting) = mpsc::channel(PONGS);
    let subscribed: Arc<SharedSubscriptions> = Arc::default();
    let input = BytesMut::with_capacity(READ);
    let mut reader =
        PeerReader { stream: reader, input, sender, pongs, subscribed: Arc::clone(&subscribed) };
    writer.write_all(&greeting::greeting()).await.map_err(|error| error.to_string())?;
    while reader.input.len() < GREETING {
        reader.fill().await?;
        let come = reader.input.get(..reader.input.len().min(GREETING)).unwrap_or_default();
        greeting::check(come)?;
    }
    drop(reader.input.split_to(GREETING));
    writer.write_all(&command::ready(sender)).await.map_err(|error| error.to_string())?;
    let checked = match reader.frame().await? {
        ReceivedFrame::Command(name, data) => command::check_ready(&name, &data, sender),
        ReceivedFrame::Part(..) => Err("begins without READY".to_owned()),
    };
    if let Err(why) = checked {
        // It may have gone already.
        let _ = writer.write_all(&command::error(&why)).await;
        return Err(why);
    }
    Ok(ReadyPeer { reader, writer, pongs: waiting, subscribed })
}

impl PeerReader {
    /// Waits for bytes.
    async fn fill(&mut self) -> Result<(), String> {
        self.input.reserve(READ);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err("left".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn frame(&mut self) -> Result<ReceivedFrame, String> {
        loop {
            if let Some(frame) = frame::take(&mut self.input)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Obeys the peer until it leaves; returns why.
    async fn run(&mut self) -> String {
        loop {
            let done = match self.frame().await {
                Ok(frame) => self.obey(&frame).await,
                Err(why) => Err(why),
            };
            if let Err(why) = done {
                return why;
            }
        }
    }

    async fn obey(&mut self, frame: &ReceivedFrame) -> Result<(), String> {
        if let ReceivedFrame::Command(name, data) = frame
            && &name[..] == b"PING"
        {
            let pong = command::pong(data)?;
            // A peer that asks and does not read waits here.
            let _ = self.pongs.send(pong).await;
            return Ok(());
        }
        if self.sender == SenderType::Pub && self.subscribed.known.lock().take(frame)? {
            self.subscribed.changed.notify_one();
            return Ok(());
        }
        match frame {
            // Commands of later versions are passed over.
            ReceivedFrame::Command(..) => Ok(()),
            ReceivedFrame::Part(..) => Err("sent a message to a socket that only sends".to_owned()),
        }
    }
}

/// The messages that are being written.
#[derive(Debug, Default)]
struct Batch {
    bytes: BytesMut,
    /// Each with the offset of its end.
    messages: VecDeque<(usize, QueuedMessage)>,
    /// Bytes that were written.
    written: usize,
}

/// How the service to a peer ended.
#[derive(Debug)]
pub(super) struct PeerEnd {
    pub(super) why: String,
    /// Messages that were not sent completely, in their order.
    pub(super) unsent: Vec<Message>,
    pub(super) counts: PeerCounts,
}

impl PeerEnd {
    /// Of a peer that did not take its last messages in time.
    pub(super) fn closed() -> Self {
        Self { why: "closed".to_owned(), unsent: Vec::new(), counts: PeerCounts::default() }
    }
}

/// Sends the messages of a queue, and calls `sent` for each one that the kernel has taken, until the
/// peer leaves or the other end of the queue is dropped.
pub(super) async fn serve(
    peer: ReadyPeer,
    mut queue: mpsc::UnboundedReceiver<QueuedMessage>,
    mut sent: impl FnMut(&Message),
) -> PeerEnd {
    let ReadyPeer { mut reader, mut writer, mut pongs, .. } = peer;
    let (mut batch, mut counts) = (Batch::default(), PeerCounts::default());
    let mut count = |message: &Message| {
        counts.messages += 1;
        counts.bytes += message.size() as u64;
        sent(message);
    };
    let why = tokio::select! {
        // First whether it has left: a message for it would be lost.
        biased;
        why = reader.run() => why,
        end = write_all(&mut writer, &mut queue, &mut pongs, &mut batch, &mut count) => match end {
            Ok(()) => "closed".to_owned(),
            Err(error) => error.to_string(),
        },
    };
    let mut unsent: Vec<Message> =
        batch.messages.into_iter().map(|(_, queued)| queued.message).collect();
    queue.close();
    while let Ok(queued) = queue.try_recv() {
        unsent.push(queued.message);
    }
    PeerEnd { why, unsent, counts }
}

async fn write_all(
    writer: &mut WriteHalf<Box<dyn PeerStream>>,
    queue: &mut mpsc::UnboundedReceiver<QueuedMessage>,
    pongs: &mut mpsc::Receiver<Bytes>,
    batch: &mut Batch,
    sent: &mut impl FnMut(&Message),
) -> io::Result<()> {
    loop {
        let first = tokio::select! {
            biased;
            Some(pong) = pongs.recv() => {
                writer.write_all(&pong).await?;
                continue;
            }
            first = queue.recv() => first,
        };
        let Some(first) = first else {
            // What was written is on its way.
            return writer.shutdown().await;
        };
        (batch.written, batch.bytes) = (0, BytesMut::new());
        batch.add(first);
        while batch.bytes.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.add(next);
        }
        while batch.written < batch.bytes.len() {
            let rest = batch.bytes.get(batch.written..).unwrap_or_default();
            match writer.write(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => batch.written += count,
            }
            while batch.messages.front().is_some_and(|(end, _)| *end <= batch.written)
                && let Some((_, done)) = batch.messages.pop_front()
            {
                sent(&done.message);
            }
        }
    }
}

impl Batch {
    fn add(&mut self, queued: QueuedMessage) {
        queued.message.append(&mut self.bytes);
        self.messages.push_back((self.bytes.len(), queued));
    }
}
