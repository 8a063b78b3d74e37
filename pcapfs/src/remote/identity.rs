//! The directory of an identity: a certificate authority, the certificate of this machine, and the
//! lists of certificates that were issued and revoked.
//!
//! | file | readable by | what |
//! |---|---|---|
//! | `ca.pem` | all | the authority, which clients believe |
//! | `ca.key` | its owner | signs certificates; the daemon never opens it |
//! | `machine.pem` | all | the certificate of this machine |
//! | `machine.key` | its owner, the user of the service | the key of that certificate |
//! | `issued`, `revoked` | all | a line for each certificate, see [`revocation`](super::revocation) |
//!
//! No key is ever overwritten: a command that would have to do so says which file is in its way.

use std::io;
use std::path::{Path, PathBuf};

use capture::clock;
use nix::fcntl::{Flock, FlockArg};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, ServerName};
use time::{Duration, OffsetDateTime};

use super::certificate::{CertificateFacts, Fingerprint};
use super::credentials;
use super::revocation::{ListedCertificate, read_list, replace_list};
use super::secret_file::{self, PRIVATE, PUBLIC};
use crate::paths::prepare_identity_dir;
use crate::process;

/// The default directory.
pub(crate) const DEFAULT: &str = "/etc/pcapfs/identity";

/// The certificate of the authority.
pub(super) const AUTHORITY: &str = "ca.pem";

/// The certificate of this machine.
pub(super) const MACHINE: &str = "machine.pem";

/// The key of the certificate of this machine.
pub(super) const MACHINE_KEY: &str = "machine.key";

/// The list of revoked certificates.
pub(crate) const REVOKED: &str = "revoked";

const AUTHORITY_KEY: &str = "ca.key";

const ISSUED: &str = "issued";

const ISSUED_HEADING: &str = "Certificates of clients: SHA-256, end, name.";

const REVOKED_HEADING: &str = "Revoked certificates: SHA-256, time, name.";

/// Days for which an authority is valid: it is hard to replace.
const AUTHORITY_DAYS: u32 = 3650;

/// Days for which other certificates are valid by default.
pub(crate) const DEFAULT_DAYS: u32 = 730;

/// Advice for the time before the certificate of a machine expires.
pub(crate) const RENEWAL: &str = "move machine.pem and machine.key away, and make others with: pcapfs \
     identity init --name ...; then reload the daemon with SIGHUP";

/// How far the clock of another machine may be behind this one.
const CLOCKS_DIFFER: Duration = Duration::days(1);

/// Why an identity cannot be made, used or changed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = .path.display())]
pub(crate) struct IdentityError {
    path: PathBuf,
    /// For people.
    why: String,
}

/// A directory with an identity, or where one is to be.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    directory: PathBuf,
}

/// A certificate that was issued to a client.
#[derive(Debug)]
pub(crate) struct IssuedCertificate {
    /// Certificate, key and authority, in PEM: a secret.
    pub(crate) pem: String,
    pub(crate) facts: CertificateFacts,
    /// The number of other valid certificates of this name.
    pub(crate) others: usize,
}

/// The certificates of an identity.
#[derive(Debug)]
pub(crate) struct IdentityContents {
    pub(crate) authority: CertificateFacts,
    pub(crate) machine: CertificateFacts,
    pub(crate) issued: Vec<ListedCertificate>,
    pub(crate) revoked: Vec<ListedCertificate>,
}

impl Identity {
    pub(crate) const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn failure(&self, name: &str) -> impl Fn(io::Error) -> IdentityError {
        let path = self.path(name);
        move |error| IdentityError { path: path.clone(), why: error.to_string() }
    }

    fn refusal(&self, why: impl ToString) -> IdentityError {
        IdentityError { path: self.directory.clone(), why: why.to_string() }
    }

