//! `pcapfs publish --what segments`: the streams of connections, in order, for a socket of libzmq.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use pcapfs_tests::conversation::{merged, noise, records};
use pcapfs_tests::zmq::{lacks_zmq, zmq};
use pcapfs_tests::{
    ALIAS, Client, Conversation, Daemon, Replaceable, Running, Server, saved_places, schema,
    skip_unless, wait_for_place, wait_until,
};
use serde_json::Value;

/// Prints the JSON of each message and its bytes in hexadecimal, separated by a tab.
const RECEIVER: &str = r#"
import sys, zmq
socket = zmq.Context().socket(zmq.PULL)
socket.connect(sys.argv[1])
print("ready", flush=True)
while True:
    topic, json, payload = socket.recv_multipart()
    assert topic == b"segment"
    print(json.decode(), payload.hex(), sep="\t", flush=True)
"#;

fn publish(daemon: &Daemon, endpoint: &str, state: &Path, options: &[&str]) -> Running {
    let mut command = daemon.command(["publish", ALIAS, endpoint, "--what", "segments", "--state"]);
    Running::spawn(command.arg(state).args(options))
}

/// The segments that a receiver has, with their bytes.
fn segments(receiver: &Running) -> Vec<(Value, Vec<u8>)> {
    let text = String::from_utf8(receiver.stdout()).expect("output of the receiver is text");
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let segment = |line: &str| {
        let (json, hex) = line.split_once('\t').expect("two frames");
        let bytes = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16));
        let json: Value = serde_json::from_str(json).expect("JSON");
        schema::check("segment", &json);
        (json, bytes.collect::<Result<Vec<u8>, _>>().expect("hexadecimal"))
    };
    whole.lines().skip(1).map(segment).collect()
}

/// Number of streams that have ended. The end of one may come twice.
fn ended(receiver: &Running) -> usize {
    let all = segments(receiver);
    let ends = all.iter().filter(|(json, _)| json["event"] == "end");
    let positions: BTreeSet<String> =
        ends.map(|(json, _)| json["published"]["position"].to_string()).collect();
    positions.len()
}

/// Conversations whose packets are mixed, come in another order, twice, or not at all.
fn conversations(ports: std::ops::Range<u16>) -> Vec<Conversation> {
    ports
        .map(|port| {
            let mut talk = Conversation::tcp(&format!("10.0.0.1:{port}"), "10.0.0.2:9000");
            talk.open();
            for round in 0..6 {
                talk.says(Client, noise(u64::from(port) * 100 + round, 3_000));
                talk.swap();
                talk.says(Server, noise(u64::from(port) * 100 + 50 + round, 4_000)).repeat();
            }
            talk.unseen(Server, b"not captured").says(Server, b"after it").ack(Client);
            talk.close(Client);
            talk
        })
        .collect()
}

/// Puts the segments of each stream together, without those that came twice. Each begins where the one
/// before it ended.
fn streams(all: &[(Value, Vec<u8>)]) -> BTreeMap<(u64, String), Vec<u8>> {
    let mut streams: BTreeMap<(u64, String), Vec<u8>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (json, bytes) in all {
        if !seen.insert(json["published"]["position"].as_str().expect("a position").to_owned()) {
            continue;
        }
        let port = json["client"]["port"].as_u64().expect("a port");
        let direction = json["direction"].as_str().expect("a direction").to_owned();
        let stream = streams.entry((port, direction)).or_default();
        assert_eq!(json["offset"], stream.len(), "{json}");
        let length = usize::try_from(json["length"].as_u64().expect("a length")).unwrap();
        match json["event"].as_str().expect("an event") {
            "data" => {
                assert_eq!(length, bytes.len());
                assert!(json["flags"].as_array().unwrap().contains(&"ack".into()));
                stream.extend_from_slice(bytes);
            }
            // A gap is zeros in the file of a flow.
            "gap" => stream.resize(stream.len() + length, 0),
            _ => assert_eq!((length, &json["end"]), (0, &"fin".into())),
        }
    }
    streams
}

