//! The written forms of the two ends of PCAP-over-IP: `HOST:PORT` to connect to, and `ADDR:PORT` to
//! listen at.
//!
//! An IPv6 address has brackets, as in a URL: `[::1]:57012`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Suffix of the number of senders that may send at the same time.
const SENDERS: &str = ",senders=";

/// Maximum number of senders at a time: each has an interface in pcapng files, and a ring
/// distinguishes as many.
const MAX_SENDERS: usize = crate::ring::MAX_INTERFACES;

/// A host, by name or address, and a port of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostAndPort {
    /// A name for the resolver, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostAndPort {
    /// Parses `HOST:PORT`.
    ///
    /// # Errors
    /// The mistake, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or("a '[' without ']'")?;
                if host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
                    (host, rest.strip_prefix(':'))
                } else {
                    return Err(format!("'{host}' is no IPv6 address"));
                }
            }
            None => match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err(format!("an IPv6 address needs brackets, as in [{host}]:57012"));
                }
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err("no host".to_owned());
        }
        if let Some(bad) = host.chars().find(|c| c.is_whitespace() || c.is_control() || *c == '/') {
            return Err(format!("{bad:?} is in no host's name"));
        }
        let port = port.ok_or("no port (57012 is usual)")?;
        let number = port.parse().ok().filter(|number| *number > 0);
        let port = number.ok_or_else(|| format!("'{port}' is no port: 1 to 65535"))?;
        Ok(Self { host: host.to_owned(), port })
    }

    /// The address, if the host is given by an address that this machine may have, or is localhost.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        let local = || SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port);
        self.address().or_else(|| (self.host == "localhost").then(local))
    }

    /// The address, if the host is given by its address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|address: IpAddr| SocketAddr::new(address, self.port))
    }
}

impl fmt::Display for HostAndPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

/// An address of this machine at which senders connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    /// The address, as one of this machine or for all of them.
    pub address: SocketAddr,
    /// Maximum number of senders at a time, at least 1. Others wait until one has left.
    pub senders: usize,
}

impl ListenAddress {
    /// Parses `ADDR:PORT`, or `ADDR:PORT,senders=N`.
    ///
    /// # Errors
    /// The mistake, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (place, senders) = match text.split_once(',') {
            None => (text, 1),
            Some((place, _)) => {
                let number = text.strip_prefix(place).and_then(|rest| rest.strip_prefix(SENDERS));
                let number = number.and_then(|number| number.parse().ok());
                let number = number.filter(|number| (1..=MAX_SENDERS).contains(number));
                let wanted =
                    || format!("after the port comes nothing, or {SENDERS}1 to {MAX_SENDERS}");
                (place, number.ok_or_else(wanted)?)
            }
        };
        let place = HostAndPort::parse(place)?;
        let address = place.local_address().ok_or_else(|| {
            let host = &place.host;
            format!("'{host}' is no address of this machine; 127.0.0.1, 0.0.0.0 and [::] are some")
        })?;
        Ok(Self { address, senders })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.address)?;
        if self.senders > 1 {
            write!(formatter, "{SENDERS}{}", self.senders)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_written_as_they_are_read() {
        for text in ["sensor:57012", "10.0.0.1:4242", "[::1]:57012", "[fe80::1]:1", "a-b.c:65535"] {
            assert_eq!(HostAndPort::parse(text).unwrap().to_string(), text);
        }
        for (text, why) in [
            ("sensor", "no port"),
            ("sensor:", "'' is no port"),
            ("sensor:0", "'0' is no port"),
            ("sensor:65536", "'65536' is no port"),
            (":57012", "no host"),
            ("", "no host"),
            ("::1:57012", "needs brackets, as in [::1]:57012"),
            ("[::1]", "no port"),
            ("[::1", "without ']'"),
            ("[sensor]:1", "'sensor' is no IPv6 address"),
            ("a b:1", "' ' is in no host's name"),
            ("http://a:1", "needs brackets"),
            ("//a:1", "'/' is in no host's name"),
        ] {
            let error = HostAndPort::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn listening_addresses_are_those_of_this_machine() {
        for (text, written, senders) in [
            ("127.0.0.1:57012", "127.0.0.1:57012", 1),
            ("localhost:5", "127.0.0.1:5", 1),
            ("[::]:57012,senders=8", "[::]:57012,senders=8", 8),
            ("0.0.0.0:1,senders=1", "0.0.0.0:1", 1),
        ] {
            let address = ListenAddress::parse(text).unwrap();
            assert_eq!((address.to_string(), address.senders), (written.to_owned(), senders));
        }
        for (text, why) in [
            ("127.0.0.1", "no port"),
            ("sensor:1", "'sensor' is no address of this machine"),
            ("127.0.0.1:1,senders=0", "1 to 64"),
            ("127.0.0.1:1,senders=65", "1 to 64"),
            ("127.0.0.1:1,senders", "1 to 64"),
            ("127.0.0.1:1,more=1", "1 to 64"),
        ] {
            let error = ListenAddress::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
