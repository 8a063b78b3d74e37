//! Interfaces of the machine.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;

use pcapfs_tests::net::ip;
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{
    ALIAS, Daemon, Mount, Namespace, Net, Pace, StreamReader, Wired, frame, run, skip_unless, tool,
    wait_until,
};
use serde_json::Value;

use crate::support::packets_of;

#[test]
fn an_interface_by_its_flags_with_filter_and_alias() {
    skip_unless!(root);
    let net = Net::new();
    let daemon = Mount::new()
        .inside(&net.a)
        .args(["-i", Net::DEVICE, "-f", "udp port 40001", "--alias", "lan"])
        .start();
    daemon.wait_state("lan", "running");
    let (mut wanted, mut other) = (net.sender(100), net.sender_to(100, 40_002));
    for _ in 0..10 {
        other.send(3);
        wanted.send(2);
    }
    daemon.wait_stored("lan", 20);
    let status = daemon.status("lan");
    assert_eq!(status["packets"]["seen"], 20, "what the filter leaves out was never seen");
    assert_eq!(status["interface"], Net::DEVICE);
    assert_eq!(status["source"], Net::DEVICE);
    assert_eq!(status["filter"], "udp port 40001");
    assert_eq!(status["linktype"], "EN10MB");
    let bytes = fs::read(daemon.path("lan/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=20));
}

#[test]
fn an_interface_is_found_by_its_other_names_and_need_not_be_promiscuous() {
    skip_unless!(root, "ip");
    let net = Net::new();
    let ip = |words: &[&str]| net.a.run(|| run(tool("ip").args(words), 5).success());
    let _ = ip(&["link", "property", "add", "dev", Net::DEVICE, "altname", "lan-uplink0"]);
    let promiscuity = || {
        let shown = ip(&["-d", "link", "show", "dev", Net::DEVICE]);
        let words: Vec<&str> = shown.text().split_whitespace().collect();
        let place = words.iter().position(|word| *word == "promiscuity").unwrap();
        words[place + 1].to_owned()
    };
    let mount = Mount::new().inside(&net.a).args(["-i", "lan-uplink0", "--no-promiscuous"]);
    let daemon = mount.start();
    assert_eq!(promiscuity(), "0");
    net.sender(100).send(5);
    daemon.wait_stored("lan-uplink0", 5);
    let status = daemon.status("lan-uplink0");
    assert_eq!(status["source"], "lan-uplink0", "as it was written");
    let words = ["init", "lan-uplink0", "--alias", "all", "--ring", "1M", "--snaplen", "60"];
    let _ = daemon.verb([&words[..], &["--group", "7", "--mode", "0740"]].concat());
    let status = daemon.status("all");
    assert_eq!((&status["ring"]["size"], &status["snaplen"]), (&(1 << 20).into(), &60.into()));
    assert_eq!(
        (status["mode"].as_str(), status["state"].as_str()),
        (Some("0740"), Some("running"))
    );
    assert_eq!(fs::metadata(daemon.path("all")).unwrap().gid(), 7);
    assert_eq!(promiscuity(), "0", "the daemon's captures are not, if nothing else is said");
    let words = ["init", "lan-uplink0", "--alias", "bad", "--group", "nosuchgroup"];
    let refused = run(&mut daemon.command(words), 5);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("--group nosuchgroup: no such group"), "{}", refused.stderr);
    drop(daemon);
    let _daemon = Mount::new().inside(&net.a).args(["-i", "lan-uplink0"]).start();
    assert_eq!(promiscuity(), "1");
}

#[test]
fn an_interface_without_a_name_is_called_as_it_is() {
    skip_unless!(root);
    let net = Net::new();
    let daemon = Mount::new().inside(&net.a).args(["-i", Net::DEVICE]).start();
    daemon.wait_state(Net::DEVICE, "running");
    net.sender(100).send(5);
    daemon.wait_stored(Net::DEVICE, 5);
    assert_eq!(daemon.status(Net::DEVICE)["filter"], Value::Null);
}

#[test]
fn any_and_an_empty_name_mean_all_interfaces() {
    skip_unless!(root);
    let net = Net::new();
    // A socket listens, so that the packets are not answered.
    let (listener, local) = net.a.run(|| {
        let listener = UdpSocket::bind(("127.0.0.1", frame::PORT)).unwrap();
        let local = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        local.connect(("127.0.0.1", frame::PORT)).unwrap();
        (listener, local)
    });
    let filter = format!("udp dst port {}", frame::PORT);
    let captures =
        [("any", "any".to_owned()), ("empty", String::new()), ("quoted", format!("\"\" {filter}"))];
    let mut daemons = Vec::new();
    for (alias, source) in &captures {
        daemons.push(Mount::new().inside(&net.a).capture(alias, source).start());
    }
    daemons.push(Mount::new().inside(&net.a).args(["-i", "", "--alias", "flag"]).start());
    let aliases = ["any", "empty", "quoted", "flag"];
    for (daemon, alias) in daemons.iter().zip(aliases) {
        daemon.wait_state(alias, "running");
        assert_eq!(daemon.status(alias)["linktype"], "LINUX_SLL2", "{alias}");
    }
    let mut sender = net.sender(100);
    sender.send(5);
    for sequence in 6..=8 {
        local.send(&frame::payload(sequence, 100)).unwrap();
    }
    sender.send(3); // numbered 6 to 8 as well: these come twice
    for (daemon, alias) in daemons.iter().zip(aliases) {
        daemon.wait_stored(alias, 11);
        let bytes = fs::read(daemon.path(alias).join("replay.pcap")).unwrap();
        let packets = packets_of("replay.pcap", &bytes);
        let mut seen: Vec<(u64, [u8; 4])> = packets
            .iter()
            .map(|(_, link_type, _, length, data)| {
                assert_eq!(*link_type, 276, "LINKTYPE_LINUX_SLL2");
                let sequence = frame::sequence(*link_type, data, *length as usize).unwrap();
                // SLL2: protocol, reserved, then the interface's index.
                (sequence, data[4..8].try_into().unwrap())
            })
            .collect();
        seen.sort_unstable();
        let numbers: Vec<u64> = seen.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 8], "{alias}");
        let index = |number: u64| -> Vec<[u8; 4]> {
            seen.iter().filter(|(other, _)| *other == number).map(|(_, index)| *index).collect()
        };
        let lo = [0, 0, 0, 1];
        assert_ne!(index(1), [lo], "{alias}");
        assert!(index(7).contains(&lo) && index(7).contains(&index(1)[0]), "{alias}: {seen:?}");
    }
    drop(listener);
}

