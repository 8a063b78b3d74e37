//! `pcapfs send`: sends the contents of packets over TCP connections, at the times at which they were
//! captured.
//!
//! ```text
//!   input ──packets──▶ extraction ──bytes for a connection──▶ sending ──▶ outgoing
//!                                                   plan, schedule ──▲
//! ```
//!
//! An input that can be read twice is read twice. The first time finds the connections, so that a
//! receiver with too few ports is reported before anything is sent.

mod alarm;
mod extraction;
mod far_ends;
mod input;
mod outgoing;
mod plan;
mod report;
mod schedule;
mod sending;

use capture::source::HostAndPort;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::client::{self, DaemonSocket};
use super::complete;
use super::savefile::{PacketRange, TransferSignals};
use crate::failure::Failure;
use crate::{descriptor_limit, memory};
use extraction::{ConnectionPer, SentContent, SentPart, SentProtocol};
use input::PacketInput;
use schedule::SendSpeed;
use sending::{SendSettings, Sending};

/// Packets to be sent.
#[derive(Debug, Args)]
pub(super) struct SendArguments {
    /// A savefile, - for standard input, or the name of a capture
    #[arg(value_name = "SAVEFILE|[REMOTE:]ALIAS", add = ArgValueCompleter::new(complete::captures_of))]
    input: String,

    /// Name or address of the receiver
    #[arg(value_name = "HOST")]
    host: String,

    /// The port of the first connection; the others lead to the ports after it
    #[arg(value_name = "BASE_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: u16,

    /// How many times as fast as the capture, such as 1.0 or 10; or max, as fast as it is taken
    #[arg(long, value_name = "SPEED", default_value = "1.0")]
    speed: SendSpeed,

    /// The part that is sent: payload as captured; streams, each byte once; frames; or a savefile
    #[arg(long, value_name = "PART", value_enum, default_value_t = SentPart::Payload)]
    what: SentPart,

    /// A connection for each source address, or for each direction of a flow
    #[arg(long, value_name = "PER", value_enum, default_value_t = ConnectionPer::Source)]
    connections: ConnectionPer,

    /// Protocol of the packets [default: tcp for payload and streams, otherwise any]
    #[arg(long, value_name = "PROTOCOL", value_enum)]
    protocol: Option<SentProtocol>,

    /// Only packets that match this expression, see pcap-filter(7)
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,

    /// The packets of a capture: those retained; those from now on, as they come; or both
    #[arg(long, value_name = "FROM", value_enum, default_value_t = PacketRange::Replay)]
    from: PacketRange,

    /// Send everything so many times
    #[arg(long = "loop", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,

    /// Print connections and sums as JSON, a line for each
    #[arg(long)]
    json: bool,
}

/// `pcapfs send`: until everything is sent, or it is interrupted.
pub(super) fn run(send: &SendArguments, daemon: &DaemonSocket) -> Result<(), Failure> {
    let input = PacketInput::named(&send.input, send.from, daemon)?;
    if send.rounds > 1 && !input.can_be_repeated() {
        return Err(Failure::Argument(format!(
            "--loop {}: {} can be read only once (a savefile and what a capture retains can be read \
             again)",
            send.rounds, send.input
        )));
    }
    // It also checks the name.
    let place = HostAndPort { host: bare(&send.host).to_owned(), port: send.base_port };
    let of_any = matches!(send.what, SentPart::Frames | SentPart::Pcap);
    let protocol = if of_any { SentProtocol::Any } else { SentProtocol::Tcp };
    let content = SentContent {
        part: send.what,
        per: send.connections,
        protocol: send.protocol.unwrap_or(protocol),
    };
    // Live packets come at their own times.
    let speed = if input.is_live() { SendSpeed::Max } else { send.speed };
    let filter = send.filter.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let settings = SendSettings {
        content,
        speed,
        filter: filter.map(str::to_owned),
        rounds: send.rounds,
        json: send.json,
    };
    descriptor_limit::raise();
    memory::keep_freed();
    client::run(async {
        let mut signals = TransferSignals::new()?;
        let sending = tokio::select! {
            prepared = Sending::prepare(settings, input, &place, daemon) => prepared?,
            () = signals.any() => return Err(Failure::Answer("interrupted".to_owned())),
        };
        sending.run(&mut signals).await
    })
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}
