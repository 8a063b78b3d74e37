//! The daemon: starts captures and the tree, and ends them in order.
//!
//! Start: plan, rings, captures, tree, mount, "ready". Whatever fails leaves nothing mounted and
//! nothing running. End: captures stop, so that readers get the rest and the end of file; the tree
//! is taken out of the file system; readers that are left have a moment to close; the process ends.

mod plan;
pub(crate) mod registry;
pub(crate) mod settings;
mod state;

use std::fs::{self, DirBuilder};
use std::io::{self, IsTerminal};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{geteuid, setsid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::cli::Mount;
use crate::cli::output::say;
use crate::control::{self, Control, Socket, SocketError};
use crate::fs::Tree;
use crate::fuse::{self, MountError, Mounted, Options};
use plan::Plan;
use registry::{Origin, Planned, Refusal, Registry};
use state::StateFile;

/// How the line begins that says the tree answers.
pub(crate) const READY: &str = "ready at ";

/// How long readers may go on after the end, to read what is stored.
const GRACE: Duration = Duration::from_secs(3);

/// How long programs connected to the control service may go on after the end.
const CONTROL_GRACE: Duration = Duration::from_secs(1);

/// How often it is looked whether they have closed.
const GRACE_STEP: Duration = Duration::from_millis(10);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Typed wrong.
    #[error("{0} (try: pcapfs mount --help)")]
    Usage(String),
    /// An argument that cannot be right.
    #[error("{0}")]
    Argument(String),
    /// A capture cannot be made.
    #[error("{0}")]
    Refused(Refusal),
    /// The control service cannot have its socket.
    #[error("{0}")]
    Socket(SocketError),
    /// The tree cannot be mounted or unmounted.
    #[error("{0}")]
    Mount(MountError),
    /// The ring directory cannot be used.
    #[error("{path}: {why}", path = .path.display())]
    RingDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong, for people.
        why: String,
    },
    /// The system refused something else.
    #[error("{0}")]
    System(io::Error),
    /// The daemon cannot be reached, or has gone away.
    #[error("{0}")]
    Unreachable(String),
    /// The daemon does not do what it was asked for.
    #[error("{0}")]
    Answer(String),
    /// The process in the background has said why, and ended with this code.
    #[error("not started in the background (exit code {0})")]
    Background(i32),
}

impl Failure {
    /// Whether typing something else would help, whatever the state of the system.
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_) | Self::Argument(_) | Self::Mount(MountError::BadOption(_)))
    }
}

/// What ends the daemon.
enum Event {
    /// A signal that means so.
    Signal,
    /// The tree was unmounted by someone, and no file of it is open.
    Unmounted,
}

