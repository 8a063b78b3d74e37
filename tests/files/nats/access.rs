//! Servers with TLS, and those that let only some users in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcapfs_tests::{
    Fed, Finished, Running, binary, loopback_address, run, saved_places, skip_unless, tool,
    wait_for_place, wait_until,
};
use tempfile::TempDir;

use crate::support::{Nats, end, exchange, publish, wait_report};

/// Credentials of an account, and the configuration of a server that knows it. Both were made for this
/// test with keys that are used nowhere else.
const ACCOUNT: &str = include_str!("jwt/server.conf");
const CREDENTIALS: &str = include_str!("jwt/user.creds");

/// A key of the documentation of NATS.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

/// An authority, a certificate of the server, and one of a client.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// The server is known by these names.
    #[track_caller]
    fn new(names: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let identity = folder.path().join("identity");
        let made = |words: &[&str], file: Option<&Path>| {
            let mut command = pcapfs();
            command.arg("identity").args(words).args(file).arg("--dir").arg(&identity);
            let _ = run(&mut command, 10).success();
        };
        made(&["init", "--name", names], None);
        made(&["issue", "laptop-7", "-o"], Some(&folder.path().join("client.pem")));
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("test paths are text").to_owned()
    }

    /// The configuration of a server. With `verify`, it wants a certificate of each client.
    fn configuration(&self, verify: bool) -> String {
        let [certificate, key, authority] =
            ["machine.pem", "machine.key", "ca.pem"].map(|file| self.path("identity/") + file);
        format!(
            "tls {{ cert_file: \"{certificate}\", key_file: \"{key}\", ca_file: \"{authority}\", \
             verify: {verify} }}\n"
        )
    }
}

fn pcapfs() -> Command {
    tool(binary("pcapfs").to_str().expect("test paths are text"))
}

/// A server with this configuration, which its folder keeps.
#[track_caller]
fn server(folder: &TempDir, configuration: &str) -> Nats {
    server_at(loopback_address(), folder, configuration)
}

#[track_caller]
fn server_at(address: std::net::Ipv4Addr, folder: &TempDir, configuration: &str) -> Nats {
    let path = folder.path().join("nats.conf");
    fs::write(&path, configuration).expect("our own folder");
    Nats::at(address, &["-c", path.to_str().expect("test paths are text")])
}

/// A file that only its user can read.
fn secret(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("our own folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
    path
}

/// Lists the machines of a server.
fn hosts(url: &str, options: &[&str]) -> Finished {
    run(pcapfs().args(["fleet", "hosts", "--json", "--nats", url]).args(options), 20)
}

#[track_caller]
fn refused(url: &str, options: &[&str], part: &str) {
    let finished = hosts(url, options);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains(part), "{part:?} is not in {}", finished.stderr);
}

#[test]
fn lines_go_over_tls_to_the_server_that_is_meant() {
    skip_unless!(mount, "nats-server");
    let address = loopback_address();
    let certificates = Certificates::new(&address.to_string());
    let server = server_at(address, &certificates.folder, &certificates.configuration(true));
    let url = format!("tls://{address}");
    let [authority, client] = ["identity/ca.pem", "client.pem"].map(|file| certificates.path(file));
    let trusting = ["--nats-ca", &authority];
    let shown = [&trusting[..], &["--nats-cert", &client, "--nats-key", &client]].concat();

    let mut fed = Fed::start();
    let (_folder, state) = saved_places();
    let options = [&shown[..], &["--create-stream"]].concat();
    let mut publisher = Running::spawn(&mut publish(&fed.daemon, &state, &url, &options));
    wait_for_place(&state, "/lines/http");
    fed.feed.write(&exchange(1, ""));
    wait_until("the line is there", 20, || {
        let finished = hosts(&url, &shown);
        finished.status.success() && finished.text().contains("\"http\":1")
    });
    end(&mut publisher);
    // The server wants TLS, whatever the address says.
    assert!(hosts(&server.url(), &shown).status.success());

    refused(&url, &[], "of an authority that is not believed here (name a file");
    refused(&server.url(), &[], "of an authority that is not believed here");
    refused(&url, &trusting, "it wants a certificate (name one with --nats-cert");
    let others = Certificates::new("other.example");
    let other = others.path("client.pem");
    let wrong = [&trusting[..], &["--nats-cert", &other, "--nats-key", &other]].concat();
    refused(&url, &wrong, "it refuses the certificate of --nats-cert");
    let misnamed = self::server(&others.folder, &others.configuration(false));
    let authority = others.path("identity/ca.pem");
    let misnamed = format!("tls://{}", misnamed.address);
    refused(&misnamed, &["--nats-ca", &authority], "not for this name, but for ");
    let plain = Nats::start(&[]);
    refused(&format!("tls://{}", plain.address), &[], "the server has no TLS");
    refused(&url, &["--nats-ca", "/nowhere.pem"], "/nowhere.pem: No such file");
    let finished = hosts(&url, &["--nats-cert", &client]);
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("of no use without the other"), "{}", finished.stderr);
}

#[test]
fn users_log_in_with_what_is_in_a_file() {
    skip_unless!(mount, "nats-server");
    let folder = tempfile::tempdir().expect("a folder for the test");
    let users = format!(
        "authorization {{ users: [ {{ user: \"me\", password: \"s3cret\" }}, \
         {{ nkey: \"{PUBLIC}\" }} ] }}\n"
    );
    let known = server(&folder, &users);
    let password = secret(&folder, "password", "me:s3cret\n");
    let seed = secret(&folder, "seed", &format!("{SEED}\n"));
    let no_stream = "it has no stream";
    for file in [&password, &seed] {
        let file = file.to_str().expect("text");
        refused(&known.url(), &["--nats-creds", file], no_stream);
    }
    let wrong = secret(&folder, "wrong", "me:other\n");
    refused(&known.url(), &["--nats-creds", wrong.to_str().expect("text")], "uthorization");
    refused(&known.url(), &[], "uthorization");

    let other = tempfile::tempdir().expect("a folder for the test");
    let account = server(&other, ACCOUNT);
    let credentials = secret(&other, "user.creds", CREDENTIALS);
    let credentials = credentials.to_str().expect("text");
    refused(&account.url(), &["--nats-creds", credentials], no_stream);
    refused(&account.url(), &["--nats-creds", seed.to_str().expect("text")], "uthorization");

    // The secret is read from the file, and is nowhere else.
    let mut fed = Fed::start();
    let (_places, state) = saved_places();
    let options = ["--create-stream", "--nats-creds", credentials];
    let url = account.url();
    let mut publisher = Running::spawn(&mut publish(&fed.daemon, &state, &url, &options));
    wait_for_place(&state, "/lines/http");
    fed.feed.write(&exchange(1, ""));
    wait_until("the line is there", 20, || {
        hosts(&url, &["--nats-creds", credentials])
            .stdout
            .windows(8)
            .any(|part| part == b"\"http\":1")
    });
    // A file that has become wrong is noticed with the next connection, and said.
    drop(account);
    fs::write(credentials, "\n").expect("our own file");
    wait_report(&publisher, "waiting", "no credentials of NATS");
    end(&mut publisher);

    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).expect("our own file");
    refused(&known.url(), &["--nats-creds", password.to_str().expect("text")], "password: ");
    let url = format!("nats://me:s3cret@{}", known.address);
    let finished = hosts(&url, &["--nats-creds", seed.to_str().expect("text")]);
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("leave one of them out"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("s3cret"), "{}", finished.stderr);
}
