//! Tap and tun devices: what the system sends into them is captured.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use pcapfs_tests::daemon::SOCKET;
use pcapfs_tests::net::{ip, send_frames};
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{
    Daemon, Host, Mount, Namespace, Net, Running, User, binary, frame, run, skip_unless, tool,
    wait_for, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{frames, packets_of};

const USER: User = User { id: 54_361, group: 65_481, groups: &[] };

/// The frames with these numbers.
fn numbered(numbers: std::ops::RangeInclusive<u64>) -> Vec<Vec<u8>> {
    numbers.map(|number| frame::ethernet(number, 100)).collect()
}

/// The output of `ip -details link show` for an interface; `None` if there is none.
fn shown(namespace: &Namespace, device: &str) -> Option<String> {
    let mut command = tool("ip");
    command.args(["-n", namespace.name(), "-details", "link", "show", "dev", device]);
    let shown = run(&mut command, 5);
    shown.status.success().then(|| shown.text().to_owned())
}

/// Runs `ip` for a namespace.
fn ip_in(namespace: &Namespace, words: &[&str]) {
    ip(&[&["-n", namespace.name()], words].concat());
}

fn replayed(daemon: &Daemon, alias: &str) -> Vec<u8> {
    fs::read(daemon.path(alias).join("replay.pcap")).unwrap()
}

/// A socket whose packets the system sends into a device: to an address that no host has.
fn sender(namespace: &Namespace, device: &str) -> UdpSocket {
    ip_in(namespace, &["address", "add", "10.88.0.1/24", "dev", device]);
    let neighbour = ["neighbour", "add", "10.88.0.9", "lladdr", "02:00:00:00:00:99"];
    let words = [&neighbour[..], &["dev", device, "nud", "permanent"]].concat();
    let mut command = tool("ip");
    // A tun device has no neighbours.
    let _ = run(command.args(["-n", namespace.name()]).args(words), 5);
    namespace.run(|| {
        let socket = UdpSocket::bind(("10.88.0.1", 0)).unwrap();
        socket.connect(("10.88.0.9", frame::PORT)).unwrap();
        socket
    })
}

fn send(socket: &UdpSocket, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        socket.send(&frame::payload(number, 100)).unwrap();
    }
}

#[test]
fn a_device_is_made_as_wanted_and_captures_what_is_sent_into_it() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    let mut daemon = Mount::new()
        .inside(&namespace)
        .ring("2M")
        .args(["--snaplen", "200"])
        .capture("lab", "tap:lab0,mtu=9000,mac=02:00:00:00:00:aa udp port 40001")
        .start();
    daemon.wait_state("lab", "running");
    let made = shown(&namespace, "lab0").unwrap();
    for part in ["mtu 9000", "02:00:00:00:00:aa", "LOWER_UP", "tun type tap", "persist off"] {
        assert!(made.contains(part), "{part}: {made}");
    }
    let long = frame::ethernet(3, 8_000);
    let other = frames::ethernet(&[], 0x88b5, &[7; 50]);
    let sent = [frame::ethernet(1, 100), other, frame::ethernet(2, 100), long.clone()];
    namespace.send_frames("lab0", &sent);
    daemon.wait_stored("lab", 3);
    let packets = packets_of("replay.pcap", &replayed(&daemon, "lab"));
    let whole = packets.iter().map(|(_, link, _, length, data)| (*link, *length, &data[..]));
    assert_eq!(
        whole.collect::<Vec<_>>(),
        [(1, 142, &sent[0][..]), (1, 142, &sent[2]), (1, 8_042, &long[..200]),]
    );
    let status = daemon.status("lab");
    assert_eq!(status["source"], "tap:lab0,mtu=9000,mac=02:00:00:00:00:aa");
    assert_eq!((&status["interface"], &status["backend"]), (&"lab0".into(), &Value::Null));
    assert_eq!(status["packets"]["seen"], 3, "what the filter leaves out was never seen");
    assert!(daemon.terminate().success());
    assert_eq!(shown(&namespace, "lab0"), None, "the device goes with its program");
}

#[test]
fn a_tun_device_captures_ip_packets() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    let daemon =
        Mount::new().inside(&namespace).ring("2M").capture("t", "tun:t0 udp port 40001").start();
    let socket = sender(&namespace, "t0");
    send(&socket, 1..=20);
    daemon.wait_stored("t", 20);
    assert_eq!(daemon.status("t")["linktype"], "RAW");
    assert_eq!(check_prefix(&replayed(&daemon, "t")).unwrap().whole(), Vec::from_iter(1..=20));
    let flows = fs::read_to_string(daemon.path("t").join("flows.jsonl")).unwrap();
    assert_eq!(flows.lines().count(), 1, "{flows}");
}

