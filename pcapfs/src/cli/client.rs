//! Connects to a daemon, here or on another machine, and turns its refusals into messages.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use clap::Args;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status};
use tower::util::MapResponse;
use tower::{ServiceExt, service_fn};

use super::trees;
use crate::control;
use crate::control::chunks::{self, MessageParts};
use crate::control::messages::control_client::ControlClient;
use crate::failure::Failure;
use crate::memory;
use crate::remote::connect;
use crate::remote::error::RemoteError;
use crate::remote::remotes::{self, Remote};

/// Maximum number of bytes of an answer: the list of a thousand captures takes two million.
const MAX_ANSWER: usize = 64 << 20;

/// Bytes that may be on their way to this client: some chunks, so that the daemon need not wait for
/// a notice that one was read.
const WINDOW: u32 = 2 << 20;

/// The daemon to talk to.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct DaemonSocket {
    /// Socket of the daemon [env: PCAPFS_SOCKET] [default: /run/pcapfs/control.sock, or
    /// $XDG_RUNTIME_DIR/pcapfs/control.sock of a user's own daemon]
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,

    /// The machine of the daemon, as named before a colon; then the socket does not count.
    #[arg(skip)]
    pub(super) remote: Option<Remote>,
}

impl DaemonSocket {
    /// The daemon of a `[REMOTE:]NAME`, and the name there.
    ///
    /// # Errors
    /// There is no such remote.
    pub(super) fn of<'w>(&self, word: &'w str) -> Result<(Self, &'w str), Failure> {
        match remote_of(word) {
            Some((remote, name)) => {
                let remote = connect::find(remote).map_err(remote_failure)?;
                Ok((Self { socket: None, remote: Some(remote) }, name))
            }
            None => Ok((self.clone(), word)),
        }
    }

    /// The name of a capture there, as it is written here.
    pub(super) fn shown(&self, name: &str) -> String {
        self.remote
            .as_ref()
            .map_or_else(|| name.to_owned(), |remote| format!("{}:{name}", remote.name))
    }

    /// With the socket of the environment if none was typed. An empty variable counts as unset.
    pub(super) fn or_environment(mut self) -> Self {
        let set = || std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
        self.socket = self.socket.or_else(|| set().map(PathBuf::from));
        self
    }

    /// The path of the socket, for people and as a part of names.
    pub(super) fn shown_path(&self) -> String {
        self.path().display().to_string()
    }

    fn path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(control::client_path)
    }
}

/// Says where the socket of the control service is.
pub(super) const SOCKET_VARIABLE: &str = "PCAPFS_SOCKET";

/// A connected client.
pub(super) type Client = ControlClient<Channel>;

/// A client whose answers are handed over as they come, see [`chunks`].
pub(super) type Receiver = ControlClient<MapResponse<Channel, fn(Answer) -> Answer>>;

/// An answer of the daemon.
type Answer = http::Response<Body>;

/// Connects to the daemon, and runs `action` with the client.
pub(super) fn with<T, F: Future<Output = Result<T, Failure>>>(
    daemon: &DaemonSocket,
    action: impl FnOnce(Client) -> F,
) -> Result<T, Failure> {
    on_channel(daemon, |channel| action(client_on(channel)))
}

/// Like [`with`], to receive a savefile.
pub(super) fn receiving<T, F: Future<Output = Result<T, Failure>>>(
    daemon: &DaemonSocket,
    action: impl FnOnce(Receiver) -> F,
) -> Result<T, Failure> {
    memory::keep_freed();
    on_channel(daemon, |channel| action(receiver_on(channel)))
}

/// A client of its own connection in the current runtime, to receive a savefile.
pub(super) async fn receiver(daemon: &DaemonSocket) -> Result<Receiver, Failure> {
    channel(daemon).await.map(receiver_on)
}

/// A client that takes answers of any size that a daemon gives.
fn client_on(channel: Channel) -> Client {
    Client::new(channel).max_decoding_message_size(MAX_ANSWER)
}

/// A client that takes answers past the codec.
fn receiver_on(channel: Channel) -> Receiver {
    let past_the_codec: fn(Answer) -> Answer = |mut answer| {
        let body = std::mem::take(answer.body_mut());
        chunks::hand_over(answer.extensions_mut(), body);
        answer
    };
    Receiver::new(channel.map_response(past_the_codec))
}

