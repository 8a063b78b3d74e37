//! `pcapfs fleet`: what the captures of many machines have published into a stream of NATS JetStream.
//!
//! Lines are in the stream as their machines have published them (`pcapfs publish nats://`). Packets
//! and bodies are not: they stay on their machine, from where `packets` fetches those of one flow.

mod hosts;
mod lines;
mod packets;
mod reference;

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::{self, DaemonSocket};
use super::nats::connection::Connection;
use super::nats::server::{NatsOptions, NatsServer};
use super::nats::{NatsAddress, age};
use super::outlet::event_kind::EventKind;
use super::outlet::expression::{Condition, Expression};
use crate::failure::Failure;
use lines::LineRequest;
use packets::FlowPackets;

/// The kinds of lines that are published.
const KINDS: [EventKind; 4] =
    [EventKind::Flows, EventKind::Http, EventKind::Dns, EventKind::Status];

/// What to read from the stream.
#[derive(Debug, Args)]
pub(super) struct Fleet {
    #[command(subcommand)]
    command: FleetCommand,

    /// The server: nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT], or the same with tls://
    #[arg(
        long,
        value_name = "URL",
        global = true,
        env = "PCAPFS_NATS",
        hide_env_values = true,
        default_value = "nats://127.0.0.1"
    )]
    nats: String,

    #[command(flatten)]
    options: NatsOptions,

    /// Read from another machine without TLS, so that everybody on the way can read it too
    #[arg(long, global = true)]
    insecure: bool,
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// List the machines and captures that have lines in the stream
    Hosts {
        /// Print JSON, a line for each
        #[arg(long)]
        json: bool,
    },
    /// Print lines as they are published, until interrupted
    Tail(Chosen),
    /// Print the lines that are in the stream
    Find(Chosen),
    /// Fetch the packets of a flow from its machine, as a savefile
    Packets(FlowPackets),
}

/// The lines that are wanted.
#[derive(Debug, Args)]
struct Chosen {
    /// Only lines of this machine
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// Only lines of captures with this name
    #[arg(long, value_name = "ALIAS")]
    capture: Option<String>,

    /// Kinds of lines, joined by commas: flows, http, dns, status
    #[arg(long, value_name = "KINDS", default_value = "flows,http")]
    what: String,

    /// Only lines of this client
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,

    /// Only lines of this server
    #[arg(long, value_name = "ADDRESS")]
    server: Option<IpAddr>,

    /// Only flows of TLS to this name
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,

    /// Only transactions with this status, such as 404 or 5xx
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,

    /// Only lines that meet this, such as 'duration_us>1000000 and host~example'
    #[arg(long = "match", value_name = "EXPRESSION")]
    matching: Option<String>,

    /// Only lines that were published in this time, such as 15m or 2d
    #[arg(long, value_name = "AGE", value_parser = age)]
    since: Option<Duration>,

    /// Print JSON, a line for each
    #[arg(long)]
    json: bool,
}

impl Fleet {
    /// True if the arguments have a secret, which other users must not see.
    pub(super) fn has_credentials(&self) -> bool {
        self.nats.contains('@')
    }

    /// The server to read from.
    fn server(&self) -> Result<NatsServer, Failure> {
        let address = NatsAddress::read(&self.nats)
            .map_err(|why| Failure::Argument(format!("--nats: {why}")))?;
        self.options.server(address, self.insecure)
    }
}

/// `pcapfs fleet`.
pub(super) fn run(fleet: &Fleet, daemon: &DaemonSocket) -> Result<(), Failure> {
    match &fleet.command {
        FleetCommand::Hosts { json } => {
            let server = fleet.server()?;
            client::run(async {
                let mut connection = connected(&server).await?;
                hosts::print(&mut connection, *json).await.map_err(|error| error.at(&server))
            })
        }
        FleetCommand::Tail(chosen) | FleetCommand::Find(chosen) => {
            let server = fleet.server()?;
            let follow = matches!(fleet.command, FleetCommand::Tail(_));
            let request = request(chosen, follow)?;
            client::run(async {
                let connection = connected(&server).await?;
                lines::print(connection, &request, daemon).await.map_err(|error| error.at(&server))
            })
        }
        // The machine of the flow is asked, and no server.
        FleetCommand::Packets(asked) => packets::fetch(asked, daemon),
    }
}

async fn connected(server: &NatsServer) -> Result<Connection, Failure> {
    Connection::open(server).await.map_err(|why| FleetError::Server(why).at(server))
}

/// Why a stream cannot be read.
#[derive(Debug)]
enum FleetError {
    /// The server, or the connection to it.
    Server(String),
    /// Standard output.
    Output(Failure),
}

impl FleetError {
    fn at(self, server: &NatsServer) -> Failure {
        match self {
            Self::Server(why) => Failure::Answer(format!("{server}: {why}")),
            Self::Output(failure) => failure,
        }
    }
}

fn request(chosen: &Chosen, follow: bool) -> Result<LineRequest, Failure> {
    let wrong = |option: &str, why: String| Failure::Argument(format!("--{option}: {why}"));
    let kinds = EventKind::list(&chosen.what, &KINDS).map_err(|why| wrong("what", why))?;
    let mut conditions = Vec::new();
    let addresses = [("client", chosen.client), ("server", chosen.server)];
    for (name, address) in addresses {
        conditions.extend(address.and_then(|address| Condition::is_address(name, address)));
    }
    conditions.extend(chosen.sni.as_deref().and_then(|name| Condition::is_text("sni", name)));
    if let Some(status) = &chosen.status {
        let condition = Condition::status(status).ok_or_else(|| {
            wrong("status", format!("'{status}' is no status (write one such as 404, or 4xx)"))
        })?;
        conditions.push(condition);
    }
    let expression = match &chosen.matching {
        Some(text) => Expression::read(text, &kinds).map_err(|why| wrong("match", why))?,
        None => Expression::default(),
    };
    Ok(LineRequest {
        host: chosen.host.clone(),
        capture: chosen.capture.clone(),
        kinds,
        expressions: [Expression::of(conditions), expression],
        since: chosen.since,
        json: chosen.json,
        follow,
    })
}
