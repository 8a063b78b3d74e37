//! The daemon: starts captures and the tree, and ends them in order.
//!
//! Start: plan, rings, captures, tree, mount, a walk over each savefile, "ready". If a step fails,
//! nothing stays mounted and nothing keeps running. End: captures stop, so that readers get the
//! rest and the end of file; the tree is taken out of the file system; remaining readers have a
//! moment to close; the process ends.

mod checking;
mod confine;
mod forgetting;
pub(crate) mod options;
mod plan;
mod reading;
mod signals;
mod steering;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::setsid;

use crate::config::{self, Config, RingDir};
use crate::control::{ControlService, RemoteAccess};
use crate::descriptor_limit;
use crate::failure::Failure;
use crate::fs::Tree;
use crate::fuse::{self, DeviceHandoff, MountOptions, Mounted, TreeMounter};
use crate::memory::Freed;
use crate::output::say;
use crate::paths::{absolute, default_ring_dir};
use crate::registry::state::{self, StateFile};
use crate::registry::{Origin, Planned, Registry};
use crate::settings::{self, CaptureSettings};
use crate::sources;
pub(crate) use checking::check_config;
pub(crate) use forgetting::{forget_by_default, forget_in};
use options::MountArguments;
use plan::CapturePlan;
pub(crate) use reading::READING;
use reading::SavefilesWait;
use steering::Steered;

/// The line that reports that the tree answers begins with this.
pub(crate) const READY: &str = "ready at ";

/// How long readers may go on after the order to end, to read the stored packets. The process waits
/// for everything else within the same time: pcapfs(1) promises that it takes no longer.
const GRACE: Duration = Duration::from_secs(3);

/// The maximum time from the order to end to the end of the process, if some part does not stop.
const LAST: Duration = Duration::from_secs(5);

/// How often freed memory is given back to the kernel.
const TIDYING: Duration = Duration::from_secs(5);

/// The maximum wait for the kernel to release a tree that no program has open.
const IDLE_GRACE: Duration = Duration::from_millis(500);

/// How long programs connected to the control service may go on after the order to end.
const CONTROL_GRACE: Duration = Duration::from_secs(1);

/// How often to check whether they have closed.
const GRACE_STEP: Duration = Duration::from_millis(10);

/// An event that the main thread waits for.
enum DaemonEvent {
    /// A signal asks the daemon to end.
    Signal,
    /// A signal asks to read the configuration again.
    Reload,
    /// A signal asks to log the counters.
    Counters,
    /// The tree was unmounted, and no file of it is open.
    Unmounted,
}

/// The mount point of a daemon without a tree. A directory of this name is `./none`.
const NO_TREE: &str = "none";

/// The captures to start, and the paths of the daemon's files.
struct DaemonStart {
    plan: CapturePlan,
    /// The configuration, and the file it is in.
    config: Option<(PathBuf, Config)>,
    base: CaptureSettings,
    ring_dir: PathBuf,
    /// True if neither the command line nor the configuration sets the directory of rings.
    is_default_ring_dir: bool,
    mountpoint: PathBuf,
    /// Who may connect from other machines.
    remote: Option<Arc<RemoteAccess>>,
}

impl DaemonStart {
    /// Reads the command line and the configuration.
    fn new(options: &MountArguments) -> Result<Self, Failure> {
        let base = plan::settings(options).map_err(Failure::Usage)?;
        let default = options.ring_dir.clone().unwrap_or_else(default_ring_dir);
        let mut ring_dir = absolute(&default).map_err(Failure::System)?;
        let mut is_default_ring_dir = options.ring_dir.is_none();
        let config = match config_path(options) {
            None => None,
            Some(path) => {
                let path = absolute(&path).map_err(Failure::System)?;
                let config = Config::load(&path, &base, ring_dir_for(options, &ring_dir));
                Some((path, config.map_err(Failure::Config)?))
            }
        };
        let configured = config.as_ref().and_then(|(_, config)| config.ring_dir.clone());
        if let Some(configured) = configured.filter(|_| is_default_ring_dir) {
            (ring_dir, is_default_ring_dir) = (configured, false);
        }
        let plan = plan::plan(options, &ring_dir, config.is_some()).map_err(Failure::Usage)?;
        let mountpoint = if has_tree(options) {
            absolute(&options.mountpoint).map_err(Failure::System)?
        } else {
            options.mountpoint.clone()
        };
        let remote = steering::remote_access(config.as_ref().map(|(_, config)| config))?;
        Ok(Self { plan, config, base, ring_dir, is_default_ring_dir, mountpoint, remote })
    }

