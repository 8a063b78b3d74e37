//! `pcapfs serve`: the packets of a capture over TCP (PCAP-over-IP), for as many clients as come.
//!
//! It is a process with the rights of its user, and each of its clients is one more reader for the
//! daemon, over a connection of its own: a client that does not read is overtaken like any slow
//! reader, and neither the capture nor another client notices.

mod client;
pub(super) mod convert;
mod pcap;
mod pcapng;
pub(super) mod tls;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use capture::filter::Filter;
use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use nix::unistd::geteuid;
use protocol::linktype::LinkType;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{self as daemon_client, DaemonSocket};
use super::savefile::{PacketRange, TransferSignals};
use super::{complete, exclude, listen_address};
use crate::control::messages::{Format, ListRequest};
use crate::failure::Failure;
use crate::{memory, output};
use client::{ClientEnd, ClientReport};
use convert::Conversion;

/// The port that programs for PCAP-over-IP use, such as PolarProxy and Arkime.
const ADDRESS: &str = "127.0.0.1:57012";

/// Advice to a user who would let every machine read the packets.
const OPEN: &str = "everybody who can connect there could read the packets; use 127.0.0.1 or \
                    --tls, or add --insecure if all of them may";

/// Maximum number of clients: the daemon takes 64 connections of a user, and other commands need
/// some.
const CLIENTS: usize = 60;

/// The same for root, who has more.
const CLIENTS_OF_ROOT: usize = 200;

/// The wait after no connection could be accepted, usually for want of descriptors.
const RESPITE: Duration = Duration::from_millis(200);

/// A capture to be served.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Name or number of the capture
    #[arg(value_name = "[REMOTE:]ALIAS", add = ArgValueCompleter::new(complete::captures_of))]
    capture: String,

    /// Address and port at which clients connect
    #[arg(long, value_name = "ADDR:PORT", default_value = ADDRESS)]
    listen: String,

    /// What each client gets: the packets from now on; those retained and then new ones; or those
    /// retained, and then the end
    #[arg(long, value_name = "FROM", default_value = "live",
          value_parser = ["live", "follow", "replay"])]
    from: String,

    /// Format of the savefile
    #[arg(long, value_name = "FORMAT", default_value = "pcap", value_parser = ["pcap", "pcapng"])]
    format: String,

    /// Only packets that match this expression, see pcap-filter(7)
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,

    /// Time stamps in microseconds, for programs that read no nanoseconds; pcap only
    #[arg(long)]
    microseconds: bool,

    /// At most this much of each packet, for programs that take no more than 65535 bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=262_144))]
    snaplen: Option<u32>,

    /// Serve through TLS, to clients with a certificate that this machine has issued
    #[arg(long)]
    tls: bool,

    /// Directory or file with the certificate to show [default: /etc/pcapfs/identity]
    #[arg(long, value_name = "PATH", requires = "tls")]
    identity: Option<PathBuf>,

    /// Serve at an address that other machines reach, although everybody there may read the packets
    #[arg(long)]
    insecure: bool,
}

/// The settings that all clients of a process have in common.
#[derive(Debug)]
struct Service {
    capture: String,
    from: PacketRange,
    format: Format,
    conversion: Conversion,
    daemon: DaemonSocket,
    tls: Option<tls::Acceptor>,
}

/// `pcapfs serve`.
pub(super) fn run(serve: &Serve, daemon: &DaemonSocket) -> Result<(), Failure> {
    let address = listen_address::read(&serve.listen, serve.insecure || serve.tls, OPEN)?;
    let service = Arc::new(service(serve, daemon)?);
    memory::keep_freed();
    daemon_client::run(async {
        // Before it is ready, so that no signal ends it without a summary.
        let mut signals = TransferSignals::new()?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| listen_address::failure(address, &error))?;
        let bound = listener.local_addr().map_err(Failure::System)?;
        // Captures would store what it sends, and it would send that too.
        let excluded = exclude::keep_out(daemon, bound, None).await;
        output::say(format_args!("serving {} at {bound} ({})", serve.capture, serve.format));
        serve_all(&service, &listener, &mut signals).await;
        drop(excluded);
        Ok(())
    })
}

