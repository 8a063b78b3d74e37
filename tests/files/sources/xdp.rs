//! Interfaces whose packets are taken from the system through AF_XDP.

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pcapfs_tests::net::ip;
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{
    ALIAS, Daemon, Host, Mount, Namespace, Net, Running, User, binary, frame, run, skip_unless,
    tool, wait_until,
};

use crate::support::packets_of;

/// A wire whose end at the daemon has no address.
fn port() -> Net {
    let net = Net::new();
    ip(&["-n", net.a.name(), "address", "flush", "dev", Net::DEVICE]);
    net
}

/// The source of a port, with options that follow a comma.
fn source(options: &str) -> String {
    format!("xdp:{}{options}", Net::DEVICE)
}

/// What `ip` says about the port.
fn link(net: &Net) -> String {
    run(tool("ip").args(["-n", net.a.name(), "-d", "link", "show", "dev", Net::DEVICE]), 5)
        .success()
        .text()
        .to_owned()
}

fn has_program(net: &Net) -> bool {
    link(net).contains("xdp")
}

fn start(net: &Net, source: &str) -> Daemon {
    let daemon = Mount::new().inside(&net.a).ring("8M").capture(ALIAS, source).start();
    daemon.wait_state(ALIAS, "running");
    daemon
}

/// Frames of all kinds: tags, the shortest and the longest of an ordinary link.
fn all_frames() -> Vec<Vec<u8>> {
    let frame = |tags: &[(u16, u16)], len: usize, mark: u8| {
        let payload =
            ::frames::ip([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 253, &vec![mark; len]);
        ::frames::ethernet(tags, ::frames::IPV4, &payload)
    };
    let tags: [&[(u16, u16)]; 4] =
        [&[], &[(0x8100, 0xa007)], &[(0x88a8, 5), (0x8100, 7)], &[(0x8100, 9)]];
    let lens = [0, 1, 26, 500, 1472];
    (1..)
        .zip(lens.into_iter().flat_map(|len| tags.map(|tags| (tags, len))))
        .map(|(mark, (tags, len))| frame(tags, len, mark))
        .collect()
}

/// The frames that a capture has stored, and their times in nanoseconds.
fn stored(daemon: &Daemon) -> Vec<(u64, Vec<u8>)> {
    let bytes = fs::read(daemon.path(ALIAS).join("replay.pcap")).unwrap();
    packets_of("replay.pcap", &bytes)
        .into_iter()
        .map(|(time, _, _, length, data)| {
            assert_eq!(length as usize, data.len());
            (time, data)
        })
        .collect()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

#[test]
fn packets_are_those_that_were_sent_in_each_mode() {
    skip_unless!(root, "ip", "python3");
    for (options, backend) in [
        ("", "af_xdp_native"),
        (",mode=native,zerocopy=off", "af_xdp_native"),
        (",mode=generic", "af_xdp_generic"),
    ] {
        let net = port();
        let daemon = start(&net, &source(options));
        assert!(has_program(&net), "{}", link(&net));
        assert_eq!(link(&net).contains("xdpgeneric"), backend == "af_xdp_generic");
        let sent = all_frames();
        let before = now();
        net.send_frames(&sent);
        daemon.wait_stored(ALIAS, sent.len() as u64);
        let after = now();
        let found = stored(&daemon);
        for ((time, found), sent) in found.iter().zip(&sent) {
            assert_eq!(found, sent, "{options}");
            assert!((before..after).contains(time), "{before} {time} {after}");
        }
        assert!(found.is_sorted_by_key(|(time, _)| *time), "{found:?}");
        let times: BTreeSet<u64> = found.iter().map(|(time, _)| *time).collect();
        assert_eq!(times.len(), found.len(), "each has a time of its own");
        let status = daemon.status(ALIAS);
        assert_eq!(status["backend"], backend);
        assert_eq!(status["source"], source(options));
        assert_eq!(status["interface"], Net::DEVICE);
        assert_eq!(status["linktype"], "EN10MB");
        assert_eq!(status["packets"]["seen"], sent.len());
        assert_eq!(status["packets"]["dropped_kernel"], 0);
    }
}

#[test]
fn frames_that_are_longer_than_a_page_are_whole() {
    skip_unless!(root, "ip", "python3");
    for mode in ["native", "generic"] {
        let net = port();
        for (namespace, device) in [(&net.a, Net::DEVICE), (&net.b, Net::PEER)] {
            ip(&["-n", namespace.name(), "link", "set", device, "mtu", "9000"]);
        }
        let daemon = start(&net, &source(&format!(",mode={mode}")));
        let frame = |len: usize| {
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let payload = ::frames::ip([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 253, &bytes);
            ::frames::ethernet(&[], ::frames::IPV4, &payload)
        };
        let sent: Vec<Vec<u8>> = [100, 3800, 3806, 3807, 4096, 8980, 60].map(frame).into();
        net.send_frames(&sent);
        daemon.wait_stored(ALIAS, sent.len() as u64);
        let found: Vec<Vec<u8>> = stored(&daemon).into_iter().map(|(_, data)| data).collect();
        let lens: Vec<usize> = found.iter().map(Vec::len).collect();
        assert!(found == sent, "{mode}: {lens:?}");
    }
}

#[test]
fn the_system_gets_no_packets_while_the_capture_runs_and_all_when_it_has_ended() {
    skip_unless!(root, "ip");
    let net = port();
    let mut daemon = Mount::new()
        .inside(&net.a)
        .ring("8M")
        .capture(ALIAS, &source(""))
        .capture("system", Net::DEVICE)
        .start();
    let mut sender = net.sender(100);
    let mut counts = (0, 0);
    // Sends packets, which one of the two captures gets.
    let mut send = |daemon: &Daemon, is_taken: bool| {
        sender.send(7);
        let (alias, count) =
            if is_taken { (ALIAS, &mut counts.0) } else { ("system", &mut counts.1) };
        *count += 7;
        daemon.wait_stored(alias, *count);
        for (alias, count) in [(ALIAS, counts.0), ("system", counts.1)] {
            assert_eq!(daemon.count(alias, "/packets/stored"), count, "{alias}");
        }
    };
    send(&daemon, true);
    // At a stop, before the command has ended.
    let _ = daemon.verb(["stop", ALIAS]);
    assert!(!has_program(&net), "{}", link(&net));
    send(&daemon, false);
    let _ = daemon.verb(["start", ALIAS]);
    send(&daemon, true);
    let _ = daemon.verb(["remove", ALIAS]);
    assert!(!has_program(&net), "{}", link(&net));
    sender.send(7);
    daemon.wait_stored("system", 14);
    // At the end of the daemon, in whichever way it comes.
    let _ = daemon.verb(["init", &source(""), "--alias", "again"]);
    assert!(has_program(&net));
    assert!(daemon.terminate().success());
    assert!(!has_program(&net), "{}", link(&net));
    let mut daemon = start(&net, &source(",mode=native"));
    assert!(has_program(&net));
    daemon.kill9();
    assert!(!has_program(&net), "{}", link(&net));
    let daemon = Mount::new().inside(&net.a).capture("system", Net::DEVICE).start();
    daemon.wait_state("system", "running");
    net.sender(100).send(5);
    daemon.wait_stored("system", 5);
}

#[test]
fn what_came_before_a_stop_is_stored() {
    skip_unless!(root, "ip");
    let net = port();
    let daemon = start(&net, &source(""));
    let mut sender = net.sender(100);
    for round in 1..=10 {
        sender.send(100);
        let _ = daemon.verb(["stop", ALIAS]);
        assert_eq!(daemon.count(ALIAS, "/packets/stored"), round * 100);
        let _ = daemon.verb(["start", ALIAS]);
        daemon.wait_state(ALIAS, "running");
    }
}

#[test]
fn each_packet_of_the_listed_queues_is_taken_and_no_other() {
    skip_unless!(root, "ip");
    let net = Net::new();
    net.unplug();
    let queues = ["numrxqueues", "4", "numtxqueues", "4"];
    let (a, b) = (net.a.name(), net.b.name());
    let words = ["link", "add", Net::DEVICE, "netns", a, "type", "veth", "peer", "name", Net::PEER];
    // Options of the first end come before its kind, those of the other one after its name.
    let words = [
        &["link", "add", Net::DEVICE, "netns", a][..],
        &queues,
        &words[5..],
        &["netns", b],
        &queues,
    ]
    .concat();
    ip(&words);
    for (namespace, device) in [(a, Net::DEVICE), (b, Net::PEER)] {
        ip(&["-n", namespace, "link", "set", device, "up"]);
    }
    let address = format!("{}/24", Net::PEER_ADDRESS);
    ip(&["-n", b, "address", "add", &address, "dev", Net::PEER]);
    let neighbour = ["lladdr", "02:00:00:00:00:99", "dev", Net::PEER, "nud", "permanent"];
    ip(&[&["-n", b, "neighbour", "add", Net::NOBODY][..], &neighbour].concat());

    // Flows are spread over the queues by their hash.
    let senders = || -> Vec<UdpSocket> {
        net.b.run(|| {
            let sockets = (0..64).map(|_| {
                let socket = UdpSocket::bind((Net::PEER_ADDRESS, 0)).unwrap();
                socket.connect((Net::NOBODY, frame::PORT)).unwrap();
                socket
            });
            sockets.collect()
        })
    };
    let mut sequence = 0;
    let mut send = |senders: &[UdpSocket]| {
        for socket in senders.iter().cycle().take(640) {
            sequence += 1;
            socket.send(&frame::payload(sequence, 100)).unwrap();
        }
    };
    let mount = |options: &str| {
        let mount = Mount::new().inside(&net.a).ring("8M").capture(ALIAS, &source(options));
        mount.capture("system", Net::DEVICE).start()
    };
    let daemon = mount("");
    send(&senders());
    daemon.wait_stored(ALIAS, 640);
    assert_eq!(daemon.count("system", "/packets/stored"), 0);
    drop(daemon);

    let daemon = mount(",queues=0,2-3");
    send(&senders());
    let counts = || [ALIAS, "system"].map(|alias| daemon.count(alias, "/packets/stored"));
    wait_until("each packet is in one of the two", 10, || counts().iter().sum::<u64>() == 640);
    let [taken, left] = counts();
    assert!(taken > left && left > 0, "three queues of four: {taken} and {left}");
    let numbers = |alias: &str| -> BTreeSet<u64> {
        let bytes = fs::read(daemon.path(alias).join("replay.pcap")).unwrap();
        let packets = packets_of("replay.pcap", &bytes);
        let numbers = packets.iter().map(|(_, link_type, _, length, data)| {
            frame::sequence(*link_type, data, *length as usize).unwrap()
        });
        numbers.collect()
    };
    let (taken, left) = (numbers(ALIAS), numbers("system"));
    assert!(taken.is_disjoint(&left) && taken.len() + left.len() == 640);
    drop(daemon);

    let refused = Mount::new().inside(&net.a).capture(ALIAS, &source(",queues=1,4")).try_start();
    let refused = refused.expect_err("there is no such queue").stderr;
    let wanted = "xdp:wire-a,queues=1,4: wire-a has no receive queue 4 (the last one is 3)";
    assert!(refused.contains(wanted), "{refused}");
    assert!(!has_program(&net), "{}", link(&net));
}

#[test]
fn an_interface_that_the_system_uses_is_refused_unless_forced() {
    skip_unless!(root, "ip");
    let net = Net::new();
    let in_a = |words: &[&str]| ip(&[&["-n", net.a.name()][..], words].concat());
    let refusal = |options: &str| {
        let refused = Mount::new().inside(&net.a).capture(ALIAS, &source(options)).try_start();
        let refused = refused.expect_err("it is in use");
        assert_eq!((refused.status.code(), refused.left_mounted), (Some(1), false));
        assert!(!has_program(&net), "{}", link(&net));
        let text =
            "AF_XDP takes all packets of an interface from the system, and wire-a is in use: ";
        let place = refused.stderr.find(text).unwrap_or_else(|| panic!("{}", refused.stderr));
        refused.stderr[place + text.len()..].to_owned()
    };
    let said = refusal("");
    assert!(said.starts_with("it has the address 10.77.0.1 ("), "{said}");
    assert!(said.contains("write xdp:wire-a,force=true"), "{said}");
    in_a(&["address", "flush", "dev", Net::DEVICE]);
    in_a(&["route", "add", "default", "dev", Net::DEVICE]);
    let said = refusal(",zerocopy=off");
    assert!(said.starts_with("the default route leads there ("), "{said}");
    assert!(said.contains("write xdp:wire-a,zerocopy=off,force=true"), "{said}");
    in_a(&["route", "delete", "default", "dev", Net::DEVICE]);
    in_a(&["link", "add", "bridge9", "type", "bridge"]);
    in_a(&["link", "set", Net::DEVICE, "master", "bridge9"]);
    let said = refusal("");
    assert!(said.starts_with("it is part of the interface bridge9 ("), "{said}");

    let daemon = start(&net, &source(",force=true"));
    net.sender(100).send(5);
    daemon.wait_stored(ALIAS, 5);
    // While a daemon runs, `init` answers in the same way.
    in_a(&["link", "set", Net::DEVICE, "nomaster"]);
    in_a(&["address", "add", "10.77.0.1/24", "dev", Net::DEVICE]);
    let other = Mount::new().inside(&net.a).capture("lo", "lo").start();
    let refused = run(&mut other.command(["init", &source("")]), 10);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("wire-a is in use: it has the address"), "{}", refused.stderr);
    let taken = run(&mut other.command(["init", &source(",force=true")]), 10);
    assert_eq!(taken.status.code(), Some(1), "{}", taken.stderr);
    assert!(taken.stderr.contains("wire-a has another XDP program"), "{}", taken.stderr);
    drop(daemon);
    let _ = other.verb(["init", &source(",force=true"), "--alias", "taken"]);
    other.wait_state("taken", "running");
}

#[test]
fn only_root_takes_packets_from_the_system() {
    skip_unless!(root, "ip", "setpriv");
    const USER: User = User { id: 54_353, group: 65_473, groups: &[] };
    let net = port();
    let daemon = Mount::new().inside(&net.a).capture("lo", "lo").start();
    // The user may make captures, but not these.
    let open = |path: &std::path::Path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    };
    open(daemon.mountpoint());
    open(daemon.socket().parent().unwrap());
    open(daemon.socket());
    let refused = USER.verb(&daemon, &["init", &source("")]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    let wanted =
        "only root adds captures in other network namespaces, of devices or through AF_XDP";
    assert!(refused.stderr.contains(wanted), "{}", refused.stderr);
    assert!(!has_program(&net));
    // A daemon without root says which rights it needs.
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(USER.id), Some(USER.group)).unwrap();
    for capabilities in [&[][..], &["--inh-caps=+net_raw", "--ambient-caps=+net_raw"]] {
        let mut command = tool("setpriv");
        command.args(["--reuid=54353", "--regid=65473", "--clear-groups"]).args(capabilities);
        command.arg(binary("pcapfs")).arg("mount").arg(folder.path());
        command.arg("-c").arg(format!("x={}", source(""))).args(["--socket", "/nonexistent/s"]);
        let refused = net.a.run(|| run(&mut command, 10));
        assert_eq!(refused.status.code(), Some(1));
        let wanted = "run as root, or with CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF";
        assert!(refused.stderr.contains(wanted), "{}", refused.stderr);
    }
    // These suffice.
    let rings = tempfile::tempdir_in("/dev/shm").unwrap();
    std::os::unix::fs::chown(rings.path(), Some(USER.id), Some(USER.group)).unwrap();
    let mut command = tool("setpriv");
    command.args(["--reuid=54353", "--regid=65473", "--clear-groups"]);
    command
        .args(["--inh-caps=+net_raw,+net_admin,+bpf", "--ambient-caps=+net_raw,+net_admin,+bpf"]);
    command.arg(binary("pcapfs")).args(["mount", "none", "-c"]).arg(format!("x={}", source("")));
    command.arg("--ring-dir").arg(rings.path());
    command.arg("--socket").arg(folder.path().join("s"));
    let mut daemon = net.a.run(|| Running::spawn(&mut command));
    wait_until("it has attached a program", 10, || has_program(&net));
    let _ = daemon.end_with(Signal::SIGTERM);
    assert!(!has_program(&net), "{}", link(&net));
}

/// A port of this network namespace, whose packets come from another one.
struct HostPort {
    name: String,
    far: Namespace,
}

impl HostPort {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (far, count) = (Namespace::new(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("px{}-{count}", std::process::id() % 100_000_000);
        // When the namespace is deleted, both ends go.
        let words = ["link", "add", &name, "type", "veth", "peer", "name", Net::PEER, "netns"];
        ip(&[&words[..], &[far.name()]].concat());
        ip(&["link", "set", &name, "up"]);
        ip(&["-n", far.name(), "link", "set", Net::PEER, "up"]);
        Self { name, far }
    }

    fn shown(&self) -> String {
        run(tool("ip").args(["link", "show", "dev", &self.name]), 5).success().text().to_owned()
    }
}

impl Drop for HostPort {
    fn drop(&mut self) {
        let _ = run(tool("ip").args(["link", "delete", &self.name]), 5);
    }
}

/// Returns true if a process has the link of a program.
fn has_link(pid: Pid) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut paths = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    paths.any(|path| path.to_str().is_some_and(|path| path.contains("bpf_link")))
}

#[test]
fn a_daemon_of_mount_receives_through_the_program_that_its_supervisor_attaches() {
    skip_unless!(root, "unshare", "nsenter", "ip", "python3");
    let (host, port) = (Host::new(), HostPort::new());
    let spec = format!("xdp:{}", port.name);
    let _ = host.mount(&spec, "alias=lab,filter=udp port 40001,kernel_buffer=32M").success();
    let (daemon, supervisor) = (host.daemon().expect("it runs"), host.supervisor().unwrap());
    let rights = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
    // CAP_NET_RAW
    assert!(rights.contains("CapEff:\t0000000000002000"), "{rights}");
    assert!(has_link(daemon) && !has_link(supervisor), "the supervisor keeps no copy");
    let numbered: Vec<Vec<u8>> = (1..=5).map(|number| frame::ethernet(number, 100)).collect();
    let send = |stored: u64| {
        port.far.send_frames(Net::PEER, &numbered);
        wait_until("all are stored", 10, || {
            host.try_status("lab").is_some_and(|status| status["packets"]["stored"] == stored)
        });
    };
    send(5);
    assert!(host.try_status("lab").unwrap()["backend"] == "af_xdp_native");
    // Memory of frames is locked. The supervisor raises that limit if it may (CAP_SYS_RESOURCE);
    // otherwise the buffer is smaller than it was asked for.
    let limits = fs::read_to_string(format!("/proc/{daemon}/limits")).unwrap();
    let locked = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap();
    let soft: u64 = locked.split_ascii_whitespace().nth(3).unwrap().parse().unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let may_raise = u64::from_str_radix(own, 16).unwrap() & 1 << 24 != 0;
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
    assert_eq!(soft, if may_raise { hard.max(2 << 30) } else { hard }, "{locked}");
    // The program goes with the daemon, and the next daemon gets another one.
    nix::sys::signal::kill(daemon, Signal::SIGKILL).unwrap();
    wait_until("another daemon runs", 10, || {
        host.daemon().is_some_and(|next| next != daemon && has_link(next))
            && host.try_status("lab").is_some_and(|status| status["state"] == "running")
    });
    send(10);
    let _ = host.umount().success();
    host.wait_gone();
    assert!(!port.shown().contains("xdp"), "{}", port.shown());
}

#[test]
fn the_supervisor_attaches_programs_only_to_interfaces_that_its_options_name() {
    skip_unless!(root, "unshare", "nsenter", "ip");
    let (host, port, other) = (Host::new(), HostPort::new(), HostPort::new());
    let init = |source: &str| run(host.command("pcapfs").args(["init", source]), 10);
    let _ = host.mount("lo", "alias=l,filter=udp port 9").success();
    let refused = init(&format!("xdp:{}", port.name));
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    let wanted =
        format!("only to interfaces that its options name (add xdp={} to them)", port.name);
    assert!(refused.stderr.contains(&wanted), "{}", refused.stderr);
    let _ = host.umount().success();
    host.wait_gone();
    let named = format!("alias=l,filter=udp port 9,xdp=eth99:{}", port.name);
    let _ = host.mount("lo", &named).success();
    let _ = init(&format!("xdp:{}", port.name)).success();
    assert!(port.shown().contains("xdp"), "{}", port.shown());
    let refused = init(&format!("xdp:{}", other.name));
    assert!(refused.stderr.contains("only to interfaces"), "{}", refused.stderr);
    assert!(!other.shown().contains("xdp"), "{}", other.shown());
    let _ = host.umount().success();
    host.wait_gone();
    assert!(!port.shown().contains("xdp"), "{}", port.shown());
}

#[test]
fn mistakes_in_a_source_are_named() {
    skip_unless!(root, "ip");
    let net = port();
    ip(&["-n", net.a.name(), "tuntap", "add", "dev", "tun9", "mode", "tun"]);
    ip(&["-n", net.a.name(), "link", "set", "tun9", "up"]);
    ip(&["-n", net.a.name(), "tuntap", "add", "dev", "tap9", "mode", "tap"]);
    for (source, wanted) in [
        ("xdp:any", "xdp:any: write the name of one interface, as in xdp:eth1"),
        ("xdp:eth9", "xdp:eth9: no such interface (have: lo, "),
        ("xdp:wire-a,queues=x", "xdp:wire-a,queues=x: queues=x: no list of receive queues"),
        ("xdp:wire-a,speed=9", "'speed=9' is no option of xdp: (write queues=, mode=, "),
        ("xdp:tun9", "xdp:tun9: its packets are no Ethernet frames"),
        ("xdp:tap9", "xdp:tap9: the interface is down (ip link set tap9 up)"),
        ("xdp:wire-a inbound", "'inbound', 'outbound' and 'ifindex' ask"),
        ("xdp:wire-a udp prt 7", "filter 'udp prt 7' does not compile"),
    ] {
        let refused = Mount::new().inside(&net.a).capture(ALIAS, source).try_start();
        let refused = refused.expect_err("it is wrong").stderr;
        assert!(refused.contains(wanted), "{source}: {refused}");
        assert!(!has_program(&net), "{}", link(&net));
    }
}

#[test]
fn a_filter_chooses_the_packets_that_are_stored_but_not_those_that_are_taken() {
    skip_unless!(root, "ip");
    let net = port();
    let daemon = Mount::new()
        .inside(&net.a)
        .capture(ALIAS, &source(" udp port 40001"))
        .capture("system", Net::DEVICE)
        .args(["--snaplen", "80"])
        .start();
    let (mut wanted, mut other) = (net.sender(100), net.sender_to(100, 40_002));
    for _ in 0..10 {
        other.send(3);
        wanted.send(2);
    }
    daemon.wait_stored(ALIAS, 20);
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    for (_, _, _, length, data) in packets_of("replay.pcap", &bytes) {
        assert_eq!((length, data.len()), (142, 80));
    }
    assert_eq!(daemon.count(ALIAS, "/packets/seen"), 20, "the others were never seen");
    assert_eq!(daemon.count("system", "/packets/seen"), 0);
}

#[test]
fn packets_without_room_are_counted() {
    skip_unless!(root, "ip");
    let net = port();
    let mount = Mount::new().inside(&net.a).args(["--kernel-buffer", "512K"]);
    let daemon = mount.capture(ALIAS, &source("")).start();
    daemon.wait_state(ALIAS, "running");
    daemon.signal(Signal::SIGSTOP);
    wait_until("each of its threads has stopped", 10, || {
        let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
        })
    });
    net.sender(100).send(1000);
    daemon.signal(Signal::SIGCONT);
    wait_until("all are counted", 10, || daemon.count(ALIAS, "/packets/seen") == 1000);
    let status = daemon.status(ALIAS);
    // 512 KiB are 256 frames.
    assert_eq!(
        (&status["packets"]["stored"], &status["packets"]["dropped_kernel"]),
        (&256.into(), &744.into())
    );
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=256));
    // All frames are back with the kernel.
    net.sender(100).send(200);
    daemon.wait_stored(ALIAS, 456);
}

