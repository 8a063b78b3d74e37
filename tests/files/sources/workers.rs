//! Interfaces whose packets several threads take, which libpcap cannot do.

use std::collections::HashMap;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pcapfs_tests::net::ip;
use pcapfs_tests::{ALIAS, Daemon, Mount, Namespace, Net, frame, run, skip_unless, wait_until};

use crate::support::packets_of;

/// UDP flows that are sent side by side.
const FLOWS: u64 = 50;

/// Sockets in `b`, each of which sends the packets of one flow.
fn flows(net: &Net) -> Vec<UdpSocket> {
    net.b.run(|| {
        let socket = |_| {
            let socket = UdpSocket::bind((Net::PEER_ADDRESS, 0)).unwrap();
            socket.connect((Net::NOBODY, frame::PORT)).unwrap();
            socket
        };
        (0..FLOWS).map(socket).collect()
    })
}

/// Sends the packets with these numbers, each to the next flow.
fn send(flows: &[UdpSocket], numbers: impl Iterator<Item = u64>) {
    for (number, flow) in numbers.zip(flows.iter().cycle()) {
        flow.send(&frame::payload(number, 100)).unwrap();
    }
}

/// The numbers of the packets of a savefile, in their order there.
#[track_caller]
fn numbers(file: &Path) -> Vec<u64> {
    let packets = packets_of("x.pcap", &fs::read(file).unwrap()).into_iter();
    let number = |(_, link_type, _, length, data): (_, u32, _, u32, Vec<u8>)| {
        frame::sequence(link_type, &data, length as usize).unwrap()
    };
    packets.map(number).collect()
}

/// Checks that a savefile has each packet with these numbers once.
#[track_caller]
fn check(file: &Path, wanted: impl Iterator<Item = u64>) {
    let mut found = numbers(file);
    found.sort_unstable();
    let wanted: Vec<u64> = wanted.collect();
    assert!(found == wanted, "{} packets instead of {}", found.len(), wanted.len());
}

/// Checks that the packets of each flow are in their order in a savefile.
#[track_caller]
fn check_order(file: &Path) {
    let mut last: HashMap<u64, u64> = HashMap::new();
    for number in numbers(file) {
        let before = last.insert(number % FLOWS, number);
        assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
    }
}

fn replay(daemon: &Daemon, alias: &str) -> PathBuf {
    daemon.path(alias).join("replay.pcap")
}

/// Number of threads of the daemon that capture.
fn threads(daemon: &Daemon) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "capture").count()
}

#[test]
fn each_packet_is_there_once_and_in_the_order_of_its_flow() {
    skip_unless!(root, "ip");
    const COUNT: u64 = 40_000;
    for workers in ["4", "2:cpu", "2:qm", "auto"] {
        let net = Net::new();
        let mount = Mount::new().inside(&net.a).args(["--kernel-buffer", "64M"]);
        let daemon = mount
            .args(["--workers", workers, "--backend", "af_packet"])
            .capture(ALIAS, Net::DEVICE)
            .start();
        daemon.wait_state(ALIAS, "running");
        send(&flows(&net), 1..=COUNT);
        daemon.wait_stored(ALIAS, COUNT);
        check(&replay(&daemon, ALIAS), 1..=COUNT);
        // This sender may change the processor between two packets of a flow.
        if !workers.ends_with(":cpu") {
            check_order(&replay(&daemon, ALIAS));
        }
        let status = daemon.status(ALIAS);
        let packets = &status["packets"];
        assert_eq!((&packets["seen"], &packets["dropped_kernel"]), (&COUNT.into(), &0.into()));
        let number = status["workers"].as_u64().unwrap();
        if let Ok(wanted) = workers.split(':').next().unwrap().parse() {
            assert_eq!((number, &status["backend"]), (wanted, &"af_packet".into()));
        }
        wait_until("all flows are there", 10, || daemon.count(ALIAS, "/flows/open") == FLOWS);
    }
}

#[test]
fn threads_stop_and_start_clear_and_look_for_the_interface() {
    skip_unless!(root, "ip");
    let net = Net::new();
    let mount = Mount::new().inside(&net.a).args(["--workers", "3", "--backend", "af_packet"]);
    let daemon = mount.capture(ALIAS, Net::DEVICE).start();
    daemon.wait_state(ALIAS, "running");
    // The thread of the capture, and three that take packets.
    assert_eq!(threads(&daemon), 4);
    let senders = flows(&net);
    send(&senders, 1..=500);
    daemon.wait_stored(ALIAS, 500);
    daemon.control(ALIAS, "clear").unwrap();
    check(&replay(&daemon, ALIAS), std::iter::empty());
    send(&senders, 501..=1_000);
    daemon.wait_stored(ALIAS, 1_000);
    check(&replay(&daemon, ALIAS), 501..=1_000);
    daemon.control(ALIAS, "stop").unwrap();
    daemon.wait_state(ALIAS, "stopped");
    assert_eq!(threads(&daemon), 0);
    send(&senders, 1_001..=1_500);
    daemon.control(ALIAS, "start").unwrap();
    daemon.wait_state(ALIAS, "running");
    send(&senders, 1_501..=2_000);
    daemon.wait_stored(ALIAS, 1_500);
    check(&replay(&daemon, ALIAS), (501..=1_000).chain(1_501..=2_000));
    net.unplug();
    daemon.wait_state(ALIAS, "retrying");
    net.plug();
    daemon.wait_state(ALIAS, "running");
    assert_eq!(daemon.status(ALIAS)["workers"], 3);
    send(&flows(&net), 2_001..=2_500);
    daemon.wait_stored(ALIAS, 2_000);
    check(&replay(&daemon, ALIAS), (501..=1_000).chain(1_501..=2_500));
}

