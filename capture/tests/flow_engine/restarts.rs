//! An engine that starts over a ring with packets, and an engine that stops.

use std::io::Write;

use capture::flow::{Application, File, Log};
use capture::ring::MIN_RING;
use capture::store::Store;

use crate::scene::*;

/// All files of a tree except for the logs.
fn everything(scene: &Scene) -> Vec<(u64, String, Vec<Vec<u8>>)> {
    let files = [File::Packets, File::Client, File::Server, File::Meta];
    let http = [File::Transcript, File::Lines(Application::Http), File::Har];
    let mut all = Vec::new();
    for id in scene.ids() {
        let flow = scene.flows.flow(id).unwrap();
        let mut contents: Vec<_> = files.iter().map(|file| scene.file(id, *file)).collect();
        if flow.applications.has(Application::Http) {
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

    // The beginning was overwritten before this engine started, so nothing counts as lost.
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
fn stopping_does_not_wait_for_bodies_to_be_decoded() {
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
    wait_until("one is decoded", || !scene.log(Log::Lines(Application::Http)).is_empty());
    let before = scene.log(Log::Lines(Application::Http)).len();
    scene.flows.stop();
    let told = scene.log(Log::Lines(Application::Http)).len() - before;
    assert!(told < 100, "{told} were decoded before it stopped");
}