#[test]
fn an_interface_that_goes_down_or_away_is_waited_for() {
    skip_unless!(root, "ip");
    let net = port();
    let daemon = start(&net, &source(""));
    net.sender(100).send(5);
    daemon.wait_stored(ALIAS, 5);
    let set = |state: &str| ip(&["-n", net.a.name(), "link", "set", Net::DEVICE, state]);
    set("down");
    daemon.wait_state(ALIAS, "retrying");
    let error = daemon.status(ALIAS)["error"].as_str().unwrap().to_owned();
    assert_eq!(error, "xdp:wire-a: the interface is down (ip link set wire-a up)");
    set("up");
    daemon.wait_state(ALIAS, "running");
    assert!(daemon.status(ALIAS)["error"].is_null());
    let neighbour = ["neighbour", "replace", Net::NOBODY, "lladdr", "02:00:00:00:00:99"];
    let replace = || {
        wait_until("the wire carries again", 5, || {
            let shown = run(tool("ip").args(["-n", net.b.name(), "link", "show", Net::PEER]), 5);
            shown.success().text().contains("LOWER_UP")
        });
        let rest = ["dev", Net::PEER, "nud", "permanent"];
        ip(&[&["-n", net.b.name()][..], &neighbour, &rest].concat());
    };
    replace();
    net.sender(100).send(5);
    daemon.wait_stored(ALIAS, 10);
    net.unplug();
    daemon.wait_state(ALIAS, "retrying");
    net.plug();
    // Now it has an address.
    wait_until("it is refused", 10, || {
        let error = daemon.status(ALIAS)["error"].as_str().unwrap_or_default().to_owned();
        error.contains("wire-a is in use")
    });
    ip(&["-n", net.a.name(), "address", "flush", "dev", Net::DEVICE]);
    daemon.wait_state(ALIAS, "running");
    assert!(has_program(&net));
    replace();
    net.sender(100).send(5);
    daemon.wait_stored(ALIAS, 15);
}

