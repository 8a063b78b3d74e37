//! Lines of a capture to a stream of NATS JetStream.
//!
//! The feed is a cursor, and its place moves with the acknowledgements of the server: a line that the
//! server has not acknowledged is sent again, over whatever connection, with the same id, by which the
//! server leaves repeats out.

mod protocol;
mod session;

use std::sync::Arc;
use std::time::Duration;

use capture::source::HostAndPort;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use super::feed::{Feed, FeedSettings};
use super::tracker::SentTracker;
use crate::cli::outlet::saved::SavedPositions;
use crate::failure::Failure;
use protocol::token;
use session::{Session, SessionEnd, Unacknowledged};

/// The port of NATS.
const PORT: u16 = 4222;

/// The scheme of an address.
pub(super) const SCHEME: &str = "nats://";

/// The stream that is made, and the subjects it keeps.
pub(super) const STREAM: &str = "pcapfs";
const SUBJECTS: &str = "pcapfs.>";

/// The first wait before a server that is away is tried again, and the longest.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A server, and what it is to have.
#[derive(Clone, Debug)]
pub(super) struct NatsSettings {
    pub(super) server: NatsAddress,
    /// Name of this machine.
    pub(super) host: String,
    /// The stream that is to be made: its bounds.
    pub(super) created: Option<StreamBounds>,
}

/// Bounds of a stream that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamBounds {
    /// Bytes.
    pub(super) max_bytes: u64,
    /// `None` for no bound.
    pub(super) max_age: Option<Duration>,
}

/// The address of a server, with the credentials in it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct NatsAddress {
    pub(super) place: HostAndPort,
    /// A token, or a user and a password.
    pub(super) credentials: Option<(String, Option<String>)>,
}

impl std::fmt::Debug for NatsAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "NatsAddress({self})")
    }
}

impl std::fmt::Display for NatsAddress {
    /// Without the credentials.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let HostAndPort { host, port } = &self.place;
        if host.contains(':') {
            return write!(formatter, "{SCHEME}[{host}]:{port}");
        }
        write!(formatter, "{SCHEME}{host}:{port}")
    }
}

impl NatsAddress {
    /// Reads `nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT]`.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
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
            format!("{SCHEME}{place}: {why} (write nats://HOST or nats://HOST:PORT)")
        })?;
        let credentials = credentials.map(|text| match text.split_once(':') {
            Some((user, password)) => (user.to_owned(), Some(password.to_owned())),
            None => (text.to_owned(), None),
        });
        Ok(Self { place, credentials })
    }

    /// True if only this machine is on the way.
    pub(super) fn is_private(&self) -> bool {
        let host = &self.place.host;
        host == "localhost" || host.parse().is_ok_and(|host: std::net::IpAddr| host.is_loopback())
    }
}

/// Reads an age such as `90s`, `30m`, `12h` or `7d`.
///
/// # Errors
/// It is none.
pub(super) fn age(text: &str) -> Result<Duration, String> {
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

/// The configuration of the stream that is made.
fn stream(bounds: StreamBounds) -> Vec<u8> {
    let max_age = bounds.max_age.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
    let configuration = json!({
        "name": STREAM, "subjects": [SUBJECTS], "retention": "limits", "storage": "file",
        "discard": "old", "max_bytes": bounds.max_bytes, "max_age": max_age,
    });
    configuration.to_string().into_bytes()
}

/// Publishes until `stopping` is true.
///
/// # Errors
/// The place cannot be saved.
pub(super) async fn publish(
    nats: &NatsSettings,
    settings: &Arc<FeedSettings>,
    saved: SavedPositions,
    is_resumed: bool,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let position = saved.position(&settings.capture).filter(|_| is_resumed).cloned();
    let tracker = SentTracker::new(position.unwrap_or_default());
    let feed = Feed::start(settings, Some(&tracker.position()));
    let subject = format!("pcapfs.{}.{}", token(&nats.host), token(&settings.capture));
    let mut waiting = Unacknowledged::new(tracker, saved, settings, subject);
    let mut session = Session { nats, settings, feed };
    let server = nats.server.to_string();
    settings.reporter.ready(&server, "NATS", false);
    let (mut wait, mut said) = (PATIENCE.0, None);
    loop {
        let before = waiting.acknowledged();
        match session.run(&mut waiting, &mut stopping).await? {
            SessionEnd::Stopped => return waiting.finish(&server),
            SessionEnd::Away(why) => {
                if waiting.acknowledged() > before {
                    (wait, said) = (PATIENCE.0, None);
                }
                if said.as_ref() != Some(&why) {
                    settings.reporter.waiting(&server, &why);
                    said = Some(why);
                }
            }
        }
        tokio::select! {
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return waiting.finish(&server),
            () = sleep(wait) => {}
        }
        wait = (wait * 2).min(PATIENCE.1);
    }
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
    }
}
