//! `-o` lists: splits them into options, and finds out the meaning of each word.
//!
//! The text comes from `/etc/fstab` or a command line, so no text may cause a panic here.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

/// One option of a list, without its quotes and backslashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountOption {
    /// The part before the first `=`.
    pub(crate) name: String,
    /// The part after it; `None` without a `=`.
    pub(crate) value: Option<String>,
}

/// Why a list cannot be split into options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyntaxError {
    /// A `"` has no partner.
    #[error("a double quote is never closed")]
    OpenQuote,
    /// The list ends in a backslash.
    #[error("a backslash at the end has nothing to protect")]
    OpenEscape,
}

/// Splits a list at its commas.
///
/// A comma inside double quotes or after a backslash belongs to the option. A backslash removes the
/// special meaning of any character after it. Empty options are dropped, as mount(8) does.
///
/// # Errors
/// [`SyntaxError`] for a quote or a backslash that is left open.
pub(crate) fn split(list: &str) -> Result<Vec<MountOption>, SyntaxError> {
    let mut options = Vec::new();
    let mut name = String::new();
    let mut value: Option<String> = None;
    let mut quoted = false;
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        let literal = match character {
            '\\' => characters.next().ok_or(SyntaxError::OpenEscape)?,
            '"' => {
                quoted = !quoted;
                continue;
            }
            ',' if !quoted => {
                push(&mut options, std::mem::take(&mut name), value.take());
                continue;
            }
            '=' if !quoted && value.is_none() => {
                value = Some(String::new());
                continue;
            }
            other => other,
        };
        value.as_mut().unwrap_or(&mut name).push(literal);
    }
    if quoted {
        return Err(SyntaxError::OpenQuote);
    }
    push(&mut options, name, value);
    Ok(options)
}

fn push(options: &mut Vec<MountOption>, name: String, value: Option<String>) {
    if !name.is_empty() || value.is_some() {
        options.push(MountOption { name, value });
    }
}

/// The meaning of an option for this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// An option of pcapfs.
    Own(DaemonOptions),
    /// A property of the mount.
    Mount,
    /// Ignored: it is for mount(8) or systemd, or it asks for something that pcapfs always does.
    Swallowed,
    /// Asks to change an existing mount.
    Remount,
    /// An unknown option.
    Unknown,
}

/// Options that describe the capture and its daemon; each has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DaemonOptions {
    /// Name of the capture's directory.
    Alias,
    /// BPF expression.
    Filter,
    /// Bytes of the ring.
    Ring,
    /// Directory of the ring file.
    RingDir,
    /// Bytes of the kernel's buffer.
    KernelBuffer,
    /// Way in which packets are received.
    Backend,
    /// How fast frames are injected.
    Workers,
    InjectSpeed,
    /// Maximum number of bytes kept of a packet.
    Snaplen,
    /// User the daemon runs as.
    User,
    /// Group that may read the captures.
    Group,
    /// Permission bits of the captures.
    Mode,
    /// Socket of the control service.
    Socket,
    /// File of the state that outlives the daemon.
    State,
    /// Configuration file of the daemon.
    Config,
    /// Interfaces to which an XDP program may be attached for the daemon.
    Xdp,
    /// Network namespaces in which sockets may be opened for the daemon.
    Netns,
}

impl MountOption {
    /// The meaning of this option.
    ///
    /// `user` and `group` alone are words of fstab (who may mount); with a value they are options
    /// of pcapfs.
    pub(crate) fn meaning(&self) -> Meaning {
        match (self.name.as_str(), self.value.is_some()) {
            ("alias", _) => Meaning::Own(DaemonOptions::Alias),
            ("filter", _) => Meaning::Own(DaemonOptions::Filter),
            ("ring", _) => Meaning::Own(DaemonOptions::Ring),
            ("ring_dir", _) => Meaning::Own(DaemonOptions::RingDir),
            ("kernel_buffer", _) => Meaning::Own(DaemonOptions::KernelBuffer),
            ("backend", _) => Meaning::Own(DaemonOptions::Backend),
            ("workers", _) => Meaning::Own(DaemonOptions::Workers),
            ("inject_speed", _) => Meaning::Own(DaemonOptions::InjectSpeed),
            ("snaplen", _) => Meaning::Own(DaemonOptions::Snaplen),
            ("user", true) => Meaning::Own(DaemonOptions::User),
            ("group", true) => Meaning::Own(DaemonOptions::Group),
            ("mode", _) => Meaning::Own(DaemonOptions::Mode),
            ("socket", _) => Meaning::Own(DaemonOptions::Socket),
            ("state", _) => Meaning::Own(DaemonOptions::State),
            ("config", _) => Meaning::Own(DaemonOptions::Config),
            ("xdp", _) => Meaning::Own(DaemonOptions::Xdp),
            ("netns", _) => Meaning::Own(DaemonOptions::Netns),
            ("ro" | "nosuid" | "nodev" | "noexec", false) => Meaning::Mount,
            ("remount", false) => Meaning::Remount,
            ("comment", _) => Meaning::Swallowed,
            (name, _) if name.starts_with("x-") || name.starts_with("X-") => Meaning::Swallowed,
            (name, false) if SWALLOWED.contains(&name) => Meaning::Swallowed,
            _ => Meaning::Unknown,
        }
    }
}

