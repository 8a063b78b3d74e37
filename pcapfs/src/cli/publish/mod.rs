//! `pcapfs publish`: transactions, flows, packets and segments of a capture as messages of ZeroMQ, or as
//! lines in a stream of NATS.
//!
//! It is a process with the rights of its user, and a reader like any other. PUSH has one place in the
//! capture, and PUB one for each peer. Nothing is kept here for a peer that does not read: its messages
//! wait in the daemon.
//!
//! ```text
//!            PUSH:  feed ── distribution ─┬── peer     PUB:  feed ── subscription ── peer
//!                                         └── peer           feed ── subscription ── peer
//!   feed: line_feed (logs of the tree), packet_feed and status_feed (the control socket)
//! ```

mod distribution;
mod endpoint;
mod feed;
mod line_feed;
mod message;
mod nats;
mod packet_feed;
mod peer;
mod publishing;
mod queue;
mod report;
mod segments;
mod status_feed;
mod subscription;
mod tracker;
mod zmtp;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use capture::filter::Filter;
use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCandidates;
use protocol::linktype::LinkType;

use super::client::{self, DaemonSocket};
use super::complete;
use super::nats::server::NatsOptions;
use super::nats::{NatsAddress, age};
use super::outlet::daemon::DaemonLink;
use super::outlet::event_kind::EventKind;
use super::outlet::expression::Expression;
use super::outlet::follower::{LogBeginning, LogSource};
use super::outlet::saved::{self, SavedPositions};
use super::savefile::TransferSignals;
use crate::failure::Failure;
use crate::{memory, process, size};
use endpoint::Endpoint;
use feed::FeedSettings;
use nats::{NatsSettings, StreamBounds};
use publishing::Publishing;
use report::Reporter;
use zmtp::SenderType;

/// The time between two saves of the place: what is sent in it is sent again if the process is
/// killed.
const SAVES: Duration = Duration::from_secs(1);

/// The time in which peers get the messages that wait for them after the order to end.
const LAST_MESSAGES: Duration = Duration::from_secs(1);

/// Bytes of a body without `--max-body`.
const MAX_BODY: &str = "1M";

/// The largest `--max-body`: a message of each peer may be in memory twice.
const LARGEST_BODY: u64 = 64 << 20;

/// The word for packets in `--what`.
const PACKETS: &str = "packets";

/// The word for segments in `--what`.
const SEGMENTS: &str = "segments";

/// Kinds of lines that are published.
const LINES: [EventKind; 4] =
    [EventKind::Http, EventKind::Flows, EventKind::Dns, EventKind::Status];

/// A capture to be published.
#[derive(Debug, Args)]
pub(super) struct Publish {
    /// Name or number of the capture
    #[arg(value_name = "ALIAS", add = ArgValueCandidates::new(complete::captures))]
    capture: String,

    /// Where peers are: tcp://HOST:PORT or ipc://PATH of ZeroMQ, or nats:// or tls://HOST[:PORT] of NATS
    #[arg(value_name = "ENDPOINT")]
    endpoint: String,

    /// Kind of socket: push gives each message to one PULL, pub to each SUB that wants it
    #[arg(long, value_name = "SOCKET", value_enum, default_value_t = ZmqSocket::Push)]
    zmq: ZmqSocket,

    /// Let peers connect to the endpoint, which is the default
    #[arg(long, conflicts_with = "connect")]
    bind: bool,

    /// Connect to the endpoint, again and again
    #[arg(long)]
    connect: bool,

    /// Messages, joined by commas: http, flows, dns, packets, segments, status
    #[arg(long, value_name = "KINDS", default_value = "http")]
    what: String,

    /// Only packets, and segments of packets, that match this expression, see pcap-filter(7)
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,

    /// Only lines that meet this, such as 'status>=500 and host~example'
    #[arg(long = "match", value_name = "EXPRESSION")]
    matching: Option<String>,

    /// Where to begin: after the last message of the run before (push), with the next one, or with
    /// the oldest one that is kept [default: saved for push, now for pub]
    #[arg(long, value_name = "FROM", value_enum)]
    from: Option<PublishFrom>,

