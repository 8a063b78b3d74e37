//! Who may connect from other machines: the certificates that are let in, and the users that they
//! stand for.
//!
//! A certificate gives no right of its own. It names a user of this machine, and the permission bits
//! of the tree decide what that user may do.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::{User, getgrouplist};
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;

use crate::config::remote::{ClientChoice, RemoteSettings};
use crate::fs::access::Caller;
use crate::fs::{CertificateStatus, RemoteReporter, RemoteStatus};
use crate::output::say;
use crate::remote::certificate::{CertificateFacts, printable};
use crate::remote::credentials::Credentials;
use crate::remote::identity::{self, RENEWAL};
use crate::remote::revocation::RevocationList;
use crate::remote::tls::{self, HTTP2, PeerTrust, SeenCertificate, TlsFailure};

/// The rules, and the numbers that status shows.
#[derive(Debug)]
pub(crate) struct RemoteAccess {
    /// As the configuration has it.
    listen: std::net::SocketAddr,
    rules: RwLock<AccessRules>,
    counters: RemoteCounters,
    /// The day on which the end of the certificate was said last, in days since 1970.
    warned: Mutex<Option<u64>>,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct RemoteCounters {
    /// Connections that are open.
    pub(super) open: AtomicU64,
    /// Connections that were let in.
    pub(super) accepted: AtomicU64,
    /// Connections that were refused: no valid certificate, no TLS, or no answer in time.
    pub(super) refused: AtomicU64,
    /// Connections that were closed unseen, since there were too many.
    pub(super) too_many: AtomicU64,
}

#[derive(Debug)]
struct AccessRules {
    credentials: Arc<Credentials>,
    trust: PeerTrust,
    settings: RemoteSettings,
}

/// The user that a certificate maps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MappedUser {
    pub(super) name: String,
    pub(super) caller: Caller,
}

impl AccessRules {
    fn load(settings: &RemoteSettings) -> Result<Self, String> {
        let files = &settings.files;
        let credentials = match &files.paths {
            None => Credentials::of_directory(&files.directory),
            Some(paths) => Credentials::of_files(&paths.certificate, &paths.key, &paths.authority),
        };
        let credentials = credentials.map_err(|error| error.to_string())?;
        let revoked = match &files.paths {
            None => Some(files.directory.join(identity::REVOKED)),
            Some(paths) => paths.revoked.clone(),
        };
        let revoked = revoked.map(|path: PathBuf| Arc::new(RevocationList::new(path)));
        if let Some(list) = &revoked {
            // A list that cannot be read would let no client in: better said now than to each client.
            list.revoked(&credentials.facts().fingerprint)?;
        }
        let pinned = settings.clients.iter().filter_map(|client| match &client.choice {
            ClientChoice::Fingerprint(fingerprint) => Some(*fingerprint),
            ClientChoice::Name(_) => None,
        });
        let trust = PeerTrust { pinned: pinned.collect(), revoked, takes_unnamed: false };
        // Says now whether they can be used.
        tls::server(&credentials, trust.clone(), None, &[HTTP2])?;
        Ok(Self { credentials: Arc::new(credentials), trust, settings: settings.clone() })
    }
}

impl RemoteAccess {
    /// Reads the certificates of a configuration.
    ///
    /// # Errors
    /// For people: the file that is missing or cannot be used.
    pub(crate) fn new(settings: &RemoteSettings) -> Result<Self, String> {
        Ok(Self {
            listen: settings.listen,
            rules: RwLock::new(AccessRules::load(settings)?),
            counters: RemoteCounters::default(),
            warned: Mutex::new(None),
        })
    }

    /// The address to listen at.
    pub(crate) const fn listen(&self) -> std::net::SocketAddr {
        self.listen
    }

    /// Applies a configuration that was read again. Connections that it no longer lets in end
    /// within a second.
    ///
    /// # Errors
    /// For people. Everything is as before then.
    pub(crate) fn reload(&self, settings: Option<&RemoteSettings>) -> Result<(), String> {
        let Some(settings) = settings else {
            // Nobody is let in any more; the socket itself stays until the end.
            self.rules.write().settings.clients.clear();
            return Err(
                "[remote] is gone: nobody is let in any more, and the port is closed when \
                        pcapfs is started again"
                    .to_owned(),
            );
        };
        let rules = AccessRules::load(settings)?;
        let has_moved = settings.listen != self.listen;
        *self.rules.write() = rules;
        *self.warned.lock() = None;
        if has_moved {
            return Err(format!(
                "remote.listen: still {}, until pcapfs is started again",
                self.listen
            ));
        }
        Ok(())
    }

    /// The configuration of TLS for one connection; `seen` gets the certificate of the client.
    pub(super) fn tls(&self, seen: Arc<SeenCertificate>) -> Result<Arc<ServerConfig>, String> {
        let rules = self.rules.read();
        tls::server(&rules.credentials, rules.trust.clone(), Some(seen), &[HTTP2])
    }