/// `pcapfs mount`, from the options to the end.
pub(crate) fn run(options: &Mount) -> Result<(), Failure> {
    let ring_dir = options.ring_dir.clone().unwrap_or_else(default_ring_dir);
    let ring_dir = absolute(&ring_dir)?;
    let plan = plan::plan(options, &ring_dir).map_err(Failure::Usage)?;
    let mountpoint = absolute(&options.mountpoint)?;
    let mount_options = Options {
        source: "pcapfs".to_owned(),
        words: options.options.iter().filter(|word| !word.is_empty()).cloned().collect(),
    };
    if options.detached {
        // Fails for a process that leads a group already, which then has no terminal to lose.
        let _ = setsid();
        // Whoever waits for the tree to be ready has gone: then nobody wants it. A kernel without
        // this has us go on.
        let _ = set_pdeathsig(Signal::SIGTERM);
    }
    // What would fail at the end fails before anything is made.
    fuse::check(&mountpoint, &mount_options).map_err(Failure::Mount)?;
    let (sender, events) = mpsc::channel();
    let mounting = Arc::new(AtomicBool::new(false));
    watch_signals(sender.clone(), Arc::clone(&mounting)).map_err(Failure::System)?;
    let tree = Arc::new(Tree::new(settings::root_permissions()));
    let own_ring_dir = options.ring_dir.as_ref().map(|_| ring_dir.as_path());
    let state = match &options.state {
        Some(path) => Some(absolute(path)?),
        None => state::default_path(own_ring_dir, &mountpoint),
    };
    let state = state.map(StateFile::load);
    let registry = Registry::new(Arc::clone(&tree), &ring_dir, plan.settings.clone(), state);
    let started = start_all(&registry, plan).and_then(|()| control(options, &registry));
    let mounted = started.and_then(|control| {
        let over = move || {
            // Nobody listens any more when the daemon has ended before.
            let _ = sender.send(Event::Unmounted);
        };
        mounting.store(true, Ordering::SeqCst);
        Mounted::new(Arc::clone(&tree), &mountpoint, &mount_options, over)
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
    if options.detached {
        // Before it is said: whoever waits for it ends then.
        let _ = set_pdeathsig(None);
    }
    say(format_args!("{READY}{}", mountpoint.display()));
    if options.detached {
        // Not to keep a directory busy that has nothing to do with the captures.
        let _ = std::env::set_current_dir("/");
    }
    // An error is the end of all senders, which is the end of the tree.
    let event = events.recv().unwrap_or(Event::Unmounted);
    end(&registry, mounted, control, &event, &events);
    Ok(())
}

/// Starts the control service. Without a socket there is none: only one that was asked for must be
/// had, as several daemons may run with the defaults.
fn control(options: &Mount, registry: &Arc<Registry>) -> Result<Option<Control>, Failure> {
    let path = match &options.socket {
        Some(path) => absolute(path)?,
        None => match control::daemon_path() {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    match Socket::bind(&path) {
        Ok(socket) => {
            let control = Control::start(socket, Arc::clone(registry));
            control.map(Some).map_err(Failure::System)
        }
        Err(error) if options.socket.is_some() => Err(Failure::Socket(error)),
        Err(error) => {
            // News for whoever looks; a script that starts several daemons knows what it does.
            if io::stderr().is_terminal() {
                say(format_args!("not to be steered by pcapfs list, start and the like: {error}"));
            }
            Ok(None)
        }
    }
}

fn start_all(registry: &Registry, plan: Plan) -> Result<(), Failure> {
    let permissions = plan.settings.permissions;
    for spec in plan.captures {
        let planned = Planned { spec, origin: Origin::CommandLine, permissions, waits: false };
        registry.add(planned).map_err(Failure::Refused)?;
    }
    for (name, target) in &plan.links {
        registry.link(name, target);
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
    registry.stop_all();
    if let Some(control) = control {
        control.end(CONTROL_GRACE);
    }
    if matches!(event, Event::Signal) {
        mounted.detach();
        let begun = Instant::now();
        while !mounted.is_over() && begun.elapsed() < GRACE {
            match events.recv_timeout(GRACE_STEP) {
                Ok(Event::Unmounted) | Err(RecvTimeoutError::Disconnected) => break,
                // A second signal: no more patience.
                Ok(Event::Signal) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        if !mounted.is_over() && tree.open_files() > 0 {
            say(format_args!("{} files were still open", tree.open_files()));
            return;
        }
    }
    mounted.join();
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

/// Sends an event for every signal that means the end. Before anything is mounted there is nothing
/// to end in order, and what holds the start up may take long: then the process ends at once.
fn watch_signals(sender: Sender<Event>, mounting: Arc<AtomicBool>) -> io::Result<()> {
    // A write behind the limit of file sizes is an error like any other, and no reason to end.
    flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let mut wanted = vec![SIGINT, SIGTERM, SIGQUIT];
    // nohup(1) means what it says.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            if !mounting.load(Ordering::SeqCst) {
                say("interrupted before the tree was mounted");
                #[expect(clippy::exit, reason = "the main thread may be busy for minutes")]
                std::process::exit(1);
            }
            if sender.send(Event::Signal).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Whether this process was started with a signal ignored (`SigIgn`, proc_pid_status(5)).
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

fn default_ring_dir() -> PathBuf {
    let uid = geteuid();
    if uid.is_root() {
        PathBuf::from("/dev/shm/pcapfs")
    } else {
        PathBuf::from(format!("/dev/shm/pcapfs-{uid}"))
    }
}

/// Makes the ring directory, or makes sure that nobody else can put anything into it.
fn prepare_ring_dir(path: &Path) -> Result<(), Failure> {
    let failure = |why: String| Failure::RingDir { path: path.to_owned(), why };
    let made = DirBuilder::new().mode(0o700).create(path);
    match made {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failure(format!("cannot be made: {error}"))),
    }
    let metadata = fs::metadata(path).map_err(|error| failure(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(failure("not a directory".to_owned()));
    }
    // A ring file in a directory that others may write to could be one of theirs.
    let sticky_or_private = metadata.mode() & 0o022 == 0;
    let uid = geteuid().as_raw();
    if (metadata.uid() != uid && metadata.uid() != 0) || !sticky_or_private {
        return Err(failure(
            "others may write to this directory (choose another --ring-dir, or chmod go-w it)"
                .to_owned(),
        ));
    }
    Ok(())
}

/// A path as it is from anywhere, links followed as far as it exists.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    // A mount point whose daemon died cannot be looked at, and need not be.
    match fs::canonicalize(path) {
        Ok(whole) => Ok(whole),
        Err(_) => {
            let whole = std::path::absolute(path).map_err(Failure::System)?;
            // The parent can be looked at, and must be: mount tables have no links.
            match (whole.parent().map(fs::canonicalize), whole.file_name()) {
                (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
                _ => Ok(whole),
            }
        }
    }
}
