//! The daemon: starts captures and the tree, and ends them in order.
//!
//! Start: plan, rings, captures, tree, mount, all of the savefiles, "ready". Whatever fails leaves nothing mounted and
//! nothing running. End: captures stop, so that readers get the rest and the end of file; the tree
//! is taken out of the file system; readers that are left have a moment to close; the process ends.

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
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::setsid;

use crate::config::{self, Config, RingDir};
use crate::control::Control;
use crate::failure::Failure;
use crate::fs::Tree;
use crate::fuse::{self, By, Handoff, Mounted, Options};
use crate::memory::Freed;
use crate::output::say;
use crate::paths::{absolute, default_ring_dir};
use crate::registry::state::{self, StateFile};
use crate::registry::{Origin, Planned, Registry};
use crate::settings::{self, Settings};
pub(crate) use checking::check_config;
pub(crate) use forgetting::{forget_by_default, forget_in};
use options::MountArguments;
use plan::Plan;
pub(crate) use reading::READING;
use reading::Reading;
use steering::Steered;

/// How the line begins that says the tree answers.
pub(crate) const READY: &str = "ready at ";

/// How long readers may go on after the end, to read what is stored. Everything else that is waited
/// for is waited for meanwhile: that it takes no longer is promised in pcapfs(1).
const GRACE: Duration = Duration::from_secs(3);

/// How long the end may take at most, when something does not stop.
const LAST: Duration = Duration::from_secs(5);

/// How often memory is given back that was freed.
const TIDYING: Duration = Duration::from_secs(5);

/// How long to wait for the kernel to let go of a tree of which no file is open.
const IDLE_GRACE: Duration = Duration::from_millis(500);

/// How long programs connected to the control service may go on after the end.
const CONTROL_GRACE: Duration = Duration::from_secs(1);

/// How often it is looked whether they have closed.
const GRACE_STEP: Duration = Duration::from_millis(10);

/// What the main thread waits for.
enum Event {
    /// A signal that means so.
    Signal,
    /// The configuration is to be read again.
    Reload,
    /// The counters are to be logged.
    Counters,
    /// The tree was unmounted by someone, and no file of it is open.
    Unmounted,
}

/// What is to be started, and where it keeps what.
struct Start {
    plan: Plan,
    /// The configuration, and the file it is in.
    config: Option<(PathBuf, Config)>,
    base: Settings,
    ring_dir: PathBuf,
    /// Nobody said where rings are.
    is_default_ring_dir: bool,
    mountpoint: PathBuf,
}

impl Start {
    /// Reads what was typed, and the configuration.
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
        let mountpoint = absolute(&options.mountpoint).map_err(Failure::System)?;
        Ok(Self { plan, config, base, ring_dir, is_default_ring_dir, mountpoint })
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

    /// Forgets what earlier runs kept, of these captures and those made by `init`.
    fn forget(&self, registry: &Registry) -> Result<(), Failure> {
        let configured = self.config.iter().flat_map(|(_, config)| &config.captures);
        let specs = self.plan.captures.iter().chain(configured.map(|one| &one.spec));
        let names = specs.map(|spec| spec.alias.as_str()).collect();
        registry.begin_afresh(names).map_err(Failure::Answer)
    }
}

/// The configuration that was asked for; or, if no capture was, that of the system if there is one.
fn config_path(options: &MountArguments) -> Option<PathBuf> {
    let has_captures =
        !options.captures.is_empty() || options.interface.is_some() || !options.read.is_empty();
    let default = || Some(PathBuf::from(config::DEFAULT)).filter(|path| path.exists());
    options.config.clone().or_else(|| if has_captures { None } else { default() })
}

fn ring_dir_for<'a>(options: &MountArguments, ring_dir: &'a Path) -> RingDir<'a> {
    if options.ring_dir.is_some() { RingDir::Given(ring_dir) } else { RingDir::Default(ring_dir) }
}

/// How the tree will be mounted. A daemon of the helper gives up what it does not need.
fn mounter(
    handoff: Option<Handoff>,
    options: &MountArguments,
    mountpoint: &Path,
) -> Result<By, Failure> {
    if let Some(helper) = handoff {
        confine::keep_memory().map_err(Failure::System)?;
        confine::start_no_programs().map_err(Failure::System)?;
        return Ok(By::Helper(helper));
    }
    let words = options.options.iter().filter(|word| !word.is_empty()).cloned().collect();
    let mount_options = Options { source: "pcapfs".to_owned(), words };
    // What would fail at the end fails before anything is made.
    fuse::check(mountpoint, &mount_options).map_err(Failure::Mount)?;
    Ok(By::Itself(mount_options))
}

