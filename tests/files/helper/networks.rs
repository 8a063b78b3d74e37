//! Interfaces in other network namespaces, whose sockets the supervisor opens.

use std::fs;

use nix::unistd::Pid;
use pcapfs_tests::net::ip;
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{
    Container, Host, Namespace, Net, Running, Traffic, run, skip_unless, tool, wait_until,
};

use crate::support::status_line;

/// A source and filter for the wire of a network.
fn wire(net: &Net) -> String {
    format!("netns:{}/{}", net.a.name(), Net::DEVICE)
}

/// The packets of a capture by their numbers in the payload.
fn packets(host: &Host, alias: &str) -> Vec<u64> {
    let bytes = fs::read(host.file(alias).join("replay.pcap")).unwrap();
    check_prefix(&bytes).unwrap().whole()
}

/// The network namespaces of all threads of a process.
fn networks(pid: Pid) -> Vec<std::path::PathBuf> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    threads.map(|thread| fs::read_link(thread.path().join("ns/net")).unwrap()).collect()
}

/// Gives a namespace its name inside of the machine as well.
fn name_inside(host: &Host, namespace: &Namespace) {
    let holder = Running::spawn(tool("ip").args(["netns", "exec", namespace.name()]).args([
        "sh",
        "-c",
        "echo in && exec sleep 60",
    ]));
    holder.wait_stdout("it is there", 10, |bytes| bytes == b"in\n");
    let script = "mkdir -p /run/netns && touch /run/netns/$2 &&
                  mount --bind /proc/$1/ns/net /run/netns/$2";
    let mut shell = host.command("sh");
    shell.args(["-c", script, "sh", &holder.pid().to_string(), namespace.name()]);
    let _ = run(&mut shell, 5).success();
}

/// Waits until the capture `c` is in this state.
#[track_caller]
fn wait_state(host: &Host, wanted: &str) {
    wait_until(wanted, 10, || host.try_status("c").unwrap()["state"] == wanted);
}

/// The one line with which the first process refuses to mount this source.
#[track_caller]
fn refusal(host: &Host, spec: &str, options: &str) -> String {
    let refused = host.mount(spec, options);
    assert!(!refused.status.success(), "{spec}");
    host.wait_gone();
    refused.stderr
}

