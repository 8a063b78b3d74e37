//! The configuration file: read once and checked once; it is accepted as a whole or not at all.
//!
//! [`raw`] has the values as they are written, this module their meaning. A mistake that can be
//! found before anything is opened is an error with the file, the line, the mistake, and how to fix
//! it.

mod raw;
pub(crate) mod remote;
mod values;

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use capture::filter::Filter;
use capture::flow;
use capture::pipeline::{Spec, is_alias};
use capture::ring::{Geometry, Permissions};
use nix::unistd::geteuid;
use toml::Spanned;

use self::remote::RemoteSettings;
use crate::fs::captures::RESERVED;
use crate::fs::{group_id, user_id};
use crate::mirror::MirrorWords;
use crate::settings::{CaptureSettings, KERNEL_BUFFERS, LEAST_FLOW_MEMORY, flow_limits};
use crate::sources;
use values::UserOrGroup;

/// The default path of the configuration.
pub(crate) const DEFAULT: &str = "/etc/pcapfs/pcapfs.toml";

/// Bytes of the largest file that is read: some ten thousand captures.
const MAX_FILE: u64 = 4 << 20;

/// Maximum number of bytes of one packet: libpcap's `MAXIMUM_SNAPLEN`.
const MAX_SNAPLEN: u64 = 262_144;

/// A mistake in a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}{what}", path = .path.display(),
    line = .line.map_or_else(|| " ".to_owned(), |line| format!("{line}: ")))]
pub(crate) struct ConfigError {
    path: PathBuf,
    /// From 1; `None` for the file as a whole.
    line: Option<usize>,
    /// The mistake, and how to fix it.
    what: String,
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    path: PathBuf,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) ring_dir: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    /// Defaults for captures made by `init`.
    pub(crate) settings: CaptureSettings,
    pub(crate) captures: Vec<Configured>,
    /// The service for other machines; without it there is none.
    pub(crate) remote: Option<RemoteSettings>,
}

/// One `[[capture]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configured {
    pub(crate) spec: Spec,
    pub(crate) permissions: Permissions,
    /// True if the file sets any of the permissions.
    pub(crate) is_explicit: bool,
    /// The line where it begins in the file, from 1.
    pub(crate) line: usize,
}

/// Checks that only this user and root can write the configuration.
fn check_owner(metadata: &Metadata) -> Result<(), String> {
    let uid = metadata.uid();
    if uid != 0 && uid != geteuid().as_raw() {
        return Err(format!("not obeyed: it belongs to user {uid} (chown it to root)"));
    }
    if metadata.is_file() && metadata.mode() & 0o022 != 0 {
        return Err("not obeyed: other users may write to it (chmod go-w it)".to_owned());
    }
    Ok(())
}

impl Config {
    /// Reads a file. `base` has the values for keys that the file does not set; `ring_dir` is the
    /// directory of rings if neither the file nor the command line sets it.
    ///
    /// # Errors
    /// [`ConfigError`], the first mistake.
    pub(crate) fn load(
        path: &Path,
        base: &CaptureSettings,
        ring_dir: RingDir<'_>,
    ) -> Result<Self, ConfigError> {
        let failure = |what: String| ConfigError { path: path.to_owned(), line: None, what };
        let unread = |error: io::Error| {
            let is_missing = error.kind() == io::ErrorKind::NotFound;
            let advice =
                if is_missing { " (write one, see pcapfs.toml(5), or name another)" } else { "" };
            failure(format!("the configuration cannot be read: {error}{advice}"))
        };
        let mut file = File::open(path).map_err(unread)?;
        let metadata = file.metadata().map_err(unread)?;
        let length = metadata.len();
        if length > MAX_FILE {
            return Err(failure(format!("{length} bytes are no configuration")));
        }
        check_owner(&metadata).map_err(failure)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unread)?;
        Self::parse(path, &text, base, ring_dir)
    }

    fn parse(
        path: &Path,
        text: &str,
        base: &CaptureSettings,
        ring_dir: RingDir<'_>,
    ) -> Result<Self, ConfigError> {
        let reader = ConfigurationReader { path, text };
        let file: raw::ConfigurationFile =
            toml::from_str(text).map_err(|error| reader.syntax(&error))?;
        let (settings, _) = reader.settings(base, &file.defaults)?;
        let folder = |value: Option<&Spanned<PathBuf>>| {
            value.map(|value| reader.whole_path(value)).transpose()
        };
        let own_ring_dir = folder(file.ring_dir.as_ref())?;
        let ring_dir = match ring_dir {
            RingDir::Given(path) => path,
            RingDir::Default(path) => own_ring_dir.as_deref().unwrap_or(path),
        };
        let mut captures: Vec<Configured> = Vec::new();
        for capture in &file.capture {
            let configured = reader.capture(capture, &settings, &file.defaults, ring_dir)?;
            let alias = &configured.spec.alias;
            if let Some(other) = captures.iter().find(|other| other.spec.alias == *alias) {
                let what = format!(
                    "alias '{alias}' is taken (by the capture in line {}); choose another",
                    other.line
                );
                return Err(reader.at(capture.span().start, what));
            }
            captures.push(configured);
        }
        Ok(Self {
            path: path.to_owned(),
            socket: folder(file.socket.as_ref())?,
            ring_dir: own_ring_dir.clone(),
            state: folder(file.state.as_ref())?,
            settings,
            captures,
            remote: file.remote.as_ref().map(|table| reader.remote(table)).transpose()?,
        })
    }

    /// The error for a capture that cannot be made as configured.
    pub(crate) fn error(&self, configured: &Configured, what: String) -> ConfigError {
        ConfigError { path: self.path.clone(), line: Some(configured.line), what }
    }
}

