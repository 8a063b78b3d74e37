//! `pcapfs init`: adds a capture to a tree that is mounted.

use capture::injection::InjectSpeed;
use capture::pipeline::is_alias;
use capture::source::{InterfaceBackend, Workers};
use clap::Args;
use clap_complete::engine::ArgValueCandidates;

use super::client::{self, DaemonSocket};
use crate::candidates;
use crate::control::messages::InitRequest;
use crate::daemon::options::{backend, inject_speed, kernel_buffer, mode, number, workers};
use crate::failure::Failure;
use crate::output;
use crate::sources;

/// If a capture has the same interface and filter already, it gets another name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pcapfs init eth0
  pcapfs init eth0 'tcp port 80' --alias web
  pcapfs init any 'udp port 53' --alias dns")]
pub(super) struct Init {
    /// The interface; "any" or "" for all of them
    #[arg(value_name = "[REMOTE:]INTERFACE", add = ArgValueCandidates::new(candidates::interfaces))]
    pub(super) interface: String,

    /// A filter for packets: see pcap-filter(7)
    pub(super) filter: Vec<String>,

    /// Name of the capture [default: the interface's name]
    #[arg(long)]
    pub(super) alias: Option<String>,

    /// Bytes of packets to keep, with K, M or G [default: as the daemon's --ring]
    #[arg(long, value_name = "SIZE", value_parser = crate::size::parse,
          allow_hyphen_values = true)]
    pub(super) ring: Option<u64>,

    /// Bytes in which the kernel keeps packets until they are fetched, with K, M or G
    /// [default: as the daemon's --kernel-buffer]
    #[arg(long, value_name = "SIZE", value_parser = kernel_buffer, allow_hyphen_values = true)]
    pub(super) kernel_buffer: Option<u64>,

    /// How packets are received: through a packet socket, or through libpcap
    /// [default: as the daemon's --backend]
    #[arg(long, value_name = "BACKEND", value_parser = backend())]
    pub(super) backend: Option<InterfaceBackend>,

    /// Threads that take its packets: a number, auto, or 4:cpu, 4:qm
    /// [default: as the daemon's --workers]
    #[arg(long, value_name = "WORKERS", value_parser = workers, allow_negative_numbers = true)]
    pub(super) workers: Option<Workers>,

    /// How fast frames that are injected into a tap or tun device go: a factor of their original
    /// speed, or max [default: as the daemon's --inject-speed]
    #[arg(long, value_name = "SPEED", value_parser = inject_speed, allow_negative_numbers = true)]
    pub(super) inject_speed: Option<InjectSpeed>,

    /// Maximum number of bytes to keep of one packet [default: as the daemon's --snaplen]
    #[arg(long, value_name = "BYTES", value_parser = |text: &str| number(text, 1..=262_144),
          allow_negative_numbers = true)]
    pub(super) snaplen: Option<u32>,

    /// Group that may read the capture; you must be in it [default: as the daemon's --group]
    #[arg(long, value_name = "GROUP", add = ArgValueCandidates::new(candidates::groups))]
    pub(super) group: Option<String>,

    /// Permission bits of the capture, such as 0750 [default: as the daemon's --mode]
    #[arg(long, value_name = "BITS", value_parser = mode)]
    pub(super) mode: Option<u32>,

    /// Do not set the interface to promiscuous mode
    #[arg(long)]
    pub(super) no_promiscuous: bool,
}

/// `pcapfs init`: prints number and alias.
pub(super) fn run(init: &Init, daemon: &DaemonSocket) -> Result<(), Failure> {
    let Init { interface, filter, alias, ring, .. } = init;
    if interface.starts_with("file:") || interface.starts_with("stream:") || interface == "-" {
        return Err(Failure::Argument(format!(
            "{interface}: not an interface (savefiles and FIFOs are for pcapfs mount, or the \
             configuration)"
        )));
    }
    let (daemon, interface) = &daemon.of(interface)?;
    if daemon.remote.is_none() {
        // A mistake in a source of this program is reported before the daemon is asked.
        sources::parse(interface).map_err(Failure::Argument)?;
    }
    if let Some(alias) = alias.as_deref().filter(|alias| !is_alias(alias)) {
        return Err(Failure::Argument(format!(
            "'{alias}' is no alias: 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front"
        )));
    }
    let request = InitRequest {
        interface: (*interface).to_owned(),
        filter: filter.join(" "),
        alias: alias.clone().unwrap_or_default(),
        ring: *ring,
        snaplen: init.snaplen,
        group: init.group.clone(),
        mode: init.mode,
        promiscuous: init.no_promiscuous.then_some(false),
        kernel_buffer: init.kernel_buffer,
        backend: init.backend.map(|backend| backend.word().to_owned()),
        workers: init.workers.map(|workers| workers.to_string()),
        inject_speed: init.inject_speed.map(|speed| speed.to_string()),
    };
    let answer = client::with(daemon, |mut client| async move {
        client.init(request).await.map_err(client::failure)
    })?;
    let made = answer.into_inner();
    if !made.alias_of.is_empty() {
        output::say(format_args!(
            "{} is another name for {}, which captures the same",
            daemon.shown(&made.alias),
            daemon.shown(&made.alias_of)
        ));
    }
    if !made.note.is_empty() {
        output::say(format_args!("{}: {}", daemon.shown(&made.alias), made.note));
    }
    output::print(&format!("{} {}\n", made.id, daemon.shown(&made.alias))).map_err(Failure::Output)
}
