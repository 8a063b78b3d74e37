//! `pcapfs start`, `stop` and `remove`: orders for captures.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::client::{self, Client, DaemonSocket};
use super::complete;
use crate::control::messages::{ListRequest, RemoveRequest, StartRequest, StopRequest};
use crate::failure::Failure;
use crate::output;

/// The captures of an order.
#[derive(Debug, Args)]
pub(super) struct ChosenCaptures {
    /// Names or numbers of captures
    #[arg(value_name = "[REMOTE:]ALIAS", required_unless_present = "all", conflicts_with = "all",
          add = ArgValueCompleter::new(complete::captures_of))]
    pub(super) captures: Vec<String>,

    /// All captures that you may read
    #[arg(long)]
    pub(super) all: bool,
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
pub(super) fn run(
    chosen: &ChosenCaptures,
    verb: Verb,
    daemon: &DaemonSocket,
) -> Result<(), Failure> {
    if chosen.all {
        return carry_out_all(daemon, verb, None);
    }
    let mut failed = None;
    for (daemon, captures) in by_daemon(&chosen.captures, daemon)? {
        if let Err(failure) = carry_out_all(&daemon, verb, Some(captures))
            // The caller reports the last one.
            && let Some(before) = failed.replace(failure)
        {
            output::say(before);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Captures with the daemons that have them, in the order in which they were named; each daemon
/// comes once.
///
/// # Errors
/// There is no such remote.
pub(super) fn by_daemon(
    words: &[String],
    daemon: &DaemonSocket,
) -> Result<Vec<(DaemonSocket, Vec<String>)>, Failure> {
    let mut groups: Vec<(DaemonSocket, Vec<String>)> = Vec::new();
    for word in words {
        let (daemon, name) = daemon.of(word)?;
        match groups.iter_mut().find(|(known, _)| known.remote == daemon.remote) {
            Some((_, names)) => names.push(name.to_owned()),
            None => groups.push((daemon, vec![name.to_owned()])),
        }
    }
    Ok(groups)
}

/// Carries out an order for captures of one daemon; without a list, for all of them.
fn carry_out_all(
    daemon: &DaemonSocket,
    verb: Verb,
    captures: Option<Vec<String>>,
) -> Result<(), Failure> {
    client::with(daemon, |mut client| async move {
        let captures = match captures {
            Some(captures) => captures,
            None => all(&mut client).await?,
        };
        let mut failed = None;
        for capture in captures {
            if let Err(failure) = carry_out(&mut client, verb, capture).await {
                let failure = client::explained(daemon, failure).await;
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
