//! `pcapfs publish`: peers are sockets of libzmq, and strangers that are none.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use pcapfs_tests::conversation::records;
use pcapfs_tests::zmq::{lacks_zmq, zmq};
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Fed, Mount, Replaceable, Running, Server, measure, run,
    saved_places, schema, skip_unless, wait_for, wait_for_place, wait_until,
};
use serde_json::Value;

/// Receives messages of libzmq, and prints each: its topic, its JSON and its further frames in
/// hexadecimal, separated by blanks. Its arguments: kind of socket, `bind` or `connect`, endpoint,
/// and what to subscribe to. It goes on reading when a line comes on standard input.
const RECEIVER: &str = r#"
import sys, zmq
kind, how, endpoint = sys.argv[1:4]
socket = zmq.Context().socket(getattr(zmq, kind))
socket.setsockopt(zmq.RCVHWM, 10)
socket.setsockopt(zmq.RCVBUF, 4096)
for topic in sys.argv[4:5] if kind == "SUB" else []:
    socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
getattr(socket, how)(endpoint)
print("ready", flush=True)
if "slow" in sys.argv:
    import os, time
    while not os.path.exists(sys.argv[-1]):
        time.sleep(0.01)
while True:
    frames = socket.recv_multipart()
    print(frames[0].decode(), frames[1].decode().replace(" ", "\\u0020"),
          *(frame.hex() or "-" for frame in frames[2:]), flush=True)
"#;

/// A message.
#[derive(Clone, Debug)]
struct Message {
    topic: String,
    json: Value,
    frames: Vec<Vec<u8>>,
}

/// A socket of libzmq that receives.
struct Receiver(Running);

impl Receiver {
    #[track_caller]
    fn start(kind: &str, how: &str, endpoint: &str, words: &[&str]) -> Self {
        let running = Running::spawn(zmq(RECEIVER).args([kind, how, endpoint]).args(words));
        running.wait_stdout("it is ready", 20, |bytes| bytes.starts_with(b"ready"));
        Self(running)
    }

    fn messages(&self) -> Vec<Message> {
        let text = String::from_utf8(self.0.stdout()).expect("output of the receiver is text");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().skip(1).map(message).collect()
    }

    #[track_caller]
    fn wait_count(&self, count: usize) -> Vec<Message> {
        wait_for(&format!("{count} messages; {}", self.0.stderr()), 40, || {
            let lines = self.0.stdout().iter().filter(|byte| **byte == b'\n').count();
            (lines > count).then(|| self.messages())
        })
    }
}

fn message(line: &str) -> Message {
    let mut words = line.split(' ');
    let topic = words.next().expect("a topic").to_owned();
    let json = serde_json::from_str(words.next().expect("JSON")).expect("JSON");
    let hex = |text: &str| {
        let digits = text.as_bytes().chunks(2).filter(|pair| pair.len() == 2);
        digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    };
    Message { topic, json, frames: words.map(hex).collect() }
}

/// A running publisher.
struct Publisher {
    process: Running,
    endpoint: String,
}

impl Publisher {
    /// Publishes at a free port.
    #[track_caller]
    fn start(daemon: &Daemon, state: &Path, options: &[&str]) -> Self {
        Self::at(daemon, state, "tcp://127.0.0.1:*", options)
    }

    #[track_caller]
    fn at(daemon: &Daemon, state: &Path, endpoint: &str, options: &[&str]) -> Self {
        let mut command = daemon.command(["publish", ALIAS, endpoint, "--json", "--state"]);
        Self::of(command.arg(state).args(options))
    }

    #[track_caller]
    fn of(command: &mut Command) -> Self {
        let process = Running::spawn(command);
        let ready = wait_for("it publishes", 20, || {
            let said = process.stderr();
            assert!(said.is_empty(), "{said}");
            Self::reports(&process).into_iter().find(|report| report["event"] == "ready")
        });
        Self { process, endpoint: ready["endpoint"].as_str().expect("an endpoint").to_owned() }
    }