    /// Time between two messages of status, such as 10s or 5m; a change of the state comes at once
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = age)]
    status_interval: Duration,

    /// At most this much of a body
    #[arg(long, value_name = "SIZE", default_value = MAX_BODY, value_parser = size::parse)]
    max_body: u64,

    /// Permission bits of the socket of ipc://
    #[arg(long, value_name = "BITS", default_value = "600", value_parser = mode)]
    mode: u32,

    /// NATS: make the stream pcapfs, which keeps the lines of all hosts, if it is not there
    #[arg(long)]
    create_stream: bool,

    /// Maximum size of the stream that is made
    #[arg(long, value_name = "SIZE", default_value = "1G", requires = "create_stream",
          value_parser = size::parse)]
    max_bytes: u64,

    /// Maximum age of the lines in the stream that is made, such as 12h or 7d [default: none]
    #[arg(long, value_name = "AGE", requires = "create_stream", value_parser = age)]
    max_age: Option<Duration>,

    /// NATS: name of this machine in subjects [default: the name it has]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    #[command(flatten)]
    nats: NatsOptions,

    /// Publish over a network in the clear, so that everybody on the way can read it
    #[arg(long)]
    insecure: bool,

    /// Print peers and sums as JSON, a line for each
    #[arg(long)]
    json: bool,

    /// File that remembers the last message of push [default: one in $XDG_STATE_HOME/pcapfs, for
    /// these arguments]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

/// A kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ZmqSocket {
    Push,
    Pub,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PublishFrom {
    /// After the last message of the run before.
    Saved,
    /// With the next message.
    Now,
    /// With the oldest message that is kept.
    Oldest,
}

fn mode(text: &str) -> Result<u32, String> {
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
    bits.ok_or_else(|| "no permission bits (such as 660)".to_owned())
}

impl Publish {
    /// True if the arguments have a secret, which other users must not see.
    pub(super) fn has_credentials(&self) -> bool {
        NatsAddress::is_meant(&self.endpoint) && self.endpoint.contains('@')
    }
}

/// `pcapfs publish`: until it is interrupted.
pub(super) fn run(publish: &Publish, daemon: &DaemonSocket) -> Result<(), Failure> {
    let wrong = |option: &str, why: String| Failure::Argument(format!("{option}: {why}"));
    if let Some((remote, name)) = client::remote_of(&publish.capture) {
        return Err(Failure::Argument(format!(
            "{}: publish is for captures of this machine (run it on {remote}: pcapfs publish {name} \
             ..., or follow the capture here: pcapfs mount -c {name}=remote:{remote}/{name})",
            publish.capture
        )));
    }
    if NatsAddress::is_meant(&publish.endpoint) {
        return run_nats(publish, daemon);
    }
    if publish.create_stream || publish.host.is_some() || publish.nats.is_used() {
        let why = "are for nats:// and tls://".to_owned();
        return Err(wrong("--create-stream, --host, --nats-*", why));
    }
    let endpoint =
        Endpoint::read(&publish.endpoint, !publish.connect).map_err(Failure::Argument)?;
    endpoint.check_privacy(publish.insecure)?;
    let sender = match publish.zmq {
        ZmqSocket::Push => SenderType::Push,
        ZmqSocket::Pub => SenderType::Pub,
    };
    let from = publish.from.unwrap_or(match sender {
        SenderType::Push => PublishFrom::Saved,
        SenderType::Pub => PublishFrom::Now,
    });
    if from == PublishFrom::Saved && sender == SenderType::Pub {
        let why = "saved is for push: each peer of pub has a place of its own".to_owned();
        return Err(wrong("--from", why));
    }
    if publish.max_body > LARGEST_BODY {
        return Err(wrong("--max-body", format!("at most {LARGEST_BODY} bytes")));
    }
    let saved = match sender {
        SenderType::Push => Some(SavedPositions::open(&path(publish, daemon)?)?),
        SenderType::Pub => None,
    };
    let reporter = Arc::new(Reporter::new(publish.json, &publish.capture));
    let settings = settings(publish, daemon, from, Arc::clone(&reporter))?;
    memory::keep_freed();
    let done = client::run(async {
        let stopping = TransferSignals::stopping()?;
        let settings = checked(settings).await?;
        let publishing = Publishing::new(endpoint, sender, publish.mode, settings, stopping);
        if publish.connect {
            publishing.connect(saved, from == PublishFrom::Saved).await
        } else {
            publishing.bind(saved, from == PublishFrom::Saved).await
        }
    });
    if done.is_ok() {
        reporter.end();
    }
    done
}