/// `pcapfs mount`, from the options to the end.
pub(crate) fn run(options: &MountArguments) -> Result<(), Failure> {
    allow_descriptors();
    // Before this process opens anything, which might get the same number.
    let handoff = options.handoff.map(Handoff::inherited).transpose().map_err(Failure::Mount)?;
    let start = Start::new(options)?;
    let mountpoint = start.mountpoint.clone();
    if options.detached {
        // Fails for a process that leads a group already, which then has no terminal to lose.
        let _ = setsid();
        // Whoever waits for the tree to be ready has gone: then nobody wants it. A kernel without
        // this has us go on.
        let _ = set_pdeathsig(Signal::SIGTERM);
    }
    let by = mounter(handoff, options, &mountpoint)?;
    let (sender, events) = mpsc::channel();
    let mounting = Arc::new(AtomicBool::new(false));
    signals::watch(sender.clone(), Arc::clone(&mounting), start.config.is_some())
        .map_err(Failure::System)?;
    let tree = Arc::new(Tree::new(settings::root_permissions()));
    let registry = start.registry(options, &tree)?;
    let reload = start.config.as_ref().map(|(path, _)| (path.clone(), start.base.clone()));
    if options.fresh {
        start.forget(&registry)?;
    }
    let started =
        start_all(&registry, &start).and_then(|()| steering::start(options, &start, &registry));
    let mounted = started.and_then(|control| {
        let over = move || {
            // Nobody listens any more when the daemon has ended before.
            let _ = sender.send(Event::Unmounted);
        };
        mounting.store(true, Ordering::SeqCst);
        Mounted::new(Arc::clone(&tree), &mountpoint, &by, over)
            .map(|mounted| (mounted, control))
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
            // Before the line that the waiting process ends on.
            let _ = set_pdeathsig(None);
        }
        match &by {
            By::Itself(_) => say(format_args!("{READY}{}", mountpoint.display())),
            By::Helper(helper) => helper.ready(),
        }
        if options.detached {
            // Not to keep a directory busy that has nothing to do with the captures.
            let _ = std::env::set_current_dir("/");
        }
    };
    let read_again = || {
        if let Some((path, base)) = &reload {
            read_again(&registry, path, base, ring_dir_for(options, &start.ring_dir));
        }
    };
    let reading = (!options.no_wait).then(|| Reading::new(options.detached));
    let event = serve(&tree, &events, reading, &ready, &read_again);
    let has_stopped = end_in_any_case(mounted.detacher());
    end(&registry, mounted, control, &event, &events);
    has_stopped.store(true, Ordering::Release);
    Ok(())
}

/// Until something ends the daemon. Calls `ready` once all is there that `reading` waits for.
fn serve(
    tree: &Tree,
    events: &Receiver<Event>,
    mut reading: Option<Reading>,
    ready: &dyn Fn(),
    read_again: &dyn Fn(),
) -> Event {
    let mut is_ready = false;
    let mut freed = Freed::default();
    loop {
        if !is_ready && reading.as_mut().is_none_or(|reading| reading.is_over(tree)) {
            is_ready = true;
            ready();
        }
        let event = events.recv_timeout(if is_ready { TIDYING } else { reading::STEP });
        match event {
            Ok(Event::Reload) => read_again(),
            Ok(Event::Counters) => say_counters(tree),
            Ok(event @ (Event::Signal | Event::Unmounted)) => return event,
            Err(RecvTimeoutError::Timeout) if is_ready => freed.give_back(),
            Err(RecvTimeoutError::Timeout) => {}
            // The end of all senders is the end of the tree.
            Err(RecvTimeoutError::Disconnected) => return Event::Unmounted,
        }
    }
}

/// Lets this process have as many descriptors as it may: three for each capture, and one for each
/// connection. The usual limit is for programs that still use select(2), which none of this does.
fn allow_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where that is refused, the usual limit is enough for what is usual.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Says what each capture has counted, as `status.json` does.
fn say_counters(tree: &Tree) {
    for entry in tree.captures.all() {
        let packets = capture::pipeline::counters(&**entry.capture.store()).0;
        say(format_args!(
            "{}: {} packets seen, {} stored, {} dropped by the kernel, {} too large, {} retained",
            entry.alias(),
            packets.seen,
            packets.stored,
            packets.dropped_kernel,
            packets.dropped_oversize,
            packets.retained,
        ));
    }
}

/// Reads the configuration again and applies what is different.
fn read_again(registry: &Registry, path: &Path, base: &Settings, ring_dir: RingDir<'_>) {
    let config = Config::load(path, base, ring_dir);
    match config.and_then(|config| registry.reload(&config)) {
        Ok(changes) => say(format_args!("{}: read again: {changes}", path.display())),
        Err(error) => say(format_args!("{error}; nothing has changed")),
    }
}

fn start_all(registry: &Registry, start: &Start) -> Result<(), Failure> {
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
    mounted: Mounted,
    control: Option<Control>,
    event: &Event,
    events: &Receiver<Event>,
) {
    let tree = &registry.tree;
    let begun = Instant::now();
    registry.stop_all();
    let control = control.map(Control::end);
    if matches!(event, Event::Signal) {
        mounted.detach();
    }
    let stopped = Instant::now();
    let is_waited_for = || {
        let clients = control.as_ref().is_some_and(|control| !control.is_over());
        let idle = if clients { CONTROL_GRACE } else { IDLE_GRACE };
        let is_done = mounted.is_over() && !clients;
        // Clients read files of the tree too.
        let is_idle = mounted.is_over() || tree.open_files() == 0;
        !is_done && begun.elapsed() < GRACE && !(is_idle && stopped.elapsed() >= idle)
    };
    while is_waited_for() {
        match events.recv_timeout(GRACE_STEP) {
            // A second signal: no more patience.
            Ok(Event::Signal) => return,
            Ok(Event::Counters) => say_counters(tree),
            Ok(Event::Unmounted | Event::Reload) | Err(RecvTimeoutError::Timeout) => {}
            // Nobody is left to send one.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(GRACE_STEP),
        }
    }
    if !mounted.is_over() && tree.open_files() > 0 {
        say(format_args!("{} files were still open", tree.open_files()));
        return;
    }
    // With the process at the latest, it is over for those as well that have a copy of the mount in
    // a mount namespace of their own.
    if mounted.is_over() {
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

/// Has this process end some time after it should have, whatever holds it up: a source that does not
/// stop, or a thread that has lost its way in a ring that somebody else wrote to.
/// Whether it has stopped and only has memory left to give back is to be said with what is returned.
fn end_in_any_case(detach: impl FnOnce() + Send + 'static) -> Arc<AtomicBool> {
    let has_stopped = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&has_stopped);
    // Without a thread it ends as it can.
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
