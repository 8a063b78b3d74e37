//! The facts in a certificate: its names, its dates and its fingerprint.
//!
//! The bytes may be a stranger's: reading them gives an error at worst. Whether they are to be
//! believed is decided in [`tls`](super::tls).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use capture::clock;
use protocol::time::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How long before the end of a certificate its owner is warned.
pub(crate) const WARNED_BEFORE: Duration = Duration::from_secs(30 * DAY);

/// Seconds of a day.
pub(super) const DAY: u64 = 86_400;

/// The maximum number of names that are read of one certificate.
const MAX_NAMES: usize = 256;

/// The SHA-256 of a certificate's DER, as `openssl x509 -fingerprint -sha256` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub(crate) fn of(certificate: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        // A digest of SHA-256 has 32 bytes.
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(byte, digit)| *byte = *digit);
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    /// Reads 64 hexadecimal digits, with or without colons between the bytes.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no SHA-256: 64 hexadecimal digits");
        let digits: Vec<u32> = text
            .chars()
            .filter(|character| *character != ':')
            .map(|character| character.to_digit(16).ok_or_else(wrong))
            .collect::<Result<_, _>>()?;
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(wrong());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let value = pair.iter().fold(0, |value, digit| value << 4 | digit);
            *byte = u8::try_from(value).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// The facts that a certificate states about its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    /// The common name, then the alternative names: hosts, addresses, mail addresses and URIs. Each
    /// name comes once.
    pub(crate) names: Vec<String>,
    pub(crate) fingerprint: Fingerprint,
    /// It is valid from here on.
    pub(crate) not_before: Timestamp,
    /// It is valid until then.
    pub(crate) not_after: Timestamp,
    /// True if it names itself as its issuer.
    pub(crate) is_self_issued: bool,
}

impl CertificateFacts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// The bytes are no certificate; the reason is for people.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| format!("no certificate: {error}"))?;
        if !rest.is_empty() {
            return Err("no certificate: there is more after its end".to_owned());
        }
        let common = certificate.subject().iter_common_name();
        let mut names: Vec<String> =
            common.filter_map(|name| Some(name.as_str().ok()?.to_owned())).collect();
        if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
            names.extend(alternative.value.general_names.iter().filter_map(alternative_name));
        }
        let mut known = Vec::new();
        for name in names.into_iter().take(MAX_NAMES) {
            if !known.contains(&name) {
                known.push(name);
            }
        }
        let time = |seconds: i64| {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            Timestamp::from_nanoseconds(seconds.saturating_mul(1_000_000_000))
        };
        let validity = certificate.validity();
        Ok(Self {
            names: known,
            fingerprint: Fingerprint::of(der),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
            is_self_issued: certificate.subject() == certificate.issuer(),
        })
    }

    /// The first name, or else the fingerprint: for messages.
    pub(crate) fn name(&self) -> String {
        self.names.first().map_or_else(|| self.fingerprint.to_string(), |name| printable(name))
    }

    /// Whole days until it ends; 0 on its last day and after it.
    pub(crate) fn days_left(&self) -> u64 {
        let left = self.not_after.nanoseconds().saturating_sub(clock::now().nanoseconds());
        left / 1_000_000_000 / DAY
    }

    /// True if it has ended.
    pub(crate) fn has_expired(&self) -> bool {
        clock::now() > self.not_after
    }

    /// A warning if it ends within [`WARNED_BEFORE`], or has ended. `whose` names it for people, and
    /// `advice` says what to do.
    pub(crate) fn warning(&self, whose: &str, advice: &str) -> Option<String> {
        let date = date(self.not_after);
        if self.has_expired() {
            return Some(format!("{whose} has expired on {date} ({advice})"));
        }
        let is_near = clock::now().plus(WARNED_BEFORE) > self.not_after;
        is_near.then(|| {
            let days = match self.days_left() {
                0 => "within a day".to_owned(),
                1 => "in 1 day".to_owned(),
                days => format!("in {days} days"),
            };
            format!("{whose} expires {days}, on {date} ({advice})")
        })
    }
}

/// An alternative name that people can read.
fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            Some(address.ok()?.to_string())
        }
        _ => None,
    }
}

/// The day of a moment, in UTC: `2026-11-30`.
pub(crate) fn date(time: Timestamp) -> String {
    let mut text = time.to_rfc3339();
    text.truncate("2026-11-30".len());
    text
}

/// A name of a certificate for a message: control characters, which terminals obey, are replaced.
pub(crate) fn printable(name: &str) -> String {
    printable_up_to(128, name)
}

/// The same for a text of at most `most` characters; the rest is left out.
pub(super) fn printable_up_to(most: usize, text: &str) -> String {
    text.chars().take(most).map(|one| if one.is_control() { '?' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_printed_with_colons_or_without() {
        let fingerprint = Fingerprint::of(b"abc");
        // FIPS 180-2, B.1.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fingerprint.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(fingerprint));
        let pairs: Vec<&str> =
            (0..32).map(|byte| text.get(2 * byte..2 * byte + 2).unwrap()).collect();
        assert_eq!(pairs.join(":").parse(), Ok(fingerprint));
        for wrong in
            ["", "ba78", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ag"]
        {
            let error = wrong.parse::<Fingerprint>().unwrap_err();
            assert!(error.contains("no SHA-256"), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_an_error() {
        for bytes in [&b""[..], b"\x30\x84\xff\xff\xff\xff", &[0x30; 4096]] {
            let error = CertificateFacts::read(&CertificateDer::from(bytes)).unwrap_err();
            assert!(error.starts_with("no certificate"), "{error}");
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_said_a_month_before() {
        let after = |seconds: u64| CertificateFacts {
            names: vec!["hall\x1b".to_owned()],
            fingerprint: Fingerprint::of(b""),
            not_before: Timestamp::from_nanoseconds(0),
            not_after: clock::now().plus(Duration::from_secs(seconds)),
            is_self_issued: false,
        };
        let said = |facts: &CertificateFacts| facts.warning("it", "do this");
        assert_eq!(said(&after(31 * DAY)), None);
        let text = said(&after(29 * DAY + 60)).unwrap();
        assert!(text.starts_with("it expires in 29 days, on 2"), "{text}");
        assert!(text.ends_with("(do this)"), "{text}");
        assert!(said(&after(60)).unwrap().contains("within a day"));
        let mut over = after(0);
        over.not_after = Timestamp::from_nanoseconds(1);
        assert_eq!(said(&over).unwrap(), "it has expired on 1970-01-01 (do this)");
        assert_eq!(over.name(), "hall?");
    }
}
