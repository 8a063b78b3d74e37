//! The source `remote:NAME/CAPTURE` as users write it, with its options.

use std::fmt::Write as _;

use crate::size;

/// The kind, with its colon.
pub(super) const KIND: &str = "remote:";

/// The text that says how it is written.
const FORM: &str = "write it as remote:NAME/CAPTURE, or remote:NAME/* for all of them";

/// The name that means all captures.
const ALL: &str = "*";

/// Options of such a source that are written beside it, as in a configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct MirrorWords<'a> {
    /// `oldest` or `now`.
    pub(crate) from: Option<&'a str>,
    /// `zstd` or `none`.
    pub(crate) compression: Option<&'a str>,
    /// Bytes in a second.
    pub(crate) rate: Option<u64>,
}

impl MirrorWords<'_> {
    /// A source with these options.
    pub(crate) fn after(&self, source: &str) -> String {
        let mut written = source.to_owned();
        for (name, word) in [("from", self.from), ("compression", self.compression)] {
            // Writing to a string does not fail.
            let _ = word.map(|word| write!(written, ",{name}={word}"));
        }
        let _ = self.rate.map(|rate| write!(written, ",rate={rate}"));
        written
    }
}

/// A capture of another machine, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MirrorName {
    /// Name of the remote.
    pub(super) remote: String,
    /// Name of the capture there.
    pub(super) capture: String,
    /// Begin with the next packet there, not with the oldest one.
    pub(super) from_now: bool,
    /// Have the packets compressed on the way.
    pub(super) zstd: bool,
    /// Maximum bytes of packets in a second; 0 for no maximum.
    pub(super) rate: u64,
}

impl MirrorName {
    /// Parses the whole written form.
    ///
    /// # Errors
    /// The mistake, for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{text}: {what}"));
        let Some(rest) = text.strip_prefix(KIND) else { return wrong(FORM) };
        let mut parts = rest.split(',');
        let Some((remote, capture)) = parts.next().and_then(|name| name.split_once('/')) else {
            return wrong(FORM);
        };
        let is_name = |name: &str| !name.is_empty() && !name.contains('/');
        if !is_name(remote) || !is_name(capture) || (capture.contains('*') && capture != ALL) {
            return wrong(FORM);
        }
        let mut name = Self {
            remote: remote.to_owned(),
            capture: capture.to_owned(),
            from_now: false,
            zstd: false,
            rate: 0,
        };
        for option in parts {
            match option.split_once('=') {
                Some(("from", "oldest")) => name.from_now = false,
                Some(("from", "now")) => name.from_now = true,
                Some(("compression", "none")) => name.zstd = false,
                Some(("compression", "zstd")) => name.zstd = true,
                Some(("rate", rate)) => match size::parse(rate) {
                    Ok(rate) if rate > 0 => name.rate = rate,
                    Ok(_) => return wrong("rate=0 sends nothing; leave it out for no limit"),
                    Err(error) => return wrong(&format!("rate: {error}")),
                },
                _ => {
                    return wrong(&format!(
                        "'{option}' is no option of it (have: from=oldest|now, \
                         compression=zstd|none, rate=BYTES)"
                    ));
                }
            }
        }
        Ok(name)
    }

    /// Returns true if it means all captures of the remote.
    pub(super) fn is_pattern(&self) -> bool {
        self.capture == ALL
    }

    /// The written form for one capture of the remote, with the same options.
    pub(super) fn of_capture(&self, capture: &str) -> String {
        let words = MirrorWords {
            from: self.from_now.then_some("now"),
            compression: self.zstd.then_some("zstd"),
            rate: Some(self.rate).filter(|rate| *rate > 0),
        };
        words.after(&format!("{KIND}{}/{capture}", self.remote))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_options_are_read() {
        let plain = MirrorName::parse("remote:laptop/web").unwrap();
        assert_eq!((plain.remote.as_str(), plain.capture.as_str()), ("laptop", "web"));
        assert!(!plain.from_now && !plain.zstd && plain.rate == 0);
        let all = "remote:a.b/c-d,from=now,compression=zstd,rate=10M";
        let wanted = MirrorName {
            remote: "a.b".into(),
            capture: "c-d".into(),
            from_now: true,
            zstd: true,
            rate: 10 << 20,
        };
        assert_eq!(MirrorName::parse(all), Ok(wanted));
    }

    #[test]
    fn all_captures_of_a_remote_have_its_options() {
        let all = MirrorName::parse("remote:laptop/*,rate=1k,compression=zstd").unwrap();
        assert!(all.is_pattern());
        assert_eq!(all.of_capture("web"), "remote:laptop/web,compression=zstd,rate=1024");
        let one = MirrorName::parse(&all.of_capture("web")).unwrap();
        assert_eq!(one, MirrorName { capture: "web".into(), ..all });
        assert!(!one.is_pattern());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("remote:laptop", "write it as remote:NAME/CAPTURE"),
            ("remote:/web", "write it as"),
            ("remote:laptop/", "write it as"),
            ("remote:laptop/a/b", "write it as"),
            ("remote:laptop/web*", "write it as"),
            ("remote:laptop/web,from=then", "'from=then' is no option of it (have: from="),
            ("remote:laptop/web,fast", "'fast' is no option"),
            ("remote:laptop/web,rate=0", "rate=0 sends nothing"),
            ("remote:laptop/web,rate=x", "rate: "),
        ] {
            let error = MirrorName::parse(text).unwrap_err();
            assert!(error.starts_with(text) && error.contains(part), "{error}");
        }
    }
}
