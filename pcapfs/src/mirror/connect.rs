//! Reaches the daemon of a remote.

use tonic::transport::Channel;

use crate::remote::connect;

/// Checks that the remote is known, without connecting.
///
/// # Errors
/// The reason, for people.
pub(super) fn check(name: &str) -> Result<(), String> {
    connect::find(name).map(|_| ()).map_err(|error| error.to_string())
}

/// Connects to the daemon of a remote.
///
/// # Errors
/// The reason, for people.
pub(super) async fn channel(name: &str) -> Result<Channel, String> {
    let remote = connect::find(name).map_err(|error| error.to_string())?;
    connect::connect(&remote).await.map_err(|error| error.to_string())
}
