//! Blocked readers and signals: a reader of an idle link can always be stopped and killed.
//!
//! The tests in this file run one after the other, so that none disturbs the times another
//! measures.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{
    ALIAS, Daemon, Fed, Running, Wired, python, run, skip_unless, tool, wait_until,
};

/// Maximum time that a blocked reader may outlive a signal.
const LIMIT: Duration = Duration::from_millis(100);

fn my_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ends_on_each_signal(files: &[&str], command: impl Fn(&Path) -> Command) {
    let _turn = my_turn();
    let wired = Wired::start();
    for file in files {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
            let path = wired.daemon.path(ALIAS).join(file);
            let mut reader = Running::spawn(&mut command(&path));
            wired.daemon.wait_blocked(ALIAS, file, reader.pid());
            let time = reader.end_with(signal);
            eprintln!("{file} {signal}: {time:?}");
            assert!(time <= LIMIT, "a reader of {file} outlives {signal} by {time:?}");
        }
    }
    wait_until("no reader is left", 5, || wired.daemon.readers(ALIAS).is_empty());
}

#[test]
fn cat_ends_on_each_signal() {
    skip_unless!(root);
    ends_on_each_signal(&["live.pcap", "follow.pcap", "live.pcapng"], |path| {
        let mut command = tool("cat");
        command.arg(path);
        command
    });
}

#[test]
fn python_ends_on_each_signal() {
    skip_unless!(root, "python3");
    ends_on_each_signal(&["live.pcap"], |path| {
        let mut command = python("import sys\nf = open(sys.argv[1], 'rb')\nf.read()");
        command.arg(path);
        command
    });
}

#[test]
fn tcpdump_ends_on_each_signal() {
    skip_unless!(root, "tcpdump");
    ends_on_each_signal(&["live.pcap", "live.pcapng"], |path| {
        let mut command = tool("tcpdump");
        command.arg("-r").arg(path);
        command
    });
}

#[test]
fn tshark_ends_on_each_signal() {
    skip_unless!(root, "tshark");
    ends_on_each_signal(&["live.pcap"], |path| {
        let mut command = tool("tshark");
        command.args(["-n", "-r"]).arg(path);
        command
    });
}

/// True if a process is stopped; see proc(5).
fn is_stopped(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
}

#[test]
fn a_stopped_cat_goes_on_without_a_gap() {
    skip_unless!(mount);
    let _turn = my_turn();
    let mut fed = Fed::start();
    let cat = Running::spawn(tool("cat").arg(fed.daemon.path("web/live.pcap")));
    for round in 0..5 {
        fed.daemon.wait_blocked(ALIAS, "live.pcap", cat.pid());
        cat.signal(Signal::SIGSTOP);
        wait_until("cat is stopped", 5, || is_stopped(cat.pid()));
        // In every second round, no packet is waiting for cat when it continues.
        if round % 2 == 0 {
            fed.send(10);
        }
        cat.signal(Signal::SIGCONT);
        fed.send(10);
        let last = fed.daemon.count(ALIAS, "/packets/stored");
        cat.wait_stdout(&format!("packet {last}"), 5, |bytes| {
            check_prefix(bytes).unwrap().seen.last == last
        });
    }
    let sequences = check_prefix(&cat.stdout()).unwrap().whole();
    assert_eq!(sequences, Vec::from_iter(1..=80));
}

#[test]
fn a_signal_handler_loses_no_byte() {
    skip_unless!(mount, "python3");
    let _turn = my_turn();
    let mut fed = Fed::start();
    // Python calls its handler and reads again. 500 signals a second hit reads at every stage.
    let program = r"
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
fd = os.open(sys.argv[1], os.O_RDONLY)
while data := os.read(fd, 100):
    os.write(1, data)
signal.setitimer(signal.ITIMER_REAL, 0)  # Python takes its handlers away before it ends
";
    let mut reader = Running::spawn(python(program).arg(fed.daemon.path("web/live.pcap")));
    wait_until("the reader has opened", 5, || fed.daemon.readers(ALIAS).len() == 1);
    for _ in 0..100 {
        fed.send(3);
    }
    fed.daemon.control(ALIAS, "stop").unwrap();
    assert!(reader.wait(10).success(), "{}", reader.stderr());
    assert_eq!(check_prefix(&reader.stdout()).unwrap().whole(), Vec::from_iter(1..=300));
}

#[test]
fn a_thousand_blocked_readers_in_one_process() {
    skip_unless!(mount, "python3");
    let _turn = my_turn();
    const READERS: usize = 1_000;
    let mut fed = Fed::holding(100);
    let program = r"
import os, sys, threading
threading.stack_size(65536)
path, count, wanted = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
done = threading.Semaphore(0)
def read():
    fd = os.open(path, os.O_RDONLY)
    total = 0
    while total < wanted:
        total += len(os.read(fd, 65536))
    done.release()
    os.read(fd, 1)
for _ in range(count):
    threading.Thread(target=read, daemon=True).start()
for _ in range(count):
    done.acquire()
print('all', flush=True)
threading.Event().wait()
";
    let wanted = 24 + 5 * Fed::RECORD;
    let mut crowd = Running::spawn(
        python(program)
            .arg(fed.daemon.path("web/live.pcap"))
            .arg(READERS.to_string())
            .arg(wanted.to_string()),
    );
    let blocked = |daemon: &Daemon| {
        daemon.readers(ALIAS).iter().filter(|reader| reader["blocked"] == true).count()
    };
    wait_until("all are blocked", 20, || blocked(&fed.daemon) == READERS);

    let begin = Instant::now();
    let output = run(tool("cat").arg(fed.daemon.path("web/replay.pcap")), 5).success();
    assert_eq!(check_prefix(&output.stdout).unwrap().whole().len(), 100);
    assert_eq!(fed.daemon.count(ALIAS, "/readers/open"), READERS as u64);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?} for others", begin.elapsed());

    fed.send(5);
    crowd.wait_stdout("every reader has its packets", 10, |bytes| bytes == b"all\n");
    wait_until("all are blocked again", 10, || blocked(&fed.daemon) == READERS);
    let time = crowd.end_with(Signal::SIGKILL);
    eprintln!("{READERS} readers ended within {time:?}");
    // A process is gone when its last thread is.
    assert!(time < Duration::from_secs(1), "{READERS} readers outlive SIGKILL by {time:?}");
    wait_until("no reader is left", 5, || fed.daemon.readers(ALIAS).is_empty());
}
