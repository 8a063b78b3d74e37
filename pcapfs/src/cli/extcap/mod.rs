//! Captures as interfaces in Wireshark's list, through its protocol for external captures (extcap).
//!
//! Wireshark and tshark run every program in their `extcap` folders: once for its interfaces, once
//! for the options of each interface, and once to capture. Here that program is a link to `pcapfs`
//! itself. It is a client of the control service like any command, so a user finds exactly the
//! captures that the permission bits let the user read.
//!
//! Nothing is printed on standard error except the reason why a capture cannot go on: Wireshark
//! shows every byte there as an error. Without a daemon there are no interfaces, and that is no
//! error. See the Wireshark Developer's Guide, "Extcap: Developer Reference".

mod call;
mod install;
mod sentence;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use capture::filter::{Filter, Runner};
use capture::savefile::FilteredSavefile;
use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use protocol::linktype::LinkType;
use serde_json::Value;

use super::client::{self, DaemonSocket};
use super::savefile::{self, OutputTarget, PacketRange};
use crate::control::messages::{Capture, Format, ListRequest, State};
use crate::failure::Failure;
use crate::output;
use crate::remote::remotes;
use call::{CaptureFormat, ExtcapCall, ExtcapQuestion};
pub(super) use install::{Extcap, run};
use sentence::sentence;

/// The time that the daemon has to answer: Wireshark's window waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often this process looks whether the one that started it is still there.
const PARENT_INTERVAL: Duration = Duration::from_millis(500);

/// Remotes that are asked for their captures: enough for a person's list, each with a thread.
const MAX_REMOTES: usize = 64;

/// An interface is this and the name of its capture.
const PREFIX: &str = "pcapfs:";

/// True if this process was started by Wireshark: all of its calls begin with one of these.
pub(super) fn is_asked() -> bool {
    let first = std::env::args().nth(1).unwrap_or_default();
    first.starts_with("--extcap-") || first == "--capture"
}

