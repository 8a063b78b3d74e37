//! One connection: sends the bytes that it is given, and counts them.
//!
//! The bytes that wait in all connections together are bounded. A slow receiver holds up the others
//! only when that much waits for it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use crate::cli::far_end;

/// Maximum bytes that wait in all connections together.
const WAITING: usize = 32 << 20;

/// Waiting bytes are counted in units of this size, at least one for each write: a small write takes
/// more memory than its bytes.
const UNIT: usize = 64;

/// Maximum number of writes that are joined into one.
const BATCH: usize = 64;

/// The time in which a receiver must close its side, after the end of the stream.
const CLOSING: Duration = Duration::from_secs(10);

/// The time for a connection to be made.
const CONNECTING: Duration = Duration::from_secs(10);

/// The room for bytes that wait.
#[derive(Clone, Debug)]
pub(super) struct WaitingRoom(Arc<Semaphore>);

impl WaitingRoom {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(WAITING / UNIT)))
    }

    /// Waits until there is room for these bytes.
    async fn place(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(UNIT).clamp(1, WAITING / UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // It is never closed.
        Arc::clone(&self.0).acquire_many_owned(units).await.ok()
    }
}

/// Bytes that wait, and their place.
#[derive(Debug)]
struct WaitingWrite {
    bytes: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

/// Connects to one of these addresses.
///
/// # Errors
/// Why there is no connection.
pub(super) async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let connecting = timeout(CONNECTING, TcpStream::connect(addresses)).await;
    let stream = connecting.map_err(|_| {
        let seconds = CONNECTING.as_secs();
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {seconds} s"))
    })??;
    stream.set_nodelay(true)?;
    far_end::notice_when_gone(&stream)?;
    Ok(stream)
}

/// A connection on which bytes are sent.
#[derive(Debug)]
pub(super) struct OutgoingStream {
    queue: mpsc::UnboundedSender<WaitingWrite>,
    room: WaitingRoom,
    written: Arc<AtomicU64>,
    task: JoinHandle<Result<(), String>>,
}

impl OutgoingStream {
    /// Sends on this connection.
    pub(super) fn start(stream: TcpStream, room: WaitingRoom) -> Self {
        let (queue, writes) = mpsc::unbounded_channel();
        let written = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(send(stream, writes, Arc::clone(&written)));
        Self { queue, room, written, task }
    }

    /// Gives it bytes to send, when there is room for them; false if the receiver has gone away.
    pub(super) async fn give(&self, bytes: Bytes) -> bool {
        if self.queue.is_closed() {
            return false;
        }
        let place = self.room.place(bytes.len()).await;
        self.queue.send(WaitingWrite { bytes, _place: place }).is_ok()
    }

    /// True if the receiver has gone away.
    pub(super) fn is_gone(&self) -> bool {
        self.queue.is_closed()
    }

    /// Bytes that the kernel has taken.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Sends the bytes that wait, ends the stream, and waits until the receiver has closed its side.
    /// Returns the bytes that the kernel has taken, and why the receiver has gone away if it has.
    pub(super) async fn finish(self) -> (u64, Result<(), String>) {
        drop(self.queue);
        let ended = self.task.await.unwrap_or_else(|error| Err(error.to_string()));
        (self.written.load(Ordering::Relaxed), ended)
    }
}

/// Sends until no more writes come.
async fn send(
    stream: TcpStream,
    mut writes: mpsc::UnboundedReceiver<WaitingWrite>,
    written: Arc<AtomicU64>,
) -> Result<(), String> {
    let (mut reader, mut writer) = stream.into_split();
    let mut far = FarSide { is_closed: false };
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            count = writes.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    break;
                }
            }
            error = far.breaks(&mut reader) => return Err(error.to_string()),
        }
        while !batch.is_empty() {
            let slices: Vec<IoSlice<'_>> =
                batch.iter().map(|write: &WaitingWrite| IoSlice::new(&write.bytes)).collect();
            let len = writer.write_vectored(&slices).await.map_err(|error| error.to_string())?;
            written.fetch_add(len as u64, Ordering::Relaxed);
            advance(&mut batch, len);
        }
        yield_now().await;
    }
    writer.shutdown().await.map_err(|error| error.to_string())?;
    match timeout(CLOSING, far.closes(&mut reader)).await {
        Ok(closed) => closed.map_err(|error| error.to_string()),
        Err(_) => Err(format!("has all, and does not close within {} s", CLOSING.as_secs())),
    }
}

/// Removes the bytes that were written.
fn advance(batch: &mut Vec<WaitingWrite>, mut len: usize) {
    let mut whole = 0;
    for write in batch.iter_mut() {
        let now = len.min(write.bytes.len());
        write.bytes.advance(now);
        len -= now;
        if !write.bytes.is_empty() {
            break;
        }
        whole += 1;
    }
    batch.drain(..whole);
}

/// The receiving direction of the connection. Received bytes are ignored.
#[derive(Debug)]
struct FarSide {
    /// It sends no more, and may still receive.
    is_closed: bool,
}

impl FarSide {
    /// Waits until the far end resets the connection, as far as that can be seen before the next
    /// write.
    async fn breaks(&mut self, reader: &mut OwnedReadHalf) -> io::Error {
        match self.closes(reader).await {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    }

    /// Waits until the far end closes its side.
    async fn closes(&mut self, reader: &mut OwnedReadHalf) -> io::Result<()> {
        let mut ignored = [0; 4096];
        while !self.is_closed {
            self.is_closed = reader.read(&mut ignored).await? == 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_removed() {
        let write = |bytes: &'static [u8]| WaitingWrite { bytes: bytes.into(), _place: None };
        let mut batch = vec![write(b"abc"), write(b""), write(b"defg"), write(b"h")];
        advance(&mut batch, 5);
        let left: Vec<&[u8]> = batch.iter().map(|write| &*write.bytes).collect();
        assert_eq!(left, [&b"fg"[..], b"h"]);
        advance(&mut batch, 3);
        assert!(batch.is_empty());
    }
}