/// The savefile in an answer.
pub(super) fn parts<T>(mut answer: Response<T>) -> MessageParts {
    MessageParts::new(chunks::handed(answer.extensions_mut()).unwrap_or_default())
}

fn on_channel<T, F: Future<Output = Result<T, Failure>>>(
    daemon: &DaemonSocket,
    action: impl FnOnce(Channel) -> F,
) -> Result<T, Failure> {
    run(async {
        let result = action(channel(daemon).await?).await;
        match result {
            Ok(done) => Ok(done),
            Err(failure) => Err(explained(daemon, failure).await),
        }
    })
}

/// Runs a task that talks to daemons.
///
/// # Errors
/// Those of the task, and of starting it.
pub(super) fn run<T>(task: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::System)?;
    let result = runtime.block_on(task);
    runtime.shutdown_background();
    result
}

/// Connects to a daemon, inside [`run`].
///
/// # Errors
/// Why it cannot be reached.
pub(super) async fn open(daemon: &DaemonSocket) -> Result<Client, Failure> {
    channel(daemon).await.map(client_on)
}

/// The meaning of a failure for a connection to this daemon.
pub(super) async fn explained(daemon: &DaemonSocket, failure: Failure) -> Failure {
    match (failure, &daemon.remote) {
        (Failure::Status(status), Some(remote)) => {
            remote_failure(connect::explain(remote, &status).await)
        }
        (Failure::Status(status), None) => local_failure(&status),
        (failure, _) => failure,
    }
}

fn remote_failure(error: RemoteError) -> Failure {
    Failure::Remote(Box::new(error))
}

async fn channel(daemon: &DaemonSocket) -> Result<Channel, Failure> {
    if let Some(remote) = &daemon.remote {
        return connect::connect(remote).await.map_err(remote_failure);
    }
    let path = daemon.path();
    // Before gRPC would report only that the transport had an error.
    let stream = UnixStream::connect(&path).await.map_err(|error| unreachable(&path, &error))?;
    connected(stream, path).await
}

async fn connected(stream: UnixStream, path: PathBuf) -> Result<Channel, Failure> {
    let mut first = Some(stream);
    let connect = service_fn(move |_: Uri| {
        let (stream, path) = (first.take(), path.clone());
        async move {
            let stream = match stream {
                Some(stream) => stream,
                None => UnixStream::connect(path).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The address is not used: there is one socket.
    Endpoint::from_static("http://pcapfs")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(chunks::FRAME)
        .connect_with_connector(connect)
        .await
        .map_err(|error| Failure::Unreachable(format!("no answer from the daemon: {error}")))
}

fn unreachable(path: &std::path::Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::Unreachable(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            let trees = trees::described();
            let trees = trees.map_or_else(String::new, |trees| format!("; mounted: {trees}"));
            return Failure::NoDaemon(format!(
                "{path}: no pcapfs listens there (start one with: pcapfs mount; or say where it is \
                 with --socket or $PCAPFS_SOCKET){trees}"
            ));
        }
        io::ErrorKind::PermissionDenied => format!(
            "{path}: permission denied: w on the socket, or x on a directory above it, is missing"
        ),
        _ => format!("{path}: {error}"),
    })
}

/// The failure for a status other than OK; [`explained`] says what it means.
pub(super) fn failure(status: Status) -> Failure {
    Failure::Status(Box::new(status))
}

/// The failure for a status of the daemon here.
fn local_failure(status: &Status) -> Failure {
    match status.code() {
        // The connection ended; the status is about the connection.
        Code::Unavailable | Code::Cancelled | Code::Unknown => {
            let why = status.message();
            Failure::Unreachable(format!("the daemon went away ({why})"))
        }
        // It may be a capture of another daemon.
        Code::NotFound => {
            let trees = trees::described().filter(|trees| trees.contains(", "));
            let trees = trees.map_or_else(String::new, |trees| format!("; mounted: {trees}"));
            Failure::Answer(format!("{}{trees}", status.message()))
        }
        _ => Failure::Answer(status.message().to_owned()),
    }
}

/// The remote and the rest of a `REMOTE:NAME`; `None` for what is not on another machine.
pub(super) fn remote_of(word: &str) -> Option<(&str, &str)> {
    let (remote, name) = word.split_once(':')?;
    // Other words before a colon begin a source, such as `nflog`.
    (!remote.is_empty() && !remotes::is_reserved(remote)).then_some((remote, name))
}
