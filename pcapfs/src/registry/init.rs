//! `pcapfs init`: captures that are made while the daemon runs.

use std::sync::Arc;

use capture::injection::InjectSpeed;
use capture::pipeline::{DEFAULT_SNAPLEN, is_alias};
use capture::ring::{Geometry, Permissions};
use capture::source::{InterfaceBackend, SourceName, Workers};

use super::{Origin, Planned, Refusal, Registry, forget_ring, not_kept};
use crate::fs::access::{Caller, PermissionBit};
use crate::fs::captures::CaptureEntry;
use crate::fs::group_id;
use crate::mirror::MirrorPattern;
use crate::registry::state::SavedCapture;
use crate::settings::{CaptureSettings, KERNEL_BUFFERS};
use crate::sources;

/// An order to make a capture. For each field that is `None`, the daemon's own setting is used.
#[derive(Clone, Debug, Default)]
pub(crate) struct InitOrder {
    pub(crate) interface: String,
    /// Empty for all packets.
    pub(crate) filter: String,
    /// Empty for the interface's name.
    pub(crate) alias: String,
    /// Bytes.
    pub(crate) ring: Option<u64>,
    pub(crate) snaplen: Option<u32>,
    /// Name or number.
    pub(crate) group: Option<String>,
    pub(crate) mode: Option<u32>,
    pub(crate) promiscuous: Option<bool>,
    /// Bytes.
    pub(crate) kernel_buffer: Option<u64>,
    /// As it is written.
    pub(crate) backend: Option<String>,
    /// As it is written.
    pub(crate) workers: Option<String>,
    /// As it is written.
    pub(crate) inject_speed: Option<String>,
}

impl InitOrder {
    /// The daemon's settings, with this order's changes.
    fn settings(
        &self,
        caller: &Caller,
        base: &CaptureSettings,
    ) -> Result<CaptureSettings, Refusal> {
        let mut settings = base.clone();
        settings.ring = self.ring.or(settings.ring);
        settings.snaplen = self.snaplen.unwrap_or(settings.snaplen);
        settings.promiscuous = self.promiscuous.unwrap_or(settings.promiscuous);
        settings.kernel_buffer = self.kernel_buffer.or(settings.kernel_buffer);
        if let Some(word) = &self.backend {
            let words = InterfaceBackend::WORDS.join(" or ");
            settings.backend = InterfaceBackend::parse(word).ok_or_else(|| {
                Refusal::Wrong(format!("--backend {word}: no such backend (write {words})"))
            })?;
        }
        if let Some(word) = &self.workers {
            settings.workers = Workers::parse(word).ok_or_else(|| {
                let expected = Workers::EXPECTED;
                Refusal::Wrong(format!("--workers {word}: no number of threads (write {expected})"))
            })?;
        }
        if let Some(word) = &self.inject_speed {
            settings.inject_speed = InjectSpeed::parse(word).ok_or_else(|| {
                let expected = InjectSpeed::EXPECTED;
                Refusal::Wrong(format!("--inject-speed {word}: no such speed (write {expected})"))
            })?;
        }
        if let Some(given) = self.kernel_buffer.filter(|given| !KERNEL_BUFFERS.contains(given)) {
            let why = format!("--kernel-buffer: {given} bytes are not in 512K to 2047M");
            return Err(Refusal::Wrong(why));
        }
        if !(1..=DEFAULT_SNAPLEN).contains(&settings.snaplen) {
            let given = settings.snaplen;
            let why = format!("--snaplen: {given} is no number from 1 to {DEFAULT_SNAPLEN}");
            return Err(Refusal::Wrong(why));
        }
        Geometry::new(settings.ring_size(), settings.snaplen)
            .map_err(|bad| Refusal::Wrong(format!("--ring: {bad}")))?;
        if let Some(mode) = self.mode {
            if mode > 0o777 {
                return Err(Refusal::Wrong(format!("--mode: {mode:o} are no permission bits")));
            }
            settings.permissions.mode = mode;
        }
        if let Some(name) = &self.group {
            let gid = name.parse().ok().or_else(|| group_id(name)).ok_or_else(|| {
                Refusal::Wrong(format!("--group {name}: no such group (groupadd {name} makes it)"))
            })?;
            // As with chgrp(1).
            if caller.uid != 0 && caller.gid != gid && !caller.groups.contains(&gid) {
                let why = format!("--group {name}: permission denied: you are not in this group");
                return Err(Refusal::Wrong(why));
            }
            settings.permissions.gid = gid;
        }
        Ok(settings)
    }
}

/// The result of `init`.
#[derive(Debug)]
pub(crate) struct Initialised {
    pub(crate) entry: Arc<CaptureEntry>,
    /// The alias it has, or the other name that it got.
    pub(crate) alias: String,
    /// True if the capture existed already, under another name.
    pub(crate) is_alias: bool,
    /// A note for the caller, although all went well.
    pub(crate) note: Option<String>,
}