#[test]
fn a_program_that_another_one_removes_is_attached_again() {
    skip_unless!(root, "ip", "python3");
    let net = port();
    let daemon = start(&net, &source(""));
    // BPF_LINK_DETACH of each link of the daemon, whose descriptors root can take (pidfd_getfd).
    const PROGRAM: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
pidfd = libc.syscall(434, pid, 0)
for fd in os.listdir(f'/proc/{pid}/fd'):
    if os.readlink(f'/proc/{pid}/fd/{fd}').startswith('anon_inode:bpf_link'):
        link = libc.syscall(438, pidfd, int(fd), 0)
        attributes = ctypes.c_uint32(link)
        assert libc.syscall(321, 34, ctypes.byref(attributes), 4) == 0, ctypes.get_errno()
        print('detached')
";
    let mut command = pcapfs_tests::python(PROGRAM);
    let done = run(command.arg(daemon.pid().to_string()), 10).success();
    assert_eq!(done.text(), "detached\n");
    wait_until("it has a program again", 10, || has_program(&net));
    daemon.wait_state(ALIAS, "running");
    let why = daemon.status(ALIAS)["interruptions"][0]["why"].as_str().unwrap().to_owned();
    assert_eq!(why, "xdp:wire-a: its XDP program was detached by another program");
    net.sender(100).send(5);
    daemon.wait_stored(ALIAS, 5);
}
