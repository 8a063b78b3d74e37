//! TLS for the clients of outlets: `pcapfs serve`, where both sides show a certificate, and
//! `pcapfs web`, where clients may log in without one. A certificate that is revoked while its client
//! is served ends that.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::failure::Failure;
use crate::remote::certificate::{CertificateFacts, Fingerprint};
use crate::remote::identity;
use crate::remote::over_ip::{RECHECK, credentials, said, still_trusted, trust};
use crate::remote::tls::{self, PeerTrust, TlsFailure};

/// The time for a handshake, which a client may use up without having to show anything.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Accepts clients with a certificate of the authority of an identity.
pub(in crate::cli) struct Acceptor {
    acceptor: TlsAcceptor,
    trust: PeerTrust,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Acceptor").field("trust", &self.trust).finish_non_exhaustive()
    }
}

/// A client that was let in.
#[derive(Debug)]
pub(in crate::cli) struct Guest {
    trust: PeerTrust,
    certificate: Vec<u8>,
}

impl Acceptor {
    /// For the identity at this path, or that of this machine.
    ///
    /// # Errors
    /// It cannot be used.
    pub(super) fn new(path: Option<&Path>) -> Result<Self, Failure> {
        let identity = identity::directory(path);
        let trust = trust(&identity);
        Self::with(&identity, trust)
    }

    /// For the identity at this path, or that of this machine. Clients with a certificate that is
    /// `pinned` are accepted too, and those without any.
    ///
    /// # Errors
    /// It cannot be used.
    pub(in crate::cli) fn taking_unnamed(
        path: Option<&Path>,
        pinned: BTreeSet<Fingerprint>,
    ) -> Result<Self, Failure> {
        let identity = identity::directory(path);
        let trust = PeerTrust { pinned, takes_unnamed: true, ..trust(&identity) };
        Self::with(&identity, trust)
    }

    fn with(identity: &Path, trust: PeerTrust) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::Answer(format!("--tls: {why}"));
        let credentials = credentials(identity).map_err(wrong)?;
        let config = tls::server(&credentials, trust.clone(), None, &[]).map_err(wrong)?;
        Ok(Self { acceptor: TlsAcceptor::from(config), trust })
    }

    /// Accepts a client, after its handshake.
    ///
    /// # Errors
    /// Why it is not let in, for people.
    pub(in crate::cli) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Guest), String> {
        let accepted = timeout(HANDSHAKE, self.acceptor.accept(stream)).await;
        let seconds = HANDSHAKE.as_secs();
        let accepted = accepted.map_err(|_| format!("no handshake of TLS within {seconds} s"))?;
        let stream = accepted.map_err(|error| {
            let failure = TlsFailure::of(&error);
            failure.map_or_else(|| error.to_string(), |failure| said(&failure))
        })?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(|shown| shown.to_vec()).unwrap_or_default();
        Ok((stream, Guest { trust: self.trust.clone(), certificate }))
    }
}

impl Guest {
    /// The facts of its certificate; `None` without one.
    pub(in crate::cli) fn facts(&self) -> Option<CertificateFacts> {
        CertificateFacts::read(&self.certificate.as_slice().into()).ok()
    }

    /// Waits until the client may not go on, and returns why. A client without a certificate always
    /// may.
    pub(in crate::cli) async fn refused(self) -> String {
        if self.certificate.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(RECHECK).await;
            if let Err(error) = still_trusted(&self.trust, &self.certificate) {
                return error.to_string();
            }
        }
    }
}
