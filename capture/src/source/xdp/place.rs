//! How a source of AF_XDP is written: `xdp:IFACE[,queues=...][,mode=...][,zerocopy=...][,force=...]`.

use std::fmt;

use xdp_attach::XdpMode;

use crate::source::ANY;

/// A source of AF_XDP begins with this.
pub(in crate::source) const PREFIX: &str = "xdp:";

/// Maximum number of a receive queue plus one. The kernel has 4,096 for a device at most
/// (`ethtool -L`), and the drivers have fewer.
const MAX_QUEUES: u32 = 4096;

/// An interface whose packets are received through AF_XDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) struct XdpInterface {
    pub(super) interface: String,
    pub(super) queues: WantedQueues,
    /// The place of the program; `None` if the driver decides.
    pub(super) mode: Option<XdpMode>,
    /// Packets need not be copied from the driver's buffers if the driver can do that.
    pub(super) zero_copy: bool,
    /// The interface is taken from the system even if the system uses it.
    pub(super) is_forced: bool,
}

/// The receive queues of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WantedQueues {
    /// All that the interface has when the source is opened.
    All,
    /// These, in ascending order, at least one.
    Listed(Vec<u32>),
}

impl XdpInterface {
    /// Parses what follows `xdp:`.
    ///
    /// # Errors
    /// The mistake, for people.
    pub(in crate::source) fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split(',').peekable();
        let interface = words.next().unwrap_or_default();
        if interface.is_empty() || interface == ANY {
            return Err("write the name of one interface, as in xdp:eth1".to_owned());
        }
        let mut parsed = Self {
            interface: interface.to_owned(),
            queues: WantedQueues::All,
            mode: None,
            zero_copy: true,
            is_forced: false,
        };
        while let Some(word) = words.next() {
            let (option, value) = word.split_once('=').unwrap_or((word, ""));
            let wrong = |right: &str| format!("'{word}' is no option of xdp: (write {right})");
            match option {
                "queues" => {
                    let mut list = vec![value];
                    // The list has commas, as the options have.
                    while let Some(more) = words.next_if(|word| !word.contains('=')) {
                        list.push(more);
                    }
                    let written = list.join(",");
                    parsed.queues = queues(&list).ok_or_else(|| {
                        format!(
                            "queues={written}: no list of receive queues (write all, or numbers \
                             below {MAX_QUEUES} as in queues=0,2-5)"
                        )
                    })?;
                }
                "mode" => {
                    parsed.mode = match value {
                        "auto" => None,
                        _ => Some(XdpMode::parse(value).ok_or_else(|| {
                            let [native, generic] = XdpMode::WORDS;
                            wrong(&format!("mode=auto, mode={native} or mode={generic}"))
                        })?),
                    };
                }
                "zerocopy" => {
                    parsed.zero_copy = match value {
                        "auto" => true,
                        "off" => false,
                        _ => return Err(wrong("zerocopy=auto or zerocopy=off")),
                    };
                }
                "force" => {
                    parsed.is_forced = match value {
                        "true" => true,
                        "false" => false,
                        _ => return Err(wrong("force=true or force=false")),
                    };
                }
                _ => return Err(wrong("queues=, mode=, zerocopy= or force=")),
            }
        }
        Ok(parsed)
    }
}

/// The interface in the text after `xdp:`.
pub(in crate::source) fn interface_of(text: &str) -> &str {
    text.split(',').next().unwrap_or_default()
}

/// Reads a list of numbers and ranges; `None` if it is none.
fn queues(list: &[&str]) -> Option<WantedQueues> {
    if list == ["all"] {
        return Some(WantedQueues::All);
    }
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: u32 = text.parse().ok().filter(|_| is_number)?;
        (number < MAX_QUEUES).then_some(number)
    };
    let mut queues = Vec::new();
    for part in list {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return None;
        }
        queues.extend(first..=last);
        queues.sort_unstable();
        queues.dedup();
    }
    Some(WantedQueues::Listed(queues))
}

impl fmt::Display for WantedQueues {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("all"),
            Self::Listed(queues) => {
                for (place, queue) in queues.iter().enumerate() {
                    let comma = if place > 0 { "," } else { "" };
                    write!(formatter, "{comma}{queue}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_they_are_written() {
        let plain = XdpInterface {
            interface: "eth1".to_owned(),
            queues: WantedQueues::All,
            mode: None,
            zero_copy: true,
            is_forced: false,
        };
        let listed = |queues: &[u32]| WantedQueues::Listed(queues.to_vec());
        for (text, expected) in [
            ("eth1", plain.clone()),
            ("eth1,queues=all,mode=auto,zerocopy=auto,force=false", plain.clone()),
            ("eth1,queues=3", XdpInterface { queues: listed(&[3]), ..plain.clone() }),
            (
                "eth1,queues=7,0-2,2,force=true",
                XdpInterface { queues: listed(&[0, 1, 2, 7]), is_forced: true, ..plain.clone() },
            ),
            (
                "eth1,mode=generic,zerocopy=off",
                XdpInterface { mode: Some(XdpMode::Generic), zero_copy: false, ..plain.clone() },
            ),
        ] {
            assert_eq!(XdpInterface::parse(text), Ok(expected), "{text}");
            assert_eq!(interface_of(text), "eth1");
        }
        assert_eq!(listed(&[0, 1, 7]).to_string(), "0,1,7");
    }

    #[test]
    fn a_mistake_is_named_with_what_is_right() {
        for (text, parts) in [
            ("", &["write the name of one interface"][..]),
            ("any", &["write the name of one interface"]),
            ("eth1,queue=0", &["'queue=0'", "queues="]),
            ("eth1,queues=", &["queues=: no list", "queues=0,2-5"]),
            ("eth1,queues=0,all", &["queues=0,all: no list"]),
            ("eth1,queues=3-1", &["queues=3-1: no list"]),
            ("eth1,queues=+1", &["queues=+1: no list"]),
            ("eth1,queues=4096", &["below 4096"]),
            ("eth1,queues=0-99999999999", &["no list"]),
            ("eth1,mode=fast", &["'mode=fast'", "mode=native or mode=generic"]),
            ("eth1,zerocopy=on", &["'zerocopy=on'", "zerocopy=auto or zerocopy=off"]),
            ("eth1,force", &["'force'", "force=true"]),
            ("eth1,", &["''"]),
        ] {
            let mistake = XdpInterface::parse(text).unwrap_err();
            for part in parts {
                assert!(mistake.contains(part), "{text}: {mistake}");
            }
        }
    }
}
