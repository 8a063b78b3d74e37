//! `pcapfs publish nats://`: the real server, killed and replaced, and every line once in its stream.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use pcapfs_tests::conversation::records;
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Fed, Running, Server, binary, loopback_address, python,
    run, saved_places, schema, skip_unless, tool, wait_for, wait_for_place, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

/// Prints the messages of a stream: subject and data, a line for each. Its arguments: host, token or
/// nothing.
const READER: &str = r#"
import base64, json, socket, sys
connection = socket.create_connection((sys.argv[1], 4222))
stream = connection.makefile("rwb")
stream.readline()
options = {"verbose": False, "auth_token": sys.argv[2]} if sys.argv[2] else {"verbose": False}
stream.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nSUB answer 1\r\n")
def ask(subject, question):
    body = json.dumps(question).encode()
    stream.write(b"PUB $JS.API." + subject + b" answer %d\r\n%s\r\n" % (len(body), body))
    stream.flush()
    while True:
        line = stream.readline()
        if line.startswith(b"PING"):
            stream.write(b"PONG\r\n"); stream.flush()
        if line.startswith(b"MSG"):
            return json.loads(stream.read(int(line.split()[-1]) + 2))
info = ask(b"STREAM.INFO.pcapfs", {})
for number in range(max(info["state"]["first_seq"], 1), info["state"]["last_seq"] + 1) if "state" in info else []:
    message = ask(b"STREAM.MSG.GET.pcapfs", {"seq": number})["message"]
    print(message["subject"], base64.b64decode(message["data"]).decode().strip())
"#;

/// A server with JetStream, at an address of its own.
struct Nats {
    address: Ipv4Addr,
    store: TempDir,
    options: Vec<String>,
    process: Option<Running>,
}

impl Nats {
    #[track_caller]
    fn start(options: &[&str]) -> Self {
        let store = tempfile::tempdir().expect("a folder for the test can be made");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { address: loopback_address(), store, options, process: None };
        server.run();
        server
    }

    /// Starts the server, which keeps what it had.
    #[track_caller]
    fn run(&mut self) {
        let mut command = tool("nats-server");
        command.args(["-js", "-a", &self.address.to_string(), "-p", "4222", "-sd"]);
        let process = Running::spawn(command.arg(self.store.path()).args(&self.options));
        wait_until("the server is ready", 20, || process.stderr().contains("Server is ready"));
        self.process = Some(process);
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGKILL);
            process.wait(10);
        }
    }

    fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Subjects and lines in the stream.
    #[track_caller]
    fn lines(&self, token: &str) -> Vec<(String, Value)> {
        let mut reader = python(READER);
        let output = run(reader.args([&self.address.to_string(), token]), 30).success();
        let lines = output.text().lines().map(|line| {
            let (subject, data) = line.split_once(' ').expect("a subject and data");
            (subject.to_owned(), serde_json::from_str(data).expect("data is JSON"))
        });
        lines.collect()
    }

    /// The targets of the transactions in the stream.
    #[track_caller]
    fn targets(&self, token: &str) -> Vec<String> {
        let lines = self.lines(token).into_iter().filter(|(subject, _)| subject.ends_with(".http"));
        lines.map(|(_, line)| line["target"].as_str().expect("a target").to_owned()).collect()
    }
}

fn publish(daemon: &Daemon, state: &Path, url: &str, options: &[&str]) -> Command {
    let mut command = daemon.command(["publish", ALIAS, url, "--json", "--host", "hall.example"]);
    command.arg("--state").arg(state).args(options);
    command
}

