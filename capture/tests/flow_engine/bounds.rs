//! Flows within their limits.

use capture::flow::{Application, File, FlowReadError, Log};
use capture::ring::MIN_RING;

use crate::scene::*;

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
    assert_eq!(scene.log(Log::Lines(Application::Http)).len(), 100, "the drop is recorded before");
    assert!(scene.flows.flow(90).is_none() && scene.flows.stat(90, File::Client).is_none());
    assert_eq!(scene.file(91, File::Client), get("/a"));
}

#[test]
fn open_flows_beyond_the_limit_end_and_stay_readable() {
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
    // A connection that continues is another flow, and makes the oldest of the open flows end.
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
fn flows_stay_within_their_memory_limit() {
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
    // One transaction per flow, answered or not.
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
    // An early opener sees the whole length, and gets an error for the lost lines.
    let whole = scene.flows.log_stat(Log::Flows, Some(0));
    assert_eq!(whole.size, stat.beginning + stat.size);
    assert_eq!(early.read(0, 10), Err(FlowReadError::Expired));
    early.extend_visible();
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
        scene.send(&talk.acknowledges(CLIENT));
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
    // Each log keeps its open block of 64 KiB; the rest is the limit for the table.
    let logs = 2 * (64 << 10);
    assert!(counters.memory < logs + 120_000, "{counters:?}");
}

#[test]
fn flows_that_left_are_not_waited_for() {
    let options = limited(|limits| (limits.open, limits.flows, limits.log) = (50, 100, 0));
    let mut scene = Scene::new(options);
    for number in 0..20_000 {
        // Connections that are captured from the middle: nothing shows how soon they end.
        scene.send(&tcp(number, 2_000, true, (1, 1), ACK, b""));
        // And connections that end at once.
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
