//! TLS, and certificates of clients.

use std::fs;
use std::path::Path;

use pcapfs_tests::{Fed, binary, run, skip_unless, tool};

use crate::support::{Reply, Web};

fn identity(folder: &Path, words: &[&str]) {
    let mut command = tool(binary("pcapfs").to_str().unwrap());
    command.arg("identity").args(words).arg("--dir").arg(folder.join("identity"));
    let _ = run(&mut command, 10).success();
}

#[test]
fn certificates_let_in_and_others_log_in() {
    skip_unless!(mount, "curl");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    identity(folder.path(), &["init", "--name", "localhost,127.0.0.1"]);
    for name in ["laptop", "phone"] {
        identity(folder.path(), &["issue", name, "-o", &path(&format!("{name}.pem"))]);
    }
    let fed = Fed::holding(3);
    let (own, ca) = (path("identity"), path("identity/ca.pem"));
    let options = ["--tls", "--identity", &own, "--client", "laptop"];
    let web = Web::start(&fed.daemon, &options);
    assert!(web.url.starts_with("https://127.0.0.1:"), "{}", web.url);
    let ask = |words: &[&str], path: &str| -> Reply {
        // A proxy that hides who asks, so that the kernel does not count.
        let hidden = ["--cacert", &ca, "-H", "Via: 1.1 x"];
        web.ask(&[&hidden, words].concat(), path)
    };
    let (laptop, phone) = (path("laptop.pem"), path("phone.pem"));
    assert_eq!(ask(&["-E", &laptop], "api/v1/captures").status, 200);
    assert_eq!(ask(&["-E", &phone], "api/v1/captures").status, 401, "it is not named");
    assert_eq!(ask(&[], "api/v1/captures").status, 401);
    let login = web.login();
    let reply = ask(&[], login.strip_prefix(&web.url).unwrap());
    assert_eq!(reply.status, 303);
    assert!(reply.header("set-cookie").unwrap().ends_with("; Secure"));
    // On loopback the kernel knows its own user through TLS too.
    assert_eq!(web.ask(&["--cacert", &ca], "captures/web/replay.pcap").status, 200);
    // One that is revoked is not let in any more.
    identity(folder.path(), &["revoke", "laptop"]);
    let refused = run(
        tool("curl")
            .args(["-sS", "--max-time", "20", "--cacert", &ca, "-E", &laptop])
            .arg(web.at("")),
        30,
    );
    assert!(!refused.status.success(), "{refused:?}");
    assert!(fs::metadata(&laptop).is_ok());
    web.end();
}

#[test]
fn certificates_need_tls() {
    skip_unless!(mount);
    let fed = Fed::holding(1);
    let refused = run(fed.daemon.command(["web"]).args(["--client", "laptop"]), 10);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    let missing = ["--tls", "--identity", "/nonexistent"];
    let refused = run(fed.daemon.command(["web"]).args(missing), 10);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("--tls: /nonexistent"), "{}", refused.stderr);
}
