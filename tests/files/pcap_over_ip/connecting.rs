//! `tcp:HOST:PORT`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use pcapfs_tests::net::ip;
use pcapfs_tests::savefile::{Format, NgPacket, check_prefix, timestamp};
use pcapfs_tests::{ALIAS, Mount, Net, Running, frame, skip_unless, wait_until};
use serde_json::Value;

use crate::support::{accept, check_sum, free_address, records, savefile, wait_error};

/// Varieties of savefiles.
fn formats() -> [Format; 4] {
    let format = |nanoseconds, big_endian| Format { nanoseconds, big_endian, ..Format::default() };
    [format(true, false), format(true, true), format(false, false), format(false, true)]
}

/// A pcapng with the numbered packets `first` to `last`.
fn pcapng(first: u64, last: u64) -> Vec<u8> {
    let packets: Vec<NgPacket> = (first..=last)
        .map(|sequence| NgPacket {
            interface: 0,
            timestamp: timestamp(sequence),
            data: frame::ethernet(sequence, 77),
        })
        .collect();
    let interface = pcapfs_tests::savefile::Interface {
        link_type: 1,
        snaplen: 65_535,
        name: Some("far0".into()),
        filter: None,
        per_second: 1_000_000_000,
    };
    pcapfs_tests::savefile::pcapng(&[interface], &packets)
}

#[test]
fn the_far_end_may_come_and_go_and_send_any_savefile() {
    skip_unless!(mount);
    let address = free_address();
    let daemon = Mount::new().capture(ALIAS, &format!("tcp:{address}")).start();
    daemon.wait_state(ALIAS, "retrying");
    wait_error(&daemon, "no connection: Connection refused");
    let follow = Running::spawn(&mut daemon.command(["replay", ALIAS, "--live", "--pcapng"]));

    let listener = TcpListener::bind(address).unwrap();
    let mut sent = 0;
    // One of each variety, and a pcapng.
    let savefiles = formats().map(Some).into_iter().chain([None]);
    for (turn, format) in savefiles.enumerate() {
        let mut stream = accept(&listener);
        let bytes = match format {
            Some(format) => savefile(format, sent + 1, sent + 5),
            None => pcapng(sent + 1, sent + 5),
        };
        // In pieces, which do not end where records do.
        for piece in bytes.chunks(71) {
            stream.write_all(piece).unwrap();
        }
        sent += 5;
        daemon.wait_stored(ALIAS, sent);
        let status = daemon.status(ALIAS);
        assert_eq!((&status["state"], &status["error"]), (&"running".into(), &Value::Null));
        let interruptions = status["interruptions"].as_array().unwrap();
        assert_eq!(interruptions.len(), turn + 1, "{interruptions:#?}");
        assert!(interruptions.iter().all(|one| one["ended"].is_string()), "{interruptions:#?}");
        drop(stream);
        wait_error(&daemon, "the far end closed the connection");
        daemon.wait_state(ALIAS, "retrying");
    }
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(1..=sent));
    check_sum(&daemon);
    // A reader of pcapng is shown each interruption.
    for why in ["Connection refused", "the far end closed the connection"] {
        follow.wait_stdout("says why packets are missing", 10, |bytes| {
            String::from_utf8_lossy(bytes).contains(why)
        });
    }
}

#[test]
fn a_host_may_have_a_name_or_an_ipv6_address() {
    skip_unless!(mount);
    let mut sent = 0;
    for (bind, host) in [("127.0.0.1:0", "localhost"), ("[::1]:0", "[::1]")] {
        let listener = TcpListener::bind(bind).unwrap();
        let port = listener.local_addr().unwrap().port();
        let source = format!("tcp:{host}:{port}");
        let daemon = Mount::new().capture(ALIAS, &source).start();
        assert_eq!(daemon.status(ALIAS)["source"], source);
        let mut stream = accept(&listener);
        assert_eq!(daemon.status(ALIAS)["state"], "pending", "connected, but without a header");
        sent += 1;
        stream.write_all(&savefile(Format::default(), 1, sent)).unwrap();
        daemon.wait_stored(ALIAS, sent);
    }
}

#[test]
fn stopping_closes_the_connection_and_starting_connects_again() {
    skip_unless!(mount);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = format!("tcp:{}", listener.local_addr().unwrap());
    let daemon = Mount::new().capture(ALIAS, &source).start();
    let mut stream = accept(&listener);
    stream.write_all(&savefile(Format::default(), 1, 10)).unwrap();
    daemon.wait_stored(ALIAS, 10);
    daemon.verb(["stop", ALIAS]);
    assert_eq!(daemon.status(ALIAS)["state"], "stopped");
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0, "the daemon has closed its end");
    daemon.verb(["start", ALIAS]);
    let mut stream = accept(&listener);
    stream.write_all(&savefile(Format::default(), 11, 20)).unwrap();
    daemon.wait_stored(ALIAS, 20);
    daemon.control(ALIAS, "clear").unwrap();
    stream.write_all(&records(Format::default(), 21, 30)).unwrap();
    daemon.wait_stored(ALIAS, 30);
    let bytes = fs::read(daemon.path("web/replay.pcap")).unwrap();
    assert_eq!(check_prefix(&bytes).unwrap().whole(), Vec::from_iter(21..=30));
}

