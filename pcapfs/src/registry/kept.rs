//! Things kept for the next daemon: captures made by `init`, permissions, and rings.

use std::fs;
use std::path::Path;
use std::sync::Weak;

use capture::injection::InjectSpeed;
use capture::pipeline::is_alias;
use capture::source::{InterfaceBackend, SourceName, Workers};
use nix::fcntl::{Flock, FlockArg};

use super::rings::with_rings;
use super::{Origin, Planned, Refusal, Registry};
use crate::fs::PermissionKeeper;
use crate::fs::access::{Caller, PermissionBit};
use crate::fs::captures::{CaptureEntry, RootName};
use crate::output::say;
use crate::registry::parallel;
use crate::registry::state::{ChangedPermissions, KeptState, StateFile};
use crate::settings::{CaptureSettings, root_permissions};
use crate::sources;

impl Registry {
    /// Makes the captures that `init` made before. A capture that cannot be made is reported, and
    /// stays in the state for the next start.
    pub(crate) fn restore(&self) {
        let Some(state) = self.state.as_ref().map(StateFile::state) else { return };
        let settings = self.settings.lock().clone();
        let mut wanted = Vec::new();
        for saved in state.captures {
            let kept = CaptureSettings {
                snaplen: saved.snaplen,
                promiscuous: saved.promiscuous,
                precision: saved.precision.into(),
                ring: (!saved.is_default_ring).then_some(saved.ring),
                kernel_buffer: saved.kernel_buffer.or(settings.kernel_buffer),
                // A word of another version counts as none.
                backend: saved
                    .backend
                    .and_then(|word| InterfaceBackend::parse(&word))
                    .unwrap_or(settings.backend),
                workers: saved
                    .workers
                    .and_then(|word| Workers::parse(&word))
                    .unwrap_or(settings.workers),
                inject_speed: saved
                    .inject_speed
                    .and_then(|word| InjectSpeed::parse(&word))
                    .unwrap_or(settings.inject_speed),
                ..settings.clone()
            };
            let source = match sources::parse(&saved.interface) {
                Ok(source) => source,
                // A kind that another version knows differently; opening it says so.
                Err(_) => SourceName::Interface(saved.interface),
            };
            let spec = kept.spec(&saved.alias, source, saved.filter.as_deref(), &self.ring_dir);
            let permissions = saved.permissions.into();
            let planned = Planned {
                spec,
                origin: Origin::Init,
                permissions,
                is_explicit: false,
                waits: true,
            };
            let alias = &planned.spec.alias;
            if let Some(RootName::Capture(entry)) = self.tree.captures.named(alias)
                && entry.capture.spec().is_same_capture(&planned.spec)
            {
                // It is now in the configuration or on the command line.
                self.keep(|state| state.captures.retain(|saved| saved.alias != entry.alias()));
                continue;
            }
            wanted.push(planned);
        }
        let mut records = self.records.lock();
        let wanted = self.with_kernel_buffers(with_rings(wanted));
        let opened = parallel::map(&wanted, |planned| {
            self.prepare(&planned.spec).and_then(|()| Self::open(planned.clone()))
        });
        for (planned, opened) in wanted.iter().zip(opened) {
            match opened {
                Ok(opened) => drop(self.enter(&mut records, opened)),
                Err(refusal) => self.say_missing(&planned.spec.alias, &refusal),
            }
        }
        drop(records);
        for (name, target) in state.links {
            match (self.check_free(&name), self.find(&target)) {
                (Ok(()), Ok(entry)) => self.tree.captures.link(&name, entry.alias()),
                (Err(refusal), _) | (_, Err(refusal)) => self.say_missing(&name, &refusal),
            }
        }
    }

    /// Changes the state for the next process. Returns the reason if that is not possible.
    pub(super) fn keep(&self, change: impl FnOnce(&mut KeptState)) -> Option<String> {
        match &self.state {
            Some(file) => file.change(change).err(),
            None => Some("there is no place for it (choose one with --state)".to_owned()),
        }
    }

    /// Forgets all kept state, and the rings of captures with these names and of those made by
    /// `init`. Call it before there are captures.
    ///
    /// # Errors
    /// The reason why something is still kept, for people.
    pub(crate) fn begin_afresh(&self, names: Vec<&str>) -> Result<(), String> {
        let state = self.state.as_ref().map(StateFile::state).unwrap_or_default();
        let saved = state.captures.iter().map(|saved| saved.alias.as_str());
        for name in names.into_iter().chain(saved) {
            let _ = forget_ring(&self.ring_dir.join(format!("{name}.ring")));
        }
        self.tree.set_permissions(root_permissions());
        match &self.state {
            Some(file) => file.change(|state| *state = KeptState::default()),
            None => Ok(()),
        }
    }

