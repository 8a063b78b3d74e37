//! DNS: `dns.jsonl` of captures and flows, from real resolvers and from captures of other projects.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use pcapfs_tests::conversation::{EPOCH, merged, records, savefile_of};
use pcapfs_tests::flows::{flow, json, lines, listed};
use pcapfs_tests::measure::Peak;
use pcapfs_tests::require::testdata;
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Fifo, Mount, Net, Running, Server, Wired, python, run,
    skip_unless, wait_for, wait_until,
};
use serde_json::{Value, json};

/// Starts dnsmasq on the wire's side `a`. It knows `known.test`, and denies the rest of `test`.
fn resolver(wired: &Wired) -> Running {
    let server = wired.net.a.run(|| {
        Running::spawn(
            Command::new("dnsmasq")
                .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--no-daemon"])
                .args(["--conf-file=/dev/null", "--user=root", "--pid-file", "--bind-interfaces"])
                .arg(format!("--listen-address={}", Net::ADDRESS))
                .args([
                    "--local=/test/",
                    "--host-record=known.test,10.1.2.3",
                    "--log-queries=extra",
                ]),
        )
    });
    wired.net.b.run(|| {
        wait_until("the resolver answers", 10, || {
            let probe = run(dig().args(["+short", "ready.test"]), 10);
            !probe.text().contains("no servers could be reached")
        });
    });
    server
}

/// dig, which asks the resolver once.
fn dig() -> Command {
    let mut dig = Command::new("dig");
    dig.arg(format!("@{}", Net::ADDRESS)).args(["+tries=1", "+timeout=1", "+nocookie"]);
    dig
}

/// Asks the resolver, which must answer.
fn ask(args: &[&str]) {
    let done = run(dig().args(args), 10).success();
    assert!(done.text().contains("status: "), "{}", done.text());
}

/// The lines for a name, in a log.
fn of_name(log: &Path, name: &str) -> Vec<Value> {
    lines(log).into_iter().filter(|line| line["name"] == name).collect()
}