#[test]
fn no_wait_for_the_far_end_holds_up_an_order() {
    skip_unless!(root, "ip");
    let net = Net::new();
    // Nobody answers there, not even with a refusal.
    let nobody = format!("tcp:{}:57012", Net::NOBODY);
    let daemon = Mount::new()
        .inside(&net.b)
        .capture("nobody", &nobody)
        .capture("unknown", "tcp:no-such-host.invalid:57012")
        .start();
    daemon.wait_state("nobody", "retrying");
    daemon.wait_state("unknown", "retrying");
    let error = |alias: &str| daemon.status(alias)["error"].to_string();
    assert!(error("nobody").contains("no answer within 5 s"), "{}", error("nobody"));
    let unknown = error("unknown");
    assert!(unknown.contains("no-such-host.invalid does not resolve"), "{unknown}");
    for verb in ["stop", "start", "clear"] {
        for alias in ["nobody", "unknown"] {
            let begun = Instant::now();
            daemon.control(alias, verb).unwrap();
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(1), "{verb} {alias} took {took:?}");
        }
    }
}

#[test]
fn a_far_end_that_vanishes_is_noticed_within_ten_seconds() {
    skip_unless!(root, "ip");
    let net = Net::new();
    let listener = net.b.run(|| TcpListener::bind((Net::PEER_ADDRESS, 57_012)).unwrap());
    let source = format!("tcp:{}:57012", Net::PEER_ADDRESS);
    let daemon = Mount::new().inside(&net.a).capture(ALIAS, &source).start();
    let mut stream = accept(&listener);
    stream.write_all(&savefile(Format::default(), 1, 10)).unwrap();
    daemon.wait_stored(ALIAS, 10);
    // No packet says that the link is cut.
    let begun = Instant::now();
    ip(&["-n", net.b.name(), "link", "set", Net::PEER, "down"]);
    wait_until("the capture looks for its far end", 10, || {
        daemon.status(ALIAS)["state"] == "retrying"
    });
    eprintln!("noticed after {:?}", begun.elapsed());
    wait_error(&daemon, "no");
    ip(&["-n", net.b.name(), "link", "set", Net::PEER, "up"]);
    let mut stream = accept(&listener);
    stream.write_all(&savefile(Format::default(), 11, 20)).unwrap();
    daemon.wait_stored(ALIAS, 20);
    check_sum(&daemon);
}

#[test]
fn wrong_places_are_refused_with_the_right_form() {
    skip_unless!(mount);
    for (source, parts) in [
        ("tcp:sensor", &["tcp:sensor: no port", "write tcp:HOST:PORT"][..]),
        ("tcp:::1:57012", &["needs brackets, as in [::1]:57012"]),
        ("tcp:sensor:pcap", &["'pcap' is no port"]),
        ("tcp-listen:57012", &["no port", "write tcp-listen:ADDR:PORT"]),
        ("tcp-listen:sensor:57012", &["'sensor' is no address of this machine"]),
        ("tcp-listen:127.0.0.1:57012,senders=0", &["1 to 64"]),
        ("tcp-listen:192.0.2.1:57012", &["no interface has it"]),
        ("udp:sensor:57012", &["'udp:' is no kind of source", "tcp:HOST:PORT"]),
    ] {
        let refused = Mount::new().capture(ALIAS, source).try_start().unwrap_err();
        for part in parts {
            assert!(refused.stderr.contains(part), "{source}: {}", refused.stderr);
        }
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("pcapfs.toml");
        fs::write(&config, format!("[[capture]]\nsource = \"{source}\"\n")).unwrap();
        let mut check = pcapfs_tests::tool(pcapfs_tests::binary("pcapfs").to_str().unwrap());
        let checked = pcapfs_tests::run(check.arg("check-config").arg(&config), 10);
        if !source.contains("192.0.2.1") && !source.starts_with("udp:") {
            assert!(!checked.status.success(), "{source}");
            let place = format!("{}:2", config.display());
            for part in parts.iter().chain(&[place.as_str()]) {
                assert!(checked.stderr.contains(part), "{source}: {}", checked.stderr);
            }
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = format!("tcp-listen:{}", listener.local_addr().unwrap());
    let refused = Mount::new().capture(ALIAS, &source).try_start().unwrap_err();
    assert!(
        refused.stderr.contains("by another program (see which: ss -ltnp)"),
        "{}",
        refused.stderr
    );
}