    /// Reports a kept capture that is not in the tree, and how to get rid of it.
    fn say_missing(&self, name: &str, refusal: &Refusal) {
        let place = self.state.as_ref().map(|state| state.path().display().to_string());
        say(format_args!(
            "{name}, made by pcapfs init, is not there: {refusal} (it is kept in {}; to have it \
             forgotten: pcapfs forget {name})",
            place.unwrap_or_default()
        ));
    }

    /// Forgets what earlier daemons and orders left under a name that has no capture in the tree:
    /// a capture made by `init`, another name, changed permissions, the packets of a ring. Gives a
    /// list of them for people.
    ///
    /// # Errors
    /// [`Refusal`]; also if the tree has a capture of this name, or nothing is kept.
    ///
    /// # Blocking
    /// On the disk.
    pub(crate) fn forget(&self, caller: &Caller, name: &str) -> Result<String, Refusal> {
        self.check_root(caller, &[PermissionBit::Write, PermissionBit::Search])?;
        if !is_alias(name) {
            return Err(Refusal::BadAlias(name.to_owned()));
        }
        let records = self.records.lock();
        let there = self.tree.captures.named(name);
        let made_by_init = match &there {
            None => false,
            Some(RootName::Capture(_)) => {
                records.get(name).is_some_and(|record| record.origin == Origin::Init)
            }
            Some(RootName::Link { .. }) => {
                let state = self.state.as_ref().map(StateFile::state).unwrap_or_default();
                state.links.iter().any(|(link, _)| link == name)
            }
        };
        if made_by_init {
            return Err(Refusal::InTheTree(name.to_owned()));
        }
        let mut forgotten = Vec::new();
        let failed = self.keep(|state| {
            let target_is_there = there.is_some();
            forgotten.extend(state.forget(name, target_is_there));
        });
        if let Some(why) = failed.filter(|_| !forgotten.is_empty()) {
            return Err(Refusal::NotForgotten(why));
        }
        let ring = self.ring_dir.join(format!("{name}.ring"));
        if there.is_none() && forget_ring(&ring) {
            forgotten.push("its packets");
        }
        drop(records);
        if forgotten.is_empty() {
            let name = name.to_owned();
            let is_there = there.is_some();
            let refusal = if is_there { Refusal::OnlyInTheTree } else { Refusal::NothingKept };
            return Err(refusal(name));
        }
        Ok(forgotten.join(", "))
    }
}

/// Removes a ring that an earlier capture of the same name has left, unless a program uses it: its
/// packets are not for the user who makes a new one. Returns whether it was removed.
pub(crate) fn forget_ring(path: &Path) -> bool {
    let file = fs::File::open(path).ok();
    let lock = file.map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock));
    match lock {
        // If the ring cannot be removed, making the capture fails because of it.
        Some(Ok(_lock)) => fs::remove_file(path).is_ok(),
        Some(Err(_)) | None => false,
    }
}

pub(super) fn not_kept(why: String) -> String {
    format!("after a restart of the daemon this is not known any more: {why}")
}

/// Keeps permissions that are changed through the tree.
#[derive(Debug)]
pub(super) struct StatePermissionKeeper(pub(super) Weak<Registry>);

impl PermissionKeeper for StatePermissionKeeper {
    fn keep(&self, entry: Option<&CaptureEntry>) {
        let Some(registry) = self.0.upgrade() else { return };
        let failed = match entry {
            None => {
                let root = registry.tree.permissions();
                registry.keep(|state| state.root = Some(root.into()))
            }
            Some(entry) => {
                let record = registry.records.lock().get(entry.alias()).copied();
                let Some(record) = record else { return };
                if entry.capture.permissions().is_some() && !record.is_explicit {
                    // They are kept in its ring.
                    return;
                }
                let now = entry.permissions().into();
                let changed = ChangedPermissions { now, configured: record.configured.into() };
                let alias = entry.alias().to_owned();
                registry.keep(|state| {
                    state.permissions.insert(alias, changed);
                })
            }
        };
        if let Some(why) = failed {
            say(format_args!("changed permissions are not kept: {why}"));
        }
    }
}