    /// Makes an authority, if there is none, and a certificate of this machine for these names and
    /// addresses, beside its own name and those of the loopback interface.
    ///
    /// # Errors
    /// If this machine has a certificate here; nothing has changed then. Errors of making files,
    /// after which those that were made are removed.
    pub(crate) fn create(&self, names: &[String], days: u32) -> Result<(), IdentityError> {
        prepare_identity_dir(&self.directory)
            .map_err(|error| IdentityError { path: self.directory.clone(), why: error })?;
        let lock = self.lock()?;
        let has = |name: &str| self.path(name).symlink_metadata().is_ok();
        for (name, other) in [(MACHINE, MACHINE_KEY), (MACHINE_KEY, MACHINE)] {
            if has(name) {
                return Err(self.refusal(format!(
                    "there is an identity, and no key is overwritten (see it with: pcapfs identity \
                     show; for a new certificate of this machine move {name} and {other} away, and \
                     try again)"
                )));
            }
        }
        let own = host_name();
        let mut made = Made { paths: Vec::new() };
        let (authority, issuer) = match (has(AUTHORITY), has(AUTHORITY_KEY)) {
            (true, true) => self.issuer()?,
            (false, false) => {
                let (pem, issuer) = new_authority(&own).map_err(|error| self.refusal(error))?;
                let key = issuer.key().serialize_pem();
                made.write(self.path(AUTHORITY_KEY), PRIVATE, &key)?;
                made.write(self.path(AUTHORITY), PUBLIC, &pem)?;
                (pem, issuer)
            }
            (has_certificate, _) => {
                let missing = if has_certificate { AUTHORITY_KEY } else { AUTHORITY };
                return Err(self.refusal(format!(
                    "{missing} is missing (put it back from a backup, or choose another --dir)"
                )));
            }
        };
        let mut all = vec![own.clone()];
        all.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        all.splice(0..0, names.iter().cloned());
        all.dedup_by(|one, other| one.eq_ignore_ascii_case(other));
        let (pem, key) = machine_certificate(&all, days, &issuer, &authority)
            .map_err(|error| self.refusal(error))?;
        made.write(self.path(MACHINE_KEY), PRIVATE, &key)?;
        secret_file::give_to_service(&self.path(MACHINE_KEY)).map_err(self.failure(MACHINE_KEY))?;
        made.write(self.path(MACHINE), PUBLIC, &pem)?;
        for (name, heading) in [(ISSUED, ISSUED_HEADING), (REVOKED, REVOKED_HEADING)] {
            if !has(name) {
                made.write(self.path(name), PUBLIC, &format!("# {heading}\n"))?;
            }
        }
        made.keep();
        drop(lock);
        Ok(())
    }

    /// Makes a certificate with its key for a client, and notes that it was issued.
    ///
    /// # Errors
    /// If there is no authority here, and errors of noting it.
    pub(crate) fn issue(&self, name: &str, days: u32) -> Result<IssuedCertificate, IdentityError> {
        if !is_client_name(name) {
            return Err(self.refusal(format!(
                "'{name}' is no name of a client: 1 to 64 of A-Z a-z 0-9 . _ - @, beginning with a \
                 letter or digit"
            )));
        }
        let _lock = self.lock()?;
        let (authority, issuer) = self.issuer()?;
        let make = || -> Result<(String, CertificateFacts), String> {
            let key = KeyPair::generate().map_err(|error| error.to_string())?;
            let mut params = leaf(name, &[], days, &authority)?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let made = params.signed_by(&key, &issuer).map_err(|error| error.to_string())?;
            let facts = CertificateFacts::read(made.der())?;
            Ok((format!("{}{}{authority}", made.pem(), key.serialize_pem()), facts))
        };
        let (pem, facts) = make().map_err(|error| self.refusal(error))?;
        let mut issued = read_list(&self.path(ISSUED)).map_err(self.failure(ISSUED))?;
        let revoked = self.revoked()?;
        let now = clock::now().to_rfc3339();
        let is_valid = |one: &&ListedCertificate| {
            one.name == name
                && one.time > now
                && !revoked.iter().any(|other| other.fingerprint == one.fingerprint)
        };
        let others = issued.iter().filter(is_valid).count();
        issued.push(ListedCertificate {
            fingerprint: facts.fingerprint,
            time: facts.not_after.to_rfc3339(),
            name: name.to_owned(),
        });
        replace_list(&self.path(ISSUED), ISSUED_HEADING, &issued).map_err(self.failure(ISSUED))?;
        Ok(IssuedCertificate { pem, facts, others })
    }

