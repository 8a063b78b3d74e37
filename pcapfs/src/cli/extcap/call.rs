//! The calls that Wireshark makes, as its options.

use std::path::PathBuf;

use clap::{ArgAction, Parser, ValueEnum};

use super::PREFIX;
use crate::cli::savefile::PacketRange;
use crate::failure::Failure;

/// The options of one call, in any order. An option that is given twice counts as given last.
#[derive(Debug, Parser)]
#[command(
    name = "pcapfs",
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true
)]
pub(super) struct ExtcapCall {
    #[arg(long)]
    extcap_interfaces: bool,

    #[arg(long)]
    extcap_config: bool,

    #[arg(long)]
    extcap_dlts: bool,

    #[arg(long)]
    capture: bool,

    /// Version of Wireshark; not every version gives it.
    #[arg(long, num_args = 0..=1, action = ArgAction::Append)]
    extcap_version: Vec<String>,

    #[arg(long)]
    extcap_interface: Option<String>,

    #[arg(long, allow_hyphen_values = true)]
    extcap_capture_filter: Option<String>,

    #[arg(long)]
    fifo: Option<PathBuf>,

    /// Where to begin.
    #[arg(long, value_enum, default_value = "live")]
    from: PacketRange,

    #[arg(long, value_enum, default_value = "pcapng")]
    format: CaptureFormat,
}

/// The format of the savefile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CaptureFormat {
    Pcap,
    Pcapng,
}

/// A call that makes sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExtcapQuestion {
    /// Which interfaces are there?
    Interfaces,
    /// Which options does an interface have?
    Options,
    /// Which link type does a capture have?
    LinkTypes { capture: String },
    /// Is this filter correct?
    Check { capture: String, filter: String },
    /// Send packets.
    Capture {
        capture: String,
        fifo: PathBuf,
        filter: Option<String>,
        from: PacketRange,
        format: CaptureFormat,
    },
}

impl ExtcapCall {
    /// The question of the call.
    ///
    /// # Errors
    /// If it asks for nothing, or lacks something.
    pub(super) fn question(self) -> Result<ExtcapQuestion, Failure> {
        let wrong = |what: &str| Failure::Argument(format!("called by Wireshark {what}"));
        if self.extcap_interfaces {
            return Ok(ExtcapQuestion::Interfaces);
        }
        if self.extcap_config {
            return Ok(ExtcapQuestion::Options);
        }
        let interface = self.extcap_interface.ok_or_else(|| wrong("without --extcap-interface"))?;
        let capture = interface.strip_prefix(PREFIX).filter(|capture| !capture.is_empty());
        let capture = capture.map(str::to_owned).ok_or_else(|| {
            Failure::Argument(format!(
                "{interface}: no interface of pcapfs: these are called {PREFIX}NAME (see: tshark -D)"
            ))
        })?;
        if self.extcap_dlts {
            return Ok(ExtcapQuestion::LinkTypes { capture });
        }
        let filter = self.extcap_capture_filter;
        match (self.capture, self.fifo, filter) {
            (true, Some(fifo), filter) => {
                let Self { from, format, .. } = self;
                Ok(ExtcapQuestion::Capture { capture, fifo, filter, from, format })
            }
            (true, None, _) => Err(wrong("without --fifo")),
            (false, _, Some(filter)) => Ok(ExtcapQuestion::Check { capture, filter }),
            (false, _, None) => Err(wrong("without a question")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(words: &str) -> Result<ExtcapQuestion, String> {
        let words = ["pcapfs"].into_iter().chain(words.split('|'));
        let call = ExtcapCall::try_parse_from(words).map_err(|error| error.to_string())?;
        call.question().map_err(|failure| failure.to_string())
    }

    #[test]
    fn calls_of_all_versions_are_understood() {
        let web = || "web".to_owned();
        for (words, wanted) in [
            ("--extcap-interfaces", ExtcapQuestion::Interfaces),
            ("--extcap-interfaces|--extcap-version", ExtcapQuestion::Interfaces),
            ("--extcap-interfaces|--extcap-version=4.0", ExtcapQuestion::Interfaces),
            ("--extcap-version|--extcap-interfaces", ExtcapQuestion::Interfaces),
            ("--extcap-config|--extcap-interface|pcapfs:web", ExtcapQuestion::Options),
            (
                "--extcap-dlts|--extcap-interface|pcapfs:web",
                ExtcapQuestion::LinkTypes { capture: web() },
            ),
            (
                "--extcap-capture-filter|-x|--extcap-interface|pcapfs:web",
                ExtcapQuestion::Check { capture: web(), filter: "-x".to_owned() },
            ),
            (
                "--capture|--extcap-interface|pcapfs:web|--fifo|/tmp/p|--from|follow",
                ExtcapQuestion::Capture {
                    capture: web(),
                    fifo: "/tmp/p".into(),
                    filter: None,
                    from: PacketRange::Follow,
                    format: CaptureFormat::Pcapng,
                },
            ),
            (
                "--capture|--extcap-interface|pcapfs:far:web|--extcap-capture-filter|tcp port 80|\
                 --fifo|/tmp/p|--format|pcapng|--format|pcap",
                ExtcapQuestion::Capture {
                    capture: "far:web".to_owned(),
                    fifo: "/tmp/p".into(),
                    filter: Some("tcp port 80".to_owned()),
                    from: PacketRange::Live,
                    format: CaptureFormat::Pcap,
                },
            ),
        ] {
            assert_eq!(question(words).unwrap(), wanted, "{words}");
        }
    }

    #[test]
    fn calls_that_lack_something_say_so() {
        for (words, part) in [
            ("--capture|--extcap-interface|pcapfs:web", "without --fifo"),
            ("--capture|--fifo|/tmp/p", "without --extcap-interface"),
            ("--extcap-interface|pcapfs:web", "without a question"),
            ("--extcap-dlts|--extcap-interface|eth0", "eth0: no interface of pcapfs"),
            ("--extcap-dlts|--extcap-interface|pcapfs:", "pcapfs:: no interface of pcapfs"),
            ("--capture|--from|never", "invalid value 'never'"),
        ] {
            let error = question(words).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
