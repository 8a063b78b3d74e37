//! Carries out every order that changes captures, and checks who may give it.
//!
//! One lock is held while captures are made or removed, which may take as long as opening an
//! interface takes. Reads do not need it.

mod init;
mod kept;
mod mirrors;
mod parallel;
mod reload;
mod rings;
pub(crate) mod state;

pub(crate) use init::InitOrder;
pub(crate) use kept::forget_ring;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;

use capture::pipeline::{self, Capture, CaptureError, CaptureState, NewCapture, Spec, is_alias};
use capture::ring::Permissions;
use parking_lot::Mutex;

use crate::config::Configured;
use crate::fs::Tree;
use crate::fs::access::{Caller, PermissionBit, PermissionDenied};
use crate::fs::captures::{CaptureEntry, RESERVED, RootName};
use crate::fuse;
use crate::mirror::Watch;
use crate::output::say;
use crate::paths::prepare_ring_dir;
use crate::settings::{CaptureSettings, kernel_buffer};
use kept::{StatePermissionKeeper, not_kept};
use rings::with_rings;
use state::StateFile;

/// The name of the root of the tree in messages.
const ROOT: &str = "the root of the tree";

/// Why an order was refused. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The permission bits do not allow it.
    #[error(transparent)]
    Denied(#[from] PermissionDenied),
    /// No capture has this alias or number.
    #[error("{0}: no such capture (see: pcapfs list)")]
    NoSuchCapture(String),
    /// The name is no valid alias.
    #[error("'{0}' is no alias: 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front")]
    BadAlias(String),
    /// The tree has a file of this name.
    #[error("'{0}' is no alias: the tree has a file of this name")]
    Reserved(String),
    /// Another capture or link has this name.
    #[error("alias '{alias}' is taken (by {holder}); choose another")]
    Taken {
        /// The name.
        alias: String,
        /// The source of the capture, or the target of the link, that has it.
        holder: String,
    },
    /// Only the user who starts the daemon may choose this source.
    #[error(
        "{0}: not an interface (savefiles and FIFOs are for pcapfs mount, or the configuration)"
    )]
    NotAnInterface(String),
    /// Only root may choose this source while the daemon runs.
    #[error(
        "{0}: only root adds captures in other network namespaces, of devices or through AF_XDP (or \
         the configuration has them)"
    )]
    OnlyRoot(String),
    /// Another part of the order is not valid for any capture.
    #[error("{0}")]
    Wrong(String),
    /// The capture could not be made or started.
    #[error("{0}")]
    Capture(#[from] CaptureError),
    /// The directory for its ring cannot be used.
    #[error("{0}")]
    RingDir(String),
    /// The capture to forget is still in the tree.
    #[error("{0}: is in the tree (take it out with: pcapfs remove {0})")]
    InTheTree(String),
    /// There is nothing to forget.
    #[error("{0}: nothing is kept of it: no capture made by pcapfs init, no packets")]
    NothingKept(String),
    /// There is nothing to forget from an earlier run: only the capture that has this name now.
    #[error(
        "{0}: nothing is kept of it but what is in the tree (take it out with: pcapfs remove {0})"
    )]
    OnlyInTheTree(String),
    /// The kept state cannot be changed.
    #[error("it is still kept: {0}")]
    NotForgotten(String),
}

/// Where the order to make a capture came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line of `pcapfs mount`.
    CommandLine,
    /// The configuration file.
    Config,
    /// `pcapfs init`.
    Init,
}

/// A capture to be made.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) spec: Spec,
    pub(crate) origin: Origin,
    pub(crate) permissions: Permissions,
    /// True if these permissions were written down: they take precedence over those kept with a
    /// ring.
    pub(crate) is_explicit: bool,
    /// Wait for its interface if that is missing.
    pub(crate) waits: bool,
}

/// Facts about a capture that the tree does not have.
#[derive(Clone, Copy, Debug)]
struct CaptureRecord {
    origin: Origin,
    /// The permissions it was ordered with.
    configured: Permissions,
    /// True if they were written down.
    is_explicit: bool,
}

/// A capture that is not in the tree yet.
struct OpenedCapture {
    made: NewCapture,
    record: CaptureRecord,
}

/// The captures of a daemon, and how to change them.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) tree: Arc<Tree>,
    ring_dir: PathBuf,
    /// Defaults for captures made by `init`.
    settings: Mutex<CaptureSettings>,
    /// By alias.
    records: Mutex<BTreeMap<String, CaptureRecord>>,
    state: Option<StateFile>,
    /// The captures of the configuration, as it was last read.
    configured: Mutex<Vec<Configured>>,
    /// The remotes all of whose captures are followed, by the alias of the pattern.
    watches: Mutex<BTreeMap<String, Watch>>,
    own: Weak<Self>,
}