#[test]
fn an_interface_that_vanishes_is_waited_for() {
    skip_unless!(root);
    let wired = Wired::start();
    let mut sender = wired.net.sender(200);
    wired.send(&mut sender, 10);
    let live = StreamReader::open(&wired.daemon.path("web/live.pcap"), Pace::FAST);
    let (a, b) = (wired.net.a.name(), wired.net.b.name());
    for round in 1..=2 {
        wired.net.unplug();
        wired.daemon.wait_state(ALIAS, "retrying");
        let status = wired.daemon.status(ALIAS);
        let error = status["error"].as_str().expect("a reason");
        assert!(error.contains(Net::DEVICE), "{error}");
        assert_eq!(status["packets"]["retained"], round * 10);
        let bytes = fs::read(wired.daemon.path("web/replay.pcap")).unwrap();
        assert_eq!(check_prefix(&bytes).unwrap().whole().len(), round * 10);

        wired.net.plug();
        wired.daemon.wait_state(ALIAS, "running");
        assert_eq!(wired.daemon.status(ALIAS)["error"], Value::Null);
        wired.send(&mut sender, 10);
    }
    // The capture does not stop when its interface goes down and up again.
    ip(&["-n", a, "link", "set", Net::DEVICE, "down"]);
    ip(&["-n", a, "link", "set", Net::DEVICE, "up"]);
    wait_until("the wire carries again", 5, || {
        let link = run(tool("ip").args(["-n", b, "link", "show", Net::PEER]), 5).success();
        link.text().contains("LOWER_UP")
    });
    wired.daemon.wait_state(ALIAS, "running");
    let neighbour = ["neighbour", "replace", Net::NOBODY, "lladdr", "02:00:00:00:00:99"];
    ip(&[&["-n", b][..], &neighbour, &["dev", Net::PEER, "nud", "permanent"]].concat());
    wired.send(&mut sender, 10);
    let seen = live.wait_last(40).seen;
    assert_eq!((seen.first, seen.missing), (11, 0), "the reader stayed: {seen:?}");
}