/// `pcapfs publish` to a server of NATS.
fn run_nats(publish: &Publish, daemon: &DaemonSocket) -> Result<(), Failure> {
    let address = NatsAddress::read(&publish.endpoint).map_err(Failure::Argument)?;
    let server = publish.nats.server(address, publish.insecure)?;
    let mut words = publish.what.split(',').map(str::trim);
    if let Some(word) = words.find(|word| [PACKETS, SEGMENTS].contains(word)) {
        return Err(Failure::Argument(format!(
            "--what {word}: packets and bodies stay on their machine; publish lines over NATS"
        )));
    }
    let host = match &publish.host {
        Some(host) => host.clone(),
        None => process::host_name().map_err(Failure::System)?,
    };
    let bounds = StreamBounds { max_bytes: publish.max_bytes, max_age: publish.max_age };
    let nats = NatsSettings { server, host, created: publish.create_stream.then_some(bounds) };
    let from = publish.from.unwrap_or(PublishFrom::Saved);
    let saved = SavedPositions::open(&path(publish, daemon)?)?;
    let reporter = Arc::new(Reporter::new(publish.json, &publish.capture));
    let settings = settings(publish, daemon, from, Arc::clone(&reporter))?;
    let done = client::run(async {
        let stopping = TransferSignals::stopping()?;
        let settings = checked(FeedSettings { has_bodies: false, ..settings }).await?;
        nats::publish(&nats, &settings, saved, from == PublishFrom::Saved, stopping).await
    });
    if done.is_ok() {
        reporter.end();
    }
    done
}

fn settings(
    publish: &Publish,
    daemon: &DaemonSocket,
    from: PublishFrom,
    reporter: Arc<Reporter>,
) -> Result<FeedSettings, Failure> {
    let wrong = |option: &str, why: String| Failure::Argument(format!("--{option}: {why}"));
    let words: Vec<&str> = publish.what.split(',').map(str::trim).collect();
    let (has_packets, has_segments) = (words.contains(&PACKETS), words.contains(&SEGMENTS));
    let lines = words.into_iter().filter(|word| ![PACKETS, SEGMENTS].contains(word));
    let lines: Vec<&str> = lines.collect();
    let kinds = if lines.is_empty() {
        Vec::new()
    } else {
        let kinds = EventKind::list(&lines.join(","), &LINES);
        kinds.map_err(|why| wrong("what", why.replace(')', ", packets, segments)")))?
    };
    let has_status = kinds.contains(&EventKind::Status);
    let kinds: Vec<_> = kinds.into_iter().filter(|kind| kind.log().is_some()).collect();
    let expression = match &publish.matching {
        Some(_) if kinds.is_empty() => {
            let why = "is for http, flows and dns; packets and segments have --filter".to_owned();
            return Err(wrong("match", why));
        }
        Some(text) => Expression::read(text, &kinds).map_err(|why| wrong("match", why))?,
        None => Expression::default(),
    };
    let filter = publish.filter.as_deref().map(str::trim).filter(|filter| !filter.is_empty());
    if filter.is_some() && !has_packets && !has_segments {
        return Err(wrong("filter", "is for packets and segments; lines have --match".to_owned()));
    }
    Ok(FeedSettings {
        source: LogSource::new(DaemonLink::new(daemon.clone())),
        capture: publish.capture.clone(),
        kinds,
        has_packets,
        has_segments,
        status_interval: has_status.then_some(publish.status_interval),
        expression,
        filter: filter.map(str::to_owned),
        beginning: match from {
            PublishFrom::Oldest => LogBeginning::Oldest,
            PublishFrom::Saved | PublishFrom::Now => LogBeginning::Now,
        },
        has_bodies: true,
        max_body: publish.max_body,
        reporter,
    })
}

/// Checks that the capture can be read and filtered, and takes the name it has.
async fn checked(settings: FeedSettings) -> Result<Arc<FeedSettings>, Failure> {
    let view = settings.source.daemon.capture(&settings.capture).await;
    let view = view.map_err(|trouble| Failure::Answer(trouble.text))?;
    if let Some(filter) = &settings.filter {
        let known = view.status.get("linktype").and_then(serde_json::Value::as_str);
        // Ethernet is the likely one.
        let link_type = known.and_then(LinkType::named).unwrap_or(LinkType::ETHERNET);
        Filter::compile(filter, link_type)
            .map_err(|error| Failure::Argument(format!("--filter: {error}")))?;
    }
    Ok(Arc::new(FeedSettings { capture: view.name, ..settings }))
}

/// The file of the place of a run with these arguments.
fn path(publish: &Publish, daemon: &DaemonSocket) -> Result<PathBuf, Failure> {
    if let Some(path) = &publish.state {
        return Ok(path.clone());
    }
    let socket = daemon.shown_path();
    // Without a secret in it.
    let server = NatsAddress::read(&publish.endpoint).ok();
    let server = server.filter(|_| NatsAddress::is_meant(&publish.endpoint));
    let endpoint = server.map_or_else(|| publish.endpoint.clone(), |server| server.to_string());
    let words = [
        socket.as_str(),
        &publish.capture,
        &endpoint,
        &publish.what,
        publish.filter.as_deref().unwrap_or_default(),
        publish.matching.as_deref().unwrap_or_default(),
    ];
    saved::default_path("publish", &words)
}
