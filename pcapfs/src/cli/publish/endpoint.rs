//! Endpoints of ZeroMQ: `tcp://HOST:PORT` and `ipc://PATH`, to bind to or to connect to.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use capture::source::HostAndPort;
use nix::sys::stat::{Mode, umask};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host};
use tokio::time::timeout;

use crate::cli::far_end;
use crate::failure::Failure;

/// The time for a connection to be made.
const CONNECTING: Duration = Duration::from_secs(10);

/// Advice to a user who would send packets over a network in the clear.
const OPEN: &str = "everybody on the way there could read it, and there is no CURVE here; use \
                    127.0.0.1 (and ssh -L) or ipc://, or add --insecure";

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A port; the host may be `*` to bind to.
    Tcp(HostAndPort, bool),
    Ipc(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(place, _) if place.host.contains(':') => {
                write!(formatter, "tcp://[{}]:{}", place.host, place.port)
            }
            Self::Tcp(place, _) => write!(formatter, "tcp://{}:{}", place.host, place.port),
            Self::Ipc(path) => write!(formatter, "ipc://{}", path.display()),
        }
    }
}

/// A connection to a peer.
pub(super) trait PeerStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl PeerStream for TcpStream {}
impl PeerStream for UnixStream {}

/// A connection, and the name of the peer for people.
pub(super) struct PeerConnection {
    pub(super) stream: Box<dyn PeerStream>,
    pub(super) name: String,
    /// Addresses of this end and of the other, over TCP.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
}

impl Endpoint {
    /// Reads an endpoint. `is_bound` says that peers connect to it.
    ///
    /// # Errors
    /// It is none, or a host is missing to connect to.
    pub(super) fn read(text: &str, is_bound: bool) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text}: {why}");
        if let Some(path) = text.strip_prefix("ipc://") {
            if path.is_empty() || path.starts_with('@') {
                return Err(wrong("write ipc://PATH, with the path of a socket"));
            }
            return Ok(Self::Ipc(path.into()));
        }
        let Some(place) = text.strip_prefix("tcp://") else {
            return Err(wrong("write tcp://HOST:PORT, ipc://PATH or nats://HOST"));
        };
        let is_any = place.starts_with("*:");
        if is_any && !is_bound {
            return Err(wrong("a host is missing to connect to"));
        }
        let place = if is_any { place.replacen('*', "0.0.0.0", 1) } else { place.to_owned() };
        // Any free port, as ZeroMQ writes it.
        let free = place.strip_suffix(":*").or_else(|| place.strip_suffix(":0"));
        let parsed = match free.filter(|_| is_bound) {
            Some(host) => HostAndPort::parse(&format!("{host}:1"))
                .map(|place| HostAndPort { port: 0, ..place }),
            None => HostAndPort::parse(&place),
        };
        parsed.map(|place| Self::Tcp(place, is_bound)).map_err(|why| wrong(&why))
    }

    /// Checks that no other machine can read the messages, unless the user takes that.
    ///
    /// # Errors
    /// Other machines are on the way.
    pub(super) fn check_privacy(&self, is_insecure: bool) -> Result<(), Failure> {
        let is_private = match self {
            Self::Ipc(_) => true,
            Self::Tcp(place, _) => {
                place.local_address().is_some_and(|address| address.ip().is_loopback())
            }
        };
        if is_private || is_insecure {
            return Ok(());
        }
        Err(Failure::Argument(format!("{self}: {OPEN}")))
    }

    /// Connects to it.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn connect(&self) -> io::Result<PeerConnection> {
        match self {
            Self::Ipc(path) => {
                let stream = Box::new(UnixStream::connect(path).await?);
                Ok(PeerConnection { stream, name: self.to_string(), addresses: None })
            }
            Self::Tcp(place, _) => {
                let connect = async {
                    let found = lookup_host((place.host.as_str(), place.port)).await?;
                    TcpStream::connect(&found.collect::<Vec<_>>()[..]).await
                };
                let stream = timeout(CONNECTING, connect).await.map_err(|_| {
                    let seconds = CONNECTING.as_secs();
                    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {seconds} s"))
                })??;
                of_tcp(stream)
            }
        }
    }

    /// Listens at it. `mode` are the permission bits of a socket of `ipc://`.
    ///
    /// # Errors
    /// Why that is not possible.
    pub(super) async fn bind(&self, mode: u32) -> Result<BoundEndpoint, Failure> {
        let failure = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => " (another program listens there)",
                io::ErrorKind::AddrNotAvailable => " (no interface has it; see: ip address)",
                io::ErrorKind::PermissionDenied if matches!(self, Self::Tcp(..)) => {
                    " (ports below 1024 are for root)"
                }
                _ => "",
            };
            Failure::Answer(format!("{self}: {error}{advice}"))
        };
        match self {
            Self::Tcp(place, _) => {
                let bound = TcpListener::bind((place.host.as_str(), place.port)).await;
                Ok(BoundEndpoint::Tcp(bound.map_err(failure)?))
            }
            Self::Ipc(path) => {
                remove_stale(path).map_err(failure)?;
                // No one else connects before it has the bits that were asked for.
                let before = umask(Mode::S_IRWXG | Mode::S_IRWXO);
                let bound = UnixListener::bind(path);
                umask(before);
                let socket = IpcSocket { listener: bound.map_err(failure)?, path: path.clone() };
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failure)?;
                Ok(BoundEndpoint::Ipc(socket))
            }
        }
    }
}

