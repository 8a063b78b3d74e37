//! TLS to a server of NATS: which certificates are believed, and why one is refused.
//!
//! The server says in the clear who it is, then TLS begins. What it says in TLS counts.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::remote::read_secret;

/// The variable of OpenSSL that names the file of the authorities, see SSL_CTX_load_verify_locations(3).
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// Where systems have the authorities that they believe: Debian, Fedora, Alpine.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The files of the options.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsFiles {
    /// Authorities of the server, instead of those of the system.
    pub(super) authorities: Option<PathBuf>,
    /// The own certificate and its key.
    pub(super) own: Option<(PathBuf, PathBuf)>,
}

/// The configuration of a client with these files.
///
/// # Errors
/// A file cannot be used; the reason is for people.
pub(super) fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(authorities(files.authorities.as_deref())?);
    let Some((certificate, key)) = &files.own else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let secret = read_secret(key).map_err(|error| format!("{}: {error}", key.display()))?;
    let secret = PrivateKeyDer::from_pem_slice(&secret)
        .map_err(|_| format!("{}: no key in PEM", key.display()))?;
    let chain = certificates(certificate)?;
    let config = builder.with_client_auth_cert(chain, secret);
    config.map(Arc::new).map_err(|error| format!("{}: {error}", certificate.display()))
}

/// Begins TLS with a server of this name or address.
///
/// # Errors
/// The reason, for people.
pub(super) async fn secured(
    stream: TcpStream,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let has_certificate = config.client_auth_cert_resolver.has_certs();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("'{host}' is no name that a certificate can have"))?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| explained(&error, has_certificate))
}

/// The meaning of an error of a connection, for people.
pub(super) fn explained(error: &io::Error, has_certificate: bool) -> String {
    let failure = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match failure {
        Some(Error::InvalidCertificate(why)) => match why {
            CertificateError::UnknownIssuer => {
                "its certificate is of an authority that is not believed here (name a file with the \
                 authority with --nats-ca)"
                    .to_owned()
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                format!("its certificate is not for this name, but for {}", presented.join(", "))
            }
            CertificateError::NotValidForName => {
                "its certificate is not for this name".to_owned()
            }
            why => format!("its certificate is refused: {why}"),
        },
        Some(Error::AlertReceived(alert)) if is_about_certificate(*alert) => {
            if has_certificate {
                format!("it refuses the certificate of --nats-cert ({alert:?})")
            } else {
                "it wants a certificate (name one with --nats-cert and --nats-key)".to_owned()
            }
        }
        _ => error.to_string(),
    }
}

/// True for the alerts of a server that lets a certificate not in (RFC 8446, 6.2). Older ones have
/// no alert of their own for a missing one.
const fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
    )
}

fn authorities(path: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if let Some(path) = path {
        for certificate in certificates(path)? {
            store.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        return Ok(store);
    }
    let named = env::var_os(BUNDLE_VARIABLE).map(PathBuf::from);
    let bundle =
        named.or_else(|| BUNDLES.map(PathBuf::from).into_iter().find(|path| path.exists()));
    let bundle = bundle.ok_or(
        "this system has no list of authorities (install ca-certificates, or use --nats-ca)",
    )?;
    // Such a list may have certificates that are too old to be used.
    store.add_parsable_certificates(certificates(&bundle)?);
    Ok(store)
}

/// The certificates of a file in PEM.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failure = |why: String| format!("{}: {why}", path.display());
    let bytes = std::fs::read(path).map_err(|error| failure(error.to_string()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|_| failure("no certificates in PEM".to_owned()))?;
    if certificates.is_empty() {
        return Err(failure("no certificate in it".to_owned()));
    }
    Ok(certificates)
}
