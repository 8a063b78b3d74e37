//! From the arguments mount(8) gives to what is to be done; touches nothing but its arguments.
//!
//! A [`Plan`] that exists is consistent: the alias can be a directory's name, numbers are numbers,
//! and every option was understood or may be ignored. Whether the interface, the savefile and the
//! mount point exist is for those to say who open them.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::options::{self, Meaning, MountOption, Own, SyntaxError};

/// Most bytes in an alias.
const ALIAS_MAX: usize = 64;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `-h`, `--help`.
    Help,
    /// `-V`, `--version`.
    Version,
    /// Everything else.
    Mount(Box<Plan>),
}

/// One mount, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Where to mount.
    pub(crate) directory: PathBuf,
    /// Name of the capture: `[A-Za-z0-9._-]{1,64}`, no leading dot.
    alias: String,
    /// What to capture from, as `pcapfs mount -c` takes it; without blanks.
    source: String,
    /// BPF expression; `None` for everything.
    filter: Option<String>,
    /// Size of the ring: digits and at most one of K, M, G and T.
    ring: Option<String>,
    /// Directory of the ring file.
    ring_dir: Option<String>,
    /// Most bytes kept of a packet.
    snaplen: Option<u32>,
    /// Properties of the mount that the daemon is told, such as `ro`.
    mount_options: Vec<String>,
    /// Mount namespace to mount in.
    pub(crate) namespace: Option<PathBuf>,
    /// Check everything, mount nothing.
    pub(crate) fake: bool,
    /// Say what is run.
    pub(crate) verbose: bool,
}

/// What is wrong with the arguments: each names the culprit and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("usage: mount.pcapfs SPEC DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION,...]")]
    Operands,
    #[error("{}: neither a flag nor an operand of this program (try --help)", .0.display())]
    Flag(OsString),
    #[error("-{0}: its value is missing")]
    FlagValue(char),
    #[error("{}: not UTF-8", .0.display())]
    Encoding(OsString),
    #[error("{0}: no such type (have: pcapfs, fuse.pcapfs)")]
    Type(String),
    #[error("-o {0}: {1}")]
    Syntax(String, SyntaxError),
    #[error("-o {0}: unknown option (-s ignores those)")]
    Unknown(String),
    #[error("-o {0}: not in this version; leave it out, or ignore it with -s")]
    Later(String),
    #[error("-o remount: cannot change what is mounted; unmount it and mount it again")]
    Remount,
    #[error("-o {0}: its value is missing; write {0}=VALUE")]
    Value(&'static str),
    #[error("-o alias={0}: an alias is 1 to 64 of A-Z a-z 0-9 . _ - and begins with no dot")]
    Alias(String),
    #[error("-o ring={0}: write a size as 512K, 64M or 2G")]
    Size(String),
    #[error("-o snaplen={0}: a number of bytes from 1 to 4294967295 is needed")]
    Snaplen(String),
    #[error("none: needs config=FILE, which is not in this version; name an interface instead")]
    NoSource,
    #[error("-: standard input cannot be mounted in the background; use stream:PATH with a FIFO")]
    StandardInput,
    #[error("{0:?}: a source with blanks in it cannot be mounted; give it a name without")]
    Blank(String),
}

impl Request {
    /// Reads the arguments behind the program's name.
    ///
    /// Flags and operands come in any order, `--` ends the flags, `-o` may be repeated.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn from_arguments(
        arguments: impl Iterator<Item = OsString>,
    ) -> Result<Self, UsageError> {
        let mut line = CommandLine::default();
        let mut arguments = arguments;
        let mut only_operands = false;
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--") if !only_operands => only_operands = true,
                Some("--help") if !only_operands => return Ok(Self::Help),
                Some("--version") if !only_operands => return Ok(Self::Version),
                Some(flags) if !only_operands && flags.len() > 1 && flags.starts_with('-') => {
                    if let Some(answer) = line.flags(flags, &mut arguments)? {
                        return Ok(answer);
                    }
                }
                _ => line.operands.push(argument),
            }
        }
        line.plan().map(|plan| Self::Mount(Box::new(plan)))
    }
}