#[test]
fn a_real_resolver_over_udp_and_tcp() {
    skip_unless!(root, "dig", "dnsmasq");
    let wired = Wired::start();
    let log = wired.daemon.path(ALIAS).join("dns.jsonl");
    let _server = resolver(&wired);
    wired.net.b.run(|| {
        ask(&["known.test", "A"]);
        ask(&["+tcp", "known.test", "A"]);
        ask(&["denied.test", "AAAA"]);
        // No program listens at this port, so there is no response.
        run(dig().args(["-p", "5355", "lost.test", "TXT"]), 10);
    });
    let known = wait_for("both answers have lines", 10, || {
        Some(of_name(&log, "known.test")).filter(|lines| lines.len() == 2)
    });
    for line in &known {
        assert_eq!((&line["type"], &line["rcode"]), (&json!("A"), &json!("NOERROR")), "{line}");
        assert_eq!(line["answers"][0]["data"], "10.1.2.3", "{line}");
        assert_eq!(line["server"], json!({"address": Net::ADDRESS, "port": 53}), "{line}");
        assert_eq!(line["client"]["address"], Net::PEER_ADDRESS, "{line}");
        assert!(line["duration_us"].as_u64().is_some_and(|time| time < 1_000_000), "{line}");
        let folder = flow(&wired.daemon, line["flow"].as_u64().unwrap());
        assert!(lines(&folder.join("dns.jsonl")).contains(line), "{}", folder.display());
        let meta = json(&folder.join("meta.json"));
        assert_eq!(meta["application"], "dns", "{meta}");
        assert!(!listed(&folder).contains(&"http".to_owned()), "{}", folder.display());
    }
    let protocols: Vec<_> = known
        .iter()
        .map(|line| flow(&wired.daemon, line["flow"].as_u64().unwrap()))
        .map(|folder| json(&folder.join("meta.json"))["protocol"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(protocols, ["udp", "tcp"]);
    let denied = of_name(&log, "denied.test");
    assert_eq!((&denied[0]["rcode"], &denied[0]["type"]), (&json!("NXDOMAIN"), &json!("AAAA")));
    // The end of the capture is the end of what waits.
    assert_eq!(of_name(&log, "lost.test"), [] as [Value; 0]);
    fs::write(wired.daemon.path(ALIAS).join("ctl"), "stop\n").unwrap();
    let lost = wait_for("the query without a response has a line", 10, || {
        of_name(&log, "lost.test").pop()
    });
    assert_eq!((&lost["state"], &lost["answered"]), (&json!("unanswered"), &json!(null)), "{lost}");
    assert_eq!(wired.daemon.status(ALIAS)["flows"]["engine_lost_packets"], 0);
}

#[test]
fn the_log_is_followed_beside_that_of_http() {
    skip_unless!(root, "dig", "dnsmasq", "python3");
    let wired = Wired::start();
    let tail = Running::spawn(
        Command::new("tail")
            .args(["-f", "-c", "+1"])
            .arg(wired.daemon.path(ALIAS).join("dns.jsonl")),
    );
    let _server = resolver(&wired);
    let folder = tempfile::tempdir().unwrap();
    let server = "
import http.server, sys
server = http.server.HTTPServer((sys.argv[1], 8000), http.server.SimpleHTTPRequestHandler)
print('ready', flush=True)
server.serve_forever()
";
    let web = wired
        .net
        .a
        .run(|| Running::spawn(python(server).arg(Net::ADDRESS).current_dir(folder.path())));
    web.wait_stdout("it serves", 10, |bytes| bytes.starts_with(b"ready"));
    for turn in 0..5 {
        let name = format!("name-{turn}.test");
        wired.net.b.run(|| {
            ask(&[&name, "A"]);
            let get = format!(
                "import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 8000)
connection.request('GET', '/{turn}')
connection.getresponse().read()"
            );
            let done = run(python(&get).arg(Net::ADDRESS), 20).success();
            assert_eq!(done.text(), "");
        });
        tail.wait_stdout("the line comes", 10, |bytes| {
            bytes.windows(name.len()).any(|part| part == name.as_bytes())
        });
    }
    let http = wired.daemon.path(ALIAS).join("http.jsonl");
    wait_until("all requests have lines", 10, || lines(&http).len() == 5);
    let targets: Vec<_> = lines(&http).iter().map(|line| line["target"].clone()).collect();
    assert_eq!(targets, ["/0", "/1", "/2", "/3", "/4"]);
}

/// Captures with DNS, of other projects.
const CAPTURES: [&str; 12] = [
    "OISF+suricata-verify/tests/decode-teredo-01/input.pcap",
    "OISF+suricata-verify/tests/vxlan-decoder-03/vxlan.pcap",
    "seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples/DnsPackets.pcap",
    "seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples/IgmpPackets.pcap",
    "stanford-esrg+retina/traces/quic.pcap",
    "zeek+zeek/testing/btest/Traces/erspan.pcap",
    "zeek+zeek/testing/btest/Traces/ipv6-fragmented-dns.pcap",
    "zeek+zeek/testing/btest/Traces/pcapng-multi-interface.pcapng",
    "zeek+zeek/testing/btest/Traces/tunnels/Teredo.pcap",
    "zeek+zeek/testing/btest/Traces/tunnels/gre-pptp.pcap",
    "zeek+zeek/testing/btest/Traces/tunnels/gre-sample.pcap",
    "zeek+zeek/testing/btest/Traces/tunnels/vxlan-triple-v2.pcap",
];

/// Questions of messages: whether the message is a response, its id, and the name. A query that was
/// repeated is in one line.
type Seen = BTreeSet<(bool, u64, String)>;

/// The questions of messages that tshark finds.
fn seen_by_tshark(path: &Path) -> Seen {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-Y", "(dns or mdns or llmnr) and not icmp and not icmpv6"]);
    tshark.args(["-T", "fields", "-E", "aggregator=|"]);
    for field in ["dns.flags.response", "dns.id", "dns.qry.name"] {
        tshark.args(["-e", field]);
    }
    let output = run(&mut tshark, 60);
    let mut seen = Seen::new();
    for line in output.success().text().lines() {
        let mut fields = line.split('\t').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_default();
        let (response, id, names) = (next(), next(), next());
        let id = u64::from_str_radix(id.trim_start_matches("0x"), 16).unwrap();
        let is_response = matches!(&*response, "1" | "True");
        for name in names.split('|') {
            seen.insert((is_response, id, name.to_lowercase()));
        }
    }
    seen
}

/// The questions of messages that lines are about.
fn seen_by_lines(lines: &[Value]) -> Seen {
    let mut seen = Seen::new();
    for line in lines {
        let name = line["name"].as_str().unwrap_or_default().to_lowercase();
        let name = if name == "." { "<root>".to_owned() } else { name };
        for (is_response, time) in [(false, &line["queried"]), (true, &line["answered"])] {
            if !time.is_null() {
                let id = line["id"].as_u64().unwrap();
                seen.insert((is_response, id, name.clone()));
            }
        }
    }
    seen
}

#[test]
fn captures_of_other_projects_have_the_messages_that_tshark_finds() {
    skip_unless!(mount, "tshark");
    for capture in CAPTURES {
        let Some(path) = testdata(capture) else { continue };
        let daemon = Mount::new().capture(ALIAS, &format!("file:{}", path.display())).start();
        wait_until("the capture has ended", 60, || daemon.status(ALIAS)["state"] == "ended");
        let log = lines(&daemon.path(ALIAS).join("dns.jsonl"));
        let (wanted, seen) = (seen_by_tshark(&path), seen_by_lines(&log));
        assert!(!wanted.is_empty(), "{capture} has DNS");
        let differ: Vec<_> = seen.symmetric_difference(&wanted).collect();
        assert!(differ.is_empty(), "{capture}: {differ:?}");
        let mut of_flows = 0;
        for name in listed(&daemon.path(ALIAS).join("flows")) {
            let folder = daemon.path(ALIAS).join("flows").join(name);
            let meta = json(&folder.join("meta.json"));
            let file = folder.join("dns.jsonl");
            assert_eq!(file.exists(), meta["application"] == "dns", "{}", folder.display());
            if file.exists() {
                let lines = lines(&file);
                assert_eq!(meta["dns"], json!({"transactions": lines.len(), "open": 0}));
                assert!(lines.iter().all(|line| log.contains(line)), "{}", folder.display());
                of_flows += lines.len();
            }
        }
        assert_eq!(of_flows, log.len(), "{capture}: each line is of one flow");
    }
}

/// A query for the addresses of `name`, or the response without any.
fn message(id: u16, is_response: bool, name: &str) -> Vec<u8> {
    let flags: u16 = if is_response { 0x8180 } else { 0x0100 };
    let header = [id, flags, 1, 0, 0, 0].map(u16::to_be_bytes);
    let mut bytes = header.as_flattened().to_vec();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

#[test]
fn lines_are_the_same_after_a_crash() {
    skip_unless!(mount);
    let rings = tempfile::Builder::new().prefix("pcapfs-test-").tempdir_in("/dev/shm").unwrap();
    let mounts = tempfile::tempdir().unwrap();
    let fifo = Fifo::new();
    let mount = || {
        let mount = Mount::new().ring_dir(rings.path()).mountpoint(mounts.path());
        mount.capture(ALIAS, &fifo.source()).start()
    };
    let talks = (0..50_u16).map(|id| {
        let client = format!("10.0.{id}.1:4000");
        let mut talk = Conversation::udp(&client, "10.255.0.1:53").at(EPOCH + u64::from(id));
        let name = format!("name-{id}.test");
        talk.says(Client, message(id, false, &name));
        talk.says(Server, message(id, true, &name));
        talk
    });
    let packets = merged(talks);
    let look = |daemon: &Daemon| {
        let log = daemon.path(ALIAS).join("dns.jsonl");
        wait_for("each query has a line", 10, || {
            Some(lines(&log)).filter(|lines| lines.len() == 50)
        })
    };
    let daemon = mount();
    let mut pipe = fifo.connect();
    pipe.write(&records(&packets));
    let before = look(&daemon);
    assert!(before.iter().all(|line| line["state"] == "answered"));
    daemon.crash();
    drop(pipe);
    let daemon = mount();
    assert_eq!(look(&daemon), before);
    for id in [1, 25, 50] {
        let own = lines(&flow(&daemon, id).join("dns.jsonl"));
        assert_eq!(own.len(), 1);
        assert!(before.contains(&own[0]), "{}", own[0]);
    }
}

#[test]
fn queries_that_wait_stay_within_the_memory_given() {
    skip_unless!(mount);
    const MIB: u64 = 1 << 20;
    const GIVEN: u64 = 8 * MIB;
    // What a daemon needs for itself.
    const OWN: u64 = 32 * MIB;
    let long = "x".repeat(60);
    let talks = (0..400_u32).map(|number| {
        let [_, _, a, b] = number.to_be_bytes();
        let mut talk = Conversation::udp(&format!("10.1.{a}.{b}:4000"), "10.255.0.1:53")
            .at(EPOCH + u64::from(number))
            .every(1_000);
        for id in 0..100 {
            talk.says(Client, message(id, false, &format!("{id}.{number}.{long}.{long}.test")));
        }
        talk
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("waiting.pcap");
    let bytes = savefile_of(talks);
    fs::write(&file, &bytes).unwrap();
    let daemon = Mount::new()
        .args(["--no-wait", "--flow-memory", &GIVEN.to_string()])
        .capture(ALIAS, &format!("file:{}", file.display()))
        .start();
    let peak = Peak::from_now(daemon.pid());
    wait_until("the capture has ended", 120, || daemon.status(ALIAS)["state"] == "ended");
    let flows = daemon.status(ALIAS)["flows"].clone();
    assert!(flows["dropped"].as_u64().unwrap() > 0, "the bound was not reached: {flows:#}");
    // The mapped savefile was not there when the measurement began.
    let most = peak.anonymous().saturating_sub(bytes.len() as u64);
    assert!(most <= GIVEN + OWN, "{} MiB", most / MIB);
    // Each query has a line, or its line was dropped.
    let log = lines(&daemon.path(ALIAS).join("dns.jsonl"));
    let dropped = flows["log_lines_dropped"].as_u64().unwrap();
    assert!(log.iter().all(|line| line["state"] == "unanswered"));
    assert!(log.len() as u64 + dropped >= 40_000, "{} and {dropped}", log.len());
}
