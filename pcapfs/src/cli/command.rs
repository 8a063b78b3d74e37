//! The command line, as it is typed, and the code that each command runs.
//!
//! A command's own file has its arguments and what it does.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use mount_helper::arguments;

use super::client::DaemonSocket;
use super::exclude::Exclude;
use super::extcap::{self, Extcap};
use super::fleet::{self, Fleet};
use super::forget::Forget;
use super::identity::IdentityArguments;
use super::init::Init;
use super::interfaces::InterfacesRequested;
use super::listing::{self, List, StatusRequested};
use super::order::{self, ChosenCaptures, Verb};
use super::publish::{self, Publish};
use super::receive::{self, Receive};
use super::remote::{self, RemoteArguments};
use super::savefile::{self, Listen, Replay};
use super::send::{self, SendArguments};
use super::serve::{self, Serve};
use super::umount::Umount;
use super::watch::{self, WatchArguments};
use super::web::{self, Web};
use super::{background, complete, exclude, forget, identity, init, interfaces, umount};
use crate::daemon;
use crate::daemon::options::MountArguments;
use crate::failure::Failure;

/// Live packet captures as ordinary files: one capture, many readers.
#[derive(Debug, Parser)]
#[command(name = "pcapfs", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) daemon: DaemonSocket,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Capture, and show the captures as a tree of files
    Mount(Box<MountArguments>),
    /// Take a tree down
    #[command(visible_alias = "unmount")]
    Umount(Umount),
    /// List the network interfaces there are to capture from
    Interfaces(InterfacesRequested),
    /// Add a capture to a tree that is mounted
    Init(Init),
    /// Start captures that were stopped, ended or failed
    Start(ChosenCaptures),
    /// Stop captures: their readers get the stored packets, and then end of file
    Stop(ChosenCaptures),
    /// Take captures out of the tree; their packets are gone then
    Remove(ChosenCaptures),
    /// Forget what earlier runs left under a name that is not in the tree
    Forget(Forget),
    /// List the captures
    List(List),
    /// Show the state and counters of a capture, or of the daemon
    Status(StatusRequested),
    /// Write a savefile of all packets that are retained to standard output, or to a file
    Replay(Replay),
    /// Write a savefile to standard output or to a file, from the next packet on
    Listen(Listen),
    /// Serve the packets over TCP (PCAP-over-IP), to as many clients as connect
    Serve(Box<Serve>),
    /// Send the payload of packets over TCP, at the times at which they were captured
    Send(Box<SendArguments>),
    /// Receive over TCP at consecutive ports, and write files, until interrupted
    Receive(Receive),
    /// Serve captures, flows and HTTP to browsers and programs, over HTTP
    Web(Box<Web>),
    /// Send HTTP transactions, flows and packets to programs, as messages of ZeroMQ
    Publish(Box<Publish>),
    /// Print a line or run a command when a flow ends, a transaction ends, or a capture changes state
    Watch(Box<WatchArguments>),
    /// Find what the captures of many machines have published, over NATS
    Fleet(Box<Fleet>),
    /// Have captures leave out the packets of a TCP socket of yours, until interrupted
    Exclude(Exclude),
    /// Name other machines, whose captures all commands can use as REMOTE:ALIAS
    Remote(RemoteArguments),
    /// Make and show the certificates with which machines know each other
    Identity(IdentityArguments),
    /// Show whether Wireshark lists captures as its interfaces, or have it list them
    Extcap(Extcap),
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

impl Command {
    /// Runs the command. `daemon` is the one to talk to, for commands that need one.
    pub(super) fn run(self, daemon: DaemonSocket) -> Result<(), Failure> {
        match self {
            Self::Mount(mount) if mount.background => background::start(),
            Self::Mount(mount) => {
                arguments::hide(&[OsStr::new("mount"), mount.mountpoint.as_os_str()]);
                daemon::run(&MountArguments { socket: daemon.socket, ..*mount })
            }
            Self::Umount(umount) => umount::run(&umount),
            Self::Interfaces(interfaces) => interfaces::run(&interfaces),
            Self::Init(init) => init::run(&init, &daemon),
            Self::Start(chosen) => order::run(&chosen, Verb::Start, &daemon),
            Self::Stop(chosen) => order::run(&chosen, Verb::Stop, &daemon),
            Self::Remove(chosen) => order::run(&chosen, Verb::Remove, &daemon),
            Self::Forget(forget) => forget::run(&forget, &daemon),
            Self::List(shown) => listing::list(&shown, &daemon),
            Self::Status(shown) => listing::status(&shown, &daemon),
            Self::Replay(replay) => savefile::replay(&replay, &daemon),
            Self::Listen(listen) => savefile::listen(&listen, &daemon),
            Self::Serve(serve) => serve::run(&serve, &daemon),
            Self::Send(send) => send::run(&send, &daemon),
            Self::Receive(receive) => receive::run(&receive),
            Self::Web(web) => web::run(&web, &daemon),
            Self::Publish(publish) => {
                if publish.has_credentials() {
                    arguments::hide(&[OsStr::new("publish")]);
                }
                publish::run(&publish, &daemon)
            }
            Self::Watch(watch) => watch::run(&watch, &daemon),
            Self::Fleet(fleet) => {
                if fleet.has_credentials() {
                    arguments::hide(&[OsStr::new("fleet")]);
                }
                fleet::run(&fleet, &daemon)
            }
            Self::Exclude(exclude) => exclude::run(&exclude, &daemon),
            Self::Remote(remote) => remote::run(&remote),
            Self::Identity(identity) => identity::run(&identity),
            Self::Extcap(extcap) => extcap::run(&extcap),
            Self::CheckConfig { file, config } => daemon::check_config(file.or(config)),
            Self::Completions { shell } => complete::script(shell, &Arguments::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use capture::source::FORMS;
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

    /// The options of a command and of those below it, without those that are hidden.
    fn collect_options(command: &clap::Command, options: &mut BTreeSet<String>) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            options.extend(argument.get_short().map(String::from));
            options.extend(argument.get_long().map(str::to_owned));
        }
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            collect_options(below, options);
        }
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
            collect_options(one, &mut options);
        }
        // Of the program itself.
        options.extend(["V", "version"].map(str::to_owned));
        assert_eq!(described(page), options);
        let (before, _, after) = parts_around_sources(page);
        let described: BTreeSet<&str> = items(before).chain(items(after)).collect();
        assert_eq!(described, commands);
    }

    /// The manual page before, in and after its list of sources.
    fn parts_around_sources(page: &str) -> (&str, &str, &str) {
        let (before, rest) = page.split_once(".Ss Sources\n").unwrap();
        let (sources, after) = rest.split_once(".Ss ").unwrap();
        (before, sources, after)
    }

    /// The first words of the items of a manual page that are commands or keywords.
    fn items(part: &str) -> impl Iterator<Item = &str> {
        part.lines().filter_map(|line| line.strip_prefix(".It Cm ")?.split(' ').next())
    }

    #[test]
    fn the_manual_page_has_every_kind_of_source_and_no_other() {
        let (_, sources, _) = parts_around_sources(include_str!("../../../man/pcapfs.1"));
        let kinds = FORMS.split(", ").map(|form| form.split(':').next().unwrap());
        let kinds: BTreeSet<&str> = kinds.chain(["any", "-"]).collect();
        assert_eq!(items(sources).collect::<BTreeSet<_>>(), kinds);
    }

    #[test]
    fn the_parser_is_consistent() {
        Arguments::command().debug_assert();
    }
}
