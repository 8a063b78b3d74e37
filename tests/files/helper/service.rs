//! systemd and the service unit.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pcapfs_tests::savefile::{Format, numbered};
use pcapfs_tests::{Host, Net, Running, run, skip_unless, tool, wait_until};
use serde_json::Value;

use crate::support::{answers_again, configure, status_line, wait_captures};

fn is_alive(pid: Pid) -> bool {
    kill(pid, None).is_ok() && !status_line(pid, "State").starts_with(['Z', 'X'])
}

/// Receives notifications in place of systemd.
struct Notified {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Notified {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, heard: Vec::new() }
    }

    fn hear(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut bytes) {
            self.heard.push(String::from_utf8(bytes[..len].to_vec()).unwrap());
        }
    }

    fn count(&mut self, line: &str) -> usize {
        self.hear();
        self.heard.iter().flat_map(|state| state.lines()).filter(|heard| *heard == line).count()
    }
}

#[test]
fn systemd_is_notified_and_a_daemon_that_hangs_is_replaced() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    fs::write(host.path("trace.pcap"), numbered(Format::default(), 10, 100)).unwrap();
    let mut notified = Notified::new(&host.path("notify"));
    let mut helper = host.command("mount.pcapfs");
    helper
        .args(["--foreground", &format!("file:{}", host.path("trace.pcap").display())])
        .arg(host.captures())
        .env("NOTIFY_SOCKET", host.path("notify"))
        .env("WATCHDOG_USEC", "2000000");
    let mut supervisor = Running::spawn(&mut helper);
    wait_until("READY=1", 10, || notified.count("READY=1") == 1);
    assert!(host.try_status("trace").is_some(), "it was said when the tree answered");
    let lives = notified.count("WATCHDOG=1");
    wait_until("WATCHDOG=1", 5, || notified.count("WATCHDOG=1") > lives + 1);

    let daemon = host.daemon().unwrap();
    kill(daemon, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    wait_until("it is killed", 10, || !is_alive(daemon));
    let (_, _) = answers_again(&host, daemon);
    eprintln!("a daemon that hung was replaced after {} ms", begun.elapsed().as_millis());
    assert!(supervisor.stderr().contains("does not answer"), "{}", supervisor.stderr());
    let lives = notified.count("WATCHDOG=1");
    wait_until("WATCHDOG=1 again", 5, || notified.count("WATCHDOG=1") > lives);

    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.wait(10).success(), "{}", supervisor.stderr());
    assert_eq!((notified.count("STOPPING=1"), notified.count("READY=1")), (1, 1));
    host.wait_gone();
}

/// `setpriv` with the rights that the unit leaves. The program is to be added.
fn confined(host: &Host) -> Command {
    let capabilities = setting("CapabilityBoundingSet").unwrap();
    let capabilities: Vec<_> = capabilities
        .split_whitespace()
        .map(|name| format!("+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()))
        .collect();
    let mut command = host.command("setpriv");
    command
        .arg(format!("--bounding-set=-all,{}", capabilities.join(",")))
        .args(["--inh-caps=-all", "--no-new-privs"]);
    command
}

/// A setting of the unit, by name.
fn setting(name: &str) -> Option<String> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/pcapfs.service");
    let text = fs::read_to_string(unit).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.map(str::to_owned)
}

#[test]
fn the_rights_the_service_leaves_are_enough() {
    skip_unless!(root, "nsenter", "setpriv");
    // Each of these settings would give the service a mount namespace of its own, and no other
    // process would see its tree.
    for name in [
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateUsers",
        "ProtectSystem",
        "ProtectHome",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectProc",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "InaccessiblePaths",
        "BindPaths",
        "TemporaryFileSystem",
        "RootDirectory",
        "DynamicUser",
    ] {
        assert_eq!(setting(name), None, "{name}");
    }
    let (host, net) = (Host::new(), Net::new());
    let mut helper = confined(&host);
    helper
        .args(["mount.pcapfs", "--foreground", Net::DEVICE])
        .arg(host.captures())
        .args(["-o", &format!("alias=web,ring=1M,{}", host.ring_option())]);
    let mut supervisor = net.a.run(|| Running::spawn(&mut helper));
    wait_until("the tree answers", 10, || {
        assert!(supervisor.try_wait().is_none(), "{}", supervisor.stderr());
        supervisor.stderr().contains("ready at")
    });
    assert_eq!(status_line(supervisor.pid(), "NoNewPrivs"), "1");
    net.sender(200).send(5);
    wait_until("packets are stored", 10, || host.count("web", "/packets/stored") == 5);
    let daemon = host.daemon().unwrap();
    assert_eq!(status_line(daemon, "CapPrm"), "0000000000002000");
    kill(daemon, Signal::SIGKILL).unwrap();
    let _ = answers_again(&host, daemon);
    assert_eq!(host.count("web", "/packets/stored"), 5);
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.wait(10).success(), "{}", supervisor.stderr());
    host.wait_gone();
}

