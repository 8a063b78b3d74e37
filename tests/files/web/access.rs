//! Clients that are let in, and requests that are refused.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::unistd::{Uid, setfsuid};
use pcapfs_tests::{ALIAS, Fed, Mount, run, skip_unless, wait_until};

use crate::support::{OTHER, Web, pcapfs_of};

const JSON: &str = "Content-Type: application/json";

#[test]
fn the_kernel_lets_in_the_own_user_and_root_and_nobody_else() {
    skip_unless!(root, "curl", "setpriv");
    let fed = Fed::with(Mount::new().args(["--mode", "0755"]));
    // The server of root: root only.
    let web = Web::start(&fed.daemon, &[]);
    assert_eq!(web.get("api/v1/captures").status, 200);
    for path in ["", "api/v1/captures", "captures/web/replay.pcap"] {
        let refused = web.ask_of(OTHER, &[], path);
        refused.is_error(403, &["user 54321", "only root", "token"]);
    }
    // The server of another user: that user and root, with the rights of that user.
    let web = Web::with(&mut pcapfs_of(OTHER, &fed.daemon), &[]);
    assert_eq!(web.ask_of(OTHER, &[], "api/v1/captures").ok()["captures"][0]["name"], ALIAS);
    assert_eq!(web.get("api/v1/captures").ok()["captures"][0]["may_control"], false);
    let stop = web.ask(&["-X", "POST", "-H", JSON], "api/v1/captures/web/stop");
    stop.is_error(403, &["w on web is missing"]);
    let third = pcapfs_tests::User { id: 54_322, ..OTHER };
    web.ask_of(third, &[], "api/v1/captures").is_error(403, &["54322", "only 54321"]);
    // The server has nothing that the bits forbid.
    let path = fed.daemon.path(ALIAS);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(web.json("api/v1/captures")["captures"].as_array().unwrap().len(), 0);
    let denied = &["permission denied"][..];
    web.get("captures/web/replay.pcap").is_error(403, denied);
    web.get("api/v1/captures/web/flows").is_error(403, denied);
    web.get("api/v1/captures/web/events").is_error(403, denied);
}

#[test]
fn a_connection_that_is_half_closed_belongs_to_nobody() {
    skip_unless!(mount, "curl");
    let fed = Fed::holding(1);
    let web = Web::start(&fed.daemon, &[]);
    // The kernel says uid 0 of sockets that are closing; the client closes before it is accepted.
    let mut stream = TcpStream::connect(web.place()).unwrap();
    let request = format!("GET /api/v1/captures HTTP/1.1\r\nHost: {}\r\n\r\n", web.place());
    web.process.signal(nix::sys::signal::Signal::SIGSTOP);
    let mut late = TcpStream::connect(web.place()).unwrap();
    late.write_all(request.as_bytes()).unwrap();
    late.shutdown(std::net::Shutdown::Write).unwrap();
    web.process.signal(nix::sys::signal::Signal::SIGCONT);
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    // One that stays open is known.
    stream.write_all(request.as_bytes()).unwrap();
    let mut beginning = [0; 12];
    stream.read_exact(&mut beginning).unwrap();
    assert_eq!(&beginning, b"HTTP/1.1 200");
}

#[test]
fn a_printed_token_logs_in_once() {
    skip_unless!(root, "curl", "setpriv");
    let fed = Fed::holding(1);
    let web = Web::start(&fed.daemon, &[]);
    let login = web.login();
    let path = login.strip_prefix(&web.url).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let jar = folder.path().join("jar");
    let jar = jar.to_str().unwrap();
    web.ask_of(OTHER, &[], "?token=0123456789").is_error(403, &["token", "wrong, or used"]);
    let reply = web.ask_of(OTHER, &["-c", jar], path);
    assert_eq!((reply.status, reply.header("location")), (303, Some("/")));
    let cookie = reply.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    assert_eq!(web.ask_of(OTHER, &["-b", jar], "api/v1/captures").status, 200);
    web.ask_of(OTHER, &[], path).is_error(403, &["wrong, or used"]);
    // The next login has a token of its own.
    wait_until("it prints the next one", 5, || web.login() != login);
    let next = web.login();
    assert_eq!(web.ask_of(OTHER, &[], next.strip_prefix(&web.url).unwrap()).status, 303);
    // A cookie of another server is none.
    let other = Web::start(&fed.daemon, &[]);
    assert_eq!(other.ask_of(OTHER, &["-b", jar], "api/v1/captures").status, 403);
}