    /// Revokes all certificates that were issued to a client, or one certificate, also of another
    /// authority, by its SHA-256. Returns the number of certificates that were not revoked before.
    ///
    /// # Errors
    /// If none was issued to this name, and errors of changing the list.
    pub(crate) fn revoke(&self, name: &str) -> Result<usize, IdentityError> {
        let _lock = self.lock()?;
        let issued = read_list(&self.path(ISSUED)).map_err(self.failure(ISSUED))?;
        let mut revoked = self.revoked()?;
        let mut chosen: Vec<ListedCertificate> =
            issued.iter().filter(|one| one.name == name).cloned().collect();
        if let (true, Ok(fingerprint)) = (chosen.is_empty(), name.parse::<Fingerprint>()) {
            let known = issued.iter().find(|one| one.fingerprint == fingerprint);
            let name = known.map_or_else(|| "-".to_owned(), |one| one.name.clone());
            chosen.push(ListedCertificate { fingerprint, time: String::new(), name });
        }
        if chosen.is_empty() {
            let mut names: Vec<&str> = issued.iter().map(|one| one.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let have = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(self.refusal(format!(
                "no certificate was issued to '{name}' here (have: {have}; a certificate of \
                 another authority is revoked by its SHA-256)"
            )));
        }
        let time = clock::now().to_rfc3339();
        let before = revoked.len();
        for one in chosen {
            if !revoked.iter().any(|other| other.fingerprint == one.fingerprint) {
                revoked.push(ListedCertificate { time: time.clone(), ..one });
            }
        }
        replace_list(&self.path(REVOKED), REVOKED_HEADING, &revoked)
            .map_err(self.failure(REVOKED))?;
        Ok(revoked.len().saturating_sub(before))
    }

    /// The contents of the directory.
    ///
    /// # Errors
    /// If a file is missing or cannot be read.
    pub(crate) fn contents(&self) -> Result<IdentityContents, IdentityError> {
        if !self.path(AUTHORITY).exists() {
            return Err(self.refusal("no identity (make one with: pcapfs identity init)"));
        }
        Ok(IdentityContents {
            authority: self.facts(AUTHORITY)?.1,
            machine: self.facts(MACHINE)?.1,
            issued: read_list(&self.path(ISSUED)).map_err(self.failure(ISSUED))?,
            revoked: self.revoked()?,
        })
    }

    fn revoked(&self) -> Result<Vec<ListedCertificate>, IdentityError> {
        read_list(&self.path(REVOKED)).map_err(self.failure(REVOKED))
    }

    /// The first certificate of a file, as PEM and as facts.
    fn facts(&self, name: &str) -> Result<(String, CertificateFacts), IdentityError> {
        let path = self.path(name);
        let bytes = secret_file::read_public(&path).map_err(self.failure(name))?;
        let failure = |why: String| IdentityError { path: path.clone(), why };
        let found =
            credentials::certificates(&path, &bytes).map_err(|error| self.refusal(error))?;
        let first = found.first().ok_or_else(|| failure("no certificate".to_owned()))?;
        let facts = CertificateFacts::read(first).map_err(failure)?;
        Ok((String::from_utf8_lossy(&bytes).into_owned(), facts))
    }

    /// The authority: its certificate in PEM, and what signs in its name.
    fn issuer(&self) -> Result<(String, Issuer<'static, KeyPair>), IdentityError> {
        if !self.path(AUTHORITY).exists() {
            return Err(self.refusal("no identity (make one with: pcapfs identity init)"));
        }
        let (pem, facts) = self.facts(AUTHORITY)?;
        if let Some(warning) = facts.warning("the authority", "begin anew in another --dir")
            && facts.has_expired()
        {
            return Err(self.refusal(warning));
        }
        let secret = secret_file::read_secret(&self.path(AUTHORITY_KEY))
            .map_err(self.failure(AUTHORITY_KEY))?;
        let text = String::from_utf8_lossy(&secret);
        let key = KeyPair::from_pem(&text).map_err(|error| self.refusal(error))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| self.refusal(error))?;
        Ok((pem, issuer))
    }

