//! Turns the arguments from mount(8) into a plan. It reads nothing but the arguments, except that
//! it looks whether the default configuration exists if none is named.
//!
//! A [`MountPlan`] is consistent: the alias can be a directory's name, numbers are numbers, and
//! every option was understood or may be ignored. Whether the interface, the savefile and the mount
//! point exist is checked when they are opened.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use mount_helper::source::PATH_KINDS;
use mount_helper::{netns, xdp};

use crate::options::{self, DaemonOptions, Meaning, MountOption, SyntaxError};

/// Maximum number of bytes of an alias.
const ALIAS_MAX: usize = 64;

/// The configuration if there is no source and none is named; the daemon has the same.
const CONFIG: &str = "/etc/pcapfs/pcapfs.toml";

/// The request of the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MountRequest {
    /// `-h`, `--help`.
    Help,
    /// `-V`, `--version`.
    Version,
    /// Any other request.
    Mount(Box<MountPlan>),
}

/// One mount, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountPlan {
    /// The mount point.
    pub(crate) directory: PathBuf,
    /// SPEC as it was given, for the first column of `/proc/mounts`: mount(8) compares that with
    /// the first column of fstab.
    pub(crate) spec: String,
    /// The capture to start with; `None` if the configuration file has them all.
    capture: Option<CaptureRequest>,
    /// Size of the ring: digits and at most one of K, M, G and T.
    ring: Option<String>,
    /// Bytes of the kernel's buffer, in the same form.
    kernel_buffer: Option<String>,
    backend: Option<String>,
    workers: Option<String>,
    inject_speed: Option<String>,
    /// Directory of the ring file.
    pub(crate) ring_dir: Option<PathBuf>,
    /// Maximum number of bytes kept of a packet.
    snaplen: Option<u32>,
    /// Group that may read the captures.
    group: Option<String>,
    /// Permission bits of the captures, octal.
    mode: Option<String>,
    /// Socket of the control service.
    socket: Option<PathBuf>,
    /// File of the state that outlives the daemon.
    state: Option<PathBuf>,
    /// Configuration file.
    config: Option<PathBuf>,
    /// User the daemon runs as, if named.
    user: Option<String>,
    /// Interfaces to which an XDP program may be attached for the daemon.
    pub(crate) xdp: Vec<String>,
    /// Network namespaces in which sockets may be opened for the daemon, or [`netns::ANY`].
    pub(crate) netns: Vec<String>,
    /// Properties of the mount, such as `ro`.
    pub(crate) mount_options: Vec<String>,
    /// Mount namespace to mount in.
    pub(crate) namespace: Option<PathBuf>,
    /// Check everything, mount nothing.
    pub(crate) fake: bool,
    /// Print the commands that are run.
    pub(crate) verbose: bool,
    /// The role of this process.
    pub(crate) role: ProcessRole,
}

/// The source and filter of a capture.
#[derive(Debug, PartialEq, Eq)]
struct CaptureRequest {
    /// Its name: `[A-Za-z0-9._-]{1,64}`, no leading dot; `None` if the daemon chooses it.
    alias: Option<String>,
    /// In the form of `pcapfs mount -c`; without blanks.
    source: String,
    /// BPF expression; `None` for everything.
    filter: Option<String>,
}

/// The role of this process: mount(8) waits for one process that ends when the tree answers, while
/// another supervises the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProcessRole {
    /// The process that mount(8) waits for.
    #[default]
    Front,
    /// Supervises in the foreground, for a program that watches it, such as systemd:
    /// `--foreground`.
    Foreground,
    /// Supervises, and reports to a [`ProcessRole::Front`] over standard output: `--supervise`.
    Background,
}

/// User the daemon runs as if none is named.
const USER: &str = "pcapfs";

/// A mistake in the arguments: each message names the culprit and what to write instead.
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
    #[error("-o {0}: unknown option ({advice} -s ignores those)", advice = options::advice(.0))]
    Unknown(String),
    #[error("-o remount: cannot change what is mounted; unmount it and mount it again")]
    Remount,
    #[error("-o {0}: its value is missing; write {0}=VALUE")]
    Value(&'static str),
    #[error("-o alias={0}: an alias is 1 to 64 of A-Z a-z 0-9 . _ - and begins with no dot")]
    Alias(String),
    #[error("-o {0}={1}: write a size as 512K, 64M or 2G")]
    Size(&'static str, String),
    #[error("-o xdp={0}: write names of interfaces, with colons between them")]
    Xdp(String),
    #[error(
        "-o netns={0}: write names, processes or paths of namespaces, with colons between them"
    )]
    Netns(String),
    #[error("-o snaplen={0}: a number of bytes from 1 to 4294967295 is needed")]
    Snaplen(String),
    #[error("-o mode={0}: write permission bits as 0750 or 750")]
    Mode(String),
    #[error("none: without a source, a configuration file is needed: {CONFIG}, or -o config=FILE")]
    NoSource,
    #[error("-o {0}=: describes a capture, and the source is none")]
    NoCapture(&'static str),
    #[error("-: standard input cannot be mounted in the background; use stream:PATH with a FIFO")]
    StandardInput,
    #[error("{0:?}: a source with blanks in it cannot be mounted; give it a name without")]
    Blank(String),
}

