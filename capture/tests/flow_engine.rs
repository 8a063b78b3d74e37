//! The flow engine over a ring: bounds, laps, time, restarts, and readers meanwhile.

mod flow_scene;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use capture::flow::{File, Flows, Limits, Log, Options, ReadError, Seek};
use capture::http::transaction::Direction;
use capture::ring::MIN_RING;
use capture::store::Store;
use capture::time::Precision;
use flow_scene::*;
use proptest::prelude::*;
use serde_json::Value;

fn limited(limit: impl FnOnce(&mut Limits)) -> Options {
    let mut options = Options::default();
    options.limits.memory = 64 << 20;
    options.limits.log = 16 << 20;
    limit(&mut options.limits);
    options
}

fn free() -> Options {
    limited(|_| {})
}

/// Every flow has begun once and ended at most once in the log, in order, and so have transactions.
#[track_caller]
fn adds_up(scene: &Scene, opened: u64, transactions: u64) {
    let counters = scene.counters();
    assert_eq!(counters.open + counters.closed + counters.evicted, opened, "{counters:?}");
    let lines = scene.log(Log::Flows);
    let told = lines.len() as u64 + scene.log(Log::Http).len() as u64;
    let all = 2 * opened - counters.open + transactions;
    assert_eq!(told + counters.log_lines_dropped, all, "{counters:?}");
    if counters.log_lines_dropped > 0 {
        return;
    }
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    let mut newest = 0;
    for line in &lines {
        let id = line["id"].as_u64().unwrap();
        let times = seen.entry(id).or_default();
        *times += 1;
        if *times == 1 {
            assert_eq!(id, newest + 1, "ids are given in order, each once");
            newest = id;
        }
        let is_end =
            matches!(line["state"].as_str().unwrap(), "closed" | "reset" | "timed_out" | "evicted");
        assert!(*times == 1 || *times == 2 && (is_end || counters.open == 0), "{line}");
    }
    assert_eq!(newest, opened);
    assert_eq!(seen.values().filter(|times| **times == 1).count() as u64, counters.open);
}

fn of(lines: &[Value], id: u64) -> Vec<&Value> {
    lines.iter().filter(|line| line["id"] == id).collect()
}

// ---- Bounds.

#[test]
fn more_flows_than_there_may_be_leave_the_tree() {
    let mut scene = Scene::of_size(8 * MIN_RING, limited(|limits| limits.flows = 10));
    for number in 0..100 {
        scene.send_all(Talk::new(number, 2_000).exchange(&get("/a"), &ok(b"hello")));
    }
    scene.settle();
    scene.end();
    let counters = scene.counters();
    assert_eq!((counters.open, counters.dropped), (0, 90), "{counters:?}");
    adds_up(&scene, 100, 100);
    assert_eq!(scene.ids(), (91..=100).collect::<Vec<_>>(), "the newest stay");
    assert_eq!(scene.log(Log::Http).len(), 100, "what was dropped is told before");
    assert!(scene.flows.flow(90).is_none() && scene.flows.stat(90, File::Client).is_none());
    assert_eq!(scene.file(91, File::Client), get("/a"));
}

#[test]
fn more_open_flows_than_there_may_be_end_and_stay_readable() {
    let mut scene = Scene::new(limited(|limits| limits.open = 5));
    let mut talks: Vec<_> = (0..50).map(|number| Talk::new(number, 2_000)).collect();
    for talk in &mut talks {
        scene.send_all(talk.open());
        scene.send_all(talk.says(CLIENT, b"before", 100));
        scene.settle();
    }
    let counters = scene.counters();
    assert_eq!((counters.open, counters.closed, counters.evicted), (5, 0, 45));
    assert_eq!(counters.dropped, 0);
    assert_eq!(scene.ids().len(), 50);
    for id in 1..=45 {
        assert_eq!(scene.meta(id)["state"], "evicted");
        assert_eq!(scene.file(id, File::Client), b"before");
        assert!(scene.flows.stat(id, File::Client).unwrap().is_final);
    }
    // One that goes on is another flow, and makes the oldest of the open ones end.
    scene.send_all(talks[0].says(CLIENT, b"after", 100));
    scene.settle();
    wait_until("it has begun", || scene.file(51, File::Client) == b"after");
    assert_eq!(scene.file(1, File::Client), b"before", "it has ended");
    assert_eq!((scene.counters().open, scene.counters().evicted), (5, 46));
    adds_up(&scene, 51, 0);
    scene.end();
    adds_up(&scene, 51, 0);
}

