//! Several interfaces in one capture, and devices of libpcap.

use std::collections::HashSet;
use std::fs;
use std::net::UdpSocket;

use pcapfs_tests::net::ip;
use pcapfs_tests::{Daemon, Mount, Namespace, Net, frame, run, skip_unless, tool, wait_until};

/// The interface and the bytes of each packet, as tshark shows them.
fn packets(daemon: &Daemon, alias: &str) -> Vec<(String, u64)> {
    let mut command = tool("tshark");
    command.arg("-r").arg(daemon.path(alias).join("replay.pcapng"));
    command.args(["-T", "fields", "-e", "frame.interface_name", "-e", "data.data"]);
    let listed = run(&mut command, 20).success();
    let packets = listed.text().lines().map(|line| {
        let (name, data) = line.split_once('\t').unwrap();
        (name.to_owned(), u64::from_str_radix(&data[16..32], 16).unwrap())
    });
    packets.collect()
}

/// A second wire between the namespaces of a network.
fn second_wire(net: &Net) {
    let words = ["link", "add", "two-a", "netns", net.a.name(), "type", "veth"];
    ip(&[&words[..], &["peer", "name", "two-b", "netns", net.b.name()]].concat());
    for (namespace, device) in [(&net.a, "two-a"), (&net.b, "two-b")] {
        ip(&["-n", namespace.name(), "link", "set", device, "up"]);
    }
}

#[test]
fn several_interfaces_are_one_capture_and_told_apart() {
    skip_unless!(root, "ip", "tshark");
    let net = Net::new();
    second_wire(&net);
    let both = format!("{},two-a", Net::DEVICE);
    let source = format!("{both} udp port 40001");
    let daemon = Mount::new().inside(&net.a).ring("2M").capture("both", &source).start();
    daemon.wait_state("both", "running");
    net.sender(100).send(5);
    net.b.send_frames("two-b", &[6, 7].map(|number| frame::ethernet(number, 100)));
    daemon.wait_stored("both", 7);
    let expected = (1..=5).map(|number| (Net::DEVICE.to_owned(), number));
    let expected: HashSet<_> =
        expected.chain([6, 7].map(|number| ("two-a".into(), number))).collect();
    assert_eq!(packets(&daemon, "both").into_iter().collect::<HashSet<_>>(), expected);
    let status = daemon.status("both");
    assert_eq!((&status["source"], &status["interface"]), (&both.clone().into(), &both.into()));
    // In pcap files, which do not tell them apart, all are there.
    let bytes = fs::read(daemon.path("both").join("replay.pcap")).unwrap();
    assert_eq!(bytes.len(), 24 + 7 * (16 + 142));
    // One of them goes away and comes back; the other goes on.
    ip(&["-n", net.a.name(), "link", "delete", "two-a"]);
    wait_until("it is noticed", 10, || daemon.status("both")["error"].is_string());
    assert_eq!(daemon.status("both")["state"], "running");
    net.sender(100).send(3);
    daemon.wait_stored("both", 10);
    second_wire(&net);
    wait_until("it is back", 10, || daemon.status("both")["error"].is_null());
    net.b.send_frames("two-b", &[frame::ethernet(8, 100)]);
    daemon.wait_stored("both", 11);
    assert_eq!(packets(&daemon, "both").last().unwrap(), &("two-a".to_owned(), 8));
    // All of them are gone.
    net.unplug();
    ip(&["-n", net.a.name(), "link", "delete", "two-a"]);
    daemon.wait_state("both", "retrying");
    net.plug();
    daemon.wait_state("both", "running");
    assert_eq!(daemon.status("both")["packets"]["dropped_kernel"], 0);
}

#[test]
fn what_is_wrong_with_several_interfaces_is_named() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    for (source, part) in [
        ("lo,eth9", "eth9: no such interface (have: lo)"),
        ("lo,lo", "lo,lo: lo is there twice"),
        ("lo,", "write the names of interfaces"),
        ("lo,any", "write the names of interfaces"),
    ] {
        let refused = Mount::new().inside(&namespace).capture("x", source).try_start();
        let said = refused.expect_err("it is refused").stderr;
        assert!(said.contains(part), "{source}: {said}");
    }
}

#[test]
fn packets_that_the_firewall_logs_are_captured() {
    skip_unless!(root, "ip", "nft");
    let namespace = Namespace::new();
    let rules = "add table inet t; \
                 add chain inet t i { type filter hook input priority 0; }; \
                 add rule inet t i udp dport 40001 log group 5";
    let _ = namespace.run(|| run(tool("nft").arg(rules), 5)).success();
    for backend in ["af_packet", "libpcap"] {
        let mount = Mount::new().inside(&namespace).ring("2M").args(["--backend", backend]);
        let daemon = mount.capture("n", "nflog:5").start();
        daemon.wait_state("n", "running");
        let (_listener, socket) = namespace.run(|| {
            let listener = UdpSocket::bind(("127.0.0.1", frame::PORT)).unwrap();
            let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            socket.connect(("127.0.0.1", frame::PORT)).unwrap();
            (listener, socket)
        });
        for number in 1..=5 {
            socket.send(&frame::payload(number, 100)).unwrap();
        }
        daemon.wait_stored("n", 5);
        let status = daemon.status("n");
        assert_eq!(status["linktype"], "NFLOG");
        assert_eq!(status["backend"], "libpcap", "also with --backend {backend}");
        let replayed = fs::read(daemon.path("n").join("replay.pcap")).unwrap();
        for number in 1..=5 {
            let payload = frame::payload(number, 100);
            assert!(replayed.windows(100).any(|bytes| bytes == payload), "{number}");
        }
        wait_until("they are a flow", 10, || {
            let flows = fs::read_to_string(daemon.path("n").join("flows.jsonl")).unwrap();
            flows.lines().count() == 1
        });
        drop(daemon);
    }
}
