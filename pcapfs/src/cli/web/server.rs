//! The server: the state that all connections share, and the loop that accepts them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::access::{Access, Connected};
use super::answer::Handled;
use super::capture_watch::CaptureWatch;
use super::client_user::client_user;
use super::records::Records;
use super::report::Reporter;
use super::routes;
use super::slots::Slots;
use crate::cli::far_end;
use crate::cli::outlet::daemon::DaemonLink;
use crate::cli::outlet::tree::TreeReader;
use crate::cli::savefile::TransferSignals;
use crate::cli::serve::tls::{Acceptor, Guest};
use crate::output;
use crate::remote::certificate::{CertificateFacts, Fingerprint};

/// Connections at a time of clients that the kernel lets in: a browser opens six, and a page keeps
/// one.
const CONNECTIONS: usize = 512;

/// Connections at a time of all others, so that strangers keep none of the former out.
const OTHER_CONNECTIONS: usize = 128;

/// Event streams at a time: a page has one.
const EVENT_STREAMS: usize = 256;

/// Event streams at a time of one client.
const EVENT_STREAMS_OF_ONE: usize = 128;

/// Files at a time that are sent, with 256 KiB each in memory.
const FILES: usize = 128;

/// Files at a time that are sent to one client: a browser asks for six.
const FILES_OF_ONE: usize = 64;

/// The time in which the head of a request comes.
const HEAD: Duration = Duration::from_secs(20);

/// Bytes that a connection keeps of what comes, the head of a request, and of what is sent.
const MAX_BUFFERED: usize = 64 << 10;

/// The time in which open answers end after the order to end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The wait after no connection could be accepted, usually for want of descriptors.
const RESPITE: Duration = Duration::from_millis(200);

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) access: Access,
    pub(super) daemon: DaemonLink,
    pub(super) tree: TreeReader,
    pub(super) records: Arc<Records>,
    /// The captures, for event streams.
    pub(super) captures: CaptureWatch,
    /// Savefile streams that are open.
    pub(super) streams: Arc<Slots>,
    /// Event streams that are open.
    pub(super) event_streams: Arc<Slots>,
    /// Files of flows that are being sent.
    pub(super) files: Arc<Slots>,
    /// True once the server is to end.
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) reporter: Reporter,
    pub(super) tls: Option<ServerTls>,
    rooms: Rooms,
}

/// The connections that there may be.
#[derive(Debug)]
struct Rooms {
    own: Arc<Semaphore>,
    other: Arc<Semaphore>,
}

/// TLS, and the certificates that let a client in.
#[derive(Debug)]
pub(super) struct ServerTls {
    pub(super) acceptor: Acceptor,
    pub(super) clients: Vec<ClientName>,
}

/// A certificate that lets a client in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClientName {
    /// One that the own authority has issued for this name.
    Name(String),
    /// This one, of any issuer.
    Fingerprint(Fingerprint),
}

impl ServerTls {
    /// The name of a certificate that lets a client in.
    fn admitted(&self, guest: &Guest) -> Option<String> {
        let facts: CertificateFacts = guest.facts()?;
        let is_pinned = |client: &&ClientName| matches!(client, ClientName::Fingerprint(known) if *known == facts.fingerprint);
        let pinned = self.clients.iter().find(is_pinned);
        // A name counts only if the own authority vouches for it: a pinned certificate may be of
        // another.
        let named = |client: &ClientName| matches!(client, ClientName::Name(name) if facts.names.contains(name));
        (pinned.is_some() || self.clients.iter().any(named)).then(|| facts.name())
    }
}

impl Server {
    pub(super) fn new(
        access: Access,
        daemon: DaemonLink,
        streams: Arc<Slots>,
        stopping: watch::Receiver<bool>,
        reporter: Reporter,
        tls: Option<ServerTls>,
    ) -> Self {
        let rooms = Rooms {
            own: Arc::new(Semaphore::new(CONNECTIONS)),
            other: Arc::new(Semaphore::new(OTHER_CONNECTIONS)),
        };
        Self {
            access,
            daemon,
            tree: TreeReader::default(),
            records: Arc::default(),
            captures: CaptureWatch::default(),
            streams,
            event_streams: Slots::new(EVENT_STREAMS, EVENT_STREAMS_OF_ONE),
            files: Slots::new(FILES, FILES_OF_ONE),
            stopping,
            reporter,
            tls,
            rooms,
        }
    }

    /// Logs a browser in.
    pub(super) fn log_in(&self, connected: &Connected, head: &Parts, token: &str) -> Handled {
        let (cookie, next) = self.access.log_in(head, token)?;
        self.reporter.logged_in(connected.peer, next.as_deref());
        routes::logged_in(&cookie)
    }

    /// Serves connections until a signal comes, and then until their answers have ended.
    pub(super) async fn run(
        self: &Arc<Self>,
        listener: &TcpListener,
        signals: &mut TransferSignals,
        stop: &watch::Sender<bool>,
    ) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = signals.any() => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(Arc::clone(self).connection(stream, peer));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    output::say(format_args!("no client can be accepted: {error}"));
                    sleep(RESPITE).await;
                }
            }
        }
        // Fails only if there is no connection.
        let _ = stop.send(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        tokio::select! {
            () = ended => {}
            () = sleep(LAST_ANSWERS) => {}
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // A client that is refused here learns nothing but the end of its connection, as from a
        // closed port.
        let Ok((connected, _room)) = self.begin(&stream, peer) else { return };
        let Some(tls) = &self.tls else {
            Arc::clone(&self).serve(stream, connected).await;
            return;
        };
        match tls.acceptor.accept(stream).await {
            Ok((stream, guest)) => {
                let certificate = tls.admitted(&guest);
                let refused = async {
                    if certificate.is_some() {
                        guest.refused().await
                    } else {
                        std::future::pending().await
                    }
                };
                let connected = Connected { certificate: certificate.clone(), ..connected };
                tokio::select! {
                    () = Arc::clone(&self).serve(stream, connected) => {}
                    why = refused => output::say(format_args!("{peer}: {why}")),
                }
            }
            Err(why) => output::say(format_args!("{peer}: {why}")),
        }
    }

    /// Finds out whose connection it is, and takes one of those that there may be.
    fn begin(
        &self,
        stream: &TcpStream,
        peer: SocketAddr,
    ) -> io::Result<(Connected, OwnedSemaphorePermit)> {
        let local = stream.local_addr()?;
        let is_here = |place: SocketAddr| place.ip().to_canonical().is_loopback();
        // Only an address of loopback is certain to be on this machine.
        let is_local = is_here(peer) && is_here(local);
        let asked = is_local.then(|| client_user(peer, local)).transpose();
        let user = asked.unwrap_or_else(|error| {
            self.reporter.no_kernel(&error);
            None
        });
        let user = user.flatten();
        let is_own = user.is_some_and(|user| self.access.lets_in(user));
        let room = if is_own { &self.rooms.own } else { &self.rooms.other };
        let room = Arc::clone(room).try_acquire_owned().map_err(io::Error::other)?;
        stream.set_nodelay(true)?;
        far_end::notice_when_gone(stream)?;
        Ok((Connected { peer, user, certificate: None }, room))
    }

    /// Serves the requests of a connection, until it is closed or the server ends.
    async fn serve<S>(self: Arc<Self>, stream: S, connected: Connected)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connected = Arc::new(connected);
        let service = service_fn(|request| {
            routes::answer(Arc::clone(&self), Arc::clone(&connected), request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_BUFFERED)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let mut stopping = self.stopping.clone();
        // An error ends the connection; no client is left for a message.
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
