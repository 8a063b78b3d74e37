//! Three machines with daemons, and a server on a fourth: their lines, and the packets of a flow.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pcapfs_tests::net::ip;
use pcapfs_tests::{
    ALIAS, Fed, Finished, Mount, Namespace, Running, binary, run, saved_places, skip_unless, tool,
    wait_for_place, wait_until,
};
use tempfile::TempDir;

use crate::support::{Nats, end, exchange, expected, fleet_json, found, publish_as};

/// The machine of the server and of the people who ask, with a bridge to all others.
struct Site {
    hub: Arc<Namespace>,
    folder: TempDir,
}

/// A machine with a daemon.
struct Machine {
    host: &'static str,
    fed: Fed,
    namespace: Namespace,
    /// Where its publisher keeps its place.
    place: (TempDir, PathBuf),
}

impl Site {
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

    fn new() -> Self {
        let hub = Namespace::new();
        ip(&["-n", hub.name(), "link", "add", "hub", "type", "bridge"]);
        ip(&["-n", hub.name(), "address", "add", "10.78.0.1/24", "dev", "hub"]);
        ip(&["-n", hub.name(), "link", "set", "hub", "up"]);
        Self { hub: Arc::new(hub), folder: tempfile::tempdir().expect("a folder for the test") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds a machine, with the service for other machines.
    #[track_caller]
    fn machine(&self, host: &'static str, number: u8) -> Machine {
        let (namespace, address) = (Namespace::new(), format!("10.78.0.{number}"));
        let (hub, name, port) = (self.hub.name(), namespace.name(), format!("port{number}"));
        ip(&[
            "-n", hub, "link", "add", &port, "type", "veth", "peer", "name", "wire", "netns", name,
        ]);
        ip(&["-n", hub, "link", "set", &port, "master", "hub", "up"]);
        ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "wire"]);
        ip(&["-n", name, "link", "set", "wire", "up"]);
        let identity = self.path(&format!("{host}.identity"));
        let certificate = self.path(&format!("{host}.pem"));
        let made = |words: &[&str], more: &[&Path]| {
            let mut command = pcapfs();
            command.arg("identity").args(words).args(more).arg("--dir").arg(&identity);
            let _ = run(&mut command, 10).success();
        };
        made(&["init", "--name", &address], &[]);
        made(&["issue", "laptop-7", "-o"], &[&certificate]);
        let config = self.path(&format!("{host}.toml"));
        let text = format!(
            "[remote]\nlisten = \"{address}\"\nidentity = \"{}\"\n\
             [[remote.client]]\nname = \"laptop-7\"\nuser = \"root\"\n",
            identity.display()
        );
        fs::write(&config, text).expect("our own folder");
        let fed = Fed::with(Mount::new().inside(&namespace).arg("--config").arg(&config));
        let mut add = self.command(&["remote", "add", host, &format!("pcap://{address}")]);
        let _ = run(add.arg("--identity").arg(certificate), 10).success();
        Machine { host, fed, namespace, place: saved_places() }
    }

    /// A command with the remotes of this site.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = pcapfs();
        command.args(words).env("XDG_CONFIG_HOME", self.path("config"));
        command.env("PCAPFS_SOCKET", self.path("no.sock"));
        command
    }

    /// Runs a command on the machine of the people who ask.
    fn ask(&self, words: &[&str]) -> Finished {
        let mut command = self.command(words);
        self.hub.run(|| run(&mut command, 30))
    }

    /// The message of a command that must fail.
    #[track_caller]
    fn refused(&self, words: &[&str]) -> String {
        let finished = self.ask(words);
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        finished.stderr
    }
}

impl Machine {
    #[track_caller]
    fn publish(&self, server: &Nats, options: &[&str]) -> Running {
        let mut command =
            publish_as(self.host, &self.fed.daemon, &self.place.1, &server.url(), options);
        let process = self.namespace.run(|| Running::spawn(command.arg("--insecure")));
        wait_for_place(&self.place.1, "/lines/http");
        process
    }
}

fn pcapfs() -> Command {
    tool(binary("pcapfs").to_str().expect("test paths are text"))
}