#[test]
fn packets_that_come_while_threads_start_are_there_from_one_moment_on() {
    skip_unless!(root, "ip");
    const MAX_SENT: u64 = 1_000_000;
    let net = Net::new();
    let mut daemon =
        Mount::new().inside(&net.a).args(["--backend", "af_packet"]).capture("idle", "lo").start();
    let senders = flows(&net);
    for round in 0..5 {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let (done, senders) = (&done, &senders);
            let sending = scope.spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Acquire) && last < MAX_SENT {
                    send(senders, last + 1..=last + FLOWS);
                    last += FLOWS;
                    // Slower than any machine captures.
                    thread::sleep(Duration::from_millis(1));
                }
                // Whatever came before, these must be there.
                send(senders, last + 1..=last + FLOWS);
                last + FLOWS
            });
            let alias = format!("web{round}");
            let words =
                ["init", Net::DEVICE, &format!("udp port {} or tcp port {round}", frame::PORT)];
            let _ = daemon.verb(
                [&words[..], &["--alias", &alias, "--workers", "4", "--kernel-buffer", "64M"]]
                    .concat(),
            );
            wait_until("packets come", 10, || daemon.count(&alias, "/packets/stored") > 2_000);
            done.store(true, Ordering::Release);
            let last = sending.join().unwrap();
            let file = replay(&daemon, &alias);
            // Sent one after the other, so from the first one on none is missing and none is twice. The
            // sockets hand over their last packets at different times.
            wait_until("all are there", 10, || {
                let mut numbers = numbers(&file);
                numbers.sort_unstable();
                numbers.iter().copied().eq(numbers[0]..=last)
            });
            assert_eq!(daemon.count(&alias, "/packets/dropped_kernel"), 0);
        });
    }
    assert!(daemon.terminate().success());
}

#[test]
fn fragments_stay_as_they_were_on_the_wire() {
    skip_unless!(root, "ip");
    let net = Net::new();
    let mount = Mount::new().inside(&net.a).args(["--workers", "4", "--backend", "af_packet"]);
    let daemon = mount.capture(ALIAS, Net::DEVICE).start();
    daemon.wait_state(ALIAS, "running");
    // 4,008 bytes of UDP in packets of at most 1,500 bytes: three fragments.
    flows(&net)[0].send(&[7; 4_000]).unwrap();
    daemon.wait_stored(ALIAS, 3);
    let packets = packets_of("x.pcap", &fs::read(replay(&daemon, ALIAS)).unwrap());
    let mut lengths: Vec<usize> = packets.iter().map(|packet| packet.4.len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [14 + 20 + 4_008 - 2 * 1_480, 1_514, 1_514]);
    wait_until("they are a flow", 10, || daemon.count(ALIAS, "/flows/open") == 1);
}

#[test]
fn workers_are_as_was_asked_for_and_kept() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    ip(&["-n", namespace.name(), "tuntap", "add", "dev", "tun9", "mode", "tun"]);
    ip(&["-n", namespace.name(), "link", "set", "tun9", "up"]);
    ip(&["-n", namespace.name(), "link", "set", "lo", "up"]);
    let rings = tempfile::tempdir_in("/dev/shm").unwrap();
    let mount = || {
        let mount = Mount::new().inside(&namespace).ring_dir(rings.path()).ring("512K");
        mount
            .args(["--workers", "2", "--backend", "af_packet"])
            .capture("own", "lo")
            .capture("tun", "tun9")
            .capture("any", "any")
    };
    let mut daemon = mount().start();
    let _ = daemon.verb(["init", "lo", "udp port 2", "--alias", "other", "--workers", "3:cpu"]);
    let same = run(&mut daemon.command(["init", "lo", "--workers", "4"]), 10);
    assert!(same.stderr.contains("the threads are those of own"), "{}", same.stderr);
    let wrong = run(&mut daemon.command(["init", "lo", "udp port 3", "--workers", "0"]), 10);
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("1 to 64 or auto"), "{}", wrong.stderr);
    let workers = |daemon: &Daemon| {
        // What libpcap receives has one thread.
        for (alias, workers) in [("own", 2), ("tun", 1), ("any", 2), ("other", 3)] {
            daemon.wait_state(alias, "running");
            assert_eq!(daemon.status(alias)["workers"], workers, "{alias}");
        }
    };
    workers(&daemon);
    assert!(daemon.terminate().success());
    workers(&mount().start());
    let inside = format!("netns:{}/lo", namespace.name());
    let daemon = Mount::new()
        .args(["--workers", "2", "--backend", "af_packet"])
        .capture("inside", &inside)
        .start();
    daemon.wait_state("inside", "running");
    assert_eq!(daemon.status("inside")["workers"], 2);
}
