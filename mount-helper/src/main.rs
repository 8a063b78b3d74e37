//! `mount.pcapfs`: the helper that mount(8) runs for `mount -t pcapfs` and for lines of
//! `/etc/fstab`.
//!
//! It is the only part of pcapfs that runs privileged. It turns the arguments that mount(8) gives
//! to its helpers into a checked [`MountPlan`], mounts, and runs the daemon as a user of its own
//! that can only open packet sockets. Two processes do that:
//!
//! * the one that mount(8) waits for, which ends when the tree answers or the start has failed,
//!   with the exit status bits that mount(8) expects from its helpers;
//! * the [`Supervisor`], which stays as long as the tree is mounted.
//!
//! docs/threat-model.md describes the order of the steps, and the rights of each process.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use mount_helper::arguments;
use mount_helper::message::unnumbered;
use nix::unistd::{chdir, getegid, geteuid, getgid, getuid, setsid};

use crate::account::Account;
use crate::confine::Confinement;
use crate::exit::{Exit, MountFailure};
use crate::log::MessageLog;
use crate::notify::Notifier;
use crate::plan::{MountPlan, MountRequest, ProcessRole, SUPERVISE};
use crate::supervisor::Supervisor;

mod account;
mod backoff;
mod confine;
mod exit;
mod filter;
mod handoff;
mod log;
mod namespace;
mod notify;
mod options;
mod places;
mod plan;
mod supervisor;
mod sys;
mod table;
mod tree;
mod watchdog;

const USAGE: &str = "\
Usage: mount.pcapfs SPEC DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION,...]

Mounts a live packet capture on DIR. mount(8) runs this for `mount -t pcapfs`.
SPEC is an interface, `any`, xdp:IFACE, file:PATH, stream:PATH, tap:NAME, tun:NAME, tcp:HOST:PORT or
tcp-listen:ADDR:PORT; `none` with config=FILE.
Options: alias=, filter=, ring=, ring_dir=, kernel_buffer=, backend=, workers=, inject_speed=, snaplen=,
group=, mode=, config=, socket=, state=, user= (of the daemon), xdp= (interfaces), netns= (namespaces),
and those of mount(8).
See mount.pcapfs(8).
";

