//! `mount.pcapfs`: what mount(8) runs for `mount -t pcapfs` and for lines of `/etc/fstab`.
//!
//! It turns the arguments mount(8) gives to its helpers into a checked [`Plan`], starts
//! `pcapfs mount ... --background` with it, waits until the tree answers or the start has failed,
//! and reports the outcome in the exit status bits mount(8) asks of its helpers.
//!
//! The daemon it starts runs as whoever called mount(8), root as a rule. Giving up privileges
//! before the daemon starts, and watching over the daemon afterwards, are planned and not done yet:
//! this program ends as soon as the mount is there.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};

use crate::exit::{Exit, Failure};
use crate::plan::{Plan, Request};

mod exit;
mod options;
mod plan;

const USAGE: &str = "\
Usage: mount.pcapfs SPEC DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION,...]

Mounts a live packet capture on DIR. mount(8) runs this for `mount -t pcapfs`.
SPEC is an interface, `any`, file:PATH or stream:PATH.
Options: alias=, filter=, ring=, ring_dir=, snaplen=, and those of mount(8).
See mount.pcapfs(8).
";

fn main() -> ExitCode {
    let exit = match Request::from_arguments(env::args_os().skip(1)) {
        Ok(Request::Help) => say(USAGE),
        Ok(Request::Version) => say(concat!("mount.pcapfs ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Request::Mount(plan)) => mount(&plan).unwrap_or_else(report),
        Err(error) => report(error.into()),
    };
    exit.into()
}

/// Writes to standard output; a reader that has gone away is no failure.
fn say(text: &str) -> Exit {
    let _ = io::stdout().write_all(text.as_bytes());
    Exit::Done
}

fn report(failure: Failure) -> Exit {
    eprintln!("mount.pcapfs: {failure}");
    failure.exit()
}

/// Carries out a plan, and waits until the tree answers or the daemon has given up.
fn mount(plan: &Plan) -> Result<Exit, Failure> {
    if let Some(namespace) = &plan.namespace {
        enter(namespace)?;
    }
    let daemon = find_daemon()?;
    let mut command = Command::new(&daemon);
    command.args(plan.daemon_arguments());
    if plan.verbose {
        eprintln!("mount.pcapfs: {command:?}");
    }
    if plan.fake {
        // Otherwise the daemon looks at it, which also clears away a dead tree.
        return check_directory(&plan.directory).map(|()| Exit::Done);
    }
    let status = command.status().map_err(|error| Failure::Start { daemon, error })?;
    Ok(Exit::of_daemon(status))
}

/// Moves this process, and with it the daemon to come, into another mount namespace.
fn enter(namespace: &Path) -> Result<(), Failure> {
    File::open(namespace)
        .and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNS)?))
        .map_err(|error| Failure::Namespace { path: namespace.to_owned(), error })
}

fn check_directory(directory: &Path) -> Result<(), Failure> {
    let unusable = |error| Failure::Directory { path: directory.to_owned(), error };
    if fs::metadata(directory).map_err(unusable)?.is_dir() {
        Ok(())
    } else {
        Err(unusable(io::ErrorKind::NotADirectory.into()))
    }
}

/// The daemon: beside this program as in a build directory, or where it gets installed.
///
/// `$PATH` has no say in it, because this runs as root.
fn find_daemon() -> Result<PathBuf, Failure> {
    let own = env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let directories: Vec<PathBuf> =
        own.into_iter().chain(["/usr/local/bin", "/usr/bin"].map(PathBuf::from)).collect();
    directories
        .iter()
        .map(|directory| directory.join("pcapfs"))
        .find(|path| is_executable(path))
        .ok_or(Failure::NoDaemon { directories })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// For messages: the directories that were searched, as a list.
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
