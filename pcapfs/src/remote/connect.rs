//! Connects to the control service of another machine, for the command line and for the daemon
//! alike.
//!
//! A connection counts as made when the other side has sent its first bytes: in TLS 1.3 the client
//! is done with the handshake before the server has looked at its certificate, so only then is it
//! known whether this side is let in.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use capture::own_transport::{Exclusion, OwnStream};
use capture::source::HostAndPort;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tower::service_fn;

use super::certificate::{printable, printable_up_to};
use super::credentials::Credentials;
use super::error::{RemoteError, RemoteReason};
use super::remotes::{self, Remote, RemoteAddress};
use super::tls::{self, HTTP2};
use crate::control::messages::StatusRequest;
use crate::control::messages::control_client::ControlClient;
use crate::control::{VERSION_HEADER, chunks};

/// Time for each address of a host to answer, and for the handshake.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);

/// Interval at which the other side is asked whether it is still there, and the time for its answer:
/// together, a half-open connection is noticed within ten seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);

/// Bytes that may be on their way: with 100 ms to the far machine, enough for 80 MB/s.
const WINDOW: u32 = 8 << 20;

/// Characters of a message of the other side that are shown.
const MESSAGE: usize = 4096;

/// The first bytes of the other side that are read before the connection counts as made.
const FIRST_BYTES: usize = 1024;

/// The type of the frame that a server of HTTP/2 sends first (RFC 9113, 3.4 and 6.5).
const SETTINGS: u8 = 4;

/// The remote of this name, from the files of the user and of the system.
///
/// # Errors
/// [`RemoteReason::Unknown`] with those that there are, or the file that cannot be read.
pub(crate) fn find(name: &str) -> Result<Remote, RemoteError> {
    let failure = |reason| RemoteError { remote: name.to_owned(), reason };
    let known =
        remotes::load().map_err(|error| failure(RemoteReason::Answer(error.to_string())))?;
    if let Some(remote) = known.iter().find(|remote| remote.name == name) {
        return Ok(remote.clone());
    }
    let names: Vec<&str> = known.iter().map(|remote| remote.name.as_str()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Err(failure(RemoteReason::Unknown(names)))
}

/// Connects to a remote. The channel lasts as long as its connection: afterwards requests fail with
/// `UNAVAILABLE`, and [`explain`] says why.
///
/// # Errors
/// [`RemoteError`], with the reason.
pub(crate) async fn connect(remote: &Remote) -> Result<Channel, RemoteError> {
    connect_inner(remote)
        .await
        .map_err(|reason| RemoteError { remote: remote.name.clone(), reason })
}

/// The error for a remote that has accepted a connection, and does not answer a request.
pub(crate) fn silent(remote: &Remote) -> RemoteError {
    RemoteError { remote: remote.name.clone(), reason: no_answer(&remote.address.to_string()) }
}

/// The meaning of a status of a request to this remote. If the connection has ended, it is tried once
/// more: the other side then says why.
pub(crate) async fn explain(remote: &Remote, status: &Status) -> RemoteError {
    let reason = match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown => match asked_again(remote).await {
            Err(reason) => reason,
            Ok(()) => RemoteReason::Ended(printable(status.message())),
        },
        Code::Unauthenticated => {
            RemoteReason::NotAllowed(printable_up_to(MESSAGE, status.message()))
        }
        Code::Unimplemented => {
            let version = status.metadata().get(VERSION_HEADER);
            let version = version.and_then(|version| version.to_str().ok()).unwrap_or("unknown");
            RemoteReason::Incompatible(format!(
                "pcapfs {} there does not know this request of pcapfs {} (install the same version \
                 on both machines)",
                printable(version),
                env!("CARGO_PKG_VERSION")
            ))
        }
        _ => RemoteReason::Answer(printable_up_to(MESSAGE, status.message())),
    };
    RemoteError { remote: remote.name.clone(), reason }
}

/// Connects once more, and returns why this side is not let in any more, if so.
async fn asked_again(remote: &Remote) -> Result<(), RemoteReason> {
    let mut client = ControlClient::new(connect_inner(remote).await?);
    let request = StatusRequest { capture: String::new(), interval: 0 };
    match tokio::time::timeout(CONNECT, client.status(request)).await {
        Ok(Err(status)) if status.code() == Code::Unauthenticated => {
            Err(RemoteReason::NotAllowed(printable_up_to(MESSAGE, status.message())))
        }
        _ => Ok(()),
    }
}

async fn connect_inner(remote: &Remote) -> Result<Channel, RemoteReason> {
    match &remote.address {
        RemoteAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| {
                let place = path.display().to_string();
                RemoteReason::of(&error, &place, "", false)
            })?;
            channel(stream).await
        }
        RemoteAddress::Tls { host, port } => {
            let identity = remote.identity.as_deref();
            let (config, identity) = client_config(identity, remote)?;
            let place = HostAndPort { host: host.clone(), port: *port }.to_string();
            let connection = tcp(host, *port, &place).await?;
            let stream = secured(connection, host, config, (&place, &identity, remote)).await?;
            channel(stream).await
        }
    }
}