#[test]
fn flows_stay_within_the_memory_given() {
    const MEMORY: usize = 1 << 20;
    let options = limited(|limits| (limits.memory, limits.log) = (MEMORY, 64 << 10));
    let mut scene = Scene::of_size(16 * MIN_RING, options);
    for number in 0..4_000 {
        let mut talk = Talk::new(number, 2_000);
        scene.send_all(talk.open());
        scene.send_all(talk.says(CLIENT, &get("/a"), 100));
        if number % 3 == 0 {
            scene.send_all(talk.says(SERVER, &ok(b"hello"), 100));
            scene.send_all(talk.close());
        }
        if number % 100 == 0 {
            scene.settle();
            let counters = scene.counters();
            assert!(counters.memory <= MEMORY as u64 + (256 << 10), "{counters:?}");
        }
    }
    scene.settle();
    let counters = scene.counters();
    assert!(counters.dropped > 1_000 && counters.engine_lost_packets == 0, "{counters:?}");
    let ids = scene.ids();
    assert!(ids.len() > 50 && ids.last() == Some(&4_000), "{} left", ids.len());
    assert_eq!(scene.file(4_000, File::Client), get("/a"));
    scene.end();
    // One of each, answered or not.
    adds_up(&scene, 4_000, 4_000);
}

#[test]
fn a_log_within_its_bound_counts_the_lines_that_left() {
    let mut scene = Scene::of_size(8 * MIN_RING, limited(|limits| limits.log = 100 << 10));
    let mut early = scene.flows.open_log(Log::Flows, 0);
    for number in 0..3_000 {
        scene.send_all(Talk::new(number, 2_000).exchange(b"x", b"y"));
        if number == 10 {
            scene.settle();
            assert_eq!(early.read(0, 10).unwrap(), b"", "where it ended at open");
            assert!(early.read(0, 10).unwrap().starts_with(b"{"));
        }
        if number % 100 == 0 {
            scene.settle();
        }
    }
    scene.settle();
    scene.end();
    let counters = scene.counters();
    assert!(counters.log_lines_dropped > 1_000, "{counters:?}");
    adds_up(&scene, 3_000, 0);
    let stat = scene.flows.log_stat(Log::Flows, None);
    assert!(stat.beginning > 0);
    let last = scene.log(Log::Flows).pop().unwrap();
    assert_eq!((&last["id"], &last["state"]), (&3_000.into(), &"closed".into()));
    // The early opener has the whole length, and is told what is gone.
    let whole = scene.flows.log_stat(Log::Flows, Some(0));
    assert_eq!(whole.size, stat.beginning + stat.size);
    assert_eq!(early.read(0, 10), Err(ReadError::Expired));
    early.rearm();
    assert!(early.read(stat.beginning, 10).unwrap().starts_with(b"{"), "whole lines are left");
}

#[test]
fn memory_comes_back_when_everything_has_left() {
    let options = limited(|limits| limits.log = 0);
    let mut scene = Scene::of_size(32 * MIN_RING, options);
    for number in 0..10_000 {
        let mut talk = Talk::new(number, 2_000);
        scene.send_all(talk.open());
        scene.send_all(talk.says(CLIENT, &get("/a"), 100));
        scene.send_all(talk.says(SERVER, &ok(b"hello"), 100));
        if number % 2 == 0 {
            scene.send_all(talk.close());
        }
        scene.send_all([udp(number, 3_000, true, b"question")]);
        if number % 500 == 0 {
            scene.settle();
        }
    }
    scene.settle();
    let full = scene.counters();
    assert!(full.memory > 5_000_000 && full.dropped == 0, "{full:?}");
    assert_eq!(scene.ids().len(), 20_000);
    scene.writer.clear();
    wait_until("all flows have left", || scene.ids().is_empty());
    let counters = scene.counters();
    assert_eq!(counters.open, 0, "{counters:?}");
    assert_eq!(counters.closed + counters.evicted, 20_000, "{counters:?}");
    assert!(counters.memory < 200_000, "{counters:?}");
}

#[test]
fn flows_that_left_are_not_waited_for() {
    let options = limited(|limits| (limits.open, limits.flows, limits.log) = (50, 100, 0));
    let mut scene = Scene::new(options);
    for number in 0..20_000 {
        // Connections in the middle: nothing tells how soon they are over.
        scene.send(&tcp(number, 2_000, true, (1, 1), ACK, b""));
        // And some that are over at once.
        scene.send_all(Talk::new(number, 3_000).exchange(b"", b""));
        if number % 200 == 0 {
            scene.settle();
        }
    }
    scene.settle();
    let counters = scene.counters();
    assert_eq!(counters.open + counters.closed + counters.evicted, 40_000, "{counters:?}");
    assert!(counters.memory < 200_000, "{counters:?}");
}

// ---- What the ring overwrites.

