//! Applies a configuration: all of it at the start, later the differences.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use capture::pipeline::{self, CaptureError};
use capture::ring::RingError;

use super::{CaptureRecord, Origin, Planned, Refusal, Registry};
use crate::config::{Config, ConfigError, Configured};
use crate::fs::captures::{CaptureEntry, RootName};
use crate::fuse;
use crate::mirror::MirrorPattern;
use crate::output::say;

/// How long to wait for the readers of a capture that is remade: they get its end of file.
const PATIENCE: Duration = Duration::from_millis(500);

/// Counts of the differences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    added: usize,
    removed: usize,
    /// Remade, or with other permissions.
    changed: usize,
    failed: usize,
}

impl std::fmt::Display for Changes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { added, removed, changed, failed } = self;
        write!(formatter, "{added} added, {removed} removed, {changed} changed")?;
        if *failed > 0 { write!(formatter, ", {failed} failed") } else { Ok(()) }
    }
}

impl Configured {
    fn planned(&self) -> Planned {
        Planned {
            spec: self.spec.clone(),
            origin: Origin::Config,
            permissions: self.permissions,
            is_explicit: self.is_explicit,
            waits: true,
        }
    }

    /// Returns `true` if both capture the same packets in the same way.
    fn is_same(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    fn has_same_permissions(&self, other: &Self) -> bool {
        (self.permissions, self.is_explicit) == (other.permissions, other.is_explicit)
    }
}

impl Registry {
    /// Makes the captures of the first configuration.
    pub(crate) fn configure(&self, config: &Config) -> Result<(), ConfigError> {
        let planned = config.captures.iter().map(Configured::planned).collect();
        self.add_all(planned).map_err(|(index, refusal)| {
            let what = refusal.to_string();
            match config.captures.get(index) {
                Some(configured) => config.error(configured, what),
                None => unreachable!("one of those that were planned"),
            }
        })?;
        self.configured.lock().clone_from(&config.captures);
        Ok(())
    }

    /// Applies the differences to another configuration; captures that are the same in both are not
    /// touched. Failures are reported, and everything else is done.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be applied as a whole; nothing has changed then.
    pub(crate) fn reload(&self, config: &Config) -> Result<Changes, ConfigError> {
        let mut records = self.records.lock();
        let mut before = self.configured.lock();
        for configured in &config.captures {
            self.check_not_taken(&records, config, configured)?;
        }
        let mut changes = Changes::default();
        let is_gone =
            |old: &&Configured| config.captures.iter().all(|new| new.spec.alias != old.spec.alias);
        for old in before.iter().filter(is_gone) {
            changes.removed += usize::from(self.unwatch(&old.spec.alias));
            if let Some(entry) = self.configured_entry(&records, &old.spec.alias) {
                records.remove(&old.spec.alias);
                self.take_out(&entry);
                let retained = pipeline::counters(&**entry.capture.store()).0.retained;
                forget_or_keep(&entry, retained);
                changes.removed += 1;
            }
        }
        for new in &config.captures {
            let old = before.iter().find(|old| old.spec.alias == new.spec.alias);
            if let Some(pattern) = MirrorPattern::of(&new.spec.source) {
                if !old.is_some_and(|old| old == new) {
                    match self.watch(pattern, new.planned()) {
                        Ok(()) => changes.changed += 1,
                        Err(refusal) => say(config.error(new, refusal.to_string())),
                    }
                }
                continue;
            }
            let applied = match old {
                None => self.make(&mut records, new.planned()).map(|_| changes.added += 1),
                Some(old) if !old.is_same(new) => {
                    let remade = self.remake(&mut records, old, new);
                    remade.map(|()| changes.changed += 1)
                }
                Some(old) if !old.has_same_permissions(new) => {
                    self.set_permissions(&mut records, new);
                    changes.changed += 1;
                    Ok(())
                }
                Some(_) => Ok(()),
            };
            if let Err(refusal) = applied {
                changes.failed += 1;
                say(config.error(new, refusal.to_string()));
            }
        }
        *self.settings.lock() = config.settings.clone();
        before.clone_from(&config.captures);
        drop((records, before));
        // The change is complete when no program finds the old captures any more.
        if changes.removed + changes.changed > 0 {
            thread::sleep(fuse::settling(&self.tree));
        }
        Ok(changes)
    }