#[test]
fn the_daemon_captures_there_and_nothing_of_it_is_there() {
    skip_unless!(root, "nsenter", "ip");
    let net = Net::new();
    let host = Host::new();
    name_inside(&host, &net.a);
    let mounted = host.mount(&wire(&net), "alias=web,ring=1M,filter=udp port 40001").success();
    assert_eq!((mounted.text(), mounted.stderr.as_str()), ("", ""));
    let (daemon, supervisor) = (host.daemon().unwrap(), host.supervisor().unwrap());
    let traffic = Traffic::start(net.sender(200), 1_000, 400);
    wait_until("all are stored", 10, || host.count("web", "/packets/stored") == 400);
    drop(traffic);
    assert_eq!(packets(&host, "web"), Vec::from_iter(1..=400));
    let status = host.try_status("web").unwrap();
    assert_eq!(
        (&status["source"], &status["interface"]),
        (&wire(&net).into(), &Net::DEVICE.into())
    );
    assert_eq!(status["backend"], "af_packet");
    assert_eq!(status["packets"]["dropped_interface"], 0);

    let own = fs::read_link("/proc/self/ns/net").unwrap();
    for pid in [daemon, supervisor] {
        assert!(networks(pid).iter().all(|network| *network == own), "{pid} is somewhere else");
    }
    assert_eq!(status_line(supervisor, "Threads"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        // Bit 13: CAP_NET_RAW.
        assert_eq!(status_line(daemon, set), "0000000000002000", "{set}");
    }
    let sockets = fs::read_dir(format!("/proc/{supervisor}/fd")).unwrap().flatten();
    let sockets = sockets
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|to| to.to_string_lossy().starts_with("socket:"));
    assert!(sockets.count() <= 1, "the supervisor keeps only its end of the pair");
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn all_interfaces_and_tags_and_other_namespaces_are_captured() {
    skip_unless!(root, "nsenter", "ip");
    let nets = [Net::new(), Net::new()];
    let host = Host::new();
    nets.iter().for_each(|net| name_inside(&host, &net.a));
    let config = host.path("pcapfs.toml");
    let capture = |alias: &str, source: &str, filter: &str| {
        format!("[[capture]]\nalias = \"{alias}\"\nsource = \"{source}\"\nfilter = \"{filter}\"\n")
    };
    let text = [
        capture("one", &wire(&nets[0]), "udp port 40001"),
        capture("all", &format!("netns:{}/any", nets[0].a.name()), "udp port 40001"),
        // libpcap compiles this for an open interface only.
        capture("untagged", &wire(&nets[1]), "udp port 40001 and not vlan"),
        capture("tagged", &wire(&nets[1]), "vlan 7"),
    ];
    fs::write(&config, text.concat()).unwrap();
    let names = [nets[0].a.name(), nets[1].a.name()].join(":");
    let options = format!("config={},ring=1M,netns={names}", config.display());
    let _ = host.mount("none", &options).success();
    nets[0].sender(200).send(10);
    nets[1].sender(200).send(12);
    for (alias, count, link) in [("one", 10, "EN10MB"), ("all", 10, "LINUX_SLL2")] {
        wait_until("all are stored", 10, || host.count(alias, "/packets/stored") == count);
        assert_eq!(host.try_status(alias).unwrap()["linktype"], link);
    }
    wait_until("all are stored", 10, || host.count("untagged", "/packets/stored") == 12);
    assert_eq!(packets(&host, "untagged"), Vec::from_iter(1..=12));
    assert_eq!(host.count("tagged", "/packets/stored"), 0);
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn a_namespace_that_vanishes_with_its_process_is_let_go() {
    skip_unless!(root, "nsenter", "ip", "unshare");
    // The daemon may not look at the namespace of the process.
    let (host, mut container) = (Host::new(), Container::new());
    let pid = container.pid();
    let _ =
        host.mount(&format!("netns:{pid}/lo"), "alias=c,ring=1M,filter=udp port 40001").success();
    container.send(4);
    wait_until("4 are stored", 10, || host.count("c", "/packets/stored") == 4);
    container.kill();
    wait_state(&host, "retrying");
    let error = host.try_status("c").unwrap()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(&format!("netns:{pid}/lo: ")), "{error}");
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn a_name_that_leads_to_another_namespace_is_followed() {
    skip_unless!(root, "nsenter", "ip");
    let (host, net) = (Host::new(), Net::new());
    name_inside(&host, &net.a);
    let _ = host.mount(&wire(&net), "alias=c,ring=1M,filter=udp port 40001").success();
    net.sender(200).send(3);
    wait_until("3 packets are stored", 10, || host.count("c", "/packets/stored") == 3);
    let _ = run(host.command("ip").args(["netns", "delete", net.a.name()]), 5).success();
    wait_state(&host, "retrying");
    name_inside(&host, &net.a);
    wait_state(&host, "running");
    net.sender(200).send(5);
    wait_until("8 packets are stored", 10, || host.count("c", "/packets/stored") == 8);
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn what_root_has_not_named_and_what_is_missing_is_refused() {
    skip_unless!(root, "nsenter", "ip", "unshare");
    let (namespace, other) = (Namespace::new(), Namespace::new());
    let (host, container) = (Host::new(), Container::new());
    [&namespace, &other].into_iter().for_each(|namespace| name_inside(&host, namespace));
    let name = namespace.name();
    let config = host.path("pcapfs.toml");
    let source = format!("netns:{name}/lo");
    fs::write(&config, format!("[[capture]]\nsource = \"{source}\"\nalias = \"x\"\n")).unwrap();
    let config = format!("config={}", config.display());
    let said = refusal(&host, "none", &config);
    let part = format!("only in namespaces that its options name (add netns={name} to them");
    assert!(said.contains(&source) && said.contains(&part), "{said}");
    let said = refusal(&host, "none", &format!("{config},netns={}", other.name()));
    assert!(said.contains(&part), "{said}");
    // Any is any, and a process is one too.
    ip(&["-n", name, "link", "set", "lo", "up"]);
    let _ = host.mount("none", &format!("{config},netns=any")).success();
    let mut init = host.command("pcapfs");
    init.args(["init", &format!("netns:{}/lo", container.pid()), "udp port 40001", "--alias", "c"]);
    let _ = run(&mut init, 10).success();
    container.send(4);
    wait_until("4 are stored", 10, || host.count("c", "/packets/stored") == 4);
    let _ = host.umount().success();
    host.wait_gone();

    for (spec, options, part) in [
        ("netns:no-such/lo".to_owned(), "alias=x", "no such network namespace (have: "),
        (format!("netns:{name}/eth9"), "alias=x", "no such interface (have: lo)"),
        ("netns:4194305/lo".to_owned(), "alias=x", "(no process 4194305)"),
        ("netns:/dev/null/lo".to_owned(), "alias=x", "/dev/null keeps no network namespace"),
        (format!("netns:{name}/lo"), "alias=x,backend=libpcap", "as root with pcapfs mount"),
        (format!("netns:{name}/lo"), "netns=a/b", "names, processes or paths of namespaces"),
    ] {
        let said = refusal(&host, &spec, options);
        assert!(said.contains(part), "{spec}: {said}");
    }
    // Only libpcap knows the headers of a tunnel.
    let tunnel = ["-n", name, "tuntap", "add", "dev", "t0", "mode", "tun"];
    if run(tool("ip").args(tunnel), 5).status.success() {
        ip(&["-n", name, "link", "set", "t0", "up"]);
        let said = refusal(&host, &format!("netns:{name}/t0"), "alias=x");
        assert!(said.contains("an interface that is not Ethernet"), "{said}");
    }
}

#[test]
fn what_netfilter_logs_is_refused_with_the_right_that_it_takes() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    let said = refusal(&host, "nflog:5", "alias=x");
    assert!(said.contains("nflog:5: no permission") && said.contains("CAP_NET_ADMIN"), "{said}");
}
