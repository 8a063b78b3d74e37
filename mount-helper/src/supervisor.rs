//! The small process that stays: it mounts the tree, and starts the daemon again when it dies.
//!
//! A dead tree stays mounted until the next daemon asks for the mount: programs get an error
//! instead of the directory below, and umount(8) works at all times. The supervisor does not mount
//! a tree again that was unmounted: it ends then.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use mount_helper::netns::{self, NetnsRefusal, NetnsRequest, NetnsSockets};
use mount_helper::tap::{self, TapDescription, TapOwner};
use mount_helper::xdp::XdpRequest;
use nix::fcntl::OFlag;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2};
use xdp_attach::Attachment;

use crate::backoff::RestartBackoff;
use crate::confine::{self, Confinement};
use crate::exit::{Exit, MountFailure};
use crate::handoff::{DaemonMessage, Handoff};
use crate::log::{Lines, MessageLog};
use crate::namespace;
use crate::notify::Notifier;
use crate::plan::MountPlan;
use crate::tree::MountedTree;
use crate::watchdog::{Watchdog, WatchdogVerdict};

/// Time limit for a daemon to end after the signal; it gives its readers 3 s of that.
const PATIENCE: Duration = Duration::from_secs(8);

/// Maximum number of tap devices that are made for one daemon. A capture needs one more each time it
/// is made anew; a daemon that was taken over shall not fill the kernel with devices that stay.
const TAPS: u32 = 256;

/// How often to check whether a dead tree was unmounted.
const LOOK: Duration = Duration::from_secs(1);

/// Signals that are not waited for: those of faults of this process, and of job control. All others
/// either have a meaning, or must not end it.
const NOT_OURS: [Signal; 11] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// The supervisor of one tree.
#[derive(Debug)]
pub(crate) struct Supervisor {
    plan: MountPlan,
    program: PathBuf,
    confinement: Confinement,
    signals: SignalFd,
    log: MessageLog,
    notifier: Notifier,
    watchdog: Watchdog,
    /// The process that waits for the tree to answer; `None` without one, or after its end.
    report: Option<OwnedFd>,
    /// The last tree mounted, unless it was unmounted again.
    tree: Option<MountedTree>,
    /// True if the tree has answered once: from then on, a daemon that dies is started again.
    established: bool,
    /// The time limit after the order to end.
    stopping: Option<Instant>,
    /// True if SIGHUP came while the daemon was starting: it is passed on afterwards.
    hangup: bool,
}

/// A running daemon.
#[derive(Debug)]
struct RunningDaemon {
    child: Child,
    /// `None` when the daemon has closed its end.
    handoff: Option<Handoff>,
    stderr: Option<File>,
    lines: Lines,
    phase: DaemonPhase,
    /// Tap devices that were made for it.
    taps: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DaemonPhase {
    /// It opens its sources.
    Starting,
    /// It has got the device.
    Mounted,
    /// It answers since this time.
    Serving(Instant),
}

/// How a daemon ended, and how long it had answered.
struct DaemonEnd {
    status: ExitStatus,
    served: Duration,
}

impl Supervisor {
    /// A supervisor for a plan whose directory has the form of the table of mounts. When the tree
    /// answers, `report` gets a byte, and the supervisor goes to the background. Its log and
    /// notifier were made before another mount namespace was entered.
    ///
    /// # Errors
    /// If signals cannot be waited for.
    pub(crate) fn new(
        plan: MountPlan,
        program: PathBuf,
        confinement: Confinement,
        report: Option<OwnedFd>,
        (log, notifier): (MessageLog, Notifier),
    ) -> io::Result<Self> {
        let mut mask = SigSet::all();
        NOT_OURS.iter().for_each(|signal| mask.remove(*signal));
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let watchdog = Watchdog::new(notifier.watchdog(), plan.directory.clone())?;
        Ok(Self {
            plan,
            program,
            confinement,
            signals,
            log,
            notifier,
            watchdog,
            report,
            tree: None,
            established: false,
            stopping: None,
            hangup: false,
        })
    }

