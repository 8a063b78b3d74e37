//! TLS for every connection that leaves this machine: which certificates are believed, and why one
//! is refused.
//!
//! Both sides show a certificate, only TLS 1.3 is spoken, and no session is resumed: a ticket would
//! let a client in again whose certificate has been revoked in the meantime. The configurations are
//! those of rustls, so a blocking thread uses them with [`rustls::StreamOwned`], and the service
//! with `tokio_rustls`.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, OnceLock};

use capture::clock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    Error, OtherError, PeerIncompatible, RootCertStore, ServerConfig, SignatureScheme,
};

use super::certificate::{CertificateFacts, Fingerprint};
use super::credentials::Credentials;
use super::revocation::RevocationList;

/// The application protocol of the control service: HTTP/2 (RFC 9113, 3.2).
pub(crate) const HTTP2: &[u8] = b"h2";

/// The peers that are let in, beside those with a certificate of the own authority.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerTrust {
    /// Certificates of any issuer.
    pub(crate) pinned: BTreeSet<Fingerprint>,
    /// Certificates that are refused, whoever has issued them.
    pub(crate) revoked: Option<Arc<RevocationList>>,
    /// Clients without a certificate are let in too: something else decides about them.
    pub(crate) takes_unnamed: bool,
}

impl PeerTrust {
    /// Checks a certificate against its dates, the pinned ones and the list of revoked ones.
    /// Returns whether it is pinned. Call it again while a connection lasts.
    ///
    /// # Errors
    /// The reason for a refusal.
    ///
    /// # Blocking
    /// See [`RevocationList::revoked`].
    pub(crate) fn check(&self, facts: &CertificateFacts) -> Result<bool, CertificateError> {
        let now = clock::now();
        if now > facts.not_after {
            return Err(CertificateError::Expired);
        }
        if now < facts.not_before {
            return Err(CertificateError::NotValidYet);
        }
        match self.revoked.as_ref().map(|list| list.revoked(&facts.fingerprint)) {
            None | Some(Ok(None)) => Ok(self.pinned.contains(&facts.fingerprint)),
            Some(Ok(Some(_))) => Err(CertificateError::Revoked),
            Some(Err(why)) => Err(CertificateError::Other(OtherError(Arc::new(io::Error::other(
                format!("the list of revoked certificates cannot be read: {why}"),
            ))))),
        }
    }
}

/// The certificate that a client has shown in one handshake, whether it is let in or not.
pub(crate) type SeenCertificate = OnceLock<CertificateFacts>;

