//! `client.bin` and `server.bin`, however their packets arrive.

use std::fs;

use pcapfs_tests::conversation::{ACK, PSH, SYN, noise, savefile, savefile_of};
use pcapfs_tests::flows::{flow, meta, names};
use pcapfs_tests::{ALIAS, Client, Conversation, Fed, Filed, Mount, Server, Side, skip_unless};
use serde_json::{Value, json};

use crate::support::{feed, one, talk};

#[test]
fn a_capture_of_one_direction_has_its_stream() {
    skip_unless!(mount);
    for side in [Client, Server] {
        let mut talk = talk(1);
        talk.open();
        for turn in 0..50 {
            talk.says(Client, noise(turn, 700)).says(Server, noise(turn + 99, 900));
        }
        talk.close(Client).only(side);
        let meta = one(&talk);
        let filed = Filed::of([talk.clone()]);
        let files = [("client.bin", Client), ("server.bin", Server)];
        for (name, whose) in files {
            let got = filed.read(1, name);
            if whose == side {
                assert!(got == talk.stream(side), "{name}, of which {side:?} was captured");
            } else {
                // As long as the receiver's acknowledgements say, and entirely a hole.
                let role = name.trim_end_matches(".bin");
                assert_eq!(meta[role]["gaps"], json!([[0, got.len(), "missing"]]), "{meta:#}");
                assert_eq!(got, vec![0; talk.stream(whose).len()], "{name}");
            }
        }
        assert_eq!(meta[if side == Client { "client" } else { "server" }]["gaps"], json!([]));
    }
}

#[test]
fn reordered_segments_come_out_in_order() {
    skip_unless!(mount);
    let mut talk = talk(1).segments_of(100);
    talk.open();
    let first = talk.packets.len();
    talk.says(Client, noise(1, 10_000));
    for group in (first..talk.packets.len() - 10).step_by(10) {
        talk.exchange(group, group + 9)
            .exchange(group + 2, group + 5)
            .exchange(group + 1, group + 8);
    }
    talk.ack(Server).close(Client);
    let filed = Filed::of([talk.clone()]);
    assert!(filed.read(1, "client.bin") == talk.stream(Client));
    let packets = filed.read(1, "packets.pcap");
    assert!(packets == savefile(&talk.packets), "packets are in the order of the capture");
    assert_eq!(filed.meta(1)["client"]["gaps"], json!([]));
}

#[test]
fn sequence_numbers_wrap() {
    skip_unless!(mount);
    let mut talk = talk(1).numbered_from(u32::MAX - 5_000, u32::MAX - 3);
    talk.open().says(Client, noise(1, 30_000)).says(Server, noise(2, 9_000)).close(Client);
    let filed = Filed::of([talk.clone()]);
    assert!(filed.read(1, "client.bin") == talk.stream(Client));
    assert!(filed.read(1, "server.bin") == talk.stream(Server));
    assert_eq!(filed.meta(1)["state"], "closed");
}

#[test]
fn data_in_a_syn_and_a_syn_that_comes_late() {
    skip_unless!(mount);
    let mut fast = talk(1);
    let number = fast.next(Client);
    fast.raw(Client, number, 0, SYN, b"early ");
    let mut wanted = fast;
    // The builder's own SYN is the same segment without data.
    wanted.syn().lose();
    let acknowledged = wanted.next(Client).wrapping_add(6);
    let server = wanted.next(Server);
    wanted.raw(Server, server, acknowledged, SYN | ACK, b"");
    wanted.raw(Client, acknowledged, server.wrapping_add(1), ACK | PSH, b"bird");
    let filed = Filed::of([wanted]);
    assert_eq!(filed.read(1, "client.bin"), b"early bird");

    let mut late = talk(2);
    late.open().exchange(0, 1).says(Client, b"hello").says(Server, b"world").close(Client);
    let filed = Filed::of([late.clone()]);
    assert_eq!(names(&filed.daemon), [late.name(1)]);
    assert_eq!(filed.read(1, "client.bin"), b"hello");
}

#[test]
fn which_copy_of_a_byte_counts_can_be_chosen() {
    skip_unless!(mount);
    let mut talk = talk(1);
    talk.open();
    // A hole comes first, so that both copies must wait.
    talk.says(Client, b"GOOD").says(Client, b"first copy");
    let (hole, copy) = (talk.packets.len() - 2, talk.packets.len() - 1);
    talk.exchange(hole, copy);
    talk.again(Client, 10, ACK | PSH, b"OTHER COPY");
    // The hole is filled afterwards.
    let last = talk.packets.len() - 1;
    talk.exchange(copy, last).ack(Server).close(Client);
    let bytes = savefile_of([talk]);
    for (policy, wanted) in [("first", b"GOODfirst copy"), ("last", b"GOODOTHER COPY")] {
        let filed = Filed::with(Mount::new().args(["--overlap", policy]), &bytes);
        let got = filed.read(1, "client.bin");
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(wanted), "{policy}");
        assert!(filed.daemon.count(ALIAS, "/flows/overlap_conflicts") > 0, "{policy}");
        assert_eq!(filed.meta(1)["client"]["overlapping"], 1);
    }
}

#[test]
fn a_udp_conversation_is_its_payloads_back_to_back() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut talk = Conversation::udp("10.0.0.1:5000", "10.0.0.2:53");
    for turn in 0..20 {
        let before = talk.packets.len();
        talk.says(Client, noise(turn, 100 + usize::try_from(turn).unwrap()));
        talk.says(Server, noise(turn + 50, 1_000));
        feed(&mut fed, &talk.packets[before..]);
        for (side, name) in [(Client, "client.bin"), (Server, "server.bin")] {
            let bytes = fs::read(flow(&fed.daemon, 1).join(name)).unwrap();
            assert!(bytes == talk.stream(side), "{name} after turn {turn}");
        }
    }
    // A datagram captured twice counts as two datagrams.
    let before = talk.packets.len();
    talk.repeat();
    feed(&mut fed, &talk.packets[before..]);
    let mut wanted = talk.stream(Server).to_vec();
    wanted.extend(noise(69, 1_000));
    assert!(fs::read(flow(&fed.daemon, 1).join("server.bin")).unwrap() == wanted);
    let meta = meta(&fed.daemon, 1);
    assert_eq!(
        (&meta["protocol"], &meta["state"], &meta["application"]),
        (&json!("udp"), &json!("open"), &Value::Null)
    );
    assert_eq!(meta["server"]["packets"], 21);
}

#[test]
fn side_names_are_opposite() {
    for side in [Client, Server] {
        assert_eq!(Side::other(side.other()), side);
    }
}
