//! Acknowledgments whose length includes the padding of their frame.

use capture::flow::{Application, File, FlowOptions, Log};
use protocol::tcp::Policy;
use serde_json::json;

use crate::scene::*;

/// An acknowledgment with `zeros` zeros, which its sender does not count.
fn padded(talk: &Talk, side: usize, zeros: usize) -> Vec<u8> {
    let numbers = (talk.next[side], talk.next[1 - side]);
    tcp(talk.client, talk.port, side == CLIENT, numbers, ACK, &vec![0; zeros])
}

fn with(policy: Policy) -> Scene {
    Scene::new(FlowOptions { policy, ..free() })
}

/// Checks the streams, and that each captured byte is in one of them or counted.
#[track_caller]
fn check(scene: &mut Scene, client: &[u8], server: &[u8]) {
    scene.settle();
    scene.end();
    let id = scene.ids()[0];
    let meta = scene.meta(id);
    let sides = [("client", File::Client, client), ("server", File::Server, server)];
    for (name, file, wanted) in sides {
        assert_eq!(scene.file(id, file), wanted, "{meta}");
        let of = |field: &str| meta[name][field].as_u64().unwrap();
        assert_eq!(meta[name]["gaps"], json!([]), "{meta}");
        let counted = of("repeated_bytes") + of("late_bytes") + of("rejected_bytes");
        assert_eq!(of("captured_bytes"), of("stream_bytes") + counted, "{meta}");
    }
    assert_eq!(scene.counters().overlap_conflicts, 0);
}

#[test]
fn padding_is_not_payload() {
    for policy in [Policy::First, Policy::Last] {
        let mut scene = with(policy);
        let mut talk = Talk::new(1, 2_000);
        scene.send_all(talk.open());
        for turn in 0..3 {
            scene.send(&padded(&talk, CLIENT, 2));
            scene.send_all(talk.says(CLIENT, &get(&format!("/{turn}")), 1_000));
            scene.send(&padded(&talk, SERVER, 6));
            scene.send(&padded(&talk, SERVER, 1));
            scene.send_all(talk.says(SERVER, &ok(b"body"), 1_000));
        }
        scene.send(&padded(&talk, CLIENT, 2));
        scene.send_all(talk.close());
        let [client, server] = talk.sent.clone();
        check(&mut scene, &client, &server);
        for line in scene.log(Log::Lines(Application::Http)) {
            let all = (&line["status"], &line["state"], &line["why"]);
            assert_eq!(all, (&json!(200), &json!("complete"), &json!(null)), "{line}");
        }
    }
}

#[test]
fn padding_over_earlier_bytes_proves_nothing() {
    for policy in [Policy::First, Policy::Last] {
        let mut scene = with(policy);
        let mut talk = Talk::new(1, 2_000);
        scene.send_all(talk.open());
        // Other segments overtook it.
        let late = padded(&talk, CLIENT, 4);
        scene.send_all(talk.says(CLIENT, b"hello", 1_000));
        scene.send(&late);
        scene.send(&talk.segment(SERVER, ACK, b""));
        check(&mut scene, b"hello", b"");
    }
}

#[test]
fn a_connection_may_begin_with_padding() {
    let mut scene = with(Policy::First);
    let mut talk = Talk::new(1, 2_000);
    scene.send(&padded(&talk, CLIENT, 6));
    scene.send_all(talk.says(CLIENT, b"hello", 1_000));
    scene.send(&talk.segment(SERVER, ACK, b""));
    check(&mut scene, b"hello", b"");
}

#[test]
fn zeros_that_were_sent_are_data() {
    // Evidence that they were sent: more data, the receiver's acknowledgment, the next segment
    // without data, a FIN.
    for shown in 0..4 {
        let mut scene = with(Policy::First);
        let mut talk = Talk::new(1, 2_000);
        scene.send_all(talk.open());
        scene.send(&talk.segment(CLIENT, ACK, &[0; 4]));
        match shown {
            0 => scene.send_all(talk.says(CLIENT, b"more", 1_000)),
            1 => scene.send(&talk.segment(SERVER, ACK, b"")),
            2 => scene.send(&talk.segment(CLIENT, ACK, b"")),
            _ => scene.send(&talk.segment(CLIENT, ACK | FIN, b"")),
        }
        let client = talk.sent[CLIENT].clone();
        check(&mut scene, &client, b"");
    }
}

#[test]
fn one_unexplained_byte_is_a_keep_alive() {
    for zeros in [1, 2] {
        let mut scene = with(Policy::First);
        let talk = Talk::new(1, 2_000);
        scene.send(&padded(&talk, CLIENT, zeros));
        let wanted: &[u8] = if zeros == 1 { b"\0" } else { b"" };
        check(&mut scene, wanted, b"");
    }
}

#[test]
fn padding_hides_no_gap() {
    let mut scene = with(Policy::First);
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    scene.send(&padded(&talk, CLIENT, 2));
    // Not captured.
    let _ = talk.segment(CLIENT, ACK, b"lost");
    scene.send_all(talk.says(CLIENT, b"and on", 1_000));
    scene.send(&talk.segment(SERVER, ACK, b""));
    scene.settle();
    scene.end();
    assert_eq!(scene.file(1, File::Client), b"\0\0\0\0and on");
    assert_eq!(scene.meta(1)["client"]["gaps"], json!([[0, 4, "missing"]]));
}
