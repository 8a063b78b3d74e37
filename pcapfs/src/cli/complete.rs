//! Completes the command line: a script for the shell, which asks this program for each word.
//!
//! The choices are looked up for each word: captures from the daemon, interfaces and groups from
//! the system.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::Command;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};
use clap_complete::{CompleteEnv, Shell};

use super::client::{self, DaemonSocket};
use crate::control::messages::ListRequest;
use crate::failure::Failure;
use crate::fuse::mounted_trees;
use crate::output;
use crate::remote::remotes;

/// Set by the shell's script to the name of the shell.
const VARIABLE: &str = "PCAPFS_COMPLETE";

/// bash takes a colon for the end of a word. This joins such words for the function that the script
/// has defined, and removes what is before the last colon from the answers.
const WORDS_WITH_COLONS: &str = r#"
_pcapfs_words() {
    local joined=() word index before=
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ $index -gt 1 && ( $word == : || $before == *: ) ]]; then
            joined[${#joined[@]}-1]+=$word
        else
            joined+=("$word")
        fi
        before=$word
    done
    local COMP_WORDS=("${joined[@]}") COMP_CWORD=$((${#joined[@]} - 1))
    local whole=${COMP_WORDS[COMP_CWORD]}
    _clap_complete_pcapfs "$1" "$whole" "$3"
    if [[ $whole == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${whole%"${whole##*:}"}"}")
    fi
}
complete -o nospace -o bashdefault -F _pcapfs_words pcapfs
"#;

/// Returns `true` if this process was started to complete a word.
pub(super) fn is_asked() -> bool {
    env::var_os(VARIABLE).is_some_and(|shell| !shell.is_empty())
}

/// Prints the possible words of the command line that `command` makes.
pub(super) fn answer(command: impl Fn() -> Command) -> ExitCode {
    let words: Vec<OsString> = env::args_os().collect();
    let completed = CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .bin("pcapfs")
        .try_complete(words, env::current_dir().ok().as_deref());
    // The shell shows no message.
    if completed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `pcapfs completions`: prints the script with which a shell completes the command line of
/// `command`.
pub(super) fn script(shell: Shell, command: &Command) -> Result<(), Failure> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::Elvish => &Elvish,
        Shell::PowerShell => &Powershell,
        // No other shell remains.
        _ => &Bash,
    };
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, "pcapfs", "pcapfs", "pcapfs", &mut script)
        .map_err(Failure::System)?;
    if shell == Shell::Bash {
        script.extend_from_slice(WORDS_WITH_COLONS.as_bytes());
    }
    // All four understand such a comment; the first line must stay the first.
    script.extend_from_slice(contents(command).as_bytes());
    output::write(&script).map_err(Failure::Output)
}

/// Comments that list everything that is completed, for readers of the script.
fn contents(command: &Command) -> String {
    let commands: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let arguments = command
        .get_arguments()
        .chain(command.get_subcommands().flat_map(|command| command.get_arguments()));
    let options: BTreeSet<String> = arguments
        .filter(|argument| !argument.is_hide_set())
        .filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
        .collect();
    let options: Vec<String> = options.into_iter().collect();
    format!("\n# Commands: {}\n# Options: {}\n", commands.join(" "), options.join(" "))
}

/// Directories on which a tree is mounted.
pub(super) fn trees() -> Vec<CompletionCandidate> {
    mounted_trees().into_iter().map(CompletionCandidate::new).collect()
}

/// Names of the captures that the daemon here shows to the user.
pub(super) fn captures() -> Vec<CompletionCandidate> {
    listed(&DaemonSocket::default().or_environment())
}

/// Names of captures for a word: of the machine before its colon; without one those of this machine,
/// and the machines.
pub(super) fn captures_of(word: &OsStr) -> Vec<CompletionCandidate> {
    let Some(word) = word.to_str() else { return Vec::new() };
    let candidates = if client::remote_of(word).is_some() {
        let daemon = DaemonSocket::default().of(word);
        daemon.map(|(daemon, _)| listed(&daemon)).unwrap_or_default()
    } else {
        captures().into_iter().chain(remotes_with_colon()).collect()
    };
    let begins =
        |one: &CompletionCandidate| one.get_value().as_encoded_bytes().starts_with(word.as_bytes());
    candidates.into_iter().filter(begins).collect()
}

/// Names of other machines.
pub(super) fn remotes() -> Vec<CompletionCandidate> {
    let known = remotes::load().unwrap_or_default();
    let named = known.into_iter().map(|remote| {
        CompletionCandidate::new(remote.name).help(Some(remote.address.to_string().into()))
    });
    named.collect()
}

fn remotes_with_colon() -> impl Iterator<Item = CompletionCandidate> {
    let known = remotes::load().unwrap_or_default();
    known.into_iter().map(|remote| {
        let help = remote.address.to_string();
        CompletionCandidate::new(format!("{}:", remote.name)).help(Some(help.into()))
    })
}

fn listed(daemon: &DaemonSocket) -> Vec<CompletionCandidate> {
    let listed = client::with(daemon, |mut client| async move {
        let request = ListRequest { capture: String::new() };
        client.list(request).await.map_err(client::failure)
    });
    let captures = listed.map(|answer| answer.into_inner().captures).unwrap_or_default();
    captures
        .into_iter()
        .flat_map(|capture| {
            let source = match capture.filter.as_str() {
                "" => capture.source,
                filter => format!("{} {filter}", capture.source),
            };
            let names = std::iter::once(capture.alias).chain(capture.aliases);
            names.map(move |name| {
                CompletionCandidate::new(daemon.shown(&name)).help(Some(source.clone().into()))
            })
        })
        .collect()
}