/// Removes a socket without a listener, which an earlier process has left.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        // Another kind of file is an error of bind(2).
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

fn of_tcp(stream: TcpStream) -> io::Result<PeerConnection> {
    stream.set_nodelay(true)?;
    far_end::notice_when_gone(&stream)?;
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    // An IPv4 peer of an IPv6 socket is still shown as what it is.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let name = format!("tcp://{peer}");
    Ok(PeerConnection { stream: Box::new(stream), name, addresses: Some((local, peer)) })
}

/// A socket of `ipc://`, removed when it is dropped.
#[derive(Debug)]
pub(super) struct IpcSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for IpcSocket {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.path);
    }
}

/// An endpoint at which peers connect.
#[derive(Debug)]
pub(super) enum BoundEndpoint {
    Tcp(TcpListener),
    Ipc(IpcSocket),
}

impl BoundEndpoint {
    /// The address of a TCP port.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Ipc(_) => None,
        }
    }

    /// As it is written, with the port that was chosen.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Tcp(_) => self.address().map_or_else(String::new, |at| format!("tcp://{at}")),
            Self::Ipc(socket) => format!("ipc://{}", socket.path.display()),
        }
    }

    /// The next peer.
    ///
    /// # Errors
    /// Those of accept(2).
    pub(super) async fn accept(&self) -> io::Result<PeerConnection> {
        match self {
            Self::Tcp(listener) => of_tcp(listener.accept().await?.0),
            Self::Ipc(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
                let name = process.map_or_else(
                    || format!("ipc://{}", socket.path.display()),
                    |process| format!("process {process}"),
                );
                Ok(PeerConnection { stream: Box::new(stream), name, addresses: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        let shown =
            |text: &str, is_bound| Endpoint::read(text, is_bound).map(|end| end.to_string());
        for text in ["tcp://127.0.0.1:5555", "tcp://[::1]:5555", "ipc:///run/x.sock", "ipc://x"] {
            assert_eq!(shown(text, true).as_deref(), Ok(text));
            assert_eq!(shown(text, false).as_deref(), Ok(text));
        }
        assert_eq!(shown("tcp://*:5555", true).unwrap(), "tcp://0.0.0.0:5555");
        assert_eq!(shown("tcp://127.0.0.1:*", true).unwrap(), "tcp://127.0.0.1:0");
        for text in [
            "tcp://*:5555",
            "tcp://host",
            "tcp://host:0",
            "udp://host:1",
            "ipc://",
            "ipc://@x",
            "host:1",
        ] {
            assert!(Endpoint::read(text, false).is_err(), "{text}");
        }
        let private = |text: &str| Endpoint::read(text, true).unwrap().check_privacy(false).is_ok();
        assert!(private("tcp://127.0.0.1:1") && private("tcp://[::1]:1") && private("ipc:///x"));
        assert!(!private("tcp://*:1") && !private("tcp://10.0.0.1:1"));
    }
}