fn main() -> ExitCode {
    let exit = match MountRequest::from_arguments(env::args_os().skip(1)) {
        Ok(MountRequest::Help) => say(USAGE),
        Ok(MountRequest::Version) => say(concat!("mount.pcapfs ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(MountRequest::Mount(plan)) => carry_out(*plan).unwrap_or_else(report),
        Err(error) => report(error.into()),
    };
    exit.into()
}

/// Writes to standard output; a reader that has gone away is no failure.
fn say(text: &str) -> Exit {
    let _ = io::stdout().write_all(text.as_bytes());
    Exit::Done
}

fn report(failure: MountFailure) -> Exit {
    eprintln!("mount.pcapfs: {}", unnumbered(&failure.to_string()));
    failure.exit()
}

/// Carries out this process's part of a plan.
fn carry_out(mut plan: MountPlan) -> Result<Exit, MountFailure> {
    // With the set-user-ID bit, any caller would mount as root, and choose what is captured.
    if geteuid() != getuid() || getegid() != getgid() {
        return Err(MountFailure::SetUser);
    }
    let program = find_daemon()?;
    let base = env::current_dir().map_err(MountFailure::System)?;
    plan.settle(&base);
    if !geteuid().is_root() {
        if let Some(path) = plan.namespace {
            return Err(MountFailure::Namespace {
                path,
                error: io::ErrorKind::PermissionDenied.into(),
            });
        }
        plan.directory = tree::absolute(&plan.directory).map_err(MountFailure::System)?;
        // mount(8) runs its helpers as its caller, also if fstab lets users mount.
        return mount_unprivileged(&plan, &program);
    }
    let account = Account::of(plan.user())?;
    if plan.verbose && plan.role != ProcessRole::Background {
        let (user, arguments) = (plan.user(), plan.daemon_arguments());
        eprintln!("mount.pcapfs: as {user}: {:?}", Command::new(&program).args(arguments));
    }
    match plan.role {
        _ if plan.fake => look_at_directory(&mut plan).map(|()| Exit::Done),
        ProcessRole::Front => {
            // With another namespace, the supervisor checks it, since a process that starts
            // programs must not enter it.
            if plan.namespace.is_none() {
                look_at_directory(&mut plan)?;
            }
            wait_for_supervisor()
        }
        ProcessRole::Foreground => supervise(plan, program, account, None),
        ProcessRole::Background => {
            let report = io::stdout().as_fd().try_clone_to_owned().map_err(MountFailure::System)?;
            // Fails for a process that leads a group, which then has no terminal to lose.
            let _ = setsid();
            supervise(plan, program, account, Some(report))
        }
    }
}

/// Checks that a tree can be mounted, in the mount namespace of `-N`, which it enters.
fn look_at_directory(plan: &mut MountPlan) -> Result<(), MountFailure> {
    if let Some(path) = &plan.namespace {
        namespace::enter(path)
            .map_err(|error| MountFailure::Namespace { path: path.clone(), error })?;
    }
    plan.directory = tree::absolute(&plan.directory).map_err(MountFailure::System)?;
    Ok(tree::check(&plan.directory)?)
}

/// Starts the supervisor with the arguments of this process, and waits until the tree answers or
/// the supervisor has reported why it does not.
fn wait_for_supervisor() -> Result<Exit, MountFailure> {
    let program = env::current_exe().map_err(MountFailure::System)?;
    // The supervisor must not keep a lock or a pipe of the starting program open for its lifetime.
    sys::close_descriptors_on_exec().map_err(MountFailure::System)?;
    let mut supervisor = Command::new(&program)
        .arg0("mount.pcapfs")
        .arg(SUPERVISE)
        .args(env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| MountFailure::Start { daemon: program, error })?;
    let mut byte = [0; 1];
    let mut report = supervisor.stdout.take();
    match report.as_mut().map(|report| report.read(&mut byte)) {
        Some(Ok(1)) => Ok(Exit::Done),
        _ => Ok(Exit::of_supervisor(supervisor.wait().map_err(MountFailure::System)?)),
    }
}

fn supervise(
    mut plan: MountPlan,
    program: PathBuf,
    account: Account,
    report: Option<OwnedFd>,
) -> Result<Exit, MountFailure> {
    if let Some(path) = &plan.ring_dir {
        places::make_ring_directory(path, &account)
            .map_err(|error| MountFailure::RingDirectory { path: path.clone(), error })?;
    }
    places::make_defaults(&account);
    // As on the command line: later it is absolute.
    arguments::hide(&[OsStr::new(SUPERVISE), plan.directory.as_os_str()]);
    let (log, notifier) = (MessageLog::new(), Notifier::from_environment());
    look_at_directory(&mut plan)?;
    let has_xdp = !plan.xdp.is_empty();
    let confinement = Confinement { account, filter: filter::program(has_xdp), has_xdp };
    let supervisor = Supervisor::new(plan, program, confinement, report, (log, notifier))
        .map_err(MountFailure::System)?;
    // So that the supervisor keeps no unrelated directory busy.
    chdir("/").map_err(|errno| MountFailure::System(errno.into()))?;
    supervisor.run()
}

/// Without root there is no privilege to give up: the daemon runs as the caller, mounts the tree
/// with fusermount3(1), and has no supervisor.
fn mount_unprivileged(plan: &MountPlan, program: &Path) -> Result<Exit, MountFailure> {
    let mut command = Command::new(program);
    command.args(plan.own_mount_arguments());
    if plan.verbose {
        eprintln!("mount.pcapfs: {command:?}");
    }
    if plan.fake {
        return tree::check(&plan.directory).map(|()| Exit::Done).map_err(MountFailure::from);
    }
    let status = command
        .status()
        .map_err(|error| MountFailure::Start { daemon: program.to_owned(), error })?;
    Ok(Exit::of_daemon(status))
}

/// Finds the daemon: beside this program, as in a build directory, or where it is installed.
///
/// `$PATH` is ignored, since this runs as root.
fn find_daemon() -> Result<PathBuf, MountFailure> {
    let own = env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let directories: Vec<PathBuf> =
        own.into_iter().chain(["/usr/local/bin", "/usr/bin"].map(PathBuf::from)).collect();
    directories
        .iter()
        .map(|directory| directory.join("pcapfs"))
        .find(|path| is_executable(path))
        .ok_or(MountFailure::NoDaemon { directories })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The directories that were searched, as a list for messages.
fn list(directories: &[PathBuf]) -> OsString {
    let mut text = OsString::new();
    for (index, directory) in directories.iter().enumerate() {
        if index > 0 {
            text.push(", ");
        }
        text.push(directory);
    }
    text
}