    /// The registry, without captures yet.
    fn registry(
        &self,
        options: &MountArguments,
        tree: &Arc<Tree>,
    ) -> Result<Arc<Registry>, Failure> {
        let configured = self.config.as_ref().and_then(|(_, config)| config.state.clone());
        let state = match (&options.state, configured) {
            (Some(path), _) => Some(absolute(path).map_err(Failure::System)?),
            (None, Some(path)) => Some(path),
            (None, None) => {
                let own = (!self.is_default_ring_dir).then_some(self.ring_dir.as_path());
                state::default_path(own, &self.mountpoint, options.handoff.is_some())
            }
        };
        let settings = self.config.as_ref().map_or(&self.base, |(_, config)| &config.settings);
        let state = state.map(StateFile::load);
        Ok(Registry::new(Arc::clone(tree), &self.ring_dir, settings.clone(), state))
    }

    /// Forgets the state and rings of earlier runs, for these captures and those made by `init`.
    fn forget(&self, registry: &Registry) -> Result<(), Failure> {
        let configured = self.config.iter().flat_map(|(_, config)| &config.captures);
        let specs = self.plan.captures.iter().chain(configured.map(|one| &one.spec));
        let names = specs.map(|spec| spec.alias.as_str()).collect();
        registry.begin_afresh(names).map_err(Failure::Answer)
    }
}

/// The configuration file of the command line. Without one, and without captures on the command
/// line, the system's configuration file if it exists.
fn config_path(options: &MountArguments) -> Option<PathBuf> {
    let has_captures = !options.captures.is_empty()
        || options.unnamed.is_some()
        || options.interface.is_some()
        || !options.read.is_empty();
    let default = || Some(PathBuf::from(config::DEFAULT)).filter(|path| path.exists());
    options.config.clone().or_else(|| if has_captures { None } else { default() })
}

fn has_tree(options: &MountArguments) -> bool {
    options.mountpoint != Path::new(NO_TREE)
}

fn ring_dir_for<'a>(options: &MountArguments, ring_dir: &'a Path) -> RingDir<'a> {
    if options.ring_dir.is_some() { RingDir::Given(ring_dir) } else { RingDir::Default(ring_dir) }
}

/// How the tree will be mounted. A daemon of the helper first gives up rights that it does not
/// need.
fn mounter(
    handoff: Option<DeviceHandoff>,
    options: &MountArguments,
    mountpoint: &Path,
) -> Result<TreeMounter, Failure> {
    if let Some(helper) = handoff {
        sources::make_taps_with(helper.clone());
        sources::attach_xdp_with(helper.clone());
        sources::open_namespaces_with(helper.clone());
        confine::keep_memory().map_err(Failure::System)?;
        confine::start_no_programs().map_err(Failure::System)?;
        return Ok(TreeMounter::MountHelper(helper));
    }
    let words = options.options.iter().filter(|word| !word.is_empty()).cloned().collect();
    let mount_options = MountOptions { source: "pcapfs".to_owned(), words };
    // Errors that the mount would give come here, before anything is made.
    fuse::check(mountpoint, &mount_options).map_err(Failure::Mount)?;
    Ok(TreeMounter::ThisProcess(mount_options))
}