#[test]
fn an_open_flow_whose_first_packets_are_gone() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    let early: Vec<u8> = (0..200_000_u32).map(|n| 1 + (n % 251) as u8).collect();
    scene.send_all(talk.says(CLIENT, &early, 1_000));
    scene.settle();
    let packets = scene.file(1, File::Packets);
    let mut old = scene.flows.open(1, File::Packets, 0).unwrap();
    let mut stream = scene.flows.open(1, File::Client, 0).unwrap();
    assert_eq!(stream.seek(0, Seek::Hole), Some(200_000));
    // Some of it leaves.
    scene.lap_to(10);
    let later = &early[..20_000];
    scene.send_all(talk.says(CLIENT, later, 1_000));
    scene.settle();
    let oldest = scene.ring.bounds().oldest.number;
    let stat = scene.flows.stat(1, File::Client).unwrap();
    let gone = usize::try_from((oldest - 4) * 1_000).unwrap();
    assert!(gone > 100_000 && gone < 200_000, "{gone}");
    assert_eq!((stat.size, stat.present), (220_000, 220_000 - gone as u64));
    let expected = [vec![0; gone], early[gone..].to_vec(), later.to_vec()].concat();
    assert!(scene.file(1, File::Client) == expected);
    stream.rearm();
    assert!(whole(&mut stream) == expected, "an old opener goes on");
    assert_eq!(stream.seek(0, Seek::Data), Some(gone as u64));
    assert_eq!(stream.seek(0, Seek::Hole), Some(0));
    assert_eq!(scene.meta(1)["client"]["gaps"], serde_json::json!([[0, gone, "expired"]]));
    // The packets begin later, for new openers; old ones are told.
    let stat = scene.flows.stat(1, File::Packets).unwrap();
    assert!(stat.beginning > 0);
    let now = scene.file(1, File::Packets);
    assert_eq!(now.len() as u64, stat.size);
    let all = 24 + 3 * 70 + 220 * 1_070;
    assert_eq!(old.read(0, 24).unwrap(), packets[..24]);
    assert_eq!(old.read(24, 1_000), Err(ReadError::Expired));
    old.rearm();
    let begin = 24 + stat.beginning;
    assert_eq!(old.read(begin, 9_999).unwrap(), now[24..24 + 9_999]);
    assert_eq!(begin + (now.len() as u64 - 24), all);
    // With its last packet the flow leaves, and who has it open reads what was told.
    scene.lap();
    assert!(scene.flows.flow(1).is_none());
    assert_eq!(whole(&mut stream), vec![0; 220_000]);
    assert_eq!(stream.read(220_000, 1).unwrap(), b"");
    assert_eq!(old.read(begin, 9), Err(ReadError::Expired));
    let lines = scene.log(Log::Flows);
    assert_eq!(of(&lines, 1).last().unwrap()["state"], "evicted");
    // And goes on as another.
    scene.send_all(talk.says(CLIENT, b"more", 100));
    scene.settle();
    let id = *scene.ids().last().unwrap();
    wait_until("it has begun", || scene.file(id, File::Client) == b"more");
    assert_eq!(scene.counters().engine_lost_packets, 0);
}

#[test]
fn packets_lost_while_the_engine_was_held_up_are_counted() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    scene.settle();
    let flows = std::sync::Arc::clone(&scene.flows);
    let filler = udp(2, 2_000, true, &[0; 1_400]);
    // Nothing gets into the table while somebody looks at it; the ring does not wait.
    flows.list(0, &mut |_| {
        for _ in 0..2_000 {
            scene.send(&filler);
        }
        scene.writer.publish();
        ControlFlow::Break(())
    });
    let frames = talk.says(CLIENT, b"still there", 100);
    scene.send_all(frames);
    scene.settle();
    let counters = scene.counters();
    assert!(counters.engine_lost_packets > 500, "{counters:?}");
    assert_eq!(counters.engine_lag_packets, 0);
    // Those it has seen are each in a flow.
    let lines = scene.log(Log::Flows);
    assert_eq!(of(&lines, 1).last().unwrap()["state"], "evicted");
    let last = *scene.ids().last().unwrap();
    wait_until("it has begun", || scene.file(last, File::Client) == b"still there");
}

#[test]
fn a_conversation_of_fragments_takes_no_more_memory_than_the_ring_holds_of_it() {
    let mut scene = Scene::new(limited(|limits| limits.log = 0));
    // From here on there is an odd number of packets.
    scene.send(&udp(1, 2_000, true, b"one alone"));
    let mut most = u64::MAX;
    for round in 0..150 {
        for _ in 0..100 {
            scene.send_all(fragmented_udp(1, 2_000, &[7; 700], 400));
        }
        scene.settle();
        let memory = scene.counters().memory;
        assert!(memory <= most, "{memory} bytes of memory, {most} before");
        if round == 50 {
            most = memory + memory / 4;
        }
    }
    assert_eq!(scene.counters().engine_lost_packets, 0);
    assert_eq!(scene.ids(), [1]);
}