/// Names of the options of pcapfs.
const OWN: [&str; 17] = [
    "alias",
    "filter",
    "ring",
    "ring_dir",
    "kernel_buffer",
    "backend",
    "workers",
    "inject_speed",
    "snaplen",
    "user",
    "group",
    "mode",
    "socket",
    "state",
    "config",
    "xdp",
    "netns",
];

/// Advice for an unknown option: the nearest name, or all names.
pub(crate) fn advice(name: &str) -> String {
    let nearest = OWN.into_iter().min_by_key(|own| distance(name, own));
    match nearest.filter(|own| distance(name, own) <= 2) {
        Some(own) => format!("did you mean {own}?"),
        None => format!("have: {};", OWN.join(", ")),
    }
}

/// Letters that must be changed, removed, inserted or exchanged with the next one to turn one word
/// into the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // Rows of the table of distances between prefixes: the one before the last, and the last.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, a) in one.iter().enumerate() {
        let mut next = vec![row.saturating_add(1)];
        for (column, b) in other.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX);
            let above = at(&last, column.saturating_add(1)).saturating_add(1);
            let left = at(&next, column).saturating_add(1);
            let diagonal = at(&last, column).saturating_add(usize::from(a != b));
            let mut least = above.min(left).min(diagonal);
            let previous = |line: &[char], index: usize| {
                index.checked_sub(1).and_then(|index| line.get(index).copied())
            };
            if previous(&one, row) == Some(*b) && previous(&other, column) == Some(*a) {
                least = least.min(at(&before, column.saturating_sub(1)).saturating_add(1));
            }
            next.push(least);
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().unwrap_or(0)
}

/// Words without a value that this program ignores: mount(8) "FILESYSTEM-INDEPENDENT MOUNT
/// OPTIONS", fstab(5), systemd.mount(5), and words that mount.fuse3(8) users write out of habit.
const SWALLOWED: &[&str] = &[
    // Which users may mount, and when.
    "_netdev",
    "auto",
    "noauto",
    "defaults",
    "fail",
    "nofail",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "quiet",
    // The tree has no devices and no programs, so these allow nothing.
    "rw",
    "suid",
    "dev",
    "exec",
    // Times and writing: captures have their own.
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "sync",
    "async",
    "dirsync",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "silent",
    "loud",
    // Always in force if possible.
    "allow_other",
    "default_permissions",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, value: Option<&str>) -> MountOption {
        MountOption { name: name.to_owned(), value: value.map(str::to_owned) }
    }

    #[test]
    fn a_list_is_cut_at_commas() {
        let options = split("rw,alias=web,,filter=tcp port 80,").unwrap();
        let expected = [
            option("rw", None),
            option("alias", Some("web")),
            option("filter", Some("tcp port 80")),
        ];
        assert_eq!(options, expected);
        assert_eq!(split("").unwrap(), []);
    }

    #[test]
    fn quotes_and_backslashes_keep_a_comma() {
        let one = [option("ring_dir", Some("/a,b"))];
        for list in [r#"ring_dir="/a,b""#, r"ring_dir=/a\,b", r#""ring_dir"=/"a,b""#] {
            assert_eq!(split(list).unwrap(), one, "{list}");
        }
    }

    #[test]
    fn only_the_first_equals_sign_divides() {
        let filter = [option("filter", Some("tcp[13] = 2"))];
        assert_eq!(split("filter=tcp[13] = 2").unwrap(), filter);
        assert_eq!(split(r#"filter="tcp[13] = 2""#).unwrap(), filter);
    }

    #[test]
    fn a_backslash_is_written_twice() {
        assert_eq!(
            split(r"filter=ip proto \\tcp").unwrap(),
            [option("filter", Some(r"ip proto \tcp"))]
        );
    }

    #[test]
    fn open_quotes_and_escapes_are_refused() {
        assert_eq!(split(r#"filter="tcp"#), Err(SyntaxError::OpenQuote));
        assert_eq!(split(r"ro,alias=web\"), Err(SyntaxError::OpenEscape));
    }

    #[test]
    fn distances_count_exchanged_letters_once() {
        for (one, other, expected) in [
            ("", "", 0),
            ("alais", "alias", 1),
            ("ring", "rings", 1),
            ("a", "", 1),
            ("abc", "xyz", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn words_of_fstab_are_swallowed_and_values_make_them_ours() {
        for word in ["_netdev", "nofail", "noauto", "user", "users", "owner", "group", "relatime"] {
            assert_eq!(option(word, None).meaning(), Meaning::Swallowed, "{word}");
        }
        for (name, value) in [("x-systemd.automount", None), ("comment", Some("mine"))] {
            assert_eq!(option(name, value).meaning(), Meaning::Swallowed, "{name}");
        }
        for (name, own) in [
            ("user", DaemonOptions::User),
            ("group", DaemonOptions::Group),
            ("config", DaemonOptions::Config),
        ] {
            assert_eq!(option(name, Some("x")).meaning(), Meaning::Own(own), "{name}");
        }
        assert_eq!(option("alais", Some("web")).meaning(), Meaning::Unknown);
        assert_eq!(option("rw", Some("x")).meaning(), Meaning::Unknown);
    }
}
