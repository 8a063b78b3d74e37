//! The packets that make up one flow, and the events that end it.

use std::fs;

use pcapfs_tests::conversation::{EPOCH, SECOND, merged, savefile};
use pcapfs_tests::flows::{flow, lines, meta, names, wait_flow};
use pcapfs_tests::{
    ALIAS, Client, Conversation, Fed, Filed, Mount, Server, skip_unless, wait_until,
};
use serde_json::Value;

use crate::support::{feed, is_meta, rfc3339, talk, talk_again};

#[test]
fn reused_ports_are_another_flow() {
    skip_unless!(mount);
    let mut first = talk(1);
    first.open().says(Client, b"first").close(Client);
    let mut second = talk_again(&first);
    second.open().says(Client, b"second").close(Server);
    let filed = Filed::of([first.clone(), second.clone()]);
    assert_eq!(names(&filed.daemon), [first.name(1), second.name(2)]);
    assert_eq!(filed.read(1, "client.bin"), b"first");
    assert_eq!(filed.read(2, "client.bin"), b"second");
}

#[test]
fn the_same_addresses_in_two_networks_are_two_flows() {
    skip_unless!(mount);
    let networks = [
        talk(1),
        talk(1).tagged(&[1]),
        talk(1).tagged(&[2]),
        talk(1).in_vxlan(1),
        talk(1).in_vxlan(2),
    ];
    let talks: Vec<_> = (0..)
        .zip(networks)
        .map(|(at, talk)| {
            let mut talk = talk.at(EPOCH + u64::from(at) * 100);
            talk.open().says(Client, [at; 10]).close(Client);
            talk
        })
        .collect();
    let filed = Filed::of(talks);
    for (id, at) in (1..=5).zip(0..) {
        assert_eq!(filed.read(id, "client.bin"), [at; 10], "flow {id}");
    }
}

#[test]
fn directions_with_different_tags_can_be_one_flow() {
    skip_unless!(mount);
    let mut talk = talk(1).tagged(&[20]);
    talk.open().says(Client, b"question").says(Server, b"answer").close(Client);
    for packet in talk.packets.iter_mut().filter(|packet| packet.from == Client) {
        // The lower byte of the first tag.
        packet.data[15] = 10;
    }
    let bytes = savefile(&talk.packets);
    let filed = Filed::new(&bytes);
    assert_eq!(names(&filed.daemon).len(), 2);
    let filed = Filed::with(Mount::new().arg("--no-vlan-flows"), &bytes);
    assert_eq!(names(&filed.daemon).len(), 1);
    assert_eq!(filed.read(1, "client.bin"), b"question");
    assert_eq!(filed.read(1, "server.bin"), b"answer");
    assert_eq!(filed.read(1, "packets.pcap"), bytes);
    assert_eq!(filed.meta(1)["vlan"], serde_json::json!([10]));
}

#[test]
fn silence_ends_flows() {
    skip_unless!(mount);
    let mut silent = talk(1);
    silent.open().says(Client, b"hello");
    let mut unanswered = talk(2).at(EPOCH + 500);
    unanswered.syn();
    let mut asked = Conversation::udp("10.0.0.1:5000", "10.0.0.2:53").at(EPOCH + 600);
    asked.says(Client, b"question").says(Server, b"answer");
    let mut other = talk(3).at(EPOCH + 10 * 3_600 * SECOND);
    other.open();
    let talks = [silent, unanswered, asked, other];
    let last: Vec<_> = talks.iter().map(|talk| talk.times().1).collect();
    let mut fed = Fed::start();
    feed(&mut fed, &merged(talks.clone()));
    for (id, last) in (1..=3).zip(last) {
        let meta = wait_flow(&fed.daemon, id, "timed_out");
        is_meta(&meta);
        assert_eq!(meta["last"], rfc3339(last));
        assert_eq!(meta["closed_by"], Value::Null);
    }
    assert_eq!(meta(&fed.daemon, 4)["state"], "open");
    // Later packets begin another connection or conversation.
    let mut again =
        Conversation::udp("10.0.0.1:5000", "10.0.0.2:53").at(EPOCH + 10 * 3_601 * SECOND);
    again.says(Client, b"again");
    feed(&mut fed, &again.packets);
    assert_eq!(fs::read(flow(&fed.daemon, 5).join("client.bin")).unwrap(), b"again");
    assert_eq!(fs::read(flow(&fed.daemon, 3).join("client.bin")).unwrap(), b"question");
}

#[test]
fn too_many_flows_evict_the_oldest() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().args(["--max-flows", "10"]));
    let mut talks = Vec::new();
    for number in 0..25 {
        let mut talk = talk(number).at(EPOCH + u64::from(number) * SECOND / 10);
        talk.open().says(Client, [number]);
        talks.push(talk);
    }
    let wanted: Vec<_> = (1..).zip(&talks).map(|(id, talk)| talk.name(id)).collect();
    for talk in &talks {
        feed(&mut fed, &talk.packets);
    }
    wait_until("only the newest are left", 10, || names(&fed.daemon) == wanted[15..]);
    wait_until("their end is recorded", 5, || {
        lines(&fed.daemon.path("web/flows.jsonl")).len() >= 40
    });
    let log = lines(&fed.daemon.path("web/flows.jsonl"));
    let evicted: Vec<_> = log.iter().filter(|line| line["state"] == "evicted").collect();
    assert_eq!(evicted.len(), 15);
    for (id, line) in (1..).zip(evicted) {
        is_meta(line);
        assert_eq!(line["id"], id);
        assert_eq!(line["client"]["stream_bytes"], 1);
    }
    assert_eq!(fed.daemon.count(ALIAS, "/flows/evicted"), 15);
    assert_eq!(fed.daemon.count(ALIAS, "/flows/open"), 10);
}