#[test]
fn a_service_that_is_reloaded_goes_on() {
    skip_unless!(root, "nsenter", "setpriv");
    let host = Host::new();
    let config = configure(&host, &["web"]);
    let mut helper = confined(&host);
    helper.args(["mount.pcapfs", "--foreground", "none"]).arg(host.captures());
    helper.args(["-o", &format!("config={},{}", config.display(), host.ring_option())]);
    let mut supervisor = Running::spawn(&mut helper);
    // Reload from the first moment at which there is a daemon.
    let reload = setting("ExecReload").unwrap();
    assert_eq!(reload, "/bin/kill -HUP $MAINPID");
    wait_until("there is a daemon", 10, || host.daemon().is_some());
    // Again and again until the tree answers, so at every stage of the start.
    wait_until("the tree answers", 20, || {
        supervisor.signal(Signal::SIGHUP);
        host.try_status("").is_some()
    });
    wait_captures(&host, &["web"]);
    let daemon = host.daemon().unwrap();
    configure(&host, &["web", "dns"]);
    let main = supervisor.pid().to_string();
    let _ = run(tool("sh").args(["-c", &reload]).env("MAINPID", main), 5).success();
    wait_captures(&host, &["web", "dns"]);
    assert_eq!(host.daemon(), Some(daemon));
    let said = supervisor.stderr();
    assert!(said.contains("read again") && !said.contains("starting it again"), "{said}");
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.wait(10).success(), "{}", supervisor.stderr());
    host.wait_gone();
}

/// The service as installed: `ExecStart=` of the unit, with all places at their defaults.
#[test]
fn the_service_can_be_steered_and_remembers() {
    skip_unless!(root, "nsenter", "setpriv");
    let host = Host::new();
    let config = configure(&host, &["web"]);
    let start = setting("ExecStart").unwrap();
    let options = start.split_once(" -o ").unwrap().1;
    assert_eq!(options, "config=/etc/pcapfs/pcapfs.toml", "no place is chosen");
    let start = || {
        let mut helper = confined(&host);
        helper.args(["mount.pcapfs", "--foreground", "none"]).arg(host.captures());
        helper.args(["-o", &format!("config={}", config.display())]);
        let supervisor = Running::spawn(&mut helper);
        wait_until("the tree answers", 10, || supervisor.stderr().contains("ready at"));
        supervisor
    };
    let pcapfs = |words: &[&str]| {
        run(host.command("pcapfs").args(words).env_remove("PCAPFS_SOCKET"), 20).success()
    };
    let aliases = || -> Vec<String> {
        let listed: Value = serde_json::from_str(pcapfs(&["list", "--json"]).text()).unwrap();
        let captures = listed.as_array().unwrap().iter();
        captures.map(|capture| capture["alias"].as_str().unwrap().to_owned()).collect()
    };
    let mut supervisor = start();
    assert_eq!(aliases(), ["web"]);
    let _ = pcapfs(&["init", "lo", "udp port 53", "--alias", "dns"]);
    assert_eq!(aliases(), ["web", "dns"]);
    for (path, mode) in [("/run/pcapfs", 0o755), ("/var/lib/pcapfs", 0o700)] {
        let found = fs::metadata(host.inside(path)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (Host::USER, mode), "{path}");
    }
    // Captures outlive a daemon that dies, and a service that is stopped and started.
    let daemon = host.daemon().unwrap();
    kill(daemon, Signal::SIGKILL).unwrap();
    let _ = answers_again(&host, daemon);
    assert_eq!(aliases(), ["web", "dns"]);
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.wait(10).success(), "{}", supervisor.stderr());
    host.wait_gone();
    assert!(!host.inside("/run/pcapfs/control.sock").exists());
    let mut supervisor = start();
    assert_eq!(aliases(), ["web", "dns"]);
    let _ = pcapfs(&["remove", "dns"]);
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.wait(10).success(), "{}", supervisor.stderr());
    host.wait_gone();
}

/// The tree is mounted by root, as people try it first, then by the service, and again by each.
/// Each has a place of its own for captures made by `init`, and can still write to it after root
/// has run `forget` on it.
#[test]
fn root_and_the_service_keep_theirs_apart() {
    skip_unless!(root, "mount", "setpriv");
    let host = Host::new();
    let pcapfs = |words: &[&str]| {
        run(host.command("pcapfs").args(words).env_remove("PCAPFS_SOCKET"), 20).success()
    };
    let aliases = || -> Vec<String> {
        let listed: Value = serde_json::from_str(pcapfs(&["list", "--json"]).text()).unwrap();
        let captures = listed.as_array().unwrap().iter();
        captures.map(|capture| capture["alias"].as_str().unwrap().to_owned()).collect()
    };
    let place = host.captures();
    let place = place.to_str().unwrap();
    let as_root = || pcapfs(&["mount", place, "-i", "lo", "--ring", "1M", "--background"]);
    let as_service = || {
        // All places at their defaults: neither ring_dir= nor state=.
        let mut mount = host.command("mount");
        let mounted = run(mount.args(["-t", "pcapfs", "-o", "ring=1M", "lo", place]), 15).success();
        assert_eq!(mounted.stderr, "", "nothing is amiss");
    };
    let end = || {
        let _ = pcapfs(&["umount", place]);
        host.wait_gone();
    };
    let init = |alias: &str| {
        let made = pcapfs(&["init", "lo", "udp port 53", "--ring", "1M", "--alias", alias]);
        assert_eq!(made.stderr, "", "it is kept");
    };
    let _ = as_root();
    init("roots");
    end();
    as_service();
    assert_eq!(aliases(), ["lo"]);
    init("services");
    end();
    let _ = as_root();
    assert_eq!(aliases(), ["lo", "roots"]);
    end();
    as_service();
    assert_eq!(aliases(), ["lo", "services"]);
    end();
    for alias in ["roots", "services"] {
        assert!(pcapfs(&["forget", alias]).text().contains("a capture made by pcapfs init"));
    }
    as_service();
    assert_eq!(aliases(), ["lo"]);
    init("services");
    end();
}
