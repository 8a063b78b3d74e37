//! Sources as users write them: the kinds of the crate `capture`, and those that this program
//! brings.
//!
//! Every text of a user passes through [`parse`], and a source gives back the same text.

mod netns;
mod tap;
mod tls;
mod xdp;

use capture::source::{ExternalSource, SourceName};

use crate::mirror;

pub(crate) use netns::open_namespaces_with;
pub(crate) use tap::make_taps_with;
pub(crate) use xdp::attach_xdp_with;

/// A kind of source that this program brings.
struct ExternalKind {
    /// The text before the colon.
    kind: &'static str,
    /// Makes the source from its whole written form, or says what is wrong with it.
    parse: fn(&str) -> Result<ExternalSource, String>,
}

/// The kinds that this program brings. Their written forms are in [`capture::source::FORMS`].
const KINDS: &[ExternalKind] = &[
    ExternalKind { kind: "remote", parse: mirror::parse },
    ExternalKind { kind: "tap", parse: tap::parse },
    ExternalKind { kind: "tun", parse: tap::parse },
    ExternalKind { kind: "tls", parse: tls::parse_connecting },
    ExternalKind { kind: "tls-listen", parse: tls::parse_listening },
];

/// Parses a source from its written form.
///
/// # Errors
/// The mistake in a source of one of the kinds that this program brings, for people.
pub(crate) fn parse(text: &str) -> Result<SourceName, String> {
    let kind = text.split_once(':').map(|(kind, _)| kind);
    match KINDS.iter().find(|known| Some(known.kind) == kind) {
        Some(known) => (known.parse)(text).map(SourceName::External),
        None => Ok(SourceName::parse(text)),
    }
}

#[cfg(test)]
mod tests {
    use capture::source::FORMS;

    use super::*;

    #[test]
    fn every_kind_is_in_the_messages() {
        for kind in KINDS {
            assert!(FORMS.contains(&format!("{}:", kind.kind)), "{}", kind.kind);
        }
    }

    #[test]
    fn the_mount_helper_knows_the_forms_with_a_path() {
        let forms = FORMS.split(", ").filter_map(|form| form.strip_suffix("PATH"));
        assert!(forms.eq(mount_helper::source::PATH_KINDS), "{FORMS}");
    }

    #[test]
    fn other_sources_are_those_of_the_capture_crate() {
        for text in ["eth0", "any", "-", "file:/t.pcap", "stream:/fifo", "nflog:5"] {
            assert_eq!(parse(text), Ok(SourceName::parse(text)));
        }
    }
}
