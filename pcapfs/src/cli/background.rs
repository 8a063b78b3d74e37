//! `pcapfs mount --background`: the daemon as a process of its own.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command as Process, Stdio};

use super::descriptors;
use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// The number of words up to and including the command: only `--socket` may come before it.
fn command_len(words: &[OsString]) -> usize {
    let mut rest = words.iter();
    let mut len = 0;
    while let Some(word) = rest.next() {
        len += 1;
        if word == "--socket" {
            len += rest.next().map_or(0, |_| 1);
        } else if !word.as_encoded_bytes().starts_with(b"--socket=") {
            break;
        }
    }
    len
}

/// Starts this program again without a terminal, and passes on its output until the tree is ready.
/// If it ends before, this process ends in the same way.
pub(super) fn start() -> Result<(), Failure> {
    use std::io::{BufRead, IsTerminal};
    // Options go after the command, before a `--` that may follow.
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let (before, arguments) = words.split_at_checked(command_len(&words)).unwrap_or_default();
    let arguments = arguments.iter().filter(|word| *word != "--background");
    let program = std::env::current_exe().map_err(Failure::System)?;
    // The daemon must not keep a lock or a pipe of the starting program open for its lifetime.
    descriptors::close_on_exec();
    let mut child = Process::new(program)
        .args(before)
        .arg("--detached")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Failure::System)?;
    let stderr = child.stderr.take().into_iter();
    let mut is_shown = false;
    for line in stderr.flat_map(|stderr| std::io::BufReader::new(stderr).lines()) {
        let line = line.map_err(Failure::System)?;
        let text = line.strip_prefix("pcapfs: ").unwrap_or(&line);
        if text.starts_with(daemon::READING) {
            if std::io::stderr().is_terminal() {
                output::progress(&line);
                is_shown = true;
            }
            continue;
        }
        if std::mem::take(&mut is_shown) {
            output::progress("");
        }
        output::say(text);
        if text.starts_with(daemon::READY) {
            return Ok(());
        }
    }
    let status = child.wait().map_err(Failure::System)?;
    if let Some(signal) = status.signal() {
        output::say(format_args!("ended by signal {signal} before the tree was ready"));
    }
    Err(Failure::Background(status.code().unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_found_after_the_socket_option() {
        for (words, len) in [
            (&["mount", "/m", "--socket", "x"][..], 1),
            (&["--socket", "mount", "mount", "/m"], 3),
            (&["--socket=x", "mount"], 2),
            (&[], 0),
        ] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(command_len(&words), len, "{words:?}");
        }
    }
}