#[test]
fn a_conversation_cut_by_a_snaplen_remembers_so_many_holes() {
    let mut scene = Scene::new(limited(|limits| limits.log = 0));
    let frame = udp(1, 2_000, true, &[7; 700]);
    for number in 0..150_000 {
        scene.now += 1_000;
        scene.send_cut(&frame, 60);
        if number % 1_000 == 0 {
            scene.settle();
        }
    }
    scene.settle();
    let counters = scene.counters();
    assert_eq!((scene.ids(), counters.engine_lost_packets), (vec![1], 0));
    assert!(counters.memory < 3_000_000, "{counters:?}");
    assert_eq!(scene.flows.stat(1, File::Client).unwrap().size, 150_000 * 700);
}

// ---- Time.

#[test]
fn ports_used_again_are_other_flows() {
    let mut scene = Scene::new(free());
    let mut next = 7_000_u32;
    let mut again = |scene: &mut Scene, id: u64, end: &dyn Fn(&mut Talk) -> Vec<Vec<u8>>| {
        let mut talk = Talk::new(1, 2_000);
        next = next.wrapping_add(0x3000_0000);
        talk.next = [next, !next];
        let frames = talk.open();
        scene.send_all(frames);
        let text = format!("flow {id}");
        scene.send_all(talk.says(CLIENT, text.as_bytes(), 3));
        scene.send_all(end(&mut talk));
        scene.settle();
        assert_eq!(scene.file(id, File::Client), text.as_bytes());
        assert_eq!(scene.ids().len() as u64, id);
    };
    again(&mut scene, 1, &|talk| talk.close());
    again(&mut scene, 2, &|talk| vec![talk.segment(SERVER, RST | ACK, b"")]);
    again(&mut scene, 3, &|_| vec![]);
    scene.now += 31 * SECOND;
    again(&mut scene, 4, &|talk| talk.close());
    // Nobody answers the one, so the other is another.
    scene.send(&tcp(1, 2_000, true, (99, 0), SYN, b""));
    scene.send(&tcp(1, 2_000, true, (0x7000_0000, 0), SYN, b""));
    scene.settle();
    assert_eq!(scene.ids(), [1, 2, 3, 4, 5, 6]);
    let state = |id| scene.meta(id)["state"].clone();
    assert_eq!([1, 2, 3, 5, 6].map(state), ["closed", "reset", "open", "opening", "opening"]);
    scene.end();
    adds_up(&scene, 6, 0);
}

#[test]
fn datagrams_after_a_silence_are_another_conversation() {
    let mut scene = Scene::new(free());
    let say = |scene: &mut Scene, after: u64, from_client, flow: u64| {
        scene.now += after * SECOND;
        scene.send(&udp(1, 2_000, from_client, b"x"));
        scene.settle();
        assert_eq!(scene.ids().last(), Some(&flow));
    };
    say(&mut scene, 0, true, 1);
    say(&mut scene, 29, true, 1);
    say(&mut scene, 31, true, 2);
    say(&mut scene, 29, false, 2);
    say(&mut scene, 119, true, 2);
    say(&mut scene, 121, false, 3);
    let lines = scene.log(Log::Flows);
    for (id, packets) in [(1, 2), (2, 3)] {
        let ended = of(&lines, id)[1];
        assert_eq!(ended["state"], "timed_out");
        let both = ["client", "server"].map(|side| ended[side]["packets"].as_u64().unwrap());
        assert_eq!(both.iter().sum::<u64>(), packets);
    }
    assert_eq!(scene.file(2, File::Client), b"xx");
    assert_eq!(scene.file(2, File::Server), b"x");
    // A packet of somebody else lets time pass too.
    scene.now += 31 * SECOND;
    scene.send(&udp(2, 2_000, true, b"x"));
    scene.settle();
    let lines = scene.log(Log::Flows);
    assert_eq!(of(&lines, 3)[1]["state"], "timed_out");
    assert_eq!(scene.counters().closed, 3);
}