#[test]
fn another_interface_is_mirrored_into_a_device() {
    skip_unless!(root, "ip", "tc");
    let net = Net::new();
    let daemon =
        Mount::new().inside(&net.a).ring("2M").capture("m", "tap:mirror0 udp port 40001").start();
    for words in [
        &["qdisc", "add", "dev", Net::DEVICE, "clsact"][..],
        &[
            "filter",
            "add",
            "dev",
            Net::DEVICE,
            "ingress",
            "protocol",
            "all",
            "u32",
            "match",
            "u32",
            "0",
            "0",
            "action",
            "mirred",
            "egress",
            "mirror",
            "dev",
            "mirror0",
        ],
    ] {
        let _ = net.a.run(|| run(tool("tc").args(words), 5)).success();
    }
    net.sender(100).send(16);
    daemon.wait_stored("m", 16);
    assert_eq!(check_prefix(&replayed(&daemon, "m")).unwrap().whole(), Vec::from_iter(1..=16));
}

#[test]
fn a_stopped_capture_keeps_its_device_and_captures_nothing() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    let daemon = Mount::new().inside(&namespace).ring("2M").capture("b", "tap:port0").start();
    ip_in(&namespace, &["link", "add", "switch0", "type", "bridge"]);
    ip_in(&namespace, &["link", "set", "port0", "master", "switch0"]);
    namespace.send_frames("port0", &numbered(1..=4));
    daemon.wait_stored("b", 4);
    daemon.control("b", "stop").unwrap();
    daemon.wait_state("b", "stopped");
    namespace.send_frames("port0", &numbered(5..=9));
    assert!(shown(&namespace, "port0").unwrap().contains("master switch0"));
    daemon.control("b", "start").unwrap();
    daemon.wait_state("b", "running");
    namespace.send_frames("port0", &numbered(10..=12));
    daemon.wait_stored("b", 7);
    let expected: Vec<_> = numbered(1..=4).into_iter().chain(numbered(10..=12)).collect();
    assert_eq!(frames(&replayed(&daemon, "b")), expected);
    assert!(shown(&namespace, "port0").unwrap().contains("master switch0"));
    let pcapng = fs::read(daemon.path("b").join("replay.pcapng")).unwrap();
    let comment = b"port0";
    assert!(pcapng.windows(comment.len()).any(|bytes| bytes == comment), "it has the name");
    assert_eq!(daemon.status("b")["packets"]["dropped_interface"], 0);
}

#[test]
fn a_device_that_is_deleted_is_made_again() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    let daemon = Mount::new().inside(&namespace).ring("2M").capture("d", "tap:gone0").start();
    namespace.send_frames("gone0", &numbered(1..=2));
    daemon.wait_stored("d", 2);
    ip_in(&namespace, &["link", "delete", "gone0"]);
    let interruptions = || daemon.status("d")["interruptions"].as_array().unwrap().clone();
    let away = wait_for("it is noticed", 10, || interruptions().first().cloned());
    assert_eq!(away["why"], "tap:gone0: the device is gone");
    wait_until("it is back", 10, || !interruptions()[0]["ended"].is_null());
    daemon.wait_state("d", "running");
    namespace.send_frames("gone0", &numbered(3..=5));
    daemon.wait_stored("d", 5);
    assert_eq!(frames(&replayed(&daemon, "d")), numbered(1..=5));
}

#[test]
fn frames_that_find_the_queue_full_are_counted() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    let daemon = Mount::new()
        .inside(&namespace)
        .ring("2M")
        .capture("q", "tap:queue0 udp port 40001")
        .start();
    let socket = sender(&namespace, "queue0");
    daemon.signal(Signal::SIGSTOP);
    wait_until("every thread has stopped", 10, || {
        let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten();
        let status = |path: &Path| fs::read_to_string(path.join("status")).unwrap_or_default();
        threads.into_iter().all(|thread| status(&thread.path()).contains("State:\tT"))
    });
    send(&socket, 1..=3_000);
    daemon.signal(Signal::SIGCONT);
    let counts = || {
        let status = daemon.status("q");
        let count = |name: &str| status["packets"][name].as_u64().unwrap();
        (count("stored"), count("dropped_interface"))
    };
    wait_until("all are accounted for", 10, || {
        let (stored, dropped) = counts();
        stored + dropped == 3_000
    });
    let (stored, dropped) = counts();
    assert!(stored >= 500 && dropped > 0, "{stored} {dropped}");
}

/// A device that an administrator has made for the user, in a namespace.
fn made_for_user(name: &str) -> Namespace {
    let namespace = Namespace::new();
    let user = USER.id.to_string();
    ip_in(&namespace, &["tuntap", "add", "dev", name, "mode", "tap", "user", &user]);
    namespace
}