/// Checks that the capture can be read and filtered.
fn service(serve: &Serve, daemon: &DaemonSocket) -> Result<Service, Failure> {
    let format = if serve.format == "pcapng" { Format::Pcapng } else { Format::Pcap };
    if serve.microseconds && format == Format::Pcapng {
        let why = "--microseconds: a pcapng says itself what its times are; leave it out, or use \
                   --format pcap";
        return Err(Failure::Argument(why.to_owned()));
    }
    let (daemon, capture) = &daemon.of(&serve.capture)?;
    let request = ListRequest { capture: (*capture).to_owned() };
    let answer = daemon_client::with(daemon, |mut client| async move {
        client.list(request).await.map_err(daemon_client::failure)
    })?;
    let status = answer.into_inner().captures.into_iter().next().map(|one| one.status);
    let status = status.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let filter = serve.filter.as_deref().map(str::trim).filter(|text| !text.is_empty());
    if let Some(expression) = filter {
        let known = status.as_ref().and_then(|status| status.get("linktype")?.as_str());
        // Ethernet is the likely one.
        let link_type = known.and_then(LinkType::named).unwrap_or(LinkType::ETHERNET);
        Filter::compile(expression, link_type)
            .map_err(|error| Failure::Argument(format!("--filter: {error}")))?;
    }
    let conversion = Conversion {
        filter: filter.map(str::to_owned),
        microseconds: serve.microseconds,
        snaplen: serve.snaplen,
    };
    let from = PacketRange::from_str(&serve.from, false).map_err(Failure::Argument)?;
    let (capture, daemon) = ((*capture).to_owned(), daemon.clone());
    let tls = serve.tls.then(|| tls::Acceptor::new(serve.identity.as_deref())).transpose()?;
    Ok(Service { capture, from, format, conversion, daemon, tls })
}

/// The sums over all clients.
#[derive(Debug, Default)]
struct Summary {
    clients: u64,
    refused: u64,
    packets: u64,
    lost: u64,
}

impl Summary {
    fn add(&mut self, report: &ClientReport) {
        self.clients += 1;
        self.packets += report.packets;
        self.lost += report.lost;
        output::say(report);
    }

    fn say(&self) {
        let Self { clients, refused, packets, lost } = self;
        let clients =
            if *clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        let turned_away =
            if *refused > 0 { format!(", {refused} turned away") } else { String::new() };
        output::say(format_args!("{clients}{turned_away}: {packets} packets sent, {lost} lost"));
    }
}

/// Serves clients until a signal comes, and reports what each of them got.
async fn serve_all(service: &Arc<Service>, listener: &TcpListener, signals: &mut TransferSignals) {
    let room = if geteuid().is_root() { CLIENTS_OF_ROOT } else { CLIENTS };
    let (stop, stopping) = watch::channel(false);
    let mut summary = Summary::default();
    let mut clients: JoinSet<ClientReport> = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = signals.any() => break,
            Some(ended) = clients.join_next() => {
                // A task that panicked has said so.
                if let Ok(report) = ended {
                    summary.add(&report);
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((_, peer)) if clients.len() >= room => {
                summary.refused += 1;
                output::say(format_args!("{peer}: turned away, {room} clients are connected"));
            }
            Ok((stream, peer)) => {
                let (service, stopping) = (Arc::clone(service), stopping.clone());
                clients.spawn(serve_one(service, stream, peer, stopping));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                output::say(format_args!("no client can be accepted: {error}"));
                tokio::time::sleep(RESPITE).await;
            }
        }
    }
    // Fails only if there is no client.
    let _ = stop.send(true);
    while let Some(ended) = clients.join_next().await {
        if let Ok(report) = ended {
            summary.add(&report);
        }
    }
    summary.say();
}

async fn serve_one(
    service: Arc<Service>,
    stream: TcpStream,
    peer: SocketAddr,
    stopping: watch::Receiver<bool>,
) -> ClientReport {
    // An IPv4 client of an IPv6 socket is still shown as what it is.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    output::say(format_args!("{peer}: connected"));
    if let Err(error) = client::prepare(&stream) {
        return ClientReport::of(peer, ClientEnd::Failed(error.to_string()));
    }
    let Some(acceptor) = &service.tls else {
        return client::serve(&service, stream, peer, stopping, std::future::pending()).await;
    };
    match acceptor.accept(stream).await {
        Ok((stream, guest)) => {
            client::serve(&service, stream, peer, stopping, guest.refused()).await
        }
        Err(why) => ClientReport::of(peer, ClientEnd::Failed(why)),
    }
}