impl Registry {
    /// A registry over a tree without captures.
    pub(crate) fn new(
        tree: Arc<Tree>,
        ring_dir: &Path,
        settings: CaptureSettings,
        state: Option<StateFile>,
    ) -> Arc<Self> {
        if let Some(root) = state.as_ref().and_then(|state| state.state().root) {
            tree.set_permissions(root.into());
        }
        let registry = Arc::new_cyclic(|own| Self {
            tree,
            ring_dir: ring_dir.to_owned(),
            settings: Mutex::new(settings),
            records: Mutex::default(),
            state,
            configured: Mutex::default(),
            watches: Mutex::default(),
            own: Weak::clone(own),
        });
        registry.tree.set_keeper(Box::new(StatePermissionKeeper(Arc::downgrade(&registry))));
        registry
    }

    /// The permissions of a capture: as they were last changed, unless they have been configured
    /// differently since; otherwise those kept with its ring, unless its own were written down.
    fn permissions(&self, capture: &Capture, record: CaptureRecord) -> Permissions {
        let CaptureRecord { configured, is_explicit, .. } = record;
        let state = self.state.as_ref().map(StateFile::state).unwrap_or_default();
        let changed = state.permissions.get(&capture.spec().alias);
        changed
            .filter(|changed| changed.configured == configured.into())
            .map(|changed| changed.now.into())
            .or_else(|| capture.permissions().filter(|_| !is_explicit))
            .unwrap_or(configured)
    }

