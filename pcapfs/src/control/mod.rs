//! The control service: gRPC on a UNIX socket, and over TLS for other machines.
//!
//! ```text
//!   client ── socket ───────────────────▶ connections ──▶ service ──▶ registry ──▶ the tree
//!   client ── TLS ──▶ remote_accept ────▶ (how many)      (whether)   (what)
//!                     (remote_access: who)                   │
//!                                                         streams ◀── a byte ── bells of the captures
//! ```
//!
//! All asynchronous code of the daemon is here, on one thread. Packets do not pass through it: a
//! stream of savefile bytes is a reader of the tree like any other, and a byte in a socket wakes
//! it, so that the threads that capture never touch the runtime.
//!
//! Everything that a client can make grow is bounded: connections ([`connections`]), the size of a
//! request, streams per connection, and the bytes held for a client that does not read. For each
//! stream, these bytes are: one chunk, the window that HTTP/2 fills before it waits, and the
//! socket's buffers.

pub(crate) mod chunks;
mod connections;
mod exclude;
mod flow_packets;
mod follow;
mod outgoing;
mod peer;
mod proto;
mod remote_accept;
mod remote_access;
mod service;
mod socket;
mod streams;
mod transport;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use capture::own_transport::OwnListener;
use http::HeaderValue;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tonic::body::Body;
use tonic::transport::Server;
use tower::util::MapResponseLayer;

pub(crate) use proto::pcapfs::control::v1 as messages;
pub(crate) use remote_access::RemoteAccess;
pub(crate) use socket::{Socket, SocketError, client_path, daemon_path};

use crate::output::say;
use crate::registry::Registry;
use messages::control_server::ControlServer;
use outgoing::Outgoing;
use service::Service;

/// Bytes of the largest request: a filter expression and two names.
const MAX_REQUEST: usize = 64 << 10;

/// Bytes of the largest list of headers.
const MAX_HEADERS: u32 = 16 << 10;

/// Maximum number of requests under way on one connection; a program hardly has two.
const MAX_STREAMS: u32 = 16;

/// Threads for blocking work: opening and stopping captures.
const BLOCKING_THREADS: usize = 2;

/// Bytes of one request, and of all requests of a connection, that a client on another machine may
/// send before they are read.
const REMOTE_WINDOW: u32 = 64 << 10;
const REMOTE_CONNECTION_WINDOW: u32 = 256 << 10;

/// Interval at which a client on another machine is asked whether it is still there, and the time
/// for its answer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);

/// The header of each answer with the version of the daemon.
pub(crate) const VERSION_HEADER: &str = "pcapfs-version";

/// Descriptors that are kept for the service until a client connects: eight for the runtime and the
/// sockets that wake its streams, and a few for connections. Without them, the service would fail
/// or panic at the first client, long after the daemon reported that it is ready.
const DESCRIPTORS: usize = 12;

/// The name of a state, as in `status.json`; `None` for one that this version does not know.
pub(crate) const fn state_name(state: messages::State) -> Option<&'static str> {
    Some(match state {
        messages::State::Unspecified => return None,
        messages::State::Pending => "pending",
        messages::State::Running => "running",
        messages::State::Retrying => "retrying",
        messages::State::Stopped => "stopped",
        messages::State::Ended => "ended",
        messages::State::Failed => "failed",
    })
}

/// A running service.
#[derive(Debug)]
pub(crate) struct ControlService {
    end: oneshot::Sender<()>,
    /// Closed at the end, for a service that no client has used yet.
    first: UnixStream,
    thread: JoinHandle<()>,
    _socket: Socket,
}

/// A service that is about to end.
#[derive(Debug)]
pub(crate) struct Ending {
    thread: JoinHandle<()>,
    /// Removes the socket on drop.
    _socket: Socket,
}

