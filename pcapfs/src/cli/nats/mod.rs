//! Servers of NATS JetStream: their addresses, how to log in, a connection, and the client protocol.

pub(super) mod connection;
mod login;
mod nkey;
pub(super) mod protocol;
pub(super) mod server;
mod tls;

use std::time::Duration;

use capture::source::HostAndPort;

use crate::failure::Failure;

/// The port of NATS.
const PORT: u16 = 4222;

/// The scheme of an address, and that of one to which nothing is sent without TLS.
const SCHEME: &str = "nats://";
const TLS_SCHEME: &str = "tls://";

/// The stream with the lines of all machines, and the subjects it keeps: `pcapfs.HOST.CAPTURE.KIND`.
pub(in crate::cli) const STREAM: &str = "pcapfs";
pub(in crate::cli) const SUBJECTS: &str = "pcapfs.>";

/// The address of a server, with the credentials in it.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::cli) struct NatsAddress {
    place: HostAndPort,
    /// A token, or a user and a password.
    credentials: Option<(String, Option<String>)>,
    /// True if its scheme asks for TLS.
    is_tls: bool,
}

impl std::fmt::Debug for NatsAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "NatsAddress({self})")
    }
}

impl std::fmt::Display for NatsAddress {
    /// Without the credentials.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}{}", if self.is_tls { TLS_SCHEME } else { SCHEME }, self.place)
    }
}

impl NatsAddress {
    /// True for a text with the scheme of such an address.
    pub(in crate::cli) fn is_meant(text: &str) -> bool {
        [SCHEME, TLS_SCHEME].iter().any(|scheme| text.starts_with(scheme))
    }

    /// Reads `nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT]`, or the same with `tls://`.
    ///
    /// # Errors
    /// It is none.
    pub(in crate::cli) fn read(text: &str) -> Result<Self, String> {
        let is_tls = text.starts_with(TLS_SCHEME);
        let scheme = if is_tls { TLS_SCHEME } else { SCHEME };
        let rest = text.strip_prefix(scheme).unwrap_or(text);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, rest),
        };
        let place = place.trim_end_matches('/');
        // An address of IPv6 has colons of its own.
        let has_port = place
            .rsplit_once(':')
            .is_some_and(|(before, _)| !before.contains(':') || before.ends_with(']'));
        let whole = if has_port { place.to_owned() } else { format!("{place}:{PORT}") };
        // The credentials are a secret.
        let place = HostAndPort::parse(&whole).map_err(|why| {
            format!("{scheme}{place}: {why} (write {scheme}HOST or {scheme}HOST:PORT)")
        })?;
        let credentials = credentials.map(|text| match text.split_once(':') {
            Some((user, password)) => (user.to_owned(), Some(password.to_owned())),
            None => (text.to_owned(), None),
        });
        Ok(Self { place, credentials, is_tls })
    }

    /// True if only this machine is on the way.
    fn is_private(&self) -> bool {
        self.place.local_address().is_some_and(|address| address.ip().is_loopback())
    }

    /// Checks that no other machine can read the lines, unless the user accepts that.
    ///
    /// # Errors
    /// Other machines are on the way.
    fn check_privacy(&self, is_insecure: bool) -> Result<(), Failure> {
        if self.is_private() || is_insecure {
            return Ok(());
        }
        Err(Failure::Argument(format!(
            "{self}: everybody on the way there could read the lines; write {TLS_SCHEME}{} if the \
             server has TLS, use a server of this machine (and a leaf node, or ssh -L), or add \
             --insecure",
            self.place
        )))
    }
}

/// Reads an age such as `90s`, `30m`, `12h` or `7d`.
///
/// # Errors
/// It is none.
pub(in crate::cli) fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no age (write one such as 12h or 7d)");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u64>().ok().filter(|number| *number > 0);
    number.and_then(|number| number.checked_mul(seconds)).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        assert_eq!(age("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["", "7", "0d", "d", "-1h", "7\u{e4}", "99999999999999999999d"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_read_and_credentials_are_not_shown() {
        for (text, shown) in [
            ("nats://hall", "nats://hall:4222"),
            ("nats://127.0.0.1:4333/", "nats://127.0.0.1:4333"),
            ("nats://[::1]", "nats://[::1]:4222"),
            ("nats://me:secret@[::1]:1", "nats://[::1]:1"),
            ("nats://secret@hall", "nats://hall:4222"),
            ("tls://me:secret@hall:4443", "tls://hall:4443"),
        ] {
            let address = NatsAddress::read(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(address.to_string(), shown);
            assert!(!format!("{address:?}").contains("secret"));
        }
        let credentials = |text: &str| NatsAddress::read(text).unwrap().credentials;
        assert_eq!(credentials("nats://me:a@b@hall"), Some(("me".into(), Some("a@b".into()))));
        assert_eq!(credentials("nats://secret@hall"), Some(("secret".into(), None)));
        let wrong = NatsAddress::read("nats://me:secret@hall:x").unwrap_err();
        assert!(!wrong.contains("secret"), "{wrong}");
        assert!(NatsAddress::read("nats://").is_err());
        assert!(NatsAddress::read("nats://localhost").unwrap().is_private());
        assert!(!NatsAddress::read("nats://hall").unwrap().is_private());
        assert!(NatsAddress::is_meant("tls://hall") && !NatsAddress::is_meant("tcp://hall"));
    }
}