fn reports(process: &Running) -> Vec<Value> {
    let text = String::from_utf8(process.stdout()).expect("JSON is text");
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Waits for a report whose reason has this part.
#[track_caller]
fn wait_report(process: &Running, event: &str, part: &str) -> Value {
    wait_for(&format!("a report {event} with {part:?}; {}", process.stderr()), 20, || {
        reports(process)
            .into_iter()
            .find(|report| report["event"] == event && report.to_string().contains(part))
    })
}

#[track_caller]
fn end(process: &mut Running) -> Value {
    process.signal(Signal::SIGTERM);
    let status = process.wait(10);
    assert!(status.success(), "{status}: {}", process.stderr());
    reports(process).pop().expect("sums")
}

fn exchange(port: u16, header: &str) -> Vec<u8> {
    let mut talk = Conversation::tcp(&format!("10.0.0.1:{port}"), "10.0.0.2:80");
    let request = format!("GET /{port} HTTP/1.1\r\nHost: a.example\r\nX: {header}\r\n\r\n");
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    talk.open().says(Client, request.as_bytes()).says(Server, response).close(Client);
    records(&talk.packets)
}

fn expected(ports: std::ops::RangeInclusive<u16>) -> Vec<String> {
    ports.map(|port| format!("/{port}")).collect()
}

#[test]
fn each_line_is_once_in_the_stream_whatever_is_killed() {
    skip_unless!(mount, "nats-server", "python3");
    let mut fed = Fed::start();
    let mut server = Nats::start(&[]);
    let (_folder, state) = saved_places();
    let options =
        ["--what", "http,flows", "--create-stream", "--max-bytes", "64M", "--max-age", "1h"];
    let start = || Running::spawn(&mut publish(&fed.daemon, &state, &server.url(), &options));
    let mut publisher = start();
    wait_for_place(&state, "/lines/http");
    for port in 1..=30 {
        fed.feed.write(&exchange(port, ""));
    }
    wait_until("the first part is there", 30, || server.targets("").len() == 30);
    // The publisher is killed: what it sends again has an id that the server knows.
    publisher.signal(Signal::SIGKILL);
    publisher.wait(10);
    for port in 31..=60 {
        fed.feed.write(&exchange(port, ""));
    }
    let mut publisher = start();
    wait_until("the second part is there", 30, || server.targets("").len() >= 60);
    // The server is killed.
    server.kill();
    wait_report(&publisher, "waiting", "");
    for port in 61..=90 {
        fed.feed.write(&exchange(port, ""));
    }
    server.run();
    wait_until("the third part is there", 30, || server.targets("").len() >= 90);
    assert_eq!(server.targets(""), expected(1..=90), "each once and in order");
    let lines = server.lines("");
    assert!(lines.iter().any(|(subject, _)| subject == "pcapfs.hall%2Eexample.web.flows"));
    let (subject, line) = lines.iter().find(|(subject, _)| subject.ends_with("http")).unwrap();
    assert_eq!(subject, "pcapfs.hall%2Eexample.web.http");
    let mut line = line.as_object().expect("an object").clone();
    assert_eq!(
        line.remove("published").expect("what is published")["bodies"],
        Value::Array(vec![])
    );
    schema::check("http", &Value::Object(line));
    let sums = end(&mut publisher);
    assert_eq!(sums["lost"], 0, "{sums}");
    // The run after goes on, and sends nothing again.
    let mut publisher = Running::spawn(&mut publish(&fed.daemon, &state, &server.url(), &options));
    fed.feed.write(&exchange(91, ""));
    wait_until("the next one is there", 30, || server.targets("").len() > 90);
    assert_eq!(server.targets(""), expected(1..=91));
    let sums = end(&mut publisher);
    assert!(sums["messages"].as_u64().unwrap() <= 8, "{sums}");
}

#[test]
fn lines_wait_for_a_stream_and_long_ones_are_counted() {
    skip_unless!(mount, "nats-server", "python3");
    let mut fed = Fed::start();
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("nats.conf");
    fs::write(&configuration, "max_payload: 8192\n").unwrap();
    let server = Nats::start(&["-c", configuration.to_str().unwrap()]);
    let (_folder, state) = saved_places();
    let mut waiting = Running::spawn(&mut publish(&fed.daemon, &state, &server.url(), &[]));
    wait_for_place(&state, "/lines/http");
    fed.feed.write(&exchange(1, ""));
    wait_report(&waiting, "waiting", "no stream takes the lines");
    // Once there is a stream, the line that was refused is sent again.
    let (_other_folder, other) = saved_places();
    let options = ["--create-stream", "--from", "now"];
    let mut maker = Running::spawn(&mut publish(&fed.daemon, &other, &server.url(), &options));
    wait_until("the line that waited is there", 30, || server.targets("").len() == 1);
    end(&mut maker);
    end(&mut waiting);
    let mut publisher =
        Running::spawn(&mut publish(&fed.daemon, &state, &server.url(), &["--create-stream"]));
    fed.feed.write(&exchange(2, &"x".repeat(8192)));
    fed.feed.write(&exchange(3, ""));
    wait_until("all are there", 30, || server.targets("").len() >= 2);
    assert_eq!(server.targets(""), ["/1", "/3"]);
    wait_report(&publisher, "lost", "max_payload");
    let sums = end(&mut publisher);
    assert_eq!((&sums["messages"], &sums["lost"]), (&1.into(), &1.into()), "{sums}");
}

#[test]
fn credentials_are_shown_to_the_server_and_to_nobody_else() {
    skip_unless!(mount, "nats-server", "python3");
    let mut fed = Fed::start();
    let server = Nats::start(&["--auth", "s3cret"]);
    let (_folder, state) = saved_places();
    let url = |token: &str| format!("nats://{token}@{}:4222", server.address);
    let mut refused = Running::spawn(&mut publish(&fed.daemon, &state, &url("wrong"), &[]));
    let report = wait_report(&refused, "waiting", "uthorization");
    assert!(!report.to_string().contains("wrong"), "{report}");
    end(&mut refused);
    let mut publisher =
        Running::spawn(&mut publish(&fed.daemon, &state, &url("s3cret"), &["--create-stream"]));
    wait_for_place(&state, "/lines/http");
    fed.feed.write(&exchange(1, ""));
    wait_until("it is there", 30, || server.targets("s3cret").len() == 1);
    let seen = fs::read(format!("/proc/{}/cmdline", publisher.pid())).unwrap();
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.contains("publish") && !seen.contains("s3cret"), "{seen:?}");
    end(&mut publisher);
    let said = String::from_utf8(publisher.stdout()).unwrap();
    assert!(!said.contains("s3cret"), "{said}");
    for (words, parts) in [
        (&["web", "nats://hall"][..], &["--insecure", "TLS"][..]),
        (&["web", "nats://127.0.0.1", "--what", "packets"], &["packets"]),
        (&["web", "nats://127.0.0.1:x"], &["nats://127.0.0.1:x"]),
        (&["web", "ipc:///x", "--create-stream"], &["nats://"]),
        (&["web", "nats://127.0.0.1", "--create-stream", "--max-age", "7"], &["'7' is no age"]),
    ] {
        let finished = run(fed.daemon.command(["publish"]).args(words), 10);
        assert_eq!(finished.status.code(), Some(2), "{words:?}: {}", finished.stderr);
        for part in parts {
            assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
        }
    }
}