/// What was typed, before it means anything.
#[derive(Debug, Default)]
struct CommandLine {
    operands: Vec<OsString>,
    options: Vec<String>,
    kind: Option<String>,
    namespace: Option<OsString>,
    sloppy: bool,
    fake: bool,
    verbose: bool,
}

impl CommandLine {
    /// Takes one argument of flags such as `-sv` or `-oro`, and the next one if a flag needs it.
    fn flags(
        &mut self,
        flags: &str,
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<Option<Request>, UsageError> {
        let mut letters = flags.chars();
        letters.next();
        while let Some(letter) = letters.next() {
            match letter {
                's' => self.sloppy = true,
                'f' => self.fake = true,
                'v' => self.verbose = true,
                // There is no mtab to keep out of.
                'n' => {}
                'h' => return Ok(Some(Request::Help)),
                'V' => return Ok(Some(Request::Version)),
                'o' | 't' | 'N' => {
                    let value = match letters.as_str() {
                        "" => rest.next().ok_or(UsageError::FlagValue(letter))?,
                        joined => joined.into(),
                    };
                    self.valued(letter, value)?;
                    return Ok(None);
                }
                _ => return Err(UsageError::Flag(flags.into())),
            }
        }
        Ok(None)
    }

    fn valued(&mut self, letter: char, value: OsString) -> Result<(), UsageError> {
        match letter {
            'o' => self.options.push(text(value)?),
            't' => self.kind = Some(text(value)?),
            _ => self.namespace = Some(value),
        }
        Ok(())
    }

    /// Says what the line means.
    fn plan(self) -> Result<Plan, UsageError> {
        let [spec, directory] =
            <[OsString; 2]>::try_from(self.operands).map_err(|_| UsageError::Operands)?;
        if let Some(kind) = self.kind
            && !["pcapfs", "fuse.pcapfs"].contains(&kind.as_str())
        {
            return Err(UsageError::Type(kind));
        }
        let mut chosen = Chosen::default();
        for list in self.options {
            match options::split(&list) {
                Ok(options) => {
                    options.into_iter().try_for_each(|option| chosen.take(option, self.sloppy))?;
                }
                Err(error) => return Err(UsageError::Syntax(list, error)),
            }
        }
        let source = source(text(spec)?)?;
        let alias = match chosen.alias {
            Some(alias) if is_alias(&alias) => alias,
            Some(alias) => return Err(UsageError::Alias(alias)),
            None => default_alias(&source),
        };
        Ok(Plan {
            directory: operand(directory),
            alias,
            source,
            filter: chosen.filter.filter(|filter| !filter.trim().is_empty()),
            ring: chosen.ring,
            ring_dir: chosen.ring_dir,
            snaplen: chosen.snaplen,
            mount_options: chosen.mount_options,
            namespace: self.namespace.as_deref().map(namespace),
            fake: self.fake,
            verbose: self.verbose,
        })
    }
}

/// What the `-o` lists choose; of an option that is given twice the last one counts.
#[derive(Debug, Default)]
struct Chosen {
    alias: Option<String>,
    filter: Option<String>,
    ring: Option<String>,
    ring_dir: Option<String>,
    snaplen: Option<u32>,
    mount_options: Vec<String>,
}

impl Chosen {
    fn take(&mut self, option: MountOption, sloppy: bool) -> Result<(), UsageError> {
        match option.meaning() {
            Meaning::Own(own) => return self.own(own, option.value),
            Meaning::Mount => self.mount_options.push(option.name),
            Meaning::Swallowed => {}
            Meaning::Remount => return Err(UsageError::Remount),
            Meaning::Later | Meaning::Unknown if sloppy => {}
            Meaning::Later => return Err(UsageError::Later(option.name + "=")),
            Meaning::Unknown => return Err(UsageError::Unknown(option.name)),
        }
        Ok(())
    }

