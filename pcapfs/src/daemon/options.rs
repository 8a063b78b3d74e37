//! `pcapfs mount` as it is typed: the options of the daemon, and how their values are read.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use capture::injection::InjectSpeed;
use capture::source::{InterfaceBackend, Workers};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap_complete::engine::ArgValueCandidates;
use protocol::tcp::{Policy, Urgent};

use crate::candidates;
use crate::settings::KERNEL_BUFFERS;

/// A SOURCE is an interface; several with commas between them; "any" or "" for all of them;
/// netns:NAME/IFACE or netns:PID/IFACE for one in another network namespace; xdp:IFACE for a port
/// whose packets are taken from the system; tap:NAME or tun:NAME for a device of that kind; file:PATH
/// for a savefile; stream:PATH for a FIFO that savefiles are written into; tcp:HOST:PORT for a far end
/// that sends savefiles; tcp-listen:ADDR:PORT for far ends that connect and send savefiles;
/// remote:NAME/CAPTURE for a capture of another machine; - for standard input.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pcapfs mount /captures -i eth0
  pcapfs mount /captures -c web='eth0 tcp port 80' -c dns='any udp port 53' --ring 256M
  pcapfs mount ./captures -r trace.pcap")]
pub(crate) struct MountArguments {
    /// A directory to show the tree in; its own files are hidden until the end. With none there is
    /// no tree: commands reach the captures through the control socket
    pub(crate) mountpoint: PathBuf,

    /// A capture: its name, where packets come from, and which (can be repeated)
    #[arg(short = 'c', long = "capture", value_name = "ALIAS=SOURCE [FILTER]")]
    pub(crate) captures: Vec<String>,

    /// A capture that is named after its source, for mount.pcapfs, whose SPEC is any source
    #[arg(long, hide = true, value_name = "SOURCE [FILTER]")]
    pub(crate) unnamed: Option<String>,

    /// An interface to capture from
    #[arg(short, long, value_name = "IFACE",
          add = ArgValueCandidates::new(candidates::interfaces))]
    pub(crate) interface: Option<String>,

    /// A filter for the packets of -i, or of -r without -i: see pcap-filter(7)
    #[arg(short, long)]
    pub(crate) filter: Option<String>,

    /// Name of the capture of -i, or of the only -r [default: the interface's or file's name]
    #[arg(long)]
    pub(crate) alias: Option<String>,

    /// A savefile to show, - for standard input (can be repeated)
    #[arg(short, long, value_name = "SAVEFILE")]
    pub(crate) read: Vec<PathBuf>,

    /// A file with captures and defaults; SIGHUP has it read again
    /// [default: /etc/pcapfs/pcapfs.toml, if no capture is given]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Bytes of packets each live capture keeps, with K, M or G [default: 64M, or less if
    /// --ring-dir has no room for that]
    #[arg(long, value_name = "SIZE", value_parser = crate::size::parse,
          allow_hyphen_values = true)]
    pub(crate) ring: Option<u64>,

    /// Directory of the ring files [default: /dev/shm/pcapfs, not as root /dev/shm/pcapfs-UID]
    #[arg(long, value_name = "DIR")]
    pub(crate) ring_dir: Option<PathBuf>,

    /// Bytes in which the kernel keeps packets of each interface until they are fetched, with K, M
    /// or G [default: half of --ring, no more than 22M, all captures together 352M]
    #[arg(long, value_name = "SIZE", value_parser = kernel_buffer, allow_hyphen_values = true)]
    pub(crate) kernel_buffer: Option<u64>,

    /// How packets of interfaces are received: through a packet socket, or through libpcap, which
    /// also receives what is not Ethernet
    #[arg(long, value_name = "BACKEND", value_parser = backend(), default_value = "af_packet")]
    pub(crate) backend: InterfaceBackend,

    /// Threads that take the packets of each interface: a number, or auto for one for each processor.
    /// 4:cpu and 4:qm distribute packets by processor or by queue of the card, not by flow
    #[arg(long, value_name = "WORKERS", value_parser = workers, default_value = "1",
          allow_negative_numbers = true)]
    pub(crate) workers: Workers,

    /// How fast frames that are written into inject.pcap of a tap or tun device go into the kernel: a
    /// factor of their original speed, or max for no gaps
    #[arg(long, value_name = "SPEED", value_parser = inject_speed, default_value = "1.0",
          allow_negative_numbers = true)]
    pub(crate) inject_speed: InjectSpeed,

    /// Where programs that steer the daemon connect, as typed before the command or after it.
    #[arg(skip)]
    pub(crate) socket: Option<PathBuf>,

    /// File that keeps captures made by init, and changed permissions, over a restart
    /// [default: pcapfs.state in --ring-dir, or a file in /var/lib/pcapfs-root]
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,

    /// Begin with nothing of earlier runs: no packets, no captures made by init, no changed
    /// permissions
    #[arg(long)]
    pub(crate) fresh: bool,

    /// Maximum number of bytes to keep of one packet
    #[arg(long, value_name = "BYTES", default_value_t = capture::pipeline::DEFAULT_SNAPLEN,
          value_parser = |text: &str| number(text, 1..=262_144), allow_negative_numbers = true)]
    pub(crate) snaplen: u32,

    /// Receive only frames for this machine, and those that every station receives: do not set
    /// interfaces to promiscuous mode
    #[arg(long)]
    pub(crate) no_promiscuous: bool,

    /// Maximum memory for the flows of each capture, with K, M or G [default: an eighth of all]
    #[arg(long, value_name = "SIZE", value_parser = crate::size::parse,
          allow_hyphen_values = true)]
    pub(crate) flow_memory: Option<u64>,

    /// Maximum number of flows to show of each capture
    #[arg(long, value_name = "N", default_value_t = 1 << 21,
          value_parser = |text: &str| number(text, 1..=u32::MAX), allow_negative_numbers = true)]
    pub(crate) max_flows: u32,

    /// Do not look for flows inside tunnels
    #[arg(long)]
    pub(crate) no_tunnels: bool,

    /// Do not take the same addresses in two VLANs for two flows: the directions of one may have
    /// different tags
    #[arg(long)]
    pub(crate) no_vlan_flows: bool,

    /// Which copy of retransmitted bytes counts if the copies differ
    #[arg(long, value_name = "WHICH", default_value = "first", value_parser = overlap())]
    pub(crate) overlap: Policy,

    /// Whether urgent data of TCP is in the streams: few programs read it there
    #[arg(long, value_name = "WHERE", default_value = "out-of-band", value_parser = urgent())]
    pub(crate) urgent: Urgent,

    /// Group that may read the captures, unless chgrp gave them another [default: pcapfs as root,
    /// otherwise the user's own]
    #[arg(long, value_name = "GROUP", add = ArgValueCandidates::new(candidates::groups))]
    pub(crate) group: Option<String>,

    /// Permission bits of the captures, unless chmod gave them others
    #[arg(long, value_name = "BITS", default_value = "0750", value_parser = mode)]
    pub(crate) mode: u32,

    /// Mount options, separated by commas
    #[arg(short, value_name = "OPTIONS", value_delimiter = ',')]
    pub(crate) options: Vec<String>,

    /// Be ready before the savefiles are read to their end: until their state is "ended", their
    /// files end early
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// Return when the tree is ready, and go on in the background
    #[arg(long)]
    pub(crate) background: bool,

    /// Set by --background for the process in the background
    #[arg(long, hide = true)]
    pub(crate) detached: bool,

    /// Set by mount.pcapfs: the descriptor of the socket over which it gives the mounted device
    #[arg(long, hide = true, value_name = "DESCRIPTOR",
          value_parser = clap::value_parser!(i32).range(3..),
          conflicts_with_all = ["background", "detached", "options"])]
    pub(crate) handoff: Option<i32>,
}