/// A folder with `/dev/net/tun` as most machines have it: open to all users.
fn device_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    chown(folder.path(), Some(USER.id), Some(USER.group)).unwrap();
    let device = folder.path().join("tun");
    let _ = run(tool("mknod").arg(&device).args(["c", "10", "200"]), 5).success();
    fs::set_permissions(&device, fs::Permissions::from_mode(0o666)).unwrap();
    folder
}

/// `pcapfs` of the user, without a tree, in a mount namespace with that device.
fn of_user(folder: &Path, arguments: &[&str]) -> Command {
    const SCRIPT: &str = "mount --bind \"$1\" /dev/net/tun && shift && exec \"$@\"";
    let mut command = tool("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(folder.join("tun"));
    let user = USER.command(binary("pcapfs").to_str().unwrap());
    command.arg(user.get_program()).args(user.get_args());
    command.args(arguments).env(SOCKET, folder.join("socket"));
    command
}

#[test]
fn a_device_of_the_user_needs_no_capability() {
    skip_unless!(root, "ip", "unshare", "setpriv");
    let namespace = made_for_user("mine0");
    let folder = device_folder();
    let place = folder.path().join("rings");
    let start = |source: &str| {
        let capture = format!("mine={source}");
        let rings = place.to_str().unwrap();
        let words = ["mount", "none", "-c", &capture, "--ring", "1M", "--ring-dir", rings];
        let mut command = of_user(folder.path(), &words);
        namespace.run(|| Running::spawn(&mut command))
    };
    let mut down = start("tap:mine0");
    assert_eq!(down.wait(10).code(), Some(1));
    let said = down.stderr();
    assert!(said.contains("tap:mine0: the interface is down (ip link set mine0 up)"), "{said}");
    ip_in(&namespace, &["link", "set", "mine0", "up"]);
    let mut daemon = start("tap:mine0");
    wait_until("it is ready", 20, || daemon.stderr().contains("ready"));
    let rights = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let none = "CapEff:\t0000000000000000";
    assert!(rights.contains(none) && rights.contains("CapPrm:\t0000000000000000"), "{rights}");
    namespace.send_frames("mine0", &numbered(1..=6));
    let status = || {
        let asked = run(&mut of_user(folder.path(), &["status", "mine", "--json"]), 10).success();
        serde_json::from_str::<Value>(asked.text()).unwrap()
    };
    wait_until("all are stored", 10, || status()["packets"]["stored"] == 6);
    let replayed = run(&mut of_user(folder.path(), &["replay", "mine"]), 10).success();
    assert_eq!(frames(&replayed.stdout), numbered(1..=6));
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait(10).success());
    assert!(shown(&namespace, "mine0").is_some(), "it is the administrator's");
}

/// The line with which a daemon refuses to start with this source.
#[track_caller]
fn refusal(namespace: &Namespace, source: &str) -> String {
    let mount = Mount::new().inside(namespace).capture("x", source);
    let refused = mount.try_start().expect_err("it is refused");
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    refused.stderr
}

#[test]
fn what_is_wrong_with_a_device_is_named() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    let daemon = Mount::new().inside(&namespace).ring("1M").capture("a", "tap:used0").start();
    for name in ["kept0", "several0"] {
        ip_in(&namespace, &["tuntap", "add", "dev", name, "mode", "tap"]);
    }
    ip_in(&namespace, &["link", "delete", "several0"]);
    ip_in(&namespace, &["tuntap", "add", "dev", "several0", "mode", "tap", "multi_queue"]);
    for (source, part) in [
        ("tap:used0", "tap:used0: another program or capture has the device open"),
        ("tap:lo", "tap:lo: the interface is no tap device"),
        ("tun:kept0", "tun:kept0: it is a tap device (write tap:kept0)"),
        ("tap:several0", "tap:several0: the device has several queues"),
        ("tap:kept0,mtu=9000", "its mtu is 1500 (ip link set kept0 mtu 9000)"),
        ("tap:kept0,mac=02:00:00:00:00:01", "(ip link set kept0 address 02:00:00:00:00:01)"),
        ("tap:new0,persist,group=no-such-group", "group=no-such-group: no such group"),
        ("tap:new0,fast", "'fast' is no option of a device"),
        ("tap:new0 prot tcp", "does not compile"),
    ] {
        let said = refusal(&namespace, source);
        assert!(said.contains(part), "{source}: {said}");
    }
    assert_eq!(shown(&namespace, "new0"), None, "nothing is left");
    daemon.wait_state("a", "running");
}