    /// Serves until the tree is unmounted, the order to end comes, or the first start fails.
    ///
    /// # Errors
    /// [`MountFailure`]; nothing is mounted then.
    pub(crate) fn run(mut self) -> Result<Exit, MountFailure> {
        let result = self.supervise();
        if let Some(tree) = self.tree.take() {
            tree.detach();
        }
        if let (Err(failure), true) = (&result, self.established) {
            // Otherwise it would be lost.
            self.log.say(failure);
        }
        result
    }

    fn supervise(&mut self) -> Result<Exit, MountFailure> {
        let mut backoff = RestartBackoff::default();
        loop {
            let end = match self.serve() {
                Ok(end) => end,
                // Perhaps there was no memory for a process; there may be later.
                Err(failure) if self.established && self.tree.is_some() => {
                    self.log.say(&failure);
                    DaemonEnd { status: ExitStatus::from_raw(0x100), served: Duration::ZERO }
                }
                Err(failure) => return Err(failure),
            };
            if self.stopping.is_some() {
                return Ok(if self.established { Exit::Done } else { Exit::Interrupted });
            }
            if !self.established {
                if end.status.signal().is_some() {
                    let how = EndDescription(end.status);
                    self.log.say(format_args!("the daemon {how} before the tree answered"));
                }
                return Ok(match Exit::of_daemon(end.status) {
                    Exit::Done => Exit::Failed,
                    exit => exit,
                });
            }
            if end.status.success() {
                // It was unmounted, or the daemon ended on purpose and has asked for the unmount.
                self.tree = None;
                return Ok(Exit::Done);
            }
            let wait = backoff.after(end.served);
            self.log.say(format_args!(
                "the daemon {}; {}",
                EndDescription(end.status),
                StartDelay(wait)
            ));
            self.notifier.tell("STATUS=The daemon died and is started again");
            if !self.pause(wait) {
                return Ok(Exit::Done);
            }
        }
    }

    /// Waits before the next start; returns whether there will be one.
    fn pause(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            if !self.tree.as_ref().is_some_and(MountedTree::is_there_and_dead) {
                self.log.say("the tree was unmounted meanwhile: not started again");
                self.tree = None;
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            self.wait(None, left.min(LOOK));
            self.take_signals(None);
            if self.stopping.is_some() {
                return false;
            }
            if self.watchdog.tick(false) == WatchdogVerdict::Well {
                self.notifier.tell("WATCHDOG=1");
            }
        }
    }

    /// Starts a daemon and carries out its requests until it has ended.
    fn serve(&mut self) -> Result<DaemonEnd, MountFailure> {
        let begun = Instant::now();
        // A new daemon reads the configuration anyway.
        self.hangup = false;
        let mut daemon = self.start()?;
        loop {
            let woken = self.wait(Some(&daemon), self.next_tick());
            self.take_signals(Some(&daemon));
            if woken.stderr {
                daemon.pass_on(&self.log);
            }
            if woken.socket
                && let Err(failure) = self.take_message(&mut daemon, begun)
            {
                daemon.kill();
                return Err(failure);
            }
            if woken.report {
                // The process that waited has gone, so the tree is not wanted.
                self.report = None;
                self.stop(&daemon);
            }
            if let Some(status) = daemon.child.try_wait().map_err(MountFailure::System)? {
                // Read everything: no other process has the other end.
                while daemon.stderr.is_some() {
                    daemon.pass_on(&self.log);
                }
                let served = match daemon.phase {
                    DaemonPhase::Serving(since) => since.elapsed(),
                    DaemonPhase::Starting | DaemonPhase::Mounted => Duration::ZERO,
                };
                return Ok(DaemonEnd { status, served });
            }
            self.look_after(&daemon);
        }
    }