/// The directory of rings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RingDir<'a> {
    /// Set on the command line, which overrides the file.
    Given(&'a Path),
    /// The default if the file does not set it.
    Default(&'a Path),
}

/// A file that is being read.
struct ConfigurationReader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl ConfigurationReader<'_> {
    /// An error in the line at this offset.
    fn at(&self, offset: usize, what: String) -> ConfigError {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        ConfigError { path: self.path.to_owned(), line: Some(line), what }
    }

    fn wrong<T>(&self, value: &Spanned<T>, what: String) -> ConfigError {
        self.at(value.span().start, what)
    }

    /// A path that is valid in every directory.
    fn whole_path(&self, value: &Spanned<PathBuf>) -> Result<PathBuf, ConfigError> {
        let path = value.get_ref();
        if path.is_absolute() {
            return Ok(path.clone());
        }
        Err(self.wrong(value, format!("{}: write the whole path, from /", path.display())))
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let mut what = error.message().lines().collect::<Vec<_>>().join(", ");
        let before = error.span().and_then(|span| self.text.get(span));
        if before.is_some_and(|text| text.trim_start().starts_with("[capture]")) {
            what = "a capture begins with [[capture]], in two brackets".to_owned();
        }
        match error.span() {
            Some(span) => {
                // An offset after the value, at the end of a line, must not count as the next line.
                let line = self.text.get(span.clone()).unwrap_or_default();
                let blank = line.len() - line.trim_start().len();
                self.at(span.start + blank.min(line.len().saturating_sub(1)), what)
            }
            None => ConfigError { path: self.path.to_owned(), line: None, what },
        }
    }

    /// The settings of a table applied over `base`, and whether it sets permissions.
    fn settings(
        &self,
        base: &CaptureSettings,
        raw: &raw::DefaultsTable,
    ) -> Result<(CaptureSettings, bool), ConfigError> {
        let mut settings = base.clone();
        if let Some(snaplen) = &raw.snaplen {
            let given = snaplen.get_ref().0;
            let fits = (1..=MAX_SNAPLEN).contains(&given).then(|| u32::try_from(given).ok());
            settings.snaplen = fits.flatten().ok_or_else(|| {
                self.wrong(snaplen, format!("snaplen: {given} is not in 1 to {MAX_SNAPLEN}"))
            })?;
        }
        if let Some(promiscuous) = &raw.promiscuous {
            settings.promiscuous = *promiscuous.get_ref();
        }
        if let Some(ring) = &raw.ring {
            settings.ring = Some(ring.get_ref().0);
        }
        if let Some(ring) = raw.ring.as_ref().or(raw.snaplen.as_ref()) {
            Geometry::new(settings.ring_size(), settings.snaplen)
                .map_err(|bad| self.wrong(ring, format!("ring: {bad}")))?;
        }
        if let Some(buffer) = &raw.kernel_buffer {
            let given = buffer.get_ref().0;
            if !KERNEL_BUFFERS.contains(&given) {
                let what = format!("kernel_buffer: {given} bytes are not in 512K to 2047M");
                return Err(self.wrong(buffer, what));
            }
            settings.kernel_buffer = Some(given);
        }
        if let Some(speed) = &raw.inject_speed {
            settings.inject_speed = speed.get_ref().0;
        }
        if let Some(workers) = &raw.workers {
            settings.workers = workers.get_ref().0;
        }
        if let Some(backend) = &raw.backend {
            settings.backend = backend.get_ref().0;
        }
        if let Some(export_keys) = &raw.export_keys {
            settings.export_keys = *export_keys.get_ref();
        }
        if let Some(precision) = &raw.precision {
            settings.precision = precision.get_ref().0;
        }
        self.flows(&mut settings.flows, raw)?;
        let permissions = &mut settings.permissions;
        if let Some(owner) = &raw.owner {
            permissions.uid = self.id(owner, "user", user_id)?;
        }
        if let Some(group) = &raw.group {
            permissions.gid = self.id(group, "group", group_id)?;
        }
        if let Some(mode) = &raw.mode {
            permissions.mode = mode.get_ref().0;
        }
        let is_explicit = raw.owner.is_some() || raw.group.is_some() || raw.mode.is_some();
        Ok((settings, is_explicit))
    }

    fn flows(
        &self,
        flows: &mut flow::FlowOptions,
        raw: &raw::DefaultsTable,
    ) -> Result<(), ConfigError> {
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let mut limits = (flows.limits.flows, flows.limits.memory);
        if let Some(memory) = &raw.flow_memory {
            let given = memory.get_ref().0;
            if given < LEAST_FLOW_MEMORY {
                let what = format!("flow_memory: {given} bytes are not enough (at least 1M)");
                return Err(self.wrong(memory, what));
            }
            limits.1 = number(given);
        }
        if let Some(most) = &raw.max_flows {
            if most.get_ref().0 == 0 {
                return Err(self.wrong(most, "max_flows: at least 1".to_owned()));
            }
            limits.0 = number(most.get_ref().0);
        }
        flows.limits = flow_limits(limits.0, limits.1);
        if let Some(tunnels) = &raw.tunnels {
            flows.outer = !*tunnels.get_ref();
        }
        if let Some(vlan_flows) = &raw.vlan_flows {
            flows.any_vlan = !*vlan_flows.get_ref();
        }
        if let Some(overlap) = &raw.overlap {
            flows.policy = overlap.get_ref().0;
        }
        if let Some(urgent) = &raw.urgent {
            flows.urgent = urgent.get_ref().0;
        }
        Ok(())
    }

    fn id(
        &self,
        id: &Spanned<UserOrGroup>,
        kind: &str,
        find: fn(&str) -> Option<u32>,
    ) -> Result<u32, ConfigError> {
        match id.get_ref() {
            UserOrGroup::Number(number) => Ok(*number),
            UserOrGroup::Name(name) => find(name).ok_or_else(|| {
                let what = format!("no such {kind}: '{name}' (make it with: {kind}add {name})");
                self.wrong(id, what)
            }),
        }
    }

    fn capture(
        &self,
        capture: &Spanned<raw::CaptureTable>,
        base: &CaptureSettings,
        defaults: &raw::DefaultsTable,
        ring_dir: &Path,
    ) -> Result<Configured, ConfigError> {
        let (start, raw) = (capture.span().start, capture.get_ref());
        let lack = "a capture without a source (write source = \"eth0\")";
        let source = raw.source.as_ref().ok_or_else(|| self.at(start, lack.to_owned()))?;
        let written = self.with_mirror_words(source, raw)?;
        let named = sources::parse(&written).map_err(|what| self.wrong(source, what))?;
        if let Some(path) = named.path().filter(|path| !path.is_absolute()) {
            let what = format!("{}: write the whole path, from /", path.display());
            return Err(self.wrong(source, what));
        }
        if named.is_of_command_line() {
            let what = "standard input is for pcapfs mount -c; write stream:PATH of a FIFO";
            return Err(self.wrong(source, what.to_owned()));
        }
        if let Some(mistake) = named.mistake() {
            return Err(self.wrong(source, mistake));
        }
        let alias = match &raw.alias {
            Some(alias) => self.alias(alias)?,
            None => named.default_alias(),
        };
        let own = raw.settings();
        let (settings, is_explicit) = self.settings(base, &own)?;
        if let (Some(precision), Some(_)) = (&own.precision, named.savefile_path()) {
            let what = "precision: a savefile has its own; leave it out";
            return Err(self.wrong(precision, what.to_owned()));
        }
        if let Some(filter) = &raw.filter {
            // As far as it can be checked before the source reports its link type.
            Filter::check(filter.get_ref(), named.filter_runner())
                .map_err(|error| self.wrong(filter, error.to_string()))?;
        }
        let filter = raw.filter.as_ref().map(|filter| filter.get_ref().as_str());
        let spec = settings.spec(&alias, named, filter, ring_dir);
        let by_default =
            defaults.owner.is_some() || defaults.group.is_some() || defaults.mode.is_some();
        let line = self.at(start, String::new()).line.unwrap_or(0);
        let is_explicit = is_explicit || by_default;
        Ok(Configured { spec, permissions: settings.permissions, is_explicit, line })
    }

    /// The source with the options that a capture of another machine has beside it.
    fn with_mirror_words(
        &self,
        source: &Spanned<String>,
        raw: &raw::CaptureTable,
    ) -> Result<String, ConfigError> {
        let text =
            |word: &'_ Option<Spanned<String>>| word.as_ref().map(|word| word.get_ref().clone());
        let (from, compression) = (text(&raw.from), text(&raw.compression));
        let words = MirrorWords {
            from: from.as_deref(),
            compression: compression.as_deref(),
            rate: raw.rate.as_ref().map(|rate| rate.get_ref().0),
        };
        let written = words.after(source.get_ref());
        if written != *source.get_ref() && !source.get_ref().starts_with("remote:") {
            let what = "from, compression and rate are for sources that begin with remote:";
            return Err(self.wrong(source, what.to_owned()));
        }
        Ok(written)
    }

    fn alias(&self, alias: &Spanned<String>) -> Result<String, ConfigError> {
        let name = alias.get_ref();
        if !is_alias(name) {
            let what =
                format!("'{name}' is no alias: 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front");
            return Err(self.wrong(alias, what));
        }
        if RESERVED.contains(&name.as_str()) {
            let what = format!("'{name}' is no alias: the tree has a file of this name");
            return Err(self.wrong(alias, what));
        }
        Ok(name.clone())
    }
}

#[cfg(test)]
mod tests;
