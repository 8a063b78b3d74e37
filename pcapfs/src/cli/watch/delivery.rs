//! Where events go: standard output, or a command for each.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::event::WatchEvent;
use crate::cli::client::SOCKET_VARIABLE;
use crate::failure::Failure;
use crate::output;

/// The shell that runs commands (POSIX sh).
const SHELL: &str = "/bin/sh";

/// Where events go.
#[derive(Debug)]
pub(super) enum Delivery {
    /// Lines for people.
    Text,
    /// Lines of JSON.
    Json,
    /// A command of the shell, run for one event after the other.
    Command {
        command: String,
        /// Runs that failed.
        failed: u64,
    },
}

impl Delivery {
    pub(super) fn command(command: &str) -> Self {
        Self::Command { command: command.to_owned(), failed: 0 }
    }

    /// True if it prints JSON.
    pub(super) const fn is_json(&self) -> bool {
        matches!(self, Self::Json)
    }

    /// Runs of the command that failed.
    pub(super) const fn failed(&self) -> u64 {
        match self {
            Self::Command { failed, .. } => *failed,
            Self::Text | Self::Json => 0,
        }
    }

    /// Gives an event out; false if nobody reads any more. `lost` is the number of events that were
    /// lost so far, `directory` that of the capture.
    ///
    /// # Errors
    /// Standard output cannot be written to, or no command can be run.
    pub(super) async fn give(
        &mut self,
        event: &WatchEvent,
        lost: u64,
        directory: Option<&Path>,
    ) -> Result<bool, Failure> {
        match self {
            Self::Text => {
                output::print_on((event.text() + "\n").as_bytes()).map_err(Failure::Output)
            }
            Self::Json => output::print_on(&event.json()).map_err(Failure::Output),
            Self::Command { command, failed } => {
                if let Some(why) = run(command, event, lost, directory).await? {
                    *failed += 1;
                    output::say(format_args!("the command failed: {why}"));
                }
                Ok(true)
            }
        }
    }
}

/// Runs the command to its end; returns why it failed, if it did.
async fn run(
    command: &str,
    event: &WatchEvent,
    lost: u64,
    directory: Option<&Path>,
) -> Result<Option<String>, Failure> {
    let mut shell = Command::new(SHELL);
    shell.arg("-c").arg(command).stdin(Stdio::piped()).kill_on_drop(true);
    // Of another event, if a command of this program runs this program.
    for (name, _) in env::vars_os().filter(|(name, _)| is_ours(name)) {
        shell.env_remove(name);
    }
    shell.envs(event.variables()).env("PCAPFS_LOST", lost.to_string());
    if let Some(directory) = directory {
        shell.env("PCAPFS_CAPTURE_DIRECTORY", directory);
    }
    let failure = |error: std::io::Error| Failure::Answer(format!("{SHELL}: {error}"));
    let mut child = shell.spawn().map_err(failure)?;
    let input = child.stdin.take();
    let line = event.json();
    let write = async move {
        if let Some(mut input) = input {
            // A command need not read it.
            let _ = input.write_all(&line).await;
        }
    };
    let (status, ()) = tokio::join!(child.wait(), write);
    let status = status.map_err(failure)?;
    Ok((!status.success()).then(|| status.to_string()))
}

/// True for a variable that an event may have.
fn is_ours(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(b"PCAPFS_") && name != SOCKET_VARIABLE
}