#[test]
fn time_that_goes_back_ends_nothing() {
    for ahead in [3_600 * SECOND, (u64::from(u32::MAX) - 1) * SECOND - EPOCH] {
        let mut scene = Scene::new(free());
        scene.now += ahead;
        scene.send_all(Talk::new(1, 2_000).exchange(b"later", b"yes"));
        scene.settle();
        scene.now = EPOCH;
        let mut talk = Talk::new(2, 2_000);
        scene.send_all(talk.open());
        for _ in 0..50 {
            scene.now += 100 * MILLISECOND;
            scene.send_all(talk.says(CLIENT, b"now", 100));
            scene.send(&udp(3, 2_000, true, b"now"));
            scene.settle();
        }
        assert_eq!(scene.ids(), [1, 2, 3]);
        assert_eq!(scene.file(2, File::Client), b"now".repeat(50));
        assert_eq!(scene.meta(2)["state"], "open");
        scene.send_all(talk.close());
        // And it goes on from there.
        scene.now += 5 * SECOND;
        scene.send(&udp(3, 2_000, true, b"now"));
        scene.settle();
        assert_eq!(scene.meta(2)["state"], "closed");
        assert!(scene.flows.flow(2).unwrap().is_over);
        scene.now += 31 * SECOND;
        scene.send(&udp(4, 2_000, true, b"now"));
        scene.settle();
        assert_eq!(scene.meta(3)["state"], "timed_out");
    }
}

#[test]
fn times_of_messages_are_those_of_their_packets_in_any_precision() {
    for precision in [Precision::Micro, Precision::Nano] {
        let mut scene = Scene::over(Place::new(MIN_RING, precision), free());
        scene.now += SECOND / 2;
        let mut talk = Talk::new(1, 2_000);
        // In the middle of a connection: whether something comes before is waited for.
        scene.send_all(talk.says(CLIENT, &get("/a"), 1_000));
        scene.send_all(talk.says(SERVER, &ok(b"hello"), 1_000));
        scene.writer.publish();
        wait_until("it is told", || !scene.log(Log::Http).is_empty());
        let times = &scene.log(Log::Http)[0]["times"];
        assert_eq!(times["request_first"], "2023-11-14T22:13:20.500001000Z");
        assert_eq!(times["response_last"], "2023-11-14T22:13:20.500002000Z");
    }
}

// ---- Restarts.

/// What a tree says, but for the logs.
fn everything(scene: &Scene) -> Vec<(u64, String, Vec<Vec<u8>>)> {
    let files = [File::Packets, File::Client, File::Server, File::Meta];
    let http = [File::Transcript, File::HttpJsonl, File::Har];
    let mut all = Vec::new();
    for id in scene.ids() {
        let flow = scene.flows.flow(id).unwrap();
        let mut contents: Vec<_> = files.iter().map(|file| scene.file(id, *file)).collect();
        if flow.has_http {
            contents.extend(http.iter().map(|file| scene.file(id, *file)));
        }
        all.push((id, flow.name, contents));
    }
    all
}

#[test]
fn an_engine_over_a_ring_with_packets_finds_the_same_flows() {
    let mut scene = Scene::new(free());
    let mut open = Talk::new(77, 2_000);
    scene.send_all(open.open());
    for number in 0..20 {
        scene.send_all(Talk::new(number, 2_000).exchange(&get("/a"), &ok(b"hello")));
        scene.send(&udp(number, 2_000, true, b"x"));
        scene.send_all(open.says(CLIENT, &get(&format!("/{number}")), 10));
    }
    scene.settle();
    let before = everything(&scene);
    assert_eq!(before.len(), 41);
    let mut scene = scene.restart(free());
    scene.settle();
    assert!(everything(&scene) == before);
    assert_eq!(scene.counters().engine_lost_packets, 0);
    scene.send_all(open.says(CLIENT, b"on", 10));
    scene.settle();
    assert_eq!(scene.file(1, File::Client), open.sent[CLIENT]);

    // With the beginning gone, nothing is lost by the one who was not there.
    scene.lap_to(30);
    let oldest = scene.ring.bounds().oldest.number;
    assert!(oldest > 30);
    let mut scene = scene.restart(free());
    scene.settle();
    let counters = scene.counters();
    assert_eq!((counters.engine_lost_packets, counters.engine_lag_packets), (0, 0));
    assert_eq!(scene.ids().first(), Some(&1), "an engine counts its own flows");
    let packets: u64 = scene
        .ids()
        .iter()
        .map(|id| {
            let meta = scene.meta(*id);
            ["client", "server"]
                .map(|side| meta[side]["packets"].as_u64().unwrap())
                .iter()
                .sum::<u64>()
        })
        .sum();
    assert_eq!(packets, scene.ring.bounds().next.number - oldest, "every packet is in a flow");
}

