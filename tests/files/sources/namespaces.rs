//! Interfaces in other network namespaces, as containers have them.

use std::fs;

use pcapfs_tests::net::ip;
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{
    Container, Daemon, Mount, Namespace, Net, User, binary, is_mounted, run, skip_unless, tool,
    wait_until,
};
use tempfile::TempDir;

/// Its alias, source and filter as `-c` takes them, for the wire of a network.
fn capture(alias: &str, net: &Net) -> String {
    format!("{alias}=netns:{}/{} udp port 40001", net.a.name(), Net::DEVICE)
}

#[test]
fn one_daemon_captures_in_five_namespaces() {
    skip_unless!(root, "ip");
    let nets: Vec<Net> = (0..5).map(|_| Net::new()).collect();
    let mut mount = Mount::new().ring("2M");
    for (number, net) in nets.iter().enumerate() {
        mount = mount.arg("-c").arg(capture(&format!("pod{number}"), net));
    }
    // All interfaces of a namespace, and no others.
    mount = mount.arg("-c").arg(format!("all=netns:{}/any udp port 40001", nets[0].a.name()));
    let daemon = mount.start();
    for number in 0..5_u64 {
        nets[usize::try_from(number).unwrap()].sender(200).send(10 + number);
    }
    for number in 0..5_u64 {
        let alias = format!("pod{number}");
        daemon.wait_stored(&alias, 10 + number);
        let bytes = fs::read(daemon.path(&alias).join("replay.pcap")).unwrap();
        assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=10 + number));
        let status = daemon.status(&alias);
        let name = nets[usize::try_from(number).unwrap()].a.name();
        assert_eq!(status["source"], format!("netns:{name}/{}", Net::DEVICE));
        assert_eq!(status["interface"], Net::DEVICE);
        assert_eq!(status["packets"]["dropped_interface"], 0);
        // Interfaces of the same name are told apart in pcapng.
        let pcapng = fs::read(daemon.path(&alias).join("replay.pcapng")).unwrap();
        let described = format!("netns:{name}/{}", Net::DEVICE);
        assert!(pcapng.windows(described.len()).any(|bytes| bytes == described.as_bytes()));
    }
    daemon.wait_stored("all", 10);
    assert_eq!(daemon.status("all")["linktype"], "LINUX_SLL2");
    // The daemon itself has not moved.
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    for thread in fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten() {
        assert_eq!(fs::read_link(thread.path().join("ns/net")).unwrap(), own);
    }
}

#[test]
fn a_namespace_or_interface_that_vanishes_is_let_go_and_waited_for() {
    skip_unless!(root, "ip");
    let net = Net::new();
    let daemon = Mount::new().ring("2M").arg("-c").arg(capture("web", &net)).start();
    let mut stored = 0;
    let mut send = |daemon: &Daemon| {
        let mut sender = net.sender(200);
        wait_until("the wire carries packets", 10, || {
            let link = run(tool("ip").args(["-n", net.b.name(), "link", "show", Net::PEER]), 5);
            link.success().text().contains("LOWER_UP")
        });
        sender.send(5);
        stored += 5;
        daemon.wait_stored("web", stored);
    };
    send(&daemon);
    net.unplug();
    daemon.wait_state("web", "retrying");
    net.plug();
    daemon.wait_state("web", "running");
    send(&daemon);
    // A container that ends: its end of the wire goes with its namespace, which the capture must
    // not keep.
    ip(&["netns", "delete", net.a.name()]);
    daemon.wait_state("web", "retrying");
    let status = daemon.status("web");
    let error = status["error"].as_str().unwrap();
    assert!(error.contains(&format!("netns:{}/{}", net.a.name(), Net::DEVICE)), "{error}");
    assert!(error.contains("network namespace"), "{error}");
    wait_until("the namespace is gone", 10, || {
        let links = run(tool("ip").args(["-n", net.b.name(), "link", "show"]), 5).success();
        !links.text().contains(Net::PEER)
    });
    ip(&["netns", "add", net.a.name()]);
    net.plug();
    daemon.wait_state("web", "running");
    send(&daemon);
    let began = daemon.status("web")["interruptions"].as_array().unwrap().len();
    assert_eq!(began, 2);
}

