//! The command line: reads it and runs its command.
//!
//! Exit codes: 0 success, 1 failure, 2 wrong command line.

mod args;
mod client;
mod complete;
mod descriptors;
mod listing;
mod mistakes;
mod savefile;
mod trees;
mod verbs;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command as Process, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use mount_helper::arguments;
use nix::unistd::geteuid;

use crate::daemon;
use crate::daemon::options::MountArguments;
use crate::failure::Failure;
use crate::fs::user_name;
use crate::fuse;
use crate::output;
use crate::paths::absolute;
use crate::process::Status;
use args::{Arguments, Command};

/// Runs the command of the command line.
#[must_use]
pub fn run() -> ExitCode {
    if complete::is_asked() {
        return complete::answer();
    }
    let Arguments { daemon, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if !error.use_stderr() => {
            // Help and version are not errors.
            let printed = output::print(&error.render().to_string());
            return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(error) => {
            output::say(mistakes::said(&error, &typed()));
            return ExitCode::from(2);
        }
    };
    let daemon = daemon.or_environment();
    let result = match command {
        Command::Mount(mount) if mount.background => in_background(),
        Command::Mount(mount) => {
            arguments::hide(&[OsStr::new("mount"), mount.mountpoint.as_os_str()]);
            daemon::run(&MountArguments { socket: daemon.socket, ..*mount })
        }
        Command::Umount { mountpoint } => umount(&mountpoint),
        Command::Interfaces { json } => interfaces(json),
        Command::Init(init) => verbs::init(&init, &daemon),
        Command::Start(chosen) => verbs::order(&chosen, verbs::Verb::Start, &daemon),
        Command::Stop(chosen) => verbs::order(&chosen, verbs::Verb::Stop, &daemon),
        Command::Remove(chosen) => verbs::order(&chosen, verbs::Verb::Remove, &daemon),
        Command::Forget { name, state } => verbs::forget(&name, state.as_deref(), &daemon),
        Command::List(shown) => listing::list(&shown, &daemon),
        Command::Status(shown) => listing::status(&shown, &daemon),
        Command::Replay(replay) => savefile::replay(&replay, &daemon),
        Command::Listen(listen) => savefile::listen(&listen, &daemon),
        Command::CheckConfig { file, config } => daemon::check_config(file.or(config)),
        Command::Completions { shell } => complete::script(shell),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The process in the background has printed the reason.
        Err(Failure::Background(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        // The helper that was to mount has printed the reason.
        Err(Failure::Mount(fuse::MountError::HelperRefused)) => ExitCode::FAILURE,
        Err(failure) => {
            output::say(advised(failure.to_string()));
            ExitCode::from(if failure.is_usage() { 2 } else { 1 })
        }
    }
}

/// The arguments as text.
fn typed() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Adds advice to a message, if the advice is the same whichever file could not be opened.
fn advised(text: String) -> String {
    let too_many = std::io::Error::from_raw_os_error(libc::EMFILE).to_string();
    if text.contains(&too_many) {
        format!("{text}; raise the limit of open files (ulimit -n)")
    } else if text.ends_with(": permission denied") && !geteuid().is_root() {
        format!("{text} for user {}", user_name(geteuid().as_raw()))
    } else {
        text
    }
}

/// How long `umount` waits for the daemon to end, which then has nothing else left to do. A daemon
/// that is stuck ends itself after five seconds.
const UMOUNT_PATIENCE: Duration = Duration::from_secs(6);

fn umount(mountpoint: &Path) -> Result<(), Failure> {
    let mountpoint = absolute(mountpoint).map_err(Failure::System)?;
    // The daemon is not known if it has died, or if the tree cannot be read.
    let daemon = fs::read(mountpoint.join("status.json"))
        .ok()
        .and_then(|status| serde_json::from_slice::<serde_json::Value>(&status).ok())
        .and_then(|status| status.get("pid")?.as_u64());
    fuse::unmount(&mountpoint, fuse::Manner::Clean).map_err(Failure::Mount)?;
    // So that the next mount finds the rings free.
    let begun = Instant::now();
    while let Some(pid) = daemon.filter(|pid| is_alive(*pid)) {
        if begun.elapsed() >= UMOUNT_PATIENCE {
            return Err(Failure::Answer(format!(
                "{}: unmounted, but its daemon (process {pid}) goes on: another mount namespace may \
                 have the tree too (kill {pid} ends it)",
                mountpoint.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// True if a daemon exists and has not ended; a zombie has ended. The number of a daemon in another
/// PID namespace may belong to another program here.
fn is_alive(pid: u64) -> bool {
    let status = Status::of(pid);
    status.field("Name").is_some_and(|name| name.starts_with("pcapfs"))
        && status.field("State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

fn interfaces(json: bool) -> Result<(), Failure> {
    let found = capture::source::interfaces().map_err(Failure::System)?;
    let text = if json {
        serde_json::to_string_pretty(&found).map_err(|error| Failure::System(error.into()))? + "\n"
    } else {
        let rows: Vec<_> = found
            .iter()
            .map(|interface| {
                let state = match (interface.up, interface.running) {
                    (true, true) => "up",
                    (true, false) => "no carrier",
                    (false, _) => "down",
                };
                [interface.name.clone(), state.to_owned(), interface.addresses.join(" ")]
            })
            .collect();
        output::table(["INTERFACE", "STATE", "ADDRESSES"], &rows)
    };
    output::print(&text).map_err(Failure::Output)
}

/// The number of words up to and including the command: only `--socket` may come before it.
fn command_len(words: &[OsString]) -> usize {
    let mut rest = words.iter();
    let mut len = 0;
    while let Some(word) = rest.next() {
        len += 1;
        if word == "--socket" {
            len += rest.next().map_or(0, |_| 1);
        } else if !word.as_encoded_bytes().starts_with(b"--socket=") {
            break;
        }
    }
    len
}

/// Starts this program again without a terminal, and passes on its output until the tree is ready.
/// If it ends before, this process ends in the same way.
fn in_background() -> Result<(), Failure> {
    use std::io::{BufRead, IsTerminal};
    // Options go after the command, before a `--` that may follow.
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let (before, arguments) = words.split_at_checked(command_len(&words)).unwrap_or_default();
    let arguments = arguments.iter().filter(|word| *word != "--background");
    let program = std::env::current_exe().map_err(Failure::System)?;
    // The daemon must not keep a lock or a pipe of the starting program open for its lifetime.
    descriptors::close_on_exec();
    let mut child = Process::new(program)
        .args(before)
        .arg("--detached")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Failure::System)?;
    let stderr = child.stderr.take().into_iter();
    let mut is_shown = false;
    for line in stderr.flat_map(|stderr| std::io::BufReader::new(stderr).lines()) {
        let line = line.map_err(Failure::System)?;
        let text = line.strip_prefix("pcapfs: ").unwrap_or(&line);
        if text.starts_with(daemon::READING) {
            if std::io::stderr().is_terminal() {
                output::progress(&line);
                is_shown = true;
            }
            continue;
        }
        if std::mem::take(&mut is_shown) {
            output::progress("");
        }
        output::say(text);
        if text.starts_with(daemon::READY) {
            return Ok(());
        }
    }
    let status = child.wait().map_err(Failure::System)?;
    if let Some(signal) = status.signal() {
        output::say(format_args!("ended by signal {signal} before the tree was ready"));
    }
    Err(Failure::Background(status.code().unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_found_after_the_socket_option() {
        for (words, len) in [
            (&["mount", "/m", "--socket", "x"][..], 1),
            (&["--socket", "mount", "mount", "/m"], 3),
            (&["--socket=x", "mount"], 2),
            (&[], 0),
        ] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(command_len(&words), len, "{words:?}");
        }
    }
}
