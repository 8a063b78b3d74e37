//! TLS of PCAP-over-IP, for the sources that take packets and for `pcapfs serve`, which sends them:
//! whose certificates count, how long they do, and why a peer is refused.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::certificate::CertificateFacts;
use super::credentials::Credentials;
use super::identity;
use super::revocation::RevocationList;
use super::tls::{PeerTrust, TlsFailure};

/// The time between two looks at the list of revoked certificates.
pub(crate) const RECHECK: Duration = Duration::from_secs(1);

/// The certificate and key at a path, which is a directory or a file.
///
/// # Errors
/// Why they cannot be used, for people.
pub(crate) fn credentials(identity: &Path) -> Result<Credentials, String> {
    Credentials::of_path(identity).map_err(|error| error.to_string())
}

/// Which clients are let in: those of the authority of an identity, without the revoked ones.
pub(crate) fn trust(identity: &Path) -> PeerTrust {
    let list = identity.is_dir().then(|| identity.join(identity::REVOKED));
    PeerTrust {
        revoked: list.map(|list| Arc::new(RevocationList::new(list))),
        ..PeerTrust::default()
    }
}

/// Checks a certificate of an open connection again.
///
/// # Errors
/// Why it may not go on, for people.
pub(crate) fn still_trusted(trust: &PeerTrust, certificate: &[u8]) -> io::Result<()> {
    let facts = CertificateFacts::read(&certificate.into()).map_err(io::Error::other)?;
    match trust.check(&facts) {
        Ok(_) => Ok(()),
        Err(why) => Err(failed(&rustls::Error::InvalidCertificate(why))),
    }
}

/// An error of TLS, with a text for people.
pub(crate) fn failed(error: &rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, said(&TlsFailure::from(error)))
}

/// Why a peer of PCAP-over-IP is refused, or refuses, for people.
pub(crate) fn said(failure: &TlsFailure) -> String {
    const ISSUE: &str = "pcapfs identity issue";
    match failure {
        TlsFailure::WrongAuthority => {
            format!("the certificate of the peer is of another authority (one of ours: {ISSUE})")
        }
        TlsFailure::WrongName(names) => {
            let names = names.join(", ");
            format!("the certificate of the far end is not for this name (but for: {names})")
        }
        TlsFailure::Expired => "the certificate of the peer has expired".to_owned(),
        TlsFailure::NotYetValid => {
            "the certificate of the peer is not valid yet (is a clock wrong?)".to_owned()
        }
        TlsFailure::Revoked => "the certificate of the peer is revoked".to_owned(),
        TlsFailure::NoCertificate => "the peer shows no certificate".to_owned(),
        TlsFailure::OwnWrongAuthority => format!(
            "the peer does not know the authority of our certificate (get one there: {ISSUE})"
        ),
        TlsFailure::OwnExpired => "our certificate has expired, says the peer".to_owned(),
        TlsFailure::OwnRevoked => "our certificate is revoked, says the peer".to_owned(),
        TlsFailure::OwnRefused(why) => format!("the peer refuses our certificate: {why}"),
        TlsFailure::WrongVersion => "the peer does not speak TLS 1.3".to_owned(),
        TlsFailure::NotTls => {
            "the peer does not speak TLS (without TLS, a source is tcp: or tcp-listen:)".to_owned()
        }
        TlsFailure::Other(why) => format!("TLS failed: {why}"),
    }
}