#[test]
fn stopping_does_not_wait_for_what_there_is_to_decode() {
    const COUNT: u32 = 2_000;
    let mut scene = Scene::of_size(64 * MIN_RING, free());
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![0; 4 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ";
    let answer = [format!("{head}{}\r\n\r\n", bomb.len()).as_bytes(), &bomb].concat();
    for number in 0..COUNT {
        scene.send_all(Talk::new(number, 2_000).exchange(&get("/bomb"), &answer));
    }
    scene.writer.publish();
    wait_until("one is decoded", || !scene.log(Log::Http).is_empty());
    let before = scene.log(Log::Http).len();
    scene.flows.stop();
    let told = scene.log(Log::Http).len() - before;
    assert!(told < 100, "{told} were decoded before it stopped");
}

// ---- Readers meanwhile.

/// What the server answers connection `number` the `turn`th time.
fn answer(number: u32, turn: u32) -> Vec<u8> {
    let seed = number.wrapping_mul(31).wrapping_add(turn);
    (0..500 + seed % 1_500).map(|at| 1 + ((at ^ seed) % 200) as u8).collect()
}

fn target(number: u32, turn: u32) -> String {
    format!("/{number}/{turn}")
}

const TURNS: u32 = 8;

/// Everything that connection `number` will have said in the end.
fn truth(number: u32) -> [Vec<u8>; 2] {
    let asks = (0..TURNS).flat_map(|turn| get(&target(number, turn))).collect();
    let answers = (0..TURNS).flat_map(|turn| ok(&answer(number, turn))).collect();
    [asks, answers]
}

/// Which connection a flow is.
fn number_of(name: &str) -> u32 {
    let address = name.split('-').nth(2).unwrap();
    let parts: Vec<u32> = address.split('.').map(|part| part.parse().unwrap()).collect();
    parts[1] << 16 | parts[2] << 8 | parts[3]
}

/// What everybody together was told of files: where they begin, and how long they are.
#[derive(Default)]
struct Told(Mutex<HashMap<(u64, File), (u64, u64)>>);

impl Told {
    /// Asks for size and beginning, which must not go back.
    fn ask(&self, flows: &Flows, id: u64, file: File) -> Option<(u64, u64)> {
        let before = self.0.lock().unwrap().get(&(id, file)).copied();
        let stat = flows.stat(id, file)?;
        if let Some((beginning, size)) = before {
            assert!(stat.beginning >= beginning, "{file:?} of {id} begins earlier");
            let is_same = stat.beginning == beginning;
            assert!(
                !is_same || stat.size >= size,
                "{file:?} of {id} has shrunk from {size}: {stat:?}"
            );
        }
        assert!(stat.present <= stat.size);
        let told = (stat.beginning, stat.size);
        let mut all = self.0.lock().unwrap();
        let newest = all.entry((id, file)).or_insert(told);
        *newest = told.max(*newest);
        Some(told)
    }
}

/// Each byte is right, or not there any more.
#[track_caller]
fn agrees(bytes: &[u8], truth: &[u8]) {
    assert!(bytes.len() <= truth.len());
    let wrong = bytes.iter().zip(truth).position(|(is, was)| is != was && *is != 0);
    assert_eq!(wrong, None, "the first byte that is wrong");
}

/// Reads a file of a flow to its end; `None` if it is gone.
fn look(flows: &Flows, told: &Told, id: u64, number: u32, file: File) -> Option<()> {
    let is_made = matches!(file, File::Meta | File::Har);
    let (beginning, size) = if is_made { (0, 0) } else { told.ask(flows, id, file)? };
    let mut reading = flows.open(id, file, beginning).ok()?;
    let mut bytes = Vec::new();
    loop {
        match reading.read(bytes.len() as u64, 3_000) {
            Ok(part) if part.is_empty() => break,
            Ok(part) => bytes.extend(part),
            Err(error) => {
                assert_eq!((error, file), (ReadError::Expired, File::Packets));
                return None;
            }
        }
    }
    assert!(bytes.len() as u64 >= size, "{file:?} of {id}: {} of {size}", bytes.len());
    let [asks, answers] = truth(number);
    match file {
        File::Client => agrees(&bytes, &asks),
        File::Server => agrees(&bytes, &answers),
        File::Body { index, direction } => {
            assert_eq!(direction, Direction::Response);
            agrees(&bytes, &answer(number, u32::try_from(index - 1).unwrap()));
        }
        File::Packets => {
            let mut rest = &bytes[24..];
            while !rest.is_empty() {
                let len = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
                rest = &rest[16 + len..];
            }
        }
        File::Meta | File::Har => {
            serde_json::from_slice::<Value>(&bytes).unwrap();
        }
        File::HttpJsonl => {
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                // Of a flow that left meanwhile, blanks.
                let is_blank = line.iter().all(|byte| *byte == b' ');
                let is_cut = flows.flow(id).is_none();
                assert!(is_blank || is_cut || serde_json::from_slice::<Value>(line).is_ok());
            }
        }
        File::Transcript => {}
    }
    for to in [Seek::Data, Seek::Hole] {
        let offset = size / 2;
        assert!(reading.seek(offset, to).is_none_or(|at| at >= offset));
    }
    Some(())
}

