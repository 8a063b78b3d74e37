//! `pcapfs identity`, checked with openssl(1).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use pcapfs_tests::{Finished, binary, run, skip_unless, tool};
use serde_json::Value;

fn identity(folder: &Path, words: &[&str]) -> Finished {
    let mut command: Command = tool(binary("pcapfs").to_str().unwrap());
    command.current_dir(folder).arg("identity").args(words).args(["--dir", "identity"]);
    run(&mut command, 10)
}

fn openssl(folder: &Path, words: &[&str]) -> String {
    run(tool("openssl").current_dir(folder).args(words), 10).success().text().to_owned()
}

#[test]
fn two_commands_make_certificates_that_openssl_accepts() {
    skip_unless!("openssl");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let made = identity(folder, &["init", "--name", "hall-a.example,192.0.2.7"]).success();
    assert!(made.text().contains("identity of hall-a.example, 192.0.2.7, "), "{}", made.text());
    for name in ["ca.key", "machine.key"] {
        let found = fs::metadata(folder.join("identity").join(name)).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o600, "{name}");
    }
    let text = openssl(folder, &["x509", "-in", "identity/machine.pem", "-noout", "-text"]);
    for part in ["prime256v1", "DNS:hall-a.example", "IP Address:192.0.2.7", "DNS:localhost"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let issued = identity(folder, &["issue", "laptop-7"]).success();
    assert!(issued.text().starts_with("laptop-7.pem: certificate of laptop-7, until "));
    assert_eq!(fs::metadata(folder.join("laptop-7.pem")).unwrap().mode() & 0o7777, 0o600);
    for (file, purpose) in [("identity/machine.pem", "sslserver"), ("laptop-7.pem", "sslclient")] {
        let words = ["verify", "-purpose", purpose, "-CAfile", "identity/ca.pem", file];
        assert_eq!(openssl(folder, &words).trim(), format!("{file}: OK"));
    }
    let words = ["x509", "-in", "laptop-7.pem", "-noout", "-fingerprint", "-sha256"];
    let fingerprint = openssl(folder, &words);
    let fingerprint = fingerprint.trim().rsplit('=').next().unwrap().to_owned();
    let plain = fingerprint.replace(':', "").to_lowercase();
    let shown = identity(folder, &["show", "--json"]).success();
    let shown: Value = serde_json::from_str(shown.text()).unwrap();
    let client = shown.as_array().unwrap().iter().find(|one| one["kind"] == "client").unwrap();
    assert_eq!((&client["sha256"], &client["revoked"]), (&plain.into(), &Value::Null));
    let revoked = identity(folder, &["revoke", "laptop-7"]).success();
    assert_eq!(revoked.text(), "laptop-7: 1 certificate revoked\n");
    let table = identity(folder, &["show"]).success();
    assert!(table.text().contains("revoked 2"), "{}", table.text());
}

#[test]
fn the_umask_does_not_keep_the_daemon_from_reading() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tool("sh");
    command.args(["-c", "umask 077; exec \"$1\" identity init --dir \"$2\"", "sh"]);
    command.arg(binary("pcapfs")).arg(folder.path().join("deep/identity"));
    let _ = run(&mut command, 10).success();
    for (name, mode) in [
        ("deep", 0o755),
        ("deep/identity", 0o755),
        ("deep/identity/ca.pem", 0o644),
        ("deep/identity/machine.pem", 0o644),
        ("deep/identity/revoked", 0o644),
        ("deep/identity/ca.key", 0o600),
        ("deep/identity/machine.key", 0o600),
    ] {
        let found = fs::metadata(folder.path().join(name)).unwrap();
        assert_eq!(found.mode() & 0o7777, mode, "{name}");
    }
}

#[test]
fn nothing_is_overwritten_and_mistakes_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let said = |words: &[&str]| {
        let finished = identity(folder, words);
        assert_eq!(finished.status.code(), Some(1), "{words:?}: {}", finished.stderr);
        finished.stderr
    };
    let text = said(&["issue", "laptop-7"]);
    assert!(text.contains("make an identity with: pcapfs identity init"), "{text}");
    let _ = identity(folder, &["init"]).success();
    let before = fs::read(folder.join("identity/ca.key")).unwrap();
    let text = said(&["init"]);
    assert!(text.contains("no key is overwritten"), "{text}");
    assert_eq!(fs::read(folder.join("identity/ca.key")).unwrap(), before);
    fs::write(folder.join("mine.pem"), "mine").unwrap();
    let text = said(&["issue", "laptop-7", "-o", "mine.pem"]);
    assert!(text.contains("mine.pem: exists, and no key is overwritten"), "{text}");
    assert_eq!(fs::read(folder.join("mine.pem")).unwrap(), b"mine");
    let text = said(&["revoke", "laptop-7"]);
    assert!(text.contains("no certificate was issued to 'laptop-7' here (have: none;"), "{text}");
    let finished = identity(folder, &["init", "--name", "two words"]);
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("'two words' is no name of a host"), "{}", finished.stderr);
}

#[test]
fn the_end_of_a_certificate_is_said_a_month_before() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let _ = identity(folder, &["init", "--days", "20"]).success();
    let shown = identity(folder, &["show"]).success();
    let text = "pcapfs: the certificate of this machine expires in 19 days, on ";
    assert!(shown.stderr.starts_with(text), "{}", shown.stderr);
    let issued = identity(folder, &["issue", "laptop-7", "-o", "-"]).success();
    assert!(issued.text().starts_with("-----BEGIN CERTIFICATE-----"), "{}", issued.text());
    assert!(issued.stderr.contains("certificate of laptop-7, until "), "{}", issued.stderr);
}