    /// Keeps other commands out until it is dropped.
    fn lock(&self) -> Result<Flock<std::fs::File>, IdentityError> {
        let directory = std::fs::File::open(&self.directory).map_err(|error| {
            let is_missing = error.kind() == io::ErrorKind::NotFound;
            let advice =
                if is_missing { " (make an identity with: pcapfs identity init)" } else { "" };
            self.refusal(format!("{error}{advice}"))
        })?;
        Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, error)| self.refusal(error.desc()))
    }
}

/// Files that are removed again unless all of them could be made.
struct Made {
    paths: Vec<PathBuf>,
}

impl Made {
    fn write(&mut self, path: PathBuf, mode: u32, text: &str) -> Result<(), IdentityError> {
        let written = secret_file::write_new(&path, mode, text.as_bytes());
        written.map_err(|error| IdentityError { path: path.clone(), why: error.to_string() })?;
        self.paths.push(path);
        Ok(())
    }

    fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// True if a client can have this name: it is the name of a file too.
fn is_client_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte))
}

/// Checks names of a machine, which clients connect to: hosts and addresses.
///
/// # Errors
/// The first that is none, for people.
pub(crate) fn check_host_name(name: &str) -> Result<String, String> {
    ServerName::try_from(name)
        .map(|_| name.to_owned())
        .map_err(|_| format!("'{name}' is no name of a host and no address"))
}

/// The name of this machine.
fn host_name() -> String {
    let name = process::host_name().unwrap_or_default();
    check_host_name(&name).unwrap_or_else(|_| "localhost".to_owned())
}

/// A new authority: its certificate in PEM, and what signs in its name.
fn new_authority(host: &str) -> Result<(String, Issuer<'static, KeyPair>), String> {
    let text = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate().map_err(text)?;
    // Two authorities of one machine must not have the same name: a certificate of the other would
    // be refused for a wrong signature, which does not say what is wrong.
    let number = Fingerprint::of(key.public_key_raw()).to_string();
    let number = number.get(..8).unwrap_or_default();
    let mut params = dated(AUTHORITY_DAYS);
    params.distinguished_name.push(DnType::CommonName, format!("pcapfs {host} {number}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(text)?;
    Ok((certificate.pem(), Issuer::new(params, key)))
}

/// A certificate of this machine, and its key, in PEM. Other machines connect to it, and it
/// connects to machines of the same authority.
fn machine_certificate(
    names: &[String],
    days: u32,
    issuer: &Issuer<'static, KeyPair>,
    authority: &str,
) -> Result<(String, String), String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let name = names.first().map_or("localhost", String::as_str);
    let mut params = leaf(name, names, days, authority)?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let made = params.signed_by(&key, issuer).map_err(|error| error.to_string())?;
    Ok((made.pem(), key.serialize_pem()))
}

/// A certificate that signs no others, for `days`, but no longer than its authority's.
fn leaf(
    name: &str,
    alternatives: &[String],
    days: u32,
    authority: &str,
) -> Result<CertificateParams, String> {
    let mut params = dated(days);
    let named = CertificateParams::new(alternatives).map_err(|error| error.to_string())?;
    params.subject_alt_names = named.subject_alt_names;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    if let Ok(end) = end_of(authority) {
        params.not_after = params.not_after.min(end);
    }
    Ok(params)
}

/// The end of a certificate in PEM.
fn end_of(pem: &str) -> Result<OffsetDateTime, String> {
    use rustls::pki_types::pem::PemObject;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let end = CertificateFacts::read(&der)?.not_after.nanoseconds();
    OffsetDateTime::from_unix_timestamp_nanos(end.into()).map_err(|error| error.to_string())
}

/// Parameters of a certificate that is valid from now on, for `days`, without names.
fn dated(days: u32) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = now.saturating_sub(CLOCKS_DIFFER);
    params.not_after = now.saturating_add(Duration::days(days.into()));
    params
}

/// The directory of an option, or the default.
pub(crate) fn directory(given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| DEFAULT.into(), Path::to_owned)
}

#[cfg(test)]
mod tests;
