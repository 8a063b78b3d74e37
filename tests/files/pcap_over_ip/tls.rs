//! `tls:`, `tls-listen:` and `serve --tls`.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pcapfs_tests::savefile::{Format, check_prefix};
use pcapfs_tests::{ALIAS, Fed, Mount, binary, run, skip_unless, tool, wait_until};
use tempfile::TempDir;

use crate::serving::Serving;
use crate::support::{check_sum, free_address, savefile, send, wait_error};

/// A machine's own authority, certificate, and those of its clients.
struct Identity {
    folder: TempDir,
}

impl Identity {
    fn new() -> Self {
        let identity = Self { folder: TempDir::new().unwrap() };
        identity.command(&["init", "--name", "localhost"]);
        identity
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join("identity")
    }

    #[track_caller]
    fn command(&self, words: &[&str]) {
        let mut command = tool(binary("pcapfs").to_str().unwrap());
        command.arg("identity").args(words).arg("--dir").arg(self.directory());
        let _ = run(&mut command, 10).success();
    }

    /// The file of a client.
    fn issue(&self, name: &str) -> String {
        let path = self.folder.path().join(format!("{name}.pem")).display().to_string();
        self.command(&["issue", name, "-o", &path]);
        path
    }
}

/// `openssl s_client`, which sends its standard input.
fn openssl(port: u16, certificate: Option<&str>) -> Command {
    let mut command = tool("openssl");
    command.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")]);
    if let Some(path) = certificate {
        command.args(["-cert", path, "-key", path]);
    }
    command
}

#[test]
fn a_capture_is_mirrored_through_tls_until_the_certificate_is_revoked() {
    skip_unless!(mount);
    let identity = Identity::new();
    let directory = identity.directory().display().to_string();
    let mut fed = Fed::holding(100);
    let serving =
        Serving::start(&fed.daemon, &["--from=follow", "--tls", "--identity", &directory]);
    let port = serving.address.port();
    let source = format!("tls:localhost:{port},identity={}", identity.issue("laptop"));
    let mirror = Mount::new().capture(ALIAS, &source).start();
    mirror.wait_stored(ALIAS, 100);
    fed.send(100);
    mirror.wait_stored(ALIAS, 200);
    let replay = |path| fs::read(path).unwrap();
    let copy = replay(mirror.path("web/replay.pcap"));
    assert_eq!(copy[24..], replay(fed.daemon.path("web/replay.pcap"))[24..]);
    check_sum(&mirror);

    let begun = Instant::now();
    identity.command(&["revoke", "laptop"]);
    mirror.wait_state(ALIAS, "retrying");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    wait_error(&mirror, "our certificate is revoked, says the peer");
    let said = serving.end();
    assert!(
        said.contains("certificate of the peer is revoked; 200 packets sent, 0 lost"),
        "{said}"
    );
}

#[test]
fn only_clients_of_the_authority_are_served() {
    skip_unless!(mount, "openssl");
    let (identity, other) = (Identity::new(), Identity::new());
    let fed = Fed::holding(10);
    let directory = identity.directory().display().to_string();
    // TLS makes an address good that others reach.
    let options = ["--from=replay", "--tls", "--identity", &directory, "--listen", "0.0.0.0:0"];
    let serving = Serving::start(&fed.daemon, &options);
    let port = serving.address.port();
    let good = identity.issue("laptop");
    let received = run(&mut openssl(port, Some(&good)), 10).stdout;
    assert_eq!(check_prefix(&received).unwrap().whole(), Vec::from_iter(1..=10));
    let mut old = openssl(port, Some(&good));
    let cases = [
        (openssl(port, Some(&other.issue("laptop"))), "of another authority"),
        (openssl(port, None), "shows no certificate"),
    ];
    for (mut command, says) in cases {
        assert!(run(&mut command, 10).stdout.is_empty(), "{says}");
        wait_until(says, 5, || serving.process.stderr().contains(says));
    }
    assert!(run(old.arg("-tls1_2"), 10).stdout.is_empty());
    wait_until("TLS 1.2 is refused", 5, || serving.process.stderr().contains("speak TLS 1.3"));
    drop(send(([127, 0, 0, 1], port).into(), b"GET / HTTP/1.1\r\n\r\n"));
    wait_until("HTTP is refused", 5, || serving.process.stderr().contains("does not speak TLS"));
    assert!(serving.end().contains("5 clients: 10 packets sent, 0 lost"));
}

#[test]
fn senders_show_a_certificate() {
    skip_unless!(mount, "openssl");
    let identity = Identity::new();
    let address = free_address();
    let directory = identity.directory().display().to_string();
    let source = format!("tls-listen:{address},senders=4,identity={directory}");
    let daemon = Mount::new().capture(ALIAS, &source).start();
    assert_eq!(daemon.status(ALIAS)["source"], source);
    let port = address.port();
    drop(send(address, &savefile(Format::default(), 1, 10)));
    wait_error(&daemon, "the peer does not speak TLS");
    let mut stranger =
        openssl(port, None).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_error(&daemon, "the peer shows no certificate");
    let _ = stranger.kill();
    let _ = stranger.wait();
    let mut sender = openssl(port, Some(&identity.issue("sensor")))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = sender.stdin.take().unwrap();
    // Many records of TLS at once.
    input.write_all(&savefile(Format::default(), 1, 5_000)).unwrap();
    daemon.wait_stored(ALIAS, 5_000);
    assert_eq!(daemon.status(ALIAS)["error"], serde_json::Value::Null);
    drop(input);
    let _ = sender.kill();
    let _ = sender.wait();
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=5_000));
    check_sum(&daemon);
}

#[test]
fn a_far_end_of_another_name_or_authority_is_refused() {
    skip_unless!(mount);
    let (identity, other) = (Identity::new(), Identity::new());
    let fed = Fed::holding(10);
    let directory = identity.directory().display().to_string();
    let options = ["--tls", "--identity", &directory, "--listen", "0.0.0.0:0"];
    let serving = Serving::start(&fed.daemon, &options);
    let port = serving.address.port();
    // An address that is in no certificate.
    let named = format!("tls:127.0.0.9:{port},identity={}", identity.issue("laptop"));
    let strange = format!("tls:127.0.0.1:{port},identity={}", other.issue("laptop"));
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let without = format!(
        "tls:127.0.0.1:{},identity={}",
        plain.local_addr().unwrap().port(),
        identity.issue("laptop-2")
    );
    let daemon = Mount::new()
        .capture("named", &named)
        .capture("strange", &strange)
        .capture("without", &without)
        .start();
    let (mut stream, _) = plain.accept().unwrap();
    stream.write_all(&savefile(Format::default(), 1, 1)).unwrap();
    for (alias, says) in [
        ("strange", "of another authority"),
        ("without", "does not speak TLS"),
        ("named", "is not for this name (but for: "),
    ] {
        wait_until(says, 10, || {
            let status = daemon.status(alias);
            status["state"] == "retrying"
                && status["error"].as_str().is_some_and(|error| error.contains(says))
        });
    }
    let missing = format!("tls:localhost:{port},identity=/no/such/file");
    let refused = Mount::new().capture(ALIAS, &missing).try_start().unwrap_err();
    assert!(refused.stderr.contains("/no/such/file"), "{}", refused.stderr);
}
