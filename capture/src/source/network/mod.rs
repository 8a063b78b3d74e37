//! PCAP-over-IP: savefiles that arrive over TCP, from a machine that this one connects to, or from
//! machines that connect to this one.
//!
//! A peer may be anyone: it may send nothing, half a record, nonsense or a record of 4 GiB, and it
//! may vanish without a word. Its bytes go through [`Arriving`](super::arriving::Arriving), whose
//! memory is bounded, and no wait for it outlasts an order of the capture.
//!
//! The program may bring a [`Transport`], such as TLS, and give its sources another prefix.

mod connect;
mod listen;
mod lookup;
mod place;
mod socket;
mod transport;

use super::{SourceError, SourceOptions};

pub use connect::Connecting;
pub use listen::Listening;
pub use place::{HostAndPort, ListenAddress};
pub use transport::{Incoming, Transport};

/// The prefixes of the sources without TLS.
pub(super) const TCP: &str = "tcp:";
pub(super) const TCP_LISTEN: &str = "tcp-listen:";

/// The far end of a source that is written `tcp:` and this text.
///
/// # Errors
/// [`SourceError::Place`].
pub(super) fn far_end(text: &str) -> Result<HostAndPort, SourceError> {
    HostAndPort::parse(text).map_err(|why| SourceError::Place {
        name: format!("{TCP}{text}"),
        why: format!("{why} (write {TCP}HOST:PORT, as in {TCP}sensor:57012)"),
    })
}

/// The address of a source that is written `tcp-listen:` and this text.
///
/// # Errors
/// [`SourceError::Place`].
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, SourceError> {
    ListenAddress::parse(text).map_err(|why| SourceError::Place {
        name: format!("{TCP_LISTEN}{text}"),
        why: format!("{why} (write {TCP_LISTEN}ADDR:PORT, as in {TCP_LISTEN}127.0.0.1:57012)"),
    })
}

/// A source that connects without TLS.
///
/// # Errors
/// [`SourceError::Place`] and those of [`Connecting::new`].
pub(super) fn connecting(
    text: &str,
    options: &SourceOptions<'_>,
) -> Result<Connecting, SourceError> {
    Connecting::new(format!("{TCP}{text}"), far_end(text)?, Box::new(transport::Plain), options)
}

/// A source that listens without TLS.
///
/// # Errors
/// [`SourceError::Place`] and those of [`Listening::new`].
pub(super) fn listening(text: &str, options: &SourceOptions<'_>) -> Result<Listening, SourceError> {
    let (name, address) = (format!("{TCP_LISTEN}{text}"), listen_address(text)?);
    Listening::new(name, &address, Box::new(transport::Plain), options)
}
