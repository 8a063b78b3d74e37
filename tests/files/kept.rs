//! State that outlives a daemon, and how to delete it.

use std::fs::{self, File};

use pcapfs_tests::savefile::{Format, numbered};
use pcapfs_tests::{Daemon, Fifo, Finished, Mount, binary, run, skip_unless, tool};
use tempfile::TempDir;

/// A folder for rings and state, used by several daemons in turn.
fn rings() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap()
}

fn aliases(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.json(["list", "--json"]);
    let aliases = listed.as_array().unwrap().iter().map(|one| one["alias"].as_str().unwrap());
    aliases.map(str::to_owned).collect()
}

/// Runs a `pcapfs` command without a daemon.
fn alone(words: &[&str]) -> Finished {
    let mut command = tool(binary("pcapfs").to_str().unwrap());
    run(command.args(words).env("PCAPFS_SOCKET", "/nonexistent/control.sock"), 10)
}

#[test]
fn packets_of_an_earlier_run_are_there_unless_it_is_to_be_fresh() {
    skip_unless!(mount);
    let rings = rings();
    let trace = rings.path().join("trace.pcap");
    fs::write(&trace, numbered(Format::default(), 10, 100)).unwrap();
    for (words, count) in [(&[][..], 10), (&[], 20), (&["--fresh"], 10)] {
        let input = File::open(&trace).unwrap();
        let mount = Mount::new().ring_dir(rings.path()).ring("1M").args(words).stdin(input);
        let mut daemon = mount.capture("std", "-").start();
        daemon.wait_state("std", "ended");
        assert_eq!(daemon.count("std", "/packets/retained"), count, "{words:?}");
        assert!(daemon.terminate().success());
    }
}

#[test]
fn captures_made_by_init_are_there_again_unless_they_are_forgotten() {
    skip_unless!(root);
    let (rings, fifo) = (rings(), Fifo::new());
    let mount = || Mount::new().ring_dir(rings.path()).ring("1M").capture("web", &fifo.source());
    let mut daemon = mount().start();
    for (alias, filter) in [("dns", "udp port 53"), ("ntp", "udp port 123")] {
        let _ = daemon.verb(["init", "lo", filter, "--alias", alias]);
    }
    let _ = daemon.verb(["init", "lo", "tcp port 1", "--alias", "old"]);
    assert!(daemon.terminate().success());

    // The name now belongs to another capture. The message says where the old one is kept, and how
    // to delete it.
    let mut daemon = mount().capture("old", &Fifo::new().source()).start();
    let state = rings.path().join("pcapfs.state");
    let said = daemon.stderr();
    for part in ["old, made by pcapfs init, is not there", state.to_str().unwrap()] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    assert!(said.contains("pcapfs forget old"), "{said}");
    let forgotten = daemon.verb(["forget", "old"]);
    assert_eq!(forgotten, "forgotten: old: a capture made by pcapfs init\n");
    let again = run(&mut daemon.command(["forget", "old"]), 10);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(again.stderr.contains("old: nothing is kept"), "{}", again.stderr);
    let there = run(&mut daemon.command(["forget", "dns"]), 10);
    assert_eq!(there.status.code(), Some(1), "{there:?}");
    assert!(there.stderr.contains("pcapfs remove dns"), "{}", there.stderr);
    // A capture made by the command line has no saved state, but it is in the tree.
    let there = run(&mut daemon.command(["forget", "web"]), 10);
    assert_eq!(there.status.code(), Some(1), "{there:?}");
    assert!(
        there.stderr.contains("web: nothing is kept of it but what is in the tree"),
        "{}",
        there.stderr
    );
    let bad = run(&mut daemon.command(["forget", "../dns"]), 10);
    assert!(bad.stderr.contains("is no alias"), "{}", bad.stderr);
    assert!(daemon.terminate().success());

    // Without a daemon, in the given state file.
    let place = state.to_str().unwrap();
    let forgotten = alone(&["forget", "dns", "--state", place]).success();
    assert_eq!(forgotten.text(), format!("forgotten: a capture made by pcapfs init ({place})\n"));
    let nothing = alone(&["forget", "nothing"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(nothing.stderr.contains("nothing is kept"), "{}", nothing.stderr);
    let mut daemon = mount().start();
    assert_eq!(aliases(&daemon), ["web", "ntp"]);
    assert!(!daemon.stderr().contains("is not there"), "{}", daemon.stderr());
    let used = alone(&["forget", "ntp", "--state", place]);
    assert!(used.stderr.contains("another pcapfs is using it"), "{}", used.stderr);
    assert!(daemon.terminate().success());
    assert_eq!(aliases(&mount().arg("--fresh").start()), ["web"]);
    assert_eq!(aliases(&mount().start()), ["web"]);
}
