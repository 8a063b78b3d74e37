//! The request of a daemon for an XDP program on an interface, as text.
//!
//! The daemon may not attach programs: it would take the packets of any interface from the system.
//! The supervisor attaches one to the interfaces that root has named, and passes the descriptors.

use std::fmt;

use xdp_attach::XdpMode;

/// Maximum number of bytes of the name of an interface: `IFNAMSIZ` of `linux/if.h`, without the
/// zero.
const NAME_MAX: usize = 15;

/// Maximum number of receive queues in a request; the kernel has no interface with more.
const QUEUES_MAX: u32 = 4096;

/// A request for a program, written `INTERFACE QUEUES MODE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpRequest {
    /// The real name of the interface.
    pub interface: String,
    /// Number of receive queues for which there is to be room, from 1 to 4,096.
    pub queues: u32,
    /// The place of the program; `None` if the driver decides.
    pub mode: Option<XdpMode>,
}

impl XdpRequest {
    /// Parses the written form; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let interface = words.next().filter(|name| is_name(name))?.to_owned();
        let queues =
            words.next()?.parse().ok().filter(|queues| (1..=QUEUES_MAX).contains(queues))?;
        let mode = match words.next()? {
            "auto" => None,
            word => Some(XdpMode::parse(word)?),
        };
        words.next().is_none().then_some(Self { interface, queues, mode })
    }
}

impl fmt::Display for XdpRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, queues, mode } = self;
        write!(formatter, "{interface} {queues} {}", mode.map_or("auto", XdpMode::word))
    }
}

/// Returns true if this may be the name of an interface (`dev_valid_name` of the kernel).
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && ![".", ".."].contains(&name)
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

/// The interface of a source that is written `xdp:INTERFACE,...`; `None` for other sources.
#[must_use]
pub fn interface(source: &str) -> Option<&str> {
    let name = source.strip_prefix("xdp:")?.split(',').next()?;
    is_name(name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        for text in ["eth1 1 auto", "enp1s0f0np0 64 native", "x 4096 generic"] {
            assert_eq!(XdpRequest::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "eth1",
            "eth1 1",
            "eth1 0 auto",
            "eth1 4097 auto",
            "eth1 1 fast",
            "eth1 1 auto more",
            "../eth1 1 auto",
            "sixteen-letters- 1 auto",
            ". 1 auto",
            " 1 auto",
        ] {
            assert_eq!(XdpRequest::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_interface_of_a_source_is_found() {
        assert_eq!(interface("xdp:eth1"), Some("eth1"));
        assert_eq!(interface("xdp:eth1,queues=0,1,force=true"), Some("eth1"));
        assert_eq!(
            (interface("eth1"), interface("xdp:"), interface("xdp:a/b")),
            (None, None, None)
        );
    }
}