/// Total size of the packet buffers that a process shares with the kernel, in bytes.
fn kernel_buffers(daemon: &Daemon) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
    let sizes = maps.lines().filter(|line| line.contains("socket:[")).map(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        u64::from_str_radix(to, 16).unwrap() - u64::from_str_radix(from, 16).unwrap()
    });
    sizes.sum()
}

#[test]
fn kernel_buffers_are_as_large_as_rings_and_number_need() {
    skip_unless!(root);
    let namespace = Namespace::new();
    let many = |ring: &str, more: &[&str]| {
        let mut mount = Mount::new().inside(&namespace).ring(ring).args(more);
        for (alias, port) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            mount = mount.capture(alias, &format!("lo udp port {port}"));
        }
        mount.start()
    };
    let small = many("512K", &[]);
    assert_eq!(kernel_buffers(&small), 4 << 20);
    assert_eq!(kernel_buffers(&many("8M", &[])), 16 << 20);
    assert_eq!(kernel_buffers(&many("8M", &["--kernel-buffer", "3M"])), 12 << 20);
    small.verb(["init", "lo", "udp port 5"]);
    assert_eq!(kernel_buffers(&small), 5 << 20);
}

#[test]
fn the_kernel_buffer_of_a_capture_made_by_init_is_as_was_asked_for_and_kept() {
    skip_unless!(root);
    let namespace = Namespace::new();
    let rings = tempfile::tempdir_in("/dev/shm").unwrap();
    let mount = || Mount::new().inside(&namespace).ring_dir(rings.path()).ring("512K");
    let mut daemon = mount().capture("a", "lo udp port 1").start();
    assert_eq!(kernel_buffers(&daemon), 1 << 20);
    let _ = daemon.verb(["init", "lo", "udp port 2", "--kernel-buffer", "3M"]);
    assert_eq!(kernel_buffers(&daemon), 4 << 20);
    let same = run(&mut daemon.command(["init", "lo", "udp port 2", "--kernel-buffer", "5M"]), 10);
    assert!(same.stderr.contains("the kernel's buffer is that of lo"), "{}", same.stderr);
    let small =
        run(&mut daemon.command(["init", "lo", "udp port 3", "--kernel-buffer", "511K"]), 10);
    assert_eq!(small.status.code(), Some(2), "{}", small.stderr);
    assert!(daemon.terminate().success());
    let daemon = mount().capture("a", "lo udp port 1").start();
    wait_until("it is there again", 10, || kernel_buffers(&daemon) == 4 << 20);
}

