//! The command line: reads it and runs its command.
//!
//! Exit codes: 0 success, 1 failure, 2 wrong command line.

mod background;
mod client;
mod command;
mod complete;
mod descriptors;
mod event_line;
mod exclude;
mod extcap;
mod far_end;
mod fleet;
mod forget;
mod identity;
mod init;
mod interfaces;
mod listen_address;
mod listing;
mod mistakes;
mod nats;
mod order;
mod outlet;
mod publish;
mod receive;
mod remote;
mod savefile;
mod send;
mod serve;
mod streams;
mod trees;
mod umount;
mod watch;
mod web;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use nix::unistd::geteuid;

use crate::failure::Failure;
use crate::fs::user_name;
use crate::fuse;
use crate::output;
use command::Arguments;

/// Runs the command of the command line.
#[must_use]
pub fn run() -> ExitCode {
    if complete::is_asked() {
        return complete::answer(Arguments::command);
    }
    if extcap::is_asked() {
        return extcap::answer();
    }
    let Arguments { daemon, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if !error.use_stderr() => {
            // Help and version are not errors.
            let printed = output::print(&error.render().to_string());
            return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(error) => {
            output::say(mistakes::said(&error, &typed(), &Arguments::command()));
            return ExitCode::from(2);
        }
    };
    match command.run(daemon.or_environment()) {
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