impl ControlService {
    /// Serves `registry` from a thread of its own: at `socket`, and for other machines at `remote`.
    ///
    /// # Errors
    /// Errors of starting a thread, and of reserving descriptors.
    pub(crate) fn start(
        mut socket: Socket,
        remote: Option<RemoteListener>,
        registry: Arc<Registry>,
    ) -> io::Result<Self> {
        let listeners = Listeners { local: socket.take_listener()?, remote };
        let (end, ended) = oneshot::channel();
        let (first, closed) = UnixStream::pair()?;
        let kept: Vec<_> =
            (0..DESCRIPTORS).map(|_| closed.try_clone()).collect::<Result<_, _>>()?;
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
            if !listeners.is_wanted(&closed) {
                return;
            }
            drop(kept);
            if let Err(error) = serve(listeners, registry, ended) {
                say(format_args!("the control service has ended: {error}"));
            }
        })?;
        Ok(Self { end, first, thread, _socket: socket })
    }

    /// Ends the service: streams whose captures have stopped get the stored packets.
    pub(crate) fn end(self) -> Ending {
        let Self { end, first, thread, _socket } = self;
        // The service has no receiver any more if it has ended by itself.
        let _ = end.send(());
        drop(first);
        Ending { thread, _socket }
    }
}

impl Ending {
    /// True if all clients have disconnected. The others are cut off when the process ends.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

/// The address at which other machines connect, and the clients that may.
#[derive(Debug)]
pub(crate) struct RemoteListener {
    listener: OwnListener,
    access: Arc<RemoteAccess>,
}

impl RemoteListener {
    /// Listens at the address of the configuration.
    ///
    /// # Errors
    /// Errors of bind(2) and listen(2).
    pub(crate) fn bind(access: Arc<RemoteAccess>) -> io::Result<Self> {
        let listener = OwnListener::bind(access.listen())?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, access })
    }
}

/// What the service listens to.
struct Listeners {
    local: UnixListener,
    remote: Option<RemoteListener>,
}

impl Listeners {
    /// Waits until a client connects, and returns whether that came before the end. Until then
    /// there is no runtime, so a daemon without clients saves nearly a megabyte.
    fn is_wanted(&self, closed: &UnixStream) -> bool {
        let remote = self.remote.as_ref().map(|remote| remote.listener.as_fd());
        let listeners = std::iter::once(self.local.as_fd()).chain(remote);
        let mut fds: Vec<PollFd<'_>> = std::iter::once(closed.as_fd())
            .chain(listeners)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => return !fds.iter().take(1).any(|fd| fd.any().unwrap_or(false)),
                Err(Errno::EINTR) => {}
                Err(_) => return true,
            }
        }
    }
}

/// An answer with the body that was handed over with it, if there is one, and with the version.
fn past_the_codec(mut answer: http::Response<Body>) -> http::Response<Body> {
    let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    answer.headers_mut().insert(VERSION_HEADER, version);
    if let Some(body) = chunks::handed(answer.extensions_mut()) {
        *answer.body_mut() = body;
    } else if let Some(outgoing) = answer.extensions_mut().remove::<Outgoing>() {
        let body = std::mem::take(answer.body_mut());
        *answer.body_mut() = outgoing.bound(body);
    }
    answer
}

/// The service, from the first connection to the end.
fn serve(
    listeners: Listeners,
    registry: Arc<Registry>,
    ended: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("control-work")
        .build()?;
    let result = runtime.block_on(async {
        let local = connections::accept(listeners.local)?;
        let service =
            ControlServer::new(Service::new(registry)?).max_decoding_message_size(MAX_REQUEST);
        let (sender, stopped) = watch::channel(());
        let local = server()
            .layer(MapResponseLayer::new(past_the_codec))
            .add_service(service.clone())
            .serve_with_incoming_shutdown(local, until_closed(stopped.clone()));
        let remote = async {
            let Some(RemoteListener { listener, access }) = listeners.remote else {
                return Ok(());
            };
            let remote = remote_accept::accept(listener, access)?;
            server()
                .initial_stream_window_size(REMOTE_WINDOW)
                .initial_connection_window_size(REMOTE_CONNECTION_WINDOW)
                .http2_keepalive_interval(Some(KEEP_ALIVE))
                .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER))
                .layer(MapResponseLayer::new(past_the_codec))
                .add_service(service)
                .serve_with_incoming_shutdown(remote, until_closed(stopped))
                .await
                .map_err(io::Error::other)
        };
        let end = async {
            // An error is the end as well.
            let _ = ended.await;
            drop(sender);
        };
        let (local, remote, ()) = tokio::join!(local, remote, end);
        local.map_err(io::Error::other).and(remote)
    });
    runtime.shutdown_background();
    result
}

/// The parts that are the same for local clients and those of other machines.
fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .max_frame_size(chunks::FRAME)
}

/// Waits until the sender is dropped.
async fn until_closed(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}