/// Frames with no, one and two tags, of a protocol that no host answers.
fn tagged_frames() -> Vec<Vec<u8>> {
    let frame = |tags: &[(u16, u16)], mark: u8| {
        let payload = ::frames::ip([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 253, &[mark; 40]);
        ::frames::ethernet(tags, ::frames::IPV4, &payload)
    };
    vec![
        frame(&[], 1),
        frame(&[(0x8100, 0xa007)], 2),
        frame(&[(0x88a8, 5), (0x8100, 7)], 3),
        frame(&[(0x8100, 9)], 4),
    ]
}

#[test]
fn packets_of_all_interfaces_keep_their_tags() {
    skip_unless!(root, "python3", "tshark");
    let net = Net::new();
    let mount = Mount::new().inside(&net.a).args(["--backend", "af_packet"]);
    let daemon = mount.capture("any", "any").start();
    daemon.wait_state("any", "running");
    let sent = tagged_frames();
    net.send_frames(&sent);
    daemon.wait_stored("any", sent.len() as u64);
    let path = daemon.path("any/replay.pcap");
    let bytes = fs::read(&path).unwrap();
    for ((_, link_type, _, length, data), frame) in
        packets_of("replay.pcap", &bytes).iter().zip(&sent)
    {
        assert_eq!(
            (*link_type, *length as usize, data.len()),
            (276, frame.len() + 6, frame.len() + 6)
        );
        assert_eq!((&data[..2], &data[20..]), (&frame[12..14], &frame[14..]));
        // The address of the sender, and its length.
        assert_eq!(data[11..18], [&[6], &frame[6..12]].concat());
    }
    let mut tshark = tool("tshark");
    tshark.arg("-r").arg(&path).args(["-T", "fields", "-e", "ieee8021ad.id", "-e", "vlan.id"]);
    tshark.args(["-e", "ip.proto"]);
    let read = run(&mut tshark, 20).success();
    assert_eq!(
        read.text().lines().collect::<Vec<_>>(),
        ["\t\t253", "\t7\t253", "5\t7\t253", "\t9\t253"]
    );
}

#[test]
fn the_loopback_interface_shows_each_packet_once() {
    skip_unless!(root);
    let namespace = Namespace::new();
    let daemon = Mount::new()
        .inside(&namespace)
        .capture("lo", "lo udp dst port 40001")
        .capture("any", "any udp dst port 40001")
        .capture("plain", "lo")
        .start();
    let aliases = ["lo", "any", "plain"];
    for alias in aliases {
        daemon.wait_state(alias, "running");
    }
    namespace.run(|| {
        let listener = UdpSocket::bind(("127.0.0.1", frame::PORT)).unwrap();
        let sender = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        for sequence in 1..=20 {
            sender.send_to(&frame::payload(sequence, 100), listener.local_addr().unwrap()).unwrap();
        }
    });
    for alias in aliases {
        daemon.wait_stored(alias, 20);
        let bytes = fs::read(daemon.path(alias).join("replay.pcap")).unwrap();
        assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=20), "{alias}");
        assert_eq!(daemon.count(alias, "/packets/seen"), 20, "{alias}");
    }
}

#[test]
fn an_interface_that_is_down_is_named_with_a_remedy_and_one_that_vanishes_then_is_missed() {
    skip_unless!(root, "ip");
    let net = Net::new();
    let link = |state: &str| ip(&["-n", net.a.name(), "link", "set", Net::DEVICE, state]);
    link("down");
    let mount = || Mount::new().inside(&net.a).capture(ALIAS, Net::DEVICE);
    let refused = mount().try_start().expect_err("it is down");
    assert_eq!((refused.status.code(), refused.left_mounted), (Some(1), false));
    let remedy = "wire-a: the interface is down (ip link set wire-a up)";
    assert!(refused.stderr.contains(remedy), "{}", refused.stderr);
    link("up");
    let daemon = mount().start();
    daemon.wait_state(ALIAS, "running");
    link("down");
    // The socket has said so, and says nothing when the interface vanishes.
    net.unplug();
    daemon.wait_state(ALIAS, "retrying");
    net.plug();
    daemon.wait_state(ALIAS, "running");
    net.sender(100).send(5);
    daemon.wait_stored(ALIAS, 5);
}

#[test]
fn the_backend_is_as_was_asked_for_and_kept_and_what_is_not_ethernet_has_libpcap() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    ip(&["-n", namespace.name(), "tuntap", "add", "dev", "tun9", "mode", "tun"]);
    ip(&["-n", namespace.name(), "link", "set", "tun9", "up"]);
    let rings = tempfile::tempdir_in("/dev/shm").unwrap();
    let mount = || {
        let mount = Mount::new().inside(&namespace).ring_dir(rings.path()).ring("512K");
        mount.args(["--backend", "af_packet"]).capture("own", "lo").capture("tun", "tun9")
    };
    let mut daemon = mount().start();
    let _ = daemon.verb(["init", "lo", "udp port 2", "--alias", "other", "--backend", "libpcap"]);
    let same = run(&mut daemon.command(["init", "lo", "--backend", "libpcap"]), 10);
    assert!(same.stderr.contains("the backend is that of own"), "{}", same.stderr);
    let wrong = run(&mut daemon.command(["init", "lo", "udp port 3", "--backend", "xdp"]), 10);
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.stderr);
    let backends = |daemon: &Daemon| {
        for (alias, backend) in [("own", "af_packet"), ("tun", "libpcap"), ("other", "libpcap")] {
            daemon.wait_state(alias, "running");
            assert_eq!(daemon.status(alias)["backend"], backend, "{alias}");
        }
        assert_eq!(daemon.status("tun")["linktype"], "RAW");
    };
    backends(&daemon);
    assert!(daemon.terminate().success());
    backends(&mount().start());
}