#[test]
fn a_container_is_found_by_one_of_its_processes() {
    skip_unless!(root, "ip", "unshare", "nsenter");
    let mut container = Container::new();
    let pid = container.pid();
    let daemon =
        Mount::new().ring("2M").capture("c", &format!("netns:{pid}/lo udp port 40001")).start();
    container.send(7);
    daemon.wait_stored("c", 7);
    container.kill();
    daemon.wait_state("c", "retrying");
    let error = daemon.status("c")["error"].as_str().unwrap().to_owned();
    assert!(error.contains(&format!("netns:{pid}/lo: ")), "{error}");
}

/// The one line with which a daemon refuses to start with this source.
#[track_caller]
fn refusal(source: &str) -> String {
    let refused = Mount::new().capture("x", source).try_start().expect_err("it is refused");
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    refused.stderr
}

#[test]
fn what_is_missing_is_named() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    let name = namespace.name();
    let said = refusal("netns:no-such/eth0");
    assert!(said.contains("netns:no-such/eth0: no such network namespace (have: "), "{said}");
    assert!(said.contains(name), "{said}");
    let said = refusal(&format!("netns:{name}/eth9"));
    assert!(said.contains(&format!("netns:{name}/eth9: no such interface (have: lo)")), "{said}");
    let said = refusal("netns:4194305/lo");
    assert!(
        said.contains("netns:4194305/lo: no such network namespace (no process 4194305)"),
        "{said}"
    );
    let said = refusal("netns:/proc/self/status/lo");
    assert!(said.contains("keeps no network namespace"), "{said}");
    let said = refusal(&format!("netns:{name}/lo tcp prot 80"));
    assert!(said.contains("does not compile"), "{said}");
}

#[test]
fn a_missing_right_is_named_with_those_who_have_it() {
    skip_unless!(root, "ip", "setpriv", "unshare");
    const USER: User = User { id: 54_351, group: 65_471, groups: &[] };
    let (namespace, container) = (Namespace::new(), Container::new());
    let folder = TempDir::new().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(USER.id), Some(USER.group)).unwrap();
    for (source, part) in [
        (format!("netns:{}/lo", namespace.name()), "needs root, or CAP_SYS_ADMIN"),
        (format!("netns:{}/lo", container.pid()), "closed to this user"),
    ] {
        let mut command = USER.command(binary("pcapfs").to_str().unwrap());
        command.arg("mount").arg(folder.path()).arg("-c").arg(format!("x={source}"));
        let refused = run(command.args(["--socket", "/nonexistent/s"]), 10);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            refused.stderr.contains(&source) && refused.stderr.contains(part),
            "{}",
            refused.stderr
        );
        assert!(!is_mounted(folder.path()));
    }
}

#[test]
fn only_root_adds_captures_in_other_namespaces() {
    skip_unless!(root, "ip", "setpriv");
    const USER: User = User { id: 54_352, group: 65_472, groups: &[] };
    let net = Net::new();
    let daemon = Mount::new().ring("2M").capture("own", "lo udp port 9").start();
    let source = format!("netns:{}/{}", net.a.name(), Net::DEVICE);
    let made = daemon.verb(["init", &source, "udp port 40001"]);
    let alias = format!("{}.{}", net.a.name(), Net::DEVICE);
    assert!(made.contains(&alias), "{made}");
    net.sender(200).send(3);
    daemon.wait_stored(&alias, 3);
    // The user may make captures, but those of interfaces of this namespace only.
    fs::set_permissions(daemon.mountpoint(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .unwrap();
    let folder = daemon.socket().parent().unwrap();
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let refused = USER.verb(&daemon, &["init", &source, "udp port 5"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("only root"), "{}", refused.stderr);
    let _ = USER.verb(&daemon, &["init", "lo", "udp port 6"]).success();
}
