//! `pcapfs watch`: a line, or a command that is run, for each flow that ends, transaction, and change of
//! the state of a capture.
//!
//! Each event comes at least once, also if this process or the daemon ends in between: the place
//! after the last one is saved, and the events wait in the daemon's logs. What has left them is
//! counted.

mod delivery;
pub(super) mod event;
mod watching;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use super::client::{self, DaemonSocket};
use super::complete;
use super::outlet::daemon::DaemonLink;
use super::outlet::event_kind::EventKind;
use super::outlet::expression::Expression;
use super::outlet::follower::{LogBeginning, LogSource};
use super::outlet::saved::{self, SavedPositions};
use super::savefile::TransferSignals;
use crate::failure::Failure;
use crate::output;
use delivery::Delivery;
use watching::{WatchSettings, Watching};

/// Events to be watched for.
#[derive(Debug, Args)]
pub(super) struct WatchArguments {
    /// Name or number of the capture [default: all that you may read, also those that come later]
    #[arg(value_name = "ALIAS", add = ArgValueCandidates::new(complete::captures))]
    capture: Option<String>,

    /// Kinds of events, joined by commas: flows, http, dns, state
    #[arg(long, value_name = "KINDS", default_value = "flows,http,state")]
    what: String,

    /// Only events that meet this, such as 'status>=500 and host~example'
    #[arg(long = "match", value_name = "EXPRESSION")]
    matching: Option<String>,

    /// Run this command of the shell for each event, with its fields in variables PCAPFS_* and the
    /// event as a line of JSON on standard input
    #[arg(long, value_name = "COMMAND", conflicts_with = "json")]
    exec: Option<String>,

    /// Print events as JSON, a line for each
    #[arg(long)]
    json: bool,

    /// Where to begin: after the last event of the run before, with the next event, or with the oldest
    /// one that is kept
    #[arg(long, value_name = "FROM", value_enum, default_value_t = WatchFrom::Saved)]
    from: WatchFrom,

    /// File that remembers the last event [default: one in $XDG_STATE_HOME/pcapfs, for these
    /// arguments]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

/// The kinds of events there are here.
const KINDS: [EventKind; 4] = [EventKind::Flows, EventKind::Http, EventKind::Dns, EventKind::State];

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum WatchFrom {
    /// After the last event of the run before, or with the next one.
    Saved,
    /// With the next event.
    Now,
    /// With the oldest event that is kept.
    Oldest,
}

/// `pcapfs watch`: until it is interrupted.
pub(super) fn run(arguments: &WatchArguments, daemon: &DaemonSocket) -> Result<(), Failure> {
    let settings = settings(arguments)?;
    let path = match &arguments.state {
        Some(path) => path.clone(),
        None => default_path(arguments, daemon)?,
    };
    let saved = SavedPositions::open(&path)?;
    let delivery = match &arguments.exec {
        Some(command) => Delivery::command(command),
        None if arguments.json => Delivery::Json,
        None => Delivery::Text,
    };
    client::run(async {
        let stopping = TransferSignals::stopping()?;
        let source = LogSource::new(DaemonLink::new(daemon.clone()));
        let watching = Watching::new(settings, source, saved, delivery, stopping);
        let summary = watching.run().await?;
        output::say(summary);
        Ok(())
    })
}

fn settings(arguments: &WatchArguments) -> Result<WatchSettings, Failure> {
    let wrong = |option: &str, why: String| Failure::Argument(format!("--{option}: {why}"));
    let kinds = EventKind::list(&arguments.what, &KINDS);
    let kinds = kinds.map_err(|why| wrong("what", why))?;
    let expression = match &arguments.matching {
        Some(text) => Expression::read(text, &kinds).map_err(|why| wrong("match", why))?,
        None => Expression::default(),
    };
    if let Some(capture) = &arguments.capture
        && let Some((remote, name)) = client::remote_of(capture)
    {
        return Err(Failure::Argument(format!(
            "{capture}: watch is for captures of this machine (run it on {remote}: pcapfs watch {name})"
        )));
    }
    Ok(WatchSettings {
        capture: arguments.capture.clone(),
        kinds,
        expression,
        is_resumed: arguments.from == WatchFrom::Saved,
        beginning: match arguments.from {
            WatchFrom::Oldest => LogBeginning::Oldest,
            WatchFrom::Saved | WatchFrom::Now => LogBeginning::Now,
        },
    })
}

/// The file of the places of a run with these arguments.
fn default_path(arguments: &WatchArguments, daemon: &DaemonSocket) -> Result<PathBuf, Failure> {
    let socket = daemon.shown_path();
    let words = [
        socket.as_str(),
        arguments.capture.as_deref().unwrap_or_default(),
        &arguments.what,
        arguments.matching.as_deref().unwrap_or_default(),
        arguments.exec.as_deref().unwrap_or_default(),
        if arguments.json { "json" } else { "" },
    ];
    saved::default_path("watch", &words)
}