/// The configuration of a side that accepts connections. With `seen`, it is for one connection, and
/// `seen` gets the certificate of its client.
///
/// # Errors
/// The authorities cannot be used; the reason is for people.
pub(crate) fn server(
    credentials: &Credentials,
    trust: PeerTrust,
    seen: Option<Arc<SeenCertificate>>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::clone(&credentials.authorities);
    let by_authority = verifier_of(roots, |roots| {
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()
    })?;
    let verifier = TrustedClients { by_authority, trust, seen, provider: Arc::clone(&provider) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(own(credentials));
    // A resumed session asks no verifier.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The configuration of a side that connects. With a pinned certificate, the other side must have
/// that one, and its names do not matter.
///
/// # Errors
/// There is no authority to believe, and no pinned certificate; the reason is for people.
pub(crate) fn client(
    credentials: &Credentials,
    pinned: Option<Fingerprint>,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::clone(&credentials.authorities);
    let by_authority = verifier_of(roots, |roots| {
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()
    })?;
    if by_authority.is_none() && pinned.is_none() {
        return Err("no certificate authority in it, and no certificate is pinned".to_owned());
    }
    let verifier = TrustedServer { by_authority, pinned, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(own(credentials));
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Shows the own certificate to each peer.
fn own(credentials: &Credentials) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(Arc::clone(&credentials.own)))
}

/// A verifier of these roots; `None` without roots, as with pinned certificates only.
fn verifier_of<V: ?Sized>(
    roots: Arc<RootCertStore>,
    make: impl FnOnce(Arc<RootCertStore>) -> Result<Arc<V>, rustls::server::VerifierBuilderError>,
) -> Result<Option<Arc<V>>, String> {
    if roots.is_empty() {
        return Ok(None);
    }
    make(roots).map(Some).map_err(|error| error.to_string())
}

/// Lets clients in whose certificate the own authority has issued, or that is pinned.
#[derive(Debug)]
struct TrustedClients {
    by_authority: Option<Arc<dyn ClientCertVerifier>>,
    trust: PeerTrust,
    seen: Option<Arc<SeenCertificate>>,
    provider: Arc<CryptoProvider>,
}

/// Believes a server whose certificate the authority has issued for its name, or that is pinned.
#[derive(Debug)]
struct TrustedServer {
    by_authority: Option<Arc<WebPkiServerVerifier>>,
    pinned: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

fn facts_of(certificate: &CertificateDer<'_>) -> Result<CertificateFacts, Error> {
    CertificateFacts::read(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// A certificate that has signed itself is of no authority. It can also be refused for what it says
/// about signing others, which tells nobody what is wrong.
fn of_no_authority(error: Error, facts: &CertificateFacts) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::Other(_)) if facts.is_self_issued => {
            Error::InvalidCertificate(CertificateError::UnknownIssuer)
        }
        error => error,
    }
}

/// The half of both verifiers that is the same: signatures are checked as rustls checks them.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("only TLS 1.3 is spoken".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ClientCertVerifier for TrustedClients {
    fn client_auth_mandatory(&self) -> bool {
        !self.trust.takes_unnamed
    }

    /// No hints: a client with a pinned certificate of another authority must send it too.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let facts = facts_of(certificate)?;
        if let Some(seen) = &self.seen {
            // A client shows one certificate.
            let _ = seen.set(facts.clone());
        }
        if self.trust.check(&facts)? {
            return Ok(ClientCertVerified::assertion());
        }
        match &self.by_authority {
            Some(verifier) => verifier
                .verify_client_cert(certificate, intermediates, now)
                .map_err(|error| of_no_authority(error, &facts)),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    signatures!();
}

impl ServerCertVerifier for TrustedServer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let facts = facts_of(certificate)?;
        if let Some(pinned) = self.pinned {
            if facts.fingerprint != pinned {
                return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
            }
            PeerTrust::default().check(&facts)?;
            return Ok(ServerCertVerified::assertion());
        }
        match &self.by_authority {
            Some(verifier) => {
                let verified =
                    verifier.verify_server_cert(certificate, intermediates, name, ocsp, now);
                verified.map_err(|error| of_no_authority(error, &facts))
            }
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    signatures!();
}

/// Why a handshake or a connection failed, if certificates or TLS were the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    /// The certificate of the other side is of an authority that is not believed here.
    WrongAuthority,
    /// The certificate of the other side has these names, and not the expected one.
    WrongName(Vec<String>),
    /// The certificate of the other side has expired.
    Expired,
    /// The certificate of the other side is not valid yet.
    NotYetValid,
    /// The certificate of the other side is revoked.
    Revoked,
    /// The other side sent no certificate.
    NoCertificate,
    /// The other side does not believe the own certificate.
    OwnWrongAuthority,
    /// The own certificate has expired, says the other side.
    OwnExpired,
    /// The own certificate is revoked, says the other side.
    OwnRevoked,
    /// The other side refuses the own certificate for another reason.
    OwnRefused(String),
    /// The other side speaks TLS, but not 1.3.
    WrongVersion,
    /// The other side does not speak TLS.
    NotTls,
    /// Something else, for people.
    Other(String),
}

impl TlsFailure {
    /// The failure of TLS in an error of a stream, if there is one.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?.downcast_ref::<Error>()?;
        Some(Self::from(inner))
    }
}

impl From<&Error> for TlsFailure {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(why) => match why {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                CertificateError::Revoked => Self::Revoked,
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Self::WrongAuthority
                }
                CertificateError::NotValidForNameContext { presented, .. } => {
                    Self::WrongName(presented.iter().map(|name| plain_name(name)).collect())
                }
                CertificateError::NotValidForName => Self::WrongName(Vec::new()),
                CertificateError::Other(OtherError(why)) => Self::Other(why.to_string()),
                _ => Self::Other(error.to_string()),
            },
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => Self::WrongVersion,
            Error::InvalidMessage(_) => Self::NotTls,
            Error::AlertReceived(alert) => match alert {
                AlertDescription::UnknownCA => Self::OwnWrongAuthority,
                AlertDescription::CertificateExpired => Self::OwnExpired,
                AlertDescription::CertificateRevoked => Self::OwnRevoked,
                AlertDescription::ProtocolVersion => Self::WrongVersion,
                AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRequired
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied => Self::OwnRefused(format!("{alert:?}")),
                _ => Self::Other(error.to_string()),
            },
            _ => Self::Other(error.to_string()),
        }
    }
}

/// A name that rustls has formatted for debugging, as in `DnsName("hall-a")`.
fn plain_name(presented: &str) -> String {
    let inside = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(presented).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests;