    /// The capture of this alias, if it is from the configuration and still exists.
    fn configured_entry(
        &self,
        records: &BTreeMap<String, CaptureRecord>,
        alias: &str,
    ) -> Option<Arc<CaptureEntry>> {
        records.get(alias).filter(|record| record.origin == Origin::Config)?;
        match self.tree.captures.named(alias)? {
            RootName::Capture(entry) => Some(entry),
            RootName::Link { .. } => None,
        }
    }

    fn check_not_taken(
        &self,
        records: &BTreeMap<String, CaptureRecord>,
        config: &Config,
        configured: &Configured,
    ) -> Result<(), ConfigError> {
        let alias = &configured.spec.alias;
        if self.configured_entry(records, alias).is_some() {
            return Ok(());
        }
        self.check_free(alias).map_err(|refusal| config.error(configured, refusal.to_string()))
    }

    fn set_permissions(&self, records: &mut BTreeMap<String, CaptureRecord>, new: &Configured) {
        let alias = &new.spec.alias;
        let Some(entry) = self.configured_entry(records, alias) else { return };
        if let Some(record) = records.get_mut(alias) {
            record.configured = new.permissions;
            record.is_explicit = new.is_explicit;
        }
        entry.change_permissions(|permissions| *permissions = new.permissions);
        self.keep(|state| {
            state.permissions.remove(alias);
        });
    }

    /// Makes a capture anew, in the same ring if possible. If the new one cannot be made, the old
    /// one is made again.
    fn remake(
        &self,
        records: &mut BTreeMap<String, CaptureRecord>,
        old: &Configured,
        new: &Configured,
    ) -> Result<(), Refusal> {
        let alias = &new.spec.alias;
        let mut links = Vec::new();
        if let Some(entry) = self.configured_entry(records, alias) {
            links = self.take_out(&entry);
            let path = entry.capture.ring_path().map(std::path::Path::to_owned);
            let capture = Arc::downgrade(&entry.capture);
            drop(entry);
            let begun = Instant::now();
            while capture.strong_count() > 0 && begun.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(2));
            }
            if capture.strong_count() > 0
                && let Some(path) = path
            {
                say(format_args!(
                    "{alias}: begins afresh; its packets so far are for those who have them open"
                ));
                // The next capture makes its own ring.
                let _ = fs::remove_file(path);
            }
        }
        let mut made = self.make(records, new.planned());
        if let Err(Refusal::Capture(CaptureError::Ring(RingError::Mismatch { path, .. }))) = &made {
            say(format_args!("{alias}: begins afresh; its packets so far are of another kind"));
            let _ = fs::remove_file(path);
            made = self.make(records, new.planned());
        }
        let result = match made {
            Ok(_) => Ok(()),
            Err(refusal) => {
                if let Err(again) = self.make(records, old.planned()) {
                    say(format_args!("{alias}: cannot go on as it was either: {again}"));
                }
                Err(refusal)
            }
        };
        for name in links {
            self.tree.captures.link(&name, alias);
        }
        result
    }
}

/// Removes or keeps the ring of a capture that is not configured any more.
fn forget_or_keep(entry: &CaptureEntry, retained: u64) {
    let Some(path) = entry.capture.ring_path() else { return };
    if retained == 0 {
        // It takes memory and holds no packet; if it cannot be removed, the next start finds it.
        let _ = fs::remove_file(path);
    } else {
        let (alias, path) = (entry.alias(), path.display());
        say(format_args!("{alias}: {retained} packets are kept in {path}"));
    }
}
