//! One client: the bytes of its savefile from the daemon to its connection.
//!
//! Its packets wait in the daemon's ring, not here: no more than what is on the way in two sockets
//! is in memory for a client that does not read.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Service;
use super::convert::Converter;
use crate::cli::{client as daemon_client, far_end};
use crate::control::chunks::{MessagePart, MessageParts};
use crate::failure::Failure;
use crate::output;

/// The time in which a client gets the rest of a packet after the order to end.
const LAST_PACKET: Duration = Duration::from_secs(1);

/// How the service to a client ended.
#[derive(Debug)]
pub(super) enum ClientEnd {
    /// The client closed the connection.
    Left,
    /// The capture has no more packets for it.
    Complete,
    /// An order came to end.
    Stopped,
    /// It cannot go on, for this reason.
    Failed(String),
}

/// The end and the counters of a client.
#[derive(Debug)]
pub(super) struct ClientReport {
    peer: SocketAddr,
    end: ClientEnd,
    pub(super) packets: u64,
    pub(super) lost: u64,
}

impl ClientReport {
    /// Of a client that got nothing.
    pub(super) const fn of(peer: SocketAddr, end: ClientEnd) -> Self {
        Self { peer, end, packets: 0, lost: 0 }
    }
}

impl fmt::Display for ClientReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, end, packets, lost } = self;
        match end {
            ClientEnd::Left => write!(formatter, "{peer}: left")?,
            ClientEnd::Complete => write!(formatter, "{peer}: has all packets")?,
            ClientEnd::Stopped => write!(formatter, "{peer}: closed")?,
            ClientEnd::Failed(why) => write!(formatter, "{peer}: {why}")?,
        }
        write!(formatter, "; {packets} packets sent, {lost} lost")
    }
}

/// The counters of a client, which outlive what fills them.
#[derive(Debug, Default)]
struct Counters {
    packets: AtomicU64,
    lost: AtomicU64,
}

/// Sets the options of a connection: packets go out at once, and a client that is gone without a
/// word is noticed.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    far_end::notice_when_gone(stream)
}

/// Serves a client until it leaves, the capture ends, it is `refused`, or `stopping` is true.
pub(super) async fn serve<S: AsyncRead + AsyncWrite>(
    service: &Service,
    stream: S,
    peer: SocketAddr,
    mut stopping: watch::Receiver<bool>,
    refused: impl Future<Output = String>,
) -> ClientReport {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let counters = Counters::default();
    let mut late = stopping.clone();
    let end = tokio::select! {
        end = send(service, &mut writer, peer, &mut stopping, &counters) => end,
        () = gone(&mut reader) => ClientEnd::Left,
        why = refused => ClientEnd::Failed(why),
        () = async {
            ordered(&mut late).await;
            sleep(LAST_PACKET).await;
        } => ClientEnd::Stopped,
    };
    let (packets, lost) = (&counters.packets, &counters.lost);
    let (packets, lost) = (packets.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));
    ClientReport { peer, end, packets, lost }
}

/// Waits until the client closes its connection. What it sends is ignored.
async fn gone<S: AsyncRead>(reader: &mut ReadHalf<S>) {
    let mut ignored = [0; 4096];
    while let Ok(1..) = reader.read(&mut ignored).await {}
}

/// Waits for the order to end.
async fn ordered(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|is_ordered| *is_ordered).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn send<S: AsyncWrite>(
    service: &Service,
    writer: &mut WriteHalf<S>,
    peer: SocketAddr,
    stopping: &mut watch::Receiver<bool>,
    counters: &Counters,
) -> ClientEnd {
    let mut parts = match request(service).await {
        Ok(parts) => parts,
        Err(failure) => return ClientEnd::Failed(failure.to_string()),
    };
    let mut converter = match Converter::new(service.format, &service.conversion) {
        Ok(converter) => converter,
        Err(why) => return ClientEnd::Failed(why),
    };
    loop {
        // A packet that is on the way is sent to its end.
        let is_ordered = *stopping.borrow();
        if is_ordered && converter.is_between_packets() {
            return ClientEnd::Stopped;
        }
        let part = tokio::select! {
            part = parts.next() => part,
            () = ordered(stopping), if !is_ordered => continue,
        };
        let bytes = match part {
            Ok(Some(MessagePart::Data(bytes))) => bytes,
            Ok(Some(MessagePart::Lost(lost))) => {
                if counters.lost.swap(lost, Ordering::Relaxed) == 0 {
                    output::say(format_args!("{peer}: is too slow, and loses packets"));
                }
                continue;
            }
            Ok(Some(MessagePart::Total(_))) => continue,
            Ok(None) => {
                let closed = writer.shutdown().await;
                return closed.map_or(ClientEnd::Left, |()| ClientEnd::Complete);
            }
            Err(status) => {
                let failure = daemon_client::failure(status);
                let failure = daemon_client::explained(&service.daemon, failure).await;
                return ClientEnd::Failed(failure.to_string());
            }
        };
        let converted = match converter.push(bytes, is_ordered) {
            Ok(converted) => converted,
            Err(why) => return ClientEnd::Failed(why),
        };
        if let Err(error) = writer.write_all(&converted).await {
            return match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientEnd::Left,
                _ => ClientEnd::Failed(error.to_string()),
            };
        }
        // TLS collects what it is given.
        if writer.flush().await.is_err() {
            return ClientEnd::Left;
        }
        counters.packets.store(converter.packets(), Ordering::Relaxed);
    }
}

/// Asks the daemon for the savefile. Each client has a connection of its own: what waits for a
/// client that does not read would hold up all others on the same one.
async fn request(service: &Service) -> Result<MessageParts, Failure> {
    let mut receiver = daemon_client::receiver(&service.daemon).await?;
    let parts = service.from.request(&mut receiver, service.capture.clone(), service.format).await;
    match parts {
        Ok(parts) => Ok(parts),
        Err(failure) => Err(daemon_client::explained(&service.daemon, failure).await),
    }
}