    fn own(&mut self, own: Own, value: Option<String>) -> Result<(), UsageError> {
        let needed =
            |name| value.clone().filter(|value| !value.is_empty()).ok_or(UsageError::Value(name));
        match own {
            Own::Alias => self.alias = Some(needed("alias")?),
            // An empty filter is one that lets everything pass.
            Own::Filter => self.filter = Some(value.ok_or(UsageError::Value("filter"))?),
            Own::Ring => self.ring = Some(size(needed("ring")?)?),
            Own::RingDir => self.ring_dir = Some(needed("ring_dir")?),
            Own::Snaplen => self.snaplen = Some(snaplen(needed("snaplen")?)?),
        }
        Ok(())
    }
}

impl Plan {
    /// The arguments `pcapfs` is run with.
    pub(crate) fn daemon_arguments(&self) -> Vec<OsString> {
        let mut capture = format!("{}={}", self.alias, self.source);
        if let Some(filter) = &self.filter {
            capture.push(' ');
            capture.push_str(filter);
        }
        let mut arguments: Vec<OsString> =
            vec!["mount".into(), self.directory.clone().into(), "-c".into(), capture.into()];
        let snaplen = self.snaplen.map(|snaplen| snaplen.to_string());
        for (flag, value) in
            [("--ring", &self.ring), ("--ring-dir", &self.ring_dir), ("--snaplen", &snaplen)]
        {
            if let Some(value) = value {
                arguments.extend([flag.into(), value.into()]);
            }
        }
        if !self.mount_options.is_empty() {
            arguments.extend(["-o".into(), self.mount_options.join(",").into()]);
        }
        arguments.push("--background".into());
        arguments
    }
}

/// A path that cannot be taken for a flag.
fn operand(path: OsString) -> PathBuf {
    match path.as_encoded_bytes() {
        [b'-', ..] => Path::new(".").join(path),
        _ => path.into(),
    }
}

fn text(argument: OsString) -> Result<String, UsageError> {
    argument.into_string().map_err(UsageError::Encoding)
}

/// The SPEC as a source `pcapfs mount` takes behind an alias.
fn source(spec: String) -> Result<String, UsageError> {
    match spec.as_str() {
        "" => Ok("any".to_owned()),
        "none" => Err(UsageError::NoSource),
        "-" => Err(UsageError::StandardInput),
        // Behind an alias the source ends at the first blank, and the filter begins.
        blank if blank.contains(char::is_whitespace) => Err(UsageError::Blank(spec)),
        _ => Ok(spec),
    }
}

/// The name `pcapfs` itself would choose: the interface's, or the file's without its extension,
/// with `_` for what an alias cannot have.
fn default_alias(source: &str) -> String {
    let path = source.strip_prefix("file:").or_else(|| source.strip_prefix("stream:"));
    let name = path.map_or(source, |path| {
        Path::new(path).file_stem().and_then(OsStr::to_str).unwrap_or_default()
    });
    let mut alias: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .take(ALIAS_MAX)
        .collect();
    if alias.starts_with('.') {
        alias.replace_range(..1, "_");
    }
    if alias.is_empty() { "capture".to_owned() } else { alias }
}

fn is_alias(name: &str) -> bool {
    (1..=ALIAS_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn size(value: String) -> Result<String, UsageError> {
    let (digits, unit) =
        value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
    let unit_is_known =
        ["", "K", "M", "G", "T"].iter().any(|known| unit.eq_ignore_ascii_case(known));
    match digits.parse::<u64>() {
        Ok(1..) if unit_is_known => Ok(value),
        _ => Err(UsageError::Size(value)),
    }
}

fn snaplen(value: String) -> Result<u32, UsageError> {
    match value.parse() {
        Ok(bytes @ 1..) => Ok(bytes),
        _ => Err(UsageError::Snaplen(value)),
    }
}

/// mount(8) takes a namespace as a path or as the number of a process that lives in it.
fn namespace(value: &OsStr) -> PathBuf {
    match value.to_str().and_then(|number| number.parse::<u32>().ok()) {
        Some(process) => format!("/proc/{process}/ns/mnt").into(),
        None => value.into(),
    }
}

#[cfg(test)]
mod tests;