#[test]
fn lines_of_three_machines_add_up_and_packets_come_from_theirs() {
    const COUNT: u16 = 100;
    skip_unless!(root, "ip", "nats-server", "python3");
    let site = Site::new();
    let hosts = [("hall.example", 2), ("cellar", 3), ("attic", 4)];
    let mut machines = hosts.map(|(host, number)| site.machine(host, number));
    let mut server = Nats::inside(&site.hub, Site::ADDRESS, &[]);
    let options = ["--what", "http,flows", "--create-stream"];
    let mut publishers = machines.each_ref().map(|one| one.publish(&server, &options));
    let mut send = |ports: std::ops::RangeInclusive<u16>| {
        for port in ports {
            machines.iter_mut().for_each(|one| one.fed.feed.write(&exchange(port, "")));
        }
    };
    send(1..=COUNT / 2);
    server.kill();
    send(COUNT / 2 + 1..=COUNT);
    server.run();
    let count = u64::from(COUNT);
    wait_until("the lines of all machines are there", 30, || {
        let rows = fleet_json(&server, &["hosts"]);
        rows.len() == 3 && rows.iter().all(|row| row["http"] == count && row["flows"] == 2 * count)
    });
    for (host, _) in hosts {
        assert_eq!(found(&server, &["--host", host]), expected(1..=COUNT), "{host}");
    }
    for publisher in &mut publishers {
        // A line whose acknowledgement was lost with the server is sent again, and counted once.
        let sums = end(publisher);
        assert_eq!((&sums["messages"], &sums["lost"]), (&(3 * count).into(), &0.into()), "{sums}");
    }

    let words = ["find", "--host", "cellar", "--match", "target=/7"];
    let line = fleet_json(&server, &words).remove(0);
    let reference = line["fleet"]["ref"].as_str().expect("a reference");
    let file = site.path("flow.pcap");
    let words = ["fleet", "packets", reference, "-w", file.to_str().expect("text")];
    let _ = site.ask(&words).success();
    let tree =
        machines[1].fed.daemon.path("web/flows/000007-tcp-10.0.0.1.7-10.0.0.2.80/packets.pcap");
    let packets = fs::read(&file).unwrap();
    assert!(packets == fs::read(tree).unwrap() && packets.len() > 24);
    let printed = site.ask(&["fleet", "packets", reference, "--remote", "attic"]).success();
    assert_eq!(printed.stdout.len(), packets.len(), "the same flow of another machine");

    let said = site.refused(&["fleet", "packets", "roof/web/7-10.0.0.1.7-10.0.0.2.80"]);
    let parts = ["roof: no remote has the name", "hall.example", "--remote NAME"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    let said = site.refused(&["fleet", "packets", "cellar/web/7-10.0.0.1.8-10.0.0.2.80"]);
    assert!(said.contains("no flow 7 between 10.0.0.1.8 and 10.0.0.2.80"), "{said}");
    let said = site.refused(&["fleet", "packets", "cellar/dns/7-10.0.0.1.7-10.0.0.2.80"]);
    assert!(said.contains("dns: no such capture"), "{said}");
    let said = site.refused(&["fleet", "packets", reference, "--remote", "roof"]);
    assert!(said.contains("roof: no such remote"), "{said}");
    let finished = site.ask(&["fleet", "packets", "cellar/web/7"]);
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("HOST/CAPTURE/FLOW"), "{}", finished.stderr);
}

#[test]
fn packets_of_this_machine_need_no_remote() {
    skip_unless!(mount);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux has it");
    let mut fed = Fed::start();
    fed.feed.write(&exchange(1, ""));
    let flow = fed.daemon.path("web/flows/000001-tcp-10.0.0.1.1-10.0.0.2.80/packets.pcap");
    wait_until("the flow is there", 10, || records_in(&flow) == 8);
    let reference = format!("{}/web/000001-tcp-10.0.0.1.1-10.0.0.2.80", host.trim());
    let mut command = fed.daemon.command(["fleet", "packets", &reference]);
    let output = run(&mut command, 10).success();
    assert_eq!(output.stdout, fs::read(&flow).unwrap());
    // The flow leaves with its packets.
    let _ = run(&mut fed.daemon.command(["stop", ALIAS]), 10).success();
    fs::write(fed.daemon.path("web/ctl"), "clear\n").unwrap();
    let finished = run(&mut fed.daemon.command(["fleet", "packets", &reference]), 10);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("web: no flow 1 between"), "{}", finished.stderr);
}

/// The number of whole records of a savefile.
fn records_in(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap_or_default();
    let mut rest = bytes.get(24..).unwrap_or_default();
    let mut count = 0;
    while let Some(length) = rest.get(8..12).and_then(|four| four.try_into().ok()) {
        let length = u32::from_le_bytes(length) as usize;
        let Some(after) = rest.get(16 + length..) else { break };
        (rest, count) = (after, count + 1);
    }
    count
}
