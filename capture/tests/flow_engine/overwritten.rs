//! Flows whose packets the ring overwrites.

use std::ops::ControlFlow;

use capture::flow::{File, FlowReadError, Log, Seek};
use capture::store::Store;

use crate::scene::*;

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
    // Some of its packets are overwritten.
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
    stream.extend_visible();
    assert!(whole(&mut stream) == expected, "an old opener goes on");
    assert_eq!(stream.seek(0, Seek::Data), Some(gone as u64));
    assert_eq!(stream.seek(0, Seek::Hole), Some(0));
    assert_eq!(scene.meta(1)["client"]["gaps"], serde_json::json!([[0, gone, "expired"]]));
    // For new openers the packets begin later; old openers get an error for the lost ones.
    let stat = scene.flows.stat(1, File::Packets).unwrap();
    assert!(stat.beginning > 0);
    let now = scene.file(1, File::Packets);
    assert_eq!(now.len() as u64, stat.size);
    let all = 24 + 3 * 70 + 220 * 1_070;
    assert_eq!(old.read(0, 24).unwrap(), packets[..24]);
    assert_eq!(old.read(24, 1_000), Err(FlowReadError::Expired));
    old.extend_visible();
    let begin = 24 + stat.beginning;
    assert_eq!(old.read(begin, 9_999).unwrap(), now[24..24 + 9_999]);
    assert_eq!(begin + (now.len() as u64 - 24), all);
    // The flow leaves with its last packet. A reader that has it open reads its full length.
    scene.lap();
    assert!(scene.flows.flow(1).is_none());
    assert_eq!(whole(&mut stream), vec![0; 220_000]);
    assert_eq!(stream.read(220_000, 1).unwrap(), b"");
    assert_eq!(old.read(begin, 9), Err(FlowReadError::Expired));
    let lines = scene.log(Log::Flows);
    assert_eq!(of(&lines, 1).last().unwrap()["state"], "evicted");
    // The connection continues as another flow.
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
    // The engine cannot use the table while a reader visits it; the ring does not wait.
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
    // Each packet that the engine has seen is in a flow.
    let lines = scene.log(Log::Flows);
    assert_eq!(of(&lines, 1).last().unwrap()["state"], "evicted");
    let last = *scene.ids().last().unwrap();
    wait_until("it has begun", || scene.file(last, File::Client) == b"still there");
}

#[test]
fn a_conversation_of_fragments_takes_no_more_memory_than_the_ring_holds_of_it() {
    let mut scene = Scene::new(limited(|limits| limits.log = 0));
    // From here on the number of packets is odd.
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