fn look_at_everything(flows: &Flows, told: &Told) {
    for id in ids(flows) {
        let Some(flow) = flows.flow(id) else { continue };
        if !flow.name.contains("-tcp-") {
            continue;
        }
        let number = number_of(&flow.name);
        for file in [
            File::Meta,
            File::Packets,
            File::Client,
            File::Server,
            File::Transcript,
            File::HttpJsonl,
            File::Har,
        ] {
            look(flows, told, id, number, file);
        }
        let mut bodies = Vec::new();
        flows.bodies(id, 1, &mut |body| {
            bodies.push(File::Body { index: body.index, direction: body.direction });
            ControlFlow::Continue(())
        });
        for file in bodies {
            look(flows, told, id, number, file);
        }
    }
    for log in [Log::Flows, Log::Http] {
        let beginning = flows.log_stat(log, None).beginning;
        let bytes = whole(&mut flows.open_log(log, beginning));
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            serde_json::from_slice::<Value>(line).unwrap();
        }
    }
    let counters = flows.counters();
    assert!(counters.engine_lost_packets == 0 && counters.undecodable == 0, "{counters:?}");
}

#[test]
fn readers_of_everything_while_flows_come_and_go() {
    const CONNECTIONS: u32 = 200;
    const AT_A_TIME: usize = 12;
    let options = limited(|limits| (limits.flows, limits.open) = (40, 20));
    let mut scene = Scene::new(options);
    let (told, is_over) = (Told::default(), AtomicBool::new(false));
    let flows = std::sync::Arc::clone(&scene.flows);
    let rounds = thread::scope(|scope| {
        let read = || {
            let mut rounds = 0_u32;
            while !is_over.load(Ordering::Relaxed) {
                look_at_everything(&flows, &told);
                rounds += 1;
            }
            rounds
        };
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        let mut next = 0;
        let mut talks: Vec<(Talk, u32)> = Vec::new();
        while next < CONNECTIONS || !talks.is_empty() {
            while next < CONNECTIONS && talks.len() < AT_A_TIME {
                let mut talk = Talk::new(next, 2_000);
                scene.send_all(talk.open());
                talks.push((talk, 0));
                next += 1;
            }
            for (talk, turn) in &mut talks {
                scene.send_all(talk.says(CLIENT, &get(&target(talk.client, *turn)), 40));
                scene.send_all(talk.says(SERVER, &ok(&answer(talk.client, *turn)), 700));
                *turn += 1;
                if *turn == TURNS {
                    scene.send_all(talk.close());
                }
            }
            talks.retain(|(_, turn)| *turn < TURNS);
            scene.settle();
        }
        is_over.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u32>()
    });
    assert!(rounds > 3, "they read while packets came");
    assert!(scene.ring.bounds().oldest.number > 1, "and while others were overwritten");
    scene.end();
    look_at_everything(&scene.flows, &told);
    let counters = scene.counters();
    assert_eq!(counters.closed + counters.evicted, u64::from(CONNECTIONS), "{counters:?}");
    assert_eq!(scene.log(Log::Http).len() as u64, u64::from(CONNECTIONS * TURNS));
}

// ---- Any conversations in any order.

#[test]
fn requests_captured_after_the_answer_and_the_next_request() {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    let mut turn = |number: u32| {
        let asks = talk.says(CLIENT, &get(&target(1, number)), 1_000).remove(0);
        (asks, talk.says(SERVER, &ok(b"hello"), 1_000).remove(0))
    };
    let (first, second, third) = (turn(1), turn(2), turn(3));
    scene.send_all([first.0, first.1, second.1, third.0, second.0, third.1]);
    scene.settle();
    let told = scene.log(Log::Http);
    let targets: Vec<_> = told.iter().map(|line| line["target"].clone()).collect();
    assert_eq!(targets, ["/1/1", "/1/2", "/1/3"], "while the connection is still open");
    assert!(told.iter().all(|line| line["state"] == "complete"));
}

#[derive(Clone, Debug)]
struct Turn {
    asks: usize,
    answers: usize,
    /// Bytes of a chunk, if it comes in chunks.
    chunk: Option<usize>,
}

#[derive(Clone, Debug)]
struct Plan {
    turns: Vec<Turn>,
    /// All requests come before the first answer.
    is_pipelined: bool,
    /// Bytes of a segment at most.
    segment: usize,
    is_closed: bool,
    /// Segments that are captured after the next one, and those captured twice.
    late: Vec<prop::sample::Index>,
    twice: Vec<prop::sample::Index>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let turn = (0..3_000_usize, 0..6_000_usize, prop::option::of(1..700_usize)).prop_map(
        |(asks, answers, chunk)| Turn { asks: asks.saturating_sub(1_500), answers, chunk },
    );
    let some = || prop::collection::vec(any::<prop::sample::Index>(), 0..6);
    (
        prop::collection::vec(turn, 1..5),
        any::<bool>(),
        20..1_460_usize,
        any::<bool>(),
        some(),
        some(),
    )
        .prop_map(|(turns, is_pipelined, segment, is_closed, late, twice)| Plan {
            turns,
            is_pipelined,
            segment,
            is_closed,
            late,
            twice,
        })
}

