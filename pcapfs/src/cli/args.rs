//! The command line, as it is typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use clap_complete::engine::ArgValueCandidates;

use super::complete;
use crate::candidates;
use crate::daemon::options::{MountArguments, kernel_buffer, mode, number};

/// Live packet captures as ordinary files: one capture, many readers.
#[derive(Debug, Parser)]
#[command(name = "pcapfs", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) daemon: Daemon,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Capture, and show the captures as a tree of files
    Mount(Box<MountArguments>),
    /// Take a tree down
    #[command(visible_alias = "unmount")]
    Umount {
        /// Where the tree is mounted
        #[arg(add = ArgValueCandidates::new(complete::trees))]
        mountpoint: PathBuf,
    },
    /// List the network interfaces there are to capture from
    Interfaces {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a capture to a tree that is mounted
    Init(Init),
    /// Start captures that were stopped, ended or failed
    Start(Chosen),
    /// Stop captures: their readers get the stored packets, and then end of file
    Stop(Chosen),
    /// Take captures out of the tree; their packets are gone then
    Remove(Chosen),
    /// Forget what earlier runs left under a name that is not in the tree
    Forget {
        /// The name
        #[arg(value_name = "ALIAS")]
        name: String,

        /// In this file, which no daemon may be using [default: ask the daemon; without one, all
        /// places where state and rings are kept by default]
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
    },
    /// List the captures
    List(List),
    /// Show the state and counters of a capture, or of the daemon
    Status(Status),
    /// Write a savefile of all packets that are retained to standard output, or to a file
    Replay(Replay),
    /// Write a savefile to standard output or to a file, from the next packet on
    Listen(Listen),
    /// Say what is wrong with a configuration, if anything is
    CheckConfig {
        /// The file [default: /etc/pcapfs/pcapfs.toml]
        #[arg(conflicts_with = "config")]
        file: Option<PathBuf>,

        /// The file, named as mount's --config
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print what a shell needs to complete this command
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// If a capture has the same interface and filter already, it gets another name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pcapfs init eth0
  pcapfs init eth0 'tcp port 80' --alias web
  pcapfs init any 'udp port 53' --alias dns")]
pub(crate) struct Init {
    /// The interface; "any" or "" for all of them
    #[arg(add = ArgValueCandidates::new(candidates::interfaces))]
    pub(crate) interface: String,

    /// A filter for packets: see pcap-filter(7)
    pub(crate) filter: Vec<String>,

    /// Name of the capture [default: the interface's name]
    #[arg(long)]
    pub(crate) alias: Option<String>,

    /// Bytes of packets to keep, with K, M or G [default: as the daemon's --ring]
    #[arg(long, value_name = "SIZE", value_parser = crate::size::parse,
          allow_hyphen_values = true)]
    pub(crate) ring: Option<u64>,

    /// Bytes in which the kernel keeps packets until they are fetched, with K, M or G
    /// [default: as the daemon's --kernel-buffer]
    #[arg(long, value_name = "SIZE", value_parser = kernel_buffer, allow_hyphen_values = true)]
    pub(crate) kernel_buffer: Option<u64>,

    /// Maximum number of bytes to keep of one packet [default: as the daemon's --snaplen]
    #[arg(long, value_name = "BYTES", value_parser = |text: &str| number(text, 1..=262_144),
          allow_negative_numbers = true)]
    pub(crate) snaplen: Option<u32>,

    /// Group that may read the capture; you must be in it [default: as the daemon's --group]
    #[arg(long, value_name = "GROUP", add = ArgValueCandidates::new(candidates::groups))]
    pub(crate) group: Option<String>,

    /// Permission bits of the capture, such as 0750 [default: as the daemon's --mode]
    #[arg(long, value_name = "BITS", value_parser = mode)]
    pub(crate) mode: Option<u32>,

    /// Do not set the interface to promiscuous mode
    #[arg(long)]
    pub(crate) no_promiscuous: bool,
}

/// The captures of an order.
#[derive(Debug, Args)]
pub(crate) struct Chosen {
    /// Names or numbers of captures
    #[arg(value_name = "ALIAS", required_unless_present = "all", conflicts_with = "all",
          add = ArgValueCandidates::new(complete::captures))]
    pub(crate) captures: Vec<String>,

    /// All captures that you may read
    #[arg(long)]
    pub(crate) all: bool,
}

/// Captures to be listed.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Names or numbers of captures [default: all that you may read]
    #[arg(value_name = "ALIAS", add = ArgValueCandidates::new(complete::captures))]
    pub(crate) captures: Vec<String>,

    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// A status to be shown.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Name or number of a capture [default: the daemon]
    #[arg(value_name = "ALIAS", add = ArgValueCandidates::new(complete::captures))]
    pub(crate) capture: Option<String>,

    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// How something is shown.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Show it once a second, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