/// The configuration of TLS with the certificate that a remote is to see, and its file for
/// messages.
fn client_config(
    identity: Option<&Path>,
    remote: &Remote,
) -> Result<(Arc<ClientConfig>, String), RemoteReason> {
    let path = identity.ok_or_else(|| {
        RemoteReason::Identity(format!(
            "it has no certificate to show (add it again with: pcapfs remote add {} {} --identity \
             FILE; the other machine makes FILE with: pcapfs identity issue NAME)",
            remote.name, remote.address
        ))
    })?;
    let credentials =
        Credentials::of_path(path).map_err(|error| RemoteReason::Identity(error.to_string()))?;
    let name = path.display().to_string();
    if credentials.facts().has_expired() {
        let advice = "ask the other machine for another with: pcapfs identity issue";
        let warning = credentials.facts().warning(&format!("the certificate in {name}"), advice);
        return Err(RemoteReason::Expired(warning.unwrap_or_default()));
    }
    let config = tls::client(&credentials, remote.sha256, &[HTTP2])
        .map_err(|why| RemoteReason::Identity(format!("{name}: {why}")))?;
    Ok((config, name))
}

/// A connection whose packets no capture of this process stores.
struct OwnConnection {
    stream: TcpStream,
    exclusion: Option<Exclusion>,
}

impl OwnConnection {
    async fn to(address: SocketAddr) -> io::Result<Self> {
        let stream = OwnStream::unconnected(address)?;
        stream.set_nonblocking(true)?;
        let (stream, exclusion) = stream.into_parts();
        let stream = TcpSocket::from_std_stream(stream).connect(address).await?;
        if let Some(exclusion) = &exclusion {
            exclusion.set_local(stream.local_addr()?);
        }
        Ok(Self { stream, exclusion })
    }
}

/// Connects to the first address that answers.
async fn tcp(host: &str, port: u16, place: &str) -> Result<OwnConnection, RemoteReason> {
    let unresolved = |why: String| RemoteReason::NoAddress { host: host.to_owned(), why };
    let addresses = lookup_host((host, port)).await.map_err(|error| unresolved(plain(&error)))?;
    let mut last = None;
    for address in addresses {
        let failure = match tokio::time::timeout(CONNECT, OwnConnection::to(address)).await {
            Ok(Ok(connection)) => {
                // Small messages must not wait for the acknowledgment of others.
                let _ = connection.stream.set_nodelay(true);
                return Ok(connection);
            }
            Ok(Err(error)) => RemoteReason::of(&error, place, "", false),
            Err(_) => no_answer(place),
        };
        last = Some(failure);
    }
    Err(last.unwrap_or_else(|| unresolved("no addresses".to_owned())))
}

/// The resolver's message, without the words that the library puts before it.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.rsplit(": ").next().unwrap_or(&text).to_owned()
}

fn no_answer(place: &str) -> RemoteReason {
    let why = format!("no answer within {} s", CONNECT.as_secs());
    RemoteReason::Unreachable { place: place.to_owned(), why }
}

/// TLS over a connection, up to the first bytes of the other side.
async fn secured(
    connection: OwnConnection,
    host: &str,
    config: Arc<ClientConfig>,
    (place, identity, remote): (&str, &str, &Remote),
) -> Result<RewoundStream, RemoteReason> {
    let failure =
        |error: io::Error| RemoteReason::of(&error, place, identity, remote.sha256.is_some());
    let not_pcapfs =
        |why: &str| RemoteReason::NotPcapfs { place: place.to_owned(), why: why.to_owned() };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| RemoteReason::Identity(error.to_string()))?;
    let OwnConnection { stream, exclusion } = connection;
    let handshake = async {
        let mut stream = TlsConnector::from(config).connect(name, stream).await?;
        let mut first = vec![0; FIRST_BYTES];
        let mut length = 0;
        // A whole header of a frame, which has nine bytes.
        while length < 9 {
            match stream.read(first.get_mut(length..).unwrap_or_default()).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => length += read,
            }
        }
        first.truncate(length);
        Ok(RewoundStream { first, given: 0, stream: Box::new(stream), _exclusion: exclusion })
    };
    let handshake = tokio::time::timeout(CONNECT, handshake).await;
    let rewound = handshake.map_err(|_| no_answer(place))?.map_err(failure)?;
    if rewound.first.get(3) != Some(&SETTINGS) {
        return Err(not_pcapfs("it speaks TLS, but not HTTP/2"));
    }
    Ok(rewound)
}

/// The channel over a stream, without a second connection after it.
async fn channel<S>(stream: S) -> Result<Channel, RemoteReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut first = Some(stream);
    let connect = service_fn(move |_: Uri| {
        let stream = first.take();
        async move {
            let ended = || io::Error::new(io::ErrorKind::NotConnected, "the connection ended");
            stream.map(TokioIo::new).ok_or_else(ended)
        }
    });
    // The address is not used: the connection is made.
    Endpoint::from_static("http://pcapfs")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(chunks::FRAME)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .keep_alive_while_idle(true)
        .connect_with_connector(connect)
        .await
        .map_err(|error| RemoteReason::Ended(error.to_string()))
}

/// A stream whose first bytes have been read already, and are read again.
#[derive(Debug)]
struct RewoundStream {
    first: Vec<u8>,
    /// How many of the first bytes have been read again.
    given: usize,
    stream: Box<TlsStream<TcpStream>>,
    /// Keeps its packets out of captures until it is closed.
    _exclusion: Option<Exclusion>,
}

impl RewoundStream {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TlsStream<TcpStream>> {
        Pin::new(self.get_mut().stream.as_mut())
    }
}

impl AsyncRead for RewoundStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = self.first.get(self.given..).unwrap_or_default();
        let size = rest.len().min(buffer.remaining());
        if let Some(bytes) = rest.get(..size).filter(|bytes| !bytes.is_empty()) {
            buffer.put_slice(bytes);
            self.given += size;
            return Poll::Ready(Ok(()));
        }
        self.stream().poll_read(context, buffer)
    }
}

impl AsyncWrite for RewoundStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
