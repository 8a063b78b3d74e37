//! A server, and curl.

use std::process::Command;

use nix::sys::signal::Signal;
use pcapfs_tests::conversation::savefile_of;
use pcapfs_tests::{
    Client, Conversation, Daemon, Filed, Running, Server, User, binary, run, tool, wait_for,
};
use serde_json::Value;

/// A user without rights.
pub(crate) const OTHER: User = User { id: 54_321, group: 54_321, groups: &[] };

/// A `pcapfs web` at a free port.
pub(crate) struct Web {
    pub(crate) process: Running,
    /// Its address, with a slash at its end.
    pub(crate) url: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Reads the output of `curl -i`.
    #[track_caller]
    fn read(output: &[u8]) -> Self {
        let end = output.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(output)));
        let head = String::from_utf8(output[..end].to_vec()).expect("a head is text");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Self { status, head, body: output[end + 4..].to_vec() }
    }

    /// A header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Checks that it is an error of this status, whose text has these parts.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, parts: &[&str]) {
        let text = self.json()["error"].as_str().expect("an error has a text").to_owned();
        assert_eq!(self.status, status, "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
}

impl Web {
    /// A server of this user.
    #[track_caller]
    pub(crate) fn start(daemon: &Daemon, options: &[&str]) -> Self {
        Self::with(&mut daemon.command(["web"]), options)
    }

    /// A server that this command starts.
    #[track_caller]
    pub(crate) fn with(command: &mut Command, options: &[&str]) -> Self {
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Self::of(Running::spawn(command.arg("--json").args(options)))
    }

    /// A server that was started with `--json`.
    #[track_caller]
    pub(crate) fn of(process: Running) -> Self {
        let url = wait_for("it serves", 20, || {
            let ready = Self::reports(&process).into_iter().next()?;
            Some(ready["url"].as_str().expect("an address").to_owned())
        });
        Self { process, url }
    }

    fn reports(process: &Running) -> Vec<Value> {
        let text = String::from_utf8(process.stdout()).expect("JSON is text");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// The address for the next login that it has printed last.
    #[track_caller]
    pub(crate) fn login(&self) -> String {
        let reports = Self::reports(&self.process);
        let newest = reports.iter().rev().find_map(|report| report["login"].as_str());
        newest.expect("an address with a token").to_owned()
    }

    /// The host and port of its address.
    pub(crate) fn place(&self) -> &str {
        self.url.split('/').nth(2).expect("a host")
    }

    /// An address of it.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{}", self.url, path.trim_start_matches('/'))
    }

    /// Asks with further arguments of curl.
    #[track_caller]
    pub(crate) fn ask(&self, words: &[&str], path: &str) -> Reply {
        Self::ask_as(&mut tool("curl"), words, &self.at(path))
    }

    /// Asks with a command that is curl.
    #[track_caller]
    pub(crate) fn ask_as(curl: &mut Command, words: &[&str], url: &str) -> Reply {
        curl.args(["-sS", "-i", "--path-as-is", "--max-time", "30"]).args(words).arg(url);
        Reply::read(&run(curl, 40).success().stdout)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask(&[], path)
    }

    /// The JSON of a path.
    #[track_caller]
    pub(crate) fn json(&self, path: &str) -> Value {
        self.get(path).ok()
    }

    /// Asks as another user.
    #[track_caller]
    pub(crate) fn ask_of(&self, user: User, words: &[&str], path: &str) -> Reply {
        Self::ask_as(&mut user.command("curl"), words, &self.at(path))
    }

    /// Starts curl, which goes on.
    #[track_caller]
    pub(crate) fn follow(&self, words: &[&str], path: &str) -> Running {
        let mut curl = tool("curl");
        Running::spawn(curl.args(["-sS", "-N"]).args(words).arg(self.at(path)))
    }

    /// Ends it with SIGINT.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.process.signal(Signal::SIGINT);
        let status = self.process.wait(10);
        assert!(status.success(), "{status}: {}", self.process.stderr());
        assert!(!self.process.stderr().contains("panicked"), "{}", self.process.stderr());
    }
}

/// A command of pcapfs of this user for a daemon.
pub(crate) fn pcapfs_of(user: User, daemon: &Daemon) -> Command {
    let mut command = user.command(binary("pcapfs").to_str().expect("test paths are text"));
    command.arg("web").env("PCAPFS_SOCKET", daemon.socket());
    command
}

/// A body of HTML, which no browser is to show.
pub(crate) const HTML: &[u8] = b"<html><script>alert(1)</script></html>";

/// The first bytes of a PNG.
pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n0000";

fn response(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: Test/1\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A connection with three transactions, one with two and a DNS-less UDP flow; a daemon that has
/// them all.
#[track_caller]
pub(crate) fn browsed() -> Filed {
    let mut first = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    let request = |method: &str, target: &str, host: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tester\r\n\r\n")
    };
    first
        .open()
        .says(Client, request("GET", "/index.html", "www.example.com").as_bytes())
        .says(Server, response("200 OK", "text/html", HTML))
        .says(Client, request("GET", "/data.json", "www.example.com").as_bytes())
        .says(Server, response("200 OK", "application/json", b"{\"a\": 1}"))
        .says(Client, request("GET", "/missing", "www.example.com").as_bytes())
        .says(Server, response("404 Not Found", "text/plain", b"none"))
        .close(Client);
    let mut second = Conversation::tcp("10.0.0.3:40001", "10.0.0.2:8080");
    second
        .open()
        .says(Client, request("GET", "/logo.png", "img.example.org").as_bytes())
        .says(Server, response("200 OK", "image/png", PNG))
        .says(Client, request("DELETE", "/logo.png", "img.example.org").as_bytes())
        .says(Server, response("500 Oops", "text/plain", &vec![b'x'; 2 << 20]))
        .close(Client);
    let mut third = Conversation::udp("[fd00::1]:5000", "[fd00::2]:6000");
    third.says(Client, b"hello").says(Server, b"world");
    Filed::new(&savefile_of([first, second, third]))
}
