//! Urgent data, which programs do not receive in the stream.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

use capture::flow::{Application, File, FlowOptions, Log};
use proptest::prelude::*;
use protocol::tcp::Urgent;
use serde_json::{Value, json};

use crate::scene::*;

const URG: u8 = 32;

/// A frame whose urgent pointer covers `pointer` bytes from its first one.
fn until(mut frame: Vec<u8>, pointer: u16) -> Vec<u8> {
    frame[47] |= URG;
    frame[52..54].copy_from_slice(&pointer.to_be_bytes());
    frame
}

fn with(urgent: Urgent) -> Scene {
    Scene::new(FlowOptions { urgent, ..free() })
}

/// Ends the only flow. Returns its client's stream and its `meta.json`, which must count every
/// captured byte.
#[track_caller]
fn ended(scene: &mut Scene) -> (Vec<u8>, Value) {
    scene.settle();
    scene.end();
    let [id] = scene.ids()[..] else { panic!("{:?}", scene.ids()) };
    let meta = scene.meta(id);
    let client = &meta["client"];
    let of = |field: &str| client[field].as_u64().unwrap();
    let counted = ["repeated_bytes", "late_bytes", "rejected_bytes", "urgent_bytes"].map(of);
    let counted: u64 = counted.iter().sum();
    assert_eq!(client["gaps"], json!([]), "{meta}");
    assert_eq!(of("captured_bytes"), of("stream_bytes") + counted, "{meta}");
    (scene.file(id, File::Client), meta)
}

#[test]
fn urgent_bytes_are_in_the_stream_only_on_request() {
    for urgent in [Urgent::OutOfBand, Urgent::Inline] {
        let mut scene = with(urgent);
        let mut talk = Talk::new(1, 2_000);
        scene.send_all(talk.open());
        scene.send_all(talk.says(CLIENT, b"GET /malic", 1_000));
        let x = until(talk.segment(CLIENT, ACK, b"X"), 1);
        scene.send(&x);
        scene.send(&talk.segment(SERVER, ACK, b""));
        // The same segment again.
        scene.send(&x);
        scene.send_all(talk.says(CLIENT, b"ious HTTP/1.1\r\nHost: test\r\n\r\n", 10));
        scene.send_all(talk.says(SERVER, &ok(b"body"), 1_000));
        scene.send_all(talk.close());
        let (client, meta) = ended(&mut scene);
        let (wanted, count) = match urgent {
            Urgent::OutOfBand => ("GET /malicious HTTP/1.1\r\nHost: test\r\n\r\n", 2),
            Urgent::Inline => ("GET /malicXious HTTP/1.1\r\nHost: test\r\n\r\n", 0),
        };
        assert_eq!(String::from_utf8_lossy(&client), wanted);
        assert_eq!(meta["client"]["urgent_bytes"], count, "{meta}");
        assert_eq!(meta["state"], "closed", "{meta}");
        let log = scene.log(Log::Lines(Application::Http));
        assert_eq!((&log[0]["status"], &log[0]["state"]), (&json!(200), &json!("complete")));
        assert_eq!(log[0]["target"], wanted.split(' ').nth(1).unwrap());
    }
}

#[test]
fn urgent_data_may_be_announced_before_it_comes() {
    let mut scene = with(Urgent::OutOfBand);
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    scene.send(&until(talk.segment(CLIENT, ACK, b"abc"), 5));
    scene.send(&until(talk.segment(CLIENT, ACK, b"d!ef"), 2));
    // Both sides acknowledge the end.
    scene.send_all(talk.close());
    let (client, meta) = ended(&mut scene);
    assert_eq!((client, &meta["state"]), (b"abcdef".to_vec(), &json!("closed")));
}

#[test]
fn bytes_settled_before_they_were_known_to_be_urgent_stay() {
    let mut scene = with(Urgent::OutOfBand);
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    let late = until(talk.segment(CLIENT, ACK, b"abc"), 3);
    scene.send_all(talk.says(CLIENT, b"def", 1_000));
    scene.send(&late);
    scene.send_all(talk.close());
    assert_eq!(ended(&mut scene).0, b"abcdef");
}

#[test]
fn a_connection_joined_in_the_middle_has_urgent_data_too() {
    let mut scene = with(Urgent::OutOfBand);
    let mut talk = Talk::new(1, 2_000);
    scene.send(&until(talk.segment(CLIENT, ACK, b"abc!"), 4));
    scene.send_all(talk.says(CLIENT, b"def", 1_000));
    scene.send(&talk.segment(SERVER, ACK, b""));
    assert_eq!(ended(&mut scene).0, b"abcdef");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Segments, some of which end in an urgent byte and come again, alone or together.
    #[test]
    fn streams_are_the_bytes_without_urgent_ones(
        segments in prop::collection::vec((1..40_usize, any::<bool>(), 0..3_usize), 1..60),
        numbers in any::<[u32; 2]>(),
    ) {
        let mut scene = with(Urgent::OutOfBand);
        let mut talk = Talk::new(1, 2_000);
        talk.next = numbers;
        scene.send_all(talk.open());
        let (begin, mut wanted, mut all) = (talk.next, Vec::<u8>::new(), Vec::<u8>::new());
        for (index, (len, is_urgent, again)) in segments.into_iter().enumerate() {
            let data = vec![index as u8 + 1; len];
            let frame = talk.segment(CLIENT, ACK, &data);
            all.extend(&data);
            wanted.extend(&data[usize::from(is_urgent)..]);
            scene.send(&if is_urgent { until(frame, len as u16) } else { frame });
            scene.send(&talk.segment(SERVER, ACK, b""));
            if again > 0 {
                let from = all.len().saturating_sub(30 * again);
                let number = begin[CLIENT].wrapping_add(from as u32);
                let numbers = (number, talk.next[SERVER]);
                scene.send(&tcp(talk.client, talk.port, true, numbers, ACK, &all[from..]));
            }
        }
        scene.send_all(talk.close());
        let (client, meta) = ended(&mut scene);
        prop_assert_eq!(client, wanted);
        prop_assert_eq!(&meta["state"], "closed");
    }
}
