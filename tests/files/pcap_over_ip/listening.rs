//! `tcp-listen:ADDR:PORT`.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use pcapfs_tests::savefile::{Format, NgParser, Parser, Record, check_prefix};
use pcapfs_tests::{ALIAS, Mount, Running, run, skip_unless, tool, wait_until};
use serde_json::Value;

use crate::support::{check_sum, connect, free_address, records, savefile, send};

#[test]
fn senders_come_one_after_the_other() {
    skip_unless!(mount, "nc");
    let address = free_address();
    let daemon = Mount::new().capture(ALIAS, &format!("tcp-listen:{address}")).start();
    assert_eq!(daemon.status(ALIAS)["state"], "pending");
    let follow = Running::spawn(&mut daemon.command(["replay", ALIAS, "--live", "--pcapng"]));
    let mut first = send(address, &savefile(Format::default(), 1, 10));
    daemon.wait_stored(ALIAS, 10);
    assert_eq!(daemon.status(ALIAS)["state"], "running");
    // The second one may connect and send, but waits until the first one has left.
    let big_endian = Format { big_endian: true, nanoseconds: false, ..Format::default() };
    let second = send(address, &savefile(big_endian, 21, 30));
    first.write_all(&records(Format::default(), 11, 20)).unwrap();
    daemon.wait_stored(ALIAS, 20);
    drop(first);
    daemon.wait_stored(ALIAS, 30);
    drop(second);
    wait_until("it is an interruption", 5, || {
        let interruptions = daemon.status(ALIAS)["interruptions"].take();
        interruptions.as_array().is_some_and(|all| !all.is_empty())
    });
    let status = daemon.status(ALIAS);
    assert_eq!((&status["state"], &status["error"]), (&"running".into(), &Value::Null));
    let interruptions = status["interruptions"].as_array().unwrap();
    assert_eq!(interruptions.len(), 1, "there was one sender after the other: {interruptions:#?}");
    assert_eq!(interruptions[0]["ended"], Value::Null);
    // A program that knows nothing of pcapfs.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("third.pcap");
    fs::write(&path, savefile(Format::default(), 31, 40)).unwrap();
    let mut nc = tool("nc");
    nc.args(["-N", "127.0.0.1", &address.port().to_string()]);
    let _ = run(nc.stdin(fs::File::open(&path).unwrap()), 10).success();
    daemon.wait_stored(ALIAS, 40);
    assert!(daemon.status(ALIAS)["interruptions"][0]["ended"].is_string());
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=40));
    follow.wait_stdout("says that the sender left", 10, |bytes| {
        String::from_utf8_lossy(bytes).contains("the sender left")
    });
    check_sum(&daemon);
}

#[test]
fn several_senders_at_once_are_interfaces() {
    skip_unless!(mount);
    let address = free_address();
    let source = format!("tcp-listen:{address},senders=3");
    let daemon = Mount::new().capture(ALIAS, &source).start();
    assert_eq!(daemon.status(ALIAS)["source"], source);
    let mut senders: Vec<TcpStream> = Vec::new();
    let (mut sent, mut senders_of) = (0, Vec::new());
    for turn in 0..4 {
        for index in 0..3 {
            sent += 1;
            if turn == 0 {
                senders.push(send(address, &savefile(Format::default(), sent, sent)));
            } else {
                senders[index].write_all(&records(Format::default(), sent, sent)).unwrap();
            }
            senders_of.push(index);
            daemon.wait_stored(ALIAS, sent);
        }
    }
    // A fourth one waits.
    let _fourth = send(address, &savefile(Format::default(), 14, 14));
    let third = senders.pop().unwrap();
    senders[0].write_all(&records(Format::default(), 13, 13)).unwrap();
    daemon.wait_stored(ALIAS, 13);
    drop(third);
    daemon.wait_stored(ALIAS, 14);
    senders_of.extend([0, 2]);

    let bytes = fs::read(daemon.path("web/replay.pcapng")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=14));
    let (mut parser, mut interfaces) = (NgParser::default(), Vec::new());
    let mut each = |record: Record<'_>| {
        interfaces.push(record.interface as usize);
        Ok(())
    };
    parser.push(&bytes, &mut each).unwrap();
    // The fourth sender has the place of the third: the same address, and the same interface.
    assert_eq!(interfaces, senders_of);
    let names: Vec<_> = parser.interfaces().iter().map(|one| one.name.as_deref()).collect();
    assert_eq!(names, [Some("127.0.0.1"); 3]);
    check_sum(&daemon);
}

#[test]
fn a_stopped_capture_holds_up_no_sender() {
    skip_unless!(mount);
    let address = free_address();
    let daemon = Mount::new().capture(ALIAS, &format!("tcp-listen:{address}")).start();
    let mut sender = send(address, &savefile(Format::default(), 1, 10));
    daemon.wait_stored(ALIAS, 10);
    daemon.verb(["stop", ALIAS]);
    assert_eq!(daemon.status(ALIAS)["state"], "stopped");
    // More than any socket's buffers hold.
    sender.write_all(&records(Format::default(), 11, 100_000)).unwrap();
    drop(sender);
    // The next one is let in as well.
    let mut sender = send(address, &savefile(Format::default(), 100_001, 100_010));
    sender.write_all(&records(Format::default(), 100_011, 150_000)).unwrap();
    daemon.verb(["start", ALIAS]);
    assert_eq!(daemon.status(ALIAS)["state"], "running");
    drop(sender);
    let _last = send(address, &savefile(Format::default(), 150_001, 150_005));
    wait_until("the last packet is there", 10, || {
        let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
        check_prefix(&bytes).unwrap().seen.last == 150_005
    });
    check_sum(&daemon);
}

#[test]
fn a_sender_may_use_ipv6_and_the_daemon_leaves_the_port() {
    skip_unless!(mount);
    let port = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().port();
    let source = format!("tcp-listen:[::1]:{port}");
    for _ in 0..2 {
        // The second daemon gets the port although a connection of the first was open.
        let daemon = Mount::new().capture(ALIAS, &source).start();
        let address: SocketAddr = format!("[::1]:{port}").parse().unwrap();
        let _sender = send(address, &savefile(Format::default(), 1, 10));
        daemon.wait_stored(ALIAS, 10);
    }
}

#[test]
fn a_silent_sender_makes_way_for_one_that_waits() {
    skip_unless!(mount);
    let address = free_address();
    let daemon = Mount::new().capture(ALIAS, &format!("tcp-listen:{address}")).start();
    let _silent = send(address, &Format::default().header()[..10]);
    let mut good = send(address, &savefile(Format::default(), 1, 10));
    daemon.wait_stored(ALIAS, 10);
    // One that has sent its header keeps its place, for as long as it has nothing to send.
    let _waits = connect(address);
    good.write_all(&records(Format::default(), 11, 11)).unwrap();
    daemon.wait_stored(ALIAS, 11);
}
