//! Why a remote cannot be used, and what to do then: each reason has words of its own.

use std::io;

use super::tls::TlsFailure;

/// Why a remote cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{remote}: {reason}")]
pub(crate) struct RemoteError {
    /// Name of the remote.
    pub(crate) remote: String,
    pub(crate) reason: RemoteReason,
}

/// The reason. Where a peer decides part of the text, control characters are replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RemoteReason {
    /// No remote has this name; the names that there are.
    #[error(
        "no such remote (have: {0}; add it with: pcapfs remote add NAME pcap://HOST \
             --identity FILE)"
    )]
    Unknown(String),
    /// The own certificate cannot be read or used.
    #[error("{0}")]
    Identity(String),
    /// The host has no address.
    #[error("{host} does not resolve: {why} (check the name, or use an address in the URL)")]
    NoAddress {
        /// The name.
        host: String,
        /// The resolver's message.
        why: String,
    },
    /// No process listens there.
    #[error(
        "{0}: connection refused (is a daemon running there, with listen in [remote] of its \
             configuration?)"
    )]
    Refused(String),
    /// There is no way, or no answer in time.
    #[error("{place}: {why} (is that machine up, and does a firewall let the port through?)")]
    Unreachable {
        /// Host and port.
        place: String,
        /// The system's message.
        why: String,
    },
    /// Its certificate is of another authority.
    #[error(
        "{0}: its certificate is of another authority (ask there for a file of its own with: \
             pcapfs identity issue NAME; name it with --identity)"
    )]
    WrongAuthority(String),
    /// Its certificate is not the pinned one.
    #[error(
        "{0}: its certificate is not the one with the SHA-256 of this remote (compare with: \
             pcapfs identity show, there)"
    )]
    NotPinned(String),
    /// Its certificate has other names.
    #[error(
        "{place}: its certificate is not for this name, but for {names} (use one of these in \
             the URL, or make one there with: pcapfs identity init --name)"
    )]
    WrongName {
        /// Host and port.
        place: String,
        /// The names of the certificate.
        names: String,
    },
    /// A certificate has expired, its own or that of this side.
    #[error("{0}")]
    Expired(String),
    /// A certificate that is not valid yet.
    #[error("{0}: its certificate is not valid yet (compare the clocks of both machines)")]
    NotYetValid(String),
    /// The other side lets this one not in.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The other side has another version of the service, or of TLS.
    #[error("incompatible version: {0}")]
    Incompatible(String),
    /// It closed the connection before its first byte.
    #[error(
        "{0}: it closed the connection at once (it is no pcapfs, or has too many connections: \
             its log says which)"
    )]
    Closed(String),
    /// There is something else at the port.
    #[error("{place}: no pcapfs answers there: {why} (check the port in the URL)")]
    NotPcapfs {
        /// Host and port.
        place: String,
        /// The program that answers.
        why: String,
    },
    /// The connection ended while it was used.
    #[error("the connection ended: {0}")]
    Ended(String),
    /// The daemon refused a request.
    #[error("{0}")]
    Answer(String),
}

impl RemoteReason {
    /// One word for programs: the state in `pcapfs remote list`.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown",
            Self::Identity(_) => "identity",
            Self::NoAddress { .. } => "unresolved",
            Self::Refused(_) => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::WrongAuthority(_) | Self::NotPinned(_) => "wrong-ca",
            Self::WrongName { .. } => "wrong-name",
            Self::Expired(_) => "expired",
            Self::NotYetValid(_) => "not-yet-valid",
            Self::NotAllowed(_) => "not-allowed",
            Self::Incompatible(_) => "incompatible",
            Self::Closed(_) => "closed",
            Self::NotPcapfs { .. } => "not-pcapfs",
            Self::Ended(_) => "ended",
            Self::Answer(_) => "answer",
        }
    }

    /// Of a connection that could not be made to `place`, or ended at its beginning. `identity`
    /// names the own certificate.
    pub(super) fn of(error: &io::Error, place: &str, identity: &str, is_pinned: bool) -> Self {
        let place = || place.to_owned();
        let Some(failure) = TlsFailure::of(error) else {
            return match error.kind() {
                io::ErrorKind::ConnectionRefused => Self::Refused(place()),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    Self::Closed(place())
                }
                _ => Self::Unreachable { place: place(), why: error.to_string() },
            };
        };
        let not_pcapfs = |why: String| Self::NotPcapfs { place: place(), why };
        match failure {
            TlsFailure::WrongAuthority if is_pinned => Self::NotPinned(place()),
            TlsFailure::WrongAuthority => Self::WrongAuthority(place()),
            TlsFailure::WrongName(names) => {
                let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
                Self::WrongName { place: place(), names: super::certificate::printable(&names) }
            }
            TlsFailure::Expired => Self::Expired(format!(
                "{}: its certificate has expired (make another there, see: pcapfs identity show)",
                place()
            )),
            TlsFailure::NotYetValid => Self::NotYetValid(place()),
            TlsFailure::OwnExpired => Self::Expired(format!(
                "{} says that the certificate in {identity} has expired or is not valid yet (ask \
                 there for another with: pcapfs identity issue; compare the clocks)",
                place()
            )),
            TlsFailure::OwnRevoked => Self::NotAllowed(format!(
                "{} says that the certificate in {identity} is revoked (ask there for another \
                 with: pcapfs identity issue)",
                place()
            )),
            TlsFailure::OwnWrongAuthority => Self::NotAllowed(format!(
                "{} does not know the authority of the certificate in {identity} (ask there for a \
                 file with: pcapfs identity issue)",
                place()
            )),
            TlsFailure::OwnRefused(why) => Self::NotAllowed(format!(
                "{} refuses the certificate in {identity} ({why}; its log has the reason)",
                place()
            )),
            TlsFailure::WrongVersion => {
                Self::Incompatible(format!("{} does not speak TLS 1.3 (is it a pcapfs?)", place()))
            }
            TlsFailure::NotTls => not_pcapfs("it does not speak TLS".to_owned()),
            TlsFailure::Revoked | TlsFailure::NoCertificate => {
                not_pcapfs("it shows no certificate that counts".to_owned())
            }
            TlsFailure::Other(why) => not_pcapfs(super::certificate::printable(&why)),
        }
    }
}
