//! The daemon: starts captures and the tree, and ends them in order.
//!
//! Start: plan, rings, captures, tree, mount, "ready". Whatever fails leaves nothing mounted and
//! nothing running. End: captures stop, so that readers get the rest and the end of file; the tree
//! is taken out of the file system; readers that are left have a moment to close; the process ends.

mod confine;
mod plan;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use capture::pipeline::{Capture, CaptureError, Made, Spec};
use capture::ring::Permissions;
use capture::source::SourceName;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid, setsid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::cli::Mount;
use crate::cli::output::say;
use crate::fs::{Tree, group_id};
use crate::fuse::{self, By, Handoff, MountError, Mounted, Options};
use plan::Plan;

/// How the line begins that says the tree answers.
pub(crate) const READY: &str = "ready at ";

/// Group that may read captures if there is one of this name.
const GROUP: &str = "pcapfs";

/// How long readers may go on after the end, to read what is stored.
const GRACE: Duration = Duration::from_secs(3);

/// How often it is looked whether they have closed.
const GRACE_STEP: Duration = Duration::from_millis(10);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Typed wrong.
    #[error("{0} (try: pcapfs mount --help)")]
    Usage(String),
    /// A capture cannot be made.
    #[error("{0}")]
    Capture(CaptureError),
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
    /// The process in the background has said why, and ended with this code.
    #[error("not started in the background (exit code {0})")]
    Background(i32),
}

impl Failure {
    /// Whether typing something else would help, whatever the state of the system.
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_) | Self::Mount(MountError::BadOption(_)))
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
    // Before this process opens anything, which might get the same number.
    let handoff = options.handoff.map(Handoff::inherited).transpose().map_err(Failure::Mount)?;
    let ring_dir = options.ring_dir.clone().unwrap_or_else(default_ring_dir);
    let ring_dir = absolute(&ring_dir)?;
    let plan = plan::plan(options, &ring_dir).map_err(Failure::Usage)?;
    let permissions = default_permissions(options).map_err(Failure::Usage)?;
    let mountpoint = absolute(&options.mountpoint)?;
    if options.detached {
        // Fails for a process that leads a group already, which then has no terminal to lose.
        let _ = setsid();
        // Whoever waits for the tree to be ready has gone: then nobody wants it. A kernel without
        // this has us go on.
        let _ = set_pdeathsig(Signal::SIGTERM);
    }
    let by = match handoff {
        Some(helper) => {
            confine::start_no_programs().map_err(Failure::System)?;
            By::Helper(helper)
        }
        None => {
            let words = options.options.iter().filter(|word| !word.is_empty()).cloned().collect();
            let mount_options = Options { source: "pcapfs".to_owned(), words };
            // What would fail at the end fails before anything is made.
            fuse::check(&mountpoint, &mount_options).map_err(Failure::Mount)?;
            By::Itself(mount_options)
        }
    };
    let (sender, events) = mpsc::channel();
    let mounting = Arc::new(AtomicBool::new(false));
    watch_signals(sender.clone(), Arc::clone(&mounting)).map_err(Failure::System)?;
    if plan.captures.iter().any(|spec| !matches!(spec.source, SourceName::File(_))) {
        prepare_ring_dir(&ring_dir)?;
    }
    let tree = Arc::new(Tree::new((geteuid().as_raw(), getegid().as_raw())));
    let mounted = start_all(&tree, plan, permissions).and_then(|()| {
        let over = move || {
            // Nobody listens any more when the daemon has ended before.
            let _ = sender.send(Event::Unmounted);
        };
        mounting.store(true, Ordering::SeqCst);
        Mounted::new(Arc::clone(&tree), &mountpoint, &by, over).map_err(Failure::Mount)
    });
    let mounted = match mounted {
        Ok(mounted) => mounted,
        Err(failure) => {
            stop_all(&tree);
            return Err(failure);
        }
    };
    if options.detached {
        // Before it is said: whoever waits for it ends then.
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
    // An error is the end of all senders, which is the end of the tree.
    let event = events.recv().unwrap_or(Event::Unmounted);
    end(&tree, mounted, &event, &events);
    Ok(())
}

fn start_all(tree: &Tree, plan: Plan, permissions: Permissions) -> Result<(), Failure> {
    for spec in plan.captures {
        let capture = start(spec)?;
        tree.captures.add(capture, permissions);
    }
    for (name, target) in &plan.links {
        tree.captures.link(name, target);
    }
    Ok(())
}

/// Stops every capture, and takes away rings that never held anything.
fn stop_all(tree: &Tree) {
    for entry in &tree.captures.all() {
        entry.capture.stop();
        let (packets, _) = capture::pipeline::counters(&**entry.capture.store());
        if let Some(path) = entry.capture.ring_path()
            && packets.seen == 0
            && entry.capture.permissions().is_none()
        {
            // It takes memory and holds nothing; if it cannot be removed, it is found again.
            let _ = fs::remove_file(path);
        }
    }
}

fn start(spec: Spec) -> Result<Arc<Capture>, Failure> {
    let alias = spec.alias.clone();
    let Made { capture, recovered, damage } = Capture::start_new(spec).map_err(Failure::Capture)?;
    if let Some(damage) = damage {
        say(format_args!("{alias}: the ring file was damaged: {damage}"));
    }
    if recovered > 0 {
        say(format_args!("{alias}: {recovered} packets of an earlier run are still there"));
    }
    Ok(capture)
}

/// Ends everything in order.
fn end(tree: &Tree, mounted: Mounted, event: &Event, events: &Receiver<Event>) {
    stop_all(tree);
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

/// The permissions a capture starts with: `root:pcapfs 0750`, or the invoking user's own, unless
/// something else was asked for.
fn default_permissions(options: &Mount) -> Result<Permissions, String> {
    let gid = match &options.group {
        Some(name) => Some(group_id(name).ok_or_else(|| format!("--group {name}: no such group"))?),
        None if geteuid().is_root() => group_id(GROUP),
        None => None,
    };
    Ok(Permissions {
        uid: geteuid().as_raw(),
        gid: gid.unwrap_or_else(|| getegid().as_raw()),
        mode: options.mode,
    })
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