impl Registry {
    /// Makes a capture of an interface, or another name for an existing capture of it.
    ///
    /// # Blocking
    /// While the interface and the ring are opened.
    pub(crate) fn init(&self, caller: &Caller, order: &InitOrder) -> Result<Initialised, Refusal> {
        self.check_root(caller, &[PermissionBit::Write, PermissionBit::Search])?;
        let source = sources::parse(&order.interface).map_err(Refusal::Wrong)?;
        match source {
            SourceName::External(source) if source.is_for_root() && caller.uid != 0 => {
                return Err(Refusal::OnlyRoot(order.interface.clone()));
            }
            SourceName::Interface(_) | SourceName::Several(_) | SourceName::External(_) => {}
            // The daemon may enter namespaces that are closed to the caller, and take packets from the
            // system.
            SourceName::Namespaced(_) | SourceName::Xdp(_) if caller.uid == 0 => {}
            SourceName::Namespaced(_) | SourceName::Xdp(_) => {
                return Err(Refusal::OnlyRoot(order.interface.clone()));
            }
            // The daemon would open a path or connect with its own rights.
            SourceName::File(_)
            | SourceName::Growing(_)
            | SourceName::Stream(_)
            | SourceName::Tcp(_)
            | SourceName::TcpListen(_)
            | SourceName::Stdin => return Err(Refusal::NotAnInterface(order.interface.clone())),
        }
        if MirrorPattern::of(&source).is_some() {
            return Err(Refusal::Wrong(format!(
                "{source}: all captures of a remote are for pcapfs mount -c, or the configuration"
            )));
        }
        let mut records = self.records.lock();
        let settings = order.settings(caller, &self.settings.lock())?;
        let InitOrder { filter, alias, .. } = order;
        let given = !alias.is_empty();
        let alias = if given {
            self.check_free(alias)?;
            alias.to_owned()
        } else {
            self.free_name(&source.default_alias())
        };
        let spec = settings.spec(&alias, source, Some(filter), &self.ring_dir);
        let all = self.tree.captures.all();
        let same = all.iter().find(|entry| entry.capture.spec().is_same_capture(&spec));
        if let Some(entry) = same {
            let entry = Arc::clone(entry);
            self.tree.captures.link(&alias, entry.alias());
            let link = (alias.clone(), entry.alias().to_owned());
            let mut notes: Vec<_> =
                self.keep(|state| state.links.push(link)).map(not_kept).into_iter().collect();
            if order.ring.is_some() || order.group.is_some() || order.mode.is_some() {
                notes.push(format!("ring and permissions are those of {}", entry.alias()));
            }
            if order.kernel_buffer.is_some() {
                notes.push(format!("the kernel's buffer is that of {}", entry.alias()));
            }
            if order.backend.is_some() {
                notes.push(format!("the backend is that of {}", entry.alias()));
            }
            if order.workers.is_some() {
                notes.push(format!("the threads are those of {}", entry.alias()));
            }
            if order.inject_speed.is_some() {
                notes.push(format!("the speed of injection is that of {}", entry.alias()));
            }
            let note = (!notes.is_empty()).then(|| notes.join("; "));
            return Ok(Initialised { entry, alias, is_alias: true, note });
        }
        // As with a directory, its maker owns it.
        let permissions = Permissions { uid: caller.uid, ..settings.permissions };
        let saved = SavedCapture {
            alias: alias.clone(),
            interface: spec.source.to_string(),
            filter: spec.filter.clone(),
            snaplen: spec.snaplen,
            promiscuous: spec.promiscuous,
            precision: spec.precision.into(),
            ring: spec.ring_size,
            is_default_ring: spec.is_default_ring,
            kernel_buffer: spec.kernel_buffer,
            backend: order.backend.clone(),
            workers: order.workers.clone(),
            inject_speed: order.inject_speed.clone(),
            permissions: permissions.into(),
        };
        let planned =
            Planned { spec, origin: Origin::Init, permissions, is_explicit: false, waits: false };
        let _ = forget_ring(&self.ring_dir.join(format!("{alias}.ring")));
        let entry = self.make(&mut records, planned)?;
        let note = self.keep(|state| state.captures.push(saved)).map(not_kept);
        Ok(Initialised { entry, alias, is_alias: false, note })
    }

    /// The name if it is free, otherwise the first free one with a number after it.
    fn free_name(&self, name: &str) -> String {
        let names = (2..).map(|number| format!("{name}-{number}"));
        std::iter::once(name.to_owned())
            .chain(names)
            .find(|name| self.check_free(name).is_ok() || !is_alias(name))
            .unwrap_or_default()
    }
}
