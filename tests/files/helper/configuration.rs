//! A configuration, the control socket, and SIGHUP.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use pcapfs_tests::savefile::{Format, numbered};
use pcapfs_tests::{Host, binary, run, skip_unless, wait_until};
use serde_json::Value;

use crate::support::{answers_again, configure, wait_captures};

#[test]
fn a_configured_daemon_is_steered_through_its_socket() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    let config = host.path("pcapfs.toml");
    fs::write(&config, "[[capture]]\nalias = \"web\"\nsource = \"lo\"\nfilter = \"tcp port 80\"\n")
        .unwrap();
    let run_dir = host.path("run");
    fs::create_dir(&run_dir).unwrap();
    chown(&run_dir, Some(Host::USER), None).unwrap();
    let socket = run_dir.join("control.sock");
    let options = format!("config={},socket={}", config.display(), socket.display());
    let _ = host.mount("none", &options).success();
    let pcapfs = |words: &[&str]| {
        let mut command = Command::new(binary("pcapfs"));
        command.arg("--socket").arg(&socket).args(words);
        run(&mut command, 20).success()
    };
    let aliases = || -> Vec<String> {
        let listed: Value = serde_json::from_str(pcapfs(&["list", "--json"]).text()).unwrap();
        let captures = listed.as_array().unwrap().iter();
        captures.map(|capture| capture["alias"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(aliases(), ["web"]);
    let _ = pcapfs(&["init", "lo", "udp port 53", "--alias", "dns"]);
    assert_eq!(aliases(), ["web", "dns"]);
    // The next daemon restores captures made by `init`.
    let before = host.daemon().unwrap();
    kill(before, Signal::SIGKILL).unwrap();
    let (_, took) = answers_again(&host, before);
    eprintln!("both are there again after {took:?}");
    assert_eq!(aliases(), ["web", "dns"]);
    let _ = host.umount().success();
    host.wait_gone();
}

#[test]
fn the_order_to_read_the_configuration_again_may_go_to_either() {
    skip_unless!(root, "nsenter");
    // Also if the caller of mount(8) ignores SIGHUP, as under nohup(1).
    for ignored in ["", "trap '' HUP; "] {
        let host = Host::new();
        let config = configure(&host, &["web"]);
        let options = format!("config={},{}", config.display(), host.ring_option());
        let script = format!("{ignored}exec mount -t pcapfs none \"$1\" -o \"$2\"");
        let mut mount = host.command("sh");
        mount.args(["-c", &script, "sh"]).arg(host.captures()).arg(options);
        let _ = run(&mut mount, 15).success();
        wait_captures(&host, &["web"]);
        let (daemon, supervisor) = (host.daemon().unwrap(), host.supervisor().unwrap());
        let started = host.try_status("web").unwrap()["started"].clone();

        configure(&host, &["web", "dns"]);
        kill(supervisor, Signal::SIGHUP).unwrap();
        wait_captures(&host, &["web", "dns"]);
        configure(&host, &["web"]);
        kill(daemon, Signal::SIGHUP).unwrap();
        wait_captures(&host, &["web"]);
        assert_eq!((host.daemon(), host.supervisor()), (Some(daemon), Some(supervisor)));
        assert_eq!(host.try_status("web").unwrap()["started"], started, "it was left alone");

        // The next daemon receives it as well.
        kill(daemon, Signal::SIGKILL).unwrap();
        let _ = answers_again(&host, daemon);
        configure(&host, &["web", "dns"]);
        kill(supervisor, Signal::SIGHUP).unwrap();
        wait_captures(&host, &["web", "dns"]);
        let _ = host.umount().success();
        host.wait_gone();
    }
}

#[test]
fn a_confined_daemon_finds_and_serves_peers_by_tcp() {
    skip_unless!(root, "nsenter");
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = host.path("pcapfs.toml");
    let capture = |alias: &str, source: &str| {
        format!("[[capture]]\nalias = \"{alias}\"\nsource = \"{source}\"\n")
    };
    let captures = [
        capture("far", &format!("tcp:localhost:{port}")),
        capture("near", &format!("tcp-listen:{free}")),
        capture("unknown", "tcp:no-such-host.invalid:57012"),
    ];
    fs::write(&config, captures.concat()).unwrap();
    let _ = host.mount("none", &format!("config={}", config.display())).success();
    let bytes = numbered(Format::default(), 10, 100);
    let (mut far, _) = listener.accept().unwrap();
    far.write_all(&bytes).unwrap();
    let mut near = TcpStream::connect(free).unwrap();
    near.write_all(&bytes).unwrap();
    for alias in ["far", "near"] {
        wait_until("the packets are stored", 10, || host.count(alias, "/packets/stored") == 10);
    }
    wait_until("the name is reported", 30, || {
        let error = host.try_status("unknown").expect("the tree answers")["error"].take();
        error.as_str().is_some_and(|error| error.contains("no-such-host.invalid does not resolve"))
    });
    let _ = host.umount().success();
    host.wait_gone();
}
