//! The credentials of this side of a connection: a certificate with its key, and the certificate
//! authorities that it believes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::certificate::CertificateFacts;
use super::identity::{AUTHORITY, MACHINE, MACHINE_KEY};
use super::secret_file;

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = .path.display())]
pub(crate) struct CredentialsError {
    path: PathBuf,
    /// For people.
    why: String,
}

impl CredentialsError {
    fn new(path: &Path, why: impl ToString) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

/// A certificate, its key, and the authorities of the other side.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// The own certificate, then those between it and its authority, and the key.
    pub(super) own: Arc<CertifiedKey>,
    pub(super) authorities: Arc<RootCertStore>,
    facts: CertificateFacts,
}

impl Credentials {
    /// Of this machine, from a directory that `pcapfs identity init` has made.
    ///
    /// # Errors
    /// [`CredentialsError`], as for all functions here.
    pub(crate) fn of_directory(directory: &Path) -> Result<Self, CredentialsError> {
        let authority = directory.join(AUTHORITY);
        if !authority.exists() {
            let why = "there is no identity here (make one with: pcapfs identity init)";
            return Err(CredentialsError::new(directory, why));
        }
        Self::of_files(&directory.join(MACHINE), &directory.join(MACHINE_KEY), &authority)
    }

    /// From three files in PEM: certificates, the key, and the authorities of the other side.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub(crate) fn of_files(
        certificate: &Path,
        key: &Path,
        authority: &Path,
    ) -> Result<Self, CredentialsError> {
        let read = |path: &Path| {
            secret_file::read_public(path).map_err(|error| CredentialsError::new(path, error))
        };
        let chain = certificates(certificate, &read(certificate)?)?;
        let secret =
            secret_file::read_secret(key).map_err(|error| CredentialsError::new(key, error))?;
        let authorities = certificates(authority, &read(authority)?)?;
        Self::new(certificate, chain, private_key(key, &secret)?, authorities)
    }

    /// From a directory or one file, whichever it is.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub(crate) fn of_path(path: &Path) -> Result<Self, CredentialsError> {
        if path.is_dir() { Self::of_directory(path) } else { Self::of_file(path) }
    }

    /// From one file in PEM, as `pcapfs identity issue` makes it: certificate, key, and authority.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub(crate) fn of_file(path: &Path) -> Result<Self, CredentialsError> {
        let bytes = secret_file::read_secret(path).map_err(|error| {
            let is_missing = error.kind() == io::ErrorKind::NotFound;
            let advice = if is_missing {
                " (the other machine makes one with: pcapfs identity issue NAME)"
            } else {
                ""
            };
            CredentialsError::new(path, format!("{error}{advice}"))
        })?;
        let key = private_key(path, &bytes)?;
        let mut chain = certificates(path, &bytes)?;
        let others = chain.split_off(1);
        let mut authorities = Vec::new();
        for certificate in others {
            let facts = CertificateFacts::read(&certificate)
                .map_err(|why| CredentialsError::new(path, why))?;
            if facts.is_self_issued {
                authorities.push(certificate);
            } else {
                chain.push(certificate);
            }
        }
        Self::new(path, chain, key, authorities)
    }

    fn new(
        path: &Path,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CredentialsError> {
        let failure = |why: String| CredentialsError::new(path, why);
        let own = chain.first().ok_or_else(|| failure("no certificate in it".to_owned()))?;
        let facts = CertificateFacts::read(own).map_err(failure)?;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots
                .add(authority)
                .map_err(|error| failure(format!("its authority cannot be used: {error}")))?;
        }
        let own = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| failure(format!("certificate and key cannot be used: {error}")))?;
        Ok(Self { own: Arc::new(own), authorities: Arc::new(roots), facts })
    }

    /// The facts in the own certificate.
    pub(crate) const fn facts(&self) -> &CertificateFacts {
        &self.facts
    }
}

/// The certificates of a PEM file, at least one.
pub(super) fn certificates(
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| CredentialsError::new(path, format!("no PEM: {error}")))?;
    if found.is_empty() {
        return Err(CredentialsError::new(path, "no certificate in it (a PEM file is expected)"));
    }
    Ok(found)
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| CredentialsError::new(path, format!("no key in it: {error}")))
}