    fn start(&self) -> Result<RunningDaemon, MountFailure> {
        let (handoff, socket) = Handoff::pair().map_err(MountFailure::System)?;
        let (stderr, theirs) =
            pipe2(OFlag::O_CLOEXEC).map_err(|errno| MountFailure::System(errno.into()))?;
        let mut stderr = File::from(stderr);
        let arguments = self.plan.daemon_arguments();
        let child = confine::start(&self.program, &arguments, socket, theirs, &self.confinement);
        let child = child.map_err(|error| {
            // Both ends of the pipe were in the new process, which is gone, so this ends.
            let said = Lines::default().read(&mut stderr).unwrap_or_default();
            said.iter().for_each(|line| self.log.say(line));
            MountFailure::Start { daemon: self.program.clone(), error }
        })?;
        Ok(RunningDaemon {
            child,
            handoff: Some(handoff),
            stderr: Some(stderr),
            lines: Lines::default(),
            phase: DaemonPhase::Starting,
            taps: 0,
        })
    }

    fn take_message(
        &mut self,
        daemon: &mut RunningDaemon,
        begun: Instant,
    ) -> Result<(), MountFailure> {
        let Some(handoff) = &daemon.handoff else { return Ok(()) };
        match (handoff.receive(), daemon.phase) {
            // The daemon will end soon.
            (None, _) => daemon.handoff = None,
            (Some(Some(DaemonMessage::Mount)), DaemonPhase::Starting)
                if self.stopping.is_none() =>
            {
                if let Some(dead) = self.tree.take() {
                    dead.detach();
                }
                let plan = &self.plan;
                let (tree, device) =
                    MountedTree::mount(&plan.spec, &plan.directory, &plan.mount_options)?;
                self.tree = Some(tree);
                daemon.phase = DaemonPhase::Mounted;
                if std::mem::take(&mut self.hangup) {
                    daemon.signal(Signal::SIGHUP);
                }
                // If it fails, the daemon has died, which is noticed soon.
                let _ = handoff.send(device);
            }
            (Some(Some(DaemonMessage::Ready)), DaemonPhase::Mounted) => {
                daemon.phase = DaemonPhase::Serving(Instant::now());
                self.is_ready(begun.elapsed());
            }
            (Some(Some(DaemonMessage::Tap(wanted))), _) if self.stopping.is_none() => {
                let made = self.make_tap(&wanted, &mut daemon.taps);
                // If it fails, the daemon has died, which is noticed soon.
                let _ = handoff.send_tap(made);
            }
            (Some(Some(DaemonMessage::Xdp(wanted))), _) if self.stopping.is_none() => {
                // If it fails, the daemon has died, which is noticed soon.
                let _ = handoff.send_xdp(self.attach(&wanted));
            }
            (Some(Some(DaemonMessage::Netns(wanted))), _) if self.stopping.is_none() => {
                // If it fails, the daemon has died, which is noticed soon.
                let _ = handoff.send_netns(self.open_inside(&wanted));
            }
            (Some(Some(DaemonMessage::Unmount)), _) => {
                if let Some(tree) = self.tree.take() {
                    tree.detach();
                }
            }
            // No message, or one that makes no sense now.
            (Some(_), _) => {}
        }
        Ok(())
    }

    /// Makes a tap device that the daemon may not make. It counts those of this daemon in `taps`.
    fn make_tap(&self, wanted: &TapDescription, taps: &mut u32) -> Result<OwnedFd, String> {
        if self.plan.namespace.is_some() {
            // The owner of that namespace decides what `/dev/net/tun` is there.
            return Err("no device can be made from another mount namespace (-N)".to_owned());
        }
        if *taps >= TAPS {
            return Err(format!("this daemon has had {TAPS} devices made; start it again"));
        }
        let group = wanted.group.as_ref().map(|group| group.parse());
        let owner = match group.transpose() {
            Ok(Some(group)) => TapOwner::Group(group),
            Ok(None) => TapOwner::User(self.confinement.account.uid.as_raw()),
            Err(_) => return Err("no such group".to_owned()),
        };
        let made = tap::make(wanted, owner).map_err(|error| error.to_string())?;
        *taps += 1;
        Ok(made)
    }

