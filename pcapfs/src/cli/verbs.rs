//! Commands that make changes in a running daemon.

use std::path::Path;

use capture::pipeline::is_alias;

use super::args::{Chosen, Daemon, Init};
use super::client::{self, Client};
use crate::control::messages::{
    ForgetRequest, InitRequest, ListRequest, RemoveRequest, StartRequest, StopRequest,
};
use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// `pcapfs init`: prints number and alias.
pub(super) fn init(init: &Init, daemon: &Daemon) -> Result<(), Failure> {
    let Init { interface, filter, alias, ring, .. } = init;
    if interface.starts_with("file:") || interface.starts_with("stream:") || interface == "-" {
        return Err(Failure::Argument(format!(
            "{interface}: not an interface (savefiles and FIFOs are for pcapfs mount, or the \
             configuration)"
        )));
    }
    client::check_local(interface)?;
    if let Some(alias) = alias.as_deref().filter(|alias| !is_alias(alias)) {
        return Err(Failure::Argument(format!(
            "'{alias}' is no alias: 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front"
        )));
    }
    let request = InitRequest {
        interface: interface.clone(),
        filter: filter.join(" "),
        alias: alias.clone().unwrap_or_default(),
        ring: *ring,
        snaplen: init.snaplen,
        group: init.group.clone(),
        mode: init.mode,
        promiscuous: init.no_promiscuous.then_some(false),
        kernel_buffer: init.kernel_buffer,
    };
    let answer = client::with(daemon, |mut client| async move {
        client.init(request).await.map_err(client::failure)
    })?;
    let made = answer.into_inner();
    if !made.alias_of.is_empty() {
        output::say(format_args!(
            "{} is another name for {}, which captures the same",
            made.alias, made.alias_of
        ));
    }
    if !made.note.is_empty() {
        output::say(format_args!("{}: {}", made.alias, made.note));
    }
    output::print(&format!("{} {}\n", made.id, made.alias)).map_err(Failure::Output)
}

/// `pcapfs forget`: prints what was forgotten. Without a daemon, this process forgets it.
pub(super) fn forget(name: &str, state: Option<&Path>, daemon: &Daemon) -> Result<(), Failure> {
    client::check_local(name)?;
    if let Some(path) = state {
        return print_forgotten(&daemon::forget_in(path, name)?);
    }
    let request = ForgetRequest { capture: name.to_owned() };
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

/// An order for captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
    Remove,
}

/// `pcapfs start`, `stop` and `remove`. Carries out the orders that are possible, and reports the
/// others.
pub(super) fn order(chosen: &Chosen, verb: Verb, daemon: &Daemon) -> Result<(), Failure> {
    for capture in &chosen.captures {
        client::check_local(capture)?;
    }
    client::with(daemon, |mut client| async move {
        let captures = if chosen.all { all(&mut client).await? } else { chosen.captures.clone() };
        let mut failed = None;
        for capture in captures {
            if let Err(failure) = carry_out(&mut client, verb, capture).await {
                // The caller reports the last one.
                if let Some(before) = failed.replace(failure) {
                    output::say(before);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    })
}

/// The captures that the caller may see.
async fn all(client: &mut Client) -> Result<Vec<String>, Failure> {
    let request = ListRequest { capture: String::new() };
    let answer = client.list(request).await.map_err(client::failure)?;
    Ok(answer.into_inner().captures.into_iter().map(|capture| capture.alias).collect())
}

async fn carry_out(client: &mut Client, verb: Verb, capture: String) -> Result<(), Failure> {
    match verb {
        Verb::Start => client.start(StartRequest { capture }).await.map(|_| ()),
        Verb::Stop => client.stop(StopRequest { capture }).await.map(|_| ()),
        Verb::Remove => {
            let request = RemoveRequest { capture: capture.clone() };
            client.remove(request).await.map(|answer| {
                let note = answer.into_inner().note;
                if !note.is_empty() {
                    output::say(format_args!("{capture}: {note}"));
                }
            })
        }
    }
    .map_err(client::failure)
}