/// `pcapfs mount`, from the options to the end.
pub(crate) fn run(options: &MountArguments) -> Result<(), Failure> {
    // Three for each capture, and one for each connection.
    descriptor_limit::raise();
    // Before this process opens a file, which might get the same number.
    let handoff =
        options.handoff.map(DeviceHandoff::inherited).transpose().map_err(Failure::Mount)?;
    let start = DaemonStart::new(options)?;
    let mountpoint = start.mountpoint.clone();
    if options.detached {
        // Fails for a process that leads a group already, which then has no terminal to lose.
        let _ = setsid();
        // If the process that waits for "ready" dies, the tree is not wanted. On a kernel without
        // this call, the daemon goes on.
        let _ = set_pdeathsig(Signal::SIGTERM);
    }
    let by = has_tree(options).then(|| mounter(handoff, options, &mountpoint)).transpose()?;
    let (sender, events) = mpsc::channel();
    let mounting = Arc::new(AtomicBool::new(false));
    signals::watch(sender.clone(), Arc::clone(&mounting), start.config.is_some())
        .map_err(Failure::System)?;
    let tree = Arc::new(Tree::new(settings::root_permissions()));
    if let Some(remote) = &start.remote {
        remote.warn();
        tree.set_remote(Arc::<RemoteAccess>::clone(remote));
    }
    let registry = start.registry(options, &tree)?;
    let reload = start.config.as_ref().map(|(path, _)| (path.clone(), start.base.clone()));
    if options.fresh {
        start.forget(&registry)?;
    }
    let started =
        start_all(&registry, &start).and_then(|()| steering::start(options, &start, &registry));
    let mounted = started.and_then(|control| {
        let over = move || {
            // If the daemon has ended before, there is no receiver.
            let _ = sender.send(DaemonEvent::Unmounted);
        };
        mounting.store(true, Ordering::SeqCst);
        let Some(by) = &by else {
            return match control {
                Steered::By(_) => Ok((None, control)),
                // Nothing would be left to reach the captures by.
                Steered::No(why) => Err(Failure::Argument(format!("{NO_TREE}: {why}"))),
            };
        };
        Mounted::new(Arc::clone(&tree), &mountpoint, by, over)
            .map(|mounted| (Some(mounted), control))
            .map_err(Failure::Mount)
    });
    let (mounted, control) = match mounted {
        Ok(mounted) => mounted,
        Err(failure) => {
            registry.stop_all();
            return Err(failure);
        }
    };
    let (control, unsteered) = match control {
        Steered::By(control) => (Some(control), None),
        Steered::No(why) => (None, Some(why)),
    };
    let ready = || {
        if let Some(why) = &unsteered {
            say(why);
        }
        if options.detached {
            // Before the line on which the waiting process ends.
            let _ = set_pdeathsig(None);
        }
        match &by {
            Some(TreeMounter::MountHelper(helper)) => helper.ready(),
            Some(TreeMounter::ThisProcess(_)) => {
                say(format_args!("{READY}{}", mountpoint.display()));
            }
            None => {
                let socket = tree.socket().unwrap_or_default();
                say(format_args!("{READY}{}, without a tree", socket.display()));
            }
        }
        if options.detached {
            // So that the daemon keeps no unrelated directory busy.
            let _ = std::env::set_current_dir("/");
        }
    };
    let read_again = || {
        if let Some((path, base)) = &reload {
            let ring_dir = ring_dir_for(options, &start.ring_dir);
            read_again(&registry, start.remote.as_deref(), (path, base, ring_dir));
        }
    };
    let reading = (!options.no_wait).then(|| SavefilesWait::new(options.detached));
    let tidy = || start.remote.iter().for_each(|remote| remote.warn());
    let event = serve(&tree, &events, reading, &ready, (&read_again, &tidy));
    let detacher = mounted.as_ref().map(Mounted::detacher);
    let has_stopped = end_in_any_case(move || {
        if let Some(detach) = detacher {
            detach();
        }
    });
    end(&registry, mounted, control, &event, &events);
    has_stopped.store(true, Ordering::Release);
    Ok(())
}

/// Runs until an event ends the daemon. Calls `ready` when `reading` is over, `read_again` for a new
/// configuration, and `tidy` now and then.
fn serve(
    tree: &Tree,
    events: &Receiver<DaemonEvent>,
    mut reading: Option<SavefilesWait>,
    ready: &dyn Fn(),
    (read_again, tidy): (&dyn Fn(), &dyn Fn()),
) -> DaemonEvent {
    let mut is_ready = false;
    let mut freed = Freed::default();
    loop {
        if !is_ready && reading.as_mut().is_none_or(|reading| reading.is_over(tree)) {
            is_ready = true;
            ready();
        }
        let event = events.recv_timeout(if is_ready { TIDYING } else { reading::STEP });
        match event {
            Ok(DaemonEvent::Reload) => read_again(),
            Ok(DaemonEvent::Counters) => say_counters(tree),
            Ok(event @ (DaemonEvent::Signal | DaemonEvent::Unmounted)) => return event,
            Err(RecvTimeoutError::Timeout) if is_ready => {
                freed.give_back();
                tidy();
            }
            Err(RecvTimeoutError::Timeout) => {}
            // All senders end with the tree.
            Err(RecvTimeoutError::Disconnected) => return DaemonEvent::Unmounted,
        }
    }
}

/// Prints the counters of each capture, as `status.json` has them.
fn say_counters(tree: &Tree) {
    for entry in tree.captures.all() {
        let packets = capture::pipeline::counters(&**entry.capture.store()).0;
        let excluded = match packets.excluded {
            0 => String::new(),
            excluded => format!(", {excluded} excluded"),
        };
        say(format_args!(
            "{}: {} packets seen, {} stored, {} dropped by the kernel, {} too large, {} retained{}",
            entry.alias(),
            packets.seen,
            packets.stored,
            packets.dropped_kernel,
            packets.dropped_oversize,
            packets.retained,
            excluded,
        ));
    }
}

