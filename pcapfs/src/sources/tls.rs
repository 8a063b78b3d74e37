//! PCAP-over-IP through TLS: `tls:HOST:PORT` and `tls-listen:ADDR:PORT`.
//!
//! They are the sources `tcp:` and `tcp-listen:` of the crate `capture` with another transport. Both
//! sides show a certificate, as for the control service of another machine; a listening source looks
//! at the list of revoked ones at each handshake, and every second while packets come.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use capture::own_transport::OwnStream;
use capture::source::{
    Connecting, ExternalSource, HostAndPort, Incoming, ListenAddress, Listening, Source,
    SourceError, SourceOpener, SourceOptions, Transport,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::remote::identity;
use crate::remote::over_ip::{RECHECK, credentials, failed, still_trusted, trust};
use crate::remote::tls::{self, PeerTrust};

/// Prefixes of both sources, and the suffix with another identity than that of this machine.
const CONNECT: &str = "tls:";
const LISTEN: &str = "tls-listen:";
const IDENTITY: &str = ",identity=";

/// A source as it was written.
#[derive(Debug)]
struct TlsOpener {
    written: String,
    place: TlsPlace,
    /// Path of certificate and key.
    identity: PathBuf,
}

#[derive(Debug)]
enum TlsPlace {
    Connect(HostAndPort),
    Listen(ListenAddress),
}

/// Parses a source that connects.
///
/// # Errors
/// The mistake, for people.
pub(super) fn parse_connecting(text: &str) -> Result<ExternalSource, String> {
    let (place, identity) = parts(text, CONNECT);
    let place = HostAndPort::parse(place)
        .map_err(|why| format!("{text}: {why} (write {CONNECT}HOST:PORT)"))?;
    ServerName::try_from(place.host.as_str())
        .map_err(|_| format!("{text}: '{}' is in no certificate", place.host))?;
    Ok(opener(text, TlsPlace::Connect(place), identity))
}

/// Parses a source that listens.
///
/// # Errors
/// The mistake, for people.
pub(super) fn parse_listening(text: &str) -> Result<ExternalSource, String> {
    let (place, identity) = parts(text, LISTEN);
    let place = ListenAddress::parse(place)
        .map_err(|why| format!("{text}: {why} (write {LISTEN}ADDR:PORT)"))?;
    Ok(opener(text, TlsPlace::Listen(place), identity))
}

/// The place, and the path of the identity if one is written.
fn parts<'a>(text: &'a str, prefix: &str) -> (&'a str, Option<&'a Path>) {
    let rest = text.strip_prefix(prefix).unwrap_or(text);
    match rest.split_once(IDENTITY) {
        Some((place, identity)) => (place, Some(Path::new(identity))),
        None => (rest, None),
    }
}

fn opener(written: &str, place: TlsPlace, identity: Option<&Path>) -> ExternalSource {
    let identity = identity::directory(identity);
    ExternalSource::new(TlsOpener { written: written.to_owned(), place, identity })
}

impl TlsOpener {
    /// The certificate that peers see, and the peers that are believed.
    fn transport(&self) -> Result<Box<dyn Transport>, String> {
        let credentials = credentials(&self.identity)?;
        match &self.place {
            TlsPlace::Connect(place) => {
                let config = tls::client(&credentials, None, &[])
                    .map_err(|why| format!("{}: {why}", self.identity.display()))?;
                let server = ServerName::try_from(place.host.clone())
                    .map_err(|error| format!("{}: {error}", place.host))?;
                Ok(Box::new(ClientTransport { config, server }))
            }
            TlsPlace::Listen(_) => {
                let trust = trust(&self.identity);
                let config = tls::server(&credentials, trust.clone(), None, &[])
                    .map_err(|why| format!("{}: {why}", self.identity.display()))?;
                Ok(Box::new(ServerTransport { config, trust }))
            }
        }
    }
}

impl SourceOpener for TlsOpener {
    fn written(&self) -> &str {
        &self.written
    }

    fn default_alias(&self) -> String {
        match &self.place {
            TlsPlace::Connect(place) => format!("{}_{}", place.host, place.port),
            TlsPlace::Listen(place) => place.address.to_string().replace(['[', ']'], ""),
        }
    }

