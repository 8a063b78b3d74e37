//! Signals, and the daemon's action for each.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGXCPU};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::DaemonEvent;
use crate::output::say;
use crate::process::ProcessStatus;

/// Signals that the daemon does not use. By default they would end the process and leave a tree
/// without a daemon. One of them, SIGXFSZ, comes with a write past the limit of file sizes, which
/// is an error like any other.
const WITHOUT_MEANING: [i32; 8] = [
    libc::SIGXFSZ,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
];

/// Sends an event for every signal that the daemon uses: SIGUSR1 asks for the counters, SIGHUP with
/// a configuration asks to read it again, others ask for the end. The rest of those that would end
/// the process have no effect. Before the tree is mounted there is nothing to end in order, and the
/// start may be stuck for long, so the process ends at once.
///
/// # Errors
/// If a signal cannot be waited for, or no thread can be started for it.
pub(super) fn watch(
    sender: Sender<DaemonEvent>,
    mounting: Arc<AtomicBool>,
    has_config: bool,
) -> io::Result<()> {
    let nothing = Arc::new(AtomicBool::new(false));
    for signal in WITHOUT_MEANING.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        // A handler instead of SIG_IGN: a program that this one starts does not inherit it.
        flag::register(signal, Arc::clone(&nothing))?;
    }
    let mut wanted = vec![SIGINT, SIGTERM, SIGQUIT, SIGXCPU, SIGUSR1];
    // nohup(1) asks to survive SIGHUP.
    if has_config || !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted)?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGUSR1 => DaemonEvent::Counters,
                SIGHUP if has_config => DaemonEvent::Reload,
                _ => DaemonEvent::Signal,
            };
            if matches!(event, DaemonEvent::Signal) && !mounting.load(Ordering::SeqCst) {
                say("interrupted before the tree was mounted");
                #[expect(clippy::exit, reason = "the main thread may be busy for minutes")]
                std::process::exit(1);
            }
            if sender.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Returns `true` if this process was started with a signal ignored (`SigIgn`, proc_pid_status(5)).
fn is_ignored(signal: i32) -> bool {
    ProcessStatus::of("self").has_signal("SigIgn", signal)
}
