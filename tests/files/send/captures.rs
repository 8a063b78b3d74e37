//! Captures of a daemon: what they retain, and what comes.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use nix::sys::signal::Signal;
use pcapfs_tests::conversation::{Client, Conversation, Server, records};
use pcapfs_tests::receiving::Receiving;
use pcapfs_tests::{
    ALIAS, Daemon, Fed, Mount, Namespace, Running, binary, matching, python, run, skip_unless,
    tool, wait_until,
};
use tempfile::TempDir;

use crate::support::{ports, send_command};

/// A conversation of two hosts with these last bytes of their addresses.
fn talk(client: u8, server: u8, says: &str) -> Conversation {
    let mut talk =
        Conversation::tcp(&format!("10.0.0.{client}:4000"), &format!("10.0.0.{server}:80"));
    talk.open().says(Client, says).says(Server, format!("{says} to you"));
    talk
}

fn feed(fed: &mut Fed, talk: &Conversation) {
    let stored = fed.daemon.count(ALIAS, "/packets/stored");
    fed.feed.write(&records(&talk.packets));
    fed.daemon.wait_stored(ALIAS, stored + u64::try_from(talk.packets.len()).unwrap());
}

/// `pcapfs send CAPTURE` for a daemon.
fn of(daemon: &Daemon, capture: &str, receiving: &Receiving, options: &[&str]) -> Running {
    let mut command = send_command(capture.as_ref(), receiving, options);
    Running::spawn(command.env("PCAPFS_SOCKET", daemon.socket()))
}

#[test]
fn what_a_capture_retains_is_sent_by_name_and_from_another_machine() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    feed(&mut fed, &talk(1, 2, "hello"));
    let config = TempDir::new().unwrap();
    let mut add = tool(binary("pcapfs").to_str().unwrap());
    add.env("XDG_CONFIG_HOME", config.path()).args(["remote", "add", "far"]);
    let url = format!("pcap+unix://{}", fed.daemon.socket().display());
    let _ = run(add.arg(url), 10).success();
    for name in [ALIAS, "far:web"] {
        let mut receiving = Receiving::start(2, &[]);
        let mut command = send_command(name.as_ref(), &receiving, &["--loop", "2"]);
        command.env("XDG_CONFIG_HOME", config.path());
        if name == ALIAS {
            command.env("PCAPFS_SOCKET", fed.daemon.socket());
        }
        let finished = run(&mut command, 20).success();
        receiving.end();
        let expected = ports([b"hellohello", b"hello to youhello to you"]);
        assert_eq!(receiving.contents(), expected, "{name}: {}", finished.stderr);
    }
}

#[test]
fn a_capture_is_sent_as_it_comes_until_it_stops() {
    skip_unless!(mount);
    for (from, expected) in [
        ("live", ports([b"second", b"second to you"])),
        ("follow", ports([b"first", b"first to you", b"second", b"second to you"])),
    ] {
        let mut fed = Fed::start();
        feed(&mut fed, &talk(1, 2, "first"));
        let mut receiving = Receiving::start(4, &[]);
        let mut running = of(&fed.daemon, ALIAS, &receiving, &["--from", from, "--speed", "1"]);
        wait_until("it waits for packets", 10, || {
            fed.daemon.readers(ALIAS).iter().any(|reader| reader["blocked"] == true)
        });
        feed(&mut fed, &talk(3, 4, "second"));
        let last = Receiving::PORT + u16::try_from(expected.len()).unwrap() - 1;
        receiving.wait_bytes(last, "second to you".len());
        fed.daemon.verb(["stop", ALIAS]);
        assert!(running.wait(10).success(), "{}", running.stderr());
        receiving.end();
        assert_eq!(receiving.contents(), expected, "{from}");
    }
}

#[test]
fn a_stream_of_the_tree_is_sent_as_it_comes_too() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    feed(&mut fed, &talk(1, 2, "first"));
    let mut receiving = Receiving::start(2, &[]);
    let path = fed.daemon.path("web/follow.pcap");
    let mut running = of(&fed.daemon, path.to_str().unwrap(), &receiving, &["--what", "stream"]);
    receiving.wait_bytes(Receiving::PORT + 1, "first to you".len());
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait(10).code(), Some(1), "{}", running.stderr());
    receiving.end();
    assert_eq!(receiving.contents(), ports([b"first", b"first to you"]));
}

#[test]
fn a_live_source_without_a_port_is_reported_and_the_others_go_on() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut receiving = Receiving::start(1, &[]);
    let mut running = of(&fed.daemon, ALIAS, &receiving, &["--from", "live"]);
    wait_until("it waits for packets", 10, || {
        fed.daemon.readers(ALIAS).iter().any(|reader| reader["blocked"] == true)
    });
    feed(&mut fed, &talk(1, 2, "first"));
    feed(&mut fed, &talk(1, 3, " and second"));
    receiving.wait_bytes(Receiving::PORT, "first and second".len());
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait(10).code(), Some(1));
    let said = running.stderr();
    for (port, source) in [(5001, "10.0.0.2"), (5002, "10.0.0.3")] {
        let says = format!("pcapfs: port {port}, which gets {source}: Connection refused");
        assert!(said.contains(&says), "{said}");
    }
    assert!(said.ends_with("pcapfs: 2 of 3 receivers did not get everything\n"), "{said}");
    receiving.end();
    assert_eq!(receiving.contents(), ports([b"first and second"]));
}

#[test]
fn what_is_sent_live_is_not_sent_again() {
    skip_unless!(root, "ip", "tcpdump");
    let inside = Namespace::new();
    let daemon = Mount::new().inside(&inside).capture("all", "any").start();
    daemon.wait_state("all", "running");
    let first = SocketAddr::new("127.0.0.1".parse().unwrap(), Receiving::PORT);
    let folder = TempDir::new().unwrap();
    let mut receiving = inside.run(|| {
        let mut command = Receiving::command(first.ip(), 8, folder.path());
        Receiving::spawn(&mut command, first, folder)
    });
    let options = ["--from", "live", "--what", "payload"];
    let mut running = inside.run(|| of(&daemon, "all", &receiving, &options));
    wait_until("it waits for packets", 10, || {
        daemon.readers("all").iter().any(|reader| reader["blocked"] == true)
    });
    // A connection of another program over the same interface.
    let program = "import socket
server = socket.create_server(('127.0.0.1', 7000))
client = socket.create_connection(('127.0.0.1', 7000), source_address=('127.0.0.9', 0))
accepted = server.accept()[0]
client.sendall(b'once')
assert accepted.recv(10) == b'once'";
    let _ = inside.run(|| run(&mut python(program), 10)).success();
    receiving.wait_bytes(Receiving::PORT, 4);
    // The connections of `send` are in the capture by now, as far as they ever will be.
    let _ = inside.run(|| run(&mut python(&program.replace("once", "again")), 10)).success();
    receiving.wait_bytes(Receiving::PORT, 9);
    running.signal(Signal::SIGINT);
    assert!(running.wait(10).success(), "{}", running.stderr());
    receiving.end();
    let expected = BTreeMap::from([(Receiving::PORT, b"onceagain".to_vec())]);
    assert_eq!(receiving.contents(), expected, "{}", running.stderr());
    let payload = "tcp port 5000 and (tcp[tcpflags] & tcp-push != 0)";
    assert_eq!(matching(&daemon, "all", payload), 0, "captures leave it out");
    assert!(daemon.count("all", "/packets/excluded") > 0);
    let tree = fs::read_dir(daemon.path("all")).unwrap().count();
    assert!(tree > 0, "the daemon still answers");
}
