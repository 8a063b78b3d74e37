//! A server of NATS with JetStream, and what is in its stream.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;
use pcapfs_tests::conversation::records;
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Namespace, Running, Server, binary, loopback_address,
    python, run, tool, wait_for, wait_until,
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
pub(crate) struct Nats {
    pub(crate) address: Ipv4Addr,
    /// Where it runs, if it has a network of its own.
    inside: Option<Arc<Namespace>>,
    store: TempDir,
    options: Vec<String>,
    process: Option<Running>,
}

impl Nats {
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::started(loopback_address(), None, options)
    }

    /// At an address that is the test's.
    #[track_caller]
    pub(crate) fn at(address: Ipv4Addr, options: &[&str]) -> Self {
        Self::started(address, None, options)
    }

    /// At an address of a namespace.
    #[track_caller]
    pub(crate) fn inside(namespace: &Arc<Namespace>, address: Ipv4Addr, options: &[&str]) -> Self {
        Self::started(address, Some(Arc::clone(namespace)), options)
    }

    #[track_caller]
    fn started(address: Ipv4Addr, inside: Option<Arc<Namespace>>, options: &[&str]) -> Self {
        let store = tempfile::tempdir().expect("a folder for the test can be made");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { address, inside, store, options, process: None };
        server.run();
        server
    }

    /// Does this where the server is.
    pub(crate) fn there<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        match &self.inside {
            Some(namespace) => namespace.run(action),
            None => action(),
        }
    }

    /// Starts the server, which keeps what it had.
    #[track_caller]
    pub(crate) fn run(&mut self) {
        let mut command = tool("nats-server");
        command.args(["-js", "-a", &self.address.to_string(), "-p", "4222", "-sd"]);
        command.arg(self.store.path()).args(&self.options);
        let process = self.there(|| Running::spawn(&mut command));
        wait_until("the server is ready", 20, || process.stderr().contains("Server is ready"));
        self.process = Some(process);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGKILL);
            process.wait(10);
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Subjects and lines in the stream.
    #[track_caller]
    pub(crate) fn lines(&self, token: &str) -> Vec<(String, Value)> {
        let mut reader = python(READER);
        reader.args([&self.address.to_string(), token]);
        let output = self.there(|| run(&mut reader, 30)).success();
        let lines = output.text().lines().map(|line| {
            let (subject, data) = line.split_once(' ').expect("a subject and data");
            (subject.to_owned(), serde_json::from_str(data).expect("data is JSON"))
        });
        lines.collect()
    }

    /// Asks JetStream, and returns its answer, which must be no error.
    #[track_caller]
    pub(crate) fn ask(&self, subject: &str, question: &Value) -> Value {
        let mut command = python(ASK);
        command.args([&self.address.to_string(), subject, &question.to_string()]);
        let output = self.there(|| run(&mut command, 10)).success();
        let answer: Value = serde_json::from_str(output.text()).expect("an answer is JSON");
        assert!(answer.get("error").is_none(), "{subject}: {answer}");
        answer
    }

    /// Stops the server, or lets it go on.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("the server runs").signal(signal);
    }

    /// The targets of the transactions in the stream.
    #[track_caller]
    pub(crate) fn targets(&self, token: &str) -> Vec<String> {
        let lines = self.lines(token).into_iter().filter(|(subject, _)| subject.ends_with(".http"));
        lines.map(|(_, line)| line["target"].as_str().expect("a target").to_owned()).collect()
    }
}

/// Asks JetStream a question. Its arguments: host, subject after `$JS.API.`, and the question.
const ASK: &str = r#"
import socket, sys
connection = socket.create_connection((sys.argv[1], 4222))
stream = connection.makefile("rwb")
stream.readline()
question = sys.argv[3].encode()
stream.write(b'CONNECT {"verbose":false}\r\nSUB answer 1\r\n')
stream.write(b"PUB $JS.API.%s answer %d\r\n%s\r\n" % (sys.argv[2].encode(), len(question), question))
stream.flush()
while True:
    line = stream.readline()
    if line.startswith(b"MSG"):
        print(stream.read(int(line.split()[-1]) + 2).decode())
        break
"#;

/// Publishes as the machine `hall.example`.
pub(crate) fn publish(daemon: &Daemon, state: &Path, url: &str, options: &[&str]) -> Command {
    publish_as("hall.example", daemon, state, url, options)
}

/// Publishes as this machine.
pub(crate) fn publish_as(
    host: &str,
    daemon: &Daemon,
    state: &Path,
    url: &str,
    options: &[&str],
) -> Command {
    let mut command = daemon.command(["publish", ALIAS, url, "--json", "--host", host]);
    command.arg("--state").arg(state).args(options);
    command
}

pub(crate) fn reports(process: &Running) -> Vec<Value> {
    let text = String::from_utf8(process.stdout()).expect("JSON is text");
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Waits for a report whose reason has this part.
#[track_caller]
pub(crate) fn wait_report(process: &Running, event: &str, part: &str) -> Value {
    wait_for(&format!("a report {event} with {part:?}; {}", process.stderr()), 20, || {
        reports(process)
            .into_iter()
            .find(|report| report["event"] == event && report.to_string().contains(part))
    })
}

#[track_caller]
pub(crate) fn end(process: &mut Running) -> Value {
    process.signal(Signal::SIGTERM);
    let status = process.wait(10);
    assert!(status.success(), "{status}: {}", process.stderr());
    reports(process).pop().expect("sums")
}

pub(crate) fn exchange(port: u16, header: &str) -> Vec<u8> {
    let mut talk = Conversation::tcp(&format!("10.0.0.1:{port}"), "10.0.0.2:80");
    let request = format!("GET /{port} HTTP/1.1\r\nHost: a.example\r\nX: {header}\r\n\r\n");
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    talk.open().says(Client, request.as_bytes()).says(Server, response).close(Client);
    records(&talk.packets)
}

pub(crate) fn expected(ports: std::ops::RangeInclusive<u16>) -> Vec<String> {
    ports.map(|port| format!("/{port}")).collect()
}

/// The output of `pcapfs fleet`, a line for each line.
#[track_caller]
pub(crate) fn fleet(server: &Nats, words: &[&str]) -> Vec<String> {
    let mut command = tool(binary("pcapfs").to_str().expect("test paths are text"));
    command.arg("fleet").args(words).args(["--nats", &server.url(), "--insecure"]);
    let output = server.there(|| run(&mut command, 20)).success();
    output.text().lines().map(ToOwned::to_owned).collect()
}

/// The same, as JSON.
#[track_caller]
pub(crate) fn fleet_json(server: &Nats, words: &[&str]) -> Vec<Value> {
    let lines = fleet(server, &[words, &["--json"]].concat());
    lines.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[track_caller]
pub(crate) fn found(server: &Nats, words: &[&str]) -> Vec<String> {
    let lines = fleet_json(server, &[&["find", "--what", "http"], words].concat());
    lines.iter().map(|line| line["target"].as_str().expect("a target").to_owned()).collect()
}
