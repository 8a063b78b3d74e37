//! The effects of time on flows.

use capture::flow::{Application, File, Log};
use capture::ring::MIN_RING;
use frames::flags::RST;
use protocol::time::Precision;

use crate::scene::*;

#[test]
fn reused_ports_are_other_flows() {
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
    // The first SYN gets no answer, so the second SYN begins another flow.
    scene.send(&tcp(1, 2_000, true, (99, 0), SYN, b""));
    scene.send(&tcp(1, 2_000, true, (0x7000_0000, 0), SYN, b""));
    scene.settle();
    assert_eq!(scene.ids(), [1, 2, 3, 4, 5, 6]);
    let state = |id| scene.meta(id)["state"].clone();
    assert_eq!([1, 2, 3, 5, 6].map(state), ["closed", "reset", "open", "opening", "opening"]);
    scene.end();
    adds_up(&scene, 6, 0);
}

/// Another host sent the resets, with the correct numbers. Every packet is in a flow.
#[test]
fn a_connection_that_goes_on_after_its_reset_is_another_flow() {
    for (client, side) in [(1, CLIENT), (2, SERVER)] {
        let mut scene = Scene::new(free());
        let mut talk = Talk::new(client, 2_000);
        scene.send_all(talk.open());
        scene.send_all(talk.says(CLIENT, &get("/1"), 1_000));
        scene.send_all(talk.says(SERVER, &ok(b"one"), 1_000));
        let reset = talk.segment(side, RST | ACK, b"");
        scene.send(&reset);
        scene.now += 3 * SECOND;
        for turn in [&b"two"[..], b"three"] {
            scene.send_all(talk.says(CLIENT, &get("/2"), 1_000));
            scene.send_all(talk.says(SERVER, &ok(turn), 1_000));
        }
        scene.send_all(talk.close());
        scene.end();
        assert_eq!(scene.ids(), [1, 2]);
        assert_eq!(scene.meta(1)["state"], "reset");
        assert_eq!(scene.file(2, File::Client), get("/2").repeat(2));
        assert_eq!(scene.file(2, File::Server), [ok(b"two"), ok(b"three")].concat());
        assert_eq!(scene.counters().late, 0);
    }
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
    // A packet of another host lets time pass too.
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
        // And time continues from there.
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
        // In the middle of a connection: the engine waits for earlier bytes.
        scene.send_all(talk.says(CLIENT, &get("/a"), 1_000));
        scene.send_all(talk.says(SERVER, &ok(b"hello"), 1_000));
        scene.writer.publish();
        wait_until("it is recorded", || !scene.log(Log::Lines(Application::Http)).is_empty());
        let times = &scene.log(Log::Lines(Application::Http))[0]["times"];
        assert_eq!(times["request_first"], "2023-11-14T22:13:20.500001000Z");
        assert_eq!(times["response_last"], "2023-11-14T22:13:20.500002000Z");
    }
}

#[test]
fn an_ended_flow_is_reported_once_it_cannot_change() {
    let mut scene = Scene::new(free());
    let mut other = Talk::new(9, 2_000);
    for (port, state) in (2_000..).zip(["closed", "reset"]) {
        let mut talk = Talk::new(1, port);
        scene.send_all(talk.open());
        scene.send_all(talk.exchange(&get("/a"), &ok(b"answer")));
        match state {
            "closed" => scene.send_all(talk.close()),
            _ => scene.send(&talk.segment(SERVER, RST | ACK, b"")),
        }
        scene.settle();
        let id = *scene.ids().last().unwrap();
        let look = |scene: &Scene| {
            let is_final = scene.flows.stat(id, File::Transcript).unwrap().is_final;
            (scene.meta(id)["state"].clone(), is_final)
        };
        assert_eq!(look(&scene), ("closing".into(), false), "stragglers may come");
        for wait in [3, 20] {
            scene.now += wait * SECOND;
            scene.send_all(other.open());
            scene.settle();
            wait_until("it has ended", || look(&scene) == (state.into(), true));
        }
    }
}

#[test]
fn time_may_begin_at_0() {
    let mut scene = Scene::new(free());
    scene.now = 0;
    scene.send_cut(&tcp(1, 2_000, true, (7, 0), ACK, b"from the middle"), 54 + 15);
    scene.settle();
    // A stream captured from its middle waits for earlier bytes, for a while.
    wait_until("the bytes are there", || scene.file(1, File::Client) == b"from the middle");
}
