//! Words that a shell may offer for an option, from this machine.

use std::ffi::OsStr;
use std::fs;

use clap_complete::engine::CompletionCandidate;

/// Names of network interfaces, and the name for all of them.
pub(crate) fn interfaces() -> Vec<CompletionCandidate> {
    let found = capture::source::interfaces().unwrap_or_default();
    let names = found.into_iter().map(|interface| interface.name);
    names.chain([capture::source::ANY.to_owned()]).map(CompletionCandidate::new).collect()
}

/// Names of groups in `/etc/group`.
pub(crate) fn groups() -> Vec<CompletionCandidate> {
    let table = fs::read_to_string("/etc/group").unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split(':').next());
    names
        .filter(|name| !name.is_empty())
        .map(|name| CompletionCandidate::new(OsStr::new(name)))
        .collect()
}