    /// Attaches an XDP program for the daemon, to an interface that root has named.
    fn attach(&self, wanted: &XdpRequest) -> Result<Attachment, String> {
        let XdpRequest { interface, queues, mode } = wanted;
        if !self.plan.xdp.contains(interface) {
            return Err(format!(
                "mount.pcapfs attaches an XDP program only to interfaces that its options name (add \
                 xdp={interface} to them)"
            ));
        }
        let index = if_nametoindex(interface.as_str()).map_err(|errno| errno.desc().to_owned())?;
        Attachment::new(index, *queues, *mode).map_err(|error| error.to_string())
    }

    /// Opens sockets for the daemon in a network namespace that root has named.
    fn open_inside(&self, wanted: &NetnsRequest) -> Result<NetnsSockets, NetnsRefusal> {
        if self.plan.namespace.is_some() {
            // The owner of that namespace decides what `/proc` and `/run/netns` are there.
            let why = "no other namespace is entered from another mount namespace (-N)";
            return Err(NetnsRefusal::Refused(why.to_owned()));
        }
        let is_named = |name: &String| name == netns::ANY || *name == wanted.namespace;
        if !self.plan.netns.iter().any(is_named) {
            let namespace = &wanted.namespace;
            return Err(NetnsRefusal::Refused(format!(
                "mount.pcapfs opens sockets only in namespaces that its options name (add \
                 netns={namespace} to them, or netns=any)"
            )));
        }
        wanted.open()
    }

    fn is_ready(&mut self, took: Duration) {
        let place = self.plan.directory.display();
        let first = if self.established { "" } else { "READY=1\n" };
        self.notifier.tell(&format!("{first}STATUS=Serving {place}"));
        if self.established {
            let milliseconds = took.as_millis();
            self.log.say(format_args!("{place}: answers again, {milliseconds} ms after the start"));
            return;
        }
        self.established = true;
        match self.report.take() {
            Some(report) => {
                // The waiting process reads one byte; if it has just gone, there is no one to
                // report to.
                let _ = File::from(report).write_all(&[0]);
                self.log.leave();
                leave_terminal();
            }
            None => self.log.say(format_args!("ready at {place}")),
        }
    }