/// The flag for [`ProcessRole::Background`]; not for people.
pub(crate) const SUPERVISE: &str = "--supervise";

impl MountRequest {
    /// Reads the arguments after the program's name.
    ///
    /// Flags and operands come in any order, `--` ends the flags, `-o` may be repeated.
    ///
    /// # Errors
    /// The first mistake.
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
                Some("--foreground") if !only_operands => line.role = ProcessRole::Foreground,
                Some(SUPERVISE) if !only_operands => line.role = ProcessRole::Background,
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

/// The arguments before they are interpreted.
#[derive(Debug, Default)]
struct CommandLine {
    operands: Vec<OsString>,
    options: Vec<String>,
    kind: Option<String>,
    namespace: Option<OsString>,
    sloppy: bool,
    fake: bool,
    verbose: bool,
    role: ProcessRole,
}

impl CommandLine {
    /// Reads one argument of flags such as `-sv` or `-oro`, and the next one if a flag needs a
    /// value.
    fn flags(
        &mut self,
        flags: &str,
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<Option<MountRequest>, UsageError> {
        let mut letters = flags.chars();
        letters.next();
        while let Some(letter) = letters.next() {
            match letter {
                's' => self.sloppy = true,
                'f' => self.fake = true,
                'v' => self.verbose = true,
                // There is no mtab to write to.
                'n' => {}
                'h' => return Ok(Some(MountRequest::Help)),
                'V' => return Ok(Some(MountRequest::Version)),
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

    /// Interprets the command line.
    fn plan(self) -> Result<MountPlan, UsageError> {
        let [spec, directory] =
            <[OsString; 2]>::try_from(self.operands).map_err(|_| UsageError::Operands)?;
        if let Some(kind) = self.kind
            && !["pcapfs", "fuse.pcapfs"].contains(&kind.as_str())
        {
            return Err(UsageError::Type(kind));
        }
        let mut chosen = ChosenOptions::default();
        for list in self.options {
            match options::split(&list) {
                Ok(options) => {
                    options.into_iter().try_for_each(|option| chosen.take(option, self.sloppy))?;
                }
                Err(error) => return Err(UsageError::Syntax(list, error)),
            }
        }
        let spec = text(spec)?;
        Ok(MountPlan {
            directory: operand(directory),
            capture: chosen.capture(&spec)?,
            xdp: chosen.xdp(&spec),
            netns: chosen.netns(&spec),
            spec,
            ring: chosen.ring,
            kernel_buffer: chosen.kernel_buffer,
            backend: chosen.backend,
            workers: chosen.workers,
            inject_speed: chosen.inject_speed,
            ring_dir: chosen.ring_dir,
            snaplen: chosen.snaplen,
            group: chosen.group,
            mode: chosen.mode,
            socket: chosen.socket,
            state: chosen.state,
            config: chosen.config,
            user: chosen.user,
            mount_options: chosen.mount_options,
            namespace: self.namespace.as_deref().map(namespace),
            fake: self.fake,
            verbose: self.verbose,
            role: self.role,
        })
    }
}

/// The choices of the `-o` lists; if an option is given twice, the last one counts.
#[derive(Debug, Default)]
struct ChosenOptions {
    alias: Option<String>,
    filter: Option<String>,
    ring: Option<String>,
    kernel_buffer: Option<String>,
    backend: Option<String>,
    workers: Option<String>,
    inject_speed: Option<String>,
    ring_dir: Option<PathBuf>,
    snaplen: Option<u32>,
    group: Option<String>,
    mode: Option<String>,
    socket: Option<PathBuf>,
    state: Option<PathBuf>,
    config: Option<PathBuf>,
    user: Option<String>,
    xdp: Vec<String>,
    netns: Vec<String>,
    mount_options: Vec<String>,
}

impl ChosenOptions {
    fn take(&mut self, option: MountOption, sloppy: bool) -> Result<(), UsageError> {
        match option.meaning() {
            Meaning::Own(own) => return self.own(own, option.value),
            Meaning::Mount => self.mount_options.push(option.name),
            Meaning::Swallowed => {}
            Meaning::Remount => return Err(UsageError::Remount),
            Meaning::Unknown if sloppy => {}
            Meaning::Unknown => return Err(UsageError::Unknown(option.name)),
        }
        Ok(())
    }

    fn own(&mut self, own: DaemonOptions, value: Option<String>) -> Result<(), UsageError> {
        let needed =
            |name| value.clone().filter(|value| !value.is_empty()).ok_or(UsageError::Value(name));
        match own {
            DaemonOptions::Alias => self.alias = Some(needed("alias")?),
            // An empty filter lets every packet pass.
            DaemonOptions::Filter => self.filter = Some(value.ok_or(UsageError::Value("filter"))?),
            DaemonOptions::Ring => self.ring = Some(size("ring", needed("ring")?)?),
            DaemonOptions::KernelBuffer => {
                self.kernel_buffer = Some(size("kernel_buffer", needed("kernel_buffer")?)?);
            }
            // The daemon knows which backends, threads and speeds there are.
            DaemonOptions::Backend => self.backend = Some(needed("backend")?),
            DaemonOptions::Workers => self.workers = Some(needed("workers")?),
            DaemonOptions::InjectSpeed => self.inject_speed = Some(needed("inject_speed")?),
            DaemonOptions::RingDir => self.ring_dir = Some(needed("ring_dir")?.into()),
            DaemonOptions::Snaplen => self.snaplen = Some(snaplen(needed("snaplen")?)?),
            DaemonOptions::User => self.user = Some(needed("user")?),
            DaemonOptions::Group => self.group = Some(needed("group")?),
            DaemonOptions::Mode => self.mode = Some(mode(needed("mode")?)?),
            DaemonOptions::Socket => self.socket = Some(needed("socket")?.into()),
            DaemonOptions::State => self.state = Some(needed("state")?.into()),
            DaemonOptions::Config => self.config = Some(needed("config")?.into()),
            DaemonOptions::Xdp => self.xdp = interfaces(&needed("xdp")?)?,
            DaemonOptions::Netns => self.netns = namespaces(&needed("netns")?)?,
        }
        Ok(())
    }

    /// The interfaces of the option `xdp`, and that of SPEC if it is a source of this kind.
    fn xdp(&mut self, spec: &str) -> Vec<String> {
        let mut interfaces = std::mem::take(&mut self.xdp);
        interfaces.extend(xdp::interface(spec).map(str::to_owned));
        interfaces
    }

    /// The namespaces of the option `netns`, and that of SPEC if it is a source of this kind.
    fn netns(&mut self, spec: &str) -> Vec<String> {
        let mut namespaces = std::mem::take(&mut self.netns);
        namespaces.extend(netns::namespace(spec).map(str::to_owned));
        namespaces
    }

    /// The capture of SPEC and the options about it; `None` for `none`.
    fn capture(&mut self, spec: &str) -> Result<Option<CaptureRequest>, UsageError> {
        let (alias, filter) = (self.alias.take(), self.filter.take());
        let source = match spec {
            "none" if alias.is_some() => return Err(UsageError::NoCapture("alias")),
            "none" if filter.is_some() => return Err(UsageError::NoCapture("filter")),
            "none" if self.config.is_none() && !Path::new(CONFIG).exists() => {
                return Err(UsageError::NoSource);
            }
            "none" => {
                self.config.get_or_insert_with(|| CONFIG.into());
                return Ok(None);
            }
            "" => "any",
            "-" => return Err(UsageError::StandardInput),
            // After an alias, the source ends at the first blank, and the filter begins.
            blank if blank.contains(char::is_whitespace) => {
                return Err(UsageError::Blank(spec.to_owned()));
            }
            _ => spec,
        };
        if let Some(alias) = alias.as_ref().filter(|alias| !is_alias(alias)) {
            return Err(UsageError::Alias(alias.clone()));
        }
        let filter = filter.filter(|filter| !filter.trim().is_empty());
        Ok(Some(CaptureRequest { alias, source: source.to_owned(), filter }))
    }
}

impl MountPlan {
    /// The user that the daemon will run as.
    pub(crate) fn user(&self) -> &str {
        self.user.as_deref().unwrap_or(USER)
    }

    /// Makes every path of the plan valid in any directory; relative paths start at `base`. Links
    /// in [`MountPlan::directory`] are kept: it may be in another namespace.
    pub(crate) fn settle(&mut self, base: &Path) {
        let paths = [&mut self.ring_dir, &mut self.socket, &mut self.state, &mut self.config];
        for path in paths.into_iter().flatten() {
            *path = base.join(&path);
        }
        self.directory = base.join(&self.directory);
        let Some(CaptureRequest { source, .. }) = &mut self.capture else { return };
        for kind in PATH_KINDS {
            // A directory that is no text cannot be part of a source. Then the path stays relative,
            // and the daemon reports that there is no such file.
            let settled = source
                .strip_prefix(kind)
                .and_then(|path| Some(format!("{kind}{}", base.join(path).to_str()?)));
            *source = settled.unwrap_or_else(|| std::mem::take(source));
        }
    }

    /// The arguments for `pcapfs`.
    pub(crate) fn daemon_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["mount".into(), self.directory.clone().into()];
        if let Some(CaptureRequest { alias, source, filter }) = &self.capture {
            let filter = filter.as_ref().map(|filter| format!(" {filter}")).unwrap_or_default();
            arguments.push(match alias {
                Some(alias) => format!("--capture={alias}={source}{filter}").into(),
                None => format!("--unnamed={source}{filter}").into(),
            });
        }
        let text = |value: &Option<String>| value.clone().map(OsString::from);
        let path = |value: &Option<PathBuf>| value.clone().map(OsString::from);
        for (flag, value) in [
            ("--config", path(&self.config)),
            ("--ring", text(&self.ring)),
            ("--ring-dir", path(&self.ring_dir)),
            ("--kernel-buffer", text(&self.kernel_buffer)),
            ("--backend", text(&self.backend)),
            ("--workers", text(&self.workers)),
            ("--inject-speed", text(&self.inject_speed)),
            ("--snaplen", self.snaplen.map(|snaplen| snaplen.to_string().into())),
            ("--group", text(&self.group)),
            ("--mode", text(&self.mode)),
            ("--socket", path(&self.socket)),
            ("--state", path(&self.state)),
        ] {
            if let Some(value) = value {
                // In one word, so that a value that begins with a hyphen is no flag.
                let mut word = OsString::from(flag);
                word.push("=");
                word.push(value);
                arguments.push(word);
            }
        }
        arguments
    }

    /// The arguments for a daemon that mounts by itself and goes to the background, as users other
    /// than root run it.
    pub(crate) fn own_mount_arguments(&self) -> Vec<OsString> {
        let mut arguments = self.daemon_arguments();
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

fn is_alias(name: &str) -> bool {
    (1..=ALIAS_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn size(name: &'static str, value: String) -> Result<String, UsageError> {
    let (digits, unit) =
        value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
    let unit_is_known =
        ["", "K", "M", "G", "T"].iter().any(|known| unit.eq_ignore_ascii_case(known));
    match digits.parse::<u64>() {
        Ok(1..) if unit_is_known => Ok(value),
        _ => Err(UsageError::Size(name, value)),
    }
}

/// Reads names of interfaces with colons between them.
fn interfaces(value: &str) -> Result<Vec<String>, UsageError> {
    let names: Vec<String> = value.split(':').map(str::to_owned).collect();
    let are_names = names.iter().all(|name| xdp::is_name(name));
    if are_names { Ok(names) } else { Err(UsageError::Xdp(value.to_owned())) }
}

/// Reads namespaces with colons between them.
fn namespaces(value: &str) -> Result<Vec<String>, UsageError> {
    let names: Vec<String> = value.split(':').map(str::to_owned).collect();
    let are_names = names.iter().all(|name| netns::is_namespace(name));
    if are_names { Ok(names) } else { Err(UsageError::Netns(value.to_owned())) }
}

fn snaplen(value: String) -> Result<u32, UsageError> {
    match value.parse() {
        Ok(bytes @ 1..) => Ok(bytes),
        _ => Err(UsageError::Snaplen(value)),
    }
}

fn mode(value: String) -> Result<String, UsageError> {
    match u32::from_str_radix(&value, 8) {
        Ok(bits) if bits <= 0o777 && !value.starts_with('+') => Ok(value),
        _ => Err(UsageError::Mode(value)),
    }
}

/// mount(8) accepts a namespace as a path, or as the number of a process in it.
fn namespace(value: &OsStr) -> PathBuf {
    match value.to_str().and_then(|number| number.parse::<u32>().ok()) {
        Some(process) => format!("/proc/{process}/ns/mnt").into(),
        None => value.into(),
    }
}

#[cfg(test)]
mod tests;