/// Reads the configuration again and applies the differences.
fn read_again(
    registry: &Registry,
    remote: Option<&RemoteAccess>,
    (path, base, ring_dir): (&Path, &CaptureSettings, RingDir<'_>),
) {
    let name = path.display();
    let config = match Config::load(path, base, ring_dir) {
        Ok(config) => config,
        Err(error) => return say(format_args!("{error}; nothing has changed")),
    };
    match registry.reload(&config) {
        Ok(changes) => say(format_args!("{name}: read again: {changes}")),
        Err(error) => return say(format_args!("{error}; nothing has changed")),
    }
    let reloaded = match remote {
        Some(remote) => remote.reload(config.remote.as_ref()),
        None if config.remote.is_some() => {
            Err("[remote] is new: other machines can connect when pcapfs is started again"
                .to_owned())
        }
        None => Ok(()),
    };
    if let Err(why) = reloaded {
        say(format_args!("{name}: remote: {why}"));
    }
}

fn start_all(registry: &Registry, start: &DaemonStart) -> Result<(), Failure> {
    let permissions = start.plan.settings.permissions;
    let origin = Origin::CommandLine;
    let planned = start.plan.captures.iter().cloned().map(|spec| Planned {
        spec,
        origin,
        permissions,
        is_explicit: false,
        waits: false,
    });
    registry.add_all(planned.collect()).map_err(|(_, refusal)| Failure::Refused(refusal))?;
    for (name, target) in &start.plan.links {
        registry.link(name, target);
    }
    if let Some((_, config)) = &start.config {
        registry.configure(config).map_err(Failure::Config)?;
    }
    registry.restore();
    Ok(())
}

/// Ends everything in order.
fn end(
    registry: &Registry,
    mounted: Option<Mounted>,
    control: Option<ControlService>,
    event: &DaemonEvent,
    events: &Receiver<DaemonEvent>,
) {
    let tree = &registry.tree;
    let begun = Instant::now();
    registry.stop_all();
    let control = control.map(ControlService::end);
    if let (DaemonEvent::Signal, Some(mounted)) = (event, &mounted) {
        mounted.detach();
    }
    let is_over = || mounted.as_ref().is_none_or(Mounted::is_over);
    let stopped = Instant::now();
    let is_waited_for = || {
        let clients = control.as_ref().is_some_and(|control| !control.is_over());
        let idle = if clients { CONTROL_GRACE } else { IDLE_GRACE };
        let is_done = is_over() && !clients;
        // Clients read files of the tree too.
        let is_idle = is_over() || tree.open_files() == 0;
        !is_done && begun.elapsed() < GRACE && !(is_idle && stopped.elapsed() >= idle)
    };
    while is_waited_for() {
        match events.recv_timeout(GRACE_STEP) {
            // A second signal: end at once.
            Ok(DaemonEvent::Signal) => return,
            Ok(DaemonEvent::Counters) => say_counters(tree),
            Ok(DaemonEvent::Unmounted | DaemonEvent::Reload) | Err(RecvTimeoutError::Timeout) => {}
            // No sender is left.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(GRACE_STEP),
        }
    }
    if !is_over() && tree.open_files() > 0 {
        say(format_args!("{} files were still open", tree.open_files()));
        return;
    }
    // When this process ends, the tree is gone for processes with a copy of the mount in a mount
    // namespace of their own, too.
    if let Some(mounted) = mounted.filter(Mounted::is_over) {
        mounted.join(GRACE.saturating_sub(begun.elapsed()).max(IDLE_GRACE));
    }
    for entry in tree.captures.all() {
        let retained = capture::pipeline::counters(&**entry.capture.store()).0.retained;
        if let Some(path) = entry.capture.ring_path()
            && retained > 0
        {
            let (alias, path) = (entry.alias(), path.display());
            say(format_args!("{alias}: {retained} packets are kept in {path}"));
        }
    }
}

/// Ends this process some time after it should have ended, even if a source does not stop or a
/// thread loops in a ring that another program has overwritten. Set the returned flag when
/// everything has stopped and only memory is left to free: the exit code is 0 then.
fn end_in_any_case(detach: impl FnOnce() + Send + 'static) -> Arc<AtomicBool> {
    let has_stopped = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&has_stopped);
    // Without this thread, the process may end late.
    let _ = thread::Builder::new().name("end".to_owned()).spawn(move || {
        thread::sleep(LAST);
        let is_clean = stopped.load(Ordering::Acquire);
        if !is_clean {
            say("not everything has stopped; ending all the same");
            detach();
        }
        #[expect(clippy::exit, reason = "what still runs is in nobody's way")]
        std::process::exit(i32::from(!is_clean));
    });
    has_stopped
}
