//! Peers that send what they should not, or nothing: the capture says so and goes on, and other
//! captures of the daemon lose nothing.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use frames::pcapng::{interface, section};
use nix::sys::socket::{setsockopt, sockopt};
use pcapfs_tests::savefile::Format;
use pcapfs_tests::{ALIAS, Daemon, Fifo, Mount, Traffic, measure, skip_unless};
use serde_json::Value;

use crate::support::{accept, check_sum, free_address, records, savefile, send, wait_error};

/// What a peer does after it has sent its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Leave,
    /// It stays, and says nothing more.
    Stay,
    Reset,
}

/// What peers send, what they do then, and what the status says then.
fn peers() -> Vec<(Vec<u8>, Then, &'static str)> {
    let format = Format::default();
    let good = savefile(format, 1, 1);
    let huge = format.record_header(1, u32::MAX as usize, u32::MAX as usize);
    // Its length in both of its places: 4 GiB less 16 bytes.
    let block = |kind: u32, length: u32| {
        [&kind.to_le_bytes()[..], &length.to_le_bytes(), b"\x4d\x3c\x2b\x1a", &[0; 40]].concat()
    };
    let described = [section(&[]), interface(1, 65_535, &[])].concat();
    vec![
        (format.header()[..11].to_vec(), Then::Leave, "inside a record: 11 bytes dropped"),
        (good[..good.len() - 7].to_vec(), Then::Leave, "inside a record"),
        (format.header()[..11].to_vec(), Then::Reset, "reset the connection"),
        (b"GET / HTTP/1.1\r\nHost: pcapfs\r\n\r\n".to_vec(), Then::Stay, "file"),
        (vec![0; 1 << 20], Then::Stay, "file"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Then::Stay, "file"),
        ([format.header(), huge.to_vec()].concat(), Then::Stay, "4294967295"),
        (block(0x0a0d_0d0a, 0xffff_fff0), Then::Stay, "4294967280"),
        ([described.clone(), block(6, 0xffff_fff0)].concat(), Then::Stay, "4294967280"),
        ([described.clone(), block(6, 3)].concat(), Then::Stay, "3"),
        (described, Then::Leave, ""),
    ]
}

fn end(stream: TcpStream, then: Then) -> Option<TcpStream> {
    match then {
        Then::Leave => None,
        Then::Stay => Some(stream),
        Then::Reset => {
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
            None
        }
    }
}

/// A daemon with the capture under test and one of a FIFO, which gets 20,000 packets/s.
fn daemon_with_another(source: &str) -> (Daemon, Traffic<pcapfs_tests::Feed>) {
    let fifo = Fifo::new();
    let mount = Mount::new().ring("4M").capture(ALIAS, source).capture("other", &fifo.source());
    let daemon = mount.start();
    let other = Traffic::start(fifo.connect(), 20_000, u64::MAX);
    daemon.wait_state("other", "running");
    (daemon, other)
}

#[track_caller]
fn check_other(daemon: &Daemon, other: Traffic<pcapfs_tests::Feed>) {
    use pcapfs_tests::Emit as _;
    let sent = other.stop().emitted();
    daemon.wait_stored("other", sent);
    assert_eq!(daemon.status("other")["error"], Value::Null);
    assert_eq!(daemon.count("other", "/packets/seen"), sent);
}

#[test]
fn a_listening_capture_survives_its_senders() {
    skip_unless!(mount);
    let address = free_address();
    let (daemon, other) = daemon_with_another(&format!("tcp-listen:{address},senders=4"));
    let memory = measure::Peak::from_now(daemon.pid());
    let mut stored = 0;
    let mut stay = Vec::new();
    for (bytes, then, says) in peers() {
        let mut stream = send(address, &[]);
        // The daemon may have closed the connection before it has taken all bytes.
        let _ = stream.write_all(&bytes);
        if !says.is_empty() {
            stay.extend(end(stream, then));
            wait_error(&daemon, says);
        }
        // The next one is served as if nothing had been.
        let good = send(address, &savefile(Format::default(), stored + 1, stored + 10));
        stored += 10;
        daemon.wait_stored(ALIAS, stored);
        assert_eq!(daemon.status(ALIAS)["state"], "running");
        assert_eq!(daemon.status(ALIAS)["error"], Value::Null);
        drop(good);
    }
    check_sum(&daemon);
    check_other(&daemon, other);
    // The rings are in the count as well.
    assert!(memory.anonymous() < 32 << 20, "{} bytes", memory.anonymous());
}

#[test]
fn a_connecting_capture_survives_its_far_end() {
    skip_unless!(mount);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (daemon, other) = daemon_with_another(&format!("tcp:{address}"));
    let mut stored = 0;
    for (bytes, then, says) in peers() {
        let mut stream = accept(&listener);
        let _ = stream.write_all(&bytes);
        if says.is_empty() {
            continue;
        }
        let stay = end(stream, then);
        wait_error(&daemon, says);
        assert_eq!(daemon.status(ALIAS)["state"], "retrying");
        let mut good = accept(&listener);
        good.write_all(&savefile(Format::default(), stored + 1, stored + 10)).unwrap();
        stored += 10;
        daemon.wait_stored(ALIAS, stored);
        assert_eq!(daemon.status(ALIAS)["state"], "running");
        assert_eq!(daemon.status(ALIAS)["error"], Value::Null);
        drop(stay);
    }
    check_sum(&daemon);
    check_other(&daemon, other);
}

#[test]
fn another_link_type_is_refused_and_the_first_one_goes_on() {
    skip_unless!(mount);
    let address = free_address();
    let daemon = Mount::new().capture(ALIAS, &format!("tcp-listen:{address},senders=2")).start();
    let mut first = send(address, &savefile(Format::default(), 1, 10));
    daemon.wait_stored(ALIAS, 10);
    let raw = Format { link_type: 101, ..Format::default() };
    let _second = send(address, &savefile(raw, 1, 10));
    wait_error(&daemon, "this capture holds EN10MB");
    first.write_all(&records(Format::default(), 11, 20)).unwrap();
    daemon.wait_stored(ALIAS, 20);
    assert_eq!(daemon.status(ALIAS)["state"], "running");
}