/// Reads the words of `--urgent`.
fn urgent() -> impl TypedValueParser<Value = Urgent> {
    PossibleValuesParser::new(["out-of-band", "inline"])
        .map(|word| if word == "inline" { Urgent::Inline } else { Urgent::OutOfBand })
}

/// Reads the words of `--overlap`.
fn overlap() -> impl TypedValueParser<Value = Policy> {
    PossibleValuesParser::new(["first", "last"])
        .map(|word| if word == "last" { Policy::Last } else { Policy::First })
}

/// Reads a number that is to be in a range.
pub(crate) fn number(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let found = text.parse().ok().filter(|number| range.contains(number));
    let (least, most) = range.into_inner();
    found.ok_or_else(|| format!("'{text}' is no number from {least} to {most}"))
}

/// Reads a size that the kernel takes for its buffer.
pub(crate) fn kernel_buffer(text: &str) -> Result<u64, String> {
    let size = crate::size::parse(text)?;
    if KERNEL_BUFFERS.contains(&size) {
        Ok(size)
    } else {
        Err(format!("{size} bytes are not possible (at least 512K, at most 2047M)"))
    }
}

/// Reads the word of `--backend`.
pub(crate) fn backend() -> impl TypedValueParser<Value = InterfaceBackend> {
    PossibleValuesParser::new(InterfaceBackend::WORDS)
        .map(|word| InterfaceBackend::parse(&word).unwrap_or_default())
}

/// Reads the value of `--workers`.
pub(crate) fn workers(text: &str) -> Result<Workers, String> {
    let workers = Workers::parse(text);
    workers.ok_or_else(|| format!("'{text}' is no number of threads (write {})", Workers::EXPECTED))
}

/// Reads the value of `--inject-speed`.
pub(crate) fn inject_speed(text: &str) -> Result<InjectSpeed, String> {
    let speed = InjectSpeed::parse(text);
    speed.ok_or_else(|| format!("'{text}' is no speed (write {})", InjectSpeed::EXPECTED))
}

/// Reads the bits of `--mode`.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
    bits.ok_or_else(|| format!("'{text}' are no permission bits (write them as 0750)"))
}