/// The output of `pcapfs fleet`, a line for each line.
#[track_caller]
fn fleet(server: &Nats, words: &[&str]) -> Vec<String> {
    let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
    command.arg("fleet").args(words).args(["--nats", &server.url()]);
    let output = run(&mut command, 20).success();
    output.text().lines().map(ToOwned::to_owned).collect()
}

/// The same, as JSON.
#[track_caller]
fn fleet_json(server: &Nats, words: &[&str]) -> Vec<Value> {
    let lines = fleet(server, &[words, &["--json"]].concat());
    lines.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[track_caller]
fn found(server: &Nats, words: &[&str]) -> Vec<String> {
    let lines = fleet_json(server, &[&["find", "--what", "http"], words].concat());
    lines.iter().map(|line| line["target"].as_str().expect("a target").to_owned()).collect()
}

#[test]
fn lines_of_all_machines_are_found() {
    /// More than two batches of lines.
    const COUNT: u16 = 600;
    skip_unless!(mount, "nats-server", "python3");
    let mut machines = [Fed::start(), Fed::start()];
    let server = Nats::start(&[]);
    let mut missing = tool(binary("pcapfs").to_str().expect("test paths are text"));
    let missing = run(missing.args(["fleet", "find", "--nats", &server.url()]), 10);
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stderr.contains("it has no stream 'pcapfs' (make it"), "{}", missing.stderr);
    let places = [saved_places(), saved_places()];
    let mut publishers = [("hall.example", 0), ("cellar", 1)].map(|(host, number)| {
        let (fed, place): (&Fed, &(TempDir, PathBuf)) = (&machines[number], &places[number]);
        let mut command = fed.daemon.command(["publish", ALIAS, &server.url(), "--json"]);
        command.args(["--host", host, "--what", "http,flows", "--create-stream"]);
        let process = Running::spawn(command.arg("--state").arg(&place.1));
        wait_for_place(&place.1, "/lines/http");
        process
    });
    for port in 1..=COUNT {
        machines.iter_mut().for_each(|fed| fed.feed.write(&exchange(port, "")));
    }
    let hosts = wait_for("all lines are there", 30, || {
        let hosts = fleet_json(&server, &["hosts"]);
        let is_whole = |host: &Value| host["http"] == COUNT && host["flows"] == 2 * COUNT;
        (hosts.len() == 2 && hosts.iter().all(is_whole)).then_some(hosts)
    });
    assert_eq!((&hosts[0]["host"], &hosts[1]["host"]), (&"cellar".into(), &"hall.example".into()));
    assert!(hosts[0]["capture"] == ALIAS && hosts[0]["last"].is_string(), "{hosts:?}");

    assert_eq!(found(&server, &["--host", "hall.example"]), expected(1..=COUNT));
    assert_eq!(found(&server, &[]).len(), 2 * usize::from(COUNT));
    assert_eq!(found(&server, &["--host", "attic"]), [""; 0]);
    assert_eq!(found(&server, &["--capture", "other"]), [""; 0]);
    assert_eq!(found(&server, &["--status", "404"]), [""; 0]);
    assert_eq!(found(&server, &["--server", "10.0.0.1"]), [""; 0]);
    let cellar = |words: &[&str]| found(&server, &[words, &["--host", "cellar"]].concat());
    assert_eq!(cellar(&["--status", "2xx", "--client", "10.0.0.1"]), expected(1..=COUNT));
    assert_eq!(cellar(&["--match", "client.port=7"]), ["/7"]);
    assert_eq!(cellar(&["--since", "1h"]), expected(1..=COUNT));
    let lines = fleet_json(&server, &["find", "--host", "cellar", "--match", "client.port=7"]);
    let kinds: Vec<_> = lines.iter().map(|line| line["fleet"]["what"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "flow").count(), 2, "{kinds:?}");
    assert_eq!(lines[0]["fleet"]["host"], "cellar");
    let shown = fleet(&server, &["find", "--host", "cellar", "--match", "target=/7"]);
    assert!(shown.len() == 1 && shown[0].starts_with("cellar web http 200 GET "), "{shown:?}");

    // Lines to come, and only those.
    let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
    command.args(["fleet", "tail", "--what", "http", "--host", "cellar", "--json"]);
    let mut tail = Running::spawn(command.args(["--nats", &server.url()]));
    let mut next = COUNT;
    wait_until("a line has come", 30, || {
        // Until the server has made the consumer, a line is one of those before.
        next += 1;
        machines[1].feed.write(&exchange(next, ""));
        tail.stdout().ends_with(b"\n")
    });
    tail.signal(Signal::SIGINT);
    assert!(tail.wait(10).success(), "{}", tail.stderr());
    let first = tail.stdout();
    let first: Value =
        serde_json::from_slice(first.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    let port = first["target"].as_str().unwrap().trim_start_matches('/').parse::<u16>().unwrap();
    assert!(port > COUNT, "{first}");
    for publisher in &mut publishers {
        end(publisher);
    }
}

#[test]
fn what_a_fleet_cannot_be_asked_is_said() {
    for (words, part) in [
        (&["find", "--nats", "nats://hall"][..], "--insecure"),
        (&["find", "--status", "tea"], "'tea' is no status"),
        (&["find", "--what", "state"], "'state': no kind of event"),
        (&["find", "--match", "status>>4"], "character 8"),
        (&["tail", "--since", "7"], "'7' is no age"),
        (&["hosts", "--nats", "nats://127.0.0.1:x"], "nats://127.0.0.1:x"),
    ] {
        let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
        let finished = run(command.arg("fleet").args(words), 10);
        assert_eq!(finished.status.code(), Some(2), "{words:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
    }
    let address = loopback_address().to_string();
    let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
    let finished = run(command.args(["fleet", "hosts", "--nats", &address]), 10);
    assert_eq!(finished.status.code(), Some(1));
    let wanted = format!("nats://{address}:4222: Connection refused");
    assert!(finished.stderr.contains(&wanted), "{}", finished.stderr);
}