    fn open(&self, options: &SourceOptions<'_>) -> Result<Box<dyn Source>, SourceError> {
        let name = || self.written.split(IDENTITY).next().unwrap_or_default().to_owned();
        let transport = self.transport().map_err(|why| SourceError::Place { name: name(), why })?;
        Ok(match &self.place {
            TlsPlace::Connect(place) => {
                Box::new(Connecting::new(name(), place.clone(), transport, options)?)
            }
            TlsPlace::Listen(place) => Box::new(Listening::new(name(), place, transport, options)?),
        })
    }

    fn lack(&self) -> Option<String> {
        self.transport().err()
    }
}

/// Connects to a server that must have this name.
#[derive(Debug)]
struct ClientTransport {
    config: Arc<ClientConfig>,
    server: ServerName<'static>,
}

impl Transport for ClientTransport {
    fn begin(&self, stream: OwnStream) -> io::Result<Box<dyn Incoming>> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.server.clone());
        let connection = connection.map_err(|error| failed(&error))?;
        Ok(Box::new(TlsIncoming { stream, connection: connection.into(), peers: None }))
    }
}

/// Lets clients in that are believed.
#[derive(Debug)]
struct ServerTransport {
    config: Arc<ServerConfig>,
    trust: PeerTrust,
}

impl Transport for ServerTransport {
    fn begin(&self, stream: OwnStream) -> io::Result<Box<dyn Incoming>> {
        let connection = ServerConnection::new(Arc::clone(&self.config));
        let connection = connection.map_err(|error| failed(&error))?;
        let peers = Some((self.trust.clone(), Instant::now()));
        Ok(Box::new(TlsIncoming { stream, connection: connection.into(), peers }))
    }
}

/// A connection with TLS, from whose peer bytes come.
struct TlsIncoming {
    stream: OwnStream,
    connection: Connection,
    /// Who may go on, and when that was looked up; `None` for a peer to which this side connects.
    peers: Option<(PeerTrust, Instant)>,
}

impl fmt::Debug for TlsIncoming {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsIncoming").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl TlsIncoming {
    /// Sends what the handshake, or an alert, has to say. It is short, and the buffer of the socket
    /// is empty: nothing else is ever sent.
    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut &*self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                written => written?,
            };
        }
        Ok(())
    }

    /// Checks that the certificate of a peer has not been revoked since.
    fn recheck(&mut self) -> io::Result<()> {
        let Some((trust, at)) = &mut self.peers else { return Ok(()) };
        if at.elapsed() < RECHECK {
            return Ok(());
        }
        *at = Instant::now();
        match self.connection.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => still_trusted(trust, certificate),
            None => Ok(()),
        }
    }
}

impl Read for TlsIncoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recheck()?;
        loop {
            self.flush()?;
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(io::Error::new(error.kind(), "the connection was cut off"));
                }
                read => return read,
            }
            if self.connection.read_tls(&mut self.stream)? == 0 && self.connection.is_handshaking()
            {
                let why = "the far end closed the connection in the handshake of TLS";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            if let Err(error) = self.connection.process_new_packets() {
                // The peer gets the reason, if it is still there.
                let _ = self.flush();
                return Err(failed(&error));
            }
        }
    }
}

impl AsFd for TlsIncoming {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Incoming for TlsIncoming {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_keep_their_written_form() {
        for (text, alias, identity) in [
            ("tls:sensor:57012", "sensor_57012", identity::DEFAULT),
            ("tls:[::1]:5,identity=/etc/a,b.pem", "::1_5", "/etc/a,b.pem"),
        ] {
            let source = parse_connecting(text).unwrap();
            assert_eq!((source.written(), source.default_alias().as_str()), (text, alias));
            assert!(format!("{source:?}").contains(identity));
        }
        let text = "tls-listen:127.0.0.1:5,senders=3,identity=/i";
        let source = parse_listening(text).unwrap();
        assert_eq!((source.written(), source.default_alias().as_str()), (text, "127.0.0.1:5"));
        assert!(source.lack().unwrap().contains("/i"));
    }

    #[test]
    fn wrong_places_are_refused() {
        for text in ["tls:sensor", "tls:a_b c:5", "tls:-:5"] {
            assert!(parse_connecting(text).unwrap_err().starts_with(text), "{text}");
        }
        assert!(parse_listening("tls-listen:sensor:5").is_err());
    }
}
