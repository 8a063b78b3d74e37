//! `pcapfs forget`: drops what earlier runs left.

use std::path::PathBuf;

use clap::Args;

use super::client::{self, DaemonSocket};
use crate::control::messages::ForgetRequest;
use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// A name to be forgotten.
#[derive(Debug, Args)]
pub(super) struct Forget {
    /// The name
    #[arg(value_name = "[REMOTE:]ALIAS")]
    name: String,

    /// In this file, which no daemon may be using [default: ask the daemon; without one, all
    /// places where state and rings are kept by default]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

/// `pcapfs forget`: prints what was forgotten. Without a daemon, this process forgets it.
pub(super) fn run(forget: &Forget, daemon: &DaemonSocket) -> Result<(), Failure> {
    let Forget { name, state } = forget;
    let (daemon, name) = &daemon.of(name)?;
    if let Some(path) = state {
        if daemon.remote.is_some() {
            let what = "--state is a file of this machine; log in to the other one";
            return Err(Failure::Argument(what.to_owned()));
        }
        return print_forgotten(&daemon::forget_in(path, name)?);
    }
    let request = ForgetRequest { capture: (*name).to_owned() };
    let asked = client::with(daemon, |mut client| async move {
        client.forget(request).await.map_err(client::failure)
    });
    match asked {
        Ok(answer) => print_forgotten(&format!("{name}: {}", answer.into_inner().note)),
        Err(Failure::NoDaemon(unreachable)) => match daemon::forget_by_default(name)? {
            Some(forgotten) => print_forgotten(&forgotten),
            None => Err(Failure::Answer(format!(
                "{name}: nothing is kept of it by default (with --state FILE: there); and \
                 {unreachable}"
            ))),
        },
        Err(failure) => Err(failure),
    }
}

fn print_forgotten(what: &str) -> Result<(), Failure> {
    output::print(&format!("forgotten: {what}\n")).map_err(Failure::Output)
}