/// The same from the directories of the flows.
fn directories(daemon: &Daemon) -> BTreeMap<(u64, String), Vec<u8>> {
    let mut streams = BTreeMap::new();
    for flow in fs::read_dir(daemon.path(&format!("{ALIAS}/flows"))).unwrap() {
        let folder = flow.unwrap().path();
        let Ok(text) = fs::read(folder.join("meta.json")) else { continue };
        let meta: Value = serde_json::from_slice(&text).unwrap();
        let port = meta["client"]["port"].as_u64().unwrap();
        for side in ["client", "server"] {
            let bytes = fs::read(folder.join(format!("{side}.bin"))).unwrap();
            streams.insert((port, side.to_owned()), bytes);
        }
    }
    streams
}

#[test]
fn segments_are_the_streams_of_the_tree_across_restarts() {
    skip_unless!(mount, "python3");
    if lacks_zmq() {
        return;
    }
    let place_of_daemon = Replaceable::new();
    let (daemon, mut feed) = place_of_daemon.start();
    let (folder, state) = saved_places();
    let endpoint = format!("ipc://{}", folder.path().join("publish").display());
    let mut publisher = publish(&daemon, &endpoint, &state, &[]);
    let receiver = Running::spawn(zmq(RECEIVER).arg(&endpoint));
    receiver.wait_stdout("it is ready", 20, |bytes| bytes.starts_with(b"ready"));
    wait_for_place(&state, "/segments/next");
    let packets = merged(conversations(1..9));
    // The publisher ends in the middle of all flows; another one goes on.
    let (first, rest) = packets.split_at(packets.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    feed.write(&records(first));
    wait_until("some have come", 30, || segments(&receiver).len() > 30);
    publisher.signal(Signal::SIGTERM);
    let status = publisher.wait(10);
    assert!(status.success(), "{status}: {}", publisher.stderr());
    feed.write(&records(second));
    let before = segments(&receiver).len();
    let mut publisher = publish(&daemon, &endpoint, &state, &[]);
    wait_until("more have come", 30, || segments(&receiver).len() > before + 20);
    // One that is killed repeats what it sent in the last second.
    publisher.signal(Signal::SIGKILL);
    publisher.wait(10);
    let mut publisher = publish(&daemon, &endpoint, &state, &[]);
    feed.write(&records(third));
    wait_until("all streams have ended", 60, || ended(&receiver) == 16);
    let all = segments(&receiver);
    let come = streams(&all);
    assert_eq!(come.len(), 16);
    wait_until("the tree has the same streams", 30, || directories(&daemon) == come);
    assert_eq!(all.iter().filter(|(json, _)| json["event"] == "gap").count(), 8);
    assert!(all.iter().all(|(json, _)| json["published"]["lost"] == 0));
    publisher.signal(Signal::SIGTERM);
    assert!(publisher.wait(10).success(), "{}", publisher.stderr());
}

#[test]
fn segments_survive_the_daemon_and_a_filter_chooses() {
    skip_unless!(mount, "python3");
    if lacks_zmq() {
        return;
    }
    let place_of_daemon = Replaceable::new();
    let (daemon, mut feed) = place_of_daemon.start();
    let (folder, state) = saved_places();
    let endpoint = format!("ipc://{}", folder.path().join("publish").display());
    let options = ["--filter", "tcp port 3"];
    let mut publisher = publish(&daemon, &endpoint, &state, &options);
    let receiver = Running::spawn(zmq(RECEIVER).arg(&endpoint));
    receiver.wait_stdout("it is ready", 20, |bytes| bytes.starts_with(b"ready"));
    wait_for_place(&state, "/segments/next");
    let packets = merged(conversations(1..5));
    let (first, second) = packets.split_at(packets.len() / 2);
    feed.write(&records(first));
    wait_until("some have come", 30, || segments(&receiver).len() > 5);
    let stored = first.len() as u64;
    wait_until("all are stored", 30, || daemon.count(ALIAS, "/packets/stored") == stored);
    drop(feed);
    daemon.crash();
    let (daemon, mut feed) = place_of_daemon.start();
    feed.write(&records(second));
    wait_until("both streams have ended", 60, || ended(&receiver) == 2);
    let come = streams(&segments(&receiver));
    assert_eq!(come.len(), 2);
    wait_until("the tree has the same streams", 30, || {
        let mut expected = directories(&daemon);
        expected.retain(|(port, _), _| *port == 3);
        expected == come
    });
    publisher.signal(Signal::SIGTERM);
    assert!(publisher.wait(10).success(), "{}", publisher.stderr());
}