fn text(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| b'a' + u8::try_from((at * 7 + seed + at / 26) % 26).unwrap()).collect()
}

impl Turn {
    fn request(&self, turn: usize) -> Vec<u8> {
        if self.asks == 0 {
            return get(&format!("/{turn}"));
        }
        let head = format!("POST /{turn} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", self.asks);
        [head.into_bytes(), text(turn, self.asks)].concat()
    }

    fn answer(&self, turn: usize) -> Vec<u8> {
        let body = text(turn + 9, self.answers);
        let Some(chunk) = self.chunk else { return ok(&body) };
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for part in body.chunks(chunk) {
            bytes.extend(format!("{:x}\r\n", part.len()).into_bytes());
            bytes.extend(part);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }
}

impl Plan {
    fn frames(&self, talk: &mut Talk) -> Vec<Vec<u8>> {
        let opening = talk.open();
        let mut frames = Vec::new();
        for (number, turn) in self.turns.iter().enumerate() {
            frames.extend(talk.says(CLIENT, &turn.request(number), self.segment));
            if !self.is_pipelined {
                frames.extend(talk.says(SERVER, &turn.answer(number), self.segment));
            }
        }
        if self.is_pipelined {
            for (number, turn) in self.turns.iter().enumerate() {
                frames.extend(talk.says(SERVER, &turn.answer(number), self.segment));
            }
        }
        for twice in &self.twice {
            let at = twice.index(frames.len());
            frames.insert(at, frames[at].clone());
        }
        for late in &self.late {
            let at = late.index(frames.len() - 1);
            frames.swap(at, at + 1);
        }
        let closing = if self.is_closed { talk.close() } else { Vec::new() };
        [opening, frames, closing].concat()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_conversations_come_out_as_they_were(
        plans in prop::collection::vec(plan(), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 64),
        ends in any::<bool>(),
    ) {
        let mut scene = Scene::of_size(4 * MIN_RING, free());
        let mut talks: Vec<_> = (0..).map(|number| Talk::new(number, 2_000)).take(plans.len()).collect();
        let frames = plans.iter().zip(&mut talks).map(|(plan, talk)| plan.frames(talk).into_iter());
        let mut frames: Vec<_> = frames.collect();
        let mut order = order.iter().cycle();
        while !frames.is_empty() {
            let at = order.next().unwrap().index(frames.len());
            match frames[at].next() {
                Some(frame) => scene.send(&frame),
                None => drop(frames.remove(at)),
            }
        }
        scene.settle();
        if ends {
            scene.end();
        }
        let told = scene.log(Log::Http);
        prop_assert_eq!(scene.ids().len(), plans.len());
        for id in scene.ids() {
            let number = number_of(&scene.flows.flow(id).unwrap().name) as usize;
            let (plan, talk) = (&plans[number], &talks[number]);
            prop_assert!(scene.file(id, File::Client) == talk.sent[CLIENT]);
            prop_assert!(scene.file(id, File::Server) == talk.sent[SERVER]);
            let lines = scene.file(id, File::HttpJsonl);
            let lines: Vec<Value> = lines
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect();
            let of_flow: Vec<_> = told.iter().filter(|line| line["flow"] == id).collect();
            prop_assert_eq!(lines.iter().collect::<Vec<_>>(), of_flow, "the same as in the log of all");
            prop_assert_eq!(lines.len(), plan.turns.len());
            for (turn, (line, wanted)) in lines.iter().zip(&plan.turns).enumerate() {
                prop_assert_eq!(&line["target"], &Value::from(format!("/{turn}")));
                prop_assert_eq!((&line["state"], &line["status"]), (&"complete".into(), &200.into()));
                prop_assert_eq!(&line["request_body"]["bytes"], &Value::from(wanted.asks));
                prop_assert_eq!(&line["response_body"]["bytes"], &Value::from(wanted.answers));
                let index = turn as u64 + 1;
                for (direction, len, seed) in [
                    (Direction::Request, wanted.asks, turn),
                    (Direction::Response, wanted.answers, turn + 9),
                ] {
                    if len > 0 {
                        let body = scene.file(id, File::Body { index, direction });
                        prop_assert!(body == text(seed, len));
                    }
                }
            }
        }
    }
}