    /// Makes captures, which get their numbers in this order. If some fail, returns the index of
    /// the first one and the reason.
    ///
    /// # Blocking
    /// While their sources and rings are opened, several at a time.
    pub(crate) fn add_all(&self, planned: Vec<Planned>) -> Result<(), (usize, Refusal)> {
        let mut records = self.records.lock();
        let (planned, indexes) = self.without_patterns(planned)?;
        let planned = self.with_kernel_buffers(with_rings(planned));
        let mut failed = None;
        for (index, opened) in self.open_all(planned).into_iter().enumerate() {
            match opened {
                Ok(opened) if failed.is_none() => drop(self.enter(&mut records, opened)),
                // It will be stopped with the others, without a message.
                Ok(opened) => {
                    self.tree.captures.add(opened.made.capture, opened.record.configured);
                }
                Err(refusal) => failed = failed.or_else(|| Some((*indexes.get(index)?, refusal))),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Opens captures, whose aliases must be free and different. The first one that breaks this
    /// rule gives an error, and those after it are not opened.
    fn open_all(&self, planned: Vec<Planned>) -> Vec<Result<OpenedCapture, Refusal>> {
        let mut refused = None;
        let mut before: BTreeMap<&str, &Spec> = BTreeMap::new();
        let count = planned.iter().take_while(|planned| {
            let spec = &planned.spec;
            let taken = before.insert(&spec.alias, spec).map(|holder| Refusal::Taken {
                alias: spec.alias.clone(),
                holder: holder.source.to_string(),
            });
            refused = taken.map_or_else(|| self.prepare(spec), Err).err();
            refused.is_none()
        });
        let count = count.count();
        let ready = planned.get(..count).unwrap_or_default();
        let mut opened = parallel::map(ready, |planned| Self::open(planned.clone()));
        opened.extend(refused.map(Err));
        opened
    }

    /// Gives a capture another name, which must be free.
    pub(crate) fn link(&self, name: &str, target: &str) {
        let _records = self.records.lock();
        self.tree.captures.link(name, target);
    }

    /// Makes a capture whose alias is free.
    ///
    /// # Blocking
    /// While its source and ring are opened.
    fn make(
        &self,
        records: &mut BTreeMap<String, CaptureRecord>,
        planned: Planned,
    ) -> Result<Arc<CaptureEntry>, Refusal> {
        self.prepare(&planned.spec)?;
        let mut planned = self.with_kernel_buffers(with_rings(vec![planned]));
        let Some(planned) = planned.pop() else { unreachable!("as many as there were") };
        Ok(self.enter(records, Self::open(planned)?))
    }

    /// Gives each of these captures a share of kernel buffer, unless its size is given.
    fn with_kernel_buffers(&self, mut planned: Vec<Planned>) -> Vec<Planned> {
        let is_live = |spec: &Spec| spec.source.is_interface();
        let entries = self.tree.captures.all();
        let held = entries.iter().map(|entry| entry.capture.spec()).filter(|spec| is_live(spec));
        let held = held.map(Spec::kernel_buffer).sum();
        let is_open =
            |planned: &&mut Planned| is_live(&planned.spec) && planned.spec.kernel_buffer.is_none();
        let count = planned.iter_mut().filter(is_open).count();
        for one in planned.iter_mut().filter(is_open) {
            one.spec.kernel_buffer = Some(kernel_buffer(one.spec.ring_size, count, held));
        }
        planned
    }

    /// Checks the alias, and makes the directory for the ring.
    fn prepare(&self, spec: &Spec) -> Result<(), Refusal> {
        self.check_free(&spec.alias)?;
        if spec.source.savefile_path().is_none() {
            prepare_ring_dir(&spec.ring_dir)
                .map_err(|failure| Refusal::RingDir(failure.to_string()))?;
        }
        Ok(())
    }

    /// Opens a capture that is not in the tree yet.
    fn open(planned: Planned) -> Result<OpenedCapture, Refusal> {
        let Planned { spec, origin, permissions: configured, is_explicit, waits } = planned;
        let made = if waits { Capture::start_waiting(spec) } else { Capture::start_new(spec) }?;
        Ok(OpenedCapture { made, record: CaptureRecord { origin, configured, is_explicit } })
    }

    /// Puts a capture into the tree.
    fn enter(
        &self,
        records: &mut BTreeMap<String, CaptureRecord>,
        opened: OpenedCapture,
    ) -> Arc<CaptureEntry> {
        let OpenedCapture { made: NewCapture { capture, recovered, damage }, record } = opened;
        let alias = capture.spec().alias.clone();
        if let Some(damage) = damage {
            say(format_args!("{alias}: the ring file was damaged: {damage}"));
        }
        if recovered > 0 {
            say(format_args!("{alias}: {recovered} packets of an earlier run are still there"));
        }
        if capture.condition().state == CaptureState::Retrying {
            let error = capture.condition().error.unwrap_or_default();
            say(format_args!("{alias}: waits for its interface: {error}"));
        }
        let permissions = self.permissions(&capture, record);
        records.insert(alias, record);
        self.tree.captures.add(capture, permissions)
    }

    /// Checks that a name is free for a capture.
    fn check_free(&self, alias: &str) -> Result<(), Refusal> {
        if !is_alias(alias) {
            return Err(Refusal::BadAlias(alias.to_owned()));
        }
        if RESERVED.contains(&alias) {
            return Err(Refusal::Reserved(alias.to_owned()));
        }
        let holder = match self.tree.captures.named(alias) {
            None => return Ok(()),
            Some(RootName::Capture(entry)) => entry.capture.spec().source.to_string(),
            Some(RootName::Link { index }) => {
                let target = self.tree.captures.link_target(index).unwrap_or_default();
                format!("a link to {target}")
            }
        };
        Err(Refusal::Taken { alias: alias.to_owned(), holder })
    }

    /// Finds a capture by an alias, the name of a link, or its number from 1.
    fn find(&self, word: &str) -> Result<Arc<CaptureEntry>, Refusal> {
        let captures = &self.tree.captures;
        let found = match captures.named(word) {
            Some(RootName::Capture(entry)) => Some(entry),
            Some(RootName::Link { index }) => {
                captures.link_target(index).and_then(|target| match captures.named(&target)? {
                    RootName::Capture(entry) => Some(entry),
                    RootName::Link { .. } => None,
                })
            }
            None => {
                let id = word.parse::<u32>().ok().and_then(|number| number.checked_sub(1));
                id.and_then(|id| captures.by_id(id))
            }
        };
        found.ok_or_else(|| Refusal::NoSuchCapture(word.to_owned()))
    }

    fn check_root(&self, caller: &Caller, bits: &[PermissionBit]) -> Result<(), Refusal> {
        Ok(caller.check(self.tree.permissions(), bits, ROOT)?)
    }

    /// The capture of this alias or number, if its bits, and the root's, let the caller in.
    fn reachable(
        &self,
        caller: &Caller,
        word: &str,
        bits: &[PermissionBit],
    ) -> Result<Arc<CaptureEntry>, Refusal> {
        self.check_root(caller, &[PermissionBit::Search])?;
        let entry = self.find(word)?;
        caller.check(entry.permissions(), bits, entry.alias())?;
        Ok(entry)
    }

    /// The capture of this alias or number, if the caller may read it.
    pub(crate) fn readable(
        &self,
        caller: &Caller,
        word: &str,
    ) -> Result<Arc<CaptureEntry>, Refusal> {
        self.reachable(caller, word, &[PermissionBit::Read, PermissionBit::Search])
    }

    /// The captures that the caller may read, in the order in which they were made.
    pub(crate) fn list(&self, caller: &Caller) -> Vec<Arc<CaptureEntry>> {
        match self.check_root(caller, &[PermissionBit::Search]) {
            Ok(()) => self.tree.captures.readable(caller),
            Err(_) => Vec::new(),
        }
    }

    /// Why the caller may not read some captures, as text for people; `None` if it may read all.
    pub(crate) fn hidden(&self, caller: &Caller) -> Option<String> {
        if let Err(refusal) = self.check_root(caller, &[PermissionBit::Search]) {
            return Some(refusal.to_string());
        }
        let bits = [PermissionBit::Read, PermissionBit::Search];
        let all = self.tree.captures.all();
        let denied = all
            .iter()
            .filter_map(|entry| caller.check(entry.permissions(), &bits, entry.alias()).err());
        let denied: Vec<_> = denied.collect();
        let first = denied.first()?;
        let more = denied.len().saturating_sub(1);
        Some(if more > 0 { format!("{first}; and {more} more") } else { first.to_string() })
    }

    /// The capture of this alias or number, if the caller may start and stop it.
    pub(crate) fn steerable(
        &self,
        caller: &Caller,
        word: &str,
    ) -> Result<Arc<CaptureEntry>, Refusal> {
        self.reachable(caller, word, &[PermissionBit::Write, PermissionBit::Search])
    }

    /// Starts a capture.
    ///
    /// # Blocking
    /// While its source is opened.
    pub(crate) fn start(&self, caller: &Caller, word: &str) -> Result<(), Refusal> {
        Ok(self.steerable(caller, word)?.capture.start()?)
    }

    /// Stops a capture.
    ///
    /// # Blocking
    /// Until its last packets are stored.
    pub(crate) fn stop(&self, caller: &Caller, word: &str) -> Result<(), Refusal> {
        self.steerable(caller, word)?.capture.stop();
        Ok(())
    }

    /// Takes a capture, or another name for one, out of the tree. Returns a note on what else is
    /// gone or stays.
    ///
    /// # Blocking
    /// Until it has stopped.
    pub(crate) fn remove(&self, caller: &Caller, word: &str) -> Result<Option<String>, Refusal> {
        self.check_root(caller, &[PermissionBit::Write, PermissionBit::Search])?;
        let mut records = self.records.lock();
        if let Some(RootName::Link { .. }) = self.tree.captures.named(word) {
            self.tree.captures.unlink(word);
            return Ok(self
                .keep(|state| state.links.retain(|(name, _)| name != word))
                .map(not_kept));
        }
        let entry = self.find(word)?;
        let record = records.remove(entry.alias());
        let links = self.take_out(&entry);
        if let Some(path) = entry.capture.ring_path() {
            // If that fails, only the next capture of this name finds the file.
            let _ = fs::remove_file(path);
        }
        let alias = entry.alias();
        let kept = self.keep(|state| {
            state.captures.retain(|saved| saved.alias != alias);
            state.links.retain(|(name, target)| target != alias && !links.contains(name));
            state.permissions.remove(alias);
        });
        let mut notes: Vec<_> = kept.map(not_kept).into_iter().collect();
        if !links.is_empty() {
            notes.push(format!("its other names are gone as well: {}", links.join(", ")));
        }
        let place = match record.map(|record| record.origin) {
            Some(Origin::CommandLine) => Some("on the command line"),
            Some(Origin::Config) => Some("in the configuration"),
            Some(Origin::Init) | None => None,
        };
        if let Some(place) = place {
            notes.push(format!("it is {place} of the daemon, and comes back with its next start"));
        }
        drop(records);
        // The removal is complete when no program finds the name any more.
        thread::sleep(fuse::settling(&self.tree));
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    /// Stops a capture and takes it out of the tree, with its other names.
    fn take_out(&self, entry: &CaptureEntry) -> Vec<String> {
        // The name goes first, so that no program opens a capture that is about to stop.
        let links = self.tree.captures.remove(entry);
        entry.capture.stop();
        links
    }

    /// Stops every capture, and removes rings that never held a packet.
    pub(crate) fn stop_all(&self) {
        self.watches.lock().clear();
        parallel::map(&self.tree.captures.all(), |entry| {
            entry.capture.stop();
            let (packets, _) = pipeline::counters(&**entry.capture.store());
            if let Some(path) = entry.capture.ring_path()
                && packets.seen == 0
                && entry.capture.permissions().is_none()
            {
                // It takes memory and holds no packet; if it cannot be removed, the next start
                // finds it.
                let _ = fs::remove_file(path);
            }
        });
    }
}
