//! One connection: reads its bytes, writes them into its file, and reports its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use super::output::StreamFile;
use super::packets::{PacketMaker, savefile_header};
use capture::clock;

/// Maximum bytes of one read, which all connections share: reads of this size cost little more than
/// copying.
const BUFFER: usize = 256 << 10;

/// Maximum bytes that are read of a connection after the order to end, since some peers never stop
/// sending. The kernel holds up to 6 MiB of a connection (`tcp_rmem`).
const LAST_BYTES: usize = 16 << 20;

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct SharedReception {
    buffers: Mutex<Buffers>,
    received: AtomicU64,
    most: Option<u64>,
    /// Notified when `most` has been received.
    pub(super) is_complete: Notify,
}

#[derive(Debug)]
struct Buffers {
    read: Box<[u8]>,
    /// Packets made of what was read.
    made: Vec<u8>,
}

impl SharedReception {
    /// Takes at most this many bytes from all connections together.
    pub(super) fn new(most: Option<u64>) -> Self {
        let buffers = Buffers { read: vec![0; BUFFER].into(), made: Vec::new() };
        let shared = Self {
            buffers: Mutex::new(buffers),
            received: AtomicU64::new(0),
            most,
            is_complete: Notify::new(),
        };
        // It may be none.
        shared.add(0);
        shared
    }

    /// Bytes that were received and written.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that may still be received.
    fn left(&self) -> usize {
        let left = self.most.map_or(u64::MAX, |most| most.saturating_sub(self.received()));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    fn add(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.left() == 0 {
            self.is_complete.notify_one();
        }
    }
}

/// A file that several connections may write.
pub(super) type SharedFile = Arc<Mutex<StreamFile>>;

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConnectionEnd {
    /// The far end has sent all that it wanted to.
    Complete,
    /// An order came to end.
    Stopped,
    /// As much as allowed has been received.
    Enough,
    /// The connection broke, for this reason.
    Broken(String),
    /// So many bytes that were received could not be written, for this reason.
    Unwritten(usize, String),
}

/// A connection that has ended.
#[derive(Debug)]
pub(super) struct ConnectionReport {
    pub(super) peer: SocketAddr,
    pub(super) port: u16,
    pub(super) bytes: u64,
    pub(super) time: Duration,
    pub(super) end: ConnectionEnd,
}

/// A connection that is being received.
#[derive(Debug)]
pub(super) struct ReceivedConnection {
    stream: TcpStream,
    peer: SocketAddr,
    port: u16,
    file: SharedFile,
    packets: Option<PacketMaker>,
    began: Instant,
    bytes: u64,
}

impl ReceivedConnection {
    /// A connection whose bytes go into `file`; as packets if that is a savefile.
    ///
    /// # Errors
    /// The file cannot be written, or the connection is gone already.
    pub(super) fn begin(
        stream: TcpStream,
        peer: SocketAddr,
        file: SharedFile,
        is_savefile: bool,
    ) -> io::Result<Self> {
        let local = canonical(stream.local_addr()?);
        let mut packets = is_savefile.then(|| PacketMaker::new(peer, local));
        if let Some(packets) = &mut packets {
            let mut made = Vec::new();
            packets.opening(clock::now(), &mut made);
            file.lock().append(&made).inspect_err(|_| reset(&stream))?;
        }
        let (port, began) = (local.port(), Instant::now());
        Ok(Self { stream, peer, port, file, packets, began, bytes: 0 })
    }

    /// Receives until the far end has sent everything, or `stopping` is true.
    pub(super) async fn run(
        mut self,
        shared: Arc<SharedReception>,
        mut stopping: watch::Receiver<bool>,
    ) -> ConnectionReport {
        let end = self.receive(&shared, &mut stopping).await;
        if let Some(packets) = &self.packets {
            let mut made = Vec::new();
            packets.ending(clock::now(), end == ConnectionEnd::Complete, &mut made);
            // The end of a connection is worth no other message than that of its bytes.
            let _ = self.file.lock().append(&made);
        }
        if end != ConnectionEnd::Complete {
            reset(&self.stream);
        }
        let Self { peer, port, bytes, began, .. } = self;
        ConnectionReport { peer, port, bytes, time: began.elapsed(), end }
    }

    async fn receive(
        &mut self,
        shared: &SharedReception,
        stopping: &mut watch::Receiver<bool>,
    ) -> ConnectionEnd {
        loop {
            tokio::select! {
                biased;
                // Fails only if the sender of orders is gone.
                _ = stopping.wait_for(|is_ordered| *is_ordered) => return self.finish(shared),
                ready = self.stream.readable() => {
                    if let Err(error) = ready {
                        return ConnectionEnd::Broken(error.to_string());
                    }
                }
            }
            if let Some(end) = self.step(shared).1 {
                return end;
            }
        }
    }

    /// Receives the bytes that came before the order to end.
    fn finish(&mut self, shared: &SharedReception) -> ConnectionEnd {
        let mut left = LAST_BYTES;
        while left > 0 {
            match self.step(shared) {
                (_, Some(end)) => return end,
                (0, None) => break,
                (read, None) => left = left.saturating_sub(read),
            }
        }
        ConnectionEnd::Stopped
    }

    /// Reads and writes once. Returns the number of bytes, 0 if none have come, and the end if this
    /// was it.
    fn step(&mut self, shared: &SharedReception) -> (usize, Option<ConnectionEnd>) {
        let most = shared.left().min(BUFFER);
        if most == 0 {
            return (0, Some(ConnectionEnd::Enough));
        }
        let mut buffers = shared.buffers.lock();
        let Buffers { read, made } = &mut *buffers;
        let room = read.get_mut(..most).unwrap_or_default();
        let len = match self.stream.try_read(room) {
            Ok(0) => return (0, Some(ConnectionEnd::Complete)),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (0, None),
            Err(error) => return (0, Some(ConnectionEnd::Broken(error.to_string()))),
        };
        let bytes = read.get(..len).unwrap_or_default();
        match self.write(bytes, made) {
            Ok(()) => {
                self.bytes += len as u64;
                shared.add(len);
                (len, None)
            }
            Err(error) => (0, Some(ConnectionEnd::Unwritten(len, error.to_string()))),
        }
    }

    fn write(&mut self, bytes: &[u8], made: &mut Vec<u8>) -> io::Result<()> {
        let Some(packets) = &mut self.packets else { return self.file.lock().append(bytes) };
        made.clear();
        packets.data(clock::now(), bytes, made);
        self.file.lock().append(made)
    }
}

/// Begins a savefile for what comes at this address.
///
/// # Errors
/// Those of the file system.
pub(super) fn begin_savefile(file: &mut StreamFile, local: SocketAddr) -> io::Result<()> {
    let mut header = Vec::new();
    savefile_header(local, &mut header);
    file.append(&header)
}

/// Has the connection end with a reset, so that the far end does not believe that all it sent was
/// written.
pub(super) fn reset(stream: &TcpStream) {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    // Without it, the far end finds out later.
    let _ = setsockopt(stream, sockopt::Linger, &now);
}

/// An address as it is known, also if an IPv6 socket has accepted an IPv4 connection.
pub(super) const fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