/// Answers Wireshark.
pub(super) fn answer() -> ExitCode {
    end_with_parent();
    // Closed last: at its end Wireshark stops reading, and would not see the reason for a failure.
    let mut target = None;
    let answered = ExtcapCall::try_parse()
        .map_err(|error| {
            let text = error.render().to_string();
            Failure::Argument(text.lines().next().unwrap_or_default().to_owned())
        })
        .and_then(ExtcapCall::question)
        .and_then(|question| {
            reply(question, &DaemonSocket::default().or_environment(), &mut target)
        });
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::say(super::advised(failure.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// Ends this process soon after Wireshark has ended, whatever this one waits for. A FIFO does not
/// show that end: when Wireshark is killed, its helper dumpcap may go on reading.
fn end_with_parent() {
    // Now: later it may have ended, and its children have another parent.
    let parent = getppid();
    thread::spawn(move || {
        while getppid() == parent {
            thread::sleep(PARENT_INTERVAL);
        }
        let _ = kill(Pid::this(), Signal::SIGTERM);
    });
}

/// Replies to a question. Packets go to `target`, which is opened for them.
fn reply(
    question: ExtcapQuestion,
    daemon: &DaemonSocket,
    target: &mut Option<OutputTarget>,
) -> Result<(), Failure> {
    let text = match question {
        ExtcapQuestion::Interfaces => interfaces(daemon),
        // Without the daemon: Wireshark asks for every interface, at its start.
        ExtcapQuestion::Options => {
            OPTIONS.iter().map(|(kind, words)| sentence(kind, words)).collect()
        }
        ExtcapQuestion::LinkTypes { capture } => link_types(daemon, &capture),
        ExtcapQuestion::Check { capture, filter } => check(daemon, &capture, &filter),
        ExtcapQuestion::Capture { capture, fifo, filter, from, format } => {
            let target = target.insert(OutputTarget::fifo(&fifo)?);
            return send(daemon, &capture, target, filter.as_deref(), from, format);
        }
    };
    output::print(&text).map_err(Failure::Output)
}

/// The capture of this name, or all that the user may read; none if the daemon does not answer in
/// time.
fn captures(daemon: &DaemonSocket, capture: &str) -> Vec<Capture> {
    let request = ListRequest { capture: capture.to_owned() };
    let listed = client::run(async {
        let asked = async {
            let mut client = client::open(daemon).await?;
            client.list(request).await.map_err(client::failure)
        };
        let late = || Failure::Unreachable("no answer from the daemon in time".to_owned());
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| late())?
    });
    listed.map(|answer| answer.into_inner().captures).unwrap_or_default()
}

/// One line for the program, and one for each name of each capture: of this machine, and of those
/// remotes of the user that answer in time.
fn interfaces(daemon: &DaemonSocket) -> String {
    let remotes = remotes::load().unwrap_or_default().into_iter().take(MAX_REMOTES);
    let remotes = remotes.map(|remote| DaemonSocket { socket: None, remote: Some(remote) });
    let daemons: Vec<DaemonSocket> = std::iter::once(daemon.clone()).chain(remotes).collect();
    // All at once, so that those that do not answer cost the time of one.
    let texts = thread::scope(|scope| {
        let asked: Vec<_> = daemons.iter().map(|one| scope.spawn(|| interfaces_of(one))).collect();
        let texts = asked.into_iter().map(|thread| thread.join().unwrap_or_default());
        texts.collect::<String>()
    });
    sentence("extcap", &[("version", env!("CARGO_PKG_VERSION"))]) + &texts
}

/// A line for each name of each capture of a daemon.
fn interfaces_of(daemon: &DaemonSocket) -> String {
    let mut text = String::new();
    for capture in captures(daemon, "") {
        let source = match capture.filter.as_str() {
            "" => capture.source.clone(),
            filter => format!("{} {filter}", capture.source),
        };
        let state = match capture.state() {
            State::Unspecified | State::Running | State::Pending => "",
            State::Retrying => ", retrying",
            State::Stopped => ", stopped",
            State::Ended => ", ended",
            State::Failed => ", failed",
        };
        for name in std::iter::once(&capture.alias).chain(&capture.aliases) {
            let name = daemon.shown(name);
            let value = format!("{PREFIX}{name}");
            let display = format!("pcapfs capture {name}: {source}{state}");
            text.push_str(&sentence("interface", &[("value", &value), ("display", &display)]));
        }
    }
    text
}

/// The link type of a capture, if it is known.
fn link_type(daemon: &DaemonSocket, capture: &str) -> Option<LinkType> {
    let (daemon, capture) = daemon.of(capture).ok()?;
    let capture = captures(&daemon, capture).into_iter().next()?;
    let status: Value = serde_json::from_str(&capture.status).ok()?;
    LinkType::named(status.get("linktype")?.as_str()?)
}

fn link_types(daemon: &DaemonSocket, capture: &str) -> String {
    let Some(link_type) = link_type(daemon, capture) else { return String::new() };
    let (number, name) = (link_type.to_dlt().to_string(), link_type.name());
    sentence("dlt", &[("number", &number), ("name", &name), ("display", &name)])
}

/// The mistake in a filter expression; nothing if it is correct.
fn check(daemon: &DaemonSocket, capture: &str, filter: &str) -> String {
    let checked = match link_type(daemon, capture) {
        Some(link_type) => Filter::compile(filter, link_type).map(|_| ()),
        None => Filter::check(filter, Runner::Process),
    };
    checked.map_or_else(|error| format!("{error}\n"), |()| String::new())
}

/// Sends packets until Wireshark reads no more of them, or there are no more.
fn send(
    daemon: &DaemonSocket,
    capture: &str,
    target: &mut OutputTarget,
    filter: Option<&str>,
    from: PacketRange,
    format: CaptureFormat,
) -> Result<(), Failure> {
    // tshark does not check filters before it captures.
    let filter = filter.filter(|filter| !filter.trim().is_empty()).map(FilteredSavefile::new);
    let filter = filter.transpose().map_err(|error| Failure::Argument(error.to_string()))?;
    let format = match format {
        CaptureFormat::Pcap => Format::Pcap,
        CaptureFormat::Pcapng => Format::Pcapng,
    };
    let (daemon, capture) = daemon.of(capture)?;
    let capture = capture.to_owned();
    client::receiving(&daemon, |mut client| async move {
        let parts = from.request(&mut client, capture, format).await?;
        savefile::copy(parts, target, filter).await.map(|_| ())
    })
}

/// The options of every interface, which Wireshark shows in a dialog. `from` and `format` are those
/// of [`ExtcapCall`].
const OPTIONS: [(&str, &[(&str, &str)]); 7] = [
    (
        "arg",
        &[
            ("number", "0"),
            ("call", "--from"),
            ("display", "Packets"),
            ("tooltip", "Where in the capture to begin, and whether to go on with new packets"),
            ("type", "selector"),
        ],
    ),
    ("value", &[("arg", "0"), ("value", "live"), ("display", "New packets"), ("default", "true")]),
    (
        "value",
        &[
            ("arg", "0"),
            ("value", "follow"),
            ("display", "Packets kept so far, then new ones"),
            ("default", "false"),
        ],
    ),
    (
        "value",
        &[
            ("arg", "0"),
            ("value", "replay"),
            ("display", "Packets kept so far"),
            ("default", "false"),
        ],
    ),
    (
        "arg",
        &[
            ("number", "1"),
            ("call", "--format"),
            ("display", "Format"),
            ("tooltip", "pcapng says how many packets were lost, and where"),
            ("type", "selector"),
        ],
    ),
    ("value", &[("arg", "1"), ("value", "pcapng"), ("display", "pcapng"), ("default", "true")]),
    ("value", &[("arg", "1"), ("value", "pcap"), ("display", "pcap"), ("default", "false")]),
];
