//! Every captured byte is in a stream or counted, and every packet in a flow or counted.

use capture::flow::{File, FlowOptions};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::scene::{ACK, CLIENT, SERVER, Scene, Talk};

/// Checks that each captured byte of payload of an ended flow is in its stream, or in a counter.
#[track_caller]
pub(crate) fn every_byte_is_somewhere(meta: &Value) {
    for side in ["client", "server"] {
        let side = &meta[side];
        let of = |name: &str| side[name].as_u64().unwrap();
        let gaps = side["gaps"].as_array().unwrap().iter();
        let missing: u64 =
            gaps.map(|gap| gap[1].as_u64().unwrap() - gap[0].as_u64().unwrap()).sum();
        let unplaced = of("repeated_bytes") + of("late_bytes") + of("rejected_bytes");
        assert_eq!(of("captured_bytes"), of("stream_bytes") - missing + unplaced, "{meta:#}");
    }
}

/// The capture lost 100 MB and continued in the middle of the response.
#[test]
fn after_a_long_outage_every_captured_byte_is_in_its_stream() {
    let mut scene = Scene::new(FlowOptions::default());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    scene.send_all(talk.says(CLIENT, b"what the client says", 100));
    scene.send_all(talk.says(SERVER, &[b'a'; 1_000], 1_000));
    talk.next[SERVER] = talk.next[SERVER].wrapping_add(100 << 20);
    for _ in 0..10 {
        let data = talk.segment(SERVER, ACK, &[b'b'; 1_000]);
        let acknowledgment = talk.segment(CLIENT, ACK, b"");
        scene.send_all([data, acknowledgment]);
    }
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    let meta = scene.meta(1);
    every_byte_is_somewhere(&meta);
    let server = &meta["server"];
    assert_eq!(
        (server["captured_bytes"].as_u64(), server["rejected_bytes"].as_u64()),
        (Some(11_000), Some(0))
    );
    assert_eq!(server["stream_bytes"], (100 << 20) + 11_000, "{server}");
    assert_eq!(scene.flows.stat(1, File::Server).unwrap().present, 11_000);
}

/// Only one side of a connection was captured. The bytes of the other side are one gap, which each
/// acknowledgment makes longer.
#[test]
fn a_gap_that_grows_counts_once() {
    let mut scene = Scene::new(FlowOptions::default());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    for _ in 0..20 {
        let _not_captured = talk.says(SERVER, &[b'a'; 1_000], 1_000);
        scene.send(&talk.segment(CLIENT, ACK, b""));
        // Long enough for a gap to be given up.
        scene.now += 2_000_000_000;
    }
    scene.send_all(talk.says(SERVER, b"captured", 1_000));
    let _not_captured = talk.says(SERVER, &[b'b'; 1_000], 1_000);
    scene.send(&talk.segment(CLIENT, ACK, b""));
    scene.settle();
    scene.end();
    let gaps = &scene.meta(1)["server"]["gaps"];
    assert_eq!(*gaps, json!([[0, 20_000, "missing"], [20_008, 21_008, "missing"]]));
    assert_eq!(scene.counters().gaps, 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// A sender that continues at any place, repeats itself, and lies.
    #[test]
    fn every_captured_byte_is_in_its_stream_or_counted(
        steps in prop::collection::vec((0..2_usize, 0..8_u8, 1..400_usize, any::<u32>()), 1..40),
    ) {
        let mut scene = Scene::new(FlowOptions::default());
        let mut talk = Talk::new(1, 2_000);
        scene.send_all(talk.open());
        for (side, what, len, number) in steps {
            let data = vec![number.to_le_bytes()[0]; len];
            match what {
                // Bytes that were not captured, a few or very many of them.
                0 => talk.next[side] = talk.next[side].wrapping_add(number % 5_000),
                1 => talk.next[side] = talk.next[side].wrapping_add(number),
                // Bytes of another connection, or bytes that were sent again and cut when captured.
                2 => {
                    let mut other = talk.clone();
                    other.next[side] = number;
                    scene.send(&other.segment(side, ACK, &data));
                }
                3 => {
                    let mut again = talk.clone();
                    again.next[side] = again.next[side].wrapping_sub(number % 500);
                    let frame = again.segment(side, ACK, &data);
                    let captured = frame.len() - len / 2;
                    scene.send_cut(&frame, captured);
                }
                _ => {
                    let frame = talk.segment(side, ACK, &data);
                    scene.send(&frame);
                }
            }
        }
        scene.send_all(talk.close());
        scene.settle();
        scene.end();
        let mut gaps = 0;
        for id in scene.ids() {
            let meta = scene.meta(id);
            every_byte_is_somewhere(&meta);
            gaps += ["client", "server"].map(|side| meta[side]["gaps"].as_array().unwrap().len())
                .iter().sum::<usize>();
        }
        assert_eq!(scene.counters().gaps, gaps as u64);
    }
}
