//! The messages that wait for one peer: few bytes, so that a peer that does not read takes no memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::message::Message;

/// Maximum bytes of messages that wait for a peer. A longer message waits alone.
const WAITING: usize = 512 << 10;

/// Waiting bytes are counted in units of this size, and each message takes one more: a small message
/// takes more memory than its bytes.
const UNIT: usize = 64;

/// A message that waits, and its room.
#[derive(Debug)]
pub(super) struct QueuedMessage {
    pub(super) message: Message,
    _room: OwnedSemaphorePermit,
}

/// The end of the queue at which messages are put.
#[derive(Clone, Debug)]
pub(super) struct MessageQueue {
    room: Arc<Semaphore>,
    sender: mpsc::UnboundedSender<QueuedMessage>,
}

/// A queue, and its other end.
pub(super) fn queue() -> (MessageQueue, mpsc::UnboundedReceiver<QueuedMessage>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (MessageQueue { room: Arc::new(Semaphore::new(WAITING / UNIT)), sender }, receiver)
}

fn units(message: &Message) -> u32 {
    let units = message.size().div_ceil(UNIT).saturating_add(1).min(WAITING / UNIT);
    u32::try_from(units).unwrap_or(u32::MAX)
}

impl MessageQueue {
    /// Puts a message, when there is room; gives it back if the peer is gone.
    pub(super) async fn put(&self, message: Message) -> Result<(), Message> {
        let room = Arc::clone(&self.room).acquire_many_owned(units(&message));
        tokio::select! {
            Ok(room) = room => self.put_in(message, room),
            () = self.sender.closed() => Err(message),
        }
    }

    /// Puts a message if there is room now; gives it back if there is none, or the peer is gone.
    pub(super) fn try_put(&self, message: Message) -> Result<(), Message> {
        match Arc::clone(&self.room).try_acquire_many_owned(units(&message)) {
            Ok(room) => self.put_in(message, room),
            Err(_) => Err(message),
        }
    }

    /// Waits until the peer is gone.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    fn put_in(&self, message: Message, room: OwnedSemaphorePermit) -> Result<(), Message> {
        let queued = QueuedMessage { message, _room: room };
        self.sender.send(queued).map_err(|refused| refused.0.message)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cli::publish::message::MessagePlace;

    fn message(length: usize) -> Message {
        let frames = vec![Bytes::from(vec![0; length])];
        Message {
            topic: "packet",
            frames,
            place: MessagePlace::Packet(1),
            id: String::new(),
            sequence: 0,
        }
    }

    #[test]
    fn the_bytes_that_wait_are_bounded() {
        let (queue, mut receiver) = queue();
        let mut put = 0;
        while queue.try_put(message(1000)).is_ok() {
            put += 1;
        }
        assert!((400..600).contains(&put), "{put}");
        receiver.try_recv().unwrap();
        queue.try_put(message(1000)).unwrap();
        while receiver.try_recv().is_ok() {}
        // A message that is longer than all of the room is put alone.
        queue.try_put(message(10 << 20)).unwrap();
        assert!(queue.try_put(message(1)).is_err());
        drop(receiver);
        assert!(queue.try_put(message(1)).is_err(), "nobody reads");
    }
}
