//! The directories of flows: their names, their order and their files.

use pcapfs_tests::conversation::{EPOCH, SECOND};
use pcapfs_tests::flows::{everything, flow, listed, names};
use pcapfs_tests::{Client, Conversation, Fed, Filed, Server, run, skip_unless, tool};

use crate::support::{feed, sundry};

/// Files that every flow has.
const PLAIN: [&str; 4] = ["client.bin", "meta.json", "packets.pcap", "server.bin"];

#[test]
fn flows_appear_in_order_while_traffic_runs_and_ids_are_never_reused() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    assert_eq!(names(&fed.daemon), Vec::<String>::new());
    let mut expected = Vec::new();
    let mut time = EPOCH;
    // The same endpoints come again and again, each time with a new connection.
    for id in 1..=12u32 {
        let mut talk = match id % 4 {
            0 => Conversation::tcp("[fd00::1]:40000", "[fd00:0:0:1::2]:443"),
            1 => Conversation::tcp("10.0.0.1:43512", "10.0.0.2:80"),
            // The side that begins is the client, whatever the ports are.
            2 => Conversation::tcp("10.0.0.2:80", "10.0.0.1:50000"),
            _ => Conversation::udp(&format!("10.0.0.1:{}", 1_000 + id), "10.0.0.2:53"),
        };
        talk = talk.at(time).numbered_from(id << 24, id << 23);
        if id % 4 == 3 {
            talk.says(Client, b"ask").says(Server, b"tell");
        } else {
            talk.open().says(Client, b"hello").close(Client);
        }
        time = talk.times().1 + SECOND;
        for (at, packet) in talk.packets.iter().enumerate() {
            feed(&mut fed, std::slice::from_ref(packet));
            if at == 0 {
                expected.push(talk.name(u64::from(id)));
            }
            assert_eq!(names(&fed.daemon), expected, "after packet {at} of flow {id}");
        }
        for name in PLAIN {
            assert!(flow(&fed.daemon, u64::from(id)).join(name).is_file(), "no {name} in {id}");
        }
    }
    assert_eq!(expected[0], "000001-tcp-10.0.0.1.43512-10.0.0.2.80");
    assert_eq!(expected[3], "000004-tcp-fd00__1.40000-fd00_0_0_1__2.443");
    let ls = run(tool("ls").arg(fed.daemon.path("web/flows")), 5).success();
    assert_eq!(ls.text().lines().collect::<Vec<_>>(), expected, "in the order of ls");
}

#[test]
fn only_flows_with_http_have_its_files() {
    skip_unless!(mount);
    let filed = Filed::of(sundry());
    for (id, has_http) in [(1, true), (2, false), (3, false), (4, false), (5, false)] {
        let mut expected: Vec<_> = PLAIN.into();
        if has_http {
            expected.extend(["bodies", "http", "http-open.jsonl", "http.har", "http.jsonl"]);
            expected.sort_unstable();
        }
        assert_eq!(listed(&flow(&filed.daemon, id)), expected, "flow {id}");
    }
    assert_eq!(
        listed(&filed.file(1, "bodies")),
        ["0001-response-first.txt", "0002-response-second.bin"]
    );
    for absent in ["000006-tcp-1.2.3.4.5-6.7.8.9.10", "1", "../nothing", "000001"] {
        let path = filed.daemon.path("web/flows").join(absent);
        assert!(!path.exists(), "{absent}");
    }
}

#[test]
fn find_and_du_walk_through_all_flows() {
    skip_unless!(mount);
    let filed = Filed::of(sundry());
    let found = run(tool("find").arg(filed.daemon.path("web/flows")).args(["-type", "f"]), 10);
    let files = everything(&filed.daemon.path("web/flows"));
    let files = files.iter().filter(|(_, bytes)| bytes.is_some()).count();
    assert_eq!(found.success().text().lines().count(), files);
    let mut du = tool("du");
    drop(run(du.args(["-a", "--apparent-size"]).arg(filed.daemon.path("web/flows")), 10).success());
}