#[test]
fn a_token_of_a_file_is_for_programs() {
    skip_unless!(root, "curl", "setpriv");
    let fed = Fed::holding(1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "0123456789abcdef01234567\n").unwrap();
    let options = ["--token-file", file.to_str().unwrap()];
    let open = run(fed.daemon.command(["web"]).args(options), 10);
    assert_eq!(open.status.code(), Some(1), "others may read it");
    assert!(open.stderr.contains("chmod 600"), "{}", open.stderr);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let web = Web::start(&fed.daemon, &options);
    let bearer = |token: &str| {
        let header = format!("Authorization: Bearer {token}");
        web.ask_of(OTHER, &["-H", &header], "api/v1/captures").status
    };
    assert_eq!((bearer("0123456789abcdef01234567"), bearer("0123")), (200, 403));
    for _ in 0..2 {
        let login = web.ask_of(OTHER, &[], "?token=0123456789abcdef01234567");
        assert_eq!(login.status, 303);
    }
}

#[test]
fn foreign_names_and_sites_are_refused() {
    skip_unless!(mount, "curl");
    let fed = Fed::holding(1);
    let web = Web::start(&fed.daemon, &["--host", "tap.example"]);
    let header = |header: &str| web.ask(&["-H", header], "api/v1/captures");
    header("Host: evil.example").is_error(421, &["evil.example", "--host evil.example"]);
    assert_eq!(header("Host: localhost").status, 200);
    // A name may be that of a proxy, which the kernel knows and its clients not.
    header("Host: tap.example").is_error(401, &["log in first"]);
    header("X-Forwarded-For: 192.0.2.1").is_error(401, &["log in first"]);
    assert_eq!(header("Host: tap.example").header("www-authenticate"), Some("Bearer"));
    header("Origin: http://evil.example").is_error(403, &["another site"]);
    header("Sec-Fetch-Site: cross-site").is_error(403, &["another site"]);
    let own = format!("Origin: {}", web.url.trim_end_matches('/'));
    assert_eq!(header(&own).status, 200);
    let post =
        |words: &[&str]| web.ask(&[&["-X", "POST"], words].concat(), "api/v1/captures/web/stop");
    post(&["-d", ""]).is_error(415, &["application/json"]);
    post(&["-H", JSON, "-H", "Origin: http://127.0.0.1:1"]).is_error(403, &["another site"]);
    assert_eq!(fed.daemon.status(ALIAS)["state"], "running");
    assert_eq!(post(&["-H", JSON, "-H", &own]).status, 204);
    let reply = web.get("");
    assert_eq!(reply.status, 200);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(reply.header(name), Some(value));
    }
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
}

#[test]
fn an_address_that_others_reach_needs_tls_or_a_word() {
    skip_unless!(mount, "curl");
    let fed = Fed::holding(1);
    let open = ["--listen", "0.0.0.0:0"];
    let refused = run(fed.daemon.command(["web"]).args(open), 10);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    for part in ["--listen 0.0.0.0:0", "--tls", "--insecure"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    let web = Web::start(&fed.daemon, &["--listen", "0.0.0.0:0", "--insecure"]);
    assert!(web.url.starts_with("http://localhost:"), "{}", web.url);
    assert_eq!(web.get("api/v1/captures").status, 200, "on loopback the kernel still knows");
}

#[test]
fn strangers_and_noise_keep_nobody_out() {
    skip_unless!(root, "curl");
    let fed = Fed::holding(1);
    let web = Web::start(&fed.daemon, &[]);
    let place = web.place().to_owned();
    // A socket belongs to the user of the thread that makes it.
    let strangers = std::thread::spawn(move || {
        setfsuid(Uid::from_raw(OTHER.id));
        let connect = |number: usize| {
            let mut stream = TcpStream::connect(&place).ok()?;
            if number % 2 == 1 {
                // The server closes those that are too many.
                let _ = stream.write_all(&b"\x16\x03\x01 nonsense \r\n".repeat(10));
            }
            Some(stream)
        };
        (0..400).map(connect).collect::<Vec<_>>()
    });
    let strangers = strangers.join().unwrap();
    for _ in 0..10 {
        assert_eq!(web.get("api/v1/captures").status, 200);
    }
    // A head that never ends is cut off.
    let mut endless = TcpStream::connect(web.place()).unwrap();
    endless.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let chunk = [b"X: ".as_slice(), &[b'y'; 4000], b"\r\n"].concat();
    endless.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    while endless.write_all(&chunk).is_ok() {}
    drop(strangers);
    web.end();
}

#[test]
fn its_own_packets_are_in_no_capture() {
    skip_unless!(root, "curl");
    let daemon = Mount::new().capture("lo", "lo").start();
    daemon.wait_state("lo", "running");
    let web = Web::start(&daemon, &[]);
    let port = web.place().rsplit_once(':').unwrap().1.to_owned();
    for _ in 0..5 {
        assert_eq!(web.get("captures/lo/follow.pcap?duration=200ms").status, 200);
    }
    wait_until("packets were left out", 10, || daemon.count("lo", "/packets/excluded") > 0);
    assert_eq!(pcapfs_tests::matching(&daemon, "lo", &format!("tcp port {port}")), 0);
}