    fn reports(process: &Running) -> Vec<Value> {
        let text = String::from_utf8(process.stdout()).expect("JSON is text");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    #[track_caller]
    fn wait_report(&self, event: &str) -> Value {
        wait_for(&format!("it reports {event}"), 20, || {
            Self::reports(&self.process).into_iter().find(|report| report["event"] == event)
        })
    }

    /// What has been lost so far.
    fn lost(&self) -> u64 {
        let reports = Self::reports(&self.process);
        let lost = reports.iter().filter(|report| report["event"] == "lost");
        lost.map(|report| report["count"].as_u64().expect("a number")).sum()
    }

    /// Ends it; returns the sums.
    #[track_caller]
    fn end(&mut self) -> Value {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait(10);
        assert!(status.success(), "{status}: {}", self.process.stderr());
        assert!(!self.process.stderr().contains("panicked"), "{}", self.process.stderr());
        Self::reports(&self.process).pop().expect("sums")
    }

    fn place(&self) -> &str {
        self.endpoint.strip_prefix("tcp://").expect("an endpoint of TCP")
    }
}

/// An exchange from this port; the request has a body if `posted` is not empty.
fn exchange(port: u16, posted: &str, body: &str) -> Vec<u8> {
    let mut talk = Conversation::tcp(&format!("10.0.0.1:{port}"), "10.0.0.2:80");
    let method = if posted.is_empty() { "GET" } else { "POST" };
    let request = format!(
        "{method} /{port} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n{posted}",
        posted.len()
    );
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    talk.open().says(Client, request.as_bytes()).says(Server, response.as_bytes()).close(Client);
    records(&talk.packets)
}

fn targets(messages: &[Message]) -> Vec<String> {
    let targets = messages.iter().map(|message| message.json["target"].as_str().unwrap_or("-"));
    targets.map(str::to_owned).collect()
}

#[test]
fn each_transaction_comes_once_with_its_bodies() {
    skip_unless!(mount, "python3");
    if lacks_zmq() {
        return;
    }
    let mut fed = Fed::start();
    let (_folder, state) = saved_places();
    let mut publisher =
        Publisher::start(&fed.daemon, &state, &["--what", "http,flows", "--max-body", "8"]);
    let receiver = Receiver::start("PULL", "connect", &publisher.endpoint, &[]);
    wait_for_place(&state, "/lines/http");
    fed.feed.write(&exchange(1, "", "hello"));
    fed.feed.write(&exchange(2, "posted", "much too long"));
    fed.feed.write(&exchange(3, "", ""));
    wait_until("all transactions and a flow have come", 30, || {
        let messages = receiver.messages();
        let count = |topic: &str| messages.iter().filter(|one| one.topic == topic).count();
        count("http") == 3 && count("flow") > 0
    });
    let messages = receiver.messages();
    let http: Vec<&Message> = messages.iter().filter(|one| one.topic == "http").collect();
    let bodies = |at: usize| http[at].json["published"]["bodies"].as_array().unwrap().clone();
    assert_eq!(http[0].frames, [b"hello"]);
    assert_eq!(
        (&bodies(0)[0]["of"], &bodies(0)[0]["complete"]),
        (&"response".into(), &true.into())
    );
    assert_eq!(http[1].frames, [&b"much too"[..], b"posted"]);
    assert_eq!((&bodies(1)[0]["complete"], &bodies(1)[0]["bytes"]), (&false.into(), &8.into()));
    assert!(bodies(1)[0]["why"].as_str().unwrap().contains("--max-body"));
    assert_eq!((&bodies(1)[1]["of"], &bodies(1)[1]["complete"]), (&"request".into(), &true.into()));
    assert_eq!(http[2].frames, [b""]);
    let flows = messages.iter().find(|one| one.topic == "flow").expect("flows come too");
    assert!(flows.frames.is_empty());
    for (kind, message) in [("http", http[0]), ("flows", flows)] {
        let mut line = message.json.as_object().expect("an object").clone();
        assert_eq!(line.remove("published").expect("what is published")["lost"], 0);
        schema::check(kind, &Value::Object(line));
    }
    let sums = publisher.end();
    assert_eq!(
        (&sums["event"], &sums["peers"], &sums["lost"]),
        (&"end".into(), &1.into(), &0.into())
    );
    assert_eq!(sums["messages"], receiver.messages().len());
}

#[test]
fn a_pipeline_goes_on_across_restarts_of_the_daemon_and_of_itself() {
    skip_unless!(mount, "python3");
    if lacks_zmq() {
        return;
    }
    let place_of_daemon = Replaceable::new();
    let (daemon, mut feed) = place_of_daemon.start();
    let (folder, state) = saved_places();
    let endpoint = format!("ipc://{}", folder.path().join("publish").display());
    let options = ["--what", "http,packets"];
    let mut publisher = Publisher::at(&daemon, &state, &endpoint, &options);
    let receiver = Receiver::start("PULL", "connect", &endpoint, &[]);
    wait_for_place(&state, "/lines/http");
    wait_for_place(&state, "/packets/next");
    for port in 1..=20 {
        feed.write(&exchange(port, "", "hello"));
    }
    let http = |receiver: &Receiver| {
        let messages = receiver.messages().into_iter();
        messages.filter(|one| one.topic == "http").collect::<Vec<Message>>()
    };
    wait_until("the first part has come", 30, || http(&receiver).len() == 20);
    // The daemon is killed under it.
    drop(feed);
    daemon.crash();
    publisher.wait_report("away");
    let (daemon, mut feed) = place_of_daemon.start();
    for port in 21..=40 {
        feed.write(&exchange(port, "", "hello"));
    }
    wait_until("the second part has come", 30, || http(&receiver).len() >= 40);
    // It ends in order, and another goes on.
    publisher.end();
    for port in 41..=60 {
        feed.write(&exchange(port, "", "hello"));
    }
    let mut publisher = Publisher::at(&daemon, &state, &endpoint, &options);
    wait_until("the third part has come", 30, || http(&receiver).len() >= 60);
    let expected: Vec<String> = (1..=60).map(|port| format!("/{port}")).collect();
    assert_eq!(targets(&http(&receiver)), expected, "each once and in order");
    // Packets have numbers, which the daemon's restart does not change.
    let stored = daemon.count(ALIAS, "/packets/stored");
    let packets = || {
        let messages = receiver.messages().into_iter().filter(|one| one.topic == "packet");
        messages.collect::<Vec<Message>>()
    };
    let last = || packets().last().map(|one| one.json["number"].as_u64().unwrap());
    wait_until("the last packet has come", 30, || last() == Some(stored));
    let numbers: Vec<u64> =
        packets().iter().map(|one| one.json["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=stored).collect::<Vec<u64>>(), "each once and in order");
    // A publisher that is killed sends again what it sent in the last second, and leaves nothing out.
    for port in 61..=80 {
        feed.write(&exchange(port, "", "hello"));
    }
    wait_until("some of the fourth part has come", 30, || http(&receiver).len() > 62);
    publisher.process.signal(Signal::SIGKILL);
    publisher.process.wait(10);
    let mut publisher = Publisher::at(&daemon, &state, &endpoint, &options);
    wait_until("the fourth part has come", 30, || {
        let targets = targets(&http(&receiver));
        (61..=80).all(|port| targets.contains(&format!("/{port}")))
    });
    // The place of a message tells repeats apart.
    let mut by_position: BTreeMap<String, String> = BTreeMap::new();
    for message in http(&receiver) {
        let position = message.json["published"]["position"].as_str().unwrap().to_owned();
        let target = message.json["target"].as_str().unwrap().to_owned();
        assert_eq!(by_position.entry(position).or_insert_with(|| target.clone()), &target);
    }
    assert_eq!(by_position.len(), 80);
    publisher.end();
}

#[test]
fn packets_are_those_of_replay() {
    skip_unless!(mount, "python3");
    if lacks_zmq() {
        return;
    }
    let mut fed = Fed::holding(300);
    let (_folder, state) = saved_places();
    let options = ["--what", "packets", "--from", "oldest"];
    let mut publisher = Publisher::start(&fed.daemon, &state, &options);
    let receiver = Receiver::start("PULL", "connect", &publisher.endpoint, &[]);
    fed.send(100);
    let messages = receiver.wait_count(400);
    let mut savefile = Vec::new();
    for (message, number) in messages.iter().zip(1..) {
        let json = &message.json;
        assert_eq!((&json["number"], &json["capture"]), (&number.into(), &ALIAS.into()));
        let time = json["time"].as_str().unwrap();
        let (data, length) = (&message.frames[0], json["length"].as_u64().unwrap());
        assert_eq!(json["captured"], data.len());
        // The time has nine digits of a second and a Z.
        let nanoseconds: u32 = time[time.len() - 10..time.len() - 1].parse().unwrap();
        savefile.extend_from_slice(&nanoseconds.to_ne_bytes());
        savefile.extend_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
        savefile.extend_from_slice(data);
    }
    let replay = fs::read(fed.daemon.path("web/replay.pcap")).unwrap();
    let (mut rest, mut expected) = (&replay[24..], Vec::new());
    while !rest.is_empty() {
        let captured = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
        expected.extend_from_slice(&rest[4..8]);
        expected.extend_from_slice(&rest[12..16 + captured]);
        rest = &rest[16 + captured..];
    }
    assert!(savefile == expected, "packets differ from those of replay");
    publisher.end();
    // A filter chooses, and what it leaves out is not lost.
    let options = ["--what", "packets", "--from", "oldest", "--filter", "tcp port 80"];
    let mut publisher = Publisher::start(&fed.daemon, &state, &options);
    let receiver = Receiver::start("PULL", "connect", &publisher.endpoint, &[]);
    fed.feed.write(&exchange(1, "", "hello"));
    let messages = receiver.wait_count(8);
    assert_eq!(messages[0].json["number"], 401);
    assert_eq!(messages[0].json["published"]["lost"], 0);
    publisher.end();
}

#[test]
fn a_subscriber_gets_its_topics_and_a_slow_one_is_told_its_loss() {
    skip_unless!(mount, "python3");
    if lacks_zmq() {
        return;
    }
    let mut fed = Fed::with(Mount::new().ring("1M"));
    let (folder, state) = saved_places();
    let go_on = folder.path().join("go on");
    let options = ["--zmq", "pub", "--what", "http,packets"];
    let mut publisher = Publisher::start(&fed.daemon, &state, &options);
    let words = ["packet", "slow", go_on.to_str().unwrap()];
    let slow = Receiver::start("SUB", "connect", &publisher.endpoint, &words);
    let lines = Receiver::start("SUB", "connect", &publisher.endpoint, &["http"]);
    // A cursor begins with its subscription.
    wait_until("both are readers", 20, || {
        let readers = fed.daemon.readers(ALIAS);
        readers.iter().filter(|reader| reader["pid"] == publisher.process.pid().as_raw()).count()
            >= 2
    });
    let before = measure::anonymous_memory(publisher.process.pid());
    // Twenty times what the ring holds.
    for _ in 0..20 {
        fed.send(4_000);
    }
    wait_until("the slow one has lost some", 30, || publisher.lost() > 0);
    let grown = measure::anonymous_memory(publisher.process.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more for a peer that does not read");
    fs::write(&go_on, b"").unwrap();
    wait_until("the last packet has come", 60, || {
        let text = slow.0.stdout();
        let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned();
        tail.contains("\"number\":80000,")
    });
    let messages = slow.messages();
    let last = messages.last().unwrap();
    let lost = last.json["published"]["lost"].as_u64().unwrap();
    assert!(lost > 0);
    assert_eq!(messages.len() as u64 + lost, 80_000, "each packet came or is counted");
    assert!(messages.iter().all(|message| message.topic == "packet"));
    fed.feed.write(&exchange(7, "", "hello"));
    let come = lines.wait_count(1);
    assert_eq!(targets(&come), ["/7"]);
    assert!(lines.messages().iter().all(|message| message.topic == "http"));
    publisher.end();
}

#[test]
fn two_receivers_share_and_one_that_does_not_read_takes_no_memory() {
    skip_unless!(mount, "python3");
    if lacks_zmq() {
        return;
    }
    let mut fed = Fed::with(Mount::new().ring("64M"));
    let (folder, state) = saved_places();
    let go_on = folder.path().join("go on");
    let mut publisher = Publisher::start(&fed.daemon, &state, &["--what", "packets"]);
    let slow =
        Receiver::start("PULL", "connect", &publisher.endpoint, &["slow", go_on.to_str().unwrap()]);
    publisher.wait_report("connected");
    wait_for_place(&state, "/packets/next");
    let before = measure::anonymous_memory(publisher.process.pid());
    fed.send(20_000);
    let quick = Receiver::start("PULL", "connect", &publisher.endpoint, &[]);
    // All that does not wait for the first one comes to the second one.
    wait_until("most packets have come", 60, || {
        quick.0.stdout().iter().filter(|byte| **byte == b'\n').count() > 10_000
    });
    let grown = measure::anonymous_memory(publisher.process.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more for a peer that does not read");
    fs::write(&go_on, b"").unwrap();
    let numbers = || {
        let all = quick.messages().into_iter().chain(slow.messages());
        let mut numbers: Vec<u64> = all.map(|one| one.json["number"].as_u64().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    wait_until("all have come", 60, || {
        let lines = |one: &Receiver| one.0.stdout().iter().filter(|byte| **byte == b'\n').count();
        lines(&quick) + lines(&slow) >= 20_002
    });
    assert_eq!(numbers(), (1..=20_000).collect::<Vec<u64>>(), "each to one of them");
    publisher.end();
}

#[test]
fn a_publisher_connects_and_waits_for_its_receiver() {
    skip_unless!(mount, "python3");
    if lacks_zmq() {
        return;
    }
    let mut fed = Fed::start();
    let (folder, state) = saved_places();
    let endpoint = format!("ipc://{}", folder.path().join("pull").display());
    let mut publisher = Publisher::at(&fed.daemon, &state, &endpoint, &["--connect"]);
    publisher.wait_report("waiting");
    wait_for_place(&state, "/lines/http");
    fed.feed.write(&exchange(1, "", "hello"));
    let receiver = Receiver::start("PULL", "bind", &endpoint, &[]);
    assert_eq!(targets(&receiver.wait_count(1)), ["/1"]);
    drop(receiver);
    publisher.wait_report("left");
    fed.feed.write(&exchange(2, "", "hello"));
    let receiver = Receiver::start("PULL", "bind", &endpoint, &[]);
    assert_eq!(targets(&receiver.wait_count(1)), ["/2"]);
    publisher.end();
}

#[test]
fn strangers_are_refused_and_hold_up_nobody() {
    skip_unless!(mount, "python3");
    if lacks_zmq() {
        return;
    }
    let mut fed = Fed::start();
    let (_folder, state) = saved_places();
    let mut publisher = Publisher::start(&fed.daemon, &state, &[]);
    wait_for_place(&state, "/lines/http");
    let connect = || TcpStream::connect(publisher.place()).unwrap();
    // One that says nothing, and keeps its connection.
    let _silent = connect();
    let greeting = |minor: u8, mechanism: &[u8]| {
        let mut bytes = [0; 64];
        (bytes[0], bytes[9], bytes[10], bytes[11]) = (0xff, 0x7f, 3, minor);
        bytes[12..12 + mechanism.len()].copy_from_slice(mechanism);
        bytes
    };
    let refused = |bytes: &[u8], why: &str| {
        let mut stream = connect();
        stream.write_all(bytes).unwrap();
        // Until it is closed.
        let _ = stream.read_to_end(&mut Vec::new());
        wait_until(why, 10, || {
            Publisher::reports(&publisher.process)
                .iter()
                .filter_map(|report| report["why"].as_str())
                .any(|said| said.contains(why))
        });
    };
    refused(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "no ZeroMQ peer");
    refused(&greeting(1, b"CURVE"), "'CURVE'");
    let null = greeting(1, b"NULL");
    refused(
        &[&null[..], b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB"].concat(),
        "a SUB socket",
    );
    refused(&[&null[..], b"\x02\xff\xff\xff\xff\xff\xff\xff\xff"].concat(), "a frame of");
    refused(&[&null[..], b"\x04\x00"].concat(), "a command without a name");
    let pull = [&null[..], b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PULL"].concat();
    refused(&[&pull[..], b"\0\x05hello"].concat(), "a socket that only sends");
    // A peer of a later version may ask whether this end is alive.
    let mut asking = connect();
    asking.write_all(&[&pull[..], b"\x04\x0a\x04PING\0\x0aabc"].concat()).unwrap();
    let mut answer = vec![0; 64 + 28 + 10];
    asking.read_exact(&mut answer).unwrap();
    assert!(answer.ends_with(b"\x04\x08\x04PONGabc"), "{:?}", String::from_utf8_lossy(&answer));
    drop(asking);
    let receiver = Receiver::start("PULL", "connect", &publisher.endpoint, &[]);
    fed.feed.write(&exchange(1, "", "hello"));
    assert_eq!(targets(&receiver.wait_count(1)), ["/1"]);
    let sums = publisher.end();
    assert!(sums["refused"].as_u64().unwrap() >= 5, "{sums}");
}

#[test]
fn mistakes_are_named_and_its_packets_are_in_no_capture() {
    skip_unless!(root, "python3");
    if lacks_zmq() {
        return;
    }
    let mount = Mount::new().capture("loop", "lo");
    let mut fed = Fed::with(mount);
    let (folder, state) = saved_places();
    let ipc = folder.path().join("publish");
    let (at_ipc, file) = (format!("ipc://{}", ipc.display()), folder.path().join("file"));
    fs::write(&file, b"").unwrap();
    let at_file = format!("ipc://{}", file.display());
    for (words, code, parts) in [
        (&["web", "udp://127.0.0.1:1"][..], 2, &["udp://127.0.0.1:1", "tcp://HOST:PORT"][..]),
        (&["web", "tcp://*:5555"], 2, &["--insecure", "CURVE"]),
        (&["web", "tcp://*:5555", "--connect"], 2, &["a host is missing"]),
        (&["web", &at_ipc, "--what", "http,tls"], 2, &["'tls'", "packets"]),
        (&["web", &at_ipc, "--filter", "tcp"], 2, &["--filter", "--match"]),
        (
            &["web", &at_ipc, "--what", "packets", "--match", "status=1"],
            2,
            &["--match", "--filter"],
        ),
        (&["web", &at_ipc, "--what", "packets", "--filter", "tcp prt 80"], 2, &["--filter"]),
        (&["web", &at_ipc, "--match", "staus=500"], 2, &["character 1", "'staus'"]),
        (&["web", &at_ipc, "--zmq", "pub", "--from", "saved"], 2, &["--from", "push"]),
        (&["web", &at_ipc, "--max-body", "1G"], 2, &["--max-body"]),
        (&["hall:web", &at_ipc], 2, &["run it on hall", "remote:hall/web"]),
        (&["lan", &at_ipc], 1, &["lan"]),
        (&["web", &at_file], 1, &["another program listens there"]),
    ] {
        let mut command = fed.daemon.command(["publish", "--state"]);
        let finished = run(command.arg(&state).args(words), 10);
        assert_eq!(finished.status.code(), Some(code), "{words:?}: {}", finished.stderr);
        for part in parts {
            assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
        }
    }
    // The socket has the bits that were asked for, and goes with the process; a dead one is replaced.
    let mut publisher = Publisher::at(&fed.daemon, &state, &at_ipc, &["--mode", "660"]);
    assert_eq!(fs::metadata(&ipc).unwrap().permissions().mode() & 0o777, 0o660);
    publisher.process.signal(Signal::SIGKILL);
    publisher.process.wait(10);
    let mut publisher = Publisher::at(&fed.daemon, &state, &at_ipc, &[]);
    assert_eq!(fs::metadata(&ipc).unwrap().permissions().mode() & 0o777, 0o600);
    publisher.end();
    assert!(!ipc.exists());
    // What it sends over an interface that is captured is left out there.
    let mut publisher = Publisher::start(&fed.daemon, &state, &[]);
    let receiver = Receiver::start("PULL", "connect", &publisher.endpoint, &[]);
    wait_for_place(&state, "/lines/http");
    fed.feed.write(&exchange(1, "", "hello"));
    receiver.wait_count(1);
    wait_until("its packets are left out", 20, || {
        fed.daemon.count("loop", "/packets/excluded") > 3
    });
    let port = publisher.place().rsplit(':').next().unwrap();
    let seen = pcapfs_tests::matching(&fed.daemon, "loop", &format!("tcp port {port}"));
    assert_eq!(seen, 0);
    publisher.end();
}