/// A savefile to be fetched.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Name or number of the capture
    #[arg(value_name = "ALIAS", add = ArgValueCandidates::new(complete::captures))]
    pub(crate) capture: String,

    /// Go on with new packets after those that are retained
    #[arg(long)]
    pub(crate) live: bool,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The place and the format of a savefile.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Write to FILE, which appears under its name when it is complete; - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,

    /// Format of the savefile [default: pcapng if FILE ends in .pcapng, otherwise pcap]
    #[arg(long, value_name = "FORMAT", value_parser = ["pcap", "pcapng"])]
    pub(crate) format: Option<String>,

    /// The same as --format pcapng
    #[arg(long, conflicts_with = "format")]
    pub(crate) pcapng: bool,
}

/// Packets to be listened to.
#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Name or number of the capture
    #[arg(value_name = "ALIAS", add = ArgValueCandidates::new(complete::captures))]
    pub(crate) capture: String,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The daemon to talk to.
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// Socket of the daemon [env: PCAPFS_SOCKET] [default: /run/pcapfs/control.sock, or
    /// $XDG_RUNTIME_DIR/pcapfs/control.sock of a user's own daemon]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

impl Daemon {
    /// With the socket of the environment if none was typed. A variable that is set to nothing says
    /// nothing.
    pub(super) fn or_environment(mut self) -> Self {
        let set = || std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
        self.socket = self.socket.or_else(|| set().map(PathBuf::from));
        self
    }
}

/// Says where the socket of the control service is.
pub(super) const SOCKET_VARIABLE: &str = "PCAPFS_SOCKET";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use protocol::tcp::{Policy, Urgent};

    use super::*;

    fn mount(words: &[&str]) -> Result<MountArguments, String> {
        let words = ["pcapfs", "mount", "/captures"].iter().chain(words);
        match Arguments::try_parse_from(words) {
            Ok(Arguments { command: Command::Mount(mount), .. }) => Ok(*mount),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn options_of_flows_are_read() {
        let plain = mount(&[]).unwrap();
        assert_eq!((plain.flow_memory, plain.max_flows), (None, 1 << 21));
        assert_eq!((plain.no_tunnels, plain.overlap), (false, Policy::First));
        assert_eq!((plain.mode, plain.group), (0o750, None));
        let words = [
            "--flow-memory",
            "64M",
            "--max-flows=5",
            "--no-tunnels",
            "--overlap",
            "last",
            "--no-vlan-flows",
            "--urgent=inline",
        ];
        let given = mount(&words).unwrap();
        assert_eq!((given.flow_memory, given.max_flows), (Some(64 << 20), 5));
        assert_eq!((given.no_tunnels, given.overlap), (true, Policy::Last));
        assert!(given.no_vlan_flows && !plain.no_vlan_flows);
        assert_eq!((plain.urgent, given.urgent), (Urgent::OutOfBand, Urgent::Inline));
        for (word, part) in [
            ("--flow-memory=lots", "is no size"),
            ("--flow-memory=-1", "is no size"),
            ("--max-flows=0", "'0' for '--max-flows <N>'"),
            ("--max-flows=many", "'many' for '--max-flows <N>'"),
            ("--mode=0888", "no permission bits"),
            ("--mode=1777", "no permission bits"),
            ("--overlap=none", "possible values: first, last"),
            ("--urgent=no", "possible values: out-of-band, inline"),
        ] {
            let error = mount(&[word]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    /// The options of a manual page: `Fl x` and `Fl -long`.
    fn described(page: &str) -> BTreeSet<String> {
        let words: Vec<&str> = page.split_whitespace().collect();
        let flags = words.windows(2).filter(|pair| matches!(pair[0], "Fl" | ".Fl"));
        flags.map(|pair| pair[1].trim_start_matches('-').to_owned()).collect()
    }

    #[test]
    fn the_manual_page_has_every_command_and_option_and_no_other() {
        let page = include_str!("../../../man/pcapfs.1");
        let mut command = Arguments::command();
        command.build();
        let mut options: BTreeSet<String> = BTreeSet::new();
        let mut commands: BTreeSet<&str> = BTreeSet::new();
        for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
            commands.insert(one.get_name());
            for argument in one.get_arguments().filter(|argument| !argument.is_hide_set()) {
                options.extend(argument.get_short().map(String::from));
                options.extend(argument.get_long().map(str::to_owned));
            }
        }
        // Of the program itself.
        options.extend(["V", "version"].map(str::to_owned));
        assert_eq!(described(page), options);
        let described: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix(".It Cm ")?.split(' ').next())
            .filter(|word| *word != "any" && *word != "file" && *word != "stream" && *word != "-")
            .collect();
        assert_eq!(described, commands);
    }

    #[test]
    fn the_parser_is_consistent() {
        Arguments::command().debug_assert();
    }
}