    /// The user that a certificate maps to, by its rule only: cheap enough for each second.
    ///
    /// # Errors
    /// The reason why it is not let in (any more), for people.
    pub(super) fn user_name(&self, facts: &CertificateFacts) -> Result<String, String> {
        let rules = self.rules.read();
        let is_pinned = rules
            .trust
            .check(facts)
            .map_err(|error| said(&TlsFailure::from(&rustls::Error::from(error))))?;
        let found = rules.settings.clients.iter().find(|client| match &client.choice {
            ClientChoice::Fingerprint(fingerprint) => *fingerprint == facts.fingerprint,
            // A name counts only if the own authority vouches for it.
            ClientChoice::Name(name) => !is_pinned && facts.names.contains(name),
        });
        found.map(|client| client.user.clone()).ok_or_else(|| {
            let name = facts.name();
            format!(
                "the certificate of '{name}' maps to no user here (add to the \
                 configuration there: [[remote.client]], name = \"{name}\" or sha256 = \"{}\", \
                 user = ...)",
                facts.fingerprint
            )
        })
    }

    /// The user that a certificate maps to, with groups.
    ///
    /// # Errors
    /// The reason why it is not let in, for people.
    ///
    /// # Blocking
    /// On the user database.
    pub(super) fn user(&self, facts: &CertificateFacts) -> Result<MappedUser, String> {
        let name = self.user_name(facts)?;
        let missing = |why: &str| {
            let certificate = facts.name();
            format!("the user '{name}', for whom '{certificate}' stands, {why}")
        };
        let user =
            User::from_name(&name).ok().flatten().ok_or_else(|| missing("does not exist"))?;
        let caller = caller_of(&user).ok_or_else(|| missing("has no groups that can be read"))?;
        Ok(MappedUser { name, caller })
    }

    pub(super) const fn counters(&self) -> &RemoteCounters {
        &self.counters
    }

    /// Says once a day that the certificate of this machine is about to expire.
    pub(crate) fn warn(&self) {
        let today = capture::clock::now().nanoseconds() / 86_400_000_000_000;
        let mut warned = self.warned.lock();
        if *warned != Some(today)
            && let Some(warning) = self.warning()
        {
            say(warning);
        }
        *warned = Some(today);
    }

    fn warning(&self) -> Option<String> {
        let rules = self.rules.read();
        let whose = "remote: the certificate of this machine";
        let advice = if rules.settings.files.paths.is_some() {
            "renew it, and send SIGHUP"
        } else {
            RENEWAL
        };
        rules.credentials.facts().warning(whose, advice)
    }
}

impl RemoteReporter for RemoteAccess {
    fn status(&self) -> RemoteStatus {
        let rules = self.rules.read();
        let facts = rules.credentials.facts();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RemoteStatus {
            listen: self.listen.to_string(),
            certificate: CertificateStatus {
                names: facts.names.clone(),
                sha256: facts.fingerprint.to_string(),
                expires: facts.not_after.to_rfc3339(),
                expires_days: facts.days_left(),
                warning: self.warning(),
            },
            open: count(&self.counters.open),
            accepted: count(&self.counters.accepted),
            refused: count(&self.counters.refused),
            too_many: count(&self.counters.too_many),
        }
    }
}

/// A user as the caller of requests.
fn caller_of(user: &User) -> Option<Caller> {
    let name = CString::new(user.name.as_str()).ok()?;
    let groups = getgrouplist(&name, user.gid).ok()?;
    let groups = groups.into_iter().map(|group| group.as_raw()).collect();
    Some(Caller { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
}

/// Why a client is refused, for the log.
pub(super) fn said(failure: &TlsFailure) -> String {
    match failure {
        TlsFailure::WrongAuthority => {
            "its certificate is of another authority, and not pinned".to_owned()
        }
        TlsFailure::Expired => "its certificate has expired".to_owned(),
        TlsFailure::NotYetValid => {
            "its certificate is not valid yet (compare the clocks)".to_owned()
        }
        TlsFailure::Revoked => "its certificate is revoked".to_owned(),
        TlsFailure::NoCertificate => "it has no certificate".to_owned(),
        TlsFailure::OwnWrongAuthority => {
            "it does not believe the certificate of this machine".to_owned()
        }
        TlsFailure::WrongVersion => "it does not speak TLS 1.3".to_owned(),
        TlsFailure::NotTls => "it does not speak TLS".to_owned(),
        TlsFailure::WrongName(_) => "its certificate has another name".to_owned(),
        TlsFailure::OwnExpired => {
            "it says that the certificate of this machine has expired".to_owned()
        }
        TlsFailure::OwnRevoked => {
            "it says that the certificate of this machine is revoked".to_owned()
        }
        TlsFailure::OwnRefused(why) | TlsFailure::Other(why) => printable(why),
    }
}
