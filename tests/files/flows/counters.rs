//! The counters of flows.

use std::collections::{BTreeMap, HashMap};

use pcapfs_tests::conversation::{EPOCH, SECOND, merged, savefile};
use pcapfs_tests::flows::{json, lines, names};
use pcapfs_tests::savefile::Format;
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Fed, Filed, Mount, Server, skip_unless, wait_until,
};
use serde_json::Value;

use crate::support::{feed, talk};

#[track_caller]
fn add_up(daemon: &Daemon) {
    let status = daemon.status(ALIAS);
    let flows = &status["flows"];
    let log = lines(&daemon.path("web/flows.jsonl"));
    let mut times: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for line in &log {
        times.entry(line["id"].as_u64().unwrap()).or_default().push(line);
    }
    let count = |name: &str| flows[name].as_u64().unwrap();
    assert_eq!(times.len() as u64, count("open") + count("closed") + count("evicted"), "{flows}");
    assert!(times.keys().copied().eq(1..=times.len() as u64), "numbers are given in order");
    let ended: Vec<_> = times.values().filter(|lines| lines.len() == 2).collect();
    assert!(times.values().all(|lines| lines.len() <= 2), "a flow is listed three times");
    assert_eq!(ended.len() as u64, count("closed") + count("evicted"), "{flows}");
    let evicted = ended.iter().filter(|lines| lines[1]["state"] == "evicted").count();
    assert_eq!(evicted as u64, count("evicted"), "{flows}");
    let ends: HashMap<_, _> =
        ended.iter().map(|lines| (lines[1]["id"].as_u64(), lines[1])).collect();
    for name in names(daemon) {
        let meta = json(&daemon.path("web/flows").join(&name).join("meta.json"));
        if let Some(end) = ends.get(&meta["id"].as_u64()) {
            assert_eq!(meta, **end, "the last line is meta.json");
        }
    }
    assert_eq!(count("engine_lag_packets"), 0, "at rest");
}

#[test]
fn counters_of_flows_add_up() {
    skip_unless!(mount);
    let mut fed = Fed::with(Mount::new().args(["--max-flows", "30"]));
    let mut talks = Vec::new();
    for number in 0..60u8 {
        let mut talk = talk(number).at(EPOCH + u64::from(number) * 3 * SECOND);
        talk.open().says(Client, [number; 9]);
        match number % 3 {
            0 => talk.close(Client),
            1 => talk.reset(Server),
            _ => &mut talk,
        };
        talks.push(talk);
    }
    let packets = merged(talks);
    for part in packets.chunks(37) {
        feed(&mut fed, part);
    }
    wait_until("no more are there than may be", 10, || names(&fed.daemon).len() == 30);
    wait_until("the ended flows are listed", 10, || {
        let flows = fed.daemon.status(ALIAS)["flows"].clone();
        let lines = lines(&fed.daemon.path("web/flows.jsonl")).len() as u64;
        flows["open"] == 10 && 60 + 50 == lines
    });
    add_up(&fed.daemon);

    let filed = Filed::new(&savefile(&packets));
    add_up(&filed.daemon);
    assert_eq!(filed.daemon.count(ALIAS, "/flows/open"), 0, "the capture has ended");
}

#[test]
fn a_savefile_has_ended_once_all_its_flows_are_listed() {
    skip_unless!(mount);
    let mut bytes = Format::default().header();
    let count = 20_000u64;
    for number in 0..count {
        let client =
            format!("10.{}.{}.1:{}", number >> 16 & 255, number >> 8 & 255, 1_024 + (number & 255));
        let mut talk = Conversation::tcp(&client, "10.255.0.1:80").at(EPOCH + number * 1_000_000);
        talk.syn().syn_ack().ack(Client);
        talk.packets.iter().for_each(|packet| packet.append(&mut bytes));
    }
    let filed = Filed::new(&bytes);
    assert_eq!(names(&filed.daemon).len() as u64, count);
    assert_eq!(lines(&filed.daemon.path("web/flows.jsonl")).len() as u64, 2 * count);
    let status = filed.daemon.status(ALIAS);
    assert_eq!(status["flows"]["engine_lag_packets"], 0, "{status:#}");
    assert_eq!(status["flows"]["closed"], count, "{status:#}");
}