    /// Handles the signals that have come.
    fn take_signals(&mut self, daemon: Option<&RunningDaemon>) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let signal = i32::try_from(signal.ssi_signo).ok().and_then(|n| n.try_into().ok());
            match (signal, daemon) {
                // SIGHUP is for the daemon; but while it starts it may not have its handler yet,
                // and would die.
                (Some(Signal::SIGHUP), Some(daemon)) if daemon.phase == DaemonPhase::Starting => {
                    self.hangup = true;
                }
                (Some(Signal::SIGHUP), Some(daemon)) => daemon.signal(Signal::SIGHUP),
                // Before that, it counts nothing.
                (Some(Signal::SIGUSR1), Some(daemon)) if daemon.phase != DaemonPhase::Starting => {
                    daemon.signal(Signal::SIGUSR1);
                }
                (Some(Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM), Some(daemon)) => {
                    self.stop(daemon);
                }
                (Some(Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM), None) => {
                    self.stopping = Some(Instant::now());
                }
                // Children are checked in any case. Other signals have no meaning.
                (Some(_) | None, _) => {}
            }
        }
    }

    /// Asks the daemon to end in order; the second time, kills it.
    fn stop(&mut self, daemon: &RunningDaemon) {
        if self.stopping.is_some() {
            daemon.signal(Signal::SIGKILL);
            return;
        }
        self.notifier.tell("STOPPING=1\nSTATUS=Ending");
        self.stopping = Some(Instant::now() + PATIENCE);
        daemon.signal(Signal::SIGTERM);
    }

    /// The time until the next action that no event triggers.
    fn next_tick(&self) -> Duration {
        let patience = self.stopping.map(|until| until.saturating_duration_since(Instant::now()));
        [patience, self.watchdog.next()].into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    fn look_after(&mut self, daemon: &RunningDaemon) {
        if self.stopping.is_some_and(|until| until <= Instant::now()) {
            daemon.signal(Signal::SIGKILL);
            self.stopping = Some(Instant::now() + PATIENCE);
        }
        let serving = matches!(daemon.phase, DaemonPhase::Serving(_)) && self.stopping.is_none();
        match self.watchdog.tick(serving) {
            WatchdogVerdict::Well => self.notifier.tell("WATCHDOG=1"),
            WatchdogVerdict::Unknown => {}
            WatchdogVerdict::Stuck => {
                self.log.say("the tree does not answer: the daemon is killed");
                daemon.signal(Signal::SIGKILL);
                // The supervisor is taking care of the tree.
                self.notifier.tell("WATCHDOG=1");
            }
        }
    }

    /// Waits for an event, for at most this time.
    fn wait(&self, daemon: Option<&RunningDaemon>, most: Duration) -> Woken {
        let input = PollFlags::POLLIN;
        let mut fds = vec![PollFd::new(self.signals.as_fd(), input)];
        let socket = daemon.and_then(|daemon| daemon.handoff.as_ref()).map(Handoff::as_fd);
        let stderr = daemon.and_then(|daemon| daemon.stderr.as_ref()).map(AsFd::as_fd);
        // A pipe that is never full can only have an error at its writing end.
        let report = self.report.as_ref().map(AsFd::as_fd);
        let wanted = [
            (socket, input),
            (stderr, input),
            (report, PollFlags::empty()),
            (self.watchdog.as_fd(), input),
        ];
        let mut places = [None; 4];
        for (place, (fd, flags)) in places.iter_mut().zip(wanted) {
            if let Some(fd) = fd {
                *place = Some(fds.len());
                fds.push(PollFd::new(fd, flags));
            }
        }
        // Rounded up; otherwise the last millisecond would be spent in a loop.
        let most = most.saturating_add(Duration::from_millis(1));
        let timeout = PollTimeout::try_from(most).unwrap_or(PollTimeout::NONE);
        // An interrupted wait just ends early.
        let _ = poll(&mut fds, timeout);
        let has = |index: usize| {
            let place = places.get(index).copied().flatten();
            place.and_then(|place| fds.get(place)).and_then(PollFd::any).unwrap_or(false)
        };
        Woken { socket: has(0), stderr: has(1), report: has(2) }
    }
}

/// Events that ended a wait, besides signals.
struct Woken {
    socket: bool,
    stderr: bool,
    report: bool,
}

impl RunningDaemon {
    fn signal(&self, signal: Signal) {
        // The process has not been reaped, so its number is still its own.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Passes the daemon's output on to the log.
    fn pass_on(&mut self, log: &MessageLog) {
        let Some(stderr) = &self.stderr else { return };
        match self.lines.read(stderr) {
            Some(lines) => lines.iter().for_each(|line| log.of_daemon(self.child.id(), line)),
            None => self.stderr = None,
        }
    }
}

/// Detaches from the terminal, or from whatever the standard descriptors are.
fn leave_terminal() {
    // Without /dev/null they stay open, which does no other harm.
    if let Ok(null) = namespace::open_null() {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
        let _ = dup2_stderr(&null);
    }
}

/// How a process ended, for people.
struct EndDescription(ExitStatus);

impl fmt::Display for EndDescription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal().map(Signal::try_from)) {
            (Some(code), _) => write!(formatter, "failed with exit code {code}"),
            (None, Some(Ok(signal))) => write!(formatter, "was ended by {signal}"),
            (None, _) => write!(formatter, "ended ({})", self.0),
        }
    }
}

/// The time of the next start, for people.
struct StartDelay(Duration);

impl fmt::Display for StartDelay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            formatter.write_str("starting it again")
        } else {
            write!(formatter, "starting it again in {} ms", self.0.as_millis())
        }
    }
}