#[test]
fn only_root_has_devices_made() {
    skip_unless!(root, "ip", "unshare", "setpriv");
    let namespace = Namespace::new();
    let folder = device_folder();
    let rings = folder.path().join("rings");
    let rings = rings.to_str().unwrap();
    let words = ["mount", "none", "-c", "x=tap:none0", "--ring-dir", rings];
    let mut command = of_user(folder.path(), &words);
    let refused = namespace.run(|| run(&mut command, 10));
    assert_eq!(refused.status.code(), Some(1));
    let part = "tap:none0: no such interface (only root may make it; make it with: ip tuntap add \
                dev none0 mode tap user pcapfs)";
    assert!(refused.stderr.contains(part), "{}", refused.stderr);
    let daemon = Mount::new().inside(&namespace).ring("1M").capture("own", "lo udp port 9").start();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    open(daemon.mountpoint());
    open(daemon.socket().parent().unwrap());
    let refused = USER.verb(&daemon, &["init", "tap:none0"]);
    assert!(refused.stderr.contains("tap:none0: only root"), "{}", refused.stderr);
    assert_eq!(shown(&namespace, "none0"), None);
    let _ = daemon.verb(["init", "tap:none0", "--alias", "made"]);
    assert!(shown(&namespace, "none0").is_some());
    let _ = daemon.verb(["remove", "made"]);
    wait_until("it is gone", 10, || shown(&namespace, "none0").is_none());
}

#[test]
fn a_persistent_device_stays_and_is_found_again() {
    skip_unless!(root, "ip");
    let namespace = Namespace::new();
    let start =
        |source: &str| Mount::new().inside(&namespace).ring("1M").capture("p", source).start();
    let mut daemon = start("tap:stay0,mtu=1400,persist");
    let made = shown(&namespace, "stay0").unwrap();
    assert!(made.contains("persist on user root"), "{made}");
    assert!(daemon.terminate().success());
    assert!(shown(&namespace, "stay0").unwrap().contains("mtu 1400"));
    let daemon = start("tap:stay0,mtu=1400,persist");
    namespace.send_frames("stay0", &numbered(1..=3));
    daemon.wait_stored("p", 3);
    let mut other = start("tap:group0,persist,group=65482");
    let made = shown(&namespace, "group0").unwrap();
    assert!(made.contains("persist on group 65482"), "{made}");
    assert!(other.terminate().success());
}

#[test]
fn the_helper_makes_the_device_for_a_daemon_without_rights() {
    skip_unless!(root, "ip", "unshare", "nsenter");
    let host = Host::new();
    let name = format!("pt{}", std::process::id() % 1_000_000_000);
    let _ =
        host.mount(&format!("tap:{name},mtu=1400"), "alias=lab,filter=udp port 40001").success();
    let daemon = host.daemon().expect("it runs");
    let rights = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
    // CAP_NET_RAW
    assert!(rights.contains("CapEff:\t0000000000002000"), "{rights}");
    let shown = run(tool("ip").args(["-details", "link", "show", "dev", &name]), 5).success();
    assert!(shown.text().contains("mtu 1400") && shown.text().contains("tun type tap"));
    send_frames(&name, &numbered(1..=5));
    wait_until("all are stored", 10, || host.count("lab", "/packets/stored") == 5);
    let _ = host.umount().success();
    host.wait_gone();
    let gone = run(tool("ip").args(["link", "show", "dev", &name]), 5);
    assert!(!gone.status.success(), "{}", gone.text());
    // An interface that is there is not given to the daemon.
    let refused = host.mount("tap:lo", "alias=lab");
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("tap:lo: "), "{}", refused.stderr);
    host.wait_gone();
}

#[test]
fn a_daemon_of_mount_attaches_to_a_device_of_its_user() {
    skip_unless!(root, "ip", "unshare", "nsenter", "mknod");
    let (host, folder) = (Host::new(), device_folder());
    let mut bind = host.command("mount");
    let bound = run(bind.arg("--bind").arg(folder.path().join("tun")).arg("/dev/net/tun"), 5);
    let _ = bound.success();
    let name = format!("pu{}", std::process::id() % 1_000_000_000);
    let _device = OwnedDevice::new(&name, Host::USER);
    let mounted = host.mount(&format!("tap:{name}"), "alias=lab,filter=udp port 40001");
    let _ = mounted.success();
    send_frames(&name, &numbered(1..=5));
    wait_until("all are stored", 10, || host.count("lab", "/packets/stored") == 5);
    let _ = host.umount().success();
    host.wait_gone();
    assert!(run(tool("ip").args(["link", "show", "dev", &name]), 5).status.success(), "it stays");
}

/// A tap device of a user in the namespace of this process, deleted on drop.
struct OwnedDevice<'a>(&'a str);

impl<'a> OwnedDevice<'a> {
    fn new(name: &'a str, user: u32) -> Self {
        ip(&["tuntap", "add", "dev", name, "mode", "tap", "user", &user.to_string()]);
        let device = Self(name);
        ip(&["link", "set", name, "up"]);
        device
    }
}

impl Drop for OwnedDevice<'_> {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", self.0]).status();
    }
}
