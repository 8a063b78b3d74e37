//! Reaches the daemon of a remote.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::control::chunks;

/// Begins the address of a daemon whose socket is on this machine, perhaps forwarded by ssh(1).
const UNIX: &str = "pcap+unix://";

/// Bytes that may be on their way: with 100 ms to the far machine, enough for 80 MB/s.
const WINDOW: u32 = 8 << 20;

/// A remote in `remotes.toml`.
#[derive(Clone, Debug, Deserialize)]
struct Remote {
    url: String,
}

/// Checks that the remote is known, without connecting.
///
/// # Errors
/// The reason, for people.
pub(super) fn check(name: &str) -> Result<(), String> {
    socket_of(name).map(|_| ())
}

/// Connects to the daemon of a remote.
///
/// # Errors
/// The reason, for people.
pub(super) async fn channel(name: &str) -> Result<Channel, String> {
    let path = socket_of(name)?;
    let why = |error: io::Error| format!("{}: {error}", path.display());
    let mut first = Some(UnixStream::connect(&path).await.map_err(why)?);
    let connect = service_fn(move |_: Uri| {
        let stream = first.take();
        // A second connection would be made after the first has ended, and then this one ends too.
        async move {
            stream.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
        }
    });
    Endpoint::from_static("http://pcapfs")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(chunks::FRAME)
        .connect_with_connector(connect)
        .await
        .map_err(|error| format!("no answer: {error}"))
}

/// The socket of a remote's daemon.
fn socket_of(name: &str) -> Result<PathBuf, String> {
    let remote =
        remotes().remove(name).ok_or_else(|| format!("no remote has this name: {name}"))?;
    let path = remote.url.strip_prefix(UNIX).filter(|path| path.starts_with('/'));
    path.map(PathBuf::from).ok_or_else(|| format!("{}: not an address of a remote", remote.url))
}

fn remotes() -> BTreeMap<String, Remote> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let user = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or(home);
    let mut all = BTreeMap::new();
    for directory in [Some(PathBuf::from("/etc")), user].into_iter().flatten() {
        let text = std::fs::read_to_string(directory.join("pcapfs/remotes.toml"));
        let found = toml::from_str::<BTreeMap<String, Remote>>(&text.unwrap_or_default());
        all.extend(found.unwrap_or_default());
    }
    all
}
